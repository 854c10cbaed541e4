//! The bytes of a file from the hub: all of them, or the rest of it.
//!
//! All of a file comes through hf-hub, which knows the hub's storage (Xet included). The rest of one we
//! ask for ourselves, because hf-hub hides status and `Content-Range`, and only these say where in the
//! file the bytes belong: a mirror may announce the whole file's length beside a part of it.

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use hf_hub::HFError;
use reqwest::header;

use super::FetchModelError;
use super::hub::{Fault, FileMeta, Hub, chain, clean, describe, is_transient, text};

/// Status of an answer that holds a part of the file.
const PARTIAL_CONTENT: u16 = 206;

/// Bytes as they come; an error is said in words, without addresses.
pub(super) type ByteStream = Box<dyn Stream<Item = Result<Bytes, String>> + Send + Unpin>;

/// An answer whose bytes are about to come.
pub(super) struct Body {
    /// Where in the file the first of them belongs.
    pub(super) from: u64,
    /// How many are announced, where that is said.
    pub(super) announced: Option<u64>,
    pub(super) bytes: ByteStream,
}

impl Hub {
    /// Opens the bytes of a file, from `from` on. The answer may begin earlier all the same.
    pub(super) async fn open(&self, meta: &FileMeta, from: u64) -> Result<Body, Fault> {
        if from == 0 {
            self.open_whole(meta).await
        } else {
            self.open_rest(meta, from).await
        }
    }

    async fn open_whole(&self, meta: &FileMeta) -> Result<Body, Fault> {
        let (announced, bytes) = self
            .model
            .download_file_stream()
            .filename(meta.name.as_str())
            .revision(meta.commit.as_str())
            .send()
            .await
            .map_err(|error| self.read_error(error, &meta.name))?;
        Ok(Body {
            from: 0,
            announced,
            bytes: Box::new(bytes.map(|chunk| chunk.map_err(describe))),
        })
    }

    async fn open_rest(&self, meta: &FileMeta, from: u64) -> Result<Body, Fault> {
        let mut request = self
            .following
            .get(self.address(&meta.commit, &meta.name)?)
            .header(header::ACCEPT_ENCODING, "identity")
            .header(
                header::RANGE,
                format!("bytes={from}-{}", meta.bytes.saturating_sub(1)),
            );
        if let Some(token) = &self.settings.token {
            request = request.bearer_auth(token);
        }
        let in_words = |error: reqwest::Error| clean(&chain(&error.without_url()));
        let response = request
            .send()
            .await
            .map_err(|error| Fault::Transient(in_words(error)))?;
        let status = response.status().as_u16();
        let from = match status {
            200 => 0,
            PARTIAL_CONTENT => {
                let range = text(response.headers(), "content-range").unwrap_or_default();
                starts_at(&range, meta.bytes).ok_or_else(|| {
                    Fault::Range(format!("HTTP 206 with a Content-Range of {range:?}"))
                })?
            }
            _ => return Err(self.read_status(status, String::new(), &meta.name)),
        };
        Ok(Body {
            from,
            announced: response.content_length(),
            bytes: Box::new(
                response
                    .bytes_stream()
                    .map(move |chunk| chunk.map_err(in_words)),
            ),
        })
    }

    fn read_error(&self, error: HFError, file: &str) -> Fault {
        let (status, words) = match error {
            HFError::AuthRequired { context }
            | HFError::Forbidden { context }
            | HFError::Http { context }
            | HFError::RateLimited { context, .. } => {
                (context.status.as_u16(), context.server_message)
            }
            HFError::EntryNotFound { .. } => (404, None),
            other => return Fault::Transient(describe(other)),
        };
        self.read_status(status, words.unwrap_or_default(), file)
    }

    fn read_status(&self, status: u16, words: String, file: &str) -> Fault {
        match status {
            401 | 403 => Fault::Final(FetchModelError::Refused {
                endpoint: self.endpoint(),
                repository: self.repository().to_owned(),
                status,
                detail: clean(&words),
                token_sent: self.settings.token.is_some(),
            }),
            416 => Fault::Range("HTTP 416".to_owned()),
            _ if is_transient(status) => Fault::Transient(format!("HTTP {status}")),
            _ => self.not_a_hub(file, format!("HTTP {status}")),
        }
    }
}

/// Where a part begins, by its `Content-Range`, if it is one of a file of `whole` bytes.
fn starts_at(range: &str, whole: u64) -> Option<u64> {
    let (part, total) = range.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = part.split_once('-')?;
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse::<u64>().ok()?);
    let is_of_file = total.trim() == "*" || total.trim().parse() == Ok(whole);
    (is_of_file && first <= last && last < whole).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_belongs_where_its_content_range_says() {
        for (range, expected) in [
            ("bytes 400-999/1000", Some(400)),
            ("bytes 0-999/1000", Some(0)),
            ("bytes 400-500/*", Some(400)),
            ("bytes 400-999/2000", None),
            ("bytes 400-1000/1000", None),
            ("bytes 500-400/1000", None),
            ("bytes */1000", None),
            ("400-999/1000", None),
            ("", None),
        ] {
            assert_eq!(starts_at(range, 1000), expected, "{range:?}");
        }
    }
}
