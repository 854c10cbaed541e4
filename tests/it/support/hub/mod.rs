//! A model hub of our own on loopback: one repository, raw HTTP/1.1, a thread per connection.
//!
//! Raw sockets, because a test must be able to break a connection in mid-body. It answers what the
//! real hub answers for `HEAD` and `GET /owner/name/resolve/REVISION/FILE`, remembers every request,
//! and misbehaves per file as told. It must never sleep: a test that needs an order uses a [`Gate`].

mod reply;
mod request;

use std::collections::HashMap;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use reply::Reply;
pub(crate) use request::Request;
use request::read_request;
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// The repository that the hub holds.
pub(crate) const REPOSITORY: &str = "some-owner/tiny";
/// The commit that `main` stands for.
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// Longest wait for an event before a test fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// How the hub answers a `GET` of one file.
#[derive(Clone)]
pub(crate) enum Manner {
    /// As the real one: whole, or the range that was asked for.
    Well,
    /// Another status, with a web page as body. `HEAD` is answered the same.
    Status(u16, &'static str),
    /// Refuses the `GET` alone with this status and a web page, the given number of times.
    Refused { status: u16, times: usize },
    /// Complete by its own length, with fewer bytes than `HEAD` announced.
    Short(usize),
    /// Breaks off after so many bytes, the given number of times; well afterwards.
    Cut { after: usize, times: usize },
    /// As `Cut` once, and then whole files whatever range is asked for.
    CutAndNoRanges(usize),
    /// The right number of wrong bytes.
    Altered,
    /// A web page with status 200, its length announced or not.
    Page { announced: bool },
    /// Breaks off after so many bytes, shows a web page once, and answers well afterwards.
    CutThenPage(usize),
    /// A web page once, and well afterwards.
    PageOnce,
    /// Waits for the gate, then well.
    Gated(Gate),
}

/// A door that a test opens; everybody before it waits.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub(crate) fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let open = self.0.0.lock().unwrap();
        drop(
            self.0
                .1
                .wait_timeout_while(open, DEADLINE, |open| !*open)
                .unwrap(),
        );
    }
}

struct HubFile {
    bytes: Vec<u8>,
    large: bool,
    manner: Manner,
}

/// A running hub. Its threads end with the test process.
pub(crate) struct Hub {
    state: Arc<State>,
    address: SocketAddr,
}

struct State {
    files: Mutex<HashMap<String, HubFile>>,
    requests: Mutex<Vec<Request>>,
    changed: Condvar,
    /// Where large files are redirected to.
    storage: Option<SocketAddr>,
    /// A refusal of everything: status and error code.
    refusal: Mutex<Option<(u16, &'static str)>>,
    /// Whether every answer names the whole file's length, as mirrors do.
    linked_sizes: AtomicBool,
}

impl Hub {
    /// Starts a hub without files, which sends all bytes itself.
    pub(crate) fn start() -> Self {
        Self::start_with(None)
    }

    /// Starts a hub that redirects large files to another host, as the real one does.
    pub(crate) fn start_with_storage() -> Self {
        Self::start_with(Some(TcpListener::bind("127.0.0.1:0").unwrap()))
    }

    fn start_with(storage: Option<TcpListener>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            files: Mutex::default(),
            requests: Mutex::default(),
            changed: Condvar::new(),
            storage: storage
                .as_ref()
                .map(|storage| storage.local_addr().unwrap()),
            refusal: Mutex::default(),
            linked_sizes: AtomicBool::default(),
        });
        for (listener, storage) in [(Some(listener), false), (storage, true)] {
            let Some(listener) = listener else { continue };
            let state = Arc::clone(&state);
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let state = Arc::clone(&state);
                    // A client that leaves early ends its own thread alone.
                    std::thread::spawn(move || drop(state.answer(stream, storage)));
                }
            });
        }
        Self { state, address }
    }

    /// The value for `HF_ENDPOINT`.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Adds a small file, whose etag is its git blob id.
    pub(crate) fn small(&self, name: &str, bytes: &[u8]) {
        self.add(name, bytes, false);
    }

    /// Adds a large file, whose etag is its SHA-256.
    pub(crate) fn large(&self, name: &str, bytes: &[u8]) {
        self.add(name, bytes, true);
    }

    fn add(&self, name: &str, bytes: &[u8], large: bool) {
        let file = HubFile {
            bytes: bytes.to_owned(),
            large,
            manner: Manner::Well,
        };
        self.state
            .files
            .lock()
            .unwrap()
            .insert(name.to_owned(), file);
    }

    /// Changes how a file is answered.
    pub(crate) fn set(&self, name: &str, manner: Manner) {
        self.state
            .files
            .lock()
            .unwrap()
            .get_mut(name)
            .unwrap()
            .manner = manner;
    }

    /// Names the whole file's length in every answer from now on, also where a part comes.
    pub(crate) fn announce_linked_sizes(&self) {
        self.state.linked_sizes.store(true, Ordering::Relaxed);
    }

    /// Refuses everything from now on.
    pub(crate) fn refuse(&self, status: u16, code: &'static str) {
        *self.state.refusal.lock().unwrap() = Some((status, code));
    }

    /// The requests with this method, for this file.
    pub(crate) fn asked(&self, method: &str, file: &str) -> Vec<Request> {
        let wanted = |r: &&Request| r.method == method && r.file == file;
        self.state
            .requests
            .lock()
            .unwrap()
            .iter()
            .filter(wanted)
            .cloned()
            .collect()
    }

    /// All requests.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.state.requests.lock().unwrap().clone()
    }

    /// Waits until this file has been asked for.
    pub(crate) fn wait_for(&self, method: &str, file: &str) {
        let requests = self.state.requests.lock().unwrap();
        let absent =
            |all: &mut Vec<Request>| !all.iter().any(|r| r.method == method && r.file == file);
        let (requests, timeout) = self
            .state
            .changed
            .wait_timeout_while(requests, DEADLINE, absent)
            .unwrap();
        drop(requests);
        assert!(!timeout.timed_out(), "nobody sent {method} {file}");
    }
}

impl State {
    fn answer(&self, mut stream: TcpStream, storage: bool) -> std::io::Result<()> {
        let Some(request) = read_request(&stream, storage)? else {
            return Ok(());
        };
        let index = {
            let mut requests = self.requests.lock().unwrap();
            requests.push(request.clone());
            self.changed.notify_all();
            requests.len() - 1
        };
        let reply = self.reply(&request);
        if let Some(gate) = &reply.gate {
            gate.pass();
        }
        let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", reply.status);
        for (name, value) in &reply.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        stream.write_all(format!("{head}\r\n").as_bytes())?;
        if request.method != "HEAD" {
            self.requests.lock().unwrap()[index].sent = reply.body.len();
            stream.write_all(&reply.body)?;
        }
        stream.flush()
    }

    fn reply(&self, request: &Request) -> Reply {
        if let Some((status, code)) = *self.refusal.lock().unwrap() {
            return Reply::refusal(status, code);
        }
        let mut files = self.files.lock().unwrap();
        let Some(file) = files
            .get_mut(&request.file)
            .filter(|_| request.revision != "absent")
        else {
            let code = if request.revision == "absent" {
                "RevisionNotFound"
            } else {
                "EntryNotFound"
            };
            return Reply::refusal(404, code);
        };
        if let Manner::Status(status, code) = file.manner {
            return Reply::refusal(status, code);
        }
        let etag = etag(&file.bytes, file.large);
        if let (Some(storage), false, true) = (self.storage, request.storage, file.large) {
            return Reply {
                status: 302,
                headers: vec![
                    (
                        "Location",
                        format!(
                            "http://{storage}/{REPOSITORY}/resolve/{COMMIT}/{}?signature=secret",
                            request.file
                        ),
                    ),
                    ("X-Repo-Commit", COMMIT.to_owned()),
                    ("X-Linked-Etag", format!("\"{etag}\"")),
                    ("X-Linked-Size", file.bytes.len().to_string()),
                    ("Content-Length", "0".to_owned()),
                ],
                body: Vec::new(),
                gate: None,
            };
        }
        let mut reply = if request.method == "HEAD" {
            Reply::whole(file.bytes.clone())
        } else {
            file.body(request)
        };
        if request.storage {
            reply.headers.push(("ETag", "\"storage-etag\"".to_owned()));
        } else {
            reply.headers.push(("X-Repo-Commit", COMMIT.to_owned()));
            reply.headers.push(("ETag", format!("\"{etag}\"")));
        }
        if self.linked_sizes.load(Ordering::Relaxed) {
            let size = file.bytes.len().to_string();
            reply.headers.push(("X-Linked-Size", size));
        }
        reply
    }
}

impl HubFile {
    fn body(&mut self, request: &Request) -> Reply {
        let from = request.range.as_deref().map(|range| {
            range
                .strip_prefix("bytes=")
                .unwrap()
                .split('-')
                .next()
                .unwrap()
                .parse::<usize>()
                .unwrap()
        });
        let well = |bytes: &[u8]| match from {
            Some(from) => Reply::partial(bytes, from),
            None => Reply::whole(bytes.to_owned()),
        };
        match self.manner.clone() {
            Manner::Cut { times: 0, .. } | Manner::Well => well(&self.bytes),
            Manner::Cut { after, times } => {
                self.manner = Manner::Cut {
                    after,
                    times: times - 1,
                };
                well(&self.bytes).broken_after(after)
            }
            Manner::CutAndNoRanges(after) => {
                self.manner = Manner::CutAndNoRanges(usize::MAX);
                Reply::whole(self.bytes.clone()).broken_after(after)
            }
            Manner::Refused { times: 0, .. } => well(&self.bytes),
            Manner::Refused { status, times } => {
                self.manner = Manner::Refused {
                    status,
                    times: times - 1,
                };
                Reply::refusal(status, "")
            }
            Manner::Short(length) => Reply::whole(self.bytes[..length].to_owned()),
            Manner::Altered => {
                let altered: Vec<u8> = self.bytes.iter().map(|byte| byte ^ 1).collect();
                well(&altered)
            }
            Manner::CutThenPage(after) => {
                self.manner = Manner::PageOnce;
                Reply::whole(self.bytes.clone()).broken_after(after)
            }
            Manner::PageOnce => {
                self.manner = Manner::Well;
                Reply::page()
            }
            Manner::Page { announced: true } => Reply::page(),
            Manner::Page { announced: false } => Reply {
                headers: Vec::new(),
                ..Reply::page()
            },
            Manner::Gated(gate) => Reply {
                gate: Some(gate),
                ..well(&self.bytes)
            },
            Manner::Status(..) => unreachable!("answered before"),
        }
    }
}

/// The etag that the hub gives to these bytes.
pub(crate) fn etag(bytes: &[u8], large: bool) -> String {
    if large {
        return hex(&Sha256::digest(bytes));
    }
    let mut git = Sha1::new_with_prefix(format!("blob {}\0", bytes.len()));
    git.update(bytes);
    hex(&git.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
