//! Values with which nothing can be computed: in the files, and while computing.

use super::*;

#[test]
fn one_value_that_is_no_number_refuses_to_load_in_any_dtype() {
    let half: fn(f32) -> Vec<u8> = |value| f16::from_f32(value).to_le_bytes().to_vec();
    let brain: fn(f32) -> Vec<u8> = |value| bf16::from_f32(value).to_le_bytes().to_vec();
    let single: fn(f32) -> Vec<u8> = |value| value.to_le_bytes().to_vec();
    let tensors = [
        (ORIGINAL, half, "vision_tower.convs.0.norm.weight"),
        (ORIGINAL, half, "language_model.model.shared.weight"),
        (ORIGINAL, half, "language_model.final_logits_bias"),
        (
            NATIVE,
            half,
            "model.multi_modal_projector.image_projection.weight",
        ),
        (
            "08-native-bf16",
            brain,
            "model.language_model.decoder.layers.0.fc2.bias",
        ),
        (F32, single, "image_pos_embed.row_embeddings.weight"),
        (
            F32,
            single,
            "language_model.model.encoder.embed_positions.weight",
        ),
    ];
    for (checkpoint, bytes, tensor) in tensors {
        for (value, word) in [
            (f32::NAN, "NaN"),
            (f32::INFINITY, "inf"),
            (f32::NEG_INFINITY, "-inf"),
        ] {
            let checkpoint = Checkpoint::copy_of(checkpoint);
            checkpoint.set(WEIGHTS, tensor, &bytes(value));
            for dtype in ALL_DTYPES {
                let error = load_error(&checkpoint, dtype);
                assert_names(&error, &[tensor, WEIGHTS, word]);
            }
        }
    }
}

#[test]
fn a_shard_with_a_nan_is_named_by_its_file() {
    let checkpoint = Checkpoint::copy_of("25-original-f32-sharded");
    let (file, tensor) = (
        "model-00003-of-00003.safetensors",
        "vision_tower.convs.0.norm.bias",
    );
    checkpoint.set(file, tensor, &f32::NAN.to_le_bytes());
    assert_names(&load_error(&checkpoint, Dtype::F32), &[tensor, file, "NaN"]);
}

#[test]
fn a_value_too_large_for_the_dtype_names_the_way_out() {
    let tensor = "vision_tower.convs.0.norm.bias";
    for (value, refused) in [
        (65_519.0_f32, &[][..]),
        (65_520.0, &[Dtype::F16][..]),
        (f32::MAX, &[Dtype::F16, Dtype::Bf16, Dtype::Int8]),
    ] {
        let checkpoint = Checkpoint::copy_of(F32);
        checkpoint.set(WEIGHTS, tensor, &value.to_le_bytes());
        for dtype in ALL_DTYPES {
            if refused.contains(&dtype) {
                assert_names(&load_error(&checkpoint, dtype), &[tensor, "--dtype f32"]);
            } else {
                let loaded = Florence2::load(checkpoint.path(), &Device::Cpu, dtype);
                // int8 tries the model while it loads, and may find that its answers are none.
                assert!(loaded.is_ok() || dtype == Dtype::Int8, "{value} {dtype:?}");
            }
        }
    }
}

/// Finite weights with which this stage cannot stay finite: `(checkpoint, tensor, values, stage)`.
fn overflowing() -> [(&'static str, &'static str, &'static str); 3] {
    [
        (F32, "vision_tower.convs.0.norm.weight", "vision tower"),
        (
            F32,
            "language_model.model.encoder.layers.0.final_layer_norm.weight",
            "encoder",
        ),
        (
            F32,
            "language_model.model.decoder.layers.0.final_layer_norm.weight",
            "decoder",
        ),
    ]
}

fn overflows(name: &str, tensor: &str) -> Checkpoint {
    let checkpoint = Checkpoint::copy_of(name);
    let huge: Vec<u8> = [3e38_f32, -3e38]
        .repeat(4)
        .into_iter()
        .flat_map(f32::to_le_bytes)
        .collect();
    checkpoint.set(WEIGHTS, tensor, &huge);
    checkpoint
}

#[test]
fn numbers_that_overflow_while_computing_fail_the_call_by_stage() {
    for (name, tensor, stage) in overflowing() {
        let checkpoint = overflows(name, tensor);
        let processor = Processor::load(checkpoint.path()).unwrap();
        let mut model = Florence2::load(checkpoint.path(), &Device::Cpu, Dtype::F32).unwrap();
        let picture = image::open(checkpoint.file("picture.png"))
            .unwrap()
            .to_rgb8();
        let pixels = processor.pixel_values(&picture);
        for num_beams in [1, 3] {
            let mut generation = model.config().generation;
            generation.num_beams = num_beams;
            generation.max_new_tokens = 8;
            let input = PreparedInput {
                pixel_values: pixels.data.clone(),
                side: pixels.side,
                prompts: vec![processor.input_ids("What is it?", 100).unwrap()],
                generation,
            };
            let found = model.predict(&input, &|| true);
            assert!(
                matches!(found, Err(PredictError::NotFinite { stage: found }) if found == stage),
                "{stage}, {num_beams} beams: {found:?}"
            );
        }
    }
}

#[test]
fn a_model_that_overflows_is_never_called_ready() {
    let (name, tensor, stage) = overflowing()[1];
    let checkpoint = overflows(name, tensor);
    let data_dir = tempfile::tempdir().unwrap();
    let output = program(&[
        "serve",
        "--port",
        "0",
        "--model",
        checkpoint.path().to_str().unwrap(),
        "--data-dir",
        data_dir.path().to_str().unwrap(),
    ]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_names(&said, &["first answer failed", "not finite", stage]);
    let (code, said) = run(&checkpoint, &["--task", "caption"]);
    assert_eq!(code, Some(1));
    assert_names(&said, &["not finite", stage]);
}
