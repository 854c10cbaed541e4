//! Why weights cannot be used: each sentence names the tensor as the checkpoint spells it, or the file,
//! and what to do about it.

use std::path::{Path, PathBuf};

use crate::florence2::one_line;

/// Why weights cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// None of the known files is there.
    #[error(
        "{} holds no weights: expected model.safetensors, model.safetensors.index.json or pytorch_model.bin",
        folder.display()
    )]
    NoWeights {
        /// The checkpoint folder.
        folder: PathBuf,
    },
    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file is damaged or of another kind.
    #[error("{} cannot be used: {problem}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The names in the file fit neither published layout.
    #[error("{} holds no Florence-2 weights: no tensor is called vision_tower.* or model.vision_tower.*", folder.display())]
    UnknownLayout {
        /// The checkpoint folder.
        folder: PathBuf,
    },
    /// The names are a published layout's with something in front.
    #[error(
        "{} holds weights whose names all begin with {prefix:?}, left there by a wrapper around the model: save the model inside it (such as `model.module.save_pretrained`), or take this off every name",
        folder.display()
    )]
    Prefixed {
        /// The checkpoint folder.
        folder: PathBuf,
        /// What stands in front.
        prefix: String,
    },
    /// A tensor that config.json calls for is absent.
    #[error("the weights lack `{name}`, which config.json calls for")]
    Missing {
        /// Its name in the checkpoint's layout.
        name: String,
    },
    /// Tensors that config.json does not call for.
    #[error("the weights hold `{name}`, which config.json does not call for{}", others(*more))]
    Extra {
        /// The first of them.
        name: String,
        /// How many others there are.
        more: usize,
    },
    /// A tensor has another shape than config.json says.
    #[error("`{name}` has the shape {found:?}; config.json calls for {expected:?}")]
    Shape {
        /// Its name in the checkpoint's layout.
        name: String,
        /// The shape in the file.
        found: Vec<usize>,
        /// The shape that follows from config.json.
        expected: Vec<usize>,
    },
    /// Two copies of the embedding matrix are not equal although config.json ties them.
    #[error(
        "`{name}` differs from the embedding matrix although config.json ties them; set tie_word_embeddings to false if that is meant"
    )]
    TiedDiffer {
        /// The copy's name in the checkpoint's layout.
        name: String,
    },
    /// A value with which nothing can be computed.
    #[error(
        "`{name}` in {} holds {value}: every answer would be nonsense; fetch the file again, or save the model anew from a state in which it answered",
        path.display()
    )]
    NotFinite {
        /// The tensor's name in the checkpoint's layout.
        name: String,
        /// The file.
        path: PathBuf,
        /// The first such value.
        value: f64,
    },
    /// A value that is infinite in the number format that was asked for.
    #[error(
        "`{name}` in {} holds {value:e}, which the chosen number format cannot hold; use --dtype f32",
        path.display()
    )]
    TooLarge {
        /// The tensor's name in the checkpoint's layout.
        name: String,
        /// The file.
        path: PathBuf,
        /// The first such value.
        value: f64,
    },
    /// The tensor library failed (out of memory, device error).
    #[error("cannot place the weights on the device: {}", one_line(.0))]
    Device(#[from] candle_core::Error),
}

impl WeightsError {
    /// A value that the model cannot be given.
    pub(super) fn unusable(name: &str, path: &Path, value: f64) -> Self {
        let (name, path) = (name.to_owned(), path.to_owned());
        if value.is_finite() {
            Self::TooLarge { name, path, value }
        } else {
            Self::NotFinite { name, path, value }
        }
    }
}

fn others(more: usize) -> String {
    if more == 0 {
        String::new()
    } else {
        format!(" (nor {more} others)")
    }
}
