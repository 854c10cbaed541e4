//! Why a checkpoint could not be had: each sentence names the repository or file and the remedy.
//!
//! Texts that a server sent are shortened and cleaned before they get here. A token is never part
//! of any of them.

use std::io;
use std::path::PathBuf;

use super::listing::IndexError;

/// Why there is no checkpoint folder.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchModelError {
    /// The name looks like a path, and there is no such folder.
    #[error("there is no folder {0:?}; give an existing folder, or a hub repository as owner/name")]
    NoSuchFolder(String),
    /// Neither a folder nor the form of a repository's name.
    #[error("{0:?} is neither a folder nor a hub repository; give a folder, or owner/name")]
    BadName(String),
    /// The revision cannot be a branch, tag or commit.
    #[error("{0:?} is not a revision; give a branch, a tag or a commit hash")]
    BadRevision(String),
    /// A local folder lacks a file.
    #[error("{} has no {file}{hint}", .folder.display())]
    FolderIncomplete {
        /// The folder that was given.
        folder: PathBuf,
        /// What is missing.
        file: String,
        /// What the folder is instead, and what to do.
        hint: String,
    },
    /// The repository lacks a file.
    #[error(
        "{endpoint} has no {file} in {repository} at revision {revision}; check the repository's name and --revision, and that it holds a Florence-2 checkpoint"
    )]
    FileAbsent {
        /// The hub's address.
        endpoint: String,
        /// `owner/name`.
        repository: String,
        /// What was asked for.
        revision: String,
        /// What is missing.
        file: String,
    },
    /// Weight index that cannot be used.
    #[error(
        "{} of {model} cannot be used: {fault}{}",
        super::listing::INDEX,
        fault.remedy()
    )]
    BadIndex {
        /// Repository or folder.
        model: String,
        /// What is wrong with it.
        fault: IndexError,
    },
    /// `HF_ENDPOINT` is no address.
    #[error(
        "HF_ENDPOINT is {endpoint:?}, which is not an http:// or https:// address; correct it, or unset it for the public hub"
    )]
    BadEndpoint {
        /// The value found.
        endpoint: String,
    },
    /// The hub refuses us this repository.
    #[error("{endpoint} refuses {repository} (HTTP {status}{}); if it is gated, accept its terms on its page, and set HF_TOKEN to a token that may read it{}; a model that is in the cache starts with --offline", clause(.detail), hint(.token_sent))]
    Refused {
        /// The hub's address.
        endpoint: String,
        /// `owner/name`.
        repository: String,
        /// 401 or 403.
        status: u16,
        /// The hub's own words.
        detail: String,
        /// Whether a token was sent.
        token_sent: bool,
    },
    /// No such repository, or not for us.
    #[error("{endpoint} has no model repository {repository}{}; check the name, or set HF_TOKEN if it is private", clause(.detail))]
    NoRepository {
        /// The hub's address.
        endpoint: String,
        /// `owner/name`.
        repository: String,
        /// The hub's own words.
        detail: String,
    },
    /// No such branch, tag or commit.
    #[error("{repository} has no revision {revision:?}; check --revision")]
    NoRevision {
        /// `owner/name`.
        repository: String,
        /// What was asked for.
        revision: String,
    },
    /// Offline, and not everything is in the cache.
    #[error("{repository} at {revision} is not complete in the cache {} ({file} is missing) and --offline (or HF_HUB_OFFLINE, TRANSFORMERS_OFFLINE) forbids the network; run `florence2-server pull {repository}` online first", .cache.display())]
    NotCached {
        /// `owner/name`.
        repository: String,
        /// What was asked for.
        revision: String,
        /// What is missing.
        file: String,
        /// The cache folder.
        cache: PathBuf,
    },
    /// The hub did not answer, or answered as a broken server does.
    #[error(
        "{endpoint} cannot be reached for {repository}: {reason}; {}, or run once online and then with --offline", network_advice(.reason)
    )]
    Unreachable {
        /// The hub's address.
        endpoint: String,
        /// `owner/name`.
        repository: String,
        /// The last failure.
        reason: String,
    },
    /// Something answered that is not a hub.
    #[error(
        "{endpoint} does not answer as a model hub does: {reason} for {file} of {repository}; check HF_ENDPOINT, and that no proxy or login page stands between; a model that is in the cache starts with --offline"
    )]
    NotAHub {
        /// The hub's address.
        endpoint: String,
        /// `owner/name`.
        repository: String,
        /// The file asked for.
        file: String,
        /// What was wrong.
        reason: String,
    },
    /// The file could not be fetched whole in the allowed number of attempts.
    #[error(
        "{file} of {repository} could not be downloaded: {reason}; {}run the command again to go on where it stopped", certificate_advice(.reason)
    )]
    Interrupted {
        /// `owner/name`.
        repository: String,
        /// The file.
        file: String,
        /// The last failure.
        reason: String,
    },
    /// What came is not what the hub promised.
    #[error(
        "{file} of {repository} is not what the hub promised: {reason}; nothing of it was kept; try again later, or check for a proxy that alters downloads"
    )]
    Corrupt {
        /// `owner/name`.
        repository: String,
        /// The file.
        file: String,
        /// How it differs.
        reason: String,
    },
    /// A cached file is damaged and may not be fetched again.
    #[error("{} is damaged: its content does not match its checksum; run `pull` without --offline to fetch it again", .path.display())]
    CacheDamaged {
        /// The file in the snapshot.
        path: PathBuf,
    },
    /// Another process holds the lock and does nothing.
    #[error("another process holds {} and its download has not grown for {minutes} minutes; stop that process, or wait for it and try again", .lock.display())]
    LockStalled {
        /// The lock file.
        lock: PathBuf,
        /// How long nothing happened.
        minutes: u64,
    },
    /// The disk or the operating system refused.
    #[error("cannot {action} {}: {source}; check space and permissions{remedy}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The refusal.
        source: io::Error,
        /// `, or …`: what moves the path elsewhere, where something does.
        remedy: &'static str,
    },
}

impl FetchModelError {
    /// For `map_err`: what was tried on which path of the cache. The variable that is named is the one
    /// that no other overrules.
    pub(super) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        Self::io_with(
            action,
            path,
            ", or set HF_HUB_CACHE to a folder that can be written",
        )
    }

    /// As [`Self::io`], for a path that other settings move, or none.
    pub(super) fn io_with(
        action: &'static str,
        path: impl Into<PathBuf>,
        remedy: &'static str,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            action,
            path,
            source,
            remedy,
        }
    }

    /// The sentence behind the flag, or what stands for it, whose value is at fault. `model` is where the
    /// model's name came from; none says no more than the sentence.
    pub(crate) fn about(&self, model: Option<&str>) -> String {
        let flag = match self {
            Self::NoSuchFolder(_)
            | Self::BadName(_)
            | Self::FolderIncomplete { .. }
            | Self::FileAbsent { .. }
            | Self::BadIndex { .. }
            | Self::NoRepository { .. } => model,
            Self::BadRevision(_) => Some("--revision"),
            _ => None,
        };
        flag.map_or_else(|| self.to_string(), |flag| format!("{flag}: {self}"))
    }

    /// Whether a complete cache is as good as ever after this: something else than the hub answered, or
    /// nothing did, or the cache cannot take what is new. What the hub itself says about the repository's
    /// content is to be heard.
    pub(super) fn leaves_the_cache_good(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::Interrupted { .. }
                | Self::NotAHub { .. }
                | Self::Refused { .. }
                | Self::NoRepository { .. }
                | Self::LockStalled { .. }
                | Self::Io { .. }
        )
    }
}

fn network_advice(reason: &str) -> &'static str {
    match certificate_advice(reason) {
        "" => "check the network and HF_ENDPOINT",
        _ => {
            "set SSL_CERT_FILE to a PEM file with the certificate of the authority that signs for this address"
        }
    }
}

/// What to do where the reason is a certificate that nobody here trusts.
fn certificate_advice(reason: &str) -> &'static str {
    if reason.contains("certificate") {
        "set SSL_CERT_FILE to a PEM file with the certificate of the authority that signs for this address; "
    } else {
        ""
    }
}

/// `: words`, or nothing.
fn clause(detail: &str) -> String {
    if detail.is_empty() {
        String::new()
    } else {
        format!(": {detail}")
    }
}

fn hint(token_sent: &bool) -> &'static str {
    if *token_sent {
        " (the present token does not suffice)"
    } else {
        " (none is set now)"
    }
}
