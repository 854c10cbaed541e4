//! What people name in a checkpoint's place.

use super::*;

const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:512e847f6e8d5720d9fd85e2\nsize 1550000000\n";

#[test]
fn a_git_lfs_pointer_in_any_files_place_is_called_that() {
    for (name, file) in [
        (ORIGINAL, WEIGHTS),
        (
            "05-original-f16-sharded",
            "model-00002-of-00003.safetensors",
        ),
        ("05-original-f16-sharded", "model.safetensors.index.json"),
        ("03-original-f32-bin", "pytorch_model.bin"),
        (NATIVE, "config.json"),
        (NATIVE, "generation_config.json"),
        (NATIVE, "tokenizer.json"),
        (NATIVE, "preprocessor_config.json"),
    ] {
        let checkpoint = Checkpoint::copy_of(name);
        checkpoint.write(file, POINTER);
        let (code, said) = run(&checkpoint, &["--task", "caption"]);
        assert_eq!(code, Some(1), "{file}: {said}");
        assert_names(&said, &[file, "git-lfs pointer", "git lfs pull"]);
        // One remedy, not a second that contradicts it.
        for other in ["needs this file", "fetch the checkpoint", "damaged"] {
            assert!(!said.contains(other), "{file}: {said}");
        }
    }
}

#[test]
fn names_behind_a_common_prefix_are_called_that() {
    for (name, prefix) in [
        (ORIGINAL, "module."),
        (NATIVE, "module."),
        (ORIGINAL, "model."),
    ] {
        let checkpoint = Checkpoint::copy_of(name);
        checkpoint.edit_weights(WEIGHTS, |header, _| {
            let entries = std::mem::take(header.as_object_mut().unwrap());
            let renamed = entries.into_iter().map(|(name, entry)| {
                let is_tensor = !name.starts_with("__");
                (
                    if is_tensor {
                        format!("{prefix}{name}")
                    } else {
                        name
                    },
                    entry,
                )
            });
            *header = Value::Object(renamed.collect());
        });
        let error = load_error(&checkpoint, Dtype::F32);
        assert_names(&error, &[&format!("{prefix:?}"), "save"]);
    }
}

#[test]
fn what_is_no_checkpoint_is_called_what_it_is() {
    let checkpoint = Checkpoint::copy_of(ORIGINAL);
    checkpoint.remove("tokenizer.json");
    let (code, said) = run(&checkpoint, &["--task", "caption"]);
    assert_eq!(code, Some(1));
    assert_names(&said, &["tokenizer.json", "copy", "base model"]);

    checkpoint.remove("config.json");
    checkpoint.write(
        "adapter_config.json",
        r#"{"peft_type": "LORA", "base_model_name_or_path": "microsoft/Florence-2-base-ft"}"#,
    );
    let (code, said) = run(&checkpoint, &["--task", "caption"]);
    assert_eq!(code, Some(1));
    assert_names(
        &said,
        &[
            "adapter (LoRA)",
            "microsoft/Florence-2-base-ft",
            "merge_and_unload",
        ],
    );

    let checkpoint = Checkpoint::copy_of(ORIGINAL);
    checkpoint.write(WEIGHTS, b"");
    assert_names(&load_error(&checkpoint, Dtype::F32), &[WEIGHTS, "cut off"]);
    checkpoint.write("config.json", "<!DOCTYPE html><html>Log in</html>");
    assert_names(
        &load_error(&checkpoint, Dtype::F32),
        &["config.json", "web page"],
    );
}

#[test]
fn weights_stored_with_more_than_the_file_holds_are_refused() {
    let checkpoint = Checkpoint::copy_of(ORIGINAL);
    checkpoint.edit_weights(WEIGHTS, |header, _| {
        let tensor = &mut header["vision_tower.convs.0.norm.weight"];
        tensor["shape"] = json!([1_u64 << 62]);
    });
    assert_names(&load_error(&checkpoint, Dtype::F32), &[WEIGHTS]);
}
