//! A server as a person starts it, and what a client is told about it.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::receiver::Receiver;
use super::steps::MODEL;
use crate::support::child::Child;

/// A running server with the demo checkpoint, and somebody whom it may call.
pub(super) struct Served {
    child: Child,
    pub(super) receiver: Receiver,
    data_dir: TempDir,
    files: TempDir,
}

impl Served {
    pub(super) async fn start(flags: &[&str]) -> Self {
        let (data_dir, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let fixed = [
            "--model",
            MODEL,
            "--data-dir",
            data_dir.path().to_str().unwrap(),
            // Both for the receiver: a picture that never ends, and webhooks.
            "--allow-source=127.0.0.1",
            "--allow-webhook=127.0.0.1",
        ];
        Self {
            child: Child::serve(&[&fixed, flags].concat()).await,
            receiver: Receiver::start().await,
            data_dir,
            files,
        }
    }

    pub(super) async fn stop(self) {
        self.child.stop("-TERM").await;
    }

    /// The address that the server said it listens on.
    pub(super) fn base(&self) -> &str {
        self.child.base()
    }

    pub(super) fn port(&self) -> u16 {
        self.base().rsplit(':').next().unwrap().parse().unwrap()
    }

    /// What `client-env` prints for this server.
    pub(super) async fn client_env(&self, flags: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_florence2-server"));
        command
            .args(["client-env", "--url", self.base(), "--data-dir"])
            .arg(self.data_dir.path())
            .args(flags);
        let output = tokio::task::spawn_blocking(move || command.output());
        let output = output.await.unwrap().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// A file with these lines, for a driver to run.
    pub(super) fn file(&self, lines: &str) -> PathBuf {
        let file = self.files.path().join("setup");
        std::fs::write(&file, lines).unwrap();
        file
    }

    /// A client of ours for which these names lead to this server.
    pub(super) fn client_for(&self, names: &[String]) -> reqwest::Client {
        let pem = std::fs::read(self.data_dir.path().join("tls/ca.pem")).unwrap();
        let address = ([127, 0, 0, 1], self.port()).into();
        let builder = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only(reqwest::Certificate::from_pem_bundle(&pem).unwrap());
        let resolving = names
            .iter()
            .fold(builder, |builder, name| builder.resolve(name, address));
        resolving.build().unwrap()
    }
}
