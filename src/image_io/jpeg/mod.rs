//! JPEG files to RGB, with exactly the pixels that Pillow gives.
//!
//! A model answers by the pixels it sees, and the reference sees them through Pillow, which is to
//! say libjpeg-turbo: every integer step of its defaults is kept here, bit for bit. Baseline,
//! extended sequential and progressive files of 8 bits are read, gray, YCbCr, RGB, CMYK and YCCK,
//! of any sampling that libjpeg-turbo reads; `src/docs/jpeg.md` has the table.
//!
//! Refused is what Pillow refuses, what libjpeg-turbo merely warns of where the warning means wrong
//! pixels, and arithmetic coding. There is no `unsafe` here, nothing of the picture's size is
//! allocated before that size is checked, and the number of scans is bounded.

mod bits;
mod coefficients;
mod color;
mod decoder;
mod error;
mod frame;
mod huffman;
mod idct;
mod instructions;
mod marker;
mod output;
mod progressive;
mod scan;
mod sequential;
mod upsample;

pub use error::JpegError;

use decoder::Decoder;
use frame::Frame;

/// Longest side that libjpeg reads, in pixels (jmorecfg.h).
const MAX_SIDE: u32 = 65_500;

/// Bounds on a picture, checked as soon as its frame header is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Most pixels.
    pub(super) max_pixels: u64,
    /// Longest side, in pixels.
    pub(super) max_side: u32,
    /// Most scans of one picture; each may walk all of its coefficients.
    pub(super) max_scans: u32,
}

impl Limits {
    fn check(&self, frame: &Frame) -> Result<(), JpegError> {
        let (width, height) = (frame.width, frame.height);
        let max_side = self.max_side.min(MAX_SIDE);
        if width > max_side || height > max_side || frame.pixels() > self.max_pixels {
            return Err(JpegError::TooLarge { width, height });
        }
        Ok(())
    }
}

/// A decoded picture.
#[derive(Debug)]
pub(super) struct Picture {
    /// Width in pixels.
    pub(super) width: u32,
    /// Height in pixels.
    pub(super) height: u32,
    /// Rows from the top, three bytes a pixel.
    pub(super) rgb: Vec<u8>,
}

/// Decodes a file. Bytes behind the picture are passed over.
///
/// Beside the result it takes a few rows, and for files of several scans two bytes for each
/// coefficient: 6 bytes a pixel with three components in full resolution, 8 with four.
///
/// # Errors
/// [`JpegError`].
pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Picture, JpegError> {
    Decoder::new(bytes, *limits)?.decode()
}
