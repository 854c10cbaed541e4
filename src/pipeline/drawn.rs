//! The picture in an answer: the input with the findings drawn on it, hosted or inline. It is a PNG, or
//! a JPEG where the input is a large one.
//!
//! While the model works, the picture is kept packed, as the file that came, and unpacked a second
//! time for drawing. Calls that wait for the model therefore hold no pixels: unpacked pictures never
//! outnumber the decode slots, and the slot is held until the file has left memory. The pixels are
//! drawn on in place.
//!
//! A picture that cannot be drawn or hosted is left out of the answer and never fails it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use crate::annotate::{self, AnnotateError, FileFormat};
use crate::fal::output::Image;
use crate::files::{Durability, FileStore, FilesError, Lifecycle, NewFile, PublicFile};
use crate::florence2::answer::Answer;
use crate::image_io::{PictureError, PictureLoader};

/// Pixels from which the drawing on a JPEG goes out as one: a PNG of a photograph takes many times its
/// bytes, for a picture that was lossy before.
const LARGE_PIXELS: u64 = 1_000_000;

/// How a JPEG file begins.
const JPEG_START: &[u8] = b"\xff\xd8\xff";

/// Largest file that goes into an answer as text. It becomes a third longer there, and the whole
/// answer is held in memory until the caller has read it.
const MAX_INLINE_BYTES: usize = 24 << 20;

/// Where the drawn pictures of a call are hosted.
#[derive(Clone, Copy, Debug)]
pub struct ImageHost<'a> {
    /// Keeps them.
    pub files: &'a FileStore,
    /// What stands before `/files/…` in their addresses: scheme and authority as the caller knows
    /// this server.
    pub base: &'a str,
    /// How long and for whom, if the caller says.
    pub lifecycle: Lifecycle,
    /// Whether they are synced: as well kept as the answer that names them.
    pub durability: Durability,
}

/// What the caller gets of the drawn picture.
#[derive(Clone, Copy, Debug)]
pub(super) enum Delivery<'a> {
    /// An address.
    Hosted(ImageHost<'a>),
    /// A `data:` URI.
    Inline,
}

/// Why there is no drawn picture. For the log.
#[derive(Debug, thiserror::Error)]
enum DrawnError {
    #[error(transparent)]
    Picture(#[from] PictureError),
    #[error(transparent)]
    Annotate(#[from] AnnotateError),
    #[error(transparent)]
    Files(#[from] FilesError),
    #[error("it has {0} bytes, too many for an answer")]
    TooLong(usize),
    #[error("drawing failed inside: {0}")]
    Internal(#[from] tokio::task::JoinError),
}

/// The drawn picture of an answer about the picture in `file`, or nothing and a log line.
pub(super) async fn image(
    pictures: &PictureLoader,
    file: Bytes,
    answer: Answer,
    name: &str,
    delivery: Delivery<'_>,
) -> Option<Image> {
    match try_image(pictures, file, answer, name, delivery).await {
        Ok(image) => Some(image),
        Err(error) => {
            tracing::warn!(%error, "the answer goes without its drawn picture");
            None
        }
    }
}

async fn try_image(
    pictures: &PictureLoader,
    file: Bytes,
    answer: Answer,
    name: &str,
    delivery: Delivery<'_>,
) -> Result<Image, DrawnError> {
    let is_jpeg = file.starts_with(JPEG_START);
    let mut picture = pictures.decode(file).await?;
    let is_inline = matches!(delivery, Delivery::Inline);
    let (width, height) = picture.pixels().dimensions();
    let format = format_of(is_jpeg, width, height);
    let (picture, drawn) = tokio::task::spawn_blocking(move || {
        let file = annotate::file(picture.pixels_mut(), &answer, format);
        let drawn = file.map_err(DrawnError::from).and_then(|file| {
            let uri = is_inline.then(|| data_uri(&file, format)).transpose()?;
            Ok((file, uri))
        });
        (picture, drawn)
    })
    .await?;
    let (file, uri) = drawn?;
    let file_name = format!("{name}.{}", format.ending());
    let file_size = file.len() as u64;
    let content_type = format.content_type();
    let (url, file_name) = match delivery {
        Delivery::Inline => (uri.unwrap_or_default(), file_name),
        Delivery::Hosted(host) => {
            let new = NewFile {
                name: &file_name,
                content_type: Some(content_type),
                lifecycle: host.lifecycle,
            };
            let saved = host.files.save_drawn(&new, file.into(), host.durability);
            let PublicFile { path, name, .. } = saved.await?;
            (format!("{}{path}", host.base), name)
        }
    };
    // The slot is given back only now.
    drop(picture);
    Ok(Image {
        url,
        content_type: Some(content_type.to_owned()),
        file_name: Some(file_name),
        file_size: Some(file_size),
        width: Some(width),
        height: Some(height),
    })
}

/// The format of a drawing: lossless, except on what is lossy and large already.
fn format_of(is_jpeg: bool, width: u32, height: u32) -> FileFormat {
    if is_jpeg && u64::from(width) * u64::from(height) >= LARGE_PIXELS {
        FileFormat::Jpeg
    } else {
        FileFormat::Png
    }
}

fn data_uri(file: &[u8], format: FileFormat) -> Result<String, DrawnError> {
    if file.len() > MAX_INLINE_BYTES {
        return Err(DrawnError::TooLong(file.len()));
    }
    let mut uri = format!("data:{};base64,", format.content_type());
    STANDARD.encode_string(file, &mut uri);
    Ok(uri)
}
