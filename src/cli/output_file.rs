//! Files that a command writes at its end: looked at before the work, which may take minutes.
//!
//! A file that the command reads, of the model or a picture, is never written over, whatever name it is
//! given by, and no two outputs are one file. Checking leaves nothing behind: a file that was not there
//! before is not there after it.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::CommandError;
use super::fetch_model::CheckpointFolder;
use crate::server::write_whole;

/// Most links that are followed from a name; as many as Linux follows.
const MAX_LINKS: usize = 40;

/// A file that is to be written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output<'a> {
    /// The flag that names it.
    pub(super) flag: &'static str,
    /// Its name.
    pub(super) file: &'a Path,
}

/// Says whether the outputs can be written, each to a file of its own that is none of `inputs`.
pub(super) fn check(outputs: &[Output<'_>], inputs: &[&Path]) -> Result<(), CommandError> {
    for (index, Output { flag, file }) in outputs.iter().enumerate() {
        if *file == Path::new("-") {
            return Err(CommandError::Usage(format!(
                "{flag}: a file has to be named; /dev/stdout is one, and ./- is a file called -"
            )));
        }
        not_read(flag, file, inputs)?;
        let mut earlier = outputs.iter().take(index);
        if let Some(other) = earlier.find(|other| is_same(file, other.file)) {
            let other = other.flag;
            return Err(CommandError::Usage(format!(
                "{other} and {flag} name one file; give each its own"
            )));
        }
        try_open(file).map_err(|error| refused(flag, file, &error))?;
    }
    Ok(())
}

/// Says whether the outputs are none of the model's files.
pub(super) fn check_model(
    outputs: &[Output<'_>],
    model: &CheckpointFolder,
) -> Result<(), CommandError> {
    let files = model.files.iter().map(|name| model.path.join(name));
    let files: Vec<PathBuf> = files.collect();
    let files: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    outputs
        .iter()
        .try_for_each(|Output { flag, file }| not_read(flag, file, &files))
}

fn not_read(flag: &str, file: &Path, inputs: &[&Path]) -> Result<(), CommandError> {
    let Some(input) = inputs.iter().find(|input| is_same(file, input)) else {
        return Ok(());
    };
    let (file, input) = (file.display(), input.display());
    Err(CommandError::Usage(format!(
        "{flag}: {file} would be written over {input}, which is read; name another file"
    )))
}

/// Writes the file behind `flag`. One that was there stays as it was when the new one cannot be written
/// whole; only where its folder takes no file beside it, it is written in place.
pub(super) fn write(flag: &str, file: &Path, content: &[u8]) -> Result<(), CommandError> {
    let written = match target(file).filter(|place| !is_special(place)) {
        Some(place) => match write_whole(&place, content, mode(&place)) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                fs::write(file, content)
            }
            written => written,
        },
        None => fs::write(file, content),
    };
    written.map_err(|error| refused(flag, file, &error))
}

/// Whether something else than a file stands there, such as a device or a pipe.
fn is_special(place: &Path) -> bool {
    fs::metadata(place).is_ok_and(|found| !found.is_file())
}

/// The permissions of the file that stands there, else those of a new one.
fn mode(place: &Path) -> u32 {
    #[cfg(unix)]
    if let Ok(found) = fs::metadata(place) {
        use std::os::unix::fs::PermissionsExt;
        return found.permissions().mode() & 0o777;
    }
    #[cfg(not(unix))]
    let _ = place;
    0o666
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
        Err(_) => {
            // Of a link that leads nowhere yet, where it leads.
            let place = target(file).unwrap_or_else(|| file.to_owned());
            options.append(true).create_new(true).open(&place)?;
            fs::remove_file(place)
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
    target(first).is_some_and(|found| target(second) == Some(found))
}

/// The file that a name leads to, though it need not be there yet.
fn target(name: &Path) -> Option<PathBuf> {
    let mut name = name.to_owned();
    for _ in 0..MAX_LINKS {
        if let Ok(found) = name.canonicalize() {
            return Some(found);
        }
        let folder = name.parent().filter(|it| !it.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new(".")).canonicalize().ok()?;
        match fs::read_link(&name) {
            Ok(next) => name = folder.join(next),
            Err(_) => return Some(folder.join(name.file_name()?)),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_one(flag: &'static str, file: &Path, inputs: &[&Path]) -> Result<(), CommandError> {
        check(&[Output { flag, file }], inputs)
    }

    #[test]
    fn a_file_that_can_be_written_is_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let (there, new) = (folder.path().join("a"), folder.path().join("b"));
        fs::write(&there, "content").unwrap();
        for file in [&there, &new, Path::new("/dev/null")] {
            check_one("--out", file, &[]).unwrap();
        }
        assert_eq!(fs::read_to_string(&there).unwrap(), "content");
        assert!(!new.exists());
        write("--out", &new, b"x").unwrap();
        assert_eq!(fs::read(&new).unwrap(), b"x");
    }

    #[test]
    #[cfg(unix)]
    fn what_cannot_be_written_whole_leaves_the_old_file_and_links_and_modes_stay() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("a"), folder.path().join("link"));
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        symlink("a", &link).unwrap();
        write("--out", &link, b"new").unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read(&file).unwrap(), b"new");
        assert_eq!(
            fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            0o640
        );
        write("--out", Path::new("/dev/null"), b"x").unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
        let full = write("--out", Path::new("/dev/full"), b"x").unwrap_err();
        assert!(
            full.to_string()
                .starts_with("--out: cannot write /dev/full"),
            "{full}"
        );
        assert!(!fs::metadata("/dev/full").unwrap().is_file());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);

        let nowhere = folder.path().join("nowhere");
        symlink("no/such/folder", &nowhere).unwrap();
        let error = check_one("--out", &nowhere, &[]).unwrap_err().to_string();
        assert!(error.contains("cannot write"), "{error}");
        let new = folder.path().join("new");
        symlink("b", &new).unwrap();
        check_one("--out", &new, &[]).unwrap();
        assert!(!folder.path().join("b").exists());
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
            let error = check_one("--out", file, &[]).unwrap_err();
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
            let error = check_one("--out", &name, &[Path::new("x"), &input]).unwrap_err();
            assert!(matches!(error, CommandError::Usage(_)), "{error}");
            let model = CheckpointFolder {
                path: folder.path().to_owned(),
                files: vec!["x".to_owned(), "input.png".to_owned()],
            };
            let output = Output {
                flag: "--out",
                file: &name,
            };
            let error = check_model(&[output], &model).unwrap_err().to_string();
            assert!(error.contains("which is read"), "{error}");
        }
        let new = folder.path().join("new");
        assert!(check_one("--html", &new, &[&input]).is_ok());
        let error = check_one("--html", Path::new("-"), &[]).unwrap_err();
        assert!(matches!(error, CommandError::Usage(_)), "{error}");
    }

    #[test]
    fn two_outputs_that_are_not_there_yet_are_told_apart_by_target() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("below")).unwrap();
        let new = at("new");
        let mut names = vec![new.clone(), at("./new"), at("below/../new")];
        #[cfg(unix)]
        {
            use std::os::unix::fs::symlink;
            symlink("new", at("link")).unwrap();
            symlink("../link", at("below/link")).unwrap();
            symlink(folder.path(), at("again")).unwrap();
            names.extend([at("link"), at("below/link"), at("again/new")]);
        }
        let both = |second: &Path| {
            let output = |flag, file| Output { flag, file };
            check(
                &[output("--json", new.as_path()), output("--html", second)],
                &[],
            )
        };
        for name in &names {
            let error = both(name).unwrap_err();
            assert!(matches!(error, CommandError::Usage(_)), "{error}");
            let sentence = error.to_string();
            assert!(
                sentence.starts_with("--json and --html name one file"),
                "{sentence}"
            );
        }
        both(&at("below/new")).unwrap();
        assert!(!new.exists() && !at("below/new").exists());
    }
}
