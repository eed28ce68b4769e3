//! `gannet query`: SQL in, an answer out, and with it how complete it is.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use gannet_client::{Answer, Completeness, QueryOptions, Stats};
use serde::{Deserialize, Serialize};

use crate::cells::Zone;
use crate::charts::Chart;
use crate::charts::answer::drawn;
use crate::client::{Client, ClientArgs};
use crate::completeness::warning;
use crate::interrupt::Interrupt;
use crate::outcome::{Exit, Failure, Outcome};
use crate::progress_line::{ProgressLine, Show};
use crate::query::ask::{Asker, Reply};
use crate::query::excerpt::with_excerpt;
use crate::query::format::{About, Format, Layout, Printer};
use crate::query::output::Output;
use crate::query::parameters::Parameter;
use crate::query::statements::Statement;
use crate::render::{self, Colour};
use crate::units;

pub(crate) mod ask;
pub(crate) mod excerpt;
pub(crate) mod format;
pub(crate) mod output;
pub(crate) mod parameters;
pub(crate) mod statements;

/// SQL files longer than this are refused.
const SQL_BYTES_MAX: u64 = 1 << 20;

/// Ask SQL and see how complete the answer is.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  gannet query \"select service, count(*), p99(duration_ms) from requests
                where time > now() - interval '1 hour' group by service order by 2 desc limit 10\"
  gannet query \"select * from requests where user_id = \\$user\" --param user=u-118 --format vertical
  gannet query -o requests.parquet \"select * from requests order by time desc limit 100000\"
  gannet query -f report.sql --timezone Europe/Berlin
  echo 'show tables' | gannet query -

Formats: a table on a terminal, NDJSON into pipes and files, unless --format says otherwise or the name after -o ends \
with .csv, .tsv, .json, .ndjson, .md, .arrow or .parquet. Tables round floats to six digits; formats for programs are \
exact. In CSV, NULL is an empty field and an empty string is \"\"; in TSV, NULL is \\N.

Completeness: the last line of a table says it; json holds the whole record; Arrow and Parquet have it in the metadata \
gannet.completeness; --stats-file writes it to a file. Whenever something is missing, a warning on stderr says what and \
why.

Parameters: --param NAME=VALUE puts a literal in the place of $NAME. 42, 0.5, true and null are what they look like, all \
else is a string; --param NAME:TYPE=VALUE says it (string, int, float, bool, time).

Several statements end with semicolons. They are asked one after the other; the first that fails ends it.

Exit codes: 0 answered; 1 failed; 2 wrong usage; 3 answered and printed, but less complete than --min-completeness; \
4 no server; 5 no usable answer in time; 130 interrupted. A closed pipe (| head) ends the query with 0.")]
pub(crate) struct QueryArgs {
    /// The SQL, or `-` to read it from stdin
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    sql: Option<String>,
    /// Read the SQL from a file
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Give $NAME in the SQL a value; may be repeated
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = parameters::parse)]
    params: Vec<Parameter>,
    /// Draw the answer above its table
    #[arg(long, value_enum, value_name = "KIND", default_value_t = Chart::None)]
    chart: Chart,
    #[command(flatten)]
    answer: AnswerArgs,
    #[command(flatten)]
    client: ClientArgs,
}

/// How an answer is shown: the same for all commands that ask a question.
#[derive(Debug, Clone, Args)]
pub(crate) struct AnswerArgs {
    /// How to print the answer [default: table on a terminal, else ndjson]
    #[arg(short = 'F', long, value_enum)]
    pub(crate) format: Option<Format>,
    /// Same as --format json
    #[arg(long)]
    pub(crate) json: bool,
    /// Write to a file, which appears when it is whole
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Print at most this many rows [default: 10000 in tables, else all]
    #[arg(long, value_name = "N")]
    pub(crate) max_rows: Option<usize>,
    /// Show times in this zone, such as Europe/Berlin or +02:00 [default: UTC]
    #[arg(long, value_name = "ZONE", env = "GANNET_TIMEZONE", value_parser = parse_zone)]
    pub(crate) timezone: Option<arrow::array::timezone::Tz>,
    /// Exit with 3 when less of the rows is covered: 0 to 1, or 0% to 100%
    #[arg(
        long,
        value_name = "SHARE",
        default_value = "0.9",
        env = "GANNET_MIN_COMPLETENESS",
        value_parser = units::parse_share
    )]
    pub(crate) min_completeness: f64,
    /// Wait so long for the other leaves once there is a first answer; 0s takes the first one
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    pub(crate) wait_complete: Option<Duration>,
    /// Print the final answer only, not the best there was when Ctrl-C was pressed
    #[arg(long, conflicts_with = "wait_complete")]
    pub(crate) final_only: bool,
    /// Write completeness and statistics to a file, a line of JSON for each statement
    #[arg(long, value_name = "FILE")]
    pub(crate) stats_file: Option<PathBuf>,
    /// Show on stderr how far the query is
    #[arg(long, value_enum, default_value_t = Show::Auto, value_name = "WHEN")]
    pub(crate) progress: Show,
    /// Use colours
    #[arg(long, value_enum, default_value_t = Colour::Auto, value_name = "WHEN")]
    pub(crate) color: Colour,
    /// Print rows and errors, nothing else
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// Reads a zone.
fn parse_zone(text: &str) -> Result<arrow::array::timezone::Tz, String> {
    text.parse().map_err(|_| {
        format!("time zone `{text}` must be a name such as Europe/Berlin, or an offset such as +02:00")
    })
}

impl AnswerArgs {
    /// The format, by what was said, by the file's name, by where it goes.
    pub(crate) fn format(&self) -> Format {
        let of_file = || self.output.as_deref().and_then(Format::of_file);
        match (self.json, self.format) {
            (true, _) => Format::Json,
            (false, Some(format)) => format,
            (false, None) => of_file().unwrap_or_else(|| {
                if self.output.is_none() && io::stdout().is_terminal() {
                    Format::Table
                } else {
                    Format::Ndjson
                }
            }),
        }
    }

    /// How to write it.
    pub(crate) fn layout(&self) -> Layout {
        render::choose_colour(self.color);
        let mut style = render::style();
        if self.output.is_some() {
            style = render::Style::PLAIN;
        }
        let zone: Zone = self.timezone;
        Layout { format: self.format(), zone, max_rows: self.max_rows, style, footer: !self.quiet }
    }
}

/// What `--stats-file` says of a statement.
#[derive(Debug, Serialize)]
struct Record<'a> {
    sql: &'a str,
    rows: usize,
    is_partial: bool,
    completeness: &'a Completeness,
    stats: Stats,
}

/// Runs `gannet query`.
pub(crate) async fn run(args: QueryArgs) -> Outcome {
    let client = args.client.connect()?;
    let mut statements = statements::split(&read_sql(&args)?);
    if statements.is_empty() {
        return Err(Failure::usage("the SQL is empty").hint("try: gannet query \"show tables\""));
    }
    parameters::fill(&mut statements, &args.params)?;
    print_answers(&client, &statements, &args.answer, args.chart, args.client.timeout).await
}

/// Asks statements one after the other and prints their answers.
pub(crate) async fn print_answers(
    client: &Client,
    statements: &[Statement],
    args: &AnswerArgs,
    chart: Chart,
    timeout: Option<Duration>,
) -> Outcome {
    let layout = args.layout();
    if chart != Chart::None && !layout.format.is_for_people() {
        let name = layout.format.name();
        return Err(Failure::usage(format!("--chart draws for people, and {name} is for programs"))
            .hint("add --format table"));
    }
    if layout.format.is_binary() && statements.len() > 1 {
        let (name, count) = (layout.format.name(), statements.len());
        return Err(Failure::usage(format!("{name} holds one answer, and there are {count} statements")));
    }
    if layout.format == Format::Json && args.wait_complete.is_some() {
        return Err(Failure::usage(
            "--wait-complete does not go with json, which is the server's final reply",
        ));
    }
    let interrupt = Interrupt::listen();
    let options = QueryOptions { timeout, min_completeness: None };
    let asker = Asker { client: client.inner(), options, interrupt: &interrupt };
    let mut query = Query {
        asker,
        args,
        layout,
        chart,
        out: Output::open(args.output.as_deref(), layout.format, &interrupt)?,
        stats_file: args.stats_file.as_deref().map(create).transpose()?,
    };
    let mut exit = Exit::Done;
    for (index, statement) in statements.iter().enumerate() {
        if index > 0 && layout.format.is_for_people() {
            writeln!(query.out)?;
        }
        let ended = query.answer(statement).await.map_err(|failure| with_excerpt(failure, statement))?;
        if ended == Exit::Interrupted {
            return Ok(ended);
        }
        exit = if ended == Exit::Done { exit } else { ended };
    }
    query.out.finish()?;
    Ok(exit)
}

fn create(path: &Path) -> Result<File, Failure> {
    File::create(path).map_err(|error| Failure::failed(format!("create {}: {error}", path.display())))
}

fn read_sql(args: &QueryArgs) -> Result<String, Failure> {
    let (name, bytes) = match (&args.file, args.sql.as_deref()) {
        (Some(path), _) => (path.display().to_string(), File::open(path).and_then(read_some)),
        (None, Some("-")) => ("SQL from stdin".to_owned(), read_some(io::stdin().lock())),
        (None, sql) => return Ok(sql.unwrap_or_default().to_owned()),
    };
    let bytes = bytes.map_err(|error| Failure::failed(format!("read {name}: {error}")))?;
    if bytes.len() as u64 > SQL_BYTES_MAX {
        return Err(Failure::usage(format!("{name} exceeds the limit of {SQL_BYTES_MAX} bytes")));
    }
    String::from_utf8(bytes).map_err(|error| {
        Failure::usage(format!("{name} is not UTF-8 at byte {}", error.utf8_error().valid_up_to()))
    })
}

fn read_some(source: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(SQL_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Statements being asked and answered.
#[derive(Debug)]
pub(crate) struct Query<'a> {
    /// Who asks.
    pub(crate) asker: Asker<'a>,
    /// What was said about answers.
    pub(crate) args: &'a AnswerArgs,
    /// How answers are written.
    pub(crate) layout: Layout,
    /// What is drawn above them.
    pub(crate) chart: Chart,
    /// Where they go.
    pub(crate) out: Output,
    /// Where completeness and statistics go.
    pub(crate) stats_file: Option<File>,
}

impl Query<'_> {
    /// Asks one statement and writes its answer.
    pub(crate) async fn answer(&mut self, statement: &Statement) -> Outcome {
        if self.layout.format == Format::Json {
            return self.answer_in_json(statement).await;
        }
        let style = render::style();
        let mut line = ProgressLine::new(self.args.progress.is_shown(self.args.quiet), style);
        // Values as JSON cost more than as Arrow, which only matters where there are many: not on a screen.
        let is_watched = self.layout.format.is_for_people() && self.args.progress.is_shown(self.args.quiet);
        let reply = if self.args.wait_complete.is_some() || is_watched || self.chart != Chart::None {
            self.asker.refined(&statement.sql, self.args.wait_complete, &mut line).await?
        } else {
            self.asker.arriving(&statement.sql, &mut line).await?
        };
        match reply {
            Reply::Arriving(batches) => {
                let (completeness, stats) = (batches.completeness().clone(), batches.stats());
                let about = About { completeness: &completeness, stats, is_partial: false };
                let rows = self.print_arriving(*batches, about, &mut line).await?;
                line.clear();
                self.say(statement, about, rows)
            }
            Reply::Final(answer) => self.print(statement, &answer, false, line),
            Reply::Partial(answer) => self.print(statement, &answer, true, line),
            Reply::Interrupted(answer) => {
                if !self.args.final_only && self.args.output.is_none() && io::stdout().is_terminal() {
                    self.print(statement, &answer, true, line)?;
                }
                Ok(Exit::Interrupted)
            }
        }
    }

    async fn print_arriving(
        &mut self,
        mut batches: gannet_client::Batches,
        about: About<'_>,
        line: &mut ProgressLine,
    ) -> Result<usize, Failure> {
        let is_on_screen = self.args.output.is_none() && io::stdout().is_terminal();
        let mut printer = Printer::new(self.layout, &batches.schema().clone(), about, &mut self.out)?;
        let mut rows = 0;
        while let Some(batch) = self.asker.watch(line, batches.next()).await? {
            rows += batch.num_rows();
            if !printer.rows(&batch)? {
                break;
            }
            if !is_on_screen {
                line.written(printer.written() as u64);
            }
        }
        line.clear();
        printer.end(rows)?;
        Ok(rows)
    }

    fn print(
        &mut self,
        statement: &Statement,
        answer: &Answer,
        is_partial: bool,
        mut line: ProgressLine,
    ) -> Outcome {
        line.clear();
        let about = About { completeness: &answer.completeness, stats: answer.stats, is_partial };
        let Layout { zone, style, .. } = self.layout;
        if let Some(chart) = drawn(self.chart, &answer.schema, &answer.batches, zone, style) {
            self.out.write_all(chart.as_bytes())?;
        }
        let mut printer = Printer::new(self.layout, &answer.schema, about, &mut self.out)?;
        for batch in &answer.batches {
            if !printer.rows(batch)? {
                break;
            }
        }
        printer.end(answer.row_count())?;
        self.say(statement, about, answer.row_count())
    }

    /// The server's reply as it is.
    async fn answer_in_json(&mut self, statement: &Statement) -> Outcome {
        /// What must be known of it.
        #[derive(Deserialize)]
        struct Envelope {
            rows: Vec<serde::de::IgnoredAny>,
            #[serde(default)]
            completeness: Completeness,
            #[serde(default)]
            stats: Stats,
        }
        let mut line = ProgressLine::new(self.args.progress.is_shown(self.args.quiet), render::style());
        let asked = self.asker.client.query_json(&statement.sql, &self.asker.options);
        let body = self.asker.watch(&mut line, asked).await?;
        line.clear();
        let envelope: Envelope = self.asker.client.decode(&body)?;
        self.out.write_all(&body)?;
        self.out.write_all(b"\n")?;
        self.out.flush()?;
        let about = About { completeness: &envelope.completeness, stats: envelope.stats, is_partial: false };
        self.say(statement, about, envelope.rows.len())
    }

    /// What goes beside the rows, and how the statement ends.
    fn say(&mut self, statement: &Statement, about: About<'_>, rows: usize) -> Outcome {
        if let Some(file) = &mut self.stats_file {
            let About { completeness, stats, is_partial } = about;
            let record = Record { sql: &statement.sql, rows, is_partial, completeness, stats };
            let text = serde_json::to_string(&record).unwrap_or_default();
            writeln!(file, "{text}")
                .map_err(|error| Failure::failed(format!("write the statistics: {error}")))?;
        }
        if let Some(warning) = warning(about.completeness).filter(|_| !self.args.quiet) {
            let _ = writeln!(io::stderr(), "{warning}");
        }
        let is_enough = about.completeness.reaches(self.args.min_completeness);
        Ok(if is_enough { Exit::Done } else { Exit::Incomplete })
    }
}
