//! What may stand behind the flags of `run`: tasks, regions, and files to write.

use std::ffi::OsStr;
use std::path::PathBuf;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command};

use crate::fal::endpoint::Endpoint;
use crate::florence2::prompt::PromptError;
use crate::florence2::task::{Task, TaskInput};
use crate::image_io::decode::SUPPORTED_FORMATS;
use crate::pipeline::annotate::FileFormat;

/// Highest coordinate of a region; the model's grid has 1000 steps.
const GRID_END: u16 = 999;

/// Where the drawn picture goes.
#[derive(Clone, Debug)]
pub(super) struct OutFile {
    pub(super) path: PathBuf,
    pub(super) format: FileFormat,
}

impl OutFile {
    /// The format is that of the name's ending.
    pub(super) fn named(path: PathBuf) -> Result<Self, String> {
        let format = match path.extension() {
            None => Some(FileFormat::Png),
            Some(ending) => ending.to_str().and_then(FileFormat::of_ending),
        };
        let format = format.ok_or_else(|| format!("end its name in {}", FileFormat::ENDINGS))?;
        Ok(Self { path, format })
    }
}

/// The endpoints' names; for any other, the one that the server would name too.
#[derive(Clone)]
pub(super) struct TaskParser(PossibleValuesParser);

/// The parser of a task's name.
pub(super) fn task() -> TaskParser {
    let names = Task::endpoints().map(|task| task.spec().name);
    TaskParser(PossibleValuesParser::new(names.collect::<Vec<_>>()))
}

impl TypedValueParser for TaskParser {
    type Value = Task;

    fn parse_ref(
        &self,
        command: &Command,
        arg: Option<&Arg>,
        value: &OsStr,
    ) -> Result<Task, clap::Error> {
        let known = self.0.parse_ref(command, arg, value);
        let known = known.map_err(|mut error| {
            error.remove(ContextKind::SuggestedValue);
            if let Some(nearest) = value.to_str().and_then(Endpoint::nearest) {
                let nearest = ContextValue::String(nearest.to_owned());
                error.insert(ContextKind::SuggestedValue, nearest);
            }
            error
        });
        let unknown = || clap::Error::new(ErrorKind::InvalidValue).with_cmd(command);
        known.and_then(|name| Task::from_name(&name).ok_or_else(unknown))
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        self.0.possible_values()
    }
}

/// Behind the flags in the help of `run`.
pub(super) fn help() -> String {
    let with = |input: TaskInput| {
        let tasks = Task::endpoints().map(Task::spec);
        let names = tasks.filter(|spec| spec.input == input);
        names.map(|spec| spec.name).collect::<Vec<_>>().join(", ")
    };
    format!(
        "Tasks with --text: {}\nTasks with --region: {}\nPictures: {}\n\n\
         A picture that cannot be answered does not stop the others.\n\
         Exit codes: 0 every picture is answered, 1 something could not be done, 2 wrong usage",
        with(TaskInput::Text),
        with(TaskInput::Region),
        SUPPORTED_FORMATS.join(", ")
    )
}

/// Why the flags make no prompt, with the flag to change.
pub(super) fn sentence(error: &PromptError) -> String {
    let flag = match error {
        PromptError::TokenNotAlone { .. } => "--prompt",
        PromptError::TextMissing { .. } | PromptError::TextNotTaken { .. } => "--text",
        PromptError::RegionMissing { .. }
        | PromptError::RegionNotTaken { .. }
        | PromptError::RegionOutOfGrid { .. } => "--region",
    };
    format!("{flag}: {error}")
}

/// Four steps of the model's grid.
pub(super) fn region(text: &str) -> Result<[u16; 4], String> {
    let numbers: Option<Vec<f64>> = text.split(',').map(|it| it.trim().parse().ok()).collect();
    let numbers = numbers.filter(|it| it.len() == 4 && it.iter().all(|it| *it >= 0.0));
    let form = format!("give four whole numbers from 0 to {GRID_END}: X1,Y1,X2,Y2");
    let numbers = numbers.ok_or_else(|| form.clone())?;
    if numbers.iter().any(|number| *number > f64::from(GRID_END)) {
        return Err(format!(
            "these are pixels, and a region stands on a grid of 1000 by 1000 steps over the picture, whatever its size: {form}, which are x * 1000 / width and y * 1000 / height of the pixels"
        ));
    }
    let bins: Option<Vec<u16>> = text.split(',').map(|bin| bin.trim().parse().ok()).collect();
    bins.and_then(|bins| bins.try_into().ok()).ok_or(form)
}

#[cfg(test)]
mod tests {
    use clap::Args;

    use super::super::RunArgs;
    use super::*;

    #[test]
    fn regions_are_four_steps_of_the_grid() {
        assert_eq!(region("52, 332,932,999").unwrap(), [52, 332, 932, 999]);
        for text in [
            "",
            "1,2,3",
            "1,2,3,4,5",
            "1,2,3,1000",
            "-1,2,3,4",
            "1.5,2,3,4",
            "a,b,c,d",
        ] {
            assert!(region(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn values_that_only_pixels_have_are_told_of_the_grid() {
        for text in ["1,2,3,1000", "12,40,1919,1079", "0,0,1024.5,768"] {
            let sentence = region(text).unwrap_err();
            assert!(sentence.contains("these are pixels"), "{sentence}");
            assert!(sentence.contains("from 0 to 999"), "{sentence}");
        }
        for text in ["1,2,3", "-1,2,3,4000", "1.5,2,3,4", "a,b,c,d"] {
            let sentence = region(text).unwrap_err();
            assert!(
                sentence.starts_with("give four whole numbers"),
                "{sentence}"
            );
        }
    }

    #[test]
    fn a_drawing_has_the_format_of_its_name() {
        let format = |name: &str| OutFile::named(name.into()).map(|out| out.format);
        for (name, expected) in [
            ("a.png", FileFormat::Png),
            ("a.b/c.JPG", FileFormat::Jpeg),
            ("x.jpeg", FileFormat::Jpeg),
            ("x.webp", FileFormat::WebP),
            ("drawn", FileFormat::Png),
        ] {
            assert_eq!(format(name), Ok(expected), "{name}");
        }
        for name in ["a.gif", "a.tiff", "a.txt", "a."] {
            assert!(format(name).unwrap_err().contains(".jpg"), "{name}");
        }
        assert_eq!(format("./-"), Ok(FileFormat::Png));
    }

    #[test]
    fn only_endpoint_names_are_tasks() {
        let parsed = |name: &str| {
            let command = RunArgs::augment_args(clap::Command::new("run"));
            let words = ["run", "a.png", "--task", name];
            let matches = command.try_get_matches_from(words)?;
            Ok::<_, clap::Error>(*matches.get_one::<Task>("task").unwrap())
        };
        assert_eq!(parsed("object-detection").unwrap(), Task::ObjectDetection);
        for name in ["region-to-ocr", "<OD>", "captoin"] {
            let error = parsed(name).unwrap_err().to_string();
            assert!(error.contains("more-detailed-caption"), "{error}");
        }
        let tip = |name: &str| {
            let error = parsed(name).unwrap_err().to_string();
            let (_, tip) = error.split_once("a similar value exists: '")?;
            Some(tip.split('\'').next().unwrap_or_default().to_owned())
        };
        assert_eq!(tip("captoin").as_deref(), Some("caption"));
        assert_eq!(tip("detect").as_deref(), Some("object-detection"));
        assert_eq!(tip("nothing"), None);
        for spec in Task::endpoints().map(Task::spec) {
            let bare = spec.token.trim_matches(['<', '>']);
            for name in [spec.token, bare, &spec.name.to_uppercase()] {
                assert_eq!(tip(name).as_deref(), Some(spec.name), "{name}");
            }
        }
    }

    #[test]
    fn a_missing_or_needless_input_is_named_by_its_flag() {
        use crate::florence2::prompt::{expand, for_task};
        for (result, flag) in [
            (
                for_task(Task::CaptionToPhraseGrounding, None, None),
                "--text: ",
            ),
            (for_task(Task::Caption, Some("x"), None), "--text: "),
            (for_task(Task::RegionToCategory, None, None), "--region: "),
            (for_task(Task::Caption, None, Some([0; 4])), "--region: "),
            (expand("<OD> x"), "--prompt: "),
        ] {
            let said = sentence(&result.unwrap_err());
            assert!(said.starts_with(flag), "{said}");
        }
    }

    #[test]
    fn values_that_begin_with_a_hyphen_are_values() {
        let parsed = |words: [&str; 2]| {
            let command = RunArgs::augment_args(clap::Command::new("run"));
            command.try_get_matches_from(["run", "a.png", words[0], words[1]])
        };
        for flag in ["--text", "--prompt"] {
            for text in ["-a star", "-5 stars", "-1"] {
                let matches = parsed([flag, text]).unwrap();
                let id = flag.trim_start_matches('-');
                assert_eq!(matches.get_one::<String>(id).unwrap(), text);
            }
        }
        let error = parsed(["--region", "-1,2,3,4"]).unwrap_err().to_string();
        assert!(error.contains("give four whole numbers"), "{error}");
    }

    #[test]
    fn the_help_says_what_each_task_needs_and_how_it_ends() {
        let text = help();
        for words in [
            "Tasks with --text: caption-to-phrase-grounding, referring",
            "Tasks with --region: region-to-segmentation, ",
            ".jpg, .jpeg, .png",
            "0 every picture",
            "does not stop the others",
        ] {
            assert!(text.contains(words), "{text}");
        }
    }
}
