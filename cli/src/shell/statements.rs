//! What was typed, cut into statements and meta commands.
//!
//! A statement ends with `;`, or with `\G` to be shown as a list of fields. A meta command begins with `\` or `.` where
//! a statement could begin, takes the rest of its line, and needs no end. Quotes, comments and dollar quotes hide all
//! of these.

use crate::sql_tokens::{Kind, Token, tokens};

/// How an answer was asked to be shown by the end of its statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    /// `;`
    AsSet,
    /// `\G`
    Vertical,
}

/// A part of what was typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// A statement that has its end, without it.
    Statement(&'a str, Shown),
    /// A line with a meta command, and the statement that was begun before it, which is mostly empty.
    Meta {
        /// What was typed of a statement.
        begun: &'a str,
        /// The command, with `\` or `.`.
        line: &'a str,
    },
    /// A statement that lacks its end.
    Open(&'a str),
}

/// Cuts a text. Statements that hold nothing are left out.
pub(super) fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut found = Vec::new();
    let mut start = 0;
    while let Some(end) = next_piece(text, start, &mut found) {
        start = end;
    }
    let rest = text[start..].trim();
    if holds_something(rest) {
        found.push(Piece::Open(rest));
    }
    found
}

/// The first piece from here on that is whole; returns its end.
fn next_piece<'a>(text: &'a str, start: usize, found: &mut Vec<Piece<'a>>) -> Option<usize> {
    let rest = &text[start..];
    for token in tokens(rest) {
        if let Some(line) = meta_line(rest, &token) {
            found.push(Piece::Meta { begun: rest[..token.start].trim(), line: line.trim() });
            return Some(start + token.start + line.len());
        }
        let shown = match token.kind {
            Kind::Semicolon => Shown::AsSet,
            Kind::Backslash if token.text == "\\G" => Shown::Vertical,
            Kind::Backslash => Shown::AsSet,
            _ => continue,
        };
        let statement = rest[..token.start].trim();
        if holds_something(statement) {
            found.push(Piece::Statement(statement, shown));
        }
        return Some(start + token.end());
    }
    None
}

/// The meta command that begins with this token: `\` at the beginning of a line, `.` only where nothing is begun,
/// because a column may follow a dot on a line of its own.
fn meta_line<'a>(text: &'a str, token: &Token<'_>) -> Option<&'a str> {
    let before = &text[..token.start];
    let begins_line = before.rsplit('\n').next().is_some_and(|line| line.trim().is_empty());
    let follows = text[token.start + 1..].chars().next();
    let is_meta = match token.text.chars().next()? {
        // `\G` and `\g` alone are the end of a statement.
        '\\' if begins_line => {
            token.kind == Kind::Symbol || follows_letter(text, token.end()) || !holds_something(before)
        }
        '.' => !holds_something(before) && follows.is_some_and(|c| c.is_ascii_alphabetic() || c == '?'),
        _ => false,
    };
    let rest = &text[token.start..];
    is_meta.then(|| rest.split('\n').next().unwrap_or(rest))
}

fn follows_letter(text: &str, at: usize) -> bool {
    text[at..].starts_with(|c: char| c.is_alphanumeric())
}

/// There is more than comments and white space.
pub(super) fn holds_something(text: &str) -> bool {
    tokens(text).any(|token| token.kind != Kind::Comment)
}

/// Everything typed so far can be run: it ends with the end of a statement or is a meta command.
pub(super) fn is_whole(text: &str) -> bool {
    !matches!(pieces(text).last(), Some(Piece::Open(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &[Piece<'_>]) {
        assert_eq!(pieces(text), expect, "{text:?}");
    }

    fn set(sql: &str) -> Piece<'_> {
        Piece::Statement(sql, Shown::AsSet)
    }

    fn meta(line: &str) -> Piece<'_> {
        Piece::Meta { begun: "", line }
    }

    #[test]
    fn statements_end_with_semicolons() {
        check("select 1;", &[set("select 1")]);
        check("select 1; select 2 ; ", &[set("select 1"), set("select 2")]);
        check("select\n\n 1\n;\n", &[set("select\n\n 1")]);
        check("select ';', \";\" -- ;\n, $$;$$ /* ; */;", &[set("select ';', \";\" -- ;\n, $$;$$ /* ; */")]);
        check("select 1\\G", &[Piece::Statement("select 1", Shown::Vertical)]);
        check(
            "select 1\n\\G\nselect 2\\g",
            &[Piece::Statement("select 1", Shown::Vertical), set("select 2")],
        );
        check(";; ; -- nothing\n;", &[]);
    }

    #[test]
    fn what_has_no_end_is_open() {
        check("select 1", &[Piece::Open("select 1")]);
        check("select 1; select 'a;", &[set("select 1"), Piece::Open("select 'a;")]);
        check("-- only a comment", &[]);
        check("  \n ", &[]);
        for (text, whole) in [
            ("", true),
            ("select 1", false),
            ("select 1;", true),
            ("select 1; -- done", true),
            ("select 'a;", false),
            ("\\d", true),
            ("select 1\n\\e", true),
            ("select 1\n\\G", true),
        ] {
            assert_eq!(is_whole(text), whole, "{text:?}");
        }
    }

    #[test]
    fn meta_commands_take_their_line() {
        check("\\d requests", &[meta("\\d requests")]);
        check(".tables; \n select 1;", &[meta(".tables;"), set("select 1")]);
        check("  \\timing\n\\x on\n", &[meta("\\timing"), meta("\\x on")]);
        check("select 1;\n\\q", &[set("select 1"), meta("\\q")]);
        check("select a\n\\e", &[Piece::Meta { begun: "select a", line: "\\e" }]);
        check("select a\n.b;", &[set("select a\n.b")]);
        check("select '\n\\q';", &[set("select '\n\\q'")]);
        check("-- note\n\\d", &[Piece::Meta { begun: "-- note", line: "\\d" }]);
        check("\\?", &[meta("\\?")]);
        check(".?", &[meta(".?")]);
        check("\\gfoo", &[meta("\\gfoo")]);
        check("\\g", &[meta("\\g")]);
        check("\\watch 5s", &[meta("\\watch 5s")]);
        check("\\i 'a;b.sql'", &[meta("\\i 'a;b.sql'")]);
    }
}
