//! `kill -9` at any moment: no job that was accepted is lost, none has two results, and the next
//! process is at work at once.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use florence2_server::queue::{JobResult, Progress, Queue};
use uuid::Uuid;

use crate::support::jobs::{PATIENCE, completed, refusals};
use crate::support::queue_child::{Once, QueueChild, Said, settings};

/// Kills.
const ROUNDS: usize = 20;

/// Jobs in line or running when the kill comes, at least: so many are submitted in every round, on
/// top of those that the rounds before have left.
const JOBS: usize = 200;

/// Time for the next process to accept a job.
const ACCEPTING_WITHIN: Duration = Duration::from_secs(5);

/// What the parent knows.
#[derive(Default)]
struct Known {
    /// Every job whose id was given out, with its body.
    accepted: HashMap<Uuid, String>,
    /// Every answer that was ever seen.
    seen: HashMap<Uuid, String>,
}

impl Known {
    fn hear(&mut self, said: Said) {
        match said {
            Said::Open => {}
            Said::Submitted { id, body } => {
                let twin = self.accepted.insert(id, body);
                assert_eq!(twin, None, "{id} was given out twice");
            }
            Said::Result { id, status, body } => {
                assert_eq!(status, 200, "{id}: {body}");
                self.compare(id, &body);
            }
        }
    }

    /// Holds an answer against its job and against what was seen of it before.
    fn compare(&mut self, id: Uuid, answer: &str) {
        let (body, _) = answer.split_once('/').unwrap();
        assert_eq!(body, self.accepted[&id], "{id} has another job's answer");
        let before = self.seen.insert(id, answer.to_owned());
        assert!(
            before.as_ref().is_none_or(|before| before == answer),
            "{id} had {before:?} and has {answer}"
        );
    }
}

/// A number below a bound, from the system's randomness.
fn random(below: u64) -> u64 {
    let bits = Uuid::new_v4().as_u128() & u128::from(u32::MAX);
    u64::try_from(bits).unwrap() % below
}

/// Starts a child, gives it work, and kills it at a random moment: while it starts, while it accepts
/// jobs, or while it works through them. Says how long it took to accept one, if it came to that.
fn round(dir: &Path, number: usize, known: &mut Known) -> Option<Duration> {
    let begun = Instant::now();
    // Jobs that happen to run at several kills must not count as their cause here.
    let mut child = QueueChild::start(dir, 1000);
    for job in 0..JOBS {
        child.tell(&format!("submit {number}-{job}"));
    }
    // What was answered before must be answered still, and the same.
    for id in known.accepted.keys().take(JOBS) {
        child.tell(&format!("result {id}"));
    }
    // Every fourth kill may come at any time; the others leave time for work.
    let lead = if number.is_multiple_of(4) {
        None
    } else {
        let said = child.next();
        assert_eq!(said, Some(Said::Open));
        known.hear(child.next().expect("a job is accepted"));
        Some(begun.elapsed())
    };
    let moment = Instant::now() + Duration::from_millis(random(300));
    while let Some(left) = moment.checked_duration_since(Instant::now()) {
        if let Some(said) = child.next_within(left) {
            known.hear(said);
        }
    }
    for said in child.kill() {
        known.hear(said);
    }
    lead
}

#[tokio::test]
async fn no_accepted_job_is_lost_or_answered_twice_by_twenty_kills() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_owned();
    let killing = tokio::task::spawn_blocking(move || {
        let mut known = Known::default();
        let mut slowest = Duration::ZERO;
        for number in 0..ROUNDS {
            let accepting_after = round(&dir, number, &mut known);
            slowest = slowest.max(accepting_after.unwrap_or_default());
        }
        (known, slowest)
    });
    let (mut known, slowest) = killing.await.unwrap();
    let ids: Vec<_> = known.accepted.keys().copied().collect();
    println!(
        "{} jobs accepted, {} answers seen between {ROUNDS} kills, accepting again within {slowest:?}",
        ids.len(),
        known.seen.len()
    );
    assert!(ids.len() > ROUNDS, "the kills came before the jobs");
    assert!(slowest < ACCEPTING_WITHIN, "accepting after {slowest:?}");

    let queue = Queue::open(folder.path(), &settings(1000), refusals())
        .await
        .unwrap();
    let left = queue.counts().await.unwrap();
    println!("{left:?} after the last kill");
    queue.run(std::sync::Arc::new(Once));
    for id in ids {
        let (_, result) = completed(&queue, id).await;
        assert_eq!(result.status, 200);
        known.compare(id, std::str::from_utf8(&result.body).unwrap());
        let again = queue.result(id).await.unwrap();
        assert_eq!(again, Some(JobResult::Finished(result)));
    }
    queue.close(PATIENCE).await;
}

#[tokio::test]
async fn a_job_that_kills_the_process_three_times_is_failed_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = QueueChild::start(folder.path(), 3);
    assert_eq!(child.next(), Some(Said::Open));
    child.tell("submit die");
    let Some(Said::Submitted { id, .. }) = child.next() else {
        panic!("the job was not accepted before it killed")
    };
    child.dies();
    for _ in 0..2 {
        QueueChild::start(folder.path(), 3).dies();
    }
    let queue = Queue::open(folder.path(), &settings(3), refusals())
        .await
        .unwrap();
    let (view, result) = completed(&queue, id).await;
    assert_eq!(result.status, 500);
    let Progress::Completed { error, .. } = view.progress else {
        panic!("not completed")
    };
    assert_eq!(error.unwrap().error_type, "poisoned");
    queue.close(PATIENCE).await;
}
