//! BART's encoder on the CPU.

use candle_core::Result;

use super::{Array, Scratch};
use crate::florence2::bart::Bart;
use crate::florence2::form::Packed;

impl Bart<Packed> {
    /// Image tokens `(tokens, d_model)` and prompt ids → `encoder_hidden_states (1, length, d_model)`.
    pub(in crate::florence2) fn encode(
        &self,
        image_features: &[f32],
        input_ids: &[u32],
        scratch: &Scratch,
    ) -> Result<Array> {
        let _ = (image_features, input_ids, scratch);
        candle_core::bail!("not written yet")
    }
}
