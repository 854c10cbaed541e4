//! A generated text together with the tokens that wrote it: how likely any stretch of it was.
//!
//! The grammars find stretches of text; here a stretch becomes its tokens, and those a score. Tags
//! are removed here too, because positions move with them. Without tokens there are no scores, and
//! nothing of this costs more than the removal.

use std::ops::Range;

/// One token of a generated text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WrittenToken {
    /// Where its part of the text ends, in bytes. It begins where the one before ends.
    pub text_end: usize,
    /// How likely it was; nothing for the decoder start token, which nobody chose.
    pub log_probability: Option<f32>,
}

impl WrittenToken {
    /// The tokens of a generated sequence. Its first is the decoder start token, for which
    /// `log_probabilities` has no entry.
    #[must_use]
    pub fn sequence(text_ends: Vec<usize>, log_probabilities: &[f32]) -> Vec<Self> {
        let chosen = log_probabilities.iter().copied().map(Some);
        let pairs = text_ends
            .into_iter()
            .zip(std::iter::once(None).chain(chosen));
        pairs
            .map(|(text_end, log_probability)| Self {
                text_end,
                log_probability,
            })
            .collect()
    }
}

/// See the module's header.
pub(super) struct Transcript {
    text: String,
    tokens: Vec<WrittenToken>,
}

impl Transcript {
    pub(super) fn new(text: &str, tokens: &[WrittenToken]) -> Self {
        Self {
            text: text.to_owned(),
            tokens: tokens.to_vec(),
        }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The same without all occurrences of a tag. What stands on its two sides moves together.
    pub(super) fn without(mut self, tag: &str) -> Self {
        let mut places = self.text.match_indices(tag).map(|(at, _)| at).peekable();
        if places.peek().is_none() {
            return self;
        }
        let mut removed = 0;
        for token in &mut self.tokens {
            while places
                .next_if(|at| at + tag.len() <= token.text_end)
                .is_some()
            {
                removed += tag.len();
            }
            let within = places
                .peek()
                .map_or(0, |at| token.text_end.saturating_sub(*at));
            token.text_end = token.text_end.saturating_sub(removed + within);
        }
        self.text = self.text.replace(tag, "");
        self
    }

    /// How likely the model held a finding: e to the power of the mean log-probability of the
    /// tokens that wrote its label and its place. Nothing when no token is known.
    ///
    /// The label stands before the place; a token that reaches from one into the other counts once.
    pub(super) fn score(&self, label: Range<usize>, place: Range<usize>) -> Option<f32> {
        let label = self.tokens_of(label);
        let place = self.tokens_of(place);
        let place = place.start.max(label.end)..place.end;
        let (mut sum, mut count) = (0.0, 0.0);
        for index in label.chain(place) {
            if let Some(log_probability) = self.chosen(index) {
                sum += f64::from(log_probability);
                count += 1.0;
            }
        }
        let likelihood = f64::exp(sum / count);
        // Not a number without tokens; and rounding may leave a hair more than certainty.
        (!likelihood.is_nan()).then_some(likelihood.min(1.0) as f32)
    }

    /// The tokens that wrote at least one byte of a stretch.
    fn tokens_of(&self, stretch: Range<usize>) -> Range<usize> {
        if stretch.is_empty() || self.tokens.is_empty() {
            return 0..0;
        }
        let ended_before = |position: usize| {
            self.tokens
                .partition_point(|token| token.text_end < position)
        };
        let first = ended_before(stretch.start + 1);
        // The one that reaches the end is the last.
        let last = ended_before(stretch.end).min(self.tokens.len() - 1);
        first..(last + 1).max(first)
    }

    /// A token's log-probability, unless it was given or wrote nothing that is left.
    fn chosen(&self, index: usize) -> Option<f32> {
        let token = self.tokens.get(index)?;
        let before = index.checked_sub(1).and_then(|it| self.tokens.get(it));
        let start = before.map_or(0, |token| token.text_end);
        token.log_probability.filter(|_| start < token.text_end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tokens of these texts; the n-th has the log-probability −n, the first, number 0, none.
    fn transcript(parts: &[&str]) -> Transcript {
        let mut text_end = 0;
        let tokens: Vec<WrittenToken> = parts
            .iter()
            .enumerate()
            .map(|(n, part)| {
                text_end += part.len();
                WrittenToken {
                    text_end,
                    log_probability: (n > 0).then_some(-(n as f32)),
                }
            })
            .collect();
        Transcript::new(&parts.concat(), &tokens)
    }

    /// The score of some tokens by the definition.
    fn likelihood(tokens: &[u32]) -> Option<f32> {
        let sum: f64 = tokens.iter().map(|n| -f64::from(*n)).sum();
        Some((sum / tokens.len() as f64).exp() as f32)
    }

    #[test]
    fn a_stretch_counts_every_token_that_wrote_a_byte_of_it() {
        let text = transcript(&["</s>", "<s>", "a", " do", "g<", "x"]);
        let cases: [(Range<usize>, &[u32]); 7] = [
            (7..8, &[2]),
            (8..9, &[3]),
            (9..12, &[3, 4]),
            (10..11, &[3]),
            (11..12, &[4]),
            (7..14, &[2, 3, 4, 5]),
            (4..8, &[1, 2]),
        ];
        for (stretch, tokens) in cases {
            let expected = likelihood(tokens);
            assert_eq!(text.score(0..0, stretch.clone()), expected, "{stretch:?}");
            assert_eq!(text.score(stretch.clone(), 0..0), expected, "{stretch:?}");
        }
    }

    #[test]
    fn nothing_written_and_nothing_known_have_no_score() {
        let text = transcript(&["</s>", "a", ""]);
        assert_eq!(text.score(4..4, 5..5), None);
        assert_eq!(text.score(0..4, 0..0), None, "the start token has no score");
        assert_eq!(text.score(5..9, 0..0), None, "beyond the end");
        let bare = Transcript::new("dog", &[]);
        assert_eq!(bare.score(0..3, 0..0), None);
    }

    #[test]
    fn a_token_that_reaches_from_the_label_into_the_place_counts_once() {
        let text = transcript(&["", "do", "g<", "loc_1>"]);
        assert_eq!(text.score(0..3, 3..10), likelihood(&[1, 2, 3]));
    }

    #[test]
    fn a_token_without_text_inside_a_stretch_does_not_count() {
        let text = transcript(&["", "do", "", "g"]);
        assert_eq!(text.score(0..3, 0..0), likelihood(&[1, 3]));
    }

    #[test]
    fn removing_a_tag_moves_what_follows_and_empties_its_own_token() {
        let text = transcript(&["</s>", "<s>", "do", "<s>", "g"]);
        let text = text.without("<s>").without("</s>").without("<pad>");
        assert_eq!(text.text(), "dog");
        assert_eq!(text.score(0..3, 0..0), likelihood(&[2, 4]));
        assert_eq!(text.score(2..3, 0..0), likelihood(&[4]));
    }

    #[test]
    fn a_tag_that_other_tokens_spell_is_removed_from_them() {
        // Removing one tag joins the halves of the next.
        let text = transcript(&["", "a<", "/<", "s", ">s", ">b<p", "ad", ">"]);
        let text = text.without("<s>").without("</s>").without("<pad>");
        assert_eq!(text.text(), "ab");
        assert_eq!(text.score(0..1, 0..0), likelihood(&[1]));
        assert_eq!(text.score(1..2, 0..0), likelihood(&[5]));
    }

    #[test]
    fn certainty_is_one_and_impossibility_zero() {
        let token = |log_probability| WrittenToken {
            text_end: 1,
            log_probability: Some(log_probability),
        };
        let score = |p| Transcript::new("a", &[token(p)]).score(0..1, 0..0);
        assert_eq!(score(0.0), Some(1.0));
        assert_eq!(score(1e-7), Some(1.0));
        assert_eq!(score(f32::NEG_INFINITY), Some(0.0));
        assert_eq!(score(f32::NAN), None);
    }
}
