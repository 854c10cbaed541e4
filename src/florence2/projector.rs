//! From the last feature map to image tokens: positions, pooling, projection.
//!
//! The order is the reference's: 2-D position and temporal vectors are added first, then the map is
//! pooled into tokens (by default one averaged token and one for each position), then every token
//! is projected and normalised. Reads `model.multi_modal_projector.*`.

use candle_core::{DType, Device, Result, Tensor};

use super::config::{FeatureSource, VisionConfig};
use super::form::{Form, Tensors};
use super::layers::LayerNorm;
use super::weights::names::Layout;
use super::weights::{Loaded, Section};

/// The projector.
#[derive(Debug)]
pub(super) struct Projector<F: Form> {
    /// `(positions, channels / 2)`: the first half of a position's vector is its column's.
    pub(super) column_embeddings: F::Vector,
    /// `(positions, channels / 2)`.
    pub(super) row_embeddings: F::Vector,
    /// `(channels)`: row 0 of the temporal table, as a still picture is frame 0.
    pub(super) temporal_embedding: F::Vector,
    pub(super) feature_sources: Vec<FeatureSource>,
    pub(super) image_projection: F::Linear,
    pub(super) image_proj_norm: LayerNorm<F>,
}

impl<F: Form> Projector<F> {
    /// Loads `model.multi_modal_projector`.
    pub(super) fn load(section: &Section<'_, F>, config: &VisionConfig) -> Loaded<Self> {
        let channels = config.stages.last().map_or(0, |stage| stage.dim);
        let (positions, width) = (config.max_position_embeddings, config.projection_dim);
        let tables = section.at("image_position_embed");
        let projection = "image_projection.weight";
        let weight = match section.layout() {
            Layout::Native => section.host_tensor(projection, &[width, channels])?,
            Layout::Original => section
                .host_tensor(projection, &[channels, width])?
                .t()?
                .contiguous()?,
        };
        let temporal = "visual_temporal_embed.pos_idx_to_embed";
        let temporal_embedding = if section.contains(temporal) {
            section
                .host_tensor(temporal, &[config.max_temporal_embeddings, channels])?
                .get(0)?
        } else {
            first_temporal_row(channels)?
        };
        Ok(Self {
            column_embeddings: tables
                .vector("column_embeddings.weight", &[positions, channels / 2])?,
            row_embeddings: tables.vector("row_embeddings.weight", &[positions, channels / 2])?,
            temporal_embedding: F::vector(section.target(), temporal_embedding)?,
            feature_sources: config.feature_sources.clone(),
            image_projection: F::linear(
                section.target(),
                section.at("image_projection").name(),
                weight,
                None,
            )?,
            image_proj_norm: LayerNorm::load(&section.at("image_proj_norm"), width)?,
        })
    }
}

impl Projector<Tensors> {
    /// Feature map `(batch, rows, columns, channels)` → image tokens `(batch, tokens, d_model)`.
    pub(super) fn forward(&self, features: &Tensor) -> Result<Tensor> {
        let (batch, rows, columns, channels) = features.dims4()?;
        let half = channels / 2;
        let x = self.column_embeddings.narrow(0, 0, columns)?.unsqueeze(0)?;
        let y = self.row_embeddings.narrow(0, 0, rows)?.unsqueeze(1)?;
        let positions = Tensor::cat(
            &[
                x.broadcast_as((rows, columns, half))?,
                y.broadcast_as((rows, columns, half))?,
            ],
            2,
        )?;
        let map = features
            .broadcast_add(&positions)?
            .broadcast_add(&self.temporal_embedding)?
            .reshape((batch, rows * columns, channels))?;
        let tokens = self
            .feature_sources
            .iter()
            .map(|source| match source {
                // Averaged in f32: half precision loses digits over hundreds of positions.
                FeatureSource::SpatialAvgPool => map
                    .to_dtype(DType::F32)?
                    .mean_keepdim(1)?
                    .to_dtype(map.dtype()),
                FeatureSource::TemporalAvgPool | FeatureSource::LastFrame => Ok(map.clone()),
            })
            .collect::<Result<Vec<_>>>()?;
        let tokens = Tensor::cat(&tokens, 1)?;
        self.image_proj_norm
            .forward(&self.image_projection.forward(&tokens)?)
    }
}

/// Row 0 of the cosine table: sin 0 at even channels, cos 0 at odd ones.
fn first_temporal_row(channels: usize) -> Result<Tensor> {
    let row: Vec<f32> = (0..channels).map(|c| (c % 2) as f32).collect();
    Tensor::new(row, &Device::Cpu)
}
