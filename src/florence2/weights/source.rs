//! Weight files: safetensors (one file or shards with an index) and `pytorch_model.bin`.
//!
//! Tensors are read one at a time and never mapped: a file that shrinks under a map is a signal
//! that kills the process, and reading keeps the peak at the model plus one tensor.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;
use safetensors::tensor::{Dtype, Metadata};

use super::WeightsError;
use super::finite::{self, Bound, Magnitude};
use super::pickle::Pickle;
use super::random::RandomWeights;
use crate::florence2::checkpoint_file;
use crate::florence2::kernels::packed::buffer::prefer_huge_pages;

/// Largest safetensors header that is read; the format's own limit.
const MAX_HEADER_BYTES: u64 = 100_000_000;
/// Values of one parallel task when floats are widened.
const WIDEN_TASK: usize = 1 << 16;
/// Bytes of the header's length field.
const LENGTH_BYTES: u64 = 8;

/// The tensors of a checkpoint, by name, still on disk.
pub(super) enum Source {
    /// Safetensors: where each tensor lies.
    Safetensors(BTreeMap<String, Located>, ReadBuffer),
    /// A zipped pickle.
    Pickle(Pickle),
    /// Nothing on disk: it holds no names, and makes every tensor that it is asked for.
    Random(RandomWeights),
    /// Zeros of these shapes, for tests of names and shapes.
    #[cfg(test)]
    Zeros(BTreeMap<String, Vec<usize>>),
}

/// What is read lies here, in the same memory for every tensor: a fresh page costs as much as the
/// bytes that come into it.
pub(super) type ReadBuffer = RefCell<Vec<u8>>;

/// Where a tensor lies in a safetensors file.
pub(super) struct Located {
    file: PathBuf,
    start: u64,
    bytes: usize,
    dtype: Dtype,
    shape: Vec<usize>,
}

impl Source {
    /// Finds the weight files of a checkpoint folder, in the order in which the reference looks.
    pub(super) fn open(folder: &Path) -> Result<Self, WeightsError> {
        let single = folder.join("model.safetensors");
        if single.exists() {
            let mut tensors = BTreeMap::new();
            read_header(&single, &mut tensors)?;
            return Ok(Self::Safetensors(tensors, ReadBuffer::default()));
        }
        let index = folder.join("model.safetensors.index.json");
        if index.exists() {
            return open_shards(folder, &index);
        }
        let pickle = folder.join("pytorch_model.bin");
        if pickle.exists() {
            check_pointer(&pickle)?;
            return Pickle::open(pickle).map(Self::Pickle);
        }
        Err(WeightsError::NoWeights {
            folder: folder.to_owned(),
        })
    }

    pub(super) fn names(&self) -> Vec<&str> {
        match self {
            Self::Safetensors(tensors, _) => tensors.keys().map(String::as_str).collect(),
            Self::Pickle(pickle) => pickle.names(),
            Self::Random(_) => Vec::new(),
            #[cfg(test)]
            Self::Zeros(tensors) => tensors.keys().map(String::as_str).collect(),
        }
    }

    pub(super) fn shape(&self, name: &str) -> Option<Vec<usize>> {
        match self {
            Self::Safetensors(tensors, _) => tensors.get(name).map(|located| located.shape.clone()),
            Self::Pickle(pickle) => pickle.shape(name),
            Self::Random(_) => None,
            #[cfg(test)]
            Self::Zeros(tensors) => tensors.get(name).cloned(),
        }
    }

    /// The shape in which a tensor comes for which `asked` is expected.
    pub(super) fn shape_for(&self, name: &str, asked: &[usize]) -> Option<Vec<usize>> {
        match self {
            Self::Random(_) => Some(asked.to_vec()),
            _ => self.shape(name),
        }
    }

    /// Reads one tensor to host memory: in f32 if that is wanted, else in the dtype of the file.
    /// `shape` is that of [`Source::shape_for`]. A value that `bound` excludes is an error.
    pub(super) fn read(
        &self,
        name: &str,
        shape: &[usize],
        wanted: DType,
        bound: Bound,
    ) -> Result<Option<Tensor>, WeightsError> {
        match self {
            Self::Safetensors(tensors, buffer) => tensors
                .get(name)
                .map(|located| located.read(name, wanted, bound, &mut buffer.borrow_mut()))
                .transpose(),
            Self::Pickle(pickle) => pickle.read(name, bound),
            Self::Random(random) => Ok(Some(random.tensor(name, shape)?)),
            #[cfg(test)]
            Self::Zeros(tensors) => match tensors.get(name) {
                Some(shape) => Ok(Some(Tensor::zeros(
                    shape.as_slice(),
                    DType::F32,
                    &Device::Cpu,
                )?)),
                None => Ok(None),
            },
        }
    }
}

impl Located {
    fn read(
        &self,
        name: &str,
        wanted: DType,
        bound: Bound,
        buffer: &mut Vec<u8>,
    ) -> Result<Tensor, WeightsError> {
        let dtype = match self.dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            Dtype::F64 => DType::F64,
            other => {
                return Err(WeightsError::Malformed {
                    path: self.file.clone(),
                    problem: format!(
                        "`{name}` is stored as {other:?}; f32, f16, bf16 and f64 are readable"
                    ),
                });
            }
        };
        let io = |source| WeightsError::Io {
            path: self.file.clone(),
            source,
        };
        let mut file = File::open(&self.file).map_err(io)?;
        file.seek(SeekFrom::Start(self.start)).map_err(io)?;
        if buffer.len() < self.bytes {
            *buffer = vec![0; self.bytes];
            prefer_huge_pages(buffer);
        }
        let data = &mut buffer[..self.bytes];
        file.read_exact(data).map_err(io)?;
        let wide = match dtype {
            _ if wanted != DType::F32 => None,
            DType::F16 => Some(widen::<f16, 2>(data, bound)),
            DType::BF16 => Some(widen::<bf16, 2>(data, bound)),
            DType::F32 => Some(widen::<f32, 4>(data, bound)),
            _ => None,
        };
        let (tensor, bad) = match wide {
            Some((values, is_allowed)) => {
                let tensor = Tensor::from_vec(values, self.shape.as_slice(), &Device::Cpu)?;
                let bad = (!is_allowed).then(|| finite::first_excluded(&tensor, bound));
                (tensor, bad.flatten())
            }
            None => {
                let tensor = Tensor::from_raw_buffer(data, dtype, &self.shape, &Device::Cpu)?;
                let bad = finite::first_excluded(&tensor, bound);
                (tensor, bad)
            }
        };
        match bad {
            None => Ok(tensor),
            Some(value) => Err(WeightsError::unusable(name, &self.file, value)),
        }
    }
}

/// A float in the file's byte order.
trait Narrow<const BYTES: usize>: Magnitude {
    fn from_le_bytes(bytes: [u8; BYTES]) -> Self;
    fn widen(narrow: &[Self], wide: &mut [f32]);
}

impl Narrow<2> for f16 {
    fn from_le_bytes(bytes: [u8; 2]) -> Self {
        Self::from_le_bytes(bytes)
    }

    fn widen(narrow: &[Self], wide: &mut [f32]) {
        narrow.convert_to_f32_slice(wide);
    }
}

impl Narrow<2> for bf16 {
    fn from_le_bytes(bytes: [u8; 2]) -> Self {
        Self::from_le_bytes(bytes)
    }

    fn widen(narrow: &[Self], wide: &mut [f32]) {
        narrow.convert_to_f32_slice(wide);
    }
}

impl Narrow<4> for f32 {
    fn from_le_bytes(bytes: [u8; 4]) -> Self {
        Self::from_le_bytes(bytes)
    }

    fn widen(narrow: &[Self], wide: &mut [f32]) {
        wide.copy_from_slice(narrow);
    }
}

/// Floats to f32, on all threads: loading is bound by this and by the disk. Also says whether `bound`
/// allows them all, which costs little while they are at hand.
fn widen<T: Narrow<BYTES>, const BYTES: usize>(data: &[u8], bound: Bound) -> (Vec<f32>, bool) {
    let (values, _) = data.as_chunks::<BYTES>();
    let mut wide = vec![0.0; values.len()];
    prefer_huge_pages(&mut wide);
    let is_allowed = wide
        .par_chunks_mut(WIDEN_TASK)
        .zip(values.par_chunks(WIDEN_TASK))
        .map(|(wide, values)| {
            let narrow: Vec<T> = values
                .iter()
                .map(|bytes| T::from_le_bytes(*bytes))
                .collect();
            T::widen(&narrow, wide);
            finite::allows(bound, &narrow)
        })
        .reduce(|| true, |all, this| all && this);
    (wide, is_allowed)
}

fn open_shards(folder: &Path, index: &Path) -> Result<Source, WeightsError> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let malformed = |problem: String| WeightsError::Malformed {
        path: index.to_owned(),
        problem,
    };
    let text = checkpoint_file::read(index).map_err(|source| WeightsError::Io {
        path: index.to_owned(),
        source,
    })?;
    let parsed: Index = checkpoint_file::parse(&text, &[]).map_err(malformed)?;
    let mut tensors = BTreeMap::new();
    let mut shards: Vec<&String> = parsed.weight_map.values().collect();
    shards.sort_unstable();
    shards.dedup();
    for shard in shards {
        let is_plain = Path::new(shard)
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        if !is_plain {
            return Err(malformed(format!(
                "it names the file {shard:?}, outside the checkpoint folder"
            )));
        }
        read_header(&folder.join(shard), &mut tensors)?;
    }
    match parsed
        .weight_map
        .keys()
        .find(|name| !tensors.contains_key(*name))
    {
        Some(name) => Err(malformed(format!(
            "it lists `{name}`, which no shard holds"
        ))),
        None => Ok(Source::Safetensors(tensors, ReadBuffer::default())),
    }
}

/// Refuses what stands in for a file in a git repository.
fn check_pointer(path: &Path) -> Result<(), WeightsError> {
    let start = checkpoint_file::start(path).map_err(|source| WeightsError::Io {
        path: path.to_owned(),
        source,
    })?;
    match checkpoint_file::pointer(&start) {
        Some(problem) => Err(WeightsError::Malformed {
            path: path.to_owned(),
            problem: problem.to_owned(),
        }),
        None => Ok(()),
    }
}

fn read_header(path: &Path, tensors: &mut BTreeMap<String, Located>) -> Result<(), WeightsError> {
    let io = |source| WeightsError::Io {
        path: path.to_owned(),
        source,
    };
    let malformed = |problem: String| WeightsError::Malformed {
        path: path.to_owned(),
        problem,
    };
    let mut file = File::open(path).map_err(io)?;
    let file_bytes = file.metadata().map_err(io)?.len();
    let mut length = [0; LENGTH_BYTES as usize];
    check_pointer(path)?;
    file.read_exact(&mut length)
        .map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => malformed("it is cut off; download it again".to_owned()),
            _ => io(error),
        })?;
    let header_bytes = u64::from_le_bytes(length);
    if header_bytes > MAX_HEADER_BYTES || header_bytes > file_bytes {
        return Err(malformed(
            "it is not a safetensors file (its header would be longer than the file)".to_owned(),
        ));
    }
    let mut header = vec![0; header_bytes as usize];
    file.read_exact(&mut header).map_err(io)?;
    let metadata: Metadata =
        serde_json::from_slice(&header).map_err(|error| malformed(error.to_string()))?;
    let data_start = LENGTH_BYTES + header_bytes;
    let data_bytes = metadata.data_len() as u64;
    if data_start.checked_add(data_bytes) != Some(file_bytes) {
        return Err(malformed(format!(
            "it has {file_bytes} bytes, and by its header {data_bytes} after the first {data_start}; download it again"
        )));
    }
    for (name, info) in metadata.tensors() {
        let (start, end) = info.data_offsets;
        let located = Located {
            file: path.to_owned(),
            start: data_start + start as u64,
            bytes: end - start,
            dtype: info.dtype,
            shape: info.shape.clone(),
        };
        if tensors.insert(name.clone(), located).is_some() {
            return Err(malformed(format!("`{name}` stands in two shards")));
        }
    }
    Ok(())
}
