//! One call: its picture, its answers, and the pictures drawn from them.
//!
//! What the synchronous routes and a queued job share beyond [`Pipeline::answer`].

use std::time::Instant;

use bytes::Bytes;

use super::drawn::{self, Delivery, ImageHost};
use super::{Answered, Pipeline, PipelineError, ms_since, the_only};
use crate::fal::endpoint::{Endpoint, OutputModel};
use crate::fal::input::Input;
use crate::fal::json::MAX_STRING_BYTES;
use crate::fal::tasks::TasksInput;
use crate::florence2::prompt::{self, Prompt};
use crate::florence2::task::Task;

impl Pipeline {
    /// Answers one call to an endpoint. `start_by` is the latest moment for the model to begin.
    /// `host` takes the drawn picture; without one it is drawn only when it goes into the answer.
    ///
    /// The text is judged before the picture is looked at. The input is used up, so that the body in
    /// which it came is out of memory while the model works.
    ///
    /// Cancel-safe: dropping the future closes a running download and leaves the model's line.
    ///
    /// # Errors
    /// See [`PipelineError`]. A drawn picture that cannot be had is none.
    pub async fn answer_endpoint(
        &self,
        endpoint: &Endpoint,
        input: Input,
        start_by: Option<Instant>,
        host: Option<ImageHost<'_>>,
    ) -> Result<Answered, PipelineError> {
        let prompt = self.prompt(0, endpoint, input.text_input.as_deref(), input.region)?;
        let question = self.tokenize(vec![prompt]).await?;
        let begun = Instant::now();
        let file = self.pictures.read(input.image_url.into_bytes()).await?;
        let picture = self.pictures.decode(file.clone()).await?;
        let picture_ms = ms_since(begun);
        // The file is kept only where it is drawn on.
        let drawing = self
            .delivery(endpoint, input.sync_mode, host)
            .map(|it| (file, it));
        let answering = self.answer_all(picture, question, input.scores, start_by);
        let mut answered = the_only(answering.await?)?;
        answered.timings.picture_ms = picture_ms;
        if let Some((file, delivery)) = drawing {
            self.draw(&mut answered, file, endpoint, delivery).await;
        }
        Ok(answered)
    }

    /// Answers several tasks about one picture, in their order, from one look at it. `start_by` is
    /// the latest moment for the model to begin.
    ///
    /// Judges the texts first, uses the input up and is cancel-safe as [`Self::answer_endpoint`]. A
    /// task that fails fails them all.
    ///
    /// # Errors
    /// See [`PipelineError`].
    pub async fn answer_tasks(
        &self,
        input: TasksInput,
        start_by: Option<Instant>,
        host: Option<ImageHost<'_>>,
    ) -> Result<Vec<Answered>, PipelineError> {
        let TasksInput {
            image_url,
            tasks,
            scores,
            sync_mode,
        } = input;
        let prompts = tasks.iter().enumerate().map(|(index, task)| {
            self.prompt(
                index,
                task.endpoint,
                task.text_input.as_deref(),
                task.region,
            )
        });
        let question = self.tokenize(prompts.collect::<Result<_, _>>()?).await?;
        let begun = Instant::now();
        let file = self.pictures.read(image_url.into_bytes()).await?;
        let picture = self.pictures.decode(file.clone()).await?;
        let picture_ms = ms_since(begun);
        let mut answers = self.answer_all(picture, question, scores, start_by).await?;
        if let Some(first) = answers.first_mut() {
            first.timings.picture_ms = picture_ms;
        }
        for (answered, task) in answers.iter_mut().zip(&tasks) {
            if let Some(delivery) = self.delivery(task.endpoint, sync_mode, host) {
                let file = file.clone();
                self.draw(answered, file, task.endpoint, delivery).await;
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
