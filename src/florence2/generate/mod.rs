//! Search for the best answer over a next-logits function: greedy or beam search, with the reference
//! library's candidate bookkeeping (its vectorised form, in force since transformers 4.50).
//!
//! Nothing here knows the network: [`Decode`] may be a table of invented logits.

mod beam;
mod candidates;
mod constraints;

use constraints::Constraints;

use super::kernels::{all_finite, log_softmax_at};

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

/// The token ids that steer a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpecialTokens {
    /// The token every sequence starts with.
    pub decoder_start_token_id: u32,
    /// The token that ends a sequence.
    pub eos_token_id: u32,
    /// The only token allowed at the first step.
    pub forced_bos_token_id: Option<u32>,
    /// The only token allowed at the length limit.
    pub forced_eos_token_id: Option<u32>,
}

/// What a search found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Generated {
    /// The sequence as the reference returns it: the decoder start token first, `eos_token_id` last
    /// unless the length limit cut it off.
    pub token_ids: Vec<u32>,
    /// The log-probability of every token after the decoder start token, which nobody chose: what
    /// the reference calls transition scores, without length normalisation.
    ///
    /// A forced token has 0. Where tokens were forbidden, the two searches differ as they do in the
    /// reference: beam search takes probabilities over the whole vocabulary and forbids afterwards,
    /// greedy search over what was left.
    pub log_probabilities: Vec<f32>,
}

/// A decoder as the search sees it.
pub trait Decode {
    /// What the decoder remembers of the sequences; passed on from step to step.
    type Cache;
    /// What can go wrong.
    type Error;

    /// Appends `tokens[i]` to the sequence that row `parents[i]` of the last step had, and returns
    /// the next logits, `(tokens, vocab)` row-major. `parents` is empty at the first step.
    ///
    /// # Errors
    /// When the device fails.
    fn next_logits(
        &self,
        tokens: &[u32],
        parents: &[u32],
        cache: Self::Cache,
    ) -> Result<(Vec<f32>, Self::Cache), Self::Error>;
}

/// Why a search ended without an answer.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum GenerateError<E> {
    /// The decoder failed.
    #[error(transparent)]
    Decoder(#[from] E),
    /// A logit is NaN or infinite: whatever followed would look like an answer and be none.
    #[error("a logit is not finite")]
    NotFinite,
}

/// Searches from an empty `cache`.
///
/// # Errors
/// When the decoder fails, or gives logits that are not finite.
pub fn generate<D: Decode>(
    decoder: &D,
    cache: D::Cache,
    options: &GenerationOptions,
    special: &SpecialTokens,
) -> Result<Generated, GenerateError<D::Error>> {
    if options.max_new_tokens == 0 {
        return Ok(Generated {
            token_ids: vec![special.decoder_start_token_id],
            log_probabilities: Vec::new(),
        });
    }
    let constraints = Constraints::new(options, special);
    if options.num_beams <= 1 {
        greedy(decoder, cache, &constraints)
    } else {
        beam::search(decoder, cache, options, &constraints)
    }
}

/// Logits of a step, and the cache that goes on.
type Step<D> = (Vec<f32>, <D as Decode>::Cache);

/// The next logits, once they are found to be numbers. Looked at here, before the constraints put
/// infinities of their own among them.
fn finite_logits<D: Decode>(
    decoder: &D,
    tokens: &[u32],
    parents: &[u32],
    cache: D::Cache,
) -> Result<Step<D>, GenerateError<D::Error>> {
    let step = decoder.next_logits(tokens, parents, cache)?;
    if all_finite(&step.0) {
        Ok(step)
    } else {
        Err(GenerateError::NotFinite)
    }
}

/// The most likely token at every step; the constraints act on raw logits.
fn greedy<D: Decode>(
    decoder: &D,
    mut cache: D::Cache,
    constraints: &Constraints,
) -> Result<Generated, GenerateError<D::Error>> {
    let mut sequence = vec![constraints.start()];
    let mut log_probabilities = Vec::new();
    let mut parents: &[u32] = &[];
    loop {
        let last = &sequence[sequence.len() - 1..];
        let (mut logits, next) = finite_logits(decoder, last, parents, cache)?;
        cache = next;
        parents = &[0];
        constraints.apply(&sequence, &mut logits);
        let token = candidates::argmax(&logits);
        sequence.push(token);
        log_probabilities.push(log_softmax_at(&logits, token as usize));
        if constraints.ends(token, sequence.len()) {
            return Ok(Generated {
                token_ids: sequence,
                log_probabilities,
            });
        }
    }
}

#[cfg(test)]
mod tests;
