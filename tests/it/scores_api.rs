//! `"scores": true` over HTTP: a score as the last key of every finding, and nothing for others.

use florence2_server::fal::endpoint::{ENDPOINTS, OutputModel};
use serde_json::json;

use crate::support::fake_model::FakeModel;
use crate::support::pictures::{grey, input};
use crate::support::server::TestServer;

/// The mean likelihood of the fake model's tokens from one number to another, both included.
fn fake_score(first: u32, last: u32) -> f32 {
    (-f64::from(first + last) / 2.0 / 256.0).exp() as f32
}

#[tokio::test]
async fn findings_carry_a_score_as_their_last_key_for_callers_who_ask() {
    // In this text a character is a token: the label is 7 to 9, a location token of five ten more.
    const FOUND: &str = "</s><s>car<loc_1><loc_2><loc_3><loc_4><loc_5><loc_6><loc_7><loc_8></s>";
    let server = TestServer::with(FakeModel::saying(FOUND), |settings| {
        settings.pipeline.draws_image = false;
    })
    .await;
    let box_score = |first, last| format!(r#""score":{}}}"#, fake_score(first, last));
    for endpoint in &ENDPOINTS {
        let mut body = input();
        let plain = server.call(endpoint.name, &body).await;
        assert!(!plain.text.contains("score"), "{}", endpoint.name);
        for no in [json!(false), json!("off"), json!(0)] {
            body["scores"] = no;
            assert_eq!(server.call(endpoint.name, &body).await.text, plain.text);
        }
        body["scores"] = json!(true);
        let scored = server.call(endpoint.name, &body).await;
        assert_eq!(scored.status, 200);
        let found: Vec<&str> = scored.text.split_inclusive("}").collect();
        let scores: Vec<String> = found
            .iter()
            .filter_map(|text| Some(text[text.find(r#""score""#)?..].to_owned()))
            .collect();
        let expected = match (endpoint.output, endpoint.name) {
            (OutputModel::Text, _) => {
                assert_eq!(scored.text, plain.text);
                vec![]
            }
            (OutputModel::Boxes, "region-proposal") => {
                vec![box_score(10, 37), box_score(38, 65)]
            }
            (OutputModel::OcrBoxes, _) => vec![box_score(7, 65)],
            (OutputModel::Polygons, _) => vec![box_score(10, 65)],
            (OutputModel::Boxes, _) => {
                // Both boxes share the label's three tokens.
                let second = f64::from(7 + 8 + 9) + (38..=65).map(f64::from).sum::<f64>();
                let second = (-second / 31.0 / 256.0).exp() as f32;
                vec![box_score(7, 37), format!(r#""score":{second}}}"#)]
            }
        };
        assert_eq!(scores, expected, "{}: {}", endpoint.name, scored.text);
    }
}

#[tokio::test]
async fn what_is_neither_yes_nor_no_is_a_fault_after_the_published_fields() {
    let server = TestServer::start(FakeModel::saying("never asked")).await;
    let answer = server
        .call(
            "region-to-segmentation",
            &json!({"scores": "maybe", "image_url": grey(2, 2), "region": {"x1": 0, "y1": 0, "x2": 0}}),
        )
        .await;
    assert_eq!(answer.status, 422);
    assert_eq!(
        answer.text,
        r#"{"detail":[{"type":"missing","loc":["body","region","y2"],"msg":"Field required","input":{"x1":0,"y1":0,"x2":0},"url":"https://docs.fal.ai/errors#missing"},{"type":"bool_parsing","loc":["body","scores"],"msg":"Input should be a valid boolean, unable to interpret input","input":"maybe","url":"https://docs.fal.ai/errors#bool_parsing"}]}"#
    );
    let ignored = json!({"scores": "maybe", "image_url": grey(2, 2)});
    assert_eq!(server.call("caption", &ignored).await.status, 200);
}
