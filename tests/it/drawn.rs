//! The drawn picture in answers: there when asked for, reachable, and never a reason to fail.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use florence2_server::fal::endpoint::{ENDPOINTS, OutputModel};
use image::{ImageFormat, RgbImage};
use serde_json::{Value, json};

use crate::support::fake_model::{FakeModel, Reply};
use crate::support::pictures::{grey, input};
use crate::support::queue_client::submit;
use crate::support::raw::{Raw, post};
use crate::support::server::TestServer;

/// Places in every notation, so that every kind of answer finds some.
const PLACES: &str =
    "</s><s>cat<loc_100><loc_200><loc_600><loc_200><loc_600><loc_900><loc_100><loc_900></s>";

fn model() -> FakeModel {
    FakeModel::saying(PLACES)
}

fn with_sync_mode(sync_mode: Value) -> Value {
    let mut body = input();
    body["sync_mode"] = sync_mode;
    body
}

/// Checks that a PNG is the grey picture of [`input`] with something drawn on it.
fn assert_drawn(png: &[u8]) {
    assert_eq!(image::guess_format(png).unwrap(), image::ImageFormat::Png);
    let picture: RgbImage = image::load_from_memory(png).unwrap().into_rgb8();
    assert_eq!(picture.dimensions(), (100, 50));
    let grey = picture.pixels().filter(|it| it.0 == [128; 3]).count();
    assert!((100..4900).contains(&grey), "{grey} pixels are untouched");
}

#[tokio::test]
async fn every_answer_with_places_has_a_picture_that_can_be_fetched_and_sent_again() {
    let server = TestServer::start(model()).await;
    for endpoint in &ENDPOINTS {
        let answer = server.call(endpoint.name, &input()).await;
        assert_eq!(answer.status, 200);
        let body = answer.json();
        if endpoint.output == OutputModel::Text {
            assert_eq!(body.get("image"), None, "{}", endpoint.name);
            continue;
        }
        let image = body["image"].as_object().unwrap();
        let keys: Vec<_> = image.keys().collect();
        let published = [
            "url",
            "content_type",
            "file_name",
            "file_size",
            "width",
            "height",
        ];
        assert_eq!(keys, published);
        let url = image["url"].as_str().unwrap();
        assert!(url.starts_with(&format!("{}/files/", server.base)), "{url}");
        let name = format!("{}.png", endpoint.name);
        assert!(url.ends_with(&format!("/{name}")), "{url}");
        assert_eq!(image["file_name"], name);
        assert_eq!(image["content_type"], "image/png");
        assert_eq!(
            (&image["width"], &image["height"]),
            (&json!(100), &json!(50))
        );
        let fetched = server.client.get(url).send().await.unwrap();
        assert_eq!(fetched.headers()["content-type"], "image/png");
        assert_eq!(fetched.headers()["cache-control"], "public, max-age=604800");
        let png = fetched.bytes().await.unwrap();
        assert_eq!(image["file_size"], png.len());
        assert_drawn(&png);
        let again = server.call("caption", &json!({ "image_url": url })).await;
        assert_eq!(again.status, 200, "{again:?}");
    }
}

#[tokio::test]
async fn without_drawn_images_there_is_none_and_sync_mode_changes_nothing() {
    let server = TestServer::with(model(), |settings| {
        settings.pipeline.draws_image = false;
    })
    .await;
    for body in [input(), with_sync_mode(json!(true))] {
        let answer = server.call("object-detection", &body).await;
        assert_eq!(answer.json()["image"], Value::Null);
        assert!(
            answer.text.ends_with(r#","image":null}"#),
            "{}",
            answer.text
        );
    }
    assert_eq!(server.files.used_bytes(), 0);
}

#[tokio::test]
async fn sync_mode_puts_the_picture_into_the_answer() {
    let server = TestServer::start(model()).await;
    let answer = server
        .call("object-detection", &with_sync_mode(json!(true)))
        .await;
    let image = &answer.json()["image"];
    let url = image["url"].as_str().unwrap();
    let data = url.strip_prefix("data:image/png;base64,").unwrap();
    let png = STANDARD.decode(data).unwrap();
    assert_drawn(&png);
    assert_eq!(image["file_size"], png.len());
    assert_eq!(image["file_name"], "object-detection.png");
    assert_eq!(server.files.used_bytes(), 0);
    // Nothing but true is true, and nothing is a fault: the field is not published.
    for other in [
        json!(false),
        json!(null),
        json!(1),
        json!("true"),
        json!({}),
    ] {
        let answer = server
            .call("object-detection", &with_sync_mode(other.clone()))
            .await;
        let body = answer.json();
        let url = body["image"]["url"].as_str().unwrap();
        assert!(url.starts_with(&server.base), "{other}: {url}");
    }
}

#[tokio::test]
async fn a_picture_that_cannot_be_hosted_is_left_out_and_the_answer_stands() {
    let server = TestServer::with(model(), |settings| {
        settings.files.max_files_bytes = 1 << 20;
    })
    .await;
    // What is left is less than any file takes beside its content.
    let room = (1 << 20) - 2 * (16 << 10);
    let full = server.client.post(format!("{}/files/upload", server.base));
    let full = full.body(vec![7; room]).send().await.unwrap();
    assert_eq!(full.status(), 200);
    let answer = server.call("object-detection", &input()).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["image"], Value::Null);
    assert_eq!(answer.json()["results"]["bboxes"][0]["label"], "cat");
    // Inline it needs no room.
    let answer = server
        .call("object-detection", &with_sync_mode(json!(true)))
        .await;
    assert!(answer.json()["image"]["url"].is_string());
}

#[tokio::test]
async fn a_job_remembers_what_its_caller_asked_for_its_picture() {
    let server = TestServer::start(model()).await;
    let request = |lifecycle: &str| {
        let request = server.client.post(server.queue_url("object-detection"));
        let name = "x-fal-object-lifecycle-preference";
        request.header(name, lifecycle).json(&input())
    };
    let id = submit(request(r#"{"expiration_duration_seconds": 60}"#)).await;
    let answer = server.wait_for_result(&id).await.json();
    let url = answer["image"]["url"].as_str().unwrap();
    let fetched = server.client.get(url).send().await.unwrap();
    assert_eq!(fetched.headers()["cache-control"], "public, max-age=60");
    let refused = request("tomorrow").send().await.unwrap();
    assert_eq!(refused.status(), 400);
}

#[tokio::test]
async fn the_caller_says_how_long_its_picture_lives_and_who_may_see_it() {
    let server = TestServer::with(model(), |settings| {
        settings.auth.api_keys = vec!["k".into()];
    })
    .await;
    let call = |lifecycle: &str| {
        let request = server.client.post(server.url("object-detection"));
        request
            .header("authorization", "Key k")
            .header("x-fal-object-lifecycle-preference", lifecycle)
            .json(&input())
            .send()
    };
    let answer: Value = call(r#"{"expiration_duration_seconds": 60}"#)
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let url = answer["image"]["url"].as_str().unwrap();
    let fetched = server.client.get(url).send().await.unwrap();
    assert_eq!(fetched.headers()["cache-control"], "public, max-age=60");
    server.clock.advance(std::time::Duration::from_secs(60));
    let late = server.client.get(url).send().await.unwrap();
    assert_eq!(late.status(), 404);
    let hidden: Value = call(r#"{"initial_acl": {"default": "hide"}}"#)
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let url = hidden["image"]["url"].as_str().unwrap();
    assert_eq!(server.client.get(url).send().await.unwrap().status(), 404);
    assert_eq!(call("tomorrow").await.unwrap().status(), 400);
}

#[tokio::test]
async fn addresses_name_the_host_that_the_caller_used() {
    let server = TestServer::start(model()).await;
    let body = json!({"image_url": grey(100, 50)}).to_string();
    let path = "/fal-ai/florence-2-large/object-detection";
    let mut raw = Raw::connect(server.address).await;
    let request = post(path, "connection: close\r\n", &body);
    raw.send(request.replace("host: x", "host: vision.example.com:81"))
        .await;
    let answer = raw.read_to_end().await;
    assert!(
        answer.contains(r#""url":"http://vision.example.com:81/files/"#),
        "{answer}"
    );
    // Who names no host gets the listener's own address.
    let mut raw = Raw::connect(server.address).await;
    let request = post(path, "connection: close\r\n", &body);
    let request = request
        .replace("HTTP/1.1", "HTTP/1.0")
        .replace("host: x\r\n", "");
    raw.send(request).await;
    let answer = raw.read_to_end().await;
    let own = format!(r#""url":"{}/files/"#, server.base);
    assert!(
        answer.contains(" 200 ") && answer.contains(&own),
        "{answer}"
    );
}

#[tokio::test]
async fn calls_that_wait_for_the_model_hold_no_decode_slot() {
    let (model, remote) = FakeModel::new(|_, _| Reply::WhenTold(PLACES.into()));
    let server = TestServer::with(model, |settings| settings.decode.decode_slots = 1).await;
    // More calls than slots: each must get through decoding while the first is still being answered.
    let calls: Vec<_> = (0..3)
        .map(|_| {
            let request = server.client.post(server.url("object-detection"));
            tokio::spawn(crate::support::server::send(request.json(&input())))
        })
        .collect();
    remote.wait_for_start().await;
    let other = server
        .call("caption", &json!({"image_url": "data:,nothing"}))
        .await;
    assert_eq!(other.fault_type(), "image_load_error");
    for _ in 0..3 {
        remote.go();
    }
    for call in calls {
        let answer = call.await.unwrap();
        assert!(answer.json()["image"]["url"].is_string(), "{answer:?}");
    }
}

/// The names of the objects in which a server keeps its files.
fn objects(server: &TestServer) -> Vec<String> {
    let folder = server.data_dir().join("files/hosted");
    let entries = std::fs::read_dir(folder).unwrap();
    let names = entries.map(|it| it.unwrap().file_name().into_string().unwrap());
    names.collect()
}

#[tokio::test]
async fn only_the_picture_of_a_kept_answer_is_synced() {
    let server = TestServer::start(model()).await;
    let answer = server.call("object-detection", &input()).await.json();
    let bytes = answer["image"]["file_size"].as_u64().unwrap();
    let [at_once] = objects(&server).try_into().unwrap();
    // The name of what is not synced holds its length, by which half of it is known.
    assert!(at_once.contains(&format!(".da{bytes}-png.")), "{at_once}");
    let request = server.client.post(server.queue_url("object-detection"));
    let id = submit(request.json(&input())).await;
    assert!(server.wait_for_result(&id).await.json()["image"]["url"].is_string());
    let mut later = objects(&server);
    later.retain(|name| *name != at_once);
    let [later] = later.try_into().unwrap();
    assert!(later.contains(".da-png."), "{later}");

    // A caller who names a time is promised the picture for it.
    let known = objects(&server);
    let request = server.client.post(server.url("object-detection"));
    let request = request.header(
        "x-fal-object-lifecycle-preference",
        r#"{"expiration_duration_seconds": 3600}"#,
    );
    let promised = crate::support::server::send(request.json(&input())).await;
    assert!(promised.json()["image"]["url"].is_string());
    let mut objects = objects(&server);
    objects.retain(|name| !known.contains(name));
    let [promised] = objects.try_into().unwrap();
    assert!(promised.contains("a-png."), "{promised}");
}

#[tokio::test]
async fn drawings_on_large_jpegs_are_jpegs_and_all_others_pngs() {
    let server = TestServer::start(model()).await;
    for (format, side, drawn) in [
        (ImageFormat::Jpeg, 1000, "jpeg"),
        (ImageFormat::Jpeg, 999, "png"),
        (ImageFormat::Png, 1000, "png"),
    ] {
        let file = crate::support::pictures::file(side, 1000, [128; 3], format);
        for sync_mode in [false, true] {
            let body = json!({
                "image_url": crate::support::pictures::data_uri(&file), "sync_mode": sync_mode,
            });
            let answer = server.call("object-detection", &body).await.json();
            let image = &answer["image"];
            assert_eq!(image["content_type"], format!("image/{drawn}"));
            let ending = if drawn == "jpeg" { "jpg" } else { "png" };
            assert_eq!(image["file_name"], format!("object-detection.{ending}"));
            let url = image["url"].as_str().unwrap();
            let bytes = match url.split_once(";base64,") {
                Some((head, data)) => {
                    assert_eq!(head, format!("data:image/{drawn}"));
                    STANDARD.decode(data).unwrap()
                }
                None => {
                    let fetched = server.client.get(url).send().await.unwrap();
                    assert_eq!(fetched.headers()["content-type"], format!("image/{drawn}"));
                    fetched.bytes().await.unwrap().to_vec()
                }
            };
            assert_eq!(image["file_size"], bytes.len());
            let written = image::load_from_memory(&bytes).unwrap().into_rgb8();
            assert_eq!(written.dimensions(), (side, 1000));
            let changed = written.pixels().filter(|it| it.0[0].abs_diff(128) > 40);
            assert!(changed.count() > 1000);
        }
    }
}
