//! Whoever asked to be told is told, and can check with the published keys who is speaking.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::fake_model::FakeModel;
use crate::support::pictures::input;
use crate::support::server::{TestServer, send};

/// A request as it arrived.
struct Received {
    head: String,
    body: Vec<u8>,
}

impl Received {
    fn header(&self, name: &str) -> &str {
        let lines = self.head.lines();
        let mut values = lines.filter_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        });
        values
            .next()
            .unwrap_or_else(|| panic!("no {name} in {}", self.head))
    }
}

/// Takes one request and answers it well.
async fn receive(listener: &TcpListener) -> Received {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let mut received = Received {
        head: String::from_utf8(head).unwrap(),
        body: Vec::new(),
    };
    let length = received.header("content-length").parse().unwrap();
    received.body.resize(length, 0);
    stream.read_exact(&mut received.body).await.unwrap();
    let answer = b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n";
    stream.write_all(answer).await.unwrap();
    received
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = (0..text.len()).step_by(2);
    digits
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

/// Checks a signature as receivers do: any key of the set may fit.
fn is_genuine(keys: &Value, received: &Received) -> bool {
    let hash = digest(&SHA256, &received.body);
    let hash = hash
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>();
    let message = [
        received.header("x-fal-webhook-request-id"),
        received.header("x-fal-webhook-user-id"),
        received.header("x-fal-webhook-timestamp"),
        &hash,
    ]
    .join("\n");
    let signature = unhex(received.header("x-fal-webhook-signature"));
    keys["keys"].as_array().unwrap().iter().any(|key| {
        assert_eq!(
            (&key["kty"], &key["crv"]),
            (&json!("OKP"), &json!("Ed25519"))
        );
        let x = URL_SAFE_NO_PAD.decode(key["x"].as_str().unwrap()).unwrap();
        let key = UnparsedPublicKey::new(&ED25519, x);
        key.verify(message.as_bytes(), &signature).is_ok()
    })
}

#[tokio::test]
async fn a_receiver_is_told_of_good_and_bad_ends_and_can_check_who_speaks() {
    let server = TestServer::with(FakeModel::saying("t"), |settings| {
        settings.queue.allowed_webhooks = vec!["127.0.0.1".into()];
        settings.auth.api_keys = vec!["id:secret".into()];
    })
    .await;
    // Receivers hold no key.
    let keys = server.get("/.well-known/jwks.json").await;
    assert_eq!(keys.status, 200);
    assert_eq!(
        server.get("/rest/.well-known/jwks.json").await.text,
        keys.text
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let webhook = format!("?fal_webhook=http%3A%2F%2F{address}%2Fhook%3Fa%3Db");
    for (body, status, payload) in [
        (input(), "OK", json!({"results": "t"})),
        (json!([]), "ERROR", json!({"detail": "see below"})),
    ] {
        let url = format!("{}{webhook}", server.queue_url("caption"));
        let request = server.client.post(url).json(&body);
        let submitted = send(request.header("authorization", "Key id:secret"))
            .await
            .json();
        let id = &submitted["request_id"];
        assert_eq!(&submitted["gateway_request_id"], id);
        let received = receive(&listener).await;
        assert!(
            received.head.starts_with("POST /hook?a=b HTTP/1.1\r\n"),
            "{}",
            received.head
        );
        let news: Value = serde_json::from_slice(&received.body).unwrap();
        assert_eq!((&news["request_id"], &news["status"]), (id, &json!(status)));
        if status == "OK" {
            assert_eq!(news["payload"], payload);
        } else {
            assert_eq!(
                news["payload"]["detail"][0]["type"],
                "model_attributes_type"
            );
            assert_eq!(news["error"], "Invalid status code: 422");
        }
        assert_eq!(
            received.header("x-fal-webhook-request-id"),
            id.as_str().unwrap()
        );
        assert!(is_genuine(&keys.json(), &received));
        let forged = Received {
            head: received.head.clone(),
            body: [received.body.as_slice(), b" "].concat(),
        };
        assert!(!is_genuine(&keys.json(), &forged));
    }
}
