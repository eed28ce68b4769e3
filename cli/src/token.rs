//! `gannet token`: makes the tokens that people and programs show to a server.
//!
//! The token goes once to standard output or into a new file, and is kept nowhere else; the line for the server's file
//! goes to that file, or to standard error. So a pipe holds the token and nothing else.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use clap::{Args, Subcommand};
use gannet_aggregator::access::{Grant, Scope, new_token};

use crate::outcome::{Exit, Failure, Outcome};
use crate::units;

/// Make the tokens that people and programs show to a server
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    New(NewArgs),
}

/// Make a token: it is printed once, and the server keeps only its hash
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  gannet token new --scope query --name alice --tokens-file /etc/gannet/tokens --out alice.token
  gannet token new --scope ingest --expires 90d --name web --tokens-file /etc/gannet/tokens --out web.token
  gannet token new --scope query,admin --name ops

The token is printed on standard output, or kept in a new file that only its owner can read, for `--token-file`. A line with its name, its scopes and its SHA-256 is \
added to the tokens file, which is made with mode 600 if there is none; without --tokens-file it is printed on standard \
error. A server that was started with `--tokens-file` reads the file again by itself.

Scopes: `ingest` posts events; `query` asks and sees tables, status and metrics; `admin` deletes tables and decides about \
leaves. To change a token, add the new one, hand it out, then remove the line of the old one.")]
pub(crate) struct NewArgs {
    /// What its holder may do: ingest, query or admin; several with commas, or once for each
    #[arg(long, value_name = "SCOPE", required = true, value_delimiter = ',', value_parser = scope)]
    scope: Vec<Scope>,
    /// What people call it
    #[arg(long, default_value = "token")]
    name: String,
    /// Ends by itself after this, such as 90d
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    expires: Option<Duration>,
    /// The file that its line is added to
    #[arg(long, value_name = "FILE")]
    tokens_file: Option<PathBuf>,
    /// The new file that holds the token, instead of standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

fn scope(text: &str) -> Result<Scope, String> {
    text.parse()
}

/// Runs `gannet token`.
pub(crate) fn run(command: TokenCommand) -> Outcome {
    let TokenCommand::New(args) = command;
    let until = args.expires.map(|after| until(Utc::now(), after)).transpose()?;
    let (token, grant) = new_token(&args.name, &args.scope, until).map_err(Failure::usage)?;
    // First what may fail for what is there already: a line for a token that nobody has would be of no use.
    if let Some(path) = &args.out {
        keep(path, &token)?;
    }
    match &args.tokens_file {
        Some(path) => add(path, &grant)?,
        None => writeln!(io::stderr(), "{grant}")?,
    }
    if args.out.is_none() {
        writeln!(io::stdout(), "{token}")?;
    }
    Ok(Exit::Done)
}

/// When a token ends that is made now.
fn until(now: DateTime<Utc>, after: Duration) -> Result<DateTime<Utc>, Failure> {
    let end = TimeDelta::from_std(after).ok().and_then(|after| now.checked_add_signed(after));
    end.filter(|_| !after.is_zero())
        .ok_or_else(|| Failure::usage(format!("--expires {} s is no time to end at", after.as_secs())))
}

/// Keeps a token in a file of its own.
fn keep(path: &Path, token: &str) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::failed(format!("token file {}: {error}", path.display()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(format!("{token}\n").as_bytes()).and_then(|()| file.sync_all()).map_err(failed)
}

/// Adds a line to a tokens file, which is made if there is none.
fn add(path: &Path, grant: &Grant) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::failed(format!("tokens file {}: {error}", path.display()));
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(failed(error)),
    };
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path).map_err(failed)?;
    // A last line that somebody left open is ended first.
    let end = if text.last().is_none_or(|byte| *byte == b'\n') { "" } else { "\n" };
    // One write: a server that reads at this moment sees all of the line or nothing.
    file.write_all(format!("{end}{grant}\n").as_bytes()).map_err(failed)?;
    file.sync_all().map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use gannet_aggregator::access::Tokens;

    use super::*;

    #[test]
    fn lines_are_added() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        let grant = |name: &str| new_token(name, &[Scope::Query], None).unwrap().1;
        let (a, b, c) = (grant("a"), grant("b"), grant("c"));
        add(&path, &a).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        add(&path, &b).unwrap();
        let open = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, open.trim_end()).unwrap();
        add(&path, &c).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{a}\n{b}\n{c}\n"));
        assert!(Tokens::read(&path).is_ok());
    }

    #[test]
    fn a_token_is_kept_for_its_owner_and_replaces_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("me.token");
        keep(&path, "gannet_1").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let error = keep(&path, "gannet_2").unwrap_err();
        assert_eq!(error.message, format!("token file {}: File exists (os error 17)", path.display()));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "gannet_1\n");
    }

    #[test]
    fn tokens_end_when_they_are_told() {
        let now = DateTime::from_timestamp(1_000_000_000, 0).unwrap();
        let end = until(now, Duration::from_secs(90 * 86_400)).unwrap();
        assert_eq!(end.to_rfc3339(), "2001-12-08T01:46:40+00:00");
        assert!(until(now, Duration::ZERO).is_err());
        assert!(until(now, Duration::MAX).is_err());
    }
}
