//! `y = x·Wᵀ + b`, the linear layer.
//!
//! Many rows go to `gemm` with the bias already in place. A few rows (the beams of a decoder step)
//! are bound by reading the weights: a path of their own reads every weight once for all rows and
//! splits the work by rows of the weight matrix.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::matmul::{Destination, MatMut, MatRef, matmul};
use super::simd::{LANES, fma, multiversion};
use super::{elements, is_cpu_f32};

/// Up to this many rows the weights are read once for all of them.
const FEW_ROWS: usize = 8;
/// Weight rows of one parallel task on the few-rows path.
const ROWS_PER_TASK: usize = 64;

/// `x (…, in) · weight (out, in)ᵀ + bias (out)` → `(…, out)`.
pub(crate) fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    if !is_cpu_f32(x) {
        return composed(x, weight, bias);
    }
    let x = x.contiguous()?;
    match bias {
        Some(bias) => x.apply_op3_no_bwd(weight, bias, &LinearOp),
        None => x.apply_op2_no_bwd(weight, &LinearOp),
    }
}

fn composed(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (outputs, inputs) = weight.dims2()?;
    let mut shape = x.dims().to_vec();
    let y = x.reshape(((), inputs))?.matmul(&weight.t()?)?;
    let y = match bias {
        Some(bias) => y.broadcast_add(bias)?,
        None => y,
    };
    if let Some(last) = shape.last_mut() {
        *last = outputs;
    }
    y.reshape(shape)
}

struct LinearOp;

impl LinearOp {
    fn run(
        x: (&CpuStorage, &Layout),
        weight: (&CpuStorage, &Layout),
        bias: &[f32],
    ) -> Result<(CpuStorage, Shape)> {
        let (outputs, inputs) = weight.1.shape().dims2()?;
        let mut shape = x.1.dims().to_vec();
        if shape.last() != Some(&inputs) {
            candle_core::bail!("a linear layer of {inputs} inputs was given {shape:?}");
        }
        if let Some(last) = shape.last_mut() {
            *last = outputs;
        }
        let (x, weight) = (elements(x.0, x.1)?, elements(weight.0, weight.1)?);
        let y = linear_rows(x, weight, bias, inputs, outputs);
        Ok((CpuStorage::F32(y), shape.into()))
    }
}

impl CustomOp2 for LinearOp {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        w: &CpuStorage,
        wl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        Self::run((x, xl), (w, wl), &[])
    }
}

impl CustomOp3 for LinearOp {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        w: &CpuStorage,
        wl: &Layout,
        b: &CpuStorage,
        bl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        Self::run((x, xl), (w, wl), elements(b, bl)?)
    }
}

fn linear_rows(x: &[f32], weight: &[f32], bias: &[f32], inputs: usize, outputs: usize) -> Vec<f32> {
    let rows = x.len().checked_div(inputs).unwrap_or(0);
    if rows <= FEW_ROWS {
        return few_rows(x, weight, bias, inputs, outputs, rows);
    }
    let mut y = vec![0.0; rows * outputs];
    let destination = if bias.is_empty() {
        Destination::Overwrite
    } else {
        y.par_chunks_mut(outputs)
            .for_each(|row| row.copy_from_slice(bias));
        Destination::Add
    };
    matmul(
        MatMut::new(&mut y, rows, outputs, outputs),
        destination,
        MatRef::new(x, rows, inputs, inputs),
        MatRef::new(weight, outputs, inputs, inputs).transposed(),
        1.0,
        rayon::current_num_threads(),
    );
    y
}

fn few_rows(
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    inputs: usize,
    outputs: usize,
    rows: usize,
) -> Vec<f32> {
    // Each task writes its outputs for all rows next to each other; they are put in place afterwards.
    let mut transposed = vec![0.0; rows * outputs];
    if rows > 0 && inputs > 0 {
        transposed
            .par_chunks_mut(ROWS_PER_TASK * rows)
            .zip(weight.par_chunks(ROWS_PER_TASK * inputs))
            .for_each(|(y, weight)| dot_products(x, weight, inputs, y));
    }
    let mut y = vec![0.0; rows * outputs];
    for (r, row) in y.chunks_exact_mut(outputs.max(1)).enumerate() {
        for (o, value) in row.iter_mut().enumerate() {
            *value = transposed[o * rows + r] + bias.get(o).copied().unwrap_or(0.0);
        }
    }
    y
}

multiversion! {
    /// `y[o · rows + r] = x[r] · weight[o]` for every row of `x` and of `weight`.
    fn dot_products(x: &[f32], weight: &[f32], inputs: usize, y: &mut [f32]) = dot_products_body
}

#[inline(always)]
fn dot_products_body<const FMA: bool>(x: &[f32], weight: &[f32], inputs: usize, y: &mut [f32]) {
    let rows = x.len() / inputs;
    for (w, out) in weight.chunks_exact(inputs).zip(y.chunks_exact_mut(rows)) {
        let mut done = 0;
        // Three at a time: the default number of beams, whose sums stay in registers together.
        while done + 3 <= rows {
            let x = &x[done * inputs..];
            let sums = dot3::<FMA>(
                w,
                &x[..inputs],
                &x[inputs..2 * inputs],
                &x[2 * inputs..3 * inputs],
            );
            out[done..done + 3].copy_from_slice(&sums);
            done += 3;
        }
        for r in done..rows {
            out[r] = dot::<FMA>(w, &x[r * inputs..(r + 1) * inputs]);
        }
    }
}

#[inline(always)]
fn dot3<const FMA: bool>(w: &[f32], a: &[f32], b: &[f32], c: &[f32]) -> [f32; 3] {
    let mut sums = [[0.0f32; LANES]; 3];
    let chunks = w.chunks_exact(LANES);
    let tail = w.len() - chunks.remainder().len();
    for (((w, a), b), c) in chunks
        .zip(a.chunks_exact(LANES))
        .zip(b.chunks_exact(LANES))
        .zip(c.chunks_exact(LANES))
    {
        for i in 0..LANES {
            sums[0][i] = fma::<FMA>(w[i], a[i], sums[0][i]);
            sums[1][i] = fma::<FMA>(w[i], b[i], sums[1][i]);
            sums[2][i] = fma::<FMA>(w[i], c[i], sums[2][i]);
        }
    }
    let mut total = sums.map(|lanes| lanes.iter().sum::<f32>());
    for i in tail..w.len() {
        total[0] += w[i] * a[i];
        total[1] += w[i] * b[i];
        total[2] += w[i] * c[i];
    }
    total
}

#[inline(always)]
fn dot<const FMA: bool>(w: &[f32], x: &[f32]) -> f32 {
    let mut sums = [0.0f32; LANES];
    let chunks = w.chunks_exact(LANES);
    let tail = w.len() - chunks.remainder().len();
    for (w, x) in chunks.zip(x.chunks_exact(LANES)) {
        for i in 0..LANES {
            sums[i] = fma::<FMA>(w[i], x[i], sums[i]);
        }
    }
    let mut total = sums.iter().sum::<f32>();
    for i in tail..w.len() {
        total += w[i] * x[i];
    }
    total
}

#[cfg(test)]
mod tests {
    use super::super::test_tensors::{random, relative_error};
    use super::*;

    #[test]
    fn every_row_count_agrees_with_the_composed_twin() {
        for rows in [1, 2, 3, 5, 8, 9, 40] {
            for (inputs, outputs) in [(7, 5), (16, 130), (67, 64), (256, 33)] {
                let x = random(&[rows, inputs], 1);
                let weight = random(&[outputs, inputs], 2);
                let bias = random(&[outputs], 3);
                for bias in [None, Some(&bias)] {
                    let ours = linear(&x, &weight, bias).unwrap();
                    let twin = composed(&x, &weight, bias).unwrap();
                    assert!(
                        relative_error(&ours, &twin) < 2e-6,
                        "{rows} rows, {inputs} to {outputs}"
                    );
                }
            }
        }
    }
}
