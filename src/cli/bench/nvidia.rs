//! What NVIDIA's driver says about a card, by its own command: no library of ours needs the driver
//! for it, and a build without CUDA never asks.

use std::process::Command;

/// A card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Card {
    pub(super) name: String,
    pub(super) driver: String,
    /// Bytes in use, by whomever.
    pub(super) used_bytes: u64,
}

/// Looks at the card of that number; none where the command is missing or says something else.
pub(super) fn card(number: usize) -> Option<Card> {
    let output = Command::new("nvidia-smi")
        .arg(format!("--id={number}"))
        .arg("--query-gpu=name,driver_version,memory.used")
        .arg("--format=csv,noheader,nounits")
        .output()
        .ok()?;
    parse(&String::from_utf8(output.stdout).ok()?)
}

fn parse(text: &str) -> Option<Card> {
    let mut parts = text.lines().next()?.split(',').map(str::trim);
    let (name, driver, used_mib) = (parts.next()?, parts.next()?, parts.next()?);
    let used_mib: u64 = used_mib.parse().ok()?;
    Some(Card {
        name: name.to_owned(),
        driver: driver.to_owned(),
        used_bytes: used_mib.checked_mul(1 << 20)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_driver_is_understood() {
        let card = parse("NVIDIA H100 80GB HBM3, 550.54.15, 1234\n").unwrap();
        assert_eq!(card.name, "NVIDIA H100 80GB HBM3");
        assert_eq!(card.driver, "550.54.15");
        assert_eq!(card.used_bytes, 1234 << 20);
        for text in ["", "No devices were found", "a, b, [N/A]"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
