//! Matrix products on slices: a safe face for the `gemm` crate, which candle uses too.

use gemm::Parallelism;

/// A read-only matrix in a slice.
#[derive(Clone, Copy)]
pub(super) struct MatRef<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> MatRef<'a> {
    /// `rows × cols` values, each row `row_stride` after the one before.
    pub(super) fn new(data: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        Self {
            data,
            rows,
            cols,
            row_stride,
            col_stride: 1,
        }
    }

    /// The same values with rows and columns exchanged.
    pub(super) fn transposed(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }

    fn fits(&self) -> bool {
        span(self.rows, self.cols, self.row_stride, self.col_stride) <= self.data.len()
    }
}

/// A matrix in a slice, to be written.
pub(super) struct MatMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
}

impl<'a> MatMut<'a> {
    /// `rows × cols` values, each row `row_stride` after the one before.
    pub(super) fn new(data: &'a mut [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        Self {
            data,
            rows,
            cols,
            row_stride,
        }
    }
}

fn span(rows: usize, cols: usize, row_stride: usize, col_stride: usize) -> usize {
    if rows == 0 || cols == 0 {
        0
    } else {
        (rows - 1) * row_stride + (cols - 1) * col_stride + 1
    }
}

/// What becomes of the values that stand in the destination.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Destination {
    /// They are overwritten.
    Overwrite,
    /// The product is added to them.
    Add,
}

/// `dst = [dst +] scale · lhs · rhs`, on `threads` threads of the rayon pool.
///
/// # Panics
/// When the shapes do not fit each other or their slices: that would be a mistake in this crate.
pub(super) fn matmul(
    dst: MatMut<'_>,
    destination: Destination,
    lhs: MatRef<'_>,
    rhs: MatRef<'_>,
    scale: f32,
    threads: usize,
) {
    assert!(
        dst.rows == lhs.rows && dst.cols == rhs.cols && lhs.cols == rhs.rows,
        "matrix shapes do not fit"
    );
    assert!(lhs.fits() && rhs.fits(), "a matrix does not fit its slice");
    assert!(
        dst.row_stride >= dst.cols && span(dst.rows, dst.cols, dst.row_stride, 1) <= dst.data.len()
    );
    let parallelism = if threads > 1 {
        Parallelism::Rayon(threads)
    } else {
        Parallelism::None
    };
    // SAFETY: every index that gemm forms lies in its slice (asserted above), the destination's
    // elements are distinct (row_stride >= cols), and it is borrowed exclusively.
    unsafe {
        gemm::gemm(
            dst.rows,
            dst.cols,
            lhs.cols,
            dst.data.as_mut_ptr(),
            1,
            dst.row_stride as isize,
            destination == Destination::Add,
            lhs.data.as_ptr(),
            lhs.col_stride as isize,
            lhs.row_stride as isize,
            rhs.data.as_ptr(),
            rhs.col_stride as isize,
            rhs.row_stride as isize,
            1.0,
            scale,
            false,
            false,
            false,
            parallelism,
        );
    }
}
