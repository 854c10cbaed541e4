//! The vector instructions that the tiles are written in, one implementation for each instruction
//! set.
//!
//! Every vector lane is 32 bits wide: one f32, two bf16 or four bytes of consecutive inputs of one
//! output. So the three number formats share one loop (`tile.rs`).

use super::tile::ROWS;

/// One instruction set.
///
/// # Safety
/// Every function may be called only on a machine that has the instructions; pointers are read or
/// written for [`Isa::LANES`] lanes of four bytes, without any alignment.
pub(super) trait Isa: Copy + 'static {
    /// [`Isa::LANES`] f32.
    type F32: Copy;
    /// [`Isa::LANES`] 32-bit integers, or the bits of bf16 pairs or byte quadruples.
    type Bits: Copy;
    /// Lanes of a vector.
    const LANES: usize;
    /// What [`Isa::dot_int8`] takes from every activation before it multiplies.
    const OFFSET: f32 = 0.0;
    /// Most rows of a tile of bytes: fewer where [`Isa::dot_int8`] needs registers of its own.
    const INT8_ROWS: usize = ROWS;

    unsafe fn load(from: *const f32) -> Self::F32;
    unsafe fn store(to: *mut f32, value: Self::F32);
    unsafe fn splat(value: f32) -> Self::F32;
    unsafe fn add(a: Self::F32, b: Self::F32) -> Self::F32;
    unsafe fn mul(a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a · b + c`.
    unsafe fn fma(a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;

    unsafe fn load_bits(from: *const u8) -> Self::Bits;
    unsafe fn splat_bits(value: u32) -> Self::Bits;
    /// Signed integers to the nearest f32.
    unsafe fn to_f32(value: Self::Bits) -> Self::F32;
    /// Whether [`Isa::dot_bf16`] is an instruction. Elsewhere bf16 is widened and multiplied as f32.
    const HAS_BF16: bool = false;

    /// `acc + a₀·b₀ + a₁·b₁` in every lane, of bf16 pairs; only with [`Isa::HAS_BF16`].
    unsafe fn dot_bf16(acc: Self::F32, a: Self::Bits, b: Self::Bits) -> Self::F32 {
        let _ = (a, b);
        acc
    }
    /// The first of every bf16 pair.
    unsafe fn first_bf16(pairs: Self::Bits) -> Self::F32;
    /// The second of every bf16 pair.
    unsafe fn second_bf16(pairs: Self::Bits) -> Self::F32;
    /// `acc + a₀·b₀ + … + a₃·b₃` in every lane, `a` unsigned and `b` signed bytes from
    /// −127 on; with [`Isa::OFFSET`] the sum of `(aᵢ − offset)·bᵢ`. Exact.
    unsafe fn dot_int8(acc: Self::Bits, a: Self::Bits, b: Self::Bits) -> Self::Bits;

    /// Asks for the cache line at `from`, which need not be readable.
    #[inline(always)]
    fn prefetch(from: *const u8) {
        let _ = from;
    }
}
