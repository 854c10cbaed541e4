//! The figures in the shape of `--json`. The keys and their order are part of the command's contract.

use serde::{Serialize, Serializer};

use super::measure::Measured;
use super::subject::About;
use super::{machine, nvidia};
use crate::engine::device::DeviceChoice;
use crate::engine::predict::StageTimings;
use crate::florence2::kernels::packed::InstructionSet;

/// Everything that was found out.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    pub(super) machine: Machine,
    pub(super) model: String,
    pub(super) dtype: &'static str,
    pub(super) device: String,
    pub(super) threads: usize,
    /// The vector instructions of the CPU's kernels, as `--instructions` spells them; none where something
    /// else computes.
    #[serde(serialize_with = "by_id")]
    pub(super) instructions: Option<InstructionSet>,
    pub(super) cases: Vec<CaseReport>,
}

/// The box.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Machine {
    pub(super) processor: String,
    /// Cores that the compute threads can be on at once.
    pub(super) cores_used: usize,
    pub(super) memory_bytes: Option<u64>,
    /// The accelerator, or the processor once more where there is none.
    pub(super) device_name: Option<String>,
    /// Version of the accelerator's driver.
    pub(super) driver: Option<String>,
}

/// One case.
#[derive(Clone, Debug, Serialize)]
pub(super) struct CaseReport {
    pub(super) batch: usize,
    pub(super) concurrency: usize,
    pub(super) num_beams: usize,
    pub(super) new_tokens: usize,
    pub(super) vision_ms: Spread,
    pub(super) encoder_ms: Spread,
    pub(super) prefill_ms: Spread,
    pub(super) decode_ms_per_token: Spread,
    pub(super) end_to_end_ms: Spread,
    pub(super) images_per_second: f64,
    pub(super) tokens_per_second: f64,
    pub(super) load_ms: f64,
    pub(super) peak_rss_bytes: u64,
    pub(super) device_memory_bytes: Option<u64>,
}

/// How a time is spread over the measured calls or pictures.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) min: f64,
}

fn by_id<S: Serializer>(set: &Option<InstructionSet>, to: S) -> Result<S::Ok, S::Error> {
    set.map(InstructionSet::id).serialize(to)
}

impl Report {
    pub(super) fn new(about: &About, new_tokens: usize, measured: Vec<Measured>) -> Self {
        let cases = measured
            .into_iter()
            .map(|case| CaseReport::new(about, new_tokens, &case))
            .collect();
        Self {
            machine: Machine::look(about),
            model: about.model.clone(),
            dtype: about.dtype,
            device: about.device.to_string(),
            threads: about.threads,
            instructions: about.instructions,
            cases,
        }
    }
}

impl Machine {
    fn look(about: &About) -> Self {
        let processor = machine::processor();
        let card = match about.device {
            DeviceChoice::Cuda(number) => nvidia::card(number),
            _ => None,
        };
        let device_name = match (&card, about.device) {
            (Some(card), _) => Some(card.name.clone()),
            (None, DeviceChoice::Cuda(_)) => None,
            // Apple's processor and its GPU are one part with one name.
            (None, _) => Some(processor.clone()),
        };
        let cores = std::thread::available_parallelism().map_or(about.threads, usize::from);
        Self {
            processor,
            cores_used: about.threads.min(cores),
            memory_bytes: machine::memory_bytes(),
            device_name,
            driver: card.map(|card| card.driver),
        }
    }
}

impl CaseReport {
    fn new(about: &About, new_tokens: usize, measured: &Measured) -> Self {
        let stage =
            |time: fn(&StageTimings) -> f64| Spread::of(measured.stages.iter().map(time).collect());
        // The first token comes out of the prefill step.
        let steps = new_tokens.saturating_sub(1).max(1) as f64;
        let per_token = measured.stages.iter().map(|times| times.decode_ms / steps);
        let images_per_second = measured.stages.len() as f64 / measured.wall_s;
        Self {
            batch: measured.case.batch,
            concurrency: measured.case.concurrency,
            num_beams: about.num_beams,
            new_tokens,
            vision_ms: stage(|times| times.vision_ms),
            encoder_ms: stage(|times| times.encoder_ms),
            prefill_ms: stage(|times| times.prefill_ms),
            decode_ms_per_token: Spread::of(per_token.collect()),
            end_to_end_ms: Spread::of(measured.end_to_end_ms.clone()),
            images_per_second: tidy(images_per_second),
            tokens_per_second: tidy(images_per_second * new_tokens as f64),
            load_ms: tidy(about.load_ms),
            peak_rss_bytes: measured.peak_rss_bytes,
            device_memory_bytes: measured.device_memory_bytes,
        }
    }
}

impl Spread {
    /// Of at least one value; a place between two values lies on the line between them.
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_unstable_by(f64::total_cmp);
        let at = |part: f64| {
            let place = part * values.len().saturating_sub(1) as f64;
            let value = |index: f64| values.get(index as usize).copied().unwrap_or(0.0);
            let (below, above) = (value(place.floor()), value(place.ceil()));
            tidy(below + (above - below) * place.fract())
        };
        Self {
            p50: at(0.5),
            p90: at(0.9),
            min: at(0.0),
        }
    }
}

/// To three places: milliseconds to the microsecond.
fn tidy(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A report with invented figures.
    pub(in crate::cli::bench) fn invented() -> Report {
        let about = About {
            model: "a <b> & \"c\"".to_owned(),
            device: DeviceChoice::Cpu,
            dtype: "f32",
            instructions: Some(InstructionSet::Avx2),
            threads: 2,
            num_beams: 3,
            load_ms: 1500.0,
        };
        let case = |batch, concurrency, wall_s| Measured {
            case: super::super::measure::Case { batch, concurrency },
            stages: vec![
                StageTimings {
                    vision_ms: 3100.0,
                    encoder_ms: 320.0,
                    prefill_ms: 110.5,
                    decode_ms: 99.0 * 24.0,
                };
                2
            ],
            end_to_end_ms: vec![6000.0, 5000.0],
            wall_s,
            peak_rss_bytes: 3 << 30,
            device_memory_bytes: None,
        };
        let mut report = Report::new(&about, 100, vec![case(1, 1, 10.0), case(2, 1, 8.0)]);
        report.machine.processor = "Example 9000".to_owned();
        report.machine.memory_bytes = Some(16 << 30);
        report
    }

    #[test]
    fn places_between_two_values_lie_on_their_line() {
        let of = |values: &[f64]| Spread::of(values.to_vec());
        let spread = of(&[5.0, 1.0, 2.0, 4.0, 3.0]);
        assert_eq!((spread.p50, spread.p90, spread.min), (3.0, 4.6, 1.0));
        assert_eq!(of(&[2.0, 1.0]).p50, 1.5);
        let one = of(&[7.0]);
        assert_eq!((one.p50, one.p90, one.min), (7.0, 7.0, 7.0));
    }

    #[test]
    fn rates_count_every_picture_over_the_whole_time() {
        let report = invented();
        let case = &report.cases[1];
        assert_eq!(case.images_per_second, 0.25);
        assert_eq!(case.tokens_per_second, 25.0);
        assert_eq!(case.decode_ms_per_token.p50, 24.0);
        assert_eq!(case.end_to_end_ms.p50, 5500.0);
    }
}
