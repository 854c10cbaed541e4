//! The small files of a checkpoint: read within a bound, parsed, and their numbers held to ranges.
//!
//! A number in such a file decides how much memory is taken and how many rounds a loop goes, and it
//! comes from whoever made the checkpoint. Each file has one table of [`Range`]s; whatever it does not
//! list is not read. What a file is instead (a git-lfs pointer, a web page) is said where it is seen.

use std::io::{self, Read};
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::Value;

/// Largest file that is read whole, in bytes: the longest real one, a tokenizer, has about four million.
const MAX_BYTES: u64 = 64 << 20;
/// Characters of a wrong value that are shown.
const MAX_SHOWN: usize = 60;
/// How a file begins that stands in for a large one in a git repository.
const POINTER_START: &[u8] = b"version https://git-lfs.github.com/spec/";

/// What such a file is, and what to do.
const POINTER: &str = "it is a git-lfs pointer, which stands in for the file: run `git lfs pull` in its folder, or name \
                       the repository as owner/name to have it downloaded";

/// What one number may be. The key is a path of names, separated by dots, which leads through every entry
/// of a list; what stands in a list or an object under it is held to it one by one. A key that is absent
/// or null is another table's business.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    key: &'static str,
    least: f64,
    most: f64,
    is_whole: bool,
}

/// A whole number from `least` to `most`.
pub(super) const fn whole(key: &'static str, least: u32, most: u32) -> Range {
    Range {
        key,
        least: least as f64,
        most: most as f64,
        is_whole: true,
    }
}

/// A number from `least` to `most`.
pub(super) const fn real(key: &'static str, least: f64, most: f64) -> Range {
    Range {
        key,
        least,
        most,
        is_whole: false,
    }
}

/// Reads a file of a checkpoint whole.
///
/// # Errors
/// When it cannot be read, is too long, or is a git-lfs pointer.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?
        .take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        let text = format!(
            "it is longer than {} MiB, as no real one is",
            MAX_BYTES >> 20
        );
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    match pointer(&bytes) {
        Some(text) => Err(io::Error::new(io::ErrorKind::InvalidData, text)),
        None => Ok(bytes),
    }
}

/// The error, and `remedy` unless it says itself what to do.
pub(super) fn with_remedy(error: &io::Error, remedy: &str) -> String {
    let says_itself = error.to_string().contains(POINTER);
    let remedy = if says_itself { "" } else { remedy };
    format!("{error}{remedy}")
}

/// The first bytes of a file, enough for [`pointer`].
pub(super) fn start(path: &Path) -> io::Result<Vec<u8>> {
    let mut start = Vec::new();
    std::fs::File::open(path)?
        .take(POINTER_START.len() as u64)
        .read_to_end(&mut start)?;
    Ok(start)
}

/// Says so where a file's first bytes are those of a git-lfs pointer.
pub(super) fn pointer(start: &[u8]) -> Option<&'static str> {
    start.starts_with(POINTER_START).then_some(POINTER)
}

/// Parses JSON, and holds the numbers that `ranges` lists to them.
///
/// # Errors
/// Says what is wrong in words, with the key; the caller names the file.
pub(super) fn parse<T: DeserializeOwned>(json: &[u8], ranges: &[Range]) -> Result<T, String> {
    typed(&parse_value(json, ranges)?)
}

/// The same, before it is given a type.
pub(super) fn parse_value(json: &[u8], ranges: &[Range]) -> Result<Value, String> {
    let json = json.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(json);
    let is_page = json.trim_ascii_start().first() == Some(&b'<');
    let value: Value = serde_json::from_slice(json).map_err(|error| match is_page {
        true => "it is a web page, not JSON".to_owned(),
        false => error.to_string(),
    })?;
    for range in ranges {
        let names: Vec<&str> = range.key.split('.').collect();
        range.check(&value, &names)?;
    }
    Ok(value)
}

/// Reads a value as this type; what does not fit is named by its key.
pub(super) fn typed<T: DeserializeOwned>(value: &Value) -> Result<T, String> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        match path.as_str() {
            "." => error.into_inner().to_string(),
            path => format!("`{path}`: {}", error.into_inner()),
        }
    })
}

impl Range {
    fn check(&self, value: &Value, names: &[&str]) -> Result<(), String> {
        match (value, names) {
            (Value::Array(entries), [_, ..]) => entries
                .iter()
                .try_for_each(|entry| self.check(entry, names)),
            (value, [name, rest @ ..]) => match value.get(name) {
                Some(value) => self.check(value, rest),
                None => Ok(()),
            },
            (Value::Array(entries), []) => entries
                .iter()
                .filter(|entry| !entry.is_array() && !entry.is_object())
                .try_for_each(|entry| self.check_number(entry, None)),
            (Value::Object(entries), []) => entries
                .iter()
                .try_for_each(|(name, entry)| self.check_number(entry, Some(name))),
            (value, []) => self.check_number(value, None),
        }
    }

    fn check_number(&self, value: &Value, entry: Option<&str>) -> Result<(), String> {
        // Larger integers than f64 holds exactly lie outside every range.
        let is_whole = value.is_u64() || value.is_i64();
        let fits = value
            .as_f64()
            .is_some_and(|number| (self.least..=self.most).contains(&number));
        if fits && (is_whole || !self.is_whole) || value.is_null() {
            return Ok(());
        }
        let kind = match self.is_whole {
            true => "whole number",
            false => "number",
        };
        let Self { least, most, .. } = self;
        let named = match (entry, self.key.rsplit_once('.')) {
            (Some(entry), _) => format!("`{}` of `{}`", entry.escape_debug(), self.key),
            (None, Some((place, name))) => format!("`{name}` of `{place}`"),
            (None, None) => format!("`{}`", self.key),
        };
        let found = shortened(value);
        Err(format!(
            "{named} is {found}; a {kind} from {least} to {most} is possible"
        ))
    }
}

/// A value as JSON, of a length that a sentence can hold.
fn shortened(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(MAX_SHOWN) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGES: [Range; 5] = [
        whole("n", 1, 64),
        whole("outer.list", 0, 8),
        real("x", -100.0, 100.0),
        whole("size", 1, 4096),
        whole("entries.id", 0, 9),
    ];

    fn parsed(json: &str) -> Result<Value, String> {
        parse(json.as_bytes(), &RANGES)
    }

    #[test]
    fn a_number_outside_its_range_is_named_by_its_key() {
        for (json, key) in [
            (r#"{"n": 0}"#, "`n` is 0"),
            (r#"{"n": 65}"#, "from 1 to 64"),
            (r#"{"n": -1}"#, "`n` is -1"),
            (r#"{"n": 3.5}"#, "whole number"),
            (r#"{"n": 3.0}"#, "whole number"),
            (r#"{"n": 1000000000}"#, "`n` is 1000000000"),
            (r#"{"n": 99999999999999999999999}"#, "`n`"),
            (r#"{"outer": {"list": [1, 9]}}"#, "`list` of `outer` is 9"),
            (r#"{"x": 100.5}"#, "`x` is 100.5; a number from -100 to 100"),
            (r#"{"x": 1e300}"#, "`x`"),
            (r#"{"size": {"height": 5000}}"#, "`height` of `size`"),
            (r#"{"size": 0}"#, "`size` is 0"),
            (
                r#"{"entries": [{"id": 9}, {"id": 10}]}"#,
                "`id` of `entries` is 10",
            ),
            (r#"{"n": "3"}"#, r#"`n` is "3"; a whole number"#),
            (
                r#"{"outer": {"list": [1, true]}}"#,
                "`list` of `outer` is true",
            ),
            (r#"{"size": {"\u001b[31m": 0}}"#, r"`\u{1b}[31m` of `size`"),
        ] {
            let error = parsed(json).unwrap_err();
            assert!(error.contains(key), "{json}: {error}");
        }
    }

    #[test]
    fn what_lies_inside_or_is_not_there_is_taken() {
        for json in [
            r#"{}"#,
            r#"{"n": null, "x": null, "outer": null}"#,
            r#"{"n": 1, "x": -100, "outer": {"list": []}}"#,
            r#"{"n": 64, "x": 0.5, "outer": {"list": [0, 8, [9]]}, "size": 5}"#,
            r#"{"size": {"height": 1, "width": null}, "entries": [{"id": 0}, {}, 7]}"#,
            "\u{feff}{\"n\": 2}",
        ] {
            parsed(json).unwrap_or_else(|error| panic!("{json}: {error}"));
        }
    }

    #[test]
    fn what_has_another_type_is_named_by_its_key() {
        #[derive(Debug, serde::Deserialize)]
        struct Outer {
            #[expect(dead_code, reason = "only its type is tried")]
            outer: std::collections::HashMap<String, Vec<bool>>,
        }
        let error = parse::<Outer>(br#"{"outer": {"list": [true, 1]}}"#, &[]).unwrap_err();
        assert!(error.contains("`outer.list[1]`"), "{error}");
        let error = parse::<Outer>(b"{}", &[]).unwrap_err();
        assert!(error.contains("missing field `outer`"), "{error}");
    }

    #[test]
    fn what_stands_in_for_a_file_is_called_what_it_is() {
        let error = parsed("\n<!DOCTYPE html><html>").unwrap_err();
        assert!(error.contains("web page"), "{error}");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.json");
        let text = "version https://git-lfs.github.com/spec/v1\noid sha256:5\nsize 9\n";
        std::fs::write(&file, text).unwrap();
        let error = read(&file).unwrap_err().to_string();
        assert!(error.contains("git lfs pull"), "{error}");
        std::fs::write(&file, "{}").unwrap();
        assert_eq!(read(&file).unwrap(), b"{}");
    }
}
