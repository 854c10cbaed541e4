//! `kill -9` at any moment: no job that was accepted is lost, none has two results, and the next
//! process is at work at once. Through HTTP, as clients meet it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::Client;
use serde_json::Value;

use crate::support::fake_model::{FakeModel, Reply};
use crate::support::server::{TestServer, client, send};
use crate::support::victim::{Victim, backlog, colour, name_the_colour, picture};

/// Kills.
const ROUNDS: u32 = 20;

/// Jobs in line or running at every kill, at least.
const BACKLOG: u64 = 200;

/// Jobs handed in before the first kill, and in every round: more than are answered between kills.
const FIRST_JOBS: u32 = 400;
const JOBS: u32 = 80;

/// Callers at once, of each kind.
const CALLERS: u32 = 4;

/// Time for the next process to accept a job once it is ready.
const ACCEPTING_WITHIN: Duration = Duration::from_secs(5);

/// Deaths that would make a job their cause. Jobs that happen to run at several kills must not.
const NEVER: u32 = 1000;

/// What the callers know.
#[derive(Default)]
struct Known {
    /// Every job whose id was given out, with the name of its colour.
    accepted: HashMap<String, String>,
    /// Every answer that was ever seen, without its quotes.
    seen: HashMap<String, String>,
}

impl Known {
    fn accept(&mut self, id: &str, colour: String) {
        let twin = self.accepted.insert(id.to_owned(), colour);
        assert_eq!(twin, None, "{id} was given out twice");
    }

    /// Holds an answer against its job and against what was seen of it before.
    fn see(&mut self, id: &str, body: &Value) {
        let answer = body["results"].as_str().unwrap().to_owned();
        let (named, _) = answer.split_once('/').unwrap();
        assert_eq!(named, self.accepted[id], "{id} has another job's answer");
        let before = self.seen.insert(id.to_owned(), answer.clone());
        assert!(
            before.as_ref().is_none_or(|before| *before == answer),
            "{id} had {before:?} and has {answer}"
        );
    }
}

type Shared = Arc<Mutex<Known>>;

/// Hands jobs in until all are accepted or the server is gone.
async fn submit(client: Client, base: String, jobs: Vec<u32>, known: Shared) {
    let url = format!("{base}/queue/fal-ai/florence-2-large/caption");
    for job in jobs {
        let (colour, name) = colour(job);
        let request = client.post(&url).json(&picture(colour));
        // A kill may come before the answer, or within it.
        let Ok(answer) = request.send().await else {
            return;
        };
        assert_eq!(answer.status(), 200);
        let Ok(body) = answer.json::<Value>().await else {
            return;
        };
        let id = body["request_id"].as_str().unwrap();
        known.lock().unwrap().accept(id, name);
    }
}

/// Asks for the results of jobs until the server is gone.
async fn fetch(client: Client, base: String, ids: Vec<String>, known: Shared) {
    for id in ids.iter().cycle() {
        let url = format!("{base}/fal-ai/florence-2-large/requests/{id}");
        let Ok(answer) = client.get(url).send().await else {
            return;
        };
        let status = answer.status();
        let Ok(body) = answer.json::<Value>().await else {
            return;
        };
        match status.as_u16() {
            200 => known.lock().unwrap().see(id, &body),
            // Not finished.
            400 => {}
            other => panic!("{id} is answered with {other}: {body}"),
        }
    }
}

/// A number below a bound, from the system's randomness.
fn random(below: u64) -> u64 {
    let bits = uuid::Uuid::new_v4().as_u128() & u128::from(u32::MAX);
    u64::try_from(bits).unwrap() % below
}

/// Starts callers with jobs of their own, and others who ask for what is known.
fn call(
    client: &Client,
    base: &str,
    jobs: &[u32],
    known: &Shared,
) -> Vec<tokio::task::JoinHandle<()>> {
    let mut ids: Vec<_> = known.lock().unwrap().accepted.keys().cloned().collect();
    ids.sort();
    let callers = (0..CALLERS).map(|caller| {
        let mine = jobs.iter().filter(|job| **job % CALLERS == caller);
        let mine = mine.copied().collect();
        tokio::spawn(submit(client.clone(), base.into(), mine, Arc::clone(known)))
    });
    let mut all: Vec<_> = callers.collect();
    let asking = fetch(client.clone(), base.into(), ids, Arc::clone(known));
    all.push(tokio::spawn(asking));
    all
}

/// Has a server accept the first jobs, and kills it.
async fn fill(dir: &Path, known: &Shared) {
    let mut victim = Victim::start(dir, NEVER);
    let base = victim.ready().await;
    let jobs: Vec<_> = (0..FIRST_JOBS).collect();
    for caller in call(&client(), &base, &jobs, known) {
        caller.await.unwrap();
    }
    victim.kill();
    assert_eq!(known.lock().unwrap().accepted.len(), FIRST_JOBS as usize);
}

/// Starts a server, calls it, and kills it at a random moment. Says how long it took to accept a job
/// once it was ready, and how many jobs it had shortly before its death.
async fn round(dir: &Path, number: u32, known: &Shared) -> (Duration, u64) {
    let client = client();
    let mut victim = Victim::start(dir, NEVER);
    let base = victim.ready().await;
    let ready = Instant::now();
    let begin = FIRST_JOBS + number * JOBS;
    let (first, others) = (begin, begin + 1..begin + JOBS);
    submit(client.clone(), base.clone(), vec![first], Arc::clone(known)).await;
    let accepting_after = ready.elapsed();
    let others: Vec<_> = others.collect();
    let callers = call(&client, &base, &others, known);
    tokio::time::sleep(Duration::from_millis(random(400))).await;
    let backlog = backlog(&client, &base).await.unwrap();
    tokio::time::sleep(Duration::from_millis(random(20))).await;
    victim.kill();
    for caller in callers {
        caller.await.unwrap();
    }
    (accepting_after, backlog)
}

/// Kills a server that may not even have begun: while it opens the queue, puts interrupted jobs back
/// in line, or runs the first of them.
async fn interrupt_the_start(dir: &Path) {
    let victim = Victim::start(dir, NEVER);
    tokio::time::sleep(Duration::from_millis(random(300))).await;
    victim.kill();
}

#[tokio::test]
async fn no_accepted_job_is_lost_or_answered_twice_by_twenty_kills() {
    let folder = tempfile::tempdir().unwrap();
    let known = Shared::default();
    fill(folder.path(), &known).await;
    let mut slowest = Duration::ZERO;
    let mut smallest = u64::MAX;
    for number in 0..ROUNDS {
        let (accepting_after, backlog) = round(folder.path(), number, &known).await;
        slowest = slowest.max(accepting_after);
        smallest = smallest.min(backlog);
        if number % 4 == 0 {
            interrupt_the_start(folder.path()).await;
        }
    }
    let (accepted, seen) = {
        let known = known.lock().unwrap();
        (known.accepted.clone(), known.seen.len())
    };
    println!(
        "{} jobs accepted, {seen} of them answered between {ROUNDS} kills; at least {smallest} in line or running at each; accepting again {slowest:?} after readiness",
        accepted.len(),
    );
    assert!(slowest < ACCEPTING_WITHIN, "accepting after {slowest:?}");
    assert!(smallest >= BACKLOG, "only {smallest} jobs at a kill");
    assert!(seen > 0, "nothing was answered between the kills");

    let model = FakeModel::new(|_, input| Reply::Text(name_the_colour(input)));
    let server = TestServer::with(model.0, |settings| {
        settings.data_dir = Some(folder.path().into());
    })
    .await;
    for id in accepted.keys() {
        let answer = server.wait_for_result(id).await;
        assert_eq!(answer.status, 200, "{id}: {answer:?}");
        known.lock().unwrap().see(id, &answer.json());
    }
    for id in accepted.keys() {
        let again = server.result(id).await;
        known.lock().unwrap().see(id, &again.json());
    }
}

#[tokio::test]
async fn a_job_that_kills_the_process_three_times_is_failed_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut victim = Victim::start(folder.path(), 3);
    let base = victim.ready().await;
    let url = format!("{base}/queue/fal-ai/florence-2-large/caption");
    let request = client().post(url).json(&picture([255; 3]));
    let id = send(request).await.json()["request_id"]
        .as_str()
        .unwrap()
        .to_owned();
    victim.dies().await;
    for _ in 0..2 {
        Victim::start(folder.path(), 3).dies().await;
    }
    let server = TestServer::with(FakeModel::saying("alive"), |settings| {
        settings.data_dir = Some(folder.path().into());
    })
    .await;
    let status = server.wait_for(&id, "COMPLETED").await;
    assert_eq!(status["error_type"], "runner_server_error");
    let result = server.result(&id).await;
    assert_eq!(result.status, 500);
    assert_eq!(result.json()["error_type"], "runner_server_error");
    // Others go on.
    let next = server.submit("caption", &picture([1; 3])).await;
    assert_eq!(
        server.wait_for_result(&next).await.json()["results"],
        "alive"
    );
}
