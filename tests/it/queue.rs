//! The queue's promises, through its own interface: order, logs, cancelling, deadlines, retries,
//! and what becomes of jobs when it is closed and opened again.

use std::time::Duration;

use florence2_server::config::QueueSettings;
use florence2_server::queue::{
    CancelOutcome, Counts, JobResult, NewJob, Priority, Progress, Queue, QueueError, SubmitError,
};
use uuid::Uuid;

use crate::support::jobs::{
    ManualClock, PATIENCE, Script, completed, in_memory, job, refusals, until,
};

fn error_type(progress: &Progress) -> Option<&str> {
    match progress {
        Progress::Completed { error, .. } => error.as_ref().map(|error| error.error_type.as_str()),
        other => panic!("not completed: {other:?}"),
    }
}

fn is_in_queue(progress: &Progress) -> bool {
    matches!(progress, Progress::InQueue { .. })
}

#[tokio::test]
async fn a_job_is_answered_and_its_answer_repeated() {
    let (queue, _script, _clock) = in_memory(|_| {}).await;
    let submitted = queue.submit(job("{\"n\": 1.50}")).await.unwrap();
    assert_eq!(submitted.position, 0);
    let (view, result) = completed(&queue, submitted.id).await;
    assert_eq!(view.endpoint, "caption");
    let Progress::Completed {
        inference_seconds,
        error,
    } = view.progress
    else {
        panic!("not completed")
    };
    assert!(inference_seconds.is_some_and(|seconds| seconds < 30.0));
    assert_eq!(error, None);
    assert_eq!(result.status, 200);
    assert_eq!(result.body.as_ref(), b"{\"n\": 1.50}");
    let again = queue.result(submitted.id).await.unwrap();
    assert_eq!(again, Some(JobResult::Finished(result)));
}

#[tokio::test]
async fn nothing_is_known_of_a_job_that_is_not_there() {
    let (queue, _script, _clock) = in_memory(|_| {}).await;
    let id = Uuid::new_v4();
    assert_eq!(queue.status(id).await.unwrap(), None);
    assert_eq!(queue.result(id).await.unwrap(), None);
    assert_eq!(queue.cancel(id).await.unwrap(), CancelOutcome::NotFound);
}

#[tokio::test]
async fn low_jobs_run_after_all_normal_ones() {
    let (queue, script, _clock) = in_memory(|settings| settings.workers = 1).await;
    queue.submit(job("gate")).await.unwrap();
    script.started(1).await;
    let low = NewJob {
        priority: Priority::Low,
        ..job("low")
    };
    let low = queue.submit(low).await.unwrap();
    let one = queue.submit(job("one")).await.unwrap();
    let two = queue.submit(job("two")).await.unwrap();
    assert_eq!([low.position, one.position, two.position], [0, 0, 1]);
    let expected = Counts {
        waiting: 3,
        running: 1,
    };
    assert_eq!(queue.counts().await.unwrap(), expected);
    let view = queue.status(low.id).await.unwrap().unwrap();
    assert_eq!(view.progress, Progress::InQueue { position: 2 });
    script.gate.add_permits(1);
    completed(&queue, low.id).await;
    assert_eq!(script.started(4).await, ["gate", "one", "two", "low"]);
}

#[tokio::test]
async fn what_a_running_job_logs_is_seen_at_once_and_kept() {
    let (queue, script, clock) = in_memory(|_| {}).await;
    let id = queue.submit(job("gate")).await.unwrap().id;
    let view = until(&queue, id, |view| !view.logs.is_empty()).await;
    assert_eq!(view.progress, Progress::InProgress);
    assert_eq!(view.logs[0].message, "at the gate");
    assert_eq!(view.logs[0].timestamp_ms, 1_700_000_000_000);
    assert_eq!(
        queue.result(id).await.unwrap(),
        Some(JobResult::NotFinished)
    );
    clock.advance(Duration::from_millis(5));
    script.gate.add_permits(1);
    let (view, _) = completed(&queue, id).await;
    assert_eq!(view.logs.len(), 2);
    assert_eq!(view.logs[1].timestamp_ms, 1_700_000_000_005);
}

#[tokio::test]
async fn a_waiting_job_is_cancelled_without_having_run() {
    let (queue, script, _clock) = in_memory(|settings| settings.workers = 1).await;
    queue.submit(job("gate")).await.unwrap();
    script.started(1).await;
    let id = queue.submit(job("never")).await.unwrap().id;
    let mut watch = queue.watch(id);
    assert_eq!(queue.cancel(id).await.unwrap(), CancelOutcome::Requested);
    tokio::time::timeout(PATIENCE, watch.changed())
        .await
        .unwrap();
    let (view, result) = completed(&queue, id).await;
    assert_eq!(error_type(&view.progress), Some("client_cancelled"));
    assert_eq!(result.status, 499);
    let again = queue.cancel(id).await.unwrap();
    assert_eq!(again, CancelOutcome::AlreadyCompleted);
    script.gate.add_permits(1);
    let last = queue.submit(job("last")).await.unwrap().id;
    completed(&queue, last).await;
    assert_eq!(script.started(2).await, ["gate", "last"]);
}

#[tokio::test]
async fn a_running_job_is_dropped_when_it_is_cancelled() {
    let (queue, script, _clock) = in_memory(|_| {}).await;
    let id = queue.submit(job("hang")).await.unwrap().id;
    script.started(1).await;
    assert_eq!(queue.cancel(id).await.unwrap(), CancelOutcome::Requested);
    script.dropped(1).await;
    let (view, result) = completed(&queue, id).await;
    assert_eq!(error_type(&view.progress), Some("client_cancelled"));
    assert_eq!(result.status, 499);
    // The worker is free again.
    let next = queue.submit(job("next")).await.unwrap().id;
    completed(&queue, next).await;
}

#[tokio::test]
async fn a_job_cancelled_before_anybody_answers_jobs_is_done() {
    let settings = QueueSettings::default();
    let clock = ManualClock::new();
    let queue = Queue::in_memory(&settings, refusals(), clock.surroundings())
        .await
        .unwrap();
    let id = queue.submit(job("x")).await.unwrap().id;
    queue.cancel(id).await.unwrap();
    let (_, result) = completed(&queue, id).await;
    assert_eq!(result.status, 499);
}

#[tokio::test]
async fn a_job_past_its_start_deadline_is_refused_while_all_workers_are_busy() {
    let (queue, script, clock) = in_memory(|settings| settings.workers = 1).await;
    queue.submit(job("gate")).await.unwrap();
    script.started(1).await;
    let late = NewJob {
        start_by_ms: Some(1_700_000_000_000 + 2500),
        ..job("late")
    };
    let id = queue.submit(late).await.unwrap().id;
    clock.advance(Duration::from_millis(2500));
    let patient = queue.submit(job("patient")).await.unwrap().id;
    assert!(is_in_queue(
        &queue.status(id).await.unwrap().unwrap().progress
    ));
    clock.advance(Duration::from_millis(1500));
    let (view, result) = completed(&queue, id).await;
    assert_eq!(error_type(&view.progress), Some("request_timeout"));
    assert_eq!(result.status, 504);
    assert!(is_in_queue(
        &queue.status(patient).await.unwrap().unwrap().progress
    ));
}

#[tokio::test]
async fn a_failure_of_ours_is_tried_again_with_growing_pauses() {
    let (queue, script, clock) = in_memory(|settings| settings.max_attempts = 4).await;
    let id = queue.submit(job("fail")).await.unwrap().id;
    for (attempt, pause_s) in [(1, 1), (2, 2), (3, 4)] {
        script.started(attempt).await;
        let view = until(&queue, id, |view| {
            is_in_queue(&view.progress) && view.logs.len() == attempt
        })
        .await;
        let said = &view.logs[attempt - 1].message;
        assert_eq!(said, &format!("Trying again in {pause_s} s."));
        clock.advance(Duration::from_millis(pause_s * 1000 - 1));
        assert_eq!(script.started(attempt).await.len(), attempt, "too early");
        clock.advance(Duration::from_millis(1));
    }
    let (_, result) = completed(&queue, id).await;
    assert_eq!((result.status, script.started(4).await.len()), (503, 4));
    assert_eq!(result.body.as_ref(), br#"{"detail":"busy"}"#);
}

#[tokio::test]
async fn whoever_forbids_it_is_not_tried_again() {
    let (queue, script, _clock) = in_memory(|_| {}).await;
    let once = NewJob {
        may_retry: false,
        ..job("fail")
    };
    let id = queue.submit(once).await.unwrap().id;
    let (_, result) = completed(&queue, id).await;
    assert_eq!((result.status, script.started(1).await.len()), (503, 1));
}

#[tokio::test]
async fn a_panic_fails_its_job_alone() {
    let (queue, _script, _clock) = in_memory(|settings| {
        settings.workers = 1;
        settings.max_attempts = 1;
    })
    .await;
    let bad = queue.submit(job("panic")).await.unwrap().id;
    let good = queue.submit(job("good")).await.unwrap().id;
    let (view, result) = completed(&queue, bad).await;
    assert_eq!(error_type(&view.progress), Some("panicked"));
    assert_eq!(result.status, 500);
    assert_eq!(completed(&queue, good).await.1.status, 200);
}

#[tokio::test]
async fn results_are_gone_when_their_time_is_over() {
    let ttl = Duration::from_secs(600);
    let (queue, _script, clock) = in_memory(|settings| settings.result_ttl = ttl).await;
    let id = queue.submit(job("x")).await.unwrap().id;
    completed(&queue, id).await;
    clock.advance(ttl - Duration::from_millis(1));
    assert!(queue.result(id).await.unwrap().is_some());
    clock.advance(Duration::from_millis(1));
    assert_eq!(queue.result(id).await.unwrap(), None);
    assert_eq!(queue.status(id).await.unwrap(), None);
    assert_eq!(queue.cancel(id).await.unwrap(), CancelOutcome::NotFound);
}

#[tokio::test]
async fn a_clock_set_back_delays_neither_deadlines_nor_retries() {
    let (queue, script, clock) = in_memory(|settings| settings.workers = 1).await;
    let failing = queue.submit(job("fail")).await.unwrap().id;
    script.started(1).await;
    until(&queue, failing, |view| is_in_queue(&view.progress)).await;
    clock.set_back(Duration::from_secs(3600));
    clock.advance(Duration::from_secs(1));
    script.started(2).await;

    queue.cancel(failing).await.unwrap();
    queue.submit(job("gate")).await.unwrap();
    script.started(3).await;
    let late = NewJob {
        start_by_ms: Some(queue.now_ms() + 1000),
        ..job("late")
    };
    let id = queue.submit(late).await.unwrap().id;
    clock.set_back(Duration::from_secs(3600));
    clock.advance(Duration::from_secs(2));
    let (view, _) = completed(&queue, id).await;
    assert_eq!(error_type(&view.progress), Some("request_timeout"));
}

#[tokio::test]
async fn a_clock_set_back_between_two_processes_delays_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let settings = QueueSettings::default();
    let clock = ManualClock::new();
    let open = async || {
        let around = clock.surroundings();
        let queue = Queue::open_in(folder.path(), &settings, refusals(), around);
        queue.await.unwrap()
    };
    let queue = open().await;
    let script = Script::new();
    queue.run(script.clone());
    let id = queue.submit(job("fail")).await.unwrap().id;
    until(&queue, id, |view| {
        is_in_queue(&view.progress) && !view.logs.is_empty()
    })
    .await;
    let before = queue.now_ms();
    queue.close(PATIENCE).await;

    clock.set_back(Duration::from_secs(3600));
    let queue = open().await;
    assert_eq!(queue.now_ms(), before);
    let script = Script::new();
    queue.run(script.clone());
    clock.advance(Duration::from_secs(1));
    script.started(1).await;
    queue.close(Duration::ZERO).await;
}

#[tokio::test]
async fn a_callers_limit_refuses_the_job() {
    let (queue, script, _clock) = in_memory(|settings| settings.workers = 1).await;
    queue.submit(job("gate")).await.unwrap();
    script.started(1).await;
    let limited = || NewJob {
        max_queue_length: Some(0),
        ..job("x")
    };
    queue.submit(limited()).await.unwrap();
    let refused = queue.submit(limited()).await.unwrap_err();
    assert!(
        matches!(refused, SubmitError::Full { waiting: 1 }),
        "{refused}"
    );
}

#[tokio::test]
async fn a_nearly_full_disk_refuses_jobs_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let settings = QueueSettings {
        disk_floor_bytes: u64::MAX,
        ..QueueSettings::default()
    };
    let queue = Queue::open(folder.path(), &settings, refusals())
        .await
        .unwrap();
    let refused = queue.submit(job("x")).await.unwrap_err();
    assert!(matches!(refused, SubmitError::NoRoom { .. }), "{refused}");
    queue.close(Duration::ZERO).await;
}

#[tokio::test]
async fn a_directory_serves_one_queue_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let settings = QueueSettings::default();
    let first = Queue::open(folder.path(), &settings, refusals())
        .await
        .unwrap();
    let second = Queue::open(folder.path(), &settings, refusals()).await;
    assert!(matches!(second.unwrap_err(), QueueError::InUse { .. }));
    let keys = first.jwks();
    first.close(Duration::ZERO).await;
    first.submit(job("x")).await.unwrap_err();
    let second = Queue::open(folder.path(), &settings, refusals())
        .await
        .unwrap();
    assert_eq!(second.jwks(), keys);
    second.close(Duration::ZERO).await;
}

#[tokio::test]
async fn closing_lets_running_jobs_end_and_begins_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let settings = QueueSettings {
        workers: 1,
        ..QueueSettings::default()
    };
    let queue = Queue::open(folder.path(), &settings, refusals())
        .await
        .unwrap();
    let script = Script::new();
    queue.run(script.clone());
    let running = queue.submit(job("gate")).await.unwrap().id;
    let waiting = queue.submit(job("later")).await.unwrap().id;
    script.started(1).await;
    let closing = tokio::spawn({
        let queue = queue.clone();
        async move { queue.close(PATIENCE).await }
    });
    script.gate.add_permits(1);
    closing.await.unwrap();
    assert_eq!(script.started(1).await, ["gate"]);

    let queue = Queue::open(folder.path(), &settings, refusals())
        .await
        .unwrap();
    assert_eq!(completed(&queue, running).await.1.status, 200);
    let view = queue.status(waiting).await.unwrap().unwrap();
    assert_eq!(view.progress, Progress::InQueue { position: 0 });
    queue.run(Script::new());
    assert_eq!(completed(&queue, waiting).await.1.status, 200);
    queue.close(PATIENCE).await;
}

#[tokio::test]
async fn a_job_cut_short_by_closing_runs_again_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    // Even one death would be too many, so this shows that closing is none.
    let settings = QueueSettings {
        max_crashes: 1,
        ..QueueSettings::default()
    };
    let queue = Queue::open(folder.path(), &settings, refusals())
        .await
        .unwrap();
    let script = Script::new();
    queue.run(script.clone());
    let id = queue.submit(job("gate")).await.unwrap().id;
    script.started(1).await;
    queue.close(Duration::ZERO).await;
    script.dropped(1).await;

    let queue = Queue::open(folder.path(), &settings, refusals())
        .await
        .unwrap();
    let script = Script::new();
    script.gate.add_permits(1);
    queue.run(script);
    let (view, result) = completed(&queue, id).await;
    assert_eq!(result.status, 200);
    let said: Vec<_> = view.logs.iter().map(|line| line.message.as_str()).collect();
    assert_eq!(said, ["at the gate", "at the gate", "through"]);
    queue.close(PATIENCE).await;
}
