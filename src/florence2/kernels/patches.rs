//! Cuts a picture into the patches of a strided convolution, so that the convolution becomes one
//! linear layer (im2col).

use std::ops::Range;

use candle_core::{Result, Tensor};

/// Size, step and zero padding of a square patch.
#[derive(Clone, Copy, Debug)]
pub struct PatchShape {
    /// Side of the patch.
    pub size: usize,
    /// Distance between patches.
    pub stride: usize,
    /// Zeros added on every side of the picture.
    pub padding: usize,
}

impl PatchShape {
    /// Patches along a side, 0 if not one fits.
    pub fn count(self, side: usize) -> usize {
        match (side + 2 * self.padding).checked_sub(self.size) {
            Some(rest) => rest / self.stride + 1,
            None => 0,
        }
    }
}

/// `x (batch, height, width, channels)` → `(batch, rows, columns, size·size·channels)`, the values of
/// a patch row by row, channels innermost.
pub fn patches(x: &Tensor, shape: PatchShape) -> Result<Tensor> {
    let (batch, height, width, channels) = x.dims4()?;
    if shape.count(height) == 0 || shape.count(width) == 0 {
        candle_core::bail!(
            "no {0}×{0} patch fits into a {width}×{height} feature map",
            shape.size
        );
    }
    // One gather over the padded picture.
    let (rows, columns) = (shape.count(height), shape.count(width));
    let p = shape.padding;
    let padded = x.pad_with_zeros(1, p, p)?.pad_with_zeros(2, p, p)?;
    let padded_width = width + 2 * p;
    let mut indices = Vec::with_capacity(rows * columns * shape.size * shape.size);
    for row in 0..rows {
        for column in 0..columns {
            for y in 0..shape.size {
                for x in 0..shape.size {
                    indices.push(
                        ((row * shape.stride + y) * padded_width + column * shape.stride + x)
                            as u32,
                    );
                }
            }
        }
    }
    let indices = Tensor::new(indices, x.device())?;
    padded
        .reshape((batch, (height + 2 * p) * padded_width, channels))?
        .index_select(&indices, 1)?
        .reshape((batch, rows, columns, shape.size * shape.size * channels))
}

/// A picture `(height, width, channels)`.
#[derive(Clone, Copy, Debug)]
pub struct Picture<'a> {
    /// Its values, channels innermost.
    pub values: &'a [f32],
    /// Lines.
    pub height: usize,
    /// Positions of a line.
    pub width: usize,
    /// Values of a position.
    pub channels: usize,
}

impl PatchShape {
    /// Writes some patches of a picture, counted row by row, to `out (patches, size·size·channels)`.
    ///
    /// # Panics
    /// When the lengths do not fit.
    pub fn gather(self, picture: Picture<'_>, patches: Range<usize>, out: &mut [f32]) {
        let Picture {
            values,
            height,
            width,
            channels,
        } = picture;
        let PatchShape {
            size,
            stride,
            padding,
        } = self;
        let columns = self.count(width);
        for (patch, out) in patches.zip(out.chunks_exact_mut(size * size * channels)) {
            let (top, left) = (patch / columns * stride, patch % columns * stride);
            for (dy, out) in out.chunks_exact_mut(size * channels).enumerate() {
                let line = (top + dy)
                    .checked_sub(padding)
                    .filter(|line| *line < height);
                let Some(line) = line else {
                    out.fill(0.0);
                    continue;
                };
                // The part of this patch row that lies inside the picture is one run of memory.
                let skipped = padding.saturating_sub(left).min(size);
                let first = left + skipped - padding.min(left + skipped);
                let taken = (size - skipped).min(width.saturating_sub(first));
                let from = (line * width + first) * channels;
                out[..skipped * channels].fill(0.0);
                out[skipped * channels..(skipped + taken) * channels]
                    .copy_from_slice(&values[from..from + taken * channels]);
                out[(skipped + taken) * channels..].fill(0.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_tensors::{random, relative_error};
    use super::*;

    #[test]
    fn agrees_with_the_composed_twin_and_with_a_convolution() {
        let cases = [
            (7, 4, 3, 23, 17, 3),
            (3, 2, 1, 12, 13, 8),
            (3, 1, 1, 1, 4, 5),
            (2, 2, 0, 5, 4, 2),
        ];
        for (size, stride, padding, height, width, channels) in cases {
            let shape = PatchShape {
                size,
                stride,
                padding,
            };
            let x = random(&[1, height, width, channels], 1);
            let values: Vec<f32> = x.flatten_all().unwrap().to_vec1().unwrap();
            let picture = Picture {
                values: &values,
                height,
                width,
                channels,
            };
            let (rows, columns) = (shape.count(height), shape.count(width));
            let patch = size * size * channels;
            let mut ours = vec![7.0; rows * columns * patch];
            let half = rows * columns / 2;
            let (first, second) = ours.split_at_mut(half * patch);
            shape.gather(picture, 0..half, first);
            shape.gather(picture, half..rows * columns, second);
            let ours = Tensor::from_vec(ours, (1, rows, columns, patch), x.device()).unwrap();
            assert_eq!(relative_error(&ours, &patches(&x, shape).unwrap()), 0.0);
            let kernel = random(&[6, channels, size, size], 2);
            let planar = x.permute((0, 3, 1, 2)).unwrap().contiguous().unwrap();
            let expected = planar
                .conv2d(&kernel, padding, stride, 1, 1)
                .unwrap()
                .permute((0, 2, 3, 1))
                .unwrap();
            let weight = kernel
                .permute((0, 2, 3, 1))
                .unwrap()
                .reshape((6, ()))
                .unwrap();
            let linear = super::super::linear(&ours, &weight, None).unwrap();
            assert!(relative_error(&linear, &expected) < 1e-6);
        }
    }
}
