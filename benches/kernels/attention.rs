//! The two attentions of the vision tower.

use std::hint::black_box;

use divan::Bencher;
use divan::counter::ItemsCount;
use florence2_server::florence2::kernels::packed::{Columns, Left, Size, product};
use florence2_server::florence2::kernels::{self, WindowShape};

use super::{flops, tensor, values};

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
