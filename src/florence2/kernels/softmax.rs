//! Softmax over rows of scores.

use super::simd::{LANES, exp_nonpositive, multiversion};

multiversion! {
    /// Softmax of `scale` times every row of a row-major matrix, in place.
    pub fn softmax_rows(matrix: &mut [f32], columns: usize, scale: f32) = softmax_rows_body
}

#[inline(always)]
pub(super) fn softmax_rows_body<const FMA: bool>(matrix: &mut [f32], columns: usize, scale: f32) {
    for row in matrix.chunks_exact_mut(columns) {
        let mut maxima = [f32::NEG_INFINITY; LANES];
        let chunks = row.chunks_exact(LANES);
        let mut max = chunks
            .remainder()
            .iter()
            .copied()
            .fold(f32::NEG_INFINITY, f32::max);
        for chunk in chunks {
            for i in 0..LANES {
                maxima[i] = if chunk[i] > maxima[i] {
                    chunk[i]
                } else {
                    maxima[i]
                };
            }
        }
        max = maxima.into_iter().fold(max, f32::max);
        let mut sums = [0.0; LANES];
        let mut chunks = row.chunks_exact_mut(LANES);
        for chunk in &mut chunks {
            for i in 0..LANES {
                chunk[i] = exp_nonpositive::<FMA>((chunk[i] - max) * scale);
                sums[i] += chunk[i];
            }
        }
        let mut total: f32 = sums.iter().sum();
        for value in chunks.into_remainder() {
            *value = exp_nonpositive::<FMA>((*value - max) * scale);
            total += *value;
        }
        let inverse = 1.0 / total;
        for value in row {
            *value *= inverse;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_rows_sum_to_one_at_any_magnitude() {
        for columns in [1, 5, 16, 37] {
            let mut matrix: Vec<f32> = (0..3 * columns)
                .map(|i| (i as f32 * 37.0).sin() * 1e4)
                .collect();
            softmax_rows(&mut matrix, columns, 0.5);
            for row in matrix.chunks_exact(columns) {
                assert!(
                    (row.iter().sum::<f32>() - 1.0).abs() < 1e-5 && row.iter().all(|p| *p >= 0.0)
                );
            }
        }
    }
}
