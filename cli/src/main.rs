//! The `gannet` command: every part of Gannet, put together.
//!
//! This crate parses arguments, starts the parts, and is a client of the HTTP door. It holds no rows, plans no query,
//! and knows what completeness means only as a reader: it shows the record that comes with an answer and never
//! rounds it up. `up` runs everything on one machine; `leaf` and `aggregator` run one part; the rest ask a server.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::{ArgAction, CommandFactory, FromArgMatches, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::outcome::{Exit, Failure, Outcome};

mod accept_loss;
mod agent;
mod bench;
mod cells;
mod charts;
mod client;
mod cluster;
mod colours;
mod completeness;
mod completion;
mod confirm;
mod decommission;
mod demo;
#[cfg(test)]
mod deploy;
mod diff;
mod explore;
mod gossip_args;
mod ingest;
mod interrupt;
mod leaf_list;
mod leaf_orders;
mod link;
mod machine;
mod outcome;
mod parent;
mod preferences;
mod progress_line;
mod query;
mod render;
mod rollout;
mod runtime;
mod serve_aggregator;
mod serve_leaf;
mod settings;
mod shell;
mod sql_names;
mod sql_tokens;
mod status;
mod tables;
mod tail;
mod tls_args;
mod token;
mod units;
mod up;

/// Sealing frees and makes large buffers all day long. The allocator of the C library keeps much of what was freed, so
/// that a leaf took half as much again as the rows it held.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Recent events in memory, SQL about them in milliseconds, and how complete every answer is.
#[derive(Debug, Parser)]
#[command(
    name = "gannet",
    version,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "\
Examples:
  gannet up --demo
  gannet query \"select service, count(*) from requests group by service order by 2 desc\"
  gannet shell
  gannet ingest requests requests.ndjson.gz

`gannet COMMAND --help` says more about each.",
    after_long_help = "\
Examples:
  gannet up --demo
  gannet query \"select service, count(*) from requests group by service order by 2 desc\"
  gannet shell
  gannet ingest requests requests.ndjson.gz

`gannet COMMAND --help` says more about each. GANNET_LOG sets what is logged on stderr: error, warn, info, debug, trace, \
or by part, such as gannet_leaf=debug,info."
)]
struct Cli {
    /// Say on stderr what is done; twice says more
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
    /// Ask nothing on the terminal; what would have to be asked fails
    #[arg(long, global = true)]
    no_input: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(up::UpArgs),
    Query(query::QueryArgs),
    Explore(Box<explore::ExploreArgs>),
    Diff(Box<diff::DiffArgs>),
    Shell(Box<shell::ShellArgs>),
    Tail(tail::TailArgs),
    Ingest(ingest::IngestArgs),
    Status(status::StatusArgs),
    /// See which tables and columns there are, and delete tables
    #[command(subcommand)]
    Table(tables::TableCommand),
    Leaf(Box<serve_leaf::LeafArgs>),
    /// Restart all leaves, few at a time, while answers stay complete enough
    #[command(subcommand)]
    Rollout(rollout::RolloutCommand),
    Aggregator(serve_aggregator::AggregatorArgs),
    #[command(subcommand)]
    Token(token::TokenCommand),
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// Measure this build on this machine
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    Completion(completion::CompletionArgs),
    /// Say which version this is
    Version,
}

fn main() -> ExitCode {
    let line: Vec<std::ffi::OsString> = std::env::args_os().collect();
    let parsed = preferences::parse(&Cli::command(), &line)
        .map(|found| Cli::from_arg_matches(&found).unwrap_or_else(|error| error.exit()));
    let outcome = parsed.and_then(|cli| {
        log_to_stderr(matches!(cli.command, Command::Leaf(_) | Command::Aggregator(_)), cli.verbose);
        if cli.no_input {
            confirm::never_ask();
        }
        run(cli.command)
    });
    match outcome {
        Ok(exit) => exit.into(),
        Err(failure) => {
            let _ = std::io::stderr().lock().write_all(failure.report().as_bytes());
            failure.exit.into()
        }
    }
}

fn run(command: Command) -> Outcome {
    match command {
        Command::Up(args) => up::run(args),
        Command::Leaf(args) => serve_leaf::run(*args),
        Command::Rollout(command) => runtime::paired()?.block_on(rollout::run(command)),
        Command::Aggregator(args) => serve_aggregator::run(args),
        Command::Query(args) => runtime::paired()?.block_on(query::run(args)),
        Command::Explore(args) => runtime::paired()?.block_on(explore::run(*args)),
        Command::Diff(args) => runtime::paired()?.block_on(diff::run(*args)),
        Command::Shell(args) => shell::run(*args),
        Command::Tail(args) => runtime::paired()?.block_on(tail::run(args)),
        Command::Ingest(args) => runtime::small()?.block_on(ingest::run(args)),
        Command::Status(args) => runtime::paired()?.block_on(status::run(args)),
        Command::Table(command) => runtime::small()?.block_on(tables::run(command)),
        Command::Token(command) => token::run(command),
        Command::Cluster(command) => cluster::run(command),
        Command::Completion(args) => completion::run(&args, Cli::command()),
        Command::Bench(command) => bench::run(command),
        Command::Version => version().map_err(Failure::from),
    }
}

fn version() -> std::io::Result<Exit> {
    let (os, processor) = (std::env::consts::OS, std::env::consts::ARCH);
    writeln!(std::io::stdout(), "gannet {} ({os} {processor})", env!("CARGO_PKG_VERSION"))?;
    Ok(Exit::Done)
}

/// Servers say what they do; the other commands only what goes wrong, unless they are asked.
fn log_to_stderr(is_server: bool, verbose: u8) {
    let default = match (is_server, verbose) {
        (false, 0) => "warn",
        (true, 0) | (false, 1) => "info",
        (true, 1) | (false, 2) => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_env("GANNET_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn commands_are_parsed() {
        let check = |line: &[&str]| {
            Cli::try_parse_from([&["gannet"], line].concat()).map(|_| ()).map_err(|e| e.kind())
        };
        use clap::error::ErrorKind;
        for line in [
            &["up"][..],
            &[
                "up",
                "--leaves",
                "4",
                "--data-dir",
                "d",
                "--http",
                "127.0.0.1:0",
                "--demo",
                "--memory-limit",
                "8GiB",
            ],
            &["query", "select 1"],
            &["query", "-f", "x.sql", "--format", "csv"],
            &["query", "-", "--json", "--min-completeness", "100%", "--timeout", "2s", "--server", "a:1"],
            &[
                "query",
                "select $a",
                "--param",
                "a=1",
                "-F",
                "parquet",
                "-o",
                "x",
                "--timezone",
                "Europe/Berlin",
                "-q",
            ],
            &["explore", "t", "--show", "count,p99(x)", "--last", "2d", "--compare", "1w", "--view", "table"],
            &["explore", "t", "--from", "-90m", "--to", "now"],
            &["diff", "t", "--select", "a > 1", "--against", "b", "--limit", "3"],
            &["ingest", "t", "a.csv", "b.parquet", "--time-field", "at"],
            &["ingest", "t", "-", "--format", "ndjson"],
            &["status", "--json"],
            &["status", "--watch", "--every", "500ms"],
            &["leaf", "list"],
            &["completion", "zsh"],
            &["shell", "--format", "vertical", "--no-history"],
            &["tail", "t", "--where", "a = 1", "--columns", "time,a", "--rate-limit", "100/s"],
            &["table", "list"],
            &["table", "describe", "t"],
            &["table", "delete", "t", "--confirm=t"],
            &["leaf", "--id", "a"],
            &["leaf", "accept-loss", "leaf-2"],
            &["leaf", "decommission", "leaf-2", "--yes", "--force"],
            &["leaf", "recommission", "leaf-2"],
            &["leaf", "--gossip", "10.0.0.7:1", "--gossip-seed", "a:1,b:1", "--cluster-key-file", "k"],
            &["cluster", "key", "--out", "k"],
            &["aggregator", "--gossip", "10.0.0.7:1", "--aggregator", "a:1", "--id", "a"],
            &["leaf", "drain", "leaf-2", "--dry-run"],
            &["leaf", "undrain", "leaf-2", "--server", "box:7700"],
            &["leaf", "stop", "leaf-2", "--yes"],
            &["leaf", "--id", "a", "--machine", "rack-7"],
            &["rollout", "start", "--yes", "--watch"],
            &[
                "rollout",
                "start",
                "--max-unavailable",
                "3",
                "--min-completeness",
                "85%",
                "--to",
                "0.2.0",
                "--dry-run",
            ],
            &["rollout", "status", "--watch", "--every", "2s", "--json"],
            &["rollout", "pause"],
            &["rollout", "resume", "--allow-disk", "--leaf-timeout", "1h"],
            &["rollout", "abort"],
            &["aggregator", "--child", "a:1"],
            &["aggregator", "--child", "a:1", "--http", "0.0.0.0:1", "--http-cert", "c", "--http-key", "k"],
            &["aggregator", "--child", "a:1", "--tokens-file", "t", "--insecure"],
            &["leaf", "--tls-ca", "ca.pem", "--tls-cert", "c", "--tls-key", "k"],
            &["token", "new", "--scope", "query,admin", "--name", "ops", "--expires", "90d"],
            &["cluster", "certificates", "--out", "d", "--names", "a,b+10.0.0.7", "--days", "30", "--renew"],
            &["query", "x", "--server", "https://a:1", "--token-file", "t", "--ca-file", "c"],
            &["bench", "overload", "--load", "query", "--load", "both", "--times", "20", "--normal", "50%"],
            &["bench", "stall", "--stalls", "10", "--queries", "5", "--timeout-ms", "500", "--json"],
            &["bench", "restart", "--gb", "0.5", "--json", "--dir", "d", "--plot", "x.svg", "--warm"],
            &["version"],
        ] {
            assert_eq!(check(line), Ok(()), "{line:?}");
        }
        for (line, kind) in [
            (&["query"][..], ErrorKind::MissingRequiredArgument),
            (&["query", "select 1", "-f", "x"], ErrorKind::ArgumentConflict),
            (&["query", "x", "--min-completeness", "2"], ErrorKind::ValueValidation),
            (&["query", "x", "--param", "a"], ErrorKind::ValueValidation),
            (&["query", "x", "--timezone", "Moon"], ErrorKind::ValueValidation),
            (&["explore", "t", "--last", "1h", "--from", "now"], ErrorKind::ArgumentConflict),
            (&["diff", "t"], ErrorKind::MissingRequiredArgument),
            (&["token", "new"], ErrorKind::MissingRequiredArgument),
            (&["token", "new", "--scope", "all"], ErrorKind::ValueValidation),
            (&["leaf", "--tls-ca", "ca.pem"], ErrorKind::MissingRequiredArgument),
            (&["aggregator", "--http-cert", "c"], ErrorKind::MissingRequiredArgument),
            (&["ingest", "t"], ErrorKind::MissingRequiredArgument),
            (&["up", "--leaves", "0"], ErrorKind::ValueValidation),
            (&["up", "--memory-limit", "lots"], ErrorKind::ValueValidation),
            (&["stat"], ErrorKind::InvalidSubcommand),
            (&["leaf", "stop"], ErrorKind::MissingRequiredArgument),
            (&["rollout", "start", "--max-unavailable", "0"], ErrorKind::ValueValidation),
            (&["rollout", "status", "--every", "2s"], ErrorKind::MissingRequiredArgument),
            (&["tail", "t", "--rate-limit", "0"], ErrorKind::ValueValidation),
            (&["status", "--every", "1s"], ErrorKind::MissingRequiredArgument),
            (&["completion", "powershell"], ErrorKind::InvalidValue),
            (&["bench", "restart", "--gb", "0"], ErrorKind::ValueValidation),
        ] {
            assert_eq!(check(line), Err(kind), "{line:?}");
        }
    }
}
