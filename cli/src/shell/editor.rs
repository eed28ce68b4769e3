//! The line that is typed: history, hints, completion and colours, on a terminal that can be drawn on.

use std::borrow::Cow;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustyline::completion::{Completer, Pair};
use rustyline::config::BellStyle;
use rustyline::error::ReadlineError;
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::{Hint, Hinter, HistoryHinter};
use rustyline::history::{FileHistory, SearchDirection};
use rustyline::line_buffer::LineBuffer;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{
    Changeset, Cmd, CompletionType, ConditionalEventHandler, Config, Editor, Event, EventContext,
    EventHandler, Helper, RepeatCount,
};

use super::catalogue::Catalogue;
use super::completion::{self, Fits};
use super::files;
use super::functions;
use super::keys::Keys;
use super::lines::Typed;
use super::screen;
use super::search::{self, Search};
use super::statements::{holds_something, is_whole};
use crate::colours::{BLUE, GREEN};
use crate::outcome::Failure;
use crate::render::Style;
use crate::sql_names::is_keyword;
use crate::sql_tokens::{Kind, tokens};

/// Statements that are remembered.
const HISTORY_MAX: usize = 10_000;
/// Longer statements are not remembered.
const HISTORY_ENTRY_BYTES_MAX: usize = 16 << 10;
/// Fewer letters say too little to guess the rest.
const GUESSED_FROM: usize = 2;
/// Lists longer than this are asked about.
const LISTED_MAX: usize = 200;
/// Escape is a key by itself when nothing follows it within this time.
const ESCAPE_ALONE: Duration = Duration::from_millis(200);
/// Rows of the screen that a search leaves for the line and what is above it.
const ROWS_LEFT: usize = 4;

/// Reads statements from a terminal.
pub(super) struct LineEditor {
    editor: Editor<Typing, FileHistory>,
    history: Option<std::path::PathBuf>,
    search: SharedSearch,
}

/// The search that keys drive, and that is shown as a hint.
#[derive(Debug, Clone, Default)]
struct SharedSearch(Arc<Mutex<Search>>);

impl SharedSearch {
    /// A search is whole between two keys, whoever panicked.
    fn lock(&self) -> MutexGuard<'_, Search> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConditionalEventHandler for SharedSearch {
    fn handle(&self, event: &Event, _: RepeatCount, _: bool, context: &EventContext<'_>) -> Option<Cmd> {
        let line = context.line();
        self.lock().press(*event.get(0)?, line, context.pos() == line.len())
    }
}

impl LineEditor {
    /// An editor with the history of this file.
    pub(super) fn new(
        catalogue: Catalogue,
        style: Style,
        history: Option<&Path>,
    ) -> Result<LineEditor, Failure> {
        let failed = |error: ReadlineError| Failure::failed(format!("set up the terminal: {error}"));
        let config = Config::builder()
            .max_history_size(HISTORY_MAX)
            .and_then(|config| config.history_ignore_dups(true))
            .map_err(failed)?
            .history_ignore_space(true)
            .completion_type(CompletionType::List)
            .completion_prompt_limit(LISTED_MAX)
            .completion_show_all_if_ambiguous(true)
            .bell_style(BellStyle::None)
            .keyseq_timeout(u16::try_from(ESCAPE_ALONE.as_millis()).ok())
            .build();
        let mut editor = Editor::with_config(config).map_err(failed)?;
        let search = SharedSearch::default();
        editor.bind_sequence(Event::Any, EventHandler::Conditional(Box::new(search.clone())));
        editor.set_helper(Some(Typing {
            catalogue,
            style,
            history: HistoryHinter::new(),
            search: search.clone(),
        }));
        if let Some(path) = history {
            // A first start has none.
            let _ = editor.load_history(path);
        }
        Ok(LineEditor { editor, history: history.map(Path::to_owned), search })
    }

    /// Reads until something can be run. The text in front is there already, to be changed.
    pub(super) fn read(&mut self, prompt: &str, begun: &str, keys: &Keys) -> Result<Typed, Failure> {
        // Between two lines the terminal sends signals.
        if keys.take_press() == Some(true) {
            return Ok(Typed::Interrupted { is_second: true });
        }
        let read = self.editor.readline_with_initial(prompt, (begun, ""));
        self.search.lock().stop();
        match read {
            Ok(text) => {
                self.remember(&text);
                Ok(Typed::Text(text))
            }
            Err(ReadlineError::Interrupted) => Ok(Typed::Interrupted { is_second: keys.press() }),
            Err(ReadlineError::Eof) => Ok(Typed::End),
            Err(ReadlineError::Signal(_)) => Ok(Typed::Text(String::new())),
            Err(error) => Err(Failure::failed(format!("read from the terminal: {error}"))),
        }
    }

    /// A space in front keeps a statement out of the history.
    fn remember(&mut self, text: &str) {
        if text.trim().is_empty() || text.len() > HISTORY_ENTRY_BYTES_MAX {
            return;
        }
        let added = self.editor.add_history_entry(text.trim_end());
        if let (Ok(true), Some(path)) = (added, &self.history) {
            // A disk that is full must not end a session.
            let _ = self.editor.append_history(path);
            files::keep_private(path);
        }
    }
}

/// What helps while somebody types.
struct Typing {
    catalogue: Catalogue,
    style: Style,
    history: HistoryHinter,
    search: SharedSearch,
}

impl Helper for Typing {}

impl Validator for Typing {
    fn validate(&self, typed: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let whole = is_whole(typed.input());
        Ok(if whole { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

impl Completer for Typing {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        place: usize,
        _: &rustyline::Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        if let Some(line) = self.search.lock().line() {
            return Ok((0, vec![Pair { display: line.to_owned(), replacement: line.to_owned() }]));
        }
        let context = completion::context(line, place);
        self.catalogue.want_for(&context);
        self.catalogue.wait();
        let candidates = completion::candidates(&context, &self.catalogue).into_iter();
        let pairs = candidates.map(|found| Pair { display: found.shown, replacement: found.text });
        Ok((context.start, pairs.collect()))
    }

    fn update(&self, line: &mut LineBuffer, start: usize, elected: &str, changes: &mut Changeset) {
        match self.search.lock().take_line() {
            Some(whole) => line.update(&whole, whole.len(), changes),
            None => line.replace(start..line.pos(), elected, changes),
        }
    }
}

/// Grey text behind the cursor.
#[derive(Debug, PartialEq, Eq)]
struct Grey {
    shown: String,
    /// What Right puts in place.
    taken: Option<String>,
}

impl Hint for Grey {
    fn display(&self) -> &str {
        &self.shown
    }

    fn completion(&self) -> Option<&str> {
        self.taken.as_deref()
    }
}

impl Hinter for Typing {
    type Hint = Grey;

    fn hint(&self, line: &str, place: usize, context: &rustyline::Context<'_>) -> Option<Grey> {
        if self.search.lock().is_on() {
            return self.found(line, context);
        }
        // What will be wanted is asked for while the rest is typed.
        for table in completion::tables_of(line, place) {
            self.catalogue.want_columns(&table);
        }
        self.catalogue.want_tables();
        if place < line.len() || line.is_empty() {
            return None;
        }
        if line.ends_with('\n') {
            let open = holds_something(line) && !is_whole(line);
            return open.then(|| Grey { shown: "-> ; ends the statement".to_owned(), taken: None });
        }
        if let Some(rest) = self.history.hint(line, place, context) {
            return Some(Grey { shown: rest.clone(), taken: Some(rest) });
        }
        signature(line).or_else(|| self.guess(line, place))
    }
}

impl Typing {
    /// What a search finds.
    fn found(&self, line: &str, context: &rustyline::Context<'_>) -> Option<Grey> {
        let history = context.history();
        let newest_first = (0..history.len()).rev();
        let statements = newest_first
            .filter_map(|place| Some(history.get(place, SearchDirection::Reverse).ok().flatten()?.entry));
        let (rows, columns) = screen::size().unwrap_or((24, 80));
        let style = Style { width: Some(columns), ..self.style };
        let shown = self.search.lock().shown(line, statements, style, rows.saturating_sub(ROWS_LEFT))?;
        Some(Grey { shown, taken: None })
    }

    /// The rest of the only thing that begins as what was typed.
    fn guess(&self, line: &str, place: usize) -> Option<Grey> {
        let context = completion::context(line, place);
        if context.typed.chars().count() < GUESSED_FROM || context.fits == Fits::Nothing {
            return None;
        }
        let mut candidates = completion::candidates(&context, &self.catalogue).into_iter();
        let (only, None) = (candidates.next()?, candidates.next()) else { return None };
        let rest = only.text.get(context.typed.len()..).filter(|rest| !rest.is_empty())?;
        let begins = only.text[..context.typed.len()].eq_ignore_ascii_case(&context.typed);
        begins.then(|| Grey { shown: rest.to_owned(), taken: Some(rest.to_owned()) })
    }
}

/// Behind the parenthesis of a function: what it takes.
fn signature(line: &str) -> Option<Grey> {
    let name = line.strip_suffix('(')?;
    let start = name.rfind(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).map_or(0, |at| at + 1);
    let function = functions::named(&name[start..])?;
    Some(Grey { shown: format!("{}) → {}", function.takes, function.gives), taken: None })
}

impl Highlighter for Typing {
    fn highlight<'l>(&self, line: &'l str, _: usize) -> Cow<'l, str> {
        if self.style.colour { Cow::Owned(coloured(line)) } else { Cow::Borrowed(line) }
    }

    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, _: bool) -> Cow<'b, str> {
        if self.style.colour {
            Cow::Owned(format!("\u{1b}[1m{prompt}\u{1b}[0m"))
        } else {
            Cow::Borrowed(prompt)
        }
    }

    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        if !self.search.lock().is_on() {
            return Cow::Owned(self.style.dim(hint));
        }
        // All but the statement that Enter takes.
        let mark = search::mark(self.style);
        let shown = |line: &str| if line.starts_with(mark) { line.to_owned() } else { self.style.dim(line) };
        Cow::Owned(hint.split('\n').map(shown).collect::<Vec<_>>().join("\n"))
    }

    fn highlight_char(&self, _: &str, _: usize, kind: CmdKind) -> bool {
        self.style.colour && kind != CmdKind::MoveCursor
    }
}

/// Keywords bold, strings and numbers in colours that are seen on dark and on light.
fn coloured(line: &str) -> String {
    let mut shown = String::with_capacity(line.len() + 64);
    let mut copied = 0;
    for token in tokens(line) {
        let painted = match token.kind {
            Kind::Text => GREEN.paint(token.text),
            Kind::Number | Kind::Placeholder => BLUE.paint(token.text),
            Kind::Comment => format!("\u{1b}[2m{}\u{1b}[0m", token.text),
            Kind::Word if is_keyword(token.text) => format!("\u{1b}[1m{}\u{1b}[0m", token.text),
            _ => continue,
        };
        shown.push_str(&line[copied..token.start]);
        shown.push_str(&painted);
        copied = token.end();
    }
    shown.push_str(&line[copied..]);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_say_what_they_take() {
        let shown = |line: &str| signature(line).map(|grey| grey.shown);
        assert_eq!(shown("select P99("), Some("x) → float".to_owned()));
        assert_eq!(shown("select now("), Some(") → time".to_owned()));
        assert_eq!(shown("select foo("), None);
        assert_eq!(shown("("), None);
    }

    #[test]
    fn colours_change_nothing_but_colours() {
        let line = "select 'ü', 12 -- x\nfrom \"a\";";
        let plain = coloured(line);
        assert_eq!(
            plain,
            "\u{1b}[1mselect\u{1b}[0m \u{1b}[38;5;64m'ü'\u{1b}[0m, \u{1b}[38;5;31m12\u{1b}[0m \u{1b}[2m-- x\u{1b}[0m\n\
             \u{1b}[1mfrom\u{1b}[0m \"a\";"
        );
    }
}
