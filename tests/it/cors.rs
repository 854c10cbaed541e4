//! Web pages: which may call, what their browsers are told, and that the others get nothing done.

use reqwest::Method;

use crate::support::fake_model::FakeModel;
use crate::support::pictures::input;
use crate::support::server::{Answer, TestServer, send};

const FOREIGN: &str = "https://evil.test";
const LOCAL: &str = "http://localhost:3000";

async fn server() -> TestServer {
    TestServer::start(FakeModel::saying("t")).await
}

async fn guarded() -> TestServer {
    TestServer::with(FakeModel::saying("t"), |settings| {
        settings.auth.api_keys = vec!["id:secret".into()];
    })
    .await
}

/// What a browser asks before it lets a page call.
async fn preflight(server: &TestServer, page: &str, method: &str, path: &str) -> Answer {
    let url = format!("{}{path}", server.base);
    let request = server.client.request(Method::OPTIONS, url);
    let request = request
        .header("origin", page)
        .header("access-control-request-method", method)
        .header(
            "access-control-request-headers",
            "authorization,content-type,x-fal-target-url,x-anything",
        );
    send(request).await
}

async fn call(server: &TestServer, page: &str) -> Answer {
    let request = server.client.post(server.url("caption")).json(&input());
    send(request.header("origin", page)).await
}

#[tokio::test]
async fn a_page_that_may_call_is_told_so_before_and_after() {
    let paths = [
        ("POST", "/fal-ai/florence-2-large/caption"),
        ("POST", "/queue/fal-ai/florence-2-large/caption"),
        ("GET", "/fal-ai/florence-2-large/requests/7/status"),
        ("PUT", "/fal-ai/florence-2-large/requests/7/cancel"),
        ("POST", "/api/fal/proxy"),
        ("POST", "/rest/storage/upload/initiate"),
        ("PUT", "/files/upload"),
    ];
    for (server, page, permitted) in [
        (server().await, LOCAL, LOCAL),
        // Asked without the key, which the page adds only afterwards.
        (guarded().await, FOREIGN, "*"),
    ] {
        for (method, path) in paths {
            let answer = preflight(&server, page, method, path).await;
            assert_eq!((answer.status, answer.text.as_str()), (204, ""), "{path}");
            assert_eq!(answer.header("access-control-allow-origin"), permitted);
            let methods = answer.header("access-control-allow-methods");
            assert!(methods.split(", ").any(|it| it == method), "{methods}");
            assert_eq!(
                answer.header("access-control-allow-headers"),
                "authorization,content-type,x-fal-target-url,x-anything"
            );
            assert_eq!(answer.header("access-control-allow-credentials"), "");
            let vary = answer.header("vary");
            assert_eq!(vary == "Origin", permitted != "*", "{vary}");
        }
        let request = server.client.post(server.url("caption")).json(&input());
        let request = request.header("authorization", "Key id:secret");
        let answer = send(request.header("origin", page)).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("access-control-allow-origin"), permitted);
        let exposed = answer.header("access-control-expose-headers");
        for name in [
            "x-fal-request-id",
            "x-fal-request-timeout-type",
            "x-fal-billable-units",
            "x-fal-error-type",
        ] {
            assert!(exposed.split(", ").any(|it| it == name), "{exposed}");
        }
    }
}

#[tokio::test]
async fn errors_are_readable_for_the_page_too() {
    let server = guarded().await;
    let answer = call(&server, FOREIGN).await;
    assert_eq!(answer.status, 401);
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    let request = server.client.get(format!("{}/nothing", server.base));
    let answer = send(request.header("origin", FOREIGN)).await;
    assert_eq!(
        (answer.status, answer.header("access-control-allow-origin")),
        (404, "*")
    );
}

#[tokio::test]
async fn without_keys_a_foreign_page_gets_nothing_done() {
    let (model, remote) = FakeModel::slow("t");
    let server = TestServer::start(model).await;
    let id = server.submit("caption", &input()).await;
    remote.wait_for_start().await;
    for page in [FOREIGN, "null", "http://localhost.evil.test"] {
        let refused = preflight(&server, page, "POST", "/fal-ai/florence-2-large/caption").await;
        assert_eq!(
            (
                refused.status,
                refused.header("access-control-allow-origin")
            ),
            (403, "")
        );
        // A browser sends some calls without asking first.
        for url in [
            server.url("caption"),
            server.queue_url("caption"),
            format!("{}/api/fal/proxy", server.base),
        ] {
            let request = server.client.post(url).body(input().to_string());
            let answer = send(request.header("origin", page)).await;
            assert_eq!(answer.status, 403, "{page}");
            assert_eq!(
                answer.text,
                r#"{"detail":"Web pages of this origin may not call this server."}"#
            );
            assert_eq!(answer.header("access-control-allow-origin"), "");
        }
        let cancel = server.client.put(server.job_url(&id, "/cancel"));
        assert_eq!(send(cancel.header("origin", page)).await.status, 403);
        // Reading is answered, and the browser keeps the answer to itself.
        let read = server.client.get(server.job_url(&id, "/status"));
        let answer = send(read.header("origin", page)).await;
        assert_eq!(
            (answer.status, answer.header("access-control-allow-origin")),
            (202, "")
        );
    }
    remote.go();
    assert_eq!(server.wait_for_result(&id).await.status, 200);
    assert_eq!(
        remote.try_started(),
        None,
        "a foreign page reached the model"
    );
}

#[tokio::test]
async fn a_page_at_the_address_that_is_called_may_call_unless_it_is_a_name() {
    let server = server().await;
    // A test client reaches loopback alone, so the pages of other machines are in the unit tests.
    assert_eq!(call(&server, &server.base).await.status, 200);
    let request = server.client.post(server.url("caption")).json(&input());
    let request = request.header("host", "rebound.test:8000");
    let answer = send(request.header("origin", "http://rebound.test:8000")).await;
    assert_eq!(answer.status, 403);
}

#[tokio::test]
async fn listed_pages_may_call_and_others_may_not_even_with_keys() {
    let server = TestServer::with(FakeModel::saying("t"), |settings| {
        settings.auth.api_keys = vec!["id:secret".into()];
        settings.face.cors_origins = vec!["https://app.test".into()];
    })
    .await;
    assert_eq!(call(&server, "https://app.test").await.status, 401);
    assert_eq!(call(&server, FOREIGN).await.status, 403);
    let open = TestServer::with(FakeModel::saying("t"), |settings| {
        settings.face.cors_origins = vec!["*".into()];
    })
    .await;
    let answer = call(&open, FOREIGN).await;
    assert_eq!(
        (answer.status, answer.header("access-control-allow-origin")),
        (200, "*")
    );
}
