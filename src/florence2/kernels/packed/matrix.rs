//! Weight matrices in the order in which the tiles read them.
//!
//! A panel is as many outputs as the widest tile has columns. Panels follow each other; within one,
//! steps of 32 bits of input follow each other; within a step stand the panel's outputs. So a tile
//! reads one straight run of memory, whatever the format.

use std::ops::Range;

use rayon::prelude::*;

use super::buffer::Buffer;
use super::format::{Format, Scales, ZERO_POINT};
use super::isa::InstructionSet;
use super::rows::{ROUNDING, Rows, bf16_bits};
use super::tile::{Job, MAX_LANES, panel_columns, run};

/// Inputs that are brought into place at a time: their lines of a panel stay in the first-level cache.
const INPUTS_AT_ONCE: usize = 32;

/// A matrix `(outputs, inputs)` of one format, packed for one instruction set.
#[derive(Debug)]
pub(crate) struct PackedMatrix {
    pub(super) set: InstructionSet,
    format: Format,
    outputs: usize,
    inputs: usize,
    bytes: Buffer<u8>,
    /// Of int8: one scale an output.
    scales: Buffer<f32>,
    /// Of int8: one a block of inputs and output.
    corrections: Buffer<i32>,
}

/// Calls `put(input, column)` for all of them: inputs outside where they are far apart, and otherwise
/// columns outside, some inputs at a time.
#[inline(always)]
fn in_order(
    inputs: usize,
    columns: usize,
    inputs_outside: bool,
    mut put: impl FnMut(usize, usize),
) {
    if inputs_outside {
        for input in 0..inputs {
            (0..columns).for_each(|column| put(input, column));
        }
        return;
    }
    for from in (0..inputs).step_by(INPUTS_AT_ONCE) {
        let to = (from + INPUTS_AT_ONCE).min(inputs);
        for column in 0..columns {
            (from..to).for_each(|input| put(input, column));
        }
    }
}

/// A matrix in f32 as somebody else laid it out.
#[derive(Clone, Copy)]
pub(crate) struct Strided<'a> {
    /// The values, the first one first.
    pub(crate) values: &'a [f32],
    /// Elements between outputs.
    pub(crate) output_stride: usize,
    /// Elements between inputs.
    pub(crate) input_stride: usize,
}

impl PackedMatrix {
    /// Packs a matrix for this machine.
    ///
    /// # Panics
    /// When `values` is too short.
    pub(crate) fn pack(format: Format, outputs: usize, inputs: usize, source: Strided<'_>) -> Self {
        Self::pack_for(InstructionSet::detect(), format, outputs, inputs, source)
    }

    /// Packs a matrix for one instruction set.
    pub(super) fn pack_for(
        set: InstructionSet,
        format: Format,
        outputs: usize,
        inputs: usize,
        source: Strided<'_>,
    ) -> Self {
        let Strided {
            values,
            output_stride,
            input_stride,
        } = source;
        let is_empty = outputs == 0 || inputs == 0;
        assert!(
            is_empty || values.len() > (outputs - 1) * output_stride + (inputs - 1) * input_stride,
            "a matrix of {outputs} × {inputs} does not lie in {} values",
            values.len()
        );
        let columns = panel_columns(set);
        let panels = outputs.div_ceil(columns);
        let blocks = inputs.div_ceil(format.block());
        let panel_bytes = inputs.div_ceil(format.group()) * columns * 4;
        let padded = (panels * columns).next_multiple_of(MAX_LANES);
        let with_scales = if format == Format::Int8 { padded } else { 0 };
        let mut matrix = Self {
            set,
            format,
            outputs,
            inputs,
            bytes: Buffer::zeroed(panels * panel_bytes),
            scales: Buffer::zeroed(with_scales),
            corrections: Buffer::zeroed(with_scales * blocks),
        };
        if is_empty {
            return matrix;
        }
        let value =
            |output: usize, input: usize| values[output * output_stride + input * input_stride];
        if format == Format::Int8 {
            matrix.scales[..outputs]
                .par_iter_mut()
                .enumerate()
                .for_each(|(output, scale)| {
                    let largest = (0..inputs)
                        .fold(0.0f32, |most, input| most.max(value(output, input).abs()));
                    *scale = largest / 127.0;
                });
        }
        let inverse = |scale: &f32| if *scale > 0.0 { 1.0 / scale } else { 0.0 };
        let inverses: Vec<f32> = matrix.scales.iter().map(inverse).collect();
        matrix
            .bytes
            .par_chunks_mut(panel_bytes)
            .enumerate()
            .for_each(|(panel, bytes)| {
                let first = panel * columns;
                let here = columns.min(outputs - first);
                // As the source lies in memory: a step of a whole row might leave its cache set.
                let is_transposed = output_stride < input_stride;
                match format {
                    Format::F32 => in_order(inputs, here, is_transposed, |input, column| {
                        let at = (input * columns + column) * 4;
                        bytes[at..at + 4]
                            .copy_from_slice(&value(first + column, input).to_ne_bytes());
                    }),
                    Format::Bf16 => in_order(inputs, here, is_transposed, |input, column| {
                        let at = (input / 2 * columns + column) * 4 + input % 2 * 2;
                        let bits = bf16_bits(value(first + column, input));
                        bytes[at..at + 2].copy_from_slice(&bits.to_ne_bytes());
                    }),
                    Format::Int8 => in_order(inputs, here, is_transposed, |input, column| {
                        let at = (input / 4 * columns + column) * 4 + input % 4;
                        let scaled = value(first + column, input) * inverses[first + column];
                        // As two's complement.
                        bytes[at] = (scaled + ROUNDING).to_bits() as u8;
                    }),
                }
            });
        matrix.correct();
        matrix
    }

    /// Sums up what the zero point of the activations adds to every output.
    fn correct(&mut self) {
        if self.format != Format::Int8 {
            return;
        }
        let (columns, inputs) = (panel_columns(self.set), self.inputs);
        let padded = self.scales.len();
        let panel_bytes = inputs.div_ceil(4) * columns * 4;
        let (bytes, block) = (&self.bytes, self.format.block());
        self.corrections
            .par_chunks_mut(padded)
            .enumerate()
            .for_each(|(number, corrections)| {
                let steps = number * block / 4..((number + 1) * block).min(inputs).div_ceil(4);
                for (panel, corrections) in corrections.chunks_mut(columns).enumerate() {
                    let Some(panel) = bytes.get(panel * panel_bytes..(panel + 1) * panel_bytes)
                    else {
                        break;
                    };
                    for step in steps.clone() {
                        let step = &panel[step * columns * 4..][..columns * 4];
                        for (sum, weights) in corrections.iter_mut().zip(step.chunks_exact(4)) {
                            let weights = weights.iter().map(|byte| i32::from(byte.cast_signed()));
                            *sum += ZERO_POINT * weights.sum::<i32>();
                        }
                    }
                }
            });
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }

    pub(crate) fn outputs(&self) -> usize {
        self.outputs
    }

    pub(crate) fn inputs(&self) -> usize {
        self.inputs
    }

    /// Outputs of a panel: what ranges of outputs begin at a multiple of.
    pub(crate) fn panel(&self) -> usize {
        panel_columns(self.set)
    }

    /// Bytes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len() + self.scales.len() * 4 + self.corrections.len() * 4
    }

    /// `out[r, n] = Σ rows[r, k] · self[n, k]` on this thread, the rows of `out` `stride` apart.
    ///
    /// # Panics
    /// When the shapes do not fit.
    pub(crate) fn apply(&self, rows: &Rows<'_>, out: &mut [f32], stride: usize) {
        let outputs = self.outputs;
        if rows.count == 0 || outputs == 0 {
            return;
        }
        assert!(stride >= outputs && out.len() >= (rows.count - 1) * stride + outputs);
        let c = out.as_mut_ptr();
        // SAFETY: `out` is borrowed exclusively and holds all rows.
        unsafe { self.multiply(rows, 0..outputs, 0..self.inputs, &[], c, stride, false) }
    }

    /// `c[r, n] = [c[r, n] +] [bias[n] +] Σ rows[r, k] · self[outputs.start + n, inputs.start + k]`.
    ///
    /// `rows` hold the inputs of the range; `bias` is empty or padded to whole panels, and counted
    /// from output 0; it is added where the range of inputs begins at 0.
    ///
    /// # Safety
    /// `c` has `rows.count` rows, `stride` elements apart, of `outputs.len()` elements, that nobody
    /// else touches meanwhile.
    ///
    /// # Panics
    /// When the ranges do not begin at whole panels and blocks, or reach beyond the matrix.
    pub(super) unsafe fn multiply(
        &self,
        rows: &Rows<'_>,
        outputs: Range<usize>,
        inputs: Range<usize>,
        bias: &[f32],
        c: *mut f32,
        stride: usize,
        adds: bool,
    ) {
        let (columns, group, block) = (self.panel(), self.format.group(), self.format.block());
        assert!(rows.format == self.format && rows.inputs == inputs.len());
        assert!(outputs.start.is_multiple_of(columns) && outputs.end <= self.outputs);
        assert!(inputs.start.is_multiple_of(block) && inputs.end <= self.inputs);
        assert!(bias.is_empty() || bias.len() >= self.outputs.div_ceil(columns) * columns);
        let all_steps = self.inputs.div_ceil(group);
        let padded = self.scales.len();
        for from in inputs.clone().step_by(block) {
            let to = (from + block).min(inputs.end);
            let number = from / block;
            let relative = from - inputs.start;
            for first in outputs.clone().step_by(columns) {
                let panel = first / columns;
                let at = (panel * all_steps + from / group) * columns * 4;
                let steps = (to - from).div_ceil(group);
                let b = &self.bytes[at..at + steps * columns * 4];
                let scales = if self.format == Format::Int8 {
                    Scales {
                        rows: rows.scales[relative / block * rows.count..].as_ptr(),
                        columns: self.scales[first..].as_ptr(),
                        corrections: self.corrections[number * padded + first..].as_ptr(),
                    }
                } else {
                    Scales::NONE
                };
                let job = Job {
                    a: rows.bytes[relative / group * 4..].as_ptr(),
                    a_row: rows.stride,
                    a_step: 4,
                    b: b.as_ptr(),
                    b_step: columns * 4,
                    c: c.wrapping_add(first - outputs.start),
                    c_row: stride,
                    rows: rows.count,
                    columns: columns.min(outputs.end - first),
                    steps,
                    start: if from == 0 && !bias.is_empty() {
                        bias[first..].as_ptr()
                    } else {
                        std::ptr::null()
                    },
                    adds: adds || from > inputs.start,
                    scales,
                };
                // SAFETY: the panel's block lies in `bytes` (sliced above), a panel is padded to whole
                // vectors as scales and bias are, `rows` hold their inputs, and `c` is the caller's.
                unsafe { run(self.set, self.format, &job) }
            }
        }
    }
}
