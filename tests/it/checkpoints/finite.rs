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
fn a_nan_in_a_pickle_is_named_too() {
    let checkpoint = Checkpoint::copy_of("03-original-f32-bin");
    let file = checkpoint.file("pytorch_model.bin");
    let mut bytes = std::fs::read(&file).unwrap();
    set_in_zip(&mut bytes, "/data/0", &f32::NAN.to_le_bytes());
    std::fs::write(&file, bytes).unwrap();
    let error = load_error(&checkpoint, Dtype::F32);
    assert_names(&error, &["vision_tower.", "pytorch_model.bin", "NaN"]);
}

/// Sets the first bytes of the entry whose name ends so, and its checksum. Entries are stored as they are.
fn set_in_zip(zip: &mut [u8], name_end: &str, value: &[u8]) {
    let number = |zip: &[u8], at: usize, bytes: usize| {
        let bytes = zip[at..at + bytes].iter().rev();
        bytes.fold(0_usize, |number, byte| number << 8 | usize::from(*byte))
    };
    let is_entry = |at: &usize| {
        let length = number(zip, at + 28, 2);
        zip[*at..].starts_with(b"PK\x01\x02")
            && zip[at + 46..at + 46 + length].ends_with(name_end.as_bytes())
    };
    let entry = (0..zip.len() - 46).find(is_entry).unwrap();
    let (size, header) = (number(zip, entry + 24, 4), number(zip, entry + 42, 4));
    let start = header + 30 + number(zip, header + 26, 2) + number(zip, header + 28, 2);
    zip[start..start + value.len()].copy_from_slice(value);
    let sum = zip[start..start + size].iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0xEDB8_8320 & (sum & 1).wrapping_neg())
        })
    });
    zip[entry + 16..entry + 20].copy_from_slice(&(!sum).to_le_bytes());
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
