//! Weight matrices in the order in which the tiles read them.
//!
//! A panel is as many outputs as the widest tile has columns. Panels follow each other; within one,
//! steps of 32 bits of input follow each other; within a step stand the panel's outputs. So a tile
//! reads one straight run of memory, whatever the format.

use std::ops::Range;

use rayon::prelude::*;

use super::buffer::Buffer;
use super::format::{Format, Scales};
use super::pack::{Loss, Panel};
use super::rows::Rows;
use super::tile::{Job, panel_columns, run};
use crate::florence2::kernels::instructions::InstructionSet;

/// A matrix `(outputs, inputs)` of one format, packed for one instruction set.
#[derive(Debug)]
pub struct PackedMatrix {
    pub(super) set: InstructionSet,
    format: Format,
    outputs: usize,
    inputs: usize,
    bytes: Buffer<u8>,
    /// Of int8: for every panel `(blocks of inputs, outputs)`.
    scales: Buffer<f32>,
    /// Of int8, likewise: sums of the bytes.
    sums: Buffer<f32>,
    error: f32,
}

/// A matrix in f32 as somebody else laid it out.
#[derive(Clone, Copy)]
pub struct Strided<'a> {
    /// The values, the first one first.
    pub values: &'a [f32],
    /// Elements between outputs.
    pub output_stride: usize,
    /// Elements between inputs.
    pub input_stride: usize,
}

/// Where a product goes.
#[derive(Clone, Copy)]
pub(super) struct Destination {
    pub(super) start: *mut f32,
    /// Elements between rows.
    pub(super) stride: usize,
    /// Whether it is added to what stands there.
    pub(super) adds: bool,
}

impl PackedMatrix {
    /// Packs a matrix for this machine.
    ///
    /// # Panics
    /// When `values` is too short.
    pub fn pack(format: Format, outputs: usize, inputs: usize, source: Strided<'_>) -> Self {
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
        let with_scales = if format == Format::Int8 {
            panels * columns * blocks
        } else {
            0
        };
        let mut matrix = Self {
            set,
            format,
            outputs,
            inputs,
            bytes: Buffer::zeroed(panels * panel_bytes),
            scales: Buffer::zeroed(with_scales),
            sums: Buffer::zeroed(with_scales),
            error: 0.0,
        };
        if is_empty {
            return matrix;
        }
        let pack_panel = |number: usize, bytes: &mut [u8], scales: &mut [f32], sums: &mut [f32]| {
            let first = number * columns;
            let panel = Panel {
                format,
                columns,
                inputs,
                bytes,
                scales,
                sums,
            };
            let values = &values[first * output_stride..];
            panel.pack(columns.min(outputs - first), Strided { values, ..source })
        };
        let panels = matrix.bytes.par_chunks_mut(panel_bytes).enumerate();
        if format == Format::Int8 {
            // In the order of the panels, whichever thread packed them.
            let losses: Vec<Loss> = panels
                .zip(matrix.scales.par_chunks_mut(blocks * columns))
                .zip(matrix.sums.par_chunks_mut(blocks * columns))
                .map(|(((number, bytes), scales), sums)| pack_panel(number, bytes, scales, sums))
                .collect();
            let mut loss = Loss::default();
            losses.into_iter().for_each(|panel| loss.add(panel));
            matrix.error = loss.relative();
        } else {
            panels.for_each(|(number, bytes)| {
                pack_panel(number, bytes, &mut [], &mut []);
            });
        }
        matrix
    }

    /// What the values are stored as.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Its rows.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Its columns.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Outputs of a panel: what ranges of outputs begin at a multiple of.
    pub fn panel(&self) -> usize {
        panel_columns(self.set)
    }

    /// What int8 loses of the weights, `‖W − Ŵ‖ / ‖W‖`; 0 in other formats.
    pub fn quantisation_error(&self) -> f32 {
        self.error
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.bytes.len() + self.scales.len() * 4 + self.sums.len() * 4
    }

    /// `out[r, n] = Σ rows[r, k] · self[n, k]` on this thread, the rows of `out` `stride` apart.
    ///
    /// # Panics
    /// When the shapes do not fit.
    pub fn apply(&self, rows: &Rows<'_>, out: &mut [f32], stride: usize) {
        let outputs = self.outputs;
        if rows.count == 0 || outputs == 0 {
            return;
        }
        assert!(stride >= outputs && out.len() >= (rows.count - 1) * stride + outputs);
        let to = Destination {
            start: out.as_mut_ptr(),
            stride,
            adds: false,
        };
        // SAFETY: `out` is borrowed exclusively and holds all rows.
        unsafe { self.multiply(rows, 0..outputs, 0..self.inputs, &[], to) }
    }

    /// `destination[r, n] = [destination[r, n] +] [bias[n] +] Σ rows[r, k] · self[outputs.start + n, inputs.start + k]`.
    ///
    /// `rows` hold the inputs of the range; `bias` is empty or padded to whole panels, and counted
    /// from output 0; it is added where the range of inputs begins at 0.
    ///
    /// # Safety
    /// The destination has `rows.count` rows of `outputs.len()` elements that nobody else touches
    /// meanwhile.
    ///
    /// # Panics
    /// When the ranges do not begin at whole panels and blocks, or reach beyond the matrix.
    pub(super) unsafe fn multiply(
        &self,
        rows: &Rows<'_>,
        outputs: Range<usize>,
        inputs: Range<usize>,
        bias: &[f32],
        destination: Destination,
    ) {
        let (columns, group, block) = (self.panel(), self.format.group(), self.format.block());
        assert!(rows.format == self.format && rows.inputs == inputs.len());
        assert!(outputs.start.is_multiple_of(columns) && outputs.end <= self.outputs);
        assert!(inputs.start.is_multiple_of(block) && inputs.end <= self.inputs);
        assert!(bias.is_empty() || bias.len() >= self.outputs.div_ceil(columns) * columns);
        let all_steps = self.inputs.div_ceil(group);
        let blocks = self.inputs.div_ceil(block);
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
                    let of_rows = relative / block * rows.count;
                    let of_columns = (panel * blocks + number) * columns;
                    Scales {
                        rows: rows.scales[of_rows..].as_ptr(),
                        zero_points: rows.zero_points[of_rows..].as_ptr(),
                        columns: self.scales[of_columns..].as_ptr(),
                        sums: self.sums[of_columns..].as_ptr(),
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
                    c: destination.start.wrapping_add(first - outputs.start),
                    c_row: destination.stride,
                    rows: rows.count,
                    columns: columns.min(outputs.end - first),
                    steps,
                    start: if from == 0 && !bias.is_empty() {
                        bias[first..].as_ptr()
                    } else {
                        std::ptr::null()
                    },
                    adds: destination.adds || from > inputs.start,
                    scales,
                };
                // SAFETY: the panel's block lies in `bytes` (sliced above), a panel is padded to whole
                // vectors as scales and bias are, `rows` hold their inputs, and `c` is the caller's.
                unsafe { run(self.set, self.format, &job) }
            }
        }
    }
}
