//! BART's decoder on the CPU.

use candle_core::Result;

use super::Scratch;
use crate::florence2::bart::Bart;
use crate::florence2::form::Packed;

/// What the decoder remembers between steps.
#[derive(Debug)]
pub(in crate::florence2) struct CpuCache {}

impl Bart<Packed> {
    /// The cache before the first token, from `states (length, d_model)`.
    pub(in crate::florence2) fn start(&self, states: &[f32], scratch: &Scratch) -> CpuCache {
        let _ = (states, scratch);
        CpuCache {}
    }

    /// One step: the newest token of every beam, each of which continues beam `parents[i]` of the step
    /// before, → `logits (beams, vocab)`.
    pub(in crate::florence2) fn step(
        &self,
        tokens: &[u32],
        parents: &[u32],
        cache: &mut CpuCache,
        scratch: &Scratch,
    ) -> Result<Vec<f32>> {
        let _ = (tokens, parents, cache, scratch);
        candle_core::bail!("not written yet")
    }
}
