//! The search over invented logits, checked against exhaustive enumeration and hand-worked cases.

use super::*;

/// A decoder whose logits depend on the whole sequence through a table of pseudo-random numbers.
struct Table {
    vocab: usize,
    seed: u64,
}

impl Table {
    fn logits(&self, sequence: &[u32]) -> Vec<f32> {
        let mut state = self.seed;
        for token in sequence {
            state = (state ^ u64::from(*token))
                .wrapping_mul(0x0100_0000_01B3)
                .rotate_left(17)
                ^ 0x9E37;
        }
        (0..self.vocab as u64)
            .map(|token| {
                let mut x = state ^ token.wrapping_mul(0x9E37_79B9_7F4A_7C15);
                x ^= x >> 31;
                x = x.wrapping_mul(0xBF58_476D_1CE4_E5B9);
                x ^= x >> 29;
                (x % 10_000) as f32 / 2_000.0
            })
            .collect()
    }
}

impl Decode for Table {
    type Cache = Vec<Vec<u32>>;
    type Error = std::convert::Infallible;

    fn next_logits(
        &self,
        tokens: &[u32],
        parents: &[u32],
        cache: Self::Cache,
    ) -> Result<(Vec<f32>, Self::Cache), Self::Error> {
        let sequences: Vec<Vec<u32>> = tokens
            .iter()
            .enumerate()
            .map(|(i, token)| {
                let mut sequence = parents
                    .get(i)
                    .map_or(Vec::new(), |p| cache[*p as usize].clone());
                sequence.push(*token);
                sequence
            })
            .collect();
        Ok((
            sequences
                .iter()
                .flat_map(|sequence| self.logits(sequence))
                .collect(),
            sequences,
        ))
    }
}

const SPECIAL: SpecialTokens = SpecialTokens {
    decoder_start_token_id: 2,
    eos_token_id: 2,
    forced_bos_token_id: Some(0),
    forced_eos_token_id: Some(2),
};

fn options(num_beams: usize, max_new_tokens: usize) -> GenerationOptions {
    GenerationOptions {
        num_beams,
        max_new_tokens,
        min_new_tokens: 0,
        length_penalty: 1.0,
        early_stopping: EarlyStopping::Never,
        no_repeat_ngram_size: 0,
    }
}

fn run(table: &Table, options: &GenerationOptions) -> Vec<u32> {
    generate(table, Vec::new(), options, &SPECIAL)
        .unwrap()
        .token_ids
}

/// The best complete sequence over all sequences, by the same score.
fn exhaustive(table: &Table, max_new_tokens: usize) -> Vec<u32> {
    let constraints = Constraints::new(&options(1, max_new_tokens), &SPECIAL);
    let mut open = vec![(vec![2u32], 0.0f32)];
    let mut best = (Vec::new(), f32::NEG_INFINITY);
    while let Some((sequence, score)) = open.pop() {
        let mut row = table.logits(&sequence);
        crate::florence2::kernels::log_softmax(&mut row);
        constraints.apply(&sequence, &mut row);
        for (token, log_probability) in row.iter().enumerate().filter(|(_, p)| p.is_finite()) {
            let mut longer = sequence.clone();
            longer.push(token as u32);
            let sum = score + log_probability;
            if constraints.ends(token as u32, longer.len()) {
                let normalised = sum / (longer.len() - 1) as f32;
                if normalised > best.1 {
                    best = (longer, normalised);
                }
            } else {
                open.push((longer, sum));
            }
        }
    }
    best.0
}

#[test]
fn wide_enough_beams_find_the_best_of_all_sequences() {
    for seed in 1..40 {
        let table = Table { vocab: 5, seed };
        assert_eq!(
            run(&table, &options(200, 5)),
            exhaustive(&table, 5),
            "seed {seed}"
        );
    }
}

#[test]
fn one_beam_takes_the_largest_logit_at_each_step() {
    for seed in 1..40 {
        let table = Table { vocab: 7, seed };
        let answer = run(&table, &options(1, 12));
        assert_eq!(answer[..2], [2, 0]);
        for end in 2..answer.len() {
            let expected = if end + 1 == 13 {
                2
            } else {
                candidates::argmax(&table.logits(&answer[..end]))
            };
            assert_eq!(answer[end], expected);
        }
        assert_eq!(answer.last(), Some(&2));
    }
}

/// The constrained log-probability of every token of a sequence, found by walking along it.
fn replayed(table: &Table, options: &GenerationOptions, token_ids: &[u32]) -> Vec<f32> {
    let constraints = Constraints::new(options, &SPECIAL);
    (1..token_ids.len())
        .map(|end| {
            let mut row = table.logits(&token_ids[..end]);
            if options.num_beams == 1 {
                constraints.apply(&token_ids[..end], &mut row);
                log_softmax_at(&row, token_ids[end] as usize)
            } else {
                crate::florence2::kernels::log_softmax(&mut row);
                constraints.apply(&token_ids[..end], &mut row);
                row[token_ids[end] as usize]
            }
        })
        .collect()
}

#[test]
fn every_token_comes_with_its_own_log_probability() {
    let mut had_company = 0;
    for num_beams in [1, 2, 3, 5] {
        for early_stopping in [
            EarlyStopping::True,
            EarlyStopping::False,
            EarlyStopping::Never,
        ] {
            for seed in 1..40 {
                let table = Table { vocab: 6, seed };
                let options = GenerationOptions {
                    early_stopping,
                    no_repeat_ngram_size: 3,
                    ..options(num_beams, 15)
                };
                let found = generate(&table, Vec::new(), &options, &SPECIAL).unwrap();
                let expected = replayed(&table, &options, &found.token_ids);
                assert_eq!(
                    found.log_probabilities, expected,
                    "{num_beams} beams, seed {seed}"
                );
                assert_eq!(expected.first(), Some(&0.0), "the first token is forced");
                let is_choice = |p: &&f32| **p < 0.0 && p.is_finite();
                had_company += expected.iter().filter(is_choice).count();
            }
        }
    }
    assert!(had_company > 1000, "only {had_company} tokens were choices");
}

#[test]
fn nothing_generated_has_no_log_probabilities() {
    let table = Table { vocab: 6, seed: 1 };
    let found = generate(&table, Vec::new(), &options(3, 0), &SPECIAL).unwrap();
    assert!(found.log_probabilities.is_empty());
}

#[test]
fn no_ngram_occurs_twice() {
    for num_beams in [1, 3] {
        for seed in 1..20 {
            let table = Table { vocab: 4, seed };
            let answer = run(
                &table,
                &GenerationOptions {
                    no_repeat_ngram_size: 2,
                    ..options(num_beams, 40)
                },
            );
            let body = &answer[..answer.len() - 1];
            let mut pairs: Vec<_> = body.windows(2).collect();
            pairs.sort_unstable();
            pairs.dedup();
            assert_eq!(pairs.len(), body.len() - 1, "{answer:?}");
        }
    }
}

#[test]
fn lengths_are_forced_exactly() {
    for num_beams in [1, 2, 3, 5] {
        for length in [1, 2, 3, 17] {
            let table = Table { vocab: 9, seed: 5 };
            let exact = GenerationOptions {
                min_new_tokens: length,
                ..options(num_beams, length)
            };
            let answer = run(&table, &exact);
            assert_eq!(answer.len(), length + 1);
            assert_eq!(answer.last(), Some(&2));
            assert!(!answer[1..length].contains(&2));
        }
    }
    assert_eq!(run(&Table { vocab: 9, seed: 5 }, &options(3, 0)), [2]);
}

#[test]
fn early_stopping_ends_with_the_first_full_set_of_hypotheses() {
    // Token 2 always second best: with early stopping the search ends as soon as enough beams ended.
    let table = Table { vocab: 6, seed: 11 };
    let eager = run(
        &table,
        &GenerationOptions {
            early_stopping: EarlyStopping::True,
            ..options(3, 30)
        },
    );
    let patient = run(&table, &options(3, 30));
    assert!(eager.len() <= patient.len());
}

#[test]
fn ties_go_to_the_lower_index() {
    let mut best = candidates::Best::new(3);
    best.offer_row(0, &[1.0, 2.0, 2.0], 0.0);
    best.offer_row(1, &[2.0, 2.0, 3.0], 0.0);
    let order: Vec<(u32, u32)> = best
        .into_entries()
        .iter()
        .map(|c| (c.beam, c.token))
        .collect();
    assert_eq!(order, [(1, 2), (0, 1), (0, 2)]);
}

#[test]
fn the_best_are_those_of_the_sorted_table() {
    for (beams, vocab, capacity) in [(1, 3, 6), (3, 51, 6), (3, 1000, 6), (5, 700, 10)] {
        let table = Table { vocab, seed: 7 };
        let offsets: Vec<f32> = (0..beams).map(|beam| beam as f32 * -0.25).collect();
        let rows: Vec<Vec<f32>> = (0..beams as u32)
            .map(|beam| {
                // Few different values, so that most of the best are ties; some are forbidden.
                let coarse = |logit: f32| (logit * 4.0).floor() / 4.0;
                let logits = table.logits(&[beam]).into_iter().map(coarse);
                let forbidden = |logit: f32| {
                    if logit < 1.0 {
                        f32::NEG_INFINITY
                    } else {
                        logit
                    }
                };
                logits.map(forbidden).collect()
            })
            .collect();
        let mut best = candidates::Best::new(capacity);
        let mut all = Vec::new();
        for (beam, (row, offset)) in (0..).zip(rows.iter().zip(&offsets)) {
            best.offer_row(beam, row, *offset);
            let entries = (0..).zip(row).map(|(token, p)| (p + offset, beam, token));
            all.extend(entries);
        }
        // Stable: ties stay in the order of beams and tokens.
        all.sort_by(|a, b| b.0.total_cmp(&a.0));
        all.truncate(capacity);
        let found: Vec<(f32, u32, u32)> = best
            .into_entries()
            .iter()
            .map(|c| (c.score, c.beam, c.token))
            .collect();
        assert_eq!(found, all, "{beams} rows of {vocab}");
    }
}

/// A table with one logit that is no number, from the step on at which a sequence has this many tokens.
struct Broken {
    table: Table,
    from: usize,
    value: f32,
}

impl Decode for Broken {
    type Cache = Vec<Vec<u32>>;
    type Error = std::convert::Infallible;

    fn next_logits(
        &self,
        tokens: &[u32],
        parents: &[u32],
        cache: Self::Cache,
    ) -> Result<(Vec<f32>, Self::Cache), Self::Error> {
        let (mut logits, sequences) = self.table.next_logits(tokens, parents, cache)?;
        if sequences[0].len() >= self.from {
            let last = logits.len() - 1;
            logits[last] = self.value;
        }
        Ok((logits, sequences))
    }
}

#[test]
fn one_logit_that_is_no_number_ends_the_search() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for num_beams in [1, 3] {
            // At a forced step too: what is forced was not computed.
            for from in [1, 2, 3] {
                let table = Table { vocab: 40, seed: 5 };
                let decoder = Broken { table, from, value };
                let found = generate(&decoder, Vec::new(), &options(num_beams, 8), &SPECIAL);
                assert_eq!(
                    found,
                    Err(GenerateError::NotFinite),
                    "{value}, {num_beams} beams, from {from}"
                );
            }
        }
    }
}
