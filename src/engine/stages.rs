//! Writes the model's intermediate results to a file, so that two implementations can be compared
//! where they first differ.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Result, Tensor};

use crate::florence2::generate::Decode;
use crate::florence2::{Florence2, one_line};

use super::predict::{Predict, PredictError, Prediction, PreparedInput};

/// A model that writes the stages of every input, for its first prompt, before it answers; the last
/// input's remain.
#[derive(Debug)]
pub struct DumpStages {
    /// The model.
    pub model: Florence2,
    /// The safetensors file to write.
    pub file: PathBuf,
}

impl Predict for DumpStages {
    fn predict(
        &mut self,
        input: &PreparedInput,
        is_wanted: &dyn Fn() -> bool,
    ) -> std::result::Result<Vec<Prediction>, PredictError> {
        dump(&self.model, input, &self.file).map_err(|error| {
            let (file, error) = (self.file.display(), one_line(&error));
            PredictError::Failed(format!("cannot write {file}: {error}"))
        })?;
        self.model.predict(input, is_wanted)
    }
}

/// Writes `pixel_values (1, 3, H, W)`, `vision_features (1, N, C)`, `image_features (1, tokens, D)`,
/// `encoder_hidden_states (1, S, D)` and `first_logits (1, V)`, all f32.
fn dump(model: &Florence2, input: &PreparedInput, file: &Path) -> Result<()> {
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
    candle_core::safetensors::save(&tensors, file)
}
