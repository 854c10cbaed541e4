//! What may stand behind the flags of `run`: tasks, regions, and files to write.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::florence2::task::Task;
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

/// The endpoints' names; the parser names the nearest for any other.
pub(super) fn task() -> impl TypedValueParser<Value = Task> {
    let names = Task::endpoints().map(|task| task.spec().name);
    PossibleValuesParser::new(names.collect::<Vec<_>>())
        .try_map(|name| Task::from_name(&name).ok_or("no such task"))
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
        let error = parsed("captoin").unwrap_err().to_string();
        assert!(
            error.contains("a similar value exists: 'caption'"),
            "{error}"
        );
    }
}
