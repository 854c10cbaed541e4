//! The decision as a table: what a caller says, and what it means.

use super::*;

const TASK: &str = "/fal-ai/florence-2-large/caption";

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

/// Face, canonical path and base, in one line.
fn decided(facts: &Facts<'_>) -> (Face, String, String) {
    let Decision {
        reached,
        path_and_query,
    } = decide(facts);
    (reached.face, path_and_query, reached.base())
}

fn says(facts: Facts<'_>, face: Face, path: &str, base: &str) {
    let expected = (face, path.to_owned(), base.to_owned());
    assert_eq!(decided(&facts), expected, "{facts:?}");
}

#[test]
fn a_proxy_target_on_a_host_of_fals_decides_whatever_else_is_said() {
    let base = "http://localhost:8000";
    let queue = "http://localhost:8000/queue";
    let rest = "http://localhost:8000/rest";
    let request = "/fal-ai/florence-2-large/requests/7/status?logs=1";
    for (target, face, path, base) in [
        (
            format!("https://fal.run{TASK}"),
            Face::Run,
            format!("/run{TASK}"),
            base,
        ),
        (
            format!("http://FAL.run{TASK}/"),
            Face::Run,
            format!("/run{TASK}"),
            base,
        ),
        (
            format!("https://fal.run:443{TASK}?a=b#c"),
            Face::Run,
            format!("/run{TASK}?a=b"),
            base,
        ),
        (
            format!("https://fal%2Erun{TASK}"),
            Face::Run,
            format!("/run{TASK}"),
            base,
        ),
        ("https://fal.run".into(), Face::Run, "/run".into(), base),
        (
            "https://fal.run/../metrics".into(),
            Face::Run,
            "/run/metrics".into(),
            base,
        ),
        (
            "https://fal.run//metrics".into(),
            Face::Run,
            "/run//metrics".into(),
            base,
        ),
        (
            "https://fal.run/%2e%2e/health/ready".into(),
            Face::Run,
            "/run/health/ready".into(),
            base,
        ),
        (
            format!("https://fal.run{request}"),
            Face::Queue,
            "/queue/requests/7/status?logs=1".into(),
            base,
        ),
        (
            format!("https://queue.fal.run{TASK}?fal_webhook=https%3A%2F%2Fx"),
            Face::Queue,
            format!("/queue{TASK}?fal_webhook=https%3A%2F%2Fx"),
            queue,
        ),
        (
            format!("https://queue.fal.run{request}"),
            Face::Queue,
            "/queue/requests/7/status?logs=1".into(),
            queue,
        ),
        (
            "https://rest.fal.ai/tokens/".into(),
            Face::Rest,
            "/rest/tokens".into(),
            rest,
        ),
        (
            "https://rest.alpha.fal.ai/storage/upload/initiate?storage_type=gcs".into(),
            Face::Rest,
            "/rest/storage/upload/initiate?storage_type=gcs".into(),
            rest,
        ),
        (
            "https://v3.fal.media/files/upload".into(),
            Face::Files,
            "/files/upload".into(),
            base,
        ),
        (
            "https://v3b.fal.media/other".into(),
            Face::Files,
            "/files/other".into(),
            base,
        ),
        (
            "https://fal.ai/api/openapi/queue/openapi.json?endpoint_id=x".into(),
            Face::Own,
            "/api/openapi/queue/openapi.json?endpoint_id=x".into(),
            base,
        ),
    ] {
        for at in ["/api/fal/proxy", "/", "/health/live", "/queue/x?y=z", TASK] {
            for host in ["localhost:8000", "queue.localhost:8000"] {
                let told = Facts {
                    target: Some(&target),
                    host: Some(host),
                    ..facts(at)
                };
                says(
                    told,
                    face,
                    &path,
                    &base.replace("localhost", host.trim_end_matches(":8000")),
                );
            }
        }
    }
}

#[test]
fn every_other_proxy_target_is_not_understood() {
    let long = format!("https://{}.fal.run/", "a".repeat(5000));
    for target in [
        "",
        " ",
        "/fal-ai/florence-2-large/caption",
        "//fal.run/x",
        "fal.run/x",
        "https://",
        "https://example.com/fal-ai/florence-2-large/caption",
        "https://fal.run.example.com/x",
        "https://example.com/https://fal.run/x",
        "https://fal.run@example.com/x",
        "https://example.com@fal.run/x",
        "https://a:b@fal.run/x",
        "https://:b@fal.run/x",
        "https://fal.run:8443/x",
        "https://fal.run:80/x",
        "https://fal.run./x",
        "https://xfal.run/x",
        "https://x.fal.run/x",
        "https://queue.queue.fal.run/x",
        "https://ws.fal.run/x",
        "https://api.fal.ai/v1/models",
        "https://fal.ai/x",
        "https://fal.ai/api/openapi",
        "https://rest.fal.ai.evil.test/tokens/",
        "https://fal.media/files/x",
        "https://evil.fal.media/files/x",
        "https://127.0.0.1/x",
        "https://[::1]/x",
        "https://169.254.169.254/latest/meta-data",
        "http://localhost:8000/queue/x",
        "ftp://fal.run/x",
        "wss://fal.run/x",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "data:text/plain,https://fal.run/x",
        "https:\\\\fal.run@example.com\\x",
        "https://fal.run\u{ff0e}evil.test/x",
        "https://fal.run%00.evil.test/x",
        long.as_str(),
    ] {
        let told = Facts {
            target: Some(target),
            ..facts("/queue/fal-ai/x?y=z")
        };
        says(told, Face::Own, PROXY_PATH, "http://localhost:8000");
    }
    says(
        facts(PROXY_PATH),
        Face::Own,
        PROXY_PATH,
        "http://localhost:8000",
    );
}

#[test]
fn a_host_decides_before_prefix_and_port() {
    for (host, path, face, canonical, prefix) in [
        (
            "queue.localhost:8443",
            TASK,
            Face::Queue,
            format!("/queue{TASK}"),
            "",
        ),
        (
            "QUEUE.fal.run",
            TASK,
            Face::Queue,
            format!("/queue{TASK}"),
            "",
        ),
        (
            "queue.localhost:8443",
            "/queue/fal-ai/x/",
            Face::Queue,
            "/queue/fal-ai/x".into(),
            "/queue",
        ),
        (
            "queue.localhost:8443",
            "/run/fal-ai/x",
            Face::Queue,
            "/queue/run/fal-ai/x".into(),
            "",
        ),
        (
            "rest.fal.ai",
            "/tokens/",
            Face::Rest,
            "/rest/tokens".into(),
            "",
        ),
        (
            "rest.alpha.fal.ai",
            "/storage/upload/initiate",
            Face::Rest,
            "/rest/storage/upload/initiate".into(),
            "",
        ),
        (
            "rest.localhost",
            "/queue/x",
            Face::Rest,
            "/rest/queue/x".into(),
            "",
        ),
        (
            "v3.fal.media",
            "/files/upload",
            Face::Files,
            "/files/upload".into(),
            "",
        ),
        (
            "v3b.fal.media:443",
            "/x",
            Face::Files,
            "/files/x".into(),
            "",
        ),
        ("fal.run", TASK, Face::Run, format!("/run{TASK}"), ""),
        // Names that only look like those.
        (
            "myqueue.example.com",
            TASK,
            Face::Run,
            format!("/run{TASK}"),
            "",
        ),
        ("queue", TASK, Face::Run, format!("/run{TASK}"), ""),
        (
            "restaurant.test",
            TASK,
            Face::Run,
            format!("/run{TASK}"),
            "",
        ),
        ("fal.media", "/x", Face::Run, "/run/x".into(), ""),
        ("fal.media.test", "/x", Face::Run, "/run/x".into(), ""),
        ("[::1]:8000", TASK, Face::Run, format!("/run{TASK}"), ""),
    ] {
        for is_queue in [false, true] {
            let mut told = Facts {
                host: Some(host),
                ..facts(path)
            };
            told.door.is_queue = is_queue;
            // What the host leaves open is for the port to say.
            let (face, canonical) = match face {
                Face::Run if is_queue => (Face::Queue, canonical.replacen("/run", "/queue", 1)),
                _ => (face, canonical.clone()),
            };
            says(told, face, &canonical, &format!("http://{host}{prefix}"));
        }
    }
}

#[test]
fn a_prefix_is_stripped_and_comes_back_in_the_base() {
    let base = "http://localhost:8000";
    for (path, face, canonical, prefix) in [
        (
            format!("/queue{TASK}"),
            Face::Queue,
            format!("/queue{TASK}"),
            "/queue",
        ),
        (
            format!("/queue{TASK}/?fal_webhook=x"),
            Face::Queue,
            format!("/queue{TASK}?fal_webhook=x"),
            "/queue",
        ),
        (
            format!("/run{TASK}"),
            Face::Run,
            format!("/run{TASK}"),
            "/run",
        ),
        (
            format!("/run{TASK}/stream"),
            Face::Run,
            format!("/run{TASK}/stream"),
            "/run",
        ),
        (
            "/rest/tokens/".into(),
            Face::Rest,
            "/rest/tokens".into(),
            "/rest",
        ),
        (
            "/rest/.well-known/jwks.json".into(),
            Face::Rest,
            "/rest/.well-known/jwks.json".into(),
            "/rest",
        ),
        ("/queue".into(), Face::Queue, "/queue".into(), "/queue"),
        ("/run/".into(), Face::Run, "/run".into(), "/run"),
        (
            "/queue/queue/x".into(),
            Face::Queue,
            "/queue/queue/x".into(),
            "/queue",
        ),
        // A prefix is a whole part of the path.
        ("/queues/x".into(), Face::Run, "/run/queues/x".into(), ""),
        ("/runx".into(), Face::Run, "/run/runx".into(), ""),
        ("/Queue/x".into(), Face::Run, "/run/Queue/x".into(), ""),
        ("//queue/x".into(), Face::Run, "/run//queue/x".into(), ""),
        ("/%71ueue/x".into(), Face::Run, "/run/%71ueue/x".into(), ""),
    ] {
        says(facts(&path), face, &canonical, &format!("{base}{prefix}"));
    }
    // Said outright, it counts on the queue's port too.
    let mut told = facts("/run/fal-ai/x");
    told.door.is_queue = true;
    says(
        told,
        Face::Run,
        "/run/fal-ai/x",
        "http://localhost:8000/run",
    );
}

#[test]
fn the_queues_listener_is_the_queue() {
    let mut told = facts(TASK);
    told.door.is_queue = true;
    told.host = Some("localhost:8001");
    says(
        told,
        Face::Queue,
        &format!("/queue{TASK}"),
        "http://localhost:8001",
    );
}

#[test]
fn a_request_in_the_queue_is_found_on_any_host_by_its_id_alone() {
    for (path, canonical, prefix) in [
        (
            "/fal-ai/florence-2-large/requests/7",
            "/queue/requests/7",
            "",
        ),
        (
            "/fal-ai/florence-2-large/requests/7/",
            "/queue/requests/7",
            "",
        ),
        (
            "/fal-ai/florence-2-large/caption/requests/7/status/?logs=0",
            "/queue/requests/7/status?logs=0",
            "",
        ),
        (
            "/queue/fal-ai/florence-2-large/requests/7/response",
            "/queue/requests/7/response",
            "/queue",
        ),
        (
            "/run/fal-ai/florence-2-large/requests/7/cancel",
            "/queue/requests/7/cancel",
            "/run",
        ),
        (
            "/requests/7/status/stream",
            "/queue/requests/7/status/stream",
            "",
        ),
        ("/workflows/a/b/requests/7", "/queue/requests/7", ""),
        (
            "/fal-ai/other/requests/%2e%2e",
            "/queue/requests/%2e%2e",
            "",
        ),
        (
            "/a/requests/7/requests/8",
            "/queue/requests/7/requests/8",
            "",
        ),
        ("/a/requests//status", "/queue/requests//status", ""),
    ] {
        says(
            facts(path),
            Face::Queue,
            canonical,
            &format!("http://localhost:8000{prefix}"),
        );
    }
    for path in [
        "/fal-ai/florence-2-large/requests",
        "/fal-ai/florence-2-large/requests/",
    ] {
        let canonical = "/run/fal-ai/florence-2-large/requests";
        says(facts(path), Face::Run, canonical, "http://localhost:8000");
    }
    let rest = "/rest/requests/7";
    says(facts(rest), Face::Rest, rest, "http://localhost:8000/rest");
}

#[test]
fn our_own_pages_and_hosted_files_stand_on_every_host_and_port() {
    for (path, face, canonical) in [
        ("/", Face::Own, "/"),
        ("/health/live", Face::Own, "/health/live"),
        ("/metrics/", Face::Own, "/metrics"),
        ("/openapi.json?x=y", Face::Own, "/openapi.json?x=y"),
        ("/docs", Face::Own, "/docs"),
        ("/api/fal/proxy", Face::Own, PROXY_PATH),
        ("/api/requests/7", Face::Own, "/api/requests/7"),
        (
            "/.well-known/jwks.json",
            Face::Own,
            "/.well-known/jwks.json",
        ),
        ("/files/0/a.png", Face::Files, "/files/0/a.png"),
        ("/files/requests/7/", Face::Files, "/files/requests/7/"),
    ] {
        for host in [
            "localhost:8000",
            "queue.test",
            "rest.test",
            "v3.fal.media",
            "10.0.0.1",
        ] {
            for is_queue in [false, true] {
                let mut told = Facts {
                    host: Some(host),
                    ..facts(path)
                };
                told.door.is_queue = is_queue;
                says(told, face, canonical, &format!("http://{host}"));
            }
        }
    }
    says(facts("*"), Face::Run, "/run*", "http://localhost:8000");
}

#[test]
fn the_base_is_the_configured_one_or_what_the_caller_used() {
    let long = "a".repeat(MAX_AUTHORITY + 1);
    let queue = format!("/queue{TASK}");
    let told = Facts {
        public_url: Some("https://vision.test"),
        host: Some("10.0.0.1"),
        ..facts(&queue)
    };
    says(told, Face::Queue, &queue, "https://vision.test/queue");
    let told = Facts {
        scheme: "https",
        host: Some("[::1]:8443"),
        ..facts(&queue)
    };
    says(told, Face::Queue, &queue, "https://[::1]:8443/queue");
    // What is no host is not repeated.
    for host in [
        None,
        Some(""),
        Some("a b"),
        Some("a/b"),
        Some("a@b"),
        Some("a?b"),
        Some("a#b"),
        Some("a\"b"),
        Some("ä"),
        Some("a,b"),
        Some(long.as_str()),
    ] {
        let told = Facts {
            host,
            ..facts(&queue)
        };
        says(told, Face::Queue, &queue, "http://127.0.0.1:8000/queue");
    }
}
