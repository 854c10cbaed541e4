//! The next score of a long row that is worth a look.

use super::simd::{LANES, multiversion};

/// Scores that are passed over at a time.
const CHUNK: usize = 8 * LANES;

/// The first index at which `scores[index] + offset > floor`.
pub fn first_above(scores: &[f32], offset: f32, floor: f32) -> Option<usize> {
    let mut skipped = 0;
    skip_below(scores, offset, floor, &mut skipped);
    let rest = scores[skipped..].iter();
    let found = rest.into_iter().position(|score| score + offset > floor)?;
    Some(skipped + found)
}

multiversion! {
    /// Counts the scores in whole chunks before the first chunk that has one above the floor.
    fn skip_below(scores: &[f32], offset: f32, floor: f32, skipped: &mut usize) = skip_below_body
}

#[inline(always)]
fn skip_below_body<const FMA: bool>(scores: &[f32], offset: f32, floor: f32, skipped: &mut usize) {
    for chunk in scores.chunks_exact(CHUNK) {
        let mut maxima = [f32::NEG_INFINITY; LANES];
        for scores in chunk.chunks_exact(LANES) {
            for i in 0..LANES {
                let score = scores[i] + offset;
                maxima[i] = if score > maxima[i] { score } else { maxima[i] };
            }
        }
        if maxima.iter().any(|max| *max > floor) {
            return;
        }
        *skipped += CHUNK;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_a_plain_loop_finds() {
        for length in [0, 1, 127, 128, 129, 700] {
            let mut scores: Vec<f32> = (0..length)
                .map(|i| (i as f32 * 0.7).sin() * (1.0 + i as f32 / 256.0))
                .collect();
            if length > 200 {
                scores[3] = f32::NAN;
                scores[140] = f32::NEG_INFINITY;
            }
            for floor in [-0.5, 0.9, 1.2, 1.9, 2.5, 3.7, 9.0, f32::NEG_INFINITY] {
                for from in [0, 1, 100, 300] {
                    let scores = scores.get(from..).unwrap_or_default();
                    let plain = scores.iter().position(|score| score - 0.1 > floor);
                    assert_eq!(first_above(scores, -0.1, floor), plain, "{length} {floor}");
                }
            }
        }
    }
}
