//! A model in int8: packed, judged, and where a layer loses too much packed again.

use candle_core::Device;

use super::{Florence2, LoadError};
use crate::florence2::config::Florence2Config;
use crate::florence2::form::{Layer, Packing};
use crate::florence2::kernels::packed::Format;
use crate::florence2::quantisation::{self, Quantised};
use crate::florence2::weights::Weights;

impl Florence2 {
    /// In int8 on the CPU, but for the layers that lose too much.
    pub(super) fn quantise(config: Florence2Config, weights: &Weights) -> Result<Self, LoadError> {
        let mut in_bf16 = quantisation::always_in_bf16(&config);
        let packing = Packing::except(Format::Int8, &in_bf16);
        let (mut model, layers) = Self::in_int8(config, weights, packing)?;
        let hurt = quantisation::judge(&model, &layers).map_err(LoadError::Measured)?;
        let must_reload = !hurt.is_empty();
        in_bf16.extend(hurt);
        if must_reload {
            // The first model goes before the second one comes.
            let Self {
                config, backend, ..
            } = model;
            drop(backend);
            let packing = Packing::except(Format::Int8, &in_bf16);
            (model, _) = Self::in_int8(config, weights, packing)?;
        }
        model.quantised = Some(Quantised {
            layers: layers.len(),
            kept_in_bf16: in_bf16,
        });
        Ok(model)
    }

    /// In int8 on the CPU, with the layers to be judged.
    pub(in crate::florence2) fn in_int8(
        config: Florence2Config,
        weights: &Weights,
        packing: Packing,
    ) -> Result<(Self, Vec<Layer>), LoadError> {
        let model = Self {
            backend: Self::packed(&config, weights, &packing)?,
            config,
            device: Device::Cpu,
            quantised: None,
        };
        Ok((model, packing.into_layers()))
    }
}
