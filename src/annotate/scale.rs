//! How large everything is: sizes in pixels that follow from the picture's.
//!
//! All numbers were chosen by eye over pictures from 64 to 4000 pixels wide. The geometric mean of
//! the sides stands for the size at which a picture is looked at.

use super::places::{Kind, Place};
use super::text::SMALLEST_PX;

/// Longest label in ems, unless its box is wider: about ten words. A longer one would hide whatever
/// stands in its row.
const LONGEST_LABEL: f32 = 28.0;

/// Sizes in pixels.
#[derive(Clone, Copy)]
pub(super) struct Scale {
    /// Width of an outline.
    pub(super) stroke: u16,
    /// Width of the contrasting rim on either side of it.
    pub(super) rim: u16,
    /// Em size of the labels.
    pub(super) text: f32,
}

impl Scale {
    /// For a picture of this size.
    pub(super) fn of(width: u32, height: u32) -> Self {
        let mean = (f64::from(width) * f64::from(height)).sqrt() as f32;
        let short = width.min(height) as f32;
        let stroke = (1.0 + mean / 300.0).round() as u16;
        Self {
            stroke,
            rim: (stroke / 3).max(1),
            text: (mean / 46.0).min(short / 9.0).max(SMALLEST_PX),
        }
    }

    /// Em size of a place's label. Lines of text stand close together: their tags are not much higher
    /// than the lines.
    pub(super) fn text_for(self, place: &Place<'_>) -> f32 {
        match place.kind {
            Kind::Quad => (place.line_height() * 0.6).clamp(SMALLEST_PX, self.text),
            Kind::Box | Kind::Region => self.text,
        }
    }
}

/// Widest label of a place, with letters of `px` pixels an em.
pub(super) fn widest_label(place: &Place<'_>, px: f32) -> f32 {
    let width = place.bounds.right - place.bounds.left;
    width.max(LONGEST_LABEL * px)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_grow_with_the_picture_and_stay_readable_below() {
        let sizes = [(64, 43), (256, 171), (600, 400), (1536, 764), (4000, 2669)];
        let scales = sizes.map(|(width, height)| Scale::of(width, height));
        assert!(scales.is_sorted_by_key(|scale| scale.stroke));
        assert!(scales.is_sorted_by(|a, b| a.text <= b.text));
        assert_eq!(scales.map(|scale| scale.stroke), [1, 2, 3, 5, 12]);
        assert!(
            scales
                .iter()
                .all(|scale| scale.text >= SMALLEST_PX && scale.rim >= 1)
        );
    }

    #[test]
    fn a_narrow_picture_gets_letters_that_fit_its_short_side() {
        assert!(Scale::of(2000, 90).text <= 10.0);
        assert!(Scale::of(90, 2000).text <= 10.0);
    }
}
