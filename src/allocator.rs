//! The C library's allocator, told to give large blocks back to the system.
//!
//! By itself glibc raises its threshold for blocks of their own to 32 MiB as soon as one such block was
//! freed. From then on large request bodies lie among small blocks, and the memory below them stays with
//! the process: 350 MiB after 24 calls of 30 MiB, against 40 MiB with these two numbers, at the same speed
//! (`security.md`, Memory). Other C libraries do so anyway, or have no such numbers.

/// Sets both numbers, unless the operator has set any of the allocator's by its own variables.
pub(crate) fn give_large_blocks_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    glibc::set();
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    use std::ffi::c_int;

    /// Bytes from which a block is a mapping of its own, which goes back when it is freed. Above what one
    /// call of the model takes (6.75 MiB for its pixels), so that calls map and clear nothing.
    const OWN_MAPPING_BYTES: c_int = 8 << 20;

    /// Free bytes at the end of an arena that are kept for the next allocation.
    const KEPT_BYTES: c_int = 16 << 20;

    /// The allocator's own variables, by how their names begin.
    const VARIABLES: [&str; 2] = ["MALLOC_", "GLIBC_TUNABLES"];

    pub(super) fn set() {
        let is_its = |name: &str| VARIABLES.iter().any(|variable| name.starts_with(variable));
        if std::env::vars_os().any(|(name, _)| name.to_str().is_some_and(is_its)) {
            return;
        }
        for (parameter, value) in [
            (libc::M_MMAP_THRESHOLD, OWN_MAPPING_BYTES),
            (libc::M_TRIM_THRESHOLD, KEPT_BYTES),
        ] {
            #[allow(unsafe_code, reason = "the C library has no other way to set this")]
            // SAFETY: sets a number of the allocator, under the allocator's own lock.
            let is_set = unsafe { libc::mallopt(parameter, value) } == 1;
            debug_assert!(is_set, "glibc knows both numbers");
        }
    }
}
