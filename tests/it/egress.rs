//! What a URL may carry, which ports are open, and which answers are taken for pictures. The hosts
//! that are contacted at all are the subject of `ssrf`.

use std::sync::Arc;

use crate::ssrf::{Names, assert_not_downloaded, caption, server};
use crate::support::fake_model::FakeModel;
use crate::support::origin::{Origin, Serve};
use crate::support::pictures::png;
use crate::support::server::TestServer;

/// A server that may ask these, in whose world a few names lead to loopback.
async fn server_with_names(allowed: Vec<String>) -> (TestServer, Arc<Names>) {
    let names = Arc::new(Names::default());
    let lookup = Arc::clone(&names);
    let server = TestServer::with_lookup(FakeModel::saying("t"), lookup, |settings| {
        settings.fetch.allowed_sources = allowed;
    })
    .await;
    (server, names)
}

#[tokio::test]
async fn a_url_with_a_user_or_password_is_refused() {
    let canary = Origin::canary().await;
    let server = server(&["127.0.0.1"]).await;
    for user in ["user", "user:password", ":password", "%20", "a%40b:c"] {
        let url = format!("http://{user}@127.0.0.1:{}/", canary.port());
        assert_not_downloaded(&caption(&server, &url).await, &url);
    }
    assert_eq!(canary.connections(), 0);
    // Nothing before the sign is nobody.
    let nobody = format!("http://@127.0.0.1:{}/", canary.port());
    assert_eq!(caption(&server, &nobody).await.status, 200);
    assert!(
        !canary.requests()[0]
            .to_lowercase()
            .contains("authorization")
    );
}

#[tokio::test]
async fn a_redirect_with_a_user_or_password_is_refused() {
    let canary = Origin::canary().await;
    let port = canary.port();
    let origin = Origin::start(move |path| {
        Serve::Redirect(format!("http://{}@127.0.0.1:{port}/", &path[1..]))
    })
    .await;
    let server = server(&["127.0.0.1"]).await;
    for user in ["user", "user:password", ":password"] {
        let url = origin.url(&format!("/{user}"));
        assert_not_downloaded(&caption(&server, &url).await, &url);
    }
    assert_eq!((origin.connections(), canary.connections()), (3, 0));
}

#[tokio::test]
async fn a_name_opens_no_port_beside_the_web_and_its_own() {
    let canary = Origin::canary().await;
    let origin = Origin::start(|_| Serve::Body(png(2, 2))).await;
    let (closed, open) = (canary.port(), origin.port());
    let allowed = vec![
        "pictures.test".into(),
        format!("*.cdn.test:{open}"),
        "public".into(),
        format!("public:{open}"),
    ];
    let (server, names) = server_with_names(allowed).await;
    for host in [
        "pictures.test",
        "a.cdn.test",
        "pictures.test.",
        "other.test",
    ] {
        let url = format!("http://{host}:{closed}/");
        assert_not_downloaded(&caption(&server, &url).await, &url);
    }
    // Where a port is not open, not even a name is looked up.
    assert!(names.0.lock().unwrap().is_empty());
    // This one's port is open to public machines, and it leads to none.
    let url = format!("http://pictures.test:{open}/");
    assert_not_downloaded(&caption(&server, &url).await, &url);
    let url = format!("http://a.cdn.test:{open}/");
    assert_eq!(caption(&server, &url).await.status, 200);
    assert_eq!((origin.connections(), canary.connections()), (1, 0));
}

#[tokio::test]
async fn a_redirect_to_a_port_that_is_not_open_is_refused() {
    let canary = Origin::canary().await;
    let target = format!("http://pictures.test:{}/", canary.port());
    let origin = Origin::start(move |_| Serve::Redirect(target.clone())).await;
    let port = origin.port();
    let (server, _) = server_with_names(vec![format!("pictures.test:{port}")]).await;
    let url = format!("http://pictures.test:{port}/");
    assert_not_downloaded(&caption(&server, &url).await, &url);
    assert_eq!((origin.connections(), canary.connections()), (1, 0));
}

#[tokio::test]
async fn a_listed_network_keeps_all_its_ports() {
    let origin = Origin::start(|_| Serve::Body(png(2, 2))).await;
    let (server, _) = server_with_names(vec!["127.0.0.0/8".into(), "public".into()]).await;
    for host in ["127.0.0.1", "pictures.test", "[::ffff:127.0.0.1]"] {
        let url = format!("http://{host}:{}/", origin.port());
        assert_eq!(caption(&server, &url).await.status, 200, "{url}");
    }
}

/// An answer with this status line and these headers, and a good picture after them.
fn answer(head: &str) -> Serve {
    let picture = png(2, 2);
    let head = format!(
        "HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n",
        picture.len()
    );
    Serve::Raw([head.as_bytes(), &picture].concat())
}

#[tokio::test]
async fn only_a_whole_plain_answer_is_a_picture() {
    let refused = [
        "201 Created",
        "202 Accepted",
        "203 Non-Authoritative Information",
        "206 Partial Content",
        "206 Partial Content\r\ncontent-range: bytes 0-99/100",
        "207 Multi-Status",
        "226 IM Used",
        "299 Whatever",
        "200 OK\r\ncontent-encoding: br",
        "200 OK\r\ncontent-encoding: gzip",
        "200 OK\r\ncontent-encoding: identity, br",
        "200 OK\r\ncontent-encoding: identity\r\ncontent-encoding: gzip",
        "200 OK\r\ncontent-encoding: aes128gcm",
        "200 OK\r\ncontent-encoding: \u{a0}",
    ];
    let taken = [
        "200 OK",
        "200 Fine\r\ncontent-encoding: identity",
        "200 OK\r\nContent-Encoding:  Identity ",
        "200 OK\r\ncontent-type: text/html\r\nx-other: 1",
    ];
    let heads = [&refused[..], &taken[..]].concat();
    let origin =
        Origin::start(move |path| answer(heads[path[1..].parse::<usize>().unwrap()])).await;
    let server = server(&["127.0.0.1"]).await;
    for index in 0..refused.len() + taken.len() {
        let url = origin.url(&format!("/{index}"));
        let answer = caption(&server, &url).await;
        if index < refused.len() {
            assert_not_downloaded(&answer, &url);
        } else {
            assert_eq!(answer.status, 200, "{index}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn an_encoded_transfer_is_refused_and_a_chunked_one_taken() {
    let origin = Origin::start(|path| {
        let picture = png(2, 2);
        let coding = if path == "/chunked" {
            "Chunked"
        } else {
            "gzip, chunked"
        };
        let head = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: {coding}\r\n\r\n");
        let size = format!("{:x}\r\n", picture.len());
        let end = b"\r\n0\r\n\r\n";
        Serve::Raw([head.as_bytes(), size.as_bytes(), &picture, end].concat())
    })
    .await;
    let server = server(&["127.0.0.1"]).await;
    assert_eq!(caption(&server, &origin.url("/chunked")).await.status, 200);
    let url = origin.url("/gzip");
    assert_not_downloaded(&caption(&server, &url).await, &url);
}

#[tokio::test]
async fn only_redirects_that_name_one_short_target_are_followed() {
    let canary = Origin::canary().await;
    let target = canary.url("/");
    let long = |length: usize| format!("{target}{}", "x".repeat(length - target.len()));
    let location = |status: u16, targets: &[&str]| {
        let lines = targets
            .iter()
            .map(|target| format!("location: {target}\r\n"));
        let lines: String = lines.collect();
        format!("HTTP/1.1 {status} Moved\r\n{lines}content-length: 0\r\n\r\n").into_bytes()
    };
    let (at_limit, past_limit) = (long(8192), long(8193));
    let past_limit_resolved = format!("/{}", "x".repeat(8191));
    let refused = [
        location(300, &[&target]),
        location(304, &[&target]),
        location(305, &[&target]),
        location(306, &[&target]),
        location(399, &[&target]),
        location(302, &[]),
        location(302, &[&target, &target]),
        location(302, &[&past_limit]),
        location(302, &[&past_limit_resolved]),
    ];
    let followed = [
        location(301, &[&target]),
        location(302, &[&target]),
        location(303, &[&target]),
        location(307, &[&target]),
        location(308, &[&at_limit]),
    ];
    let answers = [&refused[..], &followed[..]].concat();
    let origin = Origin::start(move |path| match path[1..].parse::<usize>() {
        Ok(index) => Serve::Raw(answers[index].clone()),
        Err(_) => Serve::Body(png(2, 2)),
    })
    .await;
    let server = server(&["127.0.0.1"]).await;
    for index in 0..refused.len() {
        let url = origin.url(&format!("/{index}"));
        assert_not_downloaded(&caption(&server, &url).await, &url);
    }
    assert_eq!(canary.connections(), 0);
    for index in refused.len()..refused.len() + followed.len() {
        let url = origin.url(&format!("/{index}"));
        assert_eq!(caption(&server, &url).await.status, 200, "{index}");
    }
    assert_eq!(canary.connections(), followed.len());
}
