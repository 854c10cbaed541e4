//! The vision tower: DaViT, dual attention over windows and over channels (arXiv:2204.03645).
//!
//! Mirrors the reference's tower with one difference of form: maps are channels-last throughout,
//! `(batch, height, width, channels)`, so that no half-block has to transpose. Reads
//! `model.vision_tower.convs.S.*` and `model.vision_tower.blocks.S.B.{spatial,channel}_block.*`.
//! What runs here is composed of tensor operations; the CPU's own code is `cpu/davit.rs`.

use candle_core::{Result, Tensor};

use super::config::{StageConfig, VisionConfig};
use super::form::{Form, Tensors};
use super::kernels::{self, PatchShape};
use super::layers::{self, LayerNorm};
use super::weights::{Loaded, Section};

/// The whole tower.
#[derive(Debug)]
pub(super) struct DaViT<F: Form> {
    pub(super) stages: Vec<Stage<F>>,
}

#[derive(Debug)]
pub(super) struct Stage<F: Form> {
    pub(super) embed: ConvEmbed<F>,
    /// Each entry is one spatial block followed by one channel block.
    pub(super) blocks: Vec<(Block<F>, Block<F>)>,
}

impl<F: Form> DaViT<F> {
    /// Loads `model.vision_tower`.
    pub(super) fn load(section: &Section<'_, F>, config: &VisionConfig) -> Loaded<Self> {
        let stages = config
            .stages
            .iter()
            .enumerate()
            .map(|(s, stage)| Stage::load(section, s, stage, config))
            .collect::<Loaded<_>>()?;
        Ok(Self { stages })
    }
}

impl DaViT<Tensors> {
    /// `pixel_values (batch, 3, height, width)` → the last feature map,
    /// `(batch, rows, columns, channels)`.
    pub(super) fn forward(&self, pixel_values: &Tensor) -> Result<Tensor> {
        let mut x = pixel_values.permute((0, 2, 3, 1))?.contiguous()?;
        for stage in &self.stages {
            x = stage.embed.forward(&x)?;
            for (spatial, channel) in &stage.blocks {
                x = channel.forward(&spatial.forward(&x)?)?;
            }
        }
        Ok(x)
    }
}

impl<F: Form> Stage<F> {
    fn load(
        section: &Section<'_, F>,
        index: usize,
        stage: &StageConfig,
        config: &VisionConfig,
    ) -> Loaded<Self> {
        let embed = ConvEmbed::load(&section.at(format!("convs.{index}")), stage)?;
        let blocks = (0..stage.depth)
            .map(|block| {
                let section = section.at(format!("blocks.{index}.{block}"));
                let spatial = Attention::Window {
                    heads: stage.num_heads,
                    window: config.window_size,
                };
                let channel = Attention::Channel {
                    groups: stage.num_groups,
                };
                Ok((
                    Block::load(&section.at("spatial_block"), spatial, stage.dim, config)?,
                    Block::load(&section.at("channel_block"), channel, stage.dim, config)?,
                ))
            })
            .collect::<Loaded<_>>()?;
        Ok(Self { embed, blocks })
    }
}

/// A strided convolution with a norm before or after it: one linear layer over patches.
#[derive(Debug)]
pub(super) struct ConvEmbed<F: Form> {
    pub(super) patch: PatchShape,
    pub(super) proj: F::Linear,
    pub(super) norm: LayerNorm<F>,
    pub(super) is_prenorm: bool,
}

impl<F: Form> ConvEmbed<F> {
    fn load(section: &Section<'_, F>, stage: &StageConfig) -> Loaded<Self> {
        let (inputs, outputs, size) = (stage.in_dim, stage.dim, stage.patch_size);
        // Stored (out, in, row, column); a patch has its channels innermost.
        let weight = section
            .at("conv")
            .host_tensor("weight", &[outputs, inputs, size, size])?
            .permute((0, 2, 3, 1))?
            .reshape((outputs, size * size * inputs))?;
        let bias = section.at("conv").host_tensor("bias", &[outputs])?;
        let normed = if stage.patch_prenorm { inputs } else { outputs };
        Ok(Self {
            patch: PatchShape {
                size,
                stride: stage.patch_stride,
                padding: stage.patch_padding,
            },
            proj: F::linear(section.target(), section.name(), weight, Some(bias))?,
            norm: LayerNorm::load(&section.at("norm"), normed)?,
            is_prenorm: stage.patch_prenorm,
        })
    }
}

impl ConvEmbed<Tensors> {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if self.is_prenorm {
            self.proj
                .forward(&kernels::patches(&self.norm.forward(x)?, self.patch)?)
        } else {
            self.norm
                .forward(&self.proj.forward(&kernels::patches(x, self.patch)?)?)
        }
    }
}

/// Which of the two attentions a block has.
#[derive(Clone, Copy, Debug)]
pub(super) enum Attention {
    Window { heads: usize, window: usize },
    Channel { groups: usize },
}

/// Half of a dual-attention block; both kinds have the same frame.
#[derive(Debug)]
pub(super) struct Block<F: Form> {
    pub(super) conv1: DepthwiseConv<F>,
    pub(super) norm1: LayerNorm<F>,
    pub(super) attention: Attention,
    pub(super) qkv: F::Linear,
    /// The projection's bias once more: what padded positions of a window consist of.
    pub(super) qkv_bias: F::Vector,
    pub(super) proj: F::Linear,
    pub(super) conv2: DepthwiseConv<F>,
    pub(super) norm2: LayerNorm<F>,
    pub(super) mlp: Mlp<F>,
}

impl<F: Form> Block<F> {
    fn load(
        section: &Section<'_, F>,
        attention: Attention,
        dim: usize,
        config: &VisionConfig,
    ) -> Loaded<Self> {
        let attn = section.at(match attention {
            Attention::Window { .. } => "window_attn",
            Attention::Channel { .. } => "channel_attn",
        });
        let weight = attn.host_tensor("qkv.weight", &[3 * dim, dim])?;
        let qkv_bias = if config.qkv_bias {
            attn.host_tensor("qkv.bias", &[3 * dim])?
        } else {
            Tensor::zeros(3 * dim, weight.dtype(), weight.device())?
        };
        Ok(Self {
            conv1: DepthwiseConv::load(&section.at("conv1"), dim)?,
            norm1: LayerNorm::load(&section.at("norm1"), dim)?,
            attention,
            qkv: F::linear(
                section.target(),
                attn.at("qkv").name(),
                weight,
                Some(qkv_bias.clone()),
            )?,
            qkv_bias: F::vector(section.target(), qkv_bias)?,
            proj: layers::linear(&attn.at("proj"), dim, dim)?,
            conv2: DepthwiseConv::load(&section.at("conv2"), dim)?,
            norm2: LayerNorm::load(&section.at("norm2"), dim)?,
            mlp: Mlp::load(
                &section.at("ffn"),
                dim,
                (dim as f64 * config.mlp_ratio) as usize,
            )?,
        })
    }
}

impl Block<Tensors> {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, height, width, dim) = x.dims4()?;
        let x = self.conv1.forward(x)?;
        let qkv = self.qkv.forward(&self.norm1.forward(&x)?)?;
        let attended = match self.attention {
            Attention::Window { heads, window } => {
                kernels::window_attention(&qkv, &self.qkv_bias, heads, window)?
            }
            Attention::Channel { groups } => {
                let qkv = qkv.reshape((batch, height * width, 3 * dim))?;
                kernels::channel_attention(&qkv, groups)?.reshape((batch, height, width, dim))?
            }
        };
        let x = (x + self.proj.forward(&attended)?)?;
        let x = self.conv2.forward(&x)?;
        let mlp = self.mlp.forward(&self.norm2.forward(&x)?)?;
        x + mlp
    }
}

/// A depthwise 3×3 convolution with its residual, without norm or activation.
#[derive(Debug)]
pub(super) struct DepthwiseConv<F: Form> {
    /// `(9, dim)`, taps row by row.
    pub(super) weight: F::Vector,
    pub(super) bias: F::Vector,
}

impl<F: Form> DepthwiseConv<F> {
    fn load(section: &Section<'_, F>, dim: usize) -> Loaded<Self> {
        let weight = section
            .host_tensor("weight", &[dim, 1, 3, 3])?
            .reshape((dim, 9))?
            .t()?
            .contiguous()?;
        Ok(Self {
            weight: F::vector(section.target(), weight)?,
            bias: section.vector("bias", &[dim])?,
        })
    }
}

impl DepthwiseConv<Tensors> {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        kernels::depthwise_conv_residual(x, &self.weight, &self.bias)
    }
}

/// The feed-forward layer.
#[derive(Debug)]
pub(super) struct Mlp<F: Form> {
    pub(super) fc1: F::Linear,
    pub(super) fc2: F::Linear,
}

impl<F: Form> Mlp<F> {
    fn load(section: &Section<'_, F>, dim: usize, hidden: usize) -> Loaded<Self> {
        Ok(Self {
            fc1: layers::linear(&section.at("fc1"), dim, hidden)?,
            fc2: layers::linear(&section.at("fc2"), hidden, dim)?,
        })
    }
}

impl Mlp<Tensors> {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.fc2.forward(&kernels::gelu(&self.fc1.forward(x)?)?)
    }
}
