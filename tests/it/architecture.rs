//! Who may import whom: the table of the design, checked against the `use crate::` lines of `src`.
//!
//! Each row says what a room may name; everything else is forbidden. A failure names the rule. Test
//! modules at the bottom of a file are not held to it: they may build what they test.

use std::fs;
use std::path::{Path, PathBuf};

/// A room, and what it may name. `room` allows the whole room, `room::part` only that part of it.
const MAY_USE: [(&str, &[&str]); 16] = [
    ("main", &["cli"]),
    ("telemetry", &["config", "contained"]),
    (
        "cli",
        &[
            "config",
            "contained",
            "florence2",
            "engine",
            "image_io",
            "fal",
            "files",
            "pipeline",
            "queue",
            "semaphore",
            "server",
            "telemetry",
        ],
    ),
    (
        "server",
        &[
            "config",
            "fal",
            "files",
            "pipeline",
            "queue",
            "semaphore",
            "telemetry",
        ],
    ),
    (
        "queue",
        &[
            "config",
            "fal",
            "image_io::guard",
            "image_io::fetch",
            "semaphore",
            "telemetry",
        ],
    ),
    (
        "pipeline",
        &[
            "annotate",
            "config",
            "fal",
            "files",
            "image_io",
            "semaphore",
            "engine",
            "florence2::task",
            "florence2::answer",
            "florence2::prompt",
            "florence2::processor",
            "florence2::postprocess",
            "florence2::generate",
        ],
    ),
    ("engine", &["config", "florence2", "telemetry"]),
    ("florence2", &["contained"]),
    ("annotate", &["florence2::answer"]),
    // It implements the trait through which pictures are read from it.
    ("files", &["config", "image_io"]),
    ("image_io", &["config", "semaphore", "telemetry"]),
    ("semaphore", &[]),
    ("fal", &[]),
    ("config", &[]),
    ("contained", &[]),
    ("lib", &[]),
];

/// A word that may stand only in these files or folders, and why.
const ONLY_IN: [(&str, &[&str], &str); 9] = [
    (
        "StatusCode",
        &["server/"],
        "status codes belong to server alone",
    ),
    ("axum::", &["server/"], "HTTP belongs to server alone"),
    (
        "candle_core",
        &["engine/", "florence2/"],
        "the device belongs to the model",
    ),
    (
        "candle_nn",
        &["engine/", "florence2/"],
        "the device belongs to the model",
    ),
    (
        "reqwest",
        &[
            "image_io/egress.rs",
            "image_io/fetch.rs",
            "cli/fetch_model/",
            "cli/client_env/probe.rs",
        ],
        "outgoing connections are opened by image_io::egress and fetch, the model download and the look for one's own server alone",
    ),
    (
        "sqlx::",
        &["queue/sqlite/"],
        "the database belongs to the queue's store alone",
    ),
    (
        "hf_hub::",
        &["cli/fetch_model/"],
        "the hub is asked only by the command line",
    ),
    (
        "std::env::var",
        &["cli/", "allocator.rs"],
        "settings come in through flags",
    ),
    (
        "unsafe ",
        &["florence2/kernels", "allocator.rs"],
        "unsafe code belongs to the kernels and the allocator's numbers",
    ),
];

fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &mut found);
    assert!(
        found.len() > 30,
        "only {} source files were found",
        found.len()
    );
    found
        .into_iter()
        .map(|path| {
            let name = path
                .strip_prefix(&root)
                .unwrap()
                .to_string_lossy()
                .replace('\\', "/");
            (name, code_of(&fs::read_to_string(path).unwrap()))
        })
        .collect()
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|it| it == "rs") && !path.ends_with("tests.rs") {
            found.push(path);
        }
    }
}

/// A file without its comments and its test module.
fn code_of(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap();
    let lines = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    lines.map(|line| format!("{line}\n")).collect()
}

/// The room that a file belongs to.
fn room_of(file: &str) -> &str {
    let first = file.split('/').next().unwrap();
    first.strip_suffix(".rs").unwrap_or(first)
}

/// Everything that stands behind `crate::` in a file, as `room::part`.
fn named_in(code: &str) -> Vec<String> {
    let mut named = Vec::new();
    for rest in code.split("crate::").skip(1) {
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
        let path = rest[..end.unwrap_or(rest.len())].trim_end_matches(':');
        match rest
            .strip_prefix('{')
            .and_then(|list| list.split_once("};"))
        {
            Some((list, _)) => named.extend(list.split(',').map(|item| item.trim().to_owned())),
            // Macros and the like are written as crate::name!().
            None => named.push(path.to_owned()),
        }
    }
    named.retain(|path| !path.is_empty());
    named
}

fn is_allowed(room: &str, path: &str) -> bool {
    let (_, allowed) = MAY_USE
        .iter()
        .find(|(name, _)| *name == room)
        .unwrap_or_else(|| panic!("the room {room} has no row in the table of who may use whom"));
    path.split("::").next() == Some(room)
        || allowed
            .iter()
            .any(|entry| path == *entry || path.starts_with(&format!("{entry}::")))
}

#[test]
fn every_room_names_only_what_its_row_allows() {
    let mut wrong = Vec::new();
    for (file, code) in sources() {
        let room = room_of(&file);
        for path in named_in(&code) {
            if !is_allowed(room, &path) {
                wrong.push(format!("{file}: `{room}` may not use `{path}`"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn some_words_stand_in_one_place_only() {
    let mut wrong = Vec::new();
    for (file, code) in sources() {
        for (word, places, rule) in ONLY_IN {
            let is_home = places.iter().any(|place| file.starts_with(place));
            if !is_home && code.contains(word) {
                wrong.push(format!("{file}: names `{word}`, but {rule}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_model_is_synchronous_and_the_wire_shapes_are_plain() {
    let mut wrong = Vec::new();
    for (file, code) in sources() {
        let forbidden: &[&str] = match room_of(&file) {
            "florence2" => &["tokio", "async ", "Instant::now", "SystemTime", "mpsc"],
            "fal" | "config" => &["tokio", "async ", "candle", "Instant::now"],
            _ => &[],
        };
        for word in forbidden {
            if code.contains(word) {
                wrong.push(format!("{file}: `{word}` has no place in this room"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_checks_above_see_what_they_look_for() {
    let named = named_in("use crate::florence2::bart;\nuse crate::{engine::Engine, fal};\n");
    assert_eq!(named, ["florence2::bart", "engine::Engine", "fal"]);
    assert!(!is_allowed("pipeline", "florence2::bart"));
    assert!(is_allowed("pipeline", "florence2::task::Task"));
    assert!(!is_allowed("fal", "pipeline"));
    assert!(is_allowed("fal", "fal::error"));
    assert_eq!(
        code_of("a\n// StatusCode\nb\n#[cfg(test)]\nmod tests {\nStatusCode\n"),
        "a\nb\n"
    );
}

#[test]
fn every_test_that_the_security_page_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("src/docs/security.md")).unwrap();
    let mut paths = Vec::new();
    walk(&root.join("src"), &mut paths);
    walk(&root.join("tests/it"), &mut paths);
    // Unit tests in files of their own are left out by the walk.
    paths.push(root.join("src/files/tests.rs"));
    let texts: Vec<String> = paths
        .iter()
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    // Whatever stands between back quotes and is a path of names; an ellipsis stands for several.
    let quoted = page.split('`').skip(1).step_by(2);
    let named: Vec<&str> = quoted
        .filter(|text| text.contains("::") && !text.ends_with('…'))
        .filter_map(|text| text.rsplit("::").next())
        .collect();
    assert!(named.len() > 40, "the page names its tests");
    for name in named {
        let definition = format!("fn {name}(");
        let exists = texts.iter().any(|text| text.contains(&definition));
        assert!(exists, "no test is called {name}");
    }
}
