//! Arm's 128-bit vectors, with and without the byte dot product.

use std::arch::aarch64::*;
use std::arch::asm;

use super::isa::Isa;
use super::tile::ROWS;

/// NEON; `DOT` says whether the signed byte dot product is an instruction.
#[derive(Clone, Copy)]
pub(super) struct Neon<const DOT: bool>;

impl<const DOT: bool> Isa for Neon<DOT> {
    type F32 = float32x4_t;
    type Bits = uint32x4_t;
    const LANES: usize = 4;
    // Its products are of signed bytes.
    const OFFSET: f32 = 128.0;
    const INT8_ROWS: usize = if DOT { ROWS } else { 4 };

    #[inline(always)]
    unsafe fn load(from: *const f32) -> float32x4_t {
        // SAFETY: the trait's contract.
        unsafe { vld1q_f32(from) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: float32x4_t) {
        // SAFETY: the trait's contract.
        unsafe { vst1q_f32(to, value) }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> float32x4_t {
        // SAFETY: the trait's contract.
        unsafe { vdupq_n_f32(value) }
    }
    #[inline(always)]
    unsafe fn add(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: the trait's contract.
        unsafe { vaddq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: the trait's contract.
        unsafe { vmulq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        // SAFETY: the trait's contract.
        unsafe { vfmaq_f32(c, a, b) }
    }
    #[inline(always)]
    unsafe fn load_bits(from: *const u8) -> uint32x4_t {
        // SAFETY: the trait's contract.
        unsafe { vreinterpretq_u32_u8(vld1q_u8(from)) }
    }
    #[inline(always)]
    unsafe fn splat_bits(value: u32) -> uint32x4_t {
        // SAFETY: the trait's contract.
        unsafe { vdupq_n_u32(value) }
    }
    #[inline(always)]
    unsafe fn to_f32(value: uint32x4_t) -> float32x4_t {
        // SAFETY: the trait's contract.
        unsafe { vcvtq_f32_s32(vreinterpretq_s32_u32(value)) }
    }
    #[inline(always)]
    unsafe fn first_bf16(pairs: uint32x4_t) -> float32x4_t {
        // SAFETY: the trait's contract.
        unsafe { vreinterpretq_f32_u32(vshlq_n_u32::<16>(pairs)) }
    }
    #[inline(always)]
    unsafe fn second_bf16(pairs: uint32x4_t) -> float32x4_t {
        // SAFETY: the trait's contract.
        unsafe { vreinterpretq_f32_u32(vandq_u32(pairs, vdupq_n_u32(0xFFFF_0000))) }
    }
    #[inline(always)]
    unsafe fn dot_int8(acc: uint32x4_t, a: uint32x4_t, b: uint32x4_t) -> uint32x4_t {
        // SAFETY: the trait's contract; with `DOT` the machine has the instruction.
        unsafe {
            let zero_points = vdupq_n_u32(0x8080_8080);
            if DOT {
                let mut acc = acc;
                asm!(
                    ".arch_extension dotprod",
                    "sdot {acc:v}.4s, {a:v}.16b, {b:v}.16b",
                    acc = inout(vreg) acc,
                    a = in(vreg) veorq_u32(a, zero_points),
                    b = in(vreg) b,
                    options(pure, nomem, nostack, preserves_flags)
                );
                return acc;
            }
            // As the compiler does not see that all lanes are the same, it takes the upper halves by
            // the instruction for them, and not by copies of the weights that want registers.
            let signed: int8x16_t;
            asm!(
                "eor {signed:v}.16b, {a:v}.16b, {zero_points:v}.16b",
                signed = lateout(vreg) signed,
                a = in(vreg) a,
                zero_points = in(vreg) zero_points,
                options(pure, nomem, nostack, preserves_flags)
            );
            let b = vreinterpretq_s8_u32(b);
            let low = vmull_s8(vget_low_s8(signed), vget_low_s8(b));
            let high = vmull_high_s8(signed, b);
            // Two products fit 16 bits: 2 · 128 · 127 < 2¹⁵.
            let pairs = vpaddq_s16(low, high);
            vreinterpretq_u32_s32(vpadalq_s16(vreinterpretq_s32_u32(acc), pairs))
        }
    }
    #[inline(always)]
    fn prefetch(from: *const u8) {
        // SAFETY: a prefetch reads nothing that can be seen, and never faults.
        unsafe {
            asm!("prfm pldl1keep, [{0}]", in(reg) from, options(nostack, preserves_flags, readonly));
        }
    }
}
