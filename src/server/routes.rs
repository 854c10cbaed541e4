//! One table: method, path, handler.
//!
//! The fourteen endpoints stand at their published path and under `/run`, each with and without a
//! final slash, because clients differ and none follows redirects; beside them the application's own
//! address, which answers several tasks at once. Model routes carry the key check and admission;
//! health and metrics do not.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Router, middleware};

use super::error::ApiError;
use super::handlers::{run::run, tasks};
use super::state::Shared;
use super::{auth, health, layers, metrics, openapi};
use crate::fal::endpoint::{ALIAS, ENDPOINTS, Endpoint, OWNER};

/// Prefixes under which a synchronous call is recognised.
const RUN_PREFIXES: [&str; 2] = ["", "/run"];

/// All routes with all layers.
pub(crate) fn router(shared: &Arc<Shared>) -> Router {
    let mut router = Router::new();
    for prefix in RUN_PREFIXES {
        let path = format!("{prefix}/{OWNER}/{ALIAS}");
        router = router
            .route(&path, tasks_route(shared))
            .route(&format!("{path}/"), tasks_route(shared));
        for endpoint in &ENDPOINTS {
            let path = format!("{prefix}/{OWNER}/{ALIAS}/{}", endpoint.name);
            router = router
                .route(&path, model_route(endpoint, shared))
                .route(&format!("{path}/"), model_route(endpoint, shared));
        }
    }
    let router = router
        .route("/health/live", reading(get(health::live)))
        .route("/health/ready", reading(get(health::ready)))
        .route("/metrics", reading(get(metrics::serve)))
        .route("/openapi.json", reading(get(openapi::serve)))
        .route("/docs", reading(get(openapi::docs)))
        .route(openapi::PUBLISHED, reading(get(openapi::serve_published)))
        .fallback(unknown_path)
        .with_state(Arc::clone(shared));
    layers::around(router, shared)
}

fn model_route(endpoint: &'static Endpoint, shared: &Arc<Shared>) -> MethodRouter<Arc<Shared>> {
    let call = move |State(shared): State<Arc<Shared>>, request: Request| async move {
        run(&shared, endpoint, request).await
    };
    guarded(post(call), shared)
}

fn tasks_route(shared: &Arc<Shared>) -> MethodRouter<Arc<Shared>> {
    let call = |State(shared): State<Arc<Shared>>, request: Request| async move {
        tasks::run(&shared, request).await
    };
    guarded(post(call), shared)
}

fn guarded(route: MethodRouter<Arc<Shared>>, shared: &Arc<Shared>) -> MethodRouter<Arc<Shared>> {
    // The outermost layer is the last one: the key comes before admission.
    route
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
