//! One prediction, from a validated input to fal's output, as verbs in the order they happen:
//! load the picture, prepare, predict, read, present, and for callers of an endpoint draw.
//!
//! Each verb can be called alone; [`Pipeline::answer`] calls them all but the last, and
//! [`Pipeline::answer_endpoint`] that one too. The HTTP route and the `run` command go through here,
//! so that the two cannot drift apart. Nothing here knows of HTTP.
//!
//! Boxes are corner pairs up to [`present`], which turns them into fal's `x, y, w, h`.

mod call;
mod drawn;
mod present;

use std::sync::Arc;
use std::time::Instant;

use image::RgbImage;

use crate::config::PipelineSettings;
use crate::engine::Engine;
use crate::engine::predict::{PreparedInput, StageTimings};
use crate::fal::output::Output;
use crate::florence2::answer::Answer;
use crate::florence2::generate::GenerationOptions;
use crate::florence2::postprocess;
use crate::florence2::processor::{PixelValues, Processor, ProcessorError};
use crate::florence2::prompt::{self, Prompt, PromptError};
use crate::florence2::task::{AnswerKind, Task};
use crate::image_io::PictureLoader;

pub use call::prompt_of;
pub use drawn::ImageHost;
pub use present::present;

pub use crate::annotate;
pub use crate::engine::{EngineError, predict::PredictError};
pub use crate::image_io::{Picture, PictureError, decode::SUPPORTED_FORMATS};

/// Side in pixels of the picture that warms the model up. Any size does: all are resized.
const WARM_UP_SIDE: u32 = 32;

/// Tokens generated for warming up: enough to run the decoder with a filled cache.
const WARM_UP_TOKENS: usize = 4;

/// What stands between pictures and texts on one side and the model's numbers on the other.
/// [`Processor`] is the real one; tests that need no tokenizer bring their own.
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
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// There is no picture.
    #[error(transparent)]
    Picture(#[from] PictureError),
    /// The text has more tokens than the model can read.
    #[error("the prompt has {tokens} tokens and may have {max_tokens}")]
    TextTooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// Tokens allowed.
        max_tokens: usize,
    },
    /// The task and its input make no prompt.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// The tokenizer failed.
    #[error("the tokenizer failed: {0}")]
    Processor(ProcessorError),
    /// The model gave no prediction.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A helper thread panicked or the process is stopping.
    #[error("preparing failed inside: {0}")]
    Internal(String),
}

impl From<ProcessorError> for PipelineError {
    fn from(error: ProcessorError) -> Self {
        match error {
            ProcessorError::PromptTooLong { tokens, max_tokens } => {
                Self::TextTooLong { tokens, max_tokens }
            }
            other => Self::Processor(other),
        }
    }
}

/// How the model is asked.
#[derive(Clone, Copy, Debug)]
pub struct AskOptions {
    /// How to search for the answer.
    pub generation: GenerationOptions,
    /// Tokens that a prompt may have beside the picture.
    pub max_text_tokens: usize,
}

/// A picture and a prompt, ready for the model.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// What the model gets.
    pub input: PreparedInput,
    /// How its answer is to be read.
    pub answer: AnswerKind,
    /// Width of the upright picture in pixels.
    pub width: u32,
    /// Height of the upright picture in pixels.
    pub height: u32,
}

/// An answer with everything that led to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered {
    /// What the model said, with the places as it names them: what [`annotate`] draws.
    pub answer: Answer,
    /// The findings in fal's shape.
    pub output: Output,
    /// Width of the upright picture in pixels.
    pub width: u32,
    /// Height of the upright picture in pixels.
    pub height: u32,
    /// The prompt's tokens.
    pub input_ids: Vec<u32>,
    /// The generated sequence, decoder start token included.
    pub token_ids: Vec<u32>,
    /// Its decoding, special tokens kept.
    pub text: String,
    /// Where the time went.
    pub timings: Timings,
}

/// Milliseconds spent in each stage.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Timings {
    /// Fetching and unpacking the picture.
    pub picture_ms: f64,
    /// Resizing, normalising, tokenizing.
    pub preprocess_ms: f64,
    /// Waiting for the model and its work.
    pub predict_ms: f64,
    /// The model's work by stage.
    pub stages: StageTimings,
    /// Reading the text and shaping the output.
    pub postprocess_ms: f64,
    /// Drawing the picture of the answer and hosting it.
    pub draw_ms: f64,
}

/// Everything a prediction passes through. Cheap to clone.
#[derive(Clone)]
pub struct Pipeline {
    pictures: PictureLoader,
    codec: Arc<dyn Codec>,
    engine: Engine,
    options: AskOptions,
    settings: PipelineSettings,
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Pipeline {
    /// Joins the parts, with default settings.
    #[must_use]
    pub fn new(
        pictures: PictureLoader,
        codec: Arc<dyn Codec>,
        engine: Engine,
        options: AskOptions,
    ) -> Self {
        Self {
            pictures,
            codec,
            engine,
            options,
            settings: PipelineSettings::default(),
        }
    }

    /// The same with other settings.
    #[must_use]
    pub fn with_settings(mut self, settings: PipelineSettings) -> Self {
        self.settings = settings;
        self
    }

    /// Answers one prompt about a loaded picture: prepare, predict, read, present.
    ///
    /// # Errors
    /// See [`PipelineError`].
    pub async fn answer(
        &self,
        picture: Picture,
        prompt: &Prompt,
        start_by: Option<Instant>,
    ) -> Result<Answered, PipelineError> {
        let begun = Instant::now();
        let prepared = self.prepare(picture, prompt).await?;
        let preprocess_ms = ms_since(begun);
        let Prepared {
            input,
            answer: kind,
            width,
            height,
        } = prepared;
        let input_ids = input.input_ids.clone();

        let begun = Instant::now();
        let prediction = self.engine.submit(input, start_by).await?;
        let predict_ms = ms_since(begun);

        let begun = Instant::now();
        let text = self.codec.decode(&prediction.token_ids)?;
        let answer = postprocess::read(&text, kind, width, height);
        Ok(Answered {
            output: present(answer.clone()),
            answer,
            width,
            height,
            input_ids,
            token_ids: prediction.token_ids,
            text,
            timings: Timings {
                picture_ms: 0.0,
                preprocess_ms,
                predict_ms,
                stages: prediction.timings,
                postprocess_ms: ms_since(begun),
                draw_ms: 0.0,
            },
        })
    }

    /// Loads the picture that a request names.
    ///
    /// # Errors
    /// [`PipelineError::Picture`].
    pub async fn load(&self, image_url: &str) -> Result<Picture, PipelineError> {
        Ok(self.pictures.load(image_url).await?)
    }

    /// Unpacks a picture file that is already in memory.
    ///
    /// # Errors
    /// [`PipelineError::Picture`].
    pub async fn decode(&self, bytes: Vec<u8>) -> Result<Picture, PipelineError> {
        Ok(self.pictures.decode(bytes.into()).await?)
    }

    /// Turns a picture and a prompt into what the model takes, and frees the picture with its slot.
    ///
    /// # Errors
    /// [`PipelineError::TextTooLong`], or a failure of the tokenizer.
    pub async fn prepare(
        &self,
        picture: Picture,
        prompt: &Prompt,
    ) -> Result<Prepared, PipelineError> {
        let Self { codec, options, .. } = self.clone();
        let Prompt { text, answer, .. } = prompt.clone();
        tokio::task::spawn_blocking(move || {
            let input_ids = codec.input_ids(&text, options.max_text_tokens)?;
            let PixelValues { data, side } = codec.pixel_values(picture.pixels());
            let (width, height) = picture.pixels().dimensions();
            Ok(Prepared {
                input: PreparedInput {
                    pixel_values: data,
                    side,
                    input_ids,
                    generation: options.generation,
                },
                answer,
                width,
                height,
            })
        })
        .await
        .map_err(|error| PipelineError::Internal(error.to_string()))?
    }

    /// Sends a small grey picture through the whole model, so that the first caller does not pay
    /// for what is set up on first use, and a model that cannot answer is never called ready.
    ///
    /// # Errors
    /// Whatever goes wrong on the way.
    pub async fn warm_up(&self) -> Result<(), PipelineError> {
        let grey = RgbImage::from_pixel(WARM_UP_SIDE, WARM_UP_SIDE, image::Rgb([128; 3]));
        let prompt = prompt::for_task(Task::Caption, None, None)?;
        let PixelValues { data, side } = self.codec.pixel_values(&grey);
        let mut generation = self.options.generation;
        generation.max_new_tokens = generation.max_new_tokens.min(WARM_UP_TOKENS);
        generation.min_new_tokens = generation.min_new_tokens.min(generation.max_new_tokens);
        let input = PreparedInput {
            pixel_values: data,
            side,
            input_ids: self
                .codec
                .input_ids(&prompt.text, self.options.max_text_tokens)?,
            generation,
        };
        let prediction = self.engine.submit(input, None).await?;
        self.codec.decode(&prediction.token_ids)?;
        Ok(())
    }

    /// Whether the model still takes inputs.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.engine.is_open()
    }

    /// Finishes what the model has in line and ends its thread.
    pub async fn close(&self) {
        self.engine.close().await;
    }
}

fn ms_since(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fal::endpoint::{ENDPOINTS, InputModel, OutputModel};
    use crate::florence2::task::TaskInput;

    #[test]
    fn the_catalogue_and_the_task_table_agree() {
        for (endpoint, task) in ENDPOINTS.iter().zip(Task::endpoints()) {
            let spec = task.spec();
            assert_eq!(endpoint.name, spec.name);
            let input = match spec.input {
                TaskInput::Nothing => InputModel::Image,
                TaskInput::Text => InputModel::ImageWithText,
                TaskInput::Region => InputModel::ImageWithRegion,
            };
            assert_eq!(endpoint.input, input, "{}", endpoint.name);
            let shaped = present(postprocess::read("", spec.answer, 10, 10));
            let output = match shaped {
                Output::Text(_) => OutputModel::Text,
                Output::Boxes(_) => OutputModel::Boxes,
                Output::OcrBoxes(_) => OutputModel::OcrBoxes,
                Output::Polygons(_) => OutputModel::Polygons,
            };
            assert_eq!(endpoint.output, output, "{}", endpoint.name);
        }
    }
}
