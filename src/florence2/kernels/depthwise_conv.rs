//! The depthwise 3×3 convolution that stands before each attention and feed-forward layer of the
//! vision tower, with its residual: `x + conv(x)`.
//!
//! candle runs a grouped convolution as one convolution a channel.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::simd::{fma, multiversion};

/// Taps of the 3×3 kernel.
const TAPS: usize = 9;

/// `x + conv(x)` for `x (batch, height, width, channels)`, zero padding 1, stride 1;
/// `weight (9, channels)` with the taps row by row, `bias (channels)`.
pub fn depthwise_conv_residual(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    // Nine shifted multiply-adds.
    let (_, height, width, _) = x.dims4()?;
    let padded = x.pad_with_zeros(1, 1, 1)?.pad_with_zeros(2, 1, 1)?;
    let mut sum = x.broadcast_add(bias)?;
    for tap in 0..TAPS {
        let shifted = padded
            .narrow(1, tap / 3, height)?
            .narrow(2, tap % 3, width)?;
        sum = (sum + shifted.broadcast_mul(&weight.get(tap)?)?)?;
    }
    Ok(sum)
}

/// The same for one picture `x (height, width, channels)`, into `y`, on all threads: one pass, channels
/// innermost.
///
/// # Panics
/// When the lengths do not fit.
pub fn depthwise_conv_residual_rows(
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    width: usize,
    y: &mut [f32],
) {
    let row = width * bias.len();
    assert!(weight.len() == TAPS * bias.len() && x.len() == y.len());
    if row == 0 {
        return;
    }
    let zeros = vec![0.0; row];
    let height = x.len() / row;
    y.par_chunks_mut(row).enumerate().for_each(|(line, out)| {
        let at = |line: usize| &x[line * row..(line + 1) * row];
        let above = if line > 0 { at(line - 1) } else { &zeros };
        let below = if line + 1 < height {
            at(line + 1)
        } else {
            &zeros
        };
        convolve_row(
            [above, at(line), below],
            weight,
            bias,
            &zeros[..bias.len()],
            out,
        );
    });
}

multiversion! {
    /// One output row from three input rows; `zeros` has one pixel's length.
    fn convolve_row(rows: [&[f32]; 3], weight: &[f32], bias: &[f32], zeros: &[f32], out: &mut [f32]) = convolve_row_body
}

#[inline(always)]
fn convolve_row_body<const FMA: bool>(
    rows: [&[f32]; 3],
    weight: &[f32],
    bias: &[f32],
    zeros: &[f32],
    out: &mut [f32],
) {
    let channels = bias.len();
    let width = out.len() / channels;
    let taps: [&[f32]; TAPS] = std::array::from_fn(|t| &weight[t * channels..(t + 1) * channels]);
    for (column, out) in out.chunks_exact_mut(channels).enumerate() {
        let pixel = |t: usize| {
            let shifted = column + t % 3;
            if shifted == 0 || shifted > width {
                &zeros[..channels]
            } else {
                &rows[t / 3][(shifted - 1) * channels..shifted * channels]
            }
        };
        let pixels: [&[f32]; TAPS] = std::array::from_fn(pixel);
        for c in 0..channels {
            let mut sum = pixels[4][c] + bias[c];
            for t in 0..TAPS {
                sum = fma::<FMA>(pixels[t][c], taps[t][c], sum);
            }
            out[c] = sum;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_tensors::{random, relative_error};
    use super::*;

    #[test]
    fn agrees_with_the_composed_twin_and_with_a_grouped_convolution() {
        let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (height, width, channels) in [(1, 1, 3), (5, 7, 16), (6, 1, 33), (2, 9, 20)] {
            let x = random(&[1, height, width, channels], 1);
            let weight = random(&[TAPS, channels], 2);
            let bias = random(&[channels], 3);
            let mut ours = vec![0.0; height * width * channels];
            let (taps, offsets) = (values(&weight), values(&bias));
            depthwise_conv_residual_rows(&values(&x), &taps, &offsets, width, &mut ours);
            let ours = Tensor::from_vec(ours, x.shape(), x.device()).unwrap();
            let twin = depthwise_conv_residual(&x, &weight, &bias).unwrap();
            assert!(relative_error(&ours, &twin) < 1e-6);
            let kernel = weight.t().unwrap().reshape((channels, 1, 3, 3)).unwrap();
            let planar = x.permute((0, 3, 1, 2)).unwrap().contiguous().unwrap();
            let conv = planar
                .conv2d(&kernel, 1, 1, 1, channels)
                .unwrap()
                .permute((0, 2, 3, 1))
                .unwrap();
            let expected = (conv.broadcast_add(&bias).unwrap() + &x).unwrap();
            assert!(relative_error(&ours, &expected) < 1e-6);
        }
    }
}
