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

use std::hint::black_box;

use candle_core::{Device, Tensor};
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use florence2_server::florence2::kernels::packed::{
    Columns, Format, InstructionSet, Left, PackedLinear, RowBuffer, Size, product,
};
use florence2_server::florence2::kernels::{self, PatchShape, Picture, WindowShape};

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

/// What no kernel can exceed.
#[divan::bench_group]
mod machine {
    use super::*;

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
}

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

/// Heads of a window; the window has 144 positions, a head 32 channels.
#[divan::bench_group]
mod window_attention {
    use super::*;

    const TOKENS: usize = 144;
    const WIDTH: usize = 32;

    fn work(heads: usize) -> ItemsCount {
        flops(2 * heads * TOKENS * TOKENS * WIDTH)
    }

    #[divan::bench(args = [8, 32])]
    fn ours(bencher: Bencher<'_, '_>, heads: usize) {
        let channels = heads * WIDTH;
        let (qkv, mut out) = (values(TOKENS * 3 * channels), vec![0.0; TOKENS * channels]);
        let (mut scores, mut keys) = (vec![0.0; TOKENS * TOKENS], vec![0.0; TOKENS * WIDTH]);
        let shape = WindowShape {
            tokens: TOKENS,
            channels,
            heads,
        };
        bencher.counter(work(heads)).bench_local(|| {
            kernels::attend_window(shape, black_box(&qkv), &mut scores, &mut keys, &mut out);
        });
    }

    #[divan::bench(args = [8, 32])]
    fn twin(bencher: Bencher<'_, '_>, heads: usize) {
        let qkv = tensor(&[1, 12, 12, 3 * heads * WIDTH]);
        let bias = tensor(&[3 * heads * WIDTH]);
        bencher
            .counter(work(heads))
            .bench_local(|| kernels::window_attention(black_box(&qkv), &bias, heads, 12));
    }
}

/// Both passes over 144 positions, as many groups of 32 channels.
#[divan::bench_group]
mod channel_attention {
    use super::*;

    const POSITIONS: usize = 144;
    const WIDTH: usize = 32;

    fn work(groups: usize) -> ItemsCount {
        flops(2 * groups * POSITIONS * WIDTH * WIDTH)
    }

    #[divan::bench(args = [8, 32])]
    fn ours(bencher: Bencher<'_, '_>, groups: usize) {
        let channels = groups * WIDTH;
        let (qkv, v) = (
            values(POSITIONS * 3 * channels),
            values(POSITIONS * channels),
        );
        let (mut scores, mut out) = (
            vec![0.0; groups * WIDTH * WIDTH],
            vec![0.0; POSITIONS * channels],
        );
        bencher.counter(work(groups)).bench_local(|| {
            kernels::add_channel_scores(black_box(&qkv), POSITIONS, channels, groups, &mut scores);
            kernels::apply_channel_attention(&v, channels, groups, &scores, &mut out);
        });
    }

    #[divan::bench(args = [8, 32])]
    fn twin(bencher: Bencher<'_, '_>, groups: usize) {
        let qkv = tensor(&[1, POSITIONS, 3 * groups * WIDTH]);
        bencher
            .counter(work(groups))
            .bench_local(|| kernels::channel_attention(black_box(&qkv), groups));
    }

    /// The strided product that both attentions are made of.
    #[divan::bench]
    fn strided_product(bencher: Bencher<'_, '_>) {
        let (a, b, mut out) = (values(144 * 32), values(32 * 144), vec![0.0; 144 * 144]);
        let size = Size {
            rows: 144,
            inputs: 32,
            columns: 144,
        };
        bencher.counter(flops(144 * 32 * 144)).bench_local(|| {
            let left = Left {
                values: black_box(&a),
                row_stride: 32,
                input_stride: 1,
            };
            product(
                size,
                left,
                Columns {
                    values: &b,
                    stride: 144,
                },
                &mut out,
                144,
                false,
            );
        });
    }
}

/// Side and channels of the maps of the four stages; bytes read and written.
const MAPS: [(usize, usize); 4] = [(192, 256), (96, 512), (48, 1024), (24, 2048)];

#[divan::bench_group]
mod depthwise_conv {
    use super::*;

    #[divan::bench(args = MAPS)]
    fn ours(bencher: Bencher<'_, '_>, (side, channels): (usize, usize)) {
        let (x, mut y) = (
            values(side * side * channels),
            vec![0.0; side * side * channels],
        );
        let (weight, bias) = (values(9 * channels), values(channels));
        bencher.counter(bytes_of_f32(2 * x.len())).bench_local(|| {
            kernels::depthwise_conv_residual_rows(black_box(&x), &weight, &bias, side, &mut y);
        });
    }

    #[divan::bench(args = MAPS)]
    fn twin(bencher: Bencher<'_, '_>, (side, channels): (usize, usize)) {
        let x = tensor(&[1, side, side, channels]);
        let (weight, bias) = (tensor(&[9, channels]), tensor(&[channels]));
        bencher
            .counter(bytes_of_f32(2 * side * side * channels))
            .bench_local(|| kernels::depthwise_conv_residual(black_box(&x), &weight, &bias));
    }
}

#[divan::bench_group]
mod patches {
    use super::*;

    const SHAPE: PatchShape = PatchShape {
        size: 3,
        stride: 2,
        padding: 1,
    };
    const SIDE: usize = 96;
    const CHANNELS: usize = 512;
    const PATCHES: usize = SIDE * SIDE / 4;

    #[divan::bench]
    fn ours(bencher: Bencher<'_, '_>) {
        let (x, mut out) = (
            values(SIDE * SIDE * CHANNELS),
            vec![0.0; PATCHES * 9 * CHANNELS],
        );
        bencher
            .counter(bytes_of_f32(2 * out.len()))
            .bench_local(|| {
                let picture = Picture {
                    values: black_box(&x),
                    height: SIDE,
                    width: SIDE,
                    channels: CHANNELS,
                };
                SHAPE.gather(picture, 0..PATCHES, &mut out);
            });
    }

    #[divan::bench]
    fn twin(bencher: Bencher<'_, '_>) {
        let x = tensor(&[1, SIDE, SIDE, CHANNELS]);
        bencher
            .counter(bytes_of_f32(2 * PATCHES * 9 * CHANNELS))
            .bench_local(|| kernels::patches(black_box(&x), SHAPE));
    }
}

/// What is done to every value, of 144 rows of 4096 or 1024.
#[divan::bench_group]
mod elementwise {
    use super::*;

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

    #[divan::bench(args = [Format::Bf16, Format::Int8])]
    fn convert_activations(bencher: Bencher<'_, '_>, format: Format) {
        let (x, mut buffer) = (values(ROWS * 1024), RowBuffer::default());
        bencher.counter(bytes_of_f32(x.len())).bench_local(|| {
            black_box(buffer.convert(format, black_box(&x), ROWS, 1024, 1024));
        });
    }
}
