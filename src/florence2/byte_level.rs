//! Byte-level BPE the other way round: the bytes a token stands for, and where they end up in text.
//!
//! A token of such a vocabulary is a row of bytes, each written as one printable character, and a
//! character of the text may be spread over several tokens. Text is made of all bytes together;
//! what is no UTF-8 becomes U+FFFD, as in the reference. This file does the same while it keeps
//! count of which token wrote what. Whole texts are decoded by [`super::tokenizer`].

use std::ops::RangeInclusive;

/// Bytes that are written as the character of the same number.
const PRINTABLE: [RangeInclusive<u32>; 3] = [0x21..=0x7E, 0xA1..=0xAC, 0xAE..=0xFF];

/// The characters of the other bytes, with the first byte that they stand for.
const SHIFTED: [(RangeInclusive<u32>, u32); 4] = [
    (0x100..=0x120, 0x00),
    (0x121..=0x121, 0x7F),
    (0x122..=0x142, 0x80),
    (0x143..=0x143, 0xAD),
];

/// Appends the bytes of a token. One that is no row of byte characters stands for itself.
pub(super) fn push_bytes(token: &str, bytes: &mut Vec<u8>) {
    let before = bytes.len();
    for c in token.chars() {
        match byte_of(c) {
            Some(byte) => bytes.push(byte),
            None => {
                bytes.truncate(before);
                bytes.extend_from_slice(token.as_bytes());
                return;
            }
        }
    }
}

fn byte_of(c: char) -> Option<u8> {
    let code = u32::from(c);
    if PRINTABLE.iter().any(|range| range.contains(&code)) {
        return u8::try_from(code).ok();
    }
    let (range, first) = SHIFTED.iter().find(|(range, _)| range.contains(&code))?;
    u8::try_from(code - range.start() + first).ok()
}

/// The text of `bytes`, and `ends` moved from positions among the bytes to positions in the text.
///
/// `ends` ascend. Up to three bytes that are no UTF-8 become one U+FFFD, which has three bytes too:
/// an end between them stays between them, so that each of their tokens keeps a part of it.
pub(super) fn text_of(bytes: &[u8], mut ends: Vec<usize>) -> (String, Vec<usize>) {
    let mut text = String::with_capacity(bytes.len());
    let mut moving = ends.iter_mut().peekable();
    // Bytes and text before the present chunk.
    let mut consumed = 0;
    for chunk in bytes.utf8_chunks() {
        let written = text.len();
        text.push_str(chunk.valid());
        if !chunk.invalid().is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
        }
        let length = chunk.valid().len() + chunk.invalid().len();
        while let Some(end) = moving.next_if(|end| **end <= consumed + length) {
            let within = *end - consumed;
            *end = if within == length {
                text.len()
            } else {
                written + within
            };
        }
        consumed += length;
    }
    (text, ends)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of(tokens: &[&str]) -> (Vec<u8>, Vec<usize>) {
        let mut bytes = Vec::new();
        let ends = tokens
            .iter()
            .map(|token| {
                push_bytes(token, &mut bytes);
                bytes.len()
            })
            .collect();
        (bytes, ends)
    }

    #[test]
    fn the_characters_of_bytes_are_those_of_the_published_vocabulary() {
        // GPT-2's table as it is defined: what is not printable follows from 256 on, in order.
        let mut next = 0x100;
        for byte in 0..=u8::MAX {
            let is_printable = matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
            let code = if is_printable {
                u32::from(byte)
            } else {
                next += 1;
                next - 1
            };
            assert_eq!(byte_of(char::from_u32(code).unwrap()), Some(byte));
        }
        for other in ['\u{20}', '\n', '\u{7f}', '\u{ad}', '\u{144}', '中', '🙂'] {
            assert_eq!(byte_of(other), None, "{other:?}");
        }
    }

    #[test]
    fn a_character_spread_over_tokens_belongs_to_all_of_them() {
        // "é 🙂" as é = C3 A9 and 🙂 = F0 9F 99 82, one byte a token, but for " F0".
        let (bytes, ends) = bytes_of(&["Ã", "©", "Ġð", "Ł", "Ļ", "Ĥ"]);
        let (text, moved) = text_of(&bytes, ends.clone());
        assert_eq!(text, "é 🙂");
        assert_eq!(moved, ends);
        assert_eq!(moved, [1, 2, 4, 5, 6, 7]);
    }

    #[test]
    fn a_token_of_other_characters_stands_for_itself() {
        let (bytes, ends) = bytes_of(&["<loc_5>", "a b", "中"]);
        let (text, moved) = text_of(&bytes, ends);
        assert_eq!(text, "<loc_5>a b中");
        assert_eq!(moved, [7, 10, 13]);
    }

    #[test]
    fn bytes_that_are_no_text_keep_their_tokens_apart() {
        // F0 9F 99 without its last byte, then "a"; a lone A9; C3 at the very end.
        let (bytes, ends) = bytes_of(&["ð", "Ł", "Ļ", "a", "©", "©", "Ã"]);
        let (text, moved) = text_of(&bytes, ends);
        assert_eq!(text, "\u{fffd}a\u{fffd}\u{fffd}\u{fffd}");
        assert_eq!(moved, [1, 2, 3, 4, 7, 10, 13]);
        assert_eq!(text, String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn random_bytes_give_the_text_of_the_plain_conversion() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as usize
        };
        const BYTES: [u8; 8] = [b'a', b' ', 0xC3, 0xA9, 0xF0, 0x9F, 0x99, 0x82];
        for _ in 0..2000 {
            let bytes: Vec<u8> = (0..next() % 12).map(|_| BYTES[next() % 8]).collect();
            let mut ends: Vec<usize> = (0..4).map(|_| next() % (bytes.len() + 1)).collect();
            ends.sort_unstable();
            let (text, moved) = text_of(&bytes, ends);
            assert_eq!(text, String::from_utf8_lossy(&bytes));
            assert!(moved.is_sorted() && moved.iter().all(|end| *end <= text.len()));
        }
    }
}
