//! BART's decoder on the CPU.
//!
//! A step's time is that of reading weights: rows are few, outputs are split over the threads, and
//! what stands between the products is small. Keys and values of the tokens so far are never moved:
//! see [`kernels::attend_past`](crate::florence2::kernels::attend_past).

use candle_core::Result;
use rayon::prelude::*;

use super::even_blocks;
use super::scratch::{Floats, Scratch, Worker};
use crate::florence2::attention::{CrossAttention, SelfAttention};
use crate::florence2::bart::{Bart, DecoderLayer};
use crate::florence2::form::Packed;
use crate::florence2::kernels::packed::{Format, PackedLinear, PackedMatrix, RowBuffer, Strided};
use crate::florence2::kernels::{attend_past, gelu_in_place, layer_norm_rows, softmax_rows};
use crate::florence2::layers::LayerNorm;

/// Tokens for which there is room before the past has to grow.
const FIRST_TOKENS: usize = 64;
/// Scores of all heads below which splitting self-attention costs more than it saves.
const SCORES_WORTH_SPLITTING: usize = 1024;

/// What the decoder remembers between steps.
#[derive(Debug)]
pub(in crate::florence2) struct CpuCache {
    layers: Vec<LayerCache>,
    /// Tokens of all beams so far: entries of every head's past.
    entries: u32,
    /// The entries of every beam, the first token's first.
    beams: Vec<Vec<u32>>,
    /// Room for the beams of the next step.
    next_beams: Vec<Vec<u32>>,
}

#[derive(Debug)]
struct LayerCache {
    /// One a head.
    own: Vec<Past>,
    /// One a head.
    states: Vec<States>,
}

/// Keys and values of the tokens so far in one head, each `(entries, width)`.
#[derive(Debug, Default)]
struct Past {
    keys: Vec<f32>,
    values: Vec<f32>,
}

/// Keys and values of the encoder's states in one head, which all beams read.
#[derive(Debug)]
struct States {
    /// `(length, width)`.
    keys: PackedMatrix,
    /// `(width, length)`.
    values: PackedMatrix,
}

impl Bart<Packed> {
    /// The cache before the first token, from `states (length, d_model)`.
    pub(in crate::florence2) fn start(&self, states: &[f32], scratch: &Scratch) -> CpuCache {
        let layers = self.decoder.layers.iter().map(|layer| {
            let heads = layer.self_attn.heads;
            LayerCache {
                own: (0..heads).map(|_| Past::default()).collect(),
                states: layer.encoder_attn.keys_and_values(states, scratch),
            }
        });
        CpuCache {
            layers: layers.collect(),
            entries: 0,
            beams: Vec::new(),
            next_beams: Vec::new(),
        }
    }

    /// One step: the newest token of every beam, each of which continues beam `parents[i]` of the step
    /// before, → `logits (beams, vocab)`.
    ///
    /// # Errors
    /// When there is no such token, beam or position.
    pub(in crate::florence2) fn step(
        &self,
        tokens: &[u32],
        parents: &[u32],
        cache: &mut CpuCache,
        scratch: &Scratch,
    ) -> Result<Vec<f32>> {
        let (dim, beams) = (self.shared.width(), tokens.len());
        cache.advance(beams, parents)?;
        scratch.with(|worker| {
            let x = worker.stream.of(beams * dim);
            for (token, x) in tokens.iter().zip(x.chunks_exact_mut(dim)) {
                self.embed(*token, x)?;
                let position = cache.position();
                self.decoder.positions.add(position, x)?;
            }
            normalise(&self.decoder.positions.norm, x, &mut worker.normed);
            for (layer, cache_of_layer) in self.decoder.layers.iter().zip(&mut cache.layers) {
                layer.step(beams, &cache.beams, cache_of_layer, worker, scratch);
            }
            let x = worker.stream.of(beams * dim);
            let x = worker
                .rows
                .convert(self.lm_head.format(), x, beams, dim, dim);
            let vocab = self.lm_head.outputs();
            let mut logits = vec![0.0; beams * vocab];
            self.lm_head.apply_parallel(&x, &mut logits, vocab, false);
            Ok(logits)
        })
    }
}

impl CpuCache {
    /// Tokens of every beam before the newest.
    fn position(&self) -> usize {
        self.beams.first().map_or(0, |beam| beam.len() - 1)
    }

    /// Gives every beam the entries of its parent and one of its own.
    fn advance(&mut self, beams: usize, parents: &[u32]) -> Result<()> {
        let is_first = self.beams.is_empty();
        let parents_fit = if is_first {
            parents.is_empty()
        } else {
            let exists = |parent: &u32| (*parent as usize) < self.beams.len();
            parents.len() == beams && parents.iter().all(exists)
        };
        if !parents_fit {
            candle_core::bail!(
                "parents {parents:?} do not fit {beams} beams after {}",
                self.beams.len()
            );
        }
        self.next_beams.resize_with(beams, Vec::new);
        for (index, beam) in self.next_beams.iter_mut().enumerate() {
            beam.clear();
            if let Some(parent) = parents.get(index) {
                beam.extend_from_slice(&self.beams[*parent as usize]);
            }
            beam.push(self.entries + index as u32);
        }
        self.entries += beams as u32;
        std::mem::swap(&mut self.beams, &mut self.next_beams);
        Ok(())
    }
}

impl DecoderLayer<Packed> {
    /// Takes `worker.stream (beams, d_model)` through the layer.
    fn step(
        &self,
        beams: usize,
        entries: &[Vec<u32>],
        cache: &mut LayerCache,
        worker: &mut Worker,
        scratch: &Scratch,
    ) {
        let Worker {
            rows,
            normed,
            joined,
            attended,
            transposed,
            stream,
            hidden,
            ..
        } = worker;
        let (fc1, fc2) = (&self.feed_forward.fc1, &self.feed_forward.fc2);
        let (dim, inner) = (fc1.inputs(), fc1.outputs());
        let x = stream.of(beams * dim);
        let attended = attended.of(beams * dim);

        let attention = &self.self_attn;
        let qkv = joined.of(beams * 3 * dim);
        let format = attention.qkv_proj.format();
        attention.qkv_proj.apply_parallel(
            &rows.convert(format, x, beams, dim, dim),
            qkv,
            3 * dim,
            false,
        );
        attention.over_past(qkv, entries, &mut cache.own, attended, scratch);
        let heads = side_by_side(attended, attention.width, beams, transposed);
        add(&attention.out_proj, heads, rows, x);
        normalise(&self.self_attn_layer_norm, x, normed);

        let attention = &self.encoder_attn;
        let queries = joined.of(beams * dim);
        attention.q_proj.apply_parallel(
            &rows.convert(format, x, beams, dim, dim),
            queries,
            dim,
            false,
        );
        attention.over_states(queries, &mut cache.states, attended, scratch);
        let heads = side_by_side(attended, attention.width, beams, transposed);
        add(&attention.out_proj, heads, rows, x);
        normalise(&self.encoder_attn_layer_norm, x, normed);

        let hidden = hidden.of(beams * inner);
        fc1.apply_parallel_then(
            &rows.convert(format, x, beams, dim, dim),
            hidden,
            inner,
            false,
            gelu_in_place,
        );
        add(fc2, hidden, rows, x);
        normalise(&self.feed_forward.final_layer_norm, x, normed);
    }
}

impl SelfAttention<Packed> {
    /// Every beam's newest token over its own entries, which it joins: `qkv (beams, 3·dim)` → `out
    /// (heads, beams, width)`.
    fn over_past(
        &self,
        qkv: &[f32],
        entries: &[Vec<u32>],
        past: &mut [Past],
        out: &mut [f32],
        scratch: &Scratch,
    ) {
        let (width, dim) = (self.width, self.heads * self.width);
        let tokens = entries.iter().map(Vec::len).sum::<usize>();
        let is_worth_it = self.heads * tokens >= SCORES_WORTH_SPLITTING;
        let threads = if is_worth_it {
            rayon::current_num_threads()
        } else {
            1
        };
        each_head(threads, past, out, scratch, |head, past, out, worker| {
            for qkv in qkv.chunks_exact(3 * dim) {
                let part = |i: usize| &qkv[i * dim + head * width..][..width];
                past.append(part(1), part(2), entries.len());
            }
            attend_past(
                &qkv[head * width..],
                3 * dim,
                width,
                &past.keys,
                &past.values,
                entries,
                worker.scores.of(tokens),
                out,
            );
        });
    }
}

impl Past {
    fn append(&mut self, key: &[f32], value: &[f32], beams: usize) {
        if self.keys.is_empty() {
            let room = FIRST_TOKENS * beams * key.len();
            self.keys.reserve(room);
            self.values.reserve(room);
        }
        self.keys.extend_from_slice(key);
        self.values.extend_from_slice(value);
    }
}

impl CrossAttention<Packed> {
    /// Keys and values of `states (length, dim)`, one a head.
    fn keys_and_values(&self, states: &[f32], scratch: &Scratch) -> Vec<States> {
        let (width, dim) = (self.width, self.kv_proj.inputs());
        let length = states.len() / dim;
        let format = self.kv_proj.format();
        let mut map = scratch.map(length * 2 * dim);
        let joined = &mut map[..length * 2 * dim];
        let block = even_blocks(length);
        joined
            .par_chunks_mut(block * 2 * dim)
            .zip(states.par_chunks(block * dim))
            .for_each(|(joined, states)| {
                scratch.with(|worker| {
                    let count = states.len() / dim;
                    let rows = worker.rows.convert(format, states, count, dim, dim);
                    self.kv_proj.apply(&rows, joined, 2 * dim, false);
                });
            });
        // Integers would need a scale for every position's probabilities; half of f32's bytes is
        // where the gain is.
        let format = match format {
            Format::F32 => Format::F32,
            Format::Bf16 | Format::Int8 => Format::Bf16,
        };
        let of_head = |head: usize| {
            let keys = Strided {
                values: &joined[head * width..],
                output_stride: 2 * dim,
                input_stride: 1,
            };
            let values = Strided {
                values: &joined[dim + head * width..],
                output_stride: 1,
                input_stride: 2 * dim,
            };
            States {
                keys: PackedMatrix::pack(format, length, width, keys),
                values: PackedMatrix::pack(format, width, length, values),
            }
        };
        let states = (0..self.heads).into_par_iter().map(of_head).collect();
        scratch.give_back(map);
        states
    }

    /// Every beam's newest token over the encoder's states: `queries (beams, dim)` → `out (heads,
    /// beams, width)`.
    fn over_states(
        &self,
        queries: &[f32],
        states: &mut [States],
        out: &mut [f32],
        scratch: &Scratch,
    ) {
        let (width, dim) = (self.width, self.heads * self.width);
        let beams = queries.len() / dim;
        let scale = (width as f32).powf(-0.5);
        let threads = rayon::current_num_threads();
        each_head(
            threads,
            states,
            out,
            scratch,
            |head, states, out, worker| {
                let length = states.keys.outputs();
                let format = states.keys.format();
                let scores = worker.scores.of(beams * length);
                let query = &queries[head * width..];
                let query = worker.rows.convert(format, query, beams, width, dim);
                states.keys.apply(&query, scores, length);
                softmax_rows(scores, length, scale);
                let scores = worker.rows.convert(format, scores, beams, length, length);
                states.values.apply(&scores, out, width);
            },
        );
    }
}

/// Calls `work` for every head, on so many threads, with what is kept of it and its part of `out`.
fn each_head<T: Send>(
    threads: usize,
    kept: &mut [T],
    out: &mut [f32],
    scratch: &Scratch,
    work: impl Fn(usize, &mut T, &mut [f32], &mut Worker) + Sync,
) {
    let heads = kept.len();
    let some = heads.div_ceil(threads);
    let len = out.len() / heads;
    kept.par_chunks_mut(some)
        .zip(out.par_chunks_mut(some * len))
        .enumerate()
        .with_max_len(1)
        .for_each(|(part, (kept, out))| {
            scratch.with(|worker| {
                for (index, (kept, out)) in kept.iter_mut().zip(out.chunks_mut(len)).enumerate() {
                    work(part * some + index, kept, out, worker);
                }
            });
        });
}

/// `(heads, beams, width)` → `(beams, heads · width)`.
fn side_by_side<'a>(
    heads: &[f32],
    width: usize,
    beams: usize,
    room: &'a mut Floats,
) -> &'a mut [f32] {
    let dim = heads.len() / beams;
    let joined = room.of(heads.len());
    for (index, channels) in heads.chunks_exact(width).enumerate() {
        let (head, beam) = (index / beams, index % beams);
        joined[beam * dim + head * width..][..width].copy_from_slice(channels);
    }
    joined
}

/// `x += linear(y)`, for the few rows of a step.
fn add(linear: &PackedLinear, y: &[f32], rows: &mut RowBuffer, x: &mut [f32]) {
    let (inputs, outputs) = (linear.inputs(), linear.outputs());
    let rows = rows.convert(linear.format(), y, x.len() / outputs, inputs, inputs);
    linear.apply_parallel(&rows, x, outputs, true);
}

/// `x = LN(x)`.
fn normalise(norm: &LayerNorm<Packed>, x: &mut [f32], room: &mut Floats) {
    let normed = room.of(x.len());
    layer_norm_rows(x, &norm.weight, &norm.bias, normed);
    x.copy_from_slice(normed);
}
