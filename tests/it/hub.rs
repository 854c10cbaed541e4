//! `pull` against a hub of our own on loopback: what ends up in the cache, and what is said.
//!
//! Every case starts the real program as a child process with a temporary `HF_HOME`, because the
//! cache, its locks and the environment are shared between processes, not within one.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;

use crate::support::hub::{COMMIT, DEADLINE, Gate, Hub, Manner, REPOSITORY, etag};

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

#[test]
fn a_good_download_fills_the_cache_as_python_does_and_prints_the_checksums() {
    let (hub, case) = checkpoint();
    let outcome = case.pull();
    outcome.is_good();
    assert_eq!(case.tree(), expected_tree());
    let weights = weights();
    for (name, bytes) in [("config.json", CONFIG), (WEIGHTS, weights.as_slice())] {
        let row = outcome
            .stdout
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap();
        let row: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(row, [name, &bytes.len().to_string(), &etag(bytes, true)]);
    }
    assert_eq!(
        outcome.stdout.lines().last(),
        Some(case.snapshot().to_str().unwrap())
    );
    assert!(
        outcome
            .stderr
            .contains("model.safetensors: 1.14 MiB downloaded"),
        "{outcome:#?}"
    );
    assert!(
        hub.asked("GET", "pytorch_model.bin").is_empty()
            && hub.asked("GET", "README.md").is_empty()
    );

    // All further questions are about the commit that the first one fixed.
    let requests = hub.requests();
    assert_eq!(requests[0].revision, "main");
    assert!(
        requests[1..]
            .iter()
            .all(|request| request.revision == COMMIT)
    );
}

#[test]
fn redirected_files_keep_the_hubs_checksum_and_the_token_stays_with_the_hub() {
    let hub = hub_with_checkpoint(Hub::start_with_storage());
    let case = Machine::new(hub.endpoint());
    let output = case
        .command(&["pull", REPOSITORY])
        .env("HF_TOKEN", "hf_secret")
        .output()
        .unwrap();
    let outcome = Outcome::of(output);
    outcome.is_good();
    assert_eq!(case.tree(), expected_tree());
    let requests = hub.requests();
    assert!(
        requests
            .iter()
            .any(|request| request.storage && request.method == "GET")
    );
    for request in requests {
        let expected = (!request.storage).then_some("Bearer hf_secret");
        assert_eq!(request.authorization.as_deref(), expected, "{request:?}");
    }
    assert!(!format!("{outcome:?}").contains("secret"));
}

#[test]
fn a_failing_storage_host_is_named_without_its_signed_address() {
    let hub = hub_with_checkpoint(Hub::start_with_storage());
    let case = Machine::new(hub.endpoint());
    hub.set(
        WEIGHTS,
        Manner::Cut {
            after: 0,
            times: 99,
        },
    );
    let outcome = case.pull();
    outcome.fails_with(&[WEIGHTS, REPOSITORY, "run the command again"]);
    assert!(!outcome.stderr.contains("signature"), "{outcome:#?}");
}

#[test]
fn a_second_pull_asks_and_downloads_nothing() {
    let (hub, case) = checkpoint();
    case.pull().is_good();
    let downloads = |hub: &Hub| hub.requests().iter().filter(|r| r.method == "GET").count();
    let before = downloads(&hub);
    assert_eq!(before, 4);
    case.pull().is_good();
    assert_eq!(downloads(&hub), before);

    // A commit cannot change, so nobody is asked about it at all.
    let before = hub.requests().len();
    case.run(&["pull", REPOSITORY, "--revision", COMMIT])
        .is_good();
    assert_eq!(hub.requests().len(), before);
}

#[test]
fn a_refused_repository_is_an_error_that_names_gate_and_token_and_stores_nothing() {
    let (hub, case) = checkpoint();
    hub.refuse(403, "GatedRepo");
    case.pull()
        .fails_with(&[REPOSITORY, "403", "gated", "HF_TOKEN"]);
    assert!(!case.repository().join("blobs").exists());
}

#[test]
fn a_page_with_status_403_in_place_of_the_weights_is_never_a_model_file() {
    let (hub, case) = checkpoint();
    hub.set(WEIGHTS, Manner::Status(403, "Forbidden"));
    case.pull().fails_with(&[REPOSITORY, "403"]);
    assert!(!case.snapshot().join(WEIGHTS).exists());
    assert!(!case.repository().join("refs/main").exists());

    hub.set(WEIGHTS, Manner::Well);
    case.pull().is_good();
    assert_eq!(case.tree(), expected_tree());
}

#[test]
fn a_missing_repository_revision_or_file_is_named() {
    let (hub, case) = checkpoint();
    case.run(&["pull", REPOSITORY, "--revision", "absent"])
        .fails_with(&[REPOSITORY, "\"absent\"", "--revision"]);
    case.run(&["pull", "some-owner/other"]).fails_with(&[
        "some-owner/other",
        "config.json",
        "name",
    ]);
    hub.set("tokenizer.json", Manner::Status(404, "EntryNotFound"));
    case.pull().fails_with(&[REPOSITORY, "tokenizer.json"]);
    hub.refuse(401, "RepoNotFound");
    case.pull()
        .fails_with(&[REPOSITORY, "no model repository", "HF_TOKEN"]);
}

#[test]
fn a_short_body_is_refused_and_not_kept() {
    let (hub, case) = checkpoint();
    hub.set(WEIGHTS, Manner::Short(400));
    case.pull()
        .fails_with(&[WEIGHTS, REPOSITORY, "400 bytes came where 1200000 belong"]);
    assert_eq!(leftovers(&case), Vec::<String>::new());
    assert!(!case.snapshot().join(WEIGHTS).exists());
}

#[test]
fn a_web_page_with_status_200_is_refused_and_called_what_it_is() {
    let (hub, case) = checkpoint();
    hub.set(WEIGHTS, Manner::Page);
    case.pull()
        .fails_with(&[WEIGHTS, "a web page came instead"]);
    assert_eq!(leftovers(&case), Vec::<String>::new());
}

#[test]
fn a_cut_connection_is_resumed_with_a_range_and_only_the_rest_is_sent() {
    let (hub, case) = checkpoint();
    hub.set(
        WEIGHTS,
        Manner::Cut {
            after: 500_000,
            times: 1,
        },
    );
    case.pull().is_good();
    assert_eq!(case.tree(), expected_tree());
    let gets = hub.asked("GET", WEIGHTS);
    assert_eq!(gets.len(), 2);
    assert_eq!(gets[0].range, None);
    // What the first attempt delivered is up to the sockets; the second asks for exactly the rest.
    let from: usize = gets[1]
        .range
        .as_deref()
        .unwrap()
        .strip_prefix("bytes=")
        .unwrap()
        .strip_suffix("-1199999")
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=500_000).contains(&from), "{from}");
    assert_eq!(gets[1].sent, 1_200_000 - from);
}

#[test]
fn a_download_that_stopped_is_continued_by_the_next_run() {
    let (hub, case) = checkpoint();
    let partial = case
        .repository()
        .join(format!("blobs/{}.incomplete", etag(&weights(), true)));
    std::fs::create_dir_all(partial.parent().unwrap()).unwrap();
    std::fs::write(&partial, &weights()[..700_000]).unwrap();
    case.pull().is_good();
    assert_eq!(case.tree(), expected_tree());
    assert_eq!(
        hub.asked("GET", WEIGHTS)[0].range.as_deref(),
        Some("bytes=700000-1199999")
    );
}

#[test]
fn a_bad_beginning_left_by_somebody_is_found_by_the_checksum_and_replaced() {
    let (hub, case) = checkpoint();
    let partial = case
        .repository()
        .join(format!("blobs/{}.incomplete", etag(&weights(), true)));
    std::fs::create_dir_all(partial.parent().unwrap()).unwrap();
    std::fs::write(&partial, vec![7; 700_000]).unwrap();
    case.pull().is_good();
    assert_eq!(case.tree(), expected_tree());
    let ranges: Vec<_> = hub
        .asked("GET", WEIGHTS)
        .into_iter()
        .map(|request| request.range)
        .collect();
    assert_eq!(ranges, [Some("bytes=700000-1199999".to_owned()), None]);
}

#[test]
fn a_server_that_ignores_ranges_is_read_from_the_start() {
    let (hub, case) = checkpoint();
    hub.set(WEIGHTS, Manner::CutAndNoRanges(500_000));
    case.pull().is_good();
    assert_eq!(case.tree(), expected_tree());
    let gets = hub.asked("GET", WEIGHTS);
    assert_eq!(gets.len(), 2);
    assert!(gets[1].range.is_some());
    assert_eq!(gets[1].sent, 1_200_000);
}

#[test]
fn altered_bytes_are_fetched_once_more_and_then_refused() {
    let (hub, case) = checkpoint();
    hub.set(WEIGHTS, Manner::Altered);
    case.pull()
        .fails_with(&[WEIGHTS, REPOSITORY, "SHA-256", &etag(&weights(), true)]);
    assert_eq!(hub.asked("GET", WEIGHTS).len(), 2);
    assert_eq!(leftovers(&case), Vec::<String>::new());

    // Small files are held to git's blob id.
    hub.set(WEIGHTS, Manner::Well);
    hub.set("generation_config.json", Manner::Altered);
    case.pull().is_good();
}

#[test]
fn altered_small_files_are_refused_too() {
    let (hub, case) = checkpoint();
    hub.set("config.json", Manner::Altered);
    case.pull().fails_with(&["config.json", REPOSITORY]);
    assert!(
        hub.asked("GET", WEIGHTS).is_empty(),
        "weights came before the small files were good"
    );
}

#[test]
fn a_second_process_waits_and_shares_the_one_download() {
    let (hub, case) = checkpoint();
    let gate = Gate::default();
    hub.set(WEIGHTS, Manner::Gated(gate.clone()));
    let mut command = case.command(&["pull", REPOSITORY]);
    let first = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    hub.wait_for("GET", WEIGHTS);

    let mut command = case.command(&["pull", REPOSITORY]);
    let mut second = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (says, heard) = mpsc::channel();
    let stderr = second.stderr.take().unwrap();
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            // The receiver leaves once it has heard what it waits for.
            drop(says.send(line));
        }
    });
    let wait = || {
        heard
            .recv_timeout(DEADLINE)
            .expect("the second process never said that it waits")
    };
    while !wait().contains("model.safetensors: waiting for another process") {}
    gate.open();

    Outcome::of(first.wait_with_output().unwrap()).is_good();
    let mut table = String::new();
    second
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut table)
        .unwrap();
    assert_eq!(second.wait().unwrap().code(), Some(0));
    reader.join().unwrap();
    assert!(table.contains(&etag(&weights(), true)), "{table}");
    assert_eq!(hub.asked("GET", WEIGHTS).len(), 1);
    assert_eq!(case.tree(), expected_tree());
}

/// Fills the cache by hand, as `hf download` leaves it.
fn fill_as_python(case: &Machine) {
    let weights = weights();
    let files: [(&str, &[u8], bool); 4] = [
        ("config.json", CONFIG, false),
        ("generation_config.json", GENERATION, false),
        (WEIGHTS, &weights, true),
        ("tokenizer.json", TOKENIZER, false),
    ];
    for folder in ["blobs", "refs"] {
        std::fs::create_dir_all(case.repository().join(folder)).unwrap();
    }
    std::fs::create_dir_all(case.snapshot()).unwrap();
    std::fs::write(case.repository().join("refs/main"), COMMIT).unwrap();
    for (name, bytes, large) in files {
        let id = etag(bytes, large);
        std::fs::write(case.repository().join("blobs").join(&id), bytes).unwrap();
        std::os::unix::fs::symlink(format!("../../blobs/{id}"), case.snapshot().join(name))
            .unwrap();
    }
}

#[test]
fn a_cache_filled_by_somebody_else_is_used_without_a_download() {
    let (hub, case) = checkpoint();
    fill_as_python(&case);
    case.pull().is_good();
    assert!(
        hub.requests()
            .iter()
            .all(|request| request.method == "HEAD")
    );
    assert_eq!(case.tree(), expected_tree());
}

#[test]
fn a_damaged_file_in_the_cache_is_found_and_fetched_again() {
    let (hub, case) = checkpoint();
    fill_as_python(&case);
    let blob = case.repository().join("blobs").join(etag(&weights(), true));
    let mut bytes = weights();
    bytes[600_000] ^= 1;
    std::fs::write(&blob, &bytes).unwrap();
    case.run(&["pull", REPOSITORY, "--offline"])
        .fails_with(&[WEIGHTS, "damaged", "--offline"]);
    let outcome = case.pull();
    outcome.is_good();
    assert!(
        outcome.stderr.contains("does not match its checksum"),
        "{outcome:#?}"
    );
    assert_eq!(case.tree(), expected_tree());

    // A file of the wrong length is noticed even without reading it.
    std::fs::write(&blob, &bytes[..1000]).unwrap();
    case.pull().is_good();
    assert_eq!(hub.asked("GET", WEIGHTS).len(), 2);
    assert_eq!(case.tree(), expected_tree());
}

#[test]
fn offline_uses_the_cache_and_never_the_network() {
    let (hub, case) = checkpoint();
    case.run(&["pull", REPOSITORY, "--offline"])
        .fails_with(&[REPOSITORY, "--offline", "pull"]);
    fill_as_python(&case);
    let offline = |value: &str| {
        Outcome::of(
            case.command(&["pull", REPOSITORY])
                .env("HF_HUB_OFFLINE", value)
                .output()
                .unwrap(),
        )
    };
    offline("1").is_good();
    offline("YES").is_good();
    assert_eq!(offline("perhaps").code, 2);
    std::fs::remove_file(case.snapshot().join("tokenizer.json")).unwrap();
    offline("on").fails_with(&["tokenizer.json", REPOSITORY]);
    assert!(hub.requests().is_empty());
    offline("0").is_good();
    assert!(!hub.requests().is_empty());
}

#[test]
fn an_unreachable_hub_leaves_the_cache_usable_with_one_warning() {
    // A port that was free a moment ago, and on which nobody listens.
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let case = Machine::new(format!("http://{closed}"));
    case.pull()
        .fails_with(&[REPOSITORY, &closed.to_string(), "HF_ENDPOINT"]);
    fill_as_python(&case);
    let outcome = case.pull();
    outcome.is_good();
    let warnings: Vec<_> = outcome.stderr.lines().collect();
    assert!(
        warnings.len() == 1 && warnings[0].starts_with("warning: "),
        "{outcome:#?}"
    );
    assert!(warnings[0].contains(COMMIT));
}

#[test]
fn something_that_is_not_a_hub_is_called_so() {
    let (hub, case) = checkpoint();
    hub.refuse(200, "");
    case.pull().fails_with(&[
        &hub.endpoint(),
        "X-Repo-Commit".to_ascii_lowercase().as_str(),
        "HF_ENDPOINT",
    ]);
}

fn sharded(index: &str) -> (Hub, Machine) {
    let hub = Hub::start();
    hub.small("config.json", CONFIG);
    hub.small("tokenizer.json", TOKENIZER);
    hub.small("model.safetensors.index.json", index.as_bytes());
    hub.large("model-00001-of-00002.safetensors", b"first");
    hub.large("model-00002-of-00002.safetensors", b"second");
    hub.large("pytorch_model.bin", b"never wanted beside safetensors");
    let case = Machine::new(hub.endpoint());
    (hub, case)
}

#[test]
fn sharded_weights_come_with_all_their_shards() {
    let (hub, case) = sharded(
        r#"{"weight_map": {"a": "model-00002-of-00002.safetensors", "b": "model-00001-of-00002.safetensors",
            "c": "model-00001-of-00002.safetensors"}}"#,
    );
    let outcome = case.pull();
    outcome.is_good();
    let names: Vec<_> = outcome
        .stdout
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(
        names[..6],
        [
            "file",
            "config.json",
            "tokenizer.json",
            "model.safetensors.index.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors"
        ]
    );
    assert!(hub.asked("HEAD", "pytorch_model.bin").is_empty());

    hub.set(
        "model-00002-of-00002.safetensors",
        Manner::Status(404, "EntryNotFound"),
    );
    Machine::new(hub.endpoint())
        .pull()
        .fails_with(&["model-00002-of-00002.safetensors", REPOSITORY]);
}

#[test]
fn an_index_that_names_files_outside_the_folder_is_refused() {
    for name in [
        "../../../escape.safetensors",
        "/tmp/escape.safetensors",
        "a/../../x.safetensors",
    ] {
        let (hub, case) = sharded(&format!(r#"{{"weight_map": {{"a": "{name}"}}}}"#));
        case.pull()
            .fails_with(&[REPOSITORY, "model.safetensors.index.json", name]);
        assert!(
            hub.requests()
                .iter()
                .all(|request| !request.file.contains("escape"))
        );
    }
}

#[test]
fn a_checkpoint_with_only_a_pickle_is_taken() {
    let hub = Hub::start();
    hub.small("config.json", CONFIG);
    hub.small("tokenizer.json", TOKENIZER);
    let case = Machine::new(hub.endpoint());
    case.pull()
        .fails_with(&[REPOSITORY, "model.safetensors", "pytorch_model.bin"]);
    hub.large("pytorch_model.bin", b"weights");
    let outcome = case.pull();
    outcome.is_good();
    assert!(outcome.stdout.contains("pytorch_model.bin"), "{outcome:#?}");
}

#[test]
fn folders_and_wrong_names_never_reach_a_hub() {
    let (hub, case) = checkpoint();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    case.run(&["pull", path]).fails_with(&[path, "config.json"]);
    for (name, bytes) in [
        ("config.json", CONFIG),
        ("tokenizer.json", TOKENIZER),
        (WEIGHTS, b"w"),
    ] {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    let outcome = case.run(&["pull", path]);
    outcome.is_good();
    assert!(outcome.stdout.contains(&etag(b"w", true)), "{outcome:#?}");
    case.run(&["pull", "./no/such/folder"])
        .fails_with(&["./no/such/folder", "folder"]);
    case.run(&["pull", "Florence-2-large"])
        .fails_with(&["Florence-2-large", "owner/name"]);
    case.run(&["pull", REPOSITORY, "--revision", "../x"])
        .fails_with(&["../x", "revision"]);
    assert_eq!(case.run(&["pull", "--no-such-flag"]).code, 2);
    assert!(hub.requests().is_empty());
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
