//! From blocks to rows of RGB, a row of MCUs at a time.
//!
//! Of each component only two rows of MCUs are kept: interpolation needs the last row of samples
//! above and the first one below, so the picture's rows follow the MCUs with a short delay. At
//! the edges of the picture the outermost samples stand for those beyond, and samples of blocks
//! beyond it are never looked at.

use super::color::{ColorSpace, convert_row};
use super::error::JpegError;
use super::frame::{Component, Frame};
use super::idct::{Block, Extent, inverse};
use super::instructions::with_best_instructions;
use super::upsample::{self, Method};

/// Samples of one component: two rows of MCUs, used in turn.
pub(super) struct Strip {
    samples: Vec<u8>,
    /// Samples from one row to the next.
    stride: usize,
    /// Rows of one row of MCUs.
    mcu_height: u32,
    method: Method,
    /// Samples of a row that belong to the picture.
    width: usize,
    /// Rows that belong to the picture.
    height: u32,
}

impl Strip {
    fn new(component: &Component, frame: &Frame) -> Self {
        let (across, down) = (frame.max_h / component.h, frame.max_v / component.v);
        let stride = component.padded_wide as usize * 8;
        let mcu_height = component.v * 8;
        Self {
            samples: vec![0; stride * mcu_height as usize * 2],
            stride,
            mcu_height,
            method: Method::pick(across, down, component.width),
            width: component.width as usize,
            height: component.height,
        }
    }

    /// Where the first sample of a row of MCUs stands.
    pub(super) fn mcu_offset(&self, mcu_row: u32) -> usize {
        (mcu_row & 1) as usize * self.mcu_height as usize * self.stride
    }

    /// Samples from one row of blocks to the next.
    pub(super) fn block_row(&self) -> usize {
        self.stride * 8
    }

    /// Puts the samples of a block; `offset` is where its first one goes.
    #[inline(always)]
    pub(super) fn put(&mut self, offset: usize, block: &Block, table: &Block, extent: Extent) {
        let rows = inverse(block, table, extent);
        let Some(area) = self.samples.get_mut(offset..) else {
            return;
        };
        for (to, from) in area.chunks_mut(self.stride).zip(rows) {
            if let Some(to) = to.first_chunk_mut::<8>() {
                *to = from;
            }
        }
    }

    /// A row of samples, as long as the component is wide.
    fn row(&self, row: u32) -> &[u8] {
        let start = (row % (self.mcu_height * 2)) as usize * self.stride;
        self.samples
            .get(start..start + self.width)
            .unwrap_or_default()
    }

    /// One sample for each pixel of a row of the picture. `line` and `sums` are scratch room.
    #[inline(always)]
    fn line<'a>(&'a self, row: u32, line: &'a mut [u8], sums: &mut [u16]) -> &'a [u8] {
        let (near, far) = self.method.source_rows(row, self.height);
        let (near, far) = (self.row(near), self.row(far));
        match self.method {
            Method::Rows(_) => return near,
            Method::Across => upsample::across(near, line),
            Method::Down => upsample::down(near, far, row.is_multiple_of(2), line),
            Method::Both => upsample::both(near, far, sums, line),
            Method::Repeat(times, _) => upsample::repeat(near, times, line),
        }
        line
    }
}

/// The picture while it is being put together.
pub(super) struct Output {
    /// One strip for each component.
    pub(super) strips: Vec<Strip>,
    space: ColorSpace,
    width: usize,
    height: u32,
    /// Rows of the picture in one row of MCUs.
    mcu_height: u32,
    /// Rows by which the picture stays behind its MCUs.
    delay: u32,
    /// Rows that are done.
    done: u32,
    lines: [Vec<u8>; 4],
    sums: Vec<u16>,
    rgb: Vec<u8>,
}

impl Output {
    /// Allocates the picture and the strips. The caller has checked the size.
    pub(super) fn new(frame: &Frame, space: ColorSpace) -> Self {
        let strips: Vec<Strip> = frame
            .components
            .iter()
            .map(|part| Strip::new(part, frame))
            .collect();
        let needs_neighbors = strips.iter().any(|strip| strip.method.needs_neighbors());
        // Interpolated lines run to whole samples, past the width.
        let line = frame.width as usize + 8;
        Self {
            space,
            width: frame.width as usize,
            height: frame.height,
            mcu_height: frame.max_v * 8,
            delay: if needs_neighbors { frame.max_v } else { 0 },
            done: 0,
            lines: std::array::from_fn(|_| vec![0; line]),
            sums: vec![0; line],
            rgb: vec![0; frame.width as usize * frame.height as usize * 3],
            strips,
        }
    }

    /// Called when all blocks of a row of MCUs are put: puts out the rows that they complete.
    pub(super) fn finish_mcu_row(&mut self, mcu_row: u32) {
        with_best_instructions(
            #[inline(always)]
            || self.put_out(mcu_row),
        );
    }

    #[inline(always)]
    fn put_out(&mut self, mcu_row: u32) {
        let ready = (mcu_row + 1) * self.mcu_height;
        let ready = if ready >= self.height {
            self.height
        } else {
            ready - self.delay
        };
        let stride = self.width * 3;
        let start = self.done as usize * stride;
        let rows = self
            .rgb
            .get_mut(start..)
            .unwrap_or_default()
            .chunks_exact_mut(stride);
        for (row, out) in (self.done..ready).zip(rows) {
            let mut lines: [&[u8]; 4] = [&[]; 4];
            for ((line, strip), room) in lines.iter_mut().zip(&self.strips).zip(&mut self.lines) {
                *line = strip.line(row, room, &mut self.sums);
            }
            convert_row(self.space, lines, out);
        }
        self.done = ready;
    }

    /// The finished picture, three bytes a pixel.
    ///
    /// # Errors
    /// [`JpegError::Truncated`] when rows are missing.
    pub(super) fn into_rgb(self) -> Result<Vec<u8>, JpegError> {
        if self.done < self.height {
            return Err(JpegError::Truncated);
        }
        Ok(self.rgb)
    }
}
