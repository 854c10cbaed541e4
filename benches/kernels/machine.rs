//! What no kernel can exceed.

use std::hint::black_box;

use divan::Bencher;
use florence2_server::florence2::kernels::packed::{Format, PackedLinear, RowBuffer};

use super::{bytes_of_f32, flops, values};

/// A product whose operands stay in the first-level cache.
#[divan::bench(args = [Format::F32, Format::Bf16, Format::Int8])]
fn arithmetic(bencher: Bencher<'_, '_>, format: Format) {
    const ROWS: usize = 6;
    const OUTPUTS: usize = 64;
    const TIMES: usize = 1000;
    // 32 KiB of weights in every format.
    let inputs = match format {
        Format::F32 => 128,
        Format::Bf16 => 256,
        Format::Int8 => 512,
    };
    let linear = PackedLinear::new(format, &values(OUTPUTS * inputs), &[], OUTPUTS, inputs);
    let (x, mut buffer) = (values(ROWS * inputs), RowBuffer::default());
    let mut y = vec![0.0; ROWS * OUTPUTS];
    let rows = buffer.convert(format, &x, ROWS, inputs, inputs);
    bencher
        .counter(flops(TIMES * ROWS * inputs * OUTPUTS))
        .bench_local(|| {
            for _ in 0..TIMES {
                linear.apply(black_box(&rows), &mut y, OUTPUTS, false);
            }
        });
}

/// Sums of a quarter of a gigabyte.
#[divan::bench]
fn memory(bencher: Bencher<'_, '_>) {
    const COUNT: usize = 64 << 20;
    let data = vec![1.0f32; COUNT];
    bencher.counter(bytes_of_f32(COUNT)).bench_local(|| {
        let mut sums = [0.0f32; 64];
        for chunk in black_box(&data).chunks_exact(64) {
            for (sum, value) in sums.iter_mut().zip(chunk) {
                *sum += value;
            }
        }
        sums
    });
}
