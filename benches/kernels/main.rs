//! Every kernel of the CPU at the shapes of Florence-2-large, beside its twin of composed tensor
//! operations and beside what the machine can do at most. One thread.
//!
//! ```text
//! cargo bench --bench kernels [FILTER]
//! ```
//!
//! Products and attention count floating-point operations (`Gitem/s` are GFLOP/s), everything else
//! and reading weights count bytes. The group `machine` has the rooflines.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench stops where it cannot go on, and says what it runs on"
)]

mod attention;
mod elementwise;
mod machine;
mod maps;
mod products;

use candle_core::{Device, Tensor};
use divan::counter::{BytesCount, ItemsCount};
use florence2_server::florence2::kernels::packed::InstructionSet;

fn main() {
    println!("instructions: {}", InstructionSet::detect().name());
    // Kernels that split their work among threads stay on one too.
    let _ = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build_global();
    divan::main();
}

/// Reproducible values in −1…1.
fn values(count: usize) -> Vec<f32> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

fn tensor(shape: &[usize]) -> Tensor {
    let data = values(shape.iter().product());
    Tensor::from_vec(data, shape, &Device::Cpu).expect("the values have the shape")
}

fn flops(multiply_adds: usize) -> ItemsCount {
    ItemsCount::new(2 * multiply_adds)
}

fn bytes_of_f32(count: usize) -> BytesCount {
    BytesCount::new(4 * count)
}
