//! Several tasks about one picture, from one look at it. Our own addition to fal's calls, at the
//! address of the application itself; everything but the body's two shapes is as in [`super::run`].

use std::time::Instant;

use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use serde_json::Value;

use crate::fal::input::Input;
use crate::fal::output::{TaskOutput, TasksOutput};
use crate::fal::tasks::{self, TasksInput};
use crate::pipeline::{ImageHost, PipelineError, Timings};
use crate::server::error::{ApiError, BILLABLE_UNITS, JSON};
use crate::server::state::Shared;
use crate::server::{extract, lifecycle};

/// Answers one call.
pub(crate) async fn run(shared: &Shared, request: Request) -> Result<Response, ApiError> {
    let arrived = Instant::now();
    let (head, body) = request.into_parts();
    let timeout = extract::start_timeout(&head.headers)?;
    let start_by = timeout.and_then(|timeout| arrived.checked_add(timeout));
    let body = extract::read_body(body, shared).await?;
    let value = extract::parse_json(extract::content_type(&head.headers), &body.bytes)?;
    let host = ImageHost {
        files: &shared.files,
        base: &extract::reached(&head.extensions)?.origin,
        lifecycle: lifecycle::of_products(&head.headers)?,
    };
    let output = answer(shared, value, start_by, host).await?;
    let units = HeaderValue::from(output.results.len());
    let body =
        serde_json::to_vec(&output).map_err(|error| ApiError::Internal(error.to_string()))?;
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    // As many as the single calls would have been.
    headers.insert(BILLABLE_UNITS, units);
    Ok(response)
}

/// Validates a body and answers its tasks.
pub(crate) async fn answer(
    shared: &Shared,
    body: Value,
    start_by: Option<Instant>,
    host: ImageHost<'_>,
) -> Result<TasksOutput, ApiError> {
    let input = tasks::read(body, shared.http.max_tasks).map_err(ApiError::Invalid)?;
    let pipeline = shared.pipeline().ok_or(ApiError::NotReady)?;
    let answers = match pipeline.answer_tasks(&input, start_by, Some(host)).await {
        Ok(answers) => answers,
        Err(error) => return Err(failure(error, input)),
    };
    let timings = Timings::of_all(&answers);
    shared.metrics.observe_stages(&timings);
    tracing::debug!(
        tasks = answers.len(),
        predict_ms = timings.predict_ms,
        "answered"
    );
    let names = input.tasks.iter().map(|task| task.endpoint.name);
    let outputs = answers.into_iter().map(|answered| answered.output);
    Ok(TasksOutput {
        results: names
            .zip(outputs)
            .map(|(task, output)| TaskOutput { task, output })
            .collect(),
    })
}

/// The failure of the whole call, told as that of the one task whose fault it is, if it is one's.
fn failure(error: PipelineError, mut input: TasksInput) -> ApiError {
    let task = match &error {
        PipelineError::TextTooLong { prompt, .. } => Some(*prompt),
        _ => None,
    };
    let asked = task.and_then(|task| input.tasks.get_mut(task));
    let input = Box::new(Input {
        text_input: asked.and_then(|asked| asked.text_input.take()),
        image_url: input.image_url,
        region: None,
        scores: input.scores,
        sync_mode: false,
    });
    ApiError::Pipeline { error, input, task }
}
