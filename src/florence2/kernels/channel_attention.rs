//! Channel attention (DaViT, arXiv:2204.03645, section 3.3): attention between the channels of a
//! group, over all positions of the picture, without transposing copies.
//!
//! For each group: `A = softmax(N^-½ · qᵀk)` (channels × channels, the sum over N positions), and
//! the new value of channel i is `Σⱼ A[i, j]·vⱼ`. The scale is the number of *positions*.

use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::matmul::{Destination, MatMut, MatRef, matmul};
use super::window_attention::softmax_rows;
use super::{elements, is_cpu_f32};

/// Positions of one parallel task when the attention is applied.
const POSITIONS_PER_TASK: usize = 256;

/// `qkv (batch, positions, 3·channels)`, the last axis as `[3][groups][channels of a group]`, →
/// `(batch, positions, channels)`.
pub(crate) fn channel_attention(qkv: &Tensor, groups: usize) -> Result<Tensor> {
    if is_cpu_f32(qkv) {
        qkv.contiguous()?
            .apply_op1_no_bwd(&ChannelAttentionOp { groups })
    } else {
        composed(qkv, groups)
    }
}

fn composed(qkv: &Tensor, groups: usize) -> Result<Tensor> {
    let (batch, positions, width) = qkv.dims3()?;
    let channels = width / 3;
    let parts = qkv.reshape((batch, positions, 3, groups, channels / groups))?;
    // (batch, groups, channels of a group, positions)
    let part = |i: usize| {
        parts
            .narrow(2, i, 1)?
            .squeeze(2)?
            .permute((0, 2, 3, 1))?
            .contiguous()
    };
    // Scaled before the product: in half precision the sum over all positions would overflow.
    let q = (part(0)? * (positions as f64).powf(-0.5))?;
    let attention = candle_nn::ops::softmax(&q.matmul(&part(1)?.transpose(2, 3)?)?, D::Minus1)?;
    attention
        .matmul(&part(2)?)?
        .permute((0, 3, 1, 2))?
        .reshape((batch, positions, channels))
}

struct ChannelAttentionOp {
    groups: usize,
}

impl CustomOp1 for ChannelAttentionOp {
    fn name(&self) -> &'static str {
        "channel-attention"
    }

    fn cpu_fwd(&self, qkv: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (batch, positions, width) = layout.shape().dims3()?;
        let qkv = elements(qkv, layout)?;
        let channels = width / 3;
        let mut y = vec![0.0; batch * positions * channels];
        for (qkv, y) in qkv
            .chunks_exact(positions * width)
            .zip(y.chunks_exact_mut(positions * channels))
        {
            let attention = attention_matrices(qkv, positions, channels, self.groups);
            apply(&attention, qkv, channels, self.groups, y);
        }
        Ok((CpuStorage::F32(y), (batch, positions, channels).into()))
    }
}

/// The softmaxed matrices of all groups, `(groups, d, d)`.
fn attention_matrices(qkv: &[f32], positions: usize, channels: usize, groups: usize) -> Vec<f32> {
    let d = channels / groups;
    let mut attention = vec![0.0; groups * d * d];
    attention
        .par_chunks_mut(d * d)
        .enumerate()
        .for_each(|(group, out)| {
            let q = MatRef::new(&qkv[group * d..], positions, d, 3 * channels);
            let k = MatRef::new(&qkv[channels + group * d..], positions, d, 3 * channels);
            let scale = (positions as f32).powf(-0.5);
            matmul(
                MatMut::new(out, d, d, d),
                Destination::Overwrite,
                q.transposed(),
                k,
                scale,
                1,
            );
            softmax_rows(out, d);
        });
    attention
}

/// `y[n, group] = v[n, group] · Aᵀ` for every position and group.
fn apply(attention: &[f32], qkv: &[f32], channels: usize, groups: usize, y: &mut [f32]) {
    let d = channels / groups;
    y.par_chunks_mut(POSITIONS_PER_TASK * channels)
        .zip(qkv.par_chunks(POSITIONS_PER_TASK * 3 * channels))
        .for_each(|(y, qkv)| {
            let positions = y.len() / channels;
            for (group, matrix) in attention.chunks_exact(d * d).enumerate() {
                let v = MatRef::new(&qkv[2 * channels + group * d..], positions, d, 3 * channels);
                let matrix = MatRef::new(matrix, d, d, d).transposed();
                let out = MatMut::new(&mut y[group * d..], positions, d, channels);
                matmul(out, Destination::Overwrite, v, matrix, 1.0, 1);
            }
        });
}

#[cfg(test)]
mod tests {
    use super::super::test_tensors::{random, relative_error};
    use super::*;

    #[test]
    fn agrees_with_the_composed_twin() {
        for (batch, positions, channels, groups) in [(1, 1, 4, 2), (2, 300, 32, 4), (1, 49, 24, 3)]
        {
            let qkv = random(&[batch, positions, 3 * channels], 1);
            let ours = channel_attention(&qkv, groups).unwrap();
            assert!(relative_error(&ours, &composed(&qkv, groups).unwrap()) < 2e-6);
        }
    }
}
