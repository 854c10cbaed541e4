//! Memory for weights and activations: aligned to cache lines, in huge pages where the system has
//! them. With pages of 4 KiB, a large share of a big product's time went to page faults and to the
//! search for the pages' addresses.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, handle_alloc_error};
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
pub(crate) unsafe trait Number: Copy + Send + Sync + 'static {}

// SAFETY: plain integers and floats.
unsafe impl Number for f32 {}
// SAFETY: as above.
unsafe impl Number for i32 {}
// SAFETY: as above.
unsafe impl Number for u16 {}
// SAFETY: as above.
unsafe impl Number for u8 {}

/// A slice of fixed length that starts as zeros.
pub(crate) struct Buffer<T: Number> {
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
    pub(crate) fn zeroed(len: usize) -> Self {
        let Some(layout) = Self::layout(len) else {
            return Self {
                start: NonNull::dangling(),
                len: 0,
                _owns: PhantomData,
            };
        };
        // SAFETY: the layout is not empty.
        let start = unsafe {
            if layout.size() < HUGE_PAGE {
                alloc_zeroed(layout)
            } else {
                let start = alloc(layout);
                if !start.is_null() {
                    advise_huge_pages(start, layout.size());
                    std::ptr::write_bytes(start, 0, layout.size());
                }
                start
            }
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
        let align = if bytes >= HUGE_PAGE { HUGE_PAGE } else { LINE };
        let layout = Layout::from_size_align(bytes, align).ok()?;
        (bytes > 0).then_some(layout)
    }
}

#[cfg(target_os = "linux")]
fn advise_huge_pages(start: *mut u8, bytes: usize) {
    // SAFETY: the range is ours and holds nothing yet; the advice changes no contents.
    let advised =
        unsafe { rustix::mm::madvise(start.cast(), bytes, rustix::mm::Advice::LinuxHugepage) };
    // A kernel without huge pages refuses: then the pages are small.
    let _ = advised;
}

#[cfg(not(target_os = "linux"))]
fn advise_huge_pages(_: *mut u8, _: usize) {}

impl<T: Number> Drop for Buffer<T> {
    fn drop(&mut self) {
        if let Some(layout) = Self::layout(self.len) {
            // SAFETY: allocated with this layout.
            unsafe { dealloc(self.start.as_ptr().cast(), layout) }
        }
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
