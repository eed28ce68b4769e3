//! `gannet aggregator`: one aggregator, from flags, environment or a file. Knows its settings and how it is run.

use std::net::TcpListener;
use std::os::fd::AsFd;
use std::path::PathBuf;

use clap::Args;
use gannet_aggregator::RunError;
use gannet_aggregator::config::Config;
use gannet_proto::address::{ChildAddress, Listener};

use crate::gossip_args::GossipArgs;
use crate::outcome::{Exit, Failure, Outcome};
use crate::tls_args::TlsArgs;
use crate::{parent, runtime, settings};

/// Run one aggregator: it turns SQL into plans for its children, and merges what they answer.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  gannet aggregator --data-dir /var/lib/gannet/aggregator --child 10.0.0.7:7710 --child 10.0.0.8:7710
  gannet aggregator --config /etc/gannet/aggregator.toml
  gannet aggregator --http 127.0.0.1:7701 --grpc 10.0.0.5:7720 --child 10.0.0.7:7710
  gannet aggregator --child dns:leaf.gannet.svc:7710
  gannet aggregator --grpc 10.0.0.5:7720 --gossip 10.0.0.5:7709 --cluster-key-file /etc/gannet/cluster.key
  gannet aggregator --grpc 10.0.0.5:7720 --aggregator 10.0.0.6:7720 --child 10.0.0.7:7710,10.0.0.8:7710

A child is a leaf, or another aggregator by its gRPC address. Name every child that must exist: those that cannot be \
reached count as missing in the completeness of answers, never as absent. `dns:HOST:PORT` stands for every address of a name, \
now and later. With --gossip leaves are found by themselves, and no child is named. Aggregators that serve the same leaves \
tell each other which there are: they find each other by gossip, or name each other with --aggregator.

With more than 64 children (children_max), an aggregator gives groups of them to the others that --aggregator names, \
which ask them and merge what they answer; without others it asks them in turns. All aggregators can have the same \
children and the same list of aggregators, and each of them can be asked.

A settings file has the same settings and more; flags and environment win over it:
  data_dir = \"/var/lib/gannet/aggregator\"
  http = \"127.0.0.1:7700\"
  grpc = \"10.0.0.5:7720\"
  children = [\"10.0.0.7:7710\", \"10.0.0.8:7710\"]
  aggregators = [\"10.0.0.6:7720\"]
  query_timeout_ms = 10_000

Beyond this machine HTTP needs TLS and tokens (--http-cert, --http-key, --tokens-file; `gannet token new` makes them), and \
gRPC needs TLS at both ends (--tls-ca, --tls-cert, --tls-key; `gannet cluster certificates` makes them). --insecure does \
without, on a network you trust; `gannet status` says so. Files of tokens and certificates are read again when they change.")]
pub(crate) struct AggregatorArgs {
    /// A TOML file with settings
    #[arg(long, env = "GANNET_AGGREGATOR_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where it keeps the roster of its leaves [default: gannet-data/aggregator]
    #[arg(long, env = "GANNET_AGGREGATOR_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where it serves HTTP [default: 127.0.0.1:7700]
    #[arg(long, env = "GANNET_AGGREGATOR_HTTP", value_name = "ADDR")]
    http: Option<String>,
    /// Where it serves gRPC, to be the child of another aggregator: HOST:PORT or unix:PATH [default: nowhere]
    #[arg(long, env = "GANNET_AGGREGATOR_GRPC", value_name = "ADDR")]
    grpc: Option<String>,
    /// A child: HOST:PORT or unix:PATH; once for each child, or with commas
    #[arg(long = "child", env = "GANNET_AGGREGATOR_CHILDREN", value_name = "ADDR", value_delimiter = ',')]
    children: Vec<String>,
    /// Another aggregator, by its gRPC address: beyond 64 children, it asks a part of them for this one; once for each,
    /// or with commas
    #[arg(
        long = "aggregator",
        env = "GANNET_AGGREGATOR_AGGREGATORS",
        value_name = "ADDR",
        value_delimiter = ','
    )]
    aggregators: Vec<String>,
    #[command(flatten)]
    http_guard: HttpGuardArgs,
    #[command(flatten)]
    tls: TlsArgs,
    /// The SHA-256 of the supervisor's token
    #[arg(long, hide = true, requires = "tokens_file")]
    supervisor_token: Option<String>,
    /// Its id among those that gossip [default: where it gossips]
    #[arg(long, env = "GANNET_AGGREGATOR_ID")]
    id: Option<String>,
    /// Where others reach its gRPC, when that is another address [default: as --grpc]
    #[arg(long, env = "GANNET_AGGREGATOR_ADVERTISE", value_name = "ADDR")]
    advertise: Option<String>,
    #[command(flatten)]
    gossip: GossipArgs,
    /// Standard input is the listening socket for HTTP
    #[arg(long, hide = true)]
    http_on_stdin: bool,
    /// The process that started this one: its end is a stop
    #[arg(long, hide = true)]
    parent_pid: Option<u32>,
}

/// What guards the HTTP door.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct HttpGuardArgs {
    /// The tokens of those who may use HTTP; everybody on this machine may without one
    #[arg(long, env = "GANNET_AGGREGATOR_TOKENS_FILE", value_name = "FILE")]
    pub(crate) tokens_file: Option<PathBuf>,
    /// The certificate that HTTP is served under, PEM
    #[arg(long, env = "GANNET_AGGREGATOR_HTTP_CERT", value_name = "FILE", requires = "http_key")]
    pub(crate) http_cert: Option<PathBuf>,
    /// The key of that certificate, PEM, readable by its owner only
    #[arg(long, env = "GANNET_AGGREGATOR_HTTP_KEY", value_name = "FILE", requires = "http_cert")]
    pub(crate) http_key: Option<PathBuf>,
}

/// Runs `gannet aggregator`.
pub(crate) fn run(args: AggregatorArgs) -> Outcome {
    if let Some(pid) = args.parent_pid {
        parent::follow(pid)?;
    }
    raise_file_limit();
    let http_on_stdin = args.http_on_stdin;
    let config = config(args)?;
    let http = if http_on_stdin { inherited_listener()? } else { bind(&config.http)? };
    runtime::large()?.block_on(async {
        let shutdown = parent::shutdown_signal()?;
        let failed = |what: &str, error: &dyn std::fmt::Display| Failure::failed(format!("{what}: {error}"));
        http.set_nonblocking(true).map_err(|error| failed("listen for HTTP", &error))?;
        let http =
            tokio::net::TcpListener::from_std(http).map_err(|error| failed("listen for HTTP", &error))?;
        let grpc = match &config.grpc {
            Some(text) => {
                let address: ChildAddress =
                    text.parse().map_err(|error| failed("listen for gRPC", &error))?;
                Some(Listener::bind(&address).await.map_err(|error| failed("listen for gRPC", &error))?)
            }
            None => None,
        };
        gannet_aggregator::run(config, http, grpc, shutdown).await.map_err(ended)?;
        Ok(Exit::Done)
    })
}

/// Every connection is an open file, and many systems begin with 1,024.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

fn ended(error: RunError) -> Failure {
    match error {
        RunError::Exposed(exposed) => Failure::usage(exposed.to_string()).hint(exposed.hint()),
        other => Failure::from(anyhow::Error::new(other).context("aggregator")),
    }
}

/// Binds the address that HTTP is served on.
pub(crate) fn bind(address: &str) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).map_err(|error| {
        let failure = Failure::failed(format!("listen for HTTP on {address}: {error}"));
        match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                failure.hint("another program listens there; choose with --http ADDR")
            }
            _ => failure.hint("an address is HOST:PORT, such as 127.0.0.1:7700"),
        }
    })
}

/// The supervisor keeps the port over restarts and hands the socket down, so that nobody is refused in between.
fn inherited_listener() -> Result<TcpListener, Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::usage(format!("standard input is no listening socket: {error}"))
    };
    let socket = std::io::stdin().as_fd().try_clone_to_owned().map_err(|error| failed(&error))?;
    let listener = TcpListener::from(socket);
    listener.local_addr().map_err(|error| failed(&error))?;
    Ok(listener)
}

fn config(args: AggregatorArgs) -> Result<Config, Failure> {
    let mut config: Config = settings::read(args.config.as_deref())?;
    if let Some(data_dir) = args.data_dir {
        config.data_dir = data_dir;
    }
    if let Some(http) = args.http {
        config.http = http;
    }
    if let Some(grpc) = args.grpc {
        config.grpc = Some(grpc);
    }
    if !args.children.is_empty() {
        config.children = args.children;
    }
    if !args.aggregators.is_empty() {
        config.aggregators = args.aggregators;
    }
    let HttpGuardArgs { tokens_file, http_cert, http_key } = args.http_guard;
    config.tokens_file = tokens_file.or(config.tokens_file);
    config.http_cert = http_cert.or(config.http_cert);
    config.http_key = http_key.or(config.http_key);
    config.supervisor_token = args.supervisor_token;
    let files = (&mut config.tls_ca, &mut config.tls_cert, &mut config.tls_key);
    args.tls.set(files, &mut config.tls_name, &mut config.insecure);
    config.id = args.id.or(config.id);
    config.advertise = args.advertise.or(config.advertise);
    args.gossip.set(&mut config.gossip);
    config.checked().map_err(|error| Failure::usage(error.to_string()))?;
    if config.children.is_empty() && config.aggregators.is_empty() && config.gossip.is_none() {
        return Err(Failure::usage("an aggregator without children has nothing to ask").hint(
            "name each with --child ADDR, or find them with --gossip ADDR; `gannet up` starts everything",
        ));
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Aggregator {
        #[command(flatten)]
        args: AggregatorArgs,
    }

    fn config_of(flags: &[&str]) -> Result<Config, Failure> {
        config(Aggregator::try_parse_from([&["aggregator"], flags].concat()).unwrap().args)
    }

    #[test]
    fn children_are_read() {
        let config = config_of(&[
            "--child",
            "a:1,b:2",
            "--child",
            "unix:c.sock",
            "--grpc",
            "a:3",
            "--aggregator",
            "a:3,b:3",
        ])
        .unwrap();
        assert_eq!(config.children, ["a:1", "b:2", "unix:c.sock"]);
        assert_eq!(config.aggregators, ["a:3", "b:3"]);
        assert_eq!(config.grpc.as_deref(), Some("a:3"));
        let none = config_of(&[]).unwrap_err();
        assert_eq!(
            (none.exit, none.message.as_str()),
            (Exit::Usage, "an aggregator without children has nothing to ask")
        );
        assert_eq!(
            config_of(&["--child", "a:1", "--child", "a:1"]).unwrap_err().message,
            "child `a:1` is named twice"
        );
    }

    #[test]
    fn a_port_in_use_is_named() {
        let taken = bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        assert_eq!(
            bind(&address).unwrap_err().message,
            format!("listen for HTTP on {address}: Address already in use (os error 98)")
        );
    }
}
