//! What `/metrics` tells Prometheus: a small, closed set of series.
//!
//! Labels come from fixed lists, never from a caller, so the number of series is bounded. Names end
//! in their unit.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::auth::Proof;
use super::error::ApiError;
use super::state::Shared;
use crate::pipeline::{EngineError, PipelineError, PredictError, Timings};
use crate::queue::{Counts, StoreHealth, StoreWork};
use crate::telemetry;

/// Media type of the answer.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds of the time buckets in seconds: from a cached tiny answer to a long text on a CPU.
const SECONDS: [f64; 12] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0,
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    route: &'static str,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Stage {
    stage: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct JobState {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CutReason {
    reason: &'static str,
}

/// Why a connection was cut by the server.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cut {
    /// Its caller did not read.
    SlowReader,
    /// Its caller's address held its share of the connections.
    Share,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    operation: &'static str,
}

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// All series.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Call, Counter>,
    abandoned: Family<Route, Counter>,
    request_seconds: Histograms<Route>,
    stage_seconds: Histograms<Stage>,
    model_failures: Family<Reason, Counter>,
    connections: Gauge,
    cut_connections: Family<CutReason, Counter>,
    calls_inside: Gauge,
    jobs: Family<JobState, Gauge>,
    store_errors: Family<Operation, Counter>,
    store_healthy: Gauge,
    files_bytes: Gauge,
    ready: Gauge,
    log_lines_dropped: Counter,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let buckets: fn() -> Histogram = || Histogram::new(SECONDS);
        let mut registry = Registry::with_prefix("florence2");
        let requests = Family::default();
        registry.register("requests", "Answered requests", requests.clone());
        let abandoned = Family::default();
        registry.register(
            "requests_abandoned",
            "Requests whose caller left before the answer",
            abandoned.clone(),
        );
        let request_seconds = Histograms::new_with_constructor(buckets);
        registry.register(
            "request_seconds",
            "Time from the headers to the answer",
            request_seconds.clone(),
        );
        let stage_seconds = Histograms::new_with_constructor(buckets);
        registry.register(
            "stage_seconds",
            "Time spent in each stage of a successful call",
            stage_seconds.clone(),
        );
        let model_failures = Family::default();
        registry.register(
            "model_failures",
            "Calls on which the model failed",
            model_failures.clone(),
        );
        let connections = Gauge::default();
        registry.register("connections", "Open connections", connections.clone());
        let cut_connections = Family::default();
        registry.register(
            "cut_connections",
            "Connections cut because of what their callers did",
            cut_connections.clone(),
        );
        let calls_inside = Gauge::default();
        registry.register(
            "calls_inside",
            "Model calls being worked on",
            calls_inside.clone(),
        );
        let jobs = Family::<JobState, Gauge>::default();
        registry.register("jobs", "Jobs in the queue that are not done", jobs.clone());
        let store_errors = Family::<Operation, Counter>::default();
        registry.register(
            "store_errors",
            "Failures of the job store",
            store_errors.clone(),
        );
        let store_healthy = Gauge::default();
        registry.register(
            "store_healthy",
            "1 when the job store takes changes",
            store_healthy.clone(),
        );
        let files_bytes = Gauge::default();
        registry.register(
            "files_bytes",
            "Quota in use by hosted files",
            files_bytes.clone(),
        );
        let ready = Gauge::default();
        registry.register("ready", "1 when calls are answered", ready.clone());
        let log_lines_dropped = Counter::default();
        registry.register(
            "log_lines_dropped",
            "Log lines that their reader was too slow for",
            log_lines_dropped.clone(),
        );
        Self {
            registry,
            requests,
            abandoned,
            request_seconds,
            stage_seconds,
            model_failures,
            connections,
            cut_connections,
            calls_inside,
            jobs,
            store_errors,
            store_healthy,
            files_bytes,
            ready,
            log_lines_dropped,
        }
    }

    fn set_store(&self, health: &StoreHealth) {
        self.store_healthy.set(i64::from(health.fault.is_none()));
        for (work, errors) in StoreWork::ALL.into_iter().zip(health.errors) {
            let operation = work.name();
            let counter = self.store_errors.get_or_create(&Operation { operation });
            // The store counts, and it alone; two who ask at once must not count twice.
            counter.inner().store(errors, Ordering::Relaxed);
        }
    }

    fn set_jobs(&self, counts: Counts) {
        for (state, jobs) in [("waiting", counts.waiting), ("running", counts.running)] {
            let jobs = i64::try_from(jobs).unwrap_or(i64::MAX);
            self.jobs.get_or_create(&JobState { state }).set(jobs);
        }
    }

    /// Counts an answered request. `route` comes from a fixed list.
    pub(crate) fn observe_request(&self, route: &'static str, status: u16, took: Duration) {
        self.requests.get_or_create(&Call { route, status }).inc();
        self.request_seconds
            .get_or_create(&Route { route })
            .observe(took.as_secs_f64());
    }

    /// Counts a request as abandoned when the guard is dropped without a word that it was answered.
    pub(crate) fn arrived(&self, route: &'static str) -> Unanswered {
        Unanswered(Some(self.abandoned.get_or_create_owned(&Route { route })))
    }

    /// Counts an answer to something that never became a request, or came from nobody who was let in.
    pub(crate) fn count_unrouted(&self, status: u16) {
        let route = "none";
        self.requests.get_or_create(&Call { route, status }).inc();
    }

    /// The count of connections that were cut for this reason.
    pub(crate) fn cut(&self, cut: Cut) -> Counter {
        let reason = match cut {
            Cut::SlowReader => "slow_reader",
            Cut::Share => "share",
        };
        self.cut_connections
            .get_or_create(&CutReason { reason })
            .clone()
    }

    /// Adds the stages of a successful call.
    pub(crate) fn observe_stages(&self, timings: &Timings) {
        let stages = [
            ("picture", timings.picture_ms),
            ("preprocess", timings.preprocess_ms),
            ("predict", timings.predict_ms),
            ("vision", timings.stages.vision_ms),
            ("encoder", timings.stages.encoder_ms),
            ("prefill", timings.stages.prefill_ms),
            ("decode", timings.stages.decode_ms),
            ("postprocess", timings.postprocess_ms),
            ("draw", timings.draw_ms),
        ];
        // Nothing is drawn for most endpoints; zeros would hide how long it takes.
        let took_place = |stage: &(&str, f64)| stage.0 != "draw" || stage.1 > 0.0;
        for (stage, ms) in stages.into_iter().filter(took_place) {
            self.stage_seconds
                .get_or_create(&Stage { stage })
                .observe(ms / 1000.0);
        }
    }

    /// Counts a call that the model failed on; other errors count as answered requests alone.
    pub(crate) fn observe_failure(&self, error: &PipelineError) {
        let PipelineError::Engine(error) = error else {
            return;
        };
        let reason = match error {
            EngineError::Predict(PredictError::NotFinite { .. }) => "not_finite",
            EngineError::Predict(PredictError::OutOfMemory(_)) => "out_of_memory",
            EngineError::Predict(PredictError::Failed(_)) => "failed",
            EngineError::Panicked(_) => "panicked",
            EngineError::LineFull | EngineError::StartDeadline | EngineError::Closed => return,
        };
        self.model_failures.get_or_create(&Reason { reason }).inc();
    }

    /// Counts a connection until the guard is dropped.
    pub(crate) fn connection(&self) -> impl Drop + use<> {
        self.connections.inc();
        Connected(self.connections.clone())
    }
}

/// A request that has no answer yet.
pub(crate) struct Unanswered(Option<Counter>);

impl Unanswered {
    /// It has one now.
    pub(crate) fn answered(mut self) {
        self.0 = None;
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some(abandoned) = &self.0 {
            abandoned.inc();
        }
    }
}

struct Connected(Gauge);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// `GET /metrics`
pub(crate) async fn serve(
    State(shared): State<Arc<Shared>>,
    proof: Option<Extension<Proof>>,
) -> Result<Response, ApiError> {
    // Tokens are made for web pages that call the model.
    if matches!(proof, Some(Extension(Proof::Token))) {
        return Err(ApiError::UnknownKey);
    }
    let metrics = &shared.metrics;
    let dropped = metrics.log_lines_dropped.inner();
    dropped.store(telemetry::dropped_lines(), Ordering::Relaxed);
    let inside = i64::try_from(shared.calls_inside()).unwrap_or(i64::MAX);
    metrics.calls_inside.set(inside);
    let files_bytes = shared.files.used_bytes();
    let files_bytes = i64::try_from(files_bytes).unwrap_or(i64::MAX);
    metrics.files_bytes.set(files_bytes);
    metrics.ready.set(i64::from(shared.is_ready()));
    metrics.set_store(&shared.queue.store_health());
    match shared.queue.counts().await {
        Ok(counts) => metrics.set_jobs(counts),
        // The other figures matter all the more when the store is in trouble.
        Err(error) => tracing::warn!(%error, "the jobs could not be counted"),
    }
    let mut text = String::new();
    encode(&mut text, &metrics.registry).map_err(|error| ApiError::Internal(error.to_string()))?;
    Ok(([(CONTENT_TYPE, OPENMETRICS)], text).into_response())
}
