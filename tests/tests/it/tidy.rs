//! Rules about the sources that no compiler checks.

use std::fs;
use std::path::{Path, PathBuf};

use tests::repository;

/// All `.rs` files below a folder, with their text.
fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("the folder can be read").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            found.extend(sources(&path));
        } else if name.ends_with(".rs") {
            let text = fs::read_to_string(&path).expect("sources are text");
            found.push((path, text));
        }
    }
    found
}

/// A file without its unit tests, which stand at its end, and without comments.
fn code(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// No file of the host but those below `allowed` may contain `words`.
#[track_caller]
fn only_in(words: &str, allowed: &[&str]) {
    let host = repository().join("host/src");
    for (path, text) in sources(&host) {
        let place = path.strip_prefix(&host).expect("it lies there").to_string_lossy().into_owned();
        let is_test = place.ends_with("tests.rs") || place.contains("/tests/") || place == "sandbox/hunt.rs";
        if !is_test && !allowed.iter().any(|allowed| place.starts_with(allowed)) {
            assert!(!code(&text).contains(words), "host/src/{place}: {words} belongs in {allowed:?}");
        }
    }
}

#[test]
fn every_source_says_what_it_is_for() {
    let all = sources(&repository());
    assert!(all.len() > 50, "the sources are found");
    for (path, text) in all {
        assert!(text.starts_with("//!"), "{} does not begin with //!", path.display());
    }
}

#[test]
fn wasmtime_is_named_only_where_guests_run_and_are_compiled() {
    only_in("wasmtime::", &["sandbox/", "guest/", "deploy/"]);
    only_in("wasmtime_wasi::", &["sandbox/", "guest/", "deploy/"]);
}

#[test]
fn the_environment_is_read_only_at_the_edge() {
    only_in("env::var", &["main.rs", "config/", "cli/"]);
}

#[test]
fn the_host_does_not_unwrap() {
    only_in(".unwrap()", &[]);
}
