//! What all grammars of generated text share: tags, runs of tags, and labels.
//!
//! The reference reads with regular expressions; these functions find the same pieces. Every
//! function looks at the head of a `rest` and returns what follows, so nothing is indexed. A run
//! that turns out too short was at most three tags long, which keeps the whole reading linear.

use std::ops::Range;

use crate::florence2::location::{TOKEN_END, TOKEN_START};
use crate::florence2::whitespace::{strip, strip_start};

/// Opens the outlines of one object.
pub(super) const POLYGON_START: &str = "<poly>";

/// Closes the outlines of one object.
pub(super) const POLYGON_END: &str = "</poly>";

/// Stands between two outlines of one object.
pub(super) const SEPARATOR: &str = "<sep>";

/// Fewest tags in a row that make a piece: the corners of one box.
const SHORTEST_RUN: usize = 4;

/// Reads one tag at the head of a text; gives it and what follows.
pub(super) type ReadTag<T> = fn(&str) -> Option<(T, &str)>;

/// A tag and where it stands, in bytes of the whole text.
#[derive(Clone, Copy)]
pub(super) struct Tag<T> {
    pub(super) what: T,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// Tags in a row, with the text directly before them.
pub(super) struct Piece<'t, T> {
    /// The text; empty where labels are not looked at.
    pub(super) label: &'t str,
    /// Where the piece begins, in bytes of the whole text.
    pub(super) start: usize,
    /// All tags of the run.
    pub(super) tags: Vec<Tag<T>>,
}

/// Whether the text before a run of tags belongs to the piece.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Labels {
    /// A run counts only with at least one character before it that is not `<`.
    Required,
    /// A run counts wherever it stands.
    Ignored,
}

/// Finds the pieces of a text from left to right: four or more tags in a row, all of them.
///
/// A label begins after the last `<` or after the piece before. The tail of a tag that fitted
/// nowhere can therefore become a label, such as `od>cat`, as it does in the reference.
pub(super) fn pieces<T>(
    text: &str,
    labels: Labels,
    read: ReadTag<T>,
) -> impl Iterator<Item = Piece<'_, T>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            let start = text.len() - rest.len();
            let (label, tail) = rest.split_at_checked(rest.find('<')?)?;
            rest = tail.strip_prefix('<')?;
            if labels == Labels::Required && label.is_empty() {
                continue;
            }
            let run_start = start + label.len();
            let (tags, after) = run(tail, run_start, read);
            if tags.len() >= SHORTEST_RUN {
                rest = after;
                let (label, start) = match labels {
                    Labels::Required => (label, start),
                    Labels::Ignored => ("", run_start),
                };
                return Some(Piece { label, start, tags });
            }
        }
    })
}

/// Reads all tags at the head of a text that begins at `start` of the whole.
fn run<T>(text: &str, start: usize, read: ReadTag<T>) -> (Vec<Tag<T>>, &str) {
    let mut tags = Vec::new();
    let mut rest = text;
    let at = |rest: &str| start + (text.len() - rest.len());
    while let Some((what, after)) = read(rest) {
        tags.push(Tag {
            what,
            start: at(rest),
            end: at(after),
        });
        rest = after;
    }
    (tags, rest)
}

/// Reads exactly `N` location tokens at the head of a text.
pub(super) fn locations<const N: usize>(text: &str) -> Option<([u64; N], &str)> {
    let mut bins = [0; N];
    let mut rest = text;
    for bin in &mut bins {
        (*bin, rest) = location(rest)?;
    }
    Some((bins, rest))
}

/// Reads one location token: any number of digits, leading zeros allowed.
///
/// A bin that does not fit becomes the largest that does: far outside any picture, and finite.
pub(super) fn location(text: &str) -> Option<(u64, &str)> {
    let digits_on = text.strip_prefix(TOKEN_START)?;
    let count = digits_on.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, after_digits) = digits_on.split_at_checked(count)?;
    let after = after_digits.strip_prefix(TOKEN_END)?;
    if digits.is_empty() {
        return None;
    }
    let bin = digits.bytes().fold(0_u64, |bin, digit| {
        bin.saturating_mul(10)
            .saturating_add(u64::from(digit.wrapping_sub(b'0')))
    });
    Some((bin, after))
}

/// The label that a piece's text gives and where it stands, or nothing when it runs over a line
/// feed. `start` is where the text begins.
pub(super) fn label(text: &str, start: usize) -> Option<(&str, Range<usize>)> {
    // Line feeds before the first word are whitespace; one after it breaks the reference's match.
    (!strip_start(text).contains('\n')).then(|| stripped(text, start))
}

/// A text without whitespace around it, and where that stands. `start` is where the text begins.
pub(super) fn stripped(text: &str, start: usize) -> (&str, Range<usize>) {
    let begin = start + (text.len() - strip_start(text).len());
    let text = strip(text);
    (text, begin..begin + text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_token_takes_any_number_of_digits() {
        assert_eq!(location("<loc_007>x"), Some((7, "x")));
        assert_eq!(location("<loc_18446744073709551615>"), Some((u64::MAX, "")));
        assert_eq!(location("<loc_18446744073709551616>"), Some((u64::MAX, "")));
        let long = format!("<loc_{}>", "9".repeat(1000));
        assert_eq!(location(&long), Some((u64::MAX, "")));
    }

    #[test]
    fn what_only_resembles_a_location_token_is_none() {
        for text in [
            "", "<loc_>", "<loc_1", "<loc_-1>", "<loc_1 >", "<LOC_1>", "loc_1>", "<loc_١>",
        ] {
            assert_eq!(location(text), None, "{text}");
        }
    }

    #[test]
    fn a_label_may_begin_but_not_go_on_with_a_line_feed() {
        assert_eq!(label(" \n a dog\t", 10), Some(("a dog", 13..18)));
        assert_eq!(label("\n", 10), Some(("", 11..11)));
        assert_eq!(label("a\ndog", 10), None);
        assert_eq!(label("a dog\n", 10), None);
    }
}
