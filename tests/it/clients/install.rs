//! Installs stock clients into `target/clients`, once, and starts programs that use them.

use std::path::{Path, PathBuf};
use std::process::Command;

use tokio::sync::Mutex;

/// Installations go one after the other: tests run at once, and two may want the same client.
static INSTALLING: Mutex<()> = Mutex::const_new(());

/// Written last, so that a half-done installation is begun again.
const DONE: &str = "installed";

/// The folder of a client, made by `install` if it is not there yet.
async fn folder(name: String, install: impl FnOnce(&Path) + Send + 'static) -> PathBuf {
    let _one_at_a_time = INSTALLING.lock().await;
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let folder = target.join("clients").join(name);
    let made = folder.clone();
    let install = tokio::task::spawn_blocking(move || {
        if made.join(DONE).exists() {
            return;
        }
        let _ = std::fs::remove_dir_all(&made);
        std::fs::create_dir_all(&made).unwrap();
        install(&made);
        std::fs::write(made.join(DONE), "").unwrap();
    });
    install.await.unwrap();
    folder
}

/// Runs a program of the installation; `missing` says what to do when there is no such program.
fn run(command: &mut Command, missing: &str) {
    let output = command.output().unwrap_or_else(|_| panic!("{missing}"));
    assert!(
        output.status.success(),
        "{command:?} failed; {missing}\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

const NO_PYTHON: &str = "these tests need python3 with its venv module (Debian: apt-get install python3-venv) and a Python package index, or --skip clients::";

const NO_NODE: &str = "these tests need Node 18 or newer with npm (Debian: apt-get install nodejs npm) and an npm registry, or --skip clients::";

/// `fal-client` in an environment of its own.
pub(super) struct Python(PathBuf);

impl Python {
    /// Of this version, or the newest.
    pub(super) async fn installed(version: Option<&'static str>) -> Self {
        let name = format!("python-{}", version.unwrap_or("newest"));
        let folder = folder(name, move |folder| {
            run(
                Command::new("python3").args(["-m", "venv"]).arg(folder),
                NO_PYTHON,
            );
            let client = version.map_or("fal-client".into(), |it| format!("fal-client=={it}"));
            let mut pip = Command::new(folder.join("bin/python"));
            pip.args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
            ]);
            // The second is for checking signatures independently.
            run(pip.args([&client, "cryptography"]), NO_PYTHON);
        });
        Self(folder.await)
    }

    fn program(&self) -> PathBuf {
        self.0.join("bin/python")
    }

    /// Python with the client.
    pub(super) fn command(&self) -> Command {
        without_settings(Command::new(self.program()))
    }

    /// The same, started by a shell that has read these lines.
    pub(super) fn command_in_shell(&self, lines: &str, script: &Path) -> Command {
        let mut shell = shell(lines);
        shell.arg(self.program()).arg(script);
        without_settings(shell)
    }
}

/// `@fal-ai/client` in a folder of its own.
pub(super) struct Js(PathBuf);

impl Js {
    /// Of this version, or the newest.
    pub(super) async fn installed(version: Option<&'static str>) -> Self {
        let name = format!("js-{}", version.unwrap_or("newest"));
        let folder = folder(name, move |folder| {
            std::fs::write(folder.join("package.json"), "{}").unwrap();
            let client = format!("@fal-ai/client@{}", version.unwrap_or("latest"));
            let mut npm = Command::new("npm");
            npm.args(["install", "--no-audit", "--no-fund", &client]);
            run(npm.current_dir(folder), NO_NODE);
        });
        Self(folder.await)
    }

    /// Node with a driver, for which the client is where it was installed.
    pub(super) fn command(&self, driver: &Path, setup: &Path) -> Command {
        let mut node = Command::new("node");
        node.arg(driver).arg(&self.0).arg(setup);
        without_settings(node)
    }

    /// Node with a program of its own, which finds the client as in any project.
    pub(super) fn program(&self, name: &str, code: &str) -> Command {
        let file = self.0.join(name);
        std::fs::write(&file, code).unwrap();
        let mut node = Command::new("node");
        node.arg(file);
        without_settings(node)
    }

    /// The same, started by a shell that has read these lines.
    pub(super) fn command_in_shell(&self, lines: &str, driver: &Path, setup: &Path) -> Command {
        let mut shell = shell(lines);
        shell.arg("node").arg(driver).arg(&self.0).arg(setup);
        without_settings(shell)
    }
}

/// A shell that reads lines and then becomes the program that is added.
fn shell(lines: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", "eval \"$0\"; exec \"$@\"", lines]);
    shell
}

/// What the person who runs the tests has set for their own programs stays out.
fn without_settings(mut command: Command) -> Command {
    for name in [
        "FAL_KEY",
        "FAL_KEY_ID",
        "FAL_KEY_SECRET",
        "FAL_RUN_HOST",
        "FAL_QUEUE_RUN_HOST",
        "SSL_CERT_FILE",
        "NODE_EXTRA_CA_CERTS",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "http_proxy",
        "https_proxy",
        "all_proxy",
    ] {
        command.env_remove(name);
    }
    command
}
