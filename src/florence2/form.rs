//! How a network holds its weights: as tensors on any device, or packed for the CPU's own kernels.
//!
//! The networks (`davit`, `projector`, `bart`) are loaded by one piece of code for both, and run by
//! two: composed tensor operations beside the loading code, and our own CPU code in [`super::cpu`].

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;

use candle_core::{DType, Device, Storage, Tensor};

use super::kernels::packed::buffer::Buffer;
use super::kernels::packed::{Format, PackedLinear, QuantisationMeter};
use super::layers::Linear;
use super::weights::{Loaded, WeightsError};

/// The number format of weights, and with them of the products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// 16-bit floats with f32's range.
    Bf16,
    /// 8-bit integers with scales; on the CPU only.
    Int8,
}

impl Dtype {
    /// As flags and reports spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }

    /// The format of packed weights for it; none for f16, which CPUs do not multiply.
    pub(super) fn packed(self) -> Option<Format> {
        match self {
            Self::F32 => Some(Format::F32),
            Self::F16 => None,
            Self::Bf16 => Some(Format::Bf16),
            Self::Int8 => Some(Format::Int8),
        }
    }
}

/// A way to hold weights. Tensors come in host memory, in f32 for [`Packed`].
pub(super) trait Form: Debug + Sized + 'static {
    /// A linear layer.
    type Linear: Debug;
    /// The weights of a norm, a table of positions: whatever is added or multiplied as it is.
    type Vector: Debug;
    /// The rows that belong to token ids.
    type Table: Debug;
    /// What the tensors are held in.
    type Target;

    /// `weight (outputs, inputs)`, `bias (outputs)`; `name` is the checkpoint's.
    fn linear(
        target: &Self::Target,
        name: &str,
        weight: Tensor,
        bias: Option<Tensor>,
    ) -> Loaded<Self::Linear>;
    /// Any shape, in row-major order.
    fn vector(target: &Self::Target, values: Tensor) -> Loaded<Self::Vector>;
    /// `(vocab, d_model)`.
    fn table(target: &Self::Target, rows: Tensor) -> Loaded<Self::Table>;
    /// The table and the output matrix, where they are one; `name` is the matrix's.
    fn tied(
        target: &Self::Target,
        name: &str,
        rows: Tensor,
        bias: Option<Tensor>,
    ) -> Loaded<(Self::Table, Self::Linear)>;
}

/// Tensors on a device, for composed operations.
#[derive(Debug)]
pub(super) struct Tensors;

/// Where [`Tensors`] go.
pub(super) struct Placement {
    pub(super) device: Device,
    pub(super) dtype: DType,
}

impl Placement {
    fn place(&self, tensor: Tensor) -> Result<Tensor, WeightsError> {
        Ok(tensor.to_dtype(self.dtype)?.to_device(&self.device)?)
    }
}

impl Form for Tensors {
    type Linear = Linear;
    type Vector = Tensor;
    type Table = Tensor;
    type Target = Placement;

    fn linear(target: &Placement, _: &str, weight: Tensor, bias: Option<Tensor>) -> Loaded<Linear> {
        let bias = bias.map(|bias| target.place(bias)).transpose()?;
        Ok(Linear::new(target.place(weight)?, bias))
    }

    fn vector(target: &Placement, values: Tensor) -> Loaded<Tensor> {
        target.place(values)
    }

    fn table(target: &Placement, rows: Tensor) -> Loaded<Tensor> {
        target.place(rows)
    }

    fn tied(
        target: &Placement,
        name: &str,
        rows: Tensor,
        bias: Option<Tensor>,
    ) -> Loaded<(Tensor, Linear)> {
        let rows = target.place(rows)?;
        Ok((rows.clone(), Self::linear(target, name, rows, bias)?))
    }
}

/// Weights packed for this CPU.
#[derive(Debug)]
pub(super) struct Packed;

/// What weights are packed in.
pub(super) struct Packing {
    format: Format,
    /// Names of linear layers that are in bf16 all the same.
    in_bf16: BTreeSet<String>,
    layers: RefCell<Vec<Layer>>,
}

/// A linear layer that was packed.
pub(super) struct Layer {
    pub(super) name: String,
    /// What int8 costs there; measured while somebody holds it.
    pub(super) meter: Arc<QuantisationMeter>,
}

impl Packing {
    pub(super) fn new(format: Format) -> Self {
        Self {
            format,
            in_bf16: BTreeSet::new(),
            layers: RefCell::default(),
        }
    }

    /// The same, but with these layers in bf16.
    pub(super) fn except(format: Format, in_bf16: &[String]) -> Self {
        Self {
            in_bf16: in_bf16.iter().cloned().collect(),
            ..Self::new(format)
        }
    }

    /// All linear layers that were packed, in the order of loading.
    pub(super) fn into_layers(self) -> Vec<Layer> {
        self.layers.into_inner()
    }
}

impl Form for Packed {
    type Linear = PackedLinear;
    type Vector = Vec<f32>;
    type Table = TokenTable;
    type Target = Packing;

    fn linear(
        packing: &Packing,
        name: &str,
        weight: Tensor,
        bias: Option<Tensor>,
    ) -> Loaded<PackedLinear> {
        let format = if packing.in_bf16.contains(name) {
            Format::Bf16
        } else {
            packing.format
        };
        let (outputs, inputs) = weight.dims2()?;
        let bias = bias
            .map(|bias| Self::vector(packing, bias))
            .transpose()?
            .unwrap_or_default();
        let mut packed = with_values(&weight, |weight| {
            PackedLinear::new(format, weight, &bias, outputs, inputs)
        })?;
        packing.layers.borrow_mut().push(Layer {
            name: name.to_owned(),
            meter: packed.meter(),
        });
        Ok(packed)
    }

    fn vector(_: &Packing, values: Tensor) -> Loaded<Vec<f32>> {
        Ok(values.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
    }

    fn table(packing: &Packing, rows: Tensor) -> Loaded<TokenTable> {
        Ok(TokenTable::new(packing.format, &rows)?)
    }

    fn tied(
        packing: &Packing,
        name: &str,
        rows: Tensor,
        bias: Option<Tensor>,
    ) -> Loaded<(TokenTable, PackedLinear)> {
        Ok((
            Self::table(packing, rows.clone())?,
            Self::linear(packing, name, rows, bias)?,
        ))
    }
}

/// Token embeddings beside the packed output matrix: in f32 for f32, else in bf16.
#[derive(Debug)]
pub(super) struct TokenTable {
    rows: TableRows,
    width: usize,
}

#[derive(Debug)]
enum TableRows {
    F32(Buffer<f32>),
    /// The upper halves of f32.
    Bf16(Buffer<u16>),
}

impl TokenTable {
    fn new(format: Format, rows: &Tensor) -> candle_core::Result<Self> {
        let (vocab, width) = rows.dims2()?;
        let rows = with_values(rows, |values| match format {
            Format::F32 => {
                let mut rows = Buffer::zeroed(vocab * width);
                rows.copy_from_slice(values);
                TableRows::F32(rows)
            }
            Format::Bf16 | Format::Int8 => {
                let mut rows = Buffer::zeroed(vocab * width);
                for (row, value) in rows.iter_mut().zip(values) {
                    *row = half::bf16::from_f32(*value).to_bits();
                }
                TableRows::Bf16(rows)
            }
        })?;
        Ok(Self { rows, width })
    }

    /// Channels of a row.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Writes the row of `id` to `out (width)`; false where there is none.
    pub(super) fn read(&self, id: u32, out: &mut [f32]) -> bool {
        let row = id as usize * self.width..(id as usize + 1) * self.width;
        match &self.rows {
            TableRows::F32(rows) => rows.get(row).is_some_and(|row| {
                out.copy_from_slice(row);
                true
            }),
            TableRows::Bf16(rows) => rows.get(row).is_some_and(|row| {
                for (out, bits) in out.iter_mut().zip(row) {
                    *out = f32::from_bits(u32::from(*bits) << 16);
                }
                true
            }),
        }
    }
}

/// Hands the values of a host tensor to `use_them`, in f32 and row-major order.
pub(super) fn with_values<T>(
    tensor: &Tensor,
    use_them: impl FnOnce(&[f32]) -> T,
) -> candle_core::Result<T> {
    let tensor = tensor.to_dtype(DType::F32)?.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else {
        candle_core::bail!("weights to be packed are not in host memory");
    };
    let start = layout.start_offset();
    let values = storage.as_slice::<f32>()?;
    Ok(use_them(
        &values[start..start + layout.shape().elem_count()],
    ))
}
