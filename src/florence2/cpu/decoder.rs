//! BART's decoder on the CPU.
//!
//! A step's time is that of reading weights: rows are few, outputs are split over the threads, and
//! what stands between the products is small.

use candle_core::Result;

use super::decoder_attention::{Past, States};
use super::normalise;
use super::scratch::{Floats, Scratch, Worker};
use crate::florence2::bart::{Bart, DecoderLayer};
use crate::florence2::form::Packed;
use crate::florence2::kernels::gelu_in_place;
use crate::florence2::kernels::packed::{PackedLinear, RowBuffer};

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
        let parents_fit = if beams == 0 {
            false
        } else if is_first {
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
        attention.qkv_proj.apply_parallel(
            &rows.convert(attention.qkv_proj.format(), x, beams, dim, dim),
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
            &rows.convert(attention.q_proj.format(), x, beams, dim, dim),
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
            &rows.convert(fc1.format(), x, beams, dim, dim),
            hidden,
            inner,
            false,
            gelu_in_place,
        );
        add(fc2, hidden, rows, x);
        normalise(&self.feed_forward.final_layer_norm, x, normed);
    }
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
