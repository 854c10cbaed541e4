//! The disk fails at any call that any change makes: what was answered stands, what was refused did not
//! happen, and the next change works.
//!
//! The calls are made to fail from below, in a process of its own (this test binary, started again)
//! with a preloaded library that is compiled on the spot.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use futures_util::future::join_all;
use uuid::Uuid;

use super::*;
use crate::queue::conformance::{
    claim, completion, finish, job, low_job, next, owner, recovery, result_text, state, submit,
    submit_at,
};
use crate::queue::job::{NewJob, State};
use crate::queue::store::{Attempt, Settled, Which};

/// The file with which the library is told what to do, beside the folder in which calls fail.
const CONTROL: &str = "control";

const EIO: i64 = 5;
const ENOSPC: i64 = 28;
const EROFS: i64 = 30;

/// Compiles the library; none on a machine without a C compiler.
fn library(folder: &Path) -> Option<PathBuf> {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/io_faults.c");
    let library = folder.join("io_faults.so");
    let made = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .args([source, "-ldl"])
        .output();
    match made {
        Ok(Output { status, .. }) if status.success() => Some(library),
        other => {
            let why = "skipped: no library that makes calls fail could be compiled";
            let _ = writeln!(std::io::stderr(), "{why}: {other:?}");
            None
        }
    }
}

#[test]
fn a_failed_call_at_any_change_loses_nothing_and_the_next_one_works() {
    let folder = tempfile::tempdir().unwrap();
    let Some(library) = library(folder.path()) else {
        return;
    };
    // In memory where there is a place for it: what is tested does not depend on the disk's pace.
    let base = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let base = base.unwrap();
    let (control, data) = (base.path().join(CONTROL), base.path().join("data"));
    fs::write(&control, [0; 32]).unwrap();
    fs::create_dir(&data).unwrap();
    let name = "queue::sqlite::fault_tests::change_everything_while_calls_fail";
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--nocapture"])
        .env("LD_PRELOAD", library)
        .env("IO_FAULTS_DIR", &data)
        .env("IO_FAULTS_CONTROL", control)
        .current_dir(data)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{output:?}");
    assert!(text.contains("1 passed"), "{text}");
}

/// What the library is told.
struct Faults(File);

impl Faults {
    fn set(&self, errno: i64, let_through: i64, failing: i64) {
        use std::os::unix::fs::FileExt;
        for (at, value) in [(1, let_through), (2, failing), (0, errno)] {
            self.0.write_all_at(&value.to_ne_bytes(), at * 8).unwrap();
        }
    }

    /// Calls that were left to fail; fewer than asked for means that some failed.
    fn left(&self) -> i64 {
        use std::os::unix::fs::FileExt;
        let mut bytes = [0; 8];
        self.0.read_exact_at(&mut bytes, 16).unwrap();
        i64::from_ne_bytes(bytes)
    }
}

/// A store with a job in every state, and the names of all.
struct Scene {
    store: SqliteStore,
    waiting: Uuid,
    running: Attempt,
    done: Uuid,
    delivery: Attempt,
}

async fn scene(dir: &Path) -> Scene {
    let store = SqliteStore::open(dir).await.unwrap();
    let me = owner();
    let told = || NewJob {
        webhook: Some("http://receiver.test/".into()),
        ..job()
    };
    let done = submit(&store, told()).await;
    let attempt = next(&store, me, 0).await.attempt;
    finish(&store, attempt, "done", 0).await;
    let delivery = store.claim_delivery(delivery_claim(me)).await.unwrap();
    let ClaimedDelivery::Due(delivery) = delivery else {
        panic!("a webhook is due");
    };
    // One more is due.
    submit(&store, told()).await;
    let attempt = next(&store, me, 0).await.attempt;
    finish(&store, attempt, "done too", 0).await;
    submit(&store, told()).await;
    let running = next(&store, me, 0).await.attempt;
    let waiting = submit(&store, job()).await;
    Scene {
        store,
        waiting,
        running,
        done,
        delivery: delivery.attempt,
    }
}

fn delivery_claim(owner: Uuid) -> ClaimDelivery {
    ClaimDelivery {
        owner,
        now_ms: 0,
        lease_until_ms: 100,
        receiver: None,
    }
}

/// The kinds of change.
const CHANGES: [&str; 12] = [
    "submit",
    "many",
    "claim",
    "renew",
    "finish",
    "put back",
    "recover",
    "cancel",
    "expire",
    "claim delivery",
    "settle",
    "note time",
];

/// Makes one change, and says whether it was answered; then whether it can be seen.
async fn change(scene: &Scene, kind: &str) -> (bool, bool) {
    let Scene {
        store,
        waiting,
        running,
        done,
        delivery,
    } = scene;
    let submission = |id| Submission {
        id,
        job: low_job(),
        now_ms: 0,
    };
    let is_known = async |id| store.status(id, 0).await.unwrap().is_some();
    match kind {
        "submit" => {
            let id = Uuid::new_v4();
            let is_answered = store.submit(submission(id)).await.is_ok();
            (is_answered, is_known(id).await)
        }
        "many" => {
            let ids: Vec<_> = (0..5).map(|_| Uuid::new_v4()).collect();
            let all = join_all(ids.iter().map(|id| store.submit(submission(*id)))).await;
            let mut outcomes = Vec::new();
            for (id, answer) in ids.into_iter().zip(all) {
                outcomes.push((answer.is_ok(), is_known(id).await));
            }
            let odd = outcomes.iter().find(|(answered, seen)| answered != seen);
            *odd.unwrap_or(&outcomes[0])
        }
        "claim" => {
            let claim = Claim {
                owner: running.owner,
                now_ms: 0,
                lease_until_ms: 100,
                which: Which::Next,
                source: None,
            };
            let is_answered = store.claim(claim).await.is_ok();
            (is_answered, state(store, *waiting).await == State::Running)
        }
        "renew" => {
            let renew = Renew {
                attempts: vec![*running],
                lease_until_ms: 500,
            };
            let is_answered = store.renew(renew).await.is_ok();
            (is_answered, is_answered)
        }
        "finish" => {
            let finish = Finish {
                attempt: *running,
                completion: completion("late", 0),
                inference_us: None,
                log: Vec::new(),
            };
            let is_answered = store.finish(finish).await.is_ok();
            let text = result_text(store, running.id).await;
            assert!(text.as_deref().is_none_or(|text| text == "late"));
            (is_answered, text.is_some())
        }
        "put back" => {
            let put_back = PutBack {
                attempt: *running,
                not_before_ms: 0,
                failed: false,
                has_begun: true,
                held: None,
                log: Vec::new(),
            };
            let is_answered = store.put_back(put_back).await.is_ok();
            (
                is_answered,
                state(store, running.id).await == State::Waiting,
            )
        }
        "recover" => {
            let recover = recovery(owner(), i64::MAX);
            let is_answered = store.recover(recover).await.is_ok();
            (
                is_answered,
                state(store, running.id).await == State::Waiting,
            )
        }
        "cancel" => {
            let is_answered = store.cancel(*waiting, completion("c", 0)).await.is_ok();
            (is_answered, state(store, *waiting).await == State::Done)
        }
        "expire" => {
            let is_answered = store.expire(1000, 1).await.is_ok();
            (is_answered, !is_known(*done).await)
        }
        "claim delivery" => {
            let claim = delivery_claim(running.owner);
            let claimed = store.claim_delivery(claim).await.is_ok();
            (claimed, claimed)
        }
        "settle" => {
            let settle = Settle {
                attempt: *delivery,
                outcome: Settled::Delivered,
            };
            let is_answered = store.settle_delivery(settle).await.is_ok();
            (is_answered, is_answered)
        }
        "note time" => {
            let time = KeptTime {
                high_ms: 7,
                ..KeptTime::default()
            };
            let is_answered = store.note_time(time).await.is_ok();
            (is_answered, store.time().await.unwrap() == time)
        }
        other => panic!("{other} is no change"),
    }
}

/// Not a test of its own: what the process does.
#[tokio::test]
#[ignore = "started as a child process with a library that makes calls fail"]
async fn change_everything_while_calls_fail() {
    // Where the parent starts it.
    let dir = std::env::current_dir().unwrap();
    let path = dir.with_file_name(CONTROL);
    let control = File::options().read(true).write(true).open(path);
    let faults = Faults(control.unwrap());
    let mut failed = 0;
    for (errno, failing) in [(EIO, 1), (ENOSPC, 2), (EROFS, 1)] {
        for kind in CHANGES {
            for let_through in 0.. {
                let dir = dir.join(format!("{errno}-{kind}-{let_through}"));
                let scene = scene(&dir_made(&dir)).await;
                faults.set(errno, let_through, failing);
                let (is_answered, is_seen) = change(&scene, kind).await;
                let met_one = faults.left() < failing;
                faults.set(0, 0, 0);
                let what = format!("{kind}, errno {errno} after {let_through}");
                assert_eq!(is_answered, is_seen, "{what}");
                failed += u32::from(!is_answered);
                if errno == EROFS {
                    until_it_heals(&scene.store, &what).await;
                }
                go_on(scene, &dir, &what).await;
                fs::remove_dir_all(&dir).unwrap();
                if !met_one {
                    break;
                }
            }
        }
    }
    writeln!(std::io::stdout(), "{failed} changes failed").unwrap();
    assert!(failed > 100, "only {failed} changes failed");
}

fn dir_made(dir: &Path) -> PathBuf {
    fs::create_dir(dir).unwrap();
    dir.to_owned()
}

/// A file that SQLite once had to open for reading stays so for all connections until the last of them
/// is closed, so a disk that was read-only may be felt once more.
async fn until_it_heals(store: &SqliteStore, what: &str) {
    let begun = std::time::Instant::now();
    while let Err(error) = store.note_time(KeptTime::default()).await {
        assert!(begun.elapsed().as_secs() < 5, "{what}: {error}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// The disk works again: every kind of change does too, and a new process finds everything.
async fn go_on(scene: Scene, dir: &Path, what: &str) {
    let Scene { store, done, .. } = scene;
    let id = submit_at(&store, job(), 0).await;
    assert!(store.health().fault.is_none(), "{what}");
    let me = owner();
    let mut ends = 0;
    store.recover(recovery(me, i64::MAX)).await.unwrap();
    while let Ok(job) = claim(&store, me, 0, Which::Next).await {
        assert!(finish(&store, job.attempt, "after", 0).await, "{what}");
        ends += 1;
    }
    assert!(ends >= 1, "{what}");
    assert_eq!(result_text(&store, id).await.as_deref(), Some("after"));
    let is_kept = store.status(done, 0).await.unwrap().is_some();
    store.close().await.unwrap();
    let store = SqliteStore::open(dir).await.unwrap();
    assert_eq!(result_text(&store, id).await.as_deref(), Some("after"));
    assert_eq!(store.status(done, 0).await.unwrap().is_some(), is_kept);
    store.close().await.unwrap();
}
