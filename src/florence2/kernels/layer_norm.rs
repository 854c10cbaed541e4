//! Layer normalisation over the last axis.
//!
//! candle's own sums in one pass, as mean of squares less square of the mean, one after the other in
//! f32: over a thousand channels that loses digits which a deep tower multiplies into other
//! answers. This one takes the deviations from the mean, in many partial sums.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::simd::{LANES, fma, multiversion};
use super::{elements, is_cpu_f32};

/// Rows of one parallel task.
const ROWS_PER_TASK: usize = 16;

/// `(x − mean) / √(variance + eps) · weight + bias` for every row of `x (…, dim)`;
/// `weight (dim)`, `bias (dim)`.
pub(crate) fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let x = x.contiguous()?;
    if is_cpu_f32(&x) {
        x.apply_op3_no_bwd(weight, bias, &LayerNormOp { eps: eps as f32 })
    } else {
        candle_nn::ops::layer_norm(&x, weight, bias, eps as f32)
    }
}

struct LayerNormOp {
    eps: f32,
}

impl CustomOp3 for LayerNormOp {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        weight: &CpuStorage,
        wl: &Layout,
        bias: &CpuStorage,
        bl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, weight, bias) = (elements(x, xl)?, elements(weight, wl)?, elements(bias, bl)?);
        let dim = weight.len();
        if dim == 0 || bias.len() != dim || xl.dims().last() != Some(&dim) {
            candle_core::bail!("a layer norm of {dim} channels was given {xl:?} and {bl:?}");
        }
        let mut y = vec![0.0; x.len()];
        let task = ROWS_PER_TASK * dim;
        y.par_chunks_mut(task)
            .zip(x.par_chunks(task))
            .for_each(|(y, x)| normalize_rows(x, weight, bias, self.eps, y));
        Ok((CpuStorage::F32(y), xl.shape().clone()))
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
                let ours = layer_norm(&x, &weight, &bias, 1e-5).unwrap();
                let error = relative_error(&ours, &exact(&x, &weight, &bias, 1e-5));
                assert!(
                    error < 2e-5,
                    "{rows} rows of {dim} around {offset}: {error}"
                );
            }
        }
    }
}
