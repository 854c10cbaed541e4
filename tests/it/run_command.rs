//! `run` and `serve` as a person starts them, with a tiny random checkpoint: the contract of the JSON
//! line, exit codes, dumped stages, and the same findings over HTTP.

use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::support::child::Child;
use crate::support::data;
use crate::support::pictures::data_uri;
use crate::support::server::{client, send};

const CHECKPOINT: &str = "parity/01-original-f16";

fn florence2(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_florence2-server"))
        .args(args)
        .env("HF_HUB_OFFLINE", "1")
        .env_remove("FLORENCE2_MODEL")
        .output()
        .unwrap()
}

/// Runs `run` on the tiny checkpoint's own picture.
fn run(args: &[&str]) -> Output {
    let folder = data::path(CHECKPOINT);
    let picture = folder.join("picture.png");
    let fixed = [
        "run",
        picture.to_str().unwrap(),
        "--model",
        folder.to_str().unwrap(),
    ];
    florence2(&[&fixed, args].concat())
}

fn json_of(output: &Output) -> Value {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Exit code and the one sentence on stderr.
fn failure(output: &Output) -> (i32, String) {
    assert!(output.stdout.is_empty(), "stdout belongs to answers");
    (
        output.status.code().unwrap(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[test]
fn the_json_line_has_every_key_of_the_contract_in_order() {
    let line = json_of(&run(&[
        "--json",
        "--task",
        "object-detection",
        "--num-beams",
        "2",
    ]));
    let keys: Vec<&String> = line.as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        [
            "image",
            "width",
            "height",
            "task",
            "model",
            "device",
            "dtype",
            "threads",
            "num_beams",
            "prompt",
            "token_ids",
            "text",
            "results",
            "timings_ms",
            "new_tokens"
        ]
    );
    let timings: Vec<&String> = line["timings_ms"].as_object().unwrap().keys().collect();
    let stages = [
        "load",
        "decode_image",
        "preprocess",
        "vision",
        "encoder",
        "prefill",
        "decode",
        "postprocess",
        "total",
    ];
    assert_eq!(timings, stages);
    assert_eq!(line["task"], "object-detection");
    assert_eq!(
        line["prompt"],
        "Locate the objects with category name in the image."
    );
    assert_eq!(
        (&line["device"], &line["dtype"], &line["num_beams"]),
        (&json!("cpu"), &json!("f32"), &json!(2))
    );
    let tokens = line["token_ids"].as_array().unwrap().len();
    assert_eq!(line["new_tokens"], tokens - 1);
    assert!(line["results"]["bboxes"].is_array());
    assert!(line["text"].as_str().unwrap().starts_with("</s><s>"));
}

#[test]
fn a_prompt_is_expanded_as_the_reference_does() {
    let by_task = json_of(&run(&["--json", "--task", "caption"]));
    let by_prompt = json_of(&run(&["--json", "--prompt", "<CAPTION>"]));
    assert_eq!(by_task["token_ids"], by_prompt["token_ids"]);
    let free = json_of(&run(&["--json", "--prompt", "how many?"]));
    assert_eq!(
        (&free["task"], &free["prompt"]),
        (&Value::Null, &json!("how many?"))
    );
    assert!(free["results"].is_string());
}

#[test]
fn scores_are_told_on_request_and_change_nothing_else() {
    // This checkpoint of random weights finds two boxes in its picture.
    let folder = data::path("parity/10-native-separate-head");
    let picture = folder.join("picture.png");
    let model = folder.to_str().unwrap();
    let ask = |flags: &[&str]| {
        let fixed = ["run", picture.to_str().unwrap(), "--model", model];
        let task = ["--task", "object-detection", "--num-beams", "5"];
        let length = ["--max-new-tokens", "20", "--early-stopping", "true"];
        florence2(&[&fixed, &task[..], &length, flags].concat())
    };
    let plain = json_of(&ask(&["--json"]));
    let mut scored = json_of(&ask(&["--json", "--scores"]));
    assert_eq!(plain["token_ids"], scored["token_ids"]);
    let boxes = scored["results"]["bboxes"].as_array_mut().unwrap();
    assert_eq!(boxes.len(), 2);
    for found in boxes {
        let found = found.as_object_mut().unwrap();
        assert_eq!(found.keys().next_back().unwrap(), "score");
        let score = found.remove("score").unwrap().as_f64().unwrap();
        assert!(0.0 < score && score < 1.0, "{score}");
    }
    assert_eq!(plain["results"], scored["results"]);
    let table = String::from_utf8(ask(&["--scores"]).stdout).unwrap();
    assert_eq!(table.matches("  score 0.").count(), 2, "{table}");
}

#[test]
fn several_pictures_give_a_line_each_and_a_table_names_them() {
    let folder = data::path(CHECKPOINT);
    let picture = folder.join("picture.png");
    let (picture, model) = (picture.to_str().unwrap(), folder.to_str().unwrap());
    let output = florence2(&[
        "run", picture, picture, "--model", model, "--json", "--task", "caption",
    ]);
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 2);
    let output = florence2(&[
        "run", picture, picture, "--model", model, "--task", "caption",
    ]);
    assert_eq!(
        String::from_utf8(output.stdout)
            .unwrap()
            .matches(picture)
            .count(),
        2
    );
}

#[test]
fn stages_are_dumped_in_the_documented_shapes() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let line = json_of(&run(&[
        "--json",
        "--task",
        "caption",
        "--dump-stages",
        file.path().to_str().unwrap(),
    ]));
    assert_eq!(line["task"], "caption");
    let stages = candle_core::safetensors::load(file.path(), &candle_core::Device::Cpu).unwrap();
    let reference = data::path(CHECKPOINT).join("stages.safetensors");
    let reference = candle_core::safetensors::load(reference, &candle_core::Device::Cpu).unwrap();
    assert_eq!(stages.len(), reference.len());
    for (name, tensor) in &reference {
        assert_eq!(stages[name].dims(), tensor.dims(), "{name}");
        assert_eq!(stages[name].dtype(), candle_core::DType::F32, "{name}");
    }
}

#[cfg(unix)]
#[test]
fn an_output_over_a_file_of_the_model_is_wrong_usage() {
    use std::os::unix::fs::symlink;
    // As a hub's cache is laid out: the snapshot's files are links.
    let cache = tempfile::tempdir().unwrap();
    let at = |name: &str| cache.path().join(name);
    for folder in ["blobs", "model", "outputs"] {
        std::fs::create_dir(at(folder)).unwrap();
    }
    for file in [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "preprocessor_config.json",
    ] {
        let blob = at("blobs").join(file);
        std::fs::copy(data::path(CHECKPOINT).join(file), &blob).unwrap();
        symlink(&blob, at("model").join(file)).unwrap();
    }
    symlink("../model/model.safetensors", at("outputs/soft.png")).unwrap();
    std::fs::hard_link(at("blobs/model.safetensors"), at("outputs/hard.png")).unwrap();
    let read = |name: &str| std::fs::read(at("blobs").join(name)).unwrap();
    let before = (read("model.safetensors"), read("config.json"));
    let picture = data::path(CHECKPOINT).join("picture.png");
    let picture = picture.to_str().unwrap();
    for (command, flag, output) in [
        ("run", "--dump-stages", "model/model.safetensors"),
        ("run", "--dump-stages", "blobs/model.safetensors"),
        ("run", "--out", "outputs/soft.png"),
        ("run", "--out", "outputs/hard.png"),
        ("bench", "--json", "model/config.json"),
        ("bench", "--html", "model/../blobs/config.json"),
    ] {
        let (model, output) = (at("model"), at(output));
        let mut args = vec![command];
        args.extend((command == "run").then_some(picture));
        args.extend(["--model", model.to_str().unwrap()]);
        args.extend([flag, output.to_str().unwrap()]);
        let (code, sentence) = failure(&florence2(&args));
        assert_eq!(code, 2, "{args:?}: {sentence}");
        assert!(
            sentence.contains(flag) && sentence.contains("which is read"),
            "{sentence}"
        );
        let after = (read("model.safetensors"), read("config.json"));
        assert!(after == before, "{args:?} wrote over the model");
    }
}

#[test]
fn wrong_usage_is_2_and_what_cannot_run_is_1_with_a_sentence() {
    for args in [
        &["--task", "no-such-task"][..],
        &["--task", "caption", "--region", "1,2,3,4"],
        &["--task", "region-to-category"],
        &["--task", "region-to-category", "--region", "1,2,3,1000"],
        &["--prompt", "<OD> and more"],
        &["--prompt", "<OD>", "--task", "caption"],
        &["--num-beams", "0"],
        &["--device", "gpu"],
    ] {
        let (code, sentence) = failure(&run(args));
        assert_eq!(code, 2, "{args:?}: {sentence}");
    }
    let folder = data::path(CHECKPOINT);
    let model = folder.to_str().unwrap();
    let not_a_picture = folder.join("config.json");
    for (args, named) in [
        (&["run", "no-such.png", "--model", model][..], "no-such.png"),
        (
            &["run", not_a_picture.to_str().unwrap(), "--model", model],
            "config.json",
        ),
        (
            &["run", "x.png", "--model", "no/such/folder"],
            "no/such/folder",
        ),
        (
            &["run", "x.png", "--model", "nobody/nothing"],
            "nobody/nothing",
        ),
    ] {
        let (code, sentence) = failure(&florence2(args));
        assert_eq!(code, 1, "{args:?}: {sentence}");
        assert!(
            sentence.starts_with("error: ") && sentence.contains(named),
            "{sentence}"
        );
        assert_eq!(sentence.trim_end().lines().count(), 1, "{sentence}");
    }
}

#[test]
fn a_checkpoint_whose_weights_do_not_fit_its_config_is_refused_by_tensor_name() {
    let source = data::path(CHECKPOINT);
    let folder = tempfile::tempdir().unwrap();
    for file in [
        "model.safetensors",
        "tokenizer.json",
        "preprocessor_config.json",
    ] {
        std::fs::copy(source.join(file), folder.path().join(file)).unwrap();
    }
    let mut config: Value =
        serde_json::from_slice(&std::fs::read(source.join("config.json")).unwrap()).unwrap();
    let layers = config["text_config"]["decoder_layers"].as_u64().unwrap();
    config["text_config"]["decoder_layers"] = json!(layers + 1);
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let model = folder.path().to_str().unwrap();
    let (code, sentence) = failure(&florence2(&["run", "x.png", "--model", model]));
    let tensor = format!("language_model.model.decoder.layers.{layers}.");
    assert!(code == 1 && sentence.contains(&tensor), "{sentence}");
}

#[tokio::test]
async fn the_server_finds_what_the_command_finds() {
    let folder = data::path(CHECKPOINT);
    let child = Child::serve(&["--model", folder.to_str().unwrap()]).await;
    let image = data_uri(&std::fs::read(folder.join("picture.png")).unwrap());
    for (task, input, flags) in [
        ("dense-region-caption", json!({}), vec![]),
        ("object-detection", json!({}), vec![]),
        ("more-detailed-caption", json!({}), vec![]),
        ("ocr-with-region", json!({}), vec![]),
        (
            "caption-to-phrase-grounding",
            json!({"text_input": "a red car"}),
            vec!["--text", "a red car"],
        ),
        (
            "region-to-segmentation",
            json!({"region": {"x1": 1, "y1": 2, "x2": 700, "y2": 800}}),
            vec!["--region", "1,2,700,800"],
        ),
    ] {
        let mut body = input;
        body["image_url"] = json!(image);
        let answer = send(client().post(child.url(task)).json(&body)).await;
        let line = json_of(&run(&[&["--json", "--task", task][..], &flags].concat()));
        assert_eq!(answer.json()["results"], line["results"], "{task}");
    }
    child.stop("-TERM").await;
}
