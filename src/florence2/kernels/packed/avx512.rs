//! 512-bit vectors, with and without the bf16 and byte dot products.

use std::arch::x86_64::*;

use super::isa::Isa;

/// AVX-512 F, BW, DQ and VL; `BF16` and `VNNI` say whether the dot products are instructions.
#[derive(Clone, Copy)]
pub(super) struct Avx512<const BF16: bool, const VNNI: bool>;

impl<const BF16: bool, const VNNI: bool> Isa for Avx512<BF16, VNNI> {
    type F32 = __m512;
    type Bits = __m512i;
    const LANES: usize = 16;
    const HAS_BF16: bool = BF16;

    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m512 {
        // SAFETY: the trait's contract.
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: __m512) {
        // SAFETY: the trait's contract.
        unsafe { _mm512_storeu_ps(to, value) }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> __m512 {
        // SAFETY: the trait's contract.
        unsafe { _mm512_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        // SAFETY: the trait's contract.
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        // SAFETY: the trait's contract.
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: the trait's contract.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn load_bits(from: *const u8) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }
    #[inline(always)]
    unsafe fn splat_bits(value: u32) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_set1_epi32(value.cast_signed()) }
    }
    #[inline(always)]
    unsafe fn to_f32(value: __m512i) -> __m512 {
        // SAFETY: the trait's contract.
        unsafe { _mm512_cvtepi32_ps(value) }
    }
    #[inline(always)]
    unsafe fn dot_bf16(acc: __m512, a: __m512i, b: __m512i) -> __m512 {
        // SAFETY: the trait's contract; the casts are between vectors of the same 64 bytes.
        unsafe {
            _mm512_dpbf16_ps(
                acc,
                std::mem::transmute::<__m512i, __m512bh>(a),
                std::mem::transmute::<__m512i, __m512bh>(b),
            )
        }
    }
    #[inline(always)]
    unsafe fn first_bf16(pairs: __m512i) -> __m512 {
        // SAFETY: the trait's contract.
        unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs)) }
    }
    #[inline(always)]
    unsafe fn second_bf16(pairs: __m512i) -> __m512 {
        // SAFETY: the trait's contract.
        unsafe {
            let upper = _mm512_set1_epi32(0xFFFF_0000_u32.cast_signed());
            _mm512_castsi512_ps(_mm512_and_si512(pairs, upper))
        }
    }
    #[inline(always)]
    unsafe fn dot_int8(acc: __m512i, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe {
            if VNNI {
                _mm512_dpbusd_epi32(acc, a, b)
            } else {
                // Bytes 0 and 2, then 1 and 3, widened to 16 bits: no sum of two can overflow.
                let low = _mm512_set1_epi32(0x00FF_00FF);
                let a_even = _mm512_and_si512(a, low);
                let a_odd = _mm512_and_si512(_mm512_srli_epi32::<8>(a), low);
                let b_even = _mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(b));
                let b_odd = _mm512_srai_epi16::<8>(b);
                let acc = _mm512_add_epi32(acc, _mm512_madd_epi16(a_even, b_even));
                _mm512_add_epi32(acc, _mm512_madd_epi16(a_odd, b_odd))
            }
        }
    }
    #[inline(always)]
    fn prefetch(from: *const u8) {
        // SAFETY: a prefetch reads nothing that can be seen, and never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }
}
