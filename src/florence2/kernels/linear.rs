//! `y = x·Wᵀ + b`, the linear layer, of tensors. The CPU's own is [`super::packed`].

use candle_core::{Result, Tensor};

/// `x (…, in) · weight (out, in)ᵀ + bias (out)` → `(…, out)`.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (outputs, inputs) = weight.dims2()?;
    let mut shape = x.dims().to_vec();
    let y = x.reshape(((), inputs))?.matmul(&weight.t()?)?;
    let y = match bias {
        Some(bias) => y.broadcast_add(bias)?,
        None => y,
    };
    if let Some(last) = shape.last_mut() {
        *last = outputs;
    }
    y.reshape(shape)
}
