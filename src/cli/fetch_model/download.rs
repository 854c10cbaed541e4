//! One file from the hub into the cache, whole and checked, or not at all.
//!
//! The bytes grow in `<etag>.incomplete`, which survives a cut connection and a killed process;
//! the next attempt asks only for the rest. Where everything comes again, it is written over what is
//! there: such a file only grows. It gets its name in the cache after its length and checksum were
//! found to be what the hub promised, never before.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use bytes::Bytes;
use futures_util::StreamExt;

use super::FetchModelError;
use super::cache::{RepoCache, remove_if_there};
use super::digest;
use super::hub::{ATTEMPTS, Fault, FileMeta, Hub, pause};
use super::progress::{Bar, Progress};

/// Attempts in all, however much each of them brought: a bound against a server that gives a byte
/// at a time.
const MAX_ATTEMPTS: u32 = 64;
/// Complete downloads with a wrong checksum before we give up: one may be a bad start by somebody
/// else, two are the server's.
const MAX_MISMATCHES: u32 = 2;

/// Answers that do not fit before everything is asked for again: one may be a login page on the way,
/// two mean that this server cannot continue a file.
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

/// Fetches the blob of `meta`, unless it is there by the time its lock is ours; `is_there` says so where
/// it may be under another name.
pub(super) async fn fetch(
    hub: &Hub,
    cache: &RepoCache,
    meta: &FileMeta,
    progress: &Progress,
    is_there: &dyn Fn() -> bool,
) -> Result<(), FetchModelError> {
    let waiting = || {
        progress.note(&format!(
            "{}: waiting for another process that is fetching it",
            meta.name
        ))
    };
    let _lock = cache.lock(&meta.etag, waiting).await?;
    let blob = cache.blob(&meta.etag);
    if is_there() || blob.metadata().is_ok_and(|found| found.len() == meta.bytes) {
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
                ranges &= odd_answers < MAX_ODD_ANSWERS;
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
    let body = hub.open(meta, have).await.map_err(|fault| match fault {
        Fault::Transient(reason) => Stop::Cut(reason),
        Fault::Range(reason) => Stop::Odd(format!("the server refused the range: {reason}")),
        Fault::Final(error) => Stop::Final(error),
    })?;
    let mut stream = body.bytes;
    let mut next = stream.next().await;
    check_start(meta, have, body.from, body.announced, next.as_ref())?;
    let mut file = open().map_err(refused("open"))?;
    let mut at = body.from;
    file.seek(SeekFrom::Start(at)).map_err(refused("write"))?;
    bar.set(at);
    while let Some(chunk) = next {
        let chunk = chunk.map_err(Stop::Cut)?;
        at += chunk.len() as u64;
        if at > meta.bytes {
            return Err(Stop::Wrong(format!(
                "more than the {} bytes that belong came",
                meta.bytes
            )));
        }
        file.write_all(&chunk).map_err(refused("write"))?;
        bar.set(at);
        next = stream.next().await;
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
    // What was there may have been longer than the file.
    file.set_len(at).map_err(refused("write"))?;
    file.sync_all().map_err(refused("write"))
}

/// Whether the bytes that are about to come can be this file's, and fit what is there.
fn check_start(
    meta: &FileMeta,
    have: u64,
    from: u64,
    announced: Option<u64>,
    first: Option<&Result<Bytes, String>>,
) -> Result<(), Stop> {
    let start = match first {
        Some(Ok(chunk)) => chunk.as_ref(),
        _ => &[],
    };
    let page = page_hint(start);
    if from > have {
        return Err(Stop::Odd(format!(
            "bytes from {from} on came where {have} are there"
        )));
    }
    if let Some(bytes) = announced.filter(|bytes| from.checked_add(*bytes) != Some(meta.bytes)) {
        let wanted = meta.bytes - from;
        return Err(Stop::Odd(format!(
            "{bytes} bytes came where {wanted} belong{page}"
        )));
    }
    if have > 0 && !page.is_empty() {
        return Err(Stop::Odd(format!("not the file came{page}")));
    }
    Ok(())
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
    fn only_bytes_that_can_be_the_files_are_written() {
        let meta = FileMeta {
            name: "f".to_owned(),
            commit: "c".to_owned(),
            etag: "e".to_owned(),
            bytes: 1000,
        };
        let check = |have, from, announced, first: &str| {
            let first = Ok(Bytes::copy_from_slice(first.as_bytes()));
            check_start(&meta, have, from, announced, Some(&first)).is_ok()
        };
        for (have, from, announced, expected) in [
            (0, 0, Some(1000), true),
            (400, 0, Some(1000), true),
            (400, 400, Some(600), true),
            (400, 300, Some(700), true),
            (0, 0, Some(400), false),
            (400, 400, Some(400), false),
            (400, 400, Some(1000), false),
            (400, 500, Some(500), false),
            (0, 0, None, true),
            (400, 400, None, true),
            (400, 0, None, true),
        ] {
            let found = check(have, from, announced, "bytes");
            assert_eq!(found, expected, "{have} {from} {announced:?}");
        }
        assert!(!check(400, 0, None, "<!doctype html><p>log in"));
    }
}
