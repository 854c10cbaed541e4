//! Everything at once against the real program: slow senders, silent readers, a log that nobody
//! reads, addresses of thirty megabytes. Health and good calls must not notice.
//!
//! Takes a minute and an idle machine: `cargo test --test it -- --ignored slow_siege --nocapture`.
//! `FLORENCE2_SIEGE_BINARY` names another binary than the one just built, such as the release.
//!
//! What the server may take beyond what it had is stated here: two and a half times the memory for
//! bodies, a quarter of a mebibyte for each connection, and 64 MiB for the calls at work.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::support::pictures::data_uri;
use crate::support::server::{client, send};

const CAPTION: &str = "/fal-ai/florence-2-large/caption";
const MIB: usize = 1 << 20;

/// Length of the siege.
const SIEGE: Duration = Duration::from_secs(30);

/// Calls measured before it.
const CALLS: usize = 100;

/// Peers that send slowly, and as many that read nothing.
const PEERS: usize = 64;

/// Bytes of all bodies in memory that the server is given.
const BODY_MEMORY: usize = 128 * MIB;

/// The program, its log unread from the moment it is ready.
struct Besieged {
    process: std::process::Child,
    address: SocketAddr,
    base: String,
    _folder: TempDir,
}

impl Drop for Besieged {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Besieged {
    async fn start() -> Self {
        let binary = std::env::var_os("FLORENCE2_SIEGE_BINARY");
        let binary = binary.unwrap_or_else(|| env!("CARGO_BIN_EXE_florence2-server").into());
        let folder = tempfile::tempdir().unwrap();
        let memory = BODY_MEMORY.to_string();
        let mut process = Command::new(binary)
            .args(["serve", "--port", "0", "--model", "demo"])
            .args(["--log-level", "trace", "--max-body-memory-bytes", &memory])
            .arg("--data-dir")
            .arg(folder.path())
            .stdout(Stdio::piped())
            // Nobody ever reads it: it is full soon.
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let line = BufReader::new(process.stdout.take().unwrap())
            .lines()
            .next();
        let line = line.expect("it says where it listens").unwrap();
        let base = line.strip_prefix("listening on ").unwrap().to_owned();
        let url = url::Url::parse(&base).unwrap();
        let besieged = Self {
            process,
            address: url.socket_addrs(|| None).unwrap()[0],
            base,
            _folder: folder,
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        let ready = besieged.url("/health/ready");
        while send(client().get(&ready)).await.status != 200 {
            assert!(Instant::now() < deadline, "it is not ready");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        besieged
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// The most memory that the process has had resident, in bytes.
    #[cfg(target_os = "linux")]
    fn peak_bytes(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()));
        let status = status.unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let kib: usize = line
            .unwrap()
            .split_whitespace()
            .nth(1)
            .unwrap()
            .parse()
            .unwrap();
        kib << 10
    }

    #[cfg(not(target_os = "linux"))]
    fn peak_bytes(&self) -> usize {
        0
    }

    /// A connection from another address of this machine, where it has others.
    async fn connect(&self, from: u8) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        if cfg!(target_os = "linux") {
            socket.bind(([127, 0, 0, from], 0).into()).unwrap();
        }
        // The less a reader's system takes for it, the sooner the server notices.
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(self.address).await.unwrap()
    }
}

/// Sends a byte a second, again and again.
async fn send_slowly(besieged: &Besieged) -> ! {
    loop {
        let mut stream = besieged.connect(2).await;
        let head = format!("POST {CAPTION} HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n");
        let mut sent = stream.write_all(head.as_bytes()).await;
        while sent.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
            sent = stream.write_all(b" ").await;
        }
    }
}

/// Asks for a large file and reads nothing of it.
async fn read_nothing(besieged: &Besieged, path: &str) -> ! {
    loop {
        let mut stream = besieged.connect(3).await;
        let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
        let _ = stream.write_all(head.as_bytes()).await;
        // Writing fails once the server has cut the connection.
        while stream
            .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .is_ok()
        {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

/// Names addresses of thirty megabytes.
async fn name_long_addresses(besieged: &Besieged, sent: &AtomicUsize) -> ! {
    let address = format!("http://{}", "1.".repeat(15 * MIB));
    let body = json!({ "image_url": address }).to_string();
    loop {
        let mut stream = besieged.connect(4).await;
        let length = body.len();
        let head = format!(
            "POST {CAPTION} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
        );
        let _ = stream.write_all(head.as_bytes()).await;
        let _ = stream.write_all(body.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let text = String::from_utf8_lossy(&answer);
        let status = text.split(' ').nth(1).unwrap_or("none").to_owned();
        assert!(["422", "429", "none"].contains(&&*status), "{status}");
        sent.fetch_add(1, Ordering::SeqCst);
    }
}

/// Times of good calls, one after the other, until it is over after so many.
async fn good_calls(besieged: &Besieged, is_over: impl Fn(usize) -> bool) -> Vec<Duration> {
    let picture = std::fs::read(crate::demo::folder().join("portrait.png")).unwrap();
    let body = json!({"image_url": data_uri(&picture)});
    let client = client();
    let mut times = Vec::new();
    while !is_over(times.len()) {
        let begun = Instant::now();
        let answer = send(client.post(besieged.url(CAPTION)).json(&body)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        times.push(begun.elapsed());
    }
    times
}

/// Times of health checks, each on a connection of its own.
async fn health(besieged: &Besieged, until: &AtomicBool) -> Vec<Duration> {
    let mut times = Vec::new();
    while !until.load(Ordering::SeqCst) {
        let begun = Instant::now();
        let mut stream = besieged.connect(1).await;
        let asked = b"GET /health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        stream.write_all(asked).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200 "));
        times.push(begun.elapsed());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    times
}

/// The time that this part of all is no longer than.
fn quantile(times: &[Duration], part: f64) -> Duration {
    let mut times = times.to_vec();
    times.sort();
    let at = ((times.len() as f64 * part).ceil() as usize).clamp(1, times.len());
    times[at - 1]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute and an idle machine"]
async fn slow_siege_health_and_good_calls_do_not_notice() {
    let besieged = Arc::new(Besieged::start().await);
    let upload = client().post(besieged.url("/files/upload"));
    let stored = send(upload.body(vec![7; 16 * MIB])).await.json();
    let file = url::Url::parse(stored["access_url"].as_str().unwrap()).unwrap();
    let before = good_calls(&besieged, |calls| calls == CALLS).await;
    let base_bytes = besieged.peak_bytes();

    let mut attackers = JoinSet::new();
    let (sent, over) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    for _ in 0..PEERS {
        let (slow, silent) = (Arc::clone(&besieged), Arc::clone(&besieged));
        let path = file.path().to_owned();
        attackers.spawn(async move { send_slowly(&slow).await });
        attackers.spawn(async move { read_nothing(&silent, &path).await });
    }
    for _ in 0..4 {
        let (besieged, sent) = (Arc::clone(&besieged), Arc::clone(&sent));
        attackers.spawn(async move { name_long_addresses(&besieged, &sent).await });
    }
    let checks = tokio::spawn({
        let (besieged, over) = (Arc::clone(&besieged), Arc::clone(&over));
        async move { health(&besieged, &over).await }
    });
    let end = Instant::now() + SIEGE;
    let during = good_calls(&besieged, |_| Instant::now() >= end).await;
    over.store(true, Ordering::SeqCst);
    let checks = checks.await.unwrap();
    // An attacker ends only by failing.
    let ended = attackers.try_join_next();
    assert!(ended.is_none(), "{ended:?}");
    attackers.shutdown().await;

    let grown = besieged.peak_bytes().saturating_sub(base_bytes);
    let allowed = BODY_MEMORY * 5 / 2 + (2 * PEERS + 4) * (256 << 10) + 64 * MIB;
    println!(
        "{} long addresses, {} health checks",
        sent.load(Ordering::SeqCst),
        checks.len()
    );
    println!(
        "health: p50 {:?}, p99 {:?}",
        quantile(&checks, 0.5),
        quantile(&checks, 0.99)
    );
    let (p50, p99) = (quantile(&before, 0.5), quantile(&before, 0.99));
    println!("good calls before: p50 {p50:?}, p99 {p99:?}");
    let late = quantile(&during, 0.99);
    println!(
        "good calls during: {}, p50 {:?}, p99 {late:?}",
        during.len(),
        quantile(&during, 0.5)
    );
    println!(
        "memory: {} MiB and {} more, of {} allowed",
        base_bytes / MIB,
        grown / MIB,
        allowed / MIB
    );
    assert!(sent.load(Ordering::SeqCst) >= 4, "hardly any was sent");
    assert!(quantile(&checks, 0.99) < Duration::from_millis(100));
    assert!(late < 2 * p50, "{late:?} of {p50:?}");
    assert!(grown < allowed);
}
