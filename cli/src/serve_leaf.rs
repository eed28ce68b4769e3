//! `gannet leaf`: one leaf, from flags, environment or a file. Knows the leaf's settings and how it is run, no more.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use gannet_leaf::Config;

use crate::client::ClientArgs;
use crate::decommission::{self, DecommissionArgs, RecommissionArgs};
use crate::gossip_args::GossipArgs;
use crate::leaf_list::{self, LeafListArgs};
use crate::leaf_orders::{self, OrderArgs, StopArgs};
use crate::outcome::{Exit, Failure, Outcome};
use crate::tls_args::TlsArgs;
use crate::{accept_loss, machine, parent, runtime, settings, units};

/// Run one leaf: it holds rows in memory and scans them.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_long_help = "\
Examples:
  gannet leaf --id leaf-7 --data-dir /var/lib/gannet/leaf-7 --listen 10.0.0.7:7710 --memory-limit 48GiB
  gannet leaf --config /etc/gannet/leaf.toml
  gannet leaf --id leaf-7 --listen 10.0.0.7:7710 --gossip 10.0.0.7:7709 --gossip-seed 10.0.0.5:7709 --cluster-key-file key
  gannet leaf list
  gannet leaf drain leaf-7
  gannet leaf accept-loss leaf-7
  gannet leaf decommission leaf-7

A settings file has the same settings and more, with units in their names; flags and environment win over it:
  id = \"leaf-7\"
  data_dir = \"/var/lib/gannet/leaf-7\"
  listen = \"10.0.0.7:7710\"
  memory_limit_bytes = 51_539_607_552
  retention_seconds = 604_800          # 7 days; 0 keeps rows until memory is full
  seal_age_seconds = 300
  scan_threads = 0                     # one for each core
  [gossip]
  listen = \"10.0.0.7:7709\"
  seeds = [\"10.0.0.5:7709\"]
  key_file = \"/etc/gannet/cluster.key\"
  [tables.requests]
  retention_seconds = 86_400
  table_bytes_max = 10_737_418_240

SIGTERM or Ctrl-C stops it: the rows stay behind in shared memory, and the next start with the same id and data \
directory serves them at once. The id must not change over restarts.

Beyond this machine gRPC needs TLS at both ends: --tls-ca, --tls-cert and --tls-key. `gannet cluster certificates` makes \
them. Who has no certificate of that authority is refused; --insecure does without, on a network you trust."
)]
pub(crate) struct LeafArgs {
    #[command(subcommand)]
    command: Option<LeafCommand>,
    /// A TOML file with settings
    #[arg(long, env = "GANNET_LEAF_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Its id, which must not change over restarts [default: leaf-0]
    #[arg(long, env = "GANNET_LEAF_ID")]
    id: Option<String>,
    /// Where its manifest and lock live [default: gannet-data/leaf-0]
    #[arg(long, env = "GANNET_LEAF_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where it serves gRPC: HOST:PORT or unix:PATH [default: 127.0.0.1:7710]
    #[arg(long, env = "GANNET_LEAF_LISTEN", value_name = "ADDR")]
    listen: Option<String>,
    #[command(flatten)]
    tls: TlsArgs,
    /// Where other members reach it, when that is another address [default: where it listens]
    #[arg(long, env = "GANNET_LEAF_ADVERTISE", value_name = "ADDR")]
    advertise: Option<String>,
    #[command(flatten)]
    gossip: GossipArgs,
    /// What its rows may take, such as 48GiB; beyond it the oldest expire [default: 4GiB]
    #[arg(long, env = "GANNET_LEAF_MEMORY_LIMIT", value_name = "SIZE", value_parser = units::parse_size)]
    memory_limit: Option<u64>,
    /// Threads that scan; 0 means one for each core [default: 0]
    #[arg(long, env = "GANNET_LEAF_SCAN_THREADS", value_name = "N")]
    scan_threads: Option<usize>,
    /// Rows older than this expire, such as 7d; 0 keeps them until memory is needed [default: 0]
    #[arg(long, env = "GANNET_LEAF_RETENTION", value_name = "TIME", value_parser = units::parse_duration)]
    retention: Option<Duration>,
    /// What one table may take, such as 10GiB; 0 means no limit of its own [default: 0]
    #[arg(long, env = "GANNET_LEAF_TABLE_LIMIT", value_name = "SIZE", value_parser = units::parse_size)]
    table_limit: Option<u64>,
    /// What the machine is called: a rolling restart stops one leaf of a machine at a time [default: from /etc/machine-id,
    /// else the name of the host]
    #[arg(long, env = "GANNET_LEAF_MACHINE", value_name = "NAME")]
    machine: Option<String>,
    /// The process that started this one: its end is a stop
    #[arg(long, hide = true)]
    parent_pid: Option<u32>,
}

#[derive(Debug, Subcommand)]
enum LeafCommand {
    /// List the leaves: where they are, which version they run, what they took
    #[command(after_long_help = "\
Example:
  gannet leaf list

`taken` are the rows that a leaf took since it started. How the leaves are doing is `gannet status`.")]
    List(LeafListArgs),
    /// Take a leaf that is gone out of the roster for good: its rows no longer count as missing
    #[command(after_long_help = "\
Examples:
  gannet leaf decommission leaf-2
  gannet leaf decommission leaf-2 --yes

Answers count the rows of every leaf that was ever there, up or not. This takes one out, on all aggregators that serve \
the same leaves. It stays out whatever it says and however often it starts, until `gannet leaf recommission`; a new leaf \
takes a new id. A leaf that is up is not taken out unless with --force: its rows would be in no answer any more.
A leaf that began anew in another place without its files counts as an older start of the one that is gone, and its rows \
are in no answer, until it is taken out by force and back in.")]
    Decommission(DecommissionArgs),
    /// Take a leaf back into the roster
    Recommission(RecommissionArgs),
    /// Accept that rows of a leaf are gone for good, so that they no longer count as missing
    #[command(after_long_help = "\
Example:
  gannet leaf accept-loss leaf-2

A leaf that came back without its rows, or that will never come back, keeps answers below 100 %, because those rows were \
acknowledged once. After this, completeness counts what is there. It cannot be undone.")]
    AcceptLoss {
        /// The leaf's id
        leaf: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Have a leaf take no new rows; it answers queries as before
    #[command(after_long_help = "\
Examples:
  gannet leaf drain leaf-2
  gannet leaf drain leaf-2 --dry-run

Batches go to other leaves; a batch that must meet this leaf again is told to come back. Nothing is stopped: that is \
`gannet leaf stop`. It lasts until `gannet leaf undrain`, or until the leaf starts again.")]
    Drain(OrderArgs),
    /// Have a leaf that drains take rows again
    Undrain(OrderArgs),
    /// Have a leaf hand its rows over to shared memory and end
    #[command(after_long_help = "\
Examples:
  gannet leaf stop leaf-2
  gannet leaf stop leaf-2 --yes

Whoever runs the leaf starts it again: `gannet up`, systemd with Restart=always, Kubernetes. To keep it stopped, stop it \
there. All leaves one after the other: `gannet rollout start`.")]
    Stop(StopArgs),
}

/// Runs `gannet leaf`.
pub(crate) fn run(args: LeafArgs) -> Outcome {
    match args.command {
        Some(LeafCommand::AcceptLoss { leaf, client }) => {
            return runtime::small()?.block_on(accept_loss::run(&leaf, client));
        }
        Some(LeafCommand::Decommission(args)) => {
            return runtime::small()?.block_on(decommission::run(args));
        }
        Some(LeafCommand::Recommission(args)) => {
            return runtime::small()?.block_on(decommission::undo(args));
        }
        Some(LeafCommand::List(list)) => return runtime::small()?.block_on(leaf_list::run(list)),
        Some(LeafCommand::Drain(order)) => return runtime::small()?.block_on(leaf_orders::drain(order)),
        Some(LeafCommand::Undrain(order)) => return runtime::small()?.block_on(leaf_orders::undrain(order)),
        Some(LeafCommand::Stop(stop)) => return runtime::small()?.block_on(leaf_orders::stop(stop)),
        None => {}
    }
    if let Some(pid) = args.parent_pid {
        parent::follow(pid)?;
    }
    let config = config(args)?;
    // Nothing that trying again would change.
    gannet_leaf::service::check_way_in(&config).map_err(|error| Failure::usage(error.to_string()))?;
    let id = config.id.clone();
    runtime::large()?.block_on(async {
        let shutdown = parent::shutdown_signal()?;
        gannet_leaf::run(config, shutdown)
            .await
            .map_err(|error| Failure::from(anyhow::Error::new(error).context(format!("leaf {id}"))))?;
        Ok(Exit::Done)
    })
}

fn config(args: LeafArgs) -> Result<Config, Failure> {
    let mut config: Config = settings::read(args.config.as_deref())?;
    if let Some(id) = args.id {
        config.id = id;
    }
    if let Some(data_dir) = args.data_dir {
        config.data_dir = data_dir;
    }
    if let Some(listen) = args.listen {
        config.listen = listen;
    }
    let files = (&mut config.tls_ca, &mut config.tls_cert, &mut config.tls_key);
    args.tls.set(files, &mut config.tls_name, &mut config.insecure);
    if let Some(advertise) = args.advertise {
        config.advertise = Some(advertise);
    }
    args.gossip.set(&mut config.gossip);
    if let Some(bytes) = args.memory_limit {
        config.memory_limit_bytes = bytes;
    }
    if let Some(threads) = args.scan_threads {
        config.scan_threads = threads;
    }
    if let Some(retention) = args.retention {
        config.retention_seconds = retention.as_secs();
    }
    if let Some(bytes) = args.table_limit {
        config.table_bytes_max = bytes;
    }
    if let Some(machine) = args.machine {
        config.machine = machine;
    }
    if config.machine.is_empty() {
        config.machine = machine::name();
    }
    config.check().map_err(|error| Failure::usage(error.to_string()))?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Leaf {
        #[command(flatten)]
        args: LeafArgs,
    }

    fn config_of(flags: &[&str]) -> Result<Config, Failure> {
        config(Leaf::try_parse_from([&["leaf"], flags].concat()).unwrap().args)
    }

    #[test]
    fn flags_win_over_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("leaf.toml");
        std::fs::write(&path, "id = \"from-file\"\nscan_threads = 3\n[tables.t]\nretention_seconds = 5\n")
            .unwrap();
        let flags = ["--config", path.to_str().unwrap(), "--id", "from-flag", "--memory-limit", "2MiB"];
        let config = config_of(&flags).unwrap();
        assert_eq!(
            (config.id.as_str(), config.scan_threads, config.memory_limit_bytes),
            ("from-flag", 3, 2 << 20)
        );
        assert_eq!(config.retention_seconds_of("t"), 5);
        assert_eq!(config_of(&["--retention", "2h"]).unwrap().retention_seconds, 7200);
    }

    #[test]
    fn settings_that_cannot_be_are_wrong_usage() {
        let failure = config_of(&["--memory-limit", "1"]).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert_eq!(failure.message, "setting memory_limit_bytes is 1, must be at least 1048576");
    }
}
