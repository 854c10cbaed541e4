//! A queue's file that is not what was there before stops the start of the real program, with one
//! sentence that says which file, what is wrong with it, and how to go on.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::process::Command;

use florence2_server::cli::serve::ServeSettings;

use crate::support::pictures::input;
use crate::support::server::{TestServer, send};

const FILE: &str = "queue.sqlite3";

/// A directory in which jobs wait, as a server left it that was stopped.
async fn with_jobs_waiting(folder: &Path, jobs: u32) {
    let settings = ServeSettings {
        data_dir: Some(folder.into()),
        ..ServeSettings::default()
    };
    let mut server = TestServer::without_model(settings).await;
    let url = format!("{}/queue/fal-ai/florence-2-large/caption", server.base);
    for _ in 0..jobs {
        let request = server.client.post(&url).json(&input());
        assert_eq!(send(request).await.status, 200);
    }
    server.stop();
    server.stopped().await;
}

/// What the real program says before it gives up.
fn refusal(folder: &Path) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_florence2-server"))
        .args(["serve", "--port", "0", "--model", "demo", "--data-dir"])
        .arg(folder)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test]
async fn a_damaged_queue_stops_the_start_with_one_sentence() {
    let cut = |file: &Path, to: fn(u64) -> u64| {
        let file = OpenOptions::new().write(true).open(file).unwrap();
        let bytes = file.metadata().unwrap().len();
        file.set_len(to(bytes)).unwrap();
    };
    let emptied = |file: &Path| cut(file, |_| 0);
    let halved = |file: &Path| cut(file, |all| all / 2);
    let deleted = |file: &Path| fs::remove_file(file).unwrap();
    type Damage<'a> = &'a dyn Fn(&Path);
    let cases: [(Damage<'_>, &str); 3] = [
        (&emptied, "is empty"),
        (&halved, "is cut short"),
        (&deleted, "is missing"),
    ];
    for (damage, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        with_jobs_waiting(folder.path(), 30).await;
        let file = folder.path().join(FILE);
        damage(&file);
        let said = refusal(folder.path());
        for part in [
            file.to_str().unwrap(),
            expected,
            "30 jobs waited",
            "restore it",
            "remove every file whose name begins so",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert_eq!(said.trim_end().lines().count(), 1, "{said}");
        // Refused until somebody decides, and then as the sentence says.
        refusal(folder.path());
        for entry in fs::read_dir(folder.path()).unwrap() {
            let path = entry.unwrap().path();
            if path
                .file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with(FILE)
            {
                fs::remove_file(path).unwrap();
            }
        }
        with_jobs_waiting(folder.path(), 1).await;
    }
}
