//! What could stand at a place of a text: found from the text alone, without asking anybody.
//!
//! [`context`] says which kind of thing fits; [`candidates`] then chooses from what is known of tables, columns and
//! values. Where the text is a comment, a number or a new name, nothing fits.

use super::functions::FUNCTIONS;
use super::meta;
use super::statements::holds_something;
use crate::sql_names::{BEGINNINGS, CLAUSES, KEYWORDS, is_keyword, quoted_name, unquoted};
use crate::sql_tokens::{Kind, Token, tokens};

/// What fits at a place, and what was typed of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fits {
    /// Nothing to offer.
    Nothing,
    /// The name of a meta command, with its first character.
    MetaName,
    /// The name of a kept statement.
    Kept,
    /// The name of a format.
    Format,
    /// A word that begins a statement.
    Beginning,
    /// A table.
    Table,
    /// A column, a function or a keyword.
    Column {
        /// The tables of the statement.
        tables: Vec<String>,
        /// The one that was named before a dot.
        only: Option<String>,
    },
    /// A value of a column, inside a string.
    Value {
        /// The tables of the statement.
        tables: Vec<String>,
        /// The column it is compared with.
        column: String,
        /// The string has its closing quote already.
        is_closed: bool,
    },
}

/// A place and what fits there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Context {
    /// The first byte that a candidate replaces; the last is before the place.
    pub(super) start: usize,
    /// What was typed of it, without quotes.
    pub(super) typed: String,
    /// What fits.
    pub(super) fits: Fits,
}

/// What is known of tables, columns and values; asking it takes no time.
pub(super) trait Known {
    /// The names of all tables.
    fn tables(&self) -> Vec<String>;
    /// The columns of a table with their types.
    fn columns(&self, table: &str) -> Vec<(String, String)>;
    /// The most frequent values of a column.
    fn values(&self, table: &str, column: &str) -> Vec<String>;
    /// Names of kept statements.
    fn kept(&self) -> Vec<String>;
    /// Names of formats.
    fn formats(&self) -> Vec<String>;
}

/// Something that fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    /// What is shown in the list.
    pub(super) shown: String,
    /// What is put in place.
    pub(super) text: String,
}

/// What fits at this byte of the text.
pub(super) fn context(text: &str, place: usize) -> Context {
    let place = floor_boundary(text, place);
    let nothing = Context { start: place, typed: String::new(), fits: Fits::Nothing };
    if let Some(meta) = meta_context(text, place) {
        return meta;
    }
    let all: Vec<Token<'_>> = tokens(text).collect();
    let statement = statement_around(&all, place);
    // The token that ends at the place, or that the place is inside of.
    let touched = statement.iter().find(|token| token.start < place && place <= token.end());
    let before: Vec<&Token<'_>> =
        statement.iter().filter(|token| token.end() <= touched.map_or(place, |token| token.start)).collect();
    let before: Vec<&Token<'_>> = before.into_iter().filter(|token| token.kind != Kind::Comment).collect();
    match touched {
        Some(token) if token.kind == Kind::Comment => {
            let behind = token.is_closed && place == token.end() && token.text.starts_with("/*");
            if behind { word_context(text, statement, &before, place, place) } else { nothing }
        }
        Some(token) if matches!(token.kind, Kind::Number | Kind::Placeholder) => nothing,
        Some(token) if token.kind == Kind::Text => {
            let behind = token.is_closed && place == token.end();
            if behind { nothing } else { value_context(statement, &before, token, text, place) }
        }
        Some(token) if token.kind == Kind::QuotedName => {
            if token.is_closed && place == token.end() {
                return nothing;
            }
            let mut context = word_context(text, statement, &before, token.start, place);
            context.typed = text[token.start + 1..place].to_owned();
            context
        }
        Some(token) if token.kind == Kind::Word => word_context(text, statement, &before, token.start, place),
        _ => word_context(text, statement, &before, place, place),
    }
}

fn floor_boundary(text: &str, place: usize) -> usize {
    let mut place = place.min(text.len());
    while !text.is_char_boundary(place) {
        place -= 1;
    }
    place
}

/// The place is in a meta command: at the first line, or at a line that begins with `\`.
fn meta_context(text: &str, place: usize) -> Option<Context> {
    let line_start = text[..place].rfind('\n').map_or(0, |at| at + 1);
    let line = &text[line_start..place];
    let command = line.trim_start();
    let is_first = !holds_something(&text[..line_start]);
    let is_meta = command.starts_with('\\') || (is_first && command.starts_with('.'));
    if !is_meta {
        return None;
    }
    let words: Vec<&str> = command.split_whitespace().collect();
    let is_name = words.len() <= 1 && !command.ends_with(char::is_whitespace);
    if is_name {
        let fits = Fits::MetaName;
        return Some(Context { start: place - command.len(), typed: command.to_owned(), fits });
    }
    let typed = command.rsplit(char::is_whitespace).next().unwrap_or("").to_owned();
    let nth = words.len() - usize::from(!typed.is_empty());
    let fits = match meta::canonical(&words[0][1..]) {
        Some("d" | "tail") if nth == 1 => Fits::Table,
        Some("f" | "fd" | "s") if nth == 1 => Fits::Kept,
        Some("format") if nth == 1 => Fits::Format,
        Some("tail") => {
            let tables = vec![unquoted(words[1])];
            let start = text[..place].len() - typed.len();
            return Some(Context { start, typed, fits: Fits::Column { tables, only: None } });
        }
        _ => Fits::Nothing,
    };
    Some(Context { start: place - typed.len(), typed, fits })
}

/// The tokens of the statement that the place is in.
fn statement_around<'a, 'b>(all: &'b [Token<'a>], place: usize) -> &'b [Token<'a>] {
    let is_end = |token: &Token<'_>| matches!(token.kind, Kind::Semicolon | Kind::Backslash);
    let first = all.iter().rposition(|token| is_end(token) && token.end() <= place).map_or(0, |at| at + 1);
    let rest = &all[first..];
    let last = rest.iter().position(is_end).unwrap_or(rest.len());
    &rest[..last]
}

fn word_context(
    text: &str,
    statement: &[Token<'_>],
    before: &[&Token<'_>],
    start: usize,
    place: usize,
) -> Context {
    let typed = text[start..place].to_owned();
    let Some(previous) = before.last() else {
        return Context { start, typed, fits: Fits::Beginning };
    };
    let fits = if previous.is_word("as") {
        Fits::Nothing
    } else if names_table(before) {
        Fits::Table
    } else {
        let named = tables(statement);
        let (qualifier, rest) = match typed.split_once('.') {
            Some((qualifier, rest)) if named.iter().any(|table| table.is_called(qualifier)) => {
                (Some(qualifier.to_owned()), rest.to_owned())
            }
            _ => (None, typed.clone()),
        };
        let only = qualifier
            .as_deref()
            .and_then(|qualifier| named.iter().find(|table| table.is_called(qualifier)))
            .map(|table| table.name.clone());
        let start = start + qualifier.map_or(0, |qualifier| qualifier.len() + 1);
        let tables = named.into_iter().map(|table| table.name).collect();
        return Context { start, typed: rest, fits: Fits::Column { tables, only } };
    };
    Context { start, typed, fits }
}

/// The next word is a table: it follows FROM, JOIN, DESCRIBE, or a comma of a list of tables.
fn names_table(before: &[&Token<'_>]) -> bool {
    let Some(previous) = before.last() else { return false };
    if ["from", "join", "describe", "desc", "table"].iter().any(|word| previous.is_word(word)) {
        // `order by x desc` is no DESCRIBE, and a function such as `extract(hour from time)` names no table.
        let begins = before.len() == 1;
        return match previous.text.to_ascii_lowercase().as_str() {
            "describe" | "desc" => begins,
            "from" => !inside_call(before, &["extract", "substring", "trim", "overlay"]),
            _ => true,
        };
    }
    if !previous.is_symbol(',') {
        return false;
    }
    // A comma at the depth of a FROM whose clause is not over.
    let mut depth = 0_usize;
    for token in before.iter().rev() {
        if token.is_symbol(')') {
            depth += 1;
        } else if token.is_symbol('(') {
            if depth == 0 {
                return false;
            }
            depth -= 1;
        } else if depth == 0 && token.is_word("from") {
            return true;
        } else if depth == 0 && CLAUSES.iter().any(|word| token.is_word(word)) {
            return false;
        }
    }
    false
}

/// The innermost parenthesis that is open belongs to a call of one of these.
fn inside_call(before: &[&Token<'_>], names: &[&str]) -> bool {
    enclosing_call(before).is_some_and(|(at, _)| names.iter().any(|name| before[at].is_word(name)))
}

/// The word before the innermost open parenthesis, and where the parenthesis is.
fn enclosing_call(before: &[&Token<'_>]) -> Option<(usize, usize)> {
    let mut depth = 0_usize;
    for (at, token) in before.iter().enumerate().rev() {
        if token.is_symbol(')') {
            depth += 1;
        } else if token.is_symbol('(') {
            if depth == 0 {
                let word = at.checked_sub(1)?;
                return (before[word].kind == Kind::Word).then_some((word, at));
            }
            depth -= 1;
        }
    }
    None
}

/// The place is inside a string: values of the column that it is compared with.
fn value_context(
    statement: &[Token<'_>],
    before: &[&Token<'_>],
    string: &Token<'_>,
    text: &str,
    place: usize,
) -> Context {
    let start = string.start + 1;
    let typed = text.get(start..place).unwrap_or("").replace("''", "'");
    let fits = match compared_column(before) {
        Some(column) if string.text.starts_with('\'') => {
            let named = tables(statement);
            let alias =
                column.split_once('.').filter(|(word, _)| named.iter().any(|table| table.is_called(word)));
            let column = alias.map_or(column.clone(), |(_, column)| column.to_owned());
            let tables = named.into_iter().map(|table| table.name).collect();
            Fits::Value { tables, column, is_closed: string.is_closed }
        }
        _ => Fits::Nothing,
    };
    Context { start, typed, fits }
}

/// The column of `column = '…`, `column in ('…', '…` or `contains_any(column, '…`.
fn compared_column(before: &[&Token<'_>]) -> Option<String> {
    let name = |at: usize| {
        let token = before.get(at)?;
        matches!(token.kind, Kind::Word | Kind::QuotedName).then(|| unquoted(token.text))
    };
    let mut at = before.len().checked_sub(1)?;
    // `=`, `!=`, `<>`, `<=`, …
    if "=<>!".chars().any(|symbol| before[at].is_symbol(symbol)) {
        while "=<>!".chars().any(|symbol| before[at].is_symbol(symbol)) {
            at = at.checked_sub(1)?;
        }
        return name(at);
    }
    if before[at].is_word("like") || before[at].is_word("ilike") {
        at = at.checked_sub(1)?;
        return name(if before[at].is_word("not") { at.checked_sub(1)? } else { at });
    }
    let (word, parenthesis) = enclosing_call(before)?;
    if before[word].is_word("in") {
        let at = word.checked_sub(1)?;
        return name(if before[at].is_word("not") { at.checked_sub(1)? } else { at });
    }
    let lists = ["contains_any", "contains_all", "contains_none", "list_starts", "list_ends"];
    let is_list = lists.iter().any(|function| before[word].is_word(function));
    let is_later = before.get(parenthesis + 2).is_some_and(|token| token.is_symbol(','));
    if is_list && is_later { name(parenthesis + 1) } else { None }
}

/// A table of a statement and the other name it goes by there.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Named {
    name: String,
    alias: Option<String>,
}

impl Named {
    fn is_called(&self, word: &str) -> bool {
        let is = |name: &str| name.eq_ignore_ascii_case(word);
        is(&self.name) || self.alias.as_deref().is_some_and(is)
    }
}

/// The tables that a statement names after FROM and JOIN, wherever in it.
fn tables(statement: &[Token<'_>]) -> Vec<Named> {
    let code: Vec<&Token<'_>> = statement.iter().filter(|token| token.kind != Kind::Comment).collect();
    let mut found: Vec<Named> = Vec::new();
    for at in 1..=code.len() {
        let Some(token) = code.get(at) else { break };
        let is_name = match token.kind {
            Kind::QuotedName => token.is_closed,
            Kind::Word => !is_keyword(token.text),
            _ => false,
        };
        if !is_name || !names_table(&code[..at]) {
            continue;
        }
        let skipped = usize::from(code.get(at + 1).is_some_and(|next| next.is_word("as")));
        let alias = code.get(at + 1 + skipped).filter(|next| match next.kind {
            Kind::QuotedName => next.is_closed,
            Kind::Word => !is_keyword(next.text),
            _ => false,
        });
        let named = Named { name: unquoted(token.text), alias: alias.map(|alias| unquoted(alias.text)) };
        if !found.contains(&named) {
            found.push(named);
        }
    }
    found
}

/// The names of the tables of a text, for those who want to know their columns before they are asked for.
pub(super) fn tables_of(text: &str, place: usize) -> Vec<String> {
    let all: Vec<Token<'_>> = tokens(text).collect();
    tables(statement_around(&all, floor_boundary(text, place))).into_iter().map(|table| table.name).collect()
}

/// What fits, the likeliest first: what begins with what was typed, else what holds it.
pub(super) fn candidates(context: &Context, known: &impl Known) -> Vec<Candidate> {
    let typed = context.typed.as_str();
    let mut offered = Offered { typed, beginning: Vec::new(), holding: Vec::new() };
    match &context.fits {
        Fits::Nothing => {}
        Fits::MetaName => offer_meta_names(&mut offered),
        Fits::Kept => known.kept().into_iter().for_each(|name| offered.plain(name)),
        Fits::Format => known.formats().into_iter().for_each(|name| offered.plain(name)),
        Fits::Beginning => BEGINNINGS.iter().for_each(|word| offered.keyword(word)),
        Fits::Table => {
            for table in known.tables() {
                offered.add(&table, &table, &quoted_name(&table));
            }
        }
        Fits::Column { tables, only } => {
            let searched = only.as_ref().map_or(tables.as_slice(), std::slice::from_ref);
            for (column, type_name) in searched.iter().flat_map(|table| known.columns(table)) {
                offered.add(&column, &format!("{column} {type_name}"), &quoted_name(&column));
            }
            if only.is_none() {
                for function in &FUNCTIONS {
                    offered.add(function.name, &function.signature(), &format!("{}(", function.name));
                }
                KEYWORDS.iter().for_each(|word| offered.keyword(word));
            }
        }
        Fits::Value { tables, column, is_closed } => {
            let end = if *is_closed { "" } else { "'" };
            for value in tables.iter().flat_map(|table| known.values(table, column)) {
                offered.add(&value, &value, &format!("{}{end}", value.replace('\'', "''")));
            }
        }
    }
    if offered.beginning.is_empty() { offered.holding } else { offered.beginning }
}

fn offer_meta_names(offered: &mut Offered<'_>) {
    let first = offered.typed.chars().next().unwrap_or('\\');
    for command in &meta::COMMANDS {
        let shown = format!("{first}{} {}", command.name, command.arguments);
        let name = format!("{first}{}", command.name);
        offered.add(&name, shown.trim_end(), &name);
    }
}

struct Offered<'a> {
    typed: &'a str,
    beginning: Vec<Candidate>,
    holding: Vec<Candidate>,
}

impl Offered<'_> {
    fn add(&mut self, name: &str, shown: &str, text: &str) {
        let candidate = Candidate { shown: one_line(shown), text: text.to_owned() };
        let starts = name.get(..self.typed.len()).is_some_and(|head| head.eq_ignore_ascii_case(self.typed));
        if starts {
            if !self.beginning.iter().any(|known| known.text == candidate.text) {
                self.beginning.push(candidate);
            }
        } else if self.typed.chars().count() >= 2
            && name.to_lowercase().contains(&self.typed.to_lowercase())
            && !self.holding.iter().any(|known| known.text == candidate.text)
        {
            self.holding.push(candidate);
        }
    }

    fn plain(&mut self, name: String) {
        self.add(&name, &name, &name);
    }

    /// A keyword in the case that was typed.
    fn keyword(&mut self, word: &str) {
        let is_upper =
            self.typed.chars().any(char::is_uppercase) && !self.typed.chars().any(char::is_lowercase);
        let word = if is_upper { word.to_uppercase() } else { word.to_owned() };
        // Two words hold more than the last letters of one.
        if word.len() >= self.typed.len() && word.is_char_boundary(self.typed.len()) {
            let starts = word[..self.typed.len()].eq_ignore_ascii_case(self.typed);
            if starts {
                self.beginning.push(Candidate { shown: word.clone(), text: word });
            }
        }
    }
}

/// What a list can show: values are data and may hold anything.
fn one_line(text: &str) -> String {
    let mut shown: String = text.chars().take(60).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(60).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests;
