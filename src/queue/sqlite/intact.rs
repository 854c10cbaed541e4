//! Looks at the queue's file before SQLite does, which takes an emptied file for a new one and fills
//! the missing part of a shortened one with nothing.
//!
//! Costs little however large the file is: the file's own header says how many pages it has, and the
//! write-ahead log which of them are still on their way. The format of both is SQLite's, documented
//! and frozen. The log's checksums are not looked at: a frame too many makes this check no stricter.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use super::marker::Found;
use crate::queue::error::Damage;

/// How every SQLite file begins.
const MAGIC: &[u8] = b"SQLite format 3\0";

/// Bytes of the file's header.
const HEADER_BYTES: usize = 100;

/// Bytes of the log's header, and of the header of each of its frames.
const LOG_HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;

/// The byte for locks; its page is never written.
const LOCK_BYTE: u64 = 1 << 30;

/// A number in a header, which are all big-endian.
fn number(bytes: &[u8], at: usize) -> u32 {
    let bytes = bytes.get(at..at + 4).and_then(|it| it.try_into().ok());
    u32::from_be_bytes(bytes.unwrap_or_default())
}

/// The header of a SQLite file.
pub(super) struct Header {
    page_bytes: u64,
    /// Pages of the whole file; none where an old program left the number out of date.
    pages: Option<u64>,
    /// Which queue it is; zero for one without a marker.
    pub(super) queue: u32,
}

impl Header {
    /// Reads it; none when this is no SQLite file.
    pub(super) fn read(file: &mut File) -> io::Result<Option<Self>> {
        let mut bytes = [0; HEADER_BYTES];
        file.seek(SeekFrom::Start(0))?;
        match file.read_exact(&mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        if !bytes.starts_with(MAGIC) {
            return Ok(None);
        }
        // Two bytes, in which 1 stands for 65536.
        let page_bytes = match u64::from(number(&bytes, 14) & 0xffff) {
            1 => 1 << 16,
            bytes => bytes,
        };
        let pages = u64::from(number(&bytes, 28));
        let is_current = pages > 0 && number(&bytes, 24) == number(&bytes, 92);
        Ok(Some(Self {
            page_bytes,
            pages: is_current.then_some(pages),
            queue: number(&bytes, 60),
        }))
    }
}

/// What the write-ahead log adds to the file.
#[derive(Debug, Default, PartialEq, Eq)]
struct Log {
    /// Pages of the whole file after the last commit; none without a commit.
    pages: Option<u64>,
    /// Committed pages behind the end of the file.
    beyond: BTreeSet<u64>,
}

impl Log {
    /// Reads the log of a file that has this many pages; empty where there is none.
    fn read(path: &Path, file_pages: u64) -> io::Result<Self> {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        let bytes = file.metadata()?.len();
        let mut header = [0; LOG_HEADER_BYTES];
        if bytes < header.len() as u64 {
            return Ok(Self::default());
        }
        file.read_exact(&mut header)?;
        let frame_bytes = FRAME_HEADER_BYTES as u64 + u64::from(number(&header, 8));
        let frames = (bytes - header.len() as u64) / frame_bytes;
        let mut log = Self::default();
        let mut open = Vec::new();
        for frame in 0..frames {
            let mut head = [0; FRAME_HEADER_BYTES];
            file.seek(SeekFrom::Start(header.len() as u64 + frame * frame_bytes))?;
            file.read_exact(&mut head)?;
            // What was written before the log began anew has other salts.
            if head.get(8..16) != header.get(16..24) {
                break;
            }
            let page = u64::from(number(&head, 0));
            if page > file_pages {
                open.push(page);
            }
            let pages = u64::from(number(&head, 4));
            if pages > 0 {
                log.pages = Some(pages);
                log.beyond.extend(open.drain(..));
            }
        }
        Ok(log)
    }
}

/// Says what is missing from a queue's file, as far as that can be seen without reading all of it.
///
/// # Errors
/// When a file cannot be read.
pub(super) fn look(file: &Path, log: &Path, found: &Found) -> io::Result<Option<Damage>> {
    let is_known = *found != Found::Nothing;
    let mut opened = match File::open(file) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok((is_known || has_content(log)).then_some(Damage::Missing));
        }
        Err(error) => return Err(error),
    };
    let bytes = opened.metadata()?.len();
    if bytes == 0 {
        return Ok((is_known || has_content(log)).then_some(Damage::Empty));
    }
    let Some(header) = Header::read(&mut opened)? else {
        return Ok(Some(Damage::Unknown));
    };
    if let Found::Mark(mark) = found
        && header.queue != mark.queue
    {
        return Ok(Some(Damage::Foreign));
    }
    let file_pages = bytes / header.page_bytes.max(1);
    let log = Log::read(log, file_pages)?;
    let Some(pages) = log.pages.or(header.pages) else {
        return Ok(None);
    };
    let lock_page = LOCK_BYTE / header.page_bytes.max(1) + 1;
    let is_unwritten = |page| page > file_pages && page == lock_page;
    let logged = (file_pages + 1..=pages)
        .take_while(|page| log.beyond.contains(page) || is_unwritten(*page))
        .count() as u64;
    let is_whole = file_pages + logged >= pages;
    Ok((!is_whole).then_some(Damage::Cut {
        bytes,
        expected: pages * header.page_bytes,
    }))
}

/// Whether a log has more than its header. A file that never had content has no such log.
fn has_content(log: &Path) -> bool {
    std::fs::metadata(log).is_ok_and(|log| log.len() > LOG_HEADER_BYTES as u64)
}
