//! The two layers everything is built from, each loaded by its checkpoint name.

use candle_core::{Result, Tensor};

use super::config::LAYER_NORM_EPS;
use super::kernels;
use super::weights::{Loaded, Section};

/// `y = x·Wᵀ + b`.
#[derive(Debug)]
pub(super) struct Linear {
    /// `(out, in)`.
    weight: Tensor,
    /// `(out)`.
    bias: Option<Tensor>,
}

impl Linear {
    pub(super) fn new(weight: Tensor, bias: Option<Tensor>) -> Self {
        Self { weight, bias }
    }

    /// Reads `weight (out, in)` and `bias (out)`.
    pub(super) fn load(section: &Section<'_>, inputs: usize, outputs: usize) -> Loaded<Self> {
        let weight = section.tensor("weight", &[outputs, inputs])?;
        Ok(Self::new(weight, Some(section.tensor("bias", &[outputs])?)))
    }

    /// `(…, in)` → `(…, out)`.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        kernels::linear(x, &self.weight, self.bias.as_ref())
    }
}

/// Normalisation over the last axis with a learned scale and offset.
#[derive(Debug)]
pub(super) struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
}

impl LayerNorm {
    /// Reads `weight (dim)` and `bias (dim)`.
    pub(super) fn load(section: &Section<'_>, dim: usize) -> Loaded<Self> {
        Ok(Self {
            weight: section.tensor("weight", &[dim])?,
            bias: section.tensor("bias", &[dim])?,
        })
    }

    /// `(…, dim)` → `(…, dim)`.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        kernels::layer_norm(x, &self.weight, &self.bias, LAYER_NORM_EPS)
    }
}
