//! One table: method, path, handler.
//!
//! The fourteen endpoints stand at their published path and under `/run`, each with and without a
//! final slash, because clients differ and none follows redirects. Model routes carry the key check
//! and admission; health and metrics do not.

mod files;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Router, middleware};

use super::error::ApiError;
use super::handlers::run::run;
use super::state::Shared;
use super::{auth, health, layers, metrics};
use crate::fal::endpoint::{ALIAS, ENDPOINTS, Endpoint, OWNER};

/// Prefixes under which a synchronous call is recognised.
const RUN_PREFIXES: [&str; 2] = ["", "/run"];

/// All routes with all layers.
pub(crate) fn router(shared: &Arc<Shared>) -> Router {
    let mut router = Router::new();
    for endpoint in &ENDPOINTS {
        for prefix in RUN_PREFIXES {
            let path = format!("{prefix}/{OWNER}/{ALIAS}/{}", endpoint.name);
            router = router
                .route(&path, model_route(endpoint, shared))
                .route(&format!("{path}/"), model_route(endpoint, shared));
        }
    }
    let router = router
        .merge(files::routes(shared))
        .route("/health/live", reading(get(health::live)))
        .route("/health/ready", reading(get(health::ready)))
        .route("/metrics", reading(get(metrics::serve)))
        .fallback(unknown_path)
        .with_state(Arc::clone(shared));
    layers::around(router, shared)
}

fn model_route(endpoint: &'static Endpoint, shared: &Arc<Shared>) -> MethodRouter<Arc<Shared>> {
    let call = move |State(shared): State<Arc<Shared>>, request: Request| async move {
        run(&shared, endpoint, request).await
    };
    // The outermost layer is the last one: the key comes before admission.
    post(call)
        .layer(middleware::from_fn_with_state(
            Arc::clone(shared),
            layers::admit,
        ))
        .layer(middleware::from_fn_with_state(
            Arc::clone(shared),
            auth::require_key,
        ))
        .fallback(|| async { ApiError::MethodNotAllowed { allow: "POST" } })
}

fn reading(route: MethodRouter<Arc<Shared>>) -> MethodRouter<Arc<Shared>> {
    route.fallback(|| async { ApiError::MethodNotAllowed { allow: "GET, HEAD" } })
}

async fn unknown_path(uri: Uri) -> Response {
    let path = uri.path();
    let inside = RUN_PREFIXES
        .iter()
        .rev()
        .find_map(|prefix| path.strip_prefix(prefix)?.strip_prefix('/'))
        .and_then(|rest| rest.strip_prefix(OWNER)?.strip_prefix('/'));
    let Some(inside) = inside else {
        return ApiError::UnknownPath { path: path.into() }.into_response();
    };
    let (alias, rest) = match inside.find('/') {
        Some(slash) => inside.split_at(slash),
        None => (inside, "/"),
    };
    if alias == ALIAS {
        ApiError::UnknownPath { path: rest.into() }.into_response()
    } else {
        let alias = alias.to_owned();
        ApiError::UnknownApplication { alias }.into_response()
    }
}
