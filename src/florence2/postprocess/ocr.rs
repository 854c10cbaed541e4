//! Text lines with their quadrilaterals: `text<loc>×8`.
//!
//! A text is the shortest stretch of at least one character that eight location tokens follow
//! directly. Tags may stand in it, line feeds may not: each line is read by itself. A ninth
//! location token therefore begins the next text. Labels keep their non-ASCII characters.

use super::scan::{locations, stripped};
use super::transcript::Transcript;
use crate::florence2::answer::LabelledQuad;
use crate::florence2::location::{Axis, Quantizer};

/// All text lines in their order.
pub(super) fn quads(transcript: &Transcript, grid: Quantizer) -> Vec<LabelledQuad> {
    let mut found = Vec::new();
    let mut line_start = 0;
    for line in transcript.text().split('\n') {
        let line_end = line_start + line.len();
        let mut rest = line;
        while let Some((text, bins, after)) = next_quad(rest) {
            let start = line_end - rest.len();
            let (label, written) = stripped(text, start);
            let place = start + text.len()..line_end - after.len();
            found.push(LabelledQuad {
                points: centres(bins, grid),
                label: label.to_owned(),
                score: transcript.score(written, place),
            });
            rest = after;
        }
        // The line feed.
        line_start = line_end + 1;
    }
    found
}

/// The first text of a line with its eight bins and what follows them.
fn next_quad(line: &str) -> Option<(&str, [u64; 8], &str)> {
    // The text has at least one character, even where that is the `<` of a location token.
    let first = line.chars().next()?.len_utf8();
    let candidates = line.match_indices('<').map(|(at, _)| at);
    candidates.skip_while(|at| *at < first).find_map(|at| {
        let (text, tail) = line.split_at_checked(at)?;
        let (bins, after) = locations(tail)?;
        Some((text, bins, after))
    })
}

fn centres([x1, y1, x2, y2, x3, y3, x4, y4]: [u64; 8], grid: Quantizer) -> [f32; 8] {
    let x = |bin| grid.dequantize(bin, Axis::X);
    let y = |bin| grid.dequantize(bin, Axis::Y);
    [x(x1), y(y1), x(x2), y(y2), x(x3), y(y3), x(x4), y(y4)]
}
