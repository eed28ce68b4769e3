//! SQL text as tokens, as far as a command must know them: where quotes, comments and dollar quotes begin and end.
//!
//! It is the one reader of SQL here: statements are cut, parameters found, words coloured and completed by what it says.
//! Any text has tokens; what is not closed runs to the end and says so. Nothing is judged: that is the server's matter.

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A name or a keyword without quotes; dots are part of it, since columns have them, and `$` behind its first
    /// character.
    Word,
    /// A name in double quotes or backticks.
    QuotedName,
    /// A string: in single quotes, or between dollar quotes.
    Text,
    /// A number.
    Number,
    /// What stands for a value: `$1` or `$name`.
    Placeholder,
    /// `-- …` to the end of the line, or `/* … */`, which nest.
    Comment,
    /// `;`
    Semicolon,
    /// `\G` or `\g`: the end of a statement, as `;`.
    Backslash,
    /// Anything else, a character each.
    Symbol,
}

/// A token and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    /// What it is.
    pub(crate) kind: Kind,
    /// Its text, with quotes.
    pub(crate) text: &'a str,
    /// Its first byte in the text.
    pub(crate) start: usize,
    /// It has its end. Only quotes and comments may lack it.
    pub(crate) is_closed: bool,
}

impl Token<'_> {
    /// The byte after it.
    pub(crate) fn end(&self) -> usize {
        self.start + self.text.len()
    }

    /// It is this keyword.
    pub(crate) fn is_word(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(word)
    }

    /// It is this character.
    pub(crate) fn is_symbol(&self, symbol: char) -> bool {
        self.kind == Kind::Symbol && self.text.starts_with(symbol)
    }
}

/// All tokens of a text, one after the other. White space is between them.
pub(crate) fn tokens(text: &str) -> impl Iterator<Item = Token<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        at += length_while(&text[at..], char::is_whitespace);
        let first = text[at..].chars().next()?;
        let (kind, length, is_closed) = token(&text[at..], first);
        let found = Token { kind, text: &text[at..at + length], start: at, is_closed };
        at += length;
        Some(found)
    })
}

/// Kind, length in bytes and whether it is closed, of the token that the text begins with.
fn token(text: &str, first: char) -> (Kind, usize, bool) {
    let closed = |kind, length| (kind, length, true);
    match first {
        '\'' => quoted(Kind::Text, text, '\''),
        '"' => quoted(Kind::QuotedName, text, '"'),
        '`' => quoted(Kind::QuotedName, text, '`'),
        '-' if text.starts_with("--") => closed(Kind::Comment, text.find('\n').unwrap_or(text.len())),
        '/' if text.starts_with("/*") => block_comment(text),
        '$' => dollar(text),
        ';' => closed(Kind::Semicolon, 1),
        '\\' if text[1..].starts_with(['g', 'G']) => closed(Kind::Backslash, 2),
        c if c.is_ascii_digit() => closed(Kind::Number, length_while(text, |c| is_word_part(c) || c == '.')),
        c if is_word_part(c) => {
            closed(Kind::Word, length_while(text, |c| is_word_part(c) || matches!(c, '.' | '$')))
        }
        c => closed(Kind::Symbol, c.len_utf8()),
    }
}

/// A letter, a digit or `_`: what names are made of.
pub(crate) fn is_word_part(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn length_while(text: &str, is_part: impl Fn(char) -> bool) -> usize {
    text.find(|c| !is_part(c)).unwrap_or(text.len())
}

/// A quote that stands for itself is written twice.
fn quoted(kind: Kind, text: &str, quote: char) -> (Kind, usize, bool) {
    let mut at = 1;
    while let Some(found) = text[at..].find(quote) {
        at += found + 1;
        if !text[at..].starts_with(quote) {
            return (kind, at, true);
        }
        at += 1;
    }
    (kind, text.len(), false)
}

fn block_comment(text: &str) -> (Kind, usize, bool) {
    let (mut depth, mut at) = (1_usize, 2);
    while depth > 0 {
        let rest = &text[at..];
        let Some(found) = rest.find("*/") else { return (Kind::Comment, text.len(), false) };
        match rest.find("/*") {
            Some(opened) if opened < found => {
                depth += 1;
                at += opened + 2;
            }
            _ => {
                depth -= 1;
                at += found + 2;
            }
        }
    }
    (Kind::Comment, at, true)
}

/// `$tag$ … $tag$`, `$1` or `$name`; else a symbol.
fn dollar(text: &str) -> (Kind, usize, bool) {
    let tag = 1 + length_while(&text[1..], is_word_part);
    let is_number = text[1..tag].starts_with(|c: char| c.is_ascii_digit());
    if is_number || !text[tag..].starts_with('$') {
        return (if tag > 1 { Kind::Placeholder } else { Kind::Symbol }, tag, true);
    }
    let mark = &text[..=tag];
    match text[mark.len()..].find(mark) {
        Some(found) => (Kind::Text, 2 * mark.len() + found, true),
        None => (Kind::Text, text.len(), false),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expect: &[(Kind, &str)]) {
        let found: Vec<(Kind, &str)> = tokens(text).map(|token| (token.kind, token.text)).collect();
        assert_eq!(found, expect, "{text:?}");
    }

    #[test]
    fn text_is_cut_into_tokens() {
        use Kind::*;
        check(
            "select user.id, 'it''s' from \"a \"\"t\" where x>=1.5e3;",
            &[
                (Word, "select"),
                (Word, "user.id"),
                (Symbol, ","),
                (Text, "'it''s'"),
                (Word, "from"),
                (QuotedName, "\"a \"\"t\""),
                (Word, "where"),
                (Word, "x"),
                (Symbol, ">"),
                (Symbol, "="),
                (Number, "1.5e3"),
                (Semicolon, ";"),
            ],
        );
        check("-- a;\nb -- c", &[(Comment, "-- a;"), (Word, "b"), (Comment, "-- c")]);
        check("a-b/c", &[(Word, "a"), (Symbol, "-"), (Word, "b"), (Symbol, "/"), (Word, "c")]);
        check("/* a /* ; */ b */c", &[(Comment, "/* a /* ; */ b */"), (Word, "c")]);
        check("$$ ; $$ $q$ $$ ' $q$;", &[(Text, "$$ ; $$"), (Text, "$q$ $$ ' $q$"), (Semicolon, ";")]);
        check(
            "$1 $ $a.b",
            &[(Placeholder, "$1"), (Symbol, "$"), (Placeholder, "$a"), (Symbol, "."), (Word, "b")],
        );
        check(
            "a$b $1$ 1$",
            &[(Word, "a$b"), (Placeholder, "$1"), (Symbol, "$"), (Number, "1"), (Symbol, "$")],
        );
        check("x\\G y \\q", &[(Word, "x"), (Backslash, "\\G"), (Word, "y"), (Symbol, "\\"), (Word, "q")]);
        check("größe = 'ü'", &[(Word, "größe"), (Symbol, "="), (Text, "'ü'")]);
        check("", &[]);
    }

    #[test]
    fn what_is_open_runs_to_the_end() {
        for text in ["'a;", "'a''", "\"a;", "`;", "/* a /* b */ ;", "$$ ;", "$x$ ; $$"] {
            let found: Vec<Token<'_>> = tokens(text).collect();
            assert_eq!((found.len(), found[0].is_closed, found[0].text), (1, false, text), "{text:?}");
        }
        assert!(tokens("-- a").all(|token| token.is_closed));
    }

    proptest! {
        /// Tokens are in order, do not overlap, and between them is only white space.
        #[test]
        fn nothing_is_lost(text in "[a$'\"`/*\\-;\\\\gG1. \nü]{0,40}") {
            let mut at = 0;
            for token in tokens(&text) {
                prop_assert!(text[at..token.start].trim().is_empty());
                prop_assert!(!token.text.is_empty() && text[token.start..].starts_with(token.text));
                at = token.end();
            }
            prop_assert!(text[at..].trim().is_empty());
        }
    }
}
