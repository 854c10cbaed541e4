//! The one table from every error to status, envelope and headers. To learn what callers can see,
//! read this file and the two beside it, which hold the rows of the pipeline and of hosted files.
//!
//! The envelopes and the rows that several errors share are next door. Every error answers two questions: whose fault it was ([`Blame`]) and whether trying again
//! helps. Log level and retry headers follow from those. Callers get a constant sentence per type;
//! what really happened goes to the log, once, through a response extension. A refused address, a
//! dead host and a missing file look the same from outside, so that answers are no map of a network.

mod files;
mod pipeline;
mod verdict;

use axum::body::Body;
use axum::http::header::{ALLOW, CONNECTION, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use crate::fal::endpoint::{ALIAS, OWNER};
use crate::fal::error::{Fault, RequestErrorType};
use crate::fal::input::ShownInput;
use crate::fal::queue::Word;
use crate::files::FilesError;
use crate::pipeline::PipelineError;
use crate::semaphore::Exhausted;
use verdict::{
    Verdict, bad_request, busy, client_closed_request, internal, start_deadline, too_many_bytes,
    unready,
};

pub(crate) use verdict::ErrorParts;

/// Media type of every body.
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// On every answer; the JavaScript client has no other source for it.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-fal-request-id");
/// What fal would charge for.
pub(crate) const BILLABLE_UNITS: HeaderName = HeaderName::from_static("x-fal-billable-units");

/// Everything that can go wrong between socket and answer.
#[derive(Debug)]
pub(crate) enum ApiError {
    /// No usable `Authorization`.
    NoCredentials,
    /// A key that is not ours and is not even shaped like fal's.
    MalformedKey,
    /// A key that is not ours.
    UnknownKey,
    /// Another application of the same owner.
    UnknownApplication { alias: String },
    /// No such path.
    UnknownPath { path: String },
    /// No such task; another one is called much like it.
    UnknownTask { path: String, nearest: &'static str },
    /// The path exists for another method.
    MethodNotAllowed { allow: &'static str },
    /// The proxy was given no target, or one that is none of fal's.
    ProxyTarget,
    /// A web page that may not call.
    ForeignPage,
    /// `X-Fal-Request-Timeout` is no number of seconds.
    BadTimeoutHeader,
    /// A parameter of the query makes no sense. The sentence names it.
    BadParameter(&'static str),
    /// A lifecycle header is not what its name says.
    BadLifecycleHeader,
    /// The body is JSON of another shape than the call takes.
    BadShape(String),
    /// Hosted files.
    Files(FilesError),
    /// The body exceeds its cap.
    BodyTooLarge { max_bytes: usize },
    /// The body's clock ran out.
    BodyTooSlow,
    /// The body ended early or is not framed as HTTP says.
    BodyBroken(String),
    /// Fields of the wrong type or range, all of them.
    Invalid(Vec<Fault>),
    /// Too many calls inside.
    Busy,
    /// The model is not loaded yet.
    NotReady,
    /// The pipeline failed on this input; with several tasks, perhaps on that of one of them.
    Pipeline {
        error: PipelineError,
        input: Box<ShownInput>,
        task: Option<usize>,
    },
    /// The caller's own limit on the length of the queue is reached.
    QueueFull { waiting: u64 },
    /// The store failed, has no room, or is closed.
    QueueUnavailable(String),
    /// No job has this id, or not any more.
    UnknownJob,
    /// The job has no answer yet.
    JobInProgress,
    /// The job is done and cannot be cancelled.
    JobAlreadyDone,
    /// The caller cancelled the job.
    JobCancelled,
    /// The job's start deadline passed while it waited.
    JobTooLate,
    /// The process died too often while it ran the job.
    JobPoisoned,
    /// What came is no request.
    Head(HeadFault),
    /// The server is stopping.
    Stopping,
    /// Our fault.
    Internal(String),
}

/// What is wrong with something that never became a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum HeadFault {
    /// It cannot be read.
    Malformed,
    /// Its line and headers are too long, or too many.
    TooLarge,
    /// Its address is too long.
    UriTooLong,
    /// Its headers did not arrive in time.
    TooSlow,
    /// It is not encrypted.
    NotTls,
}

/// Whose fault an error was. The log level follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blame {
    Caller,
    Overload,
    Deadline,
    Unready,
    Us,
}

/// What the log is told about an error; rides on the answer as an extension.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) blame: Blame,
    pub(crate) cause: String,
}

impl ApiError {
    fn verdict(&self) -> Verdict {
        use RequestErrorType as Type;
        use StatusCode as S;
        match self {
            Self::NoCredentials => Verdict::plain(
                S::UNAUTHORIZED,
                format!(
                    "Cannot access application \"{OWNER}/{ALIAS}\". Authentication is required to access this application."
                ),
            )
            .with(WWW_AUTHENTICATE, "Key"),
            Self::MalformedKey => Verdict::plain(
                S::UNAUTHORIZED,
                "Invalid Key Authorization header format. Expected '<key_id>:<key_secret>'.",
            )
            .with(WWW_AUTHENTICATE, "Key"),
            Self::UnknownKey => {
                Verdict::plain(S::UNAUTHORIZED, "No user found for Key ID and Secret")
                    .with(WWW_AUTHENTICATE, "Key")
            }
            Self::UnknownApplication { alias } => {
                Verdict::plain(S::NOT_FOUND, format!("Application \"{alias}\" not found"))
            }
            Self::UnknownPath { path } => {
                Verdict::plain(S::NOT_FOUND, format!("Path {path} not found"))
                    .with(BILLABLE_UNITS, "0")
            }
            Self::UnknownTask { path, nearest } => Verdict::plain(
                S::NOT_FOUND,
                format!("Path {path} not found. Did you mean /{nearest}?"),
            )
            .with(BILLABLE_UNITS, "0"),
            Self::MethodNotAllowed { allow } => {
                Verdict::plain(S::METHOD_NOT_ALLOWED, "Method Not Allowed").with(ALLOW, allow)
            }
            Self::ProxyTarget => Verdict::plain(S::BAD_REQUEST, "Invalid request"),
            Self::ForeignPage => Verdict::plain(
                S::FORBIDDEN,
                "Web pages of this origin may not call this server.",
            ),
            Self::BadTimeoutHeader => {
                bad_request("X-Fal-Request-Timeout must be a positive number of seconds.")
            }
            Self::BadParameter(sentence) => bad_request(sentence),
            Self::BadLifecycleHeader => bad_request(
                "X-Fal-Object-Lifecycle must be JSON such as {\"expiration_duration_seconds\": 3600}.",
            ),
            Self::BadShape(_) => bad_request("The body does not have the fields of this call."),
            Self::Files(error) => files::verdict(error),
            Self::BodyTooLarge { max_bytes } => Verdict::model(
                S::PAYLOAD_TOO_LARGE,
                vec![too_many_bytes(&[], *max_bytes, &Value::Null)],
            )
            .with(CONNECTION, "close"),
            Self::BodyTooSlow => Verdict::request(
                S::REQUEST_TIMEOUT,
                Blame::Caller,
                Type::BadRequest,
                "The request body arrived too slowly.",
            )
            .with(CONNECTION, "close"),
            Self::BodyBroken(_) => {
                bad_request("The request body could not be read.").with(CONNECTION, "close")
            }
            Self::Invalid(faults) => Verdict::model(S::UNPROCESSABLE_ENTITY, faults.clone()),
            Self::Busy => busy("Too many requests at once. Try again later."),
            Self::NotReady => unready("The model is still loading. Try again later."),
            Self::Pipeline { error, input, task } => pipeline::verdict(error, input, *task),
            Self::QueueFull { .. } => {
                busy("Too many requests wait in the queue. Try again later.")
            }
            Self::QueueUnavailable(_) => {
                unready("The queue is not available. Try again later.")
            }
            Self::UnknownJob => Verdict::word(S::NOT_FOUND, Word::NotFound),
            Self::JobInProgress => {
                Verdict::plain(S::BAD_REQUEST, "Request is still in progress")
            }
            Self::JobAlreadyDone => Verdict::word(S::BAD_REQUEST, Word::AlreadyCompleted),
            Self::JobCancelled => Verdict::request(
                client_closed_request(),
                Blame::Caller,
                Type::ClientCancelled,
                "The request was cancelled.",
            ),
            Self::JobTooLate => start_deadline(),
            Self::JobPoisoned => Verdict::request(
                S::INTERNAL_SERVER_ERROR,
                Blame::Us,
                Type::RunnerServerError,
                "The server went down each time it worked on this request.",
            )
            .for_good(),
            Self::Head(fault) => verdict::unreadable(*fault),
            Self::Stopping => {
                unready("The server is stopping. Try again later.").with(CONNECTION, "close")
            }
            Self::Internal(_) => internal(),
        }
    }

    /// What really happened, for the log.
    fn cause(&self) -> String {
        match self {
            Self::Pipeline { error, .. } => error.to_string(),
            Self::Invalid(faults) => {
                let kinds: Vec<_> = faults.iter().map(Fault::kind).collect();
                format!("invalid input: {}", kinds.join(", "))
            }
            Self::BodyBroken(cause)
            | Self::BadShape(cause)
            | Self::QueueUnavailable(cause)
            | Self::Internal(cause) => cause.clone(),
            Self::QueueFull { waiting } => format!("{waiting} requests wait in the queue"),
            Self::Files(error) => error.to_string(),
            other => format!("{other:?}"),
        }
    }
}

impl ApiError {
    /// The error as it goes out.
    pub(crate) fn parts(&self) -> ErrorParts {
        self.verdict().into_parts(self.cause())
    }
}

impl From<Exhausted> for ApiError {
    fn from(_: Exhausted) -> Self {
        Self::Busy
    }
}

impl From<FilesError> for ApiError {
    fn from(error: FilesError) -> Self {
        Self::Files(error)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let parts = self.parts();
        let mut response = Response::new(Body::from(parts.body));
        *response.status_mut() = parts.status;
        *response.headers_mut() = parts.headers;
        response.extensions_mut().insert(parts.failure);
        response
    }
}
