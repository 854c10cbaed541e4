//! A model that does what a test says: answers any text, waits, fails, runs out of memory, panics.
//!
//! It needs no tokenizer: a token is a character. Pixel values are the colour of the first pixel,
//! so that a test can tell which picture arrived. The n-th token of an answer, counted from 0, has
//! the log-probability −n/256; the first is the start token and has none.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use florence2_server::engine::predict::{
    Predict, PredictError, Prediction, PreparedInput, StageTimings,
};
use florence2_server::florence2::generate::{EarlyStopping, GenerationOptions};
use florence2_server::florence2::processor::{PixelValues, ProcessorError};
use florence2_server::pipeline::{AskOptions, Codec};
use image::RgbImage;

/// What the model does with one input.
pub(crate) enum Reply {
    Text(String),
    /// Answers once the test says go.
    WhenTold(String),
    Fail,
    OutOfMemory,
    NotFinite,
    Panic,
}

type Script = dyn FnMut(&str, &PreparedInput) -> Reply + Send;

/// See the module's header.
pub(crate) struct FakeModel {
    script: Box<Script>,
    started: Sender<String>,
    go: Receiver<()>,
}

/// The test's end of a [`FakeModel`].
pub(crate) struct Remote {
    started: Mutex<Receiver<String>>,
    go: Sender<()>,
}

impl Remote {
    /// Waits until the model begins with an input; gives its prompt.
    pub(crate) async fn wait_for_start(&self) -> String {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        loop {
            if let Some(prompt) = self.try_started() {
                return prompt;
            }
            assert!(
                std::time::Instant::now() < deadline,
                "the model got no input within ten seconds"
            );
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    }

    /// The prompt of an input that the model has begun with, if there is one.
    pub(crate) fn try_started(&self) -> Option<String> {
        self.started.lock().unwrap().try_recv().ok()
    }

    /// Lets one waiting input be answered.
    pub(crate) fn go(&self) {
        self.go.send(()).unwrap();
    }
}

impl FakeModel {
    /// A model that follows a script, which is given the prompt and the input.
    pub(crate) fn new(
        script: impl FnMut(&str, &PreparedInput) -> Reply + Send + 'static,
    ) -> (Self, Remote) {
        let (started, started_seen) = channel();
        let (go_said, go) = channel();
        let model = Self {
            script: Box::new(script),
            started,
            go,
        };
        let remote = Remote {
            started: Mutex::new(started_seen),
            go: go_said,
        };
        (model, remote)
    }

    /// A model that always answers the same text.
    pub(crate) fn saying(text: &str) -> Self {
        let text = text.to_owned();
        Self::new(move |_, _| Reply::Text(text.clone())).0
    }

    /// A model that answers every input when told.
    pub(crate) fn slow(text: &str) -> (Self, Remote) {
        let text = text.to_owned();
        Self::new(move |_, _| Reply::WhenTold(text.clone()))
    }
}

impl Predict for FakeModel {
    fn predict(
        &mut self,
        input: &PreparedInput,
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<Vec<Prediction>, PredictError> {
        let prompts = input.prompts.iter().take_while(|_| is_wanted());
        prompts.map(|prompt| self.answer(prompt, input)).collect()
    }
}

impl FakeModel {
    fn answer(
        &mut self,
        prompt: &[u32],
        input: &PreparedInput,
    ) -> Result<Prediction, PredictError> {
        let prompt = text_of(prompt);
        let reply = (self.script)(&prompt, input);
        // Tests that do not listen have dropped the other end.
        let _ = self.started.send(prompt);
        let text = match reply {
            Reply::Text(text) => text,
            Reply::WhenTold(text) => {
                let _ = self.go.recv();
                text
            }
            Reply::Fail => return Err(PredictError::Failed("secret cause".into())),
            Reply::OutOfMemory => return Err(PredictError::OutOfMemory("secret cause".into())),
            Reply::NotFinite => return Err(PredictError::NotFinite { stage: "decoder" }),
            Reply::Panic => panic!("secret cause"),
        };
        let token_ids = tokens_of(&text);
        let chosen = 1..token_ids.len();
        Ok(Prediction {
            log_probabilities: chosen.map(|n| -(n as f32) / 256.0).collect(),
            token_ids,
            timings: StageTimings::default(),
        })
    }
}

fn tokens_of(text: &str) -> Vec<u32> {
    text.chars().map(u32::from).collect()
}

fn text_of(tokens: &[u32]) -> String {
    tokens
        .iter()
        .map(|token| char::from_u32(*token).unwrap())
        .collect()
}

/// The codec that belongs to [`FakeModel`].
pub(crate) struct FakeCodec;

impl Codec for FakeCodec {
    fn pixel_values(&self, picture: &RgbImage) -> PixelValues {
        let first = picture.get_pixel(0, 0).0;
        PixelValues {
            data: first.map(f32::from).to_vec(),
            side: 1,
        }
    }

    fn input_ids(&self, text: &str, max_text_tokens: usize) -> Result<Vec<u32>, ProcessorError> {
        let ids = tokens_of(text);
        if ids.len() > max_text_tokens {
            return Err(ProcessorError::PromptTooLong {
                tokens: ids.len(),
                max_tokens: max_text_tokens,
            });
        }
        Ok(ids)
    }

    fn decode(&self, token_ids: &[u32]) -> Result<String, ProcessorError> {
        Ok(text_of(token_ids))
    }

    fn token_ends(&self, _: &[u32], text: &str) -> Result<Vec<usize>, ProcessorError> {
        Ok(text
            .char_indices()
            .map(|(at, c)| at + c.len_utf8())
            .collect())
    }
}

/// Options for asking a [`FakeModel`].
pub(crate) fn options() -> AskOptions {
    AskOptions {
        generation: GenerationOptions {
            num_beams: 1,
            max_new_tokens: 10,
            min_new_tokens: 0,
            length_penalty: 1.0,
            early_stopping: EarlyStopping::True,
            no_repeat_ngram_size: 0,
        },
        max_text_tokens: 200,
    }
}
