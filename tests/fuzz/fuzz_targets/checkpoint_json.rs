//! libFuzzer's end of `targets/checkpoints.rs`.

#![no_main]

#[allow(dead_code, reason = "a part of it is for other tests")]
#[path = "../../it/support/fake_model.rs"]
mod fake_model;
#[path = "../targets/mod.rs"]
mod targets;

// libFuzzer's own hook ends the process at a panic that the program catches.
libfuzzer_sys::fuzz_target!(
    init: drop(std::panic::take_hook()),
    |data: &[u8]| targets::named("checkpoint_json")(data)
);
