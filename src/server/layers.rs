//! Every middleware, in the order it runs, with the reason for the order.
//!
//! 1. [`enter`]: decides which face is meant and rewrites the path, before anything is routed,
//!    logged or counted.
//! 2. [`observe`]: request id, log span, metrics, the one place where errors are logged. Around all
//!    that can answer, so that every answer has an id and is counted, whatever made it.
//! 3. [`cors::guard`]: before keys, because browsers ask for permission without one; around the panic
//!    catch, so that a page may read that answer too.
//! 4. Panic catch: a panic is an answer with an id like any other.
//! 5. [`drain`]: refuses while the server stops, and gives up what takes too long then.
//! 6. On routes that are not open the key check ([`super::auth`]), before a byte of the body is read.
//! 7. On synchronous calls [`refuse_when_full`]: after the key, so that strangers learn nothing of the
//!    load, and before the body, so that nobody sends one for nothing.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONNECTION, HOST};
use axum::http::{HeaderName, HeaderValue, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::{Router, middleware};
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument;
use uuid::Uuid;

use super::drain::{self, Busy, Phase, Tracked};
use super::error::{ApiError, Blame, Failure, REQUEST_ID};
use super::face::{self, Door, Facts, PROXY_PATH, Reached};
use super::state::Shared;
use super::{caller, cors};
use crate::fal::endpoint::{ALIAS, Endpoint};
use crate::telemetry::panic_text;

const TARGET_URL: HeaderName = HeaderName::from_static("x-fal-target-url");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// How the paths of uploads and files begin.
const FILES: &str = "/files/";

/// Puts the outer layers around all routes.
pub(crate) fn around(routes: Router, shared: &Arc<Shared>) -> Router {
    // Layers of a router run after it has routed. In a router that knows no route they run before.
    // The last layer added is the first that runs.
    Router::new()
        .fallback_service(routes)
        .layer(middleware::from_fn_with_state(Arc::clone(shared), drain))
        .layer(CatchPanicLayer::custom(answer_panic))
        .layer(middleware::from_fn_with_state(
            Arc::clone(shared),
            cors::guard,
        ))
        .layer(middleware::from_fn_with_state(Arc::clone(shared), observe))
        .layer(middleware::from_fn_with_state(Arc::clone(shared), enter))
}

async fn enter(State(shared): State<Arc<Shared>>, mut request: Request, next: Next) -> Response {
    let Some(door) = request.extensions().get::<Door>().copied() else {
        return ApiError::Internal("a request came through no listener".into()).into_response();
    };
    let decision = face::decide(&facts(&request, door, &shared));
    // Fails only for a target that is too long or has characters that no address may have.
    let rewritten = Uri::try_from(decision.path_and_query);
    *request.uri_mut() = rewritten.unwrap_or_else(|_| Uri::from_static(PROXY_PATH));
    let trusts_forwarded = shared.face.trust_forwarded;
    let caller = caller::identify(request.extensions(), request.headers(), trusts_forwarded);
    request.extensions_mut().insert(decision.reached);
    request.extensions_mut().insert(caller);
    next.run(request).await
}

fn facts<'a>(request: &'a Request, door: Door, shared: &'a Shared) -> Facts<'a> {
    let headers = request.headers();
    let mut targets = headers.get_all(TARGET_URL).iter();
    let target = match (targets.next(), targets.next()) {
        (None, _) => None,
        (Some(target), None) => Some(target.to_str().unwrap_or_default()),
        // Two readings of where a request goes are none.
        (Some(_), Some(_)) => Some(""),
    };
    let forwarded = |name| {
        let value = headers.get(name).filter(|_| shared.face.trust_forwarded)?;
        // The first entry is what the caller said to the first proxy.
        Some(value.to_str().ok()?.split(',').next()?.trim())
    };
    let named = || headers.get(HOST).and_then(|host| host.to_str().ok());
    let authority = request
        .uri()
        .authority()
        .map(|authority| authority.as_str());
    let scheme = forwarded(FORWARDED_PROTO).filter(|scheme| matches!(*scheme, "http" | "https"));
    Facts {
        target,
        host: forwarded(FORWARDED_HOST).or(authority).or_else(named),
        scheme: scheme.unwrap_or(door.scheme),
        path: request.uri().path(),
        query: request.uri().query(),
        door,
        public_url: shared.face.public_url.as_deref(),
    }
}

async fn observe(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let arrived = Instant::now();
    let id = Uuid::now_v7().to_string();
    let route = route_label(request.uri().path());
    let reached = request.extensions().get::<Reached>();
    // The query is left out: it may carry a token. So may the path of an upload, and that of a file
    // is known to nobody who was not told.
    let span = tracing::info_span!(
        "request",
        request_id = %id,
        method = %request.method(),
        face = reached.map(|reached| reached.face.name()),
        path = %logged_path(request.uri().path()),
    );
    // A caller who leaves drops this future.
    let unanswered = shared.metrics.arrived(route);
    let mut response = next.run(request).instrument(span.clone()).await;
    unanswered.answered();
    let took = arrived.elapsed();
    let status = response.status().as_u16();
    shared.metrics.observe_request(route, status, took);
    span.in_scope(|| {
        let failure = response.extensions().get::<Failure>();
        log(failure, route, status, took.as_millis());
    });
    // Answers about a job carry the job's id.
    if let Ok(id) = HeaderValue::try_from(id) {
        response.headers_mut().entry(REQUEST_ID).or_insert(id);
    }
    response
}

/// Levels follow from whose fault it was; see [`Blame`].
fn log(failure: Option<&Failure>, route: &str, status: u16, took_ms: u128) {
    match failure {
        // Clients ask up to ten times a second.
        None if route == STATUS => tracing::debug!(status, took_ms, "answered"),
        None => tracing::info!(status, took_ms, "answered"),
        Some(Failure { blame, cause }) => match blame {
            Blame::Caller => tracing::debug!(status, took_ms, %cause, "refused"),
            Blame::Deadline => tracing::info!(status, took_ms, %cause, "too late"),
            Blame::Overload => tracing::info!(status, took_ms, %cause, "too busy"),
            Blame::Unready => tracing::warn!(status, took_ms, %cause, "unable"),
            Blame::Us => tracing::error!(status, took_ms, %cause, "failed"),
        },
    }
}

/// The part of a path that may stand in the log.
fn logged_path(path: &str) -> &str {
    if is_file(path) { FILES } else { path }
}

fn is_file(path: &str) -> bool {
    path.starts_with(FILES)
}

/// Label of status calls, which come in great number.
const STATUS: &str = "status";

/// A label from a fixed list: an endpoint's name, the application's, what is done with a job, one of
/// our own paths, or none of these. The path is canonical.
fn route_label(path: &str) -> &'static str {
    if is_file(path) {
        return "files";
    }
    if let Some(job) = path.strip_prefix("/queue/requests/") {
        return match job.split_once('/') {
            None | Some((_, "response")) => "result",
            Some((_, "status")) => STATUS,
            Some((_, "status/stream")) => "status-stream",
            Some((_, "cancel")) => "cancel",
            Some(_) => "other",
        };
    }
    let path = path.strip_suffix("/stream").unwrap_or(path);
    let last = path.rsplit('/').next();
    if let Some(endpoint) = last.and_then(Endpoint::named) {
        let is_submit = path.starts_with("/queue/");
        return if is_submit { "submit" } else { endpoint.name };
    }
    if last == Some(ALIAS) {
        return ALIAS;
    }
    let own = [
        "/health/live",
        "/health/ready",
        "/metrics",
        "/openapi.json",
        "/docs",
        "/rest/tokens",
        PROXY_PATH,
    ];
    let known = own.into_iter().find(|known| *known == path);
    known.unwrap_or("other")
}

fn answer_panic(panic: Box<dyn Any + Send>) -> Response {
    let text = panic_text(&*panic);
    ApiError::Internal(format!("a handler panicked: {text}")).into_response()
}

/// Keeps a request in flight until its answer is sent; refuses what would begin something while the
/// server stops.
async fn drain(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let in_flight = shared.drain.enter();
    if in_flight.is_none() && !drain::only_reads(request.method()) {
        return ApiError::Stopping.into_response();
    }
    let busy = request.extensions().get::<Busy>().cloned();
    let mut response = tokio::select! {
        biased;
        response = next.run(request) => response,
        () = shared.drain.reached(Phase::Closing) => ApiError::Stopping.into_response(),
    };
    if shared.drain.phase() >= Phase::Draining {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    response.map(|body| Body::new(Tracked::new(body, (in_flight, busy))))
}

/// Refuses a call when it would find no permit to work once its body is there.
pub(crate) async fn refuse_when_full(
    State(shared): State<Arc<Shared>>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    if shared.is_full() {
        return Err(ApiError::Busy);
    }
    Ok(next.run(request).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_come_from_a_fixed_list() {
        for (path, label) in [
            ("/run/fal-ai/florence-2-large/caption", "caption"),
            ("/run/fal-ai/florence-2-large/caption/stream", "caption"),
            ("/run/fal-ai/florence-2-large", "florence-2-large"),
            ("/queue/fal-ai/florence-2-large/caption", "submit"),
            ("/queue/requests/7", "result"),
            ("/queue/requests/7/response", "result"),
            ("/queue/requests/7/status", "status"),
            ("/queue/requests/7/status/stream", "status-stream"),
            ("/queue/requests/7/cancel", "cancel"),
            ("/queue/requests/7/caption", "other"),
            ("/queue/requests/caption", "result"),
            ("/metrics", "/metrics"),
            ("/docs", "/docs"),
            ("/api/fal/proxy", "/api/fal/proxy"),
            ("/x", "other"),
        ] {
            assert_eq!(route_label(path), label, "{path}");
        }
    }

    #[test]
    fn addresses_of_files_and_uploads_stay_out_of_the_log() {
        for path in [
            "/files/upload/secret",
            "/files/0123/a.png/multipart/secret/1",
        ] {
            assert_eq!((logged_path(path), route_label(path)), ("/files/", "files"));
        }
        let call = "/run/fal-ai/florence-2-large/ocr";
        assert_eq!(logged_path(call), call);
    }
}
