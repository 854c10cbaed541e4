//! Promises of the reader that no golden case can show: it never panics and takes linear time.

use std::time::{Duration, Instant};

use super::*;

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
    let of_boxes = |boxes: &[crate::florence2::answer::LabelledBox]| -> Vec<f32> {
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
