//! Are all values of a tensor numbers that the model can compute with?
//!
//! One NaN or infinity spreads to every answer, and answers of it look like answers. So each tensor is
//! looked at once, while it is read, on all threads. A finite value that is infinite in the number
//! format that the model is held in counts too. Magnitudes are compared as bits: the order of the bits
//! of non-negative floats is that of the floats.

use candle_core::{CpuStorage, Storage, Tensor};
use half::{bf16, f16};
use rayon::prelude::*;

use crate::florence2::form::Dtype;

/// Values that one task looks at.
const TASK: usize = 1 << 16;

/// The smallest magnitude that is too large: infinity, or what rounds to it in the model's format.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bound(f32);

impl Bound {
    /// What f32 holds.
    pub(super) const F32: Self = Self(f32::INFINITY);

    /// What is finite in every number format that `dtype` keeps weights in; int8 keeps some in bf16.
    pub(super) fn of(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::F16 => Self(65520.0),
            Dtype::Bf16 | Dtype::Int8 => Self(f32::from_bits(0x7F7F_8000)),
        }
    }
}

/// A stored number, as far as its magnitude goes.
pub(super) trait Magnitude: Copy + Send + Sync {
    /// Ordered as magnitudes are, NaN above infinity.
    type Bits: Copy + Ord + Default;

    fn bits(self) -> Self::Bits;
    /// The bits of the smallest value of this type that `bound` excludes.
    fn first_excluded(bound: Bound) -> Self::Bits;
    fn value(self) -> f64;
}

impl Magnitude for f16 {
    // Signed, because vectors of those have a maximum on every machine.
    type Bits = i16;

    fn bits(self) -> i16 {
        (self.to_bits() & 0x7FFF) as i16
    }

    // Whatever f16 holds is finite in the other formats.
    fn first_excluded(_: Bound) -> i16 {
        f16::INFINITY.bits()
    }

    fn value(self) -> f64 {
        self.to_f64()
    }
}

impl Magnitude for bf16 {
    type Bits = i16;

    fn bits(self) -> i16 {
        (self.to_bits() & 0x7FFF) as i16
    }

    fn first_excluded(bound: Bound) -> i16 {
        // Upwards: what lies below the bound is allowed.
        (bound.0.to_bits().saturating_add(0xFFFF) >> 16) as i16
    }

    fn value(self) -> f64 {
        self.to_f64()
    }
}

impl Magnitude for f32 {
    type Bits = i32;

    fn bits(self) -> i32 {
        (self.to_bits() & 0x7FFF_FFFF) as i32
    }

    fn first_excluded(bound: Bound) -> i32 {
        bound.0.bits()
    }

    fn value(self) -> f64 {
        f64::from(self)
    }
}

impl Magnitude for f64 {
    type Bits = i64;

    fn bits(self) -> i64 {
        (self.to_bits() & 0x7FFF_FFFF_FFFF_FFFF) as i64
    }

    fn first_excluded(bound: Bound) -> i64 {
        // Half a step above the largest f32 is where rounding to f32 gives infinity.
        let bound = if bound == Bound::F32 {
            f64::from(f32::MAX) * (1.0 + f64::from(f32::EPSILON) / 4.0)
        } else {
            f64::from(bound.0)
        };
        bound.bits()
    }

    fn value(self) -> f64 {
        self
    }
}

/// Whether `bound` allows all of these; one task's worth, without branches.
pub(super) fn allows<T: Magnitude>(bound: Bound, values: &[T]) -> bool {
    let largest = values.iter().fold(T::Bits::default(), |largest, value| {
        largest.max(value.bits())
    });
    largest < T::first_excluded(bound)
}

/// The first value of a host tensor that `bound` excludes.
pub(super) fn first_excluded(tensor: &Tensor, bound: Bound) -> Option<f64> {
    let (storage, _) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(CpuStorage::F16(values)) => first_in(values, bound),
        Storage::Cpu(CpuStorage::BF16(values)) => first_in(values, bound),
        Storage::Cpu(CpuStorage::F32(values)) => first_in(values, bound),
        Storage::Cpu(CpuStorage::F64(values)) => first_in(values, bound),
        // Integers are finite.
        _ => None,
    }
}

fn first_in<T: Magnitude>(values: &[T], bound: Bound) -> Option<f64> {
    values
        .par_chunks(TASK)
        .filter(|values| !allows(bound, values))
        .find_first(|_| true)?
        .iter()
        .find(|value| value.bits() >= T::first_excluded(bound))
        .map(|value| value.value())
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn bits<T: Magnitude>(value: T, bound: Bound) -> bool {
        allows(bound, &[value])
    }

    #[test]
    fn what_is_finite_in_the_target_format_is_allowed_and_nothing_else() {
        let [f32s, half, brain] = [Dtype::F32, Dtype::F16, Dtype::Bf16].map(Bound::of);
        for bound in [f32s, half, brain] {
            for sign in [1.0, -1.0_f32] {
                for bad in [f32::NAN, f32::INFINITY] {
                    let bad = bad * sign;
                    assert!(!bits(bad, bound) && !bits(f64::from(bad), bound));
                    assert!(!bits(f16::from_f32(bad), bound));
                    assert!(!bits(bf16::from_f32(bad), bound));
                }
                // Every value, judged by what the conversion makes of it.
                for value in [0.0, 1e-40, 1.0, 65_504.0, 65_519.9, 65_520.0, 1e5, 3.38e38] {
                    let value: f32 = value * sign;
                    let fits = |value: f32| match bound {
                        _ if bound == half => f16::from_f32(value).is_finite(),
                        _ if bound == brain => bf16::from_f32(value).is_finite(),
                        _ => value.is_finite(),
                    };
                    assert_eq!(bits(value, bound), fits(value), "{value} {bound:?}");
                    assert_eq!(bits(f64::from(value), bound), fits(value), "{value}");
                    let narrow = bf16::from_f32(value);
                    assert_eq!(bits(narrow, bound), fits(narrow.to_f32()), "{narrow}");
                }
            }
        }
        assert!(bits(f32::MAX, f32s) && !bits(f32::MAX, brain) && bits(3.395e38_f32, brain));
        assert!(bits(f64::from(f32::MAX), f32s) && !bits(3.5e38_f64, f32s));
        assert!(bits(f16::MAX, half) && bits(f16::MIN, f32s));
    }

    #[test]
    fn the_first_bad_value_is_found_wherever_it_stands() {
        for at in [0, 1, TASK - 1, TASK, 3 * TASK + 5] {
            let mut values = vec![0.5_f32; 3 * TASK + 6];
            let tensor = Tensor::new(values.as_slice(), &Device::Cpu).unwrap();
            assert_eq!(first_excluded(&tensor, Bound::F32), None);
            values[at] = f32::NEG_INFINITY;
            let tensor = Tensor::new(values.as_slice(), &Device::Cpu).unwrap();
            assert_eq!(first_excluded(&tensor, Bound::F32), Some(f64::NEG_INFINITY));
        }
    }
}
