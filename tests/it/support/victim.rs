//! A whole server as a process of its own (this test binary, started again), to be killed.
//!
//! Its model names the colour of the picture that it sees, and a number that no other attempt has, so
//! that an answer can be told from every other job's and from every other attempt's. A white picture
//! kills it; a nearly white one takes two seconds.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use florence2_server::cli::serve::{LoadedModel, ServeSettings, serve};
use florence2_server::engine::predict::PreparedInput;
use image::ImageFormat;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::fake_model::{FakeCodec, FakeModel, Reply, options};
use super::pictures::{data_uri, file};
use super::server::client;

const DIR: &str = "FLORENCE2_TEST_VICTIM_DIR";
const MAX_CRASHES: &str = "FLORENCE2_TEST_MAX_CRASHES";
const WORKERS: &str = "FLORENCE2_TEST_WORKERS";
const SUSPECT_DELAY_MS: &str = "FLORENCE2_TEST_SUSPECT_DELAY_MS";

/// The colour of a picture that kills.
pub(crate) const DEADLY: [u8; 3] = [255; 3];

/// The colour of a picture that takes two seconds.
pub(crate) const SLOW: [u8; 3] = [255, 255, 254];

/// The settings of a victim.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    /// Deaths alone that make a job their cause.
    pub(crate) max_crashes: u32,
    /// Jobs worked on at once.
    pub(crate) workers: usize,
    /// Time after the start before a job under suspicion runs.
    pub(crate) suspect_delay: Duration,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            max_crashes: 3,
            workers: 2,
            suspect_delay: Duration::from_secs(1),
        }
    }
}

/// Takes jobs on the smallest of disks.
const NO_DISK_FLOOR: &str = "FLORENCE2_TEST_NO_DISK_FLOOR";

/// What the victim's model does, without taking its time.
pub(crate) fn name_the_colour(input: &PreparedInput) -> String {
    let colour: Vec<_> = input.pixel_values.iter().map(f32::to_string).collect();
    format!("{}/{}", colour.join(","), Uuid::new_v4())
}

/// The colour of a job's picture, and its name.
pub(crate) fn colour(job: u32) -> ([u8; 3], String) {
    let [zero, r, g, b] = job.to_be_bytes();
    assert_eq!(zero, 0, "there are only so many colours");
    ([r, g, b], format!("{r},{g},{b}"))
}

/// The input of a job.
pub(crate) fn picture(colour: [u8; 3]) -> Value {
    json!({ "image_url": data_uri(&file(1, 1, colour, ImageFormat::Png)) })
}

/// Not a test of its own: what the process does.
#[test]
#[ignore = "started as a child process by other tests"]
fn serve_as_a_victim() {
    let mut settings = ServeSettings::default();
    settings.http.port = 0;
    settings.http.max_calls = 100;
    settings.data_dir = Some(std::env::var_os(DIR).unwrap().into());
    let number = |name: &str| -> u64 { std::env::var(name).unwrap().parse().unwrap() };
    settings.queue.max_crashes = number(MAX_CRASHES).try_into().unwrap();
    settings.queue.workers = number(WORKERS).try_into().unwrap();
    settings.queue.suspect_delay = Duration::from_millis(number(SUSPECT_DELAY_MS));
    if std::env::var_os(NO_DISK_FLOOR).is_some() {
        settings.queue.disk_floor_bytes = 0;
    }
    serve(&settings, || {
        let model = FakeModel::new(|_, input| {
            if input.pixel_values == DEADLY.map(f32::from) {
                std::process::abort();
            }
            if input.pixel_values == SLOW.map(f32::from) {
                std::thread::sleep(Duration::from_secs(2));
            }
            // The time of a fast device, so that kills meet running jobs.
            std::thread::sleep(Duration::from_millis(10));
            Reply::Text(name_the_colour(input))
        });
        Ok(LoadedModel {
            model: Box::new(model.0),
            codec: Arc::new(FakeCodec),
            options: options(),
        })
    })
    .unwrap();
}

/// A process that will not live long.
pub(crate) struct Victim {
    process: Child,
    base: Option<oneshot::Receiver<String>>,
}

impl Victim {
    /// Starts one on a directory that suspects jobs after this many deaths.
    pub(crate) fn start(dir: &Path, max_crashes: u32) -> Self {
        // Short, so that a test does not wait for suspects.
        let suspect_delay = Duration::from_millis(50);
        let setup = Setup {
            max_crashes,
            suspect_delay,
            ..Setup::default()
        };
        Self::with(dir, setup)
    }

    /// Starts one on a directory.
    pub(crate) fn with(dir: &Path, setup: Setup) -> Self {
        let suspect_delay_ms = setup.suspect_delay.as_millis();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "support::victim::serve_as_a_victim"])
            .args(["--ignored", "--nocapture"])
            .env(DIR, dir)
            .env(MAX_CRASHES, setup.max_crashes.to_string())
            .env(WORKERS, setup.workers.to_string())
            .env(SUSPECT_DELAY_MS, suspect_delay_ms.to_string());
        Self::spawn(command)
    }

    /// The same through a shell that prepares its surroundings first; in the script, `"$@"` is the
    /// process and `$DIR` its directory.
    pub(crate) fn start_in(script: &str, dir: &Path, envs: &[(&str, &Path)]) -> Self {
        let mut command = Command::new("sh");
        command
            .args(["-c", script, "sh"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "support::victim::serve_as_a_victim"])
            .args(["--ignored", "--nocapture"])
            .env("DIR", dir)
            .env(DIR, dir)
            .env(MAX_CRASHES, "1000")
            .env(WORKERS, "2")
            .env(SUSPECT_DELAY_MS, "50")
            .env(NO_DISK_FLOOR, "1")
            .envs(envs.iter().copied());
        Self::spawn(command)
    }

    fn spawn(mut command: Command) -> Self {
        let mut process = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        let (sender, base) = oneshot::channel();
        std::thread::spawn(move || {
            let mut lines = stdout.lines().map_while(Result::ok);
            let base = lines.find_map(|line| Some(line.split_once("listening on ")?.1.to_owned()));
            // None when it died before; nobody may want to know.
            let _ = base.map(|base| sender.send(base));
            // The rest is read, so that it is never stuck on a full pipe.
            lines.for_each(drop);
        });
        Self {
            process,
            base: Some(base),
        }
    }

    /// Waits until it answers calls; gives its address.
    pub(crate) async fn ready(&mut self) -> String {
        let base = self.base.take().unwrap().await;
        let base = base.expect("it says where it listens");
        let deadline = Instant::now() + Duration::from_secs(60);
        let is_ready = async || {
            let answer = client().get(format!("{base}/health/ready")).send().await;
            answer.is_ok_and(|answer| answer.status() == 200)
        };
        while !is_ready().await {
            assert!(Instant::now() < deadline, "it is not ready");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        base
    }

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Asks it to stop with SIGTERM, checks that it ends well, and says how long that took.
    pub(crate) async fn terminate(mut self) -> Duration {
        let begun = Instant::now();
        let pid = self.process.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        assert!(sent.success());
        let status = tokio::task::spawn_blocking(move || self.process.wait());
        let status = tokio::time::timeout(Duration::from_secs(60), status).await;
        let status = status.expect("it ends").unwrap().unwrap();
        assert!(status.success(), "{status}");
        begun.elapsed()
    }

    /// Kills it with SIGKILL.
    pub(crate) fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Whether it has died.
    pub(crate) fn is_dead(&mut self) -> bool {
        self.process.try_wait().unwrap().is_some()
    }

    /// Waits until it has died by itself.
    pub(crate) async fn dies(mut self) {
        let status = tokio::task::spawn_blocking(move || self.process.wait());
        let status = tokio::time::timeout(Duration::from_secs(60), status).await;
        let status = status.expect("it dies").unwrap().unwrap();
        assert!(!status.success(), "{status}");
    }
}

/// Jobs in line or running, if the server is still there.
pub(crate) async fn backlog(client: &reqwest::Client, base: &str) -> Option<u64> {
    let answer = client.get(format!("{base}/metrics")).send().await.ok()?;
    let text = answer.text().await.ok()?;
    let lines = text.lines();
    let counts = lines.filter_map(|line| line.strip_prefix("florence2_jobs{")?.split_once("} "));
    Some(counts.map(|(_, count)| count.parse::<u64>().unwrap()).sum())
}
