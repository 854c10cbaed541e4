//! Which files a checkpoint needs, and which names in an index may be believed.
//!
//! Pure: no network, and of the disk only what is asked for in [`in_folder`]. A shard name comes
//! from a file that somebody uploaded, so it is checked before it becomes part of a path.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use serde::Deserialize;

/// Without these no model can be built.
pub(super) const REQUIRED: [&str; 2] = ["config.json", "tokenizer.json"];
/// Read when present; every one has a documented default.
pub(super) const OPTIONAL: [&str; 4] = [
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer_config.json",
];
/// Weights in one file: the first choice.
pub(super) const SAFETENSORS: &str = "model.safetensors";
/// Names the files among which sharded weights are divided: the second choice.
pub(super) const INDEX: &str = "model.safetensors.index.json";
/// Weights as a pickle: the last choice, and never fetched beside one of the others.
pub(super) const PICKLE: &str = "pytorch_model.bin";

/// Largest index that is read, in bytes. Florence-2 large needs about 90 kB.
pub(super) const MAX_INDEX_BYTES: u64 = 16 << 20;
/// How a file begins that stands in for a large one in a git repository.
const POINTER_START: &[u8] = b"version https://git-lfs.github.com/spec/";
/// Most shards that an index may name; real ones name fewer than ten.
const MAX_SHARDS: usize = 1000;

/// Why an index cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IndexError {
    /// Not the JSON that an index is.
    #[error("it is not a weight index: {0}")]
    Unreadable(String),
    /// What stands in for a large file in a git repository.
    #[error(
        "it is a git-lfs pointer, which stands in for the file: run `git lfs pull` in its folder"
    )]
    Pointer,
    /// A name that could lead out of the checkpoint's folder, or to something else than weights.
    #[error("it names {0:?}, which is not a plain .safetensors file name")]
    HostileName(String),
    /// Larger than any real index, in bytes.
    #[error("it is {0} bytes long; no real one is larger than {MAX_INDEX_BYTES}")]
    TooLarge(u64),
    /// No shard at all, or far too many.
    #[error("it names {0} files; from 1 to {MAX_SHARDS} are possible")]
    ShardCount(usize),
}

impl IndexError {
    /// What else follows, where the fault does not say what to do.
    pub(super) fn remedy(&self) -> &'static str {
        match self {
            Self::Pointer => "",
            _ => "; the checkpoint is damaged or not to be trusted",
        }
    }
}

/// The distinct shards that an index names, in the order of their names.
pub(super) fn shards(index: &[u8]) -> Result<Vec<String>, IndexError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: std::collections::HashMap<String, String>,
    }
    if index.starts_with(POINTER_START) {
        return Err(IndexError::Pointer);
    }
    let index: Index =
        serde_json::from_slice(index).map_err(|error| IndexError::Unreadable(error.to_string()))?;
    let names: BTreeSet<String> = index.weight_map.into_values().collect();
    if names.is_empty() || names.len() > MAX_SHARDS {
        return Err(IndexError::ShardCount(names.len()));
    }
    if let Some(bad) = names.iter().find(|name| !is_shard_name(name)) {
        return Err(IndexError::HostileName(bad.chars().take(200).collect()));
    }
    Ok(names.into_iter().collect())
}

fn is_shard_name(name: &str) -> bool {
    is_relative_path(name) && name.ends_with(".safetensors") && name.len() <= 255
}

/// Whether `text` is a relative path of plain components, on every platform.
pub(super) fn is_relative_path(text: &str) -> bool {
    let plain = |c: char| !c.is_control() && !matches!(c, '\\' | ':');
    !text.is_empty()
        && text.chars().all(plain)
        && text
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != "..")
        && Path::new(text)
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
}

/// What a look into a checkpoint's folder found wrong.
#[derive(Debug)]
pub(super) enum FolderFault {
    /// This file is not there.
    Missing(String),
    /// The index is there and cannot be used.
    Index(IndexError),
    /// The index is there and cannot be read.
    Io(std::io::Error),
}

/// The files of the checkpoint in `folder`, weights last.
pub(super) fn in_folder(folder: &Path) -> Result<Vec<String>, FolderFault> {
    let present = |name: &str| folder.join(name).is_file();
    let mut names = Vec::new();
    for name in REQUIRED {
        if !present(name) {
            return Err(FolderFault::Missing(name.to_owned()));
        }
        names.push(name.to_owned());
    }
    names.extend(
        OPTIONAL
            .into_iter()
            .filter(|name| present(name))
            .map(str::to_owned),
    );
    if present(SAFETENSORS) {
        names.push(SAFETENSORS.to_owned());
    } else if present(INDEX) {
        names.push(INDEX.to_owned());
        let shards = shards(&read_index(&folder.join(INDEX)).map_err(FolderFault::Io)?)
            .map_err(FolderFault::Index)?;
        if let Some(missing) = shards.iter().find(|name| !present(name)) {
            return Err(FolderFault::Missing(missing.clone()));
        }
        names.extend(shards);
    } else if present(PICKLE) {
        names.push(PICKLE.to_owned());
    } else {
        return Err(FolderFault::Missing(format!(
            "{SAFETENSORS} (or {INDEX}, or {PICKLE})"
        )));
    }
    Ok(names)
}

/// Reads an index, refusing one that is larger than any real one.
pub(super) fn read_index(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?
        .take(MAX_INDEX_BYTES + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_INDEX_BYTES {
        let text = format!("the index is larger than {MAX_INDEX_BYTES} bytes");
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, text));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(name: &str) -> Vec<u8> {
        serde_json::json!({"metadata": {}, "weight_map": {"a": name, "b": name}})
            .to_string()
            .into()
    }

    #[test]
    fn shards_are_named_once_and_in_order() {
        let text = br#"{"weight_map": {"x": "m-2.safetensors", "y": "m-1.safetensors", "z": "m-2.safetensors"}}"#;
        assert_eq!(
            shards(text).unwrap(),
            ["m-1.safetensors", "m-2.safetensors"]
        );
    }

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        for bad in [
            "/etc/x.safetensors",
            "../x.safetensors",
            "a/../../x.safetensors",
            "a//x.safetensors",
            "./x.safetensors",
            "..\\x.safetensors",
            "C:x.safetensors",
            "a\nb.safetensors",
            "a\u{0}.safetensors",
            "",
            "config.json",
        ] {
            assert_eq!(
                shards(&index(bad)),
                Err(IndexError::HostileName(bad.to_owned())),
                "{bad:?}"
            );
        }
        assert!(shards(&index("part/x.safetensors")).is_ok());
    }

    #[test]
    fn an_index_without_shards_or_of_another_form_is_refused() {
        assert_eq!(
            shards(br#"{"weight_map": {}}"#),
            Err(IndexError::ShardCount(0))
        );
        for bad in [&b"<html>"[..], b"[]", br#"{"weight_map": {"a": 1}}"#, b""] {
            assert!(matches!(shards(bad), Err(IndexError::Unreadable(_))));
        }
    }

    #[test]
    fn weights_are_taken_once_in_order_of_preference() {
        let folder = tempfile::tempdir().unwrap();
        let put =
            |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
        put("config.json", b"{}");
        assert!(
            matches!(in_folder(folder.path()), Err(FolderFault::Missing(n)) if n == "tokenizer.json")
        );
        put("tokenizer.json", b"{}");
        assert!(
            matches!(in_folder(folder.path()), Err(FolderFault::Missing(n)) if n.starts_with(SAFETENSORS))
        );
        put(PICKLE, b"p");
        assert_eq!(
            in_folder(folder.path()).unwrap(),
            ["config.json", "tokenizer.json", PICKLE]
        );
        put(INDEX, &index("s.safetensors"));
        assert!(
            matches!(in_folder(folder.path()), Err(FolderFault::Missing(n)) if n == "s.safetensors")
        );
        put("s.safetensors", b"s");
        assert_eq!(
            in_folder(folder.path()).unwrap()[2..],
            [INDEX, "s.safetensors"]
        );
        put(SAFETENSORS, b"w");
        assert_eq!(in_folder(folder.path()).unwrap()[2..], [SAFETENSORS]);
    }
}
