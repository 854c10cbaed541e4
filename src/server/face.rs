//! Which of fal's hosts a request means: run, queue, rest, files, or a page of our own.
//!
//! On fal the same method and path run now on one host and enqueue on another. Here one host does
//! everything, so the proxy header, the host, the path's prefix or the port must tell. [`decide`] is
//! a pure function from those facts to a face, a canonical path that the routes know, and the public
//! address that answers are to name; the request is rewritten with it before it is routed.
//!
//! A target in the proxy header is only read, never contacted, and only fal's own host names are
//! understood in it.

#[cfg(test)]
mod tests;

use std::net::SocketAddr;

use url::Url;

use crate::pipeline::MAX_URL_BYTES;

/// Where the proxy protocol is spoken. A call that reaches this path itself named no target that we
/// understand.
pub(crate) const PROXY_PATH: &str = "/api/fal/proxy";

/// First parts of the paths of our own pages, the same on every host.
const OWN: [&str; 6] = [
    "health",
    "metrics",
    "openapi.json",
    "docs",
    "api",
    ".well-known",
];

/// fal's hosts: run, queue, storage (new and old), files (uploads, and returned URLs), and the
/// domain to which the Python client turns when the first does not answer.
pub const FAL_HOSTS: [&str; 8] = [
    "fal.run",
    "queue.fal.run",
    "rest.fal.ai",
    "rest.alpha.fal.ai",
    "v3.fal.media",
    "v3b.fal.media",
    "falrun.com",
    "queue.falrun.com",
];

/// Where fal has its files.
const FAL_FILES_HOST: &str = "v3.fal.media";

/// Longest authority that is repeated in answers: a host name has 253 characters, a port five.
const MAX_AUTHORITY: usize = 260;

/// What a request means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Face {
    /// `fal.run`: the answer comes at once.
    Run,
    /// `queue.fal.run`: submit, status, result, cancel.
    Queue,
    /// `rest.fal.ai`: uploads, tokens, webhook keys.
    Rest,
    /// fal's media hosts: hosted files.
    Files,
    /// Health, metrics, documents: what fal does not have.
    Own,
}

impl Face {
    /// The prefix that marks the face in a path, and with which its canonical paths begin.
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Self::Run => "/run",
            Self::Queue => "/queue",
            Self::Rest => "/rest",
            Self::Files => "/files",
            Self::Own => "",
        }
    }

    /// The name in log lines.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Queue => "queue",
            Self::Rest => "rest",
            Self::Files => "files",
            Self::Own => "own",
        }
    }
}

/// Through which of our listeners a request came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Door {
    /// Whether it is the queue's own listener.
    pub(crate) is_queue: bool,
    /// `http`, or `https` behind TLS.
    pub(crate) scheme: &'static str,
    /// Where it listens: the public address of callers who name no host.
    pub(crate) address: SocketAddr,
}

impl Door {
    /// The listener's own address, scheme included.
    pub(crate) fn base(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }
}

/// Everything that tells what a request means.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    /// `x-fal-target-url`; empty when it is there and not to be read.
    pub(crate) target: Option<&'a str>,
    /// The host that the caller named, or the one that a trusted proxy passes on.
    pub(crate) host: Option<&'a str>,
    /// The scheme that the caller used.
    pub(crate) scheme: &'a str,
    /// The path as received.
    pub(crate) path: &'a str,
    /// The query as received.
    pub(crate) query: Option<&'a str>,
    /// The listener.
    pub(crate) door: Door,
    /// The configured public address, without a final slash.
    pub(crate) public_url: Option<&'a str>,
}

/// What a request means, for everything behind the routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reached {
    /// The face.
    pub(crate) face: Face,
    /// The public scheme and authority, such as `https://localhost:8000`.
    pub(crate) origin: String,
    /// The path prefix by which the caller, or the proxy protocol, reaches the face; often empty.
    pub(crate) prefix: &'static str,
}

impl Reached {
    /// The address below which the caller reaches this face, such as `https://localhost:8000/queue`.
    pub(crate) fn base(&self) -> String {
        format!("{}{}", self.origin, self.prefix)
    }

    /// The scheme and authority at which hosted files stand. Whoever knows this server by a name of
    /// fal's finds them where fal has them.
    pub(crate) fn files_origin(&self) -> String {
        let Some((scheme, authority)) = self.origin.split_once("://") else {
            return self.origin.clone();
        };
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (host, format!(":{port}")),
            None => (authority, String::new()),
        };
        let is_fals = FAL_HOSTS.iter().any(|name| host.eq_ignore_ascii_case(name));
        if is_fals && face_of_host(host) != Some(Face::Files) {
            format!("{scheme}://{FAL_FILES_HOST}{port}")
        } else {
            self.origin.clone()
        }
    }
}

/// A request's meaning, and the path that the routes know for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    /// The meaning.
    pub(crate) reached: Reached,
    /// Canonical path and query.
    pub(crate) path_and_query: String,
}

/// A face with the prefix that the caller used and the canonical path.
struct Place {
    face: Face,
    prefix: &'static str,
    path: String,
}

/// Decides, in this order: proxy target, our own pages, host, prefix, listener, and last whether the
/// path names a request in the queue. What nothing tells apart is a synchronous call.
pub(crate) fn decide(facts: &Facts<'_>) -> Decision {
    let (place, query) = match facts.target {
        None => (directly(facts), facts.query.map(str::to_owned)),
        Some(target) => through_proxy(target).unwrap_or_else(|| (not_understood(), None)),
    };
    let Place { face, prefix, path } = place;
    Decision {
        reached: Reached {
            face,
            origin: origin(facts),
            prefix,
        },
        path_and_query: match query {
            Some(query) => format!("{path}?{query}"),
            None => path,
        },
    }
}

/// Reads a proxy target. None unless it is a plain address on a host of fal's.
fn through_proxy(target: &str) -> Option<(Place, Option<String>)> {
    // What is longer than a URL may be is none, and takes long to parse.
    if target.len() > MAX_URL_BYTES {
        return None;
    }
    let url = Url::parse(target).ok()?;
    let is_plain = matches!(url.scheme(), "http" | "https")
        && url.username().is_empty()
        && url.password().is_none()
        && url.port().is_none();
    if !is_plain {
        return None;
    }
    let path = url.path();
    let face = match url.host_str()? {
        "fal.run" => Face::Run,
        "queue.fal.run" => Face::Queue,
        "rest.fal.ai" | "rest.alpha.fal.ai" => Face::Rest,
        "v3.fal.media" | "v3b.fal.media" => Face::Files,
        "fal.ai" if path.starts_with("/api/openapi/") => Face::Own,
        _ => return None,
    };
    // Addresses in the answer must work on our host, where only the prefix tells queue from run.
    let prefix = match face {
        Face::Queue | Face::Rest => face.prefix(),
        Face::Run | Face::Files | Face::Own => "",
    };
    let query = url.query().map(str::to_owned);
    Some((place(face, prefix, path), query))
}

fn not_understood() -> Place {
    Place {
        face: Face::Own,
        prefix: "",
        path: PROXY_PATH.into(),
    }
}

fn directly(facts: &Facts<'_>) -> Place {
    let path = facts.path;
    if let Some(face) = own_or_files(path) {
        return place(face, "", path);
    }
    if let Some(face) = facts.host.and_then(face_of_host) {
        // A host with a prefix that says the same again means no more than the host alone.
        return match strip(path, face.prefix()) {
            Some(rest) => place(face, face.prefix(), rest),
            None => place(face, "", path),
        };
    }
    for face in [Face::Queue, Face::Run, Face::Rest] {
        if let Some(rest) = strip(path, face.prefix()) {
            return place(face, face.prefix(), rest);
        }
    }
    let face = if facts.door.is_queue {
        Face::Queue
    } else {
        Face::Run
    };
    place(face, "", path)
}

/// Our own pages and hosted files stand on every host: answers name them with whatever host the
/// caller used, and no application of fal's is called like them.
fn own_or_files(path: &str) -> Option<Face> {
    let first = path.strip_prefix('/')?.split('/').next()?;
    if first == "files" {
        return Some(Face::Files);
    }
    (path == "/" || OWN.contains(&first)).then_some(Face::Own)
}

fn face_of_host(host: &str) -> Option<Face> {
    let name = host.split(':').next()?.to_ascii_lowercase();
    if name.starts_with("queue.") {
        Some(Face::Queue)
    } else if name.starts_with("rest.") {
        Some(Face::Rest)
    } else if name.ends_with(".fal.media") {
        Some(Face::Files)
    } else {
        None
    }
}

/// What follows the prefix, beginning with a slash. `/queues` does not begin with `/queue`.
fn strip<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(prefix)?;
    if rest.is_empty() {
        return Some("/");
    }
    rest.starts_with('/').then_some(rest)
}

/// Makes the canonical path: the face's prefix in front, no final slash, and requests by id alone.
fn place(face: Face, prefix: &'static str, path: &str) -> Place {
    let (face, path) = match (face, queued_request(path)) {
        (Face::Run | Face::Queue, Some(tail)) => (Face::Queue, format!("/queue/requests/{tail}")),
        (Face::Files, _) if strip(path, "/files").is_some() => (face, path.to_owned()),
        (Face::Own, _) if path == "/" => (face, path.to_owned()),
        _ => (face, format!("{}{}", face.prefix(), without_slash(path))),
    };
    Place { face, prefix, path }
}

/// The id of a request in the queue and what follows it, whichever application stands before it.
fn queued_request(path: &str) -> Option<&str> {
    let (_, tail) = path.split_once("/requests/")?;
    Some(without_slash(tail)).filter(|tail| !tail.is_empty())
}

fn without_slash(path: &str) -> &str {
    path.strip_suffix('/').unwrap_or(path)
}

fn origin(facts: &Facts<'_>) -> String {
    if let Some(public_url) = facts.public_url {
        return public_url.to_owned();
    }
    let scheme = facts.scheme;
    match facts.host.filter(|host| is_authority(host)) {
        Some(host) => format!("{scheme}://{host}"),
        None => format!("{scheme}://{}", facts.door.address),
    }
}

/// Whether a host may be repeated in an address: a name or address and a port, nothing else.
pub(crate) fn is_authority(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    (1..=MAX_AUTHORITY).contains(&text.len()) && text.bytes().all(is_allowed)
}
