//! Generated text is read as the reference implementations read it.
//!
//! `golden/postprocess.json` holds what both answered. Where they differ, labels and structure must
//! be the native one's and coordinates the original's. A native coordinate is the original's cut to
//! an integer, so every case is held to the native answer after cutting, and to the original's very
//! f32 values wherever both found the same number of things.
//!
//! `soup/postprocess.json` holds native answers to random rows of tags and words.

use florence2_server::florence2::answer::{Answer, LabelledBox, LabelledPolygons};
use florence2_server::florence2::postprocess::read;
use florence2_server::florence2::task::{AnswerKind, TASKS};
use florence2_server::florence2::tokenizer::Tokenizer;
use serde_json::{Value, json};

use crate::support::data;

/// The table's token, or pure text for a task nobody knows, as the references do.
fn kind_of(task: &str) -> AnswerKind {
    TASKS
        .iter()
        .find(|row| row.token == task)
        .map_or(AnswerKind::PureText, |row| row.answer)
}

/// An answer in the shape in which the reference library gives it.
fn as_reference(answer: &Answer) -> Value {
    let corners = |b: &LabelledBox| json!([b.x1, b.y1, b.x2, b.y2]);
    let box_labels =
        |boxes: &[LabelledBox]| -> Value { boxes.iter().map(|b| b.label.clone()).collect() };
    let outlines = |objects: &[LabelledPolygons]| -> Value {
        objects.iter().map(|o| json!(o.polygons)).collect()
    };
    let outline_labels = |objects: &[LabelledPolygons]| -> Value {
        objects.iter().map(|o| o.label.clone()).collect()
    };
    match answer {
        Answer::Text(text) => json!(text),
        Answer::Boxes(boxes) => json!({
            "bboxes": boxes.iter().map(corners).collect::<Value>(),
            "labels": box_labels(boxes),
        }),
        Answer::Quads(quads) => json!({
            "quad_boxes": quads.iter().map(|quad| json!(quad.points)).collect::<Value>(),
            "labels": quads.iter().map(|quad| quad.label.clone()).collect::<Value>(),
        }),
        Answer::Polygons(objects) => json!({
            "polygons": outlines(objects),
            "labels": outline_labels(objects),
        }),
        Answer::BoxesAndPolygons(boxes, objects) => json!({
            "bboxes": boxes.iter().map(corners).collect::<Value>(),
            "bboxes_labels": box_labels(boxes),
            "polygons": outlines(objects),
            "polygons_labels": outline_labels(objects),
        }),
    }
}

/// The same value with every number cut toward zero, as the native implementation returns it.
fn cut(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64().unwrap().trunc() as i64),
        Value::Array(items) => items.iter().map(cut).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| (key.clone(), cut(value)))
            .collect(),
        other => other.clone(),
    }
}

/// All numbers in order, as f32.
fn numbers(value: &Value) -> Vec<f32> {
    match value {
        Value::Number(number) => vec![number.as_f64().unwrap() as f32],
        Value::Array(items) => items.iter().flat_map(numbers).collect(),
        Value::Object(fields) => fields.values().flat_map(numbers).collect(),
        _ => Vec::new(),
    }
}

fn answer_to(case: &Value) -> Value {
    let side = |i: usize| u32::try_from(case["image_size"][i].as_u64().unwrap()).unwrap();
    let kind = kind_of(case["task"].as_str().unwrap());
    let text = case["text"].as_str().unwrap();
    as_reference(&read(text, kind, side(0), side(1)))
}

#[test]
fn every_golden_text_is_read_as_the_references_read_it() {
    let golden = data::json("golden/postprocess.json");
    let cases = golden["cases"].as_array().unwrap();
    let mut exact = 0;
    for case in cases {
        let task = case["task"].as_str().unwrap();
        let (native, original) = (&case["native"][task], &case["original"][task]);
        let ours = answer_to(case);
        assert_eq!(cut(&ours), *native, "native, {case}");
        // Where the two found different things, the native structure counts; the only such case
        // with equal counts begins its first quad one tag later.
        if numbers(&cut(original)) == numbers(native) {
            assert_eq!(numbers(&ours), numbers(original), "original, {case}");
            exact += 1;
        }
    }
    // 172 cases; the two OCR cases without a text give quads in the original alone, or others.
    assert_eq!((cases.len(), exact), (172, 170));
}

#[test]
fn random_rows_of_tags_are_read_as_the_native_implementation_reads_them() {
    let soup = data::json("soup/postprocess.json");
    let cases = soup["cases"].as_array().unwrap();
    let mut findings = 0;
    for case in cases {
        let ours = cut(&answer_to(case));
        assert_eq!(ours, case["native"], "{case}");
        findings += numbers(&ours).len();
    }
    assert!(
        cases.len() >= 500 && findings > 5_000,
        "{} {findings}",
        cases.len()
    );
}

#[test]
fn published_token_ids_give_the_published_texts_and_answers() {
    let published = data::json("golden/published_outputs.json");
    let mut answers = 0;
    for layout in ["original", "native"] {
        let file = data::path(&format!("tokenizer/{layout}/tokenizer.json"));
        let tokenizer = Tokenizer::open(&file).unwrap();
        for case in published["cases"].as_array().unwrap() {
            let keeps_special_tokens = case["texts_keep_special_tokens"] == true;
            let rows = case["tokens"].as_array().unwrap();
            for (row, tokens) in rows.iter().enumerate() {
                let ids: Vec<u32> = serde_json::from_value(tokens.clone()).unwrap();
                let text = tokenizer.decode(&ids).unwrap();
                let shown = match keeps_special_tokens {
                    true => text.clone(),
                    false => ["</s>", "<s>", "<pad>"]
                        .iter()
                        .fold(text.clone(), |text, tag| text.replace(tag, "")),
                };
                assert_eq!(json!(shown), case["texts"][row], "{}", case["name"]);

                let Some((task, expected)) = published_answer(case, row) else {
                    continue;
                };
                let sizes = case["image_sizes"].as_array().unwrap();
                let size = sizes.get(row).unwrap_or(&sizes[0]);
                let ours = answer_to(&json!({"task": task, "text": text, "image_size": size}));
                assert_eq!(cut(&ours), *expected, "{}", case["name"]);
                answers += 1;
            }
        }
    }
    assert_eq!(answers, 2 * 8);
}

/// The answer that was published for one row of a batch, if any, with its task.
fn published_answer(case: &Value, row: usize) -> Option<(&str, &Value)> {
    let prompt = case["prompts"][row].as_str().unwrap();
    let answers = case["parsed"]
        .as_array()?
        .iter()
        .filter_map(Value::as_object);
    let (task, answer) = answers
        .flatten()
        .find(|(task, _)| prompt.starts_with(*task))?;
    Some((task, answer))
}
