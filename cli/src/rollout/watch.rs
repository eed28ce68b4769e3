//! Following a rollout until it ends or pauses.
//!
//! On a terminal the table is redrawn in place; elsewhere there is a line for each step, and the table at the end.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use super::{Outcome, Rollout, Server, ended, screen};
use crate::interrupt::Interrupt;
use crate::outcome::{Exit, Failure};
use crate::render::{self, Style};
use crate::status::watch::{fitted, up};

/// An aggregator that is being restarted comes back, and goes on with the rollout.
const AWAY_MAX: Duration = Duration::from_secs(120);

/// Follows it, drawing.
pub(super) async fn to_the_end(server: &Server, every: Duration) -> Outcome {
    let is_screen = io::stdout().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb");
    let style = render::style();
    let interrupt = Interrupt::listen();
    let mut view = View { is_screen, style, drawn: 0, last: None };
    let mut away_since: Option<Instant> = None;
    loop {
        let asked = tokio::select! {
            biased;
            () = interrupt.said() => return Ok(interrupted()),
            asked = server.show() => asked,
        };
        match asked {
            Ok(None) => {
                writeln!(io::stdout(), "no rollout was ever started through this aggregator")?;
                return Ok(Exit::Done);
            }
            Ok(Some(rollout)) => {
                away_since = None;
                view.show(&rollout)?;
                if rollout.state != "running" {
                    view.end(&rollout)?;
                    return ended(&rollout);
                }
            }
            Err(failure) => {
                let since = *away_since.get_or_insert_with(Instant::now);
                if failure.exit != Exit::Unreachable || since.elapsed() > AWAY_MAX {
                    return Err(failure);
                }
                view.say(&format!("{}; it is tried again", failure.message))?;
            }
        }
        tokio::select! {
            biased;
            () = interrupt.said() => return Ok(interrupted()),
            () = tokio::time::sleep(every) => {}
        }
    }
}

/// Who stops watching stops nothing else, and is told so.
fn interrupted() -> Exit {
    let _ =
        writeln!(io::stderr(), "the rollout goes on without being watched; `gannet rollout pause` pauses it");
    Exit::Interrupted
}

/// Prints the server's reply each time.
pub(super) async fn replies(server: &Server, every: Duration) -> Outcome {
    let interrupt = Interrupt::listen();
    loop {
        let body = tokio::select! {
            biased;
            () = interrupt.said() => return Ok(Exit::Interrupted),
            body = server.client.get_bytes(&["v1", "rollout"], server.timeout) => body?,
        };
        let reply: super::Reply = server.client.decode(&body)?;
        let mut out = io::stdout().lock();
        out.write_all(&body)?;
        writeln!(out)?;
        out.flush()?;
        drop(out);
        match reply.rollout {
            Some(rollout) if rollout.state == "running" => {}
            Some(rollout) => return ended(&rollout),
            None => return Ok(Exit::Done),
        }
        tokio::select! {
            biased;
            () = interrupt.said() => return Ok(Exit::Interrupted),
            () = tokio::time::sleep(every) => {}
        }
    }
}

/// What was shown.
#[derive(Debug)]
struct View {
    is_screen: bool,
    style: Style,
    drawn: usize,
    last: Option<Rollout>,
}

impl View {
    fn show(&mut self, rollout: &Rollout) -> Result<(), Failure> {
        if self.is_screen {
            let text = self.table(rollout)?;
            self.redraw(&text)?;
        } else {
            let now = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
            let mut out = io::stdout().lock();
            for line in screen::news(self.last.as_ref(), rollout) {
                writeln!(out, "{now} {line}")?;
            }
            out.flush()?;
        }
        self.last = Some(rollout.clone());
        Ok(())
    }

    fn say(&mut self, line: &str) -> Result<(), Failure> {
        if self.is_screen {
            let table = match self.last.clone() {
                Some(rollout) => self.table(&rollout)?,
                None => String::new(),
            };
            self.redraw(&format!("{table}{line}\n"))?;
        }
        Ok(())
    }

    /// The table stays on the screen; elsewhere it is printed once.
    fn end(&mut self, rollout: &Rollout) -> Result<(), Failure> {
        if !self.is_screen {
            let text = self.table(rollout)?;
            io::stdout().lock().write_all(text.as_bytes())?;
        }
        Ok(())
    }

    fn table(&self, rollout: &Rollout) -> Result<String, Failure> {
        let mut text = Vec::new();
        // The terminal may have been made wider or narrower.
        let style = if self.is_screen { render::style() } else { self.style };
        screen::status(&mut text, rollout, style)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    fn redraw(&mut self, text: &str) -> Result<(), Failure> {
        let text = fitted(text);
        let mut out = io::stdout().lock();
        write!(out, "{}{text}", up(self.drawn))?;
        out.flush()?;
        self.drawn = text.lines().count();
        Ok(())
    }
}
