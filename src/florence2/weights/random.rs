//! Random weights, made as the model asks for them, so that a machine can be measured before any
//! checkpoint is there.
//!
//! Every tensor follows from the seed and its name alone: neither the order of loading nor the number
//! of threads changes a value. The scales are those of the project's random reference checkpoints
//! (`tests/reference/random_weights.py`): activations keep their size from layer to layer, and
//! attention is peaked without multiplying rounding. Nothing is kept: the peak is the model plus one
//! tensor.

use candle_core::{Device, Result, Tensor};
use rayon::prelude::*;

use crate::florence2::config::Florence2Config;

/// Standard deviation of a logit.
const LOGIT_SPREAD: f32 = 3.0;
/// Size of the text's position vectors relative to the token vectors.
const POSITIONS: f32 = 5.0;
/// Gain of queries and keys: attention that prefers something.
const QUERY_KEY_GAIN: f32 = 1.4;
/// Gains of cross-attention and of the other decoder layers, at [`GAINS_AT_LAYERS`] layers.
const CROSS_ATTENTION_GAIN: f32 = 0.65;
const DECODER_GAIN: f32 = 0.5;
const GAINS_AT_LAYERS: f32 = 6.0;
/// Standard deviation of a channel attention score. It sums over all positions of a map, so that
/// without a hold on it large maps give attention so hard that rounding decides.
const CHANNEL_SCORE: f32 = 2.0;
/// Values of one parallel task.
const TASK: usize = 1 << 16;
/// 2⁶⁴ divided by the golden ratio: the step of the SplitMix64 generator.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The seed, and what the scales depend on.
pub(crate) struct RandomWeights {
    seed: u64,
    decoder_layers: usize,
    /// Side of each stage's feature map.
    map_sides: Vec<usize>,
    /// Every matrix with the deviation with which transformers initialises it, norms and biases plain.
    #[cfg(test)]
    pub(crate) as_initialised: bool,
    /// Tensors whose first column is so many times larger than the others.
    #[cfg(test)]
    pub(crate) outliers: Vec<(&'static str, f32)>,
}

/// How the values of one tensor are spread.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread {
    mean: f32,
    deviation: f32,
    /// From this value on the deviation is another one.
    rest: Option<(usize, f32)>,
}

impl Spread {
    fn around(mean: f32, deviation: f32) -> Self {
        Self {
            mean,
            deviation,
            rest: None,
        }
    }
}

impl RandomWeights {
    /// For pictures of `side × side` pixels.
    pub(crate) fn new(config: &Florence2Config, side: usize, seed: u64) -> Self {
        let vision = &config.vision;
        let map_sides = (1..=vision.stages.len())
            .map(|stages| vision.grid_after(stages, side))
            .collect();
        Self {
            seed,
            decoder_layers: config.text.decoder_layers,
            map_sides,
            #[cfg(test)]
            as_initialised: false,
            #[cfg(test)]
            outliers: Vec::new(),
        }
    }

    /// The tensor of that native name, in f32.
    pub(super) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let spread = self.spread(name, shape);
        let key = mix(self.seed.wrapping_mul(GOLDEN) ^ hash(name));
        let mut values = vec![0.0; shape.iter().product()];
        values
            .par_chunks_mut(TASK)
            .enumerate()
            .for_each(|(task, values)| {
                for (at, value) in (task * TASK..).zip(values) {
                    let deviation = match spread.rest {
                        Some((first, deviation)) if at >= first => deviation,
                        _ => spread.deviation,
                    };
                    *value = spread.mean + deviation * noise(key, at as u64);
                }
            });
        #[cfg(test)]
        for (outlier, factor) in &self.outliers {
            if *outlier == name {
                let columns = shape.last().copied().unwrap_or(1);
                values
                    .iter_mut()
                    .step_by(columns)
                    .for_each(|v| *v *= factor);
            }
        }
        Tensor::from_vec(values, shape, &Device::Cpu)
    }

    fn spread(&self, name: &str, shape: &[usize]) -> Spread {
        let layer = name.rsplit('.').nth(1).unwrap_or_default();
        let is_bias = name.ends_with("bias");
        #[cfg(test)]
        if self.as_initialised {
            return match (is_bias, layer.contains("norm")) {
                (false, false) => Spread::around(0.0, 0.02),
                (false, true) => Spread::around(1.0, 0.0),
                (true, _) => Spread::around(0.0, 0.0),
            };
        }
        if layer.contains("norm") {
            return if is_bias {
                Spread::around(0.0, 0.2)
            } else {
                Spread::around(1.0, 0.3)
            };
        }
        if is_bias {
            return Spread::around(0.0, 0.1);
        }
        let width = shape.last().map_or(1.0, |width| *width as f32);
        match layer {
            "shared" | "lm_head" => return Spread::around(0.0, LOGIT_SPREAD / width.sqrt()),
            "embed_positions" => {
                return Spread::around(0.0, POSITIONS * LOGIT_SPREAD / width.sqrt());
            }
            "row_embeddings" | "column_embeddings" => return Spread::around(0.0, 0.4),
            _ => {}
        }
        let inputs: usize = shape.iter().skip(1).product();
        let is_depthwise = shape.len() == 4 && shape.get(1) == Some(&1);
        if is_depthwise {
            return Spread::around(0.0, 0.2);
        }
        let scale = 1.0 / (inputs as f32).sqrt();
        if name.contains("channel_attn.qkv") {
            // Queries and keys are two thirds of the rows, values the rest.
            let queries_and_keys = shape.iter().product::<usize>() / 3 * 2;
            return Spread {
                mean: 0.0,
                deviation: self.channel_gain(name, inputs) * scale,
                rest: Some((queries_and_keys, scale)),
            };
        }
        Spread::around(0.0, self.gain(name) * scale)
    }

    fn gain(&self, name: &str) -> f32 {
        let per_layer = (GAINS_AT_LAYERS / self.decoder_layers.max(1) as f32).powf(0.25);
        if ["q_proj", "k_proj", "qkv"]
            .iter()
            .any(|part| name.contains(part))
        {
            QUERY_KEY_GAIN
        } else if name.contains("encoder_attn") {
            CROSS_ATTENTION_GAIN * per_layer
        } else if name.contains(".decoder.") {
            DECODER_GAIN * per_layer
        } else {
            1.0
        }
    }

    fn channel_gain(&self, name: &str, width: usize) -> f32 {
        let stage = name
            .split_once("blocks.")
            .and_then(|(_, rest)| rest.split('.').next()?.parse::<usize>().ok());
        let side = stage.and_then(|stage| self.map_sides.get(stage));
        let side = side.copied().unwrap_or(1).max(1) as f32;
        (CHANNEL_SCORE * (width as f32).sqrt() / side).sqrt()
    }
}

/// A value that is normal enough for weights: the sum of four uniform 16-bit numbers, brought to mean
/// 0 and deviation 1.
fn noise(key: u64, at: u64) -> f32 {
    const MEAN: f32 = 4.0 * 65_535.0 / 2.0;
    // The variance of one is 65536² / 12.
    const DEVIATION: f32 = 37_837.227;
    let bits = mix(key.wrapping_add(at.wrapping_mul(GOLDEN)));
    let parts = [bits, bits >> 16, bits >> 32, bits >> 48];
    let sum: u64 = parts.iter().map(|part| part & 0xFFFF).sum();
    (sum as f32 - MEAN) / DEVIATION
}

/// SplitMix64's finaliser.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// FNV-1a, written out because the standard hasher promises no stable values.
fn hash(name: &str) -> u64 {
    name.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::florence2::config::PublishedSize;
    use crate::florence2::generate::{GenerationOptions, generate};
    use crate::florence2::{Dtype, Florence2};

    const SIDE: usize = 64;
    const NEW_TOKENS: usize = 12;

    /// What a tiny model with random weights says about a picture.
    fn tokens(seed: u64) -> Vec<u32> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/parity/02-native-f16");
        let config = Florence2Config::load(&folder).unwrap();
        let model = Florence2::random(config, SIDE, seed, &Device::Cpu, Dtype::F32).unwrap();
        let pixels: Vec<f32> = (0..3 * SIDE * SIDE).map(|i| noise(7, i as u64)).collect();
        let features = model.see(&pixels, SIDE).unwrap();
        let states = model
            .encode(&features.image_features, &[0, 5, 6, 2])
            .unwrap();
        let largest = states.abs().unwrap().max_all().unwrap();
        let largest = largest.to_scalar::<f32>().unwrap();
        assert!(largest > 0.5 && largest < 20.0, "{largest}");
        let options = GenerationOptions {
            min_new_tokens: NEW_TOKENS,
            max_new_tokens: NEW_TOKENS,
            ..model.config().generation
        };
        let cache = model.start(&states).unwrap();
        generate(&model, cache, &options, &model.special_tokens())
            .unwrap()
            .token_ids
    }

    #[test]
    fn the_seed_decides_what_the_model_says() {
        let first = tokens(1);
        assert_eq!(first.len(), 1 + NEW_TOKENS);
        assert_eq!(first, tokens(1));
        assert_ne!(first, tokens(2));
    }

    #[test]
    fn values_have_the_spread_that_their_name_calls_for() {
        let random = RandomWeights::new(&PublishedSize::Large.config(), 768, 3);
        assert_eq!(random.map_sides, [192, 96, 48, 24]);
        let of = |name: &str, shape: &[usize]| {
            let values: Vec<f32> = random
                .tensor(name, shape)
                .unwrap()
                .flatten_all()
                .unwrap()
                .to_vec1()
                .unwrap();
            let count = values.len() as f32;
            let mean = values.iter().sum::<f32>() / count;
            let square = values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / count;
            (mean, square.sqrt())
        };
        // Half a million values: the estimates are good to half a percent.
        let near = |(mean, deviation): (f32, f32), at: f32, wanted: f32| {
            assert!((mean - at).abs() < 0.005 * wanted.max(at), "{mean}");
            assert!((deviation / wanted - 1.0).abs() < 0.005, "{deviation}");
        };
        near(of("x.norm1.weight", &[500_000]), 1.0, 0.3);
        near(of("x.fc1.bias", &[500_000]), 0.0, 0.1);
        let layer = "model.language_model.encoder.layers.0.fc1.weight";
        near(of(layer, &[500, 1024]), 0.0, 1.0 / 32.0);
        let table = "model.language_model.shared.weight";
        near(of(table, &[500, 1024]), 0.0, 3.0 / 32.0);
    }

    #[test]
    fn channel_attention_is_held_by_the_size_of_its_map() {
        let random = RandomWeights::new(&PublishedSize::Large.config(), 768, 3);
        let name = "model.vision_tower.blocks.1.0.channel_block.channel_attn.qkv.weight";
        let spread = random.spread(name, &[1536, 512]);
        let gain = (2.0 * 512f32.sqrt() / 96.0).sqrt();
        let scale = 1.0 / 512f32.sqrt();
        assert!((spread.deviation - gain * scale).abs() < 1e-6);
        assert_eq!(spread.rest, Some((1024 * 512, scale)));
    }
}
