//! Multi-head attention as BART has it, in the three forms in which it is used: every position over
//! all positions (encoder), the newest token over its own past, and over the encoder's states.
//!
//! Reads `{q,k,v,out}_proj.{weight,bias}`. Holds no state: a cache is handed in and handed back.

use candle_core::{Result, Tensor};

use super::layers::Linear;
use super::weights::{Loaded, Section};

/// Keys and values of the tokens so far, each `(beams, heads, position, width)`.
pub(super) type Past = Option<(Tensor, Tensor)>;

/// Multi-head attention.
#[derive(Debug)]
pub(super) struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    heads: usize,
    /// Channels of one head.
    width: usize,
}

impl Attention {
    pub(super) fn load(section: &Section<'_>, dim: usize, heads: usize) -> Loaded<Self> {
        let proj = |name| Linear::load(&section.at(name), dim, dim);
        Ok(Self {
            q_proj: proj("q_proj")?,
            k_proj: proj("k_proj")?,
            v_proj: proj("v_proj")?,
            out_proj: proj("out_proj")?,
            heads,
            width: dim / heads,
        })
    }

    /// `(rows, length, dim)` → `(rows, heads, length, width)`.
    fn split(&self, x: &Tensor) -> Result<Tensor> {
        let (rows, length, _) = x.dims3()?;
        x.reshape((rows, length, self.heads, self.width))?
            .transpose(1, 2)?
            .contiguous()
    }

    fn scaled_query(&self, x: &Tensor) -> Result<Tensor> {
        self.q_proj.forward(x)? * (self.width as f64).powf(-0.5)
    }

    /// Attention of every position over all positions, `x (1, length, dim)`.
    pub(super) fn over_itself(&self, x: &Tensor) -> Result<Tensor> {
        let q = self.split(&self.scaled_query(x)?)?;
        let (k, v) = (
            self.split(&self.k_proj.forward(x)?)?,
            self.split(&self.v_proj.forward(x)?)?,
        );
        let scores = candle_nn::ops::softmax_last_dim(&q.matmul(&k.transpose(2, 3)?)?)?;
        self.out_proj
            .forward(&scores.matmul(&v)?.transpose(1, 2)?.reshape(x.shape())?)
    }

    /// Attention of every beam's newest token, `x (beams, dim)`, over its own past.
    pub(super) fn over_past(&self, x: &Tensor, past: &mut Past) -> Result<Tensor> {
        let x3 = x.unsqueeze(1)?;
        let q = self.split(&self.scaled_query(&x3)?)?;
        let (k, v) = (
            self.split(&self.k_proj.forward(&x3)?)?,
            self.split(&self.v_proj.forward(&x3)?)?,
        );
        let (k, v) = match past.take() {
            Some((keys, values)) => (Tensor::cat(&[keys, k], 2)?, Tensor::cat(&[values, v], 2)?),
            None => (k, v),
        };
        let scores = candle_nn::ops::softmax_last_dim(&q.matmul(&k.transpose(2, 3)?)?)?;
        let out = scores.matmul(&v)?.reshape(x.shape())?;
        *past = Some((k, v));
        self.out_proj.forward(&out)
    }

    /// Keys `(heads, width, length)` and values `(heads, length, width)` of `states (length, dim)`.
    pub(super) fn keys_and_values(&self, states: &Tensor) -> Result<(Tensor, Tensor)> {
        let length = states.dim(0)?;
        let split = |x: Tensor| x.reshape((length, self.heads, self.width));
        let keys = split(self.k_proj.forward(states)?)?
            .permute((1, 2, 0))?
            .contiguous()?;
        let values = split(self.v_proj.forward(states)?)?
            .permute((1, 0, 2))?
            .contiguous()?;
        Ok((keys, values))
    }

    /// Attention of every beam's newest token, `x (beams, dim)`, over the encoder's states. The
    /// beams are rows of one product, so that the states are read once for all of them.
    pub(super) fn over_states(&self, x: &Tensor, keys: &Tensor, values: &Tensor) -> Result<Tensor> {
        let beams = x.dim(0)?;
        let q = self
            .scaled_query(x)?
            .reshape((beams, self.heads, self.width))?
            .transpose(0, 1)?
            .contiguous()?;
        let scores = candle_nn::ops::softmax_last_dim(&q.matmul(keys)?)?;
        self.out_proj
            .forward(&scores.matmul(values)?.transpose(0, 1)?.reshape(x.shape())?)
    }
}
