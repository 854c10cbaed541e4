//! A server in this process on a port that the system chose, with a fake model in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use florence2_server::cli::serve::ServeSettings;
use florence2_server::engine::Engine;
use florence2_server::files::FileStore;
use florence2_server::image_io::PictureLoader;
use florence2_server::image_io::fetch::{NameLookup, SystemLookup};
use florence2_server::pipeline::Pipeline;
use florence2_server::queue::{Queue, Surroundings};
use florence2_server::server::{ModelSlot, Rooms, Server, ServerSettings, refusals};
use reqwest::header::HeaderMap;
use reqwest::{Client, RequestBuilder};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::fake_model::{FakeCodec, FakeModel, options};

/// A running server. Dropping it stops nothing; the test's runtime ends it.
pub(crate) struct TestServer {
    pub(crate) base: String,
    pub(crate) address: std::net::SocketAddr,
    /// The queue's own listener, if there is one.
    pub(crate) queue_address: Option<std::net::SocketAddr>,
    pub(crate) client: Client,
    pub(crate) slot: ModelSlot,
    pub(crate) files: FileStore,
    pub(crate) clock: TestClock,
    /// Vanishes with the server, unless the test brought a folder of its own.
    folder: TempDir,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

/// A clock that stands still until a test moves it.
#[derive(Clone)]
pub(crate) struct TestClock(Arc<AtomicU64>);

impl TestClock {
    /// Shows the real time.
    pub(crate) fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Self(Arc::new(AtomicU64::new(since.as_millis() as u64)))
    }

    pub(crate) fn advance(&self, by: Duration) {
        let ms = u64::try_from(by.as_millis()).unwrap();
        self.0.fetch_add(ms, Ordering::SeqCst);
    }

    /// As the file store takes it.
    pub(crate) fn reading(&self) -> florence2_server::files::Clock {
        let ms = Arc::clone(&self.0);
        Arc::new(move || ms.load(Ordering::SeqCst))
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), "application/json", "{self:?}");
        serde_json::from_str(&self.text).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }

    /// The type of the first entry of a model error.
    pub(crate) fn fault_type(&self) -> String {
        let body = self.json();
        let kind = body["detail"][0]["type"].as_str();
        kind.unwrap_or_else(|| panic!("no entry in {body}"))
            .to_owned()
    }
}

/// A client that uses no proxy and waits for no answer longer than a test should.
pub(crate) fn client() -> Client {
    Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(20))
        .build()
        .unwrap()
}

/// The same, trusting the certificates in PEM form and no others.
pub(crate) fn client_trusting(pem: &[u8]) -> Client {
    Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(20))
        .tls_certs_only(reqwest::Certificate::from_pem_bundle(pem).unwrap())
        .build()
        .unwrap()
}

/// The pipeline of a fake model.
pub(crate) fn pipeline(
    settings: &ServeSettings,
    model: FakeModel,
    lookup: Arc<dyn NameLookup>,
    files: &FileStore,
) -> Pipeline {
    let pictures = PictureLoader::with_lookup(&settings.fetch, settings.decode, lookup).unwrap();
    let pictures = pictures.with_own_files(Arc::new(files.clone()));
    let engine = Engine::start(Box::new(model), settings.engine.max_waiting).unwrap();
    Pipeline::new(pictures, Arc::new(FakeCodec), engine, options()).with_settings(settings.pipeline)
}

impl TestServer {
    /// A server with default settings.
    pub(crate) async fn start(model: FakeModel) -> Self {
        Self::with(model, |_| {}).await
    }

    /// A server with changed settings.
    pub(crate) async fn with(model: FakeModel, change: impl FnOnce(&mut ServeSettings)) -> Self {
        Self::with_lookup(model, Arc::new(SystemLookup), change).await
    }

    /// A server with changed settings and its own name lookup.
    pub(crate) async fn with_lookup(
        model: FakeModel,
        lookup: Arc<dyn NameLookup>,
        change: impl FnOnce(&mut ServeSettings),
    ) -> Self {
        let mut settings = ServeSettings::default();
        change(&mut settings);
        let server = Self::without_model(settings.clone()).await;
        let pipeline = pipeline(&settings, model, lookup, &server.files);
        server.slot.provide(pipeline);
        server
    }

    /// A server whose model is not there yet.
    pub(crate) async fn without_model(mut settings: ServeSettings) -> Self {
        settings.http.port = 0;
        let folder = tempfile::tempdir().unwrap();
        let data_dir = settings.data_dir.unwrap_or_else(|| folder.path().into());
        let surroundings = Surroundings::default();
        let queue = Queue::open_in(&data_dir, &settings.queue, refusals(), surroundings);
        let queue = queue.await.unwrap();
        let clock = TestClock::now();
        let hosted = data_dir.join("files");
        let files = FileStore::open(&hosted, settings.files, clock.reading());
        let files = files.await.unwrap();
        let server = ServerSettings {
            http: settings.http,
            face: settings.face,
            auth: settings.auth,
        };
        let rooms = Rooms {
            queue,
            files: files.clone(),
        };
        let server = Server::bind(server, rooms).await.unwrap();
        let address = server.address();
        let base = server.base();
        let queue_address = server.queue_address();
        let slot = server.slot();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(server.run(async {
            // A dropped sender means that the test never stops the server.
            if stopped.await.is_err() {
                std::future::pending::<()>().await;
            }
        }));
        Self {
            base,
            address,
            queue_address,
            client: client(),
            slot,
            files,
            clock,
            folder,
            stop: Some(stop),
            task,
        }
    }

    /// Where it keeps everything, unless the test brought a folder of its own.
    pub(crate) fn data_dir(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Tells the server to stop, without waiting.
    pub(crate) fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    /// Waits until the server begins nothing new any more.
    pub(crate) async fn wait_until_refused(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        let call = || self.client.post(self.url("caption")).body("[]").send();
        while call().await.is_ok_and(|answer| answer.status() != 503) {
            assert!(Instant::now() < deadline, "calls are still taken");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until a line stands in the metrics.
    pub(crate) async fn wait_for_metric(&self, line: &str) {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let text = self.get("/metrics").await.text;
            if text.lines().any(|found| found == line) {
                return;
            }
            assert!(Instant::now() < deadline, "no {line} in\n{text}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until the server has stopped.
    pub(crate) async fn stopped(self) {
        tokio::time::timeout(Duration::from_secs(20), self.task)
            .await
            .expect("the server stops within twenty seconds")
            .unwrap();
    }

    /// The path of an endpoint.
    pub(crate) fn url(&self, endpoint: &str) -> String {
        format!("{}/fal-ai/florence-2-large/{endpoint}", self.base)
    }

    /// Calls an endpoint with a JSON body.
    pub(crate) async fn call(&self, endpoint: &str, body: &Value) -> Answer {
        self.call_raw(endpoint, body.to_string()).await
    }

    /// Calls an endpoint with any body, declared as JSON.
    pub(crate) async fn call_raw(&self, endpoint: &str, body: impl Into<reqwest::Body>) -> Answer {
        let request = self.client.post(self.url(endpoint));
        send(
            request
                .header("content-type", "application/json")
                .body(body),
        )
        .await
    }

    /// Asks for a path.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        send(self.client.get(format!("{}{path}", self.base))).await
    }
}

/// Sends a request and checks what every answer must have.
pub(crate) async fn send(request: RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    let answer = Answer {
        status,
        headers,
        text: response.text().await.unwrap(),
    };
    let id = answer.header("x-fal-request-id");
    assert!(
        uuid::Uuid::parse_str(id).is_ok(),
        "no request id: {answer:?}"
    );
    answer
}
