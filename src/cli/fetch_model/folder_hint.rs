//! A folder that is no complete checkpoint: what it is instead, by what lies in it, and what to do.
//!
//! Everything here reads names and one small JSON file; nothing is changed.

use std::path::Path;

/// Longest adapter configuration that is looked into, in bytes.
const MAX_JSON_BYTES: u64 = 1 << 20;

/// Weights in forms that are not read, by the end of the file's name, and what to do about each.
const OTHER_WEIGHTS: [(&str, &str); 7] = [
    ("pytorch_model.bin.index.json", "pickles in several parts"),
    (".gguf", "GGUF weights"),
    (".onnx", "an ONNX export"),
    (".msgpack", "Flax weights"),
    (".h5", "TensorFlow weights"),
    (".pth", "a PyTorch file of another name"),
    (".pt", "a PyTorch file of another name"),
];

/// What to do about a folder that lacks `missing`; begins with `: ` or `; `.
pub(super) fn hint(folder: &Path, missing: &str) -> String {
    adapter(folder)
        .or_else(|| cache(folder))
        .or_else(|| inner_checkpoint(folder))
        .or_else(|| without_tokenizer(missing))
        .or_else(|| other_weights(folder, missing))
        .unwrap_or_else(|| {
            "; a checkpoint needs config.json, tokenizer.json and weights".to_owned()
        })
}

/// A LoRA adapter holds the difference to its base model, which is named in it.
fn adapter(folder: &Path) -> Option<String> {
    let file = folder.join("adapter_config.json");
    let length = file.metadata().ok()?.len();
    let json = (length <= MAX_JSON_BYTES).then(|| std::fs::read(&file).ok());
    let json: Option<serde_json::Value> = json
        .flatten()
        .and_then(|json| serde_json::from_slice(&json).ok());
    let base = json.as_ref().and_then(|json| {
        let base = json.get("base_model_name_or_path")?.as_str()?;
        // Somebody else's text: shortened, and without what a terminal would act on.
        let base: String = base.chars().filter(|c| !c.is_control()).take(200).collect();
        (!base.is_empty()).then_some(base)
    });
    let base = base.map_or_else(
        || "its base model".to_owned(),
        |base| format!("its base model {base}"),
    );
    Some(format!(
        ": it is an adapter (LoRA), not a checkpoint; merge it into {base} with peft's `merge_and_unload()`, save the result with `save_pretrained`, and copy tokenizer.json from the base model to it"
    ))
}

/// A hub cache keeps the checkpoint's folder two levels further in.
fn cache(folder: &Path) -> Option<String> {
    let snapshots = folder.join("snapshots");
    if snapshots.is_dir() {
        let name = folder.canonicalize().ok()?;
        let name = name.file_name()?.to_str()?.strip_prefix("models--")?;
        let repository = name.replacen("--", "/", 1);
        let commit = first_folder(&snapshots, |_| true);
        let or = commit.map_or_else(String::new, |commit| {
            format!(", or the folder {}", snapshots.join(commit).display())
        });
        return Some(format!(
            ": it is a repository's part of a hub cache; name the repository, {repository}, with HF_HUB_CACHE set to the folder that this one is in{or}"
        ));
    }
    let repository = first_folder(folder, |name| name.starts_with("models--"))?;
    let repository = repository
        .trim_start_matches("models--")
        .replacen("--", "/", 1);
    Some(format!(
        ": it is a hub cache; set HF_HUB_CACHE to it and name a repository in it, such as {repository}"
    ))
}

/// Trainers save into folders of their own.
fn inner_checkpoint(folder: &Path) -> Option<String> {
    let inner = first_folder(folder, |name| {
        folder.join(name).join("config.json").is_file()
    })?;
    Some(format!(
        "; there are checkpoints in it: name one of them, such as {}",
        folder.join(inner).display()
    ))
}

fn without_tokenizer(missing: &str) -> Option<String> {
    (missing == "tokenizer.json").then(|| {
        "; copy tokenizer.json and preprocessor_config.json to it from the base model that the weights were trained from, or save them there with `processor.save_pretrained`".to_owned()
    })
}

fn other_weights(folder: &Path, missing: &str) -> Option<String> {
    if !missing.contains("safetensors") {
        return None;
    }
    let names = names(folder, |entry| entry.path().is_file());
    let (name, kind) = OTHER_WEIGHTS.iter().find_map(|(end, kind)| {
        let found = names.iter().find(|name| name.ends_with(end))?;
        Some((found, kind))
    })?;
    Some(format!(
        "; it holds {kind} ({name}), which are not read: save the model with `save_pretrained(folder, safe_serialization=True)`"
    ))
}

/// The first folder by name for which `is_it` holds.
fn first_folder(folder: &Path, is_it: impl Fn(&str) -> bool) -> Option<String> {
    let names = names(folder, |entry| entry.path().is_dir());
    names.into_iter().find(|name| is_it(name))
}

fn names(folder: &Path, is_kind: impl Fn(&std::fs::DirEntry) -> bool) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter(is_kind)
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_called_what_it_is() {
        let config = br#"{"base_model_name_or_path": "owner/base-ft\u001b[31m"}"#;
        let cases: [(&str, &[u8], &str, &[&str]); 8] = [
            (
                "adapter_config.json",
                config,
                "config.json",
                &["adapter (LoRA)", "owner/base-ft[31m", "merge_and_unload"],
            ),
            (
                "models--o--n/snapshots/0123/config.json",
                b"",
                "config.json",
                &["hub cache", "HF_HUB_CACHE", "o/n"],
            ),
            (
                "checkpoint-500/config.json",
                b"",
                "config.json",
                &["checkpoint-500"],
            ),
            (
                "config.json",
                b"",
                "tokenizer.json",
                &["copy tokenizer.json", "base model"],
            ),
            (
                "m.gguf",
                b"",
                "model.safetensors (or …)",
                &["GGUF", "m.gguf", "save_pretrained"],
            ),
            (
                "pytorch_model.bin.index.json",
                b"",
                "model.safetensors (or …)",
                &["several parts"],
            ),
            (
                "best.pt",
                b"",
                "model.safetensors (or …)",
                &["best.pt", "safe_serialization"],
            ),
            ("notes.txt", b"", "config.json", &["a checkpoint needs"]),
        ];
        for (file, content, missing, words) in cases {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, content).unwrap();
            let said = hint(folder.path(), missing);
            for word in words {
                assert!(said.contains(word), "{file}: {said}");
            }
            if let Some(repository) = file.split('/').next().filter(|name| name.contains("--")) {
                let said = hint(&folder.path().join(repository), missing);
                assert!(
                    said.contains("o/n") && said.contains("snapshots/0123"),
                    "{said}"
                );
            }
        }
    }
}
