//! The picture in an answer: the input with the findings drawn on it, as PNG, hosted or inline.
//!
//! While the model works, the picture is kept packed, as the file that came, and unpacked a second
//! time for drawing. Calls that wait for the model therefore hold no pixels: unpacked pictures never
//! outnumber the decode slots, and the slot is held until the PNG has left memory. The pixels are
//! drawn on in place.
//!
//! A picture that cannot be drawn or hosted is left out of the answer and never fails it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use crate::annotate::{self, AnnotateError};
use crate::fal::output::Image;
use crate::files::{FileStore, FilesError, Lifecycle, NewFile, PublicFile};
use crate::florence2::answer::Answer;
use crate::image_io::{PictureError, PictureLoader};

/// Media type of drawn pictures.
const PNG: &str = "image/png";

/// Largest PNG that goes into an answer as text. It becomes a third longer there, and the whole
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
    let mut picture = pictures.decode(file).await?;
    let is_inline = matches!(delivery, Delivery::Inline);
    let (picture, drawn) = tokio::task::spawn_blocking(move || {
        let png = annotate::png(picture.pixels_mut(), &answer);
        let drawn = png.map_err(DrawnError::from).and_then(|png| {
            let uri = is_inline.then(|| data_uri(&png)).transpose()?;
            Ok((png, uri))
        });
        (picture, drawn)
    })
    .await?;
    let (png, uri) = drawn?;
    let (width, height) = picture.pixels().dimensions();
    let file_name = format!("{name}.png");
    let file_size = png.len() as u64;
    let (url, file_name) = match delivery {
        Delivery::Inline => (uri.unwrap_or_default(), file_name),
        Delivery::Hosted(host) => {
            let file = NewFile {
                name: &file_name,
                content_type: Some(PNG),
                lifecycle: host.lifecycle,
            };
            let saved = host.files.save_drawn(&file, Bytes::from(png)).await?;
            let PublicFile { path, name, .. } = saved;
            (format!("{}{path}", host.base), name)
        }
    };
    Ok(Image {
        url,
        content_type: Some(PNG.to_owned()),
        file_name: Some(file_name),
        file_size: Some(file_size),
        width: Some(width),
        height: Some(height),
    })
}

fn data_uri(png: &[u8]) -> Result<String, DrawnError> {
    if png.len() > MAX_INLINE_BYTES {
        return Err(DrawnError::TooLong(png.len()));
    }
    let mut uri = format!("data:{PNG};base64,");
    STANDARD.encode_string(png, &mut uri);
    Ok(uri)
}
