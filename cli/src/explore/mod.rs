//! `gannet explore`: a table looked at without writing SQL, drawn in the terminal.

use std::io::{self, IsTerminal, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use gannet_client::{Answer, ClientOptions, QueryOptions};

use crate::charts::Chart;
use crate::client::{Client, ClientArgs};
use crate::completeness::warning;
use crate::explore::question::{Question, View};
use crate::explore::screen::Screen;
use crate::explore::series::BUCKETS_MAX;
use crate::interrupt::{Interrupt, Interrupted};
use crate::link::{Exploration, Found, Link, Moment};
use crate::outcome::{Exit, Failure, Outcome, printable};
use crate::progress_line::ProgressLine;
use crate::query::ask::{Asker, Reply};
use crate::query::excerpt::with_excerpt;
use crate::query::format::{About, Format, what_it_took};
use crate::query::statements::Statement;
use crate::query::{AnswerArgs, print_answers};
use crate::render;

pub(crate) mod question;
pub(crate) mod screen;
pub(crate) mod series;
pub(crate) mod span;
pub(crate) mod spread;

/// The width of what is no terminal.
const WIDTH_DEFAULT: usize = 100;
/// Charts are no narrower and no wider than this.
const WIDTHS: std::ops::RangeInclusive<usize> = 40..=200;

/// Look at a table over time, by group, by distribution or row by row, without writing SQL
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  gannet explore requests
  gannet explore requests --show 'count,p99(duration_ms)' --group-by service --last 6h
  gannet explore requests --where 'status >= 500' --last 2h --compare 1d
  gannet explore requests --view distribution --show duration_ms --where \"service = 'cart'\"
  gannet explore requests --view samples --where 'status = 503' --limit 5 --format vertical
  gannet explore requests --group-by region --view table --compare 1w --sql
  gannet explore requests --where 'status >= 500' --last 2h --link
  gannet explore --from-link 'http://127.0.0.1:7700/e/requests?v=1&from=-1h&show=count&f=status:ge:500'

--show takes aggregates of SQL, separated by commas; count alone counts events. --where may be repeated, and all hold. \
A comparison is one request: both periods are read by the same leaves at the same moment. --sql prints the SQL in place of \
asking it, and --format prints the rows behind a view.

--link prints the question as a link in place of asking it: with the times it has now, or with --link=live with times that \
move on, as they were said. A link holds no server that would be asked and no token: --from-link asks the server of --server. \
It takes the link of a statement too, which \\link in gannet shell prints.

Exit codes are those of gannet query.")]
pub(crate) struct ExploreArgs {
    /// The table
    #[arg(required_unless_present = "from_link")]
    table: Option<String>,
    /// Ask the question of a link
    #[arg(long, value_name = "LINK", conflicts_with_all = QUESTION_FLAGS)]
    from_link: Option<String>,
    /// What to show: aggregates separated by commas; for a distribution the column
    #[arg(long, value_name = "EXPRESSIONS", default_value = "count")]
    show: Vec<String>,
    /// Only rows for which this is true; may be repeated, and all must hold
    #[arg(long = "where", value_name = "CONDITION")]
    filters: Vec<String>,
    /// Groups by these expressions, separated by commas
    #[arg(long, value_name = "EXPRESSIONS")]
    group_by: Vec<String>,
    /// A column made of others, such as slow='duration_ms > 1000'; may be repeated
    #[arg(long, value_name = "NAME=EXPRESSION", value_parser = parse_derived)]
    derive: Vec<(String, String)>,
    /// Only groups for which this is true; may be repeated
    #[arg(long, value_name = "CONDITION")]
    having: Vec<String>,
    /// An expression to order by, with asc or desc [default: the first of --show, downwards]
    #[arg(long, value_name = "EXPRESSION")]
    order_by: Option<String>,
    /// How many groups or rows to show
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    #[command(flatten)]
    range: RangeArgs,
    /// The width of a bucket [default: what fits]
    #[arg(long, value_name = "TIME", value_parser = span::parse_span)]
    every: Option<i64>,
    /// Compare with the same range so long ago
    #[arg(long, value_name = "TIME", value_parser = span::parse_span)]
    compare: Option<i64>,
    /// The way to look
    #[arg(long, value_enum, default_value_t = View::Series)]
    view: View,
    /// Print the SQL and ask nothing
    #[arg(long)]
    sql: bool,
    /// Print the question as a link and ask nothing
    #[arg(
        long,
        value_enum,
        value_name = "TIMES",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "pinned",
        conflicts_with = "sql"
    )]
    link: Option<LinkTimes>,
    /// How to draw numbers over time
    #[arg(long, value_enum, default_value_t = Chart::Auto)]
    chart: Chart,
    #[command(flatten)]
    drawing: DrawingArgs,
    #[command(flatten)]
    answer: AnswerArgs,
    #[command(flatten)]
    client: ClientArgs,
}

/// What a link says, and flags therefore do not.
const QUESTION_FLAGS: [&str; 14] = [
    "table", "show", "filters", "group_by", "derive", "having", "order_by", "limit", "last", "from", "to",
    "every", "compare", "view",
];

/// The times of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum LinkTimes {
    /// Those of now: whoever opens it sees the same
    Pinned,
    /// As they were said: whoever opens it sees what is new then
    Live,
}

/// Which time is looked at.
#[derive(Debug, Clone, Args)]
pub(crate) struct RangeArgs {
    /// The time up to now, such as 15m, 6h or 2d [default: 1h]
    #[arg(long, value_name = "TIME", value_parser = span::parse_span, conflicts_with_all = ["from", "to"])]
    pub(crate) last: Option<i64>,
    /// From when: a date, a time, or a stretch before now such as -90m
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) from: Option<String>,
    /// Until when [default: now]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) to: Option<String>,
}

impl RangeArgs {
    /// First instant, and the first after.
    pub(crate) fn resolve(&self, now: i64, zone: crate::cells::Zone) -> Result<(i64, i64), String> {
        const HOUR: i64 = 3600 * span::SECOND;
        let to = self.to.as_deref().map_or(Ok(now), |to| span::parse_instant(to, now, zone))?;
        let from = match &self.from {
            Some(from) => span::parse_instant(from, now, zone)?,
            None => to.saturating_sub(self.last.unwrap_or(HOUR)),
        };
        Ok((from, to))
    }
}

/// What is drawn on.
#[derive(Debug, Clone, Args)]
pub(crate) struct DrawingArgs {
    /// Columns of the drawing, 40 to 200 [default: the terminal's, else 100]
    #[arg(long, value_name = "N")]
    pub(crate) width: Option<usize>,
    /// Draw with ASCII characters only
    #[arg(long)]
    pub(crate) ascii: bool,
}

impl DrawingArgs {
    /// The screen.
    pub(crate) fn screen(&self, answer: &AnswerArgs, chart: Chart, now: i64) -> Screen {
        let style = answer.layout().style;
        let width = self.width.or(style.width).unwrap_or(WIDTH_DEFAULT);
        let width = width.clamp(*WIDTHS.start(), *WIDTHS.end());
        let style = render::Style { unicode: style.unicode && !self.ascii, width: Some(width), ..style };
        Screen { style, width, zone: answer.timezone, chart, now }
    }
}

fn parse_derived(text: &str) -> Result<(String, String), String> {
    let (name, expression) =
        text.split_once('=').ok_or_else(|| format!("derived column `{text}` must be NAME=EXPRESSION"))?;
    let (name, expression) = (name.trim(), expression.trim());
    if name.is_empty() || expression.is_empty() {
        return Err(format!("derived column `{text}` must be NAME=EXPRESSION"));
    }
    Ok((name.to_owned(), expression.to_owned()))
}

/// The end of this second, as events have it: what happened now is before it, and people can read it.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    seconds.saturating_add(1).saturating_mul(span::SECOND)
}

impl ExploreArgs {
    fn question(&self, screen: &Screen) -> Result<Question, String> {
        let lists = |texts: &[String]| -> Result<Vec<String>, String> {
            let lists = texts.iter().map(|text| question::list(text));
            Ok(lists.collect::<Result<Vec<_>, _>>()?.concat())
        };
        let (from, to) = self.range.resolve(screen.now, screen.zone)?;
        // Two dots of a line are a cell apart; a heatmap has a cell a bucket.
        let buckets = match self.view {
            View::Distribution => screen.width.saturating_sub(10),
            _ => screen.width.saturating_sub(10).min(120),
        };
        let range = to.saturating_sub(from).max(1);
        let every = self.every.unwrap_or_else(|| span::step(range, buckets, self.compare));
        if range / every >= BUCKETS_MAX as i64 {
            return Err(format!("--every {} makes more than {BUCKETS_MAX} buckets", span::span_text(every)));
        }
        // Buckets begin at round times, so the first one is whole.
        let is_bucketed = matches!(self.view, View::Series | View::Distribution);
        let from = if is_bucketed { from.div_euclid(every) * every } else { from };
        let question = Question {
            table: self.table.clone().unwrap_or_default(),
            show: lists(&self.show)?,
            filters: self.filters.clone(),
            group_by: lists(&self.group_by)?,
            derive: self.derive.clone(),
            having: self.having.clone(),
            order_by: self.order_by.clone(),
            limit: self.limit as usize,
            from,
            to,
            every,
            compare: self.compare,
            view: self.view,
        };
        question.check()?;
        Ok(question)
    }

    /// The question as a link has it.
    fn exploration(&self, screen: &Screen, times: LinkTimes) -> Result<Exploration, String> {
        let mut exploration = Exploration::of_table(self.table.clone().unwrap_or_default());
        (exploration.from, exploration.to) = match times {
            LinkTimes::Pinned => {
                let (from, to) = self.range.resolve(screen.now, screen.zone)?;
                (Moment::At(from), Moment::At(to))
            }
            LinkTimes::Live => {
                let RangeArgs { last, from, to } = &self.range;
                let moment = |text: &String| Moment::parse(text, screen.zone);
                let to = to.as_ref().map_or(Ok(Moment::Now), moment)?;
                let from = match (from.as_ref(), to) {
                    (Some(from), _) => moment(from)?,
                    (None, Moment::Now) => last.map_or(exploration.from, Moment::Ago),
                    // An hour before whatever that is.
                    (None, _) => Moment::At(self.range.resolve(screen.now, screen.zone)?.0),
                };
                (from, to)
            }
        };
        let lists = |texts: &[String]| -> Result<Vec<String>, String> {
            let lists = texts.iter().map(|text| crate::query::statements::split_at_commas(text));
            Ok(lists.collect::<Result<Vec<_>, _>>()?.concat())
        };
        exploration.show = lists(&self.show)?;
        exploration.group_by = lists(&self.group_by)?;
        self.filters.iter().for_each(|filter| exploration.add_condition(filter));
        exploration.derive = self.derive.iter().cloned().collect();
        exploration.having = self.having.clone();
        if let Some(order) = &self.order_by {
            exploration.set_order(order)?;
        }
        (exploration.every, exploration.compare) = (self.every, self.compare);
        (exploration.limit, exploration.view) = (self.limit, self.view);
        Ok(exploration)
    }

    /// Takes the question of a link in the place of flags.
    fn take(&mut self, exploration: Exploration) {
        self.filters = exploration.all_conditions();
        self.order_by = exploration.order();
        self.range =
            RangeArgs { last: None, from: Some(exploration.from.text()), to: Some(exploration.to.text()) };
        let Exploration { table, every, show, derive, group_by, having, limit, compare, view, .. } =
            exploration;
        self.table = Some(table);
        (self.every, self.compare, self.limit, self.view) = (every, compare, limit, view);
        (self.show, self.group_by, self.having) = (show, group_by, having);
        self.derive = derive.into_iter().collect();
    }

    /// Somebody wants the rows and no drawing.
    fn wants_rows(&self) -> bool {
        self.view == View::Samples
            || self.answer.format.is_some()
            || self.answer.json
            || self.answer.output.is_some()
    }
}

/// Runs it.
pub(crate) async fn run(mut args: ExploreArgs) -> Outcome {
    match args.from_link.take().map(|text| read_link(&text)).transpose()? {
        Some(Link::Sql(sql)) => return run_statement(args, sql).await,
        Some(Link::Exploration(exploration)) => args.take(*exploration),
        None => {}
    }
    let screen = args.drawing.screen(&args.answer, args.chart, now());
    let question = args.question(&screen).map_err(Failure::usage)?;
    if let Some(times) = args.link {
        let exploration = args.exploration(&screen, times).map_err(Failure::usage)?;
        return print_link(&Link::Exploration(Box::new(exploration)), &args.client);
    }
    let statement = Statement { sql: question.sql(), line: 1 };
    if args.sql {
        return print_sql(&statement.sql);
    }
    let client = args.client.connect()?;
    if args.wants_rows() {
        if args.view == View::Samples && args.answer.output.is_none() && !args.answer.json {
            args.answer.format = args.answer.format.or(Some(Format::Table));
        }
        return print_answers(&client, &[statement], &args.answer, Chart::None, args.client.timeout).await;
    }
    let (answer, is_partial) = ask(&client, &statement, &args.answer, &args.client).await?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    match question.view {
        View::Series => {
            let series = series::read(&question, &answer, screen.zone)?;
            screen.series(&mut out, &question, &series, &answer.completeness)?;
        }
        View::Table => screen.table(&mut out, &question, &answer)?,
        View::Distribution => screen.distribution(&mut out, &question, &answer)?,
        View::Samples => {}
    }
    finish(&mut out, &answer, is_partial, &args.answer, screen.style)
}

/// What a link stands for; tells what of it is left out.
fn read_link(text: &str) -> Result<Link, Failure> {
    let Found { link, notices } =
        Link::read(text).map_err(|why| Failure::usage(format!("the link cannot be read: {why}")))?;
    for notice in notices {
        let _ = writeln!(io::stderr(), "note: {notice}");
    }
    Ok(link)
}

fn print_link(link: &Link, to: &ClientArgs) -> Outcome {
    let client = Client::with(&to.server, ClientOptions::default())?;
    writeln!(io::stdout(), "{}", link.url(client.inner().address()))?;
    Ok(Exit::Done)
}

/// Prints SQL, of which a link may have been the source.
fn print_sql(sql: &str) -> Outcome {
    let is_terminal = io::stdout().is_terminal();
    let sql = if is_terminal { printable(sql) } else { sql.to_owned() };
    writeln!(io::stdout(), "{sql}")?;
    Ok(Exit::Done)
}

/// Asks the statement of a link, as `gannet query` does.
async fn run_statement(args: ExploreArgs, sql: String) -> Outcome {
    if args.link.is_some() {
        return print_link(&Link::Sql(sql), &args.client);
    }
    let statements = crate::query::statements::split(&sql);
    if statements.is_empty() {
        return Err(Failure::usage("the link cannot be read: its statement is empty"));
    }
    if args.sql {
        return print_sql(sql.trim_end());
    }
    let client = args.client.connect()?;
    print_answers(&client, &statements, &args.answer, Chart::None, args.client.timeout).await
}

/// The whole answer to one statement, and whether it is the final one.
pub(crate) async fn ask(
    client: &Client,
    statement: &Statement,
    args: &AnswerArgs,
    to: &ClientArgs,
) -> Result<(Answer, bool), Failure> {
    let interrupt = Interrupt::listen();
    let options = QueryOptions { timeout: to.timeout, min_completeness: None };
    let asker = Asker { client: client.inner(), options, interrupt: &interrupt };
    let is_watched = args.progress.is_shown(args.quiet);
    let mut line = ProgressLine::new(is_watched, render::style());
    let asked = if is_watched || args.wait_complete.is_some() {
        asker.refined(&statement.sql, args.wait_complete, &mut line).await
    } else {
        asker.arriving(&statement.sql, &mut line).await
    };
    match asked.map_err(|failure| with_excerpt(failure, statement))? {
        Reply::Arriving(batches) => Ok((asker.watch(&mut line, batches.collect()).await?, false)),
        Reply::Final(answer) => Ok((answer, false)),
        Reply::Partial(answer) => Ok((answer, true)),
        Reply::Interrupted(_) => Err(Interrupted.into()),
    }
}

/// The last line, the warning, and how the command ends.
pub(crate) fn finish(
    out: &mut dyn Write,
    answer: &Answer,
    is_partial: bool,
    args: &AnswerArgs,
    style: render::Style,
) -> Outcome {
    if !args.quiet {
        let about = About { completeness: &answer.completeness, stats: answer.stats, is_partial };
        writeln!(out, "{}", render::fold(&what_it_took(about), style))?;
    }
    out.flush()?;
    if let Some(warning) = warning(&answer.completeness).filter(|_| !args.quiet) {
        let _ = writeln!(io::stderr(), "{warning}");
    }
    let is_enough = answer.completeness.reaches(args.min_completeness);
    Ok(if is_enough { Exit::Done } else { Exit::Incomplete })
}
