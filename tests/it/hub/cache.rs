//! The cache between processes and runs: shared, filled by others, damaged, offline.

use std::io::{BufRead, BufReader, Read};
use std::sync::mpsc;

use super::*;
use crate::support::hub::{DEADLINE, Gate, Manner};

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
pub(super) fn fill_as_python(case: &Machine) {
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
