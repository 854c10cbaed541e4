//! What is done to the neighbours in a map.

use std::hint::black_box;

use divan::Bencher;
use florence2_server::florence2::kernels::{self, PatchShape, Picture};

use super::{bytes_of_f32, tensor, values};

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
