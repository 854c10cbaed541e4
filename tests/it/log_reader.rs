//! Readers of stderr and stdout that stop reading, or leave: the real program goes on, and still stops
//! when it is told to.

use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Read, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use reqwest::Client;
use serde_json::json;
use tempfile::TempDir;

use crate::support::pictures::grey;
use crate::support::server::client;

/// Longest wait for anything here.
const PATIENCE: Duration = Duration::from_secs(60);

/// Longest time for the process to end: it waits a second for the reader of its log, and a second for
/// helper threads.
const END: Duration = Duration::from_secs(8);

/// The real program with the demo checkpoint.
struct Program {
    process: Child,
    base: String,
    client: Client,
    _folder: TempDir,
}

fn command(folder: &TempDir, flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_florence2-server"));
    command
        .args(["serve", "--model", "demo", "--log-buffer-bytes", "4096"])
        .args(flags)
        .env("FLORENCE2_DATA_DIR", folder.path())
        .stdout(Stdio::piped());
    command
}

impl Program {
    async fn start(stderr: Stdio) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut process = command(&folder, &["--port", "0"])
            .stderr(stderr)
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        let (_, base) = line.trim().split_once("listening on ").unwrap();
        Self::ready(process, base.to_owned(), folder).await
    }

    async fn ready(process: Child, base: String, folder: TempDir) -> Self {
        let program = Self {
            process,
            base,
            client: client(),
            _folder: folder,
        };
        let deadline = Instant::now() + PATIENCE;
        while program.status("/health/ready").await != Some(200) {
            assert!(Instant::now() < deadline, "the program is not ready");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        program
    }

    async fn get(&self, path: &str) -> reqwest::Result<reqwest::Response> {
        self.client.get(format!("{}{path}", self.base)).send().await
    }

    async fn status(&self, path: &str) -> Option<u16> {
        Some(self.get(path).await.ok()?.status().as_u16())
    }

    async fn dropped_lines(&self) -> u64 {
        let text = self.get("/metrics").await.unwrap().text().await.unwrap();
        let name = "florence2_log_lines_dropped_total ";
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().parse().unwrap()
    }

    /// Asks until lines are dropped, each answer being one; then health and a call must still do.
    async fn goes_on_without_a_reader(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.dropped_lines().await == 0 {
            assert!(Instant::now() < deadline, "no line was dropped");
            for _ in 0..100 {
                assert_eq!(self.status("/health/live").await, Some(200));
            }
        }
        let url = format!("{}/fal-ai/florence-2-large/caption", self.base);
        let body = json!({"image_url": grey(64, 64)});
        let called = self.client.post(url).json(&body).send().await.unwrap();
        assert_eq!(called.status(), 200);
        assert_eq!(self.status("/health/ready").await, Some(200));
    }

    fn ends_on_sigterm(mut self) {
        let pid = self.process.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(sent.unwrap().success());
        assert_eq!(ended(&mut self.process), Some(0));
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Of a test that failed.
        let _ = self.process.kill();
    }
}

/// The exit code of a process that ends in time.
fn ended(process: &mut Child) -> Option<i32> {
    let deadline = Instant::now() + END;
    loop {
        if let Some(status) = process.try_wait().unwrap() {
            return status.code();
        }
        if Instant::now() > deadline {
            process.kill().unwrap();
            panic!("the process does not end");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A pipe that is full, and its reader, who does not read.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut filling = writer.try_clone().unwrap();
    let (filled, is_filled) = std::sync::mpsc::channel();
    // More than Linux's pipes hold; ends when the reader is dropped.
    std::thread::spawn(move || {
        let _ = filling.write_all(&vec![b'x'; 1 << 20]);
        drop(filled);
    });
    // It never comes: by then the pipe has been full for long.
    let waited = is_filled.recv_timeout(Duration::from_millis(300));
    assert_eq!(waited, Err::<(), _>(RecvTimeoutError::Timeout));
    (reader, writer)
}

#[tokio::test]
async fn a_reader_of_stderr_that_stops_reading_costs_log_lines_and_nothing_else() {
    let (reader, writer) = std::io::pipe().unwrap();
    let program = Program::start(writer.into()).await;
    program.goes_on_without_a_reader().await;
    program.ends_on_sigterm();
    drop(reader);
}

#[tokio::test]
async fn a_reader_of_stderr_that_leaves_costs_log_lines_and_nothing_else() {
    let (reader, writer) = std::io::pipe().unwrap();
    let program = Program::start(writer.into()).await;
    drop(reader);
    program.goes_on_without_a_reader().await;
    program.ends_on_sigterm();
}

#[tokio::test]
async fn a_reader_who_comes_back_finds_whole_lines_up_to_the_last() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let program = Program::start(writer.into()).await;
    program.goes_on_without_a_reader().await;
    let read = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    });
    program.ends_on_sigterm();
    let text = read.join().unwrap();
    let is_whole = |line: &str| line.contains(" INFO ") || line.contains(" WARN ");
    let broken: Vec<_> = text.lines().filter(|line| !is_whole(line)).collect();
    assert!(broken.is_empty(), "{broken:?}");
    assert!(text.ends_with("SIGTERM: stopping\n"), "{text}");
}

#[tokio::test]
async fn a_reader_of_stdout_who_does_not_read_holds_nothing_up() {
    let port = {
        let probe = TcpListener::bind("127.0.0.1:0").unwrap();
        probe.local_addr().unwrap().port().to_string()
    };
    let (reader, writer) = full_pipe();
    let folder = tempfile::tempdir().unwrap();
    let process = command(&folder, &["--port", &port])
        .stdout(writer)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let base = format!("http://127.0.0.1:{port}");
    let program = Program::ready(process, base, folder).await;
    program.ends_on_sigterm();
    drop(reader);
}

#[test]
fn a_start_that_fails_ends_in_time_though_nobody_reads_why() {
    let (reader, writer) = full_pipe();
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let mut process = command(&folder, &["--port", &port])
        .stderr(writer)
        .spawn()
        .unwrap();
    assert_eq!(ended(&mut process), Some(1));
    drop(reader);
}
