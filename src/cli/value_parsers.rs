//! Parsers of numbers and booleans that say what may be given.
//!
//! clap's own say "invalid digit found in string" and "value was not a boolean", which tell nobody what
//! to write.

/// A whole number in a range.
pub(super) fn whole(
    least: u64,
    most: u64,
) -> impl Fn(&str) -> Result<u64, String> + Clone + Send + Sync + 'static {
    move |text: &str| {
        let number = text.parse().ok();
        let number = number.filter(|number| (least..=most).contains(number));
        number.ok_or_else(|| format!("give a whole number from {least} to {most}"))
    }
}

/// A switch, as shells and compose files write it.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "t" | "yes" | "y" | "on" | "1" => Ok(true),
        "false" | "f" | "no" | "n" | "off" | "0" => Ok(false),
        _ => Err("give true or false".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches_are_read_in_every_usual_spelling() {
        for (text, value) in [
            ("true", Some(true)),
            ("ON", Some(true)),
            ("1", Some(true)),
            ("No", Some(false)),
            ("off", Some(false)),
            ("0", Some(false)),
            ("@bad@", None),
            ("", None),
        ] {
            assert_eq!(boolean(text).ok(), value, "{text}");
        }
    }
}
