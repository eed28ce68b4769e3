//! What people prefer: defaults of the flags of commands that ask a server, kept in files.
//!
//! A flag comes first, then its environment variable, then `.gannet.toml` of the project (in this directory or the
//! nearest one above), then `gannet/config.toml` of the user, then `/etc/gannet/config.toml`. `--config FILE` or
//! `GANNET_CONFIG` names one file that takes the place of all three.
//!
//! A file holds flags by their names and nothing else; what it says is checked by the same parser as the flag. A project
//! comes from somebody else now and then, and says where questions (and with them a token) go: its file is read only
//! when it belongs to the user or to root and nobody else may write it.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clap::{ArgMatches, Command};
use serde::Deserialize;

use crate::outcome::Failure;
use crate::settings;

/// The file of a project.
const PROJECT_FILE: &str = ".gannet.toml";
/// The file of a user, below the directory of settings.
const USER_FILE: &str = "gannet/config.toml";
/// The file of a machine.
const SYSTEM_FILE: &str = "/etc/gannet/config.toml";
/// The id of the flag that names a file.
const FLAG: &str = "preferences";
/// The id of a flag that guards a rollout: what somebody prefers of queries does not weaken it.
const GUARD: &str = "guard";
/// Rights to write for others than the owner.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// What a file may say.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct Preferences {
    server: Option<Value>,
    timeout: Option<Value>,
    token_file: Option<Value>,
    ca_file: Option<Value>,
    format: Option<Value>,
    timezone: Option<Value>,
    min_completeness: Option<Value>,
    max_rows: Option<Value>,
    progress: Option<Value>,
    color: Option<Value>,
}

/// A value as it would be written after its flag.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Value {
    Text(String),
    Int(i64),
    Float(f64),
}

/// A flag with its value, and the file that says so.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Preference {
    flag: &'static str,
    value: String,
    file: PathBuf,
}

/// Where files of preferences are looked for.
#[derive(Debug, Default)]
struct Places {
    directory: Option<PathBuf>,
    user: Option<PathBuf>,
    system: Option<PathBuf>,
}

/// Parses a command line with what people prefer in the place of defaults. Mistakes on the command line end the process,
/// as they do without preferences.
///
/// # Errors
/// When a file cannot be read or does not hold preferences.
pub(crate) fn parse(command: &Command, line: &[OsString]) -> Result<ArgMatches, Failure> {
    let found = command.clone().try_get_matches_from(line).unwrap_or_else(|error| error.exit());
    let Some(named) = named_file(&found) else { return Ok(found) };
    let preferences = match named {
        Some(file) => of_file(&file)?,
        None => Places::here().preferences()?,
    };
    apply(command, line, found, &preferences)
}

/// The file that a command line names; `None` when its command asks no server.
fn named_file(found: &ArgMatches) -> Option<Option<PathBuf>> {
    let mut last = found;
    while let Some((_, inner)) = last.subcommand() {
        last = inner;
    }
    last.ids().any(|id| id == "server").then(|| last.try_get_one::<PathBuf>(FLAG).ok().flatten().cloned())
}

fn apply(
    command: &Command,
    line: &[OsString],
    plain: ArgMatches,
    preferences: &[Preference],
) -> Result<ArgMatches, Failure> {
    let (mut command, mut found) = (command.clone(), plain);
    // Files that come first are asked last, so that they win. One by one, to know which value is wrong.
    for preference in preferences.iter().rev() {
        command = with_default(command, preference);
        found = command.clone().try_get_matches_from(line).map_err(|error| wrong(preference, &error))?;
    }
    Ok(found)
}

/// Gives each flag of this name, in this command and all below it, another default.
fn with_default(command: Command, preference: &Preference) -> Command {
    let names: Vec<String> = command.get_subcommands().map(|below| below.get_name().to_owned()).collect();
    let asks = command.get_arguments().any(|arg| arg.get_id() == "server");
    let takes = |arg: &clap::Arg| {
        arg.get_long() == Some(preference.flag)
            && arg.get_action().takes_values()
            && !arg.is_required_set()
            && arg.get_id() != GUARD
    };
    let id = command.get_arguments().find(|arg| takes(arg)).map(|arg| arg.get_id().clone());
    let command = match id.filter(|_| asks) {
        Some(id) => command.mut_arg(id, |arg| arg.default_value(preference.value.clone())),
        None => command,
    };
    names
        .into_iter()
        .fold(command, |command, name| command.mut_subcommand(name, |below| with_default(below, preference)))
}

fn wrong(preference: &Preference, error: &clap::Error) -> Failure {
    let Preference { flag, value, file } = preference;
    let text = error.to_string();
    let what = text.lines().next().unwrap_or_default();
    let what = what.strip_prefix("error: ").unwrap_or(what);
    Failure::usage(format!("settings file {}: {flag} = {value:?}: {what}", file.display()))
}

impl Places {
    fn here() -> Places {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let user = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")));
        Places {
            directory: std::env::current_dir().ok(),
            user: user.map(|user| user.join(USER_FILE)),
            system: Some(PathBuf::from(SYSTEM_FILE)),
        }
    }

    /// What the files say, those that win first.
    fn preferences(&self) -> Result<Vec<Preference>, Failure> {
        let mut preferences = Vec::new();
        let above = self.directory.as_deref().into_iter().flat_map(Path::ancestors);
        if let Some(file) = above.map(|at| at.join(PROJECT_FILE)).find(|file| file.exists()) {
            check_owner(&file)?;
            preferences.extend(of_file(&file)?);
        }
        for file in [&self.user, &self.system].into_iter().flatten().filter(|file| file.exists()) {
            preferences.extend(of_file(file)?);
        }
        Ok(preferences)
    }
}

fn check_owner(file: &Path) -> Result<(), Failure> {
    let failed = |what: String| {
        Failure::usage(format!("settings file {}: {what}", file.display()))
            .hint("name it with --config if you trust it")
    };
    let about = std::fs::metadata(file).map_err(|error| failed(error.to_string()))?;
    let us = rustix::process::geteuid().as_raw();
    if about.uid() != us && about.uid() != 0 {
        return Err(failed(format!("belongs to user {}, and this is user {us}", about.uid())));
    }
    match about.mode() & WRITABLE_BY_OTHERS {
        0 => Ok(()),
        _ => Err(failed(format!("others may write it (mode {:o})", about.mode() & 0o777))),
    }
}

fn of_file(file: &Path) -> Result<Vec<Preference>, Failure> {
    let Preferences {
        server,
        timeout,
        token_file,
        ca_file,
        format,
        timezone,
        min_completeness,
        max_rows,
        progress,
        color,
    } = settings::read(Some(file))?;
    let said = [
        ("server", server),
        ("timeout", timeout),
        ("token-file", token_file),
        ("ca-file", ca_file),
        ("format", format),
        ("timezone", timezone),
        ("min-completeness", min_completeness),
        ("max-rows", max_rows),
        ("progress", progress),
        ("color", color),
    ];
    let preference = |(flag, value): (&'static str, Option<Value>)| {
        let value = match value? {
            Value::Text(text) => text,
            Value::Int(number) => number.to_string(),
            Value::Float(number) => number.to_string(),
        };
        Some(Preference { flag, value, file: file.to_owned() })
    };
    Ok(said.into_iter().filter_map(preference).collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use clap::{Arg, value_parser};

    use super::*;

    fn command() -> Command {
        let asks = |name: &'static str| {
            Command::new(name)
                .arg(Arg::new("server").long("server").default_value("built-in"))
                .arg(Arg::new("min").long("min-completeness").value_parser(value_parser!(f64)))
                .arg(Arg::new(FLAG).long("config").value_parser(value_parser!(PathBuf)))
        };
        Command::new("gannet").subcommand(asks("query")).subcommand(
            Command::new("leaf")
                .arg(Arg::new("timeout").long("timeout"))
                .subcommand(asks("list").arg(Arg::new("format").long("format").required(true))),
        )
    }

    fn found(line: &[&str], preferences: &[Preference]) -> Result<(String, Option<f64>), Failure> {
        let line: Vec<OsString> = line.iter().map(OsString::from).collect();
        let plain = command().try_get_matches_from(&line).unwrap();
        let found = apply(&command(), &line, plain, preferences)?;
        let (_, query) = found.subcommand().unwrap();
        Ok((query.get_one::<String>("server").unwrap().clone(), query.get_one("min").copied()))
    }

    fn preference(flag: &'static str, value: &str) -> Preference {
        Preference { flag, value: value.to_owned(), file: PathBuf::from("a.toml") }
    }

    #[test]
    fn flags_come_before_files_and_files_before_defaults() {
        let both = [preference("server", "project"), preference("server", "user")];
        assert_eq!(found(&["gannet", "query"], &[]).unwrap(), ("built-in".to_owned(), None));
        assert_eq!(found(&["gannet", "query"], &both).unwrap(), ("project".to_owned(), None));
        assert_eq!(
            found(&["gannet", "query", "--server", "flag"], &both).unwrap(),
            ("flag".to_owned(), None)
        );
        let share = [preference("min-completeness", "0.5")];
        assert_eq!(found(&["gannet", "query"], &share).unwrap(), ("built-in".to_owned(), Some(0.5)));
        // A flag that must be said is not said by a file, and one of a command that asks nobody is not touched.
        let others = [preference("format", "csv"), preference("timeout", "1s")];
        assert_eq!(found(&["gannet", "query"], &others).unwrap(), ("built-in".to_owned(), None));
    }

    #[test]
    fn a_wrong_value_is_named_with_its_file() {
        let failure = found(&["gannet", "query"], &[preference("min-completeness", "most")]).unwrap_err();
        assert_eq!(
            failure.message,
            "settings file a.toml: min-completeness = \"most\": \
             invalid value 'most' for '--min-completeness <min>': invalid float literal"
        );
    }

    #[test]
    fn only_commands_that_ask_have_preferences() {
        let named = |line: &[&str]| named_file(&command().try_get_matches_from(line).unwrap());
        assert_eq!(named(&["gannet", "leaf"]), None);
        assert_eq!(named(&["gannet", "query"]), Some(None));
        assert_eq!(
            named(&["gannet", "leaf", "list", "--format", "x", "--config", "f"]),
            Some(Some(PathBuf::from("f")))
        );
    }

    #[test]
    fn the_nearest_project_wins_over_user_and_system() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let below = path("project/a/b");
        std::fs::create_dir_all(&below).unwrap();
        std::fs::write(path("project/.gannet.toml"), "server = \"p:1\"\nmin-completeness = 1").unwrap();
        std::fs::write(path("user.toml"), "server = \"u:1\"\ntimezone = \"Europe/Berlin\"").unwrap();
        let places = Places { directory: Some(below), user: Some(path("user.toml")), system: None };
        let said: Vec<(&str, String)> =
            places.preferences().unwrap().into_iter().map(|said| (said.flag, said.value)).collect();
        let expected =
            [("server", "p:1"), ("min-completeness", "1"), ("server", "u:1"), ("timezone", "Europe/Berlin")];
        assert_eq!(said, expected.map(|(flag, value)| (flag, value.to_owned())));

        std::fs::write(path("user.toml"), "sever = \"u:1\"").unwrap();
        let failure = places.preferences().unwrap_err();
        assert_eq!(failure.message, format!("settings file {}: not understood", path("user.toml").display()));
        assert!(failure.detail.unwrap().contains("unknown field `sever`, expected one of `server`"));

        let others = std::fs::Permissions::from_mode(0o666);
        std::fs::set_permissions(path("project/.gannet.toml"), others).unwrap();
        let failure = places.preferences().unwrap_err();
        assert!(failure.message.ends_with(".gannet.toml: others may write it (mode 666)"), "{failure:?}");
    }
}
