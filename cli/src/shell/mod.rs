//! `gannet shell`: statements and meta commands, one after the other, from a terminal or from a pipe.
//!
//! What was typed is read by pure parts: [`crate::sql_tokens`], [`statements`], [`meta`] and [`completion`] know neither
//! terminal nor server. [`session`] runs what they found.

use std::io::{self, IsTerminal, Write};

use clap::Args;

use self::editor::LineEditor;
use self::files::Files;
use self::lines::{LineReader, Typed};
use self::session::{Next, Session};
use crate::client::ClientArgs;
use crate::outcome::{Exit, Failure, Outcome};
use crate::query::AnswerArgs;
use crate::render;

mod catalogue;
mod commands;
mod completion;
mod describe;
mod editor;
mod files;
mod functions;
mod keys;
mod lines;
mod meta;
mod screen;
mod search;
mod session;
mod statements;

/// Ask one statement after the other, with history and completion.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  gannet shell
  gannet shell --server http://box:7700 --timezone Europe/Berlin
  gannet shell < report.sql

A statement ends with ; or with \\G, which shows rows as lists of fields. Commands of the shell begin with \\ or with a dot: \
\\? lists them, \\d shows the tables, \\q leaves. Tab completes tables, columns, functions and values; Right takes what is \
suggested in grey; Ctrl-R searches what was typed before, by parts of words in any order. Ctrl-C cancels a statement, \
twice within a second it leaves.

Tables show 40 rows; \\last shows all of the last answer. What is taller than the screen goes through $GANNET_PAGER, $PAGER \
or less. What was typed is kept in $XDG_STATE_HOME/gannet/history, unless it begins with a space.

From a pipe, statements are run as `gannet query` runs them, and the first that fails ends it with its exit code.")]
pub(crate) struct ShellArgs {
    #[command(flatten)]
    answer: AnswerArgs,
    /// Keep nothing of what is typed
    #[arg(long)]
    no_history: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// Where statements come from.
enum Source {
    Editor(Box<LineEditor>),
    Lines(LineReader),
}

/// Runs `gannet shell`.
pub(crate) fn run(args: ShellArgs) -> Outcome {
    let is_interactive = io::stdin().is_terminal() && io::stdout().is_terminal();
    render::choose_colour(args.answer.color);
    let style = render::style();
    let mut files = Files::find();
    if args.no_history {
        files.history = None;
    }
    let history = files.history.clone();
    let mut session = Session::start(args.client, args.answer, files, is_interactive)?;
    let can_edit =
        is_interactive && std::env::var_os("TERM").is_some_and(|term| term != "dumb" && !term.is_empty());
    let mut source = if can_edit {
        Source::Editor(Box::new(LineEditor::new(session.catalogue().clone(), style, history.as_deref())?))
    } else {
        Source::Lines(LineReader::start(is_interactive))
    };
    if is_interactive {
        session.greet()?;
    }
    let mut begun = String::new();
    loop {
        // The key may have been pressed between two lines.
        if is_interactive && session.keys().take_press() == Some(true) {
            session.finish()?;
            return Ok(Exit::Interrupted);
        }
        let prompt = session.prompt();
        let typed = match &mut source {
            Source::Editor(editor) => editor.read(&prompt, &begun, session.keys())?,
            Source::Lines(lines) => {
                show_begun(&begun)?;
                lines.read(&prompt, &begun, session.keys())?
            }
        };
        begun.clear();
        match typed {
            Typed::End => break,
            Typed::Interrupted { is_second: true } => {
                session.finish()?;
                return Ok(Exit::Interrupted);
            }
            Typed::Interrupted { is_second: false } if is_interactive => {
                if let Source::Lines(_) = source {
                    writeln!(io::stdout())?;
                }
            }
            Typed::Interrupted { .. } => return Ok(Exit::Interrupted),
            Typed::Text(text) => match session.run(&text)? {
                Next::Read => {}
                Next::Change(text) => begun = text,
                Next::Leave => break,
            },
        }
    }
    session.finish()
}

/// What cannot be changed in place is shown, and what is typed next is added to it.
fn show_begun(begun: &str) -> Result<(), Failure> {
    if !begun.is_empty() {
        writeln!(io::stdout(), "{begun}")?;
    }
    Ok(())
}
