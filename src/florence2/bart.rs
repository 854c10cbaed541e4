//! The language model: BART (arXiv:1910.13461), post-norm, learned positions with an offset of 2.
//!
//! The encoder reads image tokens followed by the prompt; the decoder writes one token a step for
//! every beam. The decoder's cache is a value that is returned and passed on, never kept in a layer:
//! nothing of one caller's picture can show in the next one's answer. Cross-attention keys and
//! values are computed once a picture and read, not copied, by all beams. Reads
//! `model.language_model.*` and `lm_head.weight`. What runs here is composed of tensor operations; the
//! CPU's own code is `cpu/encoder.rs` and `cpu/decoder.rs`.

use candle_core::{DType, Result, Tensor};

use super::attention::{CrossAttention, Past, SelfAttention};
use super::config::{POSITION_OFFSET, TextConfig};
use super::form::{Form, Tensors};
use super::kernels;
use super::layers::{self, LayerNorm};
use super::weights::{Loaded, Section, Weights};

/// The reference clamps the encoder's hidden states here in half precision: f16's largest value
/// less a margin.
const F16_CLAMP: f64 = 65504.0 - 1000.0;

/// The output matrix's layer.
const LM_HEAD: &str = "lm_head";

/// Embeddings, encoder, decoder and output matrix.
#[derive(Debug)]
pub(super) struct Bart<F: Form> {
    /// `(vocab, d_model)`.
    pub(super) shared: F::Table,
    /// √d_model where the config asks for scaled embeddings, else 1.
    pub(super) embed_scale: f64,
    pub(super) encoder: Encoder<F>,
    pub(super) decoder: Decoder<F>,
    pub(super) lm_head: F::Linear,
}

/// What a decoder of tensors remembers between steps.
#[derive(Debug)]
pub(super) struct TensorCache {
    layers: Vec<LayerCache>,
    /// Tokens decoded so far.
    position: usize,
}

#[derive(Debug)]
struct LayerCache {
    /// What self-attention looks back at.
    own: Past,
    /// Keys of the picture and prompt, `(heads, width, encoder length)`; shared by all beams.
    cross_keys: Tensor,
    /// Values of the picture and prompt, `(heads, encoder length, width)`.
    cross_values: Tensor,
}

impl<F: Form> Bart<F> {
    pub(super) fn load(weights: &Weights, target: &F::Target, config: &TextConfig) -> Loaded<Self> {
        let section = weights.at::<F>("model.language_model", target);
        let tables = weights.embeddings(
            config.vocab_size,
            config.d_model,
            config.tie_word_embeddings,
        )?;
        let bias = tables.final_logits_bias;
        let (shared, lm_head) = match tables.lm_head {
            None => F::tied(target, LM_HEAD, tables.shared, bias)?,
            Some(lm_head) => (
                F::table(target, tables.shared)?,
                F::linear(target, LM_HEAD, lm_head, bias)?,
            ),
        };
        Ok(Self {
            shared,
            embed_scale: if config.scale_embedding {
                (config.d_model as f64).sqrt()
            } else {
                1.0
            },
            encoder: Encoder::load(&section.at("encoder"), config)?,
            decoder: Decoder::load(&section.at("decoder"), config)?,
            lm_head,
        })
    }
}

impl Bart<Tensors> {
    /// Token ids → `(ids, d_model)`.
    fn embed(&self, ids: &[u32]) -> Result<Tensor> {
        let ids = Tensor::new(ids, self.shared.device())?;
        let rows = self.shared.index_select(&ids, 0)?;
        if self.embed_scale == 1.0 {
            Ok(rows)
        } else {
            rows * self.embed_scale
        }
    }

    /// Image tokens `(1, tokens, d_model)` and prompt ids → `encoder_hidden_states (1, length, d_model)`.
    pub(super) fn encode(&self, image_features: &Tensor, input_ids: &[u32]) -> Result<Tensor> {
        let prompt = self.embed(input_ids)?.unsqueeze(0)?;
        self.encoder
            .forward(&Tensor::cat(&[image_features, &prompt], 1)?)
    }

    /// The cache before the first token: cross-attention keys and values, nothing of its own.
    pub(super) fn start(&self, encoder_hidden_states: &Tensor) -> Result<TensorCache> {
        let states = encoder_hidden_states.squeeze(0)?;
        let layers = self
            .decoder
            .layers
            .iter()
            .map(|layer| layer.start(&states))
            .collect::<Result<_>>()?;
        Ok(TensorCache {
            layers,
            position: 0,
        })
    }

    /// One step: the newest token of every beam → `logits (beams, vocab)`, and the longer cache.
    pub(super) fn step(&self, tokens: &[u32], cache: TensorCache) -> Result<(Tensor, TensorCache)> {
        let (hidden, cache) = self.decoder.forward(&self.embed(tokens)?, cache)?;
        Ok((self.lm_head.forward(&hidden)?.to_dtype(DType::F32)?, cache))
    }
}

impl TensorCache {
    /// The cache whose beam `i` continues what beam `parents[i]` was.
    pub(super) fn reorder(mut self, parents: &[u32]) -> Result<Self> {
        let stays = |rows: usize| {
            rows == parents.len() && parents.iter().zip(0..).all(|(parent, row)| *parent == row)
        };
        for layer in &mut self.layers {
            if let Some((keys, values)) = layer
                .own
                .take_if(|(keys, _)| keys.dim(0).is_ok_and(|rows| !stays(rows)))
            {
                let parents = Tensor::new(parents, keys.device())?;
                layer.own = Some((
                    keys.index_select(&parents, 0)?,
                    values.index_select(&parents, 0)?,
                ));
            }
        }
        Ok(self)
    }
}

/// Token positions and the norm on the embeddings, which encoder and decoder share in form.
#[derive(Debug)]
pub(super) struct Positions<F: Form> {
    /// `(max_position_embeddings + 2, d_model)`.
    pub(super) table: F::Vector,
    pub(super) norm: LayerNorm<F>,
}

impl<F: Form> Positions<F> {
    fn load(section: &Section<'_, F>, config: &TextConfig) -> Loaded<Self> {
        let rows = config.max_position_embeddings + POSITION_OFFSET;
        Ok(Self {
            table: section.vector("embed_positions.weight", &[rows, config.d_model])?,
            norm: LayerNorm::load(&section.at("layernorm_embedding"), config.d_model)?,
        })
    }
}

impl Positions<Tensors> {
    /// Adds positions `first..first + count` to `x (…, count, d_model)` and normalises.
    fn forward(&self, x: &Tensor, first: usize, count: usize) -> Result<Tensor> {
        let positions = self.table.narrow(0, first + POSITION_OFFSET, count)?;
        self.norm.forward(&x.broadcast_add(&positions)?)
    }
}

#[derive(Debug)]
pub(super) struct Encoder<F: Form> {
    pub(super) positions: Positions<F>,
    pub(super) layers: Vec<EncoderLayer<F>>,
}

#[derive(Debug)]
pub(super) struct EncoderLayer<F: Form> {
    pub(super) self_attn: SelfAttention<F>,
    pub(super) self_attn_layer_norm: LayerNorm<F>,
    pub(super) feed_forward: FeedForward<F>,
}

impl<F: Form> Encoder<F> {
    fn load(section: &Section<'_, F>, config: &TextConfig) -> Loaded<Self> {
        let layers = (0..config.encoder_layers)
            .map(|index| {
                let section = section.at(format!("layers.{index}"));
                Ok(EncoderLayer {
                    self_attn: SelfAttention::load(
                        &section.at("self_attn"),
                        config.d_model,
                        config.encoder_attention_heads,
                    )?,
                    self_attn_layer_norm: LayerNorm::load(
                        &section.at("self_attn_layer_norm"),
                        config.d_model,
                    )?,
                    feed_forward: FeedForward::load(
                        &section,
                        config.d_model,
                        config.encoder_ffn_dim,
                    )?,
                })
            })
            .collect::<Loaded<_>>()?;
        Ok(Self {
            positions: Positions::load(section, config)?,
            layers,
        })
    }
}

impl Encoder<Tensors> {
    fn forward(&self, inputs_embeds: &Tensor) -> Result<Tensor> {
        let mut x = self
            .positions
            .forward(inputs_embeds, 0, inputs_embeds.dim(1)?)?;
        for layer in &self.layers {
            let attended = layer.self_attn.over_itself(&x)?;
            x = layer.self_attn_layer_norm.forward(&(x + attended)?)?;
            x = layer.feed_forward.forward(&x)?;
            if x.dtype() == DType::F16 {
                x = x.clamp(-F16_CLAMP, F16_CLAMP)?;
            }
        }
        Ok(x)
    }
}

/// `LN(x + fc2(gelu(fc1 x)))`.
#[derive(Debug)]
pub(super) struct FeedForward<F: Form> {
    pub(super) fc1: F::Linear,
    pub(super) fc2: F::Linear,
    pub(super) final_layer_norm: LayerNorm<F>,
}

impl<F: Form> FeedForward<F> {
    fn load(section: &Section<'_, F>, dim: usize, hidden: usize) -> Loaded<Self> {
        Ok(Self {
            fc1: layers::linear(&section.at("fc1"), dim, hidden)?,
            fc2: layers::linear(&section.at("fc2"), hidden, dim)?,
            final_layer_norm: LayerNorm::load(&section.at("final_layer_norm"), dim)?,
        })
    }
}

impl FeedForward<Tensors> {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let hidden = self.fc2.forward(&kernels::gelu(&self.fc1.forward(x)?)?)?;
        self.final_layer_norm.forward(&(x + hidden)?)
    }
}

#[derive(Debug)]
pub(super) struct Decoder<F: Form> {
    pub(super) positions: Positions<F>,
    pub(super) layers: Vec<DecoderLayer<F>>,
}

#[derive(Debug)]
pub(super) struct DecoderLayer<F: Form> {
    pub(super) self_attn: SelfAttention<F>,
    pub(super) self_attn_layer_norm: LayerNorm<F>,
    pub(super) encoder_attn: CrossAttention<F>,
    pub(super) encoder_attn_layer_norm: LayerNorm<F>,
    pub(super) feed_forward: FeedForward<F>,
}

impl<F: Form> DecoderLayer<F> {
    fn load(section: &Section<'_, F>, config: &TextConfig) -> Loaded<Self> {
        let (dim, heads) = (config.d_model, config.decoder_attention_heads);
        Ok(Self {
            self_attn: SelfAttention::load(&section.at("self_attn"), dim, heads)?,
            self_attn_layer_norm: LayerNorm::load(&section.at("self_attn_layer_norm"), dim)?,
            encoder_attn: CrossAttention::load(&section.at("encoder_attn"), dim, heads)?,
            encoder_attn_layer_norm: LayerNorm::load(&section.at("encoder_attn_layer_norm"), dim)?,
            feed_forward: FeedForward::load(section, dim, config.decoder_ffn_dim)?,
        })
    }
}

impl DecoderLayer<Tensors> {
    fn start(&self, states: &Tensor) -> Result<LayerCache> {
        let (cross_keys, cross_values) = self.encoder_attn.keys_and_values(states)?;
        Ok(LayerCache {
            own: None,
            cross_keys,
            cross_values,
        })
    }
}

impl<F: Form> Decoder<F> {
    fn load(section: &Section<'_, F>, config: &TextConfig) -> Loaded<Self> {
        let layers = (0..config.decoder_layers)
            .map(|index| DecoderLayer::load(&section.at(format!("layers.{index}")), config))
            .collect::<Loaded<_>>()?;
        Ok(Self {
            positions: Positions::load(section, config)?,
            layers,
        })
    }
}

impl Decoder<Tensors> {
    /// `x (beams, d_model)`, the embedded newest tokens, → hidden states of the same shape.
    fn forward(&self, x: &Tensor, mut cache: TensorCache) -> Result<(Tensor, TensorCache)> {
        let mut x = self.positions.forward(x, cache.position, 1)?;
        for (layer, cache) in self.layers.iter().zip(&mut cache.layers) {
            let attended = layer.self_attn.over_past(&x, &mut cache.own)?;
            x = layer.self_attn_layer_norm.forward(&(x + attended)?)?;
            let attended =
                layer
                    .encoder_attn
                    .over_states(&x, &cache.cross_keys, &cache.cross_values)?;
            x = layer.encoder_attn_layer_norm.forward(&(x + attended)?)?;
            x = layer.feed_forward.forward(&x)?;
        }
        cache.position += 1;
        Ok((x, cache))
    }
}
