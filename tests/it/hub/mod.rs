//! `pull` against a hub of our own on loopback: what ends up in the cache, and what is said.
//!
//! Every case starts the real program as a child process with a temporary `HF_HOME`, because the
//! cache, its locks and the environment are shared between processes, not within one.

mod cache;
mod disks;
mod download;
mod instead;
mod listing;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::support::hub::{COMMIT, Hub, REPOSITORY, etag};

const CONFIG: &[u8] = br#"{"model_type": "florence2"}"#;
const TOKENIZER: &[u8] = br#"{"version": "1.0"}"#;
const GENERATION: &[u8] = br#"{"num_beams": 3}"#;
const WEIGHTS: &str = "model.safetensors";

/// Bytes that differ at every place where a resumed download could go wrong.
fn weights() -> Vec<u8> {
    (0..300_000_u32)
        .flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect()
}

/// A cache of its own, and the program that uses it.
struct Machine {
    home: tempfile::TempDir,
    endpoint: String,
}

impl Machine {
    fn new(endpoint: String) -> Self {
        Self {
            home: tempfile::tempdir().unwrap(),
            endpoint,
        }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_florence2-server"));
        command
            .env_clear()
            .env("HF_HOME", self.home.path())
            .env("HF_ENDPOINT", &self.endpoint);
        command.args(words).stdin(Stdio::null());
        command
    }

    fn pull(&self) -> Outcome {
        self.run(&["pull", REPOSITORY])
    }

    fn run(&self, words: &[&str]) -> Outcome {
        Outcome::of(self.command(words).output().unwrap())
    }

    fn repository(&self) -> PathBuf {
        self.home.path().join("hub/models--some-owner--tiny")
    }

    fn snapshot(&self) -> PathBuf {
        self.repository().join("snapshots").join(COMMIT)
    }

    /// All files and links of the cache but the locks, with their content or target.
    fn tree(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        walk(&self.repository(), &self.repository(), &mut found);
        found.sort();
        found
    }
}

fn walk(root: &Path, folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let name = path
            .strip_prefix(root)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        let kind = entry.file_type().unwrap();
        if kind.is_symlink() {
            found.push((
                name,
                format!("-> {}", std::fs::read_link(&path).unwrap().display()),
            ));
        } else if kind.is_dir() {
            walk(root, &path, found);
        } else {
            found.push((name, etag(&std::fs::read(&path).unwrap(), true)));
        }
    }
}

/// What a run of the program showed.
#[derive(Debug)]
struct Outcome {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Outcome {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    fn is_good(&self) {
        assert_eq!(self.code, 0, "{self:#?}");
    }

    /// Failed with one sentence in which all these words occur.
    #[track_caller]
    fn fails_with(&self, words: &[&str]) {
        assert_eq!((self.code, self.stdout.as_str()), (1, ""), "{self:#?}");
        let errors: Vec<_> = self
            .stderr
            .lines()
            .filter(|line| line.starts_with("error: "))
            .collect();
        assert_eq!(errors.len(), 1, "{self:#?}");
        assert_eq!(self.stderr.lines().last(), Some(errors[0]), "{self:#?}");
        for word in words {
            assert!(errors[0].contains(word), "no {word:?} in {self:#?}");
        }
    }
}

fn hub_with_checkpoint(hub: Hub) -> Hub {
    hub.small("config.json", CONFIG);
    hub.small("tokenizer.json", TOKENIZER);
    hub.small("generation_config.json", GENERATION);
    hub.small("README.md", b"not needed");
    hub.large(WEIGHTS, &weights());
    hub.large("pytorch_model.bin", b"never wanted beside safetensors");
    hub
}

fn checkpoint() -> (Hub, Machine) {
    let hub = hub_with_checkpoint(Hub::start());
    let case = Machine::new(hub.endpoint());
    (hub, case)
}

/// The cache after a complete download, as `tree` shows it.
fn expected_tree() -> Vec<(String, String)> {
    let mut tree = vec![("refs/main".to_owned(), etag(COMMIT.as_bytes(), true))];
    let files: [(&str, &[u8], bool); 4] = [
        ("config.json", CONFIG, false),
        ("generation_config.json", GENERATION, false),
        (WEIGHTS, &weights(), true),
        ("tokenizer.json", TOKENIZER, false),
    ];
    for (name, bytes, large) in files {
        let id = etag(bytes, large);
        tree.push((
            format!("snapshots/{COMMIT}/{name}"),
            format!("-> ../../blobs/{id}"),
        ));
        tree.push((format!("blobs/{id}"), etag(bytes, true)));
    }
    for name in [
        "preprocessor_config.json",
        "processor_config.json",
        "tokenizer_config.json",
    ] {
        tree.push((format!(".no_exist/{COMMIT}/{name}"), etag(b"", true)));
    }
    tree.sort();
    tree
}

/// Names of what lies in `blobs` and is neither a blob of the checkpoint's small files.
fn leftovers(case: &Machine) -> Vec<String> {
    let known: Vec<String> = [CONFIG, TOKENIZER, GENERATION]
        .iter()
        .map(|bytes| etag(bytes, false))
        .collect();
    std::fs::read_dir(case.repository().join("blobs"))
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().into_string().unwrap())
        .filter(|name| !known.contains(name))
        .collect()
}
