//! Why a picture and a prompt gave no answer, without a word about HTTP.

use super::{EngineError, PictureError};
use crate::florence2::processor::ProcessorError;
use crate::florence2::prompt::PromptError;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// There is no picture.
    #[error(transparent)]
    Picture(#[from] PictureError),
    /// The text has more tokens than the model can read.
    #[error("the prompt has {} tokens and may have {max_tokens}", counted(*tokens, *max_tokens))]
    TextTooLong {
        /// Which of the prompts about the picture it was; 0 when there is only one.
        prompt: usize,
        /// Tokens of the prompt; none if its bytes alone are too many to count them.
        tokens: Option<usize>,
        /// Tokens allowed.
        max_tokens: usize,
    },
    /// The task and its input make no prompt.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// The tokenizer failed.
    #[error("the tokenizer failed: {0}")]
    Processor(#[from] ProcessorError),
    /// The model gave no prediction.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A helper thread panicked or the process is stopping.
    #[error("preparing failed inside: {0}")]
    Internal(String),
}

impl PipelineError {
    /// What the processor says about the prompt at this position.
    pub(super) fn about_prompt(prompt: usize, error: ProcessorError) -> Self {
        match error {
            ProcessorError::PromptTooLong { tokens, max_tokens } => Self::TextTooLong {
                prompt,
                tokens: Some(tokens),
                max_tokens,
            },
            ProcessorError::PromptTooManyBytes { max_tokens, .. } => Self::TextTooLong {
                prompt,
                tokens: None,
                max_tokens,
            },
            other => Self::Processor(other),
        }
    }
}

/// The number of tokens of a text that has too many, in words.
#[must_use]
pub fn counted(tokens: Option<usize>, max_tokens: usize) -> String {
    tokens.map_or_else(
        || format!("more than {max_tokens}"),
        |tokens| tokens.to_string(),
    )
}
