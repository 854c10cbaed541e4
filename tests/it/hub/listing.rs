//! Which files are taken, and what is said when the repository or its name is wrong.

use super::*;
use crate::support::hub::Manner;

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
        "/etc/escape.safetensors",
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
