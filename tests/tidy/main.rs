//! The rules of the house that a machine can check: who imports whom, sizes, words, and where `unsafe` and the wire
//! live.
//!
//! A rule that is broken names file and line and says why the rule is there. Each checker is tried on a text that
//! breaks its rule, so that a checker which finds nothing is known to look.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and the backtrace says where")]

mod graph;
mod manifest;
mod sources;
mod words;

use std::path::{Path, PathBuf};

/// The root of the repository.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// Fails with every finding at once, each on a line.
fn refuse(rule: &str, found: &[String]) {
    assert!(found.is_empty(), "{rule}\n  {}\n", found.join("\n  "));
}

/// Every Rust source of the workspace as path from the root and text, in order.
fn rust_sources() -> Vec<(String, String)> {
    let crates = ["query", "proto", "shm", "leaf", "aggregator", "cli", "tests", "benches"];
    let mut open: Vec<PathBuf> = crates.iter().map(|name| root().join(name)).collect();
    let mut sources = Vec::new();
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{directory:?}: {error}")) {
            let path = entry.unwrap().path();
            if path.is_dir() && path.file_name() != Some("target".as_ref()) {
                open.push(path);
            } else if path.extension() == Some("rs".as_ref()) {
                let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
                sources.push((name, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    sources.sort();
    assert!(sources.len() > 50, "only {} sources found: the walk is broken", sources.len());
    sources
}

/// The lines of a source that ship: without `#[cfg(test)] mod … { … }` at its end, and nothing of a test file.
fn shipped(path: &str, text: &str) -> usize {
    if is_test(path) {
        return 0;
    }
    text.lines().position(|line| line.trim_end() == "#[cfg(test)]").unwrap_or(text.lines().count())
}

/// Files that only tests are made of.
fn is_test(path: &str) -> bool {
    path.starts_with("tests/") || path.ends_with("/tests.rs") || path.contains("/tests/")
}

#[test]
fn tests_are_told_from_what_ships() {
    assert_eq!(shipped("leaf/src/a.rs", "one\ntwo\n#[cfg(test)]\nmod tests {\n}\n"), 2);
    assert_eq!(shipped("leaf/src/a.rs", "one\ntwo\n"), 2);
    assert_eq!(shipped("leaf/src/a/tests.rs", "one\ntwo\n"), 0);
}
