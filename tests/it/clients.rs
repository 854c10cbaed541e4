//! Stock clients, installed from their registries, drive the real program: `fal-client` from PyPI and
//! `@fal-ai/client` from npm, the newest and old ones, nothing in them changed.
//!
//! Each is pointed at the server by exactly the lines that `client-env` prints. The drivers in
//! `tests/clients` take steps and tell what came of each; what must come of them stands in
//! [`steps`]. The clients are kept in `target/clients`; delete that folder to get newer ones. On a
//! machine without Python, Node or their registries: `cargo test -- --skip clients::`.

mod install;
mod readme;
mod receiver;
mod served;
mod steps;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::support::server::client;
use install::{Js, Python};
use served::Served;
use steps::{APP, Expected, assert_results, check, data_uri, steps, value};

/// Runs a driver with steps; gives what came of each.
async fn drive(command: Command, steps: &[Value]) -> Vec<Value> {
    let output = feed(command, &json!(steps)).await;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let outcomes: Vec<Value> = lines.collect();
    assert_eq!(outcomes.len(), steps.len(), "{text}\n{stderr}");
    outcomes
}

/// Runs a program to its end with a value on its stdin.
async fn feed(mut command: Command, input: &Value) -> Output {
    let input = input.to_string();
    let run = tokio::task::spawn_blocking(move || {
        let mut program = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = program.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        drop(stdin);
        program.wait_with_output().unwrap()
    });
    run.await.unwrap()
}

fn driver(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/clients")
        .join(name)
}

/// What a Python client can do; and what its errors hold.
async fn python(version: Option<&'static str>, has_statuses: bool) {
    let python = Python::installed(version).await;
    let served = Served::start(&[]).await;
    let setup = served.client_env(&["--client", "python"]).await;
    let mut command = python.command();
    command.arg(driver("driver.py")).arg(served.file(&setup));
    let outcomes = drive(command, &steps(&served, &["polling"])).await;
    let base = [served.base().to_owned()];
    check(&outcomes, &served, &base, &client(), has_statuses).await;
    served.stop().await;
}

/// What a JavaScript client can do, pointed at the server by these lines.
async fn js(version: Option<&'static str>, setup: impl AsyncFnOnce(&Served) -> String) {
    let js = Js::installed(version).await;
    let served = Served::start(&[]).await;
    let setup = setup(&served).await;
    let command = js.command(&driver("driver.cjs"), &served.file(&setup));
    let outcomes = drive(command, &steps(&served, &["polling", "streaming"])).await;
    let base = [served.base().to_owned()];
    check(&outcomes, &served, &base, &client(), true).await;
    served.stop().await;
}

async fn printed(served: &Served) -> String {
    served.client_env(&["--client", "js"]).await
}

#[tokio::test]
async fn the_newest_python_client_works_unchanged() {
    python(None, true).await;
}

#[tokio::test]
async fn python_client_0_7_0_works_unchanged() {
    python(Some("0.7.0"), false).await;
}

#[tokio::test]
async fn python_client_0_5_9_works_unchanged() {
    python(Some("0.5.9"), false).await;
}

#[tokio::test]
async fn the_newest_javascript_client_works_unchanged() {
    js(None, printed).await;
}

#[tokio::test]
async fn javascript_client_1_2_1_works_unchanged() {
    js(Some("1.2.1"), printed).await;
}

#[tokio::test]
async fn the_newest_javascript_client_works_through_its_proxy_option() {
    let setup = async |served: &Served| {
        format!(
            "fal.config({{ credentials: \"any-key\", proxyUrl: {{ url: \"{}/api/fal/proxy\", when: \"always\" }} }});",
            served.base()
        )
    };
    js(None, setup).await;
}

#[tokio::test]
async fn over_tls_python_needs_the_printed_environment_and_nothing_else() {
    let python = Python::installed(None).await;
    let served = Served::start(&["--tls=local", "--api-key=id:secret"]).await;
    let lines = served.client_env(&["--shell", "--client", "python"]).await;
    let expected = Expected::find();
    let call = |op: &str| json!({"op": op, "app": format!("{APP}/dense-region-caption"), "input": {"image_url": data_uri()}});
    let steps = ["run", "run_async", "subscribe", "submit"].map(call);
    let mut command = python.command_in_shell(&lines, &driver("driver.py"));
    command.env("FAL_KEY", "id:secret");
    let outcomes = drive(command, &steps).await;
    let [run, run_async, subscribe, submit] = outcomes.as_slice() else {
        panic!("too few outcomes: {outcomes:?}");
    };
    assert_results(value(run, "run"), &expected.boxes, "run");
    assert_results(value(run_async, "async"), &expected.boxes, "async");
    for (outcome, step) in [(subscribe, "subscribe"), (submit, "submit")] {
        let answer = &value(outcome, step)["value"];
        assert_results(answer, &expected.boxes, step);
        let url = answer["image"]["url"].as_str().unwrap();
        assert!(url.starts_with(served.base()), "{url}");
    }

    // The same lines with another key: the client is told, and does not try for a minute.
    let mut command = python.command_in_shell(&lines, &driver("driver.py"));
    command.env("FAL_KEY", "id:wrong");
    let outcomes = drive(command, &[call("run")]).await;
    assert_eq!(outcomes[0]["error"]["status"], 401, "{outcomes:?}");
    served.stop().await;
}

/// A server that stands where fal's own names lead, and what a client's machine must be told: the
/// names, and lines for the shell.
async fn in_fals_place() -> (Served, Vec<String>, String) {
    let served = Served::start(&["--tls=local"]).await;
    let text = served.client_env(&["--client", "hosts"]).await;
    let line = text.lines().find(|line| line.starts_with("127.0.0.1 "));
    let names = line.unwrap().split(' ').skip(1).map(str::to_owned);
    let names = names.collect();
    let lines = served.client_env(&["--shell", "--client", "hosts"]).await;
    (served, names, lines)
}

/// Checks what a client did that knows fal's names alone.
async fn check_in_fals_place(served: &Served, names: &[String], outcomes: &[Value]) {
    let origins: Vec<_> = names.iter().map(|name| format!("https://{name}")).collect();
    let client = served.client_for(names);
    check(outcomes, served, &origins, &client, true).await;
}

// A hosts file is the machine's, and port 443 the administrator's, so name lookup and port are
// replaced in the client's process. The client, its addresses and its checks of certificates are not.

#[tokio::test]
async fn where_fals_names_lead_here_a_python_program_changes_nothing() {
    let python = Python::installed(None).await;
    let (served, names, lines) = in_fals_place().await;
    let lookup = format!(
        "import socket\nreal = socket.getaddrinfo\n\
         def lookup(host, port, *rest, **more):\n    \
         if host in {names:?}: host, port = '127.0.0.1', {}\n    \
         return real(host, port, *rest, **more)\n\
         socket.getaddrinfo = lookup\n",
        served.port()
    );
    let mut command = python.command_in_shell(&lines, &driver("driver.py"));
    command.arg(served.file(&lookup));
    let outcomes = drive(command, &steps(&served, &["polling"])).await;
    check_in_fals_place(&served, &names, &outcomes).await;
    served.stop().await;
}

#[tokio::test]
async fn where_fals_names_lead_here_a_javascript_program_changes_nothing() {
    let js = Js::installed(None).await;
    let (served, names, lines) = in_fals_place().await;
    let lookup = format!(
        "const tls = require(\"node:tls\"), connect = tls.connect;\n\
         tls.connect = (to, ...rest) => connect({names:?}.includes(to.host)\n  \
         ? {{ ...to, servername: to.host, host: \"127.0.0.1\", port: {} }} : to, ...rest);\n",
        served.port()
    );
    let command = js.command_in_shell(&lines, &driver("driver.cjs"), &served.file(&lookup));
    let outcomes = drive(command, &steps(&served, &["polling", "streaming"])).await;
    check_in_fals_place(&served, &names, &outcomes).await;
    served.stop().await;
}
