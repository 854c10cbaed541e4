//! Jobs that ran when a process died, in the next one: alone, after all others, and not for ever later.
//!
//! A death is a copy of the data directory, taken while jobs run.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use florence2_server::config::QueueSettings;
use florence2_server::queue::{
    Answerer, Answering, JobLog, JobRequest, Progress, Queue, WorkerSlot,
};
use tempfile::TempDir;
use uuid::Uuid;

use crate::support::jobs::{
    ManualClock, PATIENCE, Script, answer, completed, job, refusals, until,
};

/// Time in which something that must not happen would have happened.
const A_WHILE: Duration = Duration::from_millis(700);

fn settings(workers: usize) -> QueueSettings {
    QueueSettings {
        workers,
        ..QueueSettings::default()
    }
}

async fn open(dir: &Path, settings: &QueueSettings, clock: &ManualClock) -> Queue {
    let queue = Queue::open_in(dir, settings, refusals(), clock.surroundings());
    queue.await.unwrap()
}

/// A directory as a process left it that died while it ran jobs with these bodies, and their ids.
async fn died_with(bodies: &[&str]) -> (TempDir, Vec<Uuid>) {
    let living = tempfile::tempdir().unwrap();
    let queue = open(living.path(), &settings(bodies.len()), &ManualClock::new()).await;
    let script = Script::new();
    queue.run(script.clone());
    let mut ids = Vec::new();
    for body in bodies {
        ids.push(queue.submit(job(body)).await.unwrap().id);
    }
    script.started(bodies.len()).await;
    let dead = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(living.path()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), dead.path().join(entry.file_name())).unwrap();
    }
    queue.close(Duration::ZERO).await;
    (dead, ids)
}

#[tokio::test]
async fn suspects_run_after_all_others_and_each_alone() {
    let (dir, suspects) = died_with(&["gate a", "gate b"]).await;
    let clock = ManualClock::new();
    let queue = open(dir.path(), &settings(3), &clock).await;
    let script = Script::new();
    queue.run(script.clone());
    queue.submit(job("gate c")).await.unwrap();
    script.started(1).await;
    clock.advance(Duration::from_secs(10));
    let id = queue.submit(job("d")).await.unwrap().id;
    completed(&queue, id).await;
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(script.started(2).await, ["gate c", "d"]);
    for (place, id) in (0..).zip(&suspects) {
        let view = queue.status(*id).await.unwrap().unwrap();
        assert_eq!(view.progress, Progress::InQueue { position: place });
    }

    // The last of the others ends, and one suspect runs.
    script.gate.add_permits(1);
    assert_eq!(script.started(3).await[2], "gate a");
    let id = queue.submit(job("e")).await.unwrap().id;
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(script.started(3).await.len(), 3, "it runs alone");
    script.gate.add_permits(1);
    completed(&queue, id).await;
    let started = script.started(5).await;
    assert_eq!(started[3..], ["e", "gate b"]);
    script.gate.add_permits(1);
    for id in suspects {
        assert_eq!(completed(&queue, id).await.1.status, 200);
    }
    queue.close(PATIENCE).await;
}

#[tokio::test]
async fn a_suspect_does_not_begin_right_after_the_start() {
    let (dir, suspects) = died_with(&["alone"]).await;
    let clock = ManualClock::new();
    let queue = open(dir.path(), &settings(1), &clock).await;
    let script = Script::new();
    queue.run(script.clone());
    // One death counts against it: four times the delay of a second.
    clock.advance(Duration::from_millis(3999));
    let id = queue.submit(job("other")).await.unwrap().id;
    completed(&queue, id).await;
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(script.started(1).await, ["other"]);
    clock.advance(Duration::from_millis(1));
    completed(&queue, suspects[0]).await;
    queue.close(PATIENCE).await;
}

#[tokio::test]
async fn a_suspect_is_cancelled_while_it_waits_and_while_it_runs() {
    let (dir, suspects) = died_with(&["hang a", "hang b"]).await;
    let clock = ManualClock::new();
    let queue = open(dir.path(), &settings(2), &clock).await;
    let script = Script::new();
    queue.run(script.clone());
    queue.cancel(suspects[0]).await.unwrap();
    assert_eq!(completed(&queue, suspects[0]).await.1.status, 499);
    clock.advance(Duration::from_secs(1));
    until(&queue, suspects[1], |view| {
        view.progress == Progress::InProgress
    })
    .await;
    queue.cancel(suspects[1]).await.unwrap();
    assert_eq!(completed(&queue, suspects[1]).await.1.status, 499);
    let id = queue.submit(job("next")).await.unwrap().id;
    completed(&queue, id).await;
    queue.close(PATIENCE).await;
}

/// Hands in another job with every one that it answers, so that the line is never empty.
#[derive(Default)]
struct Stream {
    queue: OnceLock<Queue>,
    started: Mutex<Vec<String>>,
}

impl Stream {
    fn started(&self) -> Vec<String> {
        self.started.lock().unwrap().clone()
    }

    async fn wait_for(&self, wanted: impl Fn(&[String]) -> bool) {
        let begun = Instant::now();
        while !wanted(&self.started()) {
            assert!(begun.elapsed() < PATIENCE, "{} ran", self.started().len());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

impl Answerer for Stream {
    fn answer<'a>(
        &'a self,
        request: JobRequest,
        _: &'a JobLog,
        _: &'a WorkerSlot,
    ) -> Answering<'a> {
        Box::pin(async move {
            let body = String::from_utf8(request.body.to_vec()).unwrap();
            self.started.lock().unwrap().push(body);
            // Fails only when the test is over.
            let _ = self.queue.get().unwrap().submit(job("stream")).await;
            answer(200, "{}")
        })
    }
}

#[tokio::test]
async fn a_steady_stream_of_jobs_keeps_a_suspect_waiting_for_a_minute() {
    let (dir, suspects) = died_with(&["suspect", "other suspect"]).await;
    let clock = ManualClock::new();
    let queue = open(dir.path(), &settings(2), &clock).await;
    let stream = Arc::new(Stream::default());
    assert!(stream.queue.set(queue.clone()).is_ok());
    // Enough that one always waits.
    for _ in 0..64 {
        queue.submit(job("stream")).await.unwrap();
    }
    queue.run(stream.clone());
    clock.advance(Duration::from_millis(59_999));
    let before = stream.started().len();
    stream.wait_for(|started| started.len() > before + 50).await;
    tokio::time::sleep(A_WHILE).await;
    assert!(!stream.started().iter().any(|body| body != "stream"));
    clock.advance(Duration::from_millis(1));
    completed(&queue, suspects[0]).await;
    // The stream goes on afterwards.
    let before = stream.started().len();
    stream.wait_for(|started| started.len() > before + 50).await;
    queue.close(Duration::ZERO).await;
}
