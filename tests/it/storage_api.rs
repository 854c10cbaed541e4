//! Uploads as both clients make them, end to end through sockets, and how files are served.

use std::time::Duration;

use image::ImageFormat;
use reqwest::Client;
use serde_json::{Value, json};

use crate::support::fake_model::{FakeModel, Reply};
use crate::support::origin::Origin;
use crate::support::pictures::file;
use crate::support::server::{Answer, TestServer, send};

const KEY: &str = "Key id:secret";
const COLOUR: [u8; 3] = [10, 200, 30];

/// A server with a key whose model answers with the colour of the picture.
async fn server() -> TestServer {
    let (model, _) = FakeModel::new(|_, input| Reply::Text(format!("{:?}", input.pixel_values)));
    TestServer::with(model, |settings| {
        settings.auth.api_keys = vec!["id:secret".into()];
    })
    .await
}

fn picture() -> Vec<u8> {
    file(8, 4, COLOUR, ImageFormat::Png)
}

/// The path of an address on the server.
fn path<'a>(server: &TestServer, url: &'a Value) -> &'a str {
    let url = url.as_str().unwrap();
    let path = url.strip_prefix(&server.base);
    path.unwrap_or_else(|| panic!("{url} is not on {}", server.base))
}

async fn negotiate(server: &TestServer, call: &str, body: &Value) -> Value {
    let url = format!("{}/rest/storage/{call}", server.base);
    let request = server.client.post(url).header("authorization", KEY);
    let answer = send(request.json(body)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

async fn caption(server: &TestServer, image_url: &Value) -> Answer {
    let request = server.client.post(server.url("caption"));
    let request = request.header("authorization", KEY);
    send(request.json(&json!({ "image_url": image_url }))).await
}

async fn assert_seen(server: &TestServer, image_url: &Value) {
    let answer = caption(server, image_url).await;
    let expected = format!("{:?}", COLOUR.map(f32::from));
    assert_eq!(answer.json(), json!({ "results": expected }));
}

async fn get_bytes(client: &Client, url: &Value) -> (reqwest::header::HeaderMap, Vec<u8>) {
    let response = client.get(url.as_str().unwrap()).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let headers = response.headers().clone();
    (headers, response.bytes().await.unwrap().to_vec())
}

#[tokio::test]
async fn javascript_uploads_a_blob_and_uses_its_address() {
    let server = server().await;
    let body = json!({"content_type": "image/png", "file_name": "my cat.png"});
    let call = "upload/initiate?storage_type=fal-cdn-v3";
    let offer = negotiate(&server, call, &body).await;
    let keys: Vec<_> = offer.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["upload_url", "file_url"]);
    let file_path = path(&server, &offer["file_url"]);
    let segments: Vec<_> = file_path.split('/').collect();
    let ["", "files", id, "my_cat.png"] = segments[..] else {
        panic!("{file_path}");
    };
    assert!(
        id.len() == 32 && id.bytes().all(|it| it.is_ascii_hexdigit()),
        "{id}"
    );
    // Before the bytes are there, there is no file.
    assert_eq!(server.get(file_path).await.status, 404);
    let missing = caption(&server, &offer["file_url"]).await;
    assert_eq!(missing.fault_type(), "file_download_error");

    let put = server.client.put(offer["upload_url"].as_str().unwrap());
    let put = put.header("content-type", "image/png").body(picture());
    let answer = send(put).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json(), json!({"access_url": offer["file_url"]}));
    let (headers, bytes) = get_bytes(&server.client, &offer["file_url"]).await;
    assert_eq!(bytes, picture());
    for (name, value) in [
        ("content-type", "image/png"),
        ("content-disposition", "inline; filename=\"my_cat.png\""),
        ("content-length", &picture().len().to_string()),
        ("x-content-type-options", "nosniff"),
        ("content-security-policy", "default-src 'none'; sandbox"),
        ("cache-control", "public, max-age=604800"),
    ] {
        assert_eq!(headers[name], value, "{name}");
    }
    assert_seen(&server, &offer["file_url"]).await;
}

#[tokio::test]
async fn python_uploads_with_a_token_and_falls_back_to_an_address() {
    let server = server().await;
    let call = "auth/token?storage_type=fal-cdn-v3";
    let token = negotiate(&server, call, &json!({})).await;
    let keys: Vec<_> = token.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["token", "token_type", "base_url", "expires_at"]);
    assert_eq!(token["base_url"], server.base);
    let expires_at = token["expires_at"].as_str().unwrap();
    assert!(expires_at.ends_with("+00:00"), "{expires_at}");
    chrono::DateTime::parse_from_rfc3339(expires_at).unwrap();

    let word = token["token_type"].as_str().unwrap();
    let credential = format!("{word} {}", token["token"].as_str().unwrap());
    let url = format!("{}/files/upload", server.base);
    let upload = server
        .client
        .post(&url)
        .header("authorization", &credential);
    let upload = upload
        .header("content-type", "image/png")
        .header("x-fal-file-name", "a.png")
        .header(
            "x-fal-object-lifecycle",
            r#"{"expiration_duration_seconds": 3600}"#,
        )
        .body(picture());
    let answer = send(upload).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let access_url = answer.json()["access_url"].clone();
    let (headers, bytes) = get_bytes(&server.client, &access_url).await;
    assert_eq!(bytes, picture());
    assert_eq!(headers["cache-control"], "public, max-age=3600");
    assert_seen(&server, &access_url).await;

    // A key does as well as a token; nothing at all does not, nor does a token that ended.
    let with_key = server.client.post(&url).header("authorization", KEY);
    assert_eq!(send(with_key.body("x")).await.status, 200);
    assert_eq!(send(server.client.post(&url).body("x")).await.status, 401);
    server.clock.advance(Duration::from_secs(3600));
    let late = server
        .client
        .post(&url)
        .header("authorization", &credential);
    assert_eq!(send(late.body("x")).await.status, 401);

    let body = json!({"file_name": "a.png", "content_type": "image/png"});
    let offer = negotiate(&server, "upload/initiate?storage_type=gcs", &body).await;
    for _ in 0..2 {
        // This client sends its key here, and again after a lost answer.
        let put = server.client.put(offer["upload_url"].as_str().unwrap());
        let put = put.header("authorization", KEY).body(picture());
        assert_eq!(send(put).await.status, 200);
    }
    assert_seen(&server, &offer["file_url"]).await;
}

/// A picture in pieces, so that a wrong order would not decode.
fn pieces() -> Vec<Vec<u8>> {
    picture().chunks(20).map(<[u8]>::to_vec).collect()
}

#[tokio::test]
async fn javascript_sends_parts_one_after_the_other_and_some_twice() {
    let server = server().await;
    let body = json!({"content_type": "image/png", "file_name": "a.png"});
    let call = "upload/initiate-multipart?storage_type=fal-cdn-v3";
    let offer = negotiate(&server, call, &body).await;
    let upload_url = offer["upload_url"].as_str().unwrap();
    let put_part = async |number: usize, content: Vec<u8>| {
        let request = server.client.put(format!("{upload_url}/{number}"));
        let answer = send(request.body(content)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let part = answer.json();
        assert_eq!(part["partNumber"], number);
        let etag = part["etag"].as_str().unwrap();
        assert_eq!(answer.header("etag"), format!("\"{etag}\""));
        part
    };
    let mut parts = Vec::new();
    for (index, piece) in pieces().into_iter().enumerate() {
        if index == 1 {
            put_part(2, b"cut off by a broken line".to_vec()).await;
        }
        parts.push(put_part(index + 1, piece).await);
    }
    let complete = server.client.post(format!("{upload_url}/complete"));
    let complete = complete.json(&json!({ "parts": parts }));
    for _ in 0..2 {
        let answer = send(complete.try_clone().unwrap()).await;
        assert_eq!(answer.json(), json!({"access_url": offer["file_url"]}));
    }
    assert_seen(&server, &offer["file_url"]).await;
}

#[tokio::test]
async fn python_sends_parts_at_once_below_the_file_and_lists_them_in_any_order() {
    let server = server().await;
    let begin = server
        .client
        .post(format!("{}/files/upload/multipart", server.base));
    let begin = begin
        .header("authorization", KEY)
        .header("content-type", "image/png")
        .header("x-fal-file-name", "a.png");
    let begun = send(begin).await.json();
    let keys: Vec<_> = begun.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["access_url", "uploadId"]);
    let access_url = begun["access_url"].as_str().unwrap();
    let upload = format!(
        "{access_url}/multipart/{}",
        begun["uploadId"].as_str().unwrap()
    );
    let sending = pieces().into_iter().enumerate().map(|(index, piece)| {
        let number = index + 1;
        let request = server.client.put(format!("{upload}/{number}"));
        let request = request.header("accept-encoding", "identity").body(piece);
        tokio::spawn(async move {
            let answer = send(request).await;
            // Read from the header, quotation marks and all.
            json!({"partNumber": number, "etag": answer.header("etag")})
        })
    });
    let sending: Vec<_> = sending.collect();
    let mut parts = Vec::new();
    for part in sending {
        parts.push(part.await.unwrap());
    }
    parts.reverse();
    parts.swap(0, 2);
    let complete = server.client.post(format!("{upload}/complete"));
    let answer = send(complete.json(&json!({ "parts": parts }))).await;
    assert_eq!(answer.json(), json!({ "access_url": access_url }));
    assert_seen(&server, &begun["access_url"]).await;
}

/// Uploads bytes with a key and gives the file's address.
async fn upload(server: &TestServer, headers: &[(&str, &str)], content: &[u8]) -> Value {
    let url = format!("{}/files/upload", server.base);
    let mut request = server.client.post(url).header("authorization", KEY);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = send(request.body(content.to_vec())).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["access_url"].clone()
}

#[tokio::test]
async fn nothing_that_a_browser_would_run_is_served_as_such() {
    let server = server().await;
    let page = b"<html><script>alert(1)</script></html>";
    for (content_type, name) in [
        ("text/html", "a.html"),
        ("text/html", "a.png"),
        ("image/svg+xml", "a.svg"),
        ("application/xhtml+xml", "a"),
        ("application/octet-stream", "a.html"),
        ("text/javascript", "a.js"),
        ("image/png", "a.html"),
    ] {
        let headers = [("content-type", content_type), ("x-fal-file-name", name)];
        let url = upload(&server, &headers, page).await;
        let (headers, bytes) = get_bytes(&server.client, &url).await;
        assert_eq!(bytes, page);
        assert_eq!(headers["x-content-type-options"], "nosniff");
        let disposition = headers["content-disposition"].to_str().unwrap();
        let served = headers["content-type"].to_str().unwrap();
        if content_type == "image/png" {
            // A lie about a picture shows as a broken picture.
            assert_eq!(served, "image/png");
        } else {
            assert_eq!(served, "application/octet-stream", "{content_type} {name}");
            assert!(disposition.starts_with("attachment;"), "{disposition}");
        }
    }
}

#[tokio::test]
async fn heads_and_known_tags_get_no_body() {
    let server = server().await;
    let url = upload(&server, &[("content-type", "image/png")], &picture()).await;
    let head = send(server.client.head(url.as_str().unwrap())).await;
    assert_eq!(head.status, 200);
    assert_eq!(head.header("content-length"), picture().len().to_string());
    let request = server.client.get(url.as_str().unwrap());
    let known = request.header("if-none-match", format!("\"x\", {}", head.header("etag")));
    let answer = send(known).await;
    assert_eq!((answer.status, answer.text.as_str()), (304, ""));
    assert_eq!(answer.header("etag"), head.header("etag"));
    let post = send(server.client.delete(url.as_str().unwrap())).await;
    assert_eq!((post.status, post.header("allow")), (405, "GET, HEAD"));
}

#[tokio::test]
async fn hidden_and_forbidden_files_are_for_callers_with_a_key() {
    let server = server().await;
    for (decision, status) in [("allow", 200), ("hide", 404), ("forbid", 401)] {
        let lifecycle = json!({"initial_acl": {"default": decision}}).to_string();
        let headers = [
            ("content-type", "image/png"),
            ("x-fal-object-lifecycle", lifecycle.as_str()),
        ];
        let url = upload(&server, &headers, &picture()).await;
        let get = || server.client.get(url.as_str().unwrap());
        let stranger = get().send().await.unwrap();
        assert_eq!(stranger.status(), status, "{decision}");
        let friend = get().header("authorization", KEY).send().await.unwrap();
        assert_eq!(friend.status(), 200, "{decision}");
        let caching = friend.headers()["cache-control"].to_str().unwrap();
        assert_eq!(
            caching.starts_with("private"),
            decision != "allow",
            "{caching}"
        );
        assert_seen(&server, &url).await;
    }
}

#[tokio::test]
async fn an_own_address_is_read_from_the_store_and_nobody_is_asked() {
    let canary = Origin::canary().await;
    let (model, _) = FakeModel::new(|_, input| Reply::Text(format!("{:?}", input.pixel_values)));
    let server = TestServer::with(model, |settings| {
        settings.auth.api_keys = vec!["id:secret".into()];
        settings.fetch.allowed_sources = vec!["127.0.0.1".into()];
        settings.fetch.max_picture_bytes = 5000;
    })
    .await;
    let url = upload(&server, &[("content-type", "image/png")], &picture()).await;
    let own = path(&server, &url);
    for host in [
        canary.url(""),
        "https://v3.fal.media".into(),
        "http://[::1]:1".into(),
    ] {
        assert_seen(&server, &json!(format!("{host}{own}?x=1"))).await;
    }
    // Even a file that is not there is not looked for elsewhere.
    let id = own.split('/').nth(2).unwrap();
    let other: String = id.chars().rev().collect();
    for missing in [own.replace(id, &other), format!("{own}.jpg")] {
        let answer = caption(&server, &json!(canary.url(&missing))).await;
        assert_eq!(
            (answer.status, answer.fault_type().as_str()),
            (422, "file_download_error")
        );
    }
    let large = upload(&server, &[("content-type", "image/png")], &[0; 5001]).await;
    let answer = caption(&server, &large).await;
    assert_eq!(answer.fault_type(), "file_too_large");
    assert_eq!(canary.connections(), 0);
}
