//! The handle to all hosted files: open, offer, read, save, sweep.
//!
//! Under `object_store`: `hosted/` holds the files, `parts/` what has arrived of larger ones, `key`
//! the secret behind upload tickets. Everything that is known beside that is in [`super::index`].
//! Cheap to clone.

use std::path::Path as FilePath;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use futures_util::stream::{BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{GetResult, ObjectStore, ObjectStoreExt, PutPayload};
use tokio::sync::Semaphore;

use super::folder::{KEY, open_folder, secret};
use super::index::{Index, Listed, OVERHEAD_BYTES, file_path};
use super::media::MediaType;
use super::name::{Access, FileId, Origin, StoredName, name_for};
use super::ticket::{Permission, Sealer};
use super::{
    Clock, Durability, FilesError, NewFile, PublicFile, UploadKind, UploadOffer, milliseconds,
};
use crate::config::FilesSettings;
use crate::image_io::{OwnFiles, OwnRead, PictureError};

/// How long an upload may take from its beginning. At the slowest body that the server accepts,
/// 500 MiB take a little more than two hours.
const UPLOAD_WINDOW: Duration = Duration::from_secs(3 * 3600);

/// How long a token for uploads is valid. Clients fetch a new one by themselves.
const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);

/// See the module's header.
#[derive(Clone)]
pub struct FileStore {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    /// What is written through it is synced.
    pub(super) objects: Arc<dyn ObjectStore>,
    /// The same objects; what is written through it is left to the system to write.
    unsynced: Arc<dyn ObjectStore>,
    pub(super) settings: FilesSettings,
    pub(super) places: Arc<Semaphore>,
    index: Mutex<Index>,
    /// Paths that could not be deleted yet.
    pub(super) undeleted: Mutex<Vec<String>>,
    sealer: Sealer,
    clock: Clock,
}

impl std::fmt::Debug for FileStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileStore")
            .field("settings", &self.inner.settings)
            .finish_non_exhaustive()
    }
}

/// A file on its way to whoever fetches it.
pub struct HostedFile {
    /// What to serve it as.
    pub media: MediaType,
    /// Who may have it. The caller of [`FileStore::get`] sees to that.
    pub access: Access,
    /// Its name.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Changes when the content does; in quotation marks.
    pub etag: Option<String>,
    /// The rest of its life.
    pub expires_in: Duration,
    /// The content.
    pub chunks: BoxStream<'static, Result<Bytes, FilesError>>,
}

impl std::fmt::Debug for HostedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostedFile")
            .field("media", &self.media)
            .field("access", &self.access)
            .field("name", &self.name)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl FileStore {
    /// Opens the folder, which is made when it is not there, and learns what is in it. Deletes what
    /// a crash left behind and what has expired.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub async fn open(
        folder: &FilePath,
        settings: FilesSettings,
        clock: Clock,
    ) -> Result<Self, FilesError> {
        let unusable = |cause: String| FilesError::Folder {
            folder: folder.display().to_string(),
            cause,
        };
        let opened = tokio::task::spawn_blocking({
            let folder = folder.to_owned();
            move || open_folder(&folder)
        });
        let unsynced = opened
            .await
            .map_err(|error| unusable(error.to_string()))?
            .map_err(&unusable)?;
        // A file whose upload was confirmed survives a power cut.
        let objects = unsynced.clone().with_fsync(true);
        let secret = secret(&objects)
            .await
            .map_err(|it| unusable(it.to_string()))?;
        let mut index = Index::new(settings.max_files_bytes);
        let mut superfluous = Vec::new();
        let mut listing = objects.list(None);
        while let Some(object) = listing
            .try_next()
            .await
            .map_err(|error| unusable(error.to_string()))?
        {
            let path = object.location.as_ref();
            match Listed::parse(path) {
                Some(Listed::File(name)) if name.is_cut_at(object.size) => {
                    superfluous.push(path.to_owned());
                }
                Some(Listed::File(name)) => {
                    superfluous.extend(index.insert_file(name, object.size))
                }
                Some(Listed::Part(name)) => {
                    superfluous.extend(index.insert_part(name, object.size))
                }
                None if path == KEY => {}
                None => tracing::warn!(path, "not one of this server's files; it stays"),
            }
        }
        let store = Self {
            inner: Arc::new(Inner {
                objects: Arc::new(objects),
                unsynced: Arc::new(unsynced),
                places: Arc::new(Semaphore::new(settings.max_uploads)),
                settings,
                index: Mutex::new(index),
                undeleted: Mutex::new(superfluous),
                sealer: Sealer::new(&secret),
                clock,
            }),
        };
        store.sweep().await;
        Ok(store)
    }

    /// An address to which a file may be sent without a key, and the address that it will have.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn offer(&self, file: &NewFile<'_>, kind: UploadKind) -> Result<UploadOffer, FilesError> {
        let name = self.name(file, Origin::Uploaded)?;
        let path = name.public_path();
        let permission = match kind {
            UploadKind::Whole => Permission::Whole(name),
            UploadKind::Parts => Permission::Parts(name),
        };
        let deadline_ms = self.now_ms().saturating_add(milliseconds(UPLOAD_WINDOW));
        let ticket = self.inner.sealer.seal(&permission, deadline_ms);
        Ok(UploadOffer { path, ticket })
    }

    /// A token with which files may be sent without a key, and how long it is valid.
    #[must_use]
    pub fn token(&self) -> (String, Duration) {
        let deadline_ms = self.now_ms().saturating_add(milliseconds(TOKEN_LIFETIME));
        let token = self.inner.sealer.seal(&Permission::Any, deadline_ms);
        (token, TOKEN_LIFETIME)
    }

    /// Whether a token is one of [`FileStore::token`]'s and still valid.
    #[must_use]
    pub fn accepts(&self, token: &str) -> bool {
        matches!(self.permission(token), Ok((Permission::Any, _)))
    }

    /// The file at an address.
    ///
    /// # Errors
    /// [`FilesError::NotFound`], also when its time is over or the name is not the file's.
    pub async fn get(&self, id: &str, name: &str) -> Result<HostedFile, FilesError> {
        let (stored, _) = self.find(id, name)?;
        let now_ms = self.now_ms();
        let got = self.object(&file_path(&stored)).await?;
        Ok(HostedFile {
            media: stored.media,
            access: stored.access,
            bytes: got.meta.size,
            etag: got.meta.e_tag.clone(),
            expires_in: Duration::from_millis(stored.expires_ms.saturating_sub(now_ms)),
            name: stored.name,
            chunks: got.into_stream().map_err(FilesError::from).boxed(),
        })
    }

    /// Keeps a drawn picture.
    ///
    /// # Errors
    /// When there is no room, or the store fails.
    pub async fn save_drawn(
        &self,
        file: &NewFile<'_>,
        content: Bytes,
        durability: Durability,
    ) -> Result<PublicFile, FilesError> {
        let mut name = self.name(file, Origin::Drawn)?;
        let bytes = content.len() as u64;
        name.unsynced_bytes = (durability == Durability::Unsynced).then_some(bytes);
        let mut room = self.room()?;
        room.grow(bytes)?;
        let path = Path::from(file_path(&name));
        let public = PublicFile {
            path: name.public_path(),
            name: name.name.clone(),
            bytes,
        };
        // On its own, so that a caller who leaves meanwhile leaves no file that nobody knows of.
        let store = self.clone();
        let saved = tokio::spawn(async move {
            let payload = PutPayload::from(content);
            let objects = match durability {
                Durability::Synced => &store.inner.objects,
                Durability::Unsynced => &store.inner.unsynced,
            };
            objects.put(&path, payload).await?;
            store.add_file(name, bytes, room);
            Ok(public)
        });
        joined(saved.await)
    }

    /// Bytes in use, each file counted with what it takes beside its content.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.index().used()
    }

    pub(super) fn now_ms(&self) -> u64 {
        (self.inner.clock)()
    }

    /// Held for moments only, and never while waiting.
    pub(super) fn index(&self) -> MutexGuard<'_, Index> {
        self.inner
            .index
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What a ticket permits, and until when.
    pub(super) fn permission(&self, ticket: &str) -> Result<(Permission, u64), FilesError> {
        let opened = self.inner.sealer.open(ticket, self.now_ms());
        opened.ok_or(FilesError::NotPermitted)
    }

    /// A fresh name for a file.
    pub(super) fn name(
        &self,
        file: &NewFile<'_>,
        origin: Origin,
    ) -> Result<StoredName, FilesError> {
        let longest = self.inner.settings.file_ttl;
        let lifetime = file.lifecycle.lifetime.unwrap_or(longest).min(longest);
        let media = MediaType::of(file.content_type, file.name);
        Ok(StoredName {
            id: FileId::random()?,
            expires_ms: self.now_ms().saturating_add(milliseconds(lifetime)),
            origin,
            access: file.lifecycle.access,
            unsynced_bytes: None,
            media,
            name: name_for(file.name, media),
        })
    }

    fn find(&self, id: &str, name: &str) -> Result<(StoredName, u64), FilesError> {
        let id = FileId::parse(id).ok_or(FilesError::NotFound)?;
        let now_ms = self.now_ms();
        let index = self.index();
        let found = index.file(id);
        found
            .filter(|(stored, _)| stored.name == name && now_ms < stored.expires_ms)
            .cloned()
            .ok_or(FilesError::NotFound)
    }

    pub(super) async fn object(&self, path: &str) -> Result<GetResult, FilesError> {
        Ok(self.inner.objects.get(&Path::from(path)).await?)
    }

    /// Room for one object, so far without its content.
    pub(super) fn room(&self) -> Result<Room, FilesError> {
        let mut room = Room {
            store: self.clone(),
            bytes: 0,
        };
        room.grow(OVERHEAD_BYTES)?;
        Ok(room)
    }

    /// Enters a file that is in the store now. Its room is what it takes from here on.
    pub(super) fn add_file(&self, name: StoredName, bytes: u64, room: Room) {
        let replaced = self.index().insert_file(name, bytes);
        drop(room);
        self.delete_later(replaced.into_iter().collect());
    }
}

/// What becomes of a task that somebody waits for.
pub(super) fn joined<T>(
    result: Result<Result<T, FilesError>, tokio::task::JoinError>,
) -> Result<T, FilesError> {
    result.map_err(|error| FilesError::Storage(error.to_string()))?
}

/// Room in the quota that is taken before it is used. Given back when dropped.
pub(super) struct Room {
    store: FileStore,
    bytes: u64,
}

impl Room {
    /// Takes more room; old drawn pictures give way if need be.
    pub(super) fn grow(&mut self, by: u64) -> Result<(), FilesError> {
        let given_way = self.store.index().reserve(by)?;
        self.bytes += by;
        self.store.delete_later(given_way);
        Ok(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.store.index().release(self.bytes);
    }
}

impl OwnFiles for FileStore {
    fn read<'a>(&'a self, id: &'a str, name: &'a str, max_bytes: usize) -> OwnRead<'a> {
        Box::pin(read(self, id, name, max_bytes))
    }
}

async fn read(
    store: &FileStore,
    id: &str,
    name: &str,
    max_bytes: usize,
) -> Result<Bytes, PictureError> {
    let unreadable = |error: FilesError| match error {
        FilesError::NotFound => PictureError::Download("no such hosted file".into()),
        other => PictureError::Internal(other.to_string()),
    };
    let (stored, _) = store.find(id, name).map_err(unreadable)?;
    let got = store
        .object(&file_path(&stored))
        .await
        .map_err(unreadable)?;
    if got.meta.size > max_bytes as u64 {
        return Err(PictureError::FileTooLarge { max_bytes });
    }
    got.bytes().await.map_err(|error| unreadable(error.into()))
}
