//! Texts that a model wrote, read as every kind of answer.
//!
//! The input is two bytes each for width and height, then the text. Promised: no panic, every
//! coordinate is a number, every score is a probability, and scores change nothing else.

use florence2_server::florence2::answer::{Answer, LabelledPolygons};
use florence2_server::florence2::postprocess::{WrittenToken, read, read_scored};
use florence2_server::florence2::task::AnswerKind;

const KINDS: [AnswerKind; 7] = [
    AnswerKind::PureText,
    AnswerKind::DescriptionWithBboxes,
    AnswerKind::Bboxes,
    AnswerKind::PhraseGrounding,
    AnswerKind::Polygons,
    AnswerKind::DescriptionWithBboxesOrPolygons,
    AnswerKind::Ocr,
];

pub(super) fn run(data: &[u8]) {
    let Some(([a, b, c, d], text)) = data.split_first_chunk() else {
        return;
    };
    // A picture has at least one pixel.
    let side = |low, high| u32::from(u16::from_le_bytes([low, high])) + 1;
    let (width, height) = (side(*a, *b), side(*c, *d));
    let text = String::from_utf8_lossy(text);
    let ends: Vec<usize> = text
        .char_indices()
        .map(|(at, char)| at + char.len_utf8())
        .collect();
    let chosen: Vec<f32> = (0_u8..=255).map(|n| -f32::from(n) / 16.0).collect();
    let chosen = chosen
        .into_iter()
        .cycle()
        .take(ends.len().saturating_sub(1));
    let tokens = WrittenToken::sequence(ends, &chosen.collect::<Vec<_>>());
    for kind in KINDS {
        let mut scored = read_scored(&text, &tokens, kind, width, height);
        for number in coordinates(&scored) {
            assert!(number.is_finite(), "{kind:?}: {number} in {scored:?}");
        }
        for score in take_scores(&mut scored) {
            assert!((0.0..=1.0).contains(&score), "{kind:?}: score {score}");
        }
        assert_eq!(scored, read(&text, kind, width, height), "{kind:?}");
    }
}

fn coordinates(answer: &Answer) -> Vec<f32> {
    let of_polygons = |objects: &[LabelledPolygons]| -> Vec<f32> {
        let polygons = objects.iter().flat_map(|object| &object.polygons);
        polygons.flatten().copied().collect()
    };
    match answer {
        Answer::Text(_) => Vec::new(),
        Answer::Boxes(boxes) | Answer::BoxesAndPolygons(boxes, _) if !boxes.is_empty() => {
            let corners = boxes.iter().map(|b| [b.x1, b.y1, b.x2, b.y2]);
            corners.flatten().collect()
        }
        Answer::Boxes(_) => Vec::new(),
        Answer::Quads(quads) => quads.iter().flat_map(|quad| quad.points).collect(),
        Answer::Polygons(objects) | Answer::BoxesAndPolygons(_, objects) => of_polygons(objects),
    }
}

/// Takes all scores out, so that what is left equals an answer without any.
fn take_scores(answer: &mut Answer) -> Vec<f32> {
    let mut scores = Vec::new();
    let (boxes, objects) = match answer {
        Answer::Text(_) => return scores,
        Answer::Quads(quads) => {
            scores.extend(quads.iter_mut().filter_map(|quad| quad.score.take()));
            return scores;
        }
        Answer::Boxes(boxes) => (Some(boxes), None),
        Answer::Polygons(objects) => (None, Some(objects)),
        Answer::BoxesAndPolygons(boxes, objects) => (Some(boxes), Some(objects)),
    };
    for found in boxes.into_iter().flatten() {
        scores.extend(found.score.take());
    }
    for found in objects.into_iter().flatten() {
        scores.append(&mut found.scores);
    }
    scores
}
