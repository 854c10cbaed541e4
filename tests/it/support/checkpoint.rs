//! A checkpoint folder that a test may damage: a copy of one of the tiny ones, file by file.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::data;

/// Files of the reference's answers, which a checkpoint does not have.
const NOT_OF_A_CHECKPOINT: [&str; 2] = ["expected.json", "stages.safetensors"];

/// A checkpoint folder that vanishes.
pub(crate) struct Checkpoint {
    folder: tempfile::TempDir,
}

impl Checkpoint {
    /// A copy of the tiny checkpoint of this name.
    pub(crate) fn copy_of(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(data::path(&format!("parity/{name}"))).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap();
            if !NOT_OF_A_CHECKPOINT.iter().any(|not| name == *not) {
                std::fs::copy(&path, folder.path().join(name)).unwrap();
            }
        }
        Self { folder }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn remove(&self, name: &str) {
        std::fs::remove_file(self.file(name)).unwrap();
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.file(name), content).unwrap();
    }

    /// Changes a JSON file; one that is not there is made.
    pub(crate) fn edit(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let text = std::fs::read_to_string(self.file(name)).unwrap_or_else(|_| "{}".to_owned());
        let mut json = serde_json::from_str(&text).unwrap();
        change(&mut json);
        self.write(name, json.to_string());
    }

    /// Changes header and data of a safetensors file.
    pub(crate) fn edit_weights(&self, file: &str, change: impl FnOnce(&mut Value, &mut [u8])) {
        let bytes = std::fs::read(self.file(file)).unwrap();
        let (length, rest) = bytes.split_at(8);
        let length = u64::from_le_bytes(length.try_into().unwrap()) as usize;
        let (header, data) = rest.split_at(length);
        let mut header: Value = serde_json::from_slice(header).unwrap();
        let mut data = data.to_vec();
        change(&mut header, &mut data);
        let header = header.to_string();
        let length = (header.len() as u64).to_le_bytes();
        self.write(file, [&length, header.as_bytes(), &data].concat());
    }

    /// Sets values of one tensor, from the first on, as bytes of the file's number format.
    pub(crate) fn set(&self, file: &str, tensor: &str, values: &[u8]) {
        self.edit_weights(file, |header, data| {
            let start = header[tensor]["data_offsets"][0].as_u64();
            let start = start.unwrap_or_else(|| panic!("{file} has no {tensor}")) as usize;
            data[start..start + values.len()].copy_from_slice(values);
        });
    }
}
