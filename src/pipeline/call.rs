//! One call to an endpoint: its picture, its answer, and the picture drawn from it.
//!
//! What the synchronous route and a queued job share beyond [`Pipeline::answer`].

use std::time::Instant;

use super::drawn::{self, Delivery, ImageHost};
use super::{Answered, Pipeline, PipelineError, ms_since};
use crate::fal::endpoint::{Endpoint, OutputModel};
use crate::fal::input::Input;
use crate::florence2::prompt::{self, Prompt};
use crate::florence2::task::Task;

impl Pipeline {
    /// Answers one call to an endpoint. `start_by` is the latest moment for the model to begin.
    /// `host` takes the drawn picture; without one it is drawn only when it goes into the answer.
    ///
    /// Cancel-safe: dropping the future closes a running download and leaves the model's line.
    ///
    /// # Errors
    /// See [`PipelineError`]. A drawn picture that cannot be had is none.
    pub async fn answer_endpoint(
        &self,
        endpoint: &Endpoint,
        input: &Input,
        start_by: Option<Instant>,
        host: Option<ImageHost<'_>>,
    ) -> Result<Answered, PipelineError> {
        let prompt = prompt_of(endpoint, input)?;
        let begun = Instant::now();
        let file = self.pictures.read(&input.image_url).await?;
        let picture = self.pictures.decode(file.clone()).await?;
        let picture_ms = ms_since(begun);
        // The file is kept only where it is drawn on.
        let drawing = self.delivery(endpoint, input, host).map(|it| (file, it));
        let mut answered = self.answer(picture, &prompt, start_by).await?;
        answered.timings.picture_ms = picture_ms;
        if let Some((file, delivery)) = drawing {
            let begun = Instant::now();
            let answer = answered.answer.clone();
            let image = drawn::image(&self.pictures, file, answer, endpoint.name, delivery).await;
            answered.output.set_image(image);
            answered.timings.draw_ms = ms_since(begun);
        }
        Ok(answered)
    }

    /// How the drawn picture gets to the caller; `None` when nothing is drawn.
    fn delivery<'a>(
        &self,
        endpoint: &Endpoint,
        input: &Input,
        host: Option<ImageHost<'a>>,
    ) -> Option<Delivery<'a>> {
        if !self.settings.draws_image || endpoint.output == OutputModel::Text {
            None
        } else if input.sync_mode {
            Some(Delivery::Inline)
        } else {
            host.map(Delivery::Hosted)
        }
    }
}

/// The prompt for a call to an endpoint.
///
/// # Errors
/// When the input lacks what the endpoint needs, which validated input never does.
pub fn prompt_of(endpoint: &Endpoint, input: &Input) -> Result<Prompt, PipelineError> {
    let task = Task::from_name(endpoint.name)
        .ok_or_else(|| PipelineError::Internal(format!("no task named {}", endpoint.name)))?;
    let prompt = prompt::for_task(task, input.text_input.as_deref(), input.region)?;
    Ok(prompt)
}
