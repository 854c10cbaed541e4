//! Factors that even out what the vision tower's layers read.
//!
//! Behind a norm, a few channels of the deeper feature maps are ten times as large as the others, with
//! every picture: what the depthwise convolutions make of a channel multiplies from block to block. A row
//! in int8 has one step for up to 1024 inputs, so that the others share few steps. Here the norm's output
//! is divided channel by channel and the layer's weights are multiplied by the same: the product is the
//! same, its steps are finer, and no time goes into it (Xiao et al., arXiv:2211.10438).

use std::collections::BTreeMap;

use super::picture;
use crate::florence2::config::Florence2Config;
use crate::florence2::cpu::Scratch;
use crate::florence2::davit::{DaViT, TOWER};
use crate::florence2::form::{Factors, Packed, Packing};
use crate::florence2::kernels::packed::Format;
use crate::florence2::weights::{Loaded, Weights};

/// Which part of an excess, as a power, the weights take over: with half of it both sides lose alike.
const EVENNESS: f32 = 0.5;

/// Looks at the made-up picture through the vision tower in int8, and finds factors for every layer that
/// reads a norm's output. Channels of ordinary size keep the factor 1.
pub(in crate::florence2) fn factors(
    config: &Florence2Config,
    weights: &Weights,
) -> Loaded<Factors> {
    let packing = Packing::new(Format::Int8);
    let mut tower: DaViT<Packed> = DaViT::load(&weights.at(TOWER, &packing), &config.vision)?;
    let Some(side) = side(config) else {
        return Ok(Factors::new());
    };
    let scratch = Scratch::default();
    scratch.run(|| tower.see(&picture(side), side, &scratch))?;
    let norms = tower.norms_before().into_iter();
    let channels: BTreeMap<String, usize> = norms
        .map(|(layer, norm)| (layer, norm.weight.len()))
        .collect();
    let layers = packing.into_layers().into_iter().filter_map(|layer| {
        let channels = channels.get(&layer.name)?;
        Some((layer.name, evened(&layer.meter.peaks(), *channels)))
    });
    Ok(layers.collect())
}

/// Side of the picture: that at which the last feature map is one attention window. None where no patch
/// fits into it.
fn side(config: &Florence2Config) -> Option<usize> {
    let vision = &config.vision;
    let stride: usize = vision
        .stages
        .iter()
        .map(|stage| stage.patch_stride)
        .product();
    let side = vision.window_size * stride;
    (vision.grid(side) > 0).then_some(side)
}

/// The factors of channels from the largest magnitudes of a layer's inputs, in which the channels come
/// once or, in a patch, several times. What a channel has more than the median channel is shared by
/// activations and weights.
fn evened(peaks: &[f32], channels: usize) -> Vec<f32> {
    let mut largest = vec![0.0f32; channels];
    for peaks in peaks.chunks(channels.max(1)) {
        for (largest, peak) in largest.iter_mut().zip(peaks) {
            *largest = largest.max(*peak);
        }
    }
    let mut sorted = largest.clone();
    sorted.sort_unstable_by(f32::total_cmp);
    let median = sorted.get(channels / 2).copied().unwrap_or(0.0);
    let factor = |peak: &f32| {
        let factor = (peak / median).max(1.0).powf(EVENNESS);
        // Where the median is zero there is nothing to compare with.
        if factor.is_finite() { factor } else { 1.0 }
    };
    largest.iter().map(factor).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_channels_above_the_median_are_divided() {
        // Two places of a patch of four channels.
        let factors = evened(&[1.0, 2.0, 0.5, 2.0, 2.0, 0.0, 2.0, 200.0], 4);
        assert_eq!(factors[..3], [1.0; 3]);
        assert!(factors[3] > 5.0 && factors[3] < 100.0, "{factors:?}");
        assert_eq!(evened(&[0.0, 0.0, 3.0], 3), [1.0; 3]);
        assert_eq!(evened(&[], 0), [0.0; 0]);
    }
}
