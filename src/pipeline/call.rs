//! One call: its picture, its answers, and the pictures drawn from them.
//!
//! What the synchronous routes and a queued job share beyond [`Pipeline::answer`]. First the texts are
//! judged ([`Pipeline::ask`]), then the picture's file is read ([`Pipeline::read`]): waiting for its
//! source is no work, and the body in which it came is out of memory while the model works.

use std::time::Instant;

use bytes::Bytes;

use super::drawn::{self, Delivery, ImageHost};
use super::{Answered, Picture, Pipeline, PipelineError, Question, ms_since, the_only};
use crate::fal::endpoint::{Endpoint, OutputModel};
use crate::fal::input::Input;
use crate::fal::json::MAX_STRING_BYTES;
use crate::fal::tasks::TasksInput;
use crate::florence2::prompt::{self, Prompt};
use crate::florence2::task::Task;

/// The file of a picture, as [`Pipeline::read`] gives it.
#[derive(Clone, Debug)]
pub struct PictureFile {
    pub(super) bytes: Bytes,
    /// Time that it took to get, in milliseconds.
    pub(super) read_ms: f64,
}

/// How a call is to be answered, beside what it asks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    /// Whether findings carry scores.
    pub scores: bool,
    /// Whether the drawn picture goes into the answer instead of to `host`.
    pub sync_mode: bool,
    /// Latest moment for the model to begin.
    pub start_by: Option<Instant>,
    /// Takes the drawn picture; without one it is drawn only when it goes into the answer.
    pub host: Option<ImageHost<'a>>,
}

impl Pipeline {
    /// Judges and tokenizes the text of a call to an endpoint. No picture is looked at.
    ///
    /// # Errors
    /// As [`Pipeline::tokenize`].
    pub async fn ask(&self, endpoint: &Endpoint, input: &Input) -> Result<Question, PipelineError> {
        let prompt = self.prompt(0, endpoint, input.text_input.as_deref(), input.region)?;
        self.tokenize(vec![prompt]).await
    }

    /// Judges and tokenizes the texts of a call with several tasks.
    ///
    /// # Errors
    /// As [`Pipeline::tokenize`]; one task that fails fails them all.
    pub async fn ask_tasks(&self, input: &TasksInput) -> Result<Question, PipelineError> {
        let prompts = input.tasks.iter().enumerate().map(|(index, task)| {
            self.prompt(
                index,
                task.endpoint,
                task.text_input.as_deref(),
                task.region,
            )
        });
        self.tokenize(prompts.collect::<Result<_, _>>()?).await
    }

    /// Answers one call to an endpoint: a question of [`Self::ask`] about the picture in `file`.
    ///
    /// Cancel-safe: dropping the future leaves the model's line.
    ///
    /// # Errors
    /// See [`PipelineError`]. A drawn picture that cannot be had is none.
    pub async fn answer_endpoint(
        &self,
        endpoint: &Endpoint,
        question: Question,
        file: PictureFile,
        wanted: Wanted<'_>,
    ) -> Result<Answered, PipelineError> {
        let (picture, picture_ms) = self.unpack(&file).await?;
        // The file is kept only where it is drawn on.
        let drawing = self
            .delivery(endpoint, wanted.sync_mode, wanted.host)
            .map(|it| (file.bytes, it));
        let answering = self.answer_all(picture, question, wanted.scores, wanted.start_by);
        let mut answered = the_only(answering.await?)?;
        answered.timings.picture_ms = picture_ms;
        if let Some((file, delivery)) = drawing {
            self.draw(&mut answered, file, endpoint, delivery).await;
        }
        Ok(answered)
    }

    /// Answers several tasks about the picture in `file`, from one look at it: a question of
    /// [`Self::ask_tasks`] with the endpoints of its tasks, in their order.
    ///
    /// Cancel-safe as [`Self::answer_endpoint`] is. A task that fails fails them all.
    ///
    /// # Errors
    /// See [`PipelineError`].
    pub async fn answer_tasks(
        &self,
        endpoints: &[&Endpoint],
        question: Question,
        file: PictureFile,
        wanted: Wanted<'_>,
    ) -> Result<Vec<Answered>, PipelineError> {
        let (picture, picture_ms) = self.unpack(&file).await?;
        let answering = self.answer_all(picture, question, wanted.scores, wanted.start_by);
        let mut answers = answering.await?;
        if let Some(first) = answers.first_mut() {
            first.timings.picture_ms = picture_ms;
        }
        for (answered, endpoint) in answers.iter_mut().zip(endpoints) {
            if let Some(delivery) = self.delivery(endpoint, wanted.sync_mode, wanted.host) {
                let file = file.bytes.clone();
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

    /// The picture in a file, and how long it took to get, in milliseconds.
    async fn unpack(&self, file: &PictureFile) -> Result<(Picture, f64), PipelineError> {
        let begun = Instant::now();
        let picture = self.pictures.decode(file.bytes.clone()).await?;
        Ok((picture, file.read_ms + ms_since(begun)))
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
