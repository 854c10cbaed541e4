//! Makes writing to a folder fail in another process, with a library that is compiled on the spot and
//! preloaded there; see `io_faults.c`.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// Error numbers of Linux.
pub(crate) const EIO: i64 = 5;
pub(crate) const ENOSPC: i64 = 28;
pub(crate) const EROFS: i64 = 30;

/// See the module's header.
pub(crate) struct IoFaults {
    folder: TempDir,
    control: File,
}

impl IoFaults {
    /// Compiles the library; none, with a word on stderr, where there is no C compiler.
    pub(crate) fn compile() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/io_faults.c");
        let made = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(folder.path().join("io_faults.so"))
            .args([source, "-ldl"])
            .output();
        if !made.as_ref().is_ok_and(|made| made.status.success()) {
            eprintln!("skipped: no library that makes calls fail could be compiled: {made:?}");
            return None;
        }
        let path = folder.path().join("control");
        std::fs::write(&path, [0; 32]).unwrap();
        let control = File::options().read(true).write(true).open(path).unwrap();
        Some(Self { folder, control })
    }

    /// What a process must have in its environment for calls in a folder to fail.
    pub(crate) fn environment(&self, folder: &Path) -> [(&'static str, PathBuf); 3] {
        [
            ("LD_PRELOAD", self.folder.path().join("io_faults.so")),
            ("IO_FAULTS_CONTROL", self.folder.path().join("control")),
            ("IO_FAULTS_DIR", folder.to_owned()),
        ]
    }

    /// From now on every call fails with this error.
    pub(crate) fn begin(&self, errno: i64) {
        for (at, value) in [(1, 0), (2, i64::MAX), (0, errno)] {
            self.control
                .write_all_at(&value.to_ne_bytes(), at * 8)
                .unwrap();
        }
    }

    /// From now on calls work.
    pub(crate) fn end(&self) {
        self.control.write_all_at(&[0; 8], 0).unwrap();
    }
}
