//! The vision tower on the CPU.

use candle_core::Result;

use super::{Array, Scratch};
use crate::florence2::davit::DaViT;
use crate::florence2::form::Packed;

impl DaViT<Packed> {
    /// `pixel_values (3, side, side)` → the last feature map, `(1, rows, columns, channels)`.
    pub(in crate::florence2) fn see(
        &self,
        pixel_values: &[f32],
        side: usize,
        scratch: &Scratch,
    ) -> Result<Array> {
        let _ = (pixel_values, side, scratch);
        candle_core::bail!("not written yet")
    }
}
