//! Where the data directory is when nobody names one: the place that desktop and server systems
//! agree on for data of one user.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The directory's name in there.
const NAME: &str = "florence2-server";

/// The environment names no place either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no home directory for the server's data; name a directory with --data-dir")]
pub struct NoDataDir;

/// `$XDG_DATA_HOME/florence2-server`, else `~/.local/share/florence2-server`.
///
/// # Errors
/// When neither variable holds an absolute path.
pub fn default_data_dir() -> Result<PathBuf, NoDataDir> {
    resolve(std::env::var_os("XDG_DATA_HOME"), std::env::var_os("HOME"))
}

/// Folder of the local certificate authority in the data directory.
pub(super) fn authority_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("tls")
}

fn resolve(data_home: Option<OsString>, home: Option<OsString>) -> Result<PathBuf, NoDataDir> {
    // The standard has relative paths ignored.
    let absolute = |value: OsString| Some(PathBuf::from(value)).filter(|path| path.is_absolute());
    let share = |home: PathBuf| home.join(Path::new(".local/share"));
    data_home
        .and_then(absolute)
        .or_else(|| home.and_then(absolute).map(share))
        .map(|place| place.join(NAME))
        .ok_or(NoDataDir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_home_comes_before_the_home_and_relative_paths_are_ignored() {
        let place = |data_home: Option<&str>, home: Option<&str>| {
            resolve(data_home.map(Into::into), home.map(Into::into))
        };
        let expected = |path: &str| Ok(PathBuf::from(path));
        assert_eq!(
            place(Some("/data"), Some("/home/a")),
            expected("/data/florence2-server")
        );
        for ignored in [None, Some(""), Some("data")] {
            assert_eq!(
                place(ignored, Some("/home/a")),
                expected("/home/a/.local/share/florence2-server")
            );
        }
        assert_eq!(place(None, None), Err(NoDataDir));
        assert_eq!(place(Some("a"), Some("b")), Err(NoDataDir));
    }
}
