//! Small f32 products on this thread, of matrices that lie in others: the attentions.

use super::format::{Format, Scales};
use super::tile::{Job, MAX_LANES, run};
use crate::florence2::kernels::instructions::InstructionSet;

/// The left side of a product: `count` rows of `inputs` values.
#[derive(Clone, Copy, Debug)]
pub struct Left<'a> {
    /// The values, the first one first.
    pub values: &'a [f32],
    /// Elements between rows.
    pub row_stride: usize,
    /// Elements between the inputs of a row.
    pub input_stride: usize,
}

/// The right side: for every input a run of columns.
#[derive(Clone, Copy, Debug)]
pub struct Columns<'a> {
    /// The values, the first one first.
    pub values: &'a [f32],
    /// Elements between inputs.
    pub stride: usize,
}

/// Shape of a product.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Rows of the left side and of the product.
    pub rows: usize,
    /// What is summed over.
    pub inputs: usize,
    /// Columns of the right side and of the product.
    pub columns: usize,
}

/// `out[r, n] = [out[r, n] +] Σₖ left[r, k] · right[k, n]`, the rows of `out` `stride` apart. Sums are
/// formed in f32, in the order of k.
///
/// # Panics
/// When the slices are too short.
pub fn product(
    size: Size,
    left: Left<'_>,
    right: Columns<'_>,
    out: &mut [f32],
    stride: usize,
    adds: bool,
) {
    let Size {
        rows,
        inputs,
        columns,
    } = size;
    if rows == 0 || columns == 0 {
        return;
    }
    assert!(stride >= columns && out.len() >= (rows - 1) * stride + columns);
    if inputs == 0 {
        if !adds {
            (0..rows).for_each(|row| out[row * stride..][..columns].fill(0.0));
        }
        return;
    }
    assert!(left.values.len() > (rows - 1) * left.row_stride + (inputs - 1) * left.input_stride);
    assert!(right.stride >= columns && right.values.len() >= (inputs - 1) * right.stride + columns);
    // Vectors are whole: where the columns are not, the right side is copied with room at the end.
    let padded: Vec<f32>;
    let (values, right_stride) = if columns.is_multiple_of(MAX_LANES) {
        (right.values, right.stride)
    } else {
        let wide = columns.next_multiple_of(MAX_LANES);
        let mut copy = vec![0.0; inputs * wide];
        for (input, row) in copy.chunks_exact_mut(wide).enumerate() {
            row[..columns].copy_from_slice(&right.values[input * right.stride..][..columns]);
        }
        padded = copy;
        (padded.as_slice(), wide)
    };
    let job = Job {
        a: left.values.as_ptr().cast(),
        a_row: left.row_stride * 4,
        a_step: left.input_stride * 4,
        b: values.as_ptr().cast(),
        b_step: right_stride * 4,
        c: out.as_mut_ptr(),
        c_row: stride,
        rows,
        columns,
        steps: inputs,
        start: std::ptr::null(),
        adds,
        scales: Scales::NONE,
    };
    // SAFETY: all three lie in their slices (asserted above), the right side in whole vectors, and
    // `out` is borrowed exclusively.
    unsafe { run(InstructionSet::detect(), Format::F32, &job) }
}
