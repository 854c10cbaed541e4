//! One piece of portable code, compiled for several instruction sets and chosen at run time; and
//! the exponential function in a form that the compiler can vectorise.

/// Defines `$name`, which runs the portable `$body` compiled for the instruction set of this process. `$body` is generic over `const FMA: bool` (whether [`fma`] may use the fused
/// instruction; without it, `mul_add` would be a slow library call) and must be `#[inline(always)]`.
macro_rules! multiversion {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) = $body:ident) => {
        $(#[$doc])*
        $vis fn $name($($arg: $ty),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,fma")]
                fn v4($($arg: $ty),*) { $body::<true>($($arg),*) }
                #[target_feature(enable = "avx2,fma")]
                fn v3($($arg: $ty),*) { $body::<true>($($arg),*) }
                use $crate::florence2::kernels::instructions::{InstructionSet, Level};
                match InstructionSet::detect().level() {
                    // SAFETY: a machine with that instruction set has every feature of `v4`.
                    Level::V4 => return unsafe { v4($($arg),*) },
                    // SAFETY: and of `v3`.
                    Level::V3 => return unsafe { v3($($arg),*) },
                    Level::Baseline => {}
                }
            }
            $body::<{ cfg!(target_arch = "aarch64") }>($($arg),*)
        }
    };
}

pub(super) use multiversion;

/// `a · b + c`, fused where `FMA` says that this is one instruction.
#[inline(always)]
pub(super) fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// Partial sums of a reduction: one 512-bit register of f32, or two or four smaller ones. Addition
/// cannot be reordered by the compiler; in this form it does not have to be.
pub(super) const LANES: usize = 16;

/// Below this, `exp` would be subnormal; it returns `exp` of this instead.
const EXP_LOWEST: f32 = -87.0;
/// Adding and subtracting 1.5·2²³ rounds an f32 of moderate size to the nearest integer.
const ROUNDING: f32 = 12_582_912.0;
/// ln 2 in two parts, the first with trailing zero bits, so that `n · LN2_HIGH` is exact.
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;

/// eˣ for x ≤ 0, with a relative error below 3e-7 and no branch.
///
/// x = n·ln 2 + r; eʳ by its Taylor series to the seventh power (|r| ≤ 0.35: error 6e-9); 2ⁿ by its
/// exponent bits, for which the sum that was rounded holds n in its lowest.
#[inline(always)]
pub(super) fn exp_nonpositive<const FMA: bool>(x: f32) -> f32 {
    let x = if x > EXP_LOWEST { x } else { EXP_LOWEST };
    let rounded = fma::<FMA>(x, std::f32::consts::LOG2_E, ROUNDING);
    let n = rounded - ROUNDING;
    let r = fma::<FMA>(n, -LN2_LOW, fma::<FMA>(n, -LN2_HIGH, x));
    let mut p = 1.0 / 5040.0;
    for factorial in [720.0, 120.0, 24.0, 6.0, 2.0, 1.0, 1.0] {
        p = fma::<FMA>(p, r, 1.0 / factorial);
    }
    p * f32::from_bits(rounded.to_bits().wrapping_add(127) << 23)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponential_agrees_with_the_library() {
        for step in 0..87_000 {
            let x = -0.001 * step as f32;
            let expected = f64::from(x).exp();
            for value in [exp_nonpositive::<true>(x), exp_nonpositive::<false>(x)] {
                let error = (f64::from(value) / expected - 1.0).abs();
                assert!(error < 3e-7, "exp({x}) = {value}, relative error {error}");
            }
        }
        assert!(exp_nonpositive::<false>(f32::NEG_INFINITY) < 1e-37);
    }
}
