//! Parses the `image_url` string: a remote URL, a `data:` URI with the file inside, or the address
//! of a file that this server hosts.
//!
//! A hosted file is known by the form of the path alone, whatever the host: the same server has
//! many names, and fetching from itself would end at its own guard. Where nothing is hosted, such
//! an address is a remote one like any other.
//!
//! Everything else is refused here, before anything else looks at it: other schemes, local paths,
//! relative URLs. The media type in a `data:` URI is ignored, because only the bytes can be trusted.
//!
//! A `data:` URI is told by how it begins and is megabytes long, so it is never parsed as a URL, and
//! the file is decoded straight from where the text stands. Any other URL has a length that a browser
//! would send; what is longer is no URL, and nothing parses it.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use url::Url;

use super::PictureError;

/// Base64 as browsers read it: padding is optional, left-over bits are ignored.
const FORGIVING_BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Longest URL that is parsed and fetched, in bytes. Servers of pictures refuse longer ones, and
/// parsing takes longer than the bytes are long where a host has many labels.
pub const MAX_URL_BYTES: usize = 8 << 10;

/// Where a picture's bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Behind an http or https URL.
    Remote(Url),
    /// In the string itself, decoded.
    Inline(Vec<u8>),
    /// A file that this server hosts.
    Own {
        /// 32 lower-case hexadecimal digits.
        id: String,
        /// Its name, as it stands in the URL.
        name: String,
    },
}

impl Source {
    /// Reads the text; inline bytes may be at most `max_bytes`, which is checked before they are decoded.
    /// `hosts_files` says whether there are own files.
    ///
    /// Takes time in proportion to the length of a `data:` URI. The text's memory is let go of as soon
    /// as it is not needed, so that beside the file there is never more than one copy of it here.
    pub(crate) fn parse(
        text: impl Into<Bytes>,
        max_bytes: usize,
        hosts_files: bool,
    ) -> Result<Self, PictureError> {
        let text = text.into();
        let trimmed = trim(&text);
        if let Some(rest) = strip_scheme(trimmed, b"data:") {
            let rest = text.slice_ref(rest);
            drop(text);
            return read_data_uri(rest, max_bytes).map(Self::Inline);
        }
        if trimmed.len() > MAX_URL_BYTES {
            return Err(PictureError::Download("longer than a URL may be".into()));
        }
        let url = std::str::from_utf8(trimmed).unwrap_or_default();
        match Url::parse(url) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {
                match own_file(url.path()).filter(|_| hosts_files) {
                    Some((id, name)) => Ok(Self::Own { id, name }),
                    None => Ok(Self::Remote(url)),
                }
            }
            // What stands before the colon is not repeated: it may be a key pasted by mistake.
            Ok(_) => Err(PictureError::Download("the scheme is not fetched".into())),
            Err(error) => Err(PictureError::Download(format!("not a URL: {error}"))),
        }
    }
}

/// The parts of `/files/{32 lower-case hexadecimal digits}/{file name}`.
fn own_file(path: &str) -> Option<(String, String)> {
    let (id, name) = path.strip_prefix("/files/")?.split_once('/')?;
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let is_id = id.len() == 32 && id.bytes().all(is_digit);
    (is_id && !name.is_empty() && !name.contains('/')).then(|| (id.to_owned(), name.to_owned()))
}

/// The text without the control characters and blanks around it, as URL parsers take them off.
fn trim(text: &[u8]) -> &[u8] {
    let is_kept = |byte: &u8| *byte > b' ';
    let begin = text.iter().position(is_kept).unwrap_or(text.len());
    let end = text.iter().rposition(is_kept).map_or(begin, |at| at + 1);
    text.get(begin..end).unwrap_or_default()
}

fn strip_scheme<'a>(text: &'a [u8], scheme: &[u8]) -> Option<&'a [u8]> {
    let (head, rest) = text.split_at_checked(scheme.len())?;
    head.eq_ignore_ascii_case(scheme).then_some(rest)
}

/// Decodes what follows `data:`, which is `[mediatype][;base64],data`.
fn read_data_uri(text: Bytes, max_bytes: usize) -> Result<Vec<u8>, PictureError> {
    let Some(comma) = text.iter().position(|byte| *byte == b',') else {
        return Err(PictureError::Load("data: URI without a comma".into()));
    };
    let (head, data) = (text.slice(..comma), text.slice(comma + 1..));
    drop(text);
    let marker = head.rsplit(|byte| *byte == b';').next().unwrap_or_default();
    let is_base64 = marker.trim_ascii().eq_ignore_ascii_case(b"base64");
    drop(head);
    let bytes = if is_base64 {
        decode_base64(data, max_bytes)?
    } else {
        percent_decode(&data)
    };
    if bytes.len() > max_bytes {
        return Err(PictureError::FileTooLarge { max_bytes });
    }
    Ok(bytes)
}

fn decode_base64(data: Bytes, max_bytes: usize) -> Result<Vec<u8>, PictureError> {
    let too_large = || PictureError::FileTooLarge { max_bytes };
    let is_within = |data: &Bytes| data.len() / 4 <= max_bytes.div_ceil(3);
    // Most texts are digits and nothing else.
    if is_within(&data)
        && let Ok(bytes) = FORGIVING_BASE64.decode(&data)
    {
        return Ok(bytes);
    }
    // Whitespace and escapes only make the text longer than the bytes it stands for, so this
    // refuses no picture within the limit except one padded with megabytes of blanks.
    if data.len() / 4 > max_bytes.div_ceil(3).saturating_mul(3) {
        return Err(too_large());
    }
    let digits = digits_of(data);
    if !is_within(&digits) {
        return Err(too_large());
    }
    let bytes = FORGIVING_BASE64.decode(&digits);
    bytes.map_err(|error| PictureError::Load(format!("data: URI: {error}")))
}

/// A base64 text without escapes and whitespace.
fn digits_of(data: Bytes) -> Bytes {
    let mut digits = if data.contains(&b'%') {
        percent_decode(&data)
    } else {
        // No copy where nobody else has the text.
        data.into()
    };
    digits.retain(|byte| !byte.is_ascii_whitespace());
    digits.into()
}

/// Replaces `%XX`; anything else stays as it is.
fn percent_decode(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        let escaped = match (first, after) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)),
            _ => None,
        };
        if let Some((high, low)) = escaped {
            bytes.push(high << 4 | low);
            rest = after.get(2..).unwrap_or_default();
        } else {
            bytes.push(first);
        }
    }
    bytes
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inline(text: &str) -> Result<Vec<u8>, PictureError> {
        match Source::parse(text.to_owned(), 6, true)? {
            Source::Inline(bytes) => Ok(bytes),
            other => panic!("{other:?} is not inline"),
        }
    }

    #[test]
    fn data_uris_are_read_in_every_spelling() {
        for text in [
            "data:image/png;base64,aGVsbG8=",
            "data:image/png;base64,aGVsbG8",
            "DATA:text/html;charset=utf-8;BASE64,aGVsbG8=",
            "data:;base64,aGVs\n bG8=",
            "data:;base64,aGVsbG8%3D",
            "data:image/png,hello",
            "data:,hel%6co",
            " data:,%68%65%6C%6c%6F ",
        ] {
            assert_eq!(inline(text).unwrap(), b"hello", "{text}");
        }
        assert_eq!(inline("data:,%zz%4").unwrap(), b"%zz%4");
        assert_eq!(inline("data:,").unwrap(), b"");
    }

    #[test]
    fn inline_bytes_are_limited_at_the_limit() {
        assert_eq!(inline("data:;base64,MTIzNDU2").unwrap(), b"123456");
        assert_eq!(inline("data:,123456").unwrap(), b"123456");
        for text in ["data:;base64,MTIzNDU2Nw==", "data:,1234567"] {
            assert!(matches!(
                inline(text),
                Err(PictureError::FileTooLarge { max_bytes: 6 })
            ));
        }
    }

    #[test]
    fn unreadable_data_uris_are_load_errors() {
        for text in [
            "data:",
            "data:image/png;base64",
            "data:;base64,a*b",
            "data:;base64,a",
        ] {
            assert!(matches!(inline(text), Err(PictureError::Load(_))), "{text}");
        }
    }

    #[test]
    fn only_http_and_https_are_remote() {
        for text in [
            "http://a.test/x.png",
            " HTTPS://A.test ",
            "http:\\\\a.test\\x",
        ] {
            assert!(
                matches!(Source::parse(text, 6, true), Ok(Source::Remote(_))),
                "{text}"
            );
        }
        for text in [
            "",
            "x.png",
            "/etc/passwd",
            "file:///etc/passwd",
            "ftp://a.test/x.png",
            "gopher://a.test",
            "javascript:alert(1)",
            "blob:http://a.test/1",
            "http://",
            "http:///x",
            "//a.test/x.png",
        ] {
            let source = Source::parse(text, 6, true);
            // The URL parser reads http:///x as host x, which is a remote source like any other.
            if text == "http:///x" {
                assert!(matches!(source, Ok(Source::Remote(_))));
            } else {
                assert!(matches!(source, Err(PictureError::Download(_))), "{text}");
            }
        }
    }

    #[test]
    fn a_url_has_a_longest_length_and_is_not_parsed_beyond_it() {
        let url = |length: usize| format!("http://a.test/{}", "x".repeat(length - 14));
        let remote = Source::parse(url(MAX_URL_BYTES), 6, true);
        assert!(matches!(remote, Ok(Source::Remote(_))), "{remote:?}");
        for text in [url(MAX_URL_BYTES + 1), "1.".repeat(15 << 20)] {
            let begun = std::time::Instant::now();
            let refused = Source::parse(text, 6, true);
            assert!(matches!(refused, Err(PictureError::Download(_))));
            // Parsing the second as a URL takes seconds.
            assert!(begun.elapsed() < std::time::Duration::from_millis(500));
        }
    }

    #[test]
    fn blanks_around_a_text_are_read_over() {
        assert_eq!(inline("\0\n data:,x\t \x1f").unwrap(), b"x");
        assert!(inline(" \n").is_err());
    }

    #[test]
    fn an_own_file_is_known_by_its_path_whatever_the_host() {
        let id = "0123456789abcdef0123456789abcdef";
        let parse = |text: &str, hosts| Source::parse(text.to_owned(), 6, hosts).unwrap();
        for text in [
            format!("http://localhost:8000/files/{id}/cat.png"),
            format!("https://v3.fal.media/files/{id}/cat.png?x=1#y"),
            format!("HTTPS://user@A.test:1/x/../files/{id}/cat.png"),
        ] {
            let own = Source::Own {
                id: id.into(),
                name: "cat.png".into(),
            };
            assert_eq!(parse(&text, true), own, "{text}");
            assert!(matches!(parse(&text, false), Source::Remote(_)), "{text}");
        }
        for path in [
            format!("/files/{id}"),
            format!("/files/{id}/"),
            format!("/files/{id}/a/b"),
            format!("/files/{}/a", &id[1..]),
            format!("/files/{id}0/a"),
            format!("/files/{}/a", id.to_uppercase()),
            format!("/x/files/{id}/a"),
            format!("/file/{id}/a"),
            format!("//files/{id}/a"),
        ] {
            let text = format!("http://a.test{path}");
            assert!(matches!(parse(&text, true), Source::Remote(_)), "{text}");
        }
    }
}
