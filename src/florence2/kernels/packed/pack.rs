//! Brings one panel of a weight matrix into the order of the tiles.

use super::format::{Format, ZERO_POINT};
use super::matrix::Strided;
use super::rows::{quantise, to_bf16};

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
    /// Of int8: `(columns)`.
    pub(super) scales: &'a mut [f32],
    /// Of int8: `(blocks, columns)`.
    pub(super) corrections: &'a mut [i32],
}

impl Panel<'_> {
    /// Packs `outputs` rows of `source`, from its first one on.
    pub(super) fn pack(self, outputs: usize, source: Strided<'_>) {
        let Self {
            format,
            columns,
            inputs,
            bytes,
            scales,
            corrections,
        } = self;
        let steps = inputs.div_ceil(format.group());
        let room = gather(outputs, inputs, source);
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
                    quantise(row, &mut converted[..inputs], &mut scales[output]);
                    // The weights are signed: without the activations' zero point.
                    for byte in &mut converted[..inputs] {
                        *byte = byte.wrapping_sub(ZERO_POINT as u8);
                    }
                    let block = format.block();
                    for (number, weights) in converted[..inputs].chunks(block).enumerate() {
                        let sum: i32 = weights.iter().map(|w| i32::from(w.cast_signed())).sum();
                        corrections[number * columns + output] = ZERO_POINT * sum;
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
    }
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
