//! One model call, from the bytes of its body to the parts of its answer.
//!
//! Synchronous calls and jobs from the queue both come through here, so that the two cannot drift
//! apart. Who waits for the answer, and how it reaches them, is not known here.

use std::time::Instant;

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::Value;
use url::Url;

use super::error::{ApiError, BILLABLE_UNITS, JSON};
use super::extract;
use super::state::Shared;
use crate::fal::endpoint::Endpoint;
use crate::fal::input::{self, Input};
use crate::fal::output::{TaskOutput, TasksOutput};
use crate::fal::tasks::{self, TasksInput};
use crate::files::Lifecycle;
use crate::pipeline::{ImageHost, PipelineError, Timings};
use crate::queue::LogLevel;

/// Hears what happens while a call is answered, in words for the caller.
pub(crate) type Listener<'a> = &'a (dyn Fn(LogLevel, String) + Sync);

/// What a call is about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Subject {
    /// One of the fourteen endpoints.
    Endpoint(&'static Endpoint),
    /// The application itself, which takes several tasks about one picture.
    Tasks,
}

impl Subject {
    /// The part of the address behind the application: an endpoint's name, or nothing.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Endpoint(endpoint) => endpoint.name,
            Self::Tasks => "",
        }
    }

    /// The subject with this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "" => Some(Self::Tasks),
            name => Endpoint::named(name).map(Self::Endpoint),
        }
    }
}

/// A call as it was received.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'a> {
    /// What is asked.
    pub(crate) subject: Subject,
    /// The body's declared media type.
    pub(crate) content_type: Option<&'a str>,
    /// The body.
    pub(crate) body: &'a [u8],
    /// Latest moment for the model to begin.
    pub(crate) start_by: Option<Instant>,
    /// Scheme and authority by which the caller knows this server.
    pub(crate) origin: &'a str,
    /// How long the drawn picture lives, and for whom.
    pub(crate) lifecycle: Lifecycle,
}

/// A good answer.
#[derive(Debug)]
pub(crate) struct CallAnswer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// Answers one call.
///
/// Cancel-safe: dropping the future closes a running download and leaves the model's line.
///
/// # Errors
/// Whatever the table of errors has about bodies, fields, pictures and the model.
pub(crate) async fn answer(
    shared: &Shared,
    call: Call<'_>,
    listener: Listener<'_>,
) -> Result<CallAnswer, ApiError> {
    let value = extract::parse_json(call.content_type, call.body)?;
    let host = ImageHost {
        files: &shared.files,
        base: call.origin,
        lifecycle: call.lifecycle,
    };
    let asked = Asked {
        shared,
        start_by: call.start_by,
        host,
        listener,
    };
    match call.subject {
        Subject::Endpoint(endpoint) => asked.endpoint(endpoint, value).await,
        Subject::Tasks => asked.tasks(value).await,
    }
}

/// What answering needs beside the body.
struct Asked<'a> {
    shared: &'a Shared,
    start_by: Option<Instant>,
    host: ImageHost<'a>,
    listener: Listener<'a>,
}

impl Asked<'_> {
    async fn endpoint(
        &self,
        endpoint: &'static Endpoint,
        value: Value,
    ) -> Result<CallAnswer, ApiError> {
        let input = input::read(endpoint, value).map_err(ApiError::Invalid)?;
        let pipeline = self.shared.pipeline().ok_or(ApiError::NotReady)?;
        self.say(beginning(endpoint.name, &input.image_url));
        let answering = pipeline.answer_endpoint(endpoint, &input, self.start_by, Some(self.host));
        match answering.await {
            Ok(answered) => {
                let length = answered.token_ids.len();
                self.account(&answered.timings, (answered.width, answered.height), length);
                good(&answered.output, 1)
            }
            Err(error) => {
                self.shared.metrics.observe_failure(&error);
                let input = Box::new(input);
                let task = None;
                Err(ApiError::Pipeline { error, input, task })
            }
        }
    }

    /// Several tasks from one look: an addition to fal's calls. What would be charged for is as many
    /// units as the single calls would have been.
    async fn tasks(&self, value: Value) -> Result<CallAnswer, ApiError> {
        let input = tasks::read(value, self.shared.http.max_tasks).map_err(ApiError::Invalid)?;
        let pipeline = self.shared.pipeline().ok_or(ApiError::NotReady)?;
        let names: Vec<_> = input.tasks.iter().map(|task| task.endpoint.name).collect();
        self.say(beginning(&names.join(", "), &input.image_url));
        let answering = pipeline.answer_tasks(&input, self.start_by, Some(self.host));
        let answers = match answering.await {
            Ok(answers) => answers,
            Err(error) => {
                self.shared.metrics.observe_failure(&error);
                return Err(failure(error, input));
            }
        };
        let length = answers
            .iter()
            .map(|answered| answered.token_ids.len())
            .sum();
        let first = answers.first();
        let size = first.map_or((0, 0), |first| (first.width, first.height));
        self.account(&Timings::of_all(&answers), size, length);
        let outputs = answers.into_iter().map(|answered| answered.output);
        let output = TasksOutput {
            results: names
                .into_iter()
                .zip(outputs)
                .map(|(task, output)| TaskOutput { task, output })
                .collect(),
        };
        good(&output, output.results.len())
    }

    /// Tells metrics, log and caller what was done and how long it took.
    fn account(&self, times: &Timings, size: (u32, u32), tokens: usize) {
        self.shared.metrics.observe_stages(times);
        for line in account(times, size, tokens) {
            self.say(line);
        }
    }

    fn say(&self, line: String) {
        tracing::debug!("{line}");
        (self.listener)(LogLevel::Info, line);
    }
}

fn good(output: &impl Serialize, units: usize) -> Result<CallAnswer, ApiError> {
    let body = serde_json::to_vec(output).map_err(|error| ApiError::Internal(error.to_string()))?;
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(BILLABLE_UNITS, HeaderValue::from(units));
    Ok(CallAnswer {
        status: StatusCode::OK,
        headers,
        body,
    })
}

/// The failure of a call with several tasks, told as that of the one task whose fault it is, if it
/// is one's.
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
        sync_mode: input.sync_mode,
    });
    ApiError::Pipeline { error, input, task }
}

/// Says what is about to be done. Of an address only scheme and host are named: the rest may hold a
/// signature.
fn beginning(tasks: &str, image_url: &str) -> String {
    let source = match Url::parse(image_url) {
        Ok(parsed) if parsed.scheme() == "data" => {
            format!("a data: URI of {} characters", image_url.len())
        }
        Ok(parsed) => match parsed.host_str() {
            Some(host) => format!("{}://{host}", parsed.scheme()),
            None => "an address without a host".to_owned(),
        },
        Err(_) => "something that is no address".to_owned(),
    };
    format!("Task {tasks}, picture from {source}.")
}

fn account(times: &Timings, (width, height): (u32, u32), tokens: usize) -> [String; 4] {
    let stages = &times.stages;
    [
        format!(
            "Picture of {width} x {height} pixels, loaded in {:.1} ms, prepared in {:.1} ms.",
            times.picture_ms, times.preprocess_ms
        ),
        format!(
            "Model answered with {tokens} tokens in {:.1} ms: vision {:.1}, encoder {:.1}, prefill {:.1}, decode {:.1}.",
            times.predict_ms,
            stages.vision_ms,
            stages.encoder_ms,
            stages.prefill_ms,
            stages.decode_ms
        ),
        format!("Answer read in {:.1} ms.", times.postprocess_ms),
        format!("Picture drawn in {:.1} ms.", times.draw_ms),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_names_the_host_of_a_picture_and_nothing_else_of_its_address() {
        let said = |image_url: &str| {
            let line = beginning("caption", image_url);
            let source = line.strip_prefix("Task caption, picture from ").unwrap();
            source.strip_suffix('.').unwrap().to_owned()
        };
        for (image_url, source) in [
            (
                "https://u:p@a.test:8443/secret?sig=secret#x",
                "https://a.test",
            ),
            ("data:image/png;base64,AAAA", "a data: URI of 26 characters"),
            ("secret", "something that is no address"),
            ("secret:secret", "an address without a host"),
        ] {
            assert_eq!(said(image_url), source);
        }
    }
}
