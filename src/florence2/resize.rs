//! Pillow's bicubic resize for 8-bit RGB, bit for bit.
//!
//! Every checkpoint was trained and evaluated on pictures resized by Pillow, and another bicubic
//! visibly changes captions and moves boxes. The filter is Keys' cubic with a = -0.5, widened when
//! shrinking (antialiased), in fixed point: weights have 22 fractional bits, the horizontal pass
//! comes first and is stored as 8 bits, then the vertical pass. That is the order of every Pillow
//! up to 12; version 13 turns it round for tall pictures, which this file does not follow.
//!
//! Output rows are made in bands on the shared thread pool. A band resizes only the source rows it
//! needs, so the 8-bit intermediate never grows with the height of the picture's whole.

use image::RgbImage;
use rayon::prelude::*;

/// Bytes of a pixel.
const CHANNELS: usize = 3;

/// Radius of the cubic at scale 1, in input pixels.
const SUPPORT: f64 = 2.0;

/// Fractional bits of a weight: Pillow's 32 bits less 8 for the pixel and 2 for the overshoot.
const PRECISION_BITS: u32 = 22;

/// Half of one output step, which turns the final shift into rounding.
const HALF: i32 = 1 << (PRECISION_BITS - 1);

/// Output rows that one job makes. Neighbouring bands both need the rows at their border: 32 keeps
/// that double work at one eighth when shrinking and still feeds 24 threads at 768 rows.
const BAND_ROWS: usize = 32;

/// Resizes to `width` × `height`, ignoring the aspect ratio; gives rows of interleaved RGB bytes.
///
/// A picture without pixels becomes black.
#[must_use]
pub fn resize_bicubic(picture: &RgbImage, width: u32, height: u32) -> Vec<u8> {
    let row_bytes = width as usize * CHANNELS;
    let mut resized = vec![0; row_bytes * height as usize];
    if resized.is_empty() || picture.as_raw().is_empty() {
        return resized;
    }
    let columns = taps(picture.width(), width);
    let rows = taps(picture.height(), height);
    resized
        .par_chunks_mut(row_bytes * BAND_ROWS)
        .zip(rows.par_chunks(BAND_ROWS))
        .for_each(|(band, rows)| resize_band(picture, &columns, rows, band));
    resized
}

/// The input pixels that one output pixel is made of: weights of `first`, `first + 1`, …
struct Taps {
    first: usize,
    weights: Vec<i32>,
}

impl Taps {
    fn end(&self) -> usize {
        self.first + self.weights.len()
    }
}

/// The taps of every output pixel along one axis. The order of operations is Pillow's, because the
/// last bit of a double can decide the rounding of a weight.
fn taps(input: u32, output: u32) -> Vec<Taps> {
    let scale = f64::from(input) / f64::from(output);
    let filter_scale = scale.max(1.0);
    let support = SUPPORT * filter_scale;
    let inverse = 1.0 / filter_scale;
    (0..output)
        .map(|i| {
            let centre = (f64::from(i) + 0.5) * scale;
            // The casts truncate toward zero and take negative values to 0.
            let first = (centre - support + 0.5) as u32;
            let end = ((centre + support + 0.5) as u32).min(input);
            let weights: Vec<f64> = (first..end)
                .map(|j| cubic((f64::from(j) - centre + 0.5) * inverse))
                .collect();
            let sum: f64 = weights.iter().sum();
            Taps {
                first: first as usize,
                weights: weights.iter().map(|w| fixed_point(w / sum)).collect(),
            }
        })
        .collect()
}

/// Keys' cubic convolution kernel.
fn cubic(distance: f64) -> f64 {
    const A: f64 = -0.5;
    let t = distance.abs();
    if t < 1.0 {
        ((A + 2.0) * t - (A + 3.0)) * t * t + 1.0
    } else if t < 2.0 {
        (((t - 5.0) * t + 8.0) * t - 4.0) * A
    } else {
        0.0
    }
}

fn fixed_point(weight: f64) -> i32 {
    let scaled = weight * f64::from(1_u32 << PRECISION_BITS);
    // The cast truncates toward zero.
    (scaled + 0.5_f64.copysign(weight)) as i32
}

fn to_byte(sum: i32) -> u8 {
    // The clamp makes the cast exact.
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

/// Makes the output rows described by `rows`.
fn resize_band(picture: &RgbImage, columns: &[Taps], rows: &[Taps], band: &mut [u8]) {
    let row_bytes = columns.len() * CHANNELS;
    let first = rows.iter().map(|row| row.first).min().unwrap_or(0);
    let end = rows.iter().map(Taps::end).max().unwrap_or(0);

    let source_row_bytes = picture.width() as usize * CHANNELS;
    let source = picture.as_raw().chunks_exact(source_row_bytes);
    let mut narrowed = vec![0; (end - first) * row_bytes];
    for (line, source) in narrowed.chunks_exact_mut(row_bytes).zip(source.skip(first)) {
        resize_row(source, columns, line);
    }

    let mut sums = vec![HALF; row_bytes];
    for (line, row) in band.chunks_exact_mut(row_bytes).zip(rows) {
        sums.fill(HALF);
        let sources = narrowed.chunks_exact(row_bytes).skip(row.first - first);
        for (weight, source) in row.weights.iter().zip(sources) {
            for (sum, byte) in sums.iter_mut().zip(source) {
                *sum += weight * i32::from(*byte);
            }
        }
        for (byte, sum) in line.iter_mut().zip(&sums) {
            *byte = to_byte(*sum);
        }
    }
}

/// The horizontal pass over one row.
fn resize_row(source: &[u8], columns: &[Taps], line: &mut [u8]) {
    for (pixel, column) in line.chunks_exact_mut(CHANNELS).zip(columns) {
        let mut sums = [HALF; CHANNELS];
        let inputs = source[column.first * CHANNELS..].chunks_exact(CHANNELS);
        for (weight, input) in column.weights.iter().zip(inputs) {
            for (sum, byte) in sums.iter_mut().zip(input) {
                *sum += weight * i32::from(*byte);
            }
        }
        for (byte, sum) in pixel.iter_mut().zip(sums) {
            *byte = to_byte(sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    #[test]
    fn a_picture_of_one_colour_keeps_it_at_every_size() {
        let colour = [255, 0, 77];
        for (width, height) in [(1, 1), (1, 9), (9, 1), (7, 1000), (96, 96)] {
            let picture = RgbImage::from_pixel(width, height, Rgb(colour));
            let resized = resize_bicubic(&picture, 96, 40);
            assert_eq!(resized, colour.repeat(96 * 40), "{width}x{height}");
        }
    }

    #[test]
    fn a_size_that_does_not_change_changes_no_pixel() {
        let picture = RgbImage::from_fn(33, 65, |x, y| Rgb([x as u8, y as u8, (x * y) as u8]));
        assert_eq!(resize_bicubic(&picture, 33, 65), picture.into_raw());
    }

    #[test]
    fn no_picture_drives_the_sums_beyond_32_bits() {
        for input in (1..200).chain([999, 4096, 16_384]) {
            for output in [1, 2, 3, 96, 768] {
                for tap in taps(input, output) {
                    let (mut up, mut down) = (i64::from(HALF), i64::from(HALF));
                    for weight in tap.weights {
                        up += 255 * i64::from(weight.max(0));
                        down += 255 * i64::from(weight.min(0));
                    }
                    assert!(i32::try_from(up).is_ok() && i32::try_from(down).is_ok());
                }
            }
        }
    }

    #[test]
    fn a_picture_without_pixels_becomes_black() {
        assert_eq!(resize_bicubic(&RgbImage::new(0, 5), 2, 2), [0; 12]);
        assert!(resize_bicubic(&RgbImage::new(5, 5), 0, 2).is_empty());
    }
}
