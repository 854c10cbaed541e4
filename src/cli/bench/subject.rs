//! What is measured: a model, and one prepared input that every call repeats.

use std::path::Path;
use std::time::{Duration, Instant};

use image::RgbImage;
use indicatif::ProgressBar;

use super::BenchArgs;
use crate::cli::load_model::{LoadedCheckpoint, find_model, load_from};
use crate::cli::{CommandError, output_file, picture_error};
use crate::config::DecodeSettings;
use crate::engine::device::{DeviceChoice, Placement, use_instructions, use_threads};
use crate::engine::predict::PreparedInput;
use crate::florence2::Florence2;
use crate::florence2::config::PublishedSize;
use crate::florence2::kernels::packed::InstructionSet;
use crate::florence2::processor::{PictureProcessor, PixelValues};
use crate::florence2::prompt;
use crate::florence2::task::Task;
use crate::image_io::decode;

/// The prompt of the task below in the published tokenizers, for models without one:
/// "Describe in detail what is shown in the image."
const PROMPT_IDS: [u32; 13] = [0, 47066, 21700, 11, 4617, 99, 16, 2343, 11, 5, 2274, 4, 2];
/// The task whose prompt is asked.
const TASK: Task = Task::DetailedCaption;
/// Pace of the spinner shown while weights are made.
const SPINNER_TICK: Duration = Duration::from_millis(100);

/// A model and what it is asked.
pub(super) struct Subject {
    pub(super) model: Florence2,
    pub(super) input: PreparedInput,
    pub(super) about: About,
}

/// What is the same in all cases.
pub(super) struct About {
    pub(super) model: String,
    pub(super) device: DeviceChoice,
    pub(super) dtype: &'static str,
    /// The vector instructions of the CPU's kernels, where these compute.
    pub(super) instructions: Option<InstructionSet>,
    pub(super) threads: usize,
    pub(super) num_beams: usize,
    /// Time to read or make the weights.
    pub(super) load_ms: f64,
}

impl Subject {
    /// Loads or makes the model, and prepares the input.
    pub(super) fn load(args: &BenchArgs) -> Result<Self, CommandError> {
        let picture = args.image.as_deref().map(read_picture).transpose()?;
        let subject = match args.random {
            Some(size) => Self::random(args, size, picture.as_ref())?,
            None => Self::checkpoint(args, picture.as_ref())?,
        };
        let positions = subject.model.config().text.max_position_embeddings;
        if subject.input.generation.max_new_tokens > positions {
            return Err(CommandError::Failed(format!(
                "--new-tokens: this model has positions for {positions} tokens; ask for fewer"
            )));
        }
        Ok(subject)
    }

    fn checkpoint(args: &BenchArgs, picture: Option<&RgbImage>) -> Result<Self, CommandError> {
        let folder = find_model(&args.model)?;
        output_file::check_model(&args.outputs(), &folder)?;
        let LoadedCheckpoint {
            model,
            processor,
            options,
            device,
            dtype,
            instructions,
            threads,
            load_ms,
        } = load_from(&folder, &args.model)?;
        let text = prompt::for_task(TASK, None, None).map_err(|error| error.to_string())?;
        let prompt = processor
            .input_ids(&text.text, options.max_text_tokens)
            .map_err(|error| error.to_string())?;
        let pixels = match picture {
            Some(picture) => processor.pixel_values(picture),
            None => noise(processor.side(), args.seed),
        };
        let about = About {
            model: args.model.model.clone(),
            device,
            dtype,
            instructions,
            threads,
            num_beams: options.generation.num_beams,
            load_ms,
        };
        Ok(Self::new(args, model, pixels, prompt, about))
    }

    fn random(
        args: &BenchArgs,
        size: PublishedSize,
        picture: Option<&RgbImage>,
    ) -> Result<Self, String> {
        let threads = args.model.threads;
        let threads = use_threads(threads.map(|n| usize::try_from(n).unwrap_or(usize::MAX)));
        use_instructions(args.model.instructions);
        let placement = Placement::open(args.model.device, args.model.dtype)
            .map_err(|error| error.to_string())?;
        let pictures = PictureProcessor::published();
        let name = format!("random {} (seed {})", size.name(), args.seed);
        let begun = Instant::now();
        let spinner = ProgressBar::new_spinner().with_message(format!("making {name}"));
        spinner.enable_steady_tick(SPINNER_TICK);
        let made = placement.random(size.config(), pictures.side(), args.seed);
        spinner.finish_and_clear();
        let model = made.map_err(|error| format!("cannot make {name}: {error}"))?;
        let about = About {
            model: name,
            device: placement.device(),
            dtype: placement.dtype(),
            instructions: placement.instructions(),
            threads,
            num_beams: args.model.generation(model.config().generation).num_beams,
            load_ms: begun.elapsed().as_secs_f64() * 1e3,
        };
        let pixels = match picture {
            Some(picture) => pictures.pixel_values(picture),
            None => noise(pictures.side(), args.seed),
        };
        Ok(Self::new(args, model, pixels, PROMPT_IDS.to_vec(), about))
    }

    fn new(
        args: &BenchArgs,
        model: Florence2,
        pixels: PixelValues,
        prompt: Vec<u32>,
        about: About,
    ) -> Self {
        let mut generation = args.model.generation(model.config().generation);
        generation.max_new_tokens = usize::try_from(args.new_tokens).unwrap_or(usize::MAX);
        generation.min_new_tokens = generation.max_new_tokens;
        let input = PreparedInput {
            pixel_values: pixels.data,
            side: pixels.side,
            prompts: vec![prompt],
            generation,
        };
        Self {
            model,
            input,
            about,
        }
    }
}

fn read_picture(file: &Path) -> Result<RgbImage, String> {
    let say = |error: &dyn std::fmt::Display| format!("--image: {}: {error}", file.display());
    let bytes = std::fs::read(file).map_err(|error| say(&error))?;
    let decoded = decode::decode(&bytes, &DecodeSettings::default());
    decoded.map_err(|error| say(&picture_error::sentence(&error)))
}

/// Pixels between -2 and 2, the range of normalised pictures, in no order; from Knuth's linear
/// congruential generator, of which the upper half is kept.
fn noise(side: usize, seed: u64) -> PixelValues {
    let mut state = seed;
    let data = (0..3 * side * side)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 32) as f32 / 2f32.powi(30) - 2.0
        })
        .collect();
    PixelValues { data, side }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_random_picture_is_in_range_and_follows_its_seed() {
        let pixels = noise(32, 1).data;
        assert_eq!(pixels.len(), 3 * 32 * 32);
        assert!(pixels.iter().all(|value| (-2.0..=2.0).contains(value)));
        let mean = pixels.iter().sum::<f32>() / pixels.len() as f32;
        assert!(mean.abs() < 0.1, "{mean}");
        assert_eq!(pixels, noise(32, 1).data);
        assert_ne!(pixels, noise(32, 2).data);
    }

    #[test]
    fn the_fixed_prompt_is_what_a_published_tokenizer_makes_of_the_task() {
        let text = prompt::for_task(TASK, None, None).unwrap().text;
        assert_eq!(text, "Describe in detail what is shown in the image.");
    }
}
