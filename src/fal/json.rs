//! Reads a request body into a JSON value of bounded size.
//!
//! A value in memory is some twenty times larger than the two characters it can be written with,
//! so a body limit alone bounds nothing. Here the number of values is bounded too; depth is
//! bounded by the parser. What cannot be read becomes the entry that fal's validator would give.
//!
//! A picture arrives as a string of megabytes. Its text stays where it is, in the body
//! ([`super::image_url`]); the value has its beginning, which is all that is ever shown of it. So it
//! is with any other string that is longer than the fields of a call can be.

use std::cell::Cell;
use std::fmt;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::error::{Fault, FaultType, Step};
use super::image_url::{self, FIELD, ImageUrl};

/// JSON values in one body. Real requests have fewer than ten; unknown keys may hold the rest.
const MAX_VALUES: usize = 10_000;

/// Bytes of a string that a value keeps whole. Of a longer one it has somewhat more than this many,
/// so that it can be told.
pub const MAX_STRING_BYTES: usize = 1 << 20;

/// Bytes that a value keeps of `image_url`: more than is shown of any string.
const KEPT_OF_IMAGE_URL: usize = 8 << 10;

/// A body.
#[derive(Clone, Debug, PartialEq)]
pub struct Json {
    /// Everything, long strings cut.
    pub value: Value,
    /// The whole text of the topmost `image_url`, if that is a string.
    pub(super) image_url: Option<ImageUrl>,
}

impl From<Value> for Json {
    fn from(value: Value) -> Self {
        let image_url = value.get(FIELD).and_then(Value::as_str).map(ImageUrl::from);
        Self { value, image_url }
    }
}

/// Reads a body.
///
/// # Errors
/// One fault: `missing` for an empty body, otherwise `json_invalid` with the offset in bytes.
pub fn parse(body: &Bytes) -> Result<Json, Fault> {
    if body.is_empty() {
        return Err(Fault::new(
            FaultType::Missing,
            &[],
            "Field required",
            &Value::Null,
        ));
    }
    // What the quick reading cannot read, the thorough one says in the validator's words.
    read(body, Reading::Quick)
        .or_else(|_| read(body, Reading::Thorough))
        .map_err(|error| invalid(body, &error))
}

/// How the text of `image_url` is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// Its end is looked for, and nothing copied; what is wrong within it comes out later.
    Quick,
    /// Like any other.
    Thorough,
}

fn read(body: &Bytes, reading: Reading) -> Result<Json, serde_json::Error> {
    let (left, image_url) = (Cell::new(MAX_VALUES), Cell::new(None));
    let mut reader = serde_json::Deserializer::from_slice(body);
    let bounded = Bounded {
        left: &left,
        image_url: (reading == Reading::Quick).then_some(&image_url),
        at: At::Top,
    };
    let value = bounded.deserialize(&mut reader)?;
    reader.end()?;
    match image_url.take() {
        Some(text) => Ok(Json {
            value,
            image_url: Some(ImageUrl::written(text, body)?),
        }),
        None => Ok(value.into()),
    }
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

/// Where in the body a value stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    /// It is the body.
    Top,
    /// It is the body's `image_url`.
    ImageUrl,
    /// Anywhere else.
    Below,
}

/// Builds a [`Value`] while counting values.
#[derive(Clone, Copy)]
struct Bounded<'a, 'de> {
    left: &'a Cell<usize>,
    /// Takes the text of `image_url` as it is written, if that is to be read quickly.
    image_url: Option<&'a Cell<Option<&'de str>>>,
    at: At,
}

impl<'de> Bounded<'_, 'de> {
    fn below(self, at: At) -> Self {
        Self { at, ..self }
    }

    /// The value of `image_url`: the beginning of its text, which is put aside as it is written.
    fn image_url<D: Deserializer<'de>>(
        self,
        reader: D,
        text: &Cell<Option<&'de str>>,
    ) -> Result<Value, D::Error> {
        let written = <&RawValue>::deserialize(reader)?.get();
        let unquoted = written
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'));
        let read = match unquoted {
            Some(unquoted) => {
                text.set(Some(unquoted));
                let beginning = image_url::beginning(unquoted, KEPT_OF_IMAGE_URL);
                beginning.map(|text| cut(&text, KEPT_OF_IMAGE_URL).into())
            }
            // It is no text, and cannot be long for good reason.
            None => {
                let below = self.below(At::Below);
                below.deserialize(&mut serde_json::Deserializer::from_str(written))
            }
        };
        read.map_err(D::Error::custom)
    }
}

/// A string, or somewhat more than `max_bytes` of it.
fn cut(text: &str, max_bytes: usize) -> &str {
    let end = text.ceil_char_boundary(max_bytes.saturating_add(1));
    text.get(..end).unwrap_or(text)
}

impl<'de> DeserializeSeed<'de> for Bounded<'_, 'de> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        let left = self
            .left
            .get()
            .checked_sub(1)
            .ok_or_else(|| D::Error::custom("too many values"))?;
        self.left.set(left);
        match self.image_url {
            Some(text) if self.at == At::ImageUrl => self.image_url(reader, text),
            _ => reader.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Bounded<'_, 'de> {
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
        Ok(Value::String(cut(value, MAX_STRING_BYTES).to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        let below = self.below(At::Below);
        while let Some(item) = items.next_element_seed(below)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = members.next_key_seed(Key)? {
            let at = match self.at {
                At::Top if key == FIELD => At::ImageUrl,
                _ => At::Below,
            };
            map.insert(key, members.next_value_seed(self.below(at))?);
        }
        Ok(Value::Object(map))
    }
}

/// Reads a key, cut like any other string.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<String, D::Error> {
        reader.deserialize_str(self)
    }
}

impl Visitor<'_> for Key {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E>(self, value: &str) -> Result<String, E> {
        Ok(cut(value, MAX_STRING_BYTES).to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_text(text: &str) -> Result<Json, Fault> {
        parse(&Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn values_come_out_as_the_plain_parser_gives_them() {
        let text = r#"{"b":[1,-2,2.5,1e3,"ä\n",null,true],"a":{"a":1,"a":2},"":{}}"#;
        let plain: Value = serde_json::from_str(text).unwrap();
        let bounded = parse_text(text).unwrap().value;
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
            let fault = serde_json::to_value(parse_text(text).unwrap_err()).unwrap();
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
            assert_eq!(parse_text(&text).unwrap_err().kind(), "json_invalid");
        }
        let just = format!("[{}0]", "0,".repeat(MAX_VALUES - 2));
        assert!(parse_text(&just).is_ok());
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
            let fault = parse(&Bytes::from_static(bytes)).unwrap_err();
            assert_eq!(fault.kind(), "json_invalid");
        }
    }

    #[test]
    fn a_string_or_key_longer_than_any_field_is_cut_and_can_be_told() {
        let (whole, long) = ("é".repeat(MAX_STRING_BYTES / 2), "é".repeat(1 << 20));
        let text = json!({"a": whole, long.clone(): [long]}).to_string();
        let value = parse_text(&text).unwrap().value;
        assert_eq!(value["a"], whole);
        let (key, list) = value.as_object().unwrap().iter().next_back().unwrap();
        for cut in [key, list[0].as_str().unwrap()] {
            assert_eq!(cut.len(), MAX_STRING_BYTES + 2);
        }
    }
}
