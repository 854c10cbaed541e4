//! The fuzz targets over their kept corpus and over a few thousand changes of it, in the ordinary
//! build: no coverage leads the way, so this finds what is near a known input. The long search is
//! libFuzzer's (`tests/fuzz/README.md`).
//!
//! The changes come from a fixed seed: a failure happens again, and its input is printed.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use targets::{TARGETS, Target};

use crate::support::fake_model;

#[path = "../fuzz/targets/mod.rs"]
mod targets;

/// Changed inputs for each target, and the time after which it is enough on a slow machine.
const MAX_CHANGED: usize = 20_000;
const MAX_TIME: Duration = Duration::from_secs(4);

/// Longest input that is changed; libFuzzer is told the same.
const MAX_BYTES: usize = 4096;

/// A small generator of numbers (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap()
    }
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    let mut paths: Vec<_> = fs::read_dir(folder.join(name))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    let inputs: Vec<_> = paths
        .into_iter()
        .map(|path| fs::read(path).unwrap())
        .collect();
    assert!(inputs.len() >= 8, "{name} has a corpus");
    inputs
}

/// An input with one to four changes: bytes set, removed, doubled, or taken from another input.
fn changed(input: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        let length = random.below(17).min(bytes.len() - at);
        match random.below(5) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = [0, 0xff, b'\n', b'"', b'%'][random.below(5)],
            2 => drop(bytes.drain(at..at + length)),
            3 => {
                let doubled = bytes[at..at + length].to_vec();
                bytes.splice(at..at, doubled);
            }
            _ => {
                let from = random.below(other.len() + 1);
                let piece = other[from..].iter().take(random.below(65)).copied();
                bytes.splice(at..at + length, piece);
            }
        }
    }
    bytes.truncate(MAX_BYTES);
    bytes
}

#[allow(clippy::print_stderr, reason = "the input is what a failure is about")]
fn run(target: &Target, input: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.run)(input))) {
        eprintln!("{} fails with {}", target.name, input.escape_ascii());
        resume_unwind(panic);
    }
}

fn search(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let inputs = corpus(name);
    inputs.iter().for_each(|input| run(target, input));
    let (begun, mut random) = (Instant::now(), Random(0x5eed));
    let mut tried = 0;
    while tried < MAX_CHANGED && begun.elapsed() < MAX_TIME {
        let input = &inputs[random.below(inputs.len())];
        let other = &inputs[random.below(inputs.len())];
        run(target, &changed(input, other, &mut random));
        tried += 1;
    }
    println!("{name}: {} kept and {tried} changed inputs", inputs.len());
}

#[test]
fn any_request_is_answered_in_its_envelope() {
    search("requests");
}

#[test]
fn any_url_and_rule_keep_metadata_closed() {
    search("urls");
}

#[test]
fn any_text_of_a_model_is_read() {
    search("answers");
}

#[test]
fn any_picture_file_keeps_to_the_limits() {
    search("pictures");
}

#[test]
fn any_weight_file_is_read_or_refused() {
    search("weights");
}

#[test]
fn any_settings_file_of_a_checkpoint_is_read_or_refused() {
    search("checkpoint_json");
}

#[test]
fn any_jpeg_cut_anywhere_is_refused_or_the_whole_picture() {
    search("jpeg");
}
