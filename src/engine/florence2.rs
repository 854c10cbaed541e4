//! The real model behind [`Predict`], with a stopwatch around each stage.
//!
//! The model room has no clock; this is where its stages are timed.

use std::time::Instant;

use crate::florence2::Florence2;

use super::predict::{Predict, PredictError, Prediction, PreparedInput, StageTimings};

impl Predict for Florence2 {
    fn predict(&mut self, input: &PreparedInput) -> Result<Prediction, PredictError> {
        let mut watch = Stopwatch {
            model: self,
            last: Instant::now(),
        };
        let features = self
            .see(&input.pixel_values, input.side)
            .map_err(classify)?;
        let vision_ms = watch.lap()?;
        let states = self
            .encode(&features.image_features, &input.input_ids)
            .map_err(classify)?;
        let encoder_ms = watch.lap()?;
        let cache = self.start(&states).map_err(classify)?;
        let prefill_ms = watch.lap()?;
        let token_ids = self.generate(cache, &input.generation).map_err(classify)?;
        let decode_ms = watch.lap()?;
        Ok(Prediction {
            token_ids,
            timings: StageTimings {
                vision_ms,
                encoder_ms,
                prefill_ms,
                decode_ms,
            },
        })
    }
}

struct Stopwatch<'a> {
    model: &'a Florence2,
    last: Instant,
}

impl Stopwatch<'_> {
    /// Milliseconds since the last lap, the device's queue emptied.
    fn lap(&mut self) -> Result<f64, PredictError> {
        self.model.device().synchronize().map_err(classify)?;
        let elapsed = self.last.elapsed();
        self.last = Instant::now();
        Ok(elapsed.as_secs_f64() * 1e3)
    }
}

fn classify(error: candle_core::Error) -> PredictError {
    let text = error.to_string();
    if text.to_ascii_lowercase().contains("out of memory") {
        PredictError::OutOfMemory(text)
    } else {
        PredictError::Failed(text)
    }
}
