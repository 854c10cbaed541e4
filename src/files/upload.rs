//! Files that arrive piece by piece. What arrives goes to the disk in blocks, so an upload of any
//! size holds little memory.
//!
//! An [`Upload`] is fed with [`Upload::write`] and becomes an object with [`Upload::finish`]; until
//! then there is nothing under its name. Dropping it throws away what has arrived and gives the room
//! back. Sending the same file again, as clients do that missed the answer, replaces it.

use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStoreExt, PutPayloadMut};
use tokio::sync::OwnedSemaphorePermit;

use super::index::{file_path, part_path};
use super::name::{FileId, Origin, PartName, StoredName};
use super::store::{FileStore, Room, joined};
use super::ticket::Permission;
use super::{FilesError, NewFile, PublicFile};

/// Bytes collected before they are written. Buckets take no smaller blocks.
const BLOCK_BYTES: usize = 5 << 20;

/// What an upload becomes.
#[derive(Clone, Debug)]
pub(super) enum Target {
    File(StoredName),
    Part(PartName),
}

impl Target {
    fn path(&self) -> Path {
        Path::from(match self {
            Self::File(name) => file_path(name),
            Self::Part(name) => part_path(name),
        })
    }
}

/// See the module's header.
pub struct Upload {
    store: FileStore,
    target: Target,
    max_bytes: u64,
    written: u64,
    /// Bytes for which there is room.
    expected: u64,
    block: PutPayloadMut,
    /// Begun with the first full block. Dropping it removes what was written.
    blocks: Option<Box<dyn MultipartUpload>>,
    room: Room,
    turn: Option<Turn>,
    _place: Option<OwnedSemaphorePermit>,
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upload")
            .field("target", &self.target)
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}

impl FileStore {
    /// Begins the upload that a ticket for a whole file permits.
    ///
    /// # Errors
    /// [`FilesError::NotPermitted`], or when there is no room or no place.
    pub fn upload_with_ticket(&self, ticket: &str) -> Result<Upload, FilesError> {
        match self.permission(ticket)? {
            (Permission::Whole(name), _) => self.begin_whole(name),
            _ => Err(FilesError::NotPermitted),
        }
    }

    /// Begins the upload of a file whose sender has shown a key or token.
    ///
    /// # Errors
    /// When there is no room or no place.
    pub fn upload(&self, file: &NewFile<'_>) -> Result<Upload, FilesError> {
        self.begin_whole(self.name(file, Origin::Uploaded)?)
    }

    fn begin_whole(&self, name: StoredName) -> Result<Upload, FilesError> {
        let place = self.place()?;
        let turn = self.turn(name.id)?;
        let max_bytes = self.inner.settings.max_file_bytes;
        let upload = Upload::new(self, Target::File(name), max_bytes)?;
        Ok(upload.holding(Some(turn), Some(place)))
    }

    /// Files or parts that may be on their way at once.
    #[must_use]
    pub fn max_uploads(&self) -> usize {
        self.inner.settings.max_uploads
    }

    /// A place among the uploads at once.
    pub(super) fn place(&self) -> Result<OwnedSemaphorePermit, FilesError> {
        let places = std::sync::Arc::clone(&self.inner.places);
        places
            .try_acquire_owned()
            .map_err(|_| FilesError::TooManyUploads)
    }

    /// The right to write a file. Two writers could leave one content and the size of the other.
    pub(super) fn turn(&self, id: FileId) -> Result<Turn, FilesError> {
        if !self.index().begin(id) {
            return Err(FilesError::InUse);
        }
        let store = self.clone();
        Ok(Turn { store, id })
    }
}

/// Given back when dropped.
pub(super) struct Turn {
    store: FileStore,
    id: FileId,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.store.index().end(self.id);
    }
}

impl Upload {
    pub(super) fn new(
        store: &FileStore,
        target: Target,
        max_bytes: u64,
    ) -> Result<Self, FilesError> {
        Ok(Self {
            room: store.room()?,
            store: store.clone(),
            target,
            max_bytes,
            written: 0,
            expected: 0,
            block: PutPayloadMut::new(),
            blocks: None,
            turn: None,
            _place: None,
        })
    }

    /// Holds these as long as it lives.
    pub(super) fn holding(
        mut self,
        turn: Option<Turn>,
        place: Option<OwnedSemaphorePermit>,
    ) -> Self {
        self.turn = turn;
        self._place = place;
        self
    }

    /// Says how many bytes will come, so that too many are refused before the first one is read.
    ///
    /// # Errors
    /// [`FilesError::TooLarge`] or [`FilesError::Full`].
    pub fn expect(&mut self, bytes: u64) -> Result<(), FilesError> {
        if bytes > self.max_bytes {
            let max_bytes = self.max_bytes;
            return Err(FilesError::TooLarge { max_bytes });
        }
        if bytes > self.expected {
            self.room.grow(bytes - self.expected)?;
            self.expected = bytes;
        }
        Ok(())
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// When they are too many, there is no room for them, or the store fails.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), FilesError> {
        self.written += bytes.len() as u64;
        self.expect(self.written)?;
        // Copied, so that a sender of tiny pieces does not pin a buffer with each.
        self.block.extend_from_slice(bytes);
        if self.block.content_length() >= BLOCK_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), FilesError> {
        let objects = &self.store.inner.objects;
        let blocks = match &mut self.blocks {
            Some(blocks) => blocks,
            None => {
                let begun = objects.put_multipart(&self.target.path()).await?;
                self.blocks.insert(begun)
            }
        };
        let block = std::mem::take(&mut self.block).freeze();
        blocks.put_part(block).await?;
        Ok(())
    }

    /// Makes everything that was written an object, at once and for good.
    ///
    /// Once called it runs to its end, whether or not somebody still waits for it.
    ///
    /// # Errors
    /// When the store fails; there is no object then.
    pub async fn finish(self) -> Result<Finished, FilesError> {
        joined(tokio::spawn(self.publish()).await)
    }

    async fn publish(mut self) -> Result<Finished, FilesError> {
        if self.blocks.is_some() && !self.block.is_empty() {
            self.flush().await?;
        }
        match &mut self.blocks {
            Some(blocks) => {
                blocks.complete().await?;
            }
            None => {
                let block = std::mem::take(&mut self.block).freeze();
                let path = self.target.path();
                self.store.inner.objects.put(&path, block).await?;
            }
        }
        let Self {
            store,
            target,
            written,
            room,
            turn,
            ..
        } = self;
        let finished = match target {
            Target::File(name) => {
                let file = PublicFile {
                    path: name.public_path(),
                    name: name.name.clone(),
                    bytes: written,
                };
                store.add_file(name, written, room);
                Finished::File(file)
            }
            Target::Part(name) => {
                let etag = name.attempt.clone();
                let replaced = store.index().insert_part(name, written);
                drop(room);
                store.delete_later(replaced.into_iter().collect());
                Finished::Part { etag }
            }
        };
        // Until here, so that nobody else begins to write the file.
        drop(turn);
        Ok(finished)
    }
}

/// What an upload became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finished {
    /// A file.
    File(PublicFile),
    /// A part of a file.
    Part {
        /// By which it is named when the file is put together.
        etag: String,
    },
}
