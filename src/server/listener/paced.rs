//! A socket that is cut when the other side does not read.
//!
//! The time in which the socket takes no byte because its buffers are full is a debt of the caller's.
//! Bytes that it takes pay back at the least rate, and so does time in which nothing is held up. Who
//! owes more than the grace is cut. So a stream of rare events, a long answer to a quick reader and
//! an idle connection owe nothing, and a reader who takes a little now and then is still too slow.
//!
//! This lies under TLS and counts what the system has taken. Where nothing is held up it costs a
//! comparison.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use crate::config::PeerSettings;

/// See the module's header.
#[derive(Debug)]
pub(crate) struct Paced {
    stream: TcpStream,
    debt: Debt,
    /// Rings when the grace is over. Made when it is first needed.
    alarm: Option<Pin<Box<Sleep>>>,
    /// Counts those who are cut.
    cut: Counter,
}

impl Paced {
    pub(crate) fn new(stream: TcpStream, settings: &PeerSettings, cut: Counter) -> Self {
        Self {
            stream,
            debt: Debt::new(settings),
            alarm: None,
            cut,
        }
    }

    /// The socket itself.
    pub(crate) fn socket(&self) -> &TcpStream {
        &self.stream
    }

    /// What came of writing, with the debt kept.
    fn kept(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(bytes)) => {
                self.debt.pay(bytes);
                written
            }
            Poll::Ready(Err(_)) => written,
            Poll::Pending => {
                ready!(self.overdue(cx));
                self.cut.inc();
                // What lies in the system's buffers is not waited for either.
                let _ = self.stream.set_zero_linger();
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }

    /// Ready when the caller owes more than the grace.
    fn overdue(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = Instant::now();
        let deadline = self.debt.stuck(now);
        if deadline <= now {
            return Poll::Ready(());
        }
        let alarm = self
            .alarm
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if alarm.deadline() != deadline {
            alarm.as_mut().reset(deadline);
        }
        alarm.as_mut().poll(cx)
    }
}

impl AsyncRead for Paced {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Paced {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.kept(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.kept(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// What a caller owes: time for which the socket was stuck and that was not paid back.
#[derive(Debug)]
struct Debt {
    grace: Duration,
    bytes_per_second: u64,
    owed: Duration,
    /// When `owed` was true, if it is not zero or the socket is stuck.
    at: Option<Instant>,
    is_stuck: bool,
}

impl Debt {
    fn new(settings: &PeerSettings) -> Self {
        Self {
            grace: settings.answer_grace,
            bytes_per_second: settings.min_answer_rate_bytes.max(1) as u64,
            owed: Duration::ZERO,
            at: None,
            is_stuck: false,
        }
    }

    /// The socket takes nothing now; gives the moment when that has been so for too long.
    fn stuck(&mut self, now: Instant) -> Instant {
        self.settle(now);
        self.is_stuck = true;
        self.at = Some(now);
        now + self.grace.saturating_sub(self.owed)
    }

    /// The socket has taken bytes.
    fn pay(&mut self, bytes: usize) {
        if self.at.is_some() {
            self.pay_at(bytes, Instant::now());
        }
    }

    fn pay_at(&mut self, bytes: usize, now: Instant) {
        self.settle(now);
        self.is_stuck = false;
        let micros = (bytes as u64).saturating_mul(1_000_000) / self.bytes_per_second;
        self.owed = self.owed.saturating_sub(Duration::from_micros(micros));
        self.at = (!self.owed.is_zero()).then_some(now);
    }

    /// Counts the time that has passed.
    fn settle(&mut self, now: Instant) {
        let Some(at) = self.at else { return };
        let passed = now.saturating_duration_since(at);
        self.owed = if self.is_stuck {
            self.owed.saturating_add(passed)
        } else {
            self.owed.saturating_sub(passed)
        };
        self.at = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn debt() -> Debt {
        Debt::new(&PeerSettings {
            answer_grace: Duration::from_secs(10),
            min_answer_rate_bytes: 1000,
            ..PeerSettings::default()
        })
    }

    /// Seconds that are left, asked at `second` while the socket is stuck.
    fn left(debt: &mut Debt, start: Instant, second: u64) -> f64 {
        let now = start + Duration::from_secs(second);
        let deadline = debt.stuck(now);
        deadline.saturating_duration_since(now).as_secs_f64()
    }

    #[tokio::test]
    async fn a_stuck_socket_has_the_grace_and_no_more() {
        let (mut debt, start) = (debt(), Instant::now());
        assert_eq!(left(&mut debt, start, 0), 10.0);
        assert_eq!(left(&mut debt, start, 4), 6.0);
        assert_eq!(left(&mut debt, start, 11), 0.0);
    }

    #[tokio::test]
    async fn bytes_pay_at_the_least_rate_and_free_time_pays_too() {
        let (mut debt, start) = (debt(), Instant::now());
        let at = |second| start + Duration::from_secs(second);
        left(&mut debt, start, 0);
        debt.pay_at(3000, at(8));
        assert_eq!(debt.owed, Duration::from_secs(5));
        assert_eq!(left(&mut debt, start, 10), 7.0);
        // A byte now and then does not help.
        for second in 11..17 {
            debt.pay_at(1, at(second));
            left(&mut debt, start, second);
        }
        assert!(left(&mut debt, start, 18) < 0.1);
        debt.pay_at(20_000, at(18));
        assert_eq!((debt.owed, debt.at), (Duration::ZERO, None));
    }

    #[tokio::test]
    async fn who_reads_at_the_least_rate_is_never_cut() {
        let (mut debt, start) = (debt(), Instant::now());
        for second in (0..600).step_by(5) {
            assert!(left(&mut debt, start, second) > 4.9, "{second}");
            debt.pay_at(5000, start + Duration::from_secs(second + 5));
        }
    }
    /// The two ends of a connection.
    async fn pair(settings: &PeerSettings, cut: &Counter) -> (Paced, TcpStream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let theirs = TcpStream::connect(address).await.unwrap();
        let (ours, _) = listener.accept().await.unwrap();
        (Paced::new(ours, settings, cut.clone()), theirs)
    }

    #[tokio::test]
    async fn a_stream_of_small_events_that_is_stuck_is_cut() {
        let settings = PeerSettings {
            answer_grace: Duration::from_millis(100),
            ..PeerSettings::default()
        };
        let cut = Counter::default();
        let (mut ours, theirs) = pair(&settings, &cut).await;
        let mut sent = 0;
        let error = loop {
            match ours.write_all(&[b'x'; 1000]).await {
                Ok(()) => sent += 1000,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(cut.get(), 1);
        // Nothing is kept for a caller who may read again.
        drop(ours);
        let mut left = Vec::new();
        let _ = tokio::io::BufReader::new(theirs)
            .read_to_end(&mut left)
            .await;
        assert!(left.len() < sent, "all of it came");
    }

    #[tokio::test]
    async fn a_reader_who_pauses_within_the_grace_gets_everything() {
        let settings = PeerSettings {
            answer_grace: Duration::from_secs(30),
            ..PeerSettings::default()
        };
        let cut = Counter::default();
        let (mut ours, mut theirs) = pair(&settings, &cut).await;
        let sending = tokio::spawn(async move {
            ours.write_all(&vec![b'x'; 16 << 20]).await.unwrap();
            ours.shutdown().await.unwrap();
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!sending.is_finished(), "the buffers hold it all");
        let mut read = Vec::new();
        theirs.read_to_end(&mut read).await.unwrap();
        assert_eq!((read.len(), cut.get()), (16 << 20, 0));
    }
}
