//! Beam search as the reference library does it.
//!
//! At each step the 2K best continuations of K beams are looked at. The K best that do not end run
//! on; those that end count as finished hypotheses only if they are among the K best. A finished
//! hypothesis' score is its summed log-probability over its length to the power of the length
//! penalty. All sums are in f32, as in the reference.
//!
//! The log-probabilities of single tokens lie in one growing list of steps, each of which knows the
//! step before it; they are gathered once, along the hypothesis that won.

use crate::florence2::kernels::log_softmax;

use super::candidates::{Best, Candidate};
use super::constraints::Constraints;
use super::{Decode, EarlyStopping, GenerateError, Generated, GenerationOptions, finite_logits};

/// The score of beams that exist in name only, before the first choice has spread them out.
const NOT_YET: f32 = -1e9;

/// A sequence, and where its last step lies; none before the first choice.
#[derive(Clone, Debug, Default)]
struct Sequence {
    tokens: Vec<u32>,
    last_step: Option<usize>,
}

/// A sequence with its summed log-probability.
#[derive(Clone, Debug)]
struct Running {
    sequence: Sequence,
    score: f32,
}

/// A complete sequence with its length-normalised score.
#[derive(Clone, Debug)]
struct Finished {
    sequence: Sequence,
    score: f32,
}

/// One token of one beam.
#[derive(Clone, Copy, Debug)]
struct Step {
    log_probability: f32,
    before: Option<usize>,
}

/// The state of one search.
struct Search<'a> {
    options: &'a GenerationOptions,
    constraints: &'a Constraints,
    running: Vec<Running>,
    steps: Vec<Step>,
    /// Best first, at most `num_beams`.
    finished: Vec<Finished>,
    /// Whether a running beam may still beat the finished ones; once false it stays so.
    may_improve: bool,
}

pub(super) fn search<D: Decode>(
    decoder: &D,
    mut cache: D::Cache,
    options: &GenerationOptions,
    constraints: &Constraints,
) -> Result<Generated, GenerateError<D::Error>> {
    let start = Running {
        sequence: Sequence {
            tokens: vec![constraints.start()],
            last_step: None,
        },
        score: NOT_YET,
    };
    let mut running = vec![start; options.num_beams];
    running[0].score = 0.0;
    let mut search = Search {
        options,
        constraints,
        running,
        steps: Vec::new(),
        finished: Vec::new(),
        may_improve: true,
    };
    // All beams begin alike: the first step runs one row and serves them all.
    let (mut logits, next) = finite_logits(decoder, &[constraints.start()], &[], cache)?;
    cache = next;
    logits = logits.repeat(options.num_beams);
    let mut is_first = true;
    loop {
        let candidates = search.candidates(&mut logits);
        let (parents, is_over) = search.advance(&candidates);
        if is_over {
            return Ok(search.into_best());
        }
        let parents = if is_first {
            vec![0; parents.len()]
        } else {
            parents
        };
        is_first = false;
        let tokens: Vec<u32> = search
            .running
            .iter()
            .filter_map(|beam| beam.sequence.tokens.last().copied())
            .collect();
        (logits, cache) = finite_logits(decoder, &tokens, &parents, cache)?;
    }
}

impl Search<'_> {
    /// The 2K best continuations, best first. Works on the logits in place.
    fn candidates(&self, logits: &mut [f32]) -> Vec<Candidate> {
        let vocab = logits.len() / self.running.len();
        let mut best = Best::new(2 * self.options.num_beams);
        for (index, (beam, row)) in self
            .running
            .iter()
            .zip(logits.chunks_exact_mut(vocab))
            .enumerate()
        {
            log_softmax(row);
            self.constraints.apply(&beam.sequence.tokens, row);
            best.offer_row(index as u32, row, beam.score);
        }
        best.into_entries()
    }

    /// Takes one step. Returns the parents of the new running beams and whether the search is over.
    fn advance(&mut self, candidates: &[Candidate]) -> (Vec<u32>, bool) {
        let num_beams = self.options.num_beams;
        let length = self
            .running
            .first()
            .map_or(0, |beam| beam.sequence.tokens.len());
        let constraints = self.constraints;
        let ends = |candidate: &Candidate| constraints.ends(candidate.token, length + 1);

        let survivors: Vec<&Candidate> = candidates
            .iter()
            .filter(|c| !ends(c))
            .take(num_beams)
            .collect();
        let running = survivors
            .iter()
            .map(|candidate| Running {
                sequence: extended(&self.running, &mut self.steps, candidate),
                score: candidate.score,
            })
            .collect::<Vec<_>>();
        let parents = survivors.iter().map(|candidate| candidate.beam).collect();

        let is_full = self.finished.len() == num_beams;
        let is_closed =
            !self.may_improve || (is_full && self.options.early_stopping == EarlyStopping::True);
        if !is_closed {
            let divisor = normaliser(length, self.options.length_penalty);
            let complete: Vec<Finished> = candidates
                .iter()
                .take(num_beams)
                .filter(|candidate| ends(candidate))
                .map(|candidate| Finished {
                    sequence: extended(&self.running, &mut self.steps, candidate),
                    score: candidate.score / divisor,
                })
                .collect();
            for hypothesis in complete {
                let rank = self
                    .finished
                    .partition_point(|other| other.score >= hypothesis.score);
                self.finished.insert(rank, hypothesis);
                self.finished.truncate(num_beams);
            }
        }
        let all_ended = candidates.iter().all(ends);
        self.running = running;
        (parents, all_ended || self.is_over(length))
    }

    /// The stop test; `generated` is the number of tokens generated so far.
    fn is_over(&mut self, generated: usize) -> bool {
        if self.finished.len() < self.options.num_beams {
            return false;
        }
        let reach = match self.options.early_stopping {
            EarlyStopping::True => return true,
            EarlyStopping::Never if self.options.length_penalty > 0.0 => {
                self.constraints.max_length() - 1
            }
            EarlyStopping::Never | EarlyStopping::False => generated,
        };
        let best = self
            .running
            .first()
            .map_or(f32::NEG_INFINITY, |beam| beam.score);
        let worst = self
            .finished
            .last()
            .map_or(f32::NEG_INFINITY, |hypothesis| hypothesis.score);
        self.may_improve &= best / normaliser(reach, self.options.length_penalty) > worst;
        !self.may_improve
    }

    fn into_best(self) -> Generated {
        let best = self
            .finished
            .into_iter()
            .next()
            .map(|hypothesis| hypothesis.sequence);
        // Without a forced end, and with every ended candidate at a low rank, nothing may be finished.
        let Sequence { tokens, last_step } = best
            .or_else(|| self.running.into_iter().next().map(|beam| beam.sequence))
            .unwrap_or_default();
        let step_at = |at: Option<usize>| self.steps.get(at?).copied();
        let backwards = std::iter::successors(step_at(last_step), |step| step_at(step.before));
        let mut log_probabilities: Vec<f32> = backwards.map(|step| step.log_probability).collect();
        log_probabilities.reverse();
        Generated {
            token_ids: tokens,
            log_probabilities,
        }
    }
}

/// The sequence that a candidate makes of the beam it continues; its step is added to `steps`.
fn extended(running: &[Running], steps: &mut Vec<Step>, candidate: &Candidate) -> Sequence {
    let Sequence { tokens, last_step } = &running[candidate.beam as usize].sequence;
    let mut longer = Vec::with_capacity(tokens.len() + 1);
    longer.extend_from_slice(tokens);
    longer.push(candidate.token);
    steps.push(Step {
        log_probability: candidate.log_probability,
        before: *last_step,
    });
    Sequence {
        tokens: longer,
        last_step: Some(steps.len() - 1),
    }
}

/// `length ^ length_penalty`, formed in double precision and rounded once, as the reference does.
fn normaliser(length: usize, length_penalty: f32) -> f32 {
    (length as f64).powf(f64::from(length_penalty)) as f32
}
