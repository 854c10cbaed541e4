//! One file from the hub into the cache, whole and checked, or not at all.
//!
//! The bytes grow in `<etag>.incomplete`, which survives a cut connection and a killed process;
//! the next attempt asks only for the rest. A file gets its name in the cache after its length and
//! checksum were found to be what the hub promised, never before. hf-hub hides the status of a
//! ranged request, so [`placement`] tells "the rest" from "everything again" by the announced length.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use futures_util::StreamExt;

use super::FetchModelError;
use super::cache::{RepoCache, remove_if_there};
use super::digest;
use super::hub::{ATTEMPTS, Fault, FileMeta, Hub, describe, pause};
use super::progress::{Bar, Progress};

/// Attempts in all, however much each of them brought: a bound against a server that gives a byte
/// at a time.
const MAX_ATTEMPTS: u32 = 64;
/// Complete downloads with a wrong checksum before we give up: one may be a bad start by somebody
/// else, two are the server's.
const MAX_MISMATCHES: u32 = 2;

/// Answers of a wrong length before the part that we have is given up: one may be a login page on
/// the way, two mean that this server cannot continue a file.
const MAX_ODD_ANSWERS: u32 = 2;
/// Bytes of an answer that are looked at to see whether it is a web page.
const PAGE_START_BYTES: usize = 512;

/// Why one attempt ended before the file was whole.
enum Stop {
    /// The connection broke; what came so far is good as far as one can know.
    Cut(String),
    /// What came cannot be the file, so nothing of it is kept.
    Wrong(String),
    /// What was about to come cannot be the file; what came before may still be good.
    Odd(String),
    /// No further attempt will help.
    Final(FetchModelError),
}

/// Where the announced bytes belong in a file of which `have` of `whole` bytes are there.
#[derive(Debug, PartialEq, Eq)]
enum Placement {
    /// They are the file from the start.
    Start,
    /// They are the rest.
    Append,
    /// It cannot be known whether they are the rest or everything.
    Unclear,
    /// They cannot be this file: so many were announced.
    Wrong(u64),
}

/// Fetches the blob of `meta`, unless it is there by the time its lock is ours.
pub(super) async fn fetch(
    hub: &Hub,
    cache: &RepoCache,
    meta: &FileMeta,
    progress: &Progress,
) -> Result<(), FetchModelError> {
    let waiting = || {
        progress.note(&format!(
            "{}: waiting for another process that is fetching it",
            meta.name
        ))
    };
    let _lock = cache.lock(&meta.etag, waiting).await?;
    let blob = cache.blob(&meta.etag);
    if blob.metadata().is_ok_and(|found| found.len() == meta.bytes) {
        return Ok(());
    }
    let partial = cache.incomplete(&meta.etag);
    let bar = progress.bar(&meta.name, meta.bytes);
    fill(hub, meta, &partial, &bar).await?;
    std::fs::rename(&partial, &blob).map_err(FetchModelError::io("rename", &partial))?;
    bar.done();
    Ok(())
}

/// Attempts until `partial` is the file, within the bounds above.
async fn fill(
    hub: &Hub,
    meta: &FileMeta,
    partial: &Path,
    bar: &Bar,
) -> Result<(), FetchModelError> {
    let (mut idle_attempts, mut mismatches, mut odd_answers, mut ranges) = (0, 0, 0, true);
    for _ in 0..MAX_ATTEMPTS {
        let have = length_of(partial)?;
        let stop = match transfer(hub, meta, partial, if ranges { have } else { 0 }, bar).await {
            Ok(()) => {
                let found = digest::check(partial, Some(&meta.etag))
                    .map_err(FetchModelError::io("read", partial))?;
                if found.as_promised {
                    return Ok(());
                }
                mismatches += 1;
                Stop::Wrong(format!(
                    "its SHA-256 is {} and its etag {}",
                    found.sha256, meta.etag
                ))
            }
            Err(stop) => stop,
        };
        let (reason, corrupt) = match stop {
            Stop::Final(error) => return Err(error),
            Stop::Cut(reason) => {
                if length_of(partial)? > have {
                    // Bytes that came count as progress, and the whole patience starts anew.
                    idle_attempts = 0;
                }
                (reason, false)
            }
            Stop::Wrong(reason) => {
                remove_if_there(partial)?;
                (reason, true)
            }
            Stop::Odd(reason) => {
                odd_answers += 1;
                if odd_answers >= MAX_ODD_ANSWERS {
                    remove_if_there(partial)?;
                    ranges = false;
                }
                (reason, true)
            }
        };
        idle_attempts += 1;
        if idle_attempts >= ATTEMPTS || mismatches >= MAX_MISMATCHES {
            return Err(give_up(hub, meta, reason, corrupt));
        }
        pause(idle_attempts).await;
    }
    Err(give_up(
        hub,
        meta,
        format!("{MAX_ATTEMPTS} attempts did not suffice"),
        false,
    ))
}

fn give_up(hub: &Hub, meta: &FileMeta, reason: String, corrupt: bool) -> FetchModelError {
    let (repository, file) = (hub.repository().to_owned(), meta.name.clone());
    if corrupt {
        FetchModelError::Corrupt {
            repository,
            file,
            reason,
        }
    } else {
        FetchModelError::Interrupted {
            repository,
            file,
            reason,
        }
    }
}

/// One attempt: opens the stream at `have` and writes until the file has its length.
async fn transfer(
    hub: &Hub,
    meta: &FileMeta,
    partial: &Path,
    have: u64,
    bar: &Bar,
) -> Result<(), Stop> {
    let refused = |action| move |error| Stop::Final(FetchModelError::io(action, partial)(error));
    let open = || {
        OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .open(partial)
    };
    let have = if have > meta.bytes { 0 } else { have };
    if have == meta.bytes {
        // Complete already, or empty by nature: nothing to ask for, and no range to ask with.
        return open()
            .and_then(|file| file.set_len(have))
            .map_err(refused("write"));
    }
    let range = (have > 0).then_some(have..meta.bytes);
    let (announced, mut stream) = hub.open(meta, range).await.map_err(|fault| match fault {
        Fault::Transient(reason) => Stop::Cut(reason),
        Fault::Range => Stop::Odd("the server refused the range".to_owned()),
        Fault::Final(error) => Stop::Final(error),
    })?;
    let mut file = open().map_err(refused("open"))?;
    let mut at = match placement(announced, have, meta.bytes) {
        Placement::Append => have,
        Placement::Start => 0,
        Placement::Unclear => {
            return Err(Stop::Odd(
                "the server does not say what it sends".to_owned(),
            ));
        }
        Placement::Wrong(bytes) => {
            let start = stream.next().await.and_then(Result::ok).unwrap_or_default();
            let page = page_hint(&start);
            return Err(Stop::Odd(format!(
                "{bytes} bytes came where {} belong{page}",
                meta.bytes
            )));
        }
    };
    file.set_len(at).map_err(refused("write"))?;
    file.seek(SeekFrom::Start(at)).map_err(refused("write"))?;
    bar.set(at);
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| Stop::Cut(describe(error)))?;
        at += chunk.len() as u64;
        if at > meta.bytes {
            return Err(Stop::Wrong(format!(
                "more than the {} bytes that belong came",
                meta.bytes
            )));
        }
        file.write_all(&chunk).map_err(refused("write"))?;
        bar.set(at);
    }
    if at < meta.bytes {
        let reason = format!("the connection ended after {at} of {} bytes", meta.bytes);
        let page = page_hint(&start_of(partial).map_err(refused("read"))?);
        let stop = if page.is_empty() {
            Stop::Cut
        } else {
            Stop::Wrong
        };
        return Err(stop(format!("{reason}{page}")));
    }
    file.sync_all().map_err(refused("write"))
}

fn placement(announced: Option<u64>, have: u64, whole: u64) -> Placement {
    match announced {
        Some(bytes) if bytes == whole => Placement::Start,
        Some(bytes) if bytes == whole - have => Placement::Append,
        None if have == 0 => Placement::Start,
        None => Placement::Unclear,
        Some(bytes) => Placement::Wrong(bytes),
    }
}

/// Says so when bytes are the start of a web page: a login page or an error page, most likely.
fn page_hint(start: &[u8]) -> &'static str {
    let start = start.get(..PAGE_START_BYTES).unwrap_or(start);
    let text = String::from_utf8_lossy(start)
        .trim_start()
        .to_ascii_lowercase();
    let is_page = text.starts_with("<!doctype html") || text.starts_with("<html");
    if is_page {
        "; a web page came instead"
    } else {
        ""
    }
}

fn start_of(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut start = Vec::new();
    File::open(path)?
        .take(PAGE_START_BYTES as u64)
        .read_to_end(&mut start)?;
    Ok(start)
}

fn length_of(path: &Path) -> Result<u64, FetchModelError> {
    match path.metadata() {
        Ok(found) => Ok(found.len()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(FetchModelError::io("read", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announced_length_tells_the_rest_from_the_whole() {
        let cases = [
            (Some(1000), 0, Placement::Start),
            (Some(1000), 400, Placement::Start),
            (Some(600), 400, Placement::Append),
            (Some(400), 0, Placement::Wrong(400)),
            (Some(400), 400, Placement::Wrong(400)),
            (None, 0, Placement::Start),
            (None, 400, Placement::Unclear),
        ];
        for (announced, have, expected) in cases {
            assert_eq!(
                placement(announced, have, 1000),
                expected,
                "{announced:?} {have}"
            );
        }
    }
}
