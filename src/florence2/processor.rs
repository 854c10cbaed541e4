//! What a model eats: pixel values and token ids, made as the checkpoint's own files say.
//!
//! [`Processor`] corresponds to the reference library's `Florence2Processor`. It reads the picture
//! settings and the tokenizer of a checkpoint folder once and is then shared by everybody who
//! prepares input (it is `Send` and `Sync` and never changes). The arithmetic is bit for bit that
//! of the library's Pillow-based image processor. It never touches a device: its results are plain
//! host arrays.

use std::io;
use std::path::{Path, PathBuf};

use image::RgbImage;

use super::checkpoint_file::with_remedy;
use super::preprocessor_config::ImageSettings;
use super::resize::resize_bicubic;
use super::tokenizer::Tokenizer;

/// The file that holds a checkpoint's tokenizer.
const TOKENIZER_FILE: &str = "tokenizer.json";

/// Channels of a picture, and planes of its pixel values.
const CHANNELS: usize = 3;

/// Why a checkpoint's processor cannot be loaded, or an input not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum ProcessorError {
    /// A file of the checkpoint cannot be read.
    #[error(
        "cannot read {}: {}", file.display(),
        with_remedy(source, "; fetch the checkpoint again, or name a folder that has this file")
    )]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file of the checkpoint is not what its name says.
    #[error("cannot understand {}: {reason}; fetch this file again", file.display())]
    Malformed {
        /// The file.
        file: PathBuf,
        /// What the parser says.
        reason: String,
    },
    /// A picture setting asks for what this program does not do.
    #[error("{}: the setting {setting} must be {expected}; correct it, or use another checkpoint", file.display())]
    UnsupportedSetting {
        /// The file.
        file: PathBuf,
        /// The setting.
        setting: &'static str,
        /// What it may be.
        expected: &'static str,
    },
    /// The tokenizer is well-formed but not one of a Florence-2 checkpoint.
    #[error("{} does not fit a Florence-2 checkpoint: {reason}; use the tokenizer.json that was published with the weights", file.display())]
    UnfitTokenizer {
        /// The file.
        file: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// The prompt has so many bytes that it has more tokens than the model has positions for.
    #[error("the prompt has {bytes} bytes, more than {max_tokens} tokens can hold; shorten it")]
    PromptTooManyBytes {
        /// Bytes of the prompt.
        bytes: usize,
        /// Most tokens that fit beside the picture.
        max_tokens: usize,
    },
    /// The prompt has more tokens than the model has positions for.
    #[error("the prompt has {tokens} tokens and may have {max_tokens}; shorten it")]
    PromptTooLong {
        /// Tokens of the prompt, `<s>` and `</s>` included.
        tokens: usize,
        /// Most tokens that fit beside the picture.
        max_tokens: usize,
    },
    /// The tokenizer gave up on a text or on token ids.
    #[error("the tokenizer failed: {reason}")]
    Untokenizable {
        /// What it says.
        reason: String,
    },
}

/// A resized, rescaled and normalised picture.
#[derive(Clone, Debug, PartialEq)]
pub struct PixelValues {
    /// `(3, side, side)`, channel-major.
    pub data: Vec<f32>,
    /// Side of the square in pixels.
    pub side: usize,
}

/// A checkpoint's way from picture and text to model input, and from token ids back to text.
#[derive(Debug)]
pub struct Processor {
    pictures: PictureProcessor,
    image_seq_length: usize,
    tokenizer: Tokenizer,
}

/// The half of a processor that needs no tokenizer: from a picture to pixel values.
#[derive(Debug)]
pub struct PictureProcessor {
    side: u32,
    normalized: [ByteTable; CHANNELS],
}

/// The pixel value of each byte, for one channel.
type ByteTable = [f32; 256];

impl Processor {
    /// Reads `preprocessor_config.json` and `tokenizer.json` of a checkpoint folder.
    ///
    /// Without `preprocessor_config.json` the settings of the published checkpoints hold.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or understood, asks for a step that is not supported, or is not
    /// made for Florence-2.
    pub fn load(folder: &Path) -> Result<Self, ProcessorError> {
        Self::load_for(folder, usize::MAX)
    }

    /// The same for an embedding matrix of `rows` rows: no text gives an id beyond them.
    ///
    /// # Errors
    ///
    /// As [`Self::load`], and when a token that the model needs lies beyond the rows.
    pub fn load_for(folder: &Path, rows: usize) -> Result<Self, ProcessorError> {
        let settings = ImageSettings::load(folder)?;
        Ok(Self {
            pictures: PictureProcessor::new(&settings),
            image_seq_length: settings.image_seq_length,
            tokenizer: Tokenizer::open_for(&folder.join(TOKENIZER_FILE), rows)?,
        })
    }

    /// Tokens that stand for the picture in front of the text.
    #[must_use]
    pub fn image_seq_length(&self) -> usize {
        self.image_seq_length
    }

    /// Side in pixels of the square that every picture is resized to.
    #[must_use]
    pub fn side(&self) -> usize {
        self.pictures.side()
    }

    /// The tokenizer, for callers that need single token ids.
    #[must_use]
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Resizes a picture to the model's square, ignoring its aspect ratio, and normalises it.
    #[must_use]
    pub fn pixel_values(&self, picture: &RgbImage) -> PixelValues {
        self.pictures.pixel_values(picture)
    }

    /// The token ids of a prompt, `<s>` and `</s>` included.
    ///
    /// `max_text_tokens` is what the position table leaves beside the picture; a longer prompt is
    /// refused, because a cut one would ask something else. One that cannot fit whatever its tokens
    /// are is refused for its bytes, so that the time this takes is bounded.
    ///
    /// # Errors
    ///
    /// [`ProcessorError::PromptTooManyBytes`] or [`ProcessorError::PromptTooLong`] beyond
    /// `max_text_tokens`.
    pub fn input_ids(
        &self,
        text: &str,
        max_text_tokens: usize,
    ) -> Result<Vec<u32>, ProcessorError> {
        let longest = self.tokenizer.longest_token_bytes();
        if text.len() > max_text_tokens.saturating_mul(longest) {
            return Err(ProcessorError::PromptTooManyBytes {
                bytes: text.len(),
                max_tokens: max_text_tokens,
            });
        }
        let ids = self.tokenizer.encode(text)?;
        if ids.len() > max_text_tokens {
            return Err(ProcessorError::PromptTooLong {
                tokens: ids.len(),
                max_tokens: max_text_tokens,
            });
        }
        Ok(ids)
    }

    /// The text of generated token ids, special tokens kept, as post-processing reads it.
    ///
    /// # Errors
    ///
    /// [`ProcessorError::Untokenizable`] when the tokenizer's decoder fails.
    pub fn decode(&self, token_ids: &[u32]) -> Result<String, ProcessorError> {
        self.tokenizer.decode(token_ids)
    }

    /// Where each token's part of `text` ends, in bytes; `text` is the decoding of `token_ids`.
    ///
    /// # Errors
    ///
    /// [`ProcessorError::Untokenizable`] when the text cannot be traced to its tokens.
    pub fn token_ends(&self, token_ids: &[u32], text: &str) -> Result<Vec<usize>, ProcessorError> {
        self.tokenizer.token_ends(token_ids, text)
    }
}

impl PictureProcessor {
    /// The picture settings of the published checkpoints, which are the same for all of them.
    #[must_use]
    pub fn published() -> Self {
        Self::new(&ImageSettings::published())
    }

    fn new(settings: &ImageSettings) -> Self {
        Self {
            side: settings.side,
            normalized: normalized(settings),
        }
    }

    /// Side in pixels of the square that every picture is resized to.
    #[must_use]
    pub fn side(&self) -> usize {
        self.side as usize
    }

    /// Resizes a picture to the model's square, ignoring its aspect ratio, and normalises it.
    #[must_use]
    pub fn pixel_values(&self, picture: &RgbImage) -> PixelValues {
        let rgb = resize_bicubic(picture, self.side, self.side);
        let mut data = Vec::with_capacity(rgb.len());
        for (channel, table) in self.normalized.iter().enumerate() {
            let bytes = rgb.iter().skip(channel).step_by(CHANNELS);
            data.extend(bytes.map(|byte| table[usize::from(*byte)]));
        }
        PixelValues {
            data,
            side: self.side(),
        }
    }
}

/// Rescaling in f64, then subtraction and division in f32, as the library's arrays do it.
fn normalized(settings: &ImageSettings) -> [ByteTable; CHANNELS] {
    std::array::from_fn(|channel| {
        let mean = settings.mean[channel] as f32;
        let std = settings.std[channel] as f32;
        std::array::from_fn(|byte| {
            let rescaled = (byte as f64 * settings.rescale_factor) as f32;
            (rescaled - mean) / std
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_can_be_shared_between_threads() {
        fn assert_shareable<T: Send + Sync + 'static>() {}
        assert_shareable::<Processor>();
    }
}
