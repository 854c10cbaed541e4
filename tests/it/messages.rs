//! What the program says when it cannot start: the variable that was set and not a flag that nobody
//! typed, and one sentence whatever `RUST_BACKTRACE` says.

use std::process::{Command, Output, Stdio};

use crate::support::data;

/// The program with nothing in its environment but a home.
pub(super) fn florence2(words: &[&str], variables: &[(&str, &str)]) -> Output {
    let home = tempfile::tempdir().unwrap();
    Command::new(env!("CARGO_BIN_EXE_florence2-server"))
        .env_clear()
        .env("HOME", home.path())
        .envs(variables.iter().copied())
        .args(words)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// What a command says on stderr that did not do what it was asked.
#[track_caller]
pub(super) fn refusal(words: &[&str], variables: &[(&str, &str)]) -> String {
    let output = florence2(words, variables);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        matches!(output.status.code(), Some(1 | 2)),
        "{words:?} {variables:?}: {stderr}"
    );
    let line = stderr.lines().find(|line| line.starts_with("error: "));
    line.unwrap_or_else(|| panic!("{stderr}")).to_owned()
}

/// Every flag of a command that has a variable, as its help shows them.
fn settings_of(command: &str) -> Vec<(String, String)> {
    let output = florence2(&[command, "--help"], &[]);
    let help = String::from_utf8(output.stdout).unwrap();
    let mut settings = Vec::new();
    let mut flag = None;
    for line in help.lines().map(str::trim) {
        if let Some(at) = line.find("--").filter(|at| *at <= 4) {
            let end = line[at..]
                .find([' ', ',', '=', '['])
                .map_or(line.len(), |end| at + end);
            flag = Some(line[at..end].to_owned());
        }
        if let Some((_, rest)) = line.split_once("[env: ") {
            let end = rest.find(['=', ']']).unwrap();
            settings.push((flag.clone().unwrap(), rest[..end].to_owned()));
        }
    }
    settings
}

#[test]
fn every_setting_that_cannot_be_read_is_named_by_its_variable() {
    // Texts that every form of value refuses; where one is taken, it is a text.
    let taken = [
        "FLORENCE2_MODEL",
        "FLORENCE2_DATA_DIR",
        "FLORENCE2_API_KEYS",
        "FLORENCE2_ALLOW_SOURCE",
        "FLORENCE2_ALLOW_WEBHOOK",
        "FLORENCE2_PUBLIC_URL",
        "FLORENCE2_CORS_ORIGIN",
    ];
    let settings = settings_of("serve");
    assert!(settings.len() > 50, "{settings:?}");
    let mut tried = 0;
    for (flag, variable) in settings
        .iter()
        .filter(|(_, it)| !taken.contains(&it.as_str()))
    {
        let line = refusal(&["serve"], &[(variable, "no such value")]);
        assert!(line.contains(variable), "{variable}: {line}");
        assert!(!line.contains(&format!("{flag} ")), "{line}");
        // These say what is wrong and not what is right.
        for words in ["invalid digit", "too large to fit", "not a boolean"] {
            assert!(!line.contains(words), "{line}");
        }
        tried += 1;
        // Whoever types the flag is told of the flag, whatever the variable says.
        let typed = format!("{flag}=no such value");
        if tried % 10 == 0 {
            let line = refusal(&["serve", &typed], &[(variable, "neither")]);
            assert!(line.contains(flag) && !line.contains(variable), "{line}");
        }
    }
    assert!(tried > 45, "only {tried}");
    for command in ["run", "bench", "pull"] {
        let mut words = vec![command];
        words.extend((command == "run").then_some("a.png"));
        let line = refusal(&words, &[("HF_HUB_OFFLINE", "perhaps")]);
        assert!(
            line.contains("HF_HUB_OFFLINE") && !line.contains("--offline"),
            "{line}"
        );
    }
}

#[test]
fn a_setting_out_of_range_is_named_by_its_variable() {
    for (variable, value) in [
        ("FLORENCE2_HOST", "0.0.0.0"),
        ("FLORENCE2_API_KEYS", "has space"),
        ("FLORENCE2_MAX_CALLS", "0"),
        ("FLORENCE2_ALLOW_SOURCE", "http://x"),
        ("FLORENCE2_ALLOW_WEBHOOK", "http://x"),
        ("FLORENCE2_PUBLIC_URL", "vision.test"),
        ("FLORENCE2_CORS_ORIGIN", "vision.test"),
        ("FLORENCE2_QUEUE_PORT", "8000"),
        ("FLORENCE2_DATA_DIR", "/dev/null/x"),
        ("FLORENCE2_TLS", "/no/such.pem,/no/such.key"),
        ("FLORENCE2_FILE_TTL_S", "1"),
        ("FLORENCE2_LOG_BUFFER_BYTES", "1"),
        ("FLORENCE2_MAX_PIXELS", "0"),
    ] {
        // Nothing is listened on where the second port is refused.
        let port = if value == "8000" { "8000" } else { "0" };
        let words = ["serve", "--model", "demo", "--port", port];
        let line = refusal(&words, &[(variable, value)]);
        assert!(line.contains(variable), "{variable}: {line}");
        let typed = [
            "--api-key ",
            "--host ",
            "--data-dir",
            "--tls",
            "--max-calls",
        ];
        assert!(!typed.iter().any(|flag| line.contains(flag)), "{line}");
    }
    // What is typed is named as typed, beside a variable that is good.
    let good = [("FLORENCE2_API_KEYS", "good"), ("FLORENCE2_MAX_CALLS", "3")];
    let line = refusal(&["serve", "--api-key", "has space"], &good);
    assert!(line.starts_with("error: --api-key must be"), "{line}");
    let line = refusal(&["serve", "--max-calls", "0"], &good);
    assert!(line.starts_with("error: --max-calls must be"), "{line}");
}

#[test]
fn a_mistake_at_the_prompt_is_said_alike_with_variables_set() {
    // Without the line of usage, which lists all that is set.
    let said = |words: &[&str], variables: &[(&str, &str)]| {
        let output = florence2(words, variables);
        assert_eq!(output.status.code(), Some(2), "{words:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        let end = stderr.find("Usage:").unwrap_or(stderr.len());
        stderr[..end].to_owned()
    };
    let prompt = ["run", "a.png", "--prompt", "x", "--task", "caption"];
    for (words, named) in [
        (&["run"][..], "<IMAGE>..."),
        (&prompt, "'--prompt <TEXT>' cannot be used with"),
        (&["run", "a.png", "--no-such"], "--no-such"),
        (&["run", "a.png", "--task", "none"], "'--task <TASK>'"),
        (&["run", "a.png", "--task"], "'--task <TASK>'"),
        (&["run", "a.png", "--json=1"], "--json"),
        (&["bench", "--random", "huge"], "'--random <SIZE>'"),
        (&["serve", "--port"], "'--port <"),
        (&["serve", "--port", "1", "--port", "2"], "--port"),
        (&["pull", "a/b", "c/d"], "c/d"),
    ] {
        let plain = said(words, &[]);
        assert!(plain.contains(named), "{words:?}: {plain}");
        for variable in [
            ("FLORENCE2_MODEL", "demo"),
            ("HF_HUB_OFFLINE", "1"),
            ("FLORENCE2_INSTRUCTIONS", "portable"),
            ("FLORENCE2_PORT", "8000"),
        ] {
            assert_eq!(said(words, &[variable]), plain, "{words:?} {variable:?}");
        }
    }
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_no_text_is_named_beside_another() {
    use std::os::unix::ffi::OsStrExt;
    let bad = std::ffi::OsStr::from_bytes(b"\xff");
    let output = Command::new(env!("CARGO_BIN_EXE_florence2-server"))
        .env_clear()
        .env("FLORENCE2_MODEL", bad)
        .env("FLORENCE2_API_KEYS", bad)
        .arg("serve")
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    let names = ["FLORENCE2_MODEL", "FLORENCE2_API_KEYS"];
    let named = |name: &&str| stderr.contains(&format!("{name} is not valid UTF-8"));
    assert!(names.iter().any(named), "{stderr}");
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_no_text_is_named() {
    use std::os::unix::ffi::OsStrExt;
    let output = Command::new(env!("CARGO_BIN_EXE_florence2-server"))
        .env_clear()
        .env("FLORENCE2_MODEL", std::ffi::OsStr::from_bytes(b"\xff"))
        .arg("serve")
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr.contains("FLORENCE2_MODEL is not valid UTF-8"),
        "{stderr}"
    );
}

#[test]
fn what_a_warning_quotes_does_nothing_to_a_terminal() {
    let link = ("FLORENCE2_PORT", "tcp://\x1b[31mred\x07");
    let output = florence2(&["client-env", "--port", "1"], &[link]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    let warning = "warning: FLORENCE2_PORT is ignored: tcp://[31mred is what";
    assert!(stderr.starts_with(warning), "{stderr:?}");
    assert!(
        !stderr.lines().any(|line| line.contains(char::is_control)),
        "{stderr:?}"
    );
}

#[test]
fn errors_are_one_sentence_also_with_backtraces_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let source = data::path("parity/01-original-f16");
    for file in ["config.json", "tokenizer.json", "preprocessor_config.json"] {
        std::fs::copy(source.join(file), folder.path().join(file)).unwrap();
    }
    let model = folder.path().to_str().unwrap();
    std::fs::write(folder.path().join("pytorch_model.bin"), "no archive").unwrap();
    let good = source.to_str().unwrap();
    let picture = source.join("picture.png");
    let picture = picture.to_str().unwrap();
    for words in [
        &["run", picture, "--model", model][..],
        &["run", picture, "--model", good, "--device", "cuda"],
        &["run", picture, "--model", good, "--device", "metal"],
        &["run", picture, "--model", good, "--out", "/dev/null/x"],
        &["run", "no-such.png", "--model", good],
        &["bench", "--model", model],
        &["serve", "--port", "0", "--model", model],
        &["pull", "/no/such/folder"],
        &["client-env", "--port", "1"],
    ] {
        let said = |variables: &[(&str, &str)]| {
            let output = florence2(words, variables);
            assert_eq!(output.status.code(), Some(1), "{words:?}");
            String::from_utf8(output.stderr).unwrap()
        };
        let with = said(&[("RUST_BACKTRACE", "1"), ("RUST_LIB_BACKTRACE", "1")]);
        let errors: Vec<_> = with
            .lines()
            .skip_while(|it| !it.starts_with("error: "))
            .collect();
        assert_eq!(errors.len(), 1, "{words:?}: {with}");
        let without = said(&[]);
        assert_eq!(Some(errors[0]), without.lines().last(), "{words:?}");
    }
}

/// The `docker run` lines that the Dockerfile shows, with continued lines joined.
fn docker_lines(dockerfile: &str) -> Vec<String> {
    let comment = dockerfile.lines().map_while(|line| line.strip_prefix('#'));
    let text = comment.collect::<Vec<_>>().join("\n").replace("\\\n", " ");
    let lines = text.lines().map(str::trim);
    lines
        .filter(|line| line.starts_with("docker run "))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_docker_line_starts_a_server_closed_to_strangers() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Dockerfile");
    let dockerfile = std::fs::read_to_string(file).unwrap();
    let image = dockerfile
        .lines()
        .find_map(|line| line.strip_prefix("ENV "))
        .unwrap();
    let lines = docker_lines(&dockerfile);
    assert!(!lines.is_empty());
    for line in lines {
        let words: Vec<_> = line.split_whitespace().collect();
        let options = |name: &str| {
            let pairs = words.windows(2).filter(move |pair| pair[0] == name);
            pairs
                .map(|pair| pair[1].replace('"', ""))
                .collect::<Vec<_>>()
        };
        let (published, set) = (options("-p"), options("-e"));
        let variables = image
            .split_whitespace()
            .map(str::to_owned)
            .chain(set.clone());
        let mut variables: Vec<(String, String)> = variables
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap();
                let value = if value.starts_with('$') {
                    "id:secret"
                } else {
                    value
                };
                (name.to_owned(), value.to_owned())
            })
            .collect();
        let has_keys = set.iter().any(|it| it.starts_with("FLORENCE2_API_KEYS="));
        let is_local = published.iter().all(|it| it.starts_with("127.0.0.1:"));
        assert!(!published.is_empty() && (has_keys || is_local), "{line}");
        // A port and folders of this machine; the model that needs no download.
        let data_dir = tempfile::tempdir().unwrap();
        let folder = data_dir.path().to_str().unwrap();
        for (name, value) in [
            ("FLORENCE2_PORT", "0"),
            ("FLORENCE2_DATA_DIR", folder),
            ("FLORENCE2_MODEL", "/no/such/model"),
        ] {
            variables.push((name.into(), value.into()));
        }
        let variables: Vec<_> = variables
            .iter()
            .map(|(a, b)| (a.as_str(), b.as_str()))
            .collect();
        let output = florence2(&["serve"], &variables);
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(
            stdout.starts_with("listening on http://0.0.0.0:"),
            "{line}: {output:?}"
        );
    }
}
