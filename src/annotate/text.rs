//! The labels' letters: one line of text in the embedded font, measured, shortened and drawn.
//!
//! The font covers Latin, Greek and Cyrillic; a stray character of another script shows as the font's
//! empty box, and a label that is mostly such characters is left out: a row of boxes says nothing.
//! Nothing is shaped or reordered. Labels are the model's word: any length, any character.

use tiny_skia::{PathBuilder, Stroke};
use ttf_parser::{Face, GlyphId, OutlineBuilder};

use super::draw::Shape;
use super::palette::Rgb;

/// Smallest em size in pixels at which the letters can be told apart.
pub(super) const SMALLEST_PX: f32 = 10.0;
/// The font is a light one: letters are thickened by this part of an em.
const THICKENING: f32 = 0.045;
/// Characters of a label that are looked at; no picture is wide enough for more.
const LONGEST_LABEL: usize = 512;
const ELLIPSIS: char = '…';

/// The embedded font.
pub(super) struct Font {
    face: Face<'static>,
    /// Size of the em square in font units.
    em: f32,
}

/// A measured line of text.
pub(super) struct Line {
    glyphs: Vec<(GlyphId, f32)>,
    /// Advance width in pixels.
    pub(super) width: f32,
}

impl Font {
    /// `None` only if the embedded file were broken, which a test rules out.
    pub(super) fn embedded() -> Option<Self> {
        let face = Face::parse(epaint_default_fonts::UBUNTU_LIGHT, 0).ok()?;
        let em = f32::from(face.units_per_em());
        Some(Self { face, em })
    }

    fn glyph(&self, character: char, px: f32) -> (GlyphId, f32) {
        let glyph = self.face.glyph_index(character).unwrap_or_default();
        let advance = self.face.glyph_hor_advance(glyph).unwrap_or_default();
        (glyph, f32::from(advance) * px / self.em)
    }

    /// Whether the font has at least half of a label's characters.
    fn can_write(&self, label: &str) -> bool {
        let visible = label
            .chars()
            .filter(|it| !it.is_whitespace() && !it.is_control());
        let (all, known) = visible
            .take(LONGEST_LABEL)
            .fold((0, 0), |(all, known), it| {
                (
                    all + 1,
                    known + usize::from(self.face.glyph_index(it).is_some()),
                )
            });
        known * 2 >= all
    }

    /// Measures a label at `px` pixels an em and shortens it to `max_width` with an ellipsis.
    /// `None` when there is nothing to show, or no room for a single letter.
    pub(super) fn line(&self, label: &str, px: f32, max_width: f32) -> Option<Line> {
        if !self.can_write(label) {
            return None;
        }
        let (ellipsis, ellipsis_advance) = self.glyph(ELLIPSIS, px);
        let mut glyphs = Vec::new();
        let mut width = 0.0;
        // How much of the line may stay if an ellipsis has to follow.
        let (mut kept, mut kept_width) = (0, 0.0);
        let words = label.split(|c: char| c.is_whitespace() || c.is_control());
        let words = words.filter(|word| !word.is_empty());
        let characters = words
            .flat_map(|word| std::iter::once(' ').chain(word.chars()))
            .skip(1)
            .take(LONGEST_LABEL);
        for character in characters {
            let (glyph, advance) = self.glyph(character, px);
            let is_cut = glyphs.len() + 1 == LONGEST_LABEL;
            if width + advance > max_width || is_cut {
                if kept == 0 {
                    return None;
                }
                glyphs.truncate(kept);
                glyphs.push((ellipsis, kept_width));
                width = kept_width + ellipsis_advance;
                break;
            }
            glyphs.push((glyph, width));
            width += advance;
            if character != ' ' && width + ellipsis_advance <= max_width {
                (kept, kept_width) = (glyphs.len(), width);
            }
        }
        (!glyphs.is_empty()).then_some(Line { glyphs, width })
    }

    /// Adds the letters of a line that starts at `origin` on the base line.
    pub(super) fn draw(
        &self,
        line: &Line,
        px: f32,
        origin: (f32, f32),
        color: Rgb,
        shapes: &mut Vec<Shape>,
    ) {
        let mut pen = Pen {
            path: PathBuilder::new(),
            origin,
            scale: px / self.em,
        };
        for (glyph, x) in &line.glyphs {
            pen.origin.0 = origin.0 + x;
            self.face.outline_glyph(*glyph, &mut pen);
        }
        let Some(letters) = pen.path.finish() else {
            return;
        };
        let thickening = Stroke {
            width: px * THICKENING,
            ..Stroke::default()
        };
        let rim = letters.stroke(&thickening, 1.0);
        shapes.extend(rim.map(|rim| Shape::opaque(rim, color)));
        shapes.push(Shape::opaque(letters, color));
    }
}

/// Carries glyph outlines from font units, which point up, to pixels, which point down.
struct Pen {
    path: PathBuilder,
    origin: (f32, f32),
    scale: f32,
}

impl Pen {
    fn x(&self, x: f32) -> f32 {
        self.origin.0 + x * self.scale
    }

    fn y(&self, y: f32) -> f32 {
        self.origin.1 - y * self.scale
    }
}

impl OutlineBuilder for Pen {
    fn move_to(&mut self, x: f32, y: f32) {
        self.path.move_to(self.x(x), self.y(y));
    }

    fn line_to(&mut self, x: f32, y: f32) {
        self.path.line_to(self.x(x), self.y(y));
    }

    fn quad_to(&mut self, x1: f32, y1: f32, x: f32, y: f32) {
        self.path
            .quad_to(self.x(x1), self.y(y1), self.x(x), self.y(y));
    }

    fn curve_to(&mut self, x1: f32, y1: f32, x2: f32, y2: f32, x: f32, y: f32) {
        self.path.cubic_to(
            self.x(x1),
            self.y(y1),
            self.x(x2),
            self.y(y2),
            self.x(x),
            self.y(y),
        );
    }

    fn close(&mut self) {
        self.path.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PX: f32 = 20.0;

    #[test]
    fn a_label_that_fits_stays_whole() {
        let font = Font::embedded().unwrap();
        let whole = font.line("grey cat", PX, 1e6).unwrap();
        assert_eq!(whole.glyphs.len(), "grey cat".len());
        let exact = font.line("grey cat", PX, whole.width).unwrap();
        assert_eq!(exact.glyphs.len(), "grey cat".len());
    }

    #[test]
    fn a_long_label_ends_with_an_ellipsis_within_its_width() {
        let font = Font::embedded().unwrap();
        let (ellipsis, _) = font.glyph(ELLIPSIS, PX);
        for label in ["a cat that sleeps on a sofa", &"w".repeat(100_000)] {
            for width in [60.0, 100.0, 200.0] {
                let line = font.line(label, PX, width).unwrap();
                assert!(line.width <= width);
                assert_eq!(line.glyphs.last().unwrap().0, ellipsis);
            }
        }
        let endless = font.line(&"w".repeat(100_000), PX, 1e9).unwrap();
        assert_eq!(endless.glyphs.last().unwrap().0, ellipsis);
    }

    #[test]
    fn white_space_and_control_characters_become_single_spaces() {
        let font = Font::embedded().unwrap();
        let line = font.line(" a\n\t b\u{0}c ", PX, 1e6).unwrap();
        assert_eq!(line.glyphs, font.line("a b c", PX, 1e6).unwrap().glyphs);
    }

    #[test]
    fn nothing_to_show_and_no_room_give_no_line() {
        let font = Font::embedded().unwrap();
        assert!(font.line("", PX, 100.0).is_none());
        assert!(font.line(" \n", PX, 100.0).is_none());
        assert!(font.line("cat", PX, 5.0).is_none());
        assert!(font.line("cat", PX, -5.0).is_none());
    }

    #[test]
    fn labels_in_scripts_that_the_font_lacks_are_left_out() {
        let font = Font::embedded().unwrap();
        for label in ["日本語", "مقهى", "新宿 A", "🙂🙂"] {
            assert!(font.line(label, PX, 1e6).is_none(), "{label}");
        }
        for label in ["café", "Ελλάδα", "Москва", "Shinjuku 新宿", "cup 🙂"] {
            assert!(font.line(label, PX, 1e6).is_some(), "{label}");
        }
    }

    #[test]
    fn the_smallest_letters_leave_ink() {
        let font = Font::embedded().unwrap();
        let line = font
            .line("Latin Ελλάδα Кириллица 日本", SMALLEST_PX, 1e6)
            .unwrap();
        let mut shapes = Vec::new();
        font.draw(
            &line,
            SMALLEST_PX,
            (0.0, 20.0),
            super::super::palette::BLACK,
            &mut shapes,
        );
        assert!(!shapes.is_empty());
    }
}
