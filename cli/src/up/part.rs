//! One part of a running Gannet: a process of this same program that is started, watched, started again when it ends
//! by itself, and stopped when it is told to.
//!
//! A part is in a process group of its own, so that Ctrl-C in the terminal reaches the supervisor alone. It is told the
//! supervisor's process id and stops by itself when that process is gone.

use std::ffi::OsString;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use crate::up::log::{Log, Notice};
use crate::up::terminal::Terminal;

/// First wait before a part that ended is started again; it doubles with each time.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// Longest wait.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A part that ran so long is well; its next end is the first again.
const WELL_AFTER: Duration = Duration::from_secs(30);
/// How often the log is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// Lines shown of one look; a part that fails in a loop must not drown the terminal.
const LINES_SHOWN: usize = 10;

/// What the supervisor wants of a part. Orders only ever go up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Order {
    /// Run, and again when it ends.
    Run,
    /// End well: SIGTERM.
    Stop,
    /// End now: SIGKILL.
    Kill,
}

/// A part and how it is started.
#[derive(Debug)]
pub(crate) struct Part {
    /// What it is called, such as `leaf-0`.
    pub(crate) name: String,
    /// Arguments of this program.
    pub(crate) args: Vec<OsString>,
    /// Working directory.
    pub(crate) folder: PathBuf,
    /// Where it logs.
    pub(crate) log: PathBuf,
    /// A listener that becomes its standard input.
    pub(crate) listener: Option<TcpListener>,
    /// The program. Its path is taken when the supervisor starts, so that a new program that was put there since is what
    /// starts next.
    pub(crate) program: PathBuf,
}

/// How a part ended in the end.
#[derive(Debug)]
pub(crate) struct Ended {
    /// What it is called.
    pub(crate) name: String,
    /// Where it logged.
    pub(crate) log: PathBuf,
    /// How its process ended; `None` when it was not running.
    pub(crate) status: Option<ExitStatus>,
    /// It did not end by itself.
    pub(crate) killed: bool,
    /// What it handed over: rows, bytes, seconds.
    pub(crate) handed_over: Option<(u64, u64, f64)>,
    /// The last error it logged while it stopped.
    pub(crate) last_error: Option<String>,
}

/// How one process of a part ended.
struct Ran {
    status: Option<ExitStatus>,
    killed: bool,
    notices: Vec<Notice>,
}

impl Part {
    /// Runs the part until the order is to stop and its process has ended.
    pub(crate) async fn supervise(self, mut orders: watch::Receiver<Order>, terminal: Terminal) -> Ended {
        let mut backoff = BACKOFF_FIRST;
        let mut ran = Ran { status: None, killed: false, notices: Vec::new() };
        while *orders.borrow() == Order::Run {
            let started = Instant::now();
            match self.start() {
                Ok((child, log)) => ran = self.watch(child, log, &mut orders, &terminal).await,
                Err(error) => {
                    terminal.say(&format!("{}: start its process: {error}", self.name));
                    ran = Ran { status: None, killed: false, notices: Vec::new() };
                }
            }
            if *orders.borrow() > Order::Run {
                return self.ended(ran);
            }
            if started.elapsed() > WELL_AFTER {
                backoff = BACKOFF_FIRST;
            }
            if ran.status.is_some_and(|status| status.success()) && started.elapsed() > BACKOFF_FIRST {
                // Somebody told it to stop, and not the supervisor: a rolling restart, or `gannet leaf stop`.
                terminal.say(&format!("{} was told to stop and did; it starts again", self.name));
                backoff = BACKOFF_FIRST;
                continue;
            }
            if let Some(status) = ran.status {
                let wait = crate::units::seconds(backoff.as_secs_f64());
                let how = how_it_ended(status);
                terminal.say(&format!("{} {how}; it starts again in {wait}", self.name));
            }
            // An order ends the wait. Without a supervisor there is nobody to run for.
            let ordered = tokio::time::timeout(backoff, orders.changed()).await.is_ok();
            if ordered && *orders.borrow() > Order::Run {
                return self.ended(Ran { status: None, ..ran });
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
        self.ended(ran)
    }

    fn start(&self) -> std::io::Result<(Child, Log)> {
        let (log, file) = Log::open(&self.log)?;
        let stdin = match &self.listener {
            Some(listener) => Stdio::from(OwnedFd::from(listener.try_clone()?)),
            None => Stdio::null(),
        };
        let child = Command::new(&self.program)
            .args(&self.args)
            .arg("--parent-pid")
            .arg(std::process::id().to_string())
            .current_dir(&self.folder)
            .stdin(stdin)
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0)
            .spawn()?;
        tracing::debug!(part = self.name, pid = child.id(), "started");
        Ok((child, log))
    }

    async fn watch(
        &self,
        mut child: Child,
        mut log: Log,
        orders: &mut watch::Receiver<Order>,
        terminal: &Terminal,
    ) -> Ran {
        let mut looks = tokio::time::interval(LOOK);
        let mut done = Order::Run;
        let mut notices = Vec::new();
        let status = loop {
            let order = *orders.borrow_and_update();
            if order > done {
                done = order;
                signal(&child, order);
            }
            tokio::select! {
                status = child.wait() => break status.ok(),
                changed = orders.changed() => {
                    if changed.is_err() {
                        // Nobody is left to give orders.
                        signal(&child, Order::Stop);
                        break child.wait().await.ok();
                    }
                }
                _ = looks.tick() => self.show(log.look(), terminal, &mut notices),
            }
            if done == Order::Run {
                notices.clear();
            }
        };
        self.show(log.look(), terminal, &mut notices);
        Ran { status, killed: done == Order::Kill, notices }
    }

    fn show(&self, new: Vec<Notice>, terminal: &Terminal, kept: &mut Vec<Notice>) {
        let lines: Vec<&str> = new
            .iter()
            .filter_map(|notice| match notice {
                Notice::Show(line) => Some(line.as_str()),
                Notice::HandedOver { .. } => None,
            })
            .collect();
        for line in lines.iter().take(LINES_SHOWN) {
            terminal.say(&format!("{}: {line}", self.name));
        }
        if lines.len() > LINES_SHOWN {
            let more = lines.len() - LINES_SHOWN;
            terminal.say(&format!("{}: {more} more lines in {}", self.name, self.log.display()));
        }
        kept.extend(new);
    }

    fn ended(self, ran: Ran) -> Ended {
        let mut ended = Ended {
            name: self.name,
            log: self.log,
            status: ran.status,
            killed: ran.killed,
            handed_over: None,
            last_error: None,
        };
        for notice in ran.notices {
            match notice {
                Notice::HandedOver { rows, bytes, seconds } => {
                    ended.handed_over = Some((rows, bytes, seconds))
                }
                Notice::Show(line) if line.starts_with("error: ") => ended.last_error = Some(line),
                Notice::Show(_) => {}
            }
        }
        ended
    }
}

/// Signals a process that was not waited for yet, so that its id is still its own.
fn signal(child: &Child, order: Order) {
    let signal = match order {
        Order::Run => return,
        Order::Stop => Signal::TERM,
        Order::Kill => Signal::KILL,
    };
    let Some(pid) = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)) else { return };
    if let Err(error) = kill_process(pid, signal) {
        tracing::warn!(%error, pid = pid.as_raw_nonzero().get(), "a process could not be signalled");
    }
}

/// `ended with exit code 1`, `was killed by signal 9`.
pub(crate) fn how_it_ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}
