//! Cuts a picture into the patches of a strided convolution, so that the convolution becomes one
//! linear layer (im2col).

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{elements, is_cpu_f32};

/// Size, step and zero padding of a square patch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PatchShape {
    /// Side of the patch.
    pub(crate) size: usize,
    /// Distance between patches.
    pub(crate) stride: usize,
    /// Zeros added on every side of the picture.
    pub(crate) padding: usize,
}

impl PatchShape {
    /// Patches along a side, 0 if not one fits.
    fn count(self, side: usize) -> usize {
        match (side + 2 * self.padding).checked_sub(self.size) {
            Some(rest) => rest / self.stride + 1,
            None => 0,
        }
    }
}

/// `x (batch, height, width, channels)` → `(batch, rows, columns, size·size·channels)`, the values of
/// a patch row by row, channels innermost.
pub(crate) fn patches(x: &Tensor, shape: PatchShape) -> Result<Tensor> {
    let (_, height, width, _) = x.dims4()?;
    if shape.count(height) == 0 || shape.count(width) == 0 {
        candle_core::bail!(
            "no {0}×{0} patch fits into a {width}×{height} feature map",
            shape.size
        );
    }
    if is_cpu_f32(x) {
        x.contiguous()?.apply_op1_no_bwd(&PatchesOp(shape))
    } else {
        composed(x, shape)
    }
}

/// One gather over the padded picture.
fn composed(x: &Tensor, shape: PatchShape) -> Result<Tensor> {
    let (batch, height, width, channels) = x.dims4()?;
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

struct PatchesOp(PatchShape);

impl CustomOp1 for PatchesOp {
    fn name(&self) -> &'static str {
        "patches"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let PatchShape {
            size,
            stride,
            padding,
        } = self.0;
        let (batch, height, width, channels) = layout.shape().dims4()?;
        let (rows, columns) = (self.0.count(height), self.0.count(width));
        let x = elements(x, layout)?;
        let patch = size * size * channels;
        let mut y = vec![0.0; batch * rows * columns * patch];
        y.par_chunks_mut((columns * patch).max(1))
            .enumerate()
            .for_each(|(index, out)| {
                let picture =
                    &x[index / rows * height * width * channels..][..height * width * channels];
                let top = index % rows * stride;
                for (column, out) in out.chunks_exact_mut(patch).enumerate() {
                    let left = column * stride;
                    for (dy, out) in out.chunks_exact_mut(size * channels).enumerate() {
                        let Some(line) = (top + dy)
                            .checked_sub(padding)
                            .filter(|line| *line < height)
                        else {
                            continue;
                        };
                        // The part of this patch row that lies inside the picture is one run of memory.
                        let skipped = padding.saturating_sub(left).min(size);
                        let first = left + skipped - padding.min(left + skipped);
                        let taken = (size - skipped).min(width.saturating_sub(first));
                        let from = (line * width + first) * channels;
                        out[skipped * channels..(skipped + taken) * channels]
                            .copy_from_slice(&picture[from..from + taken * channels]);
                    }
                }
            });
        Ok((CpuStorage::F32(y), (batch, rows, columns, patch).into()))
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
            let x = random(&[2, height, width, channels], 1);
            let ours = patches(&x, shape).unwrap();
            assert_eq!(relative_error(&ours, &composed(&x, shape).unwrap()), 0.0);
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
