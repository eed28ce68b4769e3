//! Transcripts: what somebody sees who types commands one after the other. A file holds lines `$ gannet …`, each followed
//! by what the command says (stdout, then stderr) and, when it is not 0, its exit code as `[3]`.
//!
//! Times that a run takes and rows that it scans are shown as `_`, because they are never twice the same. With
//! `GANNET_COMPLETE` set, the file is written anew instead of compared, to be read before it is committed.

use std::fmt::Write;
use std::path::Path;

use crate::process::gannet;

/// Runs the commands of a transcript against this server and compares.
///
/// # Panics
/// When a command says something else.
pub async fn check(path: &Path, server: &str, directory: &Path) {
    let text = std::fs::read_to_string(path).unwrap();
    let mut found = String::new();
    for line in text.lines() {
        let Some(command) = line.strip_prefix("$ gannet ") else {
            // Comments stay; the rest was said by the command above.
            if is_comment(line) {
                let blank = if found.is_empty() { "" } else { "\n" };
                let _ = writeln!(found, "{blank}{line}");
            }
            continue;
        };
        if !found.is_empty() && !found.ends_with("\n\n") && !found.lines().last().is_some_and(is_comment) {
            found.push('\n');
        }
        let _ = writeln!(found, "{line}");
        let words = words(&command.replace("DIRECTORY", &directory.display().to_string()));
        let arguments: Vec<&str> = words.iter().map(String::as_str).chain(["--server", server]).collect();
        let said = gannet(&arguments, "").await;
        for part in [&said.out, &said.err] {
            found.push_str(&masked(
                &part.replace(&*directory.display().to_string(), "DIRECTORY").replace(server, "SERVER"),
            ));
        }
        if said.code != 0 {
            let _ = writeln!(found, "[{}]", said.code);
        }
    }
    if std::env::var_os("GANNET_COMPLETE").is_some() {
        std::fs::write(path, &found).unwrap();
        return;
    }
    let different = text.lines().zip(found.lines()).position(|(expect, found)| expect != found);
    let line = different.unwrap_or_else(|| text.lines().count().min(found.lines().count()));
    assert!(
        text == found,
        "{} differs in line {}\nexpected: {}\nfound:    {}\n\nall that was found:\n{found}",
        path.display(),
        line + 1,
        text.lines().nth(line).unwrap_or("(the end)"),
        found.lines().nth(line).unwrap_or("(the end)"),
    );
}

fn is_comment(line: &str) -> bool {
    line.starts_with('#')
}

/// A command line cut into words as a shell does, as far as quotes go.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            (c, Some(_)) => word.get_or_insert_default().push(c),
            ('\'' | '"', None) => {
                word.get_or_insert_default();
                quote = Some(c);
            }
            (' ', None) => words.extend(word.take()),
            (c, None) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// The time in ` · 12 ms · ` becomes `_`, and the blanks that filled a line go.
fn masked(text: &str) -> String {
    let mut masked = String::new();
    for line in text.lines() {
        let parts: Vec<&str> = line
            .split(" · ")
            .map(|part| {
                let is_time = part.starts_with(|c: char| c.is_ascii_digit())
                    && (part.ends_with(" ms") || part.ends_with(" s"));
                // Which leaf a row went to is left to chance, and with it which blocks are looked at.
                match part {
                    _ if is_time => "_",
                    part if part.ends_with(" scanned") => "_ scanned",
                    part => part,
                }
            })
            .collect();
        let _ = writeln!(masked, "{}", parts.join(" · ").trim_end());
    }
    masked
}
