//! Encrypted connections: who is trusted, what is spoken, and that a handshake costs nobody else.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use florence2_server::config::TlsMode;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::support::fake_model::FakeModel;
use crate::support::pictures::{grey, input};
use crate::support::raw::Raw;
use crate::support::server::{TestServer, client, client_trusting, send};

/// A server with a local authority in this folder.
async fn server(folder: &Path, model: FakeModel) -> TestServer {
    let mut server = TestServer::with(model, |settings| {
        settings.http.tls.mode = TlsMode::Local;
        settings.http.tls.authority_dir = folder.to_owned();
        settings.http.header_timeout = Duration::from_secs(1);
        settings.auth.api_keys = vec!["id:secret".into()];
    })
    .await;
    server.client = client_trusting(&std::fs::read(folder.join("ca.pem")).unwrap());
    server
}

#[tokio::test]
async fn only_who_trusts_the_local_authority_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path(), FakeModel::saying("t")).await;
    assert!(server.base.starts_with("https://127.0.0.1:"));
    let call = server
        .client
        .post(server.url("caption"))
        .header("authorization", "Key id:secret");
    let answer = send(call.json(&json!({"image_url": grey(2, 2)}))).await;
    assert_eq!(answer.json(), json!({"results": "t"}));
    let by_name = format!("https://localhost:{}/health/live", server.address.port());
    assert_eq!(send(server.client.get(by_name)).await.status, 200);

    let stranger = client().get(format!("{}/health/live", server.base));
    assert!(stranger.send().await.unwrap_err().is_connect());
}

#[tokio::test]
async fn http_1_1_is_all_that_is_agreed_on() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path(), FakeModel::saying("t")).await;
    for (offered, agreed) in [
        (&["h2", "http/1.1"][..], Some(Some("http/1.1"))),
        (&["http/1.1"], Some(Some("http/1.1"))),
        (&[], Some(None)),
        (&["h2"], None),
    ] {
        let stream = handshake(server.address, folder.path(), offered).await;
        let found = stream.map(|stream| {
            let protocol = stream.get_ref().1.alpn_protocol();
            protocol.map(|name| String::from_utf8(name.to_vec()).unwrap())
        });
        let found = found.as_ref().map(Option::as_deref);
        assert_eq!(found, agreed, "{offered:?}");
    }
}

async fn handshake(
    address: SocketAddr,
    folder: &Path,
    protocols: &[&str],
) -> Option<tokio_rustls::client::TlsStream<TcpStream>> {
    let pem = std::fs::read(folder.join("ca.pem")).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(&pem).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect();
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
    connecting.await.ok()
}

#[tokio::test]
async fn a_plain_request_is_told_the_scheme() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path(), FakeModel::saying("t")).await;
    let mut raw = Raw::connect(server.address).await;
    raw.send("GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n")
        .await;
    let answer = raw.read_to_end().await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    let detail = body["detail"].as_str().unwrap();
    assert!(detail.contains("https://"), "{detail}");
}

#[tokio::test]
async fn a_handshake_that_never_ends_costs_its_own_connection_alone() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path(), FakeModel::saying("t")).await;
    let mut silent = Raw::connect(server.address).await;
    let mut halting = Raw::connect(server.address).await;
    // The beginning of a handshake record that announces 512 bytes.
    halting.send(b"\x16\x03\x01\x02\x00\x01").await;
    let begun = std::time::Instant::now();
    assert_eq!(server.get("/health/live").await.status, 200);
    assert!(begun.elapsed() < Duration::from_secs(1));
    // Both are closed by the clock, without a word.
    assert_eq!(silent.read_to_end().await, "");
    assert_eq!(halting.read_to_end().await, "");
    assert!(begun.elapsed() >= Duration::from_millis(900));
}

#[tokio::test]
async fn a_refusal_before_the_body_arrives_whole_through_tls() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path(), FakeModel::saying("t")).await;
    let call = server
        .client
        .post(server.url("caption"))
        .header("authorization", "Key id:wrong")
        .body(vec![b' '; 8 << 20]);
    let answer = send(call).await;
    assert_eq!(answer.status, 401);
    assert_eq!(
        answer.json(),
        json!({"detail": "No user found for Key ID and Secret"})
    );
}

#[tokio::test]
async fn the_drain_finishes_encrypted_calls_and_ends_handshakes() {
    let folder = tempfile::tempdir().unwrap();
    let (model, remote) = FakeModel::slow("kept");
    let mut server = server(folder.path(), model).await;
    let mut silent = Raw::connect(server.address).await;
    let call = server.client.post(server.url("caption"));
    let call = call.header("authorization", "Key id:secret").json(&input());
    let call = tokio::spawn(send(call));
    remote.wait_for_start().await;
    server.stop();
    assert_eq!(silent.read_to_end().await, "");
    remote.go();
    assert_eq!(call.await.unwrap().json(), json!({"results": "kept"}));
    server.stopped().await;
}

/// Writes a certificate for localhost and its key.
fn write_pair(folder: &Path, name: &str) -> (String, String) {
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let path = |end: &str| folder.join(format!("{name}-{end}.pem"));
    std::fs::write(path("cert"), pair.cert.pem()).unwrap();
    std::fs::write(path("key"), pair.signing_key.serialize_pem()).unwrap();
    let text = |end: &str| path(end).to_str().unwrap().to_owned();
    (text("cert"), text("key"))
}

#[tokio::test]
async fn certificate_files_are_shown() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = write_pair(folder.path(), "a");
    let mut server = TestServer::with(FakeModel::saying("t"), |settings| {
        settings.http.tls.mode = format!("{certificate},{key}").parse().unwrap();
    })
    .await;
    server.client = client_trusting(&std::fs::read(&certificate).unwrap());
    let url = format!("https://localhost:{}/health/live", server.address.port());
    assert_eq!(send(server.client.get(url)).await.status, 200);
}

#[test]
fn files_that_cannot_be_used_end_the_start_with_a_sentence_that_names_them() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = write_pair(folder.path(), "a");
    let (other, _) = write_pair(folder.path(), "b");
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    let empty = empty.to_str().unwrap();
    for (first, second, named) in [
        ("no-such.pem", &*key, "no-such.pem cannot be read"),
        (&*certificate, "no-such.pem", "no-such.pem cannot be read"),
        (empty, &key, "empty.pem holds no certificate"),
        (&certificate, empty, "empty.pem holds no private key"),
        (
            &certificate,
            &certificate,
            "a-cert.pem holds no private key",
        ),
        (&other, &key, "a-key.pem"),
    ] {
        let (code, sentence) = start(&format!("{first},{second}"));
        assert_eq!(code, 1, "{sentence}");
        assert!(sentence.starts_with("error: --tls: "), "{sentence}");
        assert!(sentence.contains(named), "{sentence}");
        assert_eq!(sentence.trim_end().lines().count(), 1, "{sentence}");
    }
    assert_eq!(start("sometimes").0, 2);
}

/// The exit code and stderr of a `serve` that cannot start.
fn start(tls: &str) -> (i32, String) {
    let data_dir = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_florence2-server"))
        .args(["serve", "--port", "0", "--tls", tls, "--data-dir"])
        .arg(data_dir.path())
        .output()
        .unwrap();
    assert!(output.stdout.is_empty());
    let sentence = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), sentence)
}
