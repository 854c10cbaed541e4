//! Several tasks about one picture: the answers of the single calls, from one look.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::Device;
use florence2_server::config::{DecodeSettings, FetchSettings};
use florence2_server::engine::Engine;
use florence2_server::engine::predict::{Predict, PredictError, Prediction, PreparedInput};
use florence2_server::fal::endpoint::ENDPOINTS;
use florence2_server::fal::tasks::{self, TasksInput};
use florence2_server::fal::{input, output::TaskOutput};
use florence2_server::florence2::processor::{PixelValues, Processor, ProcessorError};
use florence2_server::florence2::{Dtype, Florence2};
use florence2_server::image_io::PictureLoader;
use florence2_server::pipeline::{AskOptions, Codec, Pipeline, Timings};
use florence2_server::semaphore::Caller;
use image::RgbImage;
use serde_json::{Value, json};

use crate::support::data;
use crate::support::fake_model::{FakeCodec, FakeModel, Reply, options};
use crate::support::pictures::{data_uri, grey};
use crate::support::server::{Answer, TestServer, send};

/// Each prompt's own words, with two boxes in them.
fn echoing() -> FakeModel {
    let answer = |prompt: &str, _: &_| {
        Reply::Text(format!(
            "{prompt}<loc_1><loc_2><loc_3><loc_4><loc_5><loc_6><loc_7><loc_8>"
        ))
    };
    FakeModel::new(answer).0
}

/// A call for every task, in an order that is not the catalogue's.
fn every_task(image_url: &str) -> Value {
    let region = json!({"x1": 1, "y1": 2, "x2": 300, "y2": 400});
    let named = |name: &str| json!({"task": name, "text_input": "a cup", "region": region});
    let tasks: Vec<Value> = ENDPOINTS.iter().rev().map(|it| named(it.name)).collect();
    json!({"image_url": image_url, "tasks": tasks})
}

/// What the single call to a task's endpoint takes.
fn single(call: &Value, task: &Value) -> Value {
    let mut body = task.clone();
    for key in ["image_url", "scores"] {
        if let Some(value) = call.get(key) {
            body[key] = value.clone();
        }
    }
    body
}

#[tokio::test]
async fn every_entry_is_the_single_calls_answer_after_the_tasks_name() {
    // A drawn picture has a new address each time.
    let server =
        TestServer::with(echoing(), |settings| settings.pipeline.draws_image = false).await;
    for scores in [json!(false), json!(true)] {
        let mut call = every_task(&grey(100, 50));
        call["scores"] = scores;
        let mut entries = Vec::new();
        for task in call["tasks"].as_array().unwrap() {
            let name = task["task"].as_str().unwrap();
            let alone = server.call(name, &single(&call, task)).await;
            assert_eq!(alone.status, 200);
            entries.push(format!(r#"{{"task":"{name}",{}"#, &alone.text[1..]));
        }
        let expected = format!(r#"{{"results":[{}]}}"#, entries.join(","));
        for path in ["", "/run"] {
            for slash in ["", "/"] {
                let url = format!("{}{path}/fal-ai/florence-2-large{slash}", server.base);
                let answer = send(server.client.post(url).json(&call)).await;
                assert_eq!((answer.status, answer.text.as_str()), (200, &*expected));
                assert_eq!(answer.header("content-type"), "application/json");
                assert_eq!(answer.header("x-fal-billable-units"), "14");
            }
        }
    }
}

#[tokio::test]
async fn a_task_may_be_asked_twice_and_by_its_name_alone() {
    let server = TestServer::start(echoing()).await;
    let find = |text: &str| json!({"task": "open-vocabulary-detection", "text_input": text});
    let tasks = json!([find("a cup"), "caption", find("a dog"), "caption"]);
    let body = json!({"image_url": grey(2, 2), "tasks": tasks});
    let answer = server.call("", &body).await.json();
    let results = answer["results"].as_array().unwrap();
    let names: Vec<_> = results.iter().map(|entry| &entry["task"]).collect();
    let find = "open-vocabulary-detection";
    assert_eq!(names, [find, "caption", find, "caption"]);
    let label = |entry: usize| &results[entry]["results"]["bboxes"][0]["label"];
    assert_eq!(label(0), "Locate a cup in the image.");
    assert_eq!(label(2), "Locate a dog in the image.");
    assert_eq!(results[1], results[3]);
}

#[tokio::test]
async fn several_tasks_go_through_the_queue_as_one_job_with_its_faults_in_the_result() {
    let server = TestServer::start(echoing()).await;
    let body = json!({"image_url": grey(2, 2), "tasks": ["caption", "object-detection"], "sync_mode": true});
    let at_once = server.call("", &body).await;
    let id = server.submit("", &body).await;
    let later = server.wait_for_result(&id).await;
    assert_eq!((later.status, &later.text), (200, &at_once.text));
    assert_eq!(later.header("x-fal-billable-units"), "2");
    let drawn = later.json()["results"][1]["image"]["url"].clone();
    assert!(
        drawn
            .as_str()
            .unwrap()
            .starts_with("data:image/png;base64,")
    );
    let id = server
        .submit("", &json!({"image_url": "u", "tasks": []}))
        .await;
    let refused = server.wait_for_result(&id).await;
    assert_eq!(refused.status, 422);
    assert_eq!(refused.fault_type(), "sequence_too_short");
}

/// How often a picture was prepared, and how often one was seen.
#[derive(Default)]
struct Looks {
    prepared: AtomicUsize,
    seen: AtomicUsize,
    prompts: AtomicUsize,
}

struct CountingCodec(Arc<Looks>);

impl Codec for CountingCodec {
    fn pixel_values(&self, picture: &RgbImage) -> PixelValues {
        self.0.prepared.fetch_add(1, Ordering::Relaxed);
        FakeCodec.pixel_values(picture)
    }

    fn input_ids(&self, text: &str, max_text_tokens: usize) -> Result<Vec<u32>, ProcessorError> {
        FakeCodec.input_ids(text, max_text_tokens)
    }

    fn decode(&self, token_ids: &[u32]) -> Result<String, ProcessorError> {
        FakeCodec.decode(token_ids)
    }

    fn token_ends(&self, token_ids: &[u32], text: &str) -> Result<Vec<usize>, ProcessorError> {
        FakeCodec.token_ends(token_ids, text)
    }
}

/// A model that is asked once for each picture it has to see.
struct CountingModel(Arc<Looks>, FakeModel);

impl Predict for CountingModel {
    fn predict(
        &mut self,
        input: &PreparedInput,
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<Vec<Prediction>, PredictError> {
        let Self(looks, model) = self;
        looks.seen.fetch_add(1, Ordering::Relaxed);
        looks
            .prompts
            .fetch_add(input.prompts.len(), Ordering::Relaxed);
        model.predict(input, is_wanted)
    }
}

#[tokio::test]
async fn the_picture_is_prepared_once_and_seen_once() {
    let looks = Arc::new(Looks::default());
    let server = TestServer::without_model(Default::default()).await;
    let model = Box::new(CountingModel(Arc::clone(&looks), echoing()));
    let engine = Engine::start(model, 8).unwrap();
    let codec = Arc::new(CountingCodec(Arc::clone(&looks)));
    server.slot.provide(pipeline(engine, codec, options()));
    let counts = || {
        let count = |it: &AtomicUsize| it.swap(0, Ordering::Relaxed);
        [
            count(&looks.prepared),
            count(&looks.seen),
            count(&looks.prompts),
        ]
    };
    let call = every_task(&grey(9, 9));
    assert_eq!(server.call("", &call).await.status, 200);
    assert_eq!(counts(), [1, 1, 14]);
    for task in call["tasks"].as_array().unwrap() {
        let name = task["task"].as_str().unwrap();
        server.call(name, &single(&call, task)).await;
    }
    assert_eq!(counts(), [14, 14, 14]);
    let stage = r#"florence2_stage_seconds_count{stage="picture"} 15"#;
    let text = server.get("/metrics").await.text;
    assert!(text.contains(stage), "{text}");
    let route = r#"florence2_requests_total{route="florence-2-large",status="200"} 1"#;
    assert!(text.contains(route), "{text}");
}

fn pipeline(engine: Engine, codec: Arc<dyn Codec>, options: AskOptions) -> Pipeline {
    let pictures = PictureLoader::new(&FetchSettings::default(), DecodeSettings::default());
    Pipeline::new(pictures.unwrap(), codec, engine, options)
}

/// A tiny checkpoint behind the pipeline, as `serve` puts it there.
fn real_pipeline(folder: &Path) -> Pipeline {
    let model = Florence2::load(folder, &Device::Cpu, Dtype::F32).unwrap();
    let processor = Processor::load(folder).unwrap();
    let image_tokens = model.image_tokens(processor.side()).unwrap();
    let mut generation = model.config().generation;
    generation.max_new_tokens = 40;
    let options = AskOptions {
        generation,
        max_text_tokens: model.config().text.max_position_embeddings - image_tokens,
    };
    let engine = Engine::start(Box::new(model), 8).unwrap();
    pipeline(engine, Arc::new(processor), options)
}

#[tokio::test]
async fn a_real_model_gives_every_task_the_answer_of_its_single_call() {
    for checkpoint in ["01-original-f16", "02-native-f16"] {
        let folder = data::path(&format!("parity/{checkpoint}"));
        let pipeline = real_pipeline(&folder);
        let picture = data_uri(&std::fs::read(folder.join("picture.png")).unwrap());
        let mut call = every_task(&picture);
        call["scores"] = json!(true);
        let asked: TasksInput = tasks::read(call.clone(), 14).unwrap();
        let question = pipeline.questions(&asked).await.unwrap();
        let image_url = asked.image_url.clone();
        let file = pipeline.read(image_url, Caller::Own).await.unwrap();
        let together = pipeline.answer_call(question, file, None, None);
        let together = together.await.unwrap();
        assert_eq!(together.len(), 14);
        let mut texts = Vec::new();
        for ((task, fields), answered) in asked
            .tasks
            .iter()
            .zip(call["tasks"].as_array().unwrap())
            .zip(&together)
        {
            let input = input::read(task.endpoint, single(&call, fields)).unwrap();
            let question = pipeline.question(task.endpoint, &input).await.unwrap();
            let file = pipeline.read(input.image_url, Caller::Own).await.unwrap();
            let alone = pipeline.answer_call(question, file, None, None);
            let [alone] = alone.await.unwrap().try_into().unwrap();
            assert_eq!(alone.output, answered.output, "{}", task.endpoint.name);
            assert_eq!(alone.answer, answered.answer);
            assert_eq!(alone.token_ids, answered.token_ids);
            assert_eq!(alone.input_ids, answered.input_ids);
            assert!(alone.timings.stages.vision_ms > 0.0);
            texts.push(alone.text);
        }
        texts.sort();
        texts.dedup();
        assert!(texts.len() > 7, "{checkpoint} says much the same to all");
        // Vision took time once, everything behind it for every prompt.
        let (first, others) = together.split_first().unwrap();
        assert!(first.timings.stages.vision_ms > 0.0);
        for answered in others {
            let Timings { stages, .. } = answered.timings;
            assert_eq!(stages.vision_ms, 0.0);
            assert!(stages.encoder_ms > 0.0 && stages.prefill_ms > 0.0 && stages.decode_ms > 0.0);
        }
        let all = Timings::of_all(&together);
        assert_eq!(all.stages.vision_ms, first.timings.stages.vision_ms);
        assert!(all.stages.decode_ms > first.timings.stages.decode_ms);
        let output = together[0].output.clone();
        let task = asked.tasks[0].endpoint.name;
        assert!(serde_json::to_string(&TaskOutput { task, output }).is_ok());
    }
}

/// Answers until the prompt of the failing task comes.
fn failing_at(task_prompt: &'static str, failure: fn() -> Reply) -> FakeModel {
    let answer = move |prompt: &str, _: &_| match prompt == task_prompt {
        true => failure(),
        false => Reply::Text("fine".into()),
    };
    FakeModel::new(answer).0
}

#[tokio::test]
async fn a_task_that_fails_fails_the_whole_call() {
    let ask = |failure: fn() -> Reply| async move {
        let model = failing_at("What is the text in the image?", failure);
        let server = TestServer::start(model).await;
        let tasks = json!(["caption", "ocr", "detailed-caption"]);
        let body = json!({"image_url": grey(2, 2), "tasks": tasks});
        let failed = server.call("", &body).await;
        let body = json!({"image_url": grey(2, 2), "tasks": ["caption", "detailed-caption"]});
        assert_eq!(server.call("", &body).await.status, 200);
        failed
    };
    for (failure, status) in [
        ((|| Reply::Fail) as fn() -> Reply, 500),
        (|| Reply::OutOfMemory, 503),
        (|| Reply::Panic, 500),
    ] {
        let Answer {
            status: found,
            text,
            ..
        } = ask(failure).await;
        assert_eq!(found, status, "{text}");
        assert!(!text.contains("fine") && !text.contains("secret"), "{text}");
    }
}

#[tokio::test]
async fn faults_name_the_task_and_the_list_is_bounded_by_its_setting() {
    let server = TestServer::with(FakeModel::saying("t"), |settings| {
        settings.http.max_tasks = 3;
    })
    .await;
    let call = |tasks: Value| json!({"image_url": grey(2, 2), "tasks": tasks});
    assert_eq!(
        server
            .call("", &call(json!(["ocr", "ocr", "ocr"])))
            .await
            .status,
        200
    );

    let answer = server.call("", &call(json!(vec!["ocr"; 4]))).await;
    assert_eq!(answer.status, 422);
    assert_eq!(
        answer.text,
        r#"{"detail":[{"type":"sequence_too_long","loc":["body","tasks"],"msg":"List should have at most 3 items after validation, not 4","input":["ocr","ocr","ocr","ocr"],"ctx":{"max_length":3},"url":"https://docs.fal.ai/errors#sequence_too_long"}]}"#
    );
    assert_eq!(answer.header("x-fal-billable-units"), "0");

    let answer = server
        .call("", &json!({"tasks": ["ocr", "grounding", 5]}))
        .await;
    let paths: Vec<Value> = answer.json()["detail"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["loc"].clone())
        .collect();
    let expected = json!([
        ["body", "image_url"],
        ["body", "tasks", 1],
        ["body", "tasks", 2]
    ]);
    assert_eq!(json!(paths), expected);

    // The text that the model cannot read is that of the third task.
    let find = |text: String| json!({"task": "open-vocabulary-detection", "text_input": text});
    let long = "word ".repeat(100);
    let tasks = json!(["ocr", find("a cup".into()), find(long.clone())]);
    let answer = server.call("", &call(tasks)).await;
    assert_eq!(answer.fault_type(), "sequence_too_long");
    let entry = &answer.json()["detail"][0];
    assert_eq!(entry["loc"], json!(["body", "tasks", 2, "text_input"]));
    assert_eq!(entry["input"], long);

    let unreadable = json!({"image_url": "data:image/png;base64,AAAA", "tasks": ["ocr"]});
    let answer = server.call("", &unreadable).await;
    assert_eq!(
        answer.json()["detail"][0]["loc"],
        json!(["body", "image_url"])
    );
}

#[tokio::test]
async fn the_address_takes_only_calls() {
    let server = TestServer::start(FakeModel::saying("t")).await;
    let answer = send(server.client.get(server.url(""))).await;
    assert_eq!((answer.status, answer.header("allow")), (405, "POST"));
    assert_eq!(server.call_raw("", "").await.fault_type(), "missing");
    assert_eq!(
        server.call_raw("", "[]").await.fault_type(),
        "model_attributes_type"
    );
}
