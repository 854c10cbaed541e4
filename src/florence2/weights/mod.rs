//! A checkpoint's weights: opened, checked and handed to the model tensor by tensor.
//!
//! A missing, extra or misshapen tensor refuses to load and is named as the checkpoint spells it.
//! Only the tensors of an explicit list may be left over. The model asks by native names; see
//! [`names`] for the original layout.

mod error;
mod finite;
pub mod names;
mod pickle;
mod random;
mod source;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;

use candle_core::{DType, Tensor};

use super::form::{Dtype, Form};
pub use error::WeightsError;
use finite::Bound;
use names::{FINAL_LOGITS_BIAS, Layout, UnknownNames};
pub(crate) use random::RandomWeights;
use source::Source;

/// The embedding matrix, and the names under which a file may hold copies of it.
const SHARED: &str = "model.language_model.shared.weight";
const EMBEDDINGS: [&str; 2] = [
    "model.language_model.encoder.embed_tokens.weight",
    "model.language_model.decoder.embed_tokens.weight",
];
const LM_HEAD: &str = "lm_head.weight";

/// What reading a part of a checkpoint comes to.
pub(crate) type Loaded<T> = Result<T, WeightsError>;

/// The open weights of one checkpoint.
pub(crate) struct Weights {
    source: Source,
    layout: Layout,
    /// What tensors are read in, where the file has no wider dtype.
    host_dtype: DType,
    /// What values may be.
    bound: Bound,
    /// Names in the file that were used or may be left over.
    taken: RefCell<BTreeSet<String>>,
}

/// The matrices between token ids and hidden states, in host memory.
pub(crate) struct Embeddings {
    /// Token embeddings, `(vocab, d_model)`.
    pub(crate) shared: Tensor,
    /// The output matrix, `(vocab, d_model)`, where it is not the same.
    pub(crate) lm_head: Option<Tensor>,
    /// Added to the logits, `(vocab)` in f32, where the checkpoint has it and it is not all zero.
    pub(crate) final_logits_bias: Option<Tensor>,
}

impl Weights {
    /// Opens the weight files of a folder. Tensors are read to host memory: in f32 if `host_dtype` says
    /// so, else in the dtype of the file. A value that is not finite in `dtype` is refused.
    pub(crate) fn open(
        folder: &Path,
        host_dtype: DType,
        dtype: Dtype,
    ) -> Result<Self, WeightsError> {
        let source = Source::open(folder)?;
        let layout = Layout::detect(source.names().into_iter()).map_err(|found| {
            let folder = folder.to_owned();
            match found {
                UnknownNames::Prefixed(prefix) => WeightsError::Prefixed { folder, prefix },
                UnknownNames::Foreign => WeightsError::UnknownLayout { folder },
            }
        })?;
        Ok(Self {
            source,
            layout,
            host_dtype,
            bound: Bound::of(dtype),
            taken: RefCell::default(),
        })
    }

    /// Weights made up as they are asked for, under native names, in f32.
    pub(crate) fn random(random: RandomWeights) -> Self {
        Self {
            source: Source::Random(random),
            layout: Layout::Native,
            host_dtype: DType::F32,
            bound: Bound::F32,
            taken: RefCell::default(),
        }
    }

    /// Weights that are all zero, with these names and shapes.
    #[cfg(test)]
    pub(crate) fn zeros(tensors: std::collections::BTreeMap<String, Vec<usize>>) -> Self {
        let layout = Layout::detect(tensors.keys().map(String::as_str)).unwrap();
        let source = Source::Zeros(tensors);
        Self {
            source,
            layout,
            host_dtype: DType::F32,
            bound: Bound::F32,
            taken: RefCell::default(),
        }
    }

    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    /// The names that were used.
    #[cfg(test)]
    pub(crate) fn taken(&self) -> BTreeSet<String> {
        self.taken.borrow().clone()
    }

    /// A view of all names that begin with `prefix.`, whose tensors go to `target`.
    pub(super) fn at<'a, F: Form>(&'a self, prefix: &str, target: &'a F::Target) -> Section<'a, F> {
        Section {
            weights: self,
            target,
            prefix: prefix.to_owned(),
        }
    }

    /// One tensor by its native name, in the shape in which this layout stores it.
    fn host_tensor(&self, native: &str, shape: &[usize]) -> Result<Tensor, WeightsError> {
        let name = self.layout.name(native);
        let Some(found) = self.source.shape_for(&name, shape) else {
            return Err(WeightsError::Missing { name });
        };
        if found != shape {
            return Err(WeightsError::Shape {
                name,
                found,
                expected: shape.to_vec(),
            });
        }
        let tensor = self
            .source
            .read(&name, shape, self.host_dtype, self.bound)?
            .ok_or_else(|| WeightsError::Missing { name: name.clone() })?;
        self.taken.borrow_mut().insert(name);
        Ok(tensor)
    }

    /// Whether the checkpoint holds a tensor, by its native name.
    pub(crate) fn contains(&self, native: &str) -> bool {
        self.source.shape(&self.layout.name(native)).is_some()
    }

    /// The embedding and output matrices, by the rules of tied weights: published files store only
    /// some of the four copies, and every stored copy must be equal unless the config unties the
    /// output matrix.
    pub(crate) fn embeddings(
        &self,
        vocab: usize,
        d_model: usize,
        is_tied: bool,
    ) -> Result<Embeddings, WeightsError> {
        let shape = [vocab, d_model];
        let first = [SHARED, EMBEDDINGS[0], EMBEDDINGS[1], LM_HEAD]
            .into_iter()
            .find(|name| self.contains(name))
            .unwrap_or(SHARED);
        let host = self.host_tensor(first, &shape)?;
        for copy in EMBEDDINGS {
            self.expect_equal(copy, &host, &shape)?;
        }
        if is_tied {
            self.expect_equal(LM_HEAD, &host, &shape)?;
        }
        let lm_head = if is_tied {
            None
        } else {
            Some(self.host_tensor(LM_HEAD, &shape)?)
        };
        Ok(Embeddings {
            shared: host,
            lm_head,
            final_logits_bias: self.final_logits_bias(vocab)?,
        })
    }

    fn expect_equal(
        &self,
        native: &str,
        host: &Tensor,
        shape: &[usize],
    ) -> Result<(), WeightsError> {
        if !self.contains(native) {
            return Ok(());
        }
        let copy = self.host_tensor(native, shape)?;
        let differing = copy
            .to_dtype(host.dtype())?
            .ne(host)?
            .to_dtype(DType::U32)?
            .max_all()?;
        match differing.to_scalar::<u32>()? {
            0 => Ok(()),
            _ => Err(WeightsError::TiedDiffer {
                name: self.layout.name(native),
            }),
        }
    }

    fn final_logits_bias(&self, vocab: usize) -> Result<Option<Tensor>, WeightsError> {
        if self.layout == Layout::Native || self.source.shape(FINAL_LOGITS_BIAS).is_none() {
            return Ok(None);
        }
        // Its name is the same in both spellings: no native name maps to another.
        let bias = self
            .host_tensor(FINAL_LOGITS_BIAS, &[1, vocab])?
            .to_dtype(DType::F32)?
            .flatten_all()?;
        let is_zero = bias.abs()?.max_all()?.to_scalar::<f32>()? == 0.0;
        Ok((!is_zero).then_some(bias))
    }

    /// Refuses tensors that nobody asked for. To be called when the model is complete.
    pub(crate) fn finish(&self) -> Result<(), WeightsError> {
        let taken = self.taken.borrow();
        let mut extra: Vec<&str> = self
            .source
            .names()
            .into_iter()
            .filter(|name| !taken.contains(*name))
            .collect();
        extra.sort_unstable();
        match extra.split_first() {
            None => Ok(()),
            Some((first, rest)) => Err(WeightsError::Extra {
                name: (*first).to_owned(),
                more: rest.len(),
            }),
        }
    }
}

/// The tensors below one prefix, and where they go.
pub(super) struct Section<'a, F: Form> {
    weights: &'a Weights,
    target: &'a F::Target,
    prefix: String,
}

impl<'a, F: Form> Section<'a, F> {
    /// The section below `name` in this one.
    pub(super) fn at(&self, name: impl std::fmt::Display) -> Section<'a, F> {
        Section {
            weights: self.weights,
            target: self.target,
            prefix: format!("{}.{name}", self.prefix),
        }
    }

    /// Its native name: what all its tensors' names begin with.
    pub(super) fn name(&self) -> &str {
        &self.prefix
    }

    /// Where the tensors go.
    pub(super) fn target(&self) -> &'a F::Target {
        self.target
    }

    /// One tensor of this section, in host memory.
    pub(super) fn host_tensor(&self, name: &str, shape: &[usize]) -> Loaded<Tensor> {
        self.weights
            .host_tensor(&format!("{}.{name}", self.prefix), shape)
    }

    /// One tensor of this section, to be used as it is.
    pub(super) fn vector(&self, name: &str, shape: &[usize]) -> Loaded<F::Vector> {
        F::vector(self.target, self.host_tensor(name, shape)?)
    }

    /// Whether the section holds a tensor of that name.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.weights.contains(&format!("{}.{name}", self.prefix))
    }

    /// The checkpoint's layout.
    pub(super) fn layout(&self) -> Layout {
        self.weights.layout()
    }
}
