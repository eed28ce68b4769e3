//! Sizes, and the addresses of `unsafe`, of the wire, and of everything the map names.

use crate::{refuse, root, rust_sources, shipped};

/// Lines of a source file without its tests.
const LINES_MAX: usize = 600;
/// Lines of one function.
const FUNCTION_LINES_MAX: usize = 70;
/// Lines of the map.
const MAP_LINES_MAX: usize = 150;

/// Files of the leaf and the aggregator that may name tonic: doors, what connects to children, and the fan-out's
/// reading of their replies. `proto` is the wire itself, and `cli` puts the parts together.
const WIRE: [&str; 6] = ["service.rs", "answers.rs", "children.rs", "child.rs", "address.rs", "run.rs"];

/// Places where a word occurs in code, that is, outside comments, in what ships.
fn occurrences(path: &str, text: &str, word: &str) -> Vec<String> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.lines()
        .take(shipped(path, text))
        .enumerate()
        .filter(|(_, line)| {
            let code = line.split("//").next().unwrap_or(line);
            code.match_indices(word).any(|(at, _)| {
                let before = code[..at].chars().next_back();
                let after = code[at + word.len()..].chars().next();
                !before.is_some_and(is_part) && !after.is_some_and(is_part)
            })
        })
        .map(|(index, _)| format!("{path}:{}", index + 1))
        .collect()
}

/// Functions longer than the limit, by the indentation that rustfmt gives their first and last line.
fn long_functions(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Option<(usize, usize, String)> = None;
    for (index, line) in text.lines().enumerate().take(shipped(path, text)) {
        let indent = line.len() - line.trim_start().len();
        let code = line.trim_start();
        match &open {
            None => {
                let head = code.split(" fn ").next().unwrap_or_default();
                let starts = code.starts_with("fn ")
                    || (code.contains(" fn ")
                        && head.split_whitespace().all(|word| {
                            word.starts_with("pub")
                                || ["async", "const", "unsafe", "super)", "crate)"].contains(&word)
                        }));
                let one_line = code.ends_with(';') || (code.contains('{') && code.ends_with('}'));
                if starts && !one_line {
                    let name = code.split("fn ").nth(1).unwrap_or(code);
                    let name = name.split(['(', '<']).next().unwrap_or(name);
                    open = Some((index, indent, name.to_owned()));
                }
            }
            Some((start, depth, name))
                if indent == *depth && (code.starts_with('}') || code.ends_with(';')) =>
            {
                let lines = index - start + 1;
                if lines > FUNCTION_LINES_MAX {
                    found.push(format!("{path}:{} {name} has {lines} lines", start + 1));
                }
                open = None;
            }
            Some(_) => {}
        }
    }
    found
}

#[test]
fn files_are_short_enough_to_read() {
    let long: Vec<String> = rust_sources()
        .iter()
        .map(|(path, text)| (path, shipped(path, text)))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .map(|(path, lines)| format!("{path} has {lines} lines without tests"))
        .collect();
    refuse(
        "a file has at most 600 lines without its tests: cut it where a sentence can name the part",
        &long,
    );
}

#[test]
fn functions_are_short_enough_to_see() {
    let long: Vec<String> =
        rust_sources().iter().flat_map(|(path, text)| long_functions(path, text)).collect();
    refuse("a function has at most 70 lines", &long);
}

#[test]
fn every_file_says_what_it_is() {
    let silent: Vec<String> = rust_sources()
        .iter()
        .filter(|(path, text)| !path.ends_with("/tests.rs") && !text.starts_with("//!"))
        .map(|(path, _)| path.clone())
        .collect();
    refuse("a file opens with a sentence about what it is", &silent);
}

#[test]
fn unsafe_has_one_address() {
    let found: Vec<String> = rust_sources()
        .iter()
        .filter(|(path, _)| path != "shm/src/map.rs" && !path.starts_with("tests/tidy/"))
        .flat_map(|(path, text)| {
            let mut found = occurrences(path, text, "unsafe");
            // The lint may be opened in one place, and by its module's declaration.
            if path != "shm/src/lib.rs" {
                found.extend(occurrences(path, text, "unsafe_code"));
            }
            found
        })
        .collect();
    refuse("unsafe lives in shm/src/map.rs and nowhere else", &found);
}

#[test]
fn only_doors_know_the_wire() {
    let found: Vec<String> = rust_sources()
        .iter()
        .filter(|(path, _)| ["query/", "shm/", "leaf/", "aggregator/"].iter().any(|at| path.starts_with(at)))
        .filter(|(path, _)| !WIRE.iter().any(|file| path.ends_with(&format!("/{file}"))))
        .flat_map(|(path, text)| {
            [occurrences(path, text, "tonic"), occurrences(path, text, "prost")].concat()
        })
        .collect();
    refuse("tonic is named in doors and in what connects to children", &found);
}

#[test]
fn the_vocabulary_does_no_io() {
    let words = ["std::fs", "std::net", "std::thread", "SystemTime", "Instant", "tokio", "async"];
    let found: Vec<String> = rust_sources()
        .iter()
        .filter(|(path, _)| path.starts_with("query/src/"))
        .flat_map(|(path, text)| {
            words.iter().flat_map(|word| occurrences(path, text, word)).collect::<Vec<_>>()
        })
        .collect();
    refuse("query has no I/O, no clock and no async code", &found);
}

#[test]
fn the_map_names_what_exists() {
    let map = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    assert!(map.lines().count() <= MAP_LINES_MAX, "ARCHITECTURE.md has more than {MAP_LINES_MAX} lines");
    let named: Vec<&str> = map.split('`').skip(1).step_by(2).filter(|text| is_path(text)).collect();
    assert!(named.len() > 10, "only {} paths found in ARCHITECTURE.md", named.len());
    let gone: Vec<String> =
        named.iter().filter(|path| !exists(path)).map(|path| (*path).to_owned()).collect();
    refuse("ARCHITECTURE.md names paths that do not exist", &gone);
}

/// Text in backticks that means a path of the repository.
fn is_path(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    text.contains('/') && !text.starts_with('/') && text.chars().all(plain)
}

/// A module may be named without its ending.
fn exists(path: &str) -> bool {
    root().join(path).exists() || root().join(format!("{path}.rs")).exists()
}

#[test]
fn the_checkers_look() {
    assert_eq!(
        occurrences("a.rs", "let a = 1; // unsafe\nunsafe { x }\nunsafe_code\n", "unsafe"),
        ["a.rs:2"]
    );
    assert!(is_path("leaf/src/scan") && !is_path("gannet query") && !is_path("/v1/query"));
    let body = "    x;\n".repeat(FUNCTION_LINES_MAX);
    let text = format!("pub(crate) fn long(\n    a: u8,\n) {{\n{body}}}\nfn short() {{\n    x;\n}}\n");
    assert_eq!(long_functions("a.rs", &text), ["a.rs:1 long has 74 lines"]);
}
