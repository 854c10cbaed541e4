//! One file on its way: every manner in which a server or a connection can fail, and the checks.

use super::*;
use crate::support::hub::Manner;

#[test]
fn an_error_page_in_answer_to_the_download_is_never_a_model_file() {
    let (hub, case) = checkpoint();
    hub.set(
        WEIGHTS,
        Manner::Refused {
            status: 403,
            times: usize::MAX,
        },
    );
    case.pull().fails_with(&[REPOSITORY, "403", "HF_TOKEN"]);
    assert_eq!(
        hub.asked("GET", WEIGHTS).len(),
        1,
        "a refusal was asked for again"
    );
    assert_eq!(leftovers(&case), Vec::<String>::new());

    hub.set(
        WEIGHTS,
        Manner::Refused {
            status: 503,
            times: usize::MAX,
        },
    );
    case.pull().fails_with(&[WEIGHTS, REPOSITORY, "503"]);
    assert_eq!(
        hub.asked("GET", WEIGHTS).len(),
        1 + 4,
        "attempts are bounded"
    );
    assert!(!case.snapshot().join(WEIGHTS).exists());
}

#[test]
fn a_busy_server_is_asked_again() {
    let (hub, case) = checkpoint();
    hub.set(
        WEIGHTS,
        Manner::Refused {
            status: 503,
            times: 2,
        },
    );
    case.pull().is_good();
    assert_eq!(case.tree(), expected_tree());
    assert_eq!(hub.asked("GET", WEIGHTS).len(), 3);
}

#[test]
fn a_connection_that_breaks_again_and_again_but_brings_something_gets_there() {
    let (hub, case) = checkpoint();
    // Twice as many breaks as attempts without progress are allowed.
    hub.set(
        WEIGHTS,
        Manner::Cut {
            after: 140_000,
            times: 8,
        },
    );
    case.pull().is_good();
    assert_eq!(case.tree(), expected_tree());
    assert!(
        hub.asked("GET", WEIGHTS)[1..]
            .iter()
            .all(|request| request.range.is_some())
    );
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
    for announced in [true, false] {
        let (hub, case) = checkpoint();
        hub.set(WEIGHTS, Manner::Page { announced });
        case.pull()
            .fails_with(&[WEIGHTS, "a web page came instead"]);
        assert_eq!(
            leftovers(&case),
            Vec::<String>::new(),
            "announced: {announced}"
        );
    }
}

#[test]
fn a_login_page_in_between_does_not_cost_what_came_before_it() {
    let (hub, case) = checkpoint();
    hub.set(WEIGHTS, Manner::CutThenPage(500_000));
    case.pull().is_good();
    assert_eq!(case.tree(), expected_tree());
    let gets = hub.asked("GET", WEIGHTS);
    assert_eq!(gets.len(), 3);
    assert!(
        gets[2].range.is_some() && gets[2].range == gets[1].range,
        "{gets:?}"
    );
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
fn a_mirror_that_names_the_whole_length_beside_a_part_is_resumed() {
    let (hub, case) = checkpoint();
    hub.announce_linked_sizes();
    hub.set(
        WEIGHTS,
        Manner::Cut {
            after: 200_000,
            times: 6,
        },
    );
    let outcome = case.pull();
    outcome.is_good();
    assert_eq!(case.tree(), expected_tree());
    // Each attempt asks for what is missing, and begins where the one before it ended.
    let starts: Vec<u64> = hub.asked("GET", WEIGHTS)[1..]
        .iter()
        .map(|request| {
            let range = request.range.as_deref().unwrap();
            let (from, _) = range
                .strip_prefix("bytes=")
                .unwrap()
                .split_once('-')
                .unwrap();
            from.parse().unwrap()
        })
        .collect();
    assert!(starts.is_sorted() && starts.len() <= 7, "{starts:?}");
    assert!(
        starts[0] > 0 && *starts.last().unwrap() > 200_000,
        "{starts:?}"
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
