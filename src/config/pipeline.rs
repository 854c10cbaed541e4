//! Settings of one prediction from input to output.

/// What an answer holds beside the findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PipelineSettings {
    /// Whether answers that name places carry the picture with these drawn on it.
    pub draws_image: bool,
}

impl Default for PipelineSettings {
    fn default() -> Self {
        Self { draws_image: true }
    }
}
