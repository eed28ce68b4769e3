//! Meta commands: lines that begin with `\` or `.` and are for the shell itself.

use std::path::PathBuf;
use std::time::Duration;

use crate::units;

/// A meta command.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Meta {
    /// `\d`: the tables; `\d T`: the columns of a table.
    Describe(Option<String>),
    /// `\df`: functions whose name holds this.
    Functions(Option<String>),
    /// `\l`
    Leaves,
    /// `\timing`
    Timing(Switch),
    /// `\x`
    Expanded(Switch),
    /// `\pager`
    Pager(Switch),
    /// `\format`, without a name to see which there are.
    Format(Option<String>),
    /// `\o`: where answers go; without a file back to the terminal.
    Output(Option<PathBuf>),
    /// `\once`: where the next answer goes.
    Once(PathBuf),
    /// `\e`
    Edit,
    /// `\i`
    Include(PathBuf),
    /// `\watch`
    Watch(Duration),
    /// `\tail`: table and condition.
    Tail(String),
    /// `\chart`
    Chart(Option<String>),
    /// `\last`
    Last,
    /// `\link`
    Link,
    /// `\g`: the last statement once more.
    Again,
    /// `\s`: saves the last statement under a name, or lists names.
    Save(Option<String>),
    /// `\f`: runs a named query with parameters, or lists names.
    Run(Option<(String, Vec<String>)>),
    /// `\fd`: forgets a named query.
    Forget(String),
    /// `\min`
    Min(Option<f64>),
    /// `\timeout`
    Timeout(Option<Duration>),
    /// `\r`: forgets what was begun.
    Reset,
    /// `\?`
    Help,
    /// `\q`
    Quit,
}

/// What to do with something that is on or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Switch {
    /// The other way.
    Toggle,
    /// On.
    On,
    /// Off.
    Off,
}

impl Switch {
    /// What it makes of this.
    pub(super) fn applied(self, now: bool) -> bool {
        match self {
            Switch::Toggle => !now,
            Switch::On => true,
            Switch::Off => false,
        }
    }
}

/// A meta command that is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    /// What is wrong.
    pub(super) message: String,
    /// What to do.
    pub(super) hint: String,
}

/// A command as `\?` shows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Described {
    /// The name, without its first character.
    pub(super) name: &'static str,
    /// Other names it has.
    pub(super) aliases: &'static [&'static str],
    /// What follows it.
    pub(super) arguments: &'static str,
    /// What it does.
    pub(super) does: &'static str,
}

const fn described(
    name: &'static str,
    aliases: &'static [&'static str],
    arguments: &'static str,
    does: &'static str,
) -> Described {
    Described { name, aliases, arguments, does }
}

/// Every command, in the order of `\?`.
pub(super) const COMMANDS: [Described; 24] = [
    described("d", &["tables", "dt", "describe", "schema"], "[TABLE]", "tables; or the columns of a table"),
    described("df", &["functions"], "[PART]", "functions, with what they take"),
    described("l", &["leaves", "status"], "", "leaves: state, rows, memory"),
    described("g", &[], "", "run the last statement again"),
    described("last", &[], "", "the last answer once more, all of it, in the pager"),
    described("link", &[], "", "the last statement as a link; gannet explore --from-link LINK asks it"),
    described("x", &["vertical"], "[on|off]", "show rows as lists of fields; \\G in place of ; does it once"),
    described("format", &["mode", "F"], "[NAME]", "how answers are printed"),
    described("chart", &[], "[line|bar|off]", "draw answers above their rows: lines over time, or bars"),
    described("o", &["output"], "[FILE]", "write answers to a file; alone: to the terminal"),
    described("once", &[], "FILE", "write the next answer to a file"),
    described("pager", &[], "[on|off]", "show what is taller than the screen in a pager"),
    described("timing", &["timer"], "[on|off]", "say how long answers take, as seen from here"),
    described("e", &["edit"], "", "edit the statement in $VISUAL or $EDITOR"),
    described("i", &["read", "include"], "FILE", "run the statements of a file"),
    described("watch", &[], "[TIME]", "run the last statement every 2s, or as often as said, until Ctrl-C"),
    described("tail", &[], "TABLE [where …]", "newest events as they arrive, until Ctrl-C"),
    described("s", &["save"], "[NAME]", "keep the last statement under a name; alone: list them"),
    described("f", &["run"], "[NAME] [VALUE]…", "run a kept statement, with values for its $1, $2, …"),
    described("fd", &["forget"], "NAME", "forget a kept statement"),
    described("min", &[], "[SHARE]", "warn louder below this completeness, such as 0.99 or 99%"),
    described("timeout", &[], "[TIME]", "how long an answer may take"),
    described("r", &["reset"], "", "forget what was typed of a statement"),
    described("q", &["quit", "exit"], "", "leave; so do Ctrl-D and Ctrl-C twice"),
];

/// What `\watch` takes when nothing is said, and the least it takes.
const WATCH_DEFAULT: Duration = Duration::from_secs(2);
const WATCH_MIN: Duration = Duration::from_millis(100);

/// Reads a meta command. The line begins with `\` or `.`; a `;` at its end is ignored.
pub(super) fn parse(line: &str) -> Result<Meta, Wrong> {
    let line = line.trim().trim_end_matches(';').trim_end();
    let body = line.get(1..).unwrap_or("");
    let (name, rest) = body.split_once(char::is_whitespace).unwrap_or((body, ""));
    let rest = rest.trim();
    if name == "?" || name.eq_ignore_ascii_case("help") || name == "h" {
        return Ok(Meta::Help);
    }
    let Some(command) = command(name) else { return Err(unknown(name)) };
    let arguments = arguments(rest).map_err(|message| wrong_arguments(command, &message))?;
    let read = read(command.name, rest, &arguments);
    read.map_err(|message| wrong_arguments(command, &message))
}

fn read(name: &str, rest: &str, arguments: &[String]) -> Result<Meta, String> {
    let first = arguments.first();
    let most = match name {
        "d" | "df" | "timing" | "x" | "pager" | "format" | "o" | "once" | "i" | "watch" | "chart" | "s"
        | "fd" | "min" | "timeout" => 1,
        "f" | "tail" => usize::MAX,
        _ => 0,
    };
    if arguments.len() > most {
        let extra = &arguments[most];
        return Err(format!("does not take `{extra}`"));
    }
    let needed = || first.cloned().ok_or_else(|| "needs a name".to_owned());
    let switch = || match first.map(|word| word.to_ascii_lowercase()).as_deref() {
        None => Ok(Switch::Toggle),
        Some("on" | "true" | "1" | "auto") => Ok(Switch::On),
        Some("off" | "false" | "0") => Ok(Switch::Off),
        Some(other) => Err(format!("is on or off, not `{other}`")),
    };
    Ok(match name {
        "d" => Meta::Describe(first.cloned()),
        "df" => Meta::Functions(first.cloned()),
        "l" => Meta::Leaves,
        "g" => Meta::Again,
        "last" => Meta::Last,
        "link" => Meta::Link,
        "timing" => Meta::Timing(switch()?),
        "x" => Meta::Expanded(switch()?),
        "pager" => Meta::Pager(switch()?),
        "format" => Meta::Format(first.cloned()),
        "chart" => Meta::Chart(first.cloned()),
        "o" => Meta::Output(first.map(PathBuf::from)),
        "once" => Meta::Once(PathBuf::from(first.ok_or("needs a file")?)),
        "i" => Meta::Include(PathBuf::from(first.ok_or("needs a file")?)),
        "e" => Meta::Edit,
        "watch" => Meta::Watch(watch_interval(first)?),
        "tail" if rest.is_empty() => return Err("needs a table".to_owned()),
        "tail" => Meta::Tail(rest.to_owned()),
        "s" => Meta::Save(first.map(|name| checked_name(name)).transpose()?),
        "f" => Meta::Run(first.map(|name| (name.clone(), arguments[1..].to_vec()))),
        "fd" => Meta::Forget(needed()?),
        "min" => Meta::Min(first.map(|share| units::parse_share(share)).transpose()?),
        "timeout" => Meta::Timeout(first.map(|time| units::parse_duration(time)).transpose()?),
        "r" => Meta::Reset,
        _ => Meta::Quit,
    })
}

fn watch_interval(argument: Option<&String>) -> Result<Duration, String> {
    let Some(text) = argument else { return Ok(WATCH_DEFAULT) };
    let interval = units::parse_duration(text)?;
    if interval < WATCH_MIN {
        return Err(format!("asks every 100ms at most, not every `{text}`"));
    }
    Ok(interval)
}

/// Names of kept statements are words, so that they can be typed without quotes and be a line of a file.
fn checked_name(name: &str) -> Result<String, String> {
    let is_word = name.chars().all(|c| c.is_alphanumeric() || "_-.".contains(c));
    if is_word && name.chars().count() <= 64 {
        Ok(name.to_owned())
    } else {
        Err(format!("takes a name of at most 64 letters, digits, `_`, `-` and `.`, not `{name}`"))
    }
}

/// The first name of a command that is given by any of its names.
pub(super) fn canonical(name: &str) -> Option<&'static str> {
    command(name).map(|command| command.name)
}

fn command(name: &str) -> Option<&'static Described> {
    let exact = COMMANDS.iter().find(|command| command.name == name || command.aliases.contains(&name));
    exact.or_else(|| {
        COMMANDS.iter().find(|command| {
            let mut names = std::iter::once(&command.name).chain(command.aliases);
            names.any(|known| known.eq_ignore_ascii_case(name))
        })
    })
}

fn unknown(name: &str) -> Wrong {
    let names = COMMANDS.iter().flat_map(|command| std::iter::once(&command.name).chain(command.aliases));
    let near = names.map(|known| (distance(name, known), known)).filter(|(distance, known)| {
        // One letter of a short name is all of it.
        *distance <= known.chars().count() / 3
    });
    let hint = match near.min() {
        Some((_, known)) => format!("Did you mean \\{known}? \\? lists the commands."),
        None => "\\? lists the commands.".to_owned(),
    };
    Wrong { message: format!("there is no command `\\{name}`"), hint }
}

fn wrong_arguments(command: &Described, message: &str) -> Wrong {
    Wrong {
        message: format!("\\{} {message}", command.name),
        hint: format!("\\{} {}: {}", command.name, command.arguments, command.does).replace(" :", ":"),
    }
}

/// How many letters must be changed, added or removed to make one word of the other.
pub(super) fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, c) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, d) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(!c.eq_ignore_ascii_case(d));
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

/// The words of a line; a word in quotes may hold spaces, and a quote is written twice inside them.
fn arguments(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let mut word = String::new();
        if first == '\'' || first == '"' {
            let mut left = &rest[1..];
            loop {
                let Some(end) = left.find(first) else {
                    return Err(format!("has an argument without its closing {first}"));
                };
                word.push_str(&left[..end]);
                left = &left[end + 1..];
                if !left.starts_with(first) {
                    break;
                }
                word.push(first);
                left = &left[1..];
            }
            rest = left;
        } else {
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            word.push_str(&rest[..end]);
            rest = &rest[end..];
        }
        words.push(word);
        rest = rest.trim_start();
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expect: Meta) {
        assert_eq!(parse(line), Ok(expect), "{line}");
    }

    fn refused(line: &str, message: &str, hint: &str) {
        let wrong = Wrong { message: message.to_owned(), hint: hint.to_owned() };
        assert_eq!(parse(line), Err(wrong), "{line}");
    }

    #[test]
    fn commands_are_read() {
        check("\\d", Meta::Describe(None));
        check(".tables;", Meta::Describe(None));
        check("\\d requests;", Meta::Describe(Some("requests".to_owned())));
        check("\\d \"a \"\"t\"", Meta::Describe(Some("a \"t".to_owned())));
        check("\\df p9", Meta::Functions(Some("p9".to_owned())));
        check("\\l", Meta::Leaves);
        check("\\timing", Meta::Timing(Switch::Toggle));
        check(".timer ON", Meta::Timing(Switch::On));
        check("\\x off", Meta::Expanded(Switch::Off));
        check("\\format csv", Meta::Format(Some("csv".to_owned())));
        check(".mode", Meta::Format(None));
        check("\\o 'a b.csv'", Meta::Output(Some("a b.csv".into())));
        check("\\o", Meta::Output(None));
        check("\\once x", Meta::Once("x".into()));
        check("\\e", Meta::Edit);
        check("\\i a.sql", Meta::Include("a.sql".into()));
        check("\\watch", Meta::Watch(Duration::from_secs(2)));
        check("\\watch 500ms", Meta::Watch(Duration::from_millis(500)));
        check("\\tail requests where a = 'b c'", Meta::Tail("requests where a = 'b c'".to_owned()));
        check("\\last", Meta::Last);
        check("\\link", Meta::Link);
        check("\\chart bar", Meta::Chart(Some("bar".to_owned())));
        check("\\g", Meta::Again);
        check("\\s errors-5xx", Meta::Save(Some("errors-5xx".to_owned())));
        check("\\f", Meta::Run(None));
        check("\\f a 1 'x y'", Meta::Run(Some(("a".to_owned(), vec!["1".to_owned(), "x y".to_owned()]))));
        check("\\fd a", Meta::Forget("a".to_owned()));
        check("\\min 99%", Meta::Min(Some(0.99)));
        check("\\timeout 30s", Meta::Timeout(Some(Duration::from_secs(30))));
        check("\\r", Meta::Reset);
        check("\\?", Meta::Help);
        check(".help", Meta::Help);
        check("\\Q", Meta::Quit);
        check(".exit", Meta::Quit);
    }

    #[test]
    fn mistakes_are_named() {
        refused(
            "\\describ x",
            "there is no command `\\describ`",
            "Did you mean \\describe? \\? lists the commands.",
        );
        refused("\\zz", "there is no command `\\zz`", "\\? lists the commands.");
        refused("\\", "there is no command `\\`", "\\? lists the commands.");
        refused("\\l x", "\\l does not take `x`", "\\l: leaves: state, rows, memory");
        refused("\\once", "\\once needs a file", "\\once FILE: write the next answer to a file");
        refused(
            "\\x maybe",
            "\\x is on or off, not `maybe`",
            "\\x [on|off]: show rows as lists of fields; \\G in place of ; does it once",
        );
        refused(
            "\\o 'a",
            "\\o has an argument without its closing '",
            "\\o [FILE]: write answers to a file; alone: to the terminal",
        );
        let message = |line: &str| parse(line).unwrap_err().message;
        assert_eq!(message("\\watch 1ms"), "\\watch asks every 100ms at most, not every `1ms`");
        assert_eq!(message("\\min 2"), "\\min `2` must be a number between 0 and 1, or between 0% and 100%");
        assert_eq!(
            message("\\s a/b"),
            "\\s takes a name of at most 64 letters, digits, `_`, `-` and `.`, not `a/b`"
        );
        assert_eq!(message("\\tail"), "\\tail needs a table");
    }

    #[test]
    fn no_name_is_given_twice() {
        let mut names: Vec<&str> = COMMANDS.iter().map(|command| command.name).collect();
        names.extend(COMMANDS.iter().flat_map(|command| command.aliases));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
