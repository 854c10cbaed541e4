//! Window attention (DaViT, arXiv:2204.03645, section 3.2): ordinary attention inside
//! non-overlapping square windows, without positions or masks.
//!
//! The reference pads the normalised map with zeros on the right and at the bottom to whole windows
//! *before* the query, key and value projection, and does not mask the padding: its keys and values
//! are the projection's bias and take part in the softmax. Here the projection runs over real
//! positions only, and the bias is filled in for the padding.

use candle_core::{CpuStorage, CustomOp2, D, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::matmul::{Destination, MatMut, MatRef, matmul};
use super::simd::{LANES, exp_nonpositive, multiversion};
use super::{elements, is_cpu_f32};

/// `qkv (batch, height, width, 3·channels)`, the last axis as `[3][heads][channels of a head]`, and
/// the projection's `bias (3·channels)` → `(batch, height, width, channels)`.
pub(crate) fn window_attention(
    qkv: &Tensor,
    bias: &Tensor,
    heads: usize,
    window: usize,
) -> Result<Tensor> {
    if is_cpu_f32(qkv) {
        qkv.contiguous()?
            .apply_op2_no_bwd(bias, &WindowAttentionOp { heads, window })
    } else {
        composed(qkv, bias, heads, window)
    }
}

fn composed(qkv: &Tensor, bias: &Tensor, heads: usize, window: usize) -> Result<Tensor> {
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

struct WindowAttentionOp {
    heads: usize,
    window: usize,
}

impl CustomOp2 for WindowAttentionOp {
    fn name(&self) -> &'static str {
        "window-attention"
    }

    fn cpu_fwd(
        &self,
        qkv: &CpuStorage,
        ql: &Layout,
        bias: &CpuStorage,
        bl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (batch, height, width, depth) = ql.shape().dims4()?;
        let (qkv, bias) = (elements(qkv, ql)?, elements(bias, bl)?);
        if bias.len() != depth || depth % (3 * self.heads) != 0 {
            candle_core::bail!(
                "window attention of {} heads was given {ql:?} and {bl:?}",
                self.heads
            );
        }
        let channels = depth / 3;
        let grid = Grid {
            height,
            width,
            window: self.window,
        };
        let mut y = vec![0.0; batch * height * width * channels];
        // A band of windows is one run of the output: bands are the parallel tasks' outer split.
        let bands = height.div_ceil(self.window);
        let mut outputs: Vec<&mut [f32]> = Vec::with_capacity(batch * bands);
        let mut rest = y.as_mut_slice();
        for index in 0..batch * bands {
            let lines = grid.lines(index % bands);
            let (band, tail) = rest.split_at_mut(lines * width * channels);
            outputs.push(band);
            rest = tail;
        }
        outputs
            .into_par_iter()
            .enumerate()
            .for_each(|(index, out)| {
                let picture =
                    &qkv[index / bands * height * width * depth..][..height * width * depth];
                let top = index % bands * self.window;
                grid.attend_band(
                    &picture[top * width * depth..],
                    bias,
                    self.heads,
                    out,
                    grid.lines(index % bands),
                );
            });
        Ok((CpuStorage::F32(y), (batch, height, width, channels).into()))
    }
}

/// A picture cut into windows.
#[derive(Clone, Copy)]
struct Grid {
    height: usize,
    width: usize,
    window: usize,
}

impl Grid {
    /// Real lines of a band of windows.
    fn lines(&self, band: usize) -> usize {
        self.window.min(self.height - band * self.window)
    }

    /// All windows of one band; `out (lines, width, channels)`.
    fn attend_band(&self, qkv: &[f32], bias: &[f32], heads: usize, out: &mut [f32], lines: usize) {
        let depth = bias.len();
        let channels = depth / 3;
        let tokens = self.window * self.window;
        let windows: Vec<(usize, Vec<f32>)> = (0..self.width.div_ceil(self.window))
            .into_par_iter()
            .map(|column| {
                let left = column * self.window;
                let mut gathered = vec![0.0; tokens * depth];
                for (token, row) in gathered.chunks_exact_mut(depth).enumerate() {
                    let (y, x) = (token / self.window, left + token % self.window);
                    let is_real = y < lines && x < self.width;
                    let from = (y * self.width + x) * depth;
                    row.copy_from_slice(if is_real {
                        &qkv[from..from + depth]
                    } else {
                        bias
                    });
                }
                (left, attend_window(&gathered, tokens, channels, heads))
            })
            .collect();
        for (left, result) in windows {
            let columns = self.window.min(self.width - left);
            for y in 0..lines {
                let from = y * self.window * channels;
                let to = (y * self.width + left) * channels;
                out[to..to + columns * channels]
                    .copy_from_slice(&result[from..from + columns * channels]);
            }
        }
    }
}

/// Attention inside one window; `qkv (tokens, 3·channels)` → `(tokens, channels)`.
fn attend_window(qkv: &[f32], tokens: usize, channels: usize, heads: usize) -> Vec<f32> {
    let d = channels / heads;
    let scale = (d as f32).powf(-0.5);
    let mut out = vec![0.0; tokens * channels];
    let mut scores = vec![0.0; tokens * tokens];
    for head in 0..heads {
        let part = |i: usize| MatRef::new(&qkv[i * channels + head * d..], tokens, d, 3 * channels);
        let square = MatMut::new(&mut scores, tokens, tokens, tokens);
        matmul(
            square,
            Destination::Overwrite,
            part(0),
            part(1).transposed(),
            scale,
            1,
        );
        softmax_rows(&mut scores, tokens);
        let probabilities = MatRef::new(&scores, tokens, tokens, tokens);
        let out = MatMut::new(&mut out[head * d..], tokens, d, channels);
        matmul(out, Destination::Overwrite, probabilities, part(2), 1.0, 1);
    }
    out
}

multiversion! {
    /// Softmax of every row of a row-major matrix, in place.
    pub(super) fn softmax_rows(matrix: &mut [f32], columns: usize) = softmax_rows_body
}

#[inline(always)]
fn softmax_rows_body<const FMA: bool>(matrix: &mut [f32], columns: usize) {
    for row in matrix.chunks_exact_mut(columns) {
        let mut maxima = [f32::NEG_INFINITY; LANES];
        let chunks = row.chunks_exact(LANES);
        let mut max = chunks
            .remainder()
            .iter()
            .copied()
            .fold(f32::NEG_INFINITY, f32::max);
        for chunk in chunks {
            for i in 0..LANES {
                maxima[i] = if chunk[i] > maxima[i] {
                    chunk[i]
                } else {
                    maxima[i]
                };
            }
        }
        max = maxima.into_iter().fold(max, f32::max);
        let mut sums = [0.0; LANES];
        let mut chunks = row.chunks_exact_mut(LANES);
        for chunk in &mut chunks {
            for i in 0..LANES {
                chunk[i] = exp_nonpositive::<FMA>(chunk[i] - max);
                sums[i] += chunk[i];
            }
        }
        let mut total: f32 = sums.iter().sum();
        for value in chunks.into_remainder() {
            *value = exp_nonpositive::<FMA>(*value - max);
            total += *value;
        }
        let inverse = 1.0 / total;
        for value in row {
            *value *= inverse;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_tensors::{random, relative_error};
    use super::*;

    #[test]
    fn agrees_with_the_composed_twin_with_and_without_padding() {
        let cases = [
            (1, 12, 12, 8, 2, 12),
            (2, 14, 9, 12, 3, 5),
            (1, 3, 3, 8, 1, 7),
            (1, 8, 12, 32, 1, 4),
        ];
        for (batch, height, width, channels, heads, window) in cases {
            let qkv = (random(&[batch, height, width, 3 * channels], 1) * 3.0).unwrap();
            let bias = random(&[3 * channels], 2);
            let ours = window_attention(&qkv, &bias, heads, window).unwrap();
            let twin = composed(&qkv, &bias, heads, window).unwrap();
            assert!(
                relative_error(&ours, &twin) < 2e-6,
                "{height}×{width} in windows of {window}"
            );
        }
    }

    #[test]
    fn softmax_rows_sum_to_one_at_any_magnitude() {
        for columns in [1, 5, 16, 37] {
            let mut matrix: Vec<f32> = (0..3 * columns)
                .map(|i| (i as f32 * 37.0).sin() * 1e4)
                .collect();
            softmax_rows(&mut matrix, columns);
            for row in matrix.chunks_exact(columns) {
                assert!(
                    (row.iter().sum::<f32>() - 1.0).abs() < 1e-5 && row.iter().all(|p| *p >= 0.0)
                );
            }
        }
    }
}
