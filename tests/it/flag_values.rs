//! Values of flags and variables that cannot be used: what is said names the flag or variable, and what
//! may be given instead. And what the help says before anybody has to ask.

use crate::messages::{florence2, refusal};

#[test]
fn a_number_or_switch_that_is_none_is_told_what_may_be_given() {
    for (variable, value, sentence) in [
        (
            "FLORENCE2_PORT",
            "abc",
            "give a whole number from 0 to 65535",
        ),
        (
            "FLORENCE2_DISK_FLOOR_BYTES",
            "99999999999999999999",
            "give a whole number of bytes from 0 to 1125899906842624",
        ),
        (
            "FLORENCE2_DRAIN_TIMEOUT_S",
            "5s",
            "give a whole number of seconds from 0 to 3600",
        ),
        ("FLORENCE2_OPEN_METRICS", "@bad@", "give true or false"),
    ] {
        let line = refusal(&["serve"], &[(variable, value)]);
        assert!(line.contains(variable), "{line}");
        assert!(line.ends_with(sentence), "{line}");
    }
    for (words, sentence) in [
        (&["serve", "--max-calls", "-1"][..], "from 1 to 65536"),
        (&["serve", "--num-beams", "-1"], "from 1 to 64"),
        (&["bench", "--seed", "-1"], "from 0 to 18446744073709551615"),
        (&["bench", "--runs", "-1"], "from 1 to 1024"),
        (&["client-env", "--port", "-1"], "from 0 to 65535"),
        (&["run", "a.png", "--threads", "x"], "from 1 to 1024"),
    ] {
        let line = refusal(words, &[]);
        assert!(line.contains(words[words.len() - 2]), "{line}");
        assert!(line.ends_with(sentence), "{line}");
    }
    let line = refusal(&["serve"], &[("FLORENCE2_API_KEYS", "my secret")]);
    assert!(
        line.contains("a space") && !line.contains("secret"),
        "{line}"
    );
}

#[test]
fn a_model_that_cannot_be_had_is_named_by_its_variable() {
    let empty = tempfile::tempdir().unwrap();
    let damaged = tempfile::tempdir().unwrap();
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        std::fs::write(damaged.path().join(name), "{}").unwrap();
    }
    let folders = [empty.path(), damaged.path()].map(|path| path.to_str().unwrap());
    for model in ["/nope", "nope", folders[0], folders[1]] {
        for words in [
            &["run", "a.png"][..],
            &["bench"],
            &["serve", "--port", "0"],
            &["pull"],
        ] {
            // A folder with every file is good enough for `pull`.
            if words == ["pull"] && model == folders[1] {
                continue;
            }
            let line = refusal(words, &[("FLORENCE2_MODEL", model)]);
            assert!(line.starts_with("error: FLORENCE2_MODEL: "), "{line}");
            assert!(!line.contains("--model"), "{line}");
        }
        let line = refusal(&["run", "a.png", "--model", model], &[]);
        assert!(line.starts_with("error: --model: "), "{line}");
    }
    let line = refusal(&["pull", "/nope"], &[]);
    assert!(
        !line.contains("--model") && !line.contains("FLORENCE2"),
        "{line}"
    );
}

#[test]
fn help_shows_levels_as_they_are_written_and_what_a_task_needs() {
    let help = |command: &str| {
        let output = florence2(&[command, "--help"], &[]);
        String::from_utf8(output.stdout).unwrap()
    };
    let serve = help("serve");
    assert!(serve.contains("[default: info]"), "{serve}");
    let run = help("run");
    for words in [
        "Tasks with --text: ",
        "Tasks with --region: ",
        "Pictures: .jpg",
        "Exit codes: 0 ",
        "is replaced",
    ] {
        assert!(run.contains(words), "{words}: {run}");
    }
    for flag in ["--out", "--dump-stages"] {
        let line = refusal(&["run", "a.png", flag, "-"], &[]);
        assert!(line.contains(flag) && line.contains("stdout"), "{line}");
    }
}
