//! `pytorch_model.bin`: a zipped pickle, read by candle without running anything in it.

use std::path::{Path, PathBuf};

use candle_core::Tensor;
use candle_core::pickle::PthTensors;

use super::WeightsError;
use super::finite::{self, Bound};
use crate::contained::contained;
use crate::florence2::one_line;

/// The tensors of a pickle, still on disk.
pub(super) struct Pickle {
    tensors: PthTensors,
    path: PathBuf,
}

impl Pickle {
    pub(super) fn open(path: PathBuf) -> Result<Self, WeightsError> {
        let tensors = read(|| PthTensors::new(&path, None)).map_err(|problem| {
            let advice =
                "; if PyTorch reads it, save the model again with `safe_serialization=True`";
            malformed(&path, problem + advice)
        })?;
        Ok(Self { tensors, path })
    }

    pub(super) fn names(&self) -> Vec<&str> {
        let infos = self.tensors.tensor_infos();
        infos.keys().map(String::as_str).collect()
    }

    pub(super) fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let info = self.tensors.tensor_infos().get(name)?;
        Some(info.layout.dims().to_vec())
    }

    /// One tensor. What it is said to hold is compared with the file before room is made.
    pub(super) fn read(&self, name: &str, bound: Bound) -> Result<Option<Tensor>, WeightsError> {
        let Some(info) = self.tensors.tensor_infos().get(name) else {
            return Ok(None);
        };
        let file_bytes = self
            .path
            .metadata()
            .map_err(|source| WeightsError::Io {
                path: self.path.clone(),
                source,
            })?
            .len();
        let (dims, each) = (info.layout.dims(), info.dtype.size_in_bytes() as u64);
        let bytes = dims.iter().try_fold(each, |bytes, dim| {
            bytes.checked_mul(u64::try_from(*dim).ok()?)
        });
        if bytes.is_none_or(|bytes| bytes > file_bytes) {
            let problem = format!("`{name}` would be larger than the file; download it again");
            return Err(malformed(&self.path, problem));
        }
        let tensor = read(|| self.tensors.get(name))
            .map_err(|problem| malformed(&self.path, format!("`{name}`: {problem}")))?;
        if let Some(value) = tensor
            .as_ref()
            .and_then(|tensor| finite::first_excluded(tensor, bound))
        {
            return Err(WeightsError::unusable(name, &self.path, value));
        }
        Ok(tensor)
    }
}

fn malformed(path: &Path, problem: String) -> WeightsError {
    WeightsError::Malformed {
        path: path.to_owned(),
        problem,
    }
}

/// Calls candle's reader, which panics over some files.
fn read<T>(read: impl FnOnce() -> candle_core::Result<T>) -> Result<T, String> {
    match contained(read) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(one_line(&error)),
        Err(panic) => Err(format!("it is damaged ({panic})")),
    }
}
