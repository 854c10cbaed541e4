//! Lax conversions: which spellings of a number or a truth value fal's validator, Pydantic 2,
//! accepts, and how it refuses the others. Measured with Pydantic 2.14.

use serde_json::Value;

use super::error::FaultType;

/// Type and words of a refusal.
pub(super) type Refusal = (FaultType, &'static str);

/// The least float that does not fit a 64-bit integer.
const TWO_TO_63: f64 = 9_223_372_036_854_775_808.0;

/// Strings that mean yes, in any case.
const YES: [&str; 6] = ["1", "on", "t", "true", "y", "yes"];

/// Strings that mean no, in any case.
const NO: [&str; 6] = ["0", "off", "f", "false", "n", "no"];

/// The conversion to a truth value: truth values, the numbers 0 and 1, and a dozen words.
pub(super) fn boolean(value: &Value) -> Result<bool, Refusal> {
    let unclear = (
        FaultType::BoolParsing,
        "Input should be a valid boolean, unable to interpret input",
    );
    match value {
        Value::Bool(truth) => Ok(*truth),
        Value::String(text) => {
            let is_in = |words: [&str; 6]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
            match (is_in(YES), is_in(NO)) {
                (true, _) => Ok(true),
                (_, true) => Ok(false),
                _ => Err(unclear),
            }
        }
        // A number that is no 64-bit integer is refused for its type, not for its value.
        Value::Number(number) if !number.is_u64() || number.is_i64() => match integer(value) {
            Ok(0) => Ok(false),
            Ok(1) => Ok(true),
            Ok(_) => Err(unclear),
            Err(_) => Err(NO_BOOLEAN),
        },
        _ => Err(NO_BOOLEAN),
    }
}

/// The refusal of what cannot be a truth value.
const NO_BOOLEAN: Refusal = (FaultType::BoolType, "Input should be a valid boolean");

/// The conversion to an integer. Numbers beyond 64 bits saturate, which keeps them out of range.
pub(super) fn integer(value: &Value) -> Result<i64, Refusal> {
    match value {
        Value::Bool(truth) => Ok(i64::from(*truth)),
        Value::Number(number) => {
            if let Some(whole) = number.as_i64() {
                return Ok(whole);
            }
            match number.as_f64() {
                _ if number.is_u64() => Ok(i64::MAX),
                Some(float) if float.fract() != 0.0 => Err((
                    FaultType::IntFromFloat,
                    "Input should be a valid integer, got a number with a fractional part",
                )),
                #[expect(clippy::cast_possible_truncation, reason = "whole, and within 64 bits")]
                Some(float) if float.abs() < TWO_TO_63 => Ok(float as i64),
                _ => Err((
                    FaultType::IntParsingSize,
                    "Unable to parse input string as an integer, exceeded maximum size",
                )),
            }
        }
        Value::String(text) => parse_integer(text).ok_or((
            FaultType::IntParsing,
            "Input should be a valid integer, unable to parse string as an integer",
        )),
        _ => Err((FaultType::IntType, "Input should be a valid integer")),
    }
}

/// Digits with an optional sign, single underscores between digits, and an optional `.000`.
fn parse_integer(text: &str) -> Option<i64> {
    let text = text.trim();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    if fraction.is_empty() || fraction.bytes().any(|byte| byte != b'0') {
        return None;
    }
    let mut number = 0_i64;
    for group in whole.split('_') {
        if group.is_empty() {
            return None;
        }
        for byte in group.bytes() {
            if !byte.is_ascii_digit() {
                return None;
            }
            number = number
                .saturating_mul(10)
                .saturating_add(i64::from(byte - b'0'));
        }
    }
    Some(if negative { -number } else { number })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    // How integers are read is tested where they occur, with the coordinates of regions.
    #[test]
    fn spellings_of_yes_and_no_are_those_of_the_validator() {
        for yes in [
            json!(true),
            json!(1),
            json!(1.0),
            json!("1"),
            json!("tRuE"),
            json!("T"),
            json!("YES"),
            json!("y"),
            json!("On"),
        ] {
            assert_eq!(boolean(&yes), Ok(true), "{yes}");
        }
        for no in [
            json!(false),
            json!(0),
            json!(-0.0),
            json!("0"),
            json!("False"),
            json!("f"),
            json!("NO"),
            json!("n"),
            json!("oFF"),
        ] {
            assert_eq!(boolean(&no), Ok(false), "{no}");
        }
    }

    #[test]
    fn everything_else_is_refused_with_the_validators_type() {
        for unclear in [
            json!(2),
            json!(-1),
            json!(2.0),
            json!(1e18),
            json!(i64::MAX),
            json!(""),
            json!(" true"),
            json!("true "),
            json!("1.0"),
            json!("2"),
            json!("ja"),
            json!("\u{131}"),
        ] {
            let (kind, msg) = boolean(&unclear).unwrap_err();
            assert_eq!(kind.name(), "bool_parsing", "{unclear}");
            assert_eq!(
                msg,
                "Input should be a valid boolean, unable to interpret input"
            );
        }
        for other in [
            json!(null),
            json!([]),
            json!([true]),
            json!({}),
            json!(0.5),
            json!(9_223_372_036_854_775_808_u64),
            json!(9.3e18),
            json!(1e300),
        ] {
            let (kind, msg) = boolean(&other).unwrap_err();
            assert_eq!(kind.name(), "bool_type", "{other}");
            assert_eq!(msg, "Input should be a valid boolean");
        }
    }
}
