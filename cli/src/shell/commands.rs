//! What meta commands do.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use chrono::{SecondsFormat, Utc};
use clap::ValueEnum;

use super::describe;
use super::files;
use super::functions::FUNCTIONS;
use super::meta::{self, Meta};
use super::screen;
use super::session::{INCLUDED_MAX, Next, Session};
use super::statements::Shown;
use crate::charts::Chart;
use crate::interrupt::Interrupt;
use crate::link::Link;
use crate::outcome::{Exit, Failure};
use crate::query::format::Format;
use crate::query::output::Output;
use crate::query::parameters;
use crate::query::statements::Statement;
use crate::render::{self, Table};
use crate::sql_names::unquoted;
use crate::sql_tokens::{Kind, tokens};
use crate::tail::{Followed, follow};
use crate::{status, units};

/// A file of statements that is longer is not read.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// The editor that is used when the environment names none.
const EDITOR: &str = "vi";
/// Clears the screen and goes to its first line.
const CLEAR_SCREEN: &str = "\u{1b}[H\u{1b}[2J";

impl Session {
    /// Does what a command says; a statement may have been begun before it.
    pub(super) fn command(&mut self, command: Meta, begun: &str) -> Result<Next, Failure> {
        match command {
            Meta::Quit => return Ok(Next::Leave),
            Meta::Edit => return self.edit(begun).map(Next::Change),
            Meta::Reset => return Ok(Next::Read),
            Meta::Describe(None) => self.tables()?,
            Meta::Describe(Some(table)) => self.describe(&table)?,
            Meta::Functions(part) => self.functions(part.as_deref().unwrap_or(""))?,
            Meta::Leaves => self.leaves()?,
            Meta::Help => self.help()?,
            Meta::Timing(switch) => {
                self.is_timed = switch.applied(self.is_timed);
                self.say_switch("timing", self.is_timed)?;
            }
            Meta::Expanded(switch) => {
                self.is_vertical = switch.applied(self.is_vertical);
                if self.is_vertical && self.args.format != Some(Format::Table) {
                    // Fields are what is wanted, whatever was before.
                    self.args.format = None;
                }
                self.say_switch("rows as lists of fields", self.is_vertical)?;
            }
            Meta::Pager(switch) => {
                self.is_paged = switch.applied(self.is_paged);
                self.say_switch("pager", self.is_paged)?;
            }
            Meta::Chart(name) => self.set_chart(name.as_deref())?,
            Meta::Format(name) => self.set_format(name.as_deref())?,
            Meta::Output(path) => self.set_output(path.as_deref())?,
            Meta::Once(path) => self.once = Some(path),
            Meta::Include(path) => return self.include(&path),
            Meta::Again => {
                let (sql, shown) = self.last()?;
                self.statement(&sql, shown)?;
            }
            Meta::Last => self.show_last()?,
            Meta::Link => {
                let link = Link::Sql(self.last()?.0).url(self.client.inner().address());
                writeln!(io::stdout(), "{link}")?;
            }
            Meta::Watch(interval) => self.watch(interval)?,
            Meta::Tail(rest) => self.tail(&rest)?,
            Meta::Save(None) | Meta::Run(None) => self.list_kept()?,
            Meta::Save(Some(name)) => self.save(name)?,
            Meta::Run(Some((name, values))) => self.run_kept(&name, &values)?,
            Meta::Forget(name) => self.forget(&name)?,
            Meta::Min(share) => {
                self.args.min_completeness = share.unwrap_or(self.args.min_completeness);
                let least = units::share(self.args.min_completeness);
                self.say(&format!("answers below {least} are warned about"))?;
            }
            Meta::Timeout(time) => {
                self.timeout = time.or(self.timeout);
                let time = self.timeout.map_or("10 s".to_owned(), |time| units::seconds(time.as_secs_f64()));
                self.say(&format!("answers may take {time}"))?;
            }
        }
        // What was begun goes on, where it can be seen.
        Ok(if begun.is_empty() { Next::Read } else { Next::Change(begun.to_owned()) })
    }

    /// Says what changed; from a pipe nobody asked.
    fn say(&self, text: &str) -> Result<(), Failure> {
        if self.is_interactive {
            writeln!(io::stdout(), "{text}")?;
        }
        Ok(())
    }

    fn say_switch(&self, what: &str, is_on: bool) -> Result<(), Failure> {
        self.say(&format!("{what}: {}", if is_on { "on" } else { "off" }))
    }

    fn page(&self, text: &str) -> Result<(), Failure> {
        screen::show(text, self.is_paged && self.is_interactive, self.keys())
    }

    fn last(&self) -> Result<(String, Shown), Failure> {
        let hint = "Type a statement first; it ends with ;";
        self.last_statement.clone().ok_or_else(|| Failure::usage("there is no last statement").hint(hint))
    }

    fn tables(&mut self) -> Result<(), Failure> {
        let client = self.client.inner().clone();
        let tables = self.interruptible(async move { describe::tables(&client).await })?;
        let text = describe::tables_text(&tables, render::style())?;
        self.page(&text)
    }

    fn describe(&mut self, table: &str) -> Result<(), Failure> {
        let (client, table) = (self.client.inner().clone(), unquoted(table));
        let text = self.interruptible(async move {
            crate::tables::describe::text(&client, &table, render::style()).await
        })?;
        self.page(&text)
    }

    fn functions(&self, part: &str) -> Result<(), Failure> {
        let part = part.to_lowercase();
        let found = FUNCTIONS
            .iter()
            .filter(|function| function.name.contains(&part) || function.says.to_lowercase().contains(&part));
        let mut table = Table::new(["function", "gives", "what it is"].map(|name| (name.to_owned(), false)));
        let mut count = 0;
        for function in found {
            count += 1;
            let call = format!("{}({})", function.name, function.takes);
            table.text_row([call, function.gives.to_owned(), function.says.to_owned()]);
        }
        if count == 0 {
            return Err(Failure::usage(format!("no function listed here holds `{part}`"))
                .hint("SQL has more functions than \\df lists; try one in a statement."));
        }
        let mut text = Vec::new();
        table.write(&mut text, render::style())?;
        self.page(&String::from_utf8_lossy(&text))
    }

    fn leaves(&mut self) -> Result<(), Failure> {
        let client = self.client.inner().clone();
        let status = self.interruptible(async move { Ok(client.status().await?) })?;
        let mut text = Vec::new();
        status::print(&mut text, &status)?;
        self.page(&String::from_utf8_lossy(&text))
    }

    fn help(&self) -> Result<(), Failure> {
        let mut text =
            String::from("A statement ends with ; or with \\G. Commands begin with \\ or with a dot:\n\n");
        let heads: Vec<String> = meta::COMMANDS
            .iter()
            .map(|command| format!("\\{} {}", command.name, command.arguments))
            .collect();
        let space = heads.iter().map(|head| head.chars().count()).max().unwrap_or(0);
        for (head, command) in heads.iter().zip(&meta::COMMANDS) {
            let _ = writeln!(text, "  {head:space$}  {}", command.does);
        }
        text.push_str(
            "\nTab completes, Right takes what is suggested in grey, Ctrl-R searches what was typed before.\n\
             Ctrl-C cancels a statement, twice within a second it leaves.\n",
        );
        self.page(&text)
    }

    fn set_chart(&mut self, name: Option<&str>) -> Result<(), Failure> {
        self.chart = match name.map(|name| (name, Chart::named(name))) {
            None if self.chart == Chart::None => Chart::Auto,
            None => Chart::None,
            Some((_, Some(chart))) => chart,
            Some((name, None)) => {
                return Err(Failure::usage(format!("there is no chart `{name}`"))
                    .hint("\\chart line, \\chart bar or \\chart off; alone it is switched on and off"));
            }
        };
        self.say(match self.chart {
            Chart::None => "charts: off",
            Chart::Auto => "charts: lines where there is a time, else bars",
            Chart::Line => "charts: lines",
            Chart::Bar => "charts: bars",
        })
    }

    fn set_format(&mut self, name: Option<&str>) -> Result<(), Failure> {
        let names: Vec<&str> = Format::value_variants().iter().map(|format| format.name()).collect();
        let Some(name) = name else {
            let now = self.format(Shown::AsSet).name();
            return self.say(&format!("format: {now}; there are {}", names.join(", ")));
        };
        let found = Format::value_variants().iter().find(|format| format.name().eq_ignore_ascii_case(name));
        let Some(format) = found else {
            let near = names.iter().min_by_key(|known| meta::distance(name, known)).unwrap_or(&"table");
            return Err(Failure::usage(format!("there is no format `{name}`"))
                .hint(format!("Did you mean {near}? There are {}.", names.join(", "))));
        };
        self.args.json = false;
        self.args.format = Some(*format);
        self.is_vertical = false;
        self.say(&format!("format: {}", format.name()))
    }

    fn set_output(&mut self, path: Option<&Path>) -> Result<(), Failure> {
        if let Some((path, output)) = self.output.take() {
            output.finish()?;
            self.say(&format!("written to {}", path.display()))?;
        }
        let Some(path) = path else { return Ok(()) };
        if let (Some(format), None) = (Format::of_file(path), self.args.format) {
            self.args.format = Some(format);
        }
        let format = self.format(Shown::AsSet);
        let (interrupt, _) = Interrupt::by_hand();
        self.output = Some((path.to_owned(), Output::open(Some(path), format, &interrupt)?));
        self.say(&format!("answers go to {} as {}, until \\o", path.display(), format.name()))
    }

    fn show_last(&self) -> Result<(), Failure> {
        let Some(last) = &self.last_answer else {
            return Err(
                Failure::usage("there is no last answer").hint("Type a statement first; it ends with ;")
            );
        };
        // The pager moves sideways, so nothing need be cut.
        let mut layout = self.args.layout();
        if self.is_interactive && self.is_paged {
            layout.style.width = None;
        }
        self.page(&last.text(layout, None)?)
    }

    fn edit(&mut self, begun: &str) -> Result<String, Failure> {
        let Some(path) = self.files.edited.clone() else {
            return Err(Failure::failed("there is no folder to put the statement in").hint("Set HOME."));
        };
        let mut text = begun.to_owned();
        if text.is_empty() {
            text = self.last_statement.as_ref().map(|(sql, _)| format!("{sql};")).unwrap_or_default();
        }
        files::write_private(&path, &text)?;
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        let editor = variable("GANNET_EDITOR").or_else(|| variable("VISUAL")).or_else(|| variable("EDITOR"));
        let editor = editor.unwrap_or_else(|| EDITOR.to_owned());
        // The editor may be a command with arguments; the path stays one word.
        let script = format!("{editor} \"$0\"");
        let edited = self.keys().lend(|| Command::new("sh").args(["-c", &script]).arg(&path).status());
        let text = read_file(&path);
        let _ = std::fs::remove_file(&path);
        match edited {
            Ok(status) if status.success() => Ok(text?.trim_end().to_owned()),
            Ok(status) => Err(Failure::failed(format!("editor `{editor}` ended with {status}"))),
            Err(error) => Err(Failure::failed(format!("start editor `{editor}`: {error}"))),
        }
    }

    fn include(&mut self, path: &Path) -> Result<Next, Failure> {
        if self.depth >= INCLUDED_MAX {
            return Err(Failure::usage(format!("files include each other more than {INCLUDED_MAX} deep")));
        }
        let text = read_file(path)?;
        self.depth += 1;
        let next = self.run_pieces(&text);
        self.depth -= 1;
        next
    }

    /// Runs the last statement again and again, on a screen of its own where there is one.
    fn watch(&mut self, interval: Duration) -> Result<(), Failure> {
        let (sql, shown) = self.last()?;
        let can_clear = self.is_interactive && std::env::var_os("TERM").is_some_and(|term| term != "dumb");
        // A pager would stop it.
        let is_paged = std::mem::replace(&mut self.is_paged, false);
        let watched = loop {
            if self.is_interactive {
                let clear = if can_clear { CLEAR_SCREEN } else { "" };
                let now = Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true);
                let every = units::seconds(interval.as_secs_f64());
                write!(io::stdout(), "{clear}{now}, every {every}, Ctrl-C ends it\n\n")?;
            }
            if let Err(failure) = self.statement(&sql, shown) {
                break Err(failure);
            }
            let slept = self.interruptible(async {
                tokio::time::sleep(interval).await;
                Ok(())
            });
            if slept.is_err() {
                break Ok(());
            }
        };
        self.is_paged = is_paged;
        match watched {
            Err(failure) if failure.exit == Exit::Interrupted => Ok(()),
            other => other,
        }
    }

    fn tail(&mut self, rest: &str) -> Result<(), Failure> {
        let mut words = tokens(rest);
        let table = words.next().filter(|token| matches!(token.kind, Kind::Word | Kind::QuotedName));
        let Some(table) = table else {
            return Err(Failure::usage(format!("\\tail needs a table, not `{rest}`"))
                .hint("\\tail TABLE, or \\tail TABLE where EXPRESSION"));
        };
        let filter = match words.next() {
            None => None,
            Some(word) if word.is_word("where") => Some(rest[word.end()..].trim().to_owned()),
            Some(word) => {
                return Err(Failure::usage(format!(
                    "\\tail takes a table and a condition, not `{}`",
                    word.text
                ))
                .hint("\\tail TABLE where EXPRESSION"));
            }
        };
        let followed = Followed::in_shell(unquoted(table.text), filter, self.timeout);
        let interrupt = self.keys().run();
        let followed = self
            .runtime
            .handle()
            .block_on(async { follow(self.client.inner(), followed, interrupt.said()).await });
        self.keys().rest();
        followed
    }

    fn list_kept(&self) -> Result<(), Failure> {
        if self.kept.is_empty() {
            return self.say("no statement is kept yet; \\s NAME keeps the last one");
        }
        let mut table = Table::new(["name", "statement"].map(|name| (name.to_owned(), false)));
        for (name, sql) in &self.kept {
            let words: Vec<&str> = sql.split_whitespace().collect();
            table.text_row([name.clone(), words.join(" ")]);
        }
        let mut text = Vec::new();
        table.write(&mut text, render::style())?;
        self.page(&String::from_utf8_lossy(&text))
    }

    fn save(&mut self, name: String) -> Result<(), Failure> {
        let (sql, _) = self.last()?;
        if !files::can_be_kept(&sql) {
            return Err(Failure::usage("a statement with a line that begins with `-- name:` cannot be kept"));
        }
        self.change_kept(|kept| {
            kept.insert(name.clone(), sql);
        })?;
        self.say(&format!("kept as {name}; \\f {name} runs it"))
    }

    /// Changes the file as it is now: another shell may have changed it.
    fn change_kept(&mut self, change: impl FnOnce(&mut files::Kept)) -> Result<(), Failure> {
        let Some(path) = self.files.kept.clone() else {
            return Err(Failure::failed("there is no folder to keep statements in").hint("Set HOME."));
        };
        let mut kept = files::read_kept(&path)?;
        change(&mut kept);
        files::write_private(&path, &files::kept_text(&kept))?;
        self.catalogue().keep(kept.keys().cloned().collect());
        self.kept = kept;
        Ok(())
    }

    fn run_kept(&mut self, name: &str, values: &[String]) -> Result<(), Failure> {
        let Some(sql) = self.kept.get(name) else { return Err(self.no_such(name)) };
        let values = values.iter().enumerate();
        let values = values.map(|(index, value)| parameters::parse(&format!("{}={value}", index + 1)));
        let values: Vec<parameters::Parameter> = values.collect::<Result<_, _>>().map_err(Failure::usage)?;
        let mut statements = vec![Statement { sql: sql.clone(), line: 1 }];
        parameters::fill(&mut statements, &values)
            .map_err(|failure| failure.hint(format!("\\f {name} VALUE… gives $1, $2, … values in order")))?;
        for statement in statements {
            self.say(&format!("{};", statement.sql))?;
            self.statement(&statement.sql, Shown::AsSet)?;
        }
        Ok(())
    }

    fn no_such(&self, name: &str) -> Failure {
        let near = self.kept.keys().map(|known| (meta::distance(name, known), known)).min();
        let hint = match near {
            Some((distance, known)) if distance <= 2 => format!("Did you mean {known}? \\f lists them."),
            _ => "\\f lists them.".to_owned(),
        };
        Failure::usage(format!("no statement is kept as `{name}`")).hint(hint)
    }

    fn forget(&mut self, name: &str) -> Result<(), Failure> {
        if !self.kept.contains_key(name) {
            return Err(self.no_such(name));
        }
        self.change_kept(|kept| {
            kept.remove(name);
        })?;
        self.say(&format!("{name} is forgotten"))
    }
}

fn read_file(path: &Path) -> Result<String, Failure> {
    let failed = |what: String| Failure::failed(format!("read {}: {what}", path.display()));
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text))
        .map_err(|error| failed(error.to_string()))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(failed(format!("it is longer than the limit of {FILE_BYTES_MAX} bytes")));
    }
    Ok(text)
}
