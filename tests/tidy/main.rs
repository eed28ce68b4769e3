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
use std::sync::LazyLock;

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
    let crates = ["query", "proto", "shm", "leaf", "aggregator", "client", "cli", "tests", "benches"];
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

/// How many lines of a source ship: none of a test file, and of others all above `#[cfg(test)] mod … {` at the end.
fn shipped(path: &str, text: &str) -> usize {
    if is_test(path) {
        return 0;
    }
    let lines: Vec<&str> = text.lines().collect();
    let tests = lines.windows(2).position(|pair| pair[0] == "#[cfg(test)]" && opens_a_module(pair[1]));
    tests.unwrap_or(lines.len())
}

fn opens_a_module(line: &str) -> bool {
    line.contains("mod ") && line.ends_with('{')
}

/// Files that only tests are made of: by their place, or because the file that names them says so.
fn is_test(path: &str) -> bool {
    static DECLARED: LazyLock<Vec<String>> =
        LazyLock::new(|| rust_sources().iter().flat_map(|(path, text)| test_modules(path, text)).collect());
    path.starts_with("tests/")
        || path.ends_with("/tests.rs")
        || path.contains("/tests/")
        || DECLARED.iter().any(|file| file == path)
}

/// The files of the modules that a source declares for tests only.
fn test_modules(path: &str, text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
    let folder = match file {
        "lib.rs" | "main.rs" | "mod.rs" => folder.to_owned(),
        other => format!("{folder}/{}", other.trim_end_matches(".rs")),
    };
    let declared = lines.windows(2).filter(|pair| pair[0] == "#[cfg(test)]" && pair[1].ends_with(';'));
    let names = declared.filter_map(|pair| pair[1].split("mod ").nth(1));
    names.map(|name| format!("{folder}/{}.rs", name.trim_end_matches(';'))).collect()
}

#[test]
fn tests_are_told_from_what_ships() {
    assert_eq!(shipped("leaf/src/a.rs", "one\ntwo\n#[cfg(test)]\nmod tests {\n}\n"), 2);
    assert_eq!(shipped("leaf/src/a.rs", "one\n#[cfg(test)]\nmod fakes;\ntwo\n"), 4);
    assert_eq!(shipped("leaf/src/a/tests.rs", "one\ntwo\n"), 0);
    assert_eq!(
        test_modules("leaf/src/lib.rs", "mod a;\n#[cfg(test)]\npub(crate) mod b;\n"),
        ["leaf/src/b.rs"]
    );
    assert_eq!(test_modules("leaf/src/a.rs", "#[cfg(test)]\nmod b;\n"), ["leaf/src/a/b.rs"]);
}
