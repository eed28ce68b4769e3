//! SQL text cut into statements and, inside them, found parameters: the little of SQL that must be known for both.
//!
//! Text in quotes and in comments is neither. What the server thinks of a statement is not decided here.

use std::ops::Range;

/// One statement, without its semicolon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Statement {
    /// The text that is sent.
    pub(crate) sql: String,
    /// The line of the file that it begins on, from 1.
    pub(crate) line: usize,
}

/// A stretch of SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// Outside of quotes and comments.
    Code(Range<usize>),
    /// A text, a quoted name or a comment.
    Closed(Range<usize>),
}

/// The statements of a text. A statement of nothing but blanks and comments is none.
pub(crate) fn split(text: &str) -> Vec<Statement> {
    let mut statements = Vec::new();
    let mut start = 0;
    let mut empty = true;
    for token in tokens(text) {
        match token {
            Token::Code(range) => {
                for (at, c) in text[range.clone()].char_indices() {
                    if c == ';' {
                        let end = range.start + at;
                        statements.extend((!empty).then(|| statement(text, start..end)));
                        (start, empty) = (end + 1, true);
                    } else if !c.is_whitespace() {
                        empty = false;
                    }
                }
            }
            Token::Closed(range) => empty &= is_comment(&text[range]),
        }
    }
    statements.extend((!empty).then(|| statement(text, start..text.len())));
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
    let mut found = Vec::new();
    for token in tokens(sql) {
        let Token::Code(range) = token else { continue };
        let code = &sql[range.clone()];
        for (at, _) in code.match_indices('$') {
            // `a$b` is a name in some dialects.
            let is_part = |c: char| c.is_alphanumeric() || c == '_';
            if code[..at].chars().next_back().is_some_and(|c| is_part(c) || c == '$') {
                continue;
            }
            let name = &code[at + 1..];
            let name = &name[..name.find(|c| !is_part(c)).unwrap_or(name.len())];
            if !name.is_empty() {
                let start = range.start + at;
                found.push((start..start + 1 + name.len(), name));
            }
        }
    }
    found
}

/// A piece of SQL that can stand in parentheses: what it opens it closes, and nothing in it ends a statement or a line.
pub(crate) fn is_closed(sql: &str) -> bool {
    let mut depth = 0_i64;
    for token in tokens(sql) {
        match token {
            Token::Code(range) => {
                for c in sql[range].chars() {
                    match c {
                        '(' | '[' => depth += 1,
                        ')' | ']' => depth -= 1,
                        ';' => return false,
                        _ => {}
                    }
                    if depth < 0 {
                        return false;
                    }
                }
            }
            Token::Closed(range) => {
                let text = &sql[range];
                let is_whole = match text.as_bytes()[0] {
                    b'-' => false,
                    b'/' => {
                        end_of_comment(text.as_bytes(), 0) == text.len()
                            && text.ends_with("*/")
                            && text.len() > 3
                    }
                    // A doubled quote is a part of the text, so a text that is closed has an even number of them.
                    quote => text.bytes().filter(|byte| *byte == quote).count() % 2 == 0,
                };
                if !is_whole {
                    return false;
                }
            }
        }
    }
    depth == 0
}

/// The SQL names this column, in any case, quoted or not.
pub(crate) fn mentions(sql: &str, column: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let column = column.to_lowercase();
    tokens(sql).into_iter().any(|token| match token {
        Token::Code(range) => {
            let code = sql[range].to_lowercase();
            code.match_indices(&column).any(|(at, _)| {
                let before = code[..at].chars().next_back();
                let after = code[at + column.len()..].chars().next();
                !before.is_some_and(is_part) && !after.is_some_and(is_part)
            })
        }
        Token::Closed(range) => sql[range].to_lowercase() == format!("\"{column}\""),
    })
}

/// The parts between commas that are in no parentheses, quotes or comments.
pub(crate) fn split_at_commas(text: &str) -> Result<Vec<String>, String> {
    if !is_closed(text) {
        return Err(format!("`{text}` is no list of expressions: quotes and parentheses must close"));
    }
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0);
    for token in tokens(text) {
        let Token::Code(range) = token else { continue };
        for (at, c) in text[range.clone()].char_indices() {
            match c {
                '(' | '[' => depth += 1,
                ')' | ']' => depth -= 1,
                ',' if depth == 0 => {
                    parts.push(text[start..range.start + at].trim().to_owned());
                    start = range.start + at + 1;
                }
                _ => {}
            }
        }
    }
    parts.push(text[start..].trim().to_owned());
    if parts.iter().any(String::is_empty) { Err(format!("`{text}` has an empty part")) } else { Ok(parts) }
}

fn is_comment(text: &str) -> bool {
    text.starts_with("--") || text.starts_with("/*")
}

fn tokens(text: &str) -> Vec<Token> {
    let bytes = text.as_bytes();
    let mut tokens = Vec::new();
    let (mut code, mut at) = (0, 0);
    while at < bytes.len() {
        let end = match (bytes[at], bytes.get(at + 1)) {
            (quote @ (b'\'' | b'"'), _) => end_of_quoted(bytes, at, quote),
            (b'-', Some(b'-')) => {
                bytes[at..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |length| at + length)
            }
            (b'/', Some(b'*')) => end_of_comment(bytes, at),
            _ => {
                at += 1;
                continue;
            }
        };
        if code < at {
            tokens.push(Token::Code(code..at));
        }
        tokens.push(Token::Closed(at..end));
        (code, at) = (end, end);
    }
    if code < bytes.len() {
        tokens.push(Token::Code(code..bytes.len()));
    }
    tokens
}

/// The end of a text or name that begins here; a doubled quote is one of its characters.
fn end_of_quoted(bytes: &[u8], start: usize, quote: u8) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        if bytes[at] != quote {
            at += 1;
        } else if bytes.get(at + 1) == Some(&quote) {
            at += 2;
        } else {
            return at + 1;
        }
    }
    bytes.len()
}

/// The end of a comment that begins here; comments nest.
fn end_of_comment(bytes: &[u8], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0);
    while at < bytes.len() {
        match (bytes[at], bytes.get(at + 1)) {
            (b'/', Some(b'*')) => (at, depth) = (at + 2, depth + 1),
            (b'*', Some(b'/')) => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    bytes.len()
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
    }

    #[test]
    fn columns_that_are_named() {
        for (sql, expect) in [
            ("Status >= 1", true),
            ("a.status", true),
            ("statuses", false),
            ("'status'", false),
            ("\"STATUS\" = 1", true),
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
        check("a$b $$ $ $$c $1", &["1"]);
    }
}
