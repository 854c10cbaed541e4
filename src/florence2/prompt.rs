//! From a task, or from a text with a task token in it, to the sentence the model was trained on.
//!
//! There are two ways in. [`expand`] takes a text as one would hand it to the reference processor
//! and treats it by that processor's rules: a task token anywhere in the text decides, and a text
//! without one is sent as it is. [`for_task`] takes a task that the caller has named already and
//! inserts the input into its sentence; that input is a caller's free text and is **not** searched
//! for task tokens, so a caption that mentions `<OD>` stays a caption.
//!
//! In both ways whitespace around the input is removed, as the native implementation does. Special
//! tokens inside the input, such as `<loc_5>`, are the tokenizer's business: it recognises them.

use super::location::{BINS, LocationToken};
use super::task::{AnswerKind, TASKS, Task, TaskInput, TaskSpec};
use super::whitespace::strip;

/// Where a sentence takes its input.
const INPUT_SLOT: &str = "{}";

/// What is sent to the model, and how its answer is to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// The text to tokenize.
    pub text: String,
    /// How to read the answer.
    pub answer: AnswerKind,
    /// The task, unless the text named none.
    pub task: Option<Task>,
}

/// Why a task and its input make no prompt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PromptError {
    /// A token of a task without input stands in a longer text.
    #[error(
        "the task token {token} must be the whole prompt: remove the text around it, or use a task that takes a text"
    )]
    TokenNotAlone {
        /// The token.
        token: &'static str,
    },
    /// The task needs a text and got none.
    #[error("the task {task} needs a text")]
    TextMissing {
        /// The task's name.
        task: &'static str,
    },
    /// The task takes no text and got one.
    #[error("the task {task} takes no text")]
    TextNotTaken {
        /// The task's name.
        task: &'static str,
    },
    /// The task needs a region and got none.
    #[error("the task {task} needs a region: four numbers from 0 to 999, x1, y1, x2, y2")]
    RegionMissing {
        /// The task's name.
        task: &'static str,
    },
    /// The task takes no region and got one.
    #[error("the task {task} takes no region")]
    RegionNotTaken {
        /// The task's name.
        task: &'static str,
    },
    /// A region's coordinate does not lie on the model's grid.
    #[error(
        "the region coordinate {coordinate} lies outside the grid from 0 to 999 that spans the picture"
    )]
    RegionOutOfGrid {
        /// The coordinate.
        coordinate: u16,
    },
}

/// Reads a text by the reference processor's rules.
///
/// The table is searched in its order for a token that the text contains. A task without input
/// must be the whole text. For a task with input every occurrence of the token is removed and the
/// rest, stripped, goes into the sentence.
///
/// # Errors
///
/// [`PromptError::TokenNotAlone`] when a token that takes no input stands in a longer text.
pub fn expand(text: &str) -> Result<Prompt, PromptError> {
    // The table lists the tasks without input first, and the reference searches those first too.
    let Some(row) = TASKS.iter().find(|row| text.contains(row.token)) else {
        return Ok(Prompt {
            text: text.to_owned(),
            answer: AnswerKind::PureText,
            task: None,
        });
    };
    if row.input == TaskInput::Nothing {
        if text != row.token {
            return Err(PromptError::TokenNotAlone { token: row.token });
        }
        return Ok(fill(row, ""));
    }
    Ok(fill(row, &text.replace(row.token, "")))
}

/// Builds the prompt of a named task from its input.
///
/// `region` is `x1, y1, x2, y2` on the model's grid of 1000 steps and becomes four location tokens
/// as it stands: corners are neither sorted nor moved.
///
/// # Errors
///
/// When the input that the task needs is missing, when one that it does not take is there, and
/// when a region coordinate lies outside the grid.
pub fn for_task(
    task: Task,
    text: Option<&str>,
    region: Option<[u16; 4]>,
) -> Result<Prompt, PromptError> {
    let row = task.spec();
    let name = row.name;
    if text.is_some() && row.input != TaskInput::Text {
        return Err(PromptError::TextNotTaken { task: name });
    }
    if region.is_some() && row.input != TaskInput::Region {
        return Err(PromptError::RegionNotTaken { task: name });
    }
    match row.input {
        TaskInput::Nothing => Ok(fill(row, "")),
        TaskInput::Text => {
            let text = text.ok_or(PromptError::TextMissing { task: name })?;
            Ok(fill(row, text))
        }
        TaskInput::Region => {
            let region = region.ok_or(PromptError::RegionMissing { task: name })?;
            Ok(fill(row, &region_tokens(region)?))
        }
    }
}

fn fill(row: &TaskSpec, input: &str) -> Prompt {
    Prompt {
        text: row.sentence.replacen(INPUT_SLOT, strip(input), 1),
        answer: row.answer,
        task: Some(row.task),
    }
}

fn region_tokens(region: [u16; 4]) -> Result<String, PromptError> {
    if let Some(coordinate) = region.into_iter().find(|bin| *bin >= BINS) {
        return Err(PromptError::RegionOutOfGrid { coordinate });
    }
    Ok(region.map(|bin| LocationToken(bin).to_string()).concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_token_in_a_named_tasks_text_is_only_text() {
        let prompt = for_task(
            Task::CaptionToPhraseGrounding,
            Some(" the sign says <OD> <CAPTION_TO_PHRASE_GROUNDING>\n"),
            None,
        )
        .unwrap();
        assert_eq!(
            prompt.text,
            "Locate the phrases in the caption: the sign says <OD> <CAPTION_TO_PHRASE_GROUNDING>"
        );
        assert_eq!(prompt.task, Some(Task::CaptionToPhraseGrounding));
    }

    #[test]
    fn an_input_slot_in_the_text_is_only_text() {
        let prompt = for_task(Task::OpenVocabularyDetection, Some("{} {0}"), None).unwrap();
        assert_eq!(prompt.text, "Locate {} {0} in the image.");
    }

    #[test]
    fn a_region_becomes_its_four_tokens_unchanged() {
        let prompt = for_task(Task::RegionToOcr, None, Some([999, 5, 0, 5])).unwrap();
        assert_eq!(
            prompt.text,
            "What text is in the region <loc_999><loc_5><loc_0><loc_5>?"
        );
        assert_eq!(
            for_task(Task::RegionToOcr, None, Some([0, 0, 1000, 2000])),
            Err(PromptError::RegionOutOfGrid { coordinate: 1000 })
        );
    }

    #[test]
    fn both_ways_in_agree_for_every_task() {
        for row in &TASKS {
            let (text, region, typed) = match row.input {
                TaskInput::Nothing => (None, None, row.token.to_owned()),
                TaskInput::Text => (Some("a cat"), None, format!("{} a cat ", row.token)),
                TaskInput::Region => (
                    None,
                    Some([1, 2, 3, 4]),
                    format!("{}<loc_1><loc_2><loc_3><loc_4>", row.token),
                ),
            };
            assert_eq!(for_task(row.task, text, region), expand(&typed));
        }
    }

    #[test]
    fn input_that_does_not_belong_to_the_task_is_refused() {
        for row in &TASKS {
            let takes_text = row.input == TaskInput::Text;
            let takes_region = row.input == TaskInput::Region;
            let name = row.name;
            let with_both = for_task(row.task, Some("x"), Some([0; 4]));
            let with_none = for_task(row.task, None, None);
            if takes_text {
                assert_eq!(with_both, Err(PromptError::RegionNotTaken { task: name }));
                assert_eq!(with_none, Err(PromptError::TextMissing { task: name }));
            } else {
                assert_eq!(with_both, Err(PromptError::TextNotTaken { task: name }));
                assert_eq!(
                    with_none.is_err(),
                    takes_region,
                    "{name} without input: {with_none:?}"
                );
            }
        }
    }
}
