//! The language model on the CPU against the same one of tensors.

use std::path::Path;

use candle_core::{DType, Device, Tensor};

use super::Scratch;
use crate::florence2::bart::Bart;
use crate::florence2::config::Florence2Config;
use crate::florence2::form::{Packed, Packing, Placement, Tensors};
use crate::florence2::kernels::packed::Format;
use crate::florence2::kernels::test_tensors::{random, relative_error};
use crate::florence2::weights::{RandomWeights, Weights};

const SEED: u64 = 5;
const PROMPT: [u32; 4] = [0, 17, 300, 2];

/// Tokens and parents of every step: beams are split, dropped, swapped and kept.
const STEPS: [(&[u32], &[u32]); 6] = [
    (&[2], &[]),
    (&[0, 40, 700], &[0, 0, 0]),
    (&[41, 42, 43], &[2, 0, 2]),
    (&[44, 45, 46], &[1, 1, 0]),
    (&[47, 48, 49], &[0, 1, 2]),
    (&[50, 51], &[2, 1]),
];

/// Small models: heads narrower than a vector, and as wide as the published ones with more than one
/// strip of hidden columns.
fn configs() -> Vec<Florence2Config> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/parity/02-native-f16");
    let mut small = Florence2Config::load(&folder).unwrap();
    small.text.encoder_layers = 2;
    small.text.decoder_layers = 2;
    let mut wide = small.clone();
    wide.text.scale_embedding = true;
    wide.text.d_model = 192;
    wide.text.encoder_attention_heads = 3;
    wide.text.decoder_attention_heads = 3;
    wide.text.encoder_ffn_dim = 1100;
    wide.text.decoder_ffn_dim = 1100;
    vec![small, wide]
}

fn weights(config: &Florence2Config) -> Weights {
    Weights::random(RandomWeights::new(config, 64, SEED))
}

fn packed(config: &Florence2Config, format: Format) -> Bart<Packed> {
    Bart::load(&weights(config), &Packing::new(format), &config.text).unwrap()
}

fn image_features(config: &Florence2Config) -> Tensor {
    random(&[1, 37, config.text.d_model], 3)
}

/// The encoder's states, and the logits of every step.
fn run_packed(model: &Bart<Packed>, image_features: &Tensor) -> Vec<Tensor> {
    let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let scratch = Scratch::default();
    scratch.run(|| {
        let states = model
            .encode(&flat(image_features), &PROMPT, &scratch)
            .unwrap()
            .into_tensor()
            .unwrap();
        let mut cache = model.start(&flat(&states), &scratch);
        let mut results = vec![states];
        for (tokens, parents) in STEPS {
            let logits = model.step(tokens, parents, &mut cache, &scratch).unwrap();
            let shape = (tokens.len(), logits.len() / tokens.len());
            results.push(Tensor::from_vec(logits, shape, &Device::Cpu).unwrap());
        }
        results
    })
}

fn run_tensors(config: &Florence2Config) -> Vec<Tensor> {
    let target = Placement {
        device: Device::Cpu,
        dtype: DType::F32,
    };
    let model = Bart::<Tensors>::load(&weights(config), &target, &config.text).unwrap();
    let states = model.encode(&image_features(config), &PROMPT).unwrap();
    let mut cache = model.start(&states).unwrap();
    let mut results = vec![states];
    for (tokens, parents) in STEPS {
        let reordered = cache.reorder(parents).unwrap();
        let (logits, next) = model.step(tokens, reordered).unwrap();
        cache = next;
        results.push(logits);
    }
    results
}

#[test]
fn f32_agrees_with_the_tensors_through_every_change_of_parents() {
    for config in configs() {
        let ours = run_packed(&packed(&config, Format::F32), &image_features(&config));
        let twins = run_tensors(&config);
        assert_eq!(ours.len(), 1 + STEPS.len());
        for (index, (ours, twin)) in ours.iter().zip(&twins).enumerate() {
            let error = relative_error(ours, twin);
            assert!(error < 1e-5, "{} {index}: {error}", config.text.d_model);
        }
    }
}

#[test]
fn shorter_formats_stay_near_f32() {
    for config in configs() {
        let exact = run_packed(&packed(&config, Format::F32), &image_features(&config));
        for (format, tolerance) in [(Format::Bf16, 0.03), (Format::Int8, 0.06)] {
            let ours = run_packed(&packed(&config, format), &image_features(&config));
            for (index, (ours, exact)) in ours.iter().zip(&exact).enumerate() {
                let error = relative_error(ours, exact);
                assert!(
                    error > 0.0 && error < tolerance,
                    "{format:?} {index}: {error}"
                );
            }
        }
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    for config in configs() {
        for format in [Format::F32, Format::Bf16, Format::Int8] {
            let model = packed(&config, format);
            let image_features = image_features(&config);
            let on = |threads: usize| -> Vec<Vec<f32>> {
                let pool = rayon::ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .build()
                    .unwrap();
                pool.install(|| run_packed(&model, &image_features))
                    .iter()
                    .map(|t| t.flatten_all().unwrap().to_vec1().unwrap())
                    .collect()
            };
            let one = on(1);
            assert!(one == on(2) && one == on(5), "{format:?}");
        }
    }
}

#[test]
fn what_does_not_exist_is_refused() {
    let config = &configs()[0];
    let model = packed(config, Format::F32);
    let scratch = Scratch::default();
    let dim = config.text.d_model;
    let image = |tokens: usize| vec![0.1; tokens * dim];
    let error = |image: &[f32], ids: &[u32]| {
        let result = model.encode(image, ids, &scratch);
        result.unwrap_err().to_string()
    };
    let vocab = config.text.vocab_size as u32;
    assert!(error(&image(3), &[0, vocab]).contains(&format!("no token {vocab}")));
    let positions = config.text.max_position_embeddings;
    assert!(model.encode(&image(positions - 1), &[0], &scratch).is_ok());
    assert!(error(&image(positions), &[0]).contains("129 tokens"));

    assert!(error(&[], &[]).contains("neither"));

    let mut cache = model.start(&[], &scratch);
    assert!(model.step(&[2], &[], &mut cache, &scratch).is_ok());
    let mut cache = model.start(&image(3), &scratch);
    assert!(model.step(&[], &[], &mut cache, &scratch).is_err());
    assert!(model.step(&[2], &[0], &mut cache, &scratch).is_err());
    assert!(model.step(&[2], &[], &mut cache, &scratch).is_ok());
    assert!(model.step(&[2, 2], &[0, 1], &mut cache, &scratch).is_err());
    assert!(model.step(&[2, 2], &[0], &mut cache, &scratch).is_err());
    for _ in 1..positions {
        assert!(model.step(&[5], &[0], &mut cache, &scratch).is_ok());
    }
    let error = model.step(&[5], &[0], &mut cache, &scratch).unwrap_err();
    assert!(error.to_string().contains("129 tokens"), "{error}");
}
