//! The bundled checkpoint, `demo`: next to the program, in the source tree, or out of the program itself.
//!
//! A copy is compiled in, so that a program that was installed alone has it too. It is unpacked once,
//! into a folder of the user's cache that is named for its content, and from then on it is a folder
//! like any other: nothing else in the program knows that it was bundled.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::FetchModelError;
use super::digest::hex;

/// Where the bundled checkpoint lies, below the program's folder or the source tree.
const FOLDER: &str = "models/demo";
/// Part of the content's sum that names the unpacked folder; enough that no two releases share one.
const NAME_BYTES: usize = 8;

macro_rules! bundle {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/models/demo/", $name)).as_slice())),*]
    };
}

/// Name and content of every file of the checkpoint.
static FILES: [(&str, &[u8]); 6] = bundle![
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
];

/// A folder that holds the bundled checkpoint.
///
/// # Errors
/// When it had to be unpacked and could not be.
pub(super) fn folder() -> Result<PathBuf, FetchModelError> {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|exe| Some(exe.parent()?.join(FOLDER)));
    let source_tree = Path::new(env!("CARGO_MANIFEST_DIR")).join(FOLDER);
    let shipped = beside
        .into_iter()
        .chain([source_tree])
        .find(|folder| FILES.iter().all(|(name, _)| folder.join(name).is_file()));
    match shipped {
        Some(folder) => Ok(folder),
        None => unpacked(&cache_folder(|name| std::env::var_os(name))),
    }
}

/// The cache folder of this program, by the rules of the XDG base directories.
fn cache_folder(get: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    let set = |name: &str| {
        get(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("XDG_CACHE_HOME")
        .or_else(|| Some(set("HOME").or_else(|| set("USERPROFILE"))?.join(".cache")))
        .unwrap_or_else(std::env::temp_dir)
        .join("florence2-server")
}

/// The checkpoint unpacked below `cache`; done only when it is not there yet.
fn unpacked(cache: &Path) -> Result<PathBuf, FetchModelError> {
    let folder = cache.join(format!("demo-{}", content_name()));
    let is_whole = FILES.iter().all(|(name, content)| {
        let length = folder.join(name).metadata().map(|found| found.len());
        length.is_ok_and(|length| length == content.len() as u64)
    });
    if is_whole {
        return Ok(folder);
    }
    let io = |path: &Path| {
        FetchModelError::io_with(
            "unpack the bundled checkpoint into",
            path.to_owned(),
            ", or set XDG_CACHE_HOME to a folder that can be written",
        )
    };
    std::fs::create_dir_all(&folder).map_err(io(&folder))?;
    for (name, content) in FILES {
        // Written beside and renamed, so that a second process never sees half a file.
        let path = folder.join(name);
        let fresh = folder.join(format!(".{name}.{}", std::process::id()));
        std::fs::write(&fresh, content).map_err(io(&fresh))?;
        std::fs::rename(&fresh, &path).map_err(io(&path))?;
    }
    Ok(folder)
}

fn content_name() -> String {
    let sum = FILES.iter().fold(Sha256::new(), |sum, (name, content)| {
        sum.chain_update(name).chain_update(content)
    });
    let sum = sum.finalize();
    hex(sum.get(..NAME_BYTES).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compiled_in_copy_unpacks_to_the_files_of_the_source_tree() {
        let cache = tempfile::tempdir().unwrap();
        let folder = unpacked(cache.path()).unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(FOLDER);
        let mut names = std::fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect::<Vec<_>>();
        names.sort();
        assert_eq!(names, FILES.map(|(name, _)| name));
        for name in names {
            let (ours, theirs) = (folder.join(&name), source.join(&name));
            assert_eq!(std::fs::read(ours).unwrap(), std::fs::read(theirs).unwrap());
        }
    }

    #[test]
    fn a_damaged_copy_is_unpacked_again_and_a_whole_one_is_left_alone() {
        let cache = tempfile::tempdir().unwrap();
        let folder = unpacked(cache.path()).unwrap();
        let (whole, damaged) = (folder.join("tokenizer.json"), folder.join("config.json"));
        let made = whole.metadata().unwrap().modified().unwrap();
        assert_eq!(unpacked(cache.path()).unwrap(), folder);
        assert_eq!(whole.metadata().unwrap().modified().unwrap(), made);
        std::fs::write(&damaged, "{").unwrap();
        unpacked(cache.path()).unwrap();
        assert_eq!(std::fs::read(&damaged).unwrap(), FILES[0].1);
    }

    #[test]
    fn the_cache_folder_follows_the_environment() {
        let folder = |pairs: &[(&str, &str)]| {
            cache_folder(|name| {
                let found = pairs.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| OsString::from(value))
            })
        };
        let expected = [
            (
                &[("XDG_CACHE_HOME", "/x"), ("HOME", "/h")][..],
                "/x/florence2-server",
            ),
            (
                &[("XDG_CACHE_HOME", ""), ("HOME", "/h")],
                "/h/.cache/florence2-server",
            ),
            (&[("USERPROFILE", "/u")], "/u/.cache/florence2-server"),
        ];
        for (pairs, path) in expected {
            assert_eq!(folder(pairs), PathBuf::from(path), "{pairs:?}");
        }
        assert!(folder(&[]).starts_with(std::env::temp_dir()));
    }
}
