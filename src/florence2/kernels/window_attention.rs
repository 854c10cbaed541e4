//! Window attention (DaViT, arXiv:2204.03645, section 3.2): ordinary attention inside
//! non-overlapping square windows, without positions or masks.
//!
//! The reference pads the normalised map with zeros on the right and at the bottom to whole windows
//! *before* the query, key and value projection, and does not mask the padding: its keys and values
//! are the projection's bias and take part in the softmax. Here the projection runs over real
//! positions only, and the bias is filled in for the padding.

use candle_core::{D, Result, Tensor};

use super::packed::{Columns, Left, Size, product};
use super::softmax::softmax_rows;

/// `qkv (batch, height, width, 3·channels)`, the last axis as `[3][heads][channels of a head]`, and
/// the projection's `bias (3·channels)` → `(batch, height, width, channels)`.
pub fn window_attention(
    qkv: &Tensor,
    bias: &Tensor,
    heads: usize,
    window: usize,
) -> Result<Tensor> {
    let (batch, height, width, depth) = qkv.dims4()?;
    let (rows, columns) = (height.div_ceil(window), width.div_ceil(window));
    let mut padded = qkv.clone();
    for (axis, missing) in [(1, rows * window - height), (2, columns * window - width)] {
        if missing > 0 {
            let mut shape = padded.dims().to_vec();
            shape[axis] = missing;
            padded = Tensor::cat(&[&padded, &bias.broadcast_as(shape)?.contiguous()?], axis)?;
        }
    }
    let (tokens, channels) = (window * window, depth / 3);
    let windows = padded
        .reshape((batch, rows, window, columns, window, depth))?
        .permute((0, 1, 3, 2, 4, 5))?
        .reshape((batch * rows * columns, tokens, 3, heads, channels / heads))?;
    // (windows, heads, tokens, channels of a head)
    let part = |i: usize| {
        windows
            .narrow(2, i, 1)?
            .squeeze(2)?
            .transpose(1, 2)?
            .contiguous()
    };
    let q = (part(0)? * ((channels / heads) as f64).powf(-0.5))?;
    let scores = q.matmul(&part(1)?.transpose(2, 3)?)?;
    let out = candle_nn::ops::softmax(&scores, D::Minus1)?.matmul(&part(2)?)?;
    out.transpose(1, 2)?
        .reshape((batch, rows, columns, window, window, channels))?
        .permute((0, 1, 3, 2, 4, 5))?
        .reshape((batch, rows * window, columns * window, channels))?
        .narrow(1, 0, height)?
        .narrow(2, 0, width)?
        .contiguous()
}

/// Shape of the attention in one window.
#[derive(Clone, Copy, Debug)]
pub struct WindowShape {
    /// Positions of the window, padding included.
    pub tokens: usize,
    /// Channels of all heads together.
    pub channels: usize,
    /// Heads, each with its own share of the channels.
    pub heads: usize,
}

/// Attention inside one window on this thread: `qkv (tokens, 3·channels)` → `out (tokens, channels)`.
/// `scores` has room for `tokens · tokens`, `keys` for `tokens · channels / heads`.
///
/// # Panics
/// When the lengths do not fit.
pub fn attend_window(
    shape: WindowShape,
    qkv: &[f32],
    scores: &mut [f32],
    keys: &mut [f32],
    out: &mut [f32],
) {
    let WindowShape {
        tokens,
        channels,
        heads,
    } = shape;
    let width = channels / heads;
    let scale = (width as f32).powf(-0.5);
    for head in 0..heads {
        let part = |i: usize| &qkv[i * channels + head * width..];
        // Keys with the tokens innermost, as a product wants its right side.
        for (token, row) in part(1).chunks(3 * channels).take(tokens).enumerate() {
            for (channel, key) in row[..width].iter().enumerate() {
                keys[channel * tokens + token] = *key;
            }
        }
        let queries = Left {
            values: part(0),
            row_stride: 3 * channels,
            input_stride: 1,
        };
        let size = Size {
            rows: tokens,
            inputs: width,
            columns: tokens,
        };
        let right = Columns {
            values: &keys[..width * tokens],
            stride: tokens,
        };
        product(size, queries, right, scores, tokens, false);
        softmax_rows(&mut scores[..tokens * tokens], tokens, scale);
        let probabilities = Left {
            values: scores,
            row_stride: tokens,
            input_stride: 1,
        };
        let size = Size {
            rows: tokens,
            inputs: tokens,
            columns: width,
        };
        let right = Columns {
            values: part(2),
            stride: 3 * channels,
        };
        product(
            size,
            probabilities,
            right,
            &mut out[head * width..],
            channels,
            false,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_tensors::{random, relative_error};
    use super::*;

    #[test]
    fn one_window_agrees_with_the_composed_twin() {
        for (side, channels, heads) in [(12, 8, 2), (5, 12, 3), (7, 8, 1), (4, 64, 2)] {
            let tokens = side * side;
            let qkv = (random(&[1, side, side, 3 * channels], 1) * 3.0).unwrap();
            let bias = random(&[3 * channels], 2);
            let values: Vec<f32> = qkv.flatten_all().unwrap().to_vec1().unwrap();
            let mut ours = vec![0.0; tokens * channels];
            let mut scores = vec![0.0; tokens * tokens];
            let mut keys = vec![0.0; tokens * channels / heads];
            let shape = WindowShape {
                tokens,
                channels,
                heads,
            };
            attend_window(shape, &values, &mut scores, &mut keys, &mut ours);
            let ours = Tensor::from_vec(ours, (1, side, side, channels), qkv.device()).unwrap();
            let twin = window_attention(&qkv, &bias, heads, side).unwrap();
            assert!(
                relative_error(&ours, &twin) < 2e-6,
                "{side} {channels} {heads}"
            );
        }
    }
}
