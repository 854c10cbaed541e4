//! From the samples of a component to one sample a pixel, one row at a time.
//!
//! Halved components are interpolated with weights 3/4 and 1/4 in each halved direction, with
//! rounding that alternates; all other ratios repeat samples. Which ratio gets what, and the exact
//! rounding, are those of libjpeg-turbo's jdsample.c.

/// The way from a component's rows to the picture's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// Rows are used as they are; each stands for this many rows of the picture.
    Rows(u32),
    /// Interpolated across.
    Across,
    /// Interpolated down.
    Down,
    /// Interpolated in both directions.
    Both,
    /// Each sample stands for this many pixels across and down.
    Repeat(u32, u32),
}

impl Method {
    /// Picks the method for a component.
    ///
    /// `across` and `down` are ratios of sampling factors, `width` the component's samples a row:
    /// rows of one or two samples are repeated and not interpolated across.
    pub(super) fn pick(across: u32, down: u32, width: u32) -> Self {
        match (across, down) {
            (1, 2) => Self::Down,
            (1, _) => Self::Rows(down),
            (2, 1) if width > 2 => Self::Across,
            (2, 2) if width > 2 => Self::Both,
            _ => Self::Repeat(across, down),
        }
    }

    /// The component's row nearest to a row of the picture, and the one on the other side where
    /// rows are interpolated. `height` is the number of the component's rows; its edges repeat.
    pub(super) fn source_rows(self, row: u32, height: u32) -> (u32, u32) {
        match self {
            Self::Across => (row, row),
            Self::Rows(down) | Self::Repeat(_, down) => (row / down, row / down),
            Self::Down | Self::Both => {
                let near = row / 2;
                let far = if row.is_multiple_of(2) {
                    near.saturating_sub(1)
                } else {
                    near + 1
                };
                (near, far.min(height.saturating_sub(1)))
            }
        }
    }

    /// True when a row of the picture needs rows above and below its own.
    pub(super) fn needs_neighbors(self) -> bool {
        matches!(self, Self::Down | Self::Both)
    }
}

/// Interpolates across: `out` holds two pixels for each of three or more samples.
///
/// Inner pixels are (3 · near + far + 1) >> 2 on the left of their sample and the same with 2 on
/// its right; the first and the last pixel are their sample (jdsample.c, h2v1_fancy_upsample).
#[inline(always)]
pub(super) fn across(samples: &[u8], out: &mut [u8]) {
    let ([first, second, ..], [.., before, last]) = (samples, samples) else {
        return;
    };
    let wide = |value: &u8| u16::from(*value);
    let Some([left, right, inner @ ..]) = out.get_mut(..samples.len() * 2) else {
        return;
    };
    *left = *first;
    *right = ((3 * wide(first) + wide(second) + 2) >> 2) as u8;
    let middle = samples.get(1..).unwrap_or_default();
    let after = samples.get(2..).unwrap_or_default();
    let (pixels, _) = inner.as_chunks_mut::<2>();
    for ((([left, right], above), near), next) in
        pixels.iter_mut().zip(samples).zip(middle).zip(after)
    {
        let three = 3 * wide(near);
        *left = ((three + wide(above) + 1) >> 2) as u8;
        *right = ((three + wide(next) + 2) >> 2) as u8;
    }
    if let Some([left, right]) = pixels.last_mut() {
        *left = ((3 * wide(last) + wide(before) + 1) >> 2) as u8;
        *right = *last;
    }
}

/// Interpolates down: (3 · near + far + bias) >> 2, the bias being 1 on rows above their samples
/// and 2 on rows below (jdsample.c, h1v2_fancy_upsample).
#[inline(always)]
pub(super) fn down(near: &[u8], far: &[u8], is_upper: bool, out: &mut [u8]) {
    let bias = if is_upper { 1 } else { 2 };
    for ((pixel, near), far) in out.iter_mut().zip(near).zip(far) {
        *pixel = ((3 * u16::from(*near) + u16::from(*far) + bias) >> 2) as u8;
    }
}

/// Interpolates both ways, from rows of three or more samples.
///
/// With sums s = 3 · near + far down each column, pixels are (3 · s + neighbor + 8) >> 4 on the
/// left and the same with 7 on the right; at the ends (4 · s + 8) >> 4 and (4 · s + 7) >> 4
/// (jdsample.c, h2v2_fancy_upsample). `sums` is scratch room for the sums.
#[inline(always)]
pub(super) fn both(near: &[u8], far: &[u8], sums: &mut [u16], out: &mut [u8]) {
    for ((sum, near), far) in sums.iter_mut().zip(near).zip(far) {
        *sum = 3 * u16::from(*near) + u16::from(*far);
    }
    let sums = sums.get(..near.len()).unwrap_or_default();
    let ([first, second, ..], [.., before, last]) = (sums, sums) else {
        return;
    };
    let Some([left, right, inner @ ..]) = out.get_mut(..sums.len() * 2) else {
        return;
    };
    *left = ((4 * first + 8) >> 4) as u8;
    *right = ((3 * first + second + 7) >> 4) as u8;
    let middle = sums.get(1..).unwrap_or_default();
    let after = sums.get(2..).unwrap_or_default();
    let (pixels, _) = inner.as_chunks_mut::<2>();
    for ((([left, right], above), near), next) in pixels.iter_mut().zip(sums).zip(middle).zip(after)
    {
        let three = 3 * near;
        *left = ((three + above + 8) >> 4) as u8;
        *right = ((three + next + 7) >> 4) as u8;
    }
    if let Some([left, right]) = pixels.last_mut() {
        *left = ((3 * last + before + 8) >> 4) as u8;
        *right = ((4 * last + 7) >> 4) as u8;
    }
}

/// Repeats each sample `times` across.
#[inline(always)]
pub(super) fn repeat(samples: &[u8], times: u32, out: &mut [u8]) {
    for (pixels, sample) in out.chunks_mut(times.max(1) as usize).zip(samples) {
        pixels.fill(*sample);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_those_of_libjpeg_turbo() {
        assert_eq!(Method::pick(1, 1, 9), Method::Rows(1));
        assert_eq!(Method::pick(1, 2, 1), Method::Down);
        assert_eq!(Method::pick(1, 4, 9), Method::Rows(4));
        assert_eq!(Method::pick(2, 1, 3), Method::Across);
        assert_eq!(Method::pick(2, 1, 2), Method::Repeat(2, 1));
        assert_eq!(Method::pick(2, 2, 3), Method::Both);
        assert_eq!(Method::pick(2, 2, 2), Method::Repeat(2, 2));
        assert_eq!(Method::pick(4, 1, 9), Method::Repeat(4, 1));
        assert_eq!(Method::pick(2, 4, 9), Method::Repeat(2, 4));
    }

    #[test]
    fn interpolation_rounds_alternately_and_keeps_the_ends() {
        let mut out = [0; 6];
        across(&[0, 1, 10], &mut out);
        assert_eq!(out, [0, 0, 1, 3, 8, 10]);
        down(&[0, 1, 10], &[1, 2, 12], true, &mut out[..3]);
        assert_eq!(out[..3], [0, 1, 10]);
        down(&[0, 1, 10], &[1, 2, 12], false, &mut out[..3]);
        assert_eq!(out[..3], [0, 1, 11]);
        both(&[0, 1, 10], &[1, 2, 12], &mut [0; 3], &mut out);
        // Sums 1, 5, 42: (4 + 8) >> 4, (3 + 5 + 7) >> 4, (15 + 1 + 8) >> 4 and so on.
        assert_eq!(out, [0, 0, 1, 4, 8, 10]);
    }

    #[test]
    fn neighbors_stop_at_the_edges() {
        assert_eq!(Method::Both.source_rows(0, 3), (0, 0));
        assert_eq!(Method::Both.source_rows(1, 3), (0, 1));
        assert_eq!(Method::Down.source_rows(4, 3), (2, 1));
        assert_eq!(Method::Down.source_rows(5, 3), (2, 2));
        assert_eq!(Method::Rows(3).source_rows(5, 2), (1, 1));
    }
}
