//! Runs the agent: a thread watches the files, and this loop saves, sends and tells what happens.
//!
//! The loop decides nothing; see [`super::core`]. Saving runs beside it, one copy at a time, so that one write covers all
//! batches that were cut meanwhile. Ctrl-C and SIGTERM end the watching, then what is held is sent for a while, then the
//! book is saved. A second signal ends it at once; what was not acknowledged is sent again by the next start.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use gannet_client::{Ending, Events};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::agent::bad_lines::{BadLine, DeadLetters, OnError};
use crate::agent::book::{Key, Totals};
use crate::agent::buffer::Buffer;
use crate::agent::core::{Core, News, Post};
use crate::agent::state_file::StateFile;
use crate::agent::status_line::{Status, StatusLine};
use crate::agent::watch::{Seen, Turn, Watch};
use crate::outcome::{Exit, Failure, Outcome};

/// How often files are looked at when there is nothing to do.
const POLL_EVERY: Duration = Duration::from_millis(50);
/// How often the loop looks at the time.
const TICK: Duration = Duration::from_millis(100);
/// What was seen and is taken in one go.
const SEEN_MAX: usize = 64;
/// Bad lines that are told one by one; of the others there is a count.
const BAD_LINES_TOLD: u64 = 20;

/// Everything that runs.
pub(crate) struct Agent {
    pub(crate) core: Core,
    pub(crate) client: gannet_client::Client,
    pub(crate) state: Arc<StateFile>,
    pub(crate) buffer: Arc<Buffer>,
    pub(crate) line: StatusLine,
    pub(crate) on_error: OnError,
    pub(crate) dead_letters: Option<DeadLetters>,
    pub(crate) timeout: Duration,
    pub(crate) shutdown_timeout: Duration,
    pub(crate) started: Instant,
    /// Totals of earlier runs.
    pub(crate) before: Totals,
    /// Bad lines told so far.
    pub(crate) told: u64,
}

/// What the watching thread and the loop share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    stop: AtomicBool,
    refuses: AtomicBool,
}

type Posts = FuturesUnordered<BoxFuture<'static, (Key, Ending)>>;
type Saving = Option<JoinHandle<io::Result<()>>>;

/// Watches until it is stopped.
fn watch_files(
    mut watch: Watch,
    shared: &Shared,
    buffer: &Buffer,
    started: Instant,
    seen: &mpsc::UnboundedSender<Seen>,
) {
    while !shared.stop.load(Ordering::Relaxed) {
        let refuses = shared.refuses.load(Ordering::Relaxed);
        // An error means that the loop has ended.
        let mut tell = |what| {
            let _ = seen.send(what);
        };
        match watch.turn(started.elapsed(), refuses, &mut tell) {
            Turn::Worked => {}
            Turn::Idle | Turn::Full => buffer.wait(POLL_EVERY),
        }
    }
}

impl Agent {
    /// Follows files until a signal, or something that cannot be helped.
    pub(crate) async fn run(mut self, watch: Watch) -> Outcome {
        let failed = |error: io::Error| Failure::failed(format!("listen to signals: {error}"));
        let mut terminated = signal(SignalKind::terminate()).map_err(failed)?;
        let mut interrupted = signal(SignalKind::interrupt()).map_err(failed)?;
        let shared = Arc::new(Shared::default());
        let (sender, mut seen) = mpsc::unbounded_channel();
        let watcher = {
            let (shared, buffer, started) = (Arc::clone(&shared), Arc::clone(&self.buffer), self.started);
            std::thread::spawn(move || watch_files(watch, &shared, &buffer, started, &sender))
        };
        let (mut posts, mut saving) = (Posts::new(), Saving::None);
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut deadline: Option<Duration> = None;
        let mut watches = true;
        let ending = loop {
            let step = self.step(&mut posts, &mut saving, deadline.is_some());
            shared.refuses.store(self.core.refuses(), Ordering::Relaxed);
            if let Err(failure) = step {
                break Err(failure);
            }
            if !watches && (self.core.held() == 0 || deadline.is_some_and(|at| self.now() >= at)) {
                break Ok(());
            }
            let due = self.core.next_due(self.now()).map(|at| self.started + at);
            let wait = due.unwrap_or_else(|| Instant::now() + TICK);
            tokio::select! {
                what = seen.recv(), if watches => match what {
                    None => watches = false,
                    Some(what) => {
                        self.core.see(what, self.now());
                        let more = std::iter::from_fn(|| seen.try_recv().ok());
                        more.take(SEEN_MAX).for_each(|what| self.core.see(what, self.started.elapsed()));
                    }
                },
                Some((key, ending)) = posts.next(), if !posts.is_empty() => {
                    let now = self.now();
                    if let Err(error) = self.core.ended(key, ending, now, rand::random()) {
                        break Err(Failure::from(*error));
                    }
                }
                saved = finished(&mut saving), if saving.is_some() => {
                    saving = None;
                    let now = self.now();
                    match saved {
                        Ok(()) => self.core.saved(),
                        Err(error) => self.core.not_saved(&error, now),
                    }
                }
                () = tokio::time::sleep_until(wait.into()) => {}
                _ = ticks.tick() => {}
                _ = wait_for(&mut terminated, &mut interrupted) => {
                    if deadline.is_some() {
                        break Ok(());
                    }
                    deadline = Some(self.now() + self.shutdown_timeout);
                    shared.stop.store(true, Ordering::Relaxed);
                    self.buffer.wake();
                }
            }
        };
        shared.stop.store(true, Ordering::Relaxed);
        drop(posts);
        self.end(saving, watcher, ending).await
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Tells, saves and sends what there is to be told, saved and sent.
    fn step(&mut self, posts: &mut Posts, saving: &mut Saving, is_ending: bool) -> Result<(), Failure> {
        self.tell_news()?;
        self.start_saving(saving, is_ending)?;
        while let Some(post) = self.core.next_post(self.now()) {
            posts.push(self.send(post));
        }
        let now = self.now();
        if self.line.is_due(now) {
            let status = self.status();
            self.line.show(&status, now);
        }
        Ok(())
    }

    fn start_saving(&mut self, saving: &mut Saving, is_ending: bool) -> Result<(), Failure> {
        if saving.is_some() {
            return Ok(());
        }
        let text = self.core.save(self.now(), is_ending);
        let text = text.map_err(|error| Failure::failed(format!("write the checkpoint: {error}")))?;
        if let Some(text) = text {
            let state = Arc::clone(&self.state);
            *saving = Some(tokio::task::spawn_blocking(move || state.save(&text)));
        }
        Ok(())
    }

    fn send(&self, post: Post) -> BoxFuture<'static, (Key, Ending)> {
        let (client, timeout) = (self.client.clone(), self.timeout);
        let table = self.core.book().table.clone();
        let Post { key, producer, sequence, content_type, body, time_field } = post;
        let events = Events { table, content_type: content_type.to_owned(), body, time_field };
        Box::pin(async move { (key, client.post_once(&events, &producer, sequence, timeout).await) })
    }

    /// Bad lines go where they should before the book without them is saved.
    fn tell_news(&mut self) -> Result<(), Failure> {
        let mut bad: VecDeque<BadLine> = VecDeque::new();
        for news in self.core.take_news() {
            match news {
                News::Warning(warning) => self.line.tell(&format!("warning: {warning}")),
                News::Bad(line) => bad.push_back(line),
            }
        }
        let Some(first) = bad.front() else { return Ok(()) };
        if self.on_error == OnError::Stop {
            let failure = Failure::new(Exit::Rejected, format!("line rejected: {first}"));
            return Err(failure.hint("the lines around it were taken; the next start goes on behind them"));
        }
        if let Some(letters) = &mut self.dead_letters {
            letters.keep(bad.make_contiguous())?;
        }
        for line in &bad {
            self.told += 1;
            if self.told <= BAD_LINES_TOLD {
                self.line.tell(&format!("rejected: {line}"));
            }
            if self.told == BAD_LINES_TOLD {
                self.line.tell("rejected: more are counted, and not told one by one");
            }
        }
        Ok(())
    }

    fn status(&self) -> Status {
        let (now, all) = (self.now(), self.core.book().totals);
        let Totals { accepted, rejected, dropped, unknown } = self.before;
        let totals = Totals {
            accepted: all.accepted - accepted,
            rejected: all.rejected - rejected,
            dropped: all.dropped - dropped,
            unknown: all.unknown - unknown,
        };
        let held = (self.buffer.used(), self.buffer.limit());
        Status { totals, lag: self.core.lag(now), retries: self.core.retries(), held }
    }

    /// Saves for the last time, and says what became of everything.
    async fn end(
        mut self,
        mut saving: Saving,
        watcher: std::thread::JoinHandle<()>,
        ending: Result<(), Failure>,
    ) -> Outcome {
        self.buffer.wake();
        // What it may still have seen is in the files, and is read after the next start.
        let watched = watcher.join();
        let told = self.tell_news();
        if saving.is_some() {
            match finished(&mut saving).await {
                Ok(()) => self.core.saved(),
                Err(error) => self.core.not_saved(&error, Duration::ZERO),
            }
        }
        let mut saved = Ok(());
        if !self.core.is_saved() {
            let text = self.core.last_text().map_err(io::Error::other);
            saved = text.and_then(|text| self.state.save(&text)).map_err(|error| {
                Failure::failed(format!("save the checkpoint {}: {error}", self.state.path().display()))
            });
        }
        self.line.erase();
        let status = self.status();
        let now = self.now();
        self.line.show_last(&status, now);
        ending.and(told).and(saved)?;
        if watched.is_err() {
            return Err(Failure::failed("the thread that watches files ended early"));
        }
        let Totals { rejected, dropped, unknown, .. } = status.totals;
        Ok(if rejected + dropped + unknown > 0 { Exit::Rejected } else { Exit::Done })
    }
}

async fn wait_for(one: &mut tokio::signal::unix::Signal, other: &mut tokio::signal::unix::Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}

/// The end of saving; a task that is not there never ends.
async fn finished(saving: &mut Saving) -> io::Result<()> {
    match saving {
        None => std::future::pending().await,
        Some(task) => {
            let result = task.await.unwrap_or_else(|error| Err(io::Error::other(error)));
            *saving = None;
            result
        }
    }
}
