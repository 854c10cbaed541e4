//! The layers everything is built from, each loaded by its checkpoint name in the form that the
//! network has.

use candle_core::{Result, Tensor};

use super::config::LAYER_NORM_EPS;
use super::form::{Form, Tensors};
use super::kernels;
use super::weights::{Loaded, Section};

/// `y = x·Wᵀ + b` of tensors.
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

    /// `(…, in)` → `(…, out)`.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        kernels::linear(x, &self.weight, self.bias.as_ref())
    }
}

/// Reads `weight (out, in)` and `bias (out)`.
pub(super) fn linear<F: Form>(
    section: &Section<'_, F>,
    inputs: usize,
    outputs: usize,
) -> Loaded<F::Linear> {
    joined(section, &[""], inputs, outputs)
}

/// Reads the linear layers `names`, each of `outputs`, as one whose outputs follow each other.
pub(super) fn joined<F: Form>(
    section: &Section<'_, F>,
    names: &[&str],
    inputs: usize,
    outputs: usize,
) -> Loaded<F::Linear> {
    let of = |part: &str, shape: &[usize]| -> Loaded<Tensor> {
        let tensors = names.iter().map(|name| match *name {
            "" => section.host_tensor(part, shape),
            name => section.at(name).host_tensor(part, shape),
        });
        let tensors = tensors.collect::<Loaded<Vec<_>>>()?;
        match &tensors[..] {
            [one] => Ok(one.clone()),
            several => Ok(Tensor::cat(several, 0)?),
        }
    };
    let name = match names {
        [""] => section.name().to_owned(),
        names => format!("{}.{}", section.name(), names.join("+")),
    };
    F::linear(
        section.target(),
        &name,
        of("weight", &[outputs, inputs])?,
        Some(of("bias", &[outputs])?),
    )
}

/// Normalisation over the last axis with a learned scale and offset.
#[derive(Debug)]
pub(super) struct LayerNorm<F: Form> {
    pub(super) weight: F::Vector,
    pub(super) bias: F::Vector,
}

impl<F: Form> LayerNorm<F> {
    /// Reads `weight (dim)` and `bias (dim)`.
    pub(super) fn load(section: &Section<'_, F>, dim: usize) -> Loaded<Self> {
        Ok(Self {
            weight: section.vector("weight", &[dim])?,
            bias: section.vector("bias", &[dim])?,
        })
    }
}

impl LayerNorm<Tensors> {
    /// `(…, dim)` → `(…, dim)`.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        kernels::layer_norm(x, &self.weight, &self.bias, LAYER_NORM_EPS)
    }
}
