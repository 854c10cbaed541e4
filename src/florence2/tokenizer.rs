//! Text to token ids and back, with the location tokens in place.
//!
//! Reads `tokenizer.json` of both published layouts. The native one lists all task tokens; the
//! original one lists none, and its processor code adds them while loading. This file does the
//! same, in the same order, because a token's id is its row in the embedding table.
//!
//! No id is written down here: fine-tunes and small checkpoints have other base vocabularies. What
//! the model relies on is checked when the file is opened, so that a foreign tokenizer is refused
//! with a reason instead of answering nonsense.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tokenizers::{AddedToken, Model};

use super::byte_level::{push_bytes, text_of};
use super::checkpoint_file::{self, Range, whole};
use super::location::{BINS, LocationToken};
use super::processor::ProcessorError;
use super::untyped_words::{self, IMAGE};
use crate::contained::contained;

/// The tokens before the location tokens, in id order.
const BEFORE_LOCATIONS: [&str; 4] = ["<od>", "</od>", "<ocr>", "</ocr>"];

/// The tokens after the location tokens, in id order. `desciption` is the checkpoints' spelling.
#[rustfmt::skip]
const AFTER_LOCATIONS: [&str; 20] = [
    "<cap>", "</cap>", "<ncap>", "</ncap>", "<dcap>", "</dcap>", "<grounding>", "</grounding>",
    "<seg>", "</seg>", "<sep>", "<region_cap>", "</region_cap>", "<region_to_desciption>",
    "</region_to_desciption>", "<proposal>", "</proposal>", "<poly>", "</poly>", "<and>",
];

/// Largest id that a token may have; published models have 51,289.
const MAX_ID: u32 = 1 << 20;

/// What every id of `tokenizer.json` may be. Where a vocabulary is a list, its order gives the ids.
const RANGES: [Range; 2] = [
    whole("added_tokens.id", 0, MAX_ID),
    whole("model.vocab", 0, MAX_ID),
];

/// Opens a sequence.
const START: &str = "<s>";

/// Closes a sequence.
const END: &str = "</s>";

/// A checkpoint's tokenizer, complete with its task tokens.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    first_location: u32,
    /// Tokens that no text is encoded to.
    untyped: BTreeMap<u32, String>,
    longest_token_bytes: usize,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`, adds the task tokens where it has none, and checks it.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, is no tokenizer, has only some of the task tokens, or does not
    /// encode and decode as Florence-2 needs it.
    pub fn open(file: &Path) -> Result<Self, ProcessorError> {
        Self::open_for(file, usize::MAX)
    }

    /// The same for an embedding matrix of `rows` rows: no text gives an id beyond them.
    ///
    /// # Errors
    ///
    /// As [`Self::open`], and when a token that the model needs lies beyond the rows.
    pub fn open_for(file: &Path, rows: usize) -> Result<Self, ProcessorError> {
        let json = checkpoint_file::read(file).map_err(|source| ProcessorError::Unreadable {
            file: file.to_owned(),
            source,
        })?;
        let unfit = |reason: String| ProcessorError::UnfitTokenizer {
            file: file.to_owned(),
            reason,
        };
        let malformed = |reason: String| ProcessorError::Malformed {
            file: file.to_owned(),
            reason,
        };
        checkpoint_file::parse_value(&json, &RANGES).map_err(malformed)?;
        let mut inner = contained(|| tokenizers::Tokenizer::from_bytes(json))
            .map_err(|panic| malformed(format!("its parts do not fit together ({panic})")))?
            .map_err(|error| malformed(error.to_string()))?;
        // A file saved after use may carry the lengths of that use.
        inner.with_padding(None);
        inner
            .with_truncation(None)
            .map_err(|error| unfit(error.to_string()))?;
        complete(&mut inner).map_err(unfit)?;
        let first_location = first_location(&inner).map_err(unfit)?;
        let needed: std::collections::HashSet<String> = task_tokens().collect();
        let untyped = untyped_words::take_out(&mut inner, rows, |token| needed.contains(token));
        let tokenizer = Self {
            longest_token_bytes: longest_token_bytes(&inner),
            inner,
            first_location,
            untyped: untyped.map_err(unfit)?,
        };
        tokenizer.check(file)?;
        Ok(tokenizer)
    }

    /// The ids of a text between `<s>` and `</s>`; special tokens in the text are recognised.
    ///
    /// # Errors
    ///
    /// [`ProcessorError::Untokenizable`] when the tokenizer gives up on the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, ProcessorError> {
        let encoding = self.inner.encode_fast(text, true);
        encoding
            .map(|encoding| encoding.get_ids().to_vec())
            .map_err(|error| ProcessorError::Untokenizable {
                reason: error.to_string(),
            })
    }

    /// Added tokens that are read as ordinary text because the weights have no row for them.
    pub fn words_without_rows(&self) -> impl Iterator<Item = &str> {
        let words = self.untyped.values().map(String::as_str);
        words.filter(|word| *word != IMAGE)
    }

    /// The text of token ids: special tokens kept, nothing put between tokens, no clean-up.
    ///
    /// An id without a token, such as the padding rows of the native embedding table, gives
    /// nothing; bytes that are no UTF-8 give U+FFFD.
    ///
    /// # Errors
    ///
    /// [`ProcessorError::Untokenizable`] when the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String, ProcessorError> {
        let mut text = String::new();
        // The inner tokenizer has forgotten what nobody may write; the model may write it all the same.
        for part in ids.chunk_by(|before, here| {
            !self.untyped.contains_key(before) && !self.untyped.contains_key(here)
        }) {
            match part {
                [id] if self.untyped.contains_key(id) => {
                    text.extend(self.untyped.get(id).map(String::as_str));
                }
                part => text += &self.decode_known(part)?,
            }
        }
        Ok(text)
    }

    fn decode_known(&self, ids: &[u32]) -> Result<String, ProcessorError> {
        self.inner
            .decode(ids, false)
            .map_err(|error| ProcessorError::Untokenizable {
                reason: error.to_string(),
            })
    }

    /// Where each token's part of `text` ends, in bytes; `text` is the decoding of `ids`.
    ///
    /// A character that several tokens wrote together counts for each of them: ends may lie between
    /// its bytes. An id without a token has no part, and ends where the one before it does.
    ///
    /// # Errors
    ///
    /// [`ProcessorError::Untokenizable`] when the tokenizer is not byte-level, so that no byte of
    /// the text belongs to a token.
    pub fn token_ends(&self, ids: &[u32], text: &str) -> Result<Vec<usize>, ProcessorError> {
        let mut bytes = Vec::with_capacity(text.len());
        let ends = ids
            .iter()
            .map(|id| {
                let untyped = self.untyped.get(id).cloned();
                if let Some(token) = untyped.or_else(|| self.inner.id_to_token(*id)) {
                    push_bytes(&token, &mut bytes);
                }
                bytes.len()
            })
            .collect();
        let (traced, ends) = text_of(&bytes, ends);
        if traced != text {
            return Err(ProcessorError::Untokenizable {
                reason: "its text cannot be traced to its tokens".to_owned(),
            });
        }
        Ok(ends)
    }

    /// Bytes of text for which one token can stand: a text has at least as many tokens as this fits
    /// into its length.
    ///
    /// Whitespace before `<mask>`, which that token takes along, is not counted, and neither is text
    /// that a normaliser would take out; the published tokenizers have none.
    #[must_use]
    pub fn longest_token_bytes(&self) -> usize {
        self.longest_token_bytes
    }

    /// The id of `<loc_bin>`, or nothing beyond bin 999.
    #[must_use]
    pub fn location_token_id(&self, bin: u16) -> Option<u32> {
        (bin < BINS).then(|| self.first_location + u32::from(bin))
    }

    /// Tries what every prediction relies on.
    fn check(&self, file: &Path) -> Result<(), ProcessorError> {
        let unfit = |reason: String| ProcessorError::UnfitTokenizer {
            file: PathBuf::from(file),
            reason,
        };
        let id = |token| {
            self.inner
                .token_to_id(token)
                .ok_or_else(|| unfit(format!("it has no token {token}")))
        };
        let ends = [id(START)?, id(END)?];
        if self.encode("")? != ends {
            return Err(unfit(format!(
                "it does not put {START} and {END} around a text"
            )));
        }
        let pair = [0, 1].map(|bin| LocationToken(bin).to_string()).concat();
        if self.decode(&[self.first_location, self.first_location + 1])? != pair {
            return Err(unfit(format!(
                "it does not decode to {pair} without spaces"
            )));
        }
        Ok(())
    }
}

fn longest_token_bytes(tokenizer: &tokenizers::Tokenizer) -> usize {
    let mut bytes = Vec::new();
    let lengths = tokenizer.get_vocab(true).into_keys().map(|token| {
        bytes.clear();
        push_bytes(&token, &mut bytes);
        bytes.len()
    });
    lengths.max().unwrap_or(1).max(1)
}

/// All task tokens in id order.
fn task_tokens() -> impl Iterator<Item = String> {
    let locations = (0..BINS).map(|bin| LocationToken(bin).to_string());
    let before = BEFORE_LOCATIONS.into_iter().map(str::to_owned);
    let after = AFTER_LOCATIONS.into_iter().map(str::to_owned);
    before.chain(locations).chain(after)
}

/// Adds the task tokens to a tokenizer that has none of them.
fn complete(tokenizer: &mut tokenizers::Tokenizer) -> Result<(), String> {
    let missing: Vec<String> = task_tokens()
        .filter(|token| tokenizer.token_to_id(token).is_none())
        .collect();
    let Some(first_missing) = missing.first() else {
        return Ok(());
    };
    if missing.len() < task_tokens().count() {
        return Err(format!(
            "it has some task tokens but not all: {first_missing} is the first of {} that are missing",
            missing.len()
        ));
    }
    let base = tokenizer.get_vocab_size(false);
    let next = u32::try_from(base).map_err(|error| error.to_string())?;
    if let Some(token) = tokenizer.get_model().id_to_token(next) {
        return Err(format!(
            "its base vocabulary has gaps: of {base} entries, {token} has id {next}"
        ));
    }
    let first_missing = first_missing.clone();
    let added = missing
        .into_iter()
        // Not normalised: a special token is matched as it is written.
        .map(|token| AddedToken::from(token, true).normalized(false));
    tokenizer
        .add_special_tokens(added)
        .map_err(|error| error.to_string())?;
    match tokenizer.token_to_id(&first_missing) {
        Some(first) if first == next => Ok(()),
        Some(first) => Err(format!(
            "the task tokens must directly follow its base vocabulary of {base} entries, but \
             {first_missing} gets id {first}: it has added tokens of its own"
        )),
        None => Err(format!("{first_missing} cannot be added to it")),
    }
}

/// The id of `<loc_0>`, after which the other location tokens follow without a gap.
fn first_location(tokenizer: &tokenizers::Tokenizer) -> Result<u32, String> {
    let id = |bin| {
        let token = LocationToken(bin).to_string();
        tokenizer
            .token_to_id(&token)
            .ok_or_else(|| format!("it has no token {token}"))
    };
    let first = id(0)?;
    for bin in 1..BINS {
        let (before, here) = (id(bin - 1)?, id(bin)?);
        if before.checked_add(1) != Some(here) {
            return Err(format!(
                "its location tokens are not consecutive: {} has id {here}, the one before {before}",
                LocationToken(bin)
            ));
        }
    }
    Ok(first)
}
