//! What stands between pictures and texts on one side and the model's numbers on the other, as the
//! pipeline sees it. It never sees the model.

use image::RgbImage;

use crate::florence2::processor::{PixelValues, Processor, ProcessorError};

/// Turns pictures and prompts into numbers, and numbers into text. [`Processor`] is the real one;
/// tests that need no tokenizer bring their own.
pub trait Codec: Send + Sync + 'static {
    /// Resizes and normalises a picture.
    fn pixel_values(&self, picture: &RgbImage) -> PixelValues;

    /// The token ids of a prompt.
    ///
    /// # Errors
    /// When the prompt has more than `max_text_tokens`.
    fn input_ids(&self, text: &str, max_text_tokens: usize) -> Result<Vec<u32>, ProcessorError>;

    /// The text of generated token ids, special tokens kept.
    ///
    /// # Errors
    /// When the tokenizer fails.
    fn decode(&self, token_ids: &[u32]) -> Result<String, ProcessorError>;

    /// Where each token's part of `text` ends, in bytes; `text` is the decoding of `token_ids`.
    ///
    /// # Errors
    /// When the text cannot be traced to its tokens.
    fn token_ends(&self, token_ids: &[u32], text: &str) -> Result<Vec<usize>, ProcessorError>;
}

impl Codec for Processor {
    fn pixel_values(&self, picture: &RgbImage) -> PixelValues {
        Self::pixel_values(self, picture)
    }

    fn input_ids(&self, text: &str, max_text_tokens: usize) -> Result<Vec<u32>, ProcessorError> {
        Self::input_ids(self, text, max_text_tokens)
    }

    fn decode(&self, token_ids: &[u32]) -> Result<String, ProcessorError> {
        Self::decode(self, token_ids)
    }

    fn token_ends(&self, token_ids: &[u32], text: &str) -> Result<Vec<usize>, ProcessorError> {
        Self::token_ends(self, token_ids, text)
    }
}
