//! The one table from every error to status, envelope and headers. To learn what callers can see,
//! read this file and the two beside it, which hold the rows of the pipeline and of hosted files.
//!
//! Every error answers two questions: whose fault it was ([`Blame`]) and whether trying again
//! helps. Log level and retry headers follow from those. Callers get a constant sentence per type;
//! what really happened goes to the log, once, through a response extension. A refused address, a
//! dead host and a missing file look the same from outside, so that answers are no map of a network.

mod files;
mod pipeline;

use axum::body::Body;
use axum::http::header::{ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};

use crate::fal::endpoint::{ALIAS, OWNER};
use crate::fal::error::{
    Fault, FaultType, ModelError, PlainError, RequestError, RequestErrorType, Step,
};
use crate::fal::input::Input;
use crate::files::FilesError;
use crate::pipeline::PipelineError;

/// Media type of every body.
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// On every answer; the JavaScript client has no other source for it.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-fal-request-id");
/// What fal would charge for.
pub(crate) const BILLABLE_UNITS: HeaderName = HeaderName::from_static("x-fal-billable-units");

const ERROR_TYPE: HeaderName = HeaderName::from_static("x-fal-error-type");
const NEEDS_RETRY: HeaderName = HeaderName::from_static("x-fal-needs-retry");
const RETRYABLE: HeaderName = HeaderName::from_static("x-fal-retryable");
const TIMEOUT_TYPE: HeaderName = HeaderName::from_static("x-fal-request-timeout-type");

/// Seconds after which a refused caller may try again.
const RETRY_AFTER_S: HeaderValue = HeaderValue::from_static("1");

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
    /// The path exists for another method.
    MethodNotAllowed { allow: &'static str },
    /// `X-Fal-Request-Timeout` is no number of seconds.
    BadTimeoutHeader,
    /// A lifecycle header is not what its name says.
    BadLifecycleHeader,
    /// The request does not say to which host it goes, and the answer holds URLs.
    BadHost,
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
    /// The pipeline failed on this input.
    Pipeline {
        error: PipelineError,
        input: Box<Input>,
    },
    /// Our fault.
    Internal(String),
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

/// One row of the table.
struct Verdict {
    status: StatusCode,
    blame: Blame,
    retry: bool,
    envelope: Envelope,
    headers: Vec<(HeaderName, HeaderValue)>,
}

enum Envelope {
    Model(ModelError),
    Request(RequestErrorType, &'static str),
    Plain(String),
}

impl Verdict {
    fn model(status: StatusCode, detail: Vec<Fault>) -> Self {
        Self {
            status,
            blame: Blame::Caller,
            retry: false,
            envelope: Envelope::Model(ModelError { detail }),
            headers: vec![(BILLABLE_UNITS, HeaderValue::from_static("0"))],
        }
    }

    fn request(
        status: StatusCode,
        blame: Blame,
        kind: RequestErrorType,
        detail: &'static str,
    ) -> Self {
        Self {
            status,
            blame,
            retry: matches!(blame, Blame::Overload | Blame::Unready | Blame::Us),
            envelope: Envelope::Request(kind, detail),
            headers: vec![(ERROR_TYPE, HeaderValue::from_static(kind.name()))],
        }
    }

    fn plain(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            blame: Blame::Caller,
            retry: false,
            envelope: Envelope::Plain(detail.into()),
            headers: Vec::new(),
        }
    }

    fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.push((name, HeaderValue::from_static(value)));
        self
    }

    fn after_a_second(mut self) -> Self {
        self.headers.push((RETRY_AFTER, RETRY_AFTER_S));
        self
    }
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
            Self::MethodNotAllowed { allow } => {
                Verdict::plain(S::METHOD_NOT_ALLOWED, "Method Not Allowed").with(ALLOW, allow)
            }
            Self::BadTimeoutHeader => {
                bad_request("X-Fal-Request-Timeout must be a positive number of seconds.")
            }
            Self::BadLifecycleHeader => bad_request(
                "X-Fal-Object-Lifecycle must be JSON such as {\"expiration_duration_seconds\": 3600}.",
            ),
            Self::BadHost => bad_request("The Host header is missing or not valid."),
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
            Self::Busy => busy(),
            Self::NotReady => unready("The model is still loading. Try again later."),
            Self::Pipeline { error, input } => pipeline::verdict(error, input),
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
            Self::BodyBroken(cause) | Self::BadShape(cause) | Self::Internal(cause) => {
                cause.clone()
            }
            Self::Files(error) => error.to_string(),
            other => format!("{other:?}"),
        }
    }
}

impl From<FilesError> for ApiError {
    fn from(error: FilesError) -> Self {
        Self::Files(error)
    }
}

fn too_many_bytes(loc: &[Step], max_bytes: usize, input: &Value) -> Fault {
    let msg = format!(
        "File size exceeds the maximum allowed size of {max_bytes} bytes. Please upload a smaller file."
    );
    Fault::new(FaultType::FileTooLarge, loc, msg, input).with_ctx(json!({ "max_size": max_bytes }))
}

fn bad_request(detail: &'static str) -> Verdict {
    Verdict::request(
        StatusCode::BAD_REQUEST,
        Blame::Caller,
        RequestErrorType::BadRequest,
        detail,
    )
}

fn busy() -> Verdict {
    too_many_at_once("Too many requests at once. Try again later.")
}

fn too_many_at_once(detail: &'static str) -> Verdict {
    // 429, because it is the only overload status that both current official clients retry.
    Verdict::request(
        StatusCode::TOO_MANY_REQUESTS,
        Blame::Overload,
        RequestErrorType::ConcurrentRequestsLimit,
        detail,
    )
    .after_a_second()
}

fn unready(detail: &'static str) -> Verdict {
    Verdict::request(
        StatusCode::SERVICE_UNAVAILABLE,
        Blame::Unready,
        RequestErrorType::RunnerSchedulingFailure,
        detail,
    )
    .after_a_second()
}

fn internal() -> Verdict {
    Verdict::request(
        StatusCode::INTERNAL_SERVER_ERROR,
        Blame::Us,
        RequestErrorType::InternalError,
        "Internal Server Error",
    )
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Verdict {
            status,
            blame,
            retry,
            envelope,
            headers,
        } = self.verdict();
        let body = match envelope {
            Envelope::Model(body) => to_body(&body),
            Envelope::Request(kind, detail) => to_body(&RequestError {
                detail,
                error_type: kind.name(),
            }),
            Envelope::Plain(detail) => to_body(&PlainError { detail }),
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let (needs_retry, retryable) = if retry { ("1", "true") } else { ("0", "false") };
        let target = response.headers_mut();
        target.insert(CONTENT_TYPE, JSON);
        target.insert(NEEDS_RETRY, HeaderValue::from_static(needs_retry));
        target.insert(RETRYABLE, HeaderValue::from_static(retryable));
        target.extend(headers);
        let cause = self.cause();
        response.extensions_mut().insert(Failure { blame, cause });
        response
    }
}

/// These shapes have string keys and finite numbers, so writing them cannot fail; were it to, an
/// empty body with the right status is the best that is left.
fn to_body(value: &impl Serialize) -> Body {
    serde_json::to_vec(value).map_or_else(|_| Body::empty(), Body::from)
}
