//! The windows of a map, handed to parallel tasks.

use rayon::prelude::*;

/// A map `(height, width, channels)` cut into square windows; the last ones may reach beyond it.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    /// Lines.
    pub height: usize,
    /// Positions of a line.
    pub width: usize,
    /// Values of a position.
    pub channels: usize,
    /// Side of a window.
    pub window: usize,
}

/// One window's part of a map.
pub struct Window<'a> {
    start: *mut f32,
    /// Elements between lines.
    stride: usize,
    lines: usize,
    /// Elements of a line.
    line: usize,
    _map: std::marker::PhantomData<&'a mut [f32]>,
}

// SAFETY: it is an exclusive borrow of its own lines.
unsafe impl Send for Window<'_> {}

impl Window<'_> {
    /// Lines that lie in the map.
    pub fn lines(&self) -> usize {
        self.lines
    }

    /// One of them: `(columns in the map, channels)`.
    ///
    /// # Panics
    /// When there is no such line.
    pub fn line(&mut self, index: usize) -> &mut [f32] {
        assert!(index < self.lines);
        // SAFETY: the line lies in the map and belongs to this window alone; see `for_each_window`.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(index * self.stride), self.line) }
    }
}

/// Calls `work` with every window of `map`, in parallel.
///
/// # Panics
/// When `map` does not have the grid's size.
pub fn for_each_window(map: &mut [f32], grid: Grid, work: impl Fn(Window<'_>) + Sync) {
    let Grid {
        height,
        width,
        channels,
        window,
    } = grid;
    assert!(map.len() == height * width * channels && window > 0);
    let (rows, columns) = (height.div_ceil(window), width.div_ceil(window));
    let start = super::packed::Shared::new(map);
    (0..rows * columns)
        .into_par_iter()
        .with_max_len(1)
        .for_each(|index| {
            let (top, left) = (index / columns * window, index % columns * window);
            // SAFETY: top < height and left < width, so the first element lies in the map. Windows have no
            // element in common, and each index is handed out once while `map` is borrowed.
            let start = unsafe { start.get().add((top * width + left) * channels) };
            work(Window {
                start,
                stride: width * channels,
                lines: window.min(height - top),
                line: window.min(width - left) * channels,
                _map: std::marker::PhantomData,
            });
        });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_cover_the_map_once() {
        for (height, width, window) in [(24, 24, 12), (7, 10, 4), (3, 2, 12)] {
            let channels = 2;
            let mut map = vec![0.0; height * width * channels];
            let grid = Grid {
                height,
                width,
                channels,
                window,
            };
            for_each_window(&mut map, grid, |mut part| {
                assert!(part.lines() <= window);
                for line in 0..part.lines() {
                    let line = part.line(line);
                    assert!(line.len() <= window * channels);
                    line.iter_mut().for_each(|value| *value += 1.0);
                }
            });
            assert!(
                map.iter().all(|value| *value == 1.0),
                "{height} {width} {window}"
            );
        }
    }
}
