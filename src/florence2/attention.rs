//! Multi-head attention as BART has it, in the three forms in which it is used: every position over
//! all positions (encoder), the newest token over its own past, and over the encoder's states.
//!
//! Reads `{q,k,v,out}_proj.{weight,bias}`. Holds no state: a cache is handed in and handed back.

use candle_core::{Result, Tensor};

use super::form::{Form, Tensors};
use super::layers;
use super::weights::{Loaded, Section};

/// Keys and values of the tokens so far, each `(beams, heads, position, width)`.
pub(super) type Past = Option<(Tensor, Tensor)>;

/// Attention of a sequence over itself.
#[derive(Debug)]
pub(super) struct SelfAttention<F: Form> {
    /// Queries, keys and values in one product.
    pub(super) qkv_proj: F::Linear,
    pub(super) out_proj: F::Linear,
    pub(super) heads: usize,
    /// Channels of one head.
    pub(super) width: usize,
}

/// Attention over the encoder's states.
#[derive(Debug)]
pub(super) struct CrossAttention<F: Form> {
    pub(super) q_proj: F::Linear,
    /// Keys and values in one product.
    pub(super) kv_proj: F::Linear,
    pub(super) out_proj: F::Linear,
    pub(super) heads: usize,
    /// Channels of one head.
    pub(super) width: usize,
}

impl<F: Form> SelfAttention<F> {
    pub(super) fn load(section: &Section<'_, F>, dim: usize, heads: usize) -> Loaded<Self> {
        Ok(Self {
            qkv_proj: layers::joined(section, &["q_proj", "k_proj", "v_proj"], dim, dim)?,
            out_proj: layers::linear(&section.at("out_proj"), dim, dim)?,
            heads,
            width: dim / heads,
        })
    }
}

impl<F: Form> CrossAttention<F> {
    pub(super) fn load(section: &Section<'_, F>, dim: usize, heads: usize) -> Loaded<Self> {
        Ok(Self {
            q_proj: layers::linear(&section.at("q_proj"), dim, dim)?,
            kv_proj: layers::joined(section, &["k_proj", "v_proj"], dim, dim)?,
            out_proj: layers::linear(&section.at("out_proj"), dim, dim)?,
            heads,
            width: dim / heads,
        })
    }
}

impl SelfAttention<Tensors> {
    /// `(rows, length, dim)` → queries (scaled), keys and values, each `(rows, heads, length, width)`.
    fn project(&self, x: &Tensor) -> Result<(Tensor, Tensor, Tensor)> {
        let (rows, length, _) = x.dims3()?;
        let joined = self.qkv_proj.forward(x)?;
        let joined = joined.reshape((rows, length, 3, self.heads, self.width))?;
        let part = |i: usize| {
            joined
                .narrow(2, i, 1)?
                .squeeze(2)?
                .transpose(1, 2)?
                .contiguous()
        };
        let queries = (part(0)? * (self.width as f64).powf(-0.5))?;
        Ok((queries, part(1)?, part(2)?))
    }

    /// Attention of every position over all positions, `x (1, length, dim)`.
    pub(super) fn over_itself(&self, x: &Tensor) -> Result<Tensor> {
        let (q, k, v) = self.project(x)?;
        let scores = candle_nn::ops::softmax_last_dim(&q.matmul(&k.transpose(2, 3)?)?)?;
        self.out_proj
            .forward(&scores.matmul(&v)?.transpose(1, 2)?.reshape(x.shape())?)
    }

    /// Attention of every beam's newest token, `x (beams, dim)`, over its own past.
    pub(super) fn over_past(&self, x: &Tensor, past: &mut Past) -> Result<Tensor> {
        let (q, k, v) = self.project(&x.unsqueeze(1)?)?;
        let (k, v) = match past.take() {
            Some((keys, values)) => (Tensor::cat(&[keys, k], 2)?, Tensor::cat(&[values, v], 2)?),
            None => (k, v),
        };
        let scores = candle_nn::ops::softmax_last_dim(&q.matmul(&k.transpose(2, 3)?)?)?;
        let out = scores.matmul(&v)?.reshape(x.shape())?;
        *past = Some((k, v));
        self.out_proj.forward(&out)
    }
}

impl CrossAttention<Tensors> {
    /// Keys `(heads, width, length)` and values `(heads, length, width)` of `states (length, dim)`.
    pub(super) fn keys_and_values(&self, states: &Tensor) -> Result<(Tensor, Tensor)> {
        let length = states.dim(0)?;
        let joined = self.kv_proj.forward(states)?;
        let joined = joined.reshape((length, 2, self.heads, self.width))?;
        let part = |i: usize| joined.narrow(1, i, 1)?.squeeze(1);
        let keys = part(0)?.permute((1, 2, 0))?.contiguous()?;
        let values = part(1)?.permute((1, 0, 2))?.contiguous()?;
        Ok((keys, values))
    }

    /// Attention of every beam's newest token, `x (beams, dim)`, over the encoder's states. The
    /// beams are rows of one product, so that the states are read once for all of them.
    pub(super) fn over_states(&self, x: &Tensor, keys: &Tensor, values: &Tensor) -> Result<Tensor> {
        let beams = x.dim(0)?;
        let q = (self.q_proj.forward(x)? * (self.width as f64).powf(-0.5))?
            .reshape((beams, self.heads, self.width))?
            .transpose(0, 1)?
            .contiguous()?;
        let scores = candle_nn::ops::softmax_last_dim(&q.matmul(keys)?)?;
        self.out_proj
            .forward(&scores.matmul(values)?.transpose(0, 1)?.reshape(x.shape())?)
    }
}
