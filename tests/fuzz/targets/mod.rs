//! Functions that must hold for any bytes: what is fuzzed, by libFuzzer (`tests/fuzz/fuzz_targets`)
//! and, for a few seconds, by the ordinary tests (`tests/it/fuzz.rs`).
//!
//! Each takes bytes and panics when something that the program promises is not so: a panic inside,
//! an answer without its envelope, a permitted address that is none, a finding that is no number.
//! They are compiled into both, which bring the model that does what it is told (`fake_model`).

mod answers;
mod checkpoints;
mod jpeg;
mod pictures;
mod requests;
mod urls;

/// A function to fuzz, and the folder of its corpus.
pub(crate) struct Target {
    /// Its name, also that of the folder below `corpus`.
    pub(crate) name: &'static str,
    /// Takes any bytes; panics on a broken promise.
    pub(crate) run: fn(&[u8]),
}

/// All of them.
pub(crate) const TARGETS: [Target; 7] = [
    Target {
        name: "requests",
        run: requests::run,
    },
    Target {
        name: "urls",
        run: urls::run,
    },
    Target {
        name: "answers",
        run: answers::run,
    },
    Target {
        name: "pictures",
        run: pictures::run,
    },
    Target {
        name: "weights",
        run: checkpoints::weights,
    },
    Target {
        name: "checkpoint_json",
        run: checkpoints::checkpoint_json,
    },
    Target {
        name: "jpeg",
        run: jpeg::run,
    },
];

/// The function of this name.
#[allow(dead_code, reason = "the ordinary tests run all of them")]
pub(crate) fn named(name: &str) -> fn(&[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    target.expect("a target of this name").run
}
