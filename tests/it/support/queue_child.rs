//! The queue as a process of its own (this test binary, started again), to be killed.
//!
//! Parent and child speak lines. On stdin `submit BODY`, `result ID`; on stdout, each line starting
//! with a mark that sets it apart from the test harness: `open`, `submitted ID BODY`,
//! `result ID STATUS BODY`. What the parent has read was said before the child died.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use florence2_server::config::QueueSettings;
use florence2_server::queue::{Answerer, Answering, JobLog, JobRequest, JobResult, Queue};
use uuid::Uuid;

use super::jobs::{PATIENCE, answer, job, refusals};

/// Sets our lines apart from the harness's.
const MARK: &str = "::";

const DIR: &str = "FLORENCE2_TEST_QUEUE_DIR";
const MAX_CRASHES: &str = "FLORENCE2_TEST_MAX_CRASHES";

/// Answers with the job's body and a number that no other attempt has, after a moment. A job with
/// the body `die` ends the process.
#[derive(Debug)]
pub(crate) struct Once;

impl Answerer for Once {
    fn answer<'a>(&'a self, request: &'a JobRequest, _: &'a JobLog) -> Answering<'a> {
        Box::pin(async move {
            if request.body.as_ref() == b"die" {
                std::process::abort();
            }
            let attempt = Uuid::new_v4();
            let moment = u64::from(attempt.as_bytes()[0]) % 8;
            tokio::time::sleep(Duration::from_millis(moment)).await;
            let body = std::str::from_utf8(&request.body).unwrap();
            answer(200, format!("{body}/{attempt}"))
        })
    }
}

/// The settings of the child, which are also those of whoever looks after it.
pub(crate) fn settings(max_crashes: u32) -> QueueSettings {
    QueueSettings {
        workers: 4,
        max_crashes,
        ..QueueSettings::default()
    }
}

/// Not a test of its own: what the process does.
#[test]
#[ignore = "started as a child process by other tests"]
fn queue_in_a_child_process() {
    let dir = std::env::var(DIR).unwrap();
    let max_crashes = std::env::var(MAX_CRASHES).unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let queue = runtime
        .block_on(Queue::open(
            Path::new(&dir),
            &settings(max_crashes),
            refusals(),
        ))
        .unwrap();
    let _guard = runtime.enter();
    queue.run(Arc::new(Once));
    // The harness has left its own line unfinished.
    say("\n");
    say("open");
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let queue = queue.clone();
        runtime.spawn(async move {
            let (command, rest) = line.split_once(' ').unwrap();
            match command {
                "submit" => {
                    let id = queue.submit(job(rest)).await.unwrap().id;
                    say(&format!("submitted {id} {rest}"));
                }
                "result" => {
                    let id = Uuid::parse_str(rest).unwrap();
                    if let Some(JobResult::Finished(result)) = queue.result(id).await.unwrap() {
                        let body = std::str::from_utf8(&result.body).unwrap();
                        say(&format!("result {id} {} {body}", result.status));
                    }
                }
                other => panic!("no such command: {other}"),
            }
        });
    }
}

fn say(line: &str) {
    // One write, so that lines of several threads do not mix.
    let mut stdout = std::io::stdout();
    stdout
        .write_all(format!("{MARK}{line}\n").as_bytes())
        .unwrap();
    stdout.flush().unwrap();
}

/// What the child says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Open,
    Submitted { id: Uuid, body: String },
    Result { id: Uuid, status: u16, body: String },
}

fn parse(line: &str) -> Option<Said> {
    let line = line.strip_prefix(MARK)?;
    let words: Vec<_> = line.split(' ').collect();
    match words[..] {
        ["open"] => Some(Said::Open),
        ["submitted", id, body] => Some(Said::Submitted {
            id: id.parse().unwrap(),
            body: body.into(),
        }),
        ["result", id, status, body] => Some(Said::Result {
            id: id.parse().unwrap(),
            status: status.parse().unwrap(),
            body: body.into(),
        }),
        _ => None,
    }
}

/// A running child.
pub(crate) struct QueueChild {
    process: Child,
    stdin: ChildStdin,
    said: Receiver<Said>,
}

impl QueueChild {
    /// Starts a child on a directory.
    pub(crate) fn start(dir: &Path, max_crashes: u32) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "support::queue_child::queue_in_a_child_process"])
            .args(["--ignored", "--nocapture"])
            .env(DIR, dir)
            .env(MAX_CRASHES, max_crashes.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        let (sender, said) = channel();
        std::thread::spawn(move || {
            // A line that the kill cut off has not been said.
            let whole = stdout.split(b'\n').map_while(Result::ok);
            let lines = whole.map(|line| String::from_utf8(line).unwrap());
            for said in lines.filter_map(|line| parse(&line)) {
                if sender.send(said).is_err() {
                    return;
                }
            }
        });
        Self {
            stdin: process.stdin.take().unwrap(),
            process,
            said,
        }
    }

    /// Tells the child something, if it is still there.
    pub(crate) fn tell(&mut self, line: &str) {
        // It may be dead by the time.
        let _ = writeln!(self.stdin, "{line}");
    }

    /// The next thing it says; none once it is dead and all was read.
    pub(crate) fn next(&self) -> Option<Said> {
        self.next_within(PATIENCE)
    }

    /// The same, for at most this long.
    pub(crate) fn next_within(&self, time: Duration) -> Option<Said> {
        self.said.recv_timeout(time).ok()
    }

    /// Kills it as a power cut would, and gives what it had said.
    pub(crate) fn kill(mut self) -> Vec<Said> {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.said.iter().collect()
    }

    /// Waits until it has died by itself.
    pub(crate) fn dies(mut self) {
        let status = self.process.wait().unwrap();
        assert!(!status.success(), "{status}");
    }
}
