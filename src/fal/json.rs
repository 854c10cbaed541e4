//! Reads a request body into a JSON value of bounded size.
//!
//! A value in memory is some twenty times larger than the two characters it can be written with,
//! so a body limit alone bounds nothing. Here the number of values is bounded too; depth is
//! bounded by the parser. What cannot be read becomes the entry that fal's validator would give.
//!
//! Any string keeps its full length: a picture arrives as one.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value, json};

use super::error::{Fault, FaultType, Step};

/// JSON values in one body. Real requests have fewer than ten; unknown keys may hold the rest.
const MAX_VALUES: usize = 10_000;

/// Reads a body.
///
/// # Errors
/// One fault: `missing` for an empty body, otherwise `json_invalid` with the offset in bytes.
pub fn parse(body: &[u8]) -> Result<Value, Fault> {
    if body.is_empty() {
        return Err(Fault::new(
            FaultType::Missing,
            &[],
            "Field required",
            &Value::Null,
        ));
    }
    let left = Cell::new(MAX_VALUES);
    let mut reader = serde_json::Deserializer::from_slice(body);
    Bounded { left: &left }
        .deserialize(&mut reader)
        .and_then(|value| reader.end().map(|()| value))
        .map_err(|error| invalid(body, &error))
}

fn invalid(body: &[u8], error: &serde_json::Error) -> Fault {
    let text = error.to_string();
    // The parser appends its position in words, which `loc` says already.
    let reason = text.split(" at line ").next().unwrap_or_default();
    let loc = [Step::Position(offset(body, error))];
    Fault::new(
        FaultType::JsonInvalid,
        &loc,
        "JSON decode error",
        &json!({}),
    )
    .with_ctx(json!({ "error": reason }))
}

/// Zero-based byte offset of a parser error, which itself counts lines and columns from one.
fn offset(body: &[u8], error: &serde_json::Error) -> usize {
    let lines_before = error.line().saturating_sub(1);
    let line_start: usize = body
        .split_inclusive(|byte| *byte == b'\n')
        .take(lines_before)
        .map(<[u8]>::len)
        .sum();
    // At the end of the text the column is that of the last byte read, not of the one at fault.
    let back = usize::from(!error.is_eof());
    (line_start + error.column().saturating_sub(back)).min(body.len())
}

/// Builds a [`Value`] while counting values.
#[derive(Clone, Copy)]
struct Bounded<'a> {
    left: &'a Cell<usize>,
}

impl<'de> DeserializeSeed<'de> for Bounded<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        let left = self
            .left
            .get()
            .checked_sub(1)
            .ok_or_else(|| D::Error::custom("too many values"))?;
        self.left.set(left);
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Bounded<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = members.next_key::<String>()? {
            map.insert(key, members.next_value_seed(self)?);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_out_as_the_plain_parser_gives_them() {
        let text = r#"{"b":[1,-2,2.5,1e3,"ä\n",null,true],"a":{"a":1,"a":2},"":{}}"#;
        let plain: Value = serde_json::from_str(text).unwrap();
        let bounded = parse(text.as_bytes()).unwrap();
        assert_eq!(bounded, plain);
        assert_eq!(bounded.to_string(), plain.to_string());
    }

    #[test]
    fn offsets_point_at_the_byte_at_fault() {
        let cases: [(&str, usize); 8] = [
            ("{", 1),
            (r#"{"a":1,}"#, 7),
            (r#"{"image_url":"x"} x"#, 18),
            ("{\n\n  x", 5),
            ("[1,", 3),
            (r#"{"a":"b"#, 7),
            ("{a:1}", 1),
            ("  ", 2),
        ];
        for (text, at) in cases {
            let fault = serde_json::to_value(parse(text.as_bytes()).unwrap_err()).unwrap();
            assert_eq!(fault["type"], "json_invalid", "{text}");
            assert_eq!(fault["loc"], json!(["body", at]), "{text}: {fault}");
            assert_eq!(fault["input"], json!({}));
            assert!(!fault["ctx"]["error"].as_str().unwrap().contains("line"));
        }
    }

    #[test]
    fn bodies_that_would_unfold_in_memory_are_refused() {
        let wide = format!("[{}0]", "0,".repeat(MAX_VALUES));
        let deep = "[".repeat(100_000);
        for text in [wide, deep] {
            assert_eq!(parse(text.as_bytes()).unwrap_err().kind(), "json_invalid");
        }
        let just = format!("[{}0]", "0,".repeat(MAX_VALUES - 2));
        assert!(parse(just.as_bytes()).is_ok());
    }

    #[test]
    fn foreign_bytes_are_faults_and_never_panics() {
        for bytes in [
            &b"\xff\xfe{}"[..],
            b"\0",
            b"\"\\ud800\"",
            b"1e999",
            b"\"\xc3\"",
            b"NaN",
            b"-",
        ] {
            assert_eq!(parse(bytes).unwrap_err().kind(), "json_invalid");
        }
    }
}
