//! The figures as a table for people.

use std::fmt::Write;

use super::report::{CaseReport, Report};

/// Titles of the columns, as wide as the columns are.
const TITLES: [&str; 9] = [
    "batch",
    "callers",
    "   vision",
    "  encoder",
    "  prefill",
    "per token",
    "end to end (p90)       ",
    "pictures/s",
    "tokens/s",
];

/// Three lines about the box and the model, then one line a case. Times are medians.
pub(super) fn text(report: &Report) -> String {
    let mut text = format!("{}\n{}\n", headline(report), machine_line(report));
    if let Some(line) = memory_line(report) {
        text.push_str(&line);
        text.push('\n');
    }
    text.push('\n');
    text.push_str(TITLES.join("  ").trim_end());
    text.push('\n');
    for case in &report.cases {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", row(case));
    }
    text
}

fn row(case: &CaseReport) -> String {
    let end_to_end = format!(
        "{} ({})",
        time(case.end_to_end_ms.p50),
        time(case.end_to_end_ms.p90)
    );
    let cells = [
        case.batch.to_string(),
        case.concurrency.to_string(),
        time(case.vision_ms.p50),
        time(case.encoder_ms.p50),
        time(case.prefill_ms.p50),
        time(case.decode_ms_per_token.p50),
        end_to_end,
        rate(case.images_per_second),
        rate(case.tokens_per_second),
    ];
    let cells = cells
        .iter()
        .zip(TITLES)
        .map(|(cell, title)| format!("{cell:>width$}", width = title.len()));
    cells.collect::<Vec<_>>().join("  ")
}

/// The model and how it was asked.
pub(super) fn headline(report: &Report) -> String {
    let Report {
        model,
        device,
        dtype,
        threads,
        ..
    } = report;
    let mut line = format!("{model} on {device}, {dtype}, {}", some(*threads, "thread"));
    if let Some(case) = report.cases.first() {
        let beams = some(case.num_beams, "beam");
        let _ = write!(line, ", {beams}, {}", some(case.new_tokens, "new token"));
    }
    line
}

/// The box.
pub(super) fn machine_line(report: &Report) -> String {
    let machine = &report.machine;
    let mut line = format!(
        "{}, {} used",
        machine.processor,
        some(machine.cores_used, "core")
    );
    if let Some(bytes) = machine.memory_bytes {
        let _ = write!(line, ", {} of memory", size(bytes));
    }
    if let Some(instructions) = report.instructions {
        let _ = write!(line, ", {}", instructions.name());
    }
    if let (Some(name), Some(driver)) = (&machine.device_name, &machine.driver) {
        let _ = write!(line, "; {name}, driver {driver}");
    }
    line
}

/// Start and memory, which are of the whole process.
pub(super) fn memory_line(report: &Report) -> Option<String> {
    let last = report.cases.last()?;
    let mut line = format!(
        "loaded in {}, at most {} of memory in use",
        time(last.load_ms),
        size(last.peak_rss_bytes)
    );
    if let Some(bytes) = last.device_memory_bytes {
        let _ = write!(line, ", {} on the card", size(bytes));
    }
    Some(line)
}

/// Milliseconds with three figures, seconds from ten of them on.
pub(super) fn time(ms: f64) -> String {
    match ms {
        ms if ms >= 10_000.0 => format!("{:.1} s", ms / 1e3),
        ms if ms >= 100.0 => format!("{ms:.0} ms"),
        ms if ms >= 10.0 => format!("{ms:.1} ms"),
        ms => format!("{ms:.2} ms"),
    }
}

/// A rate with about three figures.
pub(super) fn rate(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

fn some(count: usize, thing: &str) -> String {
    let end = if count == 1 { "" } else { "s" };
    format!("{count} {thing}{end}")
}

fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::invented;
    use super::*;

    #[test]
    fn the_table_says_what_was_measured_on_what() {
        let text = text(&invented());
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].ends_with("on cpu, f32, 2 threads, 3 beams, 100 new tokens"));
        assert!(lines[1].starts_with("Example 9000, "), "{text}");
        assert!(lines[1].ends_with(" of memory, AVX2"), "{text}");
        assert_eq!(
            lines[2],
            "loaded in 1500 ms, at most 3.00 GiB of memory in use"
        );
        let words: Vec<&str> = lines[5].split_whitespace().collect();
        assert_eq!(
            words,
            [
                "1", "1", "3100", "ms", "320", "ms", "110", "ms", "24.0", "ms", "5500", "ms",
                "(5900", "ms)", "0.20", "20.0"
            ]
        );
        assert_eq!(
            lines[4].len(),
            lines[5].len(),
            "columns stand under their titles"
        );
        assert_eq!(lines.len(), 7);
    }

    #[test]
    fn times_keep_three_figures() {
        for (ms, shown) in [
            (0.1234, "0.12 ms"),
            (12.34, "12.3 ms"),
            (2345.6, "2346 ms"),
            (27_250.0, "27.2 s"),
        ] {
            assert_eq!(time(ms), shown);
        }
    }
}
