//! The vision tower on the CPU: each half of a block is two passes over its map, a depthwise
//! convolution and one with everything else, in which a window or some rows go through norm, products
//! and attention while they lie in the cache.

use candle_core::Result;
use rayon::prelude::*;

use super::scratch::Worker;
use super::{Array, BLOCK_ROWS, Scratch, even_blocks, feed_forward};
use crate::florence2::davit::{Attention, Block, ConvEmbed, DaViT, DepthwiseConv};
use crate::florence2::form::Packed;
use crate::florence2::kernels::packed::buffer::Buffer;
use crate::florence2::kernels::{self, Grid, Picture, Window, WindowShape};

/// Height and width of a map, and its channels.
#[derive(Clone, Copy, Debug)]
struct MapShape {
    height: usize,
    width: usize,
    channels: usize,
}

impl MapShape {
    fn positions(self) -> usize {
        self.height * self.width
    }

    fn len(self) -> usize {
        self.positions() * self.channels
    }
}

/// The maps that a block works on, each as long as the longest map of the tower.
struct Maps {
    /// The residual stream between blocks.
    x: Buffer<f32>,
    /// The residual stream within a block; what is convolved goes to and fro.
    y: Buffer<f32>,
    /// Values of channel attention.
    v: Buffer<f32>,
}

impl DaViT<Packed> {
    /// `pixel_values (3, side, side)` → the last feature map, `(1, rows, columns, channels)`.
    pub(in crate::florence2) fn see(
        &self,
        pixel_values: &[f32],
        side: usize,
        scratch: &Scratch,
    ) -> Result<Array> {
        let channels = pixel_values.len() / (side * side).max(1);
        let picture = MapShape {
            height: side,
            width: side,
            channels,
        };
        let shapes = self.shapes(picture)?;
        let longest = shapes
            .iter()
            .map(|shape| shape.len())
            .fold(picture.len(), usize::max);
        let mut maps = Maps {
            x: scratch.map(longest),
            y: scratch.map(longest),
            v: scratch.map(longest),
        };
        interleave(pixel_values, picture, &mut maps.x);
        let mut shape = picture;
        for (stage, next) in self.stages.iter().zip(&shapes) {
            stage.embed.run(&mut maps, shape, *next, scratch);
            shape = *next;
            for (spatial, channel) in &stage.blocks {
                spatial.run(&mut maps, shape, scratch);
                channel.run(&mut maps, shape, scratch);
            }
        }
        let values = maps.x[..shape.len()].to_vec();
        for map in [maps.x, maps.y, maps.v] {
            scratch.give_back(map);
        }
        Ok(Array {
            values,
            shape: vec![1, shape.height, shape.width, shape.channels],
        })
    }

    /// The map of every stage.
    fn shapes(&self, picture: MapShape) -> Result<Vec<MapShape>> {
        let mut shape = picture;
        let next = |stage: &crate::florence2::davit::Stage<Packed>| {
            let patch = stage.embed.patch;
            let (height, width) = (patch.count(shape.height), patch.count(shape.width));
            if height == 0 || width == 0 {
                candle_core::bail!(
                    "no {0}×{0} patch fits into a {1}×{2} feature map",
                    patch.size,
                    shape.width,
                    shape.height
                );
            }
            shape = MapShape {
                height,
                width,
                channels: stage.embed.proj.outputs(),
            };
            Ok(shape)
        };
        self.stages.iter().map(next).collect()
    }
}

/// Channel-major to channels innermost.
fn interleave(planes: &[f32], shape: MapShape, map: &mut [f32]) {
    let MapShape {
        width, channels, ..
    } = shape;
    map[..shape.len()]
        .par_chunks_mut(width * channels)
        .enumerate()
        .for_each(|(line, out)| {
            for (channel, plane) in planes.chunks_exact(shape.positions()).enumerate() {
                let plane = &plane[line * width..][..width];
                for (column, value) in plane.iter().enumerate() {
                    out[column * channels + channel] = *value;
                }
            }
        });
}

impl ConvEmbed<Packed> {
    /// From `x` to the next stage's `x`, by way of `y`.
    fn run(&self, maps: &mut Maps, from: MapShape, to: MapShape, scratch: &Scratch) {
        let Maps { x, y, .. } = maps;
        if self.is_prenorm {
            let task = BLOCK_ROWS * from.channels;
            y[..from.len()]
                .par_chunks_mut(task)
                .zip(x[..from.len()].par_chunks(task))
                .for_each(|(y, x)| {
                    kernels::layer_norm_rows(x, &self.norm.weight, &self.norm.bias, y)
                });
        } else {
            std::mem::swap(x, y);
        }
        let picture = Picture {
            values: &y[..from.len()],
            height: from.height,
            width: from.width,
            channels: from.channels,
        };
        let inputs = self.proj.inputs();
        let rows = even_blocks(to.positions());
        x[..to.len()]
            .par_chunks_mut(rows * to.channels)
            .enumerate()
            .for_each(|(block, out)| {
                scratch.with(|worker| {
                    let count = out.len() / to.channels;
                    let first = block * rows;
                    let patches = worker.joined.of(count * inputs);
                    self.patch.gather(picture, first..first + count, patches);
                    let rows =
                        worker
                            .rows
                            .convert(self.proj.format(), patches, count, inputs, inputs);
                    if self.is_prenorm {
                        self.proj.apply(&rows, out, to.channels, false);
                    } else {
                        let projected = worker.normed.of(count * to.channels);
                        self.proj.apply(&rows, projected, to.channels, false);
                        kernels::layer_norm_rows(
                            projected,
                            &self.norm.weight,
                            &self.norm.bias,
                            out,
                        );
                    }
                });
            });
    }
}

impl DepthwiseConv<Packed> {
    fn run(&self, from: &[f32], shape: MapShape, to: &mut [f32]) {
        kernels::depthwise_conv_residual_rows(
            &from[..shape.len()],
            &self.weight,
            &self.bias,
            shape.width,
            &mut to[..shape.len()],
        );
    }
}

impl Block<Packed> {
    /// From `x` to `x`.
    fn run(&self, maps: &mut Maps, shape: MapShape, scratch: &Scratch) {
        self.conv1.run(&maps.x, shape, &mut maps.y);
        match self.attention {
            Attention::Window { heads, window } => {
                let grid = Grid {
                    height: shape.height,
                    width: shape.width,
                    channels: shape.channels,
                    window,
                };
                kernels::for_each_window(&mut maps.y[..shape.len()], grid, |part| {
                    scratch.with(|worker| self.attend_in(part, heads, window, worker));
                });
            }
            Attention::Channel { groups } => self.attend_across(maps, shape, groups, scratch),
        }
        self.conv2.run(&maps.y, shape, &mut maps.x);
        let rows = even_blocks(shape.positions());
        maps.x[..shape.len()]
            .par_chunks_mut(rows * shape.channels)
            .for_each(|x| {
                scratch.with(|worker| {
                    let normed = worker.normed.of(x.len());
                    kernels::layer_norm_rows(x, &self.norm2.weight, &self.norm2.bias, normed);
                    let count = x.len() / shape.channels;
                    let (rows, hidden) = (&mut worker.rows, &mut worker.joined);
                    feed_forward(&self.mlp.fc1, &self.mlp.fc2, normed, count, rows, hidden, x);
                });
            });
    }

    /// Norm, attention and projection of one window, added to it.
    fn attend_in(&self, mut part: Window<'_>, heads: usize, window: usize, worker: &mut Worker) {
        let channels = self.proj.inputs();
        let tokens = window * window;
        let normed = worker.normed.of(tokens * channels);
        // What the window has beyond the map are zeros *after* the norm: keys and values of the bias.
        let (real, beyond) = normed.split_at_mut(part.lines() * window * channels);
        beyond.fill(0.0);
        for (index, out) in real.chunks_exact_mut(window * channels).enumerate() {
            let line = part.line(index);
            let (out, beyond) = out.split_at_mut(line.len());
            kernels::layer_norm_rows(line, &self.norm1.weight, &self.norm1.bias, out);
            beyond.fill(0.0);
        }
        let rows = worker
            .rows
            .convert(self.qkv.format(), normed, tokens, channels, channels);
        let qkv = worker.joined.of(tokens * 3 * channels);
        self.qkv.apply(&rows, qkv, 3 * channels, false);
        let attended = worker.attended.of(tokens * channels);
        let shape = WindowShape {
            tokens,
            channels,
            heads,
        };
        kernels::attend_window(
            shape,
            qkv,
            worker.scores.of(tokens * tokens),
            worker.transposed.of(tokens * channels / heads),
            attended,
        );
        let rows = worker
            .rows
            .convert(self.proj.format(), attended, tokens, channels, channels);
        let projected = worker.normed.of(tokens * channels);
        self.proj.apply(&rows, projected, channels, false);
        for (index, projected) in projected
            .chunks_exact(window * channels)
            .enumerate()
            .take(part.lines())
        {
            let line = part.line(index);
            line.iter_mut()
                .zip(projected)
                .for_each(|(line, value)| *line += value);
        }
    }

    /// Norm, channel attention and projection, added to `y`. The attention sums over all positions, so
    /// that it takes two passes; queries and keys never leave the first.
    fn attend_across(&self, maps: &mut Maps, shape: MapShape, groups: usize, scratch: &Scratch) {
        let MapShape { channels, .. } = shape;
        let (y, v) = (&mut maps.y[..shape.len()], &mut maps.v[..shape.len()]);
        let width = channels / groups;
        let block = BLOCK_ROWS * channels;
        // One table of sums for every block: which thread did which is of no consequence.
        let table = groups * width * width;
        let mut sums = vec![0.0; y.len().div_ceil(block) * table];
        y.par_chunks(block)
            .zip(v.par_chunks_mut(block))
            .zip(sums.par_chunks_mut(table))
            .for_each(|((y, v), sums)| {
                scratch.with(|worker| {
                    let count = y.len() / channels;
                    let normed = worker.normed.of(y.len());
                    kernels::layer_norm_rows(y, &self.norm1.weight, &self.norm1.bias, normed);
                    let rows =
                        worker
                            .rows
                            .convert(self.qkv.format(), normed, count, channels, channels);
                    let qkv = worker.joined.of(3 * y.len());
                    self.qkv.apply(&rows, qkv, 3 * channels, false);
                    kernels::add_channel_scores(qkv, count, channels, groups, sums);
                    for (v, qkv) in v
                        .chunks_exact_mut(channels)
                        .zip(qkv.chunks_exact(3 * channels))
                    {
                        v.copy_from_slice(&qkv[2 * channels..]);
                    }
                });
            });
        let scale = (shape.positions() as f32).powf(-0.5);
        let transposed = attention_of(&sums, table, width, scale);
        y.par_chunks_mut(block)
            .zip(v.par_chunks(block))
            .for_each(|(y, v)| {
                scratch.with(|worker| {
                    let attended = worker.attended.of(v.len());
                    kernels::apply_channel_attention(v, channels, groups, &transposed, attended);
                    let count = v.len() / channels;
                    let rows = worker.rows.convert(
                        self.proj.format(),
                        attended,
                        count,
                        channels,
                        channels,
                    );
                    self.proj.apply(&rows, y, channels, true);
                });
            });
    }
}

/// Adds up the blocks' tables of scores `(groups, width, width)`, takes the softmax of every row, and
/// transposes every group.
fn attention_of(sums: &[f32], table: usize, width: usize, scale: f32) -> Vec<f32> {
    let group = width * width;
    let mut transposed = vec![0.0; table];
    transposed
        .par_chunks_mut(group)
        .enumerate()
        .for_each(|(index, out)| {
            let mut scores = vec![0.0; group];
            for block in sums.chunks_exact(table) {
                let block = &block[index * group..][..group];
                scores
                    .iter_mut()
                    .zip(block)
                    .for_each(|(score, sum)| *score += sum);
            }
            kernels::softmax_rows(&mut scores, width, scale);
            for (at, score) in scores.iter().enumerate() {
                out[at % width * width + at / width] = *score;
            }
        });
    transposed
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use candle_core::{DType, Device, Tensor};

    use super::*;
    use crate::florence2::config::Florence2Config;
    use crate::florence2::form::{Form, Packing, Placement, Tensors};
    use crate::florence2::kernels::packed::Format;
    use crate::florence2::kernels::test_tensors::{random, relative_error};
    use crate::florence2::weights::{RandomWeights, Weights};

    /// Not a multiple of the window at any stage.
    const SIDE: usize = 88;

    fn tower<F: Form>(target: &F::Target) -> DaViT<F> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/parity/02-native-f16");
        let config = Florence2Config::load(&folder).unwrap();
        let weights = Weights::random(RandomWeights::new(&config, SIDE, 5));
        DaViT::load(&weights.at("model.vision_tower", target), &config.vision).unwrap()
    }

    fn seen(format: Format, threads: usize) -> Tensor {
        let pixels: Vec<f32> = random(&[3 * SIDE * SIDE], 9).to_vec1().unwrap();
        let tower = tower::<Packed>(&Packing::new(format));
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        let seen = pool.install(|| tower.see(&pixels, SIDE, &Scratch::default()));
        seen.unwrap().into_tensor().unwrap()
    }

    #[test]
    fn the_tower_agrees_with_its_composed_twin_in_every_format() {
        let target = Placement {
            device: Device::Cpu,
            dtype: DType::F32,
        };
        let pixels = random(&[1, 3, SIDE, SIDE], 9);
        let twin = tower::<Tensors>(&target).forward(&pixels).unwrap();
        for (format, tolerance) in [
            (Format::F32, 2e-5),
            (Format::Bf16, 3e-2),
            (Format::Int8, 1e-1),
        ] {
            let error = relative_error(&seen(format, 2), &twin);
            assert!(error < tolerance, "{format:?}: {error}");
        }
    }

    #[test]
    fn the_number_of_threads_changes_nothing() {
        for format in [Format::F32, Format::Int8] {
            assert_eq!(
                relative_error(&seen(format, 1), &seen(format, 3)),
                0.0,
                "{format:?}"
            );
        }
    }
}
