//! What errors repeat of an input once it is used up. A text may be most of a body, and the body is to
//! be out of memory by the time that an error is written.

use super::error::beginning;
use super::image_url::ImageUrl;

/// What an error shows of an input: the beginnings of its texts. The texts themselves are used up by
/// then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShownInput {
    /// Of where the picture is.
    pub image_url: String,
    /// Of the free text of each task, for tasks that take one.
    pub text_inputs: Vec<Option<String>>,
}

impl ShownInput {
    pub(super) fn of<'a>(
        image_url: &ImageUrl,
        text_inputs: impl Iterator<Item = Option<&'a str>>,
    ) -> Self {
        let shown = |text: &str| beginning(text.as_bytes());
        Self {
            image_url: beginning(image_url.as_bytes()),
            text_inputs: text_inputs.map(|text| text.map(shown)).collect(),
        }
    }
}
