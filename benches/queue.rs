//! Submits per second into the queue on disk, and how long one takes, while two workers answer jobs
//! at once: callers in a closed loop, few and many, which shows what the queue can do; and callers who
//! come at a fixed pace whatever happens, each timed from the moment at which it should have begun,
//! so that nobody who had to wait for another is left out. Then how long a look at a job takes that
//! has many ahead of it: for one who asks alone, and for many who ask while jobs come and go.
//!
//! `cargo bench --bench queue`, or with options after `--`: `--seconds 10 --callers 16 --many 64
//! --pace 500 --depth 20000 --dir PATH`. The figures depend on the disk, which syncs every commit;
//! `--dir` says which one.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench that cannot go on must stop, and prints what it measured"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use florence2_server::config::QueueSettings;
use florence2_server::queue::{
    Answerer, Answering, JobAnswer, JobLog, JobRequest, LogLevel, NewJob, Outcome, Priority, Queue,
    Refusals, WorkerSlot,
};
use uuid::Uuid;

/// A request as clients send it: a URL and little else.
const BODY: &[u8] = br#"{"image_url":"https://v3.fal.media/files/penguin/abcdefghijklmnopqrstuvw_picture.png","text_input":"a red car in front of a house"}"#;

/// An answer of usual size: a dozen boxes.
const ANSWER_BYTES: usize = 1200;

struct Options {
    time: Duration,
    callers: u32,
    /// Callers of the second case, and those who look at jobs.
    many: u32,
    /// Submits per second of the third case.
    pace: u32,
    /// Jobs ahead of the one that is looked at.
    depth: u32,
    dir: PathBuf,
}

fn options() -> Options {
    let mut options = Options {
        time: Duration::from_secs(10),
        callers: 16,
        many: 64,
        pace: 500,
        depth: 20_000,
        // On the disk of the build, because temporary folders are often memory.
        dir: PathBuf::from(env!("CARGO_TARGET_TMPDIR")),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--seconds" => {
                let seconds = words.next().and_then(|text| text.parse().ok());
                options.time = Duration::from_secs_f64(seconds.unwrap());
            }
            "--callers" => {
                let callers = words.next().and_then(|text| text.parse().ok());
                options.callers = callers.unwrap();
            }
            "--many" => {
                let many = words.next().and_then(|text| text.parse().ok());
                options.many = many.unwrap();
            }
            "--pace" => {
                let pace = words.next().and_then(|text| text.parse().ok());
                options.pace = pace.unwrap();
            }
            "--depth" => {
                let depth = words.next().and_then(|text| text.parse().ok());
                options.depth = depth.unwrap();
            }
            "--dir" => options.dir = words.next().unwrap().into(),
            // cargo adds a word of its own.
            _ => {}
        }
    }
    options
}

fn answer() -> JobAnswer {
    JobAnswer {
        status: 200,
        headers: vec![("content-type".into(), "application/json".into())],
        body: Bytes::from(vec![b' '; ANSWER_BYTES]),
        outcome: Outcome::Finished,
        error: None,
    }
}

struct AtOnce;

impl Answerer for AtOnce {
    fn answer<'a>(&'a self, _: JobRequest, log: &'a JobLog, _: &'a WorkerSlot) -> Answering<'a> {
        Box::pin(async move {
            log.push(LogLevel::Info, "picture 640 x 480, dense-region-caption");
            answer()
        })
    }
}

fn job() -> NewJob {
    NewJob {
        endpoint: "dense-region-caption".into(),
        content_type: Some("application/json".into()),
        body: Bytes::from_static(BODY),
        base: "http://127.0.0.1:8000/queue".into(),
        lifecycle: None,
        priority: Priority::Normal,
        start_by_ms: None,
        may_retry: true,
        webhook: None,
        max_queue_length: None,
        keep_payload: true,
    }
}

/// Submits jobs until the time is over; how long each took. With a pace, one every so often whatever
/// became of the one before, after a first delay; else one after the other.
async fn call(queue: Queue, until: Instant, pace: Option<(Duration, Duration)>) -> Vec<Duration> {
    let mut took = Vec::new();
    let mut due = Instant::now() + pace.map_or(Duration::ZERO, |(delay, _)| delay);
    while due < until {
        tokio::time::sleep_until(due.into()).await;
        queue.submit(job()).await.unwrap();
        took.push(due.elapsed());
        due = pace.map_or_else(Instant::now, |(_, every)| due + every);
    }
    took
}

async fn open(dir: &Path) -> Queue {
    let refusals = Refusals {
        cancelled: answer(),
        start_deadline: answer(),
        poisoned: answer(),
        panicked: answer(),
    };
    let settings = QueueSettings::default();
    Queue::open(dir, &settings, refusals).await.unwrap()
}

/// A share of sorted times, in milliseconds.
fn percentile(took: &[Duration], percent: usize) -> f64 {
    took[(took.len() - 1) * percent / 100].as_secs_f64() * 1000.0
}

async fn measure(options: &Options, dir: &Path, callers: u32, pace: Option<u32>) {
    let queue = open(dir).await;
    queue.run(Arc::new(AtOnce));
    let begun = Instant::now();
    let until = begun + options.time;
    let all: Vec<_> = (0..callers)
        .map(|number| {
            let pace = pace.map(|pace| {
                let every = Duration::from_secs(1) / pace;
                (every * number, every * callers)
            });
            tokio::spawn(call(queue.clone(), until, pace))
        })
        .collect();
    let mut took = Vec::new();
    for caller in all {
        took.extend(caller.await.unwrap());
    }
    let seconds = begun.elapsed().as_secs_f64();
    let counts = queue.counts().await.unwrap();
    queue.close(Duration::from_secs(5)).await;
    took.sort_unstable();
    let ms = |percent| percentile(&took, percent);
    println!(
        "{callers} callers, {}: {:.0} submits/s, p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms; {} submitted, {} of them answered meanwhile",
        pace.map_or("closed loop".into(), |pace| format!("{pace}/s asked for")),
        took.len() as f64 / seconds,
        ms(50),
        ms(99),
        ms(100),
        took.len(),
        took.len() as u64 - counts.waiting - counts.running,
    );
}

/// Looks at jobs until the time is over; how long each look took.
async fn look(queue: Queue, until: Instant, ids: Vec<Uuid>) -> Vec<Duration> {
    let mut took = Vec::new();
    for id in ids.iter().cycle() {
        let begun = Instant::now();
        if begun >= until {
            break;
        }
        assert!(queue.status(*id).await.unwrap().is_some());
        took.push(begun.elapsed());
    }
    took
}

/// Puts many jobs in line, and times looks at the last of them: alone, and with many who look while
/// jobs are handed in and answered.
async fn measure_looks(options: &Options, dir: &Path) {
    let queue = open(dir).await;
    let share = options.depth / options.many;
    let fillers: Vec<_> = (0..options.many)
        .map(|_| {
            let queue = queue.clone();
            tokio::spawn(async move {
                let mut ids = Vec::new();
                for _ in 0..share {
                    ids.push(queue.submit(job()).await.unwrap().id);
                }
                ids
            })
        })
        .collect();
    let mut last = Vec::new();
    for filler in fillers {
        last.extend(filler.await.unwrap().pop());
    }
    let until = Instant::now() + options.time / 5;
    let alone = look(queue.clone(), until, last.clone()).await;
    queue.run(Arc::new(AtOnce));
    let until = Instant::now() + options.time;
    let all: Vec<_> = (0..options.many)
        .map(|_| tokio::spawn(look(queue.clone(), until, last.clone())))
        .collect();
    let pace = Duration::from_secs(1) / options.pace;
    let submits = call(queue.clone(), until, Some((Duration::ZERO, pace))).await;
    let mut together = Vec::new();
    for looker in all {
        together.extend(looker.await.unwrap());
    }
    queue.close(Duration::from_secs(5)).await;
    for (who, mut took) in [
        ("one who looks".to_owned(), alone),
        (format!("{} who look", options.many), together),
        ("submits beside them".to_owned(), submits),
    ] {
        took.sort_unstable();
        let ms = |percent| percentile(&took, percent);
        println!(
            "{} jobs ahead, {who}: p50 {:.3} ms, p99 {:.3} ms, max {:.2} ms; {} times",
            options.depth,
            ms(50),
            ms(99),
            ms(100),
            took.len(),
        );
    }
}

fn machine() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("processor unknown", |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or_default();
    format!("{model}, {cores} cores, load {load} before")
}

fn main() {
    let options = options();
    println!("{}", machine());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let Options {
        callers,
        many,
        pace,
        ..
    } = options;
    for (callers, pace) in [
        (callers, None),
        (many, None),
        (callers, Some(pace)),
        (many, Some(pace)),
    ] {
        let folder = tempfile::tempdir_in(&options.dir).unwrap();
        runtime.block_on(measure(&options, folder.path(), callers, pace));
    }
    let folder = tempfile::tempdir_in(&options.dir).unwrap();
    runtime.block_on(measure_looks(&options, folder.path()));
}
