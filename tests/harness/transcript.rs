//! Transcripts: what somebody sees who types commands one after the other. A file holds lines `$ gannet …`, each followed
//! by what the command says (stdout, then stderr) and, when it is not 0, its exit code as `[3]`. `$40 gannet …` types it at
//! a terminal of 40 columns, and what follows is what is seen there; lines that are wider come as one.
//!
//! Times that a run takes and rows that it scans are shown as `_`, because they are never twice the same. With
//! `GANNET_COMPLETE` set, the file is written anew instead of compared, to be read before it is committed.

use std::fmt::Write;
use std::path::Path;

use crate::process::gannet;
use crate::terminal::Terminal;

/// Lines of a terminal: as many as anything shows.
const ROWS: u16 = 60;

/// Runs the commands of a transcript against this server and compares.
///
/// # Panics
/// When a command says something else.
pub async fn check(path: &Path, server: &str, directory: &Path) {
    let text = std::fs::read_to_string(path).unwrap();
    let mut found = String::new();
    for line in text.lines() {
        let Some((columns, command)) = command_of(line) else {
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
        let (parts, code) = match columns {
            None => {
                let said = gannet(&arguments, "").await;
                ([said.out, said.err], said.code)
            }
            Some(columns) => {
                let mut terminal = Terminal::start(ROWS, columns, "xterm-256color", directory, &arguments);
                let (status, screen) = terminal.finished().await;
                ([screen, String::new()], status.code().unwrap_or(-1))
            }
        };
        for part in parts {
            found.push_str(&masked(
                &part.replace(&*directory.display().to_string(), "DIRECTORY").replace(server, "SERVER"),
            ));
        }
        if code != 0 {
            let _ = writeln!(found, "[{code}]");
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

/// The command of a line, and how wide the terminal is at which it is typed, if it is at one.
fn command_of(line: &str) -> Option<(Option<u16>, &str)> {
    let (columns, command) = line.strip_prefix('$')?.split_once(" gannet ")?;
    match columns {
        "" => Some((None, command)),
        columns => Some((Some(columns.parse().ok()?), command)),
    }
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
    let part = |part: &str| {
        let is_time =
            part.starts_with(|c: char| c.is_ascii_digit()) && (part.ends_with(" ms") || part.ends_with(" s"));
        // Which leaf a row went to is left to chance, and with it which blocks are looked at.
        match part {
            _ if is_time => "_".to_owned(),
            part if part.ends_with(" scanned") => "_ scanned".to_owned(),
            part => part.to_owned(),
        }
    };
    for line in text.lines() {
        // With ASCII only there is a bar in the place of a dot.
        let between = if line.contains(" · ") { " · " } else { " | " };
        let parts: Vec<String> = line.split(between).map(part).collect();
        let _ = writeln!(masked, "{}", parts.join(between).trim_end());
    }
    masked
}
