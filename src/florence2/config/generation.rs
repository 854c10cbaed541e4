//! Search settings as the files say them, and which file is heard.
//!
//! A native checkpoint is configured by `generation_config.json` alone; only where that file is missing
//! does `config.json` count, what stands beside `text_config` before what stands in it. An original one
//! is configured by `text_config` alone. In the original layout an absent id has the default of BART's
//! configuration, and null means none; in the native one both mean none. All this is what the reference
//! library does, but for two things: nobody's `num_beams` is 3 here, and an answer always has a start
//! and an end token, where the library refuses or never ends.

use serde::{Deserialize, Deserializer};

use super::DEFAULT_MAX_NEW_TOKENS;
use crate::florence2::generate::{EarlyStopping, GenerationOptions, SpecialTokens};

/// `num_beams` where neither the checkpoint nor the caller says.
const DEFAULT_NUM_BEAMS: usize = 3;
/// `<s>`, where BART's configuration is silent.
const BOS: u32 = 0;
/// `</s>`, which also starts the decoder, where BART's configuration is silent.
const EOS: u32 = 2;

/// What a file says about a key.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Said<T> {
    #[default]
    Nothing,
    Null,
    Value(T),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Said<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::deserialize(deserializer)?.map_or(Self::Null, Self::Value))
    }
}

impl<T> Said<T> {
    fn value(self) -> Option<T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Nothing | Self::Null => None,
        }
    }

    /// The value, where nothing is said a default, and for null none.
    fn or_where_silent(self, default: T) -> Option<T> {
        match self {
            Self::Nothing => Some(default),
            Self::Null => None,
            Self::Value(value) => Some(value),
        }
    }

    /// The value, else what somebody else says.
    fn or(self, other: Self) -> Self {
        match self {
            Self::Value(_) => self,
            Self::Nothing | Self::Null => other,
        }
    }
}

/// Search settings, as `generation_config.json` and `text_config` both spell them.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawGeneration {
    num_beams: Said<usize>,
    length_penalty: Said<f32>,
    early_stopping: Said<RawEarlyStopping>,
    no_repeat_ngram_size: Said<usize>,
    forced_bos_token_id: Said<u32>,
    forced_eos_token_id: Said<u32>,
    decoder_start_token_id: Said<u32>,
    bos_token_id: Said<u32>,
    eos_token_id: Said<u32>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged)]
enum RawEarlyStopping {
    Flag(bool),
    Word(Never),
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum Never {
    #[serde(rename = "never")]
    Never,
}

/// What all files together come to.
pub(super) struct Settled {
    pub(super) options: GenerationOptions,
    pub(super) special: SpecialTokens,
}

/// The native layout: `file` if there is one, else `outer`, what stands beside `text_config`, and `text`.
pub(super) fn native(
    text: RawGeneration,
    outer: RawGeneration,
    file: Option<RawGeneration>,
) -> Settled {
    let said = file.unwrap_or_else(|| outer.or(text));
    let start = said.decoder_start_token_id.or(said.bos_token_id);
    let start = start.or(text.decoder_start_token_id);
    Settled {
        options: said.options(),
        special: SpecialTokens {
            decoder_start_token_id: start.value().unwrap_or(EOS),
            eos_token_id: said
                .eos_token_id
                .or(text.eos_token_id)
                .value()
                .unwrap_or(EOS),
            forced_bos_token_id: said.forced_bos_token_id.value(),
            forced_eos_token_id: said.forced_eos_token_id.value(),
        },
    }
}

/// The original layout, whose inner language model is configured by `text` alone.
pub(super) fn original(text: RawGeneration) -> Settled {
    let start = text.decoder_start_token_id.or_where_silent(EOS);
    let start = start.or(text.bos_token_id.or_where_silent(BOS));
    Settled {
        options: text.options(),
        special: SpecialTokens {
            decoder_start_token_id: start.unwrap_or(EOS),
            eos_token_id: text.eos_token_id.value().unwrap_or(EOS),
            forced_bos_token_id: text.forced_bos_token_id.value(),
            forced_eos_token_id: text.forced_eos_token_id.or_where_silent(EOS),
        },
    }
}

impl RawGeneration {
    /// Key by key, what is said here, else what `other` says.
    fn or(self, other: Self) -> Self {
        Self {
            num_beams: self.num_beams.or(other.num_beams),
            length_penalty: self.length_penalty.or(other.length_penalty),
            early_stopping: self.early_stopping.or(other.early_stopping),
            no_repeat_ngram_size: self.no_repeat_ngram_size.or(other.no_repeat_ngram_size),
            forced_bos_token_id: self.forced_bos_token_id.or(other.forced_bos_token_id),
            forced_eos_token_id: self.forced_eos_token_id.or(other.forced_eos_token_id),
            decoder_start_token_id: self.decoder_start_token_id.or(other.decoder_start_token_id),
            bos_token_id: self.bos_token_id.or(other.bos_token_id),
            eos_token_id: self.eos_token_id.or(other.eos_token_id),
        }
    }

    fn options(&self) -> GenerationOptions {
        GenerationOptions {
            num_beams: self.num_beams.value().unwrap_or(DEFAULT_NUM_BEAMS),
            max_new_tokens: DEFAULT_MAX_NEW_TOKENS,
            min_new_tokens: 0,
            length_penalty: self.length_penalty.value().unwrap_or(1.0),
            early_stopping: match self.early_stopping.value() {
                Some(RawEarlyStopping::Flag(true)) => EarlyStopping::True,
                Some(RawEarlyStopping::Word(Never::Never)) => EarlyStopping::Never,
                Some(RawEarlyStopping::Flag(false)) | None => EarlyStopping::False,
            },
            no_repeat_ngram_size: self.no_repeat_ngram_size.value().unwrap_or(0),
        }
    }

    /// Names a token id that has no row in a matrix of `vocab_size` rows.
    pub(super) fn check_ids(&self, vocab_size: usize) -> Result<(), String> {
        let ids = [
            ("forced_bos_token_id", self.forced_bos_token_id),
            ("forced_eos_token_id", self.forced_eos_token_id),
            ("decoder_start_token_id", self.decoder_start_token_id),
            ("bos_token_id", self.bos_token_id),
            ("eos_token_id", self.eos_token_id),
        ];
        for (key, id) in ids {
            if let Some(id) = id.value().filter(|id| *id as usize >= vocab_size) {
                return Err(format!(
                    "`{key}` is {id}; with a `vocab_size` of {vocab_size}, a whole number from 0 to {} is possible",
                    vocab_size.saturating_sub(1)
                ));
            }
        }
        Ok(())
    }
}

/// Refuses a vocabulary too small for the ids that hold where no file says any.
pub(super) fn check_settled(special: &SpecialTokens, vocab_size: usize) -> Result<(), String> {
    let forced = [special.forced_bos_token_id, special.forced_eos_token_id];
    let ids = [special.decoder_start_token_id, special.eos_token_id];
    let largest = ids.into_iter().chain(forced.into_iter().flatten()).max();
    match largest.filter(|id| *id as usize >= vocab_size) {
        Some(id) => Err(format!(
            "`vocab_size` of `text_config` is {vocab_size}; the token {id}, with which a search starts or ends, needs a row"
        )),
        None => Ok(()),
    }
}
