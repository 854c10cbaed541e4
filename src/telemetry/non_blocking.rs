//! A writer that never makes its callers wait: lines go into a bounded buffer, and a thread of its
//! own writes them out.
//!
//! Whoever reads a log may stop reading, and a pipe or a terminal that nobody reads blocks its writer
//! for ever. Here that writer is one thread that does nothing else. What does not fit the buffer is
//! dropped and counted, line by line; what cannot be written is too. The bound is in bytes, because
//! lines are as long as callers make them.

use std::io::{ErrorKind, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// Pause before the next try on a descriptor that somebody else switched to non-blocking mode.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// The way into the buffer. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct NonBlockingWriter(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    buffer: Mutex<Buffer>,
    /// Signalled when there is something to write.
    filled: Condvar,
    /// Signalled when everything is written.
    drained: Condvar,
    max_bytes: usize,
    dropped_lines: AtomicU64,
}

#[derive(Debug, Default)]
struct Buffer {
    pending: Vec<u8>,
    is_writing: bool,
}

impl NonBlockingWriter {
    /// Starts the thread, which lives as long as the process. At most `max_bytes` wait while at most
    /// as many are being written.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn start(
        out: impl Write + Send + 'static,
        max_bytes: usize,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            buffer: Mutex::default(),
            filled: Condvar::new(),
            drained: Condvar::new(),
            max_bytes,
            dropped_lines: AtomicU64::new(0),
        });
        let writer = Self(Arc::clone(&shared));
        std::thread::Builder::new()
            .name("log".into())
            .spawn(move || shared.write_out(out))?;
        Ok(writer)
    }

    /// Takes whole lines, or drops them. Never waits for the reader.
    pub(crate) fn push(&self, lines: &[u8]) {
        let mut buffer = self.0.lock();
        if buffer.pending.len() + lines.len() > self.0.max_bytes {
            drop(buffer);
            self.0.count_dropped(lines);
            return;
        }
        buffer.pending.extend_from_slice(lines);
        drop(buffer);
        self.0.filled.notify_one();
    }

    /// Lines that nobody will ever read.
    pub(crate) fn dropped_lines(&self) -> u64 {
        self.0.dropped_lines.load(Ordering::Relaxed)
    }

    /// Waits until everything is written, but not longer than `limit`; says whether it is.
    pub(crate) fn flush_within(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut buffer = self.0.lock();
        while buffer.is_writing || !buffer.pending.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.0.drained.wait_timeout(buffer, left);
            buffer = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl Shared {
    fn write_out(&self, mut out: impl Write) {
        let mut batch = Vec::new();
        loop {
            self.take(&mut batch);
            let written = write_while_possible(&mut out, &batch);
            self.count_dropped(batch.get(written..).unwrap_or_default());
            batch.clear();
        }
    }

    /// Waits for lines and exchanges them for the empty batch.
    fn take(&self, batch: &mut Vec<u8>) {
        let mut buffer = self.lock();
        buffer.is_writing = false;
        while buffer.pending.is_empty() {
            self.drained.notify_all();
            let woken = self.filled.wait(buffer);
            buffer = woken.unwrap_or_else(PoisonError::into_inner);
        }
        buffer.is_writing = true;
        std::mem::swap(batch, &mut buffer.pending);
    }

    fn count_dropped(&self, lines: &[u8]) {
        let lines = lines.iter().filter(|byte| **byte == b'\n').count();
        self.dropped_lines
            .fetch_add(lines as u64, Ordering::Relaxed);
    }

    /// Bytes are appended whole or not at all, so a panic elsewhere leaves nothing half done.
    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes until all is written or writing fails for good; gives how much was written. A closed pipe
/// ends nothing: the next lines are tried again.
fn write_while_possible(out: &mut impl Write, bytes: &[u8]) -> usize {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match out.write(rest) {
            Ok(0) => break,
            Ok(some) => written += some,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(RETRY_PAUSE),
            Err(_) => break,
        }
    }
    // The descriptors that this is used with have no buffer of their own.
    let _ = out.flush();
    written
}

impl Write for NonBlockingWriter {
    fn write(&mut self, lines: &[u8]) -> std::io::Result<usize> {
        self.push(lines);
        Ok(lines.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for NonBlockingWriter {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    /// Takes what is written once it is allowed to, or fails.
    struct Pipe {
        allowed: Receiver<io::Result<()>>,
        read: Sender<Vec<u8>>,
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // A test that is over stops nobody.
            self.allowed.recv().unwrap_or(Ok(()))?;
            let _ = self.read.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn pipe() -> (Pipe, Sender<io::Result<()>>, Receiver<Vec<u8>>) {
        let ((allow, allowed), (read, written)) = (channel(), channel());
        (Pipe { allowed, read }, allow, written)
    }

    fn next(written: &Receiver<Vec<u8>>) -> String {
        String::from_utf8(written.recv_timeout(LONG).unwrap()).unwrap()
    }

    #[test]
    fn lines_beyond_the_buffer_are_dropped_whole_and_counted() {
        let (out, allow, written) = pipe();
        let writer = NonBlockingWriter::start(out, 8).unwrap();
        writer.push(b"first\n");
        // Once the first is on its way, the buffer is empty again.
        while !writer.0.lock().is_writing {
            std::thread::yield_now();
        }
        writer.push(b"12\n45\n");
        writer.push(b"7\n");
        writer.push(b"too\nmuch\n");
        writer.push(b"\n");
        assert_eq!(writer.dropped_lines(), 3);
        assert!(!writer.flush_within(Duration::from_millis(1)));
        allow.send(Ok(())).unwrap();
        allow.send(Ok(())).unwrap();
        assert_eq!(next(&written), "first\n");
        assert_eq!(next(&written), "12\n45\n7\n");
        assert!(writer.flush_within(LONG));
        assert_eq!(writer.dropped_lines(), 3);
    }

    #[test]
    fn a_failing_reader_costs_its_lines_and_not_the_next_ones() {
        let (out, allow, written) = pipe();
        let writer = NonBlockingWriter::start(out, 100).unwrap();
        allow.send(Err(ErrorKind::BrokenPipe.into())).unwrap();
        writer.push(b"lost\nlost\n");
        assert!(writer.flush_within(LONG));
        assert_eq!(writer.dropped_lines(), 2);
        for result in [
            Err(ErrorKind::Interrupted.into()),
            Err(ErrorKind::WouldBlock.into()),
            Ok(()),
        ] {
            allow.send(result).unwrap();
        }
        writer.push(b"kept\n");
        assert_eq!(next(&written), "kept\n");
        assert_eq!(writer.dropped_lines(), 2);
    }
}
