//! The published architectures as data, for models that are made without a checkpoint folder.
//!
//! The numbers are those of the published `config.json` of each size, and a test holds them to these
//! files. A checkpoint is never loaded by this table: its own files say what it is.

use super::{FeatureSource, Florence2Config, StageConfig, TextConfig, VisionConfig};
use crate::florence2::generate::{EarlyStopping, GenerationOptions, SpecialTokens};

/// A published size of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishedSize {
    /// 0.23 billion parameters.
    Base,
    /// 0.77 billion parameters.
    Large,
}

/// What the sizes differ in.
struct Differing {
    /// Width of the first stage, which every further one doubles.
    first_dim: usize,
    /// Heads, and groups, of the first stage, which every further one doubles.
    first_heads: usize,
    d_model: usize,
    layers: usize,
    heads: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
}

const BASE: Differing = Differing {
    first_dim: 128,
    first_heads: 4,
    d_model: 768,
    layers: 6,
    heads: 12,
    vocab_size: 51289,
    max_position_embeddings: 1024,
};

const LARGE: Differing = Differing {
    first_dim: 256,
    first_heads: 8,
    d_model: 1024,
    layers: 12,
    heads: 16,
    vocab_size: 51328,
    max_position_embeddings: 4096,
};

/// Pairs of blocks in each stage.
const DEPTHS: [usize; 4] = [1, 1, 9, 1];

impl PublishedSize {
    /// The size's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Large => "large",
        }
    }

    /// Its configuration.
    #[must_use]
    pub fn config(self) -> Florence2Config {
        let size = match self {
            Self::Base => BASE,
            Self::Large => LARGE,
        };
        Florence2Config {
            vision: vision(&size),
            text: text(&size),
            generation: GenerationOptions {
                num_beams: 3,
                max_new_tokens: super::DEFAULT_MAX_NEW_TOKENS,
                min_new_tokens: 0,
                length_penalty: 1.0,
                early_stopping: EarlyStopping::True,
                no_repeat_ngram_size: 3,
            },
        }
    }
}

fn vision(size: &Differing) -> VisionConfig {
    let stages = DEPTHS
        .iter()
        .enumerate()
        .map(|(s, depth)| {
            let is_first = s == 0;
            StageConfig {
                dim: size.first_dim << s,
                in_dim: if is_first {
                    3
                } else {
                    size.first_dim << (s - 1)
                },
                num_heads: size.first_heads << s,
                num_groups: size.first_heads << s,
                depth: *depth,
                patch_size: if is_first { 7 } else { 3 },
                patch_stride: if is_first { 4 } else { 2 },
                patch_padding: if is_first { 3 } else { 1 },
                patch_prenorm: !is_first,
            }
        })
        .collect();
    VisionConfig {
        stages,
        window_size: 12,
        mlp_ratio: 4.0,
        qkv_bias: true,
        projection_dim: size.d_model,
        max_position_embeddings: 50,
        max_temporal_embeddings: 100,
        feature_sources: vec![
            FeatureSource::SpatialAvgPool,
            FeatureSource::TemporalAvgPool,
        ],
    }
}

fn text(size: &Differing) -> TextConfig {
    TextConfig {
        vocab_size: size.vocab_size,
        d_model: size.d_model,
        encoder_layers: size.layers,
        encoder_attention_heads: size.heads,
        encoder_ffn_dim: 4 * size.d_model,
        decoder_layers: size.layers,
        decoder_attention_heads: size.heads,
        decoder_ffn_dim: 4 * size.d_model,
        max_position_embeddings: size.max_position_embeddings,
        scale_embedding: false,
        tie_word_embeddings: true,
        pad_token_id: 1,
        special: SpecialTokens {
            decoder_start_token_id: 2,
            eos_token_id: 2,
            forced_bos_token_id: Some(0),
            forced_eos_token_id: Some(2),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_tables_are_the_published_files() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/configs");
        for (size, name) in [
            (PublishedSize::Base, "original-base"),
            (PublishedSize::Large, "native-large"),
        ] {
            let published = Florence2Config::load(&folder.join(name)).unwrap();
            assert_eq!(size.config(), published, "{name}");
        }
    }
}
