//! Large bodies against the real program: what one costs in memory while it is there, and that nobody
//! else waits while it is read. What the process keeps afterwards is printed and not judged here.

use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::Client;
use serde_json::Value;

use crate::support::child::Child;
use crate::support::pictures::data_uri;
use crate::support::server::client;

/// Bytes of a large body, below the default limit of 32 MiB.
const LARGE: usize = 31 << 20;

/// A real picture with so much behind it that the body in which it is sent is large.
fn large_picture() -> String {
    let mut file = crate::support::pictures::png(8, 8);
    file.resize(LARGE / 4 * 3 - 1024, 0);
    data_uri(&file)
}

fn body(image_url: &str) -> Bytes {
    Bytes::from(format!(r#"{{"image_url":"{image_url}"}}"#))
}

async fn post(client: &Client, url: &str, body: &Bytes) -> (u16, Value) {
    let request = client.post(url).header("content-type", "application/json");
    let response = request.body(body.clone()).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

/// Memory of a process, read from the system that keeps count of it.
#[cfg(target_os = "linux")]
mod memory {
    /// A figure of the process's status, in bytes.
    fn figure(process: u32, name: &str) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.unwrap().trim().trim_end_matches(" kB");
        kib.parse::<usize>().unwrap() << 10
    }

    pub(super) fn resident(process: u32) -> usize {
        figure(process, "VmRSS:")
    }

    /// The most since the last call of [`forget_peak`].
    pub(super) fn peak(process: u32) -> usize {
        figure(process, "VmHWM:")
    }

    /// Whether the system lets the peak be forgotten.
    pub(super) fn forget_peak(process: u32) -> bool {
        std::fs::write(format!("/proc/{process}/clear_refs"), "5").is_ok()
    }
}

/// Calls at once and through the queue.
struct Caller {
    child: Child,
    client: Client,
}

impl Caller {
    async fn start() -> Self {
        let child = Child::serve(&["--model", "demo"]).await;
        let client = client();
        let caller = Self { child, client };
        // What is made at the first use is no cost of a body.
        let small = body(&data_uri(&crate::support::pictures::png(8, 8)));
        caller.run(&small).await;
        caller.queue(&small).await;
        caller
    }

    async fn run(&self, body: &Bytes) {
        let url = self.child.url("caption");
        let (status, answer) = post(&self.client, &url, body).await;
        assert_eq!(status, 200, "{answer}");
    }

    async fn queue(&self, body: &Bytes) {
        let base = self.child.base();
        let url = format!("{base}/queue/fal-ai/florence-2-large/caption");
        let (status, submitted) = post(&self.client, &url, body).await;
        assert_eq!(status, 200, "{submitted}");
        let url = submitted["response_url"].as_str().unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let response = self.client.get(url).send().await.unwrap();
            if response.status() != 400 {
                assert_eq!(response.status(), 200);
                return;
            }
            assert!(Instant::now() < deadline, "the job is not done");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_large_body_adds_at_most_two_and_a_half_times_itself_at_its_peak() {
    let caller = Caller::start().await;
    let process = caller.child.id();
    if !memory::forget_peak(process) {
        eprintln!("skipped: this system does not let a process's peak memory be reset");
        return;
    }
    let picture = large_picture();
    // As encoders for mail write it, in lines.
    let lines: Vec<_> = picture.as_bytes().chunks(400).collect();
    let in_lines = String::from_utf8(lines.join(&br"\n"[..])).unwrap();
    for (name, body) in [("plain", body(&picture)), ("in lines", body(&in_lines))] {
        for way in ["run", "queue"] {
            // The first one sizes what is kept between calls.
            for round in 0..2 {
                // Includes what earlier calls left with the allocator, which this one may use again.
                let before = memory::resident(process);
                assert!(memory::forget_peak(process));
                match way {
                    "run" => caller.run(&body).await,
                    _ => caller.queue(&body).await,
                }
                let cost = memory::peak(process).saturating_sub(before);
                let times = cost as f64 / body.len() as f64;
                let after = memory::resident(process).saturating_sub(before) >> 20;
                println!("{way}, {name}, round {round}: {times:.2} times, {after} MiB kept");
                assert!(times <= 2.5, "{way}, {name}: {times:.2} times its size");
            }
        }
    }
    caller.child.stop("-TERM").await;
}

/// Milliseconds that each call of health took while `work` went on.
async fn health_during(base: &str, work: impl Future<Output = ()>) -> Vec<f64> {
    let (done, is_done) = std::sync::mpsc::channel::<()>();
    let url = format!("{base}/health/live");
    // On a thread and a runtime of its own, so that the sending of bodies delays nothing here.
    let asking = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        runtime.block_on(async {
            let (client, mut took) = (client(), Vec::new());
            while is_done.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                let begun = Instant::now();
                let response = client.get(&url).send().await.unwrap();
                assert_eq!(response.status(), 200);
                took.push(begun.elapsed().as_secs_f64() * 1e3);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            took
        })
    });
    work.await;
    drop(done);
    asking.join().unwrap()
}

/// The 99th percentile.
fn p99(mut took: Vec<f64>) -> f64 {
    took.sort_by(f64::total_cmp);
    took[(took.len() - 1) * 99 / 100]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_is_answered_in_time_while_large_bodies_are_read() {
    let caller = Caller::start().await;
    let url = caller.child.url("caption");
    let labels = body(&"1.".repeat(LARGE / 2 - 100));
    let picture = body(&large_picture());
    for (name, body, count, status) in [("labels", &labels, 4, 422), ("pictures", &picture, 6, 200)]
    {
        // The machine may be busy with something else: the best of three counts.
        let mut best = f64::INFINITY;
        for _ in 0..3 {
            let calls = (0..count).map(|_| post(&caller.client, &url, body));
            let calls = futures_util::future::join_all(calls);
            let took = health_during(caller.child.base(), async {
                for (found, answer) in calls.await {
                    assert_eq!(found, status, "{answer}");
                }
            })
            .await;
            println!("{name}: {} answers", took.len());
            best = best.min(p99(took));
            if best < 100.0 {
                break;
            }
        }
        println!("{name}: p99 of health {best:.1} ms");
        assert!(best < 100.0, "{name}: p99 of health {best:.1} ms");
    }
    caller.child.stop("-TERM").await;
}
