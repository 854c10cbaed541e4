//! `client-env` as a person calls it: it finds the server, or says in one sentence why not.

use std::path::Path;
use std::process::{Command, Output};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::support::child::Child;
use crate::support::data;
use crate::support::fake_model::FakeModel;
use crate::support::origin::{Origin, Serve};
use crate::support::server::TestServer;

/// Runs the command beside the test's runtime, on which the server may live.
async fn client_env(args: &[&str]) -> Output {
    ended(command(args)).await
}

async fn ended(mut command: Command) -> Output {
    let output = tokio::task::spawn_blocking(move || command.output());
    output.await.unwrap().unwrap()
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_florence2-server"));
    command.arg("client-env").args(args);
    for name in ["HOST", "PORT", "TLS", "DATA_DIR"] {
        command.env_remove(format!("FLORENCE2_{name}"));
    }
    command
}

/// A server with a local authority in the folder's `tls`.
async fn local_server(folder: &Path) -> TestServer {
    TestServer::with(FakeModel::saying("t"), |settings| {
        settings.http.tls.mode = florence2_server::config::TlsMode::Local;
        settings.http.tls.authority_dir = folder.join("tls");
    })
    .await
}

/// Writes a new authority of somebody else into a file.
fn write_authority(file: &Path) -> CertificateDer<'static> {
    let key = rcgen::KeyPair::generate().unwrap();
    let parameters = rcgen::CertificateParams::new(vec!["company".to_owned()]).unwrap();
    let authority = parameters.self_signed(&key).unwrap();
    std::fs::write(file, authority.pem()).unwrap();
    authority.der().clone()
}

fn certificates(file: &Path) -> Vec<CertificateDer<'static>> {
    let pem = std::fs::read(file).unwrap();
    let found = CertificateDer::pem_slice_iter(&pem);
    found.map(Result::unwrap).collect()
}

/// What the command says with `SSL_CERT_FILE` set to a file, or not set.
async fn with_cert_file(file: Option<&Path>, args: &[&str]) -> Output {
    let mut command = command(args);
    command
        .env_remove("SSL_CERT_FILE")
        .env_remove("SSL_CERT_DIR");
    command.envs(file.map(|file| ("SSL_CERT_FILE", file)));
    ended(command).await
}

fn stdout(output: Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    String::from_utf8(output.stdout).unwrap()
}

fn sentence(output: Output) -> String {
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty(), "stdout belongs to answers");
    let sentence = String::from_utf8(output.stderr).unwrap();
    assert_eq!(sentence.trim_end().lines().count(), 1, "{sentence}");
    sentence
}

#[tokio::test]
async fn an_encrypted_server_is_found_through_its_data_folder() {
    let model = data::path("parity/02-native-f16");
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().to_str().unwrap();
    let child = Child::serve(&[
        "--model",
        model.to_str().unwrap(),
        "--tls=local",
        "--data-dir",
        data_dir,
    ])
    .await;
    let host = child.base().strip_prefix("https://").unwrap();
    let port = host.rsplit(':').next().unwrap();
    let authority = folder.path().join("tls/ca.pem");
    let bundle = folder.path().join("tls/ca-bundle.pem");
    let expected = format!(
        "export FAL_KEY=any-key\nexport FAL_RUN_HOST={host}\nexport FAL_QUEUE_RUN_HOST={host}/queue\nexport SSL_CERT_FILE={}\nexport NODE_EXTRA_CA_CERTS={}\n",
        bundle.display(),
        authority.display()
    );
    let by_port = client_env(&["--shell", "--port", port, "--data-dir", data_dir]).await;
    assert_eq!(stdout(by_port), expected);
    let by_url = ["--shell", "--url", child.base(), "--data-dir", data_dir];
    assert_eq!(stdout(client_env(&by_url).await), expected);
    let text = std::fs::read_to_string(&bundle).unwrap();
    assert!(text.starts_with(&std::fs::read_to_string(&authority).unwrap()));

    let elsewhere = tempfile::tempdir().unwrap();
    let elsewhere = elsewhere.path().to_str().unwrap();
    let distrust = client_env(&["--url", child.base(), "--data-dir", elsewhere]).await;
    let distrust = sentence(distrust);
    assert!(distrust.contains("--data-dir"), "{distrust}");
    child.stop("-TERM").await;
}

#[tokio::test]
async fn what_a_program_is_told_to_trust_holds_the_authorities_of_the_system() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().to_str().unwrap();
    let server = TestServer::with(FakeModel::saying("t"), |settings| {
        settings.http.tls.mode = florence2_server::config::TlsMode::Local;
        settings.http.tls.authority_dir = folder.path().join("tls");
    })
    .await;
    let key = rcgen::KeyPair::generate().unwrap();
    let parameters = rcgen::CertificateParams::new(vec!["company".to_owned()]).unwrap();
    let system = parameters.self_signed(&key).unwrap();
    let system_file = folder.path().join("system.pem");
    std::fs::write(&system_file, system.pem()).unwrap();

    let mut command = command(&["--shell", "--url", &server.base, "--data-dir", data_dir]);
    command.env("SSL_CERT_FILE", &system_file);
    command.env_remove("SSL_CERT_DIR");
    let lines = stdout(ended(command).await);
    let line = lines
        .lines()
        .find_map(|line| line.strip_prefix("export SSL_CERT_FILE="));
    let bundle = std::fs::read(line.unwrap()).unwrap();
    let read = CertificateDer::pem_slice_iter(&bundle);
    let read: Vec<_> = read.map(|it| it.unwrap().to_vec()).collect();
    let own = std::fs::read(folder.path().join("tls/ca.pem")).unwrap();
    let own = CertificateDer::from_pem_slice(&own).unwrap().to_vec();
    assert!(read == [own, system.der().to_vec()], "{lines}");
}

#[cfg(unix)]
#[tokio::test]
async fn a_bundle_for_a_certificate_with_its_key_holds_no_key() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().to_str().unwrap();
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let both = folder.path().join("both.pem");
    let key = pair.signing_key.serialize_pem();
    std::fs::write(&both, pair.cert.pem() + &key).unwrap();
    let tls = format!("{0},{0}", both.display());
    let server = TestServer::with(FakeModel::saying("t"), |settings| {
        settings.http.tls.mode = tls.parse().unwrap();
    })
    .await;
    let url = format!("https://localhost:{}", server.address.port());
    let system = folder.path().join("system.pem");
    let other = write_authority(&system);
    let mut command = Command::new("sh");
    command
        .args(["-c", "umask 000; exec \"$0\" \"$@\""])
        .args([env!("CARGO_BIN_EXE_florence2-server"), "client-env"])
        .args(["--shell", "--url", &url, "--tls", &tls])
        .args(["--data-dir", data_dir])
        .env("SSL_CERT_FILE", &system)
        .env_remove("SSL_CERT_DIR");
    let lines = stdout(ended(command).await);
    let bundle = folder.path().join("tls/ca-bundle.pem");
    assert!(lines.contains(bundle.to_str().unwrap()), "{lines}");
    let text = std::fs::read_to_string(&bundle).unwrap();
    assert!(!text.contains("PRIVATE KEY"), "the key was copied");
    assert_eq!(certificates(&bundle), [pair.cert.der().clone(), other]);
    let mode = std::fs::metadata(&bundle).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
}

#[tokio::test]
async fn a_second_call_in_one_shell_reads_the_system_again() {
    let folder = tempfile::tempdir().unwrap();
    let server = local_server(folder.path()).await;
    let data_dir = folder.path().to_str().unwrap();
    let args = ["--shell", "--url", &server.base, "--data-dir", data_dir];
    let own = certificates(&folder.path().join("tls/ca.pem")).remove(0);
    let bundle = folder.path().join("tls/ca-bundle.pem");
    let system = folder.path().join("system.pem");
    let before = write_authority(&system);
    let first = stdout(with_cert_file(Some(&system), &args).await);
    assert_eq!(certificates(&bundle), [own.clone(), before]);
    let after = write_authority(&system);
    let second = stdout(with_cert_file(Some(&bundle), &args).await);
    assert_eq!(second, first);
    assert_eq!(certificates(&bundle), [own, after]);
}

#[tokio::test]
async fn a_variable_that_names_the_authority_alone_leaves_the_system_in_the_bundle() {
    let folder = tempfile::tempdir().unwrap();
    let server = local_server(folder.path()).await;
    let data_dir = folder.path().to_str().unwrap();
    let args = ["--shell", "--url", &server.base, "--data-dir", data_dir];
    let bundle = folder.path().join("tls/ca-bundle.pem");
    stdout(with_cert_file(None, &args).await);
    let unset = certificates(&bundle);
    let authority = folder.path().join("tls/ca.pem");
    let again = with_cert_file(Some(&authority), &args).await;
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    stdout(again);
    let set = certificates(&bundle);
    // A machine without any authority of its own is told so.
    assert_eq!(set.len() > 1, unset.len() > 1, "{said}");
    assert_eq!(set.len() > 1, said.is_empty(), "{said}");
}

#[tokio::test]
async fn a_variable_that_leads_nowhere_is_named_and_hides_no_server() {
    let folder = tempfile::tempdir().unwrap();
    let gone = folder.path().join("gone.pem");
    let named = format!("SSL_CERT_FILE names {}, ", gone.display());
    let local = local_server(folder.path()).await;
    let data_dir = folder.path().to_str().unwrap();
    let args = ["--shell", "--url", &local.base, "--data-dir", data_dir];
    let warned = with_cert_file(Some(&gone), &args).await;
    let warning = String::from_utf8_lossy(&warned.stderr).into_owned();
    assert!(stdout(warned).contains("ca-bundle.pem"), "{warning}");
    assert!(warning.starts_with("warning: ") && warning.contains(&named));
    assert_eq!(warning.lines().count(), 1, "{warning}");

    let elsewhere = tempfile::tempdir().unwrap();
    let elsewhere = elsewhere.path().to_str().unwrap();
    let args = ["--url", &local.base, "--data-dir", elsewhere];
    let distrust = sentence(with_cert_file(Some(&gone), &args).await);
    assert!(distrust.contains(&named), "{distrust}");

    let plain = TestServer::start(FakeModel::saying("t")).await;
    let port = plain.address.port().to_string();
    for args in [&["--tls=off"][..], &["--data-dir", elsewhere]] {
        let args = [&["--port", &port], args].concat();
        let text = stdout(with_cert_file(Some(&gone), &args).await);
        assert!(text.contains("which takes any key"), "{args:?}: {text}");
    }
}

#[tokio::test]
async fn the_help_says_which_file_is_written() {
    let help = stdout(client_env(&["--help"]).await);
    let words: Vec<_> = help.split_whitespace().collect();
    let help = words.join(" ");
    let named = help.matches("tls/ca-bundle.pem").count();
    assert_eq!(named, 2, "the command and --data-dir: {help}");
    assert!(help.contains("also writes a file"), "{help}");
}

#[tokio::test]
async fn lines_for_a_server_with_keys_hold_no_key_of_their_own() {
    let server = TestServer::with(FakeModel::saying("t"), |settings| {
        settings.auth.api_keys = vec!["id:secret".into()];
    })
    .await;
    for client in ["python", "js"] {
        let text = stdout(client_env(&["--url", &server.base, "--client", client]).await);
        assert!(
            text.contains("FAL_KEY") && !text.contains("any-key"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_plain_server_is_found_and_says_whether_it_wants_a_key() {
    let open = TestServer::start(FakeModel::saying("t")).await;
    let text = stdout(client_env(&["--url", &open.base]).await);
    assert!(text.contains("which takes any key"), "{text}");
    let keyed = TestServer::with(FakeModel::saying("t"), |settings| {
        settings.auth.api_keys = vec!["id:secret".into()];
    })
    .await;
    let port = keyed.address.port().to_string();
    let text = stdout(client_env(&["--port", &port]).await);
    assert!(text.contains("which asks for one of its keys"), "{text}");
    let refused = client_env(&["--port", &port, "--shell"]).await;
    assert!(sentence(refused).contains("--tls local"));
}

#[tokio::test]
async fn a_wrong_address_is_said() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    drop(taken);
    let nobody = sentence(client_env(&["--port", &port]).await);
    assert!(
        nobody.contains("no florence2-server answers at "),
        "{nobody}"
    );
    assert!(nobody.contains(&port), "{nobody}");
    let stranger = Origin::start(|_| Serve::Body(b"hello".to_vec())).await;
    let url = stranger.url("");
    let other = sentence(client_env(&["--url", &url]).await);
    assert!(other.contains("is no florence2-server"), "{other}");
}
