//! What counts as whitespace around labels, texts and prompts.
//!
//! The reference processor is Python and strips with `str.strip()`, whose idea of whitespace is
//! Unicode's plus the four ASCII separators U+001C to U+001F. Labels and prompts must come out as
//! they do there, so every strip in this room goes through here and none through [`str::trim`].

/// Removes whitespace at both ends, as Python's `str.strip()` does.
pub(crate) fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// Removes whitespace at the start, as Python's `str.lstrip()` does.
pub(crate) fn strip_start(text: &str) -> &str {
    text.trim_start_matches(is_space)
}

fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ascii_separators_are_whitespace_as_in_python() {
        assert_eq!(
            strip("\u{1c}\u{1d}\u{1e}\u{1f} \u{a0}\u{2003}x\u{3000}\u{85}"),
            "x"
        );
        assert_eq!(strip_start("\u{1f}\n x \n"), "x \n");
    }

    #[test]
    fn other_control_and_invisible_characters_stay() {
        for kept in ["\u{1b}", "\u{200b}", "\u{feff}", "\u{180e}", "\0"] {
            assert_eq!(strip(kept), kept);
        }
    }
}
