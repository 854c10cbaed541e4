//! A look at many numbers: is any of them NaN or infinite?

use candle_core::{CpuStorage, DType, Result, Storage, Tensor};

use super::simd::{LANES, multiversion};

/// The bits of a float's exponent; all set in NaN and the infinities alone.
const EXPONENT: u32 = 0x7F80_0000;

/// Whether no value is NaN or infinite.
pub fn all_finite(values: &[f32]) -> bool {
    let mut largest = 0;
    largest_exponent(values, &mut largest);
    largest < EXPONENT
}

/// Whether no value of a tensor, on any device and in any dtype, is NaN or infinite.
///
/// # Errors
/// When the device fails.
pub fn is_finite(tensor: &Tensor) -> Result<bool> {
    {
        let (storage, layout) = tensor.storage_and_layout();
        if let (Storage::Cpu(CpuStorage::F32(values)), Some((start, end))) =
            (&*storage, layout.contiguous_offsets())
        {
            return Ok(all_finite(&values[start..end]));
        }
    }
    // Zero times a number is zero, and nothing else is; a sum of zeros cannot overflow.
    let zeros = tensor.to_dtype(DType::F32)?.affine(0.0, 0.0)?;
    Ok(zeros.sum_all()?.to_scalar::<f32>()? == 0.0)
}

multiversion! {
    /// The largest exponent of `values` and `largest`, as bits.
    fn largest_exponent(values: &[f32], largest: &mut u32) = largest_exponent_body
}

#[inline(always)]
fn largest_exponent_body<const FMA: bool>(values: &[f32], largest: &mut u32) {
    // Two vectors of maxima: neither waits for the other.
    const WIDE: usize = 2 * LANES;
    let mut maxima = [*largest; WIDE];
    let chunks = values.chunks_exact(WIDE);
    for (max, value) in maxima.iter_mut().zip(chunks.remainder()) {
        *max = (*max).max(value.to_bits() & EXPONENT);
    }
    for chunk in chunks {
        for i in 0..WIDE {
            maxima[i] = maxima[i].max(chunk[i].to_bits() & EXPONENT);
        }
    }
    *largest = maxima.into_iter().fold(*largest, u32::max);
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn both_ways_to_look_at_a_tensor_agree() {
        let values: Vec<f32> = (0..60).map(|i| (i as f32 - 30.0) * 1e3).collect();
        for bad in [0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = values.clone();
            values[37] = bad;
            let tensor = Tensor::from_vec(values, (6, 10), &Device::Cpu).unwrap();
            let expected = bad == 0.0;
            assert_eq!(is_finite(&tensor).unwrap(), expected, "{bad}");
            // Not contiguous, and of another dtype: composed of tensor operations.
            assert_eq!(is_finite(&tensor.t().unwrap()).unwrap(), expected, "{bad}");
            for dtype in [DType::F16, DType::BF16] {
                let narrow = tensor.to_dtype(dtype).unwrap();
                assert_eq!(is_finite(&narrow).unwrap(), expected, "{bad} {dtype:?}");
            }
        }
    }

    #[test]
    fn one_value_that_is_not_finite_is_found_at_any_place() {
        for length in [1, 7, 16, 33, 100] {
            let mut values: Vec<f32> = (0..length).map(|i| (i as f32 - 3.0) * 1e36).collect();
            values[0] = f32::MAX;
            assert!(all_finite(&values));
            for at in 0..length {
                for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    let before = std::mem::replace(&mut values[at], bad);
                    assert!(!all_finite(&values), "{bad} at {at} of {length}");
                    values[at] = before;
                }
            }
        }
        assert!(all_finite(&[]));
    }
}
