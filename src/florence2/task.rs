//! The tasks: their endpoint name, their token, the sentence the model was trained on, and the
//! kind of answer that comes back.
//!
//! One table serves prompt building, post-processing, the command line and the HTTP routes.
//! Sentences and order are those of the reference processor; the order matters, because a prompt
//! is searched for task tokens in table order (see [`super::prompt`]).

/// One of Florence-2's skills.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Task {
    /// One sentence about the picture.
    Caption,
    /// A few sentences about the picture.
    DetailedCaption,
    /// A paragraph about the picture.
    MoreDetailedCaption,
    /// Boxes with category names.
    ObjectDetection,
    /// Boxes with descriptions.
    DenseRegionCaption,
    /// Boxes without labels.
    RegionProposal,
    /// All text in the picture.
    Ocr,
    /// Text lines with their quadrilaterals.
    OcrWithRegion,
    /// Boxes for the phrases of a caption.
    CaptionToPhraseGrounding,
    /// Outlines of what an expression refers to.
    ReferringExpressionSegmentation,
    /// The outline of what stands in a region.
    RegionToSegmentation,
    /// Boxes (or outlines) for a free description.
    OpenVocabularyDetection,
    /// The category of a region.
    RegionToCategory,
    /// A description of a region.
    RegionToDescription,
    /// The text in a region. Not a fal endpoint; reachable through `run --prompt`.
    RegionToOcr,
}

/// What a task needs besides the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskInput {
    /// Nothing.
    Nothing,
    /// A free text.
    Text,
    /// A rectangle on the model's 1000-step grid.
    Region,
}

/// How the generated text is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerKind {
    /// Plain text.
    PureText,
    /// `label<loc>×4…` pieces.
    DescriptionWithBboxes,
    /// Location tokens in fours, labels ignored.
    Bboxes,
    /// As [`AnswerKind::DescriptionWithBboxes`], pronouns and filler words dropped.
    PhraseGrounding,
    /// Runs of location tokens as outlines, label optional.
    Polygons,
    /// Outlines where the answer contains `<poly>`, boxes otherwise.
    DescriptionWithBboxesOrPolygons,
    /// `text<loc>×8` pieces.
    Ocr,
}

/// One row of the table.
#[derive(Debug)]
pub struct TaskSpec {
    /// The task.
    pub task: Task,
    /// fal's endpoint name, also the value of `run --task`.
    pub name: &'static str,
    /// The token that stands for the task in a prompt.
    pub token: &'static str,
    /// The sentence sent to the model; `{}` is replaced by the input.
    pub sentence: &'static str,
    /// What the task needs besides the picture.
    pub input: TaskInput,
    /// How its answer is read.
    pub answer: AnswerKind,
}

const fn row(
    task: Task,
    name: &'static str,
    token: &'static str,
    sentence: &'static str,
    input: TaskInput,
    answer: AnswerKind,
) -> TaskSpec {
    TaskSpec {
        task,
        name,
        token,
        sentence,
        input,
        answer,
    }
}

/// All tasks, in the reference processor's order: those without input first.
#[rustfmt::skip]
pub const TASKS: [TaskSpec; 15] = {
    use AnswerKind as A;
    use TaskInput as I;
    [
        row(Task::Caption, "caption", "<CAPTION>", "What does the image describe?", I::Nothing, A::PureText),
        row(Task::DetailedCaption, "detailed-caption", "<DETAILED_CAPTION>", "Describe in detail what is shown in the image.", I::Nothing, A::PureText),
        row(Task::MoreDetailedCaption, "more-detailed-caption", "<MORE_DETAILED_CAPTION>", "Describe with a paragraph what is shown in the image.", I::Nothing, A::PureText),
        row(Task::ObjectDetection, "object-detection", "<OD>", "Locate the objects with category name in the image.", I::Nothing, A::DescriptionWithBboxes),
        row(Task::DenseRegionCaption, "dense-region-caption", "<DENSE_REGION_CAPTION>", "Locate the objects in the image, with their descriptions.", I::Nothing, A::DescriptionWithBboxes),
        row(Task::RegionProposal, "region-proposal", "<REGION_PROPOSAL>", "Locate the region proposals in the image.", I::Nothing, A::Bboxes),
        row(Task::Ocr, "ocr", "<OCR>", "What is the text in the image?", I::Nothing, A::PureText),
        row(Task::OcrWithRegion, "ocr-with-region", "<OCR_WITH_REGION>", "What is the text in the image, with regions?", I::Nothing, A::Ocr),
        row(Task::CaptionToPhraseGrounding, "caption-to-phrase-grounding", "<CAPTION_TO_PHRASE_GROUNDING>", "Locate the phrases in the caption: {}", I::Text, A::PhraseGrounding),
        row(Task::ReferringExpressionSegmentation, "referring-expression-segmentation", "<REFERRING_EXPRESSION_SEGMENTATION>", "Locate {} in the image with mask", I::Text, A::Polygons),
        row(Task::RegionToSegmentation, "region-to-segmentation", "<REGION_TO_SEGMENTATION>", "What is the polygon mask of region {}", I::Region, A::Polygons),
        row(Task::OpenVocabularyDetection, "open-vocabulary-detection", "<OPEN_VOCABULARY_DETECTION>", "Locate {} in the image.", I::Text, A::DescriptionWithBboxesOrPolygons),
        row(Task::RegionToCategory, "region-to-category", "<REGION_TO_CATEGORY>", "What is the region {}?", I::Region, A::PureText),
        row(Task::RegionToDescription, "region-to-description", "<REGION_TO_DESCRIPTION>", "What does the region {} describe?", I::Region, A::PureText),
        row(Task::RegionToOcr, "region-to-ocr", "<REGION_TO_OCR>", "What text is in the region {}?", I::Region, A::PureText),
    ]
};

impl Task {
    /// The row of the table that describes this task.
    #[must_use]
    pub fn spec(self) -> &'static TaskSpec {
        // The table is in declaration order, which `rows_stand_in_declaration_order` checks.
        &TASKS[self as usize]
    }

    /// The task of a fal endpoint name such as `dense-region-caption`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        TASKS
            .iter()
            .find(|row| row.name == name)
            .map(|row| row.task)
    }

    /// The fourteen tasks that are fal endpoints, in table order.
    pub fn endpoints() -> impl Iterator<Item = Self> {
        TASKS
            .iter()
            .map(|row| row.task)
            .filter(|task| *task != Self::RegionToOcr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_in_declaration_order() {
        for row in &TASKS {
            assert_eq!(row.task.spec().name, row.name);
        }
        assert_eq!(Task::endpoints().count(), 14);
    }
}
