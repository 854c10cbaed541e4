//! Activations in the format of the weights that they meet.

use super::format::Format;
use crate::florence2::kernels::simd::{LANES, fma, multiversion};

/// Bytes between the rows of converted activations beyond their own: rows a power of two apart would
/// fall into the same few cache sets.
const STAGGER: usize = 64;

/// Rows of activations as the tiles read them.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    pub(super) format: Format,
    pub(super) bytes: &'a [u8],
    /// Bytes between rows.
    pub(super) stride: usize,
    /// Of int8: one scale for every block of inputs and row, `(blocks, count)`.
    pub(super) scales: &'a [f32],
    /// Of int8, likewise: the byte that stands for 0.
    pub(super) zero_points: &'a [f32],
    pub(super) count: usize,
    pub(super) inputs: usize,
}

/// Room for converted rows, to be used again and again.
#[derive(Debug, Default)]
pub struct RowBuffer {
    first: RowSpace,
    second: RowSpace,
}

/// Half of a [`RowBuffer`]: room for one set of rows.
#[derive(Debug, Default)]
pub struct RowSpace {
    bytes: Vec<u8>,
    scales: Vec<f32>,
    zero_points: Vec<f32>,
}

impl RowBuffer {
    /// [`RowSpace::convert`] where one set of rows is in use at a time.
    ///
    /// # Panics
    /// As there.
    pub fn convert<'a>(
        &'a mut self,
        format: Format,
        x: &'a [f32],
        count: usize,
        inputs: usize,
        stride: usize,
    ) -> Rows<'a> {
        self.first.convert(format, x, count, inputs, stride)
    }

    /// Room for two sets of rows at a time.
    pub fn two(&mut self) -> (&mut RowSpace, &mut RowSpace) {
        (&mut self.first, &mut self.second)
    }
}

impl RowSpace {
    /// `x (count, inputs)`, its rows `stride` apart, in `format`. In f32 nothing is copied.
    ///
    /// # Panics
    /// When `x` is shorter than that.
    pub fn convert<'a>(
        &'a mut self,
        format: Format,
        x: &'a [f32],
        count: usize,
        inputs: usize,
        stride: usize,
    ) -> Rows<'a> {
        assert!(count == 0 || x.len() >= (count - 1) * stride + inputs);
        if format == Format::F32 {
            // SAFETY: any bytes are bytes; the length is that of `x`.
            let bytes = unsafe { std::slice::from_raw_parts(x.as_ptr().cast(), size_of_val(x)) };
            return Rows {
                format,
                bytes,
                stride: stride * size_of::<f32>(),
                scales: &[],
                zero_points: &[],
                count,
                inputs,
            };
        }
        let group = format.group();
        let row_bytes = inputs.div_ceil(group) * 4 + STAGGER;
        if self.bytes.len() < row_bytes * count {
            self.bytes.resize(row_bytes * count, 0);
        }
        let blocks = inputs.div_ceil(format.block());
        if format == Format::Int8 && self.scales.len() < blocks * count {
            self.scales.resize(blocks * count, 0.0);
            self.zero_points.resize(blocks * count, 0.0);
        }
        for (row, bytes) in self
            .bytes
            .chunks_exact_mut(row_bytes)
            .take(count)
            .enumerate()
        {
            let x = &x[row * stride..][..inputs];
            if format == Format::Bf16 {
                bytes[inputs * 2..].fill(0);
                to_bf16(x, bytes);
                continue;
            }
            bytes[inputs..].fill(0);
            for (block, x) in x.chunks(format.block()).enumerate() {
                let bytes = &mut bytes[block * format.block()..][..x.len()];
                let mut step = Step::default();
                quantise(x, bytes, &mut step);
                self.scales[block * count + row] = step.scale;
                self.zero_points[block * count + row] = step.zero_point;
            }
        }
        let steps = if format == Format::Int8 {
            blocks * count
        } else {
            0
        };
        Rows {
            format,
            bytes: &self.bytes[..row_bytes * count],
            stride: row_bytes,
            scales: &self.scales[..steps],
            zero_points: &self.zero_points[..steps],
            count,
            inputs,
        }
    }
}

multiversion! {
    /// The nearest bf16 of every value, ties to even, as bytes of this machine's order.
    pub(super) fn to_bf16(x: &[f32], bytes: &mut [u8]) = to_bf16_body
}

#[inline(always)]
fn to_bf16_body<const FMA: bool>(x: &[f32], bytes: &mut [u8]) {
    for (x, bytes) in x.iter().zip(bytes.chunks_exact_mut(2)) {
        bytes.copy_from_slice(&bf16_bits(*x).to_ne_bytes());
    }
}

/// The bits of the nearest bf16, ties to even; a NaN may become an infinity.
#[inline(always)]
fn bf16_bits(x: f32) -> u16 {
    let bits = x.to_bits();
    (bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) >> 16) as u16
}

/// Adding and subtracting 1.5·2²³ rounds to the nearest integer, and leaves it in the low bits.
pub(super) const ROUNDING: f32 = 12_582_912.0;
/// Steps from the least value of a block to its largest: one fewer than bytes have, because the zero
/// point is rounded up.
const STEPS: f32 = 254.0;
/// Multiplied by instead of divided by: rows may be short.
const PER_STEP: f32 = 1.0 / STEPS;

/// The step of a block, and the byte that stands for 0.
#[derive(Clone, Copy, Debug, Default)]
struct Step {
    scale: f32,
    zero_point: f32,
}

multiversion! {
    /// Bytes `round(x / scale) + zero point`, whose range is that of the values and 0.
    fn quantise(x: &[f32], bytes: &mut [u8], step: &mut Step) = quantise_body
}

#[inline(always)]
fn quantise_body<const FMA: bool>(x: &[f32], bytes: &mut [u8], step: &mut Step) {
    let (mut least, mut most) = ([0.0f32; LANES], [0.0f32; LANES]);
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            least[i] = lesser(least[i], chunk[i]);
            most[i] = greater(most[i], chunk[i]);
        }
    }
    let mut has_nan = folded(most, |a, b| a + b).is_nan();
    let (mut least, mut most) = (folded(least, lesser), folded(most, greater));
    for value in rest {
        has_nan |= value.is_nan();
        (least, most) = (least.min(*value), most.max(*value));
    }
    let scale = if has_nan {
        // The bytes cannot hold it, and what a NaN has reached must not look like an answer.
        f32::NAN
    } else {
        most * PER_STEP - least * PER_STEP
    };
    let inverse = if scale >= f32::MIN_POSITIVE {
        1.0 / scale
    } else {
        0.0
    };
    // The sum that is rounded has the zero point in it, whole. It is rounded up: the least value must not
    // come to lie below byte 0, where it would be 255; the largest has a byte to spare.
    let origin = ROUNDING + (-least * inverse).ceil();
    *step = Step {
        scale,
        zero_point: origin - ROUNDING,
    };
    for (value, byte) in x.iter().zip(bytes) {
        *byte = fma::<FMA>(*value, inverse, origin).to_bits() as u8;
    }
}

/// All lanes in one, in halves: four steps, each of one vector.
#[inline(always)]
fn folded(mut lanes: [f32; LANES], both: impl Fn(f32, f32) -> f32) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] = both(lanes[lane], lanes[lane + width]);
        }
        width /= 2;
    }
    lanes[0]
}

/// The lesser one, or the second where either is NaN: one instruction, and a row of NaN stays one.
#[inline(always)]
fn lesser(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

/// The greater one, or the second where either is NaN.
#[inline(always)]
fn greater(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

impl Rows<'_> {
    /// The squares of the relative errors that rounding to int8 is expected to make in the rows: it is
    /// spread evenly over a step of a block's scale `s`, so that the error of a row is `√(Σ s²/12) / ‖x‖`.
    /// A row of zeros has none and is left out. None depends on another row.
    pub(super) fn squared_errors(&self) -> impl Iterator<Item = f32> {
        let count = if self.format == Format::Int8 {
            self.count
        } else {
            0
        };
        (0..count).filter_map(|row| {
            let bytes = &self.bytes[row * self.stride..][..self.inputs];
            let (mut error, mut whole) = (0.0, 0.0);
            for (block, bytes) in bytes.chunks(self.format.block()).enumerate() {
                let scale = self.scales[block * self.count + row];
                let zero_point = self.zero_points[block * self.count + row] as i32;
                let square = |byte: &u8| (i32::from(*byte) - zero_point).pow(2);
                error += scale * scale * bytes.len() as f32 / 12.0;
                whole += scale * scale * bytes.iter().map(square).sum::<i32>() as f32;
            }
            (whole > 0.0).then_some(error / whole)
        })
    }
}

/// A row of activations back in f32, for the tests.
#[cfg(test)]
impl Rows<'_> {
    pub(super) fn value(&self, row: usize, input: usize) -> f32 {
        let row_bytes = &self.bytes[row * self.stride..];
        match self.format {
            Format::F32 => {
                let at = &row_bytes[input * 4..input * 4 + 4];
                f32::from_ne_bytes(at.try_into().unwrap())
            }
            Format::Bf16 => {
                let at = &row_bytes[input * 2..input * 2 + 2];
                f32::from_bits(u32::from(u16::from_ne_bytes(at.try_into().unwrap())) << 16)
            }
            Format::Int8 => {
                let at = input / self.format.block() * self.count + row;
                (f32::from(row_bytes[input]) - self.zero_points[at]) * self.scales[at]
            }
        }
    }
}
