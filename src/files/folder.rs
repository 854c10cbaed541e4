//! The folder on the disk: made, tidied and opened at the start, with the secret in it.
//!
//! The only file of this room that knows that objects are files.

use std::io;
use std::path::Path as FilePath;

use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload};

use super::FilesError;
use super::index::{HOSTED, PARTS};
use super::name::random;
use super::ticket::SECRET_BYTES;

/// Object that holds the secret behind tickets.
pub(super) const KEY: &str = "key";

/// Makes the folder, for this user only, and removes what a crash left half written in it. What is
/// written through it is not synced.
pub(super) fn open_folder(folder: &FilePath) -> Result<LocalFileSystem, String> {
    let said = |error: io::Error| error.to_string();
    let mut maker = std::fs::DirBuilder::new();
    maker.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        maker.mode(0o700);
    }
    for name in [HOSTED, PARTS] {
        let folder = folder.join(name);
        maker.create(&folder).map_err(said)?;
        for entry in std::fs::read_dir(&folder).map_err(said)? {
            let path = entry.map_err(said)?.path();
            // `object_store` writes under the final name with a number behind a `#`.
            if path.to_string_lossy().contains('#') {
                std::fs::remove_file(&path).map_err(said)?;
            }
        }
    }
    LocalFileSystem::new_with_prefix(folder).map_err(|error| error.to_string())
}

/// The secret behind tickets: the stored one, or a fresh one that is stored.
pub(super) async fn secret(objects: &LocalFileSystem) -> Result<[u8; SECRET_BYTES], FilesError> {
    let path = Path::from(KEY);
    // Nothing is written when it is there, so that a full disk does not stop the start.
    match objects.get(&path).await {
        Ok(stored) => {
            let stored = stored.bytes().await?;
            let secret = <[u8; SECRET_BYTES]>::try_from(stored.as_ref());
            return secret.map_err(|_| {
                FilesError::Storage(format!(
                    "{KEY} is not a key of this program; move it away to have a new one made"
                ))
            });
        }
        Err(object_store::Error::NotFound { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let fresh: [u8; SECRET_BYTES] = random()?;
    let payload = PutPayload::from(fresh.to_vec());
    let created = objects.put_opts(&path, payload, PutMode::Create.into());
    created.await?;
    Ok(fresh)
}
