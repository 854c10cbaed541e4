//! Why a picture cannot be had, for the person who named it: with the formats and limits, which the
//! errors of the picture loader leave to whoever answers.

use crate::image_io::PictureError;
use crate::image_io::decode::SUPPORTED_FORMATS;

/// One sentence that says what to do.
pub(super) fn sentence(error: &PictureError) -> String {
    let formats = SUPPORTED_FORMATS.join(", ");
    match error {
        PictureError::UnsupportedFormat => {
            format!("this kind of file is not read; supported formats are {formats}")
        }
        PictureError::Load(_) => format!("{error}; supported formats are {formats}"),
        PictureError::TooLarge {
            width,
            height,
            max_side,
            max_pixels,
        } => format!(
            "it has {width} x {height} pixels, and may have {max_pixels} with at most {max_side} along a side; make it smaller first"
        ),
        PictureError::FileTooLarge { max_bytes } => {
            format!("the file has more than {max_bytes} bytes; make it smaller first")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_names_the_formats_and_limits() {
        let size = PictureError::TooLarge {
            width: 9000,
            height: 8000,
            max_side: 16_384,
            max_pixels: 50_000_000,
        };
        for (error, words) in [
            (PictureError::UnsupportedFormat, ".webp, .gif, .bmp"),
            (
                PictureError::Load("cut short".into()),
                "cut short; supported formats are .jpg, ",
            ),
            (size, "9000 x 8000 pixels, and may have 50000000"),
            (
                PictureError::FileTooLarge { max_bytes: 7 },
                "more than 7 bytes",
            ),
            (
                PictureError::Download("it answered 404".into()),
                "it answered 404",
            ),
        ] {
            let sentence = sentence(&error);
            assert!(sentence.contains(words), "{sentence}");
            assert!(!sentence.contains('['), "{sentence}");
        }
    }
}
