//! Layer normalisation over the last axis.
//!
//! candle's own sums in one pass, as mean of squares less square of the mean, one after the other in
//! f32: over a thousand channels that loses digits which a deep tower multiplies into other
//! answers. This one takes the deviations from the mean, in many partial sums.

use candle_core::{Result, Tensor};

use super::simd::{LANES, fma, multiversion};
use crate::florence2::config::LAYER_NORM_EPS;

/// `(x − mean) / √(variance + eps) · weight + bias` for every row of `x (…, dim)`;
/// `weight (dim)`, `bias (dim)`.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    candle_nn::ops::layer_norm(&x.contiguous()?, weight, bias, eps as f32)
}

/// The same for the rows of `x (rows, dim)`, into `y`, on this thread.
pub fn layer_norm_rows(x: &[f32], weight: &[f32], bias: &[f32], y: &mut [f32]) {
    if !weight.is_empty() {
        normalize_rows(x, weight, bias, LAYER_NORM_EPS as f32, y);
    }
}

multiversion! {
    /// Normalises every row of `x` into `y`.
    fn normalize_rows(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, y: &mut [f32]) = normalize_rows_body
}

#[inline(always)]
fn normalize_rows_body<const FMA: bool>(
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    eps: f32,
    y: &mut [f32],
) {
    let dim = weight.len();
    for (x, y) in x.chunks_exact(dim).zip(y.chunks_exact_mut(dim)) {
        let mean = sum_of(x, |value| value) / dim as f32;
        let variance = sum_of(x, |value| (value - mean) * (value - mean)) / dim as f32;
        let scale = 1.0 / (variance + eps).sqrt();
        for i in 0..dim {
            y[i] = fma::<FMA>((x[i] - mean) * scale, weight[i], bias[i]);
        }
    }
}

#[inline(always)]
fn sum_of(row: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0.0f32; LANES];
    let chunks = row.chunks_exact(LANES);
    let tail: f32 = chunks.remainder().iter().map(|value| term(*value)).sum();
    for chunk in chunks {
        for i in 0..LANES {
            sums[i] += term(chunk[i]);
        }
    }
    sums.iter().sum::<f32>() + tail
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::super::test_tensors::{random, relative_error};
    use super::*;

    /// The definition, in f64.
    fn exact(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Tensor {
        let wide = |t: &Tensor| t.to_dtype(DType::F64).unwrap();
        let x = wide(x);
        let centred = x.broadcast_sub(&x.mean_keepdim(1).unwrap()).unwrap();
        let variance = centred.sqr().unwrap().mean_keepdim(1).unwrap();
        let normed = centred
            .broadcast_div(&(variance + eps).unwrap().sqrt().unwrap())
            .unwrap();
        let y = normed
            .broadcast_mul(&wide(weight))
            .unwrap()
            .broadcast_add(&wide(bias))
            .unwrap();
        y.to_dtype(DType::F32).unwrap()
    }

    #[test]
    fn agrees_with_the_definition_even_far_from_zero() {
        for (rows, dim) in [(1, 5), (40, 16), (7, 100), (33, 1024)] {
            for offset in [0.0, 30.0] {
                let x = (random(&[rows, dim], 1) + offset).unwrap();
                let (weight, bias) = (random(&[dim], 2), random(&[dim], 3));
                let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                let mut ours = vec![0.0; rows * dim];
                layer_norm_rows(&values(&x), &values(&weight), &values(&bias), &mut ours);
                let ours = Tensor::from_vec(ours, (rows, dim), x.device()).unwrap();
                let error = relative_error(&ours, &exact(&x, &weight, &bias, LAYER_NORM_EPS));
                assert!(
                    error < 2e-5,
                    "{rows} rows of {dim} around {offset}: {error}"
                );
            }
        }
    }
}
