//! The vector instructions that the tiles are written in, one implementation for each instruction
//! set, and the choice between them at run time.
//!
//! Every vector lane is 32 bits wide: one f32, two bf16 or four bytes of consecutive inputs of one
//! output. So the three number formats share one loop (`tile.rs`).

use std::sync::LazyLock;

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
    /// Whether the sums of [`Isa::dot_int8`] hold the activations' zero point, to be taken out again.
    const HAS_ZERO_POINT: bool = true;
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
    /// Integers `a − b`, then to f32.
    unsafe fn difference(a: Self::Bits, b: Self::Bits) -> Self::F32;
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
    /// −127 on; without [`Isa::HAS_ZERO_POINT`] the sum of `(aᵢ − 128)·bᵢ`. Exact.
    unsafe fn dot_int8(acc: Self::Bits, a: Self::Bits, b: Self::Bits) -> Self::Bits;

    /// Asks for the cache line at `from`, which need not be readable.
    #[inline(always)]
    fn prefetch(from: *const u8) {
        let _ = from;
    }
}

/// The instruction sets that have code of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum InstructionSet {
    /// Plain Rust, vectorised by the compiler as far as the target's baseline goes.
    Portable,
    /// Arm's 128-bit vectors.
    Neon,
    /// The same with the byte dot product.
    NeonDot,
    /// 256-bit vectors with fused multiply-add.
    Avx2,
    /// The same with the byte dot product (AVX-VNNI).
    AvxVnni,
    /// 512-bit vectors.
    Avx512,
    /// The same with the byte dot product.
    Avx512Vnni,
    /// The same with the bf16 dot product too.
    Avx512Bf16,
}

impl InstructionSet {
    /// The best that this machine has.
    #[must_use]
    pub fn detect() -> Self {
        static BEST: LazyLock<InstructionSet> = LazyLock::new(|| {
            *InstructionSet::available()
                .last()
                .unwrap_or(&InstructionSet::Portable)
        });
        *BEST
    }

    /// All that this machine has, the best last.
    #[must_use]
    pub fn available() -> Vec<Self> {
        let mut sets = vec![Self::Portable];
        #[cfg(target_arch = "aarch64")]
        {
            use std::arch::is_aarch64_feature_detected as has;
            sets.push(Self::Neon);
            if has!("dotprod") {
                sets.push(Self::NeonDot);
            }
        }
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            if has!("avx2") && has!("fma") {
                sets.push(Self::Avx2);
                if has!("avxvnni") {
                    sets.push(Self::AvxVnni);
                }
            }
            if has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512dq") {
                sets.push(Self::Avx512);
                if has!("avx512vnni") {
                    sets.push(Self::Avx512Vnni);
                    if has!("avx512bf16") {
                        sets.push(Self::Avx512Bf16);
                    }
                }
            }
        }
        sets
    }

    /// In words, for reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "no vector instructions that are known",
            Self::Neon => "NEON",
            Self::NeonDot => "NEON with byte dot products",
            Self::Avx2 => "AVX2",
            Self::AvxVnni => "AVX2 with byte dot products",
            Self::Avx512 => "AVX-512",
            Self::Avx512Vnni => "AVX-512 with byte dot products",
            Self::Avx512Bf16 => "AVX-512 with bf16 and byte dot products",
        }
    }

    /// Whether this set multiplies bf16 pairs in one instruction.
    #[must_use]
    pub fn has_bf16(self) -> bool {
        self == Self::Avx512Bf16
    }

    /// Whether this set multiplies byte quadruples in one instruction.
    #[must_use]
    pub fn has_int8(self) -> bool {
        matches!(
            self,
            Self::NeonDot | Self::AvxVnni | Self::Avx512Vnni | Self::Avx512Bf16
        )
    }
}
