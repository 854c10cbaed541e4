//! A calendar that is set while the real program runs, and between two runs of it, delays nothing and
//! ends nothing early.
//!
//! The calendar is that of Debian's `faketime`, a library that is loaded before the program; where it is
//! not installed, these tests say so and are skipped. The clock that nobody can set is left alone.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use axum::http::StatusCode;
use axum::response::IntoResponse;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::child::Child;
use crate::support::origin::{Origin, Serve};
use crate::support::pictures::{input, png};
use crate::support::queue_client::submit;
use crate::support::receiver::Receiver;
use crate::support::server::{Answer, client, send};

const HOUR: &str = "-1h";

/// Longest wait for what is due in ten seconds, on a busy machine; far less than an hour.
const PATIENCE: Duration = Duration::from_secs(40);

/// The library, where Debian puts it.
fn library() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?.flatten();
    let mut found = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    let library = found.find(|path| path.exists());
    if library.is_none() {
        eprintln!("skipped: faketime is not installed");
    }
    library
}

/// A machine whose calendar a test sets.
struct Machine {
    library: PathBuf,
    folder: TempDir,
}

impl Machine {
    fn new() -> Option<Self> {
        let library = library()?;
        let folder = tempfile::tempdir().unwrap();
        let machine = Self { library, folder };
        machine.set("+0");
        Some(machine)
    }

    fn calendar(&self) -> PathBuf {
        self.folder.path().join("calendar")
    }

    /// Sets the calendar this far beside the real one. At one stroke: it is read meanwhile.
    fn set(&self, offset: &str) {
        let next = self.folder.path().join("next");
        fs::write(&next, offset).unwrap();
        fs::rename(next, self.calendar()).unwrap();
    }

    async fn serve(&self, data_dir: &Path, flags: &[&str]) -> Child {
        let calendar = self.calendar();
        let one = OsString::from("1");
        let environment = [
            ("LD_PRELOAD", self.library.as_os_str()),
            ("FAKETIME_TIMESTAMP_FILE", calendar.as_os_str()),
            ("FAKETIME_NO_CACHE", one.as_os_str()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", one.as_os_str()),
            ("DONT_FAKE_MONOTONIC", one.as_os_str()),
            ("NO_FAKE_STAT", one.as_os_str()),
        ];
        Child::serve_in(data_dir, flags, &environment).await
    }
}

/// A receiver that fails at first, so that it is told again ten seconds later.
async fn failing_once() -> Receiver {
    Receiver::start(|earlier, _| {
        let status = match earlier {
            0 => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::NO_CONTENT,
        };
        Some(status.into_response())
    })
    .await
}

/// Hands a job in; gives its id.
async fn job(server: &Child, body: &Value, webhook: Option<&Receiver>) -> String {
    let query = webhook.map_or(String::new(), |receiver| {
        let port = receiver.port();
        format!("?fal_webhook=http%3A%2F%2F127.0.0.1%3A{port}%2F")
    });
    let base = server.base();
    let url = format!("{base}/queue/fal-ai/florence-2-large/caption{query}");
    submit(client().post(url).json(body)).await
}

async fn ask(server: &Child, id: &str, tail: &str) -> Answer {
    let base = server.base();
    let url = format!("{base}/fal-ai/florence-2-large/requests/{id}{tail}");
    send(client().get(url)).await
}

/// Waits for a job's end; gives its status.
async fn ended(server: &Child, id: &str) -> Value {
    let begun = Instant::now();
    loop {
        let status = ask(server, id, "/status?logs=1").await.json();
        if status["status"] == "COMPLETED" {
            return status;
        }
        assert!(begun.elapsed() < PATIENCE, "{status}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn told_twice(receiver: &Receiver, since: Instant) {
    let told = tokio::time::timeout(PATIENCE, receiver.told(2)).await;
    assert!(told.is_ok(), "not told after {:?}", since.elapsed());
}

/// Uploads a file; gives its address.
async fn upload(server: &Child) -> String {
    let url = format!("{}/rest/storage/upload/initiate", server.base());
    let body = json!({"file_name": "a.png", "content_type": "image/png"});
    let offer = send(client().post(url).json(&body)).await.json();
    let put = client().put(offer["upload_url"].as_str().unwrap());
    assert_eq!(send(put.body(png(2, 2))).await.status, 200);
    offer["file_url"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_calendar_set_while_running_delays_nothing_and_ends_nothing() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let data = tempfile::tempdir().unwrap();
    let flags = [
        "--model",
        "demo",
        "--allow-source",
        "127.0.0.0/8",
        "--queue-fetches-per-source",
        "1",
        "--allow-webhook",
        "127.0.0.1",
    ];
    let server = machine.serve(data.path(), &flags).await;
    let receiver = failing_once().await;
    let done = job(&server, &input(), Some(&receiver)).await;
    let since = Instant::now();
    receiver.told(1).await;
    // A job that waits for its source, and must begin within two seconds.
    let silent = Origin::start(|_| Serve::Hang(Vec::new())).await;
    let body = json!({ "image_url": silent.url("/") });
    job(&server, &body, None).await;
    let url = format!("{}/queue/fal-ai/florence-2-large/caption", server.base());
    let late = client().post(url).json(&body);
    let late = submit(late.header("x-fal-request-timeout", "2")).await;
    let file = upload(&server).await;

    machine.set(HOUR);
    let status = ended(&server, &late).await;
    assert_eq!(status["error_type"], "request_timeout");
    told_twice(&receiver, since).await;

    // The calendar is shown as it is.
    let next = job(&server, &input(), None).await;
    let status = ended(&server, &next).await;
    let shown = status["logs"][0]["timestamp"].as_str().unwrap();
    let shown: DateTime<Utc> = shown.parse().unwrap();
    let behind = DateTime::<Utc>::from(SystemTime::now()) - shown;
    assert!((3590..3700).contains(&behind.num_seconds()), "{behind}");

    machine.set("+30d");
    assert_eq!(ask(&server, &done, "").await.status, 200);
    assert_eq!(ask(&server, &next, "").await.status, 200);
    assert_eq!(send(client().get(&file)).await.status, 200);
    server.kill();
}

#[tokio::test]
async fn a_calendar_set_back_between_two_runs_delays_no_webhook() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let data = tempfile::tempdir().unwrap();
    let flags = ["--model", "demo", "--allow-webhook", "127.0.0.1"];
    let server = machine.serve(data.path(), &flags).await;
    let receiver = failing_once().await;
    let id = job(&server, &input(), Some(&receiver)).await;
    receiver.told(1).await;
    let since = Instant::now();
    server.kill();

    machine.set(HOUR);
    let server = machine.serve(data.path(), &flags).await;
    told_twice(&receiver, since).await;
    assert_eq!(ask(&server, &id, "").await.status, 200);
    server.kill();
}
