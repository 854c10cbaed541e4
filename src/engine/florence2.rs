//! The real model behind [`Predict`], with a stopwatch around each stage.
//!
//! The model room has no clock; this is where its stages are timed.

use std::cell::Cell;
use std::time::Instant;

use candle_core::Tensor;

use crate::florence2::generate::{self, Decode, GenerateError, Generated};
use crate::florence2::kernels::is_finite;
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
        watch.run(input, is_wanted)
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
    ) -> Result<Vec<Prediction>, PredictError> {
        let model = self.model;
        let options = model.bounded(&input.generation);
        let features = model.see(&input.pixel_values, input.side)?;
        expect_finite(&features.image_features, "vision tower")?;
        let mut vision_ms = self.lap()?;
        let mut predictions = Vec::with_capacity(input.prompts.len());
        for input_ids in &input.prompts {
            if !is_wanted() {
                break;
            }
            let states = model.encode(&features.image_features, input_ids)?;
            expect_finite(&states, "encoder")?;
            let encoder_ms = self.lap()?;
            let cache = model.start(&states)?;
            let Generated {
                token_ids,
                log_probabilities,
            } = generate::generate(self, cache, &options, &model.special_tokens()).map_err(
                |error| match error {
                    GenerateError::Decoder(error) => classify(error),
                    GenerateError::NotFinite => PredictError::NotFinite { stage: "decoder" },
                },
            )?;
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

/// Stages are looked at one by one: further on, a maximum or a clamp may hide what is not a number.
fn expect_finite(values: &Tensor, stage: &'static str) -> Result<(), PredictError> {
    if is_finite(values)? {
        Ok(())
    } else {
        Err(PredictError::NotFinite { stage })
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

impl From<candle_core::Error> for PredictError {
    fn from(error: candle_core::Error) -> Self {
        classify(error)
    }
}
