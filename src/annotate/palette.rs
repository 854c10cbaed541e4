//! The colours: twelve that stay apart, in an order in which the first ones are the farthest apart.
//!
//! Chosen greedily for the largest smallest distance in OKLab, where distances as seen with
//! protanopia and deuteranopia (Machado, Oliveira and Fernandes 2009) count as well as the plain
//! ones. Each colour brings its ink: black or white, whichever is easier to read on it.

use std::collections::HashMap;

/// An opaque sRGB colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Rgb(pub(super) [u8; 3]);

pub(super) const BLACK: Rgb = Rgb([0x10, 0x12, 0x16]);
pub(super) const WHITE: Rgb = Rgb([0xff; 3]);

const PALETTE: [Rgb; 12] = [
    Rgb([0xff, 0x4b, 0x4b]),
    Rgb([0x1a, 0x54, 0xf0]),
    Rgb([0x70, 0xfa, 0xfe]),
    Rgb([0xb7, 0x90, 0xf7]),
    Rgb([0xfb, 0xd5, 0x09]),
    Rgb([0xac, 0x1f, 0x95]),
    Rgb([0x0c, 0xad, 0x98]),
    Rgb([0xac, 0x43, 0x0e]),
    Rgb([0x5e, 0x81, 0xcb]),
    Rgb([0x1a, 0xff, 0x9b]),
    Rgb([0xf0, 0x9b, 0x35]),
    Rgb([0xfe, 0xa4, 0xd2]),
];

impl Rgb {
    /// Black or white, whichever contrasts more with this colour.
    pub(super) fn ink(self) -> Self {
        if self.contrast(BLACK) >= self.contrast(WHITE) {
            BLACK
        } else {
            WHITE
        }
    }

    /// Contrast ratio of WCAG 2, from 1 to 21.
    fn contrast(self, other: Self) -> f32 {
        let (a, b) = (self.luminance(), other.luminance());
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    /// Relative luminance of WCAG 2.
    fn luminance(self) -> f32 {
        let [r, g, b] = self.0.map(|value| {
            let value = f32::from(value) / 255.0;
            if value <= 0.040_45 {
                value / 12.92
            } else {
                ((value + 0.055) / 1.055).powf(2.4)
            }
        });
        0.2126 * r + 0.7152 * g + 0.0722 * b
    }
}

/// Hands out the palette in order: one colour a label, and a fresh one for whatever has no label.
#[derive(Default)]
pub(super) struct Colors<'a> {
    by_label: HashMap<&'a str, Rgb>,
    given: usize,
}

impl<'a> Colors<'a> {
    pub(super) fn of(&mut self, label: &'a str) -> Rgb {
        if let Some(color) = self.by_label.get(label) {
            return *color;
        }
        let color = PALETTE
            .get(self.given % PALETTE.len())
            .copied()
            .unwrap_or(WHITE);
        self.given += 1;
        if !label.is_empty() {
            self.by_label.insert(label, color);
        }
        color
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What WCAG 2 asks of text of any size.
    const READABLE: f32 = 4.5;

    #[test]
    fn ink_is_readable_on_every_colour() {
        for color in PALETTE {
            let contrast = color.contrast(color.ink());
            assert!(contrast >= READABLE, "{color:?}: {contrast}");
        }
    }

    #[test]
    fn equal_labels_share_a_colour_and_unlabelled_places_do_not() {
        let mut colors = Colors::default();
        let cat = colors.of("cat");
        let dog = colors.of("dog");
        assert_ne!(cat, dog);
        assert_eq!(colors.of("cat"), cat);
        assert_ne!(colors.of(""), colors.of(""));
        assert_eq!(colors.of("dog"), dog);
    }
}
