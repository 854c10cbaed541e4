//! Added tokens that a caller cannot write: their text is read as the ordinary text that it is.
//!
//! `<image>` stands for the picture's own vectors, so a text that names it is about the word; the original
//! layout's tokenizer has no such token and reads it the same way, while the reference library refuses
//! it in the native one. A token beyond the rows of the embedding matrix has nothing to be embedded as:
//! such tokenizers come from fine-tunes whose weights did not grow with them.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};

use tokenizers::{AddedToken, AddedVocabulary, Model};

/// What stands for the picture in the native layout.
pub(super) const IMAGE: &str = "<image>";

/// Makes `<image>`, and every added token with an id of `rows` or more, ordinary text. Returns them, for
/// decoding knows them all the same.
///
/// # Errors
/// Names the token, where one lies beyond the rows that is no caller's: of the base vocabulary, or for
/// which `is_needed` holds.
pub(super) fn take_out(
    tokenizer: &mut tokenizers::Tokenizer,
    rows: usize,
    is_needed: impl Fn(&str) -> bool,
) -> Result<BTreeMap<u32, String>, String> {
    let is_beyond = |id: u32| id as usize >= rows;
    let base = tokenizer.get_model().get_vocab();
    let mut added: Vec<(u32, AddedToken)> =
        tokenizer.get_added_tokens_decoder().into_iter().collect();
    added.sort_unstable_by_key(|(id, _)| *id);
    let needed = added.iter().filter(|(_, token)| is_needed(&token.content));
    let beyond = needed
        .map(|(id, token)| (*id, &token.content))
        .chain(base.iter().map(|(token, id)| (*id, token)))
        .filter(|(id, _)| is_beyond(*id))
        .min();
    if let Some((id, token)) = beyond {
        return Err(format!(
            "its token {token} has the id {id}, and the weights have rows for 0 to {} only",
            rows.saturating_sub(1)
        ));
    }
    let is_taken = |(id, token): &(u32, AddedToken)| is_beyond(*id) || token.content == IMAGE;
    if !added.iter().any(is_taken) {
        return Ok(BTreeMap::new());
    }
    // Ids are given out one after the other, so that a taken token leaves another behind, with a text
    // that nobody can guess.
    let unguessable = RandomState::new();
    let mut taken = BTreeMap::new();
    let mut kept = Vec::with_capacity(added.len());
    for entry in added {
        if !is_taken(&entry) {
            kept.push(entry);
            continue;
        }
        let (id, mut token) = entry;
        if !base.contains_key(&token.content) {
            let text = format!("\u{10FFFE}{:x}", unguessable.hash_one(id));
            let placeholder = AddedToken {
                content: text,
                normalized: false,
                ..token.clone()
            };
            kept.push((id, placeholder));
        }
        taken.insert(id, std::mem::take(&mut token.content));
    }
    let ids: Vec<(u32, String)> = kept
        .iter()
        .map(|(id, token)| (*id, token.content.clone()))
        .collect();
    let kept: Vec<AddedToken> = kept.into_iter().map(|(_, token)| token).collect();
    let mut words = AddedVocabulary::new();
    words
        .add_tokens(kept, tokenizer.get_model(), tokenizer.get_normalizer())
        .map_err(|error| error.to_string())?;
    tokenizer.with_added_vocabulary(words);
    let moved = |(id, token): &&(u32, String)| tokenizer.token_to_id(token) != Some(*id);
    match ids.iter().find(moved) {
        Some((id, token)) => Err(format!(
            "its added tokens have gaps between their ids: without those that cannot be used, {token} is no longer {id}"
        )),
        None => Ok(taken),
    }
}
