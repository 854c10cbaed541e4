//! From the name of a model to a folder with a complete checkpoint.
//!
//! A name is `demo` ([`bundled`]), a folder, or a hub repository `owner/name`. Hub files
//! go through the cache that Python's `huggingface_hub` uses ([`cache`]); every file that we fetch
//! is checked before it is believed ([`download`]); which files are needed says [`listing`].
//! This runs only when a command asks for it, contacts no host but the hub, and with `offline`
//! none at all.

mod body;
mod bundled;
mod cache;
mod digest;
mod download;
mod error;
mod folder_hint;
mod hub;
mod listing;
mod progress;
mod settings;
mod snapshot;

use std::path::{Path, PathBuf};

pub(crate) use error::FetchModelError;
use listing::FolderFault;
use progress::Progress;
use snapshot::Repository;

/// The name that stands for the bundled checkpoint.
const BUNDLED: &str = "demo";
/// Longest name of a repository that hubs allow.
const MAX_REPOSITORY_CHARS: usize = 96;

/// Which checkpoint is wanted, as the user said it.
#[derive(Clone, Debug)]
pub(crate) struct ModelSource {
    /// `demo`, a folder, or `owner/name`.
    pub(crate) model: String,
    /// Branch, tag or commit; used for hub repositories alone.
    pub(crate) revision: String,
    /// Use folders and the cache only.
    pub(crate) offline: bool,
}

/// A folder that holds a complete checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CheckpointFolder {
    /// The folder; in a hub cache, the snapshot of one commit.
    pub(crate) path: PathBuf,
    /// Names of the checkpoint's files in it, weights last.
    pub(crate) files: Vec<String>,
}

/// One file after all of it was read and compared with its checksum.
#[derive(Clone, Debug)]
pub(crate) struct VerifiedFile {
    /// Name in the checkpoint's folder.
    pub(crate) name: String,
    /// Its length.
    pub(crate) bytes: u64,
    /// Its SHA-256 in hex.
    pub(crate) sha256: String,
}

/// Finds the checkpoint, fetching what is missing. Cached files are trusted by name and length.
///
/// Blocks, and runs an async runtime of its own: not to be called from async code.
pub(crate) fn resolve(source: &ModelSource) -> Result<CheckpointFolder, FetchModelError> {
    match locate(&source.model)? {
        Place::Folder(path) => local(path),
        Place::Hub(repository) => Repository::new(&repository, &source.revision, source.offline)?
            .resolve(&Progress::new()),
    }
}

/// As [`resolve`], and then reads every file and compares it with its checksum. A damaged file of
/// the cache is fetched again, once.
pub(crate) fn resolve_and_verify(
    source: &ModelSource,
) -> Result<(CheckpointFolder, Vec<VerifiedFile>), FetchModelError> {
    match locate(&source.model)? {
        Place::Folder(path) => {
            let folder = local(path)?;
            let read = |name: &String| {
                let path = folder.path.join(name);
                let found =
                    digest::check(&path, None).map_err(FetchModelError::io("read", &path))?;
                Ok(VerifiedFile {
                    name: name.clone(),
                    bytes: found.bytes,
                    sha256: found.sha256,
                })
            };
            let files = folder.files.iter().map(read).collect::<Result<_, _>>()?;
            Ok((folder, files))
        }
        Place::Hub(repository) => Repository::new(&repository, &source.revision, source.offline)?
            .resolve_and_verify(&Progress::new()),
    }
}

/// What a name turned out to mean.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Folder(PathBuf),
    Hub(String),
}

fn locate(model: &str) -> Result<Place, FetchModelError> {
    if model == BUNDLED {
        return bundled::folder().map(Place::Folder);
    }
    if Path::new(model).is_dir() {
        return Ok(Place::Folder(PathBuf::from(model)));
    }
    if is_repository(model) && !Path::new(model).exists() {
        return Ok(Place::Hub(model.to_owned()));
    }
    if model.contains(['/', '\\']) || model.starts_with(['.', '~']) {
        return Err(FetchModelError::NoSuchFolder(model.to_owned()));
    }
    Err(FetchModelError::BadName(model.to_owned()))
}

/// Whether `text` has the form `owner/name` under the hub's rules for names.
fn is_repository(text: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with(['-', '.'])
            && !part.ends_with(['-', '.'])
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    text.len() <= MAX_REPOSITORY_CHARS
        && !text.contains("--")
        && !text.contains("..")
        && text
            .split_once('/')
            .is_some_and(|(owner, name)| part(owner) && part(name))
}

/// A folder that the user named, or that came with the program.
fn local(path: PathBuf) -> Result<CheckpointFolder, FetchModelError> {
    match listing::in_folder(&path) {
        Ok(files) => Ok(CheckpointFolder { path, files }),
        Err(FolderFault::Missing(file)) => {
            let hint = folder_hint::hint(&path, &file);
            let folder = path;
            Err(FetchModelError::FolderIncomplete { folder, file, hint })
        }
        Err(FolderFault::Index(fault)) => Err(FetchModelError::BadIndex {
            model: path.display().to_string(),
            fault,
        }),
        Err(FolderFault::Io(error)) => Err(FetchModelError::io("read", path.join(listing::INDEX))(
            error,
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_hubs_form_are_repositories_and_paths_never_are() {
        for hub in [
            "microsoft/Florence-2-large",
            "florence-community/Florence-2-base-ft",
            "a/b.c_d-9",
        ] {
            assert_eq!(locate(hub).unwrap(), Place::Hub(hub.to_owned()));
        }
        for path in [
            "./here/there",
            "/no/such",
            "../up",
            "a/b/c",
            "a/",
            "~/x",
            "dir\\model",
            "a/..",
            "-a/b",
            "a/b--c",
        ] {
            assert!(
                matches!(locate(path), Err(FetchModelError::NoSuchFolder(_))),
                "{path}"
            );
        }
        for word in ["Florence-2-large", "", "ab c"] {
            assert!(
                matches!(locate(word), Err(FetchModelError::BadName(_))),
                "{word}"
            );
        }
    }

    #[test]
    fn an_existing_folder_is_used_as_it_is_and_a_gap_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str| std::fs::write(folder.path().join(name), "{}").unwrap();
        let source = ModelSource {
            model: folder.path().to_str().unwrap().to_owned(),
            revision: "main".to_owned(),
            offline: false,
        };
        put("config.json");
        put("tokenizer.json");
        let fault = resolve(&source).unwrap_err().to_string();
        assert!(
            fault.contains("model.safetensors") && fault.contains(&source.model),
            "{fault}"
        );
        put("model.safetensors");
        assert_eq!(resolve(&source).unwrap().path, folder.path());
    }
}
