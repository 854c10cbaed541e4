//! The part of the table for what goes wrong between a valid input and its answer.
//!
//! Faults of the text and of the picture are entries about their field; what the engine says is a
//! request error. Causes stay inside, as everywhere in the table.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::Blame;
use super::verdict::{Verdict, busy, internal, start_deadline, too_many_bytes, unready};
use crate::fal::error::{Fault, FaultType, RequestErrorType, Step};
use crate::fal::input::ShownInput;
use crate::pipeline::{
    EngineError, PictureError, PipelineError, PredictError, SUPPORTED_FORMATS, counted,
};

/// The row of an error of the pipeline.
pub(super) fn verdict(error: &PipelineError, input: &ShownInput, task: Option<usize>) -> Verdict {
    match error {
        PipelineError::Picture(PictureError::Busy(_)) => {
            busy("Too many requests at once. Try again later.")
        }
        PipelineError::Picture(error) => picture_verdict(error, input),
        PipelineError::TextTooLong {
            prompt,
            tokens,
            max_tokens,
        } => {
            let text = json!(input.text_inputs.get(*prompt));
            let tokens = counted(*tokens, *max_tokens);
            let msg = format!(
                "Text is too long: with it the prompt has {tokens} tokens, and at most {max_tokens} are supported."
            );
            let at = task.map(|task| [Step::Key("tasks"), Step::Position(task)]);
            let mut loc = at.map_or_else(Vec::new, Vec::from);
            loc.push(Step::Key("text_input"));
            let fault = Fault::new(FaultType::SequenceTooLong, &loc, msg, &text)
                .with_ctx(json!({ "max_length": max_tokens }));
            Verdict::model(StatusCode::UNPROCESSABLE_ENTITY, vec![fault])
        }
        PipelineError::Engine(error) => engine_verdict(error),
        // Validated input makes a prompt, and the tokenizer takes any text.
        PipelineError::Prompt(_) | PipelineError::Processor(_) | PipelineError::Internal(_) => {
            internal()
        }
    }
}

/// The fault of a file that is no picture we read; `reason` is a further sentence or empty.
fn unsupported(loc: &[Step], reason: &str, url: &Value) -> Fault {
    let formats = SUPPORTED_FORMATS.join(", ");
    let msg = format!("Unsupported image format. Supported formats are {formats}.{reason}");
    Fault::new(FaultType::UnsupportedImageFormat, loc, msg, url)
        .with_ctx(json!({ "supported_formats": SUPPORTED_FORMATS }))
}

fn picture_verdict(error: &PictureError, input: &ShownInput) -> Verdict {
    let loc = [Step::Key("image_url")];
    let url = json!(input.image_url);
    let fault = match error {
        PictureError::Download(_) => Fault::new(
            FaultType::FileDownloadError,
            &loc,
            "Failed to download the file. Please check if the URL is accessible and try again.",
            &url,
        ),
        PictureError::Jpeg(error) if error.is_unsupported() => {
            unsupported(&loc, &format!(" {error}."), &url)
        }
        // The sentence is fal's own, word for word; the reason is for the log and the command line.
        PictureError::Jpeg(_) | PictureError::Load(_) => Fault::new(
            FaultType::ImageLoadError,
            &loc,
            "Failed to load the image. Please ensure the image file is not corrupted and is in a supported format.",
            &url,
        ),
        PictureError::UnsupportedFormat => unsupported(&loc, "", &url),
        PictureError::TooLarge {
            max_side,
            max_pixels,
            ..
        } => Fault::new(FaultType::ImageTooLarge, &loc, "Image too large", &url).with_ctx(json!({
            "max_height": max_side,
            "max_width": max_side,
            "max_resolution": max_pixels,
        })),
        PictureError::FileTooLarge { max_bytes } => too_many_bytes(&loc, *max_bytes, &url),
        PictureError::Busy(_) | PictureError::Internal(_) => return internal(),
    };
    Verdict::model(StatusCode::UNPROCESSABLE_ENTITY, vec![fault])
}

fn engine_verdict(error: &EngineError) -> Verdict {
    match error {
        EngineError::LineFull => busy("Too many requests at once. Try again later."),
        EngineError::StartDeadline => start_deadline(),
        EngineError::Closed => unready("The server is stopping. Try again later."),
        EngineError::Predict(PredictError::OutOfMemory(_)) => {
            unready("The device ran out of memory. Try again later.")
        }
        EngineError::Predict(PredictError::NotFinite { .. } | PredictError::Failed(_)) => {
            Verdict::request(
                StatusCode::INTERNAL_SERVER_ERROR,
                Blame::Us,
                RequestErrorType::RunnerServerError,
                "The model failed.",
            )
        }
        EngineError::Panicked(_) => internal(),
    }
}
