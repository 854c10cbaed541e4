//! Where a job stands, asked once or followed as a stream of events.
//!
//! An answer to a single question holds the whole log so far, because a client that polls keeps
//! nothing; an event holds only new lines, because a client that follows appends them.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, Uri};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use uuid::Uuid;

use crate::queue::{JobView, JobWatch, Progress};
use crate::server::error::ApiError;
use crate::server::face::Reached;
use crate::server::state::Shared;
use crate::server::{extract, job_view};

/// Time after which a silent stream says `ping`, so that nobody on the way takes it for dead.
const PING: Duration = Duration::from_secs(15);

/// Time after which a followed job is looked at without news: it may run in another process, or
/// have expired.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Asks nginx to pass events on as they come.
const UNBUFFERED: (HeaderName, &str) = (HeaderName::from_static("x-accel-buffering"), "no");

/// `GET {queue}/fal-ai/florence-2-large/requests/{id}/status`
pub(crate) async fn status(
    State(shared): State<Arc<Shared>>,
    axum::Extension(reached): axum::Extension<Reached>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let id = job_view::id_in(uri.path())?;
    let logs_after = wants_logs(&uri).then_some(0);
    let answer = look(&shared, id).await.map(|view| {
        let code = match view.progress {
            Progress::Completed { .. } => StatusCode::OK,
            Progress::InQueue { .. } | Progress::InProgress => StatusCode::ACCEPTED,
        };
        let status = job_view::status(&reached.base(), id, &view, logs_after);
        (code, Json(status))
    });
    Ok(job_view::name(id, answer))
}

/// `GET {queue}/fal-ai/florence-2-large/requests/{id}/status/stream`
pub(crate) async fn follow(
    State(shared): State<Arc<Shared>>,
    axum::Extension(reached): axum::Extension<Reached>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let id = job_view::id_in(uri.path())?;
    // Watched before it is looked at, so that nothing that happens in between is missed.
    let watch = shared.queue.watch(id);
    let view = look(&shared, id).await?;
    let follower = Follower {
        base: reached.base(),
        wants_logs: wants_logs(&uri),
        shared,
        id,
        watch,
        next: Some(view),
        told: None,
        told_lines: 0,
    };
    let events = stream::unfold(follower, Follower::step);
    let ping = KeepAlive::new().interval(PING).text("ping");
    let answer = ([UNBUFFERED], Sse::new(events).keep_alive(ping));
    Ok(job_view::name(id, answer.into_response()))
}

async fn look(shared: &Shared, id: Uuid) -> Result<JobView, ApiError> {
    let found = shared.queue.status(id).await;
    found
        .map_err(|error| ApiError::QueueUnavailable(error.to_string()))?
        .ok_or(ApiError::UnknownJob)
}

fn wants_logs(uri: &Uri) -> bool {
    let logs = extract::parameter(uri.query(), "logs");
    logs.is_some_and(|word| word == "1" || word.eq_ignore_ascii_case("true"))
}

/// Somebody who follows a job.
struct Follower {
    shared: Arc<Shared>,
    id: Uuid,
    base: String,
    wants_logs: bool,
    watch: JobWatch,
    /// A look that was not told yet.
    next: Option<JobView>,
    /// What was told last.
    told: Option<Progress>,
    /// Lines told so far.
    told_lines: usize,
}

impl Follower {
    /// Waits for the next event. None, which ends the stream, after `COMPLETED`, when the job is
    /// gone, and when the server stops.
    async fn step(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        loop {
            if matches!(self.told, Some(Progress::Completed { .. })) {
                return None;
            }
            let view = match self.next.take() {
                Some(view) => view,
                None => look(&self.shared, self.id).await.ok()?,
            };
            if let Some(event) = self.news(view) {
                return Some((Ok(event), self));
            }
            let shared = Arc::clone(&self.shared);
            tokio::select! {
                () = shared.stopped() => return None,
                () = self.watch.changed() => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        }
    }

    /// What a look says beyond what was told already.
    fn news(&mut self, view: JobView) -> Option<Event> {
        let has_lines = self.wants_logs && view.logs.len() > self.told_lines;
        if self.told.as_ref() == Some(&view.progress) && !has_lines {
            return None;
        }
        let logs_after = self.wants_logs.then_some(self.told_lines);
        let status = job_view::status(&self.base, self.id, &view, logs_after);
        self.told_lines = self.told_lines.max(view.logs.len());
        self.told = Some(view.progress);
        let text = serde_json::to_string(&status).ok()?;
        Some(Event::default().data(text))
    }
}
