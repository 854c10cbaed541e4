//! Validates the fields of a call to one endpoint by the rules of fal's validator, Pydantic 2 in lax
//! mode.
//!
//! Every fault is listed, in field order, with that validator's type, words and value; clients show
//! them to people. This is done by hand because derived deserialisation stops at the first fault.
//! Unknown keys are ignored, as on fal. Nothing here looks into the strings: whether `image_url`
//! names a picture is found out later.

use serde_json::{Value, json};

use super::endpoint::{Endpoint, InputModel, OutputModel};
use super::error::{Fault, FaultType, Step, beginning};
use super::image_url::ImageUrl;
use super::json::Json;
use super::lax;

pub use super::shown::ShownInput;

/// Largest coordinate of a region: the model's grid has 1000 steps.
const REGION_MAX: i64 = 999;

/// Corner names of a region, in order.
const CORNERS: [&str; 4] = ["x1", "y1", "x2", "y2"];

/// A request whose fields have the right types and ranges.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// Where the picture is: an http(s) URL or a `data:` URI.
    pub image_url: ImageUrl,
    /// The free text, for endpoints that take one.
    pub text_input: Option<String>,
    /// `x1, y1, x2, y2` on the model's grid, for endpoints that take a region; corners may be reversed.
    pub region: Option<[u16; 4]>,
    /// Our addition, for endpoints that answer with places: each finding is to carry how likely the
    /// model held it. Elsewhere the key is unknown, hence ignored, and this is false.
    pub scores: bool,
    /// Whether the drawn picture is wanted in the answer itself. No endpoint of this family declares
    /// it, so nothing but `true` counts and nothing is a fault.
    pub sync_mode: bool,
}

impl Input {
    /// What an error shows of it.
    #[must_use]
    pub fn shown(&self) -> ShownInput {
        let text = self.text_input.as_deref();
        ShownInput::of(&self.image_url, std::iter::once(text))
    }
}

/// Reads the fields that an endpoint takes out of a request body.
///
/// # Errors
/// All faults, in field order.
pub fn read(endpoint: &Endpoint, body: impl Into<Json>) -> Result<Input, Vec<Fault>> {
    let Json {
        value: mut body,
        image_url,
    } = body.into();
    if !body.is_object() {
        return Err(vec![not_an_object(&[], &body)]);
    }
    let mut faults = Vec::new();
    check_string(&body, &[], "image_url", &mut faults);
    let region = check_task_fields(endpoint.input, &body, &[], &mut faults);
    let scores = endpoint.output != OutputModel::Text && read_scores(&body, &mut faults);
    if !faults.is_empty() {
        return Err(faults);
    }
    let sync_mode = read_sync_mode(&body);
    // A text is taken only now, because faults repeat the whole object.
    Ok(Input {
        image_url: image_url.unwrap_or_default(),
        text_input: take_text(endpoint.input, &mut body),
        region,
        scores,
        sync_mode,
    })
}

/// Checks what a task takes besides the picture; gives its region. `at` is the path to `fields`.
pub(super) fn check_task_fields(
    takes: InputModel,
    fields: &Value,
    at: &[Step],
    faults: &mut Vec<Fault>,
) -> Option<[u16; 4]> {
    match takes {
        InputModel::Image => None,
        InputModel::ImageWithText => {
            check_string(fields, at, "text_input", faults);
            None
        }
        InputModel::ImageWithRegion => read_region(fields, at, faults),
    }
}

/// Moves the text of a task that takes one out of its checked fields.
pub(super) fn take_text(takes: InputModel, fields: &mut Value) -> Option<String> {
    match takes {
        InputModel::ImageWithText => take_string(fields, "text_input"),
        InputModel::Image | InputModel::ImageWithRegion => None,
    }
}

/// Whether scores are asked for; an absent field says no.
pub(super) fn read_scores(body: &Value, faults: &mut Vec<Fault>) -> bool {
    let Some(value) = body.get("scores") else {
        return false;
    };
    lax::boolean(value).unwrap_or_else(|(kind, msg)| {
        faults.push(Fault::new(kind, &[Step::Key("scores")], msg, value));
        false
    })
}

/// Whether drawn pictures are to come as `data:` URIs. No published input declares the key, so
/// anything but `true` is as if it were not there.
pub(super) fn read_sync_mode(body: &Value) -> bool {
    body.get("sync_mode") == Some(&Value::Bool(true))
}

/// The fault of a body, or a nested field, that is not an object.
#[must_use]
pub fn not_an_object(loc: &[Step], value: &Value) -> Fault {
    Fault::new(
        FaultType::ModelAttributesType,
        loc,
        "Input should be a valid dictionary or object to extract fields from",
        value,
    )
}

/// The same of a body that is text. Only its beginning is shown.
#[must_use]
pub fn not_an_object_but_text(body: &[u8]) -> Fault {
    not_an_object(&[], &Value::String(beginning(body)))
}

/// The fault of a field that is not there.
#[must_use]
pub fn missing(loc: &[Step], parent: &Value) -> Fault {
    // The validator shows the object in which the field is missing.
    Fault::new(FaultType::Missing, loc, "Field required", parent)
}

/// Checks that a field holds a string. `at` is the path to the object with the field.
pub(super) fn check_string(
    fields: &Value,
    at: &[Step],
    name: &'static str,
    faults: &mut Vec<Fault>,
) {
    let loc = || below(at, Step::Key(name));
    match fields.get(name) {
        Some(Value::String(_)) => {}
        Some(other) => faults.push(not_a_string(&loc(), other)),
        None => faults.push(missing(&loc(), fields)),
    }
}

/// The fault of a value that is no string.
pub(super) fn not_a_string(loc: &[Step], value: &Value) -> Fault {
    let msg = "Input should be a valid string";
    Fault::new(FaultType::StringType, loc, msg, value)
}

/// The path one step further.
pub(super) fn below(at: &[Step], step: Step) -> Vec<Step> {
    let mut path = at.to_vec();
    path.push(step);
    path
}

/// Moves a string out of an object.
pub(super) fn take_string(body: &mut Value, name: &str) -> Option<String> {
    match body.get_mut(name).map(Value::take) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    }
}

fn read_region(fields: &Value, at: &[Step], faults: &mut Vec<Fault>) -> Option<[u16; 4]> {
    let at = below(at, Step::Key("region"));
    let Some(corners) = fields.get("region") else {
        faults.push(missing(&at, fields));
        return None;
    };
    if !corners.is_object() {
        faults.push(not_an_object(&at, corners));
        return None;
    }
    let mut region = [0; 4];
    let before = faults.len();
    for (slot, name) in region.iter_mut().zip(CORNERS) {
        let loc = below(&at, Step::Key(name));
        match corners.get(name) {
            Some(value) => match read_coordinate(value, &loc) {
                Ok(coordinate) => *slot = coordinate,
                Err(fault) => faults.push(fault),
            },
            None => faults.push(missing(&loc, corners)),
        }
    }
    (faults.len() == before).then_some(region)
}

fn read_coordinate(value: &Value, loc: &[Step]) -> Result<u16, Fault> {
    let number = lax::integer(value).map_err(|(kind, msg)| Fault::new(kind, loc, msg, value))?;
    if number < 0 {
        let msg = "Input should be greater than or equal to 0";
        return Err(
            Fault::new(FaultType::GreaterThanEqual, loc, msg, value).with_ctx(json!({ "ge": 0 }))
        );
    }
    match u16::try_from(number) {
        Ok(coordinate) if number <= REGION_MAX => Ok(coordinate),
        _ => {
            let msg = format!("Input should be less than or equal to {REGION_MAX}");
            Err(Fault::new(FaultType::LessThanEqual, loc, msg, value)
                .with_ctx(json!({ "le": REGION_MAX })))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(endpoint: &str, body: Value) -> Vec<Value> {
        let faults = read(Endpoint::named(endpoint).unwrap(), body).unwrap_err();
        faults
            .iter()
            .map(|fault| serde_json::to_value(fault).unwrap())
            .collect()
    }

    fn coordinate(value: Value) -> Result<u16, Value> {
        let body = json!({"image_url": "u", "region": {"x1": 0, "y1": 0, "x2": value, "y2": 0}});
        match read(Endpoint::named("region-to-category").unwrap(), body) {
            Ok(input) => Ok(input.region.unwrap()[2]),
            Err(faults) => {
                assert_eq!(faults.len(), 1);
                let fault = serde_json::to_value(&faults[0]).unwrap();
                assert_eq!(fault["loc"], json!(["body", "region", "x2"]));
                Err(fault)
            }
        }
    }

    // What Pydantic 2.14 accepts for `int` with bounds 0 and 999, measured behind FastAPI.
    #[test]
    fn spellings_of_a_whole_number_are_accepted_as_the_validator_accepts_them() {
        let cases = [
            (json!(2.0), 2),
            (json!("12"), 12),
            (json!(true), 1),
            (json!(false), 0),
            (json!(" 12 "), 12),
            (json!("\n5"), 5),
            (json!("1.0"), 1),
            (json!("5.00"), 5),
            (json!("1_0"), 10),
            (json!("1_0.0"), 10),
            (json!("0_1"), 1),
            (json!("+5"), 5),
            (json!("-0"), 0),
            (json!(-0.0), 0),
            (json!(1e2), 100),
            (json!("012"), 12),
            (json!(999), 999),
        ];
        for (value, expected) in cases {
            assert_eq!(coordinate(value.clone()), Ok(expected), "{value}");
        }
    }

    #[test]
    fn everything_else_gets_the_validators_type_and_words() {
        let parsing = "Input should be a valid integer, unable to parse string as an integer";
        let below = "Input should be greater than or equal to 0";
        let above = "Input should be less than or equal to 999";
        let size = "Unable to parse input string as an integer, exceeded maximum size";
        let fraction = "Input should be a valid integer, got a number with a fractional part";
        let none = "Input should be a valid integer";
        let cases = [
            (json!(1000), "less_than_equal", above),
            (json!(1000.0), "less_than_equal", above),
            (json!("1000"), "less_than_equal", above),
            (json!(1e18), "less_than_equal", above),
            (json!(u64::MAX), "less_than_equal", above),
            (
                json!("99999999999999999999999999"),
                "less_than_equal",
                above,
            ),
            (json!(-1), "greater_than_equal", below),
            (json!("-00005"), "greater_than_equal", below),
            (json!(1.5), "int_from_float", fraction),
            (json!(1e20), "int_parsing_size", size),
            (json!("ab"), "int_parsing", parsing),
            (json!(""), "int_parsing", parsing),
            (json!(" "), "int_parsing", parsing),
            (json!("1.5"), "int_parsing", parsing),
            (json!("5."), "int_parsing", parsing),
            (json!(".0"), "int_parsing", parsing),
            (json!("5.0_0"), "int_parsing", parsing),
            (json!("1__0"), "int_parsing", parsing),
            (json!("_1"), "int_parsing", parsing),
            (json!("1_"), "int_parsing", parsing),
            (json!("1e2"), "int_parsing", parsing),
            (json!("0x10"), "int_parsing", parsing),
            (json!("１２"), "int_parsing", parsing),
            (json!("-"), "int_parsing", parsing),
            (json!(null), "int_type", none),
            (json!([]), "int_type", none),
            (json!({}), "int_type", none),
        ];
        for (value, kind, msg) in cases {
            let fault = coordinate(value.clone()).unwrap_err();
            assert_eq!(fault["type"], kind, "{value}");
            assert_eq!(fault["msg"], msg, "{value}");
            assert_eq!(fault["input"], value);
            match kind {
                "less_than_equal" => assert_eq!(fault["ctx"], json!({"le": 999})),
                "greater_than_equal" => assert_eq!(fault["ctx"], json!({"ge": 0})),
                _ => assert!(fault.get("ctx").is_none()),
            }
        }
    }

    #[test]
    fn all_faults_are_listed_in_field_order() {
        let body = json!({"extra": 1, "region": {"x2": 1000, "y2": 0}});
        let listed = faults("region-to-segmentation", body.clone());
        let short: Vec<_> = listed
            .iter()
            .map(|fault| (fault["type"].clone(), fault["loc"].clone()))
            .collect();
        assert_eq!(
            short,
            [
                (json!("missing"), json!(["body", "image_url"])),
                (json!("missing"), json!(["body", "region", "x1"])),
                (json!("missing"), json!(["body", "region", "y1"])),
                (json!("less_than_equal"), json!(["body", "region", "x2"])),
            ]
        );
        assert_eq!(listed[0]["input"], body);
        assert_eq!(listed[1]["input"], body["region"]);
    }

    #[test]
    fn scores_are_a_field_where_places_are_answered_and_unknown_elsewhere() {
        let body = |scores: Value| json!({"image_url": "u", "scores": scores});
        let ask = |endpoint, scores| read(Endpoint::named(endpoint).unwrap(), body(scores));
        assert!(ask("object-detection", json!("Yes")).unwrap().scores);
        assert!(!ask("ocr-with-region", json!(0)).unwrap().scores);
        assert!(!ask("caption", json!(true)).unwrap().scores);
        assert!(!ask("caption", json!("perhaps")).unwrap().scores);
        let listed = faults("object-detection", json!({"scores": null}));
        assert_eq!(listed.len(), 2);
        assert_eq!(listed[0]["loc"], json!(["body", "image_url"]));
        assert_eq!(
            serde_json::to_string(&listed[1]).unwrap(),
            r#"{"type":"bool_type","loc":["body","scores"],"msg":"Input should be a valid boolean","input":null,"url":"https://docs.fal.ai/errors#bool_type"}"#
        );
    }

    #[test]
    fn unknown_keys_and_reversed_regions_pass() {
        let region = json!({"x1": 900, "y1": 900, "x2": 1, "y2": 1});
        let body = json!({"task": "x", "image_url": "u", "region": region, "sync_mode": true});
        let input = read(Endpoint::named("region-to-category").unwrap(), body).unwrap();
        assert_eq!(input.region, Some([900, 900, 1, 1]));
        assert!(!input.scores, "nobody asked");
        assert!(input.sync_mode);
        let body = json!({"image_url": "", "text_input": ""});
        let endpoint = Endpoint::named("open-vocabulary-detection").unwrap();
        assert_eq!(
            read(endpoint, body).unwrap().text_input.as_deref(),
            Some("")
        );
    }
}
