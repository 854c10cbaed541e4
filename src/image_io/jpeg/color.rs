//! From the components of a row to RGB, with the roundings of libjpeg-turbo and of Pillow.
//!
//! YCbCr follows JFIF with constants of 16 fractional bits (jdcolor.c). Pictures of four components
//! are read as Pillow reads them: always as stored by Adobe's programs, which is inverted, and then
//! by its `convert("RGB")` (JpegImagePlugin.py, Convert.c).

use super::marker::Tables;

/// What the components of a picture mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ColorSpace {
    /// One component.
    Gray,
    /// Three components, luminance and two color differences.
    YCbCr,
    /// Three components as they are.
    Rgb,
    /// Four components as they are.
    Cmyk,
    /// Four components, of which three are stored as luminance and differences.
    Ycck,
}

impl ColorSpace {
    /// Guesses as libjpeg does (jdapimin.c, default_decompress_parms).
    pub(super) fn guess(ids: &[u8], tables: &Tables) -> Self {
        match (ids, tables.adobe_transform) {
            ([_], _) => Self::Gray,
            ([_, _, _, _], None | Some(0)) => Self::Cmyk,
            ([_, _, _, _], Some(_)) => Self::Ycck,
            (_, _) if tables.is_jfif => Self::YCbCr,
            (_, Some(0)) => Self::Rgb,
            (_, Some(_)) => Self::YCbCr,
            ([b'R', b'G', b'B'], None) => Self::Rgb,
            _ => Self::YCbCr,
        }
    }
}

/// Pixels that are converted together.
const STEP: usize = 32;

/// Converts a row. `lines` has as many entries as the picture has components, each at least as long
/// as the row has pixels; `out` has three bytes a pixel.
#[inline(always)]
pub(super) fn convert_row(space: ColorSpace, lines: [&[u8]; 4], out: &mut [u8]) {
    let [a, b, c, d] = lines;
    match space {
        ColorSpace::Gray => each_pixel(out, [a, a, a], |pixel, values| *pixel = values),
        ColorSpace::Rgb => each_pixel(out, [a, b, c], |pixel, values| *pixel = values),
        ColorSpace::YCbCr => ycc_to_rgb([a, b, c], out),
        ColorSpace::Cmyk => {
            let ink = |pixel: &mut [u8; 3], [c, m, y, k]: [u8; 4]| {
                *pixel = [c, m, y].map(|value| ink_to_light(255 - value, k));
            };
            each_pixel(out, [a, b, c, d], ink);
        }
        ColorSpace::Ycck => {
            ycc_to_rgb([a, b, c], out);
            // The conversion to CMYK gives 255 - R, 255 - G, 255 - B (jdcolor.c), which Pillow
            // turns over again.
            let (pixels, _) = out.as_chunks_mut::<3>();
            for (pixel, black) in pixels.iter_mut().zip(d) {
                *pixel = pixel.map(|value| ink_to_light(value, *black));
            }
        }
    }
}

/// One channel of Pillow's `cmyk2rgb`: `kept` is 255 less the amount of black, and `ink` takes its
/// share of it, rounded as MULDIV255 rounds (Convert.c, ImagingUtils.h).
#[inline(always)]
fn ink_to_light(ink: u8, kept: u8) -> u8 {
    let product = u32::from(ink) * u32::from(kept) + 128;
    let share = (((product >> 8) + product) >> 8) as u8;
    kept.saturating_sub(share)
}

#[inline(always)]
fn each_pixel<const N: usize>(
    out: &mut [u8],
    lines: [&[u8]; N],
    convert: impl Fn(&mut [u8; 3], [u8; N]),
) {
    let (pixels, _) = out.as_chunks_mut::<3>();
    let count = pixels.len();
    // Lines of one known length, so that the loop needs no check.
    let lines = lines.map(|line| line.get(..count).unwrap_or_default());
    if lines.iter().any(|line| line.len() < count) {
        return;
    }
    for (index, pixel) in pixels.iter_mut().enumerate() {
        convert(pixel, lines.map(|line| line[index]));
    }
}

/// Converts luminance and differences, a group of pixels at a time.
#[inline(always)]
fn ycc_to_rgb([y, cb, cr]: [&[u8]; 3], out: &mut [u8]) {
    let (groups, rest) = out.as_chunks_mut::<{ STEP * 3 }>();
    let (ys, y_rest) = y.as_chunks::<STEP>();
    let (cbs, cb_rest) = cb.as_chunks::<STEP>();
    let (crs, cr_rest) = cr.as_chunks::<STEP>();
    let mut done = 0;
    for (((group, y), cb), cr) in groups.iter_mut().zip(ys).zip(cbs).zip(crs) {
        ycc_group(y, cb, cr, group);
        done += 1;
    }
    if rest.is_empty() {
        return;
    }
    // Lines may be longer than the row, so that the last pixels are in a whole group or not.
    let tail = |groups: &[[u8; STEP]], rest: &[u8]| {
        let mut padded = [0; STEP];
        let last = groups.get(done).map_or(rest, |group| group);
        for (to, from) in padded.iter_mut().zip(last) {
            *to = *from;
        }
        padded
    };
    let mut group = [0; STEP * 3];
    ycc_group(
        &tail(ys, y_rest),
        &tail(cbs, cb_rest),
        &tail(crs, cr_rest),
        &mut group,
    );
    for (to, from) in rest.iter_mut().zip(group) {
        *to = from;
    }
}

/// Converts a group of pixels.
///
/// With x the difference less 128 and constants times 2^16 (jdcolor.c): R = Y + (91881 x + 2^15) >>
/// 16, B = Y + (116130 x + 2^15) >> 16, G = Y + (-22554 xb - 46802 xr + 2^15) >> 16. In 16 bits:
/// 91881 = 2^16 + 26345 and 116130 = 2 · 2^16 - 14942, and (n x + 2^15) >> 16 is the high half of
/// 2 x · n, plus one, halved. For G, -46802 = 18734 - 2^16.
#[inline(always)]
fn ycc_group(y: &[u8; STEP], cb: &[u8; STEP], cr: &[u8; STEP], out: &mut [u8; STEP * 3]) {
    let mut pixels = [0_u32; STEP];
    for index in 0..STEP {
        let y = i16::from(y[index]);
        let blue = i16::from(cb[index]) - 128;
        let red = i16::from(cr[index]) - 128;
        let high = |value: i16, factor: i16| ((i32::from(value) * i32::from(factor)) >> 16) as i16;
        let r = y + red + ((high(red * 2, 26_345) + 1) >> 1);
        let b = y + blue * 2 + ((high(blue * 2, -14_942) + 1) >> 1);
        let mixed = i32::from(blue) * -22_554 + i32::from(red) * 18_734;
        let g = y - red + ((mixed + 32_768) >> 16) as i16;
        let byte = |value: i16| u32::from(value.clamp(0, 255) as u8);
        pixels[index] = byte(r) | byte(g) << 8 | byte(b) << 16;
    }
    pack(&pixels, out);
}

/// Leaves out the fourth byte of each pixel: eight pixels become three numbers of eight bytes.
#[inline(always)]
fn pack(pixels: &[u32; STEP], out: &mut [u8; STEP * 3]) {
    let (groups, _) = pixels.as_chunks::<8>();
    let (places, _) = out.as_chunks_mut::<24>();
    for (group, place) in groups.iter().zip(places) {
        let [a, b, c, d, e, f, g, h] = group.map(u64::from);
        let words = [
            a | b << 24 | c << 48,
            c >> 16 | d << 8 | e << 32 | f << 56,
            f >> 8 | g << 16 | h << 40,
        ];
        let (bytes, _) = place.as_chunks_mut::<8>();
        for (to, word) in bytes.iter_mut().zip(words) {
            *to = word.to_le_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_color_follows_the_formula_of_jdcolor() {
        let clamp = |value: i32| value.clamp(0, 255) as u8;
        for cb in 0..=255_u8 {
            for cr in 0..=255_u8 {
                let (xb, xr) = (i32::from(cb) - 128, i32::from(cr) - 128);
                let mut y = [0; STEP];
                for (index, y) in y.iter_mut().enumerate() {
                    *y = [0, 1, 77, 128, 129, 200, 254, 255][index % 8];
                }
                let mut out = [0; STEP * 3];
                ycc_group(&y, &[cb; STEP], &[cr; STEP], &mut out);
                for (y, pixel) in y.into_iter().zip(out.chunks(3)) {
                    let y = i32::from(y);
                    let r = clamp(y + ((91_881 * xr + 32_768) >> 16));
                    let g = clamp(y + ((-22_554 * xb - 46_802 * xr + 32_768) >> 16));
                    let b = clamp(y + ((116_130 * xb + 32_768) >> 16));
                    assert_eq!(pixel, [r, g, b]);
                }
            }
        }
    }

    #[test]
    fn rows_of_any_length_are_converted_to_their_end() {
        for width in 0..40 {
            let line: Vec<u8> = (0..width as u8).map(|value| value * 6).collect();
            let mut out = vec![7; width * 3];
            convert_row(
                ColorSpace::YCbCr,
                [&line, &vec![128; width], &vec![128; width], &[]],
                &mut out,
            );
            let expected: Vec<u8> = line.iter().flat_map(|value| [*value; 3]).collect();
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn spaces_are_guessed_by_segments_before_numbers() {
        let tables = |is_jfif, adobe_transform| Tables {
            is_jfif,
            adobe_transform,
            ..Tables::default()
        };
        let cases = [
            (&[9][..], tables(true, Some(0)), ColorSpace::Gray),
            (&[1, 2, 3], tables(false, None), ColorSpace::YCbCr),
            (b"RGB", tables(false, None), ColorSpace::Rgb),
            (b"RGB", tables(true, None), ColorSpace::YCbCr),
            (b"RGB", tables(false, Some(1)), ColorSpace::YCbCr),
            (&[1, 2, 3], tables(false, Some(0)), ColorSpace::Rgb),
            (&[1, 2, 3], tables(true, Some(0)), ColorSpace::YCbCr),
            (&[7, 8, 9], tables(false, None), ColorSpace::YCbCr),
            (&[1, 2, 3, 4], tables(true, None), ColorSpace::Cmyk),
            (&[1, 2, 3, 4], tables(false, Some(0)), ColorSpace::Cmyk),
            (&[1, 2, 3, 4], tables(true, Some(2)), ColorSpace::Ycck),
        ];
        for (ids, tables, expected) in cases {
            assert_eq!(ColorSpace::guess(ids, &tables), expected, "{ids:?}");
        }
    }
}
