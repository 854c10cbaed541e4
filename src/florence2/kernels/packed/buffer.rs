//! Memory for weights and activations: aligned to cache lines, in huge pages where the system has
//! them. With pages of 4 KiB, a large share of a big product's time went to page faults and to the
//! search for the pages' addresses.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Alignment of every buffer: a cache line, and the widest vector.
const LINE: usize = 64;
/// Size of a huge page on the machines that have them; from this size on buffers ask for them.
const HUGE_PAGE: usize = 2 << 20;

/// Plain numbers, for which all bytes zero is the value zero.
///
/// # Safety
/// Any bit pattern must be a value of the type, and it must have no destructor.
pub unsafe trait Number: Copy + Send + Sync + 'static {}

// SAFETY: plain integers and floats.
unsafe impl Number for f32 {}
// SAFETY: as above.
unsafe impl Number for i32 {}
// SAFETY: as above.
unsafe impl Number for u16 {}
// SAFETY: as above.
unsafe impl Number for u8 {}

/// A slice of fixed length that starts as zeros.
pub struct Buffer<T: Number> {
    start: NonNull<T>,
    len: usize,
    _owns: PhantomData<T>,
}

// SAFETY: it owns plain numbers.
unsafe impl<T: Number> Send for Buffer<T> {}
// SAFETY: it gives out shared references only through &self.
unsafe impl<T: Number> Sync for Buffer<T> {}

impl<T: Number> Buffer<T> {
    /// `len` zeros.
    pub fn zeroed(len: usize) -> Self {
        let Some(layout) = Self::layout(len) else {
            return Self {
                start: NonNull::dangling(),
                len: 0,
                _owns: PhantomData,
            };
        };
        let start = if layout.size() >= HUGE_PAGE {
            large::allocate(layout)
        } else {
            // SAFETY: the layout is not empty.
            unsafe { alloc_zeroed(layout) }
        };
        let Some(start) = NonNull::new(start.cast::<T>()) else {
            handle_alloc_error(layout)
        };
        Self {
            start,
            len,
            _owns: PhantomData,
        }
    }

    /// None for no bytes at all.
    fn layout(len: usize) -> Option<Layout> {
        let bytes = len.checked_mul(size_of::<T>())?;
        let layout = Layout::from_size_align(bytes, LINE).ok()?;
        (bytes > 0).then_some(layout)
    }
}

impl<T: Number> Drop for Buffer<T> {
    fn drop(&mut self) {
        let Some(layout) = Self::layout(self.len) else {
            return;
        };
        let start = self.start.as_ptr().cast::<u8>();
        if layout.size() >= HUGE_PAGE {
            large::release(start, layout);
        } else {
            // SAFETY: allocated with this layout.
            unsafe { dealloc(start, layout) }
        }
    }
}

/// Asks for huge pages below a large allocation that is still untouched: where a page's first touch is
/// dear, as on virtual machines, one fault takes the place of 512.
pub fn prefer_huge_pages<T: Number>(values: &mut [T]) {
    let bytes = size_of_val(values);
    if bytes >= HUGE_PAGE {
        large::advise(values.as_mut_ptr().cast(), bytes);
    }
}

/// Large buffers come from the system directly: its pages are zero already.
#[cfg(target_os = "linux")]
mod large {
    use std::alloc::Layout;

    use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

    use super::HUGE_PAGE;

    /// What is asked of the system: room to begin at a huge page, and the mapping's start before it.
    fn mapped(layout: Layout) -> usize {
        layout.size().next_multiple_of(HUGE_PAGE) + 2 * HUGE_PAGE
    }

    /// Null when there is no memory.
    pub(super) fn allocate(layout: Layout) -> *mut u8 {
        let bytes = mapped(layout);
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new private mapping touches nothing that exists. The aligned start lies one huge
        // page or more behind the mapping's, so that the address of that fits before it, and the
        // layout's size fits behind it. A kernel without huge pages refuses the advice: then pages
        // are small.
        unsafe {
            let mapping =
                mmap_anonymous(std::ptr::null_mut(), bytes, protection, MapFlags::PRIVATE);
            let Ok(mapping) = mapping else {
                return std::ptr::null_mut();
            };
            let mapping = mapping.cast::<u8>();
            let start = mapping.add(HUGE_PAGE);
            let start = start.add(start.align_offset(HUGE_PAGE));
            let _ = madvise(start.cast(), layout.size(), Advice::LinuxHugepage);
            start.cast::<*mut u8>().sub(1).write(mapping);
            start
        }
    }

    /// For the whole huge pages in `bytes` from `start` on; a refusal changes nothing but the time.
    pub(super) fn advise(start: *mut u8, bytes: usize) {
        let skipped = start.align_offset(HUGE_PAGE);
        let whole = bytes.saturating_sub(skipped) / HUGE_PAGE * HUGE_PAGE;
        if whole > 0 {
            // SAFETY: the range lies in the caller's memory, and the advice changes no byte of it.
            let _ = unsafe {
                madvise(
                    start.wrapping_add(skipped).cast(),
                    whole,
                    Advice::LinuxHugepage,
                )
            };
        }
    }

    pub(super) fn release(start: *mut u8, layout: Layout) {
        // SAFETY: `start` comes from `allocate` with this layout: the mapping's address stands before
        // it, and nobody has references into the mapping any more.
        unsafe {
            let mapping = start.cast::<*mut u8>().sub(1).read();
            let _ = munmap(mapping.cast(), mapped(layout));
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod large {
    use std::alloc::{Layout, alloc_zeroed, dealloc};

    pub(super) fn advise(_: *mut u8, _: usize) {}

    /// Null when there is no memory.
    pub(super) fn allocate(layout: Layout) -> *mut u8 {
        // SAFETY: the layout is not empty.
        unsafe { alloc_zeroed(layout) }
    }

    pub(super) fn release(start: *mut u8, layout: Layout) {
        // SAFETY: allocated with this layout.
        unsafe { dealloc(start, layout) }
    }
}

impl<T: Number> Deref for Buffer<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: `len` initialised numbers, ours alone.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T: Number> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: `len` initialised numbers, ours alone.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl<T: Number> std::fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} × {} bytes", self.len, size_of::<T>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_of_every_size_start_as_zeros_at_a_line() {
        for len in [0, 1, 1000, HUGE_PAGE / 4 - 1, HUGE_PAGE / 4, 3_000_001] {
            let mut buffer = Buffer::<f32>::zeroed(len);
            assert_eq!(buffer.len(), len);
            assert!(buffer.iter().all(|value| *value == 0.0));
            assert!(len == 0 || buffer.as_ptr().addr().is_multiple_of(LINE));
            buffer.fill(1.0);
            assert!(buffer.iter().all(|value| *value == 1.0));
        }
    }

    #[test]
    fn asking_for_huge_pages_changes_no_value() {
        for len in [0, 1, HUGE_PAGE / 4 - 1, HUGE_PAGE / 4, 3_000_001] {
            let mut values: Vec<f32> = (0..len).map(|at| at as f32).collect();
            prefer_huge_pages(&mut values);
            prefer_huge_pages(&mut values[len / 3..]);
            let unchanged = values.iter().enumerate().all(|(at, v)| *v == at as f32);
            assert!(unchanged, "{len}");
        }
    }
}
