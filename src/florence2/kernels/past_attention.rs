//! Attention of one newest token over its own past, one head at a time.
//!
//! The tokens of all beams lie in one growing list, in the order in which they came; a beam is the
//! list of those entries that are its own. So beams that change their parents copy numbers, and
//! never keys or values.

use super::simd::{LANES, fma, multiversion};
use super::softmax::softmax_rows_body;

multiversion! {
    /// `query (width)` over those rows of `keys` and `values (…, width)` that `entries` name → `out
    /// (width)`. Queries are scaled by 1/√width; `scores` has room for one value an entry.
    ///
    /// # Panics
    /// When an entry is out of range, or the lengths do not fit.
    pub(crate) fn attend_past(
        query: &[f32],
        keys: &[f32],
        values: &[f32],
        entries: &[u32],
        scores: &mut [f32],
        out: &mut [f32],
    ) = attend_past_body
}

#[inline(always)]
fn attend_past_body<const FMA: bool>(
    query: &[f32],
    keys: &[f32],
    values: &[f32],
    entries: &[u32],
    scores: &mut [f32],
    out: &mut [f32],
) {
    let width = query.len();
    let scores = &mut scores[..entries.len()];
    if entries.is_empty() || width == 0 {
        return;
    }
    for (score, entry) in scores.iter_mut().zip(entries) {
        *score = dot::<FMA>(query, &keys[*entry as usize * width..][..width]);
    }
    softmax_rows_body::<FMA>(scores, entries.len(), (width as f32).powf(-0.5));
    let mut first = 0;
    while first < width {
        let left = width - first;
        // Four vectors at a time: no addition waits for the one before.
        let done = if left >= 4 * LANES {
            weighted_sum::<FMA, { 4 * LANES }>(scores, values, entries, width, first, out)
        } else if left >= LANES {
            weighted_sum::<FMA, LANES>(scores, values, entries, width, first, out)
        } else {
            weighted_sum::<FMA, 1>(scores, values, entries, width, first, out)
        };
        first += done;
    }
}

/// Channels `first..first + N` of the sum of the entries' values; returns `N`.
#[inline(always)]
fn weighted_sum<const FMA: bool, const N: usize>(
    weights: &[f32],
    values: &[f32],
    entries: &[u32],
    width: usize,
    first: usize,
    out: &mut [f32],
) -> usize {
    let mut sums = [0.0f32; N];
    for (weight, entry) in weights.iter().zip(entries) {
        let value = &values[*entry as usize * width + first..][..N];
        for i in 0..N {
            sums[i] = fma::<FMA>(*weight, value[i], sums[i]);
        }
    }
    out[first..first + N].copy_from_slice(&sums);
    N
}

#[inline(always)]
fn dot<const FMA: bool>(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (chunks, others) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let mut total = 0.0;
    for (a, b) in chunks.remainder().iter().zip(others.remainder()) {
        total = fma::<FMA>(*a, *b, total);
    }
    for (a, b) in chunks.zip(others) {
        for i in 0..LANES {
            sums[i] = fma::<FMA>(a[i], b[i], sums[i]);
        }
    }
    // By halves: shuffles and four additions in place of sixteen that wait for each other.
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            sums[i] += sums[i + half];
        }
        half /= 2;
    }
    sums[0] + total
}

#[cfg(test)]
mod tests {
    use candle_core::{D, Tensor};

    use super::super::test_tensors::{random, relative_error};
    use super::*;

    #[test]
    fn agrees_with_the_composed_twin_whatever_the_entries() {
        for (width, all, entries) in [
            (1, 1, vec![0]),
            (8, 5, vec![4, 0, 2]),
            (37, 9, vec![8, 7, 7, 1]),
            (64, 300, (0..300).step_by(3).collect()),
            (88, 40, (3..40).rev().collect()),
        ] {
            let query = (random(&[1, width], 1) * 4.0).unwrap();
            let (keys, values) = (random(&[all, width], 2), random(&[all, width], 3));
            let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let mut scores = vec![7.0; entries.len() + 1];
            let mut ours = vec![7.0; width];
            attend_past(
                &flat(&query),
                &flat(&keys),
                &flat(&values),
                &entries,
                &mut scores,
                &mut ours,
            );
            let ours = Tensor::from_vec(ours, (1, width), query.device()).unwrap();
            let own = |t: &Tensor| {
                let entries = Tensor::new(entries.as_slice(), t.device()).unwrap();
                t.index_select(&entries, 0).unwrap()
            };
            let scores = query.matmul(&own(&keys).t().unwrap()).unwrap();
            let scores = (scores * (width as f64).powf(-0.5)).unwrap();
            let twin = candle_nn::ops::softmax(&scores, D::Minus1)
                .unwrap()
                .matmul(&own(&values))
                .unwrap();
            let error = relative_error(&ours, &twin);
            assert!(error < 2e-6, "{width}, {} of {all}: {error}", entries.len());
        }
    }
}
