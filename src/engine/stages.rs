//! The model's intermediate results as a file, so that two implementations can be compared where they
//! first differ.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device, Result, Tensor};

use crate::florence2::generate::Decode;
use crate::florence2::{Florence2, one_line};

use super::predict::{Predict, PredictError, Prediction, PreparedInput};

/// The stages of the last input, as a safetensors file.
#[derive(Clone, Debug, Default)]
pub struct Stages(Arc<Mutex<Vec<u8>>>);

impl Stages {
    /// The file's content. Empty before the first input.
    #[must_use]
    pub fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A model that keeps the stages of every input, for its first prompt, before it answers.
#[derive(Debug)]
pub struct DumpStages {
    /// The model.
    pub model: Florence2,
    /// Where they are kept.
    pub stages: Stages,
}

impl Predict for DumpStages {
    fn predict(
        &mut self,
        input: &PreparedInput,
        is_wanted: &dyn Fn() -> bool,
    ) -> std::result::Result<Vec<Prediction>, PredictError> {
        let file = dump(&self.model, input)
            .map_err(|error| PredictError::Failed(format!("the stages: {}", one_line(&error))))?;
        *self.stages.0.lock().unwrap_or_else(PoisonError::into_inner) = file;
        self.model.predict(input, is_wanted)
    }
}

/// `pixel_values (1, 3, H, W)`, `vision_features (1, N, C)`, `image_features (1, tokens, D)`,
/// `encoder_hidden_states (1, S, D)` and `first_logits (1, V)`, all f32.
fn dump(model: &Florence2, input: &PreparedInput) -> Result<Vec<u8>> {
    let side = input.side;
    let pixel_values = Tensor::from_slice(&input.pixel_values, (1, 3, side, side), &Device::Cpu)?;
    let features = model.see(&input.pixel_values, side)?;
    let prompt = input.prompts.first().map_or(&[][..], Vec::as_slice);
    let states = model.encode(&features.image_features, prompt)?;
    let start = model.special_tokens().decoder_start_token_id;
    let (logits, _) = model.next_logits(&[start], &[], model.start(&states)?)?;
    let host = |tensor: &Tensor| {
        tensor
            .to_device(&Device::Cpu)?
            .to_dtype(DType::F32)?
            .contiguous()
    };
    let tensors = HashMap::from([
        ("pixel_values", pixel_values),
        (
            "vision_features",
            host(&features.vision_features.flatten(1, 2)?)?,
        ),
        ("image_features", host(&features.image_features)?),
        ("encoder_hidden_states", host(&states)?),
        (
            "first_logits",
            Tensor::new(logits, &Device::Cpu)?.unsqueeze(0)?,
        ),
    ]);
    Ok(safetensors::serialize(&tensors, None)?)
}
