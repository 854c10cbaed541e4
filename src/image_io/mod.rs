//! From the `image_url` string of a request to an upright 8-bit RGB picture.
//!
//! One entry point, [`PictureLoader::load`], and this order of checks: what the string is
//! ([`source`]), whether its host may be contacted ([`guard`]), the bytes under one deadline and
//! one cap ([`fetch`]; every connection through [`egress`]), then format, size and pixels ([`decode`]). Every byte here is hostile.
//!
//! Two things bound the memory: the cap on a file, and the decode slots. A [`Picture`] keeps its
//! slot until it is dropped, so unpacked pictures never outnumber the slots.

mod address;
pub mod decode;
mod egress;
pub mod fetch;
pub mod guard;
mod jpeg;
mod metadata;
mod rule;
mod source;
mod sources;

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use image::RgbImage;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::{DecodeSettings, FetchSettings};
use crate::semaphore::Caller;
use decode::SUPPORTED_FORMATS;
use fetch::{FetchSetupError, Fetcher, NameLookup};
use source::Source;

pub use jpeg::JpegError;
pub use source::MAX_URL_BYTES;

/// Bytes of a text that is read where the call is: that takes less than a tenth of a millisecond.
/// Longer ones, which are `data:` URIs, are read on a thread of their own.
const READ_INLINE_BYTES: usize = 64 << 10;

/// Why there is no picture. The texts inside are for the log; callers never see them.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// It could not be had, or was not allowed to be had: the caller must not learn which.
    #[error("the picture could not be downloaded: {0}")]
    Download(String),
    /// The bytes are no readable picture.
    #[error("the picture could not be read: {0}")]
    Load(String),
    /// The bytes are a JPEG that is damaged, cut or of a process that is not read. Of the last kind
    /// callers see the text: it speaks of their file alone.
    #[error("the picture could not be read: {0}")]
    Jpeg(#[from] JpegError),
    /// The bytes are a file of another kind.
    #[error("not one of the supported formats {SUPPORTED_FORMATS:?}")]
    UnsupportedFormat,
    /// Too many pixels.
    #[error("{width} x {height} pixels exceed the limit")]
    TooLarge {
        /// Width in the file.
        width: u32,
        /// Height in the file.
        height: u32,
        /// Pixels allowed along either side.
        max_side: u32,
        /// Pixels allowed altogether.
        max_pixels: u64,
    },
    /// Too many bytes.
    #[error("the file exceeds {max_bytes} bytes")]
    FileTooLarge {
        /// Bytes allowed.
        max_bytes: usize,
    },
    /// Too much is being downloaded at once.
    #[error("no room for another download: {0}")]
    Busy(String),
    /// A decoder panicked or the process is stopping.
    #[error("decoding failed inside: {0}")]
    Internal(String),
}

/// An upright picture. Holds one decode slot until it is dropped.
#[derive(Debug)]
pub struct Picture {
    pixels: RgbImage,
    _slot: OwnedSemaphorePermit,
}

impl Picture {
    /// The pixels, upright.
    #[must_use]
    pub fn pixels(&self) -> &RgbImage {
        &self.pixels
    }

    /// The pixels, to be changed in place.
    pub fn pixels_mut(&mut self) -> &mut RgbImage {
        &mut self.pixels
    }
}

/// What becomes of reading an own file.
pub type OwnRead<'a> = Pin<Box<dyn Future<Output = Result<Bytes, PictureError>> + Send + 'a>>;

/// Files that this server hosts itself. Their addresses are never fetched.
pub trait OwnFiles: Debug + Send + Sync {
    /// The content of the file with this id and name, if it has at most `max_bytes`.
    ///
    /// Fails with [`PictureError::Download`] when there is none, as for any other address.
    fn read<'a>(&'a self, id: &'a str, name: &'a str, max_bytes: usize) -> OwnRead<'a>;
}

/// What becomes of fetching a picture file.
pub type Fetching<'a> = Pin<Box<dyn Future<Output = Result<Bytes, PictureError>> + Send + 'a>>;

/// Stands between a loader and other hosts, for whoever must not hold anything while one of them is
/// silent.
pub trait FetchGate: Debug + Send + Sync {
    /// Runs a fetch from a host when it may be run, and completes when its outcome may be used.
    fn pass<'a>(&'a self, host: &'a str, fetch: Fetching<'a>) -> Fetching<'a>;
}

/// Loads pictures. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PictureLoader {
    fetcher: Fetcher,
    decode: DecodeSettings,
    max_bytes: usize,
    slots: Arc<Semaphore>,
    own: Option<Arc<dyn OwnFiles>>,
    gate: Option<Arc<dyn FetchGate>>,
}

impl PictureLoader {
    /// Sets up the loader with the system's name lookup.
    ///
    /// # Errors
    /// When the list of sources cannot be read or the HTTP client cannot be set up.
    pub fn new(fetch: &FetchSettings, decode: DecodeSettings) -> Result<Self, FetchSetupError> {
        Self::with_lookup(fetch, decode, Arc::new(fetch::SystemLookup))
    }

    /// Sets up the loader with another name lookup.
    ///
    /// # Errors
    /// As [`PictureLoader::new`].
    pub fn with_lookup(
        fetch: &FetchSettings,
        decode: DecodeSettings,
        lookup: Arc<dyn NameLookup>,
    ) -> Result<Self, FetchSetupError> {
        Ok(Self {
            fetcher: Fetcher::new(fetch, lookup)?,
            decode,
            max_bytes: fetch.max_picture_bytes,
            slots: Arc::new(Semaphore::new(decode.decode_slots)),
            own: None,
            gate: None,
        })
    }

    /// The same loader for a server that hosts files.
    #[must_use]
    pub fn with_own_files(mut self, own: Arc<dyn OwnFiles>) -> Self {
        self.own = Some(own);
        self
    }

    /// The same loader with a gate through which every fetch passes.
    #[must_use]
    pub fn with_gate(mut self, gate: Arc<dyn FetchGate>) -> Self {
        self.gate = Some(gate);
        self
    }

    /// Loads the picture that an address names, for the program itself:
    /// [`PictureLoader::read`], then [`PictureLoader::decode`].
    ///
    /// # Errors
    /// See [`PictureError`].
    pub async fn load(&self, image_url: &str) -> Result<Picture, PictureError> {
        let text = Bytes::copy_from_slice(image_url.as_bytes());
        let bytes = self.read(text, Caller::Own).await?;
        self.decode(bytes).await
    }

    /// The file that a caller's request names, packed as it is. The text is UTF-8.
    ///
    /// Of a `data:` URI, text and file are in memory together while it is decoded; then this lets go of
    /// the text.
    ///
    /// Cancel-safe: dropping the future closes a running download at once.
    ///
    /// # Errors
    /// See [`PictureError`].
    pub async fn read(&self, image_url: Bytes, caller: Caller) -> Result<Bytes, PictureError> {
        match self.source(image_url).await? {
            Source::Remote(url) => {
                let host = url.host_str().unwrap_or_default().to_owned();
                let fetch = self.fetcher.fetch(url, caller);
                match &self.gate {
                    Some(gate) => gate.pass(&host, Box::pin(fetch)).await,
                    None => fetch.await,
                }
            }
            Source::Inline(bytes) => Ok(bytes.into()),
            Source::Own { id, name } => match &self.own {
                Some(own) => own.read(&id, &name, self.max_bytes).await,
                None => Err(PictureError::Download("no files are hosted".into())),
            },
        }
    }

    async fn source(&self, text: Bytes) -> Result<Source, PictureError> {
        let (max_bytes, hosts_files) = (self.max_bytes, self.own.is_some());
        if text.len() <= READ_INLINE_BYTES {
            return Source::parse(text, max_bytes, hosts_files);
        }
        tokio::task::spawn_blocking(move || Source::parse(text, max_bytes, hosts_files))
            .await
            .map_err(|error| PictureError::Internal(error.to_string()))?
    }

    /// Unpacks a picture file that is already in memory. Waits for a decode slot.
    ///
    /// A decode that has begun runs to its end on its own thread and keeps its slot until then,
    /// whether or not somebody still waits for it.
    ///
    /// # Errors
    /// See [`PictureError`].
    pub async fn decode(&self, bytes: Bytes) -> Result<Picture, PictureError> {
        if bytes.len() > self.max_bytes {
            let max_bytes = self.max_bytes;
            return Err(PictureError::FileTooLarge { max_bytes });
        }
        let slot = Arc::clone(&self.slots)
            .acquire_owned()
            .await
            .map_err(|error| PictureError::Internal(error.to_string()))?;
        let limits = self.decode;
        // The slot travels with the work, so that a caller who leaves does not free it early.
        tokio::task::spawn_blocking(move || {
            let pixels = decode::decode(&bytes, &limits)?;
            Ok(Picture {
                pixels,
                _slot: slot,
            })
        })
        .await
        .map_err(|error| PictureError::Internal(error.to_string()))?
    }
}
