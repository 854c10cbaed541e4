//! What a next token may not be: repeated n-grams, an early end, and the two forced tokens. The
//! order is the reference library's; a later rule overrides an earlier one.

use super::{GenerationOptions, SpecialTokens};

/// The rules of one search.
#[derive(Clone, Copy, Debug)]
pub(super) struct Constraints {
    special: SpecialTokens,
    no_repeat_ngram_size: usize,
    /// Shortest sequence, start token included, that may be followed by the end.
    min_length: usize,
    /// Longest sequence, start token included.
    max_length: usize,
}

impl Constraints {
    pub(super) fn new(options: &GenerationOptions, special: &SpecialTokens) -> Self {
        Self {
            special: *special,
            no_repeat_ngram_size: options.no_repeat_ngram_size,
            min_length: options.min_new_tokens.saturating_add(1),
            max_length: options.max_new_tokens.saturating_add(1),
        }
    }

    pub(super) fn start(&self) -> u32 {
        self.special.decoder_start_token_id
    }

    /// Longest sequence, start token included.
    pub(super) fn max_length(&self) -> usize {
        self.max_length
    }

    /// Whether a sequence that reaches `length` with `token` is complete.
    pub(super) fn ends(&self, token: u32, length: usize) -> bool {
        token == self.special.eos_token_id || length >= self.max_length
    }

    /// Sets the scores of forbidden tokens to −∞. `scores (vocab)` are logits or log-probabilities
    /// of the token after `sequence`.
    pub(super) fn apply(&self, sequence: &[u32], scores: &mut [f32]) {
        self.forbid_repeats(sequence, scores);
        if sequence.len() < self.min_length {
            forbid(scores, self.special.eos_token_id);
        }
        if let Some(bos) = self.special.forced_bos_token_id
            && sequence.len() == 1
        {
            force(scores, bos);
        }
        if let Some(eos) = self.special.forced_eos_token_id
            && sequence.len() + 1 == self.max_length
        {
            force(scores, eos);
        }
    }

    /// Forbids every token that would complete an n-gram that already occurs in the sequence.
    fn forbid_repeats(&self, sequence: &[u32], scores: &mut [f32]) {
        let n = self.no_repeat_ngram_size;
        if n == 0 || sequence.len() < n {
            return;
        }
        let tail = &sequence[sequence.len() + 1 - n..];
        for window in sequence.windows(n) {
            if let Some((last, head)) = window.split_last()
                && head == tail
            {
                forbid(scores, *last);
            }
        }
    }
}

fn forbid(scores: &mut [f32], token: u32) {
    if let Some(score) = scores.get_mut(token as usize) {
        *score = f32::NEG_INFINITY;
    }
}

fn force(scores: &mut [f32], token: u32) {
    scores.fill(f32::NEG_INFINITY);
    if let Some(score) = scores.get_mut(token as usize) {
        *score = 0.0;
    }
}
