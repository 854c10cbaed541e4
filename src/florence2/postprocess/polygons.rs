//! Outlines: runs of location tokens, with `<sep>` between the outlines of one object and
//! `<poly>…</poly>` around them.
//!
//! Serves the two segmentation tasks, which ignore labels, and open vocabulary answers that
//! contain `<poly>`, where a label is required. An outline counts only when a separator or the end
//! of its object follows directly. Labels keep their non-ASCII characters.

use std::ops::Range;

use super::scan::{
    Labels, POLYGON_END, POLYGON_START, Piece, SEPARATOR, Tag, label, location, pieces,
};
use super::transcript::Transcript;
use crate::florence2::answer::LabelledPolygons;
use crate::florence2::location::Quantizer;

/// A tag that may stand in a run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Location(u64),
    Separator,
    Start,
    End,
}

/// Outlined objects with their labels.
pub(super) fn described(text: &Transcript, grid: Quantizer) -> Vec<LabelledPolygons> {
    outlined(text, Labels::Required, grid)
}

/// Outlined objects, whatever text stands between them.
pub(super) fn bare(text: &Transcript, grid: Quantizer) -> Vec<LabelledPolygons> {
    outlined(text, Labels::Ignored, grid)
}

fn outlined(text: &Transcript, labels: Labels, grid: Quantizer) -> Vec<LabelledPolygons> {
    pieces(text.text(), labels, mark)
        .filter_map(|piece| {
            let (label, written) = piece_label(text.text(), &piece)?;
            let found = objects(&piece.tags)
                .into_iter()
                .map(outlines)
                .filter(|outlines| !outlines.is_empty())
                .map(|outlines| LabelledPolygons {
                    polygons: outlines
                        .iter()
                        .map(|outline| points(outline, grid))
                        .collect(),
                    label: label.to_owned(),
                    scores: outlines
                        .iter()
                        .map(|outline| text.score(written.clone(), stretch(outline)))
                        .collect::<Option<_>>()
                        .unwrap_or_default(),
                });
            Some(found.collect::<Vec<_>>())
        })
        .flatten()
        .collect()
}

fn mark(text: &str) -> Option<(Mark, &str)> {
    let tag = |name, mark| text.strip_prefix(name).map(|after| (mark, after));
    location(text)
        .map(|(bin, after)| (Mark::Location(bin), after))
        .or_else(|| tag(SEPARATOR, Mark::Separator))
        .or_else(|| tag(POLYGON_START, Mark::Start))
        .or_else(|| tag(POLYGON_END, Mark::End))
}

/// The label of a piece, and where it is written: all before its first location token or `<poly>`.
///
/// Separators and closing tags before that point belong to it. For this step only, the native
/// implementation first takes one location token off the head of the piece, so that
/// `<loc_5><sep><loc_6>…` is labelled `<sep>`. Without such a point there is no label and the piece
/// is dropped.
fn piece_label<'t>(text: &'t str, piece: &Piece<'_, Mark>) -> Option<(&'t str, Range<usize>)> {
    let (first, others) = piece.tags.split_first()?;
    let is_location = matches!(first.what, Mark::Location(_));
    let (start, tags) = if piece.label.is_empty() && is_location {
        (first.end, others)
    } else {
        (piece.start, piece.tags.as_slice())
    };
    let end = tags
        .iter()
        .find(|tag| matches!(tag.what, Mark::Location(_) | Mark::Start))?;
    label(text.get(start..end.start)?, start)
}

/// The marks of each object: what stands between `<poly>` and the next `</poly>`, or the whole
/// piece when it does not have both.
fn objects(marks: &[Tag<Mark>]) -> Vec<&[Tag<Mark>]> {
    let has = |what| marks.iter().any(|mark| mark.what == what);
    if !(has(Mark::Start) && has(Mark::End)) {
        return vec![marks];
    }
    marks
        .split_inclusive(|mark| mark.what == Mark::End)
        .filter_map(|closed| {
            let (last, body) = closed.split_last()?;
            if last.what != Mark::End {
                return None;
            }
            let start = body.iter().position(|mark| mark.what == Mark::Start)?;
            body.get(start + 1..)
        })
        .collect()
}

/// The outlines of one object: the location tokens directly before each separator and the end,
/// at least one.
fn outlines(object: &[Tag<Mark>]) -> Vec<&[Tag<Mark>]> {
    object
        .split(|mark| mark.what == Mark::Separator)
        .filter_map(|stretch| {
            let other = |mark: &Tag<Mark>| !matches!(mark.what, Mark::Location(_));
            let first = stretch.iter().rposition(other).map_or(0, |at| at + 1);
            stretch.get(first..).filter(|bins| !bins.is_empty())
        })
        .collect()
}

/// The points of an outline. An odd last bin has no partner; a single one leaves no points, and
/// both references keep such an outline.
fn points(outline: &[Tag<Mark>], grid: Quantizer) -> Vec<f32> {
    let bins: Vec<u64> = outline
        .iter()
        .filter_map(|tag| match tag.what {
            Mark::Location(bin) => Some(bin),
            Mark::Separator | Mark::Start | Mark::End => None,
        })
        .collect();
    grid.dequantize_all(bins.as_chunks::<2>().0.as_flattened())
}

/// Where an outline is written, its last bin included even if that has no partner.
fn stretch(outline: &[Tag<Mark>]) -> Range<usize> {
    match (outline.first(), outline.last()) {
        (Some(first), Some(last)) => first.start..last.end,
        _ => 0..0,
    }
}
