//! The decoder's two attentions on the CPU: the newest token of every beam over its own past, and
//! over the encoder's states.
//!
//! Heads are split over the threads, and all beams of a head go together. A past is never put in
//! another order: see [`attend_past`].

use rayon::prelude::*;

use super::even_blocks;
use super::scratch::{Scratch, Worker};
use crate::florence2::attention::{CrossAttention, SelfAttention};
use crate::florence2::form::Packed;
use crate::florence2::kernels::packed::{Format, PackedMatrix, Strided};
use crate::florence2::kernels::{Queries, attend_past, softmax_rows};

/// Entries for which there is room before a past has to grow.
const FIRST_ENTRIES: usize = 256;
/// Scores of all heads below which splitting self-attention costs more than it saves.
const SCORES_WORTH_SPLITTING: usize = 1024;

/// Keys and values of the tokens so far in one head, each `(entries, width)`.
#[derive(Debug, Default)]
pub(super) struct Past {
    keys: Vec<f32>,
    values: Vec<f32>,
}

/// Keys and values of the encoder's states in one head, which all beams read.
#[derive(Debug)]
pub(super) struct States {
    /// `(length, width)`.
    keys: PackedMatrix,
    /// `(width, length)`.
    values: PackedMatrix,
}

impl SelfAttention<Packed> {
    /// Every beam's newest token over its own entries, which it joins: `qkv (beams, 3·dim)` → `out
    /// (heads, beams, width)`.
    pub(super) fn over_past(
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
                past.append(part(1), part(2));
            }
            let queries = Queries {
                values: &qkv[head * width..],
                stride: 3 * dim,
                width,
            };
            attend_past(
                queries,
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
    fn append(&mut self, key: &[f32], value: &[f32]) {
        if self.keys.is_empty() {
            self.keys.reserve(FIRST_ENTRIES * key.len());
            self.values.reserve(FIRST_ENTRIES * value.len());
        }
        self.keys.extend_from_slice(key);
        self.values.extend_from_slice(value);
    }
}

impl CrossAttention<Packed> {
    /// Keys and values of `states (length, dim)`, one a head.
    pub(super) fn keys_and_values(&self, states: &[f32], scratch: &Scratch) -> Vec<States> {
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
        // Every step reads them all. Half of f32's bytes are enough beside shorter weights; integers
        // would save little more and round the probabilities.
        let format = match format {
            Format::F32 => Format::F32,
            Format::Bf16 | Format::Int8 => Format::Bf16,
        };
        let of_head = |head: usize| {
            let keys = Strided {
                values: joined.get(head * width..).unwrap_or_default(),
                output_stride: 2 * dim,
                input_stride: 1,
            };
            let values = Strided {
                values: joined.get(dim + head * width..).unwrap_or_default(),
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
    pub(super) fn over_states(
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
                if length == 0 {
                    out.fill(0.0);
                    return;
                }
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
