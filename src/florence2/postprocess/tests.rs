//! Promises of the reader that no golden case can show: it never panics and takes linear time, and a
//! score counts exactly the tokens of its finding.

use std::time::{Duration, Instant};

use super::*;
use crate::florence2::answer::{LabelledBox, LabelledPolygons};

const KINDS: [AnswerKind; 7] = [
    AnswerKind::PureText,
    AnswerKind::DescriptionWithBboxes,
    AnswerKind::Bboxes,
    AnswerKind::PhraseGrounding,
    AnswerKind::Polygons,
    AnswerKind::DescriptionWithBboxesOrPolygons,
    AnswerKind::Ocr,
];

/// Long enough that reading in quadratic time cannot hide, even when all it does is compare bytes.
const HOSTILE_CHARS: usize = 1_000_000;

/// Some twenty times what the slowest case takes in a test build.
const TIME_LIMIT: Duration = Duration::from_millis(1500);

/// All coordinates of an answer.
fn coordinates(answer: &Answer) -> Vec<f32> {
    let of_boxes = |boxes: &[LabelledBox]| -> Vec<f32> {
        boxes
            .iter()
            .flat_map(|b| [b.x1, b.y1, b.x2, b.y2])
            .collect()
    };
    match answer {
        Answer::Text(_) => Vec::new(),
        Answer::Boxes(boxes) => of_boxes(boxes),
        Answer::Quads(quads) => quads.iter().flat_map(|quad| quad.points).collect(),
        Answer::Polygons(objects) => objects.iter().flat_map(|o| o.polygons.concat()).collect(),
        Answer::BoxesAndPolygons(boxes, objects) => {
            assert!(boxes.is_empty() || objects.is_empty());
            let outlines = objects.iter().flat_map(|o| o.polygons.concat());
            of_boxes(boxes).into_iter().chain(outlines).collect()
        }
    }
}

#[test]
fn token_soup_gives_an_answer_with_finite_coordinates() {
    const SOUP: [&str; 24] = [
        "<loc_0>",
        "<loc_999>",
        "<loc_1000>",
        "<loc_99999999999999999999999>",
        "<loc_",
        "<loc_>",
        "<sep>",
        "<poly>",
        "</poly>",
        "<s>",
        "</s>",
        "<pad>",
        "<od>",
        "<",
        ">",
        "\n",
        " ",
        "\u{1f}",
        "car",
        "it",
        "é",
        "🙂",
        "\u{fffd}",
        "<loc_1><loc_2><loc_3><loc_4>",
    ];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize
    };
    let mut found = 0;
    for _ in 0..20_000 {
        let length = next() % 40;
        let text: String = (0..length).map(|_| SOUP[next() % SOUP.len()]).collect();
        for kind in KINDS {
            let side = u32::try_from(next() % 5000).unwrap();
            let coordinates = coordinates(&read(&text, kind, side, 480));
            assert!(coordinates.iter().all(|c| c.is_finite()), "{text:?}");
            found += coordinates.len();
        }
    }
    assert!(
        found > 100_000,
        "the soup must contain findings, not only noise: {found}"
    );
}

#[test]
fn long_hostile_text_is_read_in_linear_time() {
    let repeated = |piece: &str| piece.repeat(HOSTILE_CHARS / piece.len());
    let nines = "9".repeat(HOSTILE_CHARS);
    let texts = [
        repeated("<"),
        repeated("x"),
        repeated(" "),
        repeated("\n"),
        repeated("<loc_"),
        repeated("<loc_1>"),
        repeated("a<loc_1><loc_2><loc_3>"),
        repeated("a<loc_1><loc_2><loc_3><loc_4>"),
        repeated("<loc_1><loc_2><loc_3><loc_4><loc_5><loc_6><loc_7>x"),
        repeated("<poly>"),
        repeated("</poly>"),
        repeated("<sep>"),
        repeated("x<poly><loc_1><sep><loc_2></poly>"),
        format!("x<loc_{nines}><loc_1><loc_2><loc_3>"),
        format!("<loc_1><loc_1><loc_1><loc_{nines}"),
        format!("x{}<poly>", "<sep>".repeat(HOSTILE_CHARS / 5)),
    ];
    for text in &texts {
        for kind in KINDS {
            let start = Instant::now();
            let answer = read(text, kind, 640, 480);
            let took = start.elapsed();
            let head: String = text.chars().take(30).collect();
            assert!(took < TIME_LIMIT, "{kind:?} on {head}… took {took:?}");
            assert!(coordinates(&answer).iter().all(|c| c.is_finite()));
        }
    }
}

#[test]
fn the_raw_text_decides_between_boxes_and_outlines() {
    let kind = AnswerKind::DescriptionWithBboxesOrPolygons;
    let corners = "<loc_1><loc_2><loc_3><loc_4>";
    // Removing `<s>` makes a `<poly>` that was not there when the grammar was chosen.
    let Answer::BoxesAndPolygons(boxes, polygons) =
        read(&format!("car{corners}<po<s>ly>"), kind, 1000, 1000)
    else {
        panic!("open vocabulary gives both lists");
    };
    assert_eq!((boxes.len(), polygons.len()), (1, 0));
}

/// Token texts as tokens; the n-th, counted from 0, has the log-probability −n/8, the first none.
fn tokens_of(parts: &[&str]) -> Vec<WrittenToken> {
    let mut text_end = 0;
    parts
        .iter()
        .enumerate()
        .map(|(n, part)| {
            text_end += part.len();
            WrittenToken {
                text_end,
                log_probability: (n > 0).then_some(-(n as f32) / 8.0),
            }
        })
        .collect()
}

/// The scores of all findings of an answer, each of which must have one.
fn scores(answer: &Answer) -> Vec<f32> {
    let of_boxes =
        |boxes: &[LabelledBox]| -> Vec<f32> { boxes.iter().map(|it| it.score.unwrap()).collect() };
    let of_outlines = |objects: &[LabelledPolygons]| -> Vec<f32> {
        let all = objects.iter().flat_map(|object| {
            assert_eq!(object.scores.len(), object.polygons.len());
            object.scores.clone()
        });
        all.collect()
    };
    match answer {
        Answer::Text(_) => Vec::new(),
        Answer::Boxes(boxes) => of_boxes(boxes),
        Answer::Quads(quads) => quads.iter().map(|it| it.score.unwrap()).collect(),
        Answer::Polygons(objects) => of_outlines(objects),
        Answer::BoxesAndPolygons(boxes, objects) => {
            [of_boxes(boxes), of_outlines(objects)].concat()
        }
    }
}

#[test]
fn a_score_counts_exactly_the_tokens_of_its_label_and_its_place() {
    use AnswerKind as A;
    const L: &str = "<loc_7>";
    // The tokens of an answer, and for each finding the numbers of those that count.
    type Case<'a> = (AnswerKind, &'a [&'a str], &'a [&'a [u32]]);
    let cases: [Case<'_>; 12] = [
        // Two boxes share a label of two tokens; left-over bins and the end count for nobody.
        (
            A::DescriptionWithBboxes,
            &[
                "</s>", "<s>", "do", "g", L, L, L, L, L, L, L, L, L, L, " cat", L, L, L, L, "</s>",
            ],
            &[
                &[2, 3, 4, 5, 6, 7],
                &[2, 3, 8, 9, 10, 11],
                &[14, 15, 16, 17, 18],
            ],
        ),
        // Whitespace around a label counts only where a token of the label wrote it.
        (
            A::DescriptionWithBboxes,
            &["", "\n", " ", " a", " dog", " ", L, L, L, L],
            &[&[3, 4, 6, 7, 8, 9]],
        ),
        // The label as it was written: what it loses counts, one character in three tokens too.
        (
            A::DescriptionWithBboxes,
            &["", "caf", "é", "中", L, L, L, L],
            &[&[1, 2, 3, 4, 5, 6, 7]],
        ),
        // A label that begins inside a tag has a part of its token.
        (
            A::DescriptionWithBboxes,
            &["", L, L, L, L, "cat", L, L, L, L],
            &[&[4, 5, 6, 7, 8, 9]],
        ),
        // A tag inside a label is removed and counts no more; one that is spelled out counts in full.
        (
            A::DescriptionWithBboxes,
            &["", "do", "<pad>", "g", "<lo", "c_", "7>", L, L, L],
            &[&[1, 3, 4, 5, 6, 7, 8, 9]],
        ),
        // A filler is dropped with its tokens.
        (
            A::PhraseGrounding,
            &["", "it", L, L, L, L, "dog", L, L, L, L],
            &[&[6, 7, 8, 9, 10]],
        ),
        (
            A::Bboxes,
            &["", "dog", L, L, L, L, L, L, L, L],
            &[&[2, 3, 4, 5], &[6, 7, 8, 9]],
        ),
        // The second line; a ninth tag begins the next text.
        (
            A::Ocr,
            &[
                "", "lost", "\n", "A", " B", L, L, L, L, L, L, L, L, L, "C", L, L, L, L, L, L, L, L,
            ],
            &[
                &[3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
                &[13, 14, 15, 16, 17, 18, 19, 20, 21, 22],
            ],
        ),
        // Outlines of one object: the separator counts for neither, an odd last bin for its outline.
        (
            A::Polygons,
            &["", "dog", L, L, "<sep>", L, L, L, " and ", "x"],
            &[&[2, 3], &[5, 6, 7]],
        ),
        // A single bin is an outline without points.
        (
            A::Polygons,
            &["", "<poly>", L, "<sep>", L, L, "</poly>"],
            &[&[2], &[4, 5]],
        ),
        (
            A::DescriptionWithBboxesOrPolygons,
            &[
                "", "a", " dog", "<poly>", L, L, L, L, "</poly>", "<poly>", L, L, "<sep>", L, L,
                "</poly>",
            ],
            &[&[1, 2, 4, 5, 6, 7], &[1, 2, 10, 11], &[1, 2, 13, 14]],
        ),
        (A::PureText, &["", "a", " dog", L], &[]),
    ];
    for (kind, parts, findings) in cases {
        let expected: Vec<f32> = findings
            .iter()
            .map(|tokens| {
                let sum: f64 = tokens.iter().map(|n| -f64::from(*n) / 8.0).sum();
                (sum / tokens.len() as f64).exp() as f32
            })
            .collect();
        let answer = read_scored(&parts.concat(), &tokens_of(parts), kind, 640, 480);
        assert_eq!(scores(&answer), expected, "{kind:?} {parts:?}");
    }
}

/// The same answer as if nobody had asked for scores.
fn without_scores(mut answer: Answer) -> Answer {
    match &mut answer {
        Answer::Text(_) => {}
        Answer::Boxes(boxes) => boxes.iter_mut().for_each(|it| it.score = None),
        Answer::Quads(quads) => quads.iter_mut().for_each(|it| it.score = None),
        Answer::Polygons(objects) => objects.iter_mut().for_each(|it| it.scores.clear()),
        Answer::BoxesAndPolygons(boxes, objects) => {
            boxes.iter_mut().for_each(|it| it.score = None);
            objects.iter_mut().for_each(|it| it.scores.clear());
        }
    }
    answer
}

#[test]
fn scores_change_nothing_else_and_every_finding_has_one() {
    const PARTS: [&str; 14] = [
        "<loc_0>",
        "<loc_999>",
        "<lo",
        "c_5>",
        "<sep>",
        "<poly>",
        "</poly>",
        "<s>",
        "<pad>",
        "\n",
        " ",
        "car",
        "é",
        "<",
    ];
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize
    };
    let mut found = 0;
    for _ in 0..20_000 {
        // Mostly location tokens, so that there is something to find.
        let body = (0..next() % 40).map(|_| PARTS[(next() % 40).saturating_sub(26)]);
        let parts: Vec<&str> = std::iter::once("</s>").chain(body).collect();
        let tokens = tokens_of(&parts);
        for kind in KINDS {
            let plain = read(&parts.concat(), kind, 640, 480);
            let scored = read_scored(&parts.concat(), &tokens, kind, 640, 480);
            let all = scores(&scored);
            assert!(all.iter().all(|score| (0.0..=1.0).contains(score)));
            found += all.len();
            assert_eq!(without_scores(scored), plain, "{parts:?}");
        }
    }
    assert!(found > 50_000, "only {found} findings");
}
