//! The root manifest: lints that carry the rules of the house, and a reason for each dependency.

use crate::{refuse, root};

/// Lints that must stay in the root manifest, with their level.
const LINTS: [(&str, &str); 9] = [
    ("unsafe_code", "deny"),
    ("unreachable_pub", "warn"),
    ("missing_docs", "warn"),
    ("undocumented_unsafe_blocks", "deny"),
    ("multiple_unsafe_ops_per_block", "deny"),
    ("unwrap_used", "deny"),
    ("host_endian_bytes", "deny"),
    ("dbg_macro", "deny"),
    ("todo", "deny"),
];

fn manifest() -> String {
    std::fs::read_to_string(root().join("Cargo.toml")).unwrap()
}

/// The lines of a section, without its head.
fn section<'a>(manifest: &'a str, head: &str) -> Vec<&'a str> {
    manifest
        .lines()
        .skip_while(|line| *line != head)
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .collect()
}

/// Dependencies without a comment above them. A comment stands for the dependencies that follow it up to the next
/// comment or blank line.
fn without_reason(lines: &[&str]) -> Vec<String> {
    let mut reason = false;
    let mut found = Vec::new();
    for line in lines {
        match line.trim() {
            "" => reason = false,
            comment if comment.starts_with('#') => reason = true,
            dependency if !reason => found.push(dependency.to_owned()),
            _ => {}
        }
    }
    found
}

#[test]
fn root_lints_are_there() {
    let manifest = manifest();
    let lines =
        [section(&manifest, "[workspace.lints.rust]"), section(&manifest, "[workspace.lints.clippy]")]
            .concat();
    let missing: Vec<String> = LINTS
        .iter()
        .map(|(name, level)| format!("{name} = \"{level}\""))
        .filter(|lint| !lines.contains(&lint.as_str()))
        .collect();
    refuse("these lints carry rules of the house", &missing);
}

#[test]
fn every_crate_takes_the_root_lints() {
    let crates = ["query", "proto", "shm", "leaf", "aggregator", "client", "cli", "tests", "benches"];
    let without: Vec<String> = crates
        .iter()
        .filter(|name| {
            let text = std::fs::read_to_string(root().join(name).join("Cargo.toml")).unwrap();
            !section(&text, "[lints]").contains(&"workspace = true")
        })
        .map(|name| format!("{name}/Cargo.toml"))
        .collect();
    refuse("every crate has [lints] workspace = true", &without);
}

#[test]
fn every_dependency_has_a_reason() {
    let manifest = manifest();
    let lines = section(&manifest, "[workspace.dependencies]");
    assert!(lines.len() > 20, "the section was not found");
    refuse("a dependency earns its place with a comment above it", &without_reason(&lines));
}

#[test]
fn versions_are_written_once() {
    let crates = ["query", "proto", "shm", "leaf", "aggregator", "client", "cli", "tests", "benches"];
    let mut found = Vec::new();
    for name in crates {
        let text = std::fs::read_to_string(root().join(name).join("Cargo.toml")).unwrap();
        for head in ["[dependencies]", "[dev-dependencies]", "[build-dependencies]"] {
            let own = section(&text, head).into_iter().filter(|line| {
                let line = line.trim();
                !line.is_empty() && !line.starts_with('#') && !line.contains("workspace = true")
            });
            found.extend(own.map(|line| format!("{name}/Cargo.toml: {line}")));
        }
    }
    refuse("versions stand in the root manifest, with their reason", &found);
}

#[test]
fn a_dependency_without_reason_is_seen() {
    assert_eq!(without_reason(&["# why", "a = \"1\"", "b = \"2\"", "", "c = \"3\""]), ["c = \"3\""]);
}
