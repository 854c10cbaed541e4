//! libFuzzer's end of `targets/jpeg.rs`.

#![no_main]

#[allow(dead_code, reason = "a part of it is for other tests")]
#[path = "../../it/support/fake_model.rs"]
mod fake_model;
#[path = "../targets/mod.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::named("jpeg")(data));
