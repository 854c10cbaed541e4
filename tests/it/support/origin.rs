//! A picture origin on loopback that behaves as badly as a test wants, and counts who connects.
//!
//! A *canary* is an origin that must stay silent: nobody may ever connect to it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What the origin does with a request.
pub(crate) enum Serve {
    /// A 200 with this body.
    Body(Vec<u8>),
    /// A redirect.
    Redirect(String),
    /// These bytes, then the end of the connection.
    Raw(Vec<u8>),
    /// These bytes, then nothing, but the connection stays open.
    Hang(Vec<u8>),
    /// A 200 that sends zeros until the other side has enough.
    Endless,
}

/// See the module's header.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Origin {
    /// Starts an origin; `route` is given the request's target.
    pub(crate) async fn start(route: impl Fn(&str) -> Serve + Send + Sync + 'static) -> Self {
        Self::start_on("127.0.0.1", route).await
    }

    /// Starts an origin on a host of its own, such as 127.0.0.2.
    pub(crate) async fn start_on(
        host: &str,
        route: impl Fn(&str) -> Serve + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((host, 0)).await.unwrap();
        let origin = Self {
            address: listener.local_addr().unwrap(),
            connections: Arc::default(),
            open: Arc::default(),
            requests: Arc::default(),
        };
        let (connections, open) = (Arc::clone(&origin.connections), Arc::clone(&origin.open));
        let requests = Arc::clone(&origin.requests);
        let route = Arc::new(route);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.fetch_add(1, Ordering::SeqCst);
                open.fetch_add(1, Ordering::SeqCst);
                let (route, requests) = (Arc::clone(&route), Arc::clone(&requests));
                let open = Arc::clone(&open);
                tokio::spawn(async move {
                    answer(stream, &*route, &requests).await;
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        origin
    }

    /// An origin to which nobody may connect.
    pub(crate) async fn canary() -> Self {
        Self::start(|_| Serve::Body(super::pictures::png(1, 1))).await
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Heads of the requests so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// Waits until no connection is open any more.
    pub(crate) async fn wait_until_left(&self) {
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while self.open.load(Ordering::SeqCst) > 0 {
            assert!(
                std::time::Instant::now() < deadline,
                "the connection stays open"
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

async fn answer(
    mut stream: TcpStream,
    route: &(impl Fn(&str) -> Serve + ?Sized),
    requests: &Mutex<Vec<String>>,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let target = head.split(' ').nth(1).unwrap().to_owned();
    requests.lock().unwrap().push(head);
    // The other side may leave at any time; that is what some tests are about.
    let _ = match route(&target) {
        Serve::Body(body) => {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all(&[head.as_bytes(), &body].concat()).await
        }
        Serve::Redirect(target) => {
            let head =
                format!("HTTP/1.1 302 Found\r\nlocation: {target}\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(head.as_bytes()).await
        }
        Serve::Raw(bytes) => stream.write_all(&bytes).await,
        Serve::Hang(bytes) => {
            let _ = stream.write_all(&bytes).await;
            // Returns when the other side closes.
            stream.read_u8().await.map(|_| ())
        }
        Serve::Endless => {
            let head = "HTTP/1.1 200 OK\r\n\r\n";
            let mut result = stream.write_all(head.as_bytes()).await;
            while result.is_ok() {
                result = stream.write_all(&[0; 65_536]).await;
            }
            result
        }
    };
}
