//! One row of the table as a value: status, blame, envelope, headers; and the rows that several
//! errors share.
//!
//! Which error gets which row is next door. Nothing here looks at an error.

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};

use super::{BILLABLE_UNITS, Blame, Failure, HeadFault, JSON};
use crate::fal::error::{
    Fault, FaultType, ModelError, PlainError, RequestError, RequestErrorType, Step,
};
use crate::fal::queue::{QueueWord, Word};

const ERROR_TYPE: HeaderName = HeaderName::from_static("x-fal-error-type");
const NEEDS_RETRY: HeaderName = HeaderName::from_static("x-fal-needs-retry");
const RETRYABLE: HeaderName = HeaderName::from_static("x-fal-retryable");
const TIMEOUT_TYPE: HeaderName = HeaderName::from_static("x-fal-request-timeout-type");

/// Seconds after which a refused caller may try again.
const RETRY_AFTER_S: HeaderValue = HeaderValue::from_static("1");

/// One row of the table.
pub(super) struct Verdict {
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
    Word(Word),
}

/// An error as it goes out: what a response is made of, and what a job keeps.
#[derive(Debug)]
pub(crate) struct ErrorParts {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    /// Whether trying again may help, because the fault was ours.
    pub(crate) retry: bool,
    /// Text and type of a request error. A model error is the answer of the model.
    pub(crate) request_error: Option<(&'static str, &'static str)>,
    pub(crate) failure: Failure,
}

impl Verdict {
    pub(super) fn model(status: StatusCode, detail: Vec<Fault>) -> Self {
        Self {
            status,
            blame: Blame::Caller,
            retry: false,
            envelope: Envelope::Model(ModelError { detail }),
            headers: vec![(BILLABLE_UNITS, HeaderValue::from_static("0"))],
        }
    }

    pub(super) fn request(
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

    pub(super) fn plain(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            blame: Blame::Caller,
            retry: false,
            envelope: Envelope::Plain(detail.into()),
            headers: Vec::new(),
        }
    }

    /// A word of the queue's own, such as `NOT_FOUND`.
    pub(super) fn word(status: StatusCode, word: Word) -> Self {
        Self {
            envelope: Envelope::Word(word),
            ..Self::plain(status, String::new())
        }
    }

    pub(super) fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.push((name, HeaderValue::from_static(value)));
        self
    }

    pub(super) fn after_a_second(mut self) -> Self {
        self.headers.push((RETRY_AFTER, RETRY_AFTER_S));
        self
    }

    /// The same, and trying again does not help.
    pub(super) fn for_good(mut self) -> Self {
        self.retry = false;
        self
    }

    /// The error as it goes out.
    pub(super) fn into_parts(self, cause: String) -> ErrorParts {
        let (body, request_error) = match self.envelope {
            Envelope::Model(body) => (to_body(&body), None),
            Envelope::Request(kind, detail) => {
                let error_type = kind.name();
                let body = to_body(&RequestError { detail, error_type });
                (body, Some((detail, error_type)))
            }
            Envelope::Plain(detail) => (to_body(&PlainError { detail }), None),
            Envelope::Word(status) => (to_body(&QueueWord { status }), None),
        };
        let (needs_retry, retryable) = if self.retry {
            ("1", "true")
        } else {
            ("0", "false")
        };
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, JSON);
        headers.insert(NEEDS_RETRY, HeaderValue::from_static(needs_retry));
        headers.insert(RETRYABLE, HeaderValue::from_static(retryable));
        headers.extend(self.headers);
        ErrorParts {
            status: self.status,
            headers,
            body,
            retry: self.retry,
            request_error,
            failure: Failure {
                blame: self.blame,
                cause,
            },
        }
    }
}

pub(super) fn too_many_bytes(loc: &[Step], max_bytes: usize, input: &Value) -> Fault {
    let msg = format!(
        "File size exceeds the maximum allowed size of {max_bytes} bytes. Please upload a smaller file."
    );
    Fault::new(FaultType::FileTooLarge, loc, msg, input).with_ctx(json!({ "max_size": max_bytes }))
}

pub(super) fn bad_request(detail: &'static str) -> Verdict {
    Verdict::request(
        StatusCode::BAD_REQUEST,
        Blame::Caller,
        RequestErrorType::BadRequest,
        detail,
    )
}

pub(super) fn busy(detail: &'static str) -> Verdict {
    // 429, because it is the only overload status that both current official clients retry.
    Verdict::request(
        StatusCode::TOO_MANY_REQUESTS,
        Blame::Overload,
        RequestErrorType::ConcurrentRequestsLimit,
        detail,
    )
    .after_a_second()
}

pub(super) fn start_deadline() -> Verdict {
    Verdict::request(
        StatusCode::GATEWAY_TIMEOUT,
        Blame::Deadline,
        RequestErrorType::RequestTimeout,
        "The request did not start within the requested time.",
    )
    .with(TIMEOUT_TYPE, "user")
}

/// 499, which no standard has and fal's runtime answers when a caller gave up.
pub(super) fn client_closed_request() -> StatusCode {
    StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST)
}

pub(super) fn unready(detail: &'static str) -> Verdict {
    Verdict::request(
        StatusCode::SERVICE_UNAVAILABLE,
        Blame::Unready,
        RequestErrorType::RunnerSchedulingFailure,
        detail,
    )
    .after_a_second()
}

/// The answer to what never became a request.
pub(super) fn unreadable(fault: HeadFault) -> Verdict {
    use StatusCode as S;
    let (status, detail) = match fault {
        HeadFault::Malformed => (S::BAD_REQUEST, "The request could not be read as HTTP/1.1."),
        HeadFault::TooLarge => (
            S::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "The request's line and headers are too large.",
        ),
        HeadFault::UriTooLong => (S::URI_TOO_LONG, "The request's address is too long."),
        HeadFault::TooSlow => (
            S::REQUEST_TIMEOUT,
            "The request's headers arrived too slowly.",
        ),
        HeadFault::NotTls => {
            let detail = "This port speaks TLS: its address begins with https://";
            return Verdict::plain(S::BAD_REQUEST, detail);
        }
    };
    Verdict::request(status, Blame::Caller, RequestErrorType::BadRequest, detail)
}

pub(super) fn internal() -> Verdict {
    Verdict::request(
        StatusCode::INTERNAL_SERVER_ERROR,
        Blame::Us,
        RequestErrorType::InternalError,
        "Internal Server Error",
    )
}

/// These shapes have string keys and finite numbers, so writing them cannot fail; were it to, an
/// empty body with the right status is the best that is left.
fn to_body(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}
