//! `gannet tail`: the newest events of a table as they arrive.
//!
//! It asks for the last seconds again and again and shows what is new; [`window`] decides what that is. It cannot show
//! rows whose time is older than that when they arrive, nor rows of leaves that do not answer: it says so, with counts
//! where they are known. A server that goes away is asked again until it is back.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use chrono::{DateTime, SecondsFormat, Utc};
use clap::{Args, ValueEnum};
use gannet_client::{Answer, Client as Server, QueryOptions};

use self::lines::{Event, Lines, TIME, events};
use self::window::{Found, Settled, Stretch, Window};
use crate::client::ClientArgs;
use crate::completeness::warning;
use crate::interrupt::Interrupt;
use crate::outcome::{Exit, Failure, Outcome};
use crate::query::excerpt::with_excerpt;
use crate::query::statements::Statement;
use crate::render;
use crate::sql_names::quoted_name;
use crate::units;

mod lines;
mod window;

/// How often the server is asked.
const POLL_EVERY: Duration = Duration::from_millis(500);
/// How often rows are counted to say what was not shown.
const SETTLE_EVERY: Duration = Duration::from_secs(2);
/// How often something is said about what is not shown.
const NOTICE_EVERY: Duration = Duration::from_secs(5);
/// How long a server that went away is left alone at most.
const AWAY_MAX: Duration = Duration::from_secs(5);
/// How long the last count may take.
const LAST_WORDS_MAX: Duration = Duration::from_secs(2);
/// Rows that a poll asks for at most.
const ROWS_MAX: u64 = 20_000;
/// Rows of the beginning that are taken for seen at least, so that those of the same seconds are not shown as new.
const FIRST_ROWS_MIN: usize = 1_000;
/// More events a second would be no help to anybody who reads.
const RATE_MAX: u32 = 5_000;

/// See the newest events of a table as they arrive.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  gannet tail requests
  gannet tail requests --where \"status >= 500\" --columns time,service,endpoint,duration_ms
  gannet tail requests --format ndjson --rate-limit 1000/s | jq .trace_id

Every half second the rows of the last --lateness are looked at, and what is new is shown, oldest first. An event is \
never shown twice. Events beyond --rate-limit are skipped, and how many is said on stderr, as is how many came later than \
--lateness after newer ones; neither is shown later. Events of a leaf that does not answer are missing while a warning \
says so. Ctrl-C ends it.")]
pub(crate) struct TailArgs {
    /// The table
    pub(crate) table: String,
    /// Only events for which this is true, in SQL; more than one must all be true
    #[arg(short, long = "where", value_name = "EXPRESSION")]
    pub(crate) filter: Vec<String>,
    /// Only these columns, in this order
    #[arg(short, long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) columns: Vec<String>,
    /// Begin with so many of the newest events
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(..=10_000))]
    pub(crate) lines: u32,
    /// Events a second that are shown at most
    #[arg(long, value_name = "N/s", default_value = "50/s", value_parser = parse_rate)]
    pub(crate) rate_limit: u32,
    /// How much older than the newest an event may be and still be shown
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = units::parse_duration)]
    pub(crate) lateness: Duration,
    /// How to print events
    #[arg(short = 'F', long, value_enum, default_value_t = TailFormat::Lines)]
    pub(crate) format: TailFormat,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// How events are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TailFormat {
    /// A line for people
    Lines,
    /// One JSON object a line, without what is NULL
    Ndjson,
}

/// Reads `50`, `50/s`.
fn parse_rate(text: &str) -> Result<u32, String> {
    let number = text.trim().strip_suffix("/s").unwrap_or(text).trim();
    match number.parse::<u32>() {
        Ok(rate) if (1..=RATE_MAX).contains(&rate) => Ok(rate),
        _ => Err(format!("rate `{text}` must be events a second from 1 to {RATE_MAX}, such as 50/s")),
    }
}

/// What is followed.
#[derive(Debug, Clone)]
pub(crate) struct Followed {
    table: String,
    filters: Vec<String>,
    columns: Vec<String>,
    lines: usize,
    rate: u32,
    lateness: Duration,
    format: TailFormat,
    timeout: Option<Duration>,
}

impl Followed {
    /// What the flags say.
    fn new(args: TailArgs) -> Followed {
        let mut columns = args.columns;
        if !columns.is_empty() && !columns.iter().any(|column| column == TIME) {
            // Without it nobody knows what is new.
            columns.insert(0, TIME.to_owned());
        }
        Followed {
            table: args.table,
            filters: args.filter,
            columns,
            lines: args.lines as usize,
            rate: args.rate_limit,
            lateness: args.lateness,
            format: args.format,
            timeout: args.client.timeout,
        }
    }

    /// A table and a condition, as the shell takes them.
    pub(crate) fn in_shell(table: String, filter: Option<String>, timeout: Option<Duration>) -> Followed {
        Followed {
            table,
            filters: filter.into_iter().collect(),
            columns: Vec::new(),
            lines: 10,
            rate: 50,
            lateness: Duration::from_secs(5),
            format: TailFormat::Lines,
            timeout,
        }
    }

    fn condition(&self, times: &[(&str, i64)]) -> String {
        // A condition may end with a comment.
        let mut all: Vec<String> = self.filters.iter().map(|filter| format!("({filter}\n)")).collect();
        all.extend(times.iter().map(|(comparison, time)| format!("time {comparison} {}", literal(*time))));
        if all.is_empty() { String::new() } else { format!(" WHERE {}", all.join(" AND ")) }
    }

    fn rows_sql(&self, after: Option<i64>, limit: u64) -> String {
        let columns: Vec<String> = self.columns.iter().map(|column| quoted_name(column)).collect();
        let columns = if columns.is_empty() { "*".to_owned() } else { columns.join(", ") };
        let after: Vec<(&str, i64)> = after.map(|after| (">", after)).into_iter().collect();
        let condition = self.condition(&after);
        format!(
            "SELECT {columns} FROM {}{condition} ORDER BY time DESC LIMIT {limit}",
            quoted_name(&self.table)
        )
    }

    fn count_sql(&self, stretch: Stretch) -> String {
        format!(
            "SELECT time > {} AS is_new, unweighted(count(*)) FROM {}{} GROUP BY 1",
            literal(stretch.after),
            quoted_name(&self.table),
            self.condition(&[(">", stretch.late_since), ("<=", stretch.until)])
        )
    }
}

fn literal(nanoseconds: i64) -> String {
    let time = DateTime::<Utc>::from_timestamp_nanos(nanoseconds);
    format!("TIMESTAMP '{}'", time.to_rfc3339_opts(SecondsFormat::Nanos, true))
}

fn now() -> i64 {
    Utc::now().timestamp_nanos_opt().unwrap_or(i64::MAX)
}

/// Runs `gannet tail`.
pub(crate) async fn run(args: TailArgs) -> Outcome {
    let client = args.client.connect()?;
    let interrupt = Interrupt::listen();
    let followed = Followed::new(args);
    follow(client.inner(), followed, interrupt.said()).await?;
    Ok(Exit::Interrupted)
}

/// Shows events until somebody says to stop.
pub(crate) async fn follow(
    server: &Server,
    followed: Followed,
    stop: impl Future<Output = ()>,
) -> Result<(), Failure> {
    let mut stop = std::pin::pin!(stop);
    let starting = Tail::start(server, followed);
    let mut tail = tokio::select! {
        biased;
        () = &mut stop => return Ok(()),
        started = starting => started?,
    };
    loop {
        tokio::select! {
            biased;
            () = &mut stop => break,
            turned = tail.turn() => turned?,
        }
    }
    tail.last_words().await;
    Ok(())
}

struct Tail<'a> {
    server: &'a Server,
    followed: Followed,
    lines: Lines,
    window: Window,
    has_head: bool,
    /// Events that may be shown now; a fraction of one is saved up.
    allowed: f64,
    polled: Instant,
    settled: Instant,
    noticed: Instant,
    /// Since the last notice, and in all.
    unsaid: Settled,
    total: Settled,
    shown: u64,
    /// What was said last about missing leaves.
    missing: Option<String>,
    /// How long the server is left alone after it did not answer.
    away: Option<Duration>,
}

impl<'a> Tail<'a> {
    async fn start(server: &'a Server, followed: Followed) -> Result<Tail<'a>, Failure> {
        let count = followed.lines.max(FIRST_ROWS_MIN);
        let sql = followed.rows_sql(None, count as u64);
        let options = QueryOptions { timeout: followed.timeout, min_completeness: None };
        let answer = server.query(&sql, &options).await;
        let answer = answer.map_err(|error| with_excerpt(error.into(), &Statement { sql, line: 1 }))?;
        let events = events(&answer.batches)?;
        let rows: Vec<Found> = events.iter().map(|event| event.found.clone()).collect();
        let lateness = i64::try_from(followed.lateness.as_nanos()).unwrap_or(i64::MAX);
        let begun = Instant::now();
        let mut tail = Tail {
            server,
            lines: Lines::new(render::style(), !followed.columns.is_empty()),
            window: Window::begin(&rows, rows.len() >= count, now(), lateness),
            has_head: false,
            allowed: f64::from(followed.rate),
            polled: begun,
            settled: begun,
            noticed: begun,
            unsaid: Settled::default(),
            total: Settled::default(),
            shown: 0,
            missing: None,
            away: None,
            followed,
        };
        tail.say_missing(&answer);
        let first: Vec<Event> = events.into_iter().take(tail.followed.lines).collect();
        let first: Vec<&Event> = first.iter().rev().collect();
        tail.show(&first)?;
        Ok(tail)
    }

    /// One poll, and what comes with it.
    async fn turn(&mut self) -> Result<(), Failure> {
        tokio::time::sleep(self.away.unwrap_or(POLL_EVERY)).await;
        let elapsed = self.polled.elapsed().as_secs_f64();
        self.polled = Instant::now();
        let rate = f64::from(self.followed.rate);
        self.allowed = (self.allowed + rate * elapsed).min(rate);
        let most = self.allowed as usize;
        let limit = (self.window.known() + most as u64 + 1).min(ROWS_MAX);
        let Some(answer) = self.ask(self.followed.rows_sql(Some(self.window.after()), limit)).await? else {
            return Ok(());
        };
        self.say_missing(&answer);
        let found = events(&answer.batches)?;
        let is_full = found.len() as u64 >= limit;
        let rows: Vec<Found> = found.iter().map(|event| event.found.clone()).collect();
        let fresh = self.window.fresh(rows, is_full, most);
        self.allowed -= fresh.len() as f64;
        let fresh: Vec<&Event> =
            fresh.iter().filter_map(|row| found.iter().find(|event| event.found == *row)).collect();
        self.show(&fresh)?;
        if self.settled.elapsed() >= SETTLE_EVERY {
            self.settle().await?;
        }
        if self.noticed.elapsed() >= NOTICE_EVERY {
            self.notice();
        }
        Ok(())
    }

    /// Asks; nothing when the server is away, which is said once.
    async fn ask(&mut self, sql: String) -> Result<Option<Answer>, Failure> {
        let options = QueryOptions { timeout: self.followed.timeout, min_completeness: None };
        match self.server.query(&sql, &options).await {
            Ok(answer) => {
                if self.away.take().is_some() {
                    say("the server answers again");
                }
                Ok(Some(answer))
            }
            Err(error) => {
                let failure = Failure::from(error);
                if failure.exit == Exit::Failed && failure.position.is_some() {
                    return Err(failure);
                }
                if self.away.is_none() {
                    say(&format!("{}; asking again until it answers", failure.message));
                }
                self.away = Some(self.away.map_or(POLL_EVERY, |away| (away * 2).min(AWAY_MAX)));
                Ok(None)
            }
        }
    }

    async fn settle(&mut self) -> Result<(), Failure> {
        self.settled = Instant::now();
        match self.window.stretch(now()) {
            Some(stretch) => self.settle_stretch(stretch).await,
            None => Ok(()),
        }
    }

    async fn settle_stretch(&mut self, stretch: Stretch) -> Result<(), Failure> {
        let Some(answer) = self.ask(self.followed.count_sql(stretch)).await? else { return Ok(()) };
        let (rows, rows_before) = counts(&answer);
        let settled = self.window.settle(stretch, rows, rows_before);
        for sum in [&mut self.unsaid, &mut self.total] {
            sum.skipped += settled.skipped;
            sum.late += settled.late;
        }
        Ok(())
    }

    fn show(&mut self, events: &[&Event]) -> Result<(), Failure> {
        if events.is_empty() {
            return Ok(());
        }
        let mut text = String::new();
        for event in events {
            match self.followed.format {
                TailFormat::Ndjson => text.push_str(&event.found.json),
                TailFormat::Lines => {
                    if !std::mem::replace(&mut self.has_head, true)
                        && let Some(head) = self.lines.head(event)
                    {
                        let _ = writeln!(text, "{head}");
                    }
                    text.push_str(&self.lines.line(event));
                }
            }
            text.push('\n');
        }
        self.shown += events.len() as u64;
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()?;
        Ok(())
    }

    /// Says what was not shown since the last time.
    fn notice(&mut self) {
        self.noticed = Instant::now();
        let Settled { skipped, late } = std::mem::take(&mut self.unsaid);
        if skipped > 0 {
            let rate = self.followed.rate;
            say(&format!("{} skipped, beyond {rate}/s", count_events(skipped)));
        }
        if late > 0 {
            let lateness = units::seconds(self.followed.lateness.as_secs_f64());
            say(&format!("{} came more than {lateness} late and are not shown", count_events(late)));
        }
    }

    /// What is missing is said when it changes.
    fn say_missing(&mut self, answer: &Answer) {
        let missing: Vec<&str> =
            answer.completeness.missing.iter().map(|missing| missing.leaf.as_str()).collect();
        let missing = (!answer.completeness.is_whole()).then(|| missing.join(" "));
        if missing == self.missing {
            return;
        }
        match (&missing, warning(&answer.completeness)) {
            (Some(_), Some(warning)) => say(&warning),
            _ => say("all leaves answer again"),
        }
        self.missing = missing;
    }

    /// What was shown and what was not, up to now.
    async fn last_words(&mut self) {
        if let Some(rest) = self.window.rest(now()) {
            // Whoever ends it does not wait for a server that is away.
            let _ = tokio::time::timeout(LAST_WORDS_MAX, self.settle_stretch(rest)).await;
        }
        // `^C` stands in the line already.
        if io::stderr().is_terminal() {
            let _ = writeln!(io::stderr());
        }
        let Settled { skipped, late } = self.total;
        let shown = count_events(self.shown);
        let late = if late > 0 { format!(", {} too late", units::count(late)) } else { String::new() };
        say(&format!("{shown} shown, {} skipped{late}", units::count(skipped)));
    }
}

fn count_events(number: u64) -> String {
    if number == 1 { "1 event".to_owned() } else { format!("{} events", units::count(number)) }
}

/// Rows that are new, and rows that are not, of an answer to [`Followed::count_sql`].
fn counts(answer: &Answer) -> (u64, u64) {
    let (mut new, mut before) = (0, 0);
    for batch in &answer.batches {
        let (Some(is_new), Some(count)) = (
            batch.columns().first().and_then(|column| column.as_boolean_opt()),
            batch.columns().get(1).and_then(|column| column.as_primitive_opt::<Int64Type>()),
        ) else {
            continue;
        };
        for row in 0..batch.num_rows() {
            let rows = u64::try_from(count.value(row)).unwrap_or(0);
            if is_new.is_valid(row) && is_new.value(row) { new += rows } else { before += rows }
        }
    }
    (new, before)
}

fn say(text: &str) {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let _ = writeln!(io::stderr(), "-- {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read() {
        assert_eq!(parse_rate("50/s"), Ok(50));
        assert_eq!(parse_rate("7"), Ok(7));
        for wrong in ["0/s", "x", "", "5001", "5/m"] {
            let message = format!("rate `{wrong}` must be events a second from 1 to 5000, such as 50/s");
            assert_eq!(parse_rate(wrong), Err(message));
        }
    }

    #[test]
    fn questions_are_sql() {
        let mut followed = Followed::in_shell("a b".to_owned(), Some("x = 1 -- y".to_owned()), None);
        assert_eq!(
            followed.rows_sql(Some(1_500_000_000), 3),
            "SELECT * FROM \"a b\" WHERE (x = 1 -- y\n) AND time > TIMESTAMP '1970-01-01T00:00:01.500000000Z' \
             ORDER BY time DESC LIMIT 3"
        );
        followed.filters.clear();
        followed.columns = vec!["time".to_owned(), "user.id".to_owned()];
        assert_eq!(
            followed.rows_sql(None, 3),
            "SELECT time, user.id FROM \"a b\" ORDER BY time DESC LIMIT 3"
        );
        let stretch = Stretch { late_since: 0, after: 1, until: 2 };
        assert_eq!(
            followed.count_sql(stretch),
            "SELECT time > TIMESTAMP '1970-01-01T00:00:00.000000001Z' AS is_new, unweighted(count(*)) FROM \"a b\" \
             WHERE time > TIMESTAMP '1970-01-01T00:00:00.000000000Z' \
             AND time <= TIMESTAMP '1970-01-01T00:00:00.000000002Z' GROUP BY 1"
        );
    }
}
