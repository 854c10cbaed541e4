//! One prediction, from a validated input to fal's output, as verbs in the order they happen:
//! tokenize, load the picture, prepare, predict, read, present, and for callers of an endpoint draw.
//!
//! Each verb can be called alone; [`Pipeline::answer`] calls them all but the last, and
//! [`Pipeline::answer_call`] that one too. The HTTP routes and the `run` command go through here,
//! so that they cannot drift apart. Several prompts about one picture pass together: it is prepared
//! once and seen once. Nothing here knows of HTTP.
//!
//! Boxes are corner pairs up to [`present`], which turns them into fal's `x, y, w, h`.

mod answered;
mod call;
mod codec;
mod drawn;
mod error;
mod present;

use std::sync::Arc;
use std::time::Instant;

use image::RgbImage;

use crate::config::PipelineSettings;
use crate::engine::Engine;
use crate::engine::predict::PreparedInput;
use crate::florence2::generate::GenerationOptions;
use crate::florence2::processor::PixelValues;
use crate::florence2::prompt::{self, Prompt};
use crate::florence2::task::Task;
use crate::image_io::PictureLoader;

use answered::Written;
pub use answered::{Answered, Timings};
pub use call::{PictureFile, Question, prompt_of};
pub use codec::Codec;
pub use drawn::ImageHost;
pub use error::{PipelineError, counted};
pub use present::present;

pub use crate::annotate;
pub use crate::engine::{EngineError, predict::PredictError};
pub use crate::image_io::{
    FetchGate, Fetching, MAX_URL_BYTES, Picture, PictureError, decode::SUPPORTED_FORMATS,
};

/// Side in pixels of the picture that warms the model up. Any size does: all are resized.
const WARM_UP_SIDE: u32 = 32;

/// Tokens generated for warming up: enough to run the decoder with a filled cache.
const WARM_UP_TOKENS: usize = 4;

/// Bytes of prompts that are tokenised where the call is: that takes less than half a millisecond.
const TOKENIZE_INLINE_BYTES: usize = 256;

/// Generated tokens that are read where the call is: that takes less than half a millisecond.
const READ_INLINE_TOKENS: usize = 128;

/// How the model is asked.
#[derive(Clone, Copy, Debug)]
pub struct AskOptions {
    /// How to search for the answer.
    pub generation: GenerationOptions,
    /// Tokens that a prompt may have beside the picture.
    pub max_text_tokens: usize,
}

/// Prompts about one picture, with their tokens.
#[derive(Clone, Debug)]
pub struct Tokenized {
    /// The prompts, in the order of their answers.
    pub prompts: Vec<Prompt>,
    /// The tokens of each.
    pub input_ids: Vec<Vec<u32>>,
}

/// A picture and the prompts about it, ready for the model.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// What the model gets.
    pub input: PreparedInput,
    /// Width of the upright picture in pixels.
    pub width: u32,
    /// Height of the upright picture in pixels.
    pub height: u32,
}

/// Everything a prediction passes through. Cheap to clone.
#[derive(Clone)]
pub struct Pipeline {
    pictures: PictureLoader,
    codec: Arc<dyn Codec>,
    engine: Engine,
    options: AskOptions,
    settings: PipelineSettings,
    /// Whether it waits for a place in the model's line.
    is_patient: bool,
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
            is_patient: false,
        }
    }

    /// The same with other settings.
    #[must_use]
    pub fn with_settings(mut self, settings: PipelineSettings) -> Self {
        self.settings = settings;
        self
    }

    /// The same for queued jobs: with a gate through which pictures are fetched, and waiting for a place
    /// in the model's line where a caller would be refused. A call without a deadline waits so.
    #[must_use]
    pub fn for_jobs(mut self, gate: Arc<dyn FetchGate>) -> Self {
        self.pictures = self.pictures.with_gate(gate);
        self.is_patient = true;
        self
    }

    /// Answers one prompt about a loaded picture: tokenize, prepare, predict, read, present.
    /// `with_scores` says how likely the model held each finding.
    ///
    /// # Errors
    /// See [`PipelineError`].
    pub async fn answer(
        &self,
        picture: Picture,
        prompt: &Prompt,
        with_scores: bool,
        start_by: Option<Instant>,
    ) -> Result<Answered, PipelineError> {
        let prompts = self.tokenize(vec![prompt.clone()]).await?;
        let answers = self.answer_all(picture, prompts, with_scores, start_by);
        // There are as many answers as prompts.
        let answered = answers.await?.into_iter().next();
        answered.ok_or_else(|| PipelineError::Internal("no answer".into()))
    }

    async fn answer_all(
        &self,
        picture: Picture,
        prompts: Tokenized,
        with_scores: bool,
        start_by: Option<Instant>,
    ) -> Result<Vec<Answered>, PipelineError> {
        let begun = Instant::now();
        let Tokenized { prompts, input_ids } = prompts;
        let prepared = self.prepare(picture, input_ids.clone()).await?;
        let preprocess_ms = ms_since(begun);
        let Prepared {
            input,
            width,
            height,
        } = prepared;

        let begun = Instant::now();
        let predictions = match start_by {
            None if self.is_patient => self.engine.submit_patiently(input).await?,
            _ => self.engine.submit(input, start_by).await?,
        };
        let predict_ms = ms_since(begun);
        if predictions.len() != prompts.len() {
            let (found, wanted) = (predictions.len(), prompts.len());
            let text = format!("the model answered {found} of {wanted} prompts");
            return Err(PipelineError::Internal(text));
        }

        let tokens: usize = predictions.iter().map(|it| it.token_ids.len()).sum();
        let codec = Arc::clone(&self.codec);
        let read = move || -> Result<Vec<Answered>, PipelineError> {
            let written = Written {
                with_scores,
                width,
                height,
            };
            let asked = prompts.iter().zip(input_ids).zip(predictions);
            let answers = asked.map(|((prompt, input_ids), prediction)| {
                written.read(&*codec, prompt, input_ids, prediction)
            });
            let mut answers: Vec<Answered> = answers.collect::<Result<_, _>>()?;
            if let Some(first) = answers.first_mut() {
                first.timings.preprocess_ms = preprocess_ms;
                first.timings.predict_ms = predict_ms;
            }
            Ok(answers)
        };
        if tokens <= READ_INLINE_TOKENS {
            return read();
        }
        tokio::task::spawn_blocking(read)
            .await
            .map_err(|error| PipelineError::Internal(error.to_string()))?
    }

    /// Loads the picture that an address names.
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

    /// Turns prompts into tokens. Needs no picture, and no decode slot.
    ///
    /// # Errors
    /// [`PipelineError::TextTooLong`], or a failure of the tokenizer.
    pub async fn tokenize(&self, prompts: Vec<Prompt>) -> Result<Tokenized, PipelineError> {
        let (codec, max_tokens) = (Arc::clone(&self.codec), self.options.max_text_tokens);
        let bytes: usize = prompts.iter().map(|prompt| prompt.text.len()).sum();
        let tokenize = move || {
            let input_ids = prompts.iter().enumerate().map(|(index, prompt)| {
                let input_ids = codec.input_ids(&prompt.text, max_tokens);
                input_ids.map_err(|error| PipelineError::about_prompt(index, error))
            });
            let input_ids = input_ids.collect::<Result<_, _>>()?;
            Ok(Tokenized { prompts, input_ids })
        };
        if bytes <= TOKENIZE_INLINE_BYTES {
            return tokenize();
        }
        tokio::task::spawn_blocking(tokenize)
            .await
            .map_err(|error| PipelineError::Internal(error.to_string()))?
    }

    /// Turns a picture and the tokens of prompts into what the model takes, and frees the picture with
    /// its slot.
    ///
    /// # Errors
    /// When the work panics or the process is stopping.
    pub async fn prepare(
        &self,
        picture: Picture,
        prompts: Vec<Vec<u32>>,
    ) -> Result<Prepared, PipelineError> {
        let Self { codec, options, .. } = self.clone();
        tokio::task::spawn_blocking(move || {
            let PixelValues { data, side } = codec.pixel_values(picture.pixels());
            let (width, height) = picture.pixels().dimensions();
            Ok(Prepared {
                input: PreparedInput {
                    pixel_values: data,
                    side,
                    prompts,
                    generation: options.generation,
                },
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
        let input_ids = self
            .codec
            .input_ids(&prompt.text, self.options.max_text_tokens)?;
        let input = PreparedInput {
            pixel_values: data,
            side,
            prompts: vec![input_ids],
            generation,
        };
        for prediction in self.engine.submit(input, None).await? {
            self.codec.decode(&prediction.token_ids)?;
        }
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
    use crate::fal::output::Output;
    use crate::florence2::postprocess;
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
