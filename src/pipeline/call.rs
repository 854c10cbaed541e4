//! One call: its picture, its answers, and the pictures drawn from them.
//!
//! What the synchronous routes and a queued job share beyond [`Pipeline::answer`]. The picture's file
//! has been read before ([`Pipeline::read`]): waiting for its source is no work.

use std::time::Instant;

use bytes::Bytes;

use super::drawn::{self, Delivery, ImageHost};
use super::{Answered, Picture, Pipeline, PipelineError, ms_since};
use crate::fal::endpoint::{Endpoint, OutputModel};
use crate::fal::input::Input;
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

impl Pipeline {
    /// Answers one call to an endpoint about the picture in `file`. `start_by` is the latest moment
    /// for the model to begin.
    /// `host` takes the drawn picture; without one it is drawn only when it goes into the answer.
    ///
    /// Cancel-safe: dropping the future leaves the model's line.
    ///
    /// # Errors
    /// See [`PipelineError`]. A drawn picture that cannot be had is none.
    pub async fn answer_endpoint(
        &self,
        endpoint: &Endpoint,
        input: &Input,
        file: PictureFile,
        start_by: Option<Instant>,
        host: Option<ImageHost<'_>>,
    ) -> Result<Answered, PipelineError> {
        let prompt = prompt_of(endpoint, input.text_input.as_deref(), input.region)?;
        let (picture, picture_ms) = self.unpack(&file).await?;
        // The file is kept only where it is drawn on.
        let drawing = self
            .delivery(endpoint, input.sync_mode, host)
            .map(|it| (file.bytes, it));
        let mut answered = self
            .answer(picture, &prompt, input.scores, start_by)
            .await?;
        answered.timings.picture_ms = picture_ms;
        if let Some((file, delivery)) = drawing {
            self.draw(&mut answered, file, endpoint, delivery).await;
        }
        Ok(answered)
    }

    /// Answers several tasks about the picture in `file`, in their order, from one look at it.
    /// `start_by` is the latest moment for the model to begin.
    ///
    /// Cancel-safe as [`Self::answer_endpoint`] is. A task that fails fails them all.
    ///
    /// # Errors
    /// See [`PipelineError`].
    pub async fn answer_tasks(
        &self,
        input: &TasksInput,
        file: PictureFile,
        start_by: Option<Instant>,
        host: Option<ImageHost<'_>>,
    ) -> Result<Vec<Answered>, PipelineError> {
        let prompts: Vec<Prompt> = input
            .tasks
            .iter()
            .map(|task| prompt_of(task.endpoint, task.text_input.as_deref(), task.region))
            .collect::<Result<_, _>>()?;
        let (picture, picture_ms) = self.unpack(&file).await?;
        let mut answers = self
            .answer_all(picture, &prompts, input.scores, start_by)
            .await?;
        if let Some(first) = answers.first_mut() {
            first.timings.picture_ms = picture_ms;
        }
        for (answered, task) in answers.iter_mut().zip(&input.tasks) {
            if let Some(delivery) = self.delivery(task.endpoint, input.sync_mode, host) {
                let file = file.bytes.clone();
                self.draw(answered, file, task.endpoint, delivery).await;
            }
        }
        Ok(answers)
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
