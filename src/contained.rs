//! Calls into libraries that panic over what a file holds.
//!
//! Readers of checkpoint files are written for files that their own project wrote. What a damaged or
//! hostile file makes of them is a sentence about that file, not a backtrace.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, catch_unwind};

thread_local! {
    static IS_CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// Runs a reader whose panics mean that it cannot read this. What it works on is given up then.
///
/// # Errors
/// What the panic said.
pub(crate) fn contained<T>(read: impl FnOnce() -> T) -> Result<T, String> {
    let before = IS_CONTAINED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(read));
    IS_CONTAINED.set(before);
    result.map_err(|panic| panic_text(&*panic).to_owned())
}

/// Whether a panic on this thread is caught here, so that nobody needs to hear of it.
#[must_use]
pub(crate) fn is_contained() -> bool {
    IS_CONTAINED.get()
}

/// Keeps the hook that is set from reporting panics that are caught here.
pub(crate) fn hush() {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if !is_contained() {
            report(panic);
        }
    }));
}

/// What a caught panic said.
#[must_use]
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_its_message() {
        assert_eq!(contained(|| 7), Ok(7));
        let none: &[u8] = &[];
        let error = contained(|| none[none.len()]).unwrap_err();
        assert!(error.contains("out of bounds"), "{error}");
        assert!(!is_contained());
    }
}
