//! The real model behind [`Predict`], with a stopwatch around each stage.
//!
//! The model room has no clock; this is where its stages are timed.

use std::cell::Cell;
use std::time::Instant;

use crate::florence2::generate::{self, Decode, Generated};
use crate::florence2::{Florence2, one_line};

use super::predict::{Predict, PredictError, Prediction, PreparedInput, StageTimings};

impl Predict for Florence2 {
    fn predict(
        &mut self,
        input: &PreparedInput,
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<Vec<Prediction>, PredictError> {
        let watch = Stopwatch {
            model: self,
            last: Cell::new(Instant::now()),
            prefill_ms: Cell::new(0.0),
        };
        watch.run(input, is_wanted).map_err(classify)
    }
}

/// A model with a stopwatch.
struct Stopwatch<'a> {
    model: &'a Florence2,
    last: Cell<Instant>,
    prefill_ms: Cell<f64>,
}

impl Stopwatch<'_> {
    fn run(
        &self,
        input: &PreparedInput,
        is_wanted: &dyn Fn() -> bool,
    ) -> candle_core::Result<Vec<Prediction>> {
        let model = self.model;
        let options = model.bounded(&input.generation);
        let features = model.see(&input.pixel_values, input.side)?;
        let mut vision_ms = self.lap()?;
        let mut predictions = Vec::with_capacity(input.prompts.len());
        for input_ids in &input.prompts {
            if !is_wanted() {
                break;
            }
            let states = model.encode(&features.image_features, input_ids)?;
            let encoder_ms = self.lap()?;
            let cache = model.start(&states)?;
            let Generated {
                token_ids,
                log_probabilities,
            } = generate::generate(self, cache, &options, &model.special_tokens())?;
            predictions.push(Prediction {
                token_ids,
                log_probabilities,
                timings: StageTimings {
                    vision_ms: std::mem::take(&mut vision_ms),
                    encoder_ms,
                    prefill_ms: self.prefill_ms.take(),
                    decode_ms: self.lap()?,
                },
            });
        }
        Ok(predictions)
    }

    /// Milliseconds since the last lap, the device's queue emptied.
    fn lap(&self) -> candle_core::Result<f64> {
        self.model.device().synchronize()?;
        Ok(self.last.replace(Instant::now()).elapsed().as_secs_f64() * 1e3)
    }
}

/// The model as a decoder whose first step ends the prefill stage.
impl Decode for Stopwatch<'_> {
    type Cache = <Florence2 as Decode>::Cache;
    type Error = candle_core::Error;

    fn next_logits(
        &self,
        tokens: &[u32],
        parents: &[u32],
        cache: Self::Cache,
    ) -> candle_core::Result<(Vec<f32>, Self::Cache)> {
        let step = self.model.next_logits(tokens, parents, cache)?;
        if parents.is_empty() {
            self.prefill_ms.set(self.lap()?);
        }
        Ok(step)
    }
}

fn classify(error: candle_core::Error) -> PredictError {
    let text = one_line(&error);
    if text.to_ascii_lowercase().contains("out of memory") {
        PredictError::OutOfMemory(text)
    } else {
        PredictError::Failed(text)
    }
}
