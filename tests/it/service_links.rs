//! Values of our variables that nobody gave: empty ones, and those that Kubernetes put there for a
//! service of the same name.

use std::collections::BTreeSet;
use std::process::Command;

const LINK: &str = "tcp://10.96.0.12:8000";

fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_florence2-server"));
    command.args(args);
    command
}

fn stderr_of(command: &mut Command) -> (Option<i32>, String) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}

/// Every variable that the help of `serve` names.
fn variables() -> BTreeSet<String> {
    let output = program(&["serve", "--help"]).output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let names = help.split("[env: ").skip(1);
    let names = names.filter_map(|rest| rest.split(['=', ']']).next());
    names
        .filter(|name| name.starts_with("FLORENCE2_"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_services_address_in_any_variable_is_ignored_with_a_warning() {
    let names = variables();
    assert!(
        names.contains("FLORENCE2_PORT") && names.len() > 20,
        "{names:?}"
    );
    // All at once, and a model that is not there: the start gets as far as looking for it.
    let data_dir = tempfile::tempdir().unwrap();
    let mut command = program(&["serve", "--port", "0", "--model", "/no/such/model"]);
    command.arg("--data-dir").arg(data_dir.path());
    command.env_remove("HF_HUB_OFFLINE");
    let (_, plain) = stderr_of(&mut command);
    assert!(plain.contains("/no/such/model"), "{plain}");
    assert!(!plain.contains("Kubernetes"), "{plain}");
    for name in &names {
        command.env(name, LINK);
    }
    let (code, said) = stderr_of(&mut command);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("/no/such/model"), "{said}");
    for name in &names {
        let warning = format!("warning: {name} is ignored: {LINK}");
        assert!(said.contains(&warning), "{name}: {said}");
    }
}

#[test]
fn an_empty_variable_is_not_set_whichever_it_is() {
    let home = tempfile::tempdir().unwrap();
    let mut command = program(&["serve", "--port", "0", "--model", "/no/such/model"]);
    command.env_clear().env("HOME", home.path());
    for name in variables() {
        command.env(name, "");
    }
    command.env("HF_HUB_OFFLINE", "");
    let (code, said) = stderr_of(&mut command);
    assert_eq!(code, Some(1), "{said}");
    let errors = said.lines().filter(|line| line.starts_with("error: "));
    assert_eq!(errors.count(), 1, "{said}");
    assert!(
        said.contains("/no/such/model") && !said.contains("warning: "),
        "{said}"
    );
    let mut command = program(&["pull", "--offline"]);
    command.env_clear().env("HOME", home.path());
    let (_, said) = stderr_of(command.env("FLORENCE2_MODEL", ""));
    assert!(said.contains("microsoft/Florence-2-large"), "{said}");
}

#[test]
fn every_protocol_of_a_service_is_known_and_nothing_else_is_ignored() {
    for (value, is_ignored) in [
        ("tcp://10.0.0.1:80", true),
        ("udp://[fd00::1]:53", true),
        ("sctp://10.0.0.1:1", true),
        ("tcp", false),
        ("http://10.0.0.1:80", false),
        ("seventy", false),
    ] {
        let mut command = program(&["serve", "--model", "/no/such/model"]);
        let data_dir = tempfile::tempdir().unwrap();
        command.arg("--data-dir").arg(data_dir.path());
        // Beside the port that is left to its default, which may be taken here.
        command.env("FLORENCE2_MAX_CALLS", value);
        command.args(["--port", "0"]);
        let (code, said) = stderr_of(&mut command);
        assert_eq!(code == Some(1), is_ignored, "{value}: {said}");
        assert_eq!(said.contains("Kubernetes"), is_ignored, "{value}: {said}");
    }
}
