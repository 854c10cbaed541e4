//! One call: what it asks, its picture's file, its answers, and the pictures drawn from them.
//!
//! What the synchronous routes and a queued job share beyond [`Pipeline::answer`], as three steps:
//! [`Pipeline::question`] judges the texts, which needs no picture; [`Pipeline::read`] gets the file,
//! for which somebody else may be waited for; [`Pipeline::answer_call`] is the work.

use std::time::Instant;

use bytes::Bytes;

use super::drawn::{self, Delivery, ImageHost};
use super::{Answered, Pipeline, PipelineError, Tokenized, ms_since};
use crate::fal::endpoint::{Endpoint, OutputModel};
use crate::fal::image_url::ImageUrl;
use crate::fal::input::Input;
use crate::fal::json::MAX_STRING_BYTES;
use crate::fal::tasks::TasksInput;
use crate::florence2::prompt::{self, Prompt};
use crate::florence2::task::Task;
use crate::semaphore::Caller;

/// What a call asks about its picture.
#[derive(Clone, Debug)]
pub struct Question {
    /// The endpoint of each prompt.
    endpoints: Vec<&'static Endpoint>,
    prompts: Tokenized,
    scores: bool,
    sync_mode: bool,
}

/// The file of a picture, as [`Pipeline::read`] gives it.
#[derive(Clone, Debug)]
pub struct PictureFile {
    bytes: Bytes,
    /// Time that it took to get, in milliseconds.
    read_ms: f64,
}

impl Pipeline {
    /// What a call to an endpoint asks.
    ///
    /// # Errors
    /// [`PipelineError::TextTooLong`], or a failure of the tokenizer.
    pub async fn question(
        &self,
        endpoint: &'static Endpoint,
        input: &Input,
    ) -> Result<Question, PipelineError> {
        let prompt = self.prompt(0, endpoint, input.text_input.as_deref(), input.region)?;
        Ok(Question {
            endpoints: vec![endpoint],
            prompts: self.tokenize(vec![prompt]).await?,
            scores: input.scores,
            sync_mode: input.sync_mode,
        })
    }

    /// What a call with several tasks asks.
    ///
    /// # Errors
    /// As [`Self::question`], about the first text that does not fit.
    pub async fn questions(&self, input: &TasksInput) -> Result<Question, PipelineError> {
        let prompts = input.tasks.iter().enumerate().map(|(index, task)| {
            self.prompt(
                index,
                task.endpoint,
                task.text_input.as_deref(),
                task.region,
            )
        });
        Ok(Question {
            endpoints: input.tasks.iter().map(|task| task.endpoint).collect(),
            prompts: self.tokenize(prompts.collect::<Result<_, _>>()?).await?,
            scores: input.scores,
            sync_mode: input.sync_mode,
        })
    }

    /// Reads the file that a caller's request names, packed as it is. It may be waited for long: the source
    /// decides. The text is used up: it may be most of a body that need not stay in memory.
    ///
    /// Cancel-safe: dropping the future closes a running download.
    ///
    /// # Errors
    /// [`PipelineError::Picture`].
    pub async fn read(
        &self,
        image_url: ImageUrl,
        caller: Caller,
    ) -> Result<PictureFile, PipelineError> {
        let begun = Instant::now();
        let bytes = self.pictures.read(image_url.into_bytes(), caller).await?;
        let read_ms = ms_since(begun);
        Ok(PictureFile { bytes, read_ms })
    }

    /// Answers a call about the picture in `file`, from one look at it: an answer for each prompt, in
    /// their order. `start_by` is the latest moment for the model to begin. `host` takes the drawn
    /// pictures; without one they are drawn only when they go into the answer.
    ///
    /// Cancel-safe: dropping the future leaves the model's line. A prompt that fails fails them all.
    ///
    /// # Errors
    /// See [`PipelineError`]. A drawn picture that cannot be had is none.
    pub async fn answer_call(
        &self,
        question: Question,
        file: PictureFile,
        start_by: Option<Instant>,
        host: Option<ImageHost<'_>>,
    ) -> Result<Vec<Answered>, PipelineError> {
        let Question {
            endpoints,
            prompts,
            scores,
            sync_mode,
        } = question;
        let deliveries = endpoints
            .into_iter()
            .map(|endpoint| Some((endpoint, self.delivery(endpoint, sync_mode, host)?)));
        let deliveries: Vec<_> = deliveries.collect();
        let PictureFile { bytes, read_ms } = file;
        // The file is kept only where it is drawn on.
        let is_drawn = deliveries.iter().any(Option::is_some);
        let file = is_drawn.then(|| bytes.clone());
        let begun = Instant::now();
        let picture = self.pictures.decode(bytes).await?;
        let picture_ms = read_ms + ms_since(begun);
        let mut answers = self.answer_all(picture, prompts, scores, start_by).await?;
        if let Some(first) = answers.first_mut() {
            first.timings.picture_ms = picture_ms;
        }
        for (answered, delivery) in answers.iter_mut().zip(deliveries) {
            if let (Some((endpoint, delivery)), Some(file)) = (delivery, &file) {
                let file = file.clone();
                self.draw(answered, file, endpoint, delivery).await;
            }
        }
        Ok(answers)
    }

    /// The prompt of a task, which is the one at this place in its call.
    fn prompt(
        &self,
        index: usize,
        endpoint: &Endpoint,
        text_input: Option<&str>,
        region: Option<[u16; 4]>,
    ) -> Result<Prompt, PipelineError> {
        // Of a longer one there is only the beginning.
        if text_input.is_some_and(|text| text.len() > MAX_STRING_BYTES) {
            return Err(PipelineError::TextTooLong {
                prompt: index,
                tokens: None,
                max_tokens: self.options.max_text_tokens,
            });
        }
        prompt_of(endpoint, text_input, region)
    }

    /// Draws the findings on the picture and puts it into the answer.
    async fn draw(
        &self,
        answered: &mut Answered,
        file: Bytes,
        endpoint: &Endpoint,
        delivery: Delivery<'_>,
    ) {
        let begun = Instant::now();
        let answer = answered.answer.clone();
        let image = drawn::image(&self.pictures, file, answer, endpoint.name, delivery).await;
        answered.output.set_image(image);
        answered.timings.draw_ms = ms_since(begun);
    }

    /// How the drawn picture gets to the caller; `None` when nothing is drawn.
    fn delivery<'a>(
        &self,
        endpoint: &Endpoint,
        is_inline: bool,
        host: Option<ImageHost<'a>>,
    ) -> Option<Delivery<'a>> {
        if !self.settings.draws_image || endpoint.output == OutputModel::Text {
            None
        } else if is_inline {
            Some(Delivery::Inline)
        } else {
            host.map(Delivery::Hosted)
        }
    }
}

/// The prompt of an endpoint's task.
///
/// # Errors
/// When the input lacks what the endpoint needs, which validated input never does.
pub fn prompt_of(
    endpoint: &Endpoint,
    text_input: Option<&str>,
    region: Option<[u16; 4]>,
) -> Result<Prompt, PipelineError> {
    let task = Task::from_name(endpoint.name)
        .ok_or_else(|| PipelineError::Internal(format!("no task named {}", endpoint.name)))?;
    Ok(prompt::for_task(task, text_input, region)?)
}
