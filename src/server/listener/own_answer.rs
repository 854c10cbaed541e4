//! Full answers where the HTTP library writes a bare status line.
//!
//! What it cannot read as HTTP the library answers by itself: a status line, `content-length: 0`, and
//! the end. Callers of an API want the envelope and a request id there too. [`Tap`] sits between the
//! library and the connection and keeps such an answer back when it is the last thing written. If
//! the library then says that it could not read the request, the answer is replaced; else it is
//! passed on, so that nothing that looks like it, such as the content of a file, is ever lost.
//!
//! Nothing is parsed here but the library's own few lines.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use uuid::Uuid;

use crate::server::error::{ApiError, HeadFault, REQUEST_ID};

/// Longest answer of the library's own: status line, `connection`, `content-length`, `date`.
const LONGEST: usize = 192;

/// How every answer of the library's begins, up to the version's last digit.
const BEGIN: &[u8] = b"HTTP/1.";

/// Requests for the head alone, which are answered without a body.
const HEAD: &[u8] = b"HEAD ";

/// See the module's header.
#[derive(Debug)]
pub(super) struct Tap<S> {
    stream: S,
    /// Kept back; empty if nothing is.
    held: Vec<u8>,
    /// The library has heard that all is written, what is kept back included.
    is_flushed: bool,
    /// How the caller's bytes since the last answer began.
    asked: Vec<u8>,
    /// The connection took nothing when it was last written to.
    is_stuck: bool,
}

impl<S> Tap<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            held: Vec::new(),
            is_flushed: false,
            asked: Vec::new(),
            is_stuck: false,
        }
    }

    /// What is kept back.
    pub(super) fn held(&self) -> &[u8] {
        &self.held
    }

    /// The connection, and what was kept back.
    pub(super) fn into_parts(self) -> (S, Vec<u8>) {
        (self.stream, self.held)
    }

    /// Whether the connection took nothing when it was last written to.
    pub(super) fn is_stuck(&self) -> bool {
        self.is_stuck
    }

    /// Whether the caller wants no body.
    pub(super) fn wants_head_only(&self) -> bool {
        self.asked == HEAD
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Tap<S> {
    /// Writes what was kept back after all.
    fn poll_release(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.held))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.held.drain(..written);
        }
        Poll::Ready(Ok(()))
    }

    fn noted(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.is_stuck = written.is_pending();
        self.asked.clear();
        written
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Tap<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // The library goes on reading, so it was not its last answer.
        ready!(self.poll_release(cx))?;
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        let wanted = HEAD.len().saturating_sub(self.asked.len());
        if wanted > 0 {
            let new = buf.filled().get(before..).unwrap_or_default();
            self.asked.extend(new.iter().take(wanted));
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Tap<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_release(cx))?;
        match bare_answer_in(buf) {
            Some(0) => {
                self.held = buf.to_vec();
                self.is_flushed = false;
                Poll::Ready(Ok(buf.len()))
            }
            // What stands before it goes first.
            at => {
                let buf = buf.get(..at.unwrap_or(buf.len())).unwrap_or_default();
                let written = Pin::new(&mut self.stream).poll_write(cx, buf);
                self.noted(written)
            }
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let last = bufs.iter().rposition(|buf| !buf.is_empty());
        let Some((last, buf)) = last.and_then(|at| Some((at, bufs.get(at)?))) else {
            return self.poll_write(cx, &[]);
        };
        let before = bufs.get(..last).unwrap_or_default();
        if before.iter().all(|buf| buf.is_empty()) {
            return self.poll_write(cx, buf);
        }
        ready!(self.poll_release(cx))?;
        let bufs = if bare_answer_in(buf).is_some() {
            before
        } else {
            bufs
        };
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.noted(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_flushed {
            // The library goes on, so it was not its last answer.
            ready!(self.poll_release(cx))?;
        }
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        if !self.held.is_empty() {
            // The library either ends now, or is asked again at once.
            self.is_flushed = true;
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_release(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Where an answer of the library's own begins, if the bytes end with one.
fn bare_answer_in(buf: &[u8]) -> Option<usize> {
    let end = buf.len().checked_sub(b"\r\n\r\n".len())?;
    if buf.get(end..)? != b"\r\n\r\n" {
        return None;
    }
    let from = buf.len().saturating_sub(LONGEST);
    let tail = buf.get(from..)?;
    let at = tail.windows(BEGIN.len()).rposition(|it| it == BEGIN)?;
    let text = std::str::from_utf8(buf.get(from + at..end)?).ok()?;
    let mut lines = text.split("\r\n");
    status_in(lines.next()?)?;
    let is_own = |line: &str| {
        matches!(line, "connection: close" | "content-length: 0") || line.starts_with("date: ")
    };
    let is_bare = text.contains("\r\ncontent-length: 0") && lines.all(is_own);
    is_bare.then_some(from + at)
}

/// The status of a refusal's first line.
fn status_in(line: &str) -> Option<u16> {
    let status = line.split(' ').nth(1)?.parse().ok()?;
    (400..500).contains(&status).then_some(status)
}

/// What the library's own answer says about the request.
pub(super) fn fault_in(bare: &[u8]) -> HeadFault {
    let line = bare.split(|byte| *byte == b'\r').next().unwrap_or_default();
    match std::str::from_utf8(line).ok().and_then(status_in) {
        Some(431) => HeadFault::TooLarge,
        Some(414) => HeadFault::UriTooLong,
        _ => HeadFault::Malformed,
    }
}

/// An answer that no route gives, as it goes over the wire; and its status. The connection ends with
/// it. `bare` is the library's own that it takes the place of, whose version it keeps.
pub(super) fn written(error: &ApiError, bare: &[u8], has_body: bool) -> (Vec<u8>, StatusCode) {
    let parts = error.parts();
    let (status, id) = (parts.status, Uuid::now_v7());
    let version = if bare.starts_with(b"HTTP/1.0") {
        "1.0"
    } else {
        "1.1"
    };
    let reason = status.canonical_reason().unwrap_or_default();
    let date = DateTime::<Utc>::from(std::time::SystemTime::now());
    let mut head = format!(
        "HTTP/{version} {} {reason}\r\ndate: {}\r\nconnection: close\r\ncontent-length: {}\r\n{REQUEST_ID}: {id}\r\n",
        status.as_u16(),
        date.format("%a, %d %b %Y %H:%M:%S GMT"),
        parts.body.len()
    )
    .into_bytes();
    for (name, value) in &parts.headers {
        if name != axum::http::header::CONNECTION {
            head.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
        }
    }
    head.extend_from_slice(b"\r\n");
    if has_body {
        head.extend_from_slice(&parts.body);
    }
    let cause = &parts.failure.cause;
    tracing::debug!(request_id = %id, status = status.as_u16(), %cause, "refused");
    (head, status)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const BARE: &str = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\ndate: Tue, 15 Nov 1994 08:12:31 GMT\r\n\r\n";

    #[test]
    fn only_the_librarys_own_answers_are_recognised() {
        let before = "HTTP/1.1 200 OK\r\nx: y\r\ncontent-length: 2\r\n\r\nok";
        assert_eq!(bare_answer_in(BARE.as_bytes()), Some(0));
        let both = format!("{before}{BARE}");
        assert_eq!(bare_answer_in(both.as_bytes()), Some(before.len()));
        let without_date = "HTTP/1.0 431 Too Large\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(bare_answer_in(without_date.as_bytes()), Some(0));
        for other in [
            "",
            "\r\n\r\n",
            before,
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\nx-fal-request-id: 1\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n!",
        ] {
            assert_eq!(bare_answer_in(other.as_bytes()), None, "{other}");
        }
        assert!(matches!(fault_in(BARE.as_bytes()), HeadFault::Malformed));
        let fault = fault_in(without_date.as_bytes());
        assert!(matches!(fault, HeadFault::TooLarge));
    }

    #[tokio::test]
    async fn what_was_kept_back_goes_out_when_anything_follows() {
        let (ours, mut theirs) = duplex(1 << 16);
        let mut tap = Tap::new(ours);
        let text = format!("first{BARE}");
        tap.write_all(text.as_bytes()).await.unwrap();
        tap.flush().await.unwrap();
        assert_eq!(tap.held, BARE.as_bytes());
        let mut seen = [0; 5];
        theirs.read_exact(&mut seen).await.unwrap();
        assert_eq!(&seen, b"first");
        // Writing, reading, flushing again and ending all let it go.
        tap.flush().await.unwrap();
        tap.write_all(b"x").await.unwrap();
        tap.write_all(BARE.as_bytes()).await.unwrap();
        theirs.write_all(b"HEAD /").await.unwrap();
        tap.read_exact(&mut [0; 6]).await.unwrap();
        assert!(tap.wants_head_only());
        tap.write_all(BARE.as_bytes()).await.unwrap();
        tap.shutdown().await.unwrap();
        let mut rest = String::new();
        theirs.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, format!("{BARE}x{BARE}{BARE}"));
    }

    #[test]
    fn a_written_answer_keeps_the_version_and_may_have_no_body() {
        let error = ApiError::Head(HeadFault::TooLarge);
        let (answer, status) = written(&error, b"HTTP/1.0 431", true);
        let text = String::from_utf8(answer).unwrap();
        assert_eq!(status.as_u16(), 431);
        assert!(text.starts_with("HTTP/1.0 431 Request Header Fields Too Large\r\ndate: "));
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())));
        assert_eq!(head.matches("connection: ").count(), 1, "{head}");
        let (answer, _) = written(&error, b"", false);
        assert!(answer.ends_with(b"\r\n\r\n"));
    }
}
