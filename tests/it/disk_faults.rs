//! The disk of a running server fills up, turns read-only, or fails: nothing that was accepted is lost,
//! callers and operators are told, and everything goes on by itself once the disk does.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::Client;
use serde_json::Value;

use crate::support::fake_model::{FakeModel, Reply};
use crate::support::io_faults::{EIO, ENOSPC, EROFS, IoFaults};
use crate::support::server::{Answer, TestServer, client, send};
use crate::support::victim::{Victim, colour, name_the_colour, picture};

/// Time within which something must happen on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Longest time to stop while the disk fails; the drain alone may take thirty seconds.
const STOPS_WITHIN: Duration = Duration::from_secs(8);

/// Jobs that wait when the disk begins to fail.
const JOBS: u32 = 40;

/// A server, and every job that it accepted with the name of its colour.
struct Caller {
    client: Client,
    base: String,
    accepted: HashMap<String, String>,
    next: u32,
}

impl Caller {
    fn of(base: String) -> Self {
        let (client, accepted) = (client(), HashMap::new());
        let next = 0;
        Self {
            client,
            base,
            accepted,
            next,
        }
    }

    async fn get(&self, path: &str) -> Answer {
        send(self.client.get(format!("{}{path}", self.base))).await
    }

    /// Hands a job in.
    async fn submit(&mut self) -> Answer {
        let (colour, name) = colour(self.next);
        self.next += 1;
        let url = format!("{}/queue/fal-ai/florence-2-large/caption", self.base);
        let answer = send(self.client.post(url).json(&picture(colour))).await;
        if answer.status == 200 {
            let id = answer.json()["request_id"].as_str().unwrap().to_owned();
            assert_eq!(self.accepted.insert(id, name), None);
        }
        answer
    }

    async fn submit_many(&mut self, jobs: u32) {
        for _ in 0..jobs {
            assert_eq!(self.submit().await.status, 200);
        }
    }

    /// Waits for what must become true, looking again and again.
    async fn wait(&mut self, what: &str, mut holds: impl AsyncFnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self).await {
            assert!(Instant::now() < deadline, "{what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Hands jobs in until one is refused, and checks how.
    async fn is_refused(&mut self) {
        self.wait("a job is refused", async |caller| {
            let answer = caller.submit().await;
            if answer.status == 200 {
                return false;
            }
            assert_eq!(answer.status, 503, "{answer:?}");
            let body = answer.json();
            assert!(body["detail"].is_string(), "{body}");
            assert!(body["error_type"].is_string(), "{body}");
            true
        })
        .await;
    }

    /// Waits until the server says that its store fails, and checks what it says.
    async fn is_unready(&mut self, reason: &str) {
        self.wait("readiness tells of the store", async |caller| {
            let answer = caller.get("/health/ready").await;
            let body = answer.json();
            let is_told = answer.status == 503 && body["status"] == "store_unavailable";
            // The first failure may be of another kind than those that follow.
            is_told
                && body["reason"] == reason
                && caller.metric("florence2_store_healthy").await == Some(0)
        })
        .await;
    }

    /// Waits until the server is ready and takes a job again.
    async fn is_mended(&mut self) {
        self.wait("the server is ready again", async |caller| {
            caller.get("/health/ready").await.status == 200
        })
        .await;
        assert_eq!(self.submit().await.status, 200);
        assert_eq!(self.metric("florence2_store_healthy").await, Some(1));
        let failures = "florence2_store_errors_total{operation=\"write\"}";
        assert!(self.metric(failures).await > Some(0));
    }

    async fn metric(&self, name: &str) -> Option<u64> {
        let text = self.get("/metrics").await.text;
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map(|value| value.parse().unwrap())
    }

    /// Waits until every accepted job has its one answer, and checks that it is its own.
    async fn all_are_answered(&mut self) {
        for (id, name) in &self.accepted {
            let url = format!("/queue/fal-ai/florence-2-large/requests/{id}");
            let deadline = Instant::now() + PATIENCE;
            let answer = loop {
                let answer = self.get(&url).await;
                if answer.status != 400 {
                    break answer;
                }
                assert!(Instant::now() < deadline, "{id} is not answered");
                tokio::time::sleep(Duration::from_millis(20)).await;
            };
            assert_eq!(answer.status, 200, "{answer:?}");
            let text = named(&answer.json(), name);
            assert_eq!(named(&self.get(&url).await.json(), name), text);
        }
    }
}

/// The text of an answer, which must name the colour.
fn named(body: &Value, name: &str) -> String {
    let text = body["results"].as_str().unwrap();
    assert_eq!(text.split_once('/').unwrap().0, name);
    text.to_owned()
}

/// Whether this machine lets the test mount something of its own.
fn may_mount() -> bool {
    let tried = Command::new("unshare")
        .args(["-m", "sh", "-c", "mount -t tmpfs tmpfs /mnt"])
        .stderr(Stdio::null())
        .status();
    let may = tried.is_ok_and(|status| status.success());
    if !may {
        eprintln!("skipped: no private mounts are permitted here");
    }
    may
}

/// Runs a process on a small disk that nobody else sees.
const ON_A_SMALL_DISK: &str =
    r#"exec unshare -m sh -c 'mount -t tmpfs -o size=6m tmpfs "$DIR" && exec "$@"' sh "$@""#;

/// Fills the disk behind a folder to the last byte.
fn fill(folder: &Path) -> PathBuf {
    let path = folder.join("filler");
    let mut file = File::create(&path).unwrap();
    for size in [1 << 16, 1 << 12, 1] {
        while file.write_all(&vec![b'x'; size]).is_ok() {}
    }
    path
}

#[tokio::test]
async fn a_full_disk_stops_jobs_only_while_it_is_full() {
    if !may_mount() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut victim = Victim::start_in(ON_A_SMALL_DISK, folder.path(), &[]);
    let mut caller = Caller::of(victim.ready().await);
    // The disk as the process sees it.
    let inside = format!("/proc/{}/root{}", victim.pid(), folder.path().display());
    caller.submit_many(JOBS).await;
    let filler = fill(Path::new(&inside));
    caller.is_refused().await;
    caller
        .is_unready("The disk of the job store is full.")
        .await;
    let upload = format!("{}/files/upload", caller.base);
    let upload = send(caller.client.post(upload).body(vec![b'x'; 1 << 16])).await;
    assert_eq!(upload.status, 507, "{upload:?}");
    // The other program needs its four seconds.
    tokio::time::sleep(Duration::from_secs(4)).await;
    std::fs::remove_file(filler).unwrap();
    caller.is_mended().await;
    caller.all_are_answered().await;
    let took = victim.terminate().await;
    assert!(took < STOPS_WITHIN, "stopping took {took:?}");
}

async fn a_failing_disk_is_overcome(errno: i64, reason: &str) {
    let Some(faults) = IoFaults::compile() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let environment = faults.environment(folder.path());
    let environment = environment
        .each_ref()
        .map(|(name, path)| (*name, path.as_path()));
    let mut victim = Victim::start_in("exec \"$@\"", folder.path(), &environment);
    let mut caller = Caller::of(victim.ready().await);
    caller.submit_many(JOBS).await;
    faults.begin(errno);
    caller.is_refused().await;
    caller.is_unready(reason).await;
    faults.end();
    caller.is_mended().await;
    caller.all_are_answered().await;
    // Once more, and the server is stopped in the middle of it.
    caller.submit_many(JOBS).await;
    faults.begin(errno);
    caller.is_refused().await;
    let took = victim.terminate().await;
    assert!(took < STOPS_WITHIN, "stopping took {took:?}");
    faults.end();
    let model = FakeModel::new(|_, input| Reply::Text(name_the_colour(input)));
    let server = TestServer::with(model.0, |settings| {
        settings.data_dir = Some(folder.path().into());
    })
    .await;
    caller.base = server.base.clone();
    caller.all_are_answered().await;
}

#[tokio::test]
async fn a_disk_without_room_is_overcome() {
    a_failing_disk_is_overcome(ENOSPC, "The disk of the job store is full.").await;
}

#[tokio::test]
async fn a_disk_that_fails_is_overcome() {
    a_failing_disk_is_overcome(EIO, "The disk of the job store fails.").await;
}

#[tokio::test]
async fn a_disk_that_turned_read_only_is_overcome() {
    a_failing_disk_is_overcome(EROFS, "The disk of the job store is read-only.").await;
}

#[tokio::test]
async fn a_read_only_disk_is_refused_at_the_start() {
    if !may_mount() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let script = r#"mount -t tmpfs -o ro tmpfs "$0" && exec "$@""#;
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", script])
        .arg(folder.path())
        .arg(env!("CARGO_BIN_EXE_florence2-server"))
        .args(["serve", "--port", "0", "--model", "demo", "--data-dir"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    let path = folder.path().to_str().unwrap();
    assert!(said.contains(path) && said.contains("--data-dir"), "{said}");
}
