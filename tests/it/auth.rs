//! Keys: every model route asks for one before it reads anything.

use florence2_server::fal::endpoint::ENDPOINTS;
use serde_json::json;

use crate::support::fake_model::FakeModel;
use crate::support::pictures::input;
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
        for prefix in ["", "/run"] {
            let path = format!("{prefix}/fal-ai/florence-2-large/{name}");
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
async fn health_and_metrics_need_no_key() {
    let server = server().await;
    for path in ["/health/live", "/health/ready", "/metrics"] {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }
}
