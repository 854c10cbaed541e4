//! The rule against checkpoints with and without outliers.

use std::path::Path;

use candle_core::{Device, Tensor};

use super::*;
use crate::florence2::Dtype;
use crate::florence2::config::Florence2Config;
use crate::florence2::kernels::test_tensors::{random, relative_error};
use crate::florence2::weights::{RandomWeights, Weights};

const SIDE: usize = 64;
const LAYER: &str = "model.vision_tower.blocks.3.0.spatial_block.ffn.fc1";
const OTHER: &str = "model.vision_tower.blocks.3.0.channel_block.ffn.fc2";
/// An outlier of the activations that [`LAYER`] meets, and one of [`OTHER`]'s weights.
const OUTLIERS: [(&str, f32); 2] = [
    (
        "model.vision_tower.blocks.3.0.spatial_block.norm2.weight",
        300.0,
    ),
    (
        "model.vision_tower.blocks.3.0.channel_block.ffn.fc2.weight",
        1000.0,
    ),
];

/// A small model, but for its last stage: few inputs cannot lose much.
fn config() -> Florence2Config {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/parity/02-native-f16");
    let mut config = Florence2Config::load(&folder).unwrap();
    config.vision.window_size = 2;
    config.vision.stages[3].dim = 768;
    config
}

fn weights(outliers: &[(&'static str, f32)]) -> Weights {
    let mut random = RandomWeights::new(&config(), SIDE, 5);
    random.outliers = outliers.to_vec();
    Weights::random(random)
}

fn quantised(config: Florence2Config, weights: &Weights) -> Florence2 {
    Florence2::assemble(config, weights, &Device::Cpu, Dtype::Int8).unwrap()
}

fn kept(model: &Florence2) -> &[String] {
    &model.quantised().unwrap().kept_in_bf16
}

fn seen(model: &Florence2) -> Tensor {
    let pixels: Vec<f32> = random(&[3 * SIDE * SIDE], 9).to_vec1().unwrap();
    model.see(&pixels, SIDE).unwrap().vision_features
}

#[test]
fn layers_with_outliers_are_kept_in_bf16_and_no_others() {
    let model = |outliers| quantised(config(), &weights(outliers));
    assert_eq!(kept(&model(&[])), [] as [&str; 0]);
    assert_eq!(kept(&model(&OUTLIERS[..1])), [LAYER]);
    assert_eq!(kept(&model(&OUTLIERS[1..])), [OTHER]);
    let both = model(&OUTLIERS);
    assert_eq!(kept(&both), [LAYER, OTHER]);
    let layers = both.quantised().unwrap().layers;
    assert!(layers > 40, "{layers}");
}

#[test]
fn layers_in_bf16_bring_the_model_nearer_to_f32() {
    let weights = weights(&OUTLIERS);
    let exact = Florence2::assemble(config(), &weights, &Device::Cpu, Dtype::F32).unwrap();
    let exact = seen(&exact);
    let (without, _) = Florence2::all_int8(config(), &weights).unwrap();
    let without = relative_error(&seen(&without), &exact);
    let with = relative_error(&seen(&quantised(config(), &weights)), &exact);
    assert!(with < 0.8 * without, "{with} for {without}");
}

#[test]
fn the_demo_checkpoint_is_in_int8_throughout() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo");
    let model = Florence2::load(&folder, &Device::Cpu, Dtype::Int8).unwrap();
    assert_eq!(kept(&model), [] as [&str; 0]);
    let model = Florence2::load(&folder, &Device::Cpu, Dtype::Bf16).unwrap();
    assert_eq!(model.quantised(), None);
}

#[test]
fn the_number_of_threads_changes_no_error() {
    let weights = weights(&OUTLIERS);
    let errors = |threads: usize| -> Vec<f32> {
        let (model, layers) = Florence2::all_int8(config(), &weights).unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().unwrap().install(|| run(&model)).unwrap();
        layers.iter().map(|layer| layer.meter.error()).collect()
    };
    let one = errors(1);
    assert!(one.iter().all(|error| *error > 0.004), "{one:?}");
    assert_eq!(one, errors(2));
    assert_eq!(one, errors(5));
}

#[test]
fn the_picture_is_one_that_the_model_can_take() {
    let with = |positions: usize, text: usize| {
        let mut config = config();
        config.vision.max_position_embeddings = positions;
        config.text.max_position_embeddings = text;
        let weights = Weights::random(RandomWeights::new(&config, SIDE, 5));
        let model = quantised(config, &weights);
        let side = side(&model);
        assert!(side.is_none_or(|side| picture(side).len() == 3 * side * side));
        side
    };
    assert_eq!(with(8, 128), Some(64));
    assert_eq!(with(1, 128), Some(32));
    assert_eq!(with(8, 11), Some(32));
    // Weights alone decide where no picture fits.
    assert_eq!(with(8, 9), None);
}
