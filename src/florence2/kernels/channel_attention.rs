//! Channel attention (DaViT, arXiv:2204.03645, section 3.3): attention between the channels of a
//! group, over all positions of the picture, without transposing copies.
//!
//! For each group: `A = softmax(N^-½ · qᵀk)` (channels × channels, the sum over N positions), and
//! the new value of channel i is `Σⱼ A[i, j]·vⱼ`. The scale is the number of *positions*.

use candle_core::{D, Result, Tensor};

use super::packed::{Columns, Left, Size, product};

/// `qkv (batch, positions, 3·channels)`, the last axis as `[3][groups][channels of a group]`, →
/// `(batch, positions, channels)`.
pub fn channel_attention(qkv: &Tensor, groups: usize) -> Result<Tensor> {
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

/// Adds `qᵀk` of some positions, `qkv (positions, 3·channels)`, to `scores (groups, width, width)`, on
/// this thread. The scale is left to the softmax.
///
/// # Panics
/// When the lengths do not fit.
pub fn add_channel_scores(
    qkv: &[f32],
    positions: usize,
    channels: usize,
    groups: usize,
    scores: &mut [f32],
) {
    let width = channels / groups;
    for (group, scores) in scores
        .chunks_exact_mut(width * width)
        .take(groups)
        .enumerate()
    {
        let queries = Left {
            values: &qkv[group * width..],
            row_stride: 1,
            input_stride: 3 * channels,
        };
        let keys = Columns {
            values: &qkv[channels + group * width..],
            stride: 3 * channels,
        };
        let size = Size {
            rows: width,
            inputs: positions,
            columns: width,
        };
        product(size, queries, keys, scores, width, true);
    }
}

/// `out[n, group] = v[n, group] · Aᵀ` for some positions, on this thread; `v` and `out`
/// `(positions, channels)`, `transposed (groups, width, width)` the transposes of the softmaxed scores.
///
/// # Panics
/// When the lengths do not fit.
pub fn apply_channel_attention(
    v: &[f32],
    channels: usize,
    groups: usize,
    transposed: &[f32],
    out: &mut [f32],
) {
    let width = channels / groups;
    for (group, matrix) in transposed
        .chunks_exact(width * width)
        .take(groups)
        .enumerate()
    {
        let values = Left {
            values: &v[group * width..],
            row_stride: channels,
            input_stride: 1,
        };
        let size = Size {
            rows: v.len() / channels,
            inputs: width,
            columns: width,
        };
        let right = Columns {
            values: matrix,
            stride: width,
        };
        product(
            size,
            values,
            right,
            &mut out[group * width..],
            channels,
            false,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::softmax::softmax_rows;
    use super::super::test_tensors::{random, relative_error};
    use super::*;

    #[test]
    fn agrees_with_the_composed_twin() {
        for (positions, channels, groups) in [(1, 4, 2), (300, 32, 4), (49, 24, 3), (64, 64, 2)] {
            let width = channels / groups;
            let qkv = random(&[1, positions, 3 * channels], 1);
            let values: Vec<f32> = qkv.flatten_all().unwrap().to_vec1().unwrap();
            let mut scores = vec![0.0; groups * width * width];
            for part in values.chunks(100 * 3 * channels) {
                add_channel_scores(
                    part,
                    part.len() / (3 * channels),
                    channels,
                    groups,
                    &mut scores,
                );
            }
            softmax_rows(&mut scores, width, (positions as f32).powf(-0.5));
            let transposed: Vec<f32> = scores
                .chunks_exact(width * width)
                .flat_map(|m| (0..width * width).map(|at| m[at % width * width + at / width]))
                .collect();
            let v: Vec<f32> = values
                .chunks_exact(3 * channels)
                .flat_map(|row| row[2 * channels..].to_vec())
                .collect();
            let mut ours = vec![0.0; positions * channels];
            apply_channel_attention(&v, channels, groups, &transposed, &mut ours);
            let ours = Tensor::from_vec(ours, (1, positions, channels), qkv.device()).unwrap();
            let twin = channel_attention(&qkv, groups).unwrap();
            assert!(
                relative_error(&ours, &twin) < 2e-6,
                "{positions} {channels} {groups}"
            );
        }
    }
}
