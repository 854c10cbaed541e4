//! `config.json` and `generation_config.json`, as both published layouts write them.
//!
//! Everything about the architecture is read from these files; nothing follows from a size name.
//! Microsoft's original layout and the native transformers layout spell a few keys differently,
//! and a file saved again by a user may carry both spellings. Training settings are ignored.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::generate::{EarlyStopping, GenerationOptions};

/// Layer norm's epsilon everywhere in the model; the framework's default, written in no config.
pub(crate) const LAYER_NORM_EPS: f64 = 1e-5;
/// Rows of the learned text position tables before the row of position 0 (BART's padding offset).
pub(crate) const POSITION_OFFSET: usize = 2;
/// `max_new_tokens` where nobody asks for another value; what the model cards use.
pub const DEFAULT_MAX_NEW_TOKENS: usize = 1024;
/// `num_beams` where neither the checkpoint nor the caller says.
const DEFAULT_NUM_BEAMS: usize = 3;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is missing or unreadable.
    #[error("cannot read {path}: {source}; a checkpoint folder needs this file", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file is not the JSON that it should be.
    #[error("{path} is not a usable configuration: {source}", path = path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// A value that this program cannot run.
    #[error("{path}: {problem}", path = path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// Which key, which value, and what would be usable.
        problem: String,
    },
}

/// The vision tower and the projector behind it.
#[derive(Clone, Debug, PartialEq)]
pub struct VisionConfig {
    /// The four (or fewer) stages, in order.
    pub stages: Vec<StageConfig>,
    /// Side of the attention windows, in tokens.
    pub window_size: usize,
    /// Hidden width of the feed-forward layers, as a multiple of the stage's width.
    pub mlp_ratio: f64,
    /// Whether the query, key and value projections have a bias.
    pub qkv_bias: bool,
    /// Width of the image tokens handed to the text model.
    pub projection_dim: usize,
    /// Rows of the learned 2-D position tables: the largest side of the last feature map.
    pub max_position_embeddings: usize,
    /// Rows of the temporal table.
    pub max_temporal_embeddings: usize,
    /// The pooled features, in the order in which their tokens are joined.
    pub feature_sources: Vec<FeatureSource>,
}

/// One stage of the vision tower.
#[derive(Clone, Debug, PartialEq)]
pub struct StageConfig {
    /// Channels of the stage.
    pub dim: usize,
    /// Channels of the stage before (3 for the first).
    pub in_dim: usize,
    /// Heads of the window attention.
    pub num_heads: usize,
    /// Groups of the channel attention.
    pub num_groups: usize,
    /// Pairs of spatial and channel block.
    pub depth: usize,
    /// Side of the patch convolution's kernel.
    pub patch_size: usize,
    /// Step of the patch convolution.
    pub patch_stride: usize,
    /// Zero padding of the patch convolution.
    pub patch_padding: usize,
    /// Whether the norm stands before the patch convolution (else after it).
    pub patch_prenorm: bool,
}

/// A way to turn the last feature map into image tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeatureSource {
    /// One token: the mean over all positions.
    SpatialAvgPool,
    /// One token a position: the mean over the frames (a picture is one frame).
    TemporalAvgPool,
    /// One token a position of the last frame.
    LastFrame,
}

/// The language model.
#[derive(Clone, Debug, PartialEq)]
pub struct TextConfig {
    /// Rows of the embedding and output matrix.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub d_model: usize,
    /// Encoder layers.
    pub encoder_layers: usize,
    /// Encoder attention heads.
    pub encoder_attention_heads: usize,
    /// Hidden width of the encoder's feed-forward layers.
    pub encoder_ffn_dim: usize,
    /// Decoder layers.
    pub decoder_layers: usize,
    /// Decoder attention heads.
    pub decoder_attention_heads: usize,
    /// Hidden width of the decoder's feed-forward layers.
    pub decoder_ffn_dim: usize,
    /// Usable positions; image and prompt tokens together may not exceed it.
    pub max_position_embeddings: usize,
    /// Whether token embeddings are multiplied by √d_model.
    pub scale_embedding: bool,
    /// Whether the output matrix is the embedding matrix.
    pub tie_word_embeddings: bool,
    /// `<pad>`.
    pub pad_token_id: u32,
    /// `</s>`.
    pub eos_token_id: u32,
    /// The token the decoder starts from.
    pub decoder_start_token_id: u32,
    /// The token forced at the first step.
    pub forced_bos_token_id: Option<u32>,
    /// The token forced at the length limit.
    pub forced_eos_token_id: Option<u32>,
}

/// A whole checkpoint's configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Florence2Config {
    /// The vision tower and projector.
    pub vision: VisionConfig,
    /// The language model.
    pub text: TextConfig,
    /// The search settings in force where the caller gives none.
    pub generation: GenerationOptions,
}

#[derive(Deserialize)]
struct RawConfig {
    model_type: Option<String>,
    vision_config: RawVision,
    text_config: RawText,
    projection_dim: Option<usize>,
    tie_word_embeddings: Option<bool>,
}

#[derive(Deserialize)]
struct RawVision {
    dim_embed: Option<Vec<usize>>,
    embed_dim: Option<Vec<usize>>,
    num_heads: Vec<usize>,
    num_groups: Vec<usize>,
    depths: Vec<usize>,
    patch_size: Vec<usize>,
    patch_stride: Vec<usize>,
    patch_padding: Vec<usize>,
    patch_prenorm: Vec<bool>,
    window_size: usize,
    mlp_ratio: Option<f64>,
    qkv_bias: Option<bool>,
    projection_dim: Option<usize>,
    max_position_embeddings: Option<usize>,
    image_pos_embed: Option<RawImagePositions>,
    max_temporal_embeddings: Option<usize>,
    visual_temporal_embedding: Option<RawTemporal>,
    image_feature_source: Option<Vec<FeatureSource>>,
}

#[derive(Deserialize)]
struct RawImagePositions {
    #[serde(rename = "type")]
    kind: Option<String>,
    max_pos_embeddings: Option<usize>,
}

#[derive(Deserialize)]
struct RawTemporal {
    #[serde(rename = "type")]
    kind: Option<String>,
    max_temporal_embeddings: Option<usize>,
}

#[derive(Deserialize)]
struct RawText {
    vocab_size: usize,
    d_model: usize,
    encoder_layers: usize,
    encoder_attention_heads: usize,
    encoder_ffn_dim: usize,
    decoder_layers: usize,
    decoder_attention_heads: usize,
    decoder_ffn_dim: usize,
    max_position_embeddings: usize,
    activation_function: Option<String>,
    scale_embedding: Option<bool>,
    normalize_before: Option<bool>,
    add_final_layer_norm: Option<bool>,
    tie_word_embeddings: Option<bool>,
    pad_token_id: Option<u32>,
    eos_token_id: Option<u32>,
    decoder_start_token_id: Option<u32>,
    #[serde(flatten)]
    generation: RawGeneration,
}

/// Search settings, as `generation_config.json` and `text_config` both spell them.
#[derive(Default, Deserialize)]
struct RawGeneration {
    num_beams: Option<usize>,
    length_penalty: Option<f32>,
    early_stopping: Option<RawEarlyStopping>,
    no_repeat_ngram_size: Option<usize>,
    forced_bos_token_id: Option<u32>,
    forced_eos_token_id: Option<u32>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(untagged)]
enum RawEarlyStopping {
    Flag(bool),
    Word(Never),
}

#[derive(Clone, Copy, Deserialize)]
enum Never {
    #[serde(rename = "never")]
    Never,
}

impl Florence2Config {
    /// Reads the configuration files of a checkpoint folder.
    ///
    /// # Errors
    /// When `config.json` is missing, malformed, or describes another architecture.
    pub fn load(folder: &Path) -> Result<Self, ConfigError> {
        let path = folder.join("config.json");
        let raw: RawConfig = read_json(&path)?;
        // The original layout's wrapper file has no effect: its inner language model is
        // configured by `text_config`. The native layout reads the file.
        let is_native = raw.vision_config.embed_dim.is_some();
        let generation_path = folder.join("generation_config.json");
        let file = if is_native && generation_path.exists() {
            read_json(&generation_path)?
        } else {
            None
        };
        Self::resolve(raw, file).map_err(|problem| ConfigError::Unsupported { path, problem })
    }

    fn resolve(raw: RawConfig, file: Option<RawGeneration>) -> Result<Self, String> {
        if raw
            .model_type
            .as_deref()
            .is_some_and(|kind| kind != "florence2")
        {
            return Err(format!(
                "`model_type` is {:?}; this program runs \"florence2\"",
                raw.model_type
            ));
        }
        let vision = resolve_vision(raw.vision_config, raw.projection_dim)?;
        let inner = &raw.text_config.generation;
        let source = file.as_ref().unwrap_or(inner);
        let generation = source.options();
        let forced_bos = source.forced_bos_token_id.or(inner.forced_bos_token_id);
        let forced_eos = source.forced_eos_token_id.or(inner.forced_eos_token_id);
        let mut text = resolve_text(raw.text_config, raw.tie_word_embeddings)?;
        text.forced_bos_token_id = forced_bos;
        text.forced_eos_token_id = forced_eos.or(Some(text.eos_token_id));
        if vision.projection_dim != text.d_model {
            return Err(format!(
                "`projection_dim` is {} and `d_model` {}; image tokens and text must be equally wide",
                vision.projection_dim, text.d_model
            ));
        }
        Ok(Self {
            vision,
            text,
            generation,
        })
    }
}

impl RawGeneration {
    fn options(&self) -> GenerationOptions {
        GenerationOptions {
            num_beams: self.num_beams.unwrap_or(DEFAULT_NUM_BEAMS).max(1),
            max_new_tokens: DEFAULT_MAX_NEW_TOKENS,
            min_new_tokens: 0,
            length_penalty: self.length_penalty.unwrap_or(1.0),
            early_stopping: match self.early_stopping {
                Some(RawEarlyStopping::Flag(true)) => EarlyStopping::True,
                Some(RawEarlyStopping::Word(Never::Never)) => EarlyStopping::Never,
                Some(RawEarlyStopping::Flag(false)) | None => EarlyStopping::False,
            },
            no_repeat_ngram_size: self.no_repeat_ngram_size.unwrap_or(0),
        }
    }
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let bytes = std::fs::read(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    serde_json::from_slice(&bytes).map_err(|source| ConfigError::Parse {
        path: path.to_owned(),
        source,
    })
}

fn resolve_vision(raw: RawVision, outer_projection: Option<usize>) -> Result<VisionConfig, String> {
    let dims = raw
        .embed_dim
        .or(raw.dim_embed)
        .ok_or("`vision_config` has neither `dim_embed` nor `embed_dim`")?;
    let stages = dims.len();
    let lists = [
        ("num_heads", raw.num_heads.len()),
        ("num_groups", raw.num_groups.len()),
        ("depths", raw.depths.len()),
        ("patch_size", raw.patch_size.len()),
        ("patch_stride", raw.patch_stride.len()),
        ("patch_padding", raw.patch_padding.len()),
        ("patch_prenorm", raw.patch_prenorm.len()),
    ];
    if let Some((key, length)) = lists
        .iter()
        .find(|(_, length)| *length != stages || stages == 0)
    {
        return Err(format!(
            "`vision_config.{key}` has {length} entries for {stages} stages"
        ));
    }
    if raw.window_size == 0 || raw.patch_stride.contains(&0) || raw.patch_size.contains(&0) {
        return Err("`window_size`, `patch_size` and `patch_stride` must be at least 1".to_owned());
    }
    let kind = raw.image_pos_embed.as_ref().and_then(|p| p.kind.as_deref());
    if kind.is_some_and(|kind| kind != "learned_abs_2d") {
        return Err(format!(
            "`image_pos_embed.type` is {kind:?}; only \"learned_abs_2d\" is known"
        ));
    }
    let kind = raw
        .visual_temporal_embedding
        .as_ref()
        .and_then(|t| t.kind.as_deref());
    if kind.is_some_and(|kind| !kind.eq_ignore_ascii_case("cosine")) {
        return Err(format!(
            "`visual_temporal_embedding.type` is {kind:?}; only \"COSINE\" is known"
        ));
    }
    let stages = (0..stages)
        .map(|s| StageConfig {
            dim: dims[s],
            in_dim: if s == 0 { 3 } else { dims[s - 1] },
            num_heads: raw.num_heads[s],
            num_groups: raw.num_groups[s],
            depth: raw.depths[s],
            patch_size: raw.patch_size[s],
            patch_stride: raw.patch_stride[s],
            patch_padding: raw.patch_padding[s],
            patch_prenorm: raw.patch_prenorm[s],
        })
        .collect::<Vec<_>>();
    for (s, stage) in stages.iter().enumerate() {
        for (key, parts) in [
            ("num_heads", stage.num_heads),
            ("num_groups", stage.num_groups),
        ] {
            if parts == 0 || stage.dim % parts != 0 {
                return Err(format!(
                    "stage {s}: `{key}` {parts} does not divide its width {}",
                    stage.dim
                ));
            }
        }
    }
    let last = stages.last().map_or(0, |stage| stage.dim);
    if last % 2 != 0 {
        return Err(format!(
            "the last stage's width {last} is odd; its position table has two halves"
        ));
    }
    Ok(VisionConfig {
        stages,
        window_size: raw.window_size,
        mlp_ratio: raw.mlp_ratio.unwrap_or(4.0),
        qkv_bias: raw.qkv_bias.unwrap_or(true),
        projection_dim: raw
            .projection_dim
            .or(outer_projection)
            .ok_or("`projection_dim` is missing")?,
        max_position_embeddings: raw
            .max_position_embeddings
            .or(raw.image_pos_embed.and_then(|p| p.max_pos_embeddings))
            .unwrap_or(50),
        max_temporal_embeddings: raw
            .max_temporal_embeddings
            .or(raw
                .visual_temporal_embedding
                .and_then(|t| t.max_temporal_embeddings))
            .unwrap_or(100),
        feature_sources: raw.image_feature_source.unwrap_or_else(|| {
            vec![
                FeatureSource::SpatialAvgPool,
                FeatureSource::TemporalAvgPool,
            ]
        }),
    })
}

fn resolve_text(raw: RawText, outer_tie: Option<bool>) -> Result<TextConfig, String> {
    if raw
        .activation_function
        .as_deref()
        .is_some_and(|name| name != "gelu")
    {
        return Err(format!(
            "`activation_function` is {:?}; only \"gelu\" is known",
            raw.activation_function
        ));
    }
    if raw.normalize_before == Some(true) || raw.add_final_layer_norm == Some(true) {
        return Err("`normalize_before` and `add_final_layer_norm` must be false".to_owned());
    }
    for (key, heads) in [
        ("encoder_attention_heads", raw.encoder_attention_heads),
        ("decoder_attention_heads", raw.decoder_attention_heads),
    ] {
        if heads == 0 || raw.d_model % heads != 0 {
            return Err(format!(
                "`{key}` {heads} does not divide `d_model` {}",
                raw.d_model
            ));
        }
    }
    Ok(TextConfig {
        vocab_size: raw.vocab_size,
        d_model: raw.d_model,
        encoder_layers: raw.encoder_layers,
        encoder_attention_heads: raw.encoder_attention_heads,
        encoder_ffn_dim: raw.encoder_ffn_dim,
        decoder_layers: raw.decoder_layers,
        decoder_attention_heads: raw.decoder_attention_heads,
        decoder_ffn_dim: raw.decoder_ffn_dim,
        max_position_embeddings: raw.max_position_embeddings,
        scale_embedding: raw.scale_embedding.unwrap_or(false),
        tie_word_embeddings: raw.tie_word_embeddings.or(outer_tie).unwrap_or(true),
        // The published native config omits these: the reference's defaults.
        pad_token_id: raw.pad_token_id.unwrap_or(1),
        eos_token_id: raw.eos_token_id.unwrap_or(2),
        decoder_start_token_id: raw.decoder_start_token_id.unwrap_or(2),
        forced_bos_token_id: None,
        forced_eos_token_id: None,
    })
}
