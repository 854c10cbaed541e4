//! Location tokens: the 1000-step grid on which Florence-2 writes and reads positions.
//!
//! `<loc_n>` names bin `n` of an axis; the picture's width is cut into 1000 bins for x and its
//! height into 1000 for y. [`Quantizer`] goes both ways between bins and pixels. All arithmetic is
//! f32 in the order of the original implementation, whose coordinates are the contract: the bin
//! size is formed in f64, rounded once to f32, and multiplied with the bin's centre in f32.
//!
//! Nothing here clamps what the model wrote: bin 1000 lies one bin beyond the edge, as it does in
//! both reference implementations.

use std::fmt;

/// Bins on each axis.
pub const BINS: u16 = 1000;

/// Opens the text form of a location token.
pub(crate) const TOKEN_START: &str = "<loc_";

/// Closes the text form of a location token.
pub(crate) const TOKEN_END: char = '>';

/// A bin in its text form, `<loc_n>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocationToken(
    /// The bin.
    pub u16,
);

impl fmt::Display for LocationToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{TOKEN_START}{}{TOKEN_END}", self.0)
    }
}

/// A direction in the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axis {
    /// To the right, measured by the width.
    X,
    /// Downwards, measured by the height.
    Y,
}

/// Converts between bins and the pixels of one picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantizer {
    bin_width: f32,
    bin_height: f32,
}

impl Quantizer {
    /// The grid over a picture of `width` × `height` pixels.
    #[must_use]
    pub fn new(width: u32, height: u32) -> Self {
        Self {
            bin_width: bin_size(width),
            bin_height: bin_size(height),
        }
    }

    /// The bin in which a pixel position lies; positions outside the picture give the edge bin.
    ///
    /// Not-a-number, and anything on a picture without pixels, gives bin 0.
    #[must_use]
    pub fn quantize(&self, position: f32, axis: Axis) -> u16 {
        let last = f32::from(BINS - 1);
        // The cast of a float saturates and takes not-a-number to 0.
        (position / self.size(axis)).floor().clamp(0.0, last) as u16
    }

    /// The bins of a box given by its corners in pixels: `x1, y1, x2, y2`.
    #[must_use]
    pub fn quantize_box(&self, [x1, y1, x2, y2]: [f32; 4]) -> [u16; 4] {
        [
            self.quantize(x1, Axis::X),
            self.quantize(y1, Axis::Y),
            self.quantize(x2, Axis::X),
            self.quantize(y2, Axis::Y),
        ]
    }

    /// The pixel position of a bin's centre.
    ///
    /// Takes any bin, because a model may write any: the result is finite for all of them.
    #[must_use]
    pub fn dequantize(&self, bin: u64, axis: Axis) -> f32 {
        (bin as f32 + 0.5) * self.size(axis)
    }

    /// The pixel positions of `x, y, x, y, …`; an odd last bin counts as x.
    pub(crate) fn dequantize_all(&self, bins: &[u64]) -> Vec<f32> {
        let axes = [Axis::X, Axis::Y].into_iter().cycle();
        bins.iter()
            .zip(axes)
            .map(|(&bin, axis)| self.dequantize(bin, axis))
            .collect()
    }

    fn size(&self, axis: Axis) -> f32 {
        match axis {
            Axis::X => self.bin_width,
            Axis::Y => self.bin_height,
        }
    }
}

fn bin_size(side: u32) -> f32 {
    (f64::from(side) / f64::from(BINS)) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn centres_are_the_f32_values_of_the_original() {
        let grid = Quantizer::new(640, 480);
        assert_eq!(grid.dequantize(52, Axis::X), 33.6);
        assert_eq!(grid.dequantize(332, Axis::Y), 159.599_99);
        assert_eq!(grid.dequantize(99_999, Axis::Y), 47_999.758);
    }

    #[test]
    fn every_bin_survives_the_way_to_pixels_and_back() {
        for (width, height) in [(1, 1), (7, 13), (640, 480), (1300, 876), (16_384, 16_384)] {
            let grid = Quantizer::new(width, height);
            for bin in 0..BINS {
                for axis in [Axis::X, Axis::Y] {
                    let centre = grid.dequantize(u64::from(bin), axis);
                    assert_eq!(grid.quantize(centre, axis), bin);
                }
            }
        }
    }

    #[test]
    fn positions_outside_the_picture_give_the_edge_bins() {
        let grid = Quantizer::new(640, 480);
        assert_eq!(
            grid.quantize_box([-5.0, f32::NEG_INFINITY, 640.0, f32::INFINITY]),
            [0, 0, 999, 999]
        );
        assert_eq!(grid.quantize(f32::NAN, Axis::X), 0);
        assert_eq!(Quantizer::new(0, 0).quantize(0.0, Axis::Y), 0);
    }

    #[test]
    fn the_largest_bin_on_the_largest_picture_is_finite() {
        let grid = Quantizer::new(u32::MAX, u32::MAX);
        assert!(grid.dequantize(u64::MAX, Axis::X).is_finite());
    }

    #[test]
    fn a_token_is_written_as_the_vocabulary_writes_it() {
        assert_eq!(LocationToken(7).to_string(), "<loc_7>");
    }
}
