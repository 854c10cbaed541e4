//! What every number of `config.json` and `generation_config.json` may be.
//!
//! Wide enough for any model of this kind that a machine of today can run, and narrow enough that no
//! product of them overflows. How large the weights really are is compared with the files, tensor by
//! tensor, before anything is read.

use crate::florence2::checkpoint_file::{Range, real, whole};

/// Widest layer.
const MAX_WIDTH: u32 = 16_384;
/// Most heads, groups.
const MAX_HEADS: u32 = 1024;
/// Most layers, or pairs of blocks in a stage.
const MAX_LAYERS: u32 = 256;
/// Most rows of a table of positions.
const MAX_POSITIONS: u32 = 16_384;
/// Largest side, step or padding of a patch.
const MAX_PATCH: u32 = 64;
/// Largest side of an attention window; published models have 12. A window is padded to its whole side,
/// and its scores are the fourth power of that.
const MAX_WINDOW: u32 = 64;
/// Most rows of the embedding matrix; published models have 51,328.
const MAX_VOCAB: u32 = 1 << 20;
/// Most beams: the decoder's memory grows with their number.
pub(crate) const MAX_BEAMS: u32 = 64;
/// Longest run of tokens that may be asked not to occur twice; the longest table of positions in a
/// published checkpoint.
pub(crate) const MAX_NGRAM: u32 = 4096;
/// Largest absolute length penalty; beyond it every score is zero or infinite.
pub(crate) const MAX_LENGTH_PENALTY: f32 = 100.0;

const PENALTY: f64 = MAX_LENGTH_PENALTY as f64;

macro_rules! generation {
    ($($prefix:literal)?) => {
        [
            whole(concat!($($prefix,)? "num_beams"), 1, MAX_BEAMS),
            whole(concat!($($prefix,)? "no_repeat_ngram_size"), 0, MAX_NGRAM),
            real(concat!($($prefix,)? "length_penalty"), -PENALTY, PENALTY),
            whole(concat!($($prefix,)? "forced_bos_token_id"), 0, MAX_VOCAB),
            whole(concat!($($prefix,)? "forced_eos_token_id"), 0, MAX_VOCAB),
            whole(concat!($($prefix,)? "decoder_start_token_id"), 0, MAX_VOCAB),
            whole(concat!($($prefix,)? "bos_token_id"), 0, MAX_VOCAB),
            whole(concat!($($prefix,)? "eos_token_id"), 0, MAX_VOCAB),
        ]
    };
}

/// `generation_config.json`.
pub(super) const GENERATION: [Range; 8] = generation!();

const TEXT_GENERATION: [Range; 8] = generation!("text_config.");

const ARCHITECTURE: [Range; 27] = [
    whole("projection_dim", 1, MAX_WIDTH),
    whole("vision_config.dim_embed", 1, MAX_WIDTH),
    whole("vision_config.embed_dim", 1, MAX_WIDTH),
    whole("vision_config.num_heads", 1, MAX_HEADS),
    whole("vision_config.num_groups", 1, MAX_HEADS),
    whole("vision_config.depths", 0, MAX_LAYERS),
    whole("vision_config.patch_size", 1, MAX_PATCH),
    whole("vision_config.patch_stride", 1, MAX_PATCH),
    whole("vision_config.patch_padding", 0, MAX_PATCH),
    whole("vision_config.window_size", 1, MAX_WINDOW),
    real("vision_config.mlp_ratio", 0.01, 64.0),
    whole("vision_config.projection_dim", 1, MAX_WIDTH),
    whole("vision_config.max_position_embeddings", 1, MAX_POSITIONS),
    whole(
        "vision_config.image_pos_embed.max_pos_embeddings",
        1,
        MAX_POSITIONS,
    ),
    whole("vision_config.max_temporal_embeddings", 1, MAX_POSITIONS),
    whole(
        "vision_config.visual_temporal_embedding.max_temporal_embeddings",
        1,
        MAX_POSITIONS,
    ),
    whole("text_config.vocab_size", 1, MAX_VOCAB),
    whole("text_config.d_model", 1, MAX_WIDTH),
    whole("text_config.encoder_layers", 0, MAX_LAYERS),
    whole("text_config.encoder_attention_heads", 1, MAX_HEADS),
    whole("text_config.encoder_ffn_dim", 1, 4 * MAX_WIDTH),
    whole("text_config.decoder_layers", 0, MAX_LAYERS),
    whole("text_config.decoder_attention_heads", 1, MAX_HEADS),
    whole("text_config.decoder_ffn_dim", 1, 4 * MAX_WIDTH),
    whole("text_config.max_position_embeddings", 1, MAX_POSITIONS),
    whole("text_config.pad_token_id", 0, MAX_VOCAB),
    whole("pad_token_id", 0, MAX_VOCAB),
];

/// `config.json`.
pub(super) fn config() -> Vec<Range> {
    [&ARCHITECTURE[..], &GENERATION, &TEXT_GENERATION].concat()
}
