//! A webhook receiver on loopback that answers as a test wants and remembers what it was told.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::jobs::PATIENCE;

/// What was told.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Told {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap().to_str().unwrap()
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// See the module's header.
pub(crate) struct Receiver {
    port: u16,
    told: Arc<watch::Sender<Vec<Told>>>,
}

impl Receiver {
    /// Starts a receiver; `answer` is given the number of calls before this one, and none means that
    /// there is never an answer.
    pub(crate) async fn start(
        answer: impl Fn(usize, &str) -> Option<Response> + Send + Sync + 'static,
    ) -> Self {
        let told = Arc::new(watch::Sender::new(Vec::new()));
        let remember = Arc::clone(&told);
        let answer = Arc::new(answer);
        let handler = move |uri: Uri, headers: HeaderMap, body: Bytes| {
            let (remember, answer) = (Arc::clone(&remember), Arc::clone(&answer));
            async move {
                let path = uri.path().to_owned();
                let earlier = remember.borrow().len();
                let reply = answer(earlier, &path);
                remember.send_modify(|told: &mut Vec<Told>| {
                    told.push(Told {
                        path,
                        headers,
                        body,
                    });
                });
                match reply {
                    Some(reply) => reply,
                    None => std::future::pending().await,
                }
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = Router::new().fallback(handler);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { port, told }
    }

    /// A receiver that thanks for everything.
    pub(crate) async fn grateful() -> Self {
        Self::start(|_, _| Some("thanks".into_response())).await
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Everything that was told so far, once it is this much.
    pub(crate) async fn told(&self, times: usize) -> Vec<Told> {
        let mut told = self.told.subscribe();
        let enough = told.wait_for(|told| told.len() >= times);
        let enough = tokio::time::timeout(PATIENCE, enough).await;
        enough.expect("the webhook arrives").unwrap().clone()
    }
}
