//! What is done to every value, of 144 rows of 4096 or 1024.

use std::hint::black_box;

use divan::Bencher;
use florence2_server::florence2::kernels;
use florence2_server::florence2::kernels::packed::{Format, RowBuffer};

use super::{bytes_of_f32, tensor, values};

const ROWS: usize = 144;

#[divan::bench]
fn gelu(bencher: Bencher<'_, '_>) {
    let x = values(ROWS * 4096);
    let mut y = x.clone();
    bencher.counter(bytes_of_f32(2 * x.len())).bench_local(|| {
        y.copy_from_slice(&x);
        kernels::gelu_in_place(black_box(&mut y));
    });
}

#[divan::bench]
fn gelu_twin(bencher: Bencher<'_, '_>) {
    let x = tensor(&[ROWS, 4096]);
    bencher
        .counter(bytes_of_f32(2 * ROWS * 4096))
        .bench_local(|| kernels::gelu(black_box(&x)));
}

#[divan::bench]
fn layer_norm(bencher: Bencher<'_, '_>) {
    let (x, mut y) = (values(ROWS * 1024), vec![0.0; ROWS * 1024]);
    let (weight, bias) = (values(1024), values(1024));
    bencher.counter(bytes_of_f32(2 * x.len())).bench_local(|| {
        kernels::layer_norm_rows(black_box(&x), &weight, &bias, &mut y);
    });
}

#[divan::bench]
fn layer_norm_twin(bencher: Bencher<'_, '_>) {
    let (x, weight, bias) = (tensor(&[ROWS, 1024]), tensor(&[1024]), tensor(&[1024]));
    bencher
        .counter(bytes_of_f32(2 * ROWS * 1024))
        .bench_local(|| kernels::layer_norm(black_box(&x), &weight, &bias, 1e-5));
}

#[divan::bench]
fn softmax(bencher: Bencher<'_, '_>) {
    let (x, mut y) = (values(ROWS * ROWS), vec![0.0; ROWS * ROWS]);
    bencher.counter(bytes_of_f32(2 * x.len())).bench_local(|| {
        y.copy_from_slice(&x);
        kernels::softmax_rows(black_box(&mut y), ROWS, 0.2);
    });
}

#[divan::bench]
fn softmax_twin(bencher: Bencher<'_, '_>) {
    let x = tensor(&[ROWS, ROWS]);
    bencher
        .counter(bytes_of_f32(2 * ROWS * ROWS))
        .bench_local(|| candle_nn::ops::softmax_last_dim(black_box(&x)));
}

#[divan::bench(args = [(Format::Bf16, 1024), (Format::Int8, 1024), (Format::Int8, 128)])]
fn convert_activations(bencher: Bencher<'_, '_>, (format, inputs): (Format, usize)) {
    let (x, mut buffer) = (values(ROWS * 1024), RowBuffer::default());
    let rows = x.len() / inputs;
    bencher.counter(bytes_of_f32(x.len())).bench_local(|| {
        black_box(buffer.convert(format, black_box(&x), rows, inputs, inputs));
    });
}
