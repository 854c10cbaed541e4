//! Outlines: runs of location tokens, with `<sep>` between the outlines of one object and
//! `<poly>…</poly>` around them.
//!
//! Serves the two segmentation tasks, which ignore labels, and open vocabulary answers that
//! contain `<poly>`, where a label is required. An outline counts only when a separator or the end
//! of its object follows directly. Labels keep their non-ASCII characters.

use super::scan::{Labels, POLYGON_END, POLYGON_START, Piece, SEPARATOR, label, location, pieces};
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
pub(super) fn described(text: &str, grid: Quantizer) -> Vec<LabelledPolygons> {
    outlined(text, Labels::Required, grid)
}

/// Outlined objects, whatever text stands between them.
pub(super) fn bare(text: &str, grid: Quantizer) -> Vec<LabelledPolygons> {
    outlined(text, Labels::Ignored, grid)
}

fn outlined(text: &str, labels: Labels, grid: Quantizer) -> Vec<LabelledPolygons> {
    pieces(text, labels, mark)
        .filter_map(|piece| piece_label(&piece).map(|label| (piece, label)))
        .flat_map(|(piece, label)| {
            objects(&piece.tags)
                .into_iter()
                .map(|object| outlines(object, grid))
                .filter(|polygons| !polygons.is_empty())
                .map(|polygons| LabelledPolygons {
                    polygons,
                    label: label.clone(),
                })
                .collect::<Vec<_>>()
        })
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

/// The label of a piece: all before its first location token or `<poly>`.
///
/// Separators and closing tags before that point belong to it. For this step only, the native
/// implementation first takes one location token off the head of the piece, so that
/// `<loc_5><sep><loc_6>…` is labelled `<sep>`. Without such a point there is no label and the piece
/// is dropped.
fn piece_label(piece: &Piece<'_, Mark>) -> Option<String> {
    let begins_with_location =
        piece.label.is_empty() && matches!(piece.tags.first(), Some(Mark::Location(_)));
    let mut text = piece.label.to_owned();
    for mark in piece.tags.iter().skip(usize::from(begins_with_location)) {
        match mark {
            Mark::Separator => text.push_str(SEPARATOR),
            Mark::End => text.push_str(POLYGON_END),
            Mark::Location(_) | Mark::Start => return label(&text).map(str::to_owned),
        }
    }
    None
}

/// The marks of each object: what stands between `<poly>` and the next `</poly>`, or the whole
/// piece when it does not have both.
fn objects(marks: &[Mark]) -> Vec<&[Mark]> {
    if !(marks.contains(&Mark::Start) && marks.contains(&Mark::End)) {
        return vec![marks];
    }
    marks
        .split_inclusive(|mark| *mark == Mark::End)
        .filter_map(|closed| {
            let (Mark::End, body) = closed.split_last()? else {
                return None;
            };
            let start = body.iter().position(|mark| *mark == Mark::Start)?;
            body.get(start + 1..)
        })
        .collect()
}

/// The outlines of one object: the location tokens directly before each separator and the end.
fn outlines(object: &[Mark], grid: Quantizer) -> Vec<Vec<f32>> {
    object
        .split(|mark| *mark == Mark::Separator)
        .filter_map(|stretch| {
            let bins = trailing_bins(stretch);
            // An odd last bin has no partner. A single one leaves an outline without points, which
            // both references keep.
            let pairs = bins.len() - bins.len() % 2;
            (!bins.is_empty()).then(|| grid.dequantize_all(bins.get(..pairs).unwrap_or_default()))
        })
        .collect()
}

fn trailing_bins(stretch: &[Mark]) -> Vec<u64> {
    let mut bins: Vec<u64> = stretch
        .iter()
        .rev()
        .map_while(|mark| match mark {
            Mark::Location(bin) => Some(*bin),
            _ => None,
        })
        .collect();
    bins.reverse();
    bins
}
