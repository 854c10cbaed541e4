//! The clock: callers in a closed loop in front of the engine, and what their calls took.

use std::sync::Arc;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinSet;

use super::{machine, nvidia};
use crate::engine::Engine;
use crate::engine::device::DeviceChoice;
use crate::engine::predict::{Prediction, PreparedInput, StageTimings};

const TEMPLATE: &str = "{msg:30} {bar:30} {pos}/{len} pictures  {eta} left";

/// Everything to be measured.
pub(super) struct Plan {
    pub(super) cases: Vec<Case>,
    /// Measured calls of each caller.
    pub(super) runs: usize,
    /// Tokens of every answer.
    pub(super) new_tokens: usize,
    /// Where the model is.
    pub(super) device: DeviceChoice,
}

/// How the model is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Case {
    /// Pictures of one call, submitted together.
    pub(super) batch: usize,
    /// Callers in a closed loop.
    pub(super) concurrency: usize,
}

impl Plan {
    /// Most pictures in front of the model at any time.
    pub(super) fn most_at_once(&self) -> usize {
        let at_once = self.cases.iter().map(|case| case.batch * case.concurrency);
        at_once.max().unwrap_or(1)
    }

    fn pictures(&self) -> usize {
        // Each case begins with one call that is not measured.
        let of = |case: &Case| case.batch * (1 + case.concurrency * self.runs);
        self.cases.iter().map(of).sum()
    }
}

/// What the calls of one case took.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    pub(super) case: Case,
    /// One entry a picture.
    pub(super) stages: Vec<StageTimings>,
    /// One entry a call: from submitting its pictures to the last answer.
    pub(super) end_to_end_ms: Vec<f64>,
    /// From the first call to the last answer.
    pub(super) wall_s: f64,
    /// Highest resident memory of the process so far.
    pub(super) peak_rss_bytes: u64,
    /// Memory in use on the card; none on the CPU, and where nobody tells.
    pub(super) device_memory_bytes: Option<u64>,
}

/// One call.
struct Call {
    stages: Vec<StageTimings>,
    end_to_end_ms: f64,
}

/// What a caller needs.
#[derive(Clone)]
struct Caller {
    engine: Engine,
    input: Arc<PreparedInput>,
    bar: ProgressBar,
    batch: usize,
    new_tokens: usize,
}

/// Measures every case in turn.
pub(super) async fn all(
    engine: &Engine,
    input: &PreparedInput,
    plan: &Plan,
) -> Result<Vec<Measured>, String> {
    // Hidden by itself where stderr is not a terminal.
    let bar = ProgressBar::new(plan.pictures() as u64);
    if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
        bar.set_style(style);
    }
    let input = Arc::new(input.clone());
    let mut measured = Vec::with_capacity(plan.cases.len());
    for case in &plan.cases {
        bar.set_message(format!(
            "batch {}, {} at once",
            case.batch, case.concurrency
        ));
        let caller = Caller {
            engine: engine.clone(),
            input: Arc::clone(&input),
            bar: bar.clone(),
            batch: case.batch,
            new_tokens: plan.new_tokens,
        };
        measured.push(measure(&caller, *case, plan).await?);
    }
    bar.finish_and_clear();
    Ok(measured)
}

async fn measure(caller: &Caller, case: Case, plan: &Plan) -> Result<Measured, String> {
    let runs = plan.runs;
    caller.call().await?;
    let begun = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..case.concurrency {
        let caller = caller.clone();
        callers.spawn(async move {
            let mut calls = Vec::with_capacity(runs);
            for _ in 0..runs {
                calls.push(caller.call().await?);
            }
            Ok::<_, String>(calls)
        });
    }
    let mut measured = Measured {
        case,
        stages: Vec::new(),
        end_to_end_ms: Vec::new(),
        wall_s: 0.0,
        peak_rss_bytes: 0,
        device_memory_bytes: None,
    };
    while let Some(calls) = callers.join_next().await {
        for call in calls.map_err(|error| error.to_string())?? {
            measured.stages.extend(call.stages);
            measured.end_to_end_ms.push(call.end_to_end_ms);
        }
    }
    measured.wall_s = begun.elapsed().as_secs_f64();
    measured.peak_rss_bytes = machine::peak_rss_bytes()?;
    if let DeviceChoice::Cuda(number) = plan.device {
        measured.device_memory_bytes = nvidia::card(number).map(|card| card.used_bytes);
    }
    Ok(measured)
}

impl Caller {
    /// Submits the pictures of one call together and waits for all answers.
    async fn call(&self) -> Result<Call, String> {
        // Copied before the clock starts: a server's inputs are its own already.
        let inputs: Vec<PreparedInput> = vec![(*self.input).clone(); self.batch];
        let begun = Instant::now();
        let mut answers = JoinSet::new();
        for input in inputs {
            let engine = self.engine.clone();
            answers.spawn(async move { engine.submit(input, None).await });
        }
        let mut stages = Vec::with_capacity(self.batch);
        while let Some(answer) = answers.join_next().await {
            let predictions = answer
                .map_err(|error| error.to_string())?
                .map_err(|error| error.to_string())?;
            for prediction in &predictions {
                stages.push(self.checked(prediction)?);
            }
            self.bar.inc(1);
        }
        Ok(Call {
            stages,
            end_to_end_ms: begun.elapsed().as_secs_f64() * 1e3,
        })
    }

    /// A shorter or longer answer would make every figure mean something else.
    fn checked(&self, prediction: &Prediction) -> Result<StageTimings, String> {
        // The decoder start token is not generated.
        let new_tokens = prediction.token_ids.len().saturating_sub(1);
        if new_tokens == self.new_tokens {
            Ok(prediction.timings)
        } else {
            Err(format!(
                "the model wrote {new_tokens} tokens where {} were forced",
                self.new_tokens
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::engine::predict::{Predict, PredictError};
    use crate::florence2::generate::{EarlyStopping, GenerationOptions};

    /// Counts what it is asked and writes as many tokens as it is told to.
    struct Counting {
        asked: Arc<AtomicUsize>,
        new_tokens: usize,
    }

    impl Predict for Counting {
        fn predict(
            &mut self,
            _: &PreparedInput,
            _: &dyn Fn() -> bool,
        ) -> Result<Vec<Prediction>, PredictError> {
            let number = self.asked.fetch_add(1, Ordering::SeqCst);
            Ok(vec![Prediction {
                token_ids: vec![2; 1 + self.new_tokens],
                log_probabilities: vec![],
                timings: StageTimings {
                    vision_ms: number as f64,
                    ..StageTimings::default()
                },
            }])
        }
    }

    fn input() -> PreparedInput {
        PreparedInput {
            pixel_values: vec![],
            side: 0,
            prompts: vec![vec![0, 2]],
            generation: GenerationOptions {
                num_beams: 1,
                max_new_tokens: 3,
                min_new_tokens: 3,
                length_penalty: 1.0,
                early_stopping: EarlyStopping::True,
                no_repeat_ngram_size: 0,
            },
        }
    }

    async fn measured(new_tokens: usize) -> (Result<Vec<Measured>, String>, usize) {
        let plan = Plan {
            cases: [(1, 1), (2, 3)]
                .map(|(batch, concurrency)| Case { batch, concurrency })
                .to_vec(),
            runs: 4,
            new_tokens: 3,
            device: DeviceChoice::Cpu,
        };
        let asked = Arc::new(AtomicUsize::new(0));
        let model = Counting {
            asked: Arc::clone(&asked),
            new_tokens,
        };
        let engine = Engine::start(Box::new(model), plan.most_at_once()).unwrap();
        let measured = all(&engine, &input(), &plan).await;
        engine.close().await;
        if measured.is_ok() {
            assert_eq!(asked.load(Ordering::SeqCst), plan.pictures());
        }
        (measured, asked.load(Ordering::SeqCst))
    }

    #[tokio::test]
    async fn every_caller_makes_its_calls_and_the_first_of_a_case_does_not_count() {
        let (measured, asked) = measured(3).await;
        let measured = measured.unwrap();
        assert_eq!(asked, (1 + 4) + 2 * (1 + 3 * 4));
        let [alone, crowd] = &measured[..] else {
            panic!("two cases");
        };
        assert_eq!((alone.stages.len(), alone.end_to_end_ms.len()), (4, 4));
        assert_eq!((crowd.stages.len(), crowd.end_to_end_ms.len()), (24, 12));
        let numbers: Vec<f64> = alone.stages.iter().map(|stages| stages.vision_ms).collect();
        assert_eq!(numbers, [1.0, 2.0, 3.0, 4.0]);
        assert!(crowd.stages.iter().all(|stages| stages.vision_ms >= 7.0));
        assert!(crowd.wall_s > 0.0 && crowd.peak_rss_bytes > 1 << 20);
    }

    #[tokio::test]
    async fn an_answer_of_another_length_ends_the_bench() {
        let (measured, asked) = measured(2).await;
        assert!(measured.unwrap_err().contains("wrote 2 tokens where 3"));
        assert_eq!(asked, 1);
    }
}
