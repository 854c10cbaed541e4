//! The two error envelopes and the closed lists of type names in them.
//!
//! A *model* error is `{"detail": [entry, …]}`; each entry says where, what and which value. A
//! *request* error is `{"detail": "text", "error_type": "…"}`. Which of the two belongs to a
//! failure, and with which status, is `server::error`'s business.
//!
//! Entries are Pydantic 2's: keys in the order `type, loc, msg, input, ctx`, then fal's own `url`.

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// Where fal documents the type names; the type follows the hash.
const DOCUMENTATION: &str = "https://docs.fal.ai/errors#";

/// Characters of one string that an entry repeats in `input`. A `data:` URI can hold megabytes,
/// and nobody needs them back to recognise the field.
const ECHOED_CHARS: usize = 1024;

/// Characters and values that one entry repeats in `input` altogether.
const ECHOED_TOTAL: usize = 4096;

/// The machine-readable types of model errors that this server emits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultType {
    /// A required field is absent.
    Missing,
    /// Not a string.
    StringType,
    /// Not an object.
    ModelAttributesType,
    /// Not a list.
    ListType,
    /// Not JSON.
    JsonInvalid,
    /// Not a number at all.
    IntType,
    /// A number with a fraction.
    IntFromFloat,
    /// A string that is no whole number.
    IntParsing,
    /// A number beyond 64 bits.
    IntParsingSize,
    /// Above the upper bound.
    LessThanEqual,
    /// Below the lower bound.
    GreaterThanEqual,
    /// Not a truth value.
    BoolType,
    /// A word or a number that means neither yes nor no.
    BoolParsing,
    /// Not one of a closed set of values.
    OneOf,
    /// An empty list.
    SequenceTooShort,
    /// More text than the model can read, or more entries than allowed.
    SequenceTooLong,
    /// The picture could not be had.
    FileDownloadError,
    /// The picture could not be read.
    ImageLoadError,
    /// The picture has too many pixels.
    ImageTooLarge,
    /// The file is not of a supported picture format.
    UnsupportedImageFormat,
    /// The file has too many bytes.
    FileTooLarge,
}

impl FaultType {
    /// The name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::StringType => "string_type",
            Self::ModelAttributesType => "model_attributes_type",
            Self::ListType => "list_type",
            Self::JsonInvalid => "json_invalid",
            Self::IntType => "int_type",
            Self::IntFromFloat => "int_from_float",
            Self::IntParsing => "int_parsing",
            Self::IntParsingSize => "int_parsing_size",
            Self::LessThanEqual => "less_than_equal",
            Self::GreaterThanEqual => "greater_than_equal",
            Self::BoolType => "bool_type",
            Self::BoolParsing => "bool_parsing",
            Self::OneOf => "one_of",
            Self::SequenceTooShort => "sequence_too_short",
            Self::SequenceTooLong => "sequence_too_long",
            Self::FileDownloadError => "file_download_error",
            Self::ImageLoadError => "image_load_error",
            Self::ImageTooLarge => "image_too_large",
            Self::UnsupportedImageFormat => "unsupported_image_format",
            Self::FileTooLarge => "file_too_large",
        }
    }
}

/// One step of the path to a faulty value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Step {
    /// A key, or `body` at the start.
    Key(&'static str),
    /// A position in a list or in the body's bytes.
    Position(usize),
}

/// One entry of a model error. Boxed, because it travels as an error through many results.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Fault(Box<Entry>);

/// One fault of the input, keys in order.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = Fault)]
struct Entry {
    /// The type's name.
    #[serde(rename = "type")]
    kind: &'static str,
    /// Path, starting with `body`.
    loc: Vec<Step>,
    /// For people.
    msg: String,
    /// The offending value, cut when it is long.
    input: Value,
    /// Numbers and lists that belong to the type.
    #[serde(skip_serializing_if = "Option::is_none")]
    ctx: Option<Value>,
    /// The type's documentation.
    url: String,
}

impl Fault {
    /// A fault without context. `loc` is the path below `body`.
    pub fn new(kind: FaultType, loc: &[Step], msg: impl Into<String>, input: &Value) -> Self {
        let mut path = vec![Step::Key("body")];
        path.extend_from_slice(loc);
        let mut budget = ECHOED_TOTAL;
        Self(Box::new(Entry {
            kind: kind.name(),
            loc: path,
            msg: msg.into(),
            input: echo(input, &mut budget),
            ctx: None,
            url: format!("{DOCUMENTATION}{}", kind.name()),
        }))
    }

    /// The same fault with its context.
    #[must_use]
    pub fn with_ctx(mut self, ctx: Value) -> Self {
        self.0.ctx = Some(ctx);
        self
    }

    /// The type's name on the wire.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.0.kind
    }
}

/// Body of a model error.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct ModelError {
    /// All faults, in field order.
    #[schema(value_type = Vec<Entry>)]
    pub detail: Vec<Fault>,
}

/// The machine-readable types of request errors that this server emits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestErrorType {
    /// The call is malformed below the level of fields.
    BadRequest,
    /// The caller's own start deadline passed.
    RequestTimeout,
    /// Too many calls at once.
    ConcurrentRequestsLimit,
    /// The model is not ready.
    RunnerSchedulingFailure,
    /// The device failed.
    RunnerServerError,
    /// The caller cancelled the request.
    ClientCancelled,
    /// Our fault.
    InternalError,
}

impl RequestErrorType {
    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::RequestTimeout => "request_timeout",
            Self::ConcurrentRequestsLimit => "concurrent_requests_limit",
            Self::RunnerSchedulingFailure => "runner_scheduling_failure",
            Self::RunnerServerError => "runner_server_error",
            Self::ClientCancelled => "client_cancelled",
            Self::InternalError => "internal_error",
        }
    }
}

/// Body of a request error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct RequestError {
    /// For people.
    pub detail: &'static str,
    /// The type's name.
    pub error_type: &'static str,
}

/// Body of the plain errors that fal's gateway and runtime answer with: keys, unknown paths.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct PlainError {
    /// For people.
    pub detail: String,
}

/// Copies a value for `input`: long strings are cut, and members are left out once `budget` is used up.
fn echo(value: &Value, budget: &mut usize) -> Value {
    *budget = budget.saturating_sub(1);
    match value {
        Value::String(text) => Value::String(cut(text, budget)),
        Value::Array(items) => {
            let mut kept = Vec::new();
            for item in items {
                if *budget == 0 {
                    break;
                }
                kept.push(echo(item, budget));
            }
            Value::Array(kept)
        }
        Value::Object(members) => {
            let mut kept = Map::new();
            for (key, member) in members {
                if *budget == 0 {
                    break;
                }
                let key = cut(key, budget);
                kept.insert(key, echo(member, budget));
            }
            Value::Object(kept)
        }
        scalar => scalar.clone(),
    }
}

/// The beginning of a text, of which `input` shows no more than of the whole.
pub(super) fn beginning(text: &[u8]) -> String {
    // No character has more than four bytes; half a one at the end is not shown.
    let bytes = text.get(..4 * (ECHOED_CHARS + 2)).unwrap_or(text);
    String::from_utf8_lossy(bytes).into_owned()
}

fn cut(text: &str, budget: &mut usize) -> String {
    let limit = ECHOED_CHARS.min(*budget);
    match text.char_indices().nth(limit) {
        None => {
            *budget = budget.saturating_sub(text.len());
            text.to_owned()
        }
        Some((end, _)) => {
            *budget = budget.saturating_sub(limit);
            format!("{}…", text.get(..end).unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_come_in_the_order_type_loc_msg_input_ctx_url() {
        let loc = [Step::Key("region"), Step::Key("x2")];
        let fault = Fault::new(FaultType::LessThanEqual, &loc, "m", &json!(1000))
            .with_ctx(json!({"le": 999}));
        assert_eq!(
            serde_json::to_string(&fault).unwrap(),
            r#"{"type":"less_than_equal","loc":["body","region","x2"],"msg":"m","input":1000,"ctx":{"le":999},"url":"https://docs.fal.ai/errors#less_than_equal"}"#
        );
    }

    #[test]
    fn a_megabyte_in_a_field_does_not_come_back() {
        let value = json!({"image_url": "é".repeat(1 << 20), "other": 7});
        let fault = Fault::new(FaultType::Missing, &[], "m", &value);
        let echoed = fault.0.input["image_url"].as_str().unwrap();
        assert_eq!(echoed.chars().count(), ECHOED_CHARS + 1);
        assert!(echoed.ends_with('…'));
        assert_eq!(fault.0.input["other"], 7);
    }

    #[test]
    fn a_hundred_thousand_members_do_not_come_back() {
        let value = json!(vec![json!(["aaaaaaaaaaaaaaaa"]); 100_000]);
        let fault = Fault::new(FaultType::ModelAttributesType, &[], "m", &value);
        assert!(serde_json::to_string(&fault).unwrap().len() < 8 * ECHOED_TOTAL);
    }
}
