//! Disks that cannot be written, and disks without symbolic links.

use std::os::unix::fs::PermissionsExt;

use super::*;

/// Takes away every right to write below a folder; gives it back when dropped.
struct ReadOnly<'a>(&'a Path);

impl<'a> ReadOnly<'a> {
    fn new(folder: &'a Path) -> Self {
        set_modes(folder, 0o555, 0o444);
        Self(folder)
    }
}

impl Drop for ReadOnly<'_> {
    fn drop(&mut self) {
        set_modes(self.0, 0o755, 0o644);
    }
}

fn set_modes(folder: &Path, folders: u32, files: u32) {
    let permit = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    permit(folder, 0o755);
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            set_modes(&entry.path(), folders, files);
        } else if !kind.is_symlink() {
            permit(&entry.path(), files);
        }
    }
    permit(folder, folders);
}

/// The command as a user whom file modes bind: the superuser is above them.
fn as_nobody(command: &Command) -> Option<Command> {
    const NOBODY: &str = "65534";
    if !rustix_is_root() {
        let mut same = Command::new(command.get_program());
        same.args(command.get_args());
        return Some(with_env(same, command));
    }
    let mut other = Command::new("setpriv");
    other.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]);
    let works = other
        .arg("true")
        .output()
        .is_ok_and(|out| out.status.success());
    if !works {
        return None;
    }
    let mut other = Command::new("setpriv");
    other.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]);
    other.arg(command.get_program()).args(command.get_args());
    Some(with_env(other, command))
}

fn with_env(mut command: Command, like: &Command) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.env_clear().env("PATH", path);
    for (name, value) in like.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    command.stdin(Stdio::null());
    command
}

fn rustix_is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|out| out.stdout.trim_ascii() == b"0")
}

/// Runs the program on this machine without the right to write; none where that cannot be imitated.
fn without_writing(case: &Machine, words: &[&str]) -> Option<Outcome> {
    // The folders on the way must let the other user pass.
    let home = case.home.path();
    std::fs::set_permissions(home, std::fs::Permissions::from_mode(0o755)).unwrap();
    let Some(mut command) = as_nobody(&case.command(words)) else {
        eprintln!("skipped: this is the superuser, and setpriv is not here");
        return None;
    };
    let _guard = ReadOnly::new(home);
    let output = command.output().unwrap();
    if output.status.code() == Some(126) || output.status.code() == Some(127) {
        eprintln!("skipped: the other user cannot start the program");
        return None;
    }
    Some(Outcome::of(output))
}

#[test]
fn a_complete_cache_that_cannot_be_written_starts() {
    for marks in [true, false] {
        let (hub, case) = checkpoint();
        case.pull().is_good();
        if !marks {
            // Python leaves none for files that nobody asked it for.
            std::fs::remove_dir_all(case.repository().join(".no_exist")).unwrap();
        }
        let before = case.tree();
        let Some(outcome) = without_writing(&case, &["pull", REPOSITORY]) else {
            return;
        };
        outcome.is_good();
        assert_eq!(outcome.stderr, "", "marks: {marks}");
        assert_eq!(case.tree(), before);
        assert!(
            hub.requests()
                .iter()
                .any(|request| request.method == "HEAD")
        );
    }
}

#[test]
fn a_cache_that_cannot_be_filled_names_a_remedy_that_works() {
    let (_hub, case) = checkpoint();
    std::fs::create_dir_all(case.home.path().join("hub")).unwrap();
    let Some(outcome) = without_writing(&case, &["pull", REPOSITORY]) else {
        return;
    };
    outcome.fails_with(&["HF_HUB_CACHE", "permissions"]);
    let elsewhere = tempfile::tempdir().unwrap();
    let mut command = case.command(&["pull", REPOSITORY]);
    command.env("HF_HUB_CACHE", elsewhere.path());
    Outcome::of(command.output().unwrap()).is_good();
}

/// A library that takes symbolic links away from a program; none where there is no compiler.
fn no_links(folder: &Path) -> Option<PathBuf> {
    const CODE: &str = "#include <errno.h>\n\
        int symlink(const char *a, const char *b) { errno = EPERM; return -1; }\n\
        int symlinkat(const char *a, int f, const char *b) { errno = EPERM; return -1; }\n";
    if !cfg!(target_os = "linux") {
        return None;
    }
    let (source, library) = (folder.join("nolinks.c"), folder.join("nolinks.so"));
    std::fs::write(&source, CODE).unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-w", "-o"]);
    let made = compiler.arg(&library).arg(&source).status();
    made.is_ok_and(|status| status.success()).then_some(library)
}

#[test]
fn a_disk_without_symbolic_links_takes_plain_files() {
    let tools = tempfile::tempdir().unwrap();
    let Some(library) = no_links(tools.path()) else {
        eprintln!("skipped: there is no C compiler to take links away with");
        return;
    };
    let (hub, case) = checkpoint();
    let pull = |words: &[&str]| {
        let mut command = case.command(&[&["pull", REPOSITORY], words].concat());
        command.env("LD_PRELOAD", &library);
        Outcome::of(command.output().unwrap())
    };
    pull(&[]).is_good();
    let files: Vec<_> = case
        .tree()
        .into_iter()
        .filter(|(name, _)| name.starts_with("snapshots/") || name.starts_with("blobs/"))
        .collect();
    let expected: Vec<_> = expected_tree()
        .into_iter()
        .filter_map(|(name, _)| {
            let file = name.strip_prefix(&format!("snapshots/{COMMIT}/"))?;
            let bytes = match file {
                "config.json" => CONFIG.to_vec(),
                "tokenizer.json" => TOKENIZER.to_vec(),
                "generation_config.json" => GENERATION.to_vec(),
                _ => weights(),
            };
            Some((name.clone(), etag(&bytes, true)))
        })
        .collect();
    assert_eq!(files, expected);
    // It is complete for everybody, and nothing is fetched twice.
    let downloads = |hub: &Hub| hub.requests().iter().filter(|r| r.method == "GET").count();
    let before = downloads(&hub);
    pull(&[]).is_good();
    case.pull().is_good();
    assert_eq!(downloads(&hub), before);
    pull(&["--offline"]).is_good();
    // A damaged file is found by what the hub promises, and fetched again.
    std::fs::write(case.snapshot().join(WEIGHTS), vec![0; 1_200_000]).unwrap();
    pull(&[]).is_good();
    assert_eq!(downloads(&hub), before + 1);
    pull(&[]).is_good();
    assert_eq!(downloads(&hub), before + 1);
}
