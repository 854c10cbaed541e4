//! A job that kills the server fails, and none beside it; kills from outside fail nobody. With real
//! processes that really die.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::fake_model::{FakeModel, Reply};
use crate::support::server::{TestServer, client, send};
use crate::support::victim::{
    DEADLY, SLOW, Setup, Victim, backlog, colour, name_the_colour, picture,
};

/// A delay short enough for a test, and long beside what a job takes.
const SHORT_DELAY: Duration = Duration::from_millis(50);

/// Longest wait for a victim to die or to finish its work.
const PATIENCE: Duration = Duration::from_secs(60);

/// Jobs that were accepted, with the names of their colours.
type Jobs = HashMap<String, String>;

/// Hands jobs in. Whoever is gone meanwhile has accepted those that were answered.
async fn submit(base: &str, jobs: impl IntoIterator<Item = [u8; 3]>, accepted: &mut Jobs) {
    let client = client();
    let url = format!("{base}/queue/fal-ai/florence-2-large/caption");
    for [r, g, b] in jobs {
        let request = client.post(&url).json(&picture([r, g, b]));
        let Ok(answer) = request.send().await else {
            return;
        };
        assert_eq!(answer.status(), 200);
        let Ok(body) = answer.json::<Value>().await else {
            return;
        };
        let id = body["request_id"].as_str().unwrap().to_owned();
        accepted.insert(id, format!("{r},{g},{b}"));
    }
}

/// Innocent jobs from a number on.
fn innocents(numbers: std::ops::Range<u32>) -> impl Iterator<Item = [u8; 3]> {
    numbers.map(|number| colour(number).0)
}

/// Starts victims until one has done all its work; gives the number that died before.
async fn run_until_done(dir: &Path, setup: Setup) -> u32 {
    let begun = Instant::now();
    let mut deaths = 0;
    loop {
        let mut victim = Victim::with(dir, setup);
        let base = victim.ready().await;
        let client = client();
        while !victim.is_dead() {
            assert!(begun.elapsed() < PATIENCE, "it neither dies nor ends");
            if backlog(&client, &base).await == Some(0) {
                victim.kill();
                return deaths;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        deaths += 1;
    }
}

/// Holds every job's answer against its job, and says how many failed.
async fn failures(dir: &Path, accepted: &Jobs) -> Vec<String> {
    let model = FakeModel::new(|_, input| Reply::Text(name_the_colour(input)));
    let server = TestServer::with(model.0, |settings| {
        settings.data_dir = Some(dir.into());
        settings.queue.suspect_delay = Duration::ZERO;
    })
    .await;
    let mut failed = Vec::new();
    for (id, name) in accepted {
        let answer = server.wait_for_result(id).await;
        if answer.status == 200 {
            let text = answer.json()["results"].as_str().unwrap().to_owned();
            assert_eq!(text.split_once('/').unwrap().0, name);
            continue;
        }
        assert_eq!(answer.status, 500, "{answer:?}");
        assert_eq!(answer.json()["error_type"], "runner_server_error");
        failed.push(name.clone());
    }
    failed
}

/// A job that kills in the middle of 500 others, with this many workers.
async fn only_the_killer_fails(workers: usize) {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup {
        workers,
        suspect_delay: SHORT_DELAY,
        ..Setup::default()
    };
    let mut accepted = Jobs::new();
    let mut next = 0;
    // The killer may be at work before the last innocent is there.
    while accepted.len() < 501 {
        let mut victim = Victim::with(folder.path(), setup);
        let base = victim.ready().await;
        if accepted.is_empty() {
            submit(&base, innocents(0..250), &mut accepted).await;
            submit(&base, [DEADLY], &mut accepted).await;
            next = 250;
        }
        let before = accepted.len();
        submit(&base, innocents(next..500), &mut accepted).await;
        next += u32::try_from(accepted.len() - before).unwrap();
        victim.kill();
    }
    let deaths = run_until_done(folder.path(), setup).await;
    let failed = failures(folder.path(), &accepted).await;
    println!("{workers} workers: {deaths} deaths by the job that kills");
    assert_eq!(failed, ["255,255,255"]);
    assert!((1..=4).contains(&deaths), "{deaths} deaths");
}

#[tokio::test]
async fn two_workers_only_the_killer_of_501_jobs_fails() {
    only_the_killer_fails(2).await;
}

#[tokio::test]
async fn four_workers_only_the_killer_of_501_jobs_fails() {
    only_the_killer_fails(4).await;
}

#[tokio::test]
async fn eight_workers_only_the_killer_of_501_jobs_fails() {
    only_the_killer_fails(8).await;
}

/// Starts a server and kills it at this time after it was ready.
async fn kill_after(dir: &Path, ms: u64) {
    let mut victim = Victim::with(dir, Setup::default());
    victim.ready().await;
    tokio::time::sleep(Duration::from_millis(ms)).await;
    victim.kill();
}

/// Has a server accept jobs and kills it.
async fn accept(dir: &Path, jobs: impl IntoIterator<Item = [u8; 3]>) -> Jobs {
    let mut accepted = Jobs::new();
    let mut victim = Victim::with(dir, Setup::default());
    let base = victim.ready().await;
    submit(&base, jobs, &mut accepted).await;
    victim.kill();
    accepted
}

#[tokio::test]
async fn five_quick_kills_right_after_the_start_fail_nobody() {
    // Many jobs, and one that is always the only one.
    let many = tempfile::tempdir().unwrap();
    let lone = tempfile::tempdir().unwrap();
    let accepted = [
        accept(many.path(), innocents(0..50)).await,
        accept(lone.path(), [SLOW]).await,
    ];
    for ms in [0, 5, 30, 80, 200] {
        tokio::join!(kill_after(many.path(), ms), kill_after(lone.path(), ms));
    }
    for (dir, accepted) in [many, lone].iter().zip(&accepted) {
        assert_eq!(failures(dir.path(), accepted).await, [""; 0]);
    }
}

#[tokio::test]
async fn kills_at_least_a_second_apart_fail_no_innocent() {
    // A job of two seconds is hit whenever it runs; quick ones run beside it.
    let lone = tempfile::tempdir().unwrap();
    let many = tempfile::tempdir().unwrap();
    let accepted = [
        accept(lone.path(), [SLOW]).await,
        accept(many.path(), innocents(0..400).chain([SLOW])).await,
    ];
    for _ in 0..5 {
        tokio::join!(kill_after(lone.path(), 1300), kill_after(many.path(), 1100));
    }
    for (dir, accepted) in [lone, many].iter().zip(&accepted) {
        assert_eq!(failures(dir.path(), accepted).await, [""; 0]);
    }
}

#[tokio::test]
#[ignore = "takes minutes: a thousand jobs, twenty kills from outside, and a job that kills"]
async fn slow_thousand_jobs_twenty_kills_beside_a_killer() {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::default();
    let mut accepted = Jobs::new();
    let mut victim = Victim::with(folder.path(), setup);
    let base = victim.ready().await;
    submit(&base, innocents(0..400), &mut accepted).await;
    victim.kill();
    let mut next = 400;
    let (mut kills, mut own_deaths) = (0_u32, 0);
    let mut is_in = false;
    while kills < 20 || next < 1000 {
        let mut victim = Victim::with(folder.path(), setup);
        let base = victim.ready().await;
        let ready = Instant::now();
        if kills >= 2 && !is_in {
            let before = accepted.len();
            submit(&base, [DEADLY], &mut accepted).await;
            is_in = accepted.len() > before;
        }
        let before = accepted.len();
        let until = (next + 40).min(1000);
        submit(&base, innocents(next..until), &mut accepted).await;
        next += u32::try_from(accepted.len() - before).unwrap();
        let kill_at = Duration::from_millis(1000 + u64::from(kills) * 97 % 700);
        while ready.elapsed() < kill_at && !victim.is_dead() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if victim.is_dead() {
            own_deaths += 1;
        } else {
            kills += 1;
            victim.kill();
        }
    }
    own_deaths += run_until_done(folder.path(), setup).await;
    let failed = failures(folder.path(), &accepted).await;
    println!(
        "{} jobs, {kills} kills from outside, {own_deaths} deaths by the job that kills, failed: {failed:?}",
        accepted.len()
    );
    assert_eq!(accepted.len(), 1001);
    assert_eq!(failed, ["255,255,255"]);
}

#[tokio::test]
async fn a_suspect_is_shown_in_line_behind_all_others_and_can_be_cancelled() {
    let folder = tempfile::tempdir().unwrap();
    let accepted = accept(folder.path(), [SLOW]).await;
    let suspect = accepted.keys().next().unwrap();
    kill_after(folder.path(), 300).await;
    let mut victim = Victim::with(folder.path(), Setup::default());
    let base = victim.ready().await;
    let mut others = Jobs::new();
    submit(&base, [SLOW; 4], &mut others).await;
    let job = format!("{base}/fal-ai/florence-2-large/requests/{suspect}");
    let status = send(client().get(format!("{job}/status"))).await.json();
    assert_eq!(status["status"], "IN_QUEUE");
    // Two are being worked on.
    let position = status["queue_position"].as_u64().unwrap();
    assert!((2..=4).contains(&position), "{status}");
    let cancelled = send(client().put(format!("{job}/cancel"))).await;
    assert_eq!(cancelled.status, 202, "{cancelled:?}");
    assert_eq!(send(client().get(&job)).await.status, 499);
    victim.kill();
}
