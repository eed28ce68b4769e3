//! One word per thing. These words say nothing, or name something that already has another name here.

use crate::{refuse, rust_sources};

/// Words that may not be part of the name of a type or a module, with the word to use.
const BANNED: [(&str, &str); 20] = [
    ("common", "the thing's own name"),
    ("util", "the thing's own name"),
    ("utils", "the thing's own name"),
    ("helper", "the thing's own name"),
    ("helpers", "the thing's own name"),
    ("misc", "the thing's own name"),
    ("manager", "what it does"),
    ("handler", "what it does"),
    ("processor", "what it does"),
    ("info", "the thing's own name"),
    ("node", "leaf or aggregator"),
    ("worker", "leaf"),
    ("shard", "leaf"),
    ("replica", "leaf"),
    ("chunk", "row block or open rows"),
    ("partition", "row block"),
    ("memtable", "open rows"),
    ("flush", "seal"),
    ("dump", "hand over"),
    ("coverage", "completeness"),
];

/// Names that hold a banned word and are right all the same.
const ACCEPTED: [(&str, &str); 3] = [
    ("ConnectInfo", "a type that a trait of tonic asks for by this name"),
    ("OpenChunk", "a run of open rows of one shape, which nothing else is called"),
    ("ExprNode", "an entry of the wire's flat list of expressions"),
];

/// The words of a type's or a module's name.
fn words_of(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for c in name.chars() {
        if c == '_' {
            words.push(String::new());
            continue;
        }
        if c.is_uppercase() {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut() {
            word.extend(c.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// The name a line declares, when it declares a type or a module.
fn declared(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let line = match line.strip_prefix("pub") {
        Some(rest) => rest.trim_start_matches(|c: char| c != ' ').trim_start(),
        None => line,
    };
    let kinds = ["struct ", "enum ", "trait ", "mod ", "type ", "union "];
    let rest = kinds.iter().find_map(|kind| line.strip_prefix(kind))?;
    Some(rest.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap_or(rest))
}

fn wrong(path: &str, text: &str) -> Vec<String> {
    let file = path.rsplit('/').next().unwrap_or(path).trim_end_matches(".rs");
    let named = text.lines().enumerate().filter_map(|(index, line)| Some((index + 1, declared(line)?)));
    named
        .chain([(0, file)])
        .filter(|(_, name)| !ACCEPTED.iter().any(|(accepted, _)| accepted == name))
        .filter_map(|(line, name)| {
            let words = words_of(name);
            let (word, instead) = BANNED.iter().find(|(word, _)| words.iter().any(|part| part == word))?;
            Some(format!("{path}:{line} {name}: not {word}, but {instead}"))
        })
        .collect()
}

#[test]
fn types_and_modules_have_telling_names() {
    let found: Vec<String> = rust_sources()
        .iter()
        .filter(|(path, _)| !path.starts_with("tests/tidy/"))
        .flat_map(|(path, text)| wrong(path, text))
        .collect();
    refuse("one word per thing (see README.md and query/src/lib.rs for ours)", &found);
}

#[test]
fn a_banned_word_is_seen() {
    assert_eq!(wrong("leaf/src/a.rs", "pub(crate) struct BlockManager;\n").len(), 1);
    assert_eq!(wrong("leaf/src/utils.rs", "").len(), 1);
    assert_eq!(wrong("leaf/src/a.rs", "mod leaf_worker;\nenum OpenChunk {}\n").len(), 1);
    assert!(wrong("leaf/src/a.rs", "let chunk = 1;\nstruct Chunky;\n").is_empty());
}
