//! 256-bit vectors with fused multiply-add, with and without the byte dot product.

use std::arch::x86_64::*;

use super::isa::Isa;

/// AVX2 and FMA; `VNNI` says whether the byte dot product is an instruction (AVX-VNNI).
#[derive(Clone, Copy)]
pub(super) struct Avx2<const VNNI: bool>;

impl<const VNNI: bool> Isa for Avx2<VNNI> {
    type F32 = __m256;
    type Bits = __m256i;
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m256 {
        // SAFETY: the trait's contract.
        unsafe { _mm256_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: __m256) {
        // SAFETY: the trait's contract.
        unsafe { _mm256_storeu_ps(to, value) }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> __m256 {
        // SAFETY: the trait's contract.
        unsafe { _mm256_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn add(a: __m256, b: __m256) -> __m256 {
        // SAFETY: the trait's contract.
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m256, b: __m256) -> __m256 {
        // SAFETY: the trait's contract.
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: the trait's contract.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn load_bits(from: *const u8) -> __m256i {
        // SAFETY: the trait's contract.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }
    #[inline(always)]
    unsafe fn splat_bits(value: u32) -> __m256i {
        // SAFETY: the trait's contract.
        unsafe { _mm256_set1_epi32(value.cast_signed()) }
    }
    #[inline(always)]
    unsafe fn to_f32(value: __m256i) -> __m256 {
        // SAFETY: the trait's contract.
        unsafe { _mm256_cvtepi32_ps(value) }
    }
    #[inline(always)]
    unsafe fn first_bf16(pairs: __m256i) -> __m256 {
        // SAFETY: the trait's contract.
        unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs)) }
    }
    #[inline(always)]
    unsafe fn second_bf16(pairs: __m256i) -> __m256 {
        // SAFETY: the trait's contract.
        unsafe {
            let upper = _mm256_set1_epi32(0xFFFF_0000_u32.cast_signed());
            _mm256_castsi256_ps(_mm256_and_si256(pairs, upper))
        }
    }
    #[inline(always)]
    unsafe fn dot_int8(acc: __m256i, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the trait's contract.
        unsafe {
            if VNNI {
                _mm256_dpbusd_avx_epi32(acc, a, b)
            } else {
                // Bytes 0 and 2, then 1 and 3, widened to 16 bits: no sum of two can overflow.
                let low = _mm256_set1_epi32(0x00FF_00FF);
                let a_even = _mm256_and_si256(a, low);
                let a_odd = _mm256_and_si256(_mm256_srli_epi32::<8>(a), low);
                let b_even = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(b));
                let b_odd = _mm256_srai_epi16::<8>(b);
                let acc = _mm256_add_epi32(acc, _mm256_madd_epi16(a_even, b_even));
                _mm256_add_epi32(acc, _mm256_madd_epi16(a_odd, b_odd))
            }
        }
    }
    #[inline(always)]
    fn prefetch(from: *const u8) {
        // SAFETY: a prefetch reads nothing that can be seen, and never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }
}
