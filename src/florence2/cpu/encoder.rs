//! BART's encoder on the CPU.
//!
//! A layer is two passes over blocks of rows: keys and values of all rows have to be there before the
//! first row attends to them, and all the rest of a layer is a block's own affair.

use candle_core::Result;
use rayon::prelude::*;

use super::feed_forward::feed_forward;
use super::scratch::{Floats, Scratch, Worker};
use super::{Array, even_blocks, normalise};
use crate::florence2::attention::SelfAttention;
use crate::florence2::bart::{Bart, EncoderLayer};
use crate::florence2::form::Packed;
use crate::florence2::kernels::packed::{Columns, Left, Size, product};
use crate::florence2::kernels::{layer_norm_rows, softmax_rows};

/// Positions that are transposed at a time, and the multiple to which keys are padded: a cache line.
const LINE: usize = 16;

impl Bart<Packed> {
    /// Image tokens `(tokens, d_model)` and prompt ids → `encoder_hidden_states (1, length, d_model)`.
    ///
    /// # Errors
    /// When there is no such id, or there are more rows than positions.
    pub(in crate::florence2) fn encode(
        &self,
        image_features: &[f32],
        input_ids: &[u32],
        scratch: &Scratch,
    ) -> Result<Array> {
        let dim = self.shared.width();
        let image = image_features.len();
        let mut x = vec![0.0; image + input_ids.len() * dim];
        x[..image].copy_from_slice(image_features);
        for (id, x) in input_ids.iter().zip(x[image..].chunks_exact_mut(dim)) {
            self.embed(*id, x)?;
        }
        let length = x.len() / dim;
        if length == 0 {
            candle_core::bail!("there is neither a picture nor a prompt to encode");
        }
        let positions = &self.encoder.positions;
        positions.add(0, &mut x)?;
        let block = even_blocks(length);
        x.par_chunks_mut(block * dim).for_each(|x| {
            scratch.with(|worker| {
                normalise(&positions.norm, x, &mut worker.normed);
            });
        });
        let wide = length.next_multiple_of(LINE);
        let mut map = scratch.map((4 * length + wide) * dim);
        let (qkv, rest) = map.split_at_mut(3 * length * dim);
        let (values, rest) = rest.split_at_mut(length * dim);
        let keys = &mut rest[..wide * dim];
        for layer in &self.encoder.layers {
            layer.self_attn.project(&x, block, qkv, scratch);
            layer.self_attn.gather(qkv, keys, values);
            let heads = Heads { qkv, keys, values };
            x.par_chunks_mut(block * dim)
                .enumerate()
                .for_each(|(index, x)| {
                    scratch.with(|worker| layer.finish(heads, index * block, x, worker));
                });
        }
        scratch.give_back(map);
        Ok(Array {
            values: x,
            shape: vec![1, length, dim],
        })
    }
}

/// What attention reads.
#[derive(Clone, Copy)]
struct Heads<'a> {
    /// `(length, 3·dim)`; of these the queries are read.
    qkv: &'a [f32],
    /// `(heads, width, length)`, the length padded to whole lines.
    keys: &'a [f32],
    /// `(heads, length, width)`.
    values: &'a [f32],
}

impl EncoderLayer<Packed> {
    /// Takes a block of rows from `first` on, `x (rows, dim)`, through the layer.
    fn finish(&self, heads: Heads<'_>, first: usize, x: &mut [f32], worker: &mut Worker) {
        let attention = &self.self_attn;
        let dim = attention.heads * attention.width;
        let count = x.len() / dim;
        let attended = worker.attended.of(x.len());
        attention.over_itself(heads, first, &mut worker.scores, attended);
        let format = attention.out_proj.format();
        let rows = worker.rows.convert(format, attended, count, dim, dim);
        attention.out_proj.apply(&rows, x, dim, true);

        let normed = worker.normed.of(x.len());
        let norm = &self.self_attn_layer_norm;
        layer_norm_rows(x, &norm.weight, &norm.bias, normed);
        x.copy_from_slice(normed);
        let layers = &self.feed_forward;
        feed_forward(
            &layers.fc1,
            &layers.fc2,
            normed,
            count,
            &mut worker.rows,
            &mut worker.hidden,
            x,
        );
        normalise(&layers.final_layer_norm, x, &mut worker.normed);
    }
}

impl SelfAttention<Packed> {
    /// Queries, keys and values of all rows: `x (length, dim)` → `qkv (length, 3·dim)`.
    fn project(&self, x: &[f32], block: usize, qkv: &mut [f32], scratch: &Scratch) {
        let dim = self.qkv_proj.inputs();
        qkv.par_chunks_mut(block * 3 * dim)
            .zip(x.par_chunks(block * dim))
            .for_each(|(qkv, x)| {
                scratch.with(|worker| {
                    let count = x.len() / dim;
                    let format = self.qkv_proj.format();
                    let rows = worker.rows.convert(format, x, count, dim, dim);
                    self.qkv_proj.apply(&rows, qkv, 3 * dim, false);
                });
            });
    }

    /// Brings the keys and values of every head together, the keys' positions innermost.
    fn gather(&self, qkv: &[f32], keys: &mut [f32], values: &mut [f32]) {
        let (width, dim) = (self.width, self.heads * self.width);
        let length = values.len() / dim;
        let wide = keys.len() / dim;
        keys.par_chunks_mut(width * wide)
            .zip(values.par_chunks_mut(length * width))
            .enumerate()
            .for_each(|(head, (keys, values))| {
                let at = head * width;
                for (qkv, value) in qkv.chunks_exact(3 * dim).zip(values.chunks_mut(width)) {
                    value.copy_from_slice(&qkv[2 * dim + at..][..width]);
                }
                // Rows may lie a power of two apart, and so share few cache sets: every line is read
                // once, into a square that is written column by column.
                for (line, qkv) in qkv.chunks(LINE * 3 * dim).enumerate() {
                    for first in (0..width).step_by(LINE) {
                        let channels = LINE.min(width - first);
                        let mut square = [[0.0; LINE]; LINE];
                        for (row, qkv) in square.iter_mut().zip(qkv.chunks_exact(3 * dim)) {
                            row[..channels].copy_from_slice(&qkv[dim + at + first..][..channels]);
                        }
                        for channel in 0..channels {
                            let keys = &mut keys[(first + channel) * wide + line * LINE..];
                            for (key, row) in keys[..LINE].iter_mut().zip(&square) {
                                *key = row[channel];
                            }
                        }
                    }
                }
            });
    }

    /// The rows from `first` on over all positions → `out (rows, dim)`.
    fn over_itself(&self, heads: Heads<'_>, first: usize, scores: &mut Floats, out: &mut [f32]) {
        let (width, dim) = (self.width, self.heads * self.width);
        let rows = out.len() / dim;
        let length = heads.values.len() / dim;
        let wide = heads.keys.len() / dim;
        let scale = (width as f32).powf(-0.5);
        let scores = scores.of(rows * wide);
        for head in 0..self.heads {
            let queries = Left {
                values: &heads.qkv[first * 3 * dim + head * width..],
                row_stride: 3 * dim,
                input_stride: 1,
            };
            let keys = Columns {
                values: &heads.keys[head * width * wide..][..width * wide],
                stride: wide,
            };
            let size = Size {
                rows,
                inputs: width,
                columns: wide,
            };
            product(size, queries, keys, scores, wide, false);
            for row in scores.chunks_exact_mut(wide) {
                softmax_rows(&mut row[..length], length, scale);
            }
            let probabilities = Left {
                values: scores,
                row_stride: wide,
                input_stride: 1,
            };
            let values = Columns {
                values: &heads.values[head * length * width..][..length * width],
                stride: width,
            };
            let size = Size {
                rows,
                inputs: length,
                columns: width,
            };
            product(
                size,
                probabilities,
                values,
                &mut out[head * width..],
                dim,
                false,
            );
        }
    }
}
