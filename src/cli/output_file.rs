//! Files that a command writes at its end: looked at before the work, which may take minutes.
//!
//! A file that the command reads is never written over, whatever name it is given by. Checking leaves
//! nothing behind: a file that was not there before is not there after it.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;

use super::CommandError;

/// Says whether the file behind `flag` can be written, and is none of `inputs`.
pub(super) fn check(flag: &str, file: &Path, inputs: &[&Path]) -> Result<(), CommandError> {
    if let Some(input) = inputs.iter().find(|input| is_same(file, input)) {
        let (file, input) = (file.display(), input.display());
        return Err(CommandError::Usage(format!(
            "{flag}: {file} would be written over {input}, which is read; name another file"
        )));
    }
    try_open(file).map_err(|error| refused(flag, file, &error))
}

/// Writes the file behind `flag`.
pub(super) fn write(flag: &str, file: &Path, content: &[u8]) -> Result<(), CommandError> {
    fs::write(file, content).map_err(|error| refused(flag, file, &error))
}

fn refused(flag: &str, file: &Path, error: &io::Error) -> CommandError {
    let folder = file.parent().filter(|it| !it.as_os_str().is_empty());
    let remedy = match folder {
        Some(folder) if !folder.exists() => format!("; there is no folder {}", folder.display()),
        _ => String::new(),
    };
    let file = file.display();
    CommandError::Failed(format!("{flag}: cannot write {file}: {error}{remedy}"))
}

fn try_open(file: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    match fs::metadata(file) {
        Ok(found) if found.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        Ok(found) if found.is_file() => options.append(true).open(file).map(drop),
        // A device or a pipe: opening one may wait for somebody.
        Ok(_) => Ok(()),
        // A link that leads nowhere yet.
        Err(_) if file.symlink_metadata().is_ok() => Ok(()),
        Err(_) => {
            options.append(true).create_new(true).open(file)?;
            fs::remove_file(file)
        }
    }
}

/// Whether two names lead to one file.
fn is_same(first: &Path, second: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let identity = |path: &Path| fs::metadata(path).map(|it| (it.dev(), it.ino())).ok();
        let found = identity(first);
        if found.is_some() {
            return found == identity(second);
        }
    }
    let whole = |path: &Path| {
        path.canonicalize()
            .or_else(|_| std::path::absolute(path))
            .ok()
    };
    whole(first).is_some_and(|found| whole(second) == Some(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_can_be_written_is_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let (there, new) = (folder.path().join("a"), folder.path().join("b"));
        fs::write(&there, "content").unwrap();
        for file in [&there, &new, Path::new("/dev/null")] {
            check("--out", file, &[]).unwrap();
        }
        assert_eq!(fs::read_to_string(&there).unwrap(), "content");
        assert!(!new.exists());
        write("--out", &new, b"x").unwrap();
        assert_eq!(fs::read(&new).unwrap(), b"x");
    }

    #[test]
    fn a_place_that_cannot_be_written_is_named_with_its_flag() {
        let folder = tempfile::tempdir().unwrap();
        let nowhere = folder.path().join("no/such/file.png");
        for (file, words) in [
            (folder.path(), "is a directory"),
            (nowhere.as_path(), "there is no folder"),
            (Path::new("/dev/null/x"), "cannot write /dev/null/x"),
        ] {
            let error = check("--out", file, &[]).unwrap_err();
            let sentence = error.to_string();
            assert!(matches!(error, CommandError::Failed(_)), "{sentence}");
            let sentence = sentence.to_lowercase();
            assert!(
                sentence.starts_with("--out: ") && sentence.contains(words),
                "{sentence}"
            );
        }
    }

    #[test]
    fn an_input_is_not_written_over_by_any_of_its_names() {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join("input.png");
        fs::write(&input, "content").unwrap();
        let mut names = vec![input.clone(), folder.path().join("./input.png")];
        #[cfg(unix)]
        {
            let (soft, hard) = (folder.path().join("soft"), folder.path().join("hard"));
            std::os::unix::fs::symlink(&input, &soft).unwrap();
            fs::hard_link(&input, &hard).unwrap();
            names.extend([soft, hard]);
        }
        for name in names {
            let error = check("--out", &name, &[Path::new("x"), &input]).unwrap_err();
            assert!(matches!(error, CommandError::Usage(_)), "{error}");
        }
        // Two outputs that are not there yet are one file, too.
        let (new, again) = (folder.path().join("new"), folder.path().join("new"));
        assert!(check("--html", &new, &[&again]).is_err());
        assert!(check("--html", &new, &[&input]).is_ok());
    }
}
