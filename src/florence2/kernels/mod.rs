//! The operations in which the model spends its time, each behind one function.
//!
//! Each exists twice: composed of tensor operations, which run on any device in any dtype, and as our
//! own CPU code on slices of f32, which the composed form is the twin of in the tests. The only room
//! where `unsafe` is allowed, each block with its SAFETY line. The vision tower is channels-last,
//! `(batch, height, width, channels)`, because the linear layers, the norms and our depthwise
//! convolution all want it.

#![expect(
    unsafe_code,
    reason = "calls into instruction-set specific code; see the SAFETY lines"
)]

mod above;
mod channel_attention;
mod depthwise_conv;
mod finite;
mod gelu;
mod instructions;
mod layer_norm;
mod linear;
mod log_softmax;
pub mod packed;
mod past_attention;
mod patches;
mod simd;
mod softmax;
mod window_attention;
mod windows;

pub use above::first_above;
pub use channel_attention::{add_channel_scores, apply_channel_attention, channel_attention};
pub use depthwise_conv::{depthwise_conv_residual, depthwise_conv_residual_rows};
pub use finite::{all_finite, is_finite};
pub use gelu::{gelu, gelu_in_place};
pub use layer_norm::{layer_norm, layer_norm_rows};
pub use linear::linear;
pub use log_softmax::{log_softmax, log_softmax_at};
pub use past_attention::{Queries, attend_past};
pub use patches::{PatchShape, Picture, patches};
pub use softmax::softmax_rows;
pub use window_attention::{WindowShape, attend_window, window_attention};
pub use windows::{Grid, Window, for_each_window};

#[cfg(test)]
pub(crate) mod test_tensors {
    //! Random tensors and comparison for the kernels' twin tests.

    use candle_core::{Device, Tensor};

    /// A tensor of reproducible values in −1…1.
    pub(crate) fn random(shape: &[usize], seed: u64) -> Tensor {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let values: Vec<f32> = (0..shape.iter().product())
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 40) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    /// Largest absolute difference over the largest absolute value.
    pub(crate) fn relative_error(a: &Tensor, b: &Tensor) -> f32 {
        assert_eq!(a.dims(), b.dims());
        let scalar = |t: Tensor| {
            t.abs()
                .unwrap()
                .max_all()
                .unwrap()
                .to_scalar::<f32>()
                .unwrap()
        };
        scalar((a - b).unwrap()) / scalar(b.clone()).max(f32::MIN_POSITIVE)
    }
}
