//! The text of `image_url`, which may be megabytes: a part of the body that it came in, not a copy.
//!
//! Only where the text was written with escapes, as line feeds within base64 are, it must be copied:
//! once, piece by piece, so that body and copy are all that is in memory; and the body can go before
//! anything is made of the copy.

use std::fmt;

use bytes::Bytes;

/// The field's name.
pub(super) const FIELD: &str = "image_url";

/// How a `data:` URI begins, in any case.
const DATA: &[u8] = b"data:";

/// Bytes that are unescaped at once.
const PIECE: usize = 64 << 10;

/// Where a picture is: an http(s) URL, or a `data:` URI with the picture in it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ImageUrl(Bytes);

impl ImageUrl {
    /// The text; it is UTF-8.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether the picture stands in the text itself. Tells by how it begins.
    #[must_use]
    pub fn is_data_uri(&self) -> bool {
        let scheme = self.0.trim_ascii_start().get(..DATA.len());
        scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(DATA))
    }

    /// The text, and with it the memory in which it stands.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl From<&str> for ImageUrl {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl fmt::Debug for ImageUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ImageUrl({} bytes)", self.0.len())
    }
}

impl ImageUrl {
    /// The text that is written so in this body, between quotes.
    ///
    /// # Errors
    /// When an escape in it makes no character.
    pub(super) fn written(text: &str, body: &Bytes) -> Result<Self, serde_json::Error> {
        if !text.contains('\\') {
            return Ok(Self(body.slice_ref(text.as_bytes())));
        }
        let mut unescaped = Vec::with_capacity(text.len());
        let mut rest = text;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(end_of_piece(rest, PIECE));
            unescaped.extend_from_slice(unescape(piece)?.as_bytes());
            rest = after;
        }
        Ok(Self(unescaped.into()))
    }
}

/// At least the first `bytes` bytes of a text that is written so, or all of it.
pub(super) fn beginning(text: &str, bytes: usize) -> Result<String, serde_json::Error> {
    // No character is written with more than twelve bytes, or has fewer than one.
    let (piece, _) = text.split_at(end_of_piece(text, 12 * bytes));
    unescape(piece)
}

/// The parser itself reads escapes, so that there is one reading of them.
fn unescape(piece: &str) -> Result<String, serde_json::Error> {
    serde_json::from_str(&format!("\"{piece}\""))
}

/// Where a text of so many bytes or somewhat more can be cut off without cutting an escape, or the pair
/// of escapes that make one character.
fn end_of_piece(text: &str, at_least: usize) -> usize {
    let bytes = text.as_bytes();
    let mut end = 0;
    while end < bytes.len().min(at_least) {
        end += match bytes.get(end..).unwrap_or_default() {
            [
                b'\\',
                b'u',
                b'd' | b'D',
                b'8' | b'9' | b'a' | b'b' | b'A' | b'B',
                ..,
            ] => 12,
            [b'\\', b'u', ..] => 6,
            [b'\\', ..] => 2,
            _ => 1,
        };
    }
    text.ceil_char_boundary(end)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fal::json;

    fn text(body: &str) -> Vec<u8> {
        let parsed = json::parse(&Bytes::copy_from_slice(body.as_bytes())).unwrap();
        parsed.image_url.unwrap().as_bytes().to_vec()
    }

    #[test]
    fn a_plain_text_is_a_part_of_the_body_and_no_copy() {
        let long = "a".repeat(1 << 20);
        let body = Bytes::from(json!({"x": 1, "image_url": long}).to_string());
        let text = json::parse(&body).unwrap().image_url.unwrap();
        assert_eq!(text.as_bytes(), long.as_bytes());
        assert!(body.as_ptr_range().contains(&text.as_bytes().as_ptr()));
    }

    #[test]
    fn an_escaped_text_is_what_the_parser_makes_of_it_at_any_length() {
        let escapes = [
            r"\/",
            r"\n",
            r"\\",
            r#"\""#,
            r"\u0041",
            r"\uD83D\uDE00",
            r"\ud83d\ude00",
            r"\u00e9",
            "é",
            "😀",
            "A",
        ];
        for shift in 0..12 {
            for escape in escapes {
                let repeated = escape.repeat(2 * PIECE);
                let raw = format!("{}{repeated}", "A".repeat(shift));
                let body = format!(r#"{{"image_url": "{raw}"}}"#);
                let plain: Value = serde_json::from_str(&body).unwrap();
                let expected = plain["image_url"].as_str().unwrap();
                assert!(text(&body) == expected.as_bytes(), "{shift} {escape}");
            }
        }
    }

    #[test]
    fn the_topmost_field_counts_and_of_several_the_last() {
        let long = |letter: &str| format!(r"\/{}", letter.repeat(PIECE));
        for [first, second] in [["a", "b"], ["b", "a"]] {
            let body = format!(
                r#"{{"image_url": "{}", "x": {{"image_url": "n"}}, "image\u005furl": "{}"}}"#,
                long(first),
                long(second)
            );
            assert_eq!(text(&body).last(), second.as_bytes().first());
        }
        let nested = Bytes::from_static(br#"{"x": {"image_url": "n"}}"#);
        assert_eq!(json::parse(&nested).unwrap().image_url, None);
        let list = Bytes::from_static(br#"["image_url"]"#);
        assert_eq!(json::parse(&list).unwrap().image_url, None);
    }

    #[test]
    fn debugging_prints_no_picture() {
        assert_eq!(
            format!("{:?}", ImageUrl::from("secret")),
            "ImageUrl(6 bytes)"
        );
    }
}
