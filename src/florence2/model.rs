//! The assembled model: [`Florence2::load`], and its stages by name.

use std::path::Path;

use candle_core::{DType, Device, Tensor};

use super::bart::{Bart, TensorCache};
use super::config::{ConfigError, Florence2Config, PictureSideError};
use super::cpu::{CpuCache, Scratch};
use super::davit::DaViT;
use super::form::{Dtype, Form, Packed, Packing, Placement, Tensors, with_values};
use super::generate::{Decode, GenerationOptions, SpecialTokens};
use super::kernels::packed::Format;
use super::one_line;
use super::projector::Projector;
use super::quantisation::Quantised;
use super::weights::{RandomWeights, Weights, WeightsError};

mod int8;

/// Why a checkpoint cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// `config.json` is missing or describes something else.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The weights are missing, damaged, or do not fit `config.json`.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The model fails while its layers are measured.
    #[error("the model fails while it is measured for int8: {}; use --dtype bf16 or f32", one_line(.0))]
    Measured(candle_core::Error),
    /// Integer weights are for the CPU.
    #[error("int8 runs on the CPU only: use --device cpu, or --dtype f16 or bf16 here")]
    Int8,
}

/// What the vision side makes of a picture.
#[derive(Debug)]
pub struct ImageFeatures {
    /// The tower's last feature map, `(1, rows, columns, channels)`.
    pub vision_features: Tensor,
    /// The image tokens, `(1, tokens, d_model)`.
    pub image_features: Tensor,
}

/// What a decoder remembers between steps. A value that is returned and passed on.
#[derive(Debug)]
pub struct KvCache(Cache);

#[derive(Debug)]
enum Cache {
    Tensors(TensorCache),
    Cpu(CpuCache),
}

/// The three networks in one form.
#[derive(Debug)]
pub(super) struct Networks<F: Form> {
    pub(super) vision_tower: DaViT<F>,
    pub(super) projector: Projector<F>,
    pub(super) language_model: Bart<F>,
}

impl<F: Form> Networks<F> {
    /// Takes from `weights` exactly the tensors that `config` calls for.
    fn load(
        config: &Florence2Config,
        weights: &Weights,
        target: &F::Target,
    ) -> Result<Self, WeightsError> {
        let at = |prefix| weights.at::<F>(prefix, target);
        let networks = Self {
            vision_tower: DaViT::load(&at("model.vision_tower"), &config.vision)?,
            projector: Projector::load(&at("model.multi_modal_projector"), &config.vision)?,
            language_model: Bart::load(weights, target, &config.text)?,
        };
        weights.finish()?;
        Ok(networks)
    }
}

#[derive(Debug)]
enum Backend {
    /// Composed tensor operations: accelerators, and f16 on the CPU.
    Tensors(Box<Networks<Tensors>>, DType),
    /// Our own CPU code, with the room that it works in.
    Cpu(Box<Networks<Packed>>, Scratch),
}

/// A loaded checkpoint.
#[derive(Debug)]
pub struct Florence2 {
    config: Florence2Config,
    backend: Backend,
    device: Device,
    quantised: Option<Quantised>,
}

impl Florence2 {
    /// Loads a checkpoint folder in either published layout onto a device.
    ///
    /// # Errors
    /// When a file is missing or damaged, or when a tensor is missing, extra or misshapen; the
    /// message names it.
    pub fn load(folder: &Path, device: &Device, dtype: Dtype) -> Result<Self, LoadError> {
        let config = Florence2Config::load(folder)?;
        let host = match dtype {
            Dtype::F16 | Dtype::Bf16 if !device.is_cpu() => DType::F16,
            _ => DType::F32,
        };
        let weights = Weights::open(folder, host, dtype)?;
        Self::assemble(config, &weights, device, dtype)
    }

    /// A model of this architecture with random weights, scaled for pictures of `side × side`
    /// pixels. The same seed gives the same weights on every machine.
    ///
    /// # Errors
    /// When the device fails.
    pub fn random(
        config: Florence2Config,
        side: usize,
        seed: u64,
        device: &Device,
        dtype: Dtype,
    ) -> Result<Self, LoadError> {
        let random = RandomWeights::new(&config, side, seed);
        Self::assemble(config, &Weights::random(random), device, dtype)
    }

    pub(super) fn assemble(
        config: Florence2Config,
        weights: &Weights,
        device: &Device,
        dtype: Dtype,
    ) -> Result<Self, LoadError> {
        let backend = match dtype.packed() {
            Some(Format::Int8) if device.is_cpu() => return Self::quantise(config, weights),
            Some(format) if device.is_cpu() => {
                Self::packed(&config, weights, &Packing::new(format))?
            }
            _ => Self::tensors(&config, weights, device, dtype)?,
        };
        Ok(Self {
            config,
            backend,
            device: device.clone(),
            quantised: None,
        })
    }

    fn packed(
        config: &Florence2Config,
        weights: &Weights,
        packing: &Packing,
    ) -> Result<Backend, LoadError> {
        let networks = Networks::load(config, weights, packing)?;
        Ok(Backend::Cpu(Box::new(networks), Scratch::default()))
    }

    fn tensors(
        config: &Florence2Config,
        weights: &Weights,
        device: &Device,
        dtype: Dtype,
    ) -> Result<Backend, LoadError> {
        let dtype = match dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::Bf16 => DType::BF16,
            Dtype::Int8 => return Err(LoadError::Int8),
        };
        let target = Placement {
            device: device.clone(),
            dtype,
        };
        Ok(Backend::Tensors(
            Box::new(Networks::load(config, weights, &target)?),
            dtype,
        ))
    }

    /// The checkpoint's configuration.
    #[must_use]
    pub fn config(&self) -> &Florence2Config {
        &self.config
    }

    /// What int8 came to in this checkpoint; none in any other dtype.
    #[must_use]
    pub fn quantised(&self) -> Option<&Quantised> {
        self.quantised.as_ref()
    }

    /// The device the weights are on.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Image tokens that a picture of `side × side` pixels becomes.
    ///
    /// # Errors
    /// When the checkpoint's position tables are too small for it, its patches too large, or its maps.
    pub fn image_tokens(&self, side: usize) -> Result<usize, PictureSideError> {
        self.config.image_tokens(side)
    }

    /// Sees a picture: `pixel_values (3, side, side)`, normalised, channel-major.
    ///
    /// # Errors
    /// When the device fails, or the picture is too small or too large for the checkpoint.
    pub fn see(&self, pixel_values: &[f32], side: usize) -> candle_core::Result<ImageFeatures> {
        match &self.backend {
            Backend::Tensors(networks, dtype) => {
                let shape = (1, 3, side, side);
                let pixels =
                    Tensor::from_slice(pixel_values, shape, &self.device)?.to_dtype(*dtype)?;
                let vision_features = networks.vision_tower.forward(&pixels)?;
                let image_features = networks.projector.forward(&vision_features)?;
                Ok(ImageFeatures {
                    vision_features,
                    image_features,
                })
            }
            Backend::Cpu(networks, scratch) => scratch.run(|| {
                let map = networks.vision_tower.see(pixel_values, side, scratch)?;
                let tokens = networks.projector.project(&map, scratch);
                Ok(ImageFeatures {
                    vision_features: map.into_tensor()?,
                    image_features: tokens.into_tensor()?,
                })
            }),
        }
    }

    /// Reads the prompt beside the picture: `image_features (1, tokens, d_model)` and the prompt's
    /// ids → `encoder_hidden_states (1, tokens + ids, d_model)`.
    ///
    /// # Errors
    /// When the device fails, or picture and prompt together are longer than the position table.
    pub fn encode(
        &self,
        image_features: &Tensor,
        input_ids: &[u32],
    ) -> candle_core::Result<Tensor> {
        match &self.backend {
            Backend::Tensors(networks, _) => {
                networks.language_model.encode(image_features, input_ids)
            }
            Backend::Cpu(networks, scratch) => with_values(image_features, |image| {
                scratch.run(|| {
                    networks
                        .language_model
                        .encode(image, input_ids, scratch)?
                        .into_tensor()
                })
            })?,
        }
    }

    /// Makes the decoder's cache for an encoded prompt: its cross-attention keys and values.
    ///
    /// # Errors
    /// When the device fails.
    pub fn start(&self, encoder_hidden_states: &Tensor) -> candle_core::Result<KvCache> {
        Ok(KvCache(match &self.backend {
            Backend::Tensors(networks, _) => {
                Cache::Tensors(networks.language_model.start(encoder_hidden_states)?)
            }
            Backend::Cpu(networks, scratch) => with_values(encoder_hidden_states, |states| {
                Cache::Cpu(scratch.run(|| networks.language_model.start(states, scratch)))
            })?,
        }))
    }

    /// `options` held to what the decoder's position table allows.
    #[must_use]
    pub fn bounded(&self, options: &GenerationOptions) -> GenerationOptions {
        let max_new_tokens = options
            .max_new_tokens
            .min(self.config.text.max_position_embeddings);
        let min_new_tokens = options.min_new_tokens.min(max_new_tokens);
        GenerationOptions {
            max_new_tokens,
            min_new_tokens,
            ..*options
        }
    }

    /// The ids that steer a search with this checkpoint.
    #[must_use]
    pub fn special_tokens(&self) -> SpecialTokens {
        self.config.text.special
    }
}

impl Decode for Florence2 {
    type Cache = KvCache;
    type Error = candle_core::Error;

    fn next_logits(
        &self,
        tokens: &[u32],
        parents: &[u32],
        cache: KvCache,
    ) -> candle_core::Result<(Vec<f32>, KvCache)> {
        match (&self.backend, cache.0) {
            (Backend::Tensors(networks, _), Cache::Tensors(cache)) => {
                let (logits, cache) = networks
                    .language_model
                    .step(tokens, cache.reorder(parents)?)?;
                Ok((
                    logits.flatten_all()?.to_vec1()?,
                    KvCache(Cache::Tensors(cache)),
                ))
            }
            (Backend::Cpu(networks, scratch), Cache::Cpu(mut cache)) => {
                let logits = scratch.run(|| {
                    networks
                        .language_model
                        .step(tokens, parents, &mut cache, scratch)
                })?;
                Ok((logits, KvCache(Cache::Cpu(cache))))
            }
            _ => candle_core::bail!("the decoder's cache is another model's"),
        }
    }
}

#[cfg(test)]
mod tests;
