//! Boxes: `label<loc>×4…` pieces, with or without their labels.
//!
//! Serves detection, dense region captions, region proposals, phrase grounding, and open
//! vocabulary answers without outlines. A piece may hold several boxes, which share its label; one
//! to three bins left over are ignored. Labels lose all non-ASCII characters, as in the reference.

use std::ops::Range;

use super::scan::{Labels, Piece, label, location, pieces};
use super::transcript::Transcript;
use crate::florence2::answer::LabelledBox;
use crate::florence2::location::{Axis, Quantizer};

/// Phrases that ground nothing: the reference's list, which stands in `processor_config.json`,
/// without its repetitions.
#[rustfmt::skip]
const FILLER_PHRASES: [&str; 72] = [
    "it", "I", "me", "mine", "you", "your", "yours", "he", "him", "his", "she", "her", "hers",
    "they", "them", "their", "theirs", "one", "oneself", "we", "us", "our", "ours", "its",
    "myself", "yourself", "himself", "herself", "itself", "ourselves", "yourselves", "themselves",
    "this", "that", "these", "those", "who", "whom", "whose", "which", "what",
    "all", "another", "any", "anybody", "anyone", "anything", "each",
    "everybody", "everyone", "everything", "few", "many", "nobody", "none", "several",
    "some", "somebody", "someone", "something", "each other", "one another",
    "the image", "image", "images", "the", "a", "an", "a group", "other objects", "lots", "a set",
];

/// Labelled boxes.
pub(super) fn described(text: &Transcript, grid: Quantizer) -> Vec<LabelledBox> {
    labelled(text, grid, |_| true)
}

/// Labelled boxes, less those whose label is a pronoun or another filler.
pub(super) fn grounded(text: &Transcript, grid: Quantizer) -> Vec<LabelledBox> {
    labelled(text, grid, |label| !FILLER_PHRASES.contains(&label))
}

/// Boxes with empty labels, whatever text stands between them.
pub(super) fn bare(text: &Transcript, grid: Quantizer) -> Vec<LabelledBox> {
    pieces(text.text(), Labels::Ignored, location)
        .flat_map(|piece| boxes(text, &piece, ("", 0..0), grid))
        .collect()
}

fn labelled(text: &Transcript, grid: Quantizer, keep: fn(&str) -> bool) -> Vec<LabelledBox> {
    pieces(text.text(), Labels::Required, location)
        .filter_map(|piece| {
            let (label, written) =
                label(piece.label, piece.start).filter(|(label, _)| keep(label))?;
            // After the filter: "it中" is no filler, although "it" is what remains of it.
            let ascii: String = label.chars().filter(char::is_ascii).collect();
            Some(boxes(text, &piece, (&ascii, written), grid))
        })
        .flatten()
        .collect()
}

/// The boxes of one piece, which share its label and the stretch where that is written.
fn boxes(
    text: &Transcript,
    piece: &Piece<'_, u64>,
    (label, written): (&str, Range<usize>),
    grid: Quantizer,
) -> Vec<LabelledBox> {
    let (fours, _left_over) = piece.tags.as_chunks::<4>();
    fours
        .iter()
        .map(|[x1, y1, x2, y2]| LabelledBox {
            x1: grid.dequantize(x1.what, Axis::X),
            y1: grid.dequantize(y1.what, Axis::Y),
            x2: grid.dequantize(x2.what, Axis::X),
            y2: grid.dequantize(y2.what, Axis::Y),
            label: label.to_owned(),
            score: text.score(written.clone(), x1.start..y2.end),
        })
        .collect()
}
