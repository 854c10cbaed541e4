//! What comes out of the pipeline: an answer, everything that led to it, and where the time went.

use std::time::Instant;

use super::{Codec, PipelineError, ms_since, present};
use crate::engine::predict::{Prediction, StageTimings};
use crate::fal::output::Output;
use crate::florence2::answer::Answer;
use crate::florence2::postprocess::{self, WrittenToken};
use crate::florence2::prompt::Prompt;
use crate::florence2::task::AnswerKind;

/// An answer with everything that led to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered {
    /// What the model said, with the places as it names them: what [`annotate`](super::annotate) draws.
    pub answer: Answer,
    /// The findings in fal's shape.
    pub output: Output,
    /// Width of the upright picture in pixels.
    pub width: u32,
    /// Height of the upright picture in pixels.
    pub height: u32,
    /// The prompt's tokens.
    pub input_ids: Vec<u32>,
    /// The generated sequence, decoder start token included.
    pub token_ids: Vec<u32>,
    /// Its decoding, special tokens kept.
    pub text: String,
    /// Where the time went. Times of one picture's answers add up: what was done once for all of
    /// them counts for the first.
    pub timings: Timings,
}

/// How what the model wrote is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written {
    pub(super) with_scores: bool,
    pub(super) width: u32,
    pub(super) height: u32,
}

impl Written {
    /// The answer to one prompt. Takes time in proportion to what was written.
    pub(super) fn read(
        self,
        codec: &dyn Codec,
        prompt: &Prompt,
        input_ids: Vec<u32>,
        prediction: Prediction,
    ) -> Result<Answered, PipelineError> {
        let begun = Instant::now();
        let (width, height) = (self.width, self.height);
        let text = codec.decode(&prediction.token_ids)?;
        let tokens = if self.with_scores && prompt.answer != AnswerKind::PureText {
            let ends = codec.token_ends(&prediction.token_ids, &text)?;
            WrittenToken::sequence(ends, &prediction.log_probabilities)
        } else {
            Vec::new()
        };
        let answer = postprocess::read_scored(&text, &tokens, prompt.answer, width, height);
        Ok(Answered {
            output: present(answer.clone()),
            answer,
            width,
            height,
            input_ids,
            token_ids: prediction.token_ids,
            text,
            timings: Timings {
                stages: prediction.timings,
                postprocess_ms: ms_since(begun),
                ..Timings::default()
            },
        })
    }
}

/// Milliseconds spent in each stage.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Timings {
    /// Fetching and unpacking the picture.
    pub picture_ms: f64,
    /// Resizing, normalising, tokenizing.
    pub preprocess_ms: f64,
    /// Waiting for the model and its work.
    pub predict_ms: f64,
    /// The model's work by stage.
    pub stages: StageTimings,
    /// Reading the text and shaping the output.
    pub postprocess_ms: f64,
    /// Drawing the picture of the answer and hosting it.
    pub draw_ms: f64,
}

impl Timings {
    /// The times of all answers about one picture.
    #[must_use]
    pub fn of_all(answers: &[Answered]) -> Self {
        let sum = |ms: fn(&Self) -> f64| answers.iter().map(|it| ms(&it.timings)).sum();
        Self {
            picture_ms: sum(|it| it.picture_ms),
            preprocess_ms: sum(|it| it.preprocess_ms),
            predict_ms: sum(|it| it.predict_ms),
            stages: StageTimings {
                vision_ms: sum(|it| it.stages.vision_ms),
                encoder_ms: sum(|it| it.stages.encoder_ms),
                prefill_ms: sum(|it| it.stages.prefill_ms),
                decode_ms: sum(|it| it.stages.decode_ms),
            },
            postprocess_ms: sum(|it| it.postprocess_ms),
            draw_ms: sum(|it| it.draw_ms),
        }
    }
}
