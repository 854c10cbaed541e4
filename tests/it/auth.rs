//! Keys: every model route asks for one before it reads anything.

use florence2_server::fal::endpoint::ENDPOINTS;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::fake_model::FakeModel;
use crate::support::pictures::input;
use crate::support::queue_client::submit;
use crate::support::raw::Raw;
use crate::support::server::{TestServer, send};

async fn server() -> TestServer {
    TestServer::with(FakeModel::saying("t"), |settings| {
        settings.auth.api_keys = vec!["id:secret".into(), "second".into()];
    })
    .await
}

const NO_CREDENTIALS: &str = r#"{"detail":"Cannot access application \"fal-ai/florence-2-large\". Authentication is required to access this application."}"#;

#[tokio::test]
async fn no_model_route_answers_without_a_key() {
    let server = server().await;
    let names = ENDPOINTS.iter().map(|endpoint| endpoint.name);
    for name in names.chain([""]) {
        for (prefix, tail) in [("", ""), ("/run", ""), ("/run", "/stream"), ("/queue", "")] {
            if name.is_empty() && !tail.is_empty() {
                continue;
            }
            let path = format!("{prefix}/fal-ai/florence-2-large/{name}{tail}");
            let request = server.client.post(format!("{}{path}", server.base));
            let answer = send(request.json(&input())).await;
            assert_eq!(answer.status, 401, "{path}");
            assert_eq!(answer.text, NO_CREDENTIALS);
            assert_eq!(answer.header("www-authenticate"), "Key");
        }
    }
}

#[tokio::test]
async fn credentials_get_the_answers_of_the_live_service() {
    let server = server().await;
    let unknown = json!({"detail": "No user found for Key ID and Secret"});
    let malformed = json!({"detail": "Invalid Key Authorization header format. Expected '<key_id>:<key_secret>'."});
    for (header, status, body) in [
        ("Key id:secret", 200, json!({"results": "t"})),
        ("Key second", 200, json!({"results": "t"})),
        ("Bearer id:secret", 200, json!({"results": "t"})),
        ("Key id:wrong", 401, unknown.clone()),
        ("Key id:secret ignored", 401, unknown),
        ("Key wrong", 401, malformed),
    ] {
        let request = server.client.post(server.url("caption")).json(&input());
        let answer = send(request.header("authorization", header)).await;
        assert_eq!((answer.status, answer.json()), (status, body), "{header}");
    }
}

#[tokio::test]
async fn the_key_is_checked_before_any_byte_of_the_body_comes() {
    let server = server().await;
    let mut raw = Raw::connect(server.address).await;
    raw.send("POST /fal-ai/florence-2-large/caption HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n")
        .await;
    let answer = raw.read_answer().await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    assert!(answer.ends_with(NO_CREDENTIALS), "{answer}");
}

#[tokio::test]
async fn health_needs_no_key() {
    let server = server().await;
    for path in ["/health/live", "/health/ready", "/.well-known/jwks.json"] {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn metrics_need_a_key_where_keys_are_set_and_no_token_is_one() {
    let server = server().await;
    let ask = |authorization: &str| {
        let request = server.client.get(format!("{}/metrics", server.base));
        send(request.header("authorization", authorization))
    };
    let refused = server.get("/metrics").await;
    assert_eq!(
        (refused.status, refused.text.as_str()),
        (401, NO_CREDENTIALS)
    );
    assert_eq!(ask("Key id:wrong").await.status, 401);
    let metrics = ask("Bearer id:secret").await;
    assert_eq!(metrics.status, 200);
    assert!(metrics.text.contains("florence2_ready 1"), "{metrics:?}");
    // A token is for pages that call the model.
    let body = json!({"allowed_apps": ["florence-2-large"]});
    let request = server.client.post(format!("{}/rest/tokens/", server.base));
    let request = request.header("authorization", "Key second").json(&body);
    let token = send(request).await.json().as_str().unwrap().to_owned();
    assert_eq!(ask(&format!("Bearer {token}")).await.status, 401);
    let in_query = format!("/metrics?fal_jwt_token={token}");
    assert_eq!(server.get(&in_query).await.status, 401);
}

#[tokio::test]
async fn metrics_can_be_opened_to_callers_without_a_key() {
    let server = TestServer::with(FakeModel::saying("t"), |settings| {
        settings.auth.api_keys = vec!["id:secret".into()];
        settings.auth.open_metrics = true;
    })
    .await;
    assert_eq!(server.get("/metrics").await.status, 200);
    let refused = server.call("caption", &input()).await;
    assert_eq!(refused.status, 401);
}

#[tokio::test]
async fn no_route_of_the_queue_answers_without_a_key_whatever_is_asked_for() {
    let server = server().await;
    let key = |request: reqwest::RequestBuilder| request.header("authorization", "Key id:secret");
    let request = server
        .client
        .post(server.queue_url("caption"))
        .json(&input());
    let known = submit(key(request)).await;
    for id in [known.as_str(), "00000000-0000-0000-0000-000000000000", "x"] {
        for (method, tail) in [
            (Method::GET, ""),
            (Method::GET, "/response"),
            (Method::GET, "/status"),
            (Method::GET, "/status/stream"),
            (Method::PUT, "/cancel"),
        ] {
            let url = server.job_url(id, tail);
            let answer = send(server.client.request(method, url)).await;
            assert_eq!(
                (answer.status, answer.text.as_str()),
                (401, NO_CREDENTIALS),
                "{id}{tail}"
            );
        }
    }
    let tokens = server.client.post(format!("{}/rest/tokens/", server.base));
    assert_eq!(send(tokens).await.status, 401);
    // The proxy is no way around.
    let target = "https://fal.run/fal-ai/florence-2-large/caption";
    let proxy = server.client.post(format!("{}/api/fal/proxy", server.base));
    let answer = send(proxy.header("x-fal-target-url", target).json(&input())).await;
    assert_eq!(answer.status, 401);
}

#[tokio::test]
async fn a_token_opens_what_a_key_opens_but_makes_no_further_token() {
    let server = server().await;
    let issue = |authorization: String, body: Value| {
        let request = server.client.post(format!("{}/rest/tokens/", server.base));
        send(request.header("authorization", authorization).json(&body))
    };
    let body = json!({"allowed_apps": ["florence-2-large"], "token_expiration": 120});
    let issued = issue("Key id:secret".into(), body.clone()).await;
    assert_eq!(issued.status, 200, "{issued:?}");
    let token = issued.json().as_str().unwrap().to_owned();

    let url = format!("{}?fal_jwt_token={token}", server.url("caption"));
    let in_query = send(server.client.post(url).json(&input())).await;
    assert_eq!(
        (in_query.status, in_query.json()),
        (200, json!({"results": "t"}))
    );
    let request = server
        .client
        .post(server.queue_url("caption"))
        .json(&input());
    let id = submit(request.bearer_auth(&token)).await;
    let url = server.job_url(&id, &format!("/status/stream?logs=1&fal_jwt_token={token}"));
    assert_eq!(send_unchecked(server.client.get(url)).await, 200);
    let target =
        format!("https://fal.run/fal-ai/florence-2-large/caption/stream?fal_jwt_token={token}");
    let proxy = server.client.post(format!("{}/api/fal/proxy", server.base));
    let answer = send(proxy.header("x-fal-target-url", target).json(&input())).await;
    assert_eq!(answer.status, 200);

    let renewed = issue(format!("Bearer {token}"), body).await;
    assert_eq!(renewed.status, 401);
    let url = format!("{}?fal_jwt_token={token}x", server.url("caption"));
    let forged = send(server.client.post(url).json(&input())).await;
    assert_eq!(
        forged.json(),
        json!({"detail": "No user found for Key ID and Secret"})
    );
}

#[tokio::test]
async fn tokens_are_for_this_application_alone() {
    let server = server().await;
    for (body, status, needle) in [
        (
            json!({"allowed_apps": ["fal-ai/florence-2-large"]}),
            200,
            "",
        ),
        (
            json!({"allowed_apps": ["fal-ai/florence-2-large/caption"]}),
            200,
            "",
        ),
        (
            json!({"allowed_apps": ["florence-2-large", "flux"]}),
            404,
            r#"Application \"flux\" not found"#,
        ),
        (
            json!({"allowed_apps": ["fal-ai/flux/dev"]}),
            404,
            r#"Application \"flux\" not found"#,
        ),
        (json!({"allowed_apps": []}), 422, "sequence_too_short"),
        (json!({}), 422, "missing"),
        (json!([]), 422, "model_attributes_type"),
    ] {
        let request = server.client.post(format!("{}/rest/tokens", server.base));
        let answer = send(request.header("authorization", "Key second").json(&body)).await;
        assert_eq!(answer.status, status, "{body}");
        assert!(answer.text.contains(needle), "{answer:?}");
    }
}

async fn send_unchecked(request: reqwest::RequestBuilder) -> u16 {
    request.send().await.unwrap().status().as_u16()
}
