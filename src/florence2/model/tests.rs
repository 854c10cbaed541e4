//! Published names and shapes against what the model asks for.

use serde::Deserialize;

use super::*;

/// One row of the published tensor tables.
#[derive(Deserialize)]
struct Row {
    native: Option<String>,
    original: Option<String>,
    native_shape: Option<Vec<usize>>,
    original_shape: Option<Vec<usize>>,
    #[serde(default = "yes")]
    in_file: bool,
}

#[derive(Deserialize)]
struct Table {
    tensors: Vec<Row>,
}

fn yes() -> bool {
    true
}

fn data(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(path)
}

/// Assembles a model from a published configuration and the names and shapes of a published file.
fn assemble(
    config: &str,
    table: &str,
    is_native: bool,
    drop: Option<&str>,
) -> Result<Florence2, LoadError> {
    let table: Table = serde_json::from_slice(&std::fs::read(data(table)).unwrap()).unwrap();
    let tensors = table
        .tensors
        .into_iter()
        .filter(|row| row.in_file)
        .filter_map(|row| {
            if is_native {
                row.native.zip(row.native_shape)
            } else {
                row.original.zip(row.original_shape)
            }
        });
    let tensors = tensors
        .filter(|(name, _)| Some(name.as_str()) != drop)
        .collect();
    let mut config = Florence2Config::load(&data(config)).unwrap();
    config.text.vocab_size = if is_native { 51328 } else { 51289 };
    Florence2::assemble(config, &Weights::zeros(tensors), &Device::Cpu, Dtype::F32)
}

#[test]
fn published_names_and_shapes_are_taken_to_the_last_one() {
    assemble(
        "configs/original-base",
        "golden/tensors-base.json",
        false,
        None,
    )
    .unwrap();
    assemble(
        "configs/original-base",
        "golden/tensors-base.json",
        true,
        None,
    )
    .unwrap();
    assemble(
        "configs/original-large",
        "golden/tensors-large.json",
        false,
        None,
    )
    .unwrap();
    assemble(
        "configs/native-large",
        "golden/tensors-large.json",
        true,
        None,
    )
    .unwrap();
}

/// A published file of this layout holds these beside what is asked for.
const BESIDE: [&str; 2] = [
    "lm_head.weight",
    "model.multi_modal_projector.visual_temporal_embed.pos_idx_to_embed",
];

#[test]
fn random_weights_are_those_that_a_checkpoint_file_holds() {
    let folder = data("parity/02-native-f16");
    let config = Florence2Config::load(&folder).unwrap();
    let of_file = Weights::open(&folder, DType::F32, Dtype::F32).unwrap();
    Florence2::assemble(config.clone(), &of_file, &Device::Cpu, Dtype::F32).unwrap();
    let random = RandomWeights::new(&config, 64, 0);
    let random = Weights::random(random);
    Florence2::assemble(config, &random, &Device::Cpu, Dtype::F32).unwrap();
    let mut expected = of_file.taken();
    expected.retain(|name| !BESIDE.contains(&name.as_str()));
    assert_eq!(random.taken(), expected);
}

#[test]
fn a_tensor_that_is_missing_misshapen_or_extra_is_named() {
    let name = "vision_tower.blocks.2.8.channel_block.ffn.fn.net.fc2.bias";
    let error = assemble(
        "configs/original-base",
        "golden/tensors-base.json",
        false,
        Some(name),
    )
    .unwrap_err();
    assert!(
        error.to_string().contains(&format!("lack `{name}`")),
        "{error}"
    );
    let error = assemble(
        "configs/original-large",
        "golden/tensors-base.json",
        false,
        None,
    )
    .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("`vision_tower.convs.0.proj.weight` has the shape"),
        "{error}"
    );
    let mut config = Florence2Config::load(&data("configs/original-base")).unwrap();
    config.text.decoder_layers -= 1;
    let table: Table =
        serde_json::from_slice(&std::fs::read(data("golden/tensors-base.json")).unwrap()).unwrap();
    let tensors = table.tensors.into_iter().filter(|row| row.in_file);
    let tensors = tensors
        .filter_map(|row| row.original.zip(row.original_shape))
        .collect();
    let error = Florence2::assemble(config, &Weights::zeros(tensors), &Device::Cpu, Dtype::F32)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("language_model.model.decoder.layers.5.") && error.contains("others"),
        "{error}"
    );
}
