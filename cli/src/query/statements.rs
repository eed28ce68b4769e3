//! SQL text cut into statements and, inside them, found parameters, columns and lists.
//!
//! What is in quotes and in comments is none of it. What the server thinks of a statement is not decided here.

use std::ops::Range;

use crate::sql_names::unquoted;
use crate::sql_tokens::{Kind, Token, is_word_part, tokens};

/// One statement, without its semicolon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Statement {
    /// The text that is sent.
    pub(crate) sql: String,
    /// The line of the file that it begins on, from 1.
    pub(crate) line: usize,
}

/// The statements of a text. A statement of nothing but blanks and comments is none.
pub(crate) fn split(text: &str) -> Vec<Statement> {
    let mut statements = Vec::new();
    let (mut start, mut is_empty) = (0, true);
    for token in tokens(text) {
        match token.kind {
            Kind::Semicolon => {
                statements.extend((!is_empty).then(|| statement(text, start..token.start)));
                (start, is_empty) = (token.end(), true);
            }
            Kind::Comment => {}
            _ => is_empty = false,
        }
    }
    statements.extend((!is_empty).then(|| statement(text, start..text.len())));
    statements
}

fn statement(text: &str, range: Range<usize>) -> Statement {
    let sql = &text[range.clone()];
    let trimmed = sql.trim_start();
    let before = range.start + (sql.len() - trimmed.len());
    let line = 1 + text[..before].bytes().filter(|byte| *byte == b'\n').count();
    Statement { sql: trimmed.trim_end().to_owned(), line }
}

/// The places of `$name` in a statement: where, and which name.
pub(crate) fn parameters(sql: &str) -> Vec<(Range<usize>, &str)> {
    let placeholders = tokens(sql).filter(|token| token.kind == Kind::Placeholder);
    placeholders.map(|token| (token.start..token.end(), &token.text[1..])).collect()
}

/// How deep in parentheses the text is behind a token; below zero, more were closed than opened.
fn depth_behind(depth: i64, token: &Token<'_>) -> i64 {
    match token.text {
        "(" | "[" => depth + 1,
        ")" | "]" => depth - 1,
        _ => depth,
    }
}

/// A piece of SQL that can stand in parentheses: what it opens it closes, and nothing in it ends a statement or a line.
pub(crate) fn is_closed(sql: &str) -> bool {
    let mut depth = 0;
    for token in tokens(sql) {
        depth = depth_behind(depth, &token);
        let ends_more = matches!(token.kind, Kind::Semicolon | Kind::Backslash)
            || (token.kind == Kind::Comment && token.text.starts_with("--"));
        if ends_more || !token.is_closed || depth < 0 {
            return false;
        }
    }
    depth == 0
}

/// The SQL names this column, in any case, quoted or not.
pub(crate) fn mentions(sql: &str, column: &str) -> bool {
    let is_part = |c: char| is_word_part(c) || c == '$';
    let column = column.to_lowercase();
    tokens(sql).any(|token| match token.kind {
        Kind::QuotedName => unquoted(token.text).to_lowercase() == column,
        // A part of a word between dots, since a table or an object may be named before the column.
        Kind::Word => {
            let word = token.text.to_lowercase();
            word.match_indices(&column).any(|(at, _)| {
                let before = word[..at].chars().next_back();
                let after = word[at + column.len()..].chars().next();
                !before.is_some_and(is_part) && !after.is_some_and(is_part)
            })
        }
        _ => false,
    })
}

/// The parts between commas that are in no parentheses, quotes or comments.
pub(crate) fn split_at_commas(text: &str) -> Result<Vec<String>, String> {
    if !is_closed(text) {
        return Err(format!("`{text}` is no list of expressions: quotes and parentheses must close"));
    }
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0);
    for token in tokens(text) {
        depth = depth_behind(depth, &token);
        if depth == 0 && token.is_symbol(',') {
            parts.push(text[start..token.start].trim().to_owned());
            start = token.end();
        }
    }
    parts.push(text[start..].trim().to_owned());
    if parts.iter().any(String::is_empty) { Err(format!("`{text}` has an empty part")) } else { Ok(parts) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_end_with_semicolons_outside_of_quotes() {
        let check = |text: &str, expect: &[(&str, usize)]| {
            let found = split(text);
            let found: Vec<_> =
                found.iter().map(|statement| (statement.sql.as_str(), statement.line)).collect();
            assert_eq!(found, expect, "{text:?}");
        };
        check("select 1", &[("select 1", 1)]);
        check("select 1;\n", &[("select 1", 1)]);
        check("select ';';\n\n select \";\"", &[("select ';'", 1), ("select \";\"", 3)]);
        check("select 'it''s;';x", &[("select 'it''s;'", 1), ("x", 1)]);
        check("select 1 -- a; b\n, 2; -- done\n", &[("select 1 -- a; b\n, 2", 1)]);
        check("/* a; /* b; */ c; */ select 1;;;", &[("/* a; /* b; */ c; */ select 1", 1)]);
        check(" \n; -- nothing\n;", &[]);
        check("select 'open; ", &[("select 'open;", 1)]);
        check("select /* open; ", &[("select /* open;", 1)]);
        check("select 'ü;';ä", &[("select 'ü;'", 1), ("ä", 1)]);
        check("select $$a;b$$, `c;d`; x", &[("select $$a;b$$, `c;d`", 1), ("x", 1)]);
    }

    #[test]
    fn columns_that_are_named() {
        for (sql, expect) in [
            ("Status >= 1", true),
            ("a.status", true),
            ("statuses", false),
            ("'status'", false),
            ("\"STATUS\" = 1", true),
            ("`status` = 1", true),
            ("status$ = 1", false),
            ("$$status$$", false),
            ("a = 1 -- status", false),
        ] {
            assert_eq!(mentions(sql, "status"), expect, "{sql}");
        }
    }

    #[test]
    fn pieces_that_close_what_they_open() {
        for (sql, expect) in [
            ("a = 'it''s'", true),
            ("f(a[1])", true),
            ("'a", false),
            ("'it''", false),
            ("a)", false),
            ("a; b", false),
            ("a -- b", false),
            ("a /* b */", true),
            ("a /* b", false),
            ("a /*/", false),
            ("$$)$$", true),
            ("$$)", false),
            ("`a", false),
            ("a \\G", false),
        ] {
            assert_eq!(is_closed(sql), expect, "{sql}");
        }
    }

    #[test]
    fn parameters_stand_outside_of_quotes() {
        let check = |sql: &str, expect: &[&str]| {
            let found = parameters(sql);
            assert!(found.iter().all(|(range, name)| sql[range.clone()] == format!("${name}")));
            assert_eq!(found.iter().map(|(_, name)| *name).collect::<Vec<_>>(), expect, "{sql:?}");
        };
        check("where a = $a and b > $b_2", &["a", "b_2"]);
        check("'$a' \"$b\" -- $c\n/* $d */ $e", &["e"]);
        check("a$b $$ $d $$c $1, $e.f", &["1", "e"]);
    }
}
