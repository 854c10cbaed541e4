//! Where the server keeps what must outlive it: the flag, and the folder when it is not given.

use std::path::PathBuf;

use clap::Args;

/// Name of the folder among those of other programs.
const FOLDER: &str = "florence2-server";

/// The data folder; shared by the commands that look into it.
#[derive(Args, Clone, Debug)]
pub(super) struct DataDirArgs {
    /// Folder of everything that must survive a restart [default: $XDG_DATA_HOME/florence2-server, else ~/.local/share/florence2-server]
    #[arg(long, value_name = "DIR", env = "FLORENCE2_DATA_DIR")]
    data_dir: Option<PathBuf>,
}

impl DataDirArgs {
    /// The folder that was named, or the one that the system's conventions give.
    pub(super) fn data_dir(&self) -> PathBuf {
        match &self.data_dir {
            Some(folder) => folder.clone(),
            None => conventional(
                std::env::var_os("XDG_DATA_HOME").map(PathBuf::from),
                std::env::home_dir(),
            ),
        }
    }

    /// Folder of the local certificate authority.
    pub(super) fn authority_dir(&self) -> PathBuf {
        self.data_dir().join("tls")
    }
}

/// The convention says that a relative variable is ignored.
fn conventional(data_home: Option<PathBuf>, home: Option<PathBuf>) -> PathBuf {
    let data_home = data_home.filter(|folder| folder.is_absolute());
    let share = || Some(home?.join(".local/share"));
    data_home.or_else(share).unwrap_or_default().join(FOLDER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_conventional_folder_follows_the_variable_then_the_home() {
        let path = |text: &str| Some(PathBuf::from(text));
        for (data_home, home, expected) in [
            (path("/data"), path("/home/a"), "/data/florence2-server"),
            (
                path("data"),
                path("/home/a"),
                "/home/a/.local/share/florence2-server",
            ),
            (
                None,
                path("/home/a"),
                "/home/a/.local/share/florence2-server",
            ),
            (None, None, "florence2-server"),
        ] {
            let found = conventional(data_home, home);
            assert_eq!(found, PathBuf::from(expected));
        }
    }
}
