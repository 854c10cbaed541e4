//! The two layers and the activation between them that end every block of both towers.

use super::scratch::Floats;
use crate::florence2::kernels::gelu_in_place;
use crate::florence2::kernels::packed::{PackedLinear, RowBuffer};

/// Hidden columns at a time: whole panels and blocks of every format. What a block of rows has of
/// them stays in the second-level cache between the two products.
const STRIP: usize = 1024;

/// Adds `fc2(gelu(fc1(normed)))` to `out (count, fc2.outputs)`, `normed (count, fc1.inputs)`, on this
/// thread.
pub(super) fn feed_forward(
    fc1: &PackedLinear,
    fc2: &PackedLinear,
    normed: &[f32],
    count: usize,
    rows: &mut RowBuffer,
    hidden: &mut Floats,
    out: &mut [f32],
) {
    let (inputs, inner, outputs) = (fc1.inputs(), fc1.outputs(), fc2.outputs());
    let (rows, hidden_rows) = rows.two();
    let rows = rows.convert(fc1.format(), normed, count, inputs, inputs);
    for first in (0..inner).step_by(STRIP) {
        let strip = first..(first + STRIP).min(inner);
        let width = strip.len();
        let hidden = hidden.of(count * width);
        fc1.apply_part(&rows, strip.clone(), 0..inputs, hidden, width, false);
        gelu_in_place(hidden);
        let hidden = hidden_rows.convert(fc2.format(), hidden, count, width, width);
        fc2.apply_part(&hidden, 0..outputs, strip, out, outputs, true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::florence2::kernels::packed::Format;
    use crate::florence2::kernels::test_tensors::{random, relative_error};
    use candle_core::Tensor;

    #[test]
    fn strips_add_up_to_the_two_layers() {
        let close = [
            (Format::F32, 2e-6),
            (Format::Bf16, 1e-2),
            (Format::Int8, 2e-2),
        ];
        for (format, tolerance) in close {
            for (count, dim, inner) in [(1, 3, 5), (7, 40, 1024), (13, 130, 2100)] {
                let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                let (x, out) = (random(&[count, dim], 1), random(&[count, dim], 2));
                let (w1, b1) = (random(&[inner, dim], 3), random(&[inner], 4));
                let (w2, b2) = (random(&[dim, inner], 5), random(&[dim], 6));
                let fc1 = PackedLinear::new(format, &values(&w1), &values(&b1), inner, dim);
                let fc2 = PackedLinear::new(format, &values(&w2), &values(&b2), dim, inner);
                let mut ours = values(&out);
                feed_forward(
                    &fc1,
                    &fc2,
                    &values(&x),
                    count,
                    &mut RowBuffer::default(),
                    &mut Floats::default(),
                    &mut ours,
                );
                let ours = Tensor::from_vec(ours, (count, dim), x.device()).unwrap();
                let linear = |x: &Tensor, w: &Tensor, b: &Tensor| {
                    let y = x.matmul(&w.t().unwrap()).unwrap();
                    y.broadcast_add(b).unwrap()
                };
                let hidden = linear(&x, &w1, &b1).gelu_erf().unwrap();
                let twin = (linear(&hidden, &w2, &b2) + out).unwrap();
                let error = relative_error(&ours, &twin);
                assert!(
                    error < tolerance,
                    "{format:?} {count} {dim} {inner}: {error}"
                );
            }
        }
    }
}
