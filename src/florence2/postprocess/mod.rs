//! Reads what the model wrote: text, boxes, quadrilaterals or outlines.
//!
//! The text comes with its special tokens and is hostile input: a model may write anything, and
//! malformed tokens give fewer findings, never an error. Reading takes time linear in the text.
//! One file per grammar: `boxes`, `ocr`, `polygons`; what they share is in `scan`, and what a text
//! has to do with its tokens in `transcript`.
//!
//! Where the two reference implementations differ, labels and text are cleaned as the native one
//! (`Florence2PostProcessor`) does, and coordinates are the original's f32 bin centres. Two points
//! go their own way: digits of a location token are ASCII digits, where Python takes any decimal
//! digit; and a bin too large for 64 bits becomes the largest, where the reference gives up.
//!
//! Nothing is clipped, sorted or merged here: that would hide what the model said.

mod boxes;
mod ocr;
mod polygons;
mod scan;
mod transcript;

use super::answer::Answer;
use super::location::Quantizer;
use super::task::AnswerKind;
use super::whitespace::strip;

use transcript::Transcript;
pub use transcript::WrittenToken;

/// Reads a generated text, special tokens included, as an answer about a `width` × `height` picture.
///
/// Every finding has its own copy of its label, so the answer can be larger than the text: a label
/// of n characters before m boxes gives n × m. The token limit of generation bounds both.
#[must_use]
pub fn read(text: &str, kind: AnswerKind, width: u32, height: u32) -> Answer {
    read_scored(text, &[], kind, width, height)
}

/// The same with a score for every finding. `tokens` are those that wrote the text, in order.
///
/// A finding's score counts the tokens of its own place and of its label as it was written: with
/// the characters that a box's label loses, without whitespace around it. Findings that share a
/// label share its tokens. Tags between the two count for nobody.
#[must_use]
pub fn read_scored(
    text: &str,
    tokens: &[WrittenToken],
    kind: AnswerKind,
    width: u32,
    height: u32,
) -> Answer {
    let grid = Quantizer::new(width, height);
    let padded = Transcript::new(text, tokens).without("<s>").without("</s>");
    let clean = match kind {
        // Padding stays, as in both references: whoever batches cuts it off before decoding.
        AnswerKind::PureText => padded,
        _ => padded.without("<pad>"),
    };
    match kind {
        AnswerKind::PureText => Answer::Text(strip(clean.text()).to_owned()),
        AnswerKind::DescriptionWithBboxes => Answer::Boxes(boxes::described(&clean, grid)),
        AnswerKind::Bboxes => Answer::Boxes(boxes::bare(&clean, grid)),
        AnswerKind::PhraseGrounding => Answer::Boxes(boxes::grounded(&clean, grid)),
        AnswerKind::Polygons => Answer::Polygons(polygons::bare(&clean, grid)),
        AnswerKind::Ocr => Answer::Quads(ocr::quads(&clean, grid)),
        // The raw text decides, before removing a tag can join the halves of another.
        AnswerKind::DescriptionWithBboxesOrPolygons if text.contains(scan::POLYGON_START) => {
            Answer::BoxesAndPolygons(Vec::new(), polygons::described(&clean, grid))
        }
        AnswerKind::DescriptionWithBboxesOrPolygons => {
            Answer::BoxesAndPolygons(boxes::described(&clean, grid), Vec::new())
        }
    }
}

#[cfg(test)]
mod tests;
