//! What is said to the hub about files: the question what a file is, and the answers to it.
//!
//! We ask it ourselves: hf-hub's `get_file_metadata` follows the redirect to the storage host, whose
//! answer lacks the commit and the checksum that the hub's own answer carried. Retries are ours too,
//! so that there is one policy. The bytes come next door ([`super::body`]). Contacts the configured
//! endpoint and, for bytes, the hosts to which it redirects; nobody else.

use std::time::Duration;

use hf_hub::{HFClient, HFError};
use reqwest::header::{self, HeaderMap};
use url::Url;

use super::FetchModelError;
use super::cache::is_plain_name;
use super::settings::HubSettings;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the hub may be silent, before its answer or within a body.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Attempts at one question before the hub counts as unreachable.
pub(super) const ATTEMPTS: u32 = 4;
/// Pause before the second attempt; doubled before each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
/// Redirects within the hub (a repository that was renamed, another spelling of its name).
const MAX_REDIRECTS: usize = 5;
/// Characters of a server's own words that are repeated to the user.
const MAX_DETAIL: usize = 200;

/// A repository on the hub, and who we are to it.
pub(super) struct Hub {
    pub(super) settings: HubSettings,
    repository: String,
    http: reqwest::Client,
    /// Follows redirects, and leaves the token behind where they lead to another host.
    pub(super) following: reqwest::Client,
    pub(super) model: hf_hub::repository::HFRepository<hf_hub::repository::RepoTypeModel>,
}

/// What the hub says about one file.
#[derive(Clone, Debug)]
pub(super) struct FileMeta {
    /// Name in the repository.
    pub(super) name: String,
    /// The commit that the revision stands for.
    pub(super) commit: String,
    /// Checksum, or something else that names the content.
    pub(super) etag: String,
    /// Length in bytes.
    pub(super) bytes: u64,
}

/// The answer to "what is this file?".
pub(super) enum Answer {
    /// It is this.
    Found(FileMeta),
    /// There is no such file.
    Absent,
}

/// A failed request: worth another attempt, or not.
pub(super) enum Fault {
    /// The network, or a server in trouble.
    Transient(String),
    /// The server does not serve the range that was asked for; what it did instead.
    Range(String),
    /// The answer will not get better.
    Final(FetchModelError),
}

impl Hub {
    /// Prepares to talk about `owner/name`; contacts nobody yet.
    pub(super) fn new(settings: HubSettings, repository: &str) -> Result<Self, FetchModelError> {
        let broken = |reason: String| FetchModelError::Unreachable {
            endpoint: shown(&settings.endpoint),
            repository: repository.to_owned(),
            reason,
        };
        let client = || {
            reqwest::Client::builder()
                .user_agent(concat!("florence2-server/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(CONNECT_TIMEOUT)
                .read_timeout(READ_TIMEOUT)
        };
        let http = client()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| broken(chain(&error)))?;
        let following = client().build().map_err(|error| broken(chain(&error)))?;
        let mut builder = HFClient::builder()
            .endpoint(settings.endpoint.as_str())
            .cache_dir(&settings.cache_dir)
            .client(following.clone())
            .retry_max_attempts(0);
        if let Some(token) = &settings.token {
            builder = builder.token(token);
        }
        let client = builder.build().map_err(|error| broken(error.to_string()))?;
        let (owner, name) = hf_hub::split_id(repository);
        let model = client.model(owner, name);
        Ok(Self {
            settings,
            repository: repository.to_owned(),
            http,
            following,
            model,
        })
    }

    /// What `file` is at `revision`, asked again when the hub is in trouble.
    pub(super) async fn ask(&self, revision: &str, file: &str) -> Result<Answer, FetchModelError> {
        let mut attempt = 1;
        loop {
            match self.ask_once(revision, file).await {
                Ok(answer) => return Ok(answer),
                Err(Fault::Final(error)) => return Err(error),
                Err(Fault::Transient(_) | Fault::Range(_)) if attempt < ATTEMPTS => {
                    pause(attempt).await;
                    attempt += 1;
                }
                Err(Fault::Transient(reason) | Fault::Range(reason)) => {
                    return Err(self.unreachable(reason));
                }
            }
        }
    }

    async fn ask_once(&self, revision: &str, file: &str) -> Result<Answer, Fault> {
        let mut url = self.address(revision, file)?;
        for _ in 0..=MAX_REDIRECTS {
            let mut request = self
                .http
                .head(url.clone())
                .header(header::ACCEPT_ENCODING, "identity");
            if let Some(token) = &self.settings.token {
                request = request.bearer_auth(token);
            }
            let response = request
                .send()
                .await
                .map_err(|error| Fault::Transient(chain(&error.without_url())))?;
            let (status, headers) = (response.status().as_u16(), response.headers());
            if (200..300).contains(&status) {
                return self.read_meta(headers, file).map(Answer::Found);
            }
            if !(300..400).contains(&status) {
                return self.read_refusal(status, headers, revision, file);
            }
            // A redirect to the storage host carries the metadata; one within the hub does not.
            if text(headers, "x-repo-commit").is_some() {
                return self.read_meta(headers, file).map(Answer::Found);
            }
            let next = text(headers, "location").and_then(|location| url.join(&location).ok());
            match next.filter(|next| next.origin() == self.settings.endpoint.origin()) {
                Some(next) => url = next,
                None => {
                    return Err(
                        self.not_a_hub(file, format!("HTTP {status} without X-Repo-Commit"))
                    );
                }
            }
        }
        Err(self.not_a_hub(file, format!("more than {MAX_REDIRECTS} redirects")))
    }

    pub(super) fn address(&self, revision: &str, file: &str) -> Result<Url, Fault> {
        let mut url = self.settings.endpoint.clone();
        match url.path_segments_mut() {
            Ok(mut path) => {
                path.pop_if_empty();
                path.extend(self.repository.split('/'));
                path.extend(["resolve", revision]);
                path.extend(file.split('/'));
            }
            Err(()) => {
                let endpoint = self.endpoint();
                return Err(Fault::Final(FetchModelError::BadEndpoint { endpoint }));
            }
        }
        Ok(url)
    }

    fn read_meta(&self, headers: &HeaderMap, file: &str) -> Result<FileMeta, Fault> {
        let need = |names: [&str; 2]| {
            let found = names.iter().find_map(|name| text(headers, name));
            found.ok_or_else(|| {
                self.not_a_hub(file, format!("an answer without {}", names.join(" or ")))
            })
        };
        let commit = need(["x-repo-commit", "x-repo-commit"])?;
        let etag = need(["x-linked-etag", "etag"])?;
        let etag = etag
            .strip_prefix("W/")
            .unwrap_or(&etag)
            .trim_matches('"')
            .to_owned();
        let bytes = need(["x-linked-size", "content-length"])?;
        let bytes = bytes
            .parse()
            .map_err(|_| self.not_a_hub(file, format!("a length of {bytes:?}")))?;
        for name in [&commit, &etag] {
            if !is_plain_name(name) {
                return Err(self.not_a_hub(file, format!("a commit or etag of {name:?}")));
            }
        }
        Ok(FileMeta {
            name: file.to_owned(),
            commit,
            etag,
            bytes,
        })
    }

    fn read_refusal(
        &self,
        status: u16,
        headers: &HeaderMap,
        revision: &str,
        file: &str,
    ) -> Result<Answer, Fault> {
        let code = text(headers, "x-error-code").unwrap_or_default();
        let detail = text(headers, "x-error-message").unwrap_or_default();
        if is_transient(status) {
            return Err(Fault::Transient(format!("HTTP {status}")));
        }
        let repository = self.repository.clone();
        Err(Fault::Final(match (status, code.as_str()) {
            (401 | 404, "RepoNotFound") => FetchModelError::NoRepository {
                endpoint: self.endpoint(),
                repository,
                detail,
            },
            (404, "RevisionNotFound") => FetchModelError::NoRevision {
                repository,
                revision: revision.to_owned(),
            },
            (404, _) => return Ok(Answer::Absent),
            (401 | 403, _) => FetchModelError::Refused {
                endpoint: self.endpoint(),
                repository,
                status,
                detail,
                token_sent: self.settings.token.is_some(),
            },
            _ => return Err(self.not_a_hub(file, format!("HTTP {status}"))),
        }))
    }

    /// The hub's address, for messages.
    pub(super) fn endpoint(&self) -> String {
        self.settings
            .endpoint
            .as_str()
            .trim_end_matches('/')
            .to_owned()
    }

    /// The repository, for messages.
    pub(super) fn repository(&self) -> &str {
        &self.repository
    }

    fn unreachable(&self, reason: String) -> FetchModelError {
        let (endpoint, repository) = (self.endpoint(), self.repository.clone());
        FetchModelError::Unreachable {
            endpoint,
            repository,
            reason,
        }
    }

    pub(super) fn not_a_hub(&self, file: &str, reason: String) -> Fault {
        Fault::Final(FetchModelError::NotAHub {
            endpoint: self.endpoint(),
            repository: self.repository.clone(),
            file: file.to_owned(),
            reason,
        })
    }
}

/// An address without the credentials that it may contain.
fn shown(endpoint: &Url) -> String {
    let port = endpoint
        .port()
        .map(|port| format!(":{port}"))
        .unwrap_or_default();
    let (scheme, host) = (endpoint.scheme(), endpoint.host_str().unwrap_or_default());
    format!(
        "{scheme}://{host}{port}{}",
        endpoint.path().trim_end_matches('/')
    )
}

/// Waits before the attempt after `attempt`, longer each time.
pub(super) async fn pause(attempt: u32) {
    let factor = 1 << attempt.saturating_sub(1).min(16);
    tokio::time::sleep((FIRST_PAUSE * factor).min(LONGEST_PAUSE)).await;
}

/// Statuses of a server that may do better in a moment.
pub(super) fn is_transient(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500..=599)
}

/// A header as cleaned text.
pub(super) fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?;
    Some(if name == "location" {
        value.to_owned()
    } else {
        clean(value)
    })
}

/// A server's words without control characters and of bounded length.
pub(super) fn clean(words: &str) -> String {
    words
        .chars()
        .filter(|c| !c.is_control())
        .take(MAX_DETAIL)
        .collect::<String>()
        .trim()
        .to_owned()
}

/// A failure of the stream in words, without the address: a storage host's one is signed.
pub(super) fn describe(error: HFError) -> String {
    clean(&match error {
        HFError::Request { source, .. } => chain(&source.without_url()),
        other => chain(&other),
    })
}

/// An error with its causes: reqwest keeps the reason (refused, timed out) in the last of them.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let next = cause.to_string();
        if !words.contains(&next) {
            words = format!("{words}: {next}");
        }
        source = cause.source();
    }
    words
}
