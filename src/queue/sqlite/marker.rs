//! The marker: a small file beside the queue's file that says which queue it is and how far it has
//! come, so that an emptied, shortened, exchanged or older file is not taken for the queue.
//!
//! It is written after a commit is on disk, without a sync of its own, and costs no commit anything.
//! After a crash it may therefore be behind the file, but never ahead of it: a file that has come at
//! least as far as its marker is healthy. Two lines of one length are written in turns, each with a
//! digest, so that a power cut in the middle of one leaves the other.
//!
//! A directory without a marker is as good as one with it; it gets one when it is opened.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use tokio::sync::watch;

use super::positions::SharedLines;
use super::writer::Progress;
use crate::queue::data_dir::{for_owner_only, write_whole};

/// Longest file that is looked at: a marker has two lines of about 150 bytes.
const MAX_BYTES: u64 = 4096;

/// Least time between two writes. A queue that takes hundreds of jobs a second needs no marker for
/// each; a kill leaves this much undetected at most.
const PACE: Duration = Duration::from_millis(20);

/// The content of a marker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// Which queue; never zero.
    pub(super) queue: u32,
    /// Transactions that are on disk, at least.
    pub(super) commits: u64,
    /// Jobs that were ever in it.
    pub(super) jobs: u64,
    /// Jobs that waited then.
    pub(super) waiting: u64,
}

impl Mark {
    fn text(&self) -> String {
        let Self {
            queue,
            commits,
            jobs,
            waiting,
        } = self;
        format!(
            "florence2-server queue {queue:010}: {commits:020} commits, {jobs:020} jobs, {waiting:020} waiting"
        )
    }

    /// A line, which is as long as every other one.
    fn line(&self) -> String {
        let text = self.text();
        format!("{text}; {}\n", check(&text))
    }

    fn parse(line: &str) -> Option<Self> {
        let (text, digest) = line.split_once("; ")?;
        if digest.trim_end() != check(text) {
            return None;
        }
        let words = text.split(|c: char| !c.is_ascii_digit());
        let numbers: Vec<u64> = words.filter_map(|word| word.parse().ok()).collect();
        let [_, queue, commits, jobs, waiting] = numbers.try_into().ok()?;
        let queue = u32::try_from(queue).ok()?;
        Some(Self {
            queue,
            commits,
            jobs,
            waiting,
        })
    }
}

/// The beginning of a digest, in hexadecimal digits.
fn check(text: &str) -> String {
    let digest = digest(&SHA256, text.as_bytes());
    let bytes = digest.as_ref().iter().take(8);
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

/// What was found in the marker's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing: the queue is new, or older than markers.
    Nothing,
    /// A file that says nothing.
    Unreadable,
    /// The newer of its lines.
    Mark(Mark),
}

/// Looks at a marker.
pub(super) fn read(path: &Path) -> io::Result<Found> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes)?;
    // Cut by length: a damaged line must not take the other one with it.
    let lines = bytes.chunks(Mark::default().line().len());
    let marks = lines.filter_map(|line| Mark::parse(std::str::from_utf8(line).ok()?));
    let newest = marks.max_by_key(|mark| mark.commits);
    Ok(newest.map_or(Found::Unreadable, Found::Mark))
}

/// A marker that is kept up to date.
#[derive(Debug)]
pub(super) struct Marker {
    file: File,
    queue: u32,
}

impl Marker {
    /// Opens the marker of a queue, and makes it where it is missing or says nothing.
    pub(super) fn open(path: &Path, found: Found, mark: Mark) -> io::Result<Self> {
        if !matches!(found, Found::Mark(_)) {
            let line = mark.line();
            write_whole(path, format!("{line}{line}").as_bytes())?;
        }
        let queue = mark.queue;
        let file = for_owner_only().write(true).open(path)?;
        Ok(Self { file, queue })
    }

    fn write(&mut self, mark: Mark) -> io::Result<()> {
        let line = mark.line();
        let at = mark.commits % 2 * line.len() as u64;
        self.file.seek(SeekFrom::Start(at))?;
        self.file.write_all(line.as_bytes())
    }
}

/// Keeps a marker behind the commits until the writer has ended.
pub(super) async fn keep(
    mut marker: Marker,
    mut progress: watch::Receiver<Progress>,
    lines: SharedLines,
) {
    loop {
        let goes_on = progress.changed().await.is_ok();
        let now = *progress.borrow_and_update();
        let mark = Mark {
            queue: marker.queue,
            commits: now.commits,
            jobs: now.next_seq.saturating_sub(1),
            waiting: lines.lock().total(),
        };
        let written = tokio::task::spawn_blocking(move || {
            let result = marker.write(mark);
            (marker, result)
        });
        // The runtime is going down; the marker may be behind.
        let Ok((kept, result)) = written.await else {
            return;
        };
        marker = kept;
        if let Err(error) = result {
            // Being behind does no harm, and the writer meets the same disk.
            tracing::debug!(%error, "the queue's marker was not written");
        }
        if !goes_on {
            return;
        }
        tokio::time::sleep(PACE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(commits: u64) -> Mark {
        Mark {
            queue: u32::MAX,
            commits,
            jobs: 3,
            waiting: u64::MAX,
        }
    }

    #[test]
    fn every_line_is_as_long_as_the_other() {
        let long = mark(u64::MAX).line();
        assert_eq!(long.len(), mark(0).line().len());
        assert!(2 * long.len() as u64 <= MAX_BYTES);
        assert_eq!(Mark::parse(&long), Some(mark(u64::MAX)));
    }

    #[test]
    fn the_newer_line_counts_and_a_torn_one_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("marker");
        assert_eq!(read(&path).unwrap(), Found::Nothing);
        let mut marker = Marker::open(&path, Found::Nothing, mark(7)).unwrap();
        for commits in [8, 9, 12] {
            marker.write(mark(commits)).unwrap();
            assert_eq!(read(&path).unwrap(), Found::Mark(mark(commits)));
        }
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut torn = whole.clone();
            torn[at] ^= 1;
            std::fs::write(&path, torn).unwrap();
            let Found::Mark(found) = read(&path).unwrap() else {
                panic!("no line is left after a change at {at}");
            };
            assert!([9, 12].contains(&found.commits), "{at}: {found:?}");
        }
        for nothing in ["", "\n\n", "x", "; ", "florence2-server queue 1"] {
            std::fs::write(&path, nothing).unwrap();
            assert_eq!(read(&path).unwrap(), Found::Unreadable, "{nothing:?}");
        }
    }
}
