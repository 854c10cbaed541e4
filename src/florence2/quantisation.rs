//! Which layers int8 may have: decided by measured error when a checkpoint is loaded, not by a list.
//!
//! The model is packed in int8, but for two patch convolutions, and looks at one made-up picture.
//! Meanwhile every linear layer measures what the rounding of its weights and of the activations that it
//! meets costs, as a part of the product. Layers whose error is above [`LIMIT`] are kept in bf16 too.

use candle_core::Result;

use super::config::Florence2Config;
use super::form::Layer;
use super::generate::{GenerationOptions, generate};
use super::model::Florence2;

/// The largest relative error of a layer that int8 may have.
///
/// 1024 normal values lose 0.9 % by rounding, and the layers of the demo checkpoint, which answers as
/// well in int8 as in f32, no more than twice that. One value that outweighs all others, which then share
/// few steps, makes 3.2 % of 768 inputs and 3.6 % of 1024, two of opposite signs 4.5 and 5 %.
///
/// The error counts in units of a whole row, whose steps one such value makes no coarser than
/// `√(inputs / 12) / 254` of it, and two of opposite signs than `√2` times that: layers of less than 370
/// inputs cannot reach the limit.
const LIMIT: f32 = 0.03;

/// Ids of the prompt that the model reads, spread over the vocabulary.
const PROMPT_IDS: usize = 8;
/// Tokens that it writes, and beams that it keeps: every decoder layer sees the states of several
/// tokens.
const NEW_TOKENS: usize = 6;
const BEAMS: usize = 3;

/// What int8 came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quantised {
    /// The model's linear layers.
    pub layers: usize,
    /// The names of those in bf16: two patch convolutions, then those that would lose too much in int8, in
    /// the order of loading.
    pub kept_in_bf16: Vec<String>,
}

/// Stages of the vision tower whose patch convolution is in bf16 without being measured.
///
/// Nothing passes these layers by, as the residual stream passes every other layer by, so that all of
/// what they lose stays in the map. The first one and the third bring the image features a fifth nearer
/// to f32 for 1 % of the tower's time; the other two would bring another tenth each for 1 % and 2 %.
const CONVOLUTIONS_IN_BF16: [usize; 2] = [0, 2];

/// The names of those convolutions.
pub(super) fn always_in_bf16(config: &Florence2Config) -> Vec<String> {
    let stages = CONVOLUTIONS_IN_BF16.into_iter();
    stages
        .filter(|stage| *stage < config.vision.stages.len())
        .map(|stage| format!("model.vision_tower.convs.{stage}"))
        .collect()
}

/// Runs a model that was just packed in int8, and names the layers that lose too much.
///
/// # Errors
/// When the model cannot run.
pub(super) fn judge(model: &Florence2, layers: &[Layer]) -> Result<Vec<String>> {
    run(model)?;
    let hurt = layers.iter().filter(|layer| layer.meter.error() > LIMIT);
    Ok(hurt.map(|layer| layer.name.clone()).collect())
}

/// Takes one picture and one prompt through all layers.
fn run(model: &Florence2) -> Result<()> {
    let Some(side) = side(model) else {
        return Ok(());
    };
    let vocab = model.config().text.vocab_size;
    let ids: Vec<u32> = (0..PROMPT_IDS)
        .map(|index| (index * vocab / PROMPT_IDS) as u32)
        .collect();
    let features = model.see(&picture(side), side)?;
    let states = model.encode(&features.image_features, &ids)?;
    let options = model.bounded(&GenerationOptions {
        num_beams: BEAMS,
        max_new_tokens: NEW_TOKENS,
        min_new_tokens: NEW_TOKENS,
        ..model.config().generation
    });
    let cache = model.start(&states)?;
    generate(model, cache, &options, &model.special_tokens()).map_err(candle_core::Error::wrap)?;
    Ok(())
}

/// Side of the picture: where the position tables allow it, that at which the last feature map is one
/// attention window, a quarter of the published pictures. None where the model can see no picture.
fn side(model: &Florence2) -> Option<usize> {
    let vision = &model.config().vision;
    let strides = vision.stages.iter().map(|stage| stage.patch_stride);
    let stride = strides.fold(1, usize::saturating_mul);
    let sides = (1..=vision.window_size).rev();
    let sides = sides.map(|grid| grid.saturating_mul(stride));
    let positions = model.config().text.max_position_embeddings;
    let fits = |side: &usize| {
        let tokens = model.image_tokens(*side);
        tokens.is_ok_and(|tokens| tokens + PROMPT_IDS <= positions)
    };
    sides.into_iter().find(fits)
}

/// `(3, side, side)`, in the range of normalised pixels: slopes that differ from channel to channel, a
/// bright disc, dark bars with hard edges, and noise in one quarter.
fn picture(side: usize) -> Vec<f32> {
    let mut noise = 1u32;
    let mut values = Vec::with_capacity(3 * side * side);
    for channel in 0..3 {
        for row in 0..side {
            for column in 0..side {
                let at = |index: usize| index as f32 / side as f32;
                let (y, x) = (at(row), at(column));
                let slope = [x, y, 1.0 - x * y][channel];
                let is_disc = (x - 0.3).powi(2) + (y - 0.35).powi(2) < 0.04;
                let is_bar = y > 0.6 && x < 0.5 && ((x * 16.0) as usize).is_multiple_of(2);
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let value = if is_disc {
                    [0.95, 0.8, 0.1][channel]
                } else if is_bar {
                    0.02
                } else if x > 0.5 && y > 0.5 {
                    (noise >> 8) as f32 / (1 << 24) as f32
                } else {
                    slope
                };
                values.push((value - 0.45) / 0.225);
            }
        }
    }
    values
}

#[cfg(test)]
mod tests;
