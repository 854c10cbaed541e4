//! One model call, from the bytes of its body to the parts of its answer.
//!
//! Synchronous calls and jobs from the queue both come through here, so that the two cannot drift
//! apart. Who waits for the answer, and how it reaches them, is not known here.

use std::sync::Arc;
use std::time::Instant;

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use bytes::Bytes;
use serde::Serialize;
use url::Url;

use super::error::{ApiError, BILLABLE_UNITS, JSON};
use super::json_body;
use super::state::Shared;
use crate::fal::endpoint::Endpoint;
use crate::fal::image_url::ImageUrl;
use crate::fal::input::{self, Input, ShownInput};
use crate::fal::json::Json;
use crate::fal::output::{TaskOutput, TasksOutput};
use crate::fal::tasks::{self, TasksInput};
use crate::files::{Durability, Lifecycle};
use crate::pipeline::{
    Answered, EngineError, FetchGate, ImageHost, MAX_URL_BYTES, PictureFile, Pipeline,
    PipelineError, Question, Timings,
};
use crate::queue::LogLevel;
use crate::semaphore::{Caller, YieldingPermit};

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
#[derive(Debug)]
pub(crate) struct Call<'a> {
    /// What is asked.
    pub(crate) subject: Subject,
    /// The body's declared media type.
    pub(crate) content_type: Option<&'a str>,
    /// The body, with the memory in which it stands.
    pub(crate) body: Bytes,
    /// Who asks.
    pub(crate) caller: Caller,
    /// The permit to work on it, given up while a picture's source is waited for.
    pub(crate) permit: Option<&'a YieldingPermit>,
    /// Latest moment for the model to begin.
    pub(crate) start_by: Option<Instant>,
    /// Scheme and authority by which the caller knows hosted files.
    pub(crate) files_origin: &'a str,
    /// How long the drawn picture lives, and for whom.
    pub(crate) lifecycle: Lifecycle,
    /// Whether the drawn picture is synced.
    pub(crate) durability: Durability,
    /// Through what pictures are fetched, if not directly.
    pub(crate) gate: Option<&'a Arc<dyn FetchGate>>,
}

/// A good answer.
#[derive(Debug)]
pub(crate) struct CallAnswer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Answers one call.
///
/// Cancel-safe: dropping the future closes a running download and leaves every line.
///
/// # Errors
/// Whatever the table of errors has about bodies, fields, pictures and the model.
pub(crate) async fn answer(
    shared: &Shared,
    call: Call<'_>,
    listener: Listener<'_>,
) -> Result<CallAnswer, ApiError> {
    let Call { subject, body, .. } = call;
    let is_json = json_body::is_json(call.content_type);
    let (bytes, max_tasks) = (body.len(), shared.http.max_tasks);
    // What is read of the body keeps no more of it than it needs.
    let read = move || read(subject, json_body::parse(is_json, &body)?, max_tasks);
    let asked = shared.readers.run(bytes, read).await?;
    let host = ImageHost {
        files: &shared.files,
        base: call.files_origin,
        lifecycle: call.lifecycle,
        durability: call.durability,
    };
    let gated = call.gate.and_then(|gate| {
        let pipeline = shared.pipeline()?.clone();
        Some(pipeline.for_jobs(Arc::clone(gate)))
    });
    let answering = Answering {
        shared,
        caller: call.caller,
        permit: call.permit,
        pipeline: gated.as_ref().or_else(|| shared.pipeline()),
        start_by: call.start_by,
        host,
        listener,
    };
    match asked {
        Asked::Endpoint(endpoint, input) => answering.endpoint(endpoint, input).await,
        Asked::Tasks(input) => answering.tasks(input).await,
    }
}

/// A body, read and validated.
enum Asked {
    Endpoint(&'static Endpoint, Input),
    Tasks(TasksInput),
}

fn read(subject: Subject, body: Json, max_tasks: usize) -> Result<Asked, ApiError> {
    let asked = match subject {
        Subject::Endpoint(endpoint) => {
            input::read(endpoint, body).map(|input| Asked::Endpoint(endpoint, input))
        }
        Subject::Tasks => tasks::read(body, max_tasks).map(Asked::Tasks),
    };
    asked.map_err(ApiError::Invalid)
}

/// What answering needs beside the body.
struct Answering<'a> {
    shared: &'a Shared,
    caller: Caller,
    permit: Option<&'a YieldingPermit>,
    /// None while the model loads.
    pipeline: Option<&'a Pipeline>,
    start_by: Option<Instant>,
    host: ImageHost<'a>,
    listener: Listener<'a>,
}

impl Answering<'_> {
    async fn endpoint(
        &self,
        endpoint: &'static Endpoint,
        input: Input,
    ) -> Result<CallAnswer, ApiError> {
        let pipeline = self.pipeline.ok_or(ApiError::NotReady)?;
        self.say(beginning(endpoint.name, &input.image_url));
        let shown = input.shown();
        let answering = async {
            let question = pipeline.question(endpoint, &input).await?;
            self.answer(pipeline, question, input.image_url).await
        };
        let answers = answering.await.map_err(|error| ApiError::Pipeline {
            error,
            input: Box::new(shown),
            task: None,
        })?;
        self.account(&answers);
        let only = answers.into_iter().next();
        let only = only.ok_or_else(|| ApiError::Internal("no answer".into()))?;
        let output = only.output;
        self.good(output.weight(), output, 1).await
    }

    /// Several tasks from one look: an addition to fal's calls. What would be charged for is as many
    /// units as the single calls would have been.
    async fn tasks(&self, input: TasksInput) -> Result<CallAnswer, ApiError> {
        let pipeline = self.pipeline.ok_or(ApiError::NotReady)?;
        let names: Vec<_> = input.tasks.iter().map(|task| task.endpoint.name).collect();
        self.say(beginning(&names.join(", "), &input.image_url));
        let shown = input.shown();
        let answering = async {
            let question = pipeline.questions(&input).await?;
            self.answer(pipeline, question, input.image_url).await
        };
        let answers = answering.await.map_err(|error| failure(error, shown))?;
        self.account(&answers);
        let outputs = answers.into_iter().map(|answered| answered.output);
        let output = TasksOutput {
            results: names
                .into_iter()
                .zip(outputs)
                .map(|(task, output)| TaskOutput { task, output })
                .collect(),
        };
        let weights = output.results.iter().map(|result| result.output.weight());
        let (weight, units) = (weights.sum::<usize>(), output.results.len());
        self.good(weight, output, units).await
    }

    async fn answer(
        &self,
        pipeline: &Pipeline,
        question: Question,
        image_url: ImageUrl,
    ) -> Result<Vec<Answered>, PipelineError> {
        let file = self.read(pipeline, image_url).await?;
        let (start_by, host) = (self.start_by, Some(self.host));
        let answering = pipeline.answer_call(question, file, start_by, host);
        let answers = answering.await;
        if let Err(error) = &answers {
            self.shared.metrics.observe_failure(error);
        }
        answers
    }

    /// Reads the picture's file. A source that is silent holds up this call and no work.
    async fn read(
        &self,
        pipeline: &Pipeline,
        image_url: ImageUrl,
    ) -> Result<PictureFile, PipelineError> {
        // Where the picture stands in the address itself nobody is waited for.
        let yielded = self.permit.filter(|_| !image_url.is_data_uri());
        let reading = pipeline.read(image_url, self.caller);
        let reading = async {
            match yielded {
                Some(permit) => permit.yielded(reading).await,
                None => reading.await,
            }
        };
        match self.start_by {
            None => reading.await,
            // The model cannot begin before the picture is there.
            Some(start_by) => tokio::time::timeout_at(start_by.into(), reading)
                .await
                .map_err(|_| EngineError::StartDeadline)?,
        }
    }

    /// Tells metrics, log and caller what was done and how long it took.
    fn account(&self, answers: &[Answered]) {
        let times = Timings::of_all(answers);
        self.shared.metrics.observe_stages(&times);
        let tokens = answers.iter().map(|answered| answered.token_ids.len());
        let size = answers.first().map_or((0, 0), |it| (it.width, it.height));
        for line in account(&times, size, tokens.sum()) {
            self.say(line);
        }
    }

    /// The answer that this output of about `weight` bytes makes.
    async fn good(
        &self,
        weight: usize,
        output: impl Serialize + Send + 'static,
        units: usize,
    ) -> Result<CallAnswer, ApiError> {
        let write = move || {
            serde_json::to_vec(&output).map_err(|error| ApiError::Internal(error.to_string()))
        };
        let body = self.shared.readers.run(weight, write).await?;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, JSON);
        headers.insert(BILLABLE_UNITS, HeaderValue::from(units));
        Ok(CallAnswer {
            status: StatusCode::OK,
            headers,
            body: body.into(),
        })
    }

    fn say(&self, line: String) {
        tracing::debug!("{line}");
        (self.listener)(LogLevel::Info, line);
    }
}

/// The failure of a call with several tasks, told as that of the one task whose fault it is, if it
/// is one's.
fn failure(error: PipelineError, input: ShownInput) -> ApiError {
    let task = match &error {
        PipelineError::TextTooLong { prompt, .. } => Some(*prompt),
        _ => None,
    };
    let input = Box::new(input);
    ApiError::Pipeline { error, input, task }
}

/// Says what is about to be done. Of an address only scheme and host are named: the rest may hold a
/// signature.
fn beginning(tasks: &str, image_url: &ImageUrl) -> String {
    let text = image_url.as_bytes();
    let source = if image_url.is_data_uri() {
        format!("a data: URI of {} characters", text.len())
    } else {
        // What is longer than a URL may be is none, and takes long to parse.
        let text = Some(text).filter(|text| text.len() <= MAX_URL_BYTES);
        let text = text.and_then(|text| std::str::from_utf8(text).ok());
        match text.map(Url::parse) {
            Some(Ok(parsed)) => match parsed.host_str() {
                Some(host) => format!("{}://{host}", parsed.scheme()),
                None => "an address without a host".to_owned(),
            },
            _ => "something that is no address".to_owned(),
        }
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
            let line = beginning("caption", &ImageUrl::from(image_url));
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
