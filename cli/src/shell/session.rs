//! A session: what was set, what was asked last, and the running of statements.
//!
//! On a terminal a failure is said and the session goes on; from a pipe it ends the session with its exit code.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use gannet_client::{Answer, QueryOptions};
use tokio::runtime::Runtime;

use super::catalogue::Catalogue;
use super::completion;
use super::files::{self, Files, Kept};
use super::keys::Keys;
use super::meta;
use super::screen::{self, ROWS_SHOWN, Shown};
use super::statements::{self, Piece, pieces};
use crate::charts::{Chart, answer};
use crate::client::{Client, ClientArgs};
use crate::completeness::warning;
use crate::interrupt::Interrupt;
use crate::outcome::{Exit, Failure, Outcome};
use crate::progress_line::ProgressLine;
use crate::query::ask::{Asker, Reply};
use crate::query::excerpt::with_excerpt;
use crate::query::format::{Format, Layout};
use crate::query::output::Output;
use crate::query::statements::Statement;
use crate::query::{AnswerArgs, Query};
use crate::sql_tokens::{Kind, tokens};
use crate::{render, runtime, units};

/// Rows that are kept of an answer nobody limited.
const ROWS_KEPT: usize = 100_000;
/// The prompt before a table was asked about.
const PROMPT: &str = "gannet";
/// Longer names of tables make no prompt.
const PROMPT_MAX: usize = 20;
/// How deep files may include files.
pub(super) const INCLUDED_MAX: usize = 8;

/// What comes after something was run.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Whatever is typed next.
    Read,
    /// This text, to be changed.
    Change(String),
    /// Nothing.
    Leave,
}

/// A session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) runtime: Runtime,
    pub(super) client: Client,
    catalogue: Catalogue,
    keys: Keys,
    pub(super) files: Files,
    pub(super) kept: Kept,
    pub(super) is_interactive: bool,
    pub(super) args: AnswerArgs,
    /// The format, when one was chosen.
    pub(super) timeout: Option<Duration>,
    pub(super) is_vertical: bool,
    pub(super) is_timed: bool,
    pub(super) is_paged: bool,
    /// What is drawn above answers.
    pub(super) chart: Chart,
    /// The file that answers go to, while one is set.
    pub(super) output: Option<(PathBuf, Output)>,
    /// The file of the next answer.
    pub(super) once: Option<PathBuf>,
    pub(super) last_statement: Option<(String, statements::Shown)>,
    pub(super) last_answer: Option<Shown>,
    table: Option<String>,
    pub(super) depth: usize,
    exit: Exit,
}

impl Session {
    /// Begins; nothing is asked yet.
    pub(super) fn start(
        client: ClientArgs,
        args: AnswerArgs,
        files: Files,
        is_interactive: bool,
    ) -> Result<Session, Failure> {
        let timeout = client.timeout;
        let client = client.connect()?;
        let runtime = runtime::paired()?;
        let catalogue = Catalogue::new(client.inner().clone(), runtime.handle().clone());
        let keys = Keys::listen(runtime.handle());
        let kept = match files.kept.as_deref().map(files::read_kept).transpose() {
            Ok(kept) => kept.unwrap_or_default(),
            Err(failure) => {
                let _ = io::stderr().write_all(failure.report().as_bytes());
                Kept::new()
            }
        };
        catalogue.keep(kept.keys().cloned().collect());
        let output = match &args.output {
            None => None,
            Some(path) => {
                let (interrupt, _) = Interrupt::by_hand();
                Some((path.clone(), Output::open(Some(path), args.format(), &interrupt)?))
            }
        };
        Ok(Session {
            runtime,
            client,
            catalogue,
            keys,
            files,
            kept,
            is_interactive,
            args,
            timeout,
            is_vertical: false,
            is_timed: false,
            is_paged: true,
            chart: Chart::None,
            output,
            once: None,
            last_statement: None,
            last_answer: None,
            table: None,
            depth: 0,
            exit: Exit::Done,
        })
    }

    pub(super) fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    pub(super) fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Says where one is. A server that is not there is said, and may come later.
    pub(super) fn greet(&mut self) -> Result<(), Failure> {
        let address = self.client.inner().address().to_owned();
        let client = self.client.clone();
        let status = self.interruptible(async move { Ok(client.inner().status().await?) });
        let about = match status {
            Ok(status) => {
                let serving = status.leaves.iter().filter(|leaf| leaf.state == "serving").count();
                let leaves = status.leaves.len() + status.unheard.len();
                let rows: u64 = status.leaves.iter().map(|leaf| leaf.rows).sum();
                format!("{serving} of {leaves} leaves serving, {}", units::rows(rows))
            }
            Err(failure) => failure.message,
        };
        let about: String = about.chars().filter(|c| !c.is_control()).collect();
        let version = env!("CARGO_PKG_VERSION");
        writeln!(io::stdout(), "gannet {version} at {address}: {about}\n\\? lists commands, \\q leaves")?;
        self.catalogue.want_tables();
        Ok(())
    }

    /// The table that was asked about last.
    pub(super) fn prompt(&self) -> String {
        format!("{}> ", self.table.as_deref().unwrap_or(PROMPT))
    }

    /// The end: a file that answers went to gets its name.
    pub(super) fn finish(&mut self) -> Outcome {
        if let Some((_, output)) = self.output.take() {
            output.finish()?;
        }
        Ok(self.exit)
    }

    /// Waits for this unless Ctrl-C is pressed.
    pub(super) fn interruptible<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let interrupt = self.keys.run();
        let done = self.runtime.handle().block_on(async {
            tokio::select! {
                biased;
                () = interrupt.said() => Err(Failure::new(Exit::Interrupted, "")),
                done = work => done,
            }
        });
        self.keys.rest();
        done
    }

    /// Runs what was typed. On a terminal a failure ends what was typed, else the session.
    pub(super) fn run(&mut self, text: &str) -> Result<Next, Failure> {
        match self.run_pieces(text) {
            Err(failure) if self.is_interactive => {
                if failure.exit == Exit::Interrupted {
                    writeln!(io::stderr(), "cancelled")?;
                } else {
                    io::stderr().write_all(failure.report().as_bytes())?;
                }
                Ok(Next::Read)
            }
            next => next,
        }
    }

    pub(super) fn run_pieces(&mut self, text: &str) -> Result<Next, Failure> {
        for piece in pieces(text) {
            let next = match piece {
                Piece::Statement(sql, shown) => self.statement(sql, shown).map(|()| Next::Read)?,
                Piece::Open(sql) => self.statement(sql, statements::Shown::AsSet).map(|()| Next::Read)?,
                Piece::Meta { begun, line } => {
                    let command =
                        meta::parse(line).map_err(|wrong| Failure::usage(wrong.message).hint(wrong.hint))?;
                    self.command(command, begun)?
                }
            };
            if next != Next::Read {
                return Ok(next);
            }
        }
        Ok(Next::Read)
    }

    /// Runs one statement.
    pub(super) fn statement(&mut self, sql: &str, shown: statements::Shown) -> Result<(), Failure> {
        self.last_statement = Some((sql.to_owned(), shown));
        let statement = Statement { sql: sql.to_owned(), line: 1 };
        let begun = Instant::now();
        let interrupt = self.keys.run();
        let asked = self.ask(&statement, shown, &interrupt);
        self.keys.rest();
        let exit = asked.map_err(|failure| with_excerpt(failure, &statement))?;
        if self.is_timed {
            writeln!(io::stdout(), "time: {}", units::seconds(begun.elapsed().as_secs_f64()))?;
        }
        self.note_table(sql);
        match exit {
            Exit::Interrupted => Err(Failure::new(Exit::Interrupted, "")),
            Exit::Done => Ok(()),
            // A thin answer is an answer, and who reads it was told; a script ends with what it was.
            other => {
                if !self.is_interactive {
                    self.exit = other;
                }
                Ok(())
            }
        }
    }

    fn note_table(&mut self, sql: &str) {
        if let Some(table) = completion::tables_of(sql, sql.len()).into_iter().next() {
            let is_short = table.chars().count() <= PROMPT_MAX && !table.chars().any(char::is_control);
            self.table = is_short.then_some(table);
        }
    }

    /// How answers are printed now.
    pub(super) fn format(&self, shown: statements::Shown) -> Format {
        let is_vertical = self.is_vertical || shown == statements::Shown::Vertical;
        match self.args.format() {
            Format::Table if is_vertical => Format::Vertical,
            // What was asked for with `\G` is for people, whatever answers are for otherwise.
            _ if shown == statements::Shown::Vertical => Format::Vertical,
            format => format,
        }
    }

    fn ask(&mut self, statement: &Statement, shown: statements::Shown, interrupt: &Interrupt) -> Outcome {
        let handle = self.runtime.handle().clone();
        let format = self.format(shown);
        let is_to_file = self.output.is_some() || self.once.is_some();
        if self.is_interactive && !is_to_file && format.is_for_people() {
            return handle.block_on(self.show(statement, format, interrupt));
        }
        let client = self.client.clone();
        let options = QueryOptions { timeout: self.timeout, min_completeness: None };
        let asker = Asker { client: client.inner(), options, interrupt };
        let once = self.once.take();
        let out = match (&once, self.output.take()) {
            (Some(path), kept) => {
                self.output = kept;
                let format = Format::of_file(path).unwrap_or(format);
                Output::open(Some(path), format, interrupt)?
            }
            (None, Some((path, output))) => {
                // Put back below, whatever happens.
                self.output = Some((path, Output::in_memory(interrupt)));
                output
            }
            (None, None) => Output::open(None, format, interrupt)?,
        };
        let format = once.as_deref().and_then(Format::of_file).unwrap_or(format);
        let args = self.args.clone();
        let layout = Layout { format, ..args.layout() };
        let layout = if is_to_file { Layout { style: render::Style::PLAIN, ..layout } } else { layout };
        let mut query = Query { asker, args: &args, layout, chart: Chart::None, out, stats_file: None };
        let answered = handle.block_on(query.answer(statement));
        let Query { out, .. } = query;
        if once.is_none()
            && let Some((_, kept)) = &mut self.output
        {
            *kept = out;
        } else {
            let exit = answered?;
            out.finish()?;
            if let (Some(path), true) = (&once, self.is_interactive) {
                writeln!(io::stdout(), "written to {}", path.display())?;
            }
            return Ok(exit);
        }
        answered
    }

    /// Asks and shows on the screen.
    async fn show(&mut self, statement: &Statement, format: Format, interrupt: &Interrupt) -> Outcome {
        let client = self.client.clone();
        let options = QueryOptions { timeout: self.timeout, min_completeness: None };
        let asker = Asker { client: client.inner(), options, interrupt };
        let layout = self.args.layout();
        let mut line = ProgressLine::new(true, layout.style);
        let reply = if is_bounded(&statement.sql) {
            asker.refined(&statement.sql, self.args.wait_complete, &mut line).await?
        } else {
            asker.arriving(&statement.sql, &mut line).await?
        };
        let mut has_more = false;
        let (answer, is_partial, exit) = match reply {
            Reply::Final(answer) => (answer, false, Exit::Done),
            Reply::Partial(answer) => (answer, true, Exit::Done),
            Reply::Interrupted(answer) => (answer, true, Exit::Interrupted),
            Reply::Arriving(mut arriving) => {
                let mut batches = Vec::new();
                let mut rows = 0;
                while let Some(batch) = asker.watch(&mut line, arriving.next()).await? {
                    rows += batch.num_rows();
                    batches.push(batch);
                    has_more = rows >= ROWS_KEPT;
                    if has_more {
                        break;
                    }
                }
                let (completeness, stats) = (arriving.completeness().clone(), arriving.stats());
                let answer = Answer { schema: arriving.schema().clone(), batches, completeness, stats };
                (answer, false, Exit::Done)
            }
        };
        line.clear();
        let completeness = answer.completeness.clone();
        let shown = Shown { answer, is_partial, has_more, format };
        let rows = shown.text(layout, Some(ROWS_SHOWN))?;
        let Answer { schema, batches, .. } = &shown.answer;
        let drawn = answer::drawn(self.chart, schema, batches, layout.zone, layout.style);
        let text = drawn.unwrap_or_default() + &rows;
        screen::show(&text, self.is_paged, &self.keys)?;
        self.last_answer = Some(shown);
        if let Some(warning) = warning(&completeness) {
            let _ = writeln!(io::stderr(), "{warning}");
        }
        if completeness.reaches(self.args.min_completeness) {
            return Ok(exit);
        }
        let least = units::share(self.args.min_completeness);
        let _ = writeln!(io::stderr(), "warning: this is below the {least} of \\min: too little to rely on.");
        Ok(if exit == Exit::Done { Exit::Incomplete } else { exit })
    }
}

/// A statement that cannot have more rows than a screen of memory: it groups, aggregates or has a limit.
fn is_bounded(sql: &str) -> bool {
    let aggregates =
        ["count", "sum", "avg", "min", "max", "unweighted", "approx_distinct", "histogram", "median"];
    let mut words = tokens(sql).filter(|token| token.kind != Kind::Comment).peekable();
    let mut is_read = false;
    while let Some(token) = words.next() {
        let is_called = words.peek().is_some_and(|next| next.is_symbol('('));
        if token.is_word("limit") || token.is_word("group") {
            return true;
        }
        if is_called && aggregates.iter().any(|name| token.is_word(name)) {
            return true;
        }
        is_read |= token.is_word("from");
    }
    !is_read
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_without_a_bound_are_known() {
        let check = |sql: &str, bounded: bool| assert_eq!(is_bounded(sql), bounded, "{sql}");
        check("select * from t", false);
        check("select * from t order by time desc", false);
        check("select * from t -- limit 5", false);
        check("select 'limit' from t", false);
        check("select * from t limit 5", true);
        check("select count(*) from t", true);
        check("select a, p99(b) from t group by a", true);
        check("select count from t", false);
        check("show tables", true);
        check("select 1", true);
    }
}
