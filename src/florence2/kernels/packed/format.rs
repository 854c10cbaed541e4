//! The three number formats of weights: what one step of a tile does, and how its sums become f32.

use super::isa::Isa;
use super::tile::ROWS;

/// How the weights of a matrix are stored, and with them the activations that meet them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// 32-bit floats.
    F32,
    /// Floats of 16 bits with f32's range; sums in f32.
    Bf16,
    /// Signed bytes with a scale for every output and block of inputs; activations are unsigned bytes
    /// with a scale and a zero point for every row and block. Sums in 32-bit integers within a block,
    /// in f32 between blocks.
    Int8,
}

impl Format {
    /// Consecutive inputs in one 32-bit lane.
    pub(super) const fn group(self) -> usize {
        match self {
            Self::F32 => 1,
            Self::Bf16 => 2,
            Self::Int8 => 4,
        }
    }

    /// Inputs that are summed before the sums go to memory. At 512 lanes a panel's block is 128 KiB:
    /// it stays in a core's second-level cache while the rows pass by.
    pub const fn block(self) -> usize {
        match self {
            Self::F32 => 512,
            Self::Bf16 | Self::Int8 => 1024,
        }
    }
}

/// Where a tile's columns find their scales; of no meaning but for int8.
#[derive(Clone, Copy)]
pub(super) struct Scales {
    /// One f32 a row.
    pub(super) rows: *const f32,
    /// One f32 a row: the byte that stands for 0.
    pub(super) zero_points: *const f32,
    /// One f32 a column.
    pub(super) columns: *const f32,
    /// One f32 a column: the sum of its bytes in this block.
    pub(super) sums: *const f32,
}

impl Scales {
    pub(super) const NONE: Self = Self {
        rows: std::ptr::null(),
        zero_points: std::ptr::null(),
        columns: std::ptr::null(),
        sums: std::ptr::null(),
    };
}

/// The inner loop of one format in one instruction set.
///
/// # Safety
/// As [`Isa`]; pointers to weights are read for a vector, those to activations for four bytes.
pub(super) trait Sums<S: Isa> {
    type Sum: Copy;
    /// What weights and activations meet as.
    type Factor: Copy;
    /// Passes over a step: more than one where its 32 bits are multiplied one part after the other.
    const PARTS: usize = 1;
    /// Most rows of a tile.
    const ROWS: usize = ROWS;

    unsafe fn zero() -> Self::Sum;
    unsafe fn weights(from: *const u8, part: usize) -> Self::Factor;
    unsafe fn activation(from: *const u8, part: usize) -> Self::Factor;
    unsafe fn step(sum: Self::Sum, a: Self::Factor, b: Self::Factor) -> Self::Sum;
    /// The sums of a row's columns from `column` on.
    unsafe fn finish(sum: Self::Sum, scales: &Scales, row: usize, column: usize) -> S::F32;
}

pub(super) struct F32Sums;
/// By an instruction that multiplies pairs.
pub(super) struct Bf16Pairs;
/// Widened to f32.
pub(super) struct Bf16Widened;
pub(super) struct Int8Sums;

impl<S: Isa> Sums<S> for F32Sums {
    type Sum = S::F32;
    type Factor = S::F32;

    #[inline(always)]
    unsafe fn zero() -> S::F32 {
        // SAFETY: passed on to the caller.
        unsafe { S::splat(0.0) }
    }
    #[inline(always)]
    unsafe fn weights(from: *const u8, _: usize) -> S::F32 {
        // SAFETY: passed on to the caller.
        unsafe { S::load(from.cast()) }
    }
    #[inline(always)]
    unsafe fn activation(from: *const u8, _: usize) -> S::F32 {
        // SAFETY: passed on to the caller.
        unsafe { S::splat(from.cast::<f32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn step(sum: S::F32, a: S::F32, b: S::F32) -> S::F32 {
        // SAFETY: passed on to the caller.
        unsafe { S::fma(a, b, sum) }
    }
    #[inline(always)]
    unsafe fn finish(sum: S::F32, _: &Scales, _: usize, _: usize) -> S::F32 {
        sum
    }
}

impl<S: Isa> Sums<S> for Bf16Pairs {
    type Sum = S::F32;
    type Factor = S::Bits;

    #[inline(always)]
    unsafe fn zero() -> S::F32 {
        // SAFETY: passed on to the caller.
        unsafe { S::splat(0.0) }
    }
    #[inline(always)]
    unsafe fn weights(from: *const u8, _: usize) -> S::Bits {
        // SAFETY: passed on to the caller.
        unsafe { S::load_bits(from) }
    }
    #[inline(always)]
    unsafe fn activation(from: *const u8, _: usize) -> S::Bits {
        // SAFETY: passed on to the caller.
        unsafe { S::splat_bits(from.cast::<u32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn step(sum: S::F32, a: S::Bits, b: S::Bits) -> S::F32 {
        // SAFETY: passed on to the caller.
        unsafe { S::dot_bf16(sum, a, b) }
    }
    #[inline(always)]
    unsafe fn finish(sum: S::F32, _: &Scales, _: usize, _: usize) -> S::F32 {
        sum
    }
}

impl<S: Isa> Sums<S> for Bf16Widened {
    type Sum = S::F32;
    type Factor = S::F32;
    const PARTS: usize = 2;

    #[inline(always)]
    unsafe fn zero() -> S::F32 {
        // SAFETY: passed on to the caller.
        unsafe { S::splat(0.0) }
    }
    #[inline(always)]
    unsafe fn weights(from: *const u8, part: usize) -> S::F32 {
        // SAFETY: passed on to the caller.
        unsafe { widened::<S>(S::load_bits(from), part) }
    }
    #[inline(always)]
    unsafe fn activation(from: *const u8, part: usize) -> S::F32 {
        // SAFETY: passed on to the caller.
        unsafe { widened::<S>(S::splat_bits(from.cast::<u32>().read_unaligned()), part) }
    }
    #[inline(always)]
    unsafe fn step(sum: S::F32, a: S::F32, b: S::F32) -> S::F32 {
        // SAFETY: passed on to the caller.
        unsafe { S::fma(a, b, sum) }
    }
    #[inline(always)]
    unsafe fn finish(sum: S::F32, _: &Scales, _: usize, _: usize) -> S::F32 {
        sum
    }
}

#[inline(always)]
unsafe fn widened<S: Isa>(pairs: S::Bits, part: usize) -> S::F32 {
    // SAFETY: passed on to the caller.
    unsafe {
        match part {
            0 => S::first_bf16(pairs),
            _ => S::second_bf16(pairs),
        }
    }
}

impl<S: Isa> Sums<S> for Int8Sums {
    type Sum = S::Bits;
    type Factor = S::Bits;
    const ROWS: usize = S::INT8_ROWS;

    #[inline(always)]
    unsafe fn zero() -> S::Bits {
        // SAFETY: passed on to the caller.
        unsafe { S::splat_bits(0) }
    }
    #[inline(always)]
    unsafe fn weights(from: *const u8, _: usize) -> S::Bits {
        // SAFETY: passed on to the caller.
        unsafe { S::load_bits(from) }
    }
    #[inline(always)]
    unsafe fn activation(from: *const u8, _: usize) -> S::Bits {
        // SAFETY: passed on to the caller.
        unsafe { S::splat_bits(from.cast::<u32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn step(sum: S::Bits, a: S::Bits, b: S::Bits) -> S::Bits {
        // SAFETY: passed on to the caller.
        unsafe { S::dot_int8(sum, a, b) }
    }
    #[inline(always)]
    unsafe fn finish(sum: S::Bits, scales: &Scales, row: usize, column: usize) -> S::F32 {
        // SAFETY: the caller's scales cover the tile.
        unsafe {
            // Σ (a − z)·b = Σ a·b − z·Σ b. Both parts are integers of at most 26 bits.
            let value = S::fma(
                S::splat(S::OFFSET - *scales.zero_points.add(row)),
                S::load(scales.sums.add(column)),
                S::to_f32(sum),
            );
            let scale = S::mul(
                S::splat(*scales.rows.add(row)),
                S::load(scales.columns.add(column)),
            );
            S::mul(value, scale)
        }
    }
}
