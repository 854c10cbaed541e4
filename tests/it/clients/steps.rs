//! The steps that every client goes through, and what must come of them.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::served::Served;
use crate::demo;
use crate::support::pictures;

/// The application that clients name.
pub(super) const APP: &str = "fal-ai/florence-2-large";

/// How a job's log tells of its picture.
const PICTURE_LINE: &str = "Picture of ";

/// The checkpoint that the program carries: what it says about its example pictures is true.
pub(super) const MODEL: &str = "demo";
const PICTURE: &str = "three-on-stripes.png";

fn picture() -> PathBuf {
    demo::folder().join(PICTURE)
}

/// The region and the caption that `expected.json` has about the picture.
fn region() -> [u64; 4] {
    let region = &demo::truths()[PICTURE]["region-to-category"]["region"];
    [0, 1, 2, 3].map(|i| region[i].as_u64().unwrap())
}

fn phrases() -> String {
    let grounding = &demo::truths()[PICTURE]["caption-to-phrase-grounding"];
    grounding["text"].as_str().unwrap().to_owned()
}

/// The picture as clients send it that upload nothing.
pub(super) fn data_uri() -> String {
    pictures::data_uri(&std::fs::read(picture()).unwrap())
}

/// What the model says about the picture.
pub(super) struct Expected {
    pub(super) boxes: Value,
    outlines: Value,
    text: Value,
    grounded: Value,
}

impl Expected {
    /// Asks the command line, and checks that what it says is true.
    pub(super) fn find() -> Self {
        let truths = demo::truths();
        let truth = &truths[PICTURE];
        let [x1, y1, x2, y2] = region();
        let region = format!("{x1},{y1},{x2},{y2}");
        let expected = Self {
            boxes: said("dense-region-caption", &[]),
            outlines: said("region-to-segmentation", &["--region", &region]),
            text: said("caption", &[]),
            grounded: said("caption-to-phrase-grounding", &["--text", &phrases()]),
        };
        demo::assert_boxes(&expected.boxes, &truth["dense-region-caption"], PICTURE);
        let phrases = &truth["caption-to-phrase-grounding"]["boxes"];
        demo::assert_boxes(&expected.grounded, phrases, PICTURE);
        assert_eq!(expected.text, truth["caption"]);
        assert_eq!(expected.outlines["polygons"].as_array().unwrap().len(), 1);
        expected
    }
}

fn said(task: &str, flags: &[&str]) -> Value {
    let flags = [&["--task", task], flags].concat();
    demo::run(&[picture()], &flags).remove(0)["results"].take()
}

/// Equal, when 1 and 1.0 are the same number: JavaScript knows no other.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        (a, b) => a == b,
    }
}

/// The value of a step that must have gone well.
pub(super) fn value<'a>(outcome: &'a Value, step: &str) -> &'a Value {
    let value = outcome.get("value");
    value.unwrap_or_else(|| panic!("{step}: {outcome}"))
}

pub(super) fn assert_results(answer: &Value, expected: &Value, step: &str) {
    assert!(
        same(&answer["results"], expected),
        "{step}: {answer} instead of {expected}"
    );
}

/// The steps; each of `modes` is a way of subscribing.
pub(super) fn steps(served: &Served, modes: &[&str]) -> Vec<Value> {
    let call = |op: &str, task: &str, input: Value| json!({"op": op, "app": format!("{APP}/{task}"), "input": input});
    let url = data_uri();
    let plain = || json!({ "image_url": url });
    let [x1, y1, x2, y2] = region();
    let region = json!({"image_url": url, "region": {"x1": x1, "y1": y1, "x2": x2, "y2": y2}});
    let text = json!({"image_url": url, "text_input": phrases()});
    let endless = json!({"image_url": served.receiver.endless()});
    let broken = json!({"image_url": "data:image/png;base64,AAAA"});
    let mut upload = call("upload", "caption", json!({}));
    upload["file"] = json!(picture());
    let mut told = call("submit", "dense-region-caption", plain());
    told["webhook"] = json!(served.receiver.webhook());
    let mut steps = vec![
        call("run", "dense-region-caption", plain()),
        call("run", "region-to-segmentation", region),
        call("run", "caption-to-phrase-grounding", text),
        call("stream", "caption", plain()),
        upload,
        call("cancel", "caption", endless),
        call("run", "caption", json!({})),
        call("submit", "caption", broken),
        json!({"op": "run", "app": "fal-ai/florence-2-base/caption", "input": plain()}),
        told,
    ];
    for mode in modes {
        let mut step = call("subscribe", "dense-region-caption", plain());
        step["mode"] = json!(mode);
        steps.push(step);
    }
    steps
}

/// Checks what came of [`steps`]. Files may stand at any of `origins`; `client` reaches them, and
/// `has_statuses` says that the client's errors tell the status.
pub(super) async fn check(
    outcomes: &[Value],
    served: &Served,
    origins: &[String],
    client: &reqwest::Client,
    has_statuses: bool,
) {
    let expected = Expected::find();
    let (calls, rest) = outcomes.split_at(5);
    let [boxes, outlines, grounded, events, upload] = calls else {
        panic!("too few outcomes: {outcomes:?}");
    };
    let boxes = value(boxes, "run");
    assert_results(boxes, &expected.boxes, "run");
    assert_drawn(boxes, origins, client).await;
    assert_results(value(outlines, "region"), &expected.outlines, "region");
    assert_results(value(grounded, "text"), &expected.grounded, "text");
    let events = value(events, "stream").as_array().unwrap();
    assert_eq!(events.len(), 1, "{events:?}");
    assert_results(&events[0], &expected.text, "stream");
    let upload = value(upload, "upload");
    assert_results(&upload["value"], &expected.text, "upload");
    assert_hosted(&upload["url"], origins);

    let (errors, rest) = rest.split_at(4);
    let wanted = [
        (499, "The request was cancelled"),
        (422, "Field required"),
        (422, "Failed to load the image"),
        (404, "Application \"florence-2-base\" not found"),
    ];
    for (outcome, (status, words)) in errors.iter().zip(wanted) {
        let error = &outcome["error"];
        if has_statuses {
            assert_eq!(error["status"], status, "{outcome}");
        }
        let text = outcome.to_string().replace('\\', "");
        assert!(text.contains(words), "{outcome}");
    }

    let [told, subscribed @ ..] = rest else {
        panic!("too few outcomes: {outcomes:?}");
    };
    assert!(!subscribed.is_empty());
    for outcome in subscribed {
        check_subscription(value(outcome, "subscribe"), &expected);
    }
    check_webhook(value(told, "submit"), &expected, served, client, origins).await;
}

fn check_subscription(subscribed: &Value, expected: &Expected) {
    assert_results(&subscribed["value"], &expected.boxes, "subscribe");
    let statuses = subscribed["statuses"].as_array().unwrap();
    let last = statuses.last().unwrap().as_str().unwrap();
    assert_eq!(last.to_lowercase(), "completed", "{statuses:?}");
    let lines: Vec<_> = subscribed["logs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line.as_str().unwrap())
        .collect();
    // Once: no line is lost, and none is told twice.
    let pictures = lines.iter().filter(|line| line.starts_with(PICTURE_LINE));
    let loaded = pictures.filter(|line| line.contains("loaded"));
    assert_eq!(loaded.count(), 1, "{lines:?}");
}

/// The result of a job, the webhook about it, and its signature.
async fn check_webhook(
    told: &Value,
    expected: &Expected,
    served: &Served,
    client: &reqwest::Client,
    origins: &[String],
) {
    assert_results(&told["value"], &expected.boxes, "submit");
    let call = served.receiver.called().await;
    let body: Value = serde_json::from_slice(&call.body).unwrap();
    assert_eq!(body["request_id"], told["request_id"]);
    assert_eq!(body["status"], "OK");
    assert!(same(&body["payload"], &told["value"]), "{body}");
    let url = format!("{}/.well-known/jwks.json", origins[0]);
    let keys = client.get(url).send().await.unwrap();
    let keys: Value = keys.json().await.unwrap();
    call.verify(&keys).await;
}

fn assert_hosted(url: &Value, origins: &[String]) {
    let url = url.as_str().unwrap_or_default();
    let stands = |origin: &String| url.starts_with(&format!("{origin}/files/"));
    assert!(origins.iter().any(stands), "{url} is none of {origins:?}");
}

/// The drawn picture is where the answer says, and where fal has its files if fal's names are used.
async fn assert_drawn(answer: &Value, origins: &[String], client: &reqwest::Client) {
    let image = &answer["image"];
    let media = origins
        .iter()
        .find(|origin| origin.ends_with("://v3.fal.media"));
    let hosts = media.map_or(origins, std::slice::from_ref);
    assert_hosted(&image["url"], hosts);
    let response = client.get(image["url"].as_str().unwrap());
    let response = response.send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "image/png");
    let bytes = response.bytes().await.unwrap();
    assert_eq!(image["file_size"], bytes.len());
    assert!(bytes.starts_with(b"\x89PNG"));
}
