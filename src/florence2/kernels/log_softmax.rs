//! Log-softmax over the vocabulary: of a whole row, in place, at every step of beam search; of the
//! one token that was chosen, at every step of greedy search.

use super::simd::{LANES, exp_nonpositive, multiversion};

/// `x − log Σ eˣ` over the whole slice, in place. Sums in f32, as the reference does.
pub fn log_softmax(row: &mut [f32]) {
    let (max, log_sum) = normaliser(row);
    subtract_both(row, max, log_sum);
}

/// The one value that [`log_softmax`] would leave at `index`; −∞ where the row has that or ends before.
pub fn log_softmax_at(row: &[f32], index: usize) -> f32 {
    match row.get(index) {
        None | Some(&f32::NEG_INFINITY) => f32::NEG_INFINITY,
        Some(value) => {
            let (max, log_sum) = normaliser(row);
            (value - max) - log_sum
        }
    }
}

/// The largest value, and `log Σ e^(x − max)`.
fn normaliser(row: &[f32]) -> (f32, f32) {
    let mut max = f32::NEG_INFINITY;
    largest(row, &mut max);
    let mut sum = 0.0;
    sum_of_exponentials(row, max, &mut sum);
    (max, sum.ln())
}

multiversion! {
    /// The largest value of `row` and `max`; NaN never wins.
    fn largest(row: &[f32], max: &mut f32) = largest_body
}

#[inline(always)]
fn largest_body<const FMA: bool>(row: &[f32], max: &mut f32) {
    // Two vectors of maxima: neither waits for the other.
    const WIDE: usize = 2 * LANES;
    let mut maxima = [*max; WIDE];
    let chunks = row.chunks_exact(WIDE);
    let tail = chunks.remainder().iter().copied().fold(*max, f32::max);
    for chunk in chunks {
        for i in 0..WIDE {
            maxima[i] = if chunk[i] > maxima[i] {
                chunk[i]
            } else {
                maxima[i]
            };
        }
    }
    *max = maxima.into_iter().fold(tail, f32::max);
}

multiversion! {
    /// `(x − first) − second` of every value.
    fn subtract_both(row: &mut [f32], first: f32, second: f32) = subtract_both_body
}

#[inline(always)]
fn subtract_both_body<const FMA: bool>(row: &mut [f32], first: f32, second: f32) {
    for value in row {
        *value = (*value - first) - second;
    }
}

multiversion! {
    /// `sum = Σ e^(x − max)`.
    fn sum_of_exponentials(row: &[f32], max: f32, sum: &mut f32) = sum_of_exponentials_body
}

#[inline(always)]
fn sum_of_exponentials_body<const FMA: bool>(row: &[f32], max: f32, sum: &mut f32) {
    let mut sums = [0.0f32; LANES];
    let chunks = row.chunks_exact(LANES);
    let tail: f32 = chunks
        .remainder()
        .iter()
        .map(|x| exp_nonpositive::<FMA>(x - max))
        .sum();
    for chunk in chunks {
        for i in 0..LANES {
            sums[i] += exp_nonpositive::<FMA>(chunk[i] - max);
        }
    }
    *sum = sums.iter().sum::<f32>() + tail;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_definition_in_f64() {
        let row: Vec<f32> = (0..1003).map(|i| (i as f32 * 0.7).sin() * 20.0).collect();
        let sum: f64 = row.iter().map(|x| f64::from(*x).exp()).sum();
        let mut ours = row.clone();
        log_softmax(&mut ours);
        for (x, y) in row.iter().zip(&ours) {
            assert!((f64::from(*x) - sum.ln() - f64::from(*y)).abs() < 1e-5);
        }
    }

    #[test]
    fn one_value_is_what_the_whole_row_would_hold() {
        let mut row: Vec<f32> = (0..77).map(|i| (i as f32 * 0.7).sin() * 20.0).collect();
        row[3] = f32::NEG_INFINITY;
        let mut whole = row.clone();
        log_softmax(&mut whole);
        for (index, expected) in whole.iter().enumerate() {
            assert_eq!(log_softmax_at(&row, index), *expected);
        }
        assert_eq!(log_softmax_at(&row, 77), f32::NEG_INFINITY);
        // What a forced token leaves: itself, with certainty.
        let forced = [f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY];
        assert_eq!(log_softmax_at(&forced, 1), 0.0);
    }
}
