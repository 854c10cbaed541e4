//! Requests through all layers and routes, with a model that says what the input says.
//!
//! The input is text, so that a corpus can be read: the model's answer on the first line, then
//! method and target, header lines, an empty line and the body; lines end with a line feed alone.
//! Promised: no panic and no 500; every answer has its request id; what is declared as JSON is JSON,
//! and an error says what is wrong in `detail` or `status`.
//!
//! Nothing is contacted: no picture source is allowed, and inputs that name a webhook are left out.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderName, HeaderValue, Request};
use florence2_server::cli::serve::ServeSettings;
use florence2_server::engine::Engine;
use florence2_server::files::FileStore;
use florence2_server::image_io::PictureLoader;
use florence2_server::image_io::fetch::{LookedUp, NameLookup};
use florence2_server::pipeline::Pipeline;
use florence2_server::queue::{Queue, Surroundings};
use florence2_server::server::{Rooms, Server, ServerSettings, refusals};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tower::ServiceExt;

use super::super::fake_model::{FakeCodec, FakeModel, Reply, options};

/// Requests before jobs and files of earlier ones are thrown away.
const REQUESTS_PER_WORLD: usize = 2000;

/// Longest time that an answer may take, and largest answer.
const PATIENCE: Duration = Duration::from_secs(20);
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// A server without sockets.
struct World {
    runtime: Runtime,
    routes: Router,
    says: Arc<Mutex<String>>,
    answered: usize,
    _folder: TempDir,
}

/// No name leads anywhere.
struct NoNames;

impl NameLookup for NoNames {
    fn lookup(&self, _: &str) -> LookedUp {
        Box::pin(async { Err(io::Error::other("no such name")) })
    }
}

impl World {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let says = Arc::new(Mutex::new(String::new()));
        let routes = runtime.block_on(open(&folder, Arc::clone(&says)));
        Self {
            runtime,
            routes,
            says,
            answered: 0,
            _folder: folder,
        }
    }
}

async fn open(folder: &TempDir, says: Arc<Mutex<String>>) -> Router {
    let settings = {
        let mut settings = ServeSettings::default();
        settings.http.port = 0;
        settings
    };
    let lookup: Arc<dyn NameLookup> = Arc::new(NoNames);
    let surroundings = Surroundings {
        lookup: Arc::clone(&lookup),
        ..Surroundings::default()
    };
    let queue = Queue::in_memory(&settings.queue, refusals(), surroundings);
    let queue = queue.await.unwrap();
    let clock = Arc::new(|| 1_700_000_000_000);
    let hosted = folder.path().join("files");
    let files = FileStore::open(&hosted, settings.files, clock)
        .await
        .unwrap();
    let pictures = PictureLoader::with_lookup(&settings.fetch, settings.decode, lookup).unwrap();
    let pictures = pictures.with_own_files(Arc::new(files.clone()));
    let (model, _) = FakeModel::new(move |_, _| Reply::Text(says.lock().unwrap().clone()));
    let engine = Engine::start(Box::new(model), settings.engine.max_waiting).unwrap();
    let pipeline = Pipeline::new(pictures, Arc::new(FakeCodec), engine, options());
    let server = ServerSettings {
        http: settings.http,
        face: settings.face,
        auth: settings.auth,
    };
    let server = Server::bind(server, Rooms { queue, files }).await.unwrap();
    server.slot().provide(pipeline);
    server.service()
}

pub(super) fn run(data: &[u8]) {
    static WORLD: Mutex<Option<World>> = Mutex::new(None);
    let Some((says, request)) = parse(data) else {
        return;
    };
    // A failed run leaves the lock poisoned, and the next one starts with a new world.
    let mut slot = WORLD.lock().unwrap_or_else(|poisoned| {
        let mut slot = poisoned.into_inner();
        *slot = None;
        slot
    });
    let mut world = slot.take().unwrap_or_else(World::new);
    *world.says.lock().unwrap() = says;
    world.runtime.block_on(check(world.routes.clone(), request));
    world.answered += 1;
    if world.answered < REQUESTS_PER_WORLD {
        *slot = Some(world);
    } else {
        world.runtime.shutdown_background();
    }
}

async fn check(routes: Router, request: Request<Body>) {
    let answer = tokio::time::timeout(PATIENCE, routes.oneshot(request));
    let answer = answer.await.expect("an answer in time").unwrap();
    let (head, body) = answer.into_parts();
    let status = head.status.as_u16();
    assert!(status < 500 || status == 503 || status == 504, "{head:?}");
    let id = head.headers.get("x-fal-request-id");
    assert!(id.is_some(), "no request id: {head:?}");
    let body = tokio::time::timeout(PATIENCE, to_bytes(body, MAX_ANSWER_BYTES));
    let body = body.await.expect("a body in time").unwrap();
    let declared = head.headers.get("content-type");
    if declared.is_some_and(|declared| declared == "application/json") && !body.is_empty() {
        let value: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        let says = value.get("detail").or(value.get("status"));
        // fal's answer about the document of an endpoint that there is not.
        let is_nothing = status == 404 && value.is_null();
        let is_envelope = says.is_some() || is_nothing;
        assert!(status < 400 || is_envelope, "{head:?} {value}");
    }
    // Jobs and whatever else was begun get their turn.
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
}

fn parse(data: &[u8]) -> Option<(String, Request<Body>)> {
    let (says, rest) = split(data)?;
    let (begin, mut rest) = split(rest)?;
    let begin = std::str::from_utf8(begin).ok()?;
    let (method, target) = begin.split_once(' ')?;
    let mut request = Request::builder().method(method).uri(target);
    let mut named = begin.to_owned();
    loop {
        let (line, after) = split(rest)?;
        rest = after;
        if line.is_empty() {
            break;
        }
        let at = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(line.get(..at)?).ok()?;
        let value = line.get(at + 1..)?.trim_ascii();
        named.push_str(&String::from_utf8_lossy(value));
        request = request.header(name, HeaderValue::from_bytes(value).ok()?);
    }
    if names_webhook(named) {
        return None;
    }
    let body = Body::from(rest.to_vec());
    let says = String::from_utf8_lossy(says).into_owned();
    Some((says, request.body(body).ok()?))
}

fn split(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = data.iter().position(|byte| *byte == b'\n')?;
    Some((data.get(..at)?, data.get(at + 1..)?))
}

/// Whether a webhook may be asked for, however often the text is decoded on the way.
fn names_webhook(mut text: String) -> bool {
    loop {
        if text.to_ascii_lowercase().contains("webhook") {
            return true;
        }
        let decoded = url::form_urlencoded::parse(text.replace(['&', '=', '+'], ";").as_bytes())
            .map(|(name, value)| format!("{name}{value}"))
            .collect::<String>();
        if decoded == text.replace(['&', '=', '+'], ";") {
            return false;
        }
        text = decoded;
    }
}
