//! The other end of what a server calls by itself: takes webhooks, and has a picture that never ends.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::{get, post};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::sync::mpsc::{Receiver as Calls, Sender, channel};

use super::install::Python;
use super::{driver, feed};

/// Longest wait for a webhook.
const PATIENCE: Duration = Duration::from_secs(30);

/// See the module's header.
pub(super) struct Receiver {
    address: SocketAddr,
    calls: Mutex<Calls<Call>>,
}

/// A webhook that came.
pub(super) struct Call {
    headers: HashMap<String, String>,
    pub(super) body: Vec<u8>,
}

impl Receiver {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, calls) = channel(8);
        let routes = Router::new()
            .route("/webhook", post(take))
            .route("/endless.png", get(endless))
            .with_state(Arc::new(sender));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        let calls = Mutex::new(calls);
        Self { address, calls }
    }

    /// Where webhooks are taken.
    pub(super) fn webhook(&self) -> String {
        format!("http://{}/webhook", self.address)
    }

    /// A picture of which only the beginning ever comes.
    pub(super) fn endless(&self) -> String {
        format!("http://{}/endless.png", self.address)
    }

    /// The next webhook.
    pub(super) async fn called(&self) -> Call {
        let mut calls = self.calls.lock().await;
        let call = tokio::time::timeout(PATIENCE, calls.recv()).await;
        call.expect("a webhook comes").unwrap()
    }
}

async fn take(State(calls): State<Arc<Sender<Call>>>, headers: HeaderMap, body: Bytes) {
    let pair = |(name, value): (&axum::http::HeaderName, &axum::http::HeaderValue)| {
        (name.to_string(), value.to_str().unwrap().to_owned())
    };
    let call = Call {
        headers: headers.iter().map(pair).collect(),
        body: body.to_vec(),
    };
    calls.send(call).await.unwrap();
}

async fn endless() -> Body {
    let beginning = futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(
        b"\x89PNG\r\n\x1a\n",
    ))]);
    Body::from_stream(futures_util::StreamExt::chain(
        beginning,
        futures_util::stream::pending(),
    ))
}

impl Call {
    /// Checks the signature against a key set, in another language and with another library.
    pub(super) async fn verify(&self, keys: &Value) {
        let python = Python::installed(None).await;
        let hex: String = self.body.iter().map(|byte| format!("{byte:02x}")).collect();
        let genuine = json!({"headers": self.headers, "body": hex, "keys": keys});
        let check = async |call: &Value| {
            let mut command = python.command();
            command.arg(driver("verify_webhook.py"));
            feed(command, call).await
        };
        let output = check(&genuine).await;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        // And the check is one: a body with one more byte does not pass.
        let forged = json!({"headers": self.headers, "body": format!("{hex}20"), "keys": keys});
        let output = check(&forged).await;
        assert!(!output.status.success(), "a forged webhook passed");
    }
}
