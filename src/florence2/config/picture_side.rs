//! Does a picture of this size fit the checkpoint?

use super::{Florence2Config, VisionConfig};

/// Most values of the widest layer over one feature map, 4 GiB in f32: seven times what the published
/// large model needs for the largest picture that its position tables allow.
const MAX_MAP_VALUES: usize = 1 << 30;

/// The checkpoint's files do not fit each other, or this machine.
#[derive(Debug, thiserror::Error)]
pub enum PictureSideError {
    /// Its pictures do not fit its position tables.
    #[error(
        "pictures of {side}×{side} become a map of {grid}×{grid} and {tokens} tokens; this checkpoint has \
         positions for {max_grid}×{max_grid} and {max_tokens}: check `size` in preprocessor_config.json"
    )]
    Positions {
        /// Side of the picture in pixels.
        side: usize,
        /// Side of the last feature map.
        grid: usize,
        /// Largest side of it.
        max_grid: usize,
        /// Image tokens.
        tokens: usize,
        /// Positions of picture and prompt together.
        max_tokens: usize,
    },
    /// What is computed from its pictures would fill any memory.
    #[error(
        "pictures of {side}×{side} need layers of {values} values, and {MAX_MAP_VALUES} are possible: check `size` \
         in preprocessor_config.json, and `patch_stride` and `embed_dim` in config.json"
    )]
    Memory {
        /// Side of the picture in pixels.
        side: usize,
        /// Values of the largest layer.
        values: usize,
    },
}

impl Florence2Config {
    /// Image tokens that a picture of `side × side` pixels becomes.
    pub(crate) fn image_tokens(&self, side: usize) -> Result<usize, PictureSideError> {
        let Self { vision, text, .. } = self;
        let grid = vision.grid(side);
        let tokens = vision.image_tokens(grid);
        let (max_grid, max_tokens) = (vision.max_position_embeddings, text.max_position_embeddings);
        if grid == 0 || grid > max_grid || tokens.saturating_add(2) > max_tokens {
            return Err(PictureSideError::Positions {
                side,
                grid,
                max_grid,
                tokens,
                max_tokens,
            });
        }
        let values = vision.largest_layer(side);
        if values > MAX_MAP_VALUES {
            return Err(PictureSideError::Memory { side, values });
        }
        Ok(tokens)
    }
}

impl VisionConfig {
    /// Values of the widest layer, the feed-forward's hidden one, over the largest feature map, or of the
    /// picture itself.
    fn largest_layer(&self, side: usize) -> usize {
        let layers = self.stages.iter().enumerate().map(|(s, stage)| {
            let grid = self.grid_after(s + 1, side);
            let width = (stage.dim as f64 * self.mlp_ratio.max(3.0)) as usize;
            grid.saturating_mul(grid).saturating_mul(width)
        });
        let picture = side.saturating_mul(side).saturating_mul(3);
        layers.fold(picture, usize::max)
    }
}

#[cfg(test)]
mod tests {
    use super::super::PublishedSize;
    use super::*;

    #[test]
    fn published_models_take_every_picture_that_their_tables_allow() {
        for size in [PublishedSize::Base, PublishedSize::Large] {
            let mut config = size.config();
            assert_eq!(config.image_tokens(768).unwrap(), 577);
            let text = &mut config.text;
            text.max_position_embeddings = 4096;
            assert_eq!(config.image_tokens(1600).unwrap(), 2501);
            let wide = config.image_tokens(1632);
            assert!(matches!(
                wide,
                Err(PictureSideError::Positions { grid: 51, .. })
            ));
        }
    }

    #[test]
    fn pictures_larger_than_any_memory_are_refused_whatever_the_strides() {
        let mut config = PublishedSize::Base.config();
        for stage in &mut config.vision.stages {
            (stage.patch_size, stage.patch_stride) = (64, 64);
        }
        for side in [1 << 24, 1 << 40, usize::MAX] {
            assert!(config.image_tokens(side).is_err(), "{side}");
        }
    }

    #[test]
    fn a_tower_that_would_fill_any_memory_is_refused() {
        let mut config = PublishedSize::Large.config();
        // A first stage that keeps every pixel, and later ones that make up for it.
        for (stage, stride) in config.vision.stages.iter_mut().zip([1, 8, 8, 8]) {
            stage.patch_stride = stride;
        }
        let error = config.image_tokens(4096).unwrap_err().to_string();
        assert!(
            error.contains("patch_stride") && error.contains("4096"),
            "{error}"
        );
    }
}
