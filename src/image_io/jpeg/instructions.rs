//! One piece of plain code, compiled for several instruction sets and chosen at run time.
//!
//! The inner loops are written so that the compiler turns them into vectors; with AVX2 these are
//! twice as wide as with what every x86-64 processor has, and shifts by a variable are cheaper.

/// Runs a piece of work with the best instructions that this machine has.
///
/// Only what is inlined into the closure profits from it.
#[inline(always)]
pub(super) fn with_best_instructions<R>(work: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(work)
}
