//! `serve` as a process of its own: with a fake model (this test binary, started again), or the real
//! program.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use florence2_server::cli::serve::{LoadedModel, ServeSettings, serve};
use florence2_server::config::LogSettings;
use florence2_server::telemetry::{self, LogFormat};
use tempfile::TempDir;

use super::fake_model::{FakeCodec, FakeModel, options};
use super::server::send;

/// How long a child may take to be ready: it loads a tiny checkpoint on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Tells the child where to keep its jobs and files.
const DATA_DIR: &str = "FLORENCE2_DATA_DIR";

/// Not a test of its own: what the process does.
#[test]
#[ignore = "started as a child process by other tests"]
fn serve_in_a_child_process() {
    telemetry::init(
        LogFormat::Plain,
        tracing::Level::TRACE,
        LogSettings::default(),
    );
    let mut settings = ServeSettings::default();
    settings.http.port = 0;
    let data_dir = std::env::var_os(DATA_DIR).expect("the parent names a data directory");
    settings.data_dir = Some(data_dir.into());
    settings.fetch.allowed_sources = vec!["127.0.0.1".into()];
    serve(&settings, || {
        Ok(LoadedModel {
            model: Box::new(FakeModel::saying("from the child")),
            codec: Arc::new(FakeCodec),
            options: options(),
        })
    })
    .unwrap();
}

/// A running, ready child.
pub(crate) struct Child {
    process: std::process::Child,
    base: String,
    log: JoinHandle<String>,
    /// Vanishes with the child, unless the test brought a folder of its own.
    _folder: Option<TempDir>,
}

impl Child {
    /// Starts a child with a fake model and waits until it is ready.
    pub(crate) async fn start() -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "support::child::serve_in_a_child_process"])
            .args(["--ignored", "--nocapture"]);
        Self::spawn(command).await
    }

    /// Starts the real program's `serve` with these flags, on a free port, and waits until it is ready.
    pub(crate) async fn serve(flags: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_florence2-server"));
        command.args(["serve", "--port", "0"]).args(flags);
        Self::spawn(command).await
    }

    /// The same on a directory that outlives it, with more in its environment.
    pub(crate) async fn serve_in(
        folder: &Path,
        flags: &[&str],
        environment: &[(&str, &OsStr)],
    ) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_florence2-server"));
        command.args(["serve", "--port", "0"]).args(flags);
        command.envs(environment.iter().copied());
        command.env(DATA_DIR, folder);
        Self::start_process(command, None).await
    }

    async fn spawn(mut command: Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        command.env(DATA_DIR, folder.path());
        Self::start_process(command, Some(folder)).await
    }

    async fn start_process(mut command: Command, folder: Option<TempDir>) -> Self {
        let mut process = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = process.stderr.take().unwrap();
        let log = std::thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).unwrap();
            text
        });
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let base = loop {
            let line = lines
                .next()
                .expect("the child says where it listens")
                .unwrap();
            if let Some((_, base)) = line.split_once("listening on ") {
                break base.to_owned();
            }
        };
        // The rest is read, so that the child is never stuck on a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let child = Self {
            process,
            base,
            log,
            _folder: folder,
        };
        let deadline = Instant::now() + READY_WITHIN;
        let ready = format!("{}/health/ready", child.base);
        // Whom a child's certificate is trusted by is for its test to check.
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(READY_WITHIN)
            .tls_danger_accept_invalid_certs(true)
            .build()
            .unwrap();
        while send(client.get(&ready)).await.status != 200 {
            assert!(Instant::now() < deadline, "the child is not ready");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        child
    }

    /// The process's number.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// The address that the child said it listens on.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// The URL of an endpoint.
    pub(crate) fn url(&self, endpoint: &str) -> String {
        format!("{}/fal-ai/florence-2-large/{endpoint}", self.base)
    }

    /// Kills the child with SIGKILL.
    pub(crate) fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.process.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(sent.success());
    }

    /// Sends a signal, checks that the child ends well, and gives what it logged.
    pub(crate) async fn stop(self, signal: &str) -> String {
        self.signal(signal);
        let (status, log) = self.ended().await;
        assert!(status.success(), "{signal}: {log}");
        log
    }

    /// Waits until the child has ended; gives how, and what it logged.
    pub(crate) async fn ended(mut self) -> (std::process::ExitStatus, String) {
        let ended = tokio::task::spawn_blocking(move || {
            let status = self.process.wait().unwrap();
            (status, self.log.join().unwrap())
        });
        let ended = tokio::time::timeout(Duration::from_secs(10), ended).await;
        ended.expect("the child ends").unwrap()
    }
}
