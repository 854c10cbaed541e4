//! What may answer in the hub's place, or nothing at all, while the cache holds everything.

use super::cache::fill_as_python;
use super::*;
use crate::support::hub::Manner;

/// One warning that names the commit, and success.
#[track_caller]
fn starts_with_a_warning(outcome: &Outcome, words: &[&str]) {
    outcome.is_good();
    let lines: Vec<_> = outcome.stderr.lines().collect();
    assert!(
        lines.len() == 1 && lines[0].starts_with("warning: "),
        "{outcome:#?}"
    );
    for word in [&[COMMIT], words].concat() {
        assert!(lines[0].contains(word), "no {word:?} in {outcome:#?}");
    }
}

#[test]
fn a_complete_cache_starts_whatever_stands_in_the_hubs_place() {
    for (status, code, words) in [
        // A login page, a redirect to one, a hub that knows us no more, a gate that was closed.
        (
            200,
            "",
            &["does not answer as a model hub", "--offline"][..],
        ),
        (302, "", &["does not answer as a model hub"]),
        (401, "RepoNotFound", &["no model repository"]),
        (401, "", &["401", "HF_TOKEN"]),
        (403, "GatedRepo", &["403"]),
        (407, "", &["407"]),
    ] {
        let (hub, case) = checkpoint();
        hub.refuse(status, code);
        let empty = case.pull();
        assert_eq!(empty.code, 1, "{empty:#?}");
        fill_as_python(&case);
        starts_with_a_warning(&case.pull(), words);
        // Another revision than the cached one is not taken for it.
        let other = case.run(&["pull", REPOSITORY, "--revision", "other"]);
        assert_eq!(other.code, 1, "{other:#?}");
    }
}

#[test]
fn what_the_hub_itself_says_about_the_content_is_heard() {
    let (hub, case) = checkpoint();
    fill_as_python(&case);
    hub.set("config.json", Manner::Status(404, "EntryNotFound"));
    case.pull().fails_with(&["config.json", REPOSITORY]);
    hub.refuse(404, "RevisionNotFound");
    case.pull().fails_with(&["no revision", "--revision"]);
}

#[test]
fn the_older_offline_variable_counts_where_the_newer_is_not_set() {
    let (hub, case) = checkpoint();
    fill_as_python(&case);
    let pull = |pairs: &[(&str, &str)], more: &[&str]| {
        let before = hub.requests().len();
        let mut command = case.command(&[&["pull", REPOSITORY], more].concat());
        for (name, value) in pairs {
            command.env(name, value);
        }
        Outcome::of(command.output().unwrap()).is_good();
        hub.requests().len() > before
    };
    assert!(!pull(&[("TRANSFORMERS_OFFLINE", "1")], &[]));
    assert!(!pull(
        &[("TRANSFORMERS_OFFLINE", "1"), ("HF_HUB_OFFLINE", "")],
        &[]
    ));
    assert!(pull(
        &[("TRANSFORMERS_OFFLINE", "1"), ("HF_HUB_OFFLINE", "0")],
        &[]
    ));
    assert!(pull(&[("TRANSFORMERS_OFFLINE", "1")], &["--offline=no"]));
    assert!(pull(&[("TRANSFORMERS_OFFLINE", "")], &[]));
    assert!(pull(&[("TRANSFORMERS_OFFLINE", "0")], &[]));
}

/// A hub behind a certificate that nobody trusts: our own server's.
#[tokio::test]
async fn a_certificate_that_is_not_trusted_names_the_variable_for_it() {
    use crate::support::child::Child;
    let model = crate::support::data::path("parity/01-original-f16");
    let model = model.to_str().unwrap();
    let child = Child::serve(&["--model", model, "--tls", "local"]).await;
    let endpoint = child.base().to_owned();
    assert!(endpoint.starts_with("https://"), "{endpoint}");
    let outcome = tokio::task::spawn_blocking(move || {
        let case = Machine::new(endpoint);
        (case.pull(), case)
    });
    let (outcome, _case) = outcome.await.unwrap();
    outcome.fails_with(&["certificate", "SSL_CERT_FILE", "--offline"]);
    child.stop("-TERM").await;
}
