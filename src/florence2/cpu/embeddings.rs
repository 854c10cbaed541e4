//! What encoder and decoder begin with: a token's vector and its position's.

use candle_core::Result;

use crate::florence2::bart::{Bart, Positions};
use crate::florence2::config::POSITION_OFFSET;
use crate::florence2::form::Packed;

impl Bart<Packed> {
    /// Writes the scaled embedding of `id` to `x (d_model)`.
    pub(super) fn embed(&self, id: u32, x: &mut [f32]) -> Result<()> {
        if !self.shared.read(id, x) {
            candle_core::bail!("the vocabulary has no token {id}");
        }
        if self.embed_scale != 1.0 {
            let scale = self.embed_scale as f32;
            x.iter_mut().for_each(|x| *x *= scale);
        }
        Ok(())
    }
}

impl Positions<Packed> {
    /// Adds the positions from `first` on to `x (rows, d_model)`.
    pub(super) fn add(&self, first: usize, x: &mut [f32]) -> Result<()> {
        let dim = self.norm.weight.len();
        let from = (first + POSITION_OFFSET) * dim;
        let Some(positions) = self.table.get(from..from + x.len()) else {
            candle_core::bail!(
                "{} tokens are more than the {} positions of this checkpoint",
                first + x.len() / dim,
                self.table.len() / dim - POSITION_OFFSET
            );
        };
        for (x, position) in x.iter_mut().zip(positions) {
            *x += position;
        }
        Ok(())
    }
}
