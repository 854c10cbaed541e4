//! The same in plain Rust, for every other machine.

use super::isa::Isa;

const LANES: usize = 8;

/// Arrays that the compiler vectorises as far as the target's baseline goes.
#[derive(Clone, Copy)]
pub(super) struct Portable;

impl Isa for Portable {
    type F32 = [f32; LANES];
    type Bits = [u32; LANES];
    const LANES: usize = LANES;

    #[inline(always)]
    unsafe fn load(from: *const f32) -> [f32; LANES] {
        // SAFETY: the trait's contract.
        unsafe { from.cast::<[f32; LANES]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: [f32; LANES]) {
        // SAFETY: the trait's contract.
        unsafe { to.cast::<[f32; LANES]>().write_unaligned(value) }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> [f32; LANES] {
        [value; LANES]
    }
    #[inline(always)]
    unsafe fn add(a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        std::array::from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn mul(a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        std::array::from_fn(|i| a[i] * b[i])
    }
    #[inline(always)]
    unsafe fn fma(a: [f32; LANES], b: [f32; LANES], c: [f32; LANES]) -> [f32; LANES] {
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    unsafe fn load_bits(from: *const u8) -> [u32; LANES] {
        // SAFETY: the trait's contract.
        unsafe { from.cast::<[u32; LANES]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn splat_bits(value: u32) -> [u32; LANES] {
        [value; LANES]
    }
    #[inline(always)]
    unsafe fn to_f32(value: [u32; LANES]) -> [f32; LANES] {
        value.map(|value| value.cast_signed() as f32)
    }
    #[inline(always)]
    unsafe fn first_bf16(pairs: [u32; LANES]) -> [f32; LANES] {
        pairs.map(|pair| f32::from_bits(pair << 16))
    }
    #[inline(always)]
    unsafe fn second_bf16(pairs: [u32; LANES]) -> [f32; LANES] {
        pairs.map(|pair| f32::from_bits(pair & 0xFFFF_0000))
    }
    #[inline(always)]
    unsafe fn dot_int8(acc: [u32; LANES], a: [u32; LANES], b: [u32; LANES]) -> [u32; LANES] {
        std::array::from_fn(|i| {
            let (a, b) = (a[i].to_ne_bytes(), b[i].to_ne_bytes());
            let products = (0..4).map(|k| i32::from(a[k]) * i32::from(b[k].cast_signed()));
            products
                .fold(acc[i].cast_signed(), i32::wrapping_add)
                .cast_unsigned()
        })
    }
}
