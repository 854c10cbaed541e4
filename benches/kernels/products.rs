//! Linear layers with packed weights: many rows of a picture, few rows of a decoder step.

use std::hint::black_box;

use candle_core::Tensor;
use divan::Bencher;
use divan::counter::BytesCount;
use florence2_server::florence2::kernels;
use florence2_server::florence2::kernels::packed::{
    Format, InstructionSet, PackedLinear, RowBuffer,
};

use super::{bytes_of_f32, flops, tensor, values};

/// `(rows, outputs, inputs)` of the heaviest layers: fc1 and fc2 of the third stage, qkv of the first,
/// the encoder's joined projection.
const LAYERS: [(usize, usize, usize); 4] = [
    (144, 4096, 1024),
    (144, 1024, 4096),
    (144, 768, 256),
    (148, 3072, 1024),
];

#[divan::bench_group]
mod linear {
    use super::*;

    fn bench(
        bencher: Bencher<'_, '_>,
        format: Format,
        (rows, outputs, inputs): (usize, usize, usize),
    ) {
        let linear = PackedLinear::new(
            format,
            &values(outputs * inputs),
            &values(outputs),
            outputs,
            inputs,
        );
        let (x, mut buffer, mut y) = (
            values(rows * inputs),
            RowBuffer::default(),
            vec![0.0; rows * outputs],
        );
        bencher
            .counter(flops(rows * outputs * inputs))
            .bench_local(|| {
                let rows = buffer.convert(format, black_box(&x), rows, inputs, inputs);
                linear.apply(&rows, &mut y, outputs, false);
            });
    }

    #[divan::bench(args = LAYERS)]
    fn f32(bencher: Bencher<'_, '_>, layer: (usize, usize, usize)) {
        bench(bencher, Format::F32, layer);
    }

    #[divan::bench(args = LAYERS)]
    fn bf16(bencher: Bencher<'_, '_>, layer: (usize, usize, usize)) {
        bench(bencher, Format::Bf16, layer);
    }

    #[divan::bench(args = LAYERS)]
    fn int8(bencher: Bencher<'_, '_>, layer: (usize, usize, usize)) {
        bench(bencher, Format::Int8, layer);
    }

    #[divan::bench(args = LAYERS)]
    fn twin(bencher: Bencher<'_, '_>, (rows, outputs, inputs): (usize, usize, usize)) {
        let (x, weight, bias) = (
            tensor(&[rows, inputs]),
            tensor(&[outputs, inputs]),
            tensor(&[outputs]),
        );
        bencher
            .counter(flops(rows * outputs * inputs))
            .bench_local(|| kernels::linear(black_box(&x), &weight, Some(&bias)));
    }
}

/// The heaviest layer in the code of every instruction set that this machine has.
#[divan::bench_group]
mod instruction_sets {
    use super::*;

    const ROWS: usize = 144;
    const OUTPUTS: usize = 4096;
    const INPUTS: usize = 1024;

    fn bench(bencher: Bencher<'_, '_>, format: Format, set: InstructionSet) {
        let weight = values(OUTPUTS * INPUTS);
        let linear = PackedLinear::for_set(set, format, &weight, &[], OUTPUTS, INPUTS);
        let (x, mut buffer) = (values(ROWS * INPUTS), RowBuffer::default());
        let mut y = vec![0.0; ROWS * OUTPUTS];
        bencher
            .counter(flops(ROWS * OUTPUTS * INPUTS))
            .bench_local(|| {
                let rows = buffer.convert(format, black_box(&x), ROWS, INPUTS, INPUTS);
                linear.apply(&rows, &mut y, OUTPUTS, false);
            });
    }

    #[divan::bench(args = InstructionSet::available())]
    fn f32(bencher: Bencher<'_, '_>, set: InstructionSet) {
        bench(bencher, Format::F32, set);
    }

    #[divan::bench(args = InstructionSet::available())]
    fn bf16(bencher: Bencher<'_, '_>, set: InstructionSet) {
        bench(bencher, Format::Bf16, set);
    }

    #[divan::bench(args = InstructionSet::available())]
    fn int8(bencher: Bencher<'_, '_>, set: InstructionSet) {
        bench(bencher, Format::Int8, set);
    }
}

/// Weights read once for the rows of a decoder step, from memory: 64 layers of 1024 × 1024.
#[divan::bench_group]
mod few_rows {
    use super::*;

    const LAYERS: usize = 64;
    const SIDE: usize = 1024;

    fn bench(bencher: Bencher<'_, '_>, format: Format, rows: usize) {
        let weight = values(SIDE * SIDE);
        let new = || PackedLinear::new(format, &weight, &[], SIDE, SIDE);
        let layers: Vec<PackedLinear> = (0..LAYERS).map(|_| new()).collect();
        let bytes: usize = layers.iter().map(PackedLinear::bytes).sum();
        let (x, mut buffer, mut y) = (
            values(rows * SIDE),
            RowBuffer::default(),
            vec![0.0; rows * SIDE],
        );
        bencher.counter(BytesCount::new(bytes)).bench_local(|| {
            for layer in &layers {
                let rows = buffer.convert(format, black_box(&x), rows, SIDE, SIDE);
                layer.apply(&rows, &mut y, SIDE, false);
            }
        });
    }

    #[divan::bench(args = [1, 3, 5])]
    fn f32(bencher: Bencher<'_, '_>, rows: usize) {
        bench(bencher, Format::F32, rows);
    }

    #[divan::bench(args = [1, 3, 5])]
    fn bf16(bencher: Bencher<'_, '_>, rows: usize) {
        bench(bencher, Format::Bf16, rows);
    }

    #[divan::bench(args = [1, 3, 5])]
    fn int8(bencher: Bencher<'_, '_>, rows: usize) {
        bench(bencher, Format::Int8, rows);
    }

    #[divan::bench(args = [1, 3, 5])]
    fn twin(bencher: Bencher<'_, '_>, rows: usize) {
        let layers: Vec<Tensor> = (0..LAYERS).map(|_| tensor(&[SIDE, SIDE])).collect();
        let x = tensor(&[rows, SIDE]);
        bencher
            .counter(bytes_of_f32(LAYERS * SIDE * SIDE))
            .bench_local(|| {
                for weight in &layers {
                    black_box(kernels::linear(black_box(&x), weight, None)).ok();
                }
            });
    }
}
