//! `y = x·Wᵀ + b` on the CPU, with the weights packed once at the start: the product in which the
//! model spends nine tenths of its time.
//!
//! One loop (`tile.rs`) serves three number formats (`format.rs`) on every instruction set
//! (`isa.rs` and its implementations): many rows of a picture, where the tiles run at the speed of
//! the arithmetic, and the few rows of a decoder step, where every weight is read once for all of
//! them at the speed of the memory.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub mod buffer;
mod format;
mod isa;
mod matrix;
mod meter;
#[cfg(target_arch = "aarch64")]
mod neon;
mod pack;
mod portable;
mod rows;
mod strided;
mod tile;

use std::ops::Range;
use std::sync::{Arc, Weak};

use rayon::prelude::*;

pub use super::instructions::{InstructionSet, InstructionSetError};
pub use format::Format;
use matrix::Destination;
pub use matrix::{PackedMatrix, Strided};
pub use meter::QuantisationMeter;
pub use rows::{RowBuffer, Rows};
pub use strided::{Columns, Left, Size, product};

use buffer::Buffer;

/// A linear layer with packed weights.
#[derive(Debug)]
pub struct PackedLinear {
    matrix: PackedMatrix,
    /// Empty, or one an output, padded to whole panels.
    bias: Buffer<f32>,
    meter: Weak<QuantisationMeter>,
}

impl PackedLinear {
    /// `weight (outputs, inputs)`, row-major, and `bias (outputs)` or nothing.
    ///
    /// # Panics
    /// When the lengths do not fit.
    #[must_use]
    pub fn new(
        format: Format,
        weight: &[f32],
        bias: &[f32],
        outputs: usize,
        inputs: usize,
    ) -> Self {
        let set = InstructionSet::detect();
        Self::for_set(set, format, weight, bias, outputs, inputs)
    }

    /// The same for an instruction set other than the best, to compare them.
    ///
    /// # Panics
    /// When the machine does not have it, or the lengths do not fit.
    #[must_use]
    pub fn for_set(
        set: InstructionSet,
        format: Format,
        weight: &[f32],
        bias: &[f32],
        outputs: usize,
        inputs: usize,
    ) -> Self {
        assert!(InstructionSet::available().contains(&set));
        assert!(bias.is_empty() || bias.len() == outputs);
        let source = Strided {
            values: weight,
            output_stride: inputs,
            input_stride: 1,
        };
        let matrix = PackedMatrix::pack_for(set, format, outputs, inputs, source);
        let padded_len = if bias.is_empty() {
            0
        } else {
            outputs.next_multiple_of(matrix.panel())
        };
        let mut padded = Buffer::zeroed(padded_len);
        padded[..bias.len()].copy_from_slice(bias);
        Self {
            matrix,
            bias: padded,
            meter: Weak::new(),
        }
    }

    /// Measures what int8 costs in this layer, for as long as somebody holds the meter.
    pub fn meter(&mut self) -> Arc<QuantisationMeter> {
        let meter = Arc::new(QuantisationMeter::new(self.matrix.quantisation_error()));
        self.meter = Arc::downgrade(&meter);
        meter
    }

    fn record(&self, rows: &Rows<'_>) {
        if let Some(meter) = self.meter.upgrade() {
            meter.record(rows);
        }
    }

    /// What the weights are stored as.
    pub fn format(&self) -> Format {
        self.matrix.format()
    }

    /// Rows of the weights.
    pub fn outputs(&self) -> usize {
        self.matrix.outputs()
    }

    /// Columns of the weights.
    pub fn inputs(&self) -> usize {
        self.matrix.inputs()
    }

    /// The bias, padded to whole panels; empty without one.
    pub fn bias(&self) -> &[f32] {
        &self.bias
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.matrix.bytes() + self.bias.len() * 4
    }

    /// All outputs of `rows` on this thread: `out (rows, outputs)`, its rows `stride` apart, is
    /// overwritten, or added to where `adds` says so.
    ///
    /// # Panics
    /// When the shapes do not fit.
    pub fn apply(&self, rows: &Rows<'_>, out: &mut [f32], stride: usize, adds: bool) {
        self.apply_part(rows, 0..self.outputs(), 0..self.inputs(), out, stride, adds);
    }

    /// [`Self::apply`] for some outputs and inputs. `rows` hold the inputs of the range, `out` the
    /// outputs of theirs. Outputs begin at a whole panel, inputs at a whole block; the bias counts
    /// with input 0.
    ///
    /// # Panics
    /// When the shapes do not fit.
    pub fn apply_part(
        &self,
        rows: &Rows<'_>,
        outputs: Range<usize>,
        inputs: Range<usize>,
        out: &mut [f32],
        stride: usize,
        adds: bool,
    ) {
        if rows.count == 0 || outputs.is_empty() {
            return;
        }
        assert!(stride >= outputs.len() && out.len() >= (rows.count - 1) * stride + outputs.len());
        if outputs.start == 0 {
            self.record(rows);
        }
        let start = out.as_mut_ptr();
        let to = Destination {
            start,
            stride,
            adds,
        };
        // SAFETY: `out` is borrowed exclusively and holds all rows.
        unsafe { self.matrix.multiply(rows, outputs, inputs, &self.bias, to) }
    }

    /// [`Self::apply`] on all threads of the pool, each with its own outputs: for few rows, whose
    /// time is that of reading the weights.
    ///
    /// # Panics
    /// When the shapes do not fit.
    pub fn apply_parallel(&self, rows: &Rows<'_>, out: &mut [f32], stride: usize, adds: bool) {
        self.apply_parallel_then(rows, out, stride, adds, |_| ());
    }

    /// [`Self::apply_parallel`], after which every thread calls `then` with what it wrote: runs of
    /// outputs of one row. What `then` does to a value may depend on nothing but the value.
    ///
    /// # Panics
    /// When the shapes do not fit.
    pub fn apply_parallel_then(
        &self,
        rows: &Rows<'_>,
        out: &mut [f32],
        stride: usize,
        adds: bool,
        then: impl Fn(&mut [f32]) + Sync,
    ) {
        let outputs = self.outputs();
        if rows.count == 0 || outputs == 0 {
            return;
        }
        assert!(stride >= outputs && out.len() >= (rows.count - 1) * stride + outputs);
        self.record(rows);
        let start = Shared::new(out);
        for_each_part(outputs, self.matrix.panel(), |part| {
            let len = part.len();
            // SAFETY: `out` holds all rows, and every part touches columns of its own.
            unsafe {
                let start = start.get().add(part.start);
                let to = Destination {
                    start,
                    stride,
                    adds,
                };
                self.matrix
                    .multiply(rows, part, 0..self.inputs(), &self.bias, to);
                for row in 0..rows.count {
                    then(std::slice::from_raw_parts_mut(start.add(row * stride), len));
                }
            }
        });
    }
}

/// A pointer that threads share, each for elements of its own.
#[derive(Clone, Copy)]
pub(super) struct Shared(*mut f32);

// SAFETY: whoever writes through it says why the elements are its own.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    pub(super) fn new(values: &mut [f32]) -> Self {
        Self(values.as_mut_ptr())
    }

    pub(super) fn get(self) -> *mut f32 {
        self.0
    }
}

/// Calls `work` with ranges that cover `0..len`, one a thread, each beginning at a multiple of `unit`.
pub fn for_each_part(len: usize, unit: usize, work: impl Fn(Range<usize>) + Sync) {
    let units = len.div_ceil(unit);
    let parts = rayon::current_num_threads().min(units);
    let part = |index: usize| {
        let edge = |index: usize| (index * units / parts * unit).min(len);
        edge(index)..edge(index + 1)
    };
    match parts {
        0 => {}
        1 => work(0..len),
        2 => {
            rayon::join(|| work(part(0)), || work(part(1)));
        }
        _ => (0..parts)
            .into_par_iter()
            .with_max_len(1)
            .for_each(|index| work(part(index))),
    }
}

#[cfg(test)]
mod tests;
