//! The projector on the CPU.

use super::{Array, Scratch};
use crate::florence2::config::FeatureSource;
use crate::florence2::form::Packed;
use crate::florence2::kernels;
use crate::florence2::projector::Projector;

impl Projector<Packed> {
    /// Feature map `(1, rows, columns, channels)` → image tokens `(1, tokens, d_model)`.
    pub(in crate::florence2) fn project(&self, features: &Array, scratch: &Scratch) -> Array {
        let [_, rows, columns, channels] = features.shape[..] else {
            return Array {
                values: Vec::new(),
                shape: vec![1, 0, 0],
            };
        };
        let (half, positions) = (channels / 2, rows * columns);
        let mut map = features.values.clone();
        for (position, values) in map.chunks_exact_mut(channels).enumerate() {
            let (row, column) = (position / columns, position % columns);
            let (left, right) = values.split_at_mut(half);
            add(left, &self.column_embeddings[column * half..][..half]);
            add(right, &self.row_embeddings[row * half..][..half]);
            add(values, &self.temporal_embedding);
        }
        let mut tokens = Vec::new();
        for source in &self.feature_sources {
            match source {
                FeatureSource::SpatialAvgPool => {
                    let mut sum = vec![0.0; channels];
                    map.chunks_exact(channels)
                        .for_each(|values| add(&mut sum, values));
                    tokens.extend(sum.iter().map(|sum| sum / positions as f32));
                }
                FeatureSource::TemporalAvgPool | FeatureSource::LastFrame => {
                    tokens.extend_from_slice(&map)
                }
            }
        }
        let projection = &self.image_projection;
        let (count, width) = (tokens.len() / channels, projection.outputs());
        let mut projected = vec![0.0; count * width];
        scratch.with(|worker| {
            let rows = worker
                .rows
                .convert(projection.format(), &tokens, count, channels, channels);
            projection.apply_parallel(&rows, &mut projected, width, false);
        });
        let norm = &self.image_proj_norm;
        let mut values = vec![0.0; count * width];
        kernels::layer_norm_rows(&projected, &norm.weight, &norm.bias, &mut values);
        Array {
            values,
            shape: vec![1, count, width],
        }
    }
}

fn add(to: &mut [f32], values: &[f32]) {
    to.iter_mut()
        .zip(values)
        .for_each(|(to, value)| *to += value);
}
