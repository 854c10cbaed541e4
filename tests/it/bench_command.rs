//! `bench` as a person starts it, with the demo checkpoint: the contract of the JSON, the page, the
//! table, and exit codes.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

/// The quickest measurement that still has two of everything.
const QUICK: [&str; 6] = ["--new-tokens", "5", "--runs", "2", "--num-beams", "2"];

fn bench(args: &[&str]) -> Output {
    bench_with(args, &[])
}

fn bench_with(args: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_florence2-server"))
        .arg("bench")
        .args(args)
        .env("HF_HUB_OFFLINE", "1")
        .env_remove("FLORENCE2_MODEL")
        .env_remove("FLORENCE2_INSTRUCTIONS")
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

fn keys(object: &Value) -> Vec<&str> {
    object
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

/// What holds of any case, whatever the machine.
fn check_case(case: &Value) {
    assert_eq!(
        keys(case),
        [
            "batch",
            "concurrency",
            "num_beams",
            "new_tokens",
            "vision_ms",
            "encoder_ms",
            "prefill_ms",
            "decode_ms_per_token",
            "end_to_end_ms",
            "images_per_second",
            "tokens_per_second",
            "load_ms",
            "peak_rss_bytes",
            "device_memory_bytes"
        ]
    );
    for spread in [
        "vision_ms",
        "encoder_ms",
        "prefill_ms",
        "decode_ms_per_token",
        "end_to_end_ms",
    ] {
        assert_eq!(keys(&case[spread]), ["p50", "p90", "min"], "{spread}");
        let at = |key: &str| case[spread][key].as_f64().unwrap();
        assert!(0.0 < at("min") && at("min") <= at("p50"), "{case}");
        assert!(at("p50") <= at("p90"), "{case}");
    }
    assert!(case["images_per_second"].as_f64().unwrap() > 0.0);
    assert!(case["load_ms"].as_f64().unwrap() > 0.0);
    // The demo's weights alone are megabytes.
    assert!(case["peak_rss_bytes"].as_u64().unwrap() > 10 << 20);
    assert_eq!(
        (
            &case["new_tokens"],
            &case["num_beams"],
            &case["device_memory_bytes"]
        ),
        (&json!(5), &json!(2), &Value::Null)
    );
}

#[test]
fn the_json_has_every_key_of_the_contract_in_order_and_the_page_stands_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (json, html) = (folder.path().join("a.json"), folder.path().join("a.html"));
    let picture = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo/examples/portrait.png");
    let files = [
        "--json",
        json.to_str().unwrap(),
        "--html",
        html.to_str().unwrap(),
        "--image",
        picture.to_str().unwrap(),
    ];
    let model = ["--model", "demo", "--device", "cpu", "--dtype", "f32"];
    let cases = ["--batch", "1,2", "--concurrency", "1,2"];
    let output = bench(&[&model[..], &QUICK, &cases, &files].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");

    let report: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert_eq!(
        keys(&report),
        [
            "machine",
            "model",
            "dtype",
            "device",
            "threads",
            "instructions",
            "cases"
        ]
    );
    let machine = &report["machine"];
    assert_eq!(
        keys(machine),
        [
            "processor",
            "cores_used",
            "memory_bytes",
            "device_name",
            "driver"
        ]
    );
    assert!(!machine["processor"].as_str().unwrap().is_empty());
    assert!(machine["cores_used"].as_u64() <= report["threads"].as_u64());
    assert_eq!(
        (
            &report["model"],
            &report["device"],
            &report["dtype"],
            &machine["driver"]
        ),
        (&json!("demo"), &json!("cpu"), &json!("f32"), &Value::Null)
    );
    let cases = report["cases"].as_array().unwrap();
    let pairs: Vec<_> = cases
        .iter()
        .map(|case| (case["batch"].as_u64(), case["concurrency"].as_u64()))
        .collect();
    let expected = [(1, 1), (1, 2), (2, 1), (2, 2)];
    assert_eq!(
        pairs,
        expected.map(|(batch, callers)| (Some(batch), Some(callers)))
    );
    for case in cases {
        check_case(case);
    }
    // One picture after the other: two of a call, or of two callers, wait for each other.
    let end_to_end = |case: usize| cases[case]["end_to_end_ms"]["min"].as_f64().unwrap();
    let alone = cases[3]["vision_ms"]["min"].as_f64().unwrap();
    assert!(end_to_end(3) > 2.0 * alone, "{report:#}");

    let page = std::fs::read_to_string(&html).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.contains("<svg"));
    assert!(!page.contains("http"), "the page names nothing outside");
    let table = String::from_utf8(output.stdout).unwrap();
    let rows = table
        .lines()
        .filter(|line| line.ends_with(|c: char| c.is_ascii_digit()));
    assert_eq!(rows.count(), 4, "{table}");
}

#[test]
fn wrong_usage_is_2_and_what_cannot_run_is_1_with_a_sentence() {
    for args in [
        &["--model", "demo", "--random", "base"][..],
        &["--random", "huge"],
        &["--model", "demo", "--runs", "0"],
        &["--model", "demo", "--batch", "1,0"],
        &["--model", "demo", "--concurrency", ""],
        &["--model", "demo", "--new-tokens", "0"],
        &["--model", "demo", "--instructions", "avx3"],
        &["--model", "demo", "picture.png"],
    ] {
        let output = bench(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(output.stdout.is_empty());
    }
    for (args, named) in [
        (
            &["--model", "demo", "--new-tokens", "4096"][..],
            "--new-tokens",
        ),
        (
            &["--model", "demo", "--image", "no-such.png"],
            "no-such.png",
        ),
        (
            &["--model", "demo", "--json", "no/such/folder.json"],
            "no/such/folder.json",
        ),
        (&["--model", "no/such/folder"], "no/such/folder"),
    ] {
        let output = bench(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {stderr}");
        assert!(
            stderr.starts_with("error: ") && stderr.contains(named),
            "{stderr}"
        );
        assert_eq!(stderr.trim_end().lines().count(), 1, "{stderr}");
    }
}

#[test]
fn outputs_that_name_one_file_are_wrong_usage() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("below")).unwrap();
    for (json, html) in [("a", "a"), ("a", "./a"), ("below/../a", "a")] {
        let output = Command::new(env!("CARGO_BIN_EXE_florence2-server"))
            .args(["bench", "--model", "demo", "--json", json, "--html", html])
            .current_dir(folder.path())
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{html}: {stderr}");
        let said = stderr.contains("--json and --html name one file");
        assert!(said && output.stdout.is_empty(), "{stderr}");
        assert!(!folder.path().join("a").exists());
    }
}

#[cfg(target_os = "linux")]
#[test]
fn figures_are_printed_though_a_file_of_them_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let html = folder.path().join("a.html");
    let files = ["--json", "/dev/full", "--html", html.to_str().unwrap()];
    let output = bench(&[&["--model", "demo"][..], &QUICK, &files].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("--json: cannot write /dev/full"),
        "{stderr}"
    );
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("pictures/s"), "{table}");
    let page = std::fs::read_to_string(&html).unwrap();
    assert!(page.contains("<svg"), "{page}");
}

#[test]
fn instructions_are_forced_by_flag_or_variable_and_others_are_refused() {
    let portable = "no vector instructions that are known";
    let quick = [&["--model", "demo", "--dtype", "int8"][..], &QUICK].concat();
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let by_flag = bench(&[&quick[..], &["--instructions", "portable", "--json", path]].concat());
    let by_variable = bench_with(&quick, &[("FLORENCE2_INSTRUCTIONS", "portable")]);
    for output in [by_flag, by_variable] {
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        let table = String::from_utf8(output.stdout).unwrap();
        assert!(table.contains(portable), "{table}");
    }
    let report: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(report["instructions"], "portable");
    // No machine has both.
    let foreign = if cfg!(target_arch = "x86_64") {
        "neon"
    } else {
        "avx2"
    };
    for (set, named) in [("avx3", "unknown instructions"), (foreign, foreign)] {
        let output = bench(&[&quick[..], &["--instructions", set]].concat());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(
            stderr.contains(named) && stderr.contains("portable"),
            "{stderr}"
        );
    }
}
