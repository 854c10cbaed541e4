//! The figures as one page that needs nothing else: a table, and bars drawn as SVG.
//!
//! The page loads nothing from anywhere and runs no script, so that it can be sent around as a file.

use std::fmt::Write;

use super::report::{CaseReport, Report};
use super::table::{headline, machine_line, memory_line, rate, time};

const STYLE: &str = include_str!("bench.css");

/// Width of the drawing, in its own units; the page scales it.
const WIDTH: f64 = 880.0;
/// Where bars begin: names stand left of it.
const BARS_AT: f64 = 150.0;
/// What is kept free right of the longest bar for its figure.
const FIGURE: f64 = 90.0;
/// Height of a bar, and of its row.
const BAR: f64 = 22.0;
const ROW: f64 = 34.0;
/// Height of the text within a row.
const BASELINE: f64 = 16.0;

/// The page.
pub(super) fn page(report: &Report) -> String {
    let mut cases = String::new();
    for case in &report.cases {
        table_row(&mut cases, case);
    }
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>florence2-server bench: {title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <h1>{title}</h1>\n<p class=\"box\">{machine}<br>{memory}</p>\n\
         <h2>One picture, stage by stage</h2>\n<p class=\"note\">Medians. Decoding is all steps after the first.</p>\n{legend}{stages}\
         <h2>Pictures per second</h2>\n<p class=\"note\">All callers together.</p>\n{rates}\
         <h2>All figures</h2>\n<div class=\"wide\">\n<table>\n<thead>\n{HEAD}</thead>\n<tbody>\n{cases}</tbody>\n</table>\n</div>\n\
         <p class=\"note\">Median, and below it the fastest and the 90th percentile. End to end is one call: from the \
         pixels of its pictures to the last token, waiting for other callers included. Measured by florence2-server {version}.</p>\n\
         </main>\n</body>\n</html>\n",
        title = escaped(&headline(report)),
        machine = escaped(&machine_line(report)),
        memory = escaped(&memory_line(report).unwrap_or_default()),
        legend = legend(),
        stages = stage_bars(&report.cases),
        rates = rate_bars(&report.cases),
        version = env!("CARGO_PKG_VERSION"),
    )
}

const HEAD: &str = "<tr><th>Batch</th><th>Callers</th><th>Vision</th><th>Encoder</th><th>Prefill</th>\
     <th>Per token</th><th>End to end</th><th>Pictures/s</th><th>Tokens/s</th></tr>\n";

/// The stages of a picture, with the class that colours them.
const STAGES: [(&str, &str); 4] = [
    ("vision", "Vision"),
    ("encoder", "Encoder"),
    ("prefill", "Prefill"),
    ("decode", "Decoding"),
];

fn stages_ms(case: &CaseReport) -> [f64; 4] {
    // The first token comes out of the prefill step.
    let steps = case.new_tokens.saturating_sub(1).max(1) as f64;
    [
        case.vision_ms.p50,
        case.encoder_ms.p50,
        case.prefill_ms.p50,
        case.decode_ms_per_token.p50 * steps,
    ]
}

fn legend() -> String {
    let mut text = "<ul class=\"legend\">".to_owned();
    for (class, name) in STAGES {
        // Writing to a string cannot fail.
        let _ = write!(text, "<li><i class=\"{class}\"></i>{name}</li>");
    }
    text + "</ul>\n"
}

fn stage_bars(cases: &[CaseReport]) -> String {
    let sum = |case: &CaseReport| stages_ms(case).iter().sum::<f64>();
    let unit = unit(cases.iter().map(sum));
    drawing(cases, |text, case, top| {
        let mut x = BARS_AT;
        for ((class, name), ms) in STAGES.into_iter().zip(stages_ms(case)) {
            let width = ms * unit;
            let _ = writeln!(
                text,
                "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{BAR}\">\
                 <title>{name}: {}</title></rect>",
                time(ms)
            );
            x += width;
        }
        figure(text, x, top, &time(sum(case)));
    })
}

fn rate_bars(cases: &[CaseReport]) -> String {
    let unit = unit(cases.iter().map(|case| case.images_per_second));
    drawing(cases, |text, case, top| {
        let width = case.images_per_second * unit;
        let _ = writeln!(
            text,
            "<rect class=\"rate\" x=\"{BARS_AT}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{BAR}\"/>"
        );
        figure(text, BARS_AT + width, top, &rate(case.images_per_second));
    })
}

/// Width of the drawing for one of what is drawn.
fn unit(values: impl Iterator<Item = f64>) -> f64 {
    let longest = values.fold(0.0, f64::max);
    if longest > 0.0 {
        (WIDTH - BARS_AT - FIGURE) / longest
    } else {
        0.0
    }
}

/// One row a case, with its name; `bars` draws the rest of a row whose top is given.
fn drawing(cases: &[CaseReport], bars: impl Fn(&mut String, &CaseReport, f64)) -> String {
    let height = ROW * cases.len() as f64;
    let mut text = format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n");
    for (index, case) in cases.iter().enumerate() {
        let top = ROW * index as f64 + (ROW - BAR) / 2.0;
        let (x, y) = (BARS_AT - 12.0, top + BASELINE);
        let _ = writeln!(
            text,
            "<text class=\"name\" x=\"{x}\" y=\"{y:.1}\">batch {}, {} at once</text>",
            case.batch, case.concurrency
        );
        bars(&mut text, case, top);
    }
    text + "</svg>\n"
}

fn figure(text: &mut String, x: f64, top: f64, value: &str) {
    let (x, y) = (x + 8.0, top + BASELINE);
    let _ = writeln!(text, "<text x=\"{x:.1}\" y=\"{y:.1}\">{value}</text>");
}

fn table_row(text: &mut String, case: &CaseReport) {
    let _ = write!(
        text,
        "<tr><td>{}</td><td>{}</td>",
        case.batch, case.concurrency
    );
    for spread in [
        case.vision_ms,
        case.encoder_ms,
        case.prefill_ms,
        case.decode_ms_per_token,
        case.end_to_end_ms,
    ] {
        let [p50, p90, min] = [spread.p50, spread.p90, spread.min].map(time);
        let _ = write!(text, "<td>{p50}<small>{min} – {p90}</small></td>");
    }
    let (pictures, tokens) = (rate(case.images_per_second), rate(case.tokens_per_second));
    let _ = writeln!(text, "<td>{pictures}</td><td>{tokens}</td></tr>");
}

/// Text as it may stand in a page.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::invented;
    use super::*;

    #[test]
    fn the_page_needs_nothing_else_and_holds_what_is_named_as_text() {
        let page = page(&invented());
        for outside in [
            "http:", "https:", "src=", "href=", "url(", "@import", "<script",
        ] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.contains("a &lt;b&gt; &amp; &quot;c&quot; on cpu"));
        assert_eq!(page.matches("<rect").count(), 2 * (4 + 1));
        assert_eq!(page.matches("<tr>").count(), 1 + 2);
    }

    #[test]
    fn the_longest_bar_leaves_room_for_its_figure() {
        let bars = rate_bars(&invented().cases);
        let widths: Vec<f64> = bars
            .split("width=\"")
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(widths, [512.0, 640.0]);
    }
}
