//! Pictures behind URLs: what may be contacted, and what a hostile origin can do. Where nothing may
//! be contacted a canary listens, and must stay silent.

use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use florence2_server::cli::serve::ServeSettings;
use florence2_server::image_io::fetch::{LookedUp, NameLookup};
use serde_json::json;

use crate::support::fake_model::FakeModel;
use crate::support::origin::{Origin, Serve};
use crate::support::pictures::{data_uri, png};
use crate::support::server::{Answer, TestServer};

pub(crate) async fn server(allowed: &[&str]) -> TestServer {
    server_with(allowed, |_| {}).await
}

async fn server_with(allowed: &[&str], change: impl FnOnce(&mut ServeSettings)) -> TestServer {
    TestServer::with(FakeModel::saying("seen"), |settings| {
        settings.fetch.allowed_sources = allowed.iter().map(ToString::to_string).collect();
        change(settings);
    })
    .await
}

pub(crate) async fn caption(server: &TestServer, url: &str) -> Answer {
    server.call("caption", &json!({ "image_url": url })).await
}

pub(crate) fn assert_not_downloaded(answer: &Answer, url: &str) {
    assert_eq!(answer.status, 422, "{url}: {answer:?}");
    // Identical for every cause, but for the URL that the caller sent.
    let expected = json!({"detail": [{
        "type": "file_download_error",
        "loc": ["body", "image_url"],
        "msg": "Failed to download the file. Please check if the URL is accessible and try again.",
        "input": url,
        "url": "https://docs.fal.ai/errors#file_download_error",
    }]});
    assert_eq!(answer.text, expected.to_string(), "{url}");
}

#[tokio::test]
async fn an_allowed_picture_is_fetched_and_seen() {
    let origin = Origin::start(|_| Serve::Body(png(3, 3))).await;
    let server = server(&["127.0.0.1"]).await;
    let answer = caption(&server, &origin.url("/a.png?sig=1#x")).await;
    assert_eq!(answer.text, r#"{"results":"seen"}"#);
    let head = origin.requests().remove(0).to_lowercase();
    assert!(head.starts_with("get /a.png?sig=1 http/1.1\r\n"), "{head}");
    for absent in ["cookie", "referer", "authorization"] {
        assert!(!head.contains(absent), "{head}");
    }
    assert!(head.contains("\r\naccept-encoding: identity\r\n"), "{head}");
}

#[tokio::test]
async fn nothing_is_contacted_that_is_not_listed() {
    let canary = Origin::canary().await;
    let port = canary.port();
    let lists: [&[&str]; 3] = [&[], &["10.0.0.0/8"], &["pictures.example.com", "127.0.0.2"]];
    for list in lists {
        let server = server(list).await;
        for host in [
            "127.0.0.1",
            "localhost",
            "localhost.",
            "127.1",
            "0x7f000001",
            "2130706433",
            "0177.0.0.1",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "0.0.0.0",
            "[::]",
            "[::1]",
            "user@127.0.0.1",
            "pictures.example.com@127.0.0.1",
            "127.0.0.1%2f.pictures.example.com",
            "①②⑦.⓪.⓪.①",
            "127。0。0。1",
            "loc\u{ad}alhost",
            "localhost%00.pictures.example.com",
            "127.0.0.1.",
            "127.0.1",
            "0x7f.0.0.0x1",
            "017700000001",
            "[::127.0.0.1]",
            "[::ffff:0:127.0.0.1]",
            "[64:ff9b::127.0.0.1]",
            "[2002:7f00:1::]",
            "[fe80::1%25lo]",
        ] {
            let url = format!("http://{host}:{port}/");
            assert_not_downloaded(&caption(&server, &url).await, &url);
        }
    }
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn redirect_to_a_host_that_is_not_allowed_is_refused_before_connecting() {
    // Both stand on 127.0.0.1, but only by its name may the first one be contacted.
    let canary = Origin::canary().await;
    let port = canary.port();
    let targets = [
        format!("http://127.0.0.1:{port}/"),
        format!("//127.0.0.1:{port}/"),
        format!("http://2130706433:{port}/"),
        format!("http://[::ffff:127.0.0.1]:{port}/"),
        format!("http://localhost:{port}/"),
        format!("http://pictures.test@127.0.0.1:{port}/"),
        format!("https://127.0.0.1:{port}/"),
        format!("gopher://127.0.0.1:{port}/"),
        "file:///etc/passwd".into(),
        data_uri(&png(1, 1)),
        "http://".into(),
    ];
    let locations = targets.clone();
    let origin = Origin::start(move |path| {
        let index: usize = path.trim_start_matches("/go").parse().unwrap();
        Serve::Redirect(locations[index].clone())
    })
    .await;
    let names = Arc::new(Names(Mutex::default()));
    let server = TestServer::with_lookup(FakeModel::saying("t"), names, |settings| {
        settings.fetch.allowed_sources = vec![format!("pictures.test:{}", origin.port())];
    })
    .await;
    for (index, target) in targets.iter().enumerate() {
        let url = format!("http://pictures.test:{}/go{index}", origin.port());
        assert_not_downloaded(&caption(&server, &url).await, &url);
        assert_eq!(origin.connections(), index + 1, "{target}");
    }
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn five_redirects_are_followed_and_six_are_not() {
    let origin = Origin::start(|path| {
        let left: usize = path.trim_start_matches("/hop").parse().unwrap();
        match left {
            0 => Serve::Body(png(2, 2)),
            _ => Serve::Redirect(format!("/hop{}", left - 1)),
        }
    })
    .await;
    let server = server(&["127.0.0.1"]).await;
    assert_eq!(caption(&server, &origin.url("/hop5")).await.status, 200);
    let six = origin.url("/hop6");
    assert_not_downloaded(&caption(&server, &six).await, &six);
}

/// Answers the first question about a name with one address and every further one with another.
struct Rebinding {
    asked: AtomicUsize,
    answers: Vec<&'static str>,
}

impl NameLookup for Rebinding {
    fn lookup(&self, _: &str) -> LookedUp {
        let asked = self.asked.fetch_add(1, Ordering::SeqCst);
        let answer = self.answers[asked.min(self.answers.len() - 1)];
        let address: IpAddr = answer.parse().unwrap();
        Box::pin(async move { Ok(vec![address]) })
    }
}

#[tokio::test]
async fn a_name_that_changes_its_address_between_check_and_use_gains_nothing() {
    let canary = Origin::canary().await;
    let lookup = Arc::new(Rebinding {
        asked: AtomicUsize::new(0),
        answers: vec!["127.0.0.9", "127.0.0.1"],
    });
    let server = TestServer::with_lookup(FakeModel::saying("t"), lookup.clone(), |settings| {
        settings.fetch.allowed_sources = vec!["127.0.0.8/30".into()];
    })
    .await;
    let url = format!("http://rebind.test:{}/", canary.port());
    for _ in 0..3 {
        assert_not_downloaded(&caption(&server, &url).await, &url);
    }
    assert_eq!(lookup.asked.load(Ordering::SeqCst), 3);
    assert_eq!(canary.connections(), 0);
}

/// A fixed table of names, and those that were asked for.
#[derive(Default)]
pub(crate) struct Names(pub(crate) Mutex<Vec<String>>);

impl NameLookup for Names {
    fn lookup(&self, name: &str) -> LookedUp {
        self.0.lock().unwrap().push(name.to_owned());
        let found: Vec<IpAddr> = match name {
            "pictures.test" | "a.cdn.test" => vec!["127.0.0.1".parse().unwrap()],
            "metadata.cdn.test" => vec!["169.254.169.254".parse().unwrap()],
            "mixed.cdn.test" => vec![
                "169.254.169.254".parse().unwrap(),
                "127.0.0.1".parse().unwrap(),
            ],
            _ => Vec::new(),
        };
        Box::pin(async move {
            if found.is_empty() {
                return Err(io::Error::other("no such name"));
            }
            Ok(found)
        })
    }
}

#[tokio::test]
async fn names_are_allowed_by_rule_and_their_addresses_are_filtered() {
    let origin = Origin::start(|_| Serve::Body(png(2, 2))).await;
    let names = Arc::new(Names(Mutex::default()));
    let server = TestServer::with_lookup(FakeModel::saying("t"), names.clone(), |settings| {
        let port = origin.port();
        settings.fetch.allowed_sources = vec![
            format!("pictures.test:{port}"),
            format!("*.cdn.test:{port}"),
        ];
    })
    .await;
    let port = origin.port();
    for (host, fetched) in [
        ("pictures.test", true),
        ("PICTURES.test", true),
        ("a.cdn.test", true),
        ("mixed.cdn.test", true),
        ("metadata.cdn.test", false),
        ("unknown.cdn.test", false),
        ("cdn.test", false),
        ("other.test", false),
        ("127.0.0.1", false),
    ] {
        let url = format!("http://{host}:{port}/");
        let answer = caption(&server, &url).await;
        if fetched {
            assert_eq!(answer.status, 200, "{url}: {answer:?}");
        } else {
            assert_not_downloaded(&answer, &url);
        }
    }
    assert_eq!(origin.connections(), 4);
    let asked = names.0.lock().unwrap().clone();
    assert!(
        !asked.contains(&"other.test".to_owned()),
        "a refused name was looked up"
    );
}

#[tokio::test]
async fn an_origins_every_failure_looks_the_same() {
    let origin = Origin::start(|path| match path {
        "/404" => Serve::Raw(b"HTTP/1.1 404 Not Found\r\ncontent-length: 3\r\n\r\nno!".to_vec()),
        "/500" => Serve::Raw(b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n".to_vec()),
        "/304" => Serve::Raw(b"HTTP/1.1 304 Not Modified\r\n\r\n".to_vec()),
        "/cut" => Serve::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nshort".to_vec()),
        "/garbage" => Serve::Raw(b"\x16\x03\x01 not http".to_vec()),
        "/chunks" => {
            Serve::Raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n".to_vec())
        }
        _ => Serve::Raw(Vec::new()),
    })
    .await;
    let server = server(&["127.0.0.1"]).await;
    for path in [
        "/404", "/500", "/304", "/cut", "/garbage", "/chunks", "/closed",
    ] {
        let url = origin.url(path);
        assert_not_downloaded(&caption(&server, &url).await, &url);
    }
    let nobody = "http://127.0.0.1:1/x.png";
    assert_not_downloaded(&caption(&server, nobody).await, nobody);
}

#[tokio::test]
async fn one_deadline_covers_all_hops_and_the_last_byte() {
    let origin = Origin::start(|path| match path {
        "/hang" => Serve::Hang(Vec::new()),
        "/body" => Serve::Hang(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nsome".to_vec()),
        _ => Serve::Redirect("/hang".into()),
    })
    .await;
    let deadline = Duration::from_millis(300);
    let server = server_with(&["127.0.0.1"], |settings| {
        settings.fetch.fetch_timeout = deadline;
    })
    .await;
    for path in ["/hang", "/body", "/redirect"] {
        let begun = Instant::now();
        let url = origin.url(path);
        assert_not_downloaded(&caption(&server, &url).await, &url);
        let took = begun.elapsed();
        assert!(
            took >= deadline && took < 30 * deadline,
            "{path} took {took:?}"
        );
    }
    origin.wait_until_left().await;
}

#[tokio::test]
async fn bytes_are_counted_as_they_come_whatever_was_announced() {
    let limit = 2000;
    let origin = Origin::start(move |path| match path {
        "/at" => {
            let mut file = png(2, 2);
            file.resize(limit, 0);
            Serve::Body(file)
        }
        "/past" => Serve::Body(vec![0; limit + 1]),
        "/announced" => {
            Serve::Hang(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n".to_vec())
        }
        _ => Serve::Endless,
    })
    .await;
    let server = server_with(&["127.0.0.1"], |settings| {
        settings.fetch.max_picture_bytes = limit;
    })
    .await;
    assert_eq!(caption(&server, &origin.url("/at")).await.status, 200);
    for path in ["/past", "/announced", "/endless"] {
        let answer = caption(&server, &origin.url(path)).await;
        assert_eq!(answer.status, 422);
        assert_eq!(answer.fault_type(), "file_too_large", "{path}");
        assert_eq!(
            answer.json()["detail"][0]["ctx"],
            json!({"max_size": limit})
        );
    }
    origin.wait_until_left().await;
}

#[tokio::test]
async fn a_caller_who_hangs_up_ends_the_download() {
    let origin = Origin::start(|_| Serve::Hang(Vec::new())).await;
    let server = server(&["127.0.0.1"]).await;
    let body = json!({ "image_url": origin.url("/") });
    let request = server.client.post(server.url("caption")).json(&body);
    let call = tokio::spawn(request.send());
    while origin.requests().is_empty() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    call.abort();
    origin.wait_until_left().await;
}
