//! The configuration files as they are written, and how their spellings come to one meaning.

use serde::Deserialize;

use super::generation::{self, RawGeneration, Settled};
use super::{FeatureSource, Florence2Config, StageConfig, TextConfig, VisionConfig};
use crate::florence2::generate::SpecialTokens;

/// Most stages of the vision tower; published models have four.
const MAX_STAGES: usize = 16;
/// Most ways to turn one feature map into tokens; published models have two, of three that there are.
const MAX_SOURCES: usize = 16;

#[derive(Deserialize)]
pub(super) struct RawConfig {
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
}

/// What the files say about the search.
pub(super) struct RawGenerations {
    /// Inside `text_config`.
    pub(super) text: RawGeneration,
    /// Beside it, as saved configurations have it.
    pub(super) outer: RawGeneration,
    /// In a file of its own, if there is one and the layout reads it.
    pub(super) file: Option<RawGeneration>,
}

impl RawConfig {
    /// Whether the file is in the native transformers layout; a published native file carries both
    /// spellings of the widths, an original one only `dim_embed`.
    pub(super) fn is_native(&self) -> bool {
        self.vision_config.embed_dim.is_some()
    }

    /// The meaning of the files, or which value cannot be used.
    pub(super) fn resolve(self, said: RawGenerations) -> Result<Florence2Config, String> {
        let is_native = self.is_native();
        let raw = self;
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
        let vocab_size = raw.text_config.vocab_size;
        said.text
            .check_ids(vocab_size)
            .map_err(|problem| format!("text_config: {problem}"))?;
        let Settled { options, special } = if is_native {
            if said.file.is_none() {
                said.outer.check_ids(vocab_size)?;
            }
            generation::native(said.text, said.outer, said.file)
        } else {
            generation::original(said.text)
        };
        generation::check_settled(&special, vocab_size)?;
        let text = resolve_text(raw.text_config, raw.tie_word_embeddings, special)?;
        if vision.projection_dim != text.d_model {
            return Err(format!(
                "`projection_dim` is {} and `d_model` {}; image tokens and text must be equally wide",
                vision.projection_dim, text.d_model
            ));
        }
        Ok(Florence2Config {
            vision,
            text,
            generation: options,
        })
    }

    /// Rows of the embedding matrix.
    pub(super) fn vocab_size(&self) -> usize {
        self.text_config.vocab_size
    }
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
    if raw
        .image_feature_source
        .as_ref()
        .is_some_and(|sources| sources.is_empty() || sources.len() > MAX_SOURCES)
    {
        return Err(format!(
            "`vision_config.image_feature_source` must have 1 to {MAX_SOURCES} entries"
        ));
    }
    if stages > MAX_STAGES {
        return Err(format!(
            "`vision_config` has {stages} stages; up to {MAX_STAGES} are possible"
        ));
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
            if parts == 0 || !stage.dim.is_multiple_of(parts) {
                return Err(format!(
                    "stage {s}: `{key}` {parts} does not divide its width {}",
                    stage.dim
                ));
            }
        }
    }
    let last = stages.last().map_or(0, |stage| stage.dim);
    if !last.is_multiple_of(2) {
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

fn resolve_text(
    raw: RawText,
    outer_tie: Option<bool>,
    special: SpecialTokens,
) -> Result<TextConfig, String> {
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
        if heads == 0 || !raw.d_model.is_multiple_of(heads) {
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
        // The published native config omits it: the reference's default.
        pad_token_id: raw.pad_token_id.unwrap_or(1),
        special,
    })
}
