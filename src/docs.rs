//! Long texts: what does not fit beside the code it is about.

/// How fast it is, on which machine, by which command, and how far from what the machine can do.
pub mod performance {
    #![doc = include_str!("docs/performance.md")]
}

/// Which JPEG files are read with exactly the reference's pixels, which are refused, and how fast.
pub mod jpeg {
    #![doc = include_str!("docs/jpeg.md")]
}

/// What is promised to whom, where each promise is kept, and which test holds it.
pub mod security {
    #![doc = include_str!("docs/security.md")]
}
