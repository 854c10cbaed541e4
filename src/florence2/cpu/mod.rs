//! The networks on the CPU: plain slices in f32, packed weights, and as few passes over memory as the
//! arithmetic allows. Loading and structure are in `davit`, `projector` and `bart`; what is here is
//! only how they run.
//!
//! Between products everything is f32 whatever the weights are: the residual stream, norms, softmax
//! and attention; but cross-attention multiplies in bf16 where the weights are bf16 or int8. Every
//! result is the same for every number of threads: work is split by rows or by outputs, never within
//! a sum.

mod davit;
mod decoder;
mod decoder_attention;
mod embeddings;
mod encoder;
mod feed_forward;
mod projector;
mod scratch;

use candle_core::{Device, Tensor};

use super::form::Packed;
use super::kernels::layer_norm_rows;
use super::layers::LayerNorm;
use feed_forward::feed_forward;
use scratch::Floats;

pub(super) use decoder::CpuCache;
pub(super) use scratch::Scratch;

#[cfg(test)]
mod tests;

/// Rows of a block of work, where the rows do not decide: A window of DaViT's has as many. The
/// weights pass by once a block, and a block's own rows stay in the second-level cache.
const BLOCK_ROWS: usize = 144;

/// Values with their shape.
#[derive(Debug)]
pub(super) struct Array {
    pub(super) values: Vec<f32>,
    pub(super) shape: Vec<usize>,
}

impl Array {
    pub(super) fn into_tensor(self) -> candle_core::Result<Tensor> {
        Tensor::from_vec(self.values, self.shape, &Device::Cpu)
    }
}

/// Rows of a block such that blocks of `rows` in all come out even on the pool's threads.
fn even_blocks(rows: usize) -> usize {
    let threads = rayon::current_num_threads();
    let rounds = rows.div_ceil(threads * BLOCK_ROWS).max(1);
    rows.div_ceil(threads * rounds).max(1)
}

/// `x = LN(x)`.
fn normalise(norm: &LayerNorm<Packed>, x: &mut [f32], room: &mut Floats) {
    let normed = room.of(x.len());
    layer_norm_rows(x, &norm.weight, &norm.bias, normed);
    x.copy_from_slice(normed);
}
