//! One table: path, methods, who may come, handler.
//!
//! Paths are canonical: [`super::face`] has turned what the caller wrote into them, so a call stands
//! here once, whatever host, prefix, port or final slash it came with. A row says whether it is open
//! to all, asks for a key, for a key or a token for uploads, or for a key and a place inside.

mod files;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::Uri;
use axum::routing::{MethodRouter, any, get, post, put};
use axum::{Extension, Router, middleware};

use super::call::Subject;
use super::error::ApiError;
use super::face::{Face, PROXY_PATH, Reached};
use super::handlers::cancel::cancel;
use super::handlers::proxy::proxy;
use super::handlers::result::result;
use super::handlers::run::{run, stream};
use super::handlers::status::{follow, status};
use super::handlers::submit::submit;
use super::handlers::tokens;
use super::handlers::webhook_keys::webhook_keys;
use super::state::Shared;
use super::{auth, health, layers, metrics, openapi};
use crate::fal::endpoint::{ALIAS, ENDPOINTS, Endpoint, EndpointId, OWNER};

/// Who may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    /// Everybody.
    Open,
    /// Whoever holds a key or a token.
    Key,
    /// Whoever holds a key, or everybody where the operator says so: figures about all callers.
    Metrics,
    /// The same, if there is a place inside: a synchronous model call.
    KeyAndPlace,
    /// Whoever holds a key or a token for sending files, which the handler looks at.
    KeyOrUploadToken,
}

/// One row of the table.
struct Row {
    path: String,
    access: Access,
    /// The methods that are answered, for callers who use another one.
    allow: &'static str,
    methods: MethodRouter<Arc<Shared>>,
}

/// All routes with all layers.
pub(crate) fn router(shared: &Arc<Shared>) -> Router {
    let mut routes = Router::new();
    for row in table() {
        let path = row.path.clone();
        routes = routes.route(&path, row.with_layers(shared));
    }
    let routes = routes.fallback(unknown_path).with_state(Arc::clone(shared));
    layers::around(routes, shared)
}

/// Every row's path, its methods, and whether it is open to all: what the documents are held to.
#[cfg(test)]
pub(crate) fn listed() -> Vec<(String, &'static str, bool)> {
    let rows = table().into_iter();
    rows.map(|row| (row.path, row.allow, row.access == Access::Open))
        .collect()
}

fn table() -> Vec<Row> {
    use Access::{Key, Open};
    let mut rows = vec![
        row("/health/live", Open, READ, get(health::live)),
        row("/health/ready", Open, READ, get(health::ready)),
        row("/metrics", Access::Metrics, READ, get(metrics::serve)),
        row("/openapi.json", Open, READ, get(openapi::serve)),
        row("/docs", Open, READ, get(openapi::docs)),
        row(
            openapi::PUBLISHED,
            Open,
            READ,
            get(openapi::serve_published),
        ),
        row(PROXY_PATH, Open, "", any(proxy)),
        row("/.well-known/jwks.json", Open, READ, get(webhook_keys)),
        row("/rest/.well-known/jwks.json", Open, READ, get(webhook_keys)),
        row("/rest/tokens", Key, "POST", post(tokens::issue)),
        row("/queue/requests/{id}", Key, READ, get(result)),
        row("/queue/requests/{id}/response", Key, READ, get(result)),
        row("/queue/requests/{id}/status", Key, READ, get(status)),
        row("/queue/requests/{id}/status/stream", Key, READ, get(follow)),
        row("/queue/requests/{id}/cancel", Key, "PUT", put(cancel)),
    ];
    let endpoints = ENDPOINTS.iter().map(Subject::Endpoint);
    rows.extend(endpoints.chain([Subject::Tasks]).flat_map(call_rows));
    rows.extend(files::rows());
    rows
}

/// What `get` answers.
const READ: &str = "GET, HEAD";

fn row(
    path: impl Into<String>,
    access: Access,
    allow: &'static str,
    methods: MethodRouter<Arc<Shared>>,
) -> Row {
    Row {
        path: path.into(),
        access,
        allow,
        methods,
    }
}

/// The three ways to call an endpoint, or the application.
fn call_rows(subject: Subject) -> [Row; 3] {
    let id = match subject {
        Subject::Endpoint(endpoint) => format!("{OWNER}/{ALIAS}/{}", endpoint.name),
        Subject::Tasks => format!("{OWNER}/{ALIAS}"),
    };
    let at_once = move |State(shared): State<Arc<Shared>>, request: Request| async move {
        run(&shared, subject, request).await
    };
    let as_events = move |State(shared): State<Arc<Shared>>, request: Request| async move {
        stream(&shared, subject, request).await
    };
    let later = move |State(shared): State<Arc<Shared>>, request: Request| async move {
        submit(&shared, subject, request).await
    };
    [
        row(
            format!("/run/{id}"),
            Access::KeyAndPlace,
            "POST",
            post(at_once),
        ),
        row(
            format!("/run/{id}/stream"),
            Access::KeyAndPlace,
            "POST",
            post(as_events),
        ),
        row(format!("/queue/{id}"), Access::Key, "POST", post(later)),
    ]
}

impl Row {
    fn with_layers(self, shared: &Arc<Shared>) -> MethodRouter<Arc<Shared>> {
        let Self {
            access,
            allow,
            mut methods,
            ..
        } = self;
        // The outermost layer is the last one: the key comes before admission.
        if access == Access::KeyAndPlace {
            let refuse = layers::refuse_when_full;
            let refuse = middleware::from_fn_with_state(Arc::clone(shared), refuse);
            methods = methods.layer(refuse);
        }
        let needs_key = match access {
            Access::Key | Access::KeyAndPlace => true,
            Access::Metrics => !shared.open_metrics,
            Access::Open | Access::KeyOrUploadToken => false,
        };
        if needs_key {
            let key = middleware::from_fn_with_state(Arc::clone(shared), auth::require_key);
            methods = methods.layer(key);
        }
        if allow.is_empty() {
            return methods;
        }
        methods.fallback(move || async move { ApiError::MethodNotAllowed { allow } })
    }
}

/// What no row has: another application, or a path that ours does not know.
async fn unknown_path(Extension(reached): Extension<Reached>, uri: Uri) -> ApiError {
    let face = reached.face;
    let path = match face {
        Face::Run | Face::Queue | Face::Rest => uri.path().strip_prefix(face.prefix()),
        Face::Files | Face::Own => None,
    };
    let path = path.unwrap_or(uri.path());
    let id = path.strip_prefix('/').unwrap_or_default();
    let names_app = matches!(face, Face::Run | Face::Queue) && !id.starts_with("requests/");
    let path = match EndpointId::parse(id) {
        Some(id) if names_app => {
            if !id.is_ours() {
                let alias = id.alias.to_owned();
                return ApiError::UnknownApplication { alias };
            }
            let path = format!("/{}", id.path);
            if let Some(nearest) = Endpoint::nearest(id.path) {
                return ApiError::UnknownTask { path, nearest };
            }
            path
        }
        _ => format!("/{}", path.strip_prefix('/').unwrap_or(path)),
    };
    ApiError::UnknownPath { path }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::{Method, StatusCode};
    use tower::ServiceExt;

    use super::super::face::Door;
    use super::super::{Rooms, ServerSettings, refusals};
    use super::*;
    use crate::config::{AuthSettings, FilesSettings, QueueSettings};
    use crate::files::FileStore;
    use crate::queue::{Queue, Surroundings};

    async fn shared(folder: &tempfile::TempDir) -> Arc<Shared> {
        let settings = ServerSettings {
            auth: AuthSettings {
                api_keys: vec!["id:secret".into()],
                ..AuthSettings::default()
            },
            ..ServerSettings::default()
        };
        let (queue, around) = (QueueSettings::default(), Surroundings::default());
        let queue = Queue::in_memory(&queue, refusals(), around).await.unwrap();
        let clock = crate::files::system_clock();
        let files = FileStore::open(folder.path(), FilesSettings::default(), clock);
        let files = files.await.unwrap();
        Arc::new(Shared::new(settings, Rooms { queue, files }).unwrap())
    }

    async fn answer(router: &Router, method: &str, path: &str, key: Option<&str>) -> StatusCode {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = Method::from_bytes(method.as_bytes()).unwrap();
        *request.uri_mut() = path.parse().unwrap();
        request.extensions_mut().insert(Door {
            is_queue: false,
            scheme: "http",
            address: ([127, 0, 0, 1], 8000).into(),
        });
        if let Some(key) = key {
            let value = format!("Key {key}").parse().unwrap();
            request.headers_mut().insert("authorization", value);
        }
        router.clone().oneshot(request).await.unwrap().status()
    }

    #[tokio::test]
    async fn every_row_that_is_not_open_wants_a_key_for_every_method() {
        let folder = tempfile::tempdir().unwrap();
        let shared = shared(&folder).await;
        let router = router(&shared);
        let mut guarded = 0;
        for row in table() {
            let path = row
                .path
                .replace("{id}", "00000000-0000-0000-0000-000000000000");
            for method in row.allow.split(", ").filter(|method| !method.is_empty()) {
                let without = answer(&router, method, &path, None).await;
                let wrong = answer(&router, method, &path, Some("id:wrong")).await;
                let with = answer(&router, method, &path, Some("id:secret")).await;
                let is_refused = without == StatusCode::UNAUTHORIZED;
                assert_eq!(is_refused, row.access != Access::Open, "{method} {path}");
                assert_eq!(
                    wrong == StatusCode::UNAUTHORIZED,
                    is_refused,
                    "{method} {path}"
                );
                assert_ne!(with, StatusCode::UNAUTHORIZED, "{method} {path}");
                guarded += usize::from(is_refused);
            }
        }
        // Three rows an endpoint, and the queue's.
        assert!(guarded > 3 * ENDPOINTS.len(), "only {guarded} were guarded");
    }

    #[tokio::test]
    async fn every_row_is_reached_by_its_own_path() {
        let folder = tempfile::tempdir().unwrap();
        let shared = shared(&folder).await;
        let router = router(&shared);
        for row in table() {
            let path = row.path.replace("{id}", "x");
            let unused = answer(&router, "PATCH", &path, Some("id:secret")).await;
            let expected = match row.path.as_str() {
                PROXY_PATH => StatusCode::BAD_REQUEST,
                _ => StatusCode::METHOD_NOT_ALLOWED,
            };
            assert_eq!(unused, expected, "{path}");
        }
    }
}
