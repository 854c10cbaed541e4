//! Brings one panel of a weight matrix into the order of the tiles.

use super::format::Format;
use super::matrix::Strided;
use super::rows::{ROUNDING, to_bf16};
use crate::florence2::kernels::simd::{LANES, fma, multiversion};

/// Steps that are brought into place at a time: their lines of a panel stay in the first-level cache.
const STEPS_AT_ONCE: usize = 16;

/// A panel in the making.
pub(super) struct Panel<'a> {
    pub(super) format: Format,
    /// Outputs of a whole panel.
    pub(super) columns: usize,
    pub(super) inputs: usize,
    /// `(steps, columns, 4)`, all zero before.
    pub(super) bytes: &'a mut [u8],
    /// Of int8: `(blocks, columns)`.
    pub(super) scales: &'a mut [f32],
    /// Of int8: the bytes' sums, `(blocks, columns)`.
    pub(super) sums: &'a mut [f32],
}

impl Panel<'_> {
    /// Packs `outputs` rows of `source`, from its first one on. Returns what int8 loses of them.
    pub(super) fn pack(self, outputs: usize, source: Strided<'_>) -> Loss {
        let Self {
            format,
            columns,
            inputs,
            bytes,
            scales,
            sums,
        } = self;
        let steps = inputs.div_ceil(format.group());
        let room = gather(outputs, inputs, source);
        let mut loss = Loss::default();
        // All rows converted, then moved step by step.
        let mut converted = vec![0u8; outputs * steps * 4];
        for (output, converted) in converted.chunks_exact_mut(steps * 4).enumerate() {
            let row = if source.input_stride == 1 {
                &source.values[output * source.output_stride..][..inputs]
            } else {
                &room[output * inputs..][..inputs]
            };
            match format {
                Format::F32 => {
                    for (bytes, value) in converted.chunks_exact_mut(4).zip(row) {
                        bytes.copy_from_slice(&value.to_ne_bytes());
                    }
                }
                Format::Bf16 => to_bf16(row, converted),
                Format::Int8 => {
                    let block = format.block();
                    let blocks = row.chunks(block).zip(converted.chunks_mut(block));
                    for (number, (weights, bytes)) in blocks.enumerate() {
                        let bytes = &mut bytes[..weights.len()];
                        let at = number * columns + output;
                        quantise(weights, bytes, &mut scales[at]);
                        let mut squared = [0.0; 2];
                        squares(weights, bytes, scales[at], &mut squared);
                        loss.add(Loss {
                            error: f64::from(squared[0]),
                            whole: f64::from(squared[1]),
                        });
                        let sum: i32 = bytes.iter().map(|w| i32::from(w.cast_signed())).sum();
                        sums[at] = sum as f32;
                    }
                }
            }
        }
        let (lanes, _) = bytes.as_chunks_mut::<4>();
        let (converted, _) = converted.as_chunks::<4>();
        for from in (0..steps).step_by(STEPS_AT_ONCE) {
            let to = (from + STEPS_AT_ONCE).min(steps);
            for output in 0..outputs {
                for step in from..to {
                    lanes[step * columns + output] = converted[output * steps + step];
                }
            }
        }
        loss
    }
}

/// Sums of squares over some weights.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Loss {
    /// Of what rounding changed.
    error: f64,
    /// Of the weights.
    whole: f64,
}

impl Loss {
    pub(super) fn add(&mut self, other: Self) {
        self.error += other.error;
        self.whole += other.whole;
    }

    /// `‖W − Ŵ‖ / ‖W‖`.
    pub(super) fn relative(self) -> f32 {
        if self.whole > 0.0 {
            (self.error / self.whole).sqrt() as f32
        } else {
            0.0
        }
    }
}

multiversion! {
    /// Signed bytes `round(x / scale)` with the scale at which the largest magnitude is 127.
    fn quantise(x: &[f32], bytes: &mut [u8], scale: &mut f32) = quantise_body
}

#[inline(always)]
fn quantise_body<const FMA: bool>(x: &[f32], bytes: &mut [u8], scale: &mut f32) {
    let mut largest = [0.0f32; LANES];
    let chunks = x.chunks_exact(LANES);
    for (value, largest) in chunks.remainder().iter().zip(&mut largest) {
        *largest = value.abs();
    }
    for chunk in chunks {
        for i in 0..LANES {
            let magnitude = chunk[i].abs();
            largest[i] = if magnitude > largest[i] {
                magnitude
            } else {
                largest[i]
            };
        }
    }
    let largest = largest.into_iter().fold(0.0, f32::max);
    *scale = largest / 127.0;
    let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
    for (value, byte) in x.iter().zip(bytes) {
        *byte = (*value * inverse + ROUNDING).to_bits() as u8;
    }
}

multiversion! {
    /// `sums = [Σ (w − ŵ)², Σ w²]` of one row and its signed bytes.
    fn squares(row: &[f32], bytes: &[u8], scale: f32, sums: &mut [f32; 2]) = squares_body
}

#[inline(always)]
fn squares_body<const FMA: bool>(row: &[f32], bytes: &[u8], scale: f32, sums: &mut [f32; 2]) {
    let (mut error, mut whole) = ([0.0f32; LANES], [0.0f32; LANES]);
    let (lines, byte_lines) = (row.chunks_exact(LANES), bytes.chunks_exact(LANES));
    let rest = lines.remainder().iter().zip(byte_lines.remainder());
    for (lane, (weight, byte)) in rest.enumerate() {
        let lost = weight - f32::from(byte.cast_signed()) * scale;
        error[lane] = lost * lost;
        whole[lane] = weight * weight;
    }
    for (weights, bytes) in lines.zip(byte_lines) {
        for lane in 0..LANES {
            let lost = weights[lane] - f32::from(bytes[lane].cast_signed()) * scale;
            error[lane] = fma::<FMA>(lost, lost, error[lane]);
            whole[lane] = fma::<FMA>(weights[lane], weights[lane], whole[lane]);
        }
    }
    *sums = [error.iter().sum(), whole.iter().sum()];
}

/// The rows one after the other, where the inputs of a row do not stand side by side. Read in the order
/// in which they lie in memory: steps of a whole row would leave their cache set before its turn.
fn gather(outputs: usize, inputs: usize, source: Strided<'_>) -> Vec<f32> {
    let Strided {
        values,
        output_stride,
        input_stride,
    } = source;
    if input_stride == 1 {
        return Vec::new();
    }
    let mut rows = vec![0.0; outputs * inputs];
    for input in 0..inputs {
        for output in 0..outputs {
            rows[output * inputs + input] = values[output * output_stride + input * input_stride];
        }
    }
    rows
}
