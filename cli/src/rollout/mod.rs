//! `gannet rollout`: a rolling restart, run by the aggregator, begun, watched and steered from here.

use std::io::{self, Write};
use std::time::Duration;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Map, Value as Json, json};

use crate::client::{Client, ClientArgs};
use crate::outcome::{Exit, Failure, Outcome};
use crate::render;
use crate::{confirm, units};

mod reply;
mod screen;
mod watch;

use reply::{Reply, Rollout};

/// How long the aggregator may take when nobody says.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// Nobody reads faster.
const EVERY_MIN: Duration = Duration::from_millis(100);

/// `gannet rollout`.
#[derive(Debug, Subcommand)]
pub(crate) enum RolloutCommand {
    /// Restart every leaf, few at a time, for as long as nothing is wrong
    #[command(after_long_help = "\
Examples:
  gannet rollout start
  gannet rollout start --yes --watch
  gannet rollout start --max-unavailable 1 --min-completeness 85% --to 0.2.0

Leaf by leaf: it takes no new rows, hands its rows over to shared memory and ends; whoever runs it starts it again, with \
the program that is installed then (`gannet up`, systemd with Restart=always, Kubernetes); when it serves all its rows, \
the next one follows. Install the new program first. Never are more leaves away than --max-unavailable, never two of one \
machine (`gannet leaf --machine`).

It pauses by itself when answers get or would get less complete than --min-completeness, when a leaf is away that it did \
not stop, takes three times as long as the others, does not come back, comes back with fewer rows or another version than \
--to, and when two leaves come back from disk. The aggregator that was asked runs it, and others do not know of it: this command \
may end, and so may the aggregator, whose next process goes on.

Exit codes with --watch: 0 when every leaf is done, 7 when it paused, 1 when it was aborted. A start goes on with a \
rollout that is paused, and watches one that runs.")]
    Start(StartArgs),
    /// See how far it is: leaf by leaf, with times and where rows came from
    #[command(after_long_help = "\
Examples:
  gannet rollout status
  gannet rollout status --watch
  gannet rollout status --json | jq '.rollout.leaves[] | select(.step != \"done\")'

--watch follows it to its end: redrawn in place on a terminal, a line for each step elsewhere. The exit code is 7 while it \
is paused.")]
    Status(StatusArgs),
    /// Begin no further leaf; the one whose turn it is comes back
    Pause(SteerArgs),
    /// Go on after a pause, with other limits if some are named
    Resume(ResumeArgs),
    /// Give it up: restarted leaves stay as they are, the others are left alone
    Abort(SteerArgs),
}

/// What a rollout may do.
#[derive(Debug, Args)]
struct Limits {
    /// How many leaves may be away at once: a number, or a share of all, and always one [default: 2%]
    #[arg(long, value_name = "N|SHARE", value_parser = parse_max_unavailable)]
    max_unavailable: Option<String>,
    /// How complete answers must stay, such as 0.95 or 95% [default: 95%]
    #[arg(id = "guard", long = "min-completeness", value_name = "SHARE", value_parser = units::parse_share)]
    min_completeness: Option<f64>,
    /// How long a leaf may be away [default: 10m]
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    leaf_timeout: Option<Duration>,
    /// The version that leaves must come back with; those that run it are left alone
    #[arg(long, value_name = "VERSION")]
    to: Option<String>,
    /// Go on although leaves come back from disk
    #[arg(long)]
    allow_disk: bool,
}

/// `gannet rollout start`.
#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    #[command(flatten)]
    limits: Limits,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Follow it to its end
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// `gannet rollout status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Print the server's whole reply
    #[arg(long)]
    json: bool,
    /// Follow it to its end
    #[arg(short, long)]
    watch: bool,
    /// How often
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = units::parse_duration, requires = "watch")]
    every: Duration,
    #[command(flatten)]
    client: ClientArgs,
}

/// `gannet rollout resume`.
#[derive(Debug, Args)]
pub(crate) struct ResumeArgs {
    #[command(flatten)]
    limits: Limits,
    /// Follow it to its end
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// `gannet rollout pause` and `abort`.
#[derive(Debug, Args)]
pub(crate) struct SteerArgs {
    #[command(flatten)]
    client: ClientArgs,
}

fn parse_max_unavailable(text: &str) -> Result<String, String> {
    gannet_aggregator::rollout::MaxUnavailable::parse(text).map(|parsed| parsed.to_string())
}

impl Limits {
    /// As the server reads them: what was not named is not there.
    fn body(&self) -> Map<String, Json> {
        let mut body = Map::new();
        let mut put = |name: &str, value: Option<Json>| {
            if let Some(value) = value {
                body.insert(name.to_owned(), value);
            }
        };
        put("max_unavailable", self.max_unavailable.as_deref().map(Json::from));
        put("min_completeness", self.min_completeness.map(Json::from));
        put("leaf_seconds_max", self.leaf_timeout.map(|time| Json::from(time.as_secs().max(1))));
        put("to", self.to.as_deref().map(Json::from));
        put("allow_disk", self.allow_disk.then_some(Json::Bool(true)));
        body
    }
}

/// An aggregator that runs rollouts.
#[derive(Debug)]
struct Server {
    client: Client,
    timeout: Duration,
}

impl Server {
    fn new(args: &ClientArgs) -> Result<Server, Failure> {
        Ok(Server { client: args.connect()?, timeout: args.timeout.unwrap_or(TIMEOUT_DEFAULT) })
    }

    async fn show(&self) -> Result<Option<Rollout>, Failure> {
        let body = self.client.get_bytes(&["v1", "rollout"], self.timeout).await?;
        Ok(self.client.decode::<Reply>(&body)?.rollout)
    }

    async fn say(&self, what: &str, body: Map<String, Json>) -> Result<Rollout, Failure> {
        let request = self.client.request(Method::POST, &["v1", "rollout", what]).json(&Json::Object(body));
        let response = self.client.send(request, self.timeout).await?;
        let body = self.client.successful_body(response, self.timeout).await?;
        let reply: Reply = self.client.decode(&body)?;
        reply.rollout.ok_or_else(|| Failure::failed("the server did not say what became of the rollout"))
    }
}

/// Runs `gannet rollout`.
pub(crate) async fn run(command: RolloutCommand) -> Outcome {
    match command {
        RolloutCommand::Start(args) => start(args).await,
        RolloutCommand::Status(args) => status(args).await,
        RolloutCommand::Pause(args) => steer(&args, "pause").await,
        RolloutCommand::Abort(args) => steer(&args, "abort").await,
        RolloutCommand::Resume(args) => resume(args).await,
    }
}

async fn start(args: StartArgs) -> Outcome {
    let server = Server::new(&args.client)?;
    let body = args.limits.body();
    let before = server.show().await?;
    let planned = server.say("start", [body.clone(), trial()].into_iter().flatten().collect()).await?;
    let known = before.filter(|before| before.id == planned.id);
    let mut out = io::stdout().lock();
    screen::plan(&mut out, &planned, known.as_ref())?;
    drop(out);
    if args.dry_run {
        return Ok(Exit::Done);
    }
    let runs = known.is_some_and(|known| known.state == "running");
    if !runs && !args.yes {
        let left = planned.leaves.len() - planned.over();
        let leaves = if left == 1 { "1 leaf".to_owned() } else { format!("{left} leaves") };
        confirm::ask(&format!("Restart {leaves}?"))?;
    }
    let begun = server.say("start", body).await?;
    follow(&server, begun, args.watch).await
}

/// What only tries a start.
fn trial() -> Map<String, Json> {
    match json!({"dry_run": true}) {
        Json::Object(body) => body,
        _ => Map::new(),
    }
}

async fn resume(args: ResumeArgs) -> Outcome {
    let server = Server::new(&args.client)?;
    let begun = server.say("resume", args.limits.body()).await?;
    follow(&server, begun, args.watch).await
}

/// Follows a rollout that was begun, or says how to.
async fn follow(server: &Server, begun: Rollout, watch: bool) -> Outcome {
    if watch {
        return watch::to_the_end(server, EVERY_MIN).await;
    }
    writeln!(io::stdout(), "rollout {} runs; follow it with: gannet rollout status --watch", begun.id)?;
    Ok(Exit::Done)
}

async fn steer(args: &SteerArgs, what: &str) -> Outcome {
    let server = Server::new(&args.client)?;
    let rollout = server.say(what, Map::new()).await?;
    let away: Vec<&str> =
        rollout.leaves.iter().filter(|leaf| leaf.is_in_flight()).map(|leaf| leaf.leaf.as_str()).collect();
    let away = match away.as_slice() {
        [] => String::new(),
        away => format!("; on its way: {}", render::cell_text(&away.join(", "))),
    };
    let next = if what == "pause" { "; go on with: gannet rollout resume" } else { "" };
    writeln!(io::stdout(), "rollout {} is {}{away}{next}", rollout.id, rollout.state)?;
    Ok(Exit::Done)
}

async fn status(args: StatusArgs) -> Outcome {
    let server = Server::new(&args.client)?;
    if args.watch {
        let every = args.every.max(EVERY_MIN);
        return if args.json {
            watch::replies(&server, every).await
        } else {
            watch::to_the_end(&server, every).await
        };
    }
    let body = server.client.get_bytes(&["v1", "rollout"], server.timeout).await?;
    let reply: Reply = server.client.decode(&body)?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    if args.json {
        out.write_all(&body)?;
        writeln!(out)?;
    } else {
        match &reply.rollout {
            Some(rollout) => screen::status(&mut out, rollout, render::style())?,
            None => writeln!(out, "no rollout was ever started through this aggregator")?,
        }
    }
    out.flush()?;
    drop(out);
    match reply.rollout {
        Some(rollout) if rollout.state == "paused" => Err(paused(&rollout)),
        _ => Ok(Exit::Done),
    }
}

/// The end of a command that finds the rollout paused: why, and what to type next.
fn paused(rollout: &Rollout) -> Failure {
    let pause = rollout.pause.clone().unwrap_or_default();
    let next = match pause.guard.as_deref() {
        Some("completeness") => {
            "when answers are more complete: gannet rollout resume; if less will do, add --min-completeness SHARE"
        }
        Some("others_away") => "`gannet status` says why it is away; when it is back: gannet rollout resume",
        Some("not_draining") => "gannet rollout resume tries it again",
        Some("slow" | "not_back") => {
            "its log says what it does; gannet rollout resume waits for it and goes on, gannet rollout abort gives up"
        }
        Some("disk") => {
            "if disk will do: gannet rollout resume --allow-disk; `gannet status` says why it was disk"
        }
        Some("rows_lost") => {
            "`gannet status` says what is lost; gannet rollout resume goes on with the others"
        }
        Some("version") => {
            "install the program, then: gannet rollout resume; or give up: gannet rollout abort"
        }
        _ => "gannet rollout resume",
    };
    let why = render::cell_text(&pause.why);
    Failure::new(Exit::Paused, format!("rollout {} is paused: {why}", rollout.id)).hint(next)
}

/// How a command ends that followed a rollout for as long as it ran.
fn ended(rollout: &Rollout) -> Outcome {
    match rollout.state.as_str() {
        "done" => Ok(Exit::Done),
        "paused" => Err(paused(rollout)),
        _ => Err(Failure::failed(format!("rollout {} is {}", rollout.id, rollout.state))
            .hint("gannet rollout start begins another")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rollout(state: &str, guard: Option<&str>) -> Rollout {
        let pause = (state == "paused").then(|| reply::Pause {
            guard: guard.map(str::to_owned),
            why: "leaf-1 does not drain".to_owned(),
        });
        Rollout { id: "r-1".to_owned(), state: state.to_owned(), pause, ..Rollout::default() }
    }

    #[test]
    fn ends_have_codes() {
        let code = |rollout: Rollout| ended(&rollout).unwrap_or_else(|failure| failure.exit);
        assert_eq!(code(rollout("done", None)), Exit::Done);
        assert_eq!(code(rollout("aborted", None)), Exit::Failed);
        assert_eq!(code(rollout("paused", None)), Exit::Paused);
        assert_eq!(
            ended(&rollout("paused", Some("not_draining"))).unwrap_err().report(),
            "error: rollout r-1 is paused: leaf-1 does not drain\nhint: gannet rollout resume tries it again\n"
        );
    }

    #[test]
    fn what_is_not_named_is_left_to_the_server() {
        let none = Limits {
            max_unavailable: None,
            min_completeness: None,
            leaf_timeout: None,
            to: None,
            allow_disk: false,
        };
        assert!(none.body().is_empty());
        let all = Limits {
            max_unavailable: Some("2%".to_owned()),
            min_completeness: Some(0.5),
            leaf_timeout: Some(Duration::from_secs(90)),
            to: Some("0.2.0".to_owned()),
            allow_disk: true,
        };
        assert_eq!(
            Json::Object(all.body()),
            json!({"max_unavailable": "2%", "min_completeness": 0.5, "leaf_seconds_max": 90, "to": "0.2.0",
                "allow_disk": true})
        );
    }
}
