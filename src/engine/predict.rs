//! What a model must be able to do for the engine. The real one is [`Florence2`](crate::florence2::Florence2); tests use doubles.

use crate::florence2::generate::GenerationOptions;

/// One picture and the prompts about it, ready for the device, as plain host arrays.
#[derive(Clone, Debug)]
pub struct PreparedInput {
    /// Normalised picture, `(3, side, side)`, channel-major.
    pub pixel_values: Vec<f32>,
    /// Side of the square picture in pixels.
    pub side: usize,
    /// Token ids of each prompt, with `<s>` and `</s>`, without image tokens.
    pub prompts: Vec<Vec<u32>>,
    /// How to search for the answers.
    pub generation: GenerationOptions,
}

/// What the model answered to one prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// The generated sequence as the reference library returns it, decoder start token included.
    pub token_ids: Vec<u32>,
    /// The log-probability of every token after the decoder start token.
    pub log_probabilities: Vec<f32>,
    /// Where the time went. Times of one input add up: seeing the picture counts for its first
    /// prompt alone.
    pub timings: StageTimings,
}

/// Milliseconds spent in each stage on the device.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StageTimings {
    /// Vision tower and projector.
    pub vision_ms: f64,
    /// Text encoder over image and prompt.
    pub encoder_ms: f64,
    /// Cross-attention keys and values, and the first decoder step.
    pub prefill_ms: f64,
    /// All further decoder steps with the search between them.
    pub decode_ms: f64,
}

/// Why a prediction failed.
#[derive(Debug, thiserror::Error)]
pub enum PredictError {
    /// The device ran out of memory; fewer at a time, or a smaller picture, may work.
    #[error("the device ran out of memory: {0}")]
    OutOfMemory(String),
    /// The model computed NaN or infinity. What would follow looks like an answer and is none.
    #[error(
        "the model computed numbers that are not finite in its {stage}; a wider --dtype may help"
    )]
    NotFinite {
        /// The stage after which they were found.
        stage: &'static str,
    },
    /// The model failed in a way that no input should cause.
    #[error("the model failed: {0}")]
    Failed(String),
}

/// A model as the engine sees it. Called on the model thread only.
pub trait Predict: Send + 'static {
    /// Answers the prompts of one prepared input, in their order. The picture is seen once.
    ///
    /// `is_wanted` says whether somebody still waits. Once it says no, the prompts that are left
    /// are not worth answering, and nobody reads what is returned.
    ///
    /// # Errors
    /// When the device fails on any prompt, or a number is not finite. The model stays usable after an
    /// error.
    fn predict(
        &mut self,
        input: &PreparedInput,
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<Vec<Prediction>, PredictError>;
}
