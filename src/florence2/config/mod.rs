//! `config.json` and `generation_config.json`, as both published layouts write them.
//!
//! Everything about the architecture is read from these files; nothing follows from a size name.
//! Microsoft's original layout and the native transformers layout spell a few keys differently,
//! and a file saved again by a user may carry both spellings. Training settings are ignored.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::checkpoint_file::{self, Range};
use super::generate::{GenerationOptions, SpecialTokens};

mod generation;
mod picture_side;
mod published;
mod ranges;
mod raw;

pub use picture_side::PictureSideError;
pub use published::PublishedSize;
#[cfg(feature = "server")]
pub(crate) use ranges::{MAX_BEAMS, MAX_LENGTH_PENALTY, MAX_NGRAM};

use generation::RawGeneration;
use raw::{RawConfig, RawGenerations};

/// Layer norm's epsilon everywhere in the model; the framework's default, written in no config.
pub(crate) const LAYER_NORM_EPS: f64 = 1e-5;
/// Rows of the learned text position tables before the row of position 0 (BART's padding offset).
pub(crate) const POSITION_OFFSET: usize = 2;
/// `max_new_tokens` where nobody asks for another value; what the model cards use.
pub const DEFAULT_MAX_NEW_TOKENS: usize = 1024;
/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is missing or unreadable.
    #[error(
        "cannot read {}: {}", path.display(),
        checkpoint_file::with_remedy(source, "; a checkpoint folder needs this file")
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file is not the JSON that it should be.
    #[error("{path} is not a usable configuration: {problem}", path = path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What the parser said, or which number lies outside its range.
        problem: String,
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

impl VisionConfig {
    /// Side of the last feature map for a picture of `side × side` pixels; 0 if it is too small.
    pub(crate) fn grid(&self, side: usize) -> usize {
        self.grid_after(self.stages.len(), side)
    }

    /// Side of the feature map after the first `stages` stages.
    pub(crate) fn grid_after(&self, stages: usize, side: usize) -> usize {
        self.stages.iter().take(stages).fold(side, |side, stage| {
            let padded = side.saturating_add(2 * stage.patch_padding);
            padded
                .checked_sub(stage.patch_size)
                .map_or(0, |rest| rest / stage.patch_stride + 1)
        })
    }

    /// Image tokens made of a `grid × grid` feature map.
    pub(crate) fn image_tokens(&self, grid: usize) -> usize {
        let positions = grid.saturating_mul(grid);
        let count = |source: &FeatureSource| match source {
            FeatureSource::SpatialAvgPool => 1,
            FeatureSource::TemporalAvgPool | FeatureSource::LastFrame => positions,
        };
        self.feature_sources
            .iter()
            .map(count)
            .fold(0, usize::saturating_add)
    }
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
    /// The tokens that steer a search.
    pub special: SpecialTokens,
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

impl Florence2Config {
    /// Reads the configuration files of a checkpoint folder.
    ///
    /// # Errors
    /// When `config.json` is missing, malformed, or describes another architecture.
    pub fn load(folder: &Path) -> Result<Self, ConfigError> {
        let path = folder.join("config.json");
        let value = read_json(&path, &ranges::config())?;
        let raw: RawConfig = typed(&value, &path)?;
        // The original layout's wrapper file has no effect: its inner language model is
        // configured by `text_config`. The native layout reads the file.
        let generation_path = folder.join("generation_config.json");
        let file = if raw.is_native() && generation_path.exists() {
            let value = read_json(&generation_path, &ranges::GENERATION)?;
            let file: RawGeneration = typed(&value, &generation_path)?;
            file.check_ids(raw.vocab_size())
                .map_err(|problem| ConfigError::Unsupported {
                    path: generation_path,
                    problem,
                })?;
            Some(file)
        } else {
            None
        };
        let said = RawGenerations {
            text: typed(&value["text_config"], &path)?,
            outer: typed(&value, &path)?,
            file,
        };
        raw.resolve(said)
            .map_err(|problem| ConfigError::Unsupported { path, problem })
    }
}

fn read_json(path: &Path, ranges: &[Range]) -> Result<Value, ConfigError> {
    let bytes = checkpoint_file::read(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    checkpoint_file::parse_value(&bytes, ranges).map_err(|problem| ConfigError::Parse {
        path: path.to_owned(),
        problem,
    })
}

fn typed<T: DeserializeOwned>(value: &Value, path: &Path) -> Result<T, ConfigError> {
    checkpoint_file::typed(value).map_err(|problem| ConfigError::Parse {
        path: path.to_owned(),
        problem,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_held_to_what_memory_can_bear() {
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo/config.json");
        let config = std::fs::read_to_string(demo).unwrap();
        let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
        for (window, is_taken) in [(1_u64, true), (64, true), (65, false), (1 << 40, false)] {
            config["vision_config"]["window_size"] = window.into();
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
            match Florence2Config::load(folder.path()) {
                Ok(config) => assert!(is_taken && config.vision.window_size == window as usize),
                Err(error) => {
                    let error = error.to_string();
                    assert!(!is_taken && error.contains("`window_size`"), "{error}");
                }
            }
        }
    }
}
