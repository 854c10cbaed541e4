//! The two-layer perceptron of every block, in strips of its hidden width.

use super::scratch::Floats;
use crate::florence2::kernels::gelu_in_place;
use crate::florence2::kernels::packed::{PackedLinear, RowBuffer};

/// Hidden channels of a strip: whole blocks of inputs in every format.
const STRIP: usize = 1024;

/// Adds `fc2(gelu(fc1(normed)))` to `out (count, fc2.outputs)`.
pub(super) fn feed_forward(
    fc1: &PackedLinear,
    fc2: &PackedLinear,
    normed: &[f32],
    count: usize,
    rows: &mut RowBuffer,
    hidden: &mut Floats,
    out: &mut [f32],
) {
    let (width, outputs) = (fc1.outputs(), fc2.outputs());
    for first in (0..width).step_by(STRIP) {
        let strip = first..(first + STRIP).min(width);
        let len = strip.len();
        let hidden = hidden.of(count * len);
        let inputs = rows.convert(fc1.format(), normed, count, fc1.inputs(), fc1.inputs());
        fc1.apply_part(&inputs, strip.clone(), 0..fc1.inputs(), hidden, len, false);
        gelu_in_place(hidden);
        let activations = rows.convert(fc2.format(), hidden, count, len, len);
        fc2.apply_part(&activations, 0..outputs, strip, out, outputs, true);
    }
}
