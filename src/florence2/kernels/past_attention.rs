//! Attention of one newest token over its own past, one head at a time.
//!
//! The tokens of all beams lie in one growing list, in the order in which they came; a beam is the
//! list of those entries that are its own. So beams that change their parents copy numbers, and
//! never keys or values.

use super::simd::{LANES, fma, multiversion};
use super::softmax::softmax_rows_body;

/// One head of the newest tokens' queries.
#[derive(Clone, Copy, Debug)]
pub struct Queries<'a> {
    /// The values, the first beam's first.
    pub values: &'a [f32],
    /// Elements between beams.
    pub stride: usize,
    /// Channels of the head.
    pub width: usize,
}

multiversion! {
    /// Query i over those rows of `keys` and `values (…, width)` that `entries[i]` names → row i of
    /// `out (beams, width)`. Queries are scaled by 1/√width; `scores` has room for one value an entry.
    /// All beams have as many entries.
    ///
    /// # Panics
    /// When an entry is out of range, or the lengths do not fit.
    pub fn attend_past(
        queries: Queries<'_>,
        keys: &[f32],
        values: &[f32],
        entries: &[Vec<u32>],
        scores: &mut [f32],
        out: &mut [f32],
    ) = attend_past_body
}

#[inline(always)]
fn attend_past_body<const FMA: bool>(
    queries: Queries<'_>,
    keys: &[f32],
    values: &[f32],
    entries: &[Vec<u32>],
    scores: &mut [f32],
    out: &mut [f32],
) {
    let width = queries.width;
    let length = entries.first().map_or(0, Vec::len);
    if length == 0 || width == 0 {
        return;
    }
    let scores = &mut scores[..entries.len() * length];
    // Positions outside, beams inside: entries of one position are neighbours in memory or the same.
    for position in 0..length {
        for (beam, entries) in entries.iter().enumerate() {
            let key = &keys[entries[position] as usize * width..][..width];
            let query = &queries.values[beam * queries.stride..][..width];
            scores[beam * length + position] = dot::<FMA>(query, key);
        }
    }
    softmax_rows_body::<FMA>(scores, length, (width as f32).powf(-0.5));
    let out = &mut out[..entries.len() * width];
    out.fill(0.0);
    for position in 0..length {
        let beams = entries.iter().zip(out.chunks_exact_mut(width));
        for (beam, (entries, out)) in beams.enumerate() {
            let value = &values[entries[position] as usize * width..][..width];
            let weight = scores[beam * length + position];
            for (out, value) in out.iter_mut().zip(value) {
                *out = fma::<FMA>(weight, *value, *out);
            }
        }
    }
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
            (1, 1, vec![vec![0]]),
            (8, 5, vec![vec![4, 0, 2], vec![1, 0, 3]]),
            (37, 9, vec![vec![8, 7, 7, 1]]),
            (
                64,
                300,
                (0..3).map(|i| (i..300).step_by(3).collect()).collect(),
            ),
            (88, 40, vec![(3..40).rev().collect(), (0..37).collect()]),
        ] {
            let (beams, stride) = (entries.len(), width + 5);
            let queries = (random(&[beams, stride], 1) * 4.0).unwrap();
            let (keys, values) = (random(&[all, width], 2), random(&[all, width], 3));
            let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let mut scores = vec![7.0; beams * entries[0].len() + 1];
            let mut ours = vec![7.0; beams * width];
            attend_past(
                Queries {
                    values: &flat(&queries),
                    stride,
                    width,
                },
                &flat(&keys),
                &flat(&values),
                &entries,
                &mut scores,
                &mut ours,
            );
            let ours = Tensor::from_vec(ours, (beams, width), keys.device()).unwrap();
            for (beam, entries) in entries.iter().enumerate() {
                let query = queries.narrow(0, beam, 1).unwrap();
                let query = query.narrow(1, 0, width).unwrap();
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
                let error = relative_error(&ours.narrow(0, beam, 1).unwrap(), &twin);
                assert!(error < 2e-6, "{width}, {} of {all}: {error}", entries.len());
            }
        }
    }
}
