//! Does a file hold what its etag promises?
//!
//! The hub's etag of a large (LFS) file is its SHA-256; of a small one it is git's blob id, the
//! SHA-1 of `blob <length>\0` and the bytes. The cache names its blobs by etag, so a cached file
//! can be checked without the network. An etag of another form promises nothing.

use std::fmt::Write;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// Bytes read at a time: large enough for the disk, small enough for the cache.
const CHUNK_BYTES: usize = 1 << 20;

/// What a full read of a file showed.
pub(super) struct Digests {
    /// SHA-256 of the bytes, in hex.
    pub(super) sha256: String,
    /// Number of bytes read.
    pub(super) bytes: u64,
    /// False when the etag promises another content; true also when it promises nothing.
    pub(super) as_promised: bool,
}

/// Reads all of `path` and compares it with `etag`.
pub(super) fn check(path: &Path, etag: Option<&str>) -> io::Result<Digests> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let git_id = etag.filter(|etag| is_hex(etag, 40));
    let mut sha256 = Sha256::new();
    let mut sha1 = git_id.map(|_| Sha1::new_with_prefix(format!("blob {length}\0")));
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut bytes = 0;
    loop {
        let count = match file.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let part = chunk.get(..count).unwrap_or_default();
        sha256.update(part);
        if let Some(sha1) = &mut sha1 {
            sha1.update(part);
        }
        bytes += count as u64;
    }
    let sha256 = hex(&sha256.finalize());
    let as_promised = match (etag, sha1) {
        (Some(id), Some(sha1)) => hex(&sha1.finalize()).eq_ignore_ascii_case(id),
        (Some(etag), None) if is_hex(etag, 64) => sha256.eq_ignore_ascii_case(etag),
        _ => true,
    };
    Ok(Digests {
        sha256,
        bytes,
        as_promised,
    })
}

/// Whether `text` is exactly `digits` hexadecimal digits.
pub(super) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Lower-case hex digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing into a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_etag_are_checked_and_others_promise_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        std::fs::write(&path, "hello\n").unwrap();
        // `git hash-object` and `sha256sum` of the same six bytes.
        let git = "ce013625030ba8dba906f756967f9e9ca394464a";
        let sha = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        for (etag, expected) in [
            (Some(git), true),
            (Some(sha), true),
            (Some(&*git.replace('c', "d")), false),
            (Some(&*sha.replace('5', "6")), false),
            (Some("abc-6"), true),
            (None, true),
        ] {
            let found = check(&path, etag).unwrap();
            assert_eq!(found.as_promised, expected, "{etag:?}");
            assert_eq!((found.sha256.as_str(), found.bytes), (sha, 6));
        }
    }
}
