//! Search for the best answer: greedy or beam search over a next-logits function.

/// When beam search may stop before the length limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EarlyStopping {
    /// As soon as `num_beams` hypotheses are finished.
    True,
    /// When no running beam is likely to beat the finished ones at its present length.
    False,
    /// When no running beam can beat the finished ones at any length.
    Never,
}

/// How to search. Names and defaults are the reference library's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GenerationOptions {
    /// Number of beams; 1 is greedy search.
    pub num_beams: usize,
    /// Most tokens to generate after the decoder start token.
    pub max_new_tokens: usize,
    /// Fewest tokens to generate before `eos_token_id` may be chosen.
    pub min_new_tokens: usize,
    /// Exponent of the length by which a finished hypothesis' score is divided.
    pub length_penalty: f32,
    /// When to stop before the length limit.
    pub early_stopping: EarlyStopping,
    /// No run of this many tokens may occur twice; 0 allows everything.
    pub no_repeat_ngram_size: usize,
}
