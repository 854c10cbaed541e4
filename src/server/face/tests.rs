//! The decision as tables: what a caller says, and what it means. One case a line; `TASK` stands for
//! the path of a task, `JOB` for that of a job, `-` for nothing.

use super::*;

const TASK: &str = "/fal-ai/florence-2-large/caption";
const JOB: &str = "/fal-ai/florence-2-large/requests/7";

fn facts(path: &str) -> Facts<'_> {
    let (path, query) = match path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path, None),
    };
    Facts {
        target: None,
        host: Some("localhost:8000"),
        scheme: "http",
        path,
        query,
        door: Door {
            is_queue: false,
            scheme: "http",
            address: SocketAddr::from(([127, 0, 0, 1], 8000)),
        },
        public_url: None,
    }
}

/// The cases of a table, each with its `N` columns.
fn cases<const N: usize>(table: &str) -> Vec<[String; N]> {
    let lines = table.lines().map(str::trim).filter(|line| !line.is_empty());
    let cases: Vec<_> = lines
        .map(|line| {
            let cells = line.split_whitespace().map(|cell| {
                let cell = if cell == "-" { "" } else { cell };
                cell.replace("TASK", TASK).replace("JOB", JOB)
            });
            let cells: Vec<_> = cells.collect();
            cells.try_into().unwrap_or_else(|_| panic!("{line}"))
        })
        .collect();
    assert!(!cases.is_empty());
    cases
}

/// Checks face, canonical path and base.
#[track_caller]
fn says(facts: Facts<'_>, face: &str, path: &str, base: &str) {
    let Decision {
        reached,
        path_and_query,
    } = decide(&facts);
    let found = (reached.face.name(), path_and_query, reached.base());
    assert_eq!(found, (face, path.to_owned(), base.to_owned()), "{facts:?}");
}

#[test]
fn a_proxy_target_on_a_host_of_fals_decides_whatever_else_is_said() {
    let table = "
        https://fal.runTASK                          run    /runTASK                 -
        http://FAL.runTASK/                          run    /runTASK                 -
        https://fal.run:443TASK?a=b#c                run    /runTASK?a=b             -
        https://fal%2ErunTASK                        run    /runTASK                 -
        https://fal.run                              run    /run                     -
        https://fal.run/../metrics                   run    /run/metrics             -
        https://fal.run//metrics                     run    /run//metrics            -
        https://fal.run/%2e%2e/health/ready          run    /run/health/ready        -
        https://fal.runJOB/status?logs=1             queue  /queue/requests/7/status?logs=1  -
        https://queue.fal.runTASK?fal_webhook=x%3A   queue  /queueTASK?fal_webhook=x%3A  /queue
        https://queue.fal.runJOB/status/             queue  /queue/requests/7/status  /queue
        https://rest.fal.ai/tokens/                  rest   /rest/tokens             /rest
        https://rest.alpha.fal.ai/storage/x?a=b      rest   /rest/storage/x?a=b      /rest
        https://v3.fal.media/files/upload            files  /files/upload            -
        https://v3b.fal.media/other                  files  /files/other             -
        https://fal.ai/api/openapi/queue/x?id=y      own    /api/openapi/queue/x?id=y  -
    ";
    for [target, face, path, prefix] in cases(table) {
        for at in [PROXY_PATH, "/", "/health/live", "/queue/x?y=z", TASK] {
            for host in ["localhost:8000", "queue.localhost:8000", "v3.fal.media"] {
                let told = Facts {
                    target: Some(&target),
                    host: Some(host),
                    ..facts(at)
                };
                says(told, &face, &path, &format!("http://{host}{prefix}"));
            }
        }
    }
}

#[test]
fn every_other_proxy_target_is_not_understood() {
    let table = r"
        -
        /fal-ai/florence-2-large/caption
        //fal.run/x
        fal.run/x
        https://
        https://example.comTASK
        https://fal.run.example.com/x
        https://example.com/https://fal.run/x
        https://fal.run@example.com/x
        https://example.com@fal.run/x
        https://a:b@fal.run/x
        https://:b@fal.run/x
        https://fal.run:8443/x
        https://fal.run:80/x
        https://fal.run./x
        https://xfal.run/x
        https://x.fal.run/x
        https://queue.queue.fal.run/x
        https://ws.fal.run/x
        https://api.fal.ai/v1/models
        https://fal.ai/x
        https://fal.ai/api/openapi
        https://rest.fal.ai.evil.test/tokens/
        https://fal.media/files/x
        https://evil.fal.media/files/x
        https://127.0.0.1/x
        https://[::1]/x
        https://169.254.169.254/latest/meta-data
        http://localhost:8000/queue/x
        ftp://fal.run/x
        wss://fal.run/x
        file:///etc/passwd
        javascript:alert(1)
        data:text/plain,https://fal.run/x
        https:\\fal.run@example.com\x
        https://fal.run．evil.test/x
        https://fal.run%00.evil.test/x
    ";
    let long = format!("https://{}.fal.run/", "a".repeat(5000));
    let targets = cases(table).into_iter().map(|[target]| target);
    for target in targets.chain([long, " ".into(), "https://fal.run /x".into()]) {
        let told = Facts {
            target: Some(&target),
            ..facts("/queue/fal-ai/x?y=z")
        };
        says(told, "own", PROXY_PATH, "http://localhost:8000");
    }
    says(
        facts(PROXY_PATH),
        "own",
        PROXY_PATH,
        "http://localhost:8000",
    );
}

#[test]
fn a_host_decides_before_prefix_and_port() {
    let table = "
        queue.localhost:8443  TASK              queue  /queueTASK        -
        QUEUE.fal.run         TASK              queue  /queueTASK        -
        queue.localhost:8443  /queue/fal-ai/x/  queue  /queue/fal-ai/x   /queue
        queue.localhost:8443  /run/fal-ai/x     queue  /queue/run/fal-ai/x  -
        rest.fal.ai           /tokens/          rest   /rest/tokens      -
        rest.alpha.fal.ai     /storage/upload   rest   /rest/storage/upload  -
        rest.localhost        /queue/x          rest   /rest/queue/x     -
        rest.localhost        JOB               rest   /restJOB          -
        v3.fal.media          /files/upload     files  /files/upload     -
        v3b.fal.media:443     /x                files  /files/x          -
    ";
    for [host, path, face, canonical, prefix] in cases(table) {
        for is_queue in [false, true] {
            let mut told = facts(&path);
            told.host = Some(&host);
            told.door.is_queue = is_queue;
            says(told, &face, &canonical, &format!("http://{host}{prefix}"));
        }
    }
}

#[test]
fn a_host_that_only_looks_like_those_leaves_it_to_the_port() {
    for host in [
        "fal.run",
        "myqueue.test",
        "queue",
        "restaurant.test",
        "fal.media",
        "fal.media.test",
        "[::1]:8000",
    ] {
        for (is_queue, face) in [(false, "run"), (true, "queue")] {
            let mut told = facts(TASK);
            told.host = Some(host);
            told.door.is_queue = is_queue;
            says(
                told,
                face,
                &format!("/{face}{TASK}"),
                &format!("http://{host}"),
            );
        }
    }
}

#[test]
fn a_prefix_is_stripped_and_comes_back_in_the_base() {
    let table = "
        /queueTASK                    queue  /queueTASK                   /queue
        /queueTASK/?fal_webhook=x     queue  /queueTASK?fal_webhook=x     /queue
        /runTASK                      run    /runTASK                     /run
        /runTASK/stream               run    /runTASK/stream              /run
        /rest/tokens/                 rest   /rest/tokens                 /rest
        /rest/.well-known/jwks.json   rest   /rest/.well-known/jwks.json  /rest
        /rest/requests/7              rest   /rest/requests/7             /rest
        /queue                        queue  /queue                       /queue
        /run/                         run    /run                         /run
        /queue/queue/x                queue  /queue/queue/x               /queue
    ";
    for [path, face, canonical, prefix] in cases(table) {
        for is_queue in [false, true] {
            let mut told = facts(&path);
            told.door.is_queue = is_queue;
            says(
                told,
                &face,
                &canonical,
                &format!("http://localhost:8000{prefix}"),
            );
        }
    }
    // A prefix is a whole part of the path, to the letter.
    for path in [
        "/queues/x",
        "/runx",
        "/Queue/x",
        "//queue/x",
        "/%71ueue/x",
        "*",
    ] {
        says(
            facts(path),
            "run",
            &format!("/run{path}"),
            "http://localhost:8000",
        );
    }
}

#[test]
fn a_request_in_the_queue_is_found_on_any_host_by_its_id_alone() {
    let table = "
        JOB                            /queue/requests/7                -
        JOB/                           /queue/requests/7                -
        TASK/requests/7/status/?a=b    /queue/requests/7/status?a=b     -
        /queueJOB/response             /queue/requests/7/response       /queue
        /runJOB/cancel                 /queue/requests/7/cancel         /run
        /requests/7/status/stream      /queue/requests/7/status/stream  -
        /workflows/a/b/requests/7      /queue/requests/7                -
        /fal-ai/other/requests/%2e%2e  /queue/requests/%2e%2e           -
        /a/requests/7/requests/8       /queue/requests/7/requests/8     -
        /a/requests//status            /queue/requests//status          -
    ";
    for [path, canonical, prefix] in cases(table) {
        for host in ["localhost:8000", "fal.run", "queue.test"] {
            let mut told = facts(&path);
            told.host = Some(host);
            // On a host that says queue itself, `/run` is nothing to strip, and the id still counts.
            let is_host = host == "queue.test" && prefix == "/run";
            let prefix = if is_host { "" } else { &prefix };
            says(told, "queue", &canonical, &format!("http://{host}{prefix}"));
        }
    }
    for slash in ["", "/"] {
        let path = format!("/fal-ai/florence-2-large/requests{slash}");
        let canonical = "/run/fal-ai/florence-2-large/requests";
        says(facts(&path), "run", canonical, "http://localhost:8000");
    }
}

#[test]
fn our_own_pages_and_hosted_files_stand_on_every_host_and_port() {
    let table = "
        /                       own    /
        /health/live            own    /health/live
        /metrics/               own    /metrics
        /openapi.json?x=y       own    /openapi.json?x=y
        /docs                   own    /docs
        /api/fal/proxy          own    /api/fal/proxy
        /api/requests/7         own    /api/requests/7
        /.well-known/jwks.json  own    /.well-known/jwks.json
        /files/0/a.png          files  /files/0/a.png
        /files/requests/7/      files  /files/requests/7/
    ";
    for [path, face, canonical] in cases(table) {
        for host in ["localhost:8000", "queue.test", "rest.test", "v3.fal.media"] {
            for is_queue in [false, true] {
                let mut told = facts(&path);
                told.host = Some(host);
                told.door.is_queue = is_queue;
                says(told, &face, &canonical, &format!("http://{host}"));
            }
        }
    }
}

#[test]
fn the_base_is_the_configured_one_or_what_the_caller_used() {
    let queue = format!("/queue{TASK}");
    let mut told = facts(&queue);
    told.public_url = Some("https://vision.test");
    says(told, "queue", &queue, "https://vision.test/queue");
    let mut told = facts(&queue);
    (told.scheme, told.host) = ("https", Some("[::1]:8443"));
    says(told, "queue", &queue, "https://[::1]:8443/queue");
    // What is no host is not repeated.
    let long = "a".repeat(MAX_AUTHORITY + 1);
    let hostile = [
        "", "a b", "a/b", "a@b", "a?b", "a#b", "a\"b", "ä", "a,b", &long,
    ];
    for host in hostile.map(Some).into_iter().chain([None]) {
        let mut told = facts(&queue);
        told.host = host;
        says(told, "queue", &queue, "http://127.0.0.1:8000/queue");
    }
}

#[test]
fn a_target_longer_than_a_url_may_be_is_not_understood() {
    let target = |length: usize| {
        let begin = format!("https://fal.run{TASK}?");
        format!("{begin}{}", "x".repeat(length - begin.len()))
    };
    let (longest, long) = (target(MAX_URL_BYTES), target(MAX_URL_BYTES + 1));
    let face = |target: &str| {
        let facts = Facts {
            target: Some(target),
            ..facts("/api/fal/proxy")
        };
        decide(&facts).reached.face
    };
    assert_eq!(face(&longest), Face::Run);
    assert_eq!(face(&long), Face::Own);
}

#[test]
fn files_stand_at_fals_media_host_for_whoever_uses_fals_names() {
    let table = "
        https://fal.run                 https://v3.fal.media
        https://queue.fal.run           https://v3.fal.media
        https://rest.fal.ai             https://v3.fal.media
        https://REST.alpha.fal.ai:443   https://v3.fal.media:443
        https://falrun.com              https://v3.fal.media
        http://queue.falrun.com:8000    http://v3.fal.media:8000
        https://v3.fal.media            https://v3.fal.media
        https://v3b.fal.media           https://v3b.fal.media
        https://localhost:8443          https://localhost:8443
        https://queue.localhost:8443    https://queue.localhost:8443
        https://fal.run.example.com     https://fal.run.example.com
        http://[::1]:8000               http://[::1]:8000
    ";
    for [origin, files] in cases(table) {
        for (face, prefix) in [(Face::Run, ""), (Face::Queue, "/queue")] {
            let origin = origin.clone();
            let reached = Reached {
                face,
                origin,
                prefix,
            };
            assert_eq!(reached.files_origin(), files);
        }
    }
}
