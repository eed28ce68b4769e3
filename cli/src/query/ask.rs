//! Asking while somebody watches: the line of progress, Ctrl-C, and taking a partial answer when waiting is over.

use std::future::Future;
use std::time::Duration;

use gannet_client::{Answer, Batches, Client, Error, QueryOptions, Step};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};

use crate::interrupt::{Interrupt, Interrupted};
use crate::outcome::Failure;
use crate::progress_line::ProgressLine;

/// How often the line of progress is looked at.
const TICK: Duration = Duration::from_millis(50);

/// What came back.
#[derive(Debug)]
pub(crate) enum Reply {
    /// An answer that is still arriving.
    Arriving(Box<Batches>),
    /// The final answer.
    Final(Answer),
    /// The best answer there was when waiting for leaves was over.
    Partial(Answer),
    /// The best answer there was when somebody pressed Ctrl-C.
    Interrupted(Answer),
}

/// Asks one statement at a time.
#[derive(Debug)]
pub(crate) struct Asker<'a> {
    /// The server.
    pub(crate) client: &'a Client,
    /// What is said beside the SQL.
    pub(crate) options: QueryOptions,
    /// Who may stop it.
    pub(crate) interrupt: &'a Interrupt,
}

impl Asker<'_> {
    /// Waits for this, unless somebody presses Ctrl-C; the line of progress lives on meanwhile.
    pub(crate) async fn watch<T>(
        &self,
        line: &mut ProgressLine,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Failure> {
        let mut tick = ticks();
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                () = self.interrupt.said() => return Err(Interrupted.into()),
                done = &mut work => return Ok(done?),
                _ = tick.tick() => line.draw(),
            }
        }
    }

    /// The answer as it arrives, batch by batch.
    pub(crate) async fn arriving(&self, sql: &str, line: &mut ProgressLine) -> Result<Reply, Failure> {
        let batches = self.watch(line, self.client.query_batches(sql, &self.options)).await?;
        Ok(Reply::Arriving(Box::new(batches)))
    }

    /// Ever better answers until the final one, or until `patience` after the first.
    pub(crate) async fn refined(
        &self,
        sql: &str,
        patience: Option<Duration>,
        line: &mut ProgressLine,
    ) -> Result<Reply, Failure> {
        let mut refined = self.watch(line, self.client.query_refined(sql, &self.options)).await?;
        let mut tick = ticks();
        let mut latest: Option<Answer> = None;
        let mut until: Option<Instant> = None;
        loop {
            let step = tokio::select! {
                biased;
                () = self.interrupt.said() => {
                    return latest.map(Reply::Interrupted).ok_or_else(|| Interrupted.into());
                }
                step = refined.next() => step?,
                () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {
                    match latest {
                        Some(answer) => return Ok(Reply::Partial(answer)),
                        None => { until = None; continue; }
                    }
                }
                _ = tick.tick() => {
                    line.draw();
                    continue;
                }
            };
            match step {
                Some(Step::Progress(progress)) => line.update(progress),
                Some(Step::Partial(answer)) => {
                    line.update(gannet_client::Progress {
                        completeness: answer.completeness.clone(),
                        stats: answer.stats,
                    });
                    latest = Some(answer);
                    until = until.or(patience.map(|patience| Instant::now() + patience));
                }
                Some(Step::Final(answer)) => return Ok(Reply::Final(answer)),
                None => return Err(Failure::failed("the server ended its answer without a final one")),
            }
        }
    }
}

fn ticks() -> Interval {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick
}
