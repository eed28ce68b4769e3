//! `gannet up`: a whole Gannet on one machine. A supervisor runs leaf processes and an aggregator process of this same
//! program, starts again what dies, and at the end lets every leaf hand its rows over.
//!
//! Invariants: one supervisor for a data directory; the aggregator stops before any leaf, so that no answer is thinner
//! than it says because of a stop; a leaf is killed only when a person insists, because its rows die with it; no process outlives the supervisor without stopping too. Everything runs on the main thread, because the
//! system ties "my parent died" to the thread that started a process.

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::outcome::{Exit, Failure, Outcome};
use crate::serve_aggregator::HttpGuardArgs;
use crate::up::folder::Folder;
use crate::up::guard::HttpGuard;
use crate::up::part::{Ended, Order, Part};
use crate::up::terminal::Terminal;
use crate::{demo, runtime, serve_aggregator, units};

mod banner;
mod folder;
mod guard;
mod log;
mod memory;
mod part;
mod ready;
mod summary;
pub(crate) mod terminal;

/// The aggregator finishes requests and saves its roster in less.
const AGGREGATOR_STOP_MAX: Duration = Duration::from_secs(15);
/// A hand-over has a minute. A leaf that takes longer waits for room in shared memory, or hangs.
const LEAF_STOP_PATIENCE: Duration = Duration::from_secs(75);

/// How often a leaf's socket is tried, and for how long, before the aggregator starts.
const SOCKET_LOOK: Duration = Duration::from_millis(20);
const SOCKETS_MAX: Duration = Duration::from_secs(3);

/// Run everything on this machine: leaves, an aggregator, and somebody who looks after them.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  gannet up --demo
  gannet up --leaves 4 --memory-limit 32GiB --data-dir /var/lib/gannet
  gannet up --http 127.0.0.1:8080

Ctrl-C or SIGTERM stops everything: each leaf leaves its rows behind in shared memory, and the next `gannet up` on the \
same data directory serves them at once. What does not fit into /dev/shm, or was there before a reboot, is read from \
disk, where every acknowledged row is.

A leaf that was told to stop (`gannet rollout start`, `gannet leaf stop`) is started again at once, with the program that \
is installed by then: to upgrade, replace the program and restart the leaves with `gannet rollout start`.

Each part logs into its folder in the data directory; warnings and errors are shown here as well. GANNET_LOG=debug logs \
more.

Beyond this machine HTTP needs TLS and tokens: --http-cert, --http-key and --tokens-file (`gannet token new` makes them); \
--insecure does without, on a network you trust.")]
pub(crate) struct UpArgs {
    /// How many leaf processes to run
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    leaves: u16,
    /// Where everything is kept; made if there is none
    #[arg(long, value_name = "DIR", default_value = "./gannet-data")]
    data_dir: PathBuf,
    /// Where HTTP is served; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7700")]
    http: String,
    #[command(flatten)]
    guard: HttpGuardArgs,
    /// Be open to other machines without encryption and without tokens, on a network you trust
    #[arg(long)]
    insecure: bool,
    /// Fill a table `requests` with a million demo events of the last day, and keep more coming
    #[arg(long)]
    demo: bool,
    /// What the rows of all leaves together may take, such as 32GiB [default: half of the machine's memory]
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size)]
    memory_limit: Option<u64>,
}

/// Runs `gannet up`.
pub(crate) fn run(args: UpArgs) -> Outcome {
    let folder = Folder::lock(&args.data_dir)?;
    let listener = serve_aggregator::bind(&args.http)?;
    let leaves = folder.leaves(usize::from(args.leaves))?;
    let memory_limit = args.memory_limit.unwrap_or_else(memory::default_limit);
    let address =
        listener.local_addr().map_err(|error| Failure::failed(format!("listen for HTTP: {error}")))?;
    let guard = HttpGuard::new(args.guard, args.insecure, address)?;
    runtime::small()?.block_on(async {
        let signals = Signals::listen()?;
        let terminal = Terminal::new();
        if leaves.len() > usize::from(args.leaves) {
            terminal.say(&format!(
                "{} leaves have rows in {}; all of them are started: {}",
                leaves.len(),
                folder.path.display(),
                leaves.join(", ")
            ));
        }
        let gannet = Gannet::start(&folder, &leaves, memory_limit, (listener, &guard), &terminal)?;
        let about = banner::About {
            url: banner::url(address, guard.speaks_tls()),
            guarded: guard.asks(),
            folder: folder.path.clone(),
            leaves: leaves.len(),
            memory_limit,
        };
        gannet.run(signals, &about, &guard, args.demo, &terminal).await
    })
}

/// The signals that stop it.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    fn listen() -> Result<Signals, Failure> {
        let listen =
            |kind| signal(kind).map_err(|error| Failure::failed(format!("listen for signals: {error}")));
        Ok(Signals {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    /// The next request to stop.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}

/// Everything that runs.
struct Gannet {
    aggregator: JoinHandle<Ended>,
    leaves: JoinSet<Ended>,
    aggregator_order: watch::Sender<Order>,
    leaves_order: watch::Sender<Order>,
}

impl Gannet {
    fn start(
        folder: &Folder,
        leaves: &[String],
        memory_limit: u64,
        (listener, guard): (TcpListener, &HttpGuard),
        terminal: &Terminal,
    ) -> Result<Gannet, Failure> {
        let memory_each = memory_limit / leaves.len() as u64;
        if memory_each < 1 << 20 {
            let (limit, count) = (units::bytes(memory_limit), leaves.len());
            return Err(Failure::usage(format!(
                "a memory limit of {limit} for {count} leaves is less than 1 MiB each"
            )));
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let (aggregator_order, aggregator_orders) = watch::channel(Order::Run);
        let (leaves_order, leaves_orders) = watch::channel(Order::Run);
        let program = std::env::current_exe()
            .map_err(|error| Failure::failed(format!("find this program: {error}")))?;
        let mut running = JoinSet::new();
        let sockets = leaves.iter().map(|name| folder.path.join(name).join("leaf.sock")).collect();
        let mut aggregator_args: Vec<String> =
            ["aggregator", "--data-dir", "aggregator", "--http-on-stdin"].map(str::to_owned).to_vec();
        for name in leaves.iter().map(String::as_str).chain(["aggregator"]) {
            folder.make_part(name)?;
        }
        for name in leaves {
            // The path stays short, because the path of a unix socket must be.
            let listen = format!("unix:{name}/leaf.sock");
            aggregator_args.extend(["--child".to_owned(), listen.clone()]);
            let args = ["leaf", "--id", name, "--data-dir", name, "--listen", &listen];
            let limits = [
                "--memory-limit".to_owned(),
                memory_each.to_string(),
                "--scan-threads".to_owned(),
                cores.div_ceil(leaves.len()).to_string(),
            ];
            let leaf = Part {
                name: name.clone(),
                args: args.into_iter().map(str::to_owned).chain(limits).map(Into::into).collect(),
                folder: folder.path.clone(),
                log: folder.path.join(name).join("leaf.log"),
                listener: None,
                program: program.clone(),
            };
            running.spawn(leaf.supervise(leaves_orders.clone(), terminal.clone()));
        }
        let aggregator = Part {
            name: "aggregator".to_owned(),
            args: aggregator_args.into_iter().map(Into::into).chain(guard.args()).collect(),
            folder: folder.path.clone(),
            log: folder.path.join("aggregator").join("aggregator.log"),
            listener: Some(listener),
            program,
        };
        Ok(Gannet {
            aggregator: tokio::spawn(start_after_leaves(
                sockets,
                aggregator,
                aggregator_orders,
                terminal.clone(),
            )),
            leaves: running,
            aggregator_order,
            leaves_order,
        })
    }

    async fn run(
        self,
        mut signals: Signals,
        about: &banner::About,
        guard: &HttpGuard,
        with_demo: bool,
        terminal: &Terminal,
    ) -> Outcome {
        let client = guard.client(&about.url)?;
        let mut demo: Option<JoinHandle<()>> = None;
        tokio::select! {
            () = signals.next() => {}
            readiness = ready::wait(&client, terminal) => {
                terminal.print(&banner::text(about, with_demo, &readiness?));
                if with_demo {
                    demo = Some(tokio::spawn(demo::run(client, terminal.clone())));
                }
                signals.next().await;
            }
        }
        if let Some(demo) = demo {
            demo.abort();
        }
        terminal.progress("");
        self.stop(signals, terminal).await
    }

    async fn stop(mut self, mut signals: Signals, terminal: &Terminal) -> Outcome {
        let leaves = self.leaves.len();
        let what =
            if leaves == 1 { "the leaf hands its".to_owned() } else { format!("{leaves} leaves hand their") };
        terminal.say(&format!("stopping: {what} rows over to shared memory, up to a minute"));
        let mut asked = 0;
        let mut ended = Vec::new();
        self.aggregator_order.send_replace(Order::Stop);
        let mut too_long = std::pin::pin!(tokio::time::sleep(AGGREGATOR_STOP_MAX));
        loop {
            tokio::select! {
                _ = &mut self.aggregator => break,
                () = &mut too_long => { self.aggregator_order.send_replace(Order::Kill); }
                () = signals.next() => insist(&mut asked, &[&self.aggregator_order, &self.leaves_order], terminal),
            }
            if self.aggregator_order.borrow().eq(&Order::Kill) {
                let _ = (&mut self.aggregator).await;
                break;
            }
        }
        self.leaves_order.send_if_modified(|order| {
            let raised = *order < Order::Stop;
            *order = (*order).max(Order::Stop);
            raised
        });
        let late_from = tokio::time::Instant::now() + LEAF_STOP_PATIENCE;
        let mut late = tokio::time::interval_at(late_from, LEAF_STOP_PATIENCE);
        loop {
            tokio::select! {
                leaf = self.leaves.join_next() => match leaf {
                    None => break,
                    Some(Ok(leaf)) => ended.push(leaf),
                    Some(Err(error)) => terminal.say(&format!("a leaf was lost sight of: {error}")),
                },
                _ = late.tick() => terminal.say(&format!(
                    "{} still running and not killed, because rows would be lost; Ctrl-C {} kills",
                    match self.leaves.len() { 1 => "1 leaf is".to_owned(), count => format!("{count} leaves are") },
                    if asked == 0 { "twice" } else { "again" },
                )),
                () = signals.next() => insist(&mut asked, &[&self.leaves_order], terminal),
            }
        }
        Ok(report(ended, leaves, asked, terminal))
    }
}

/// Starts the aggregator when the leaves listen, or soon anyway: asking leaves that are not there yet would only fill
/// the logs. Requests that come before that wait in the queue of the listener.
async fn start_after_leaves(
    sockets: Vec<PathBuf>,
    aggregator: Part,
    mut orders: watch::Receiver<Order>,
    terminal: Terminal,
) -> Ended {
    let listening = async {
        for socket in sockets {
            while tokio::net::UnixStream::connect(&socket).await.is_err() {
                tokio::time::sleep(SOCKET_LOOK).await;
            }
        }
    };
    tokio::select! {
        _ = tokio::time::timeout(SOCKETS_MAX, listening) => {}
        _ = orders.wait_for(|order| *order > Order::Run) => {}
    }
    aggregator.supervise(orders, terminal).await
}

/// The second request to stop is answered, the third kills.
fn insist(asked: &mut u32, orders: &[&watch::Sender<Order>], terminal: &Terminal) {
    *asked += 1;
    if *asked == 1 {
        terminal.say(
            "the hand-over goes on; once more ends everything at once, and the next start reads from disk",
        );
        return;
    }
    for order in orders {
        order.send_replace(Order::Kill);
    }
}

fn report(mut ended: Vec<Ended>, leaves: usize, asked: u32, terminal: &Terminal) -> Exit {
    ended.sort_by(|a, b| (a.name.len(), &a.name).cmp(&(b.name.len(), &b.name)));
    for leaf in &ended {
        terminal.say(&summary::line(leaf));
    }
    let well = ended.len() == leaves && ended.iter().all(summary::is_well);
    match (well, asked) {
        (true, _) => {
            terminal.say("stopped; `gannet up` on the same data directory serves the same rows at once");
            Exit::Done
        }
        (false, 0 | 1) => Exit::Failed,
        (false, _) => Exit::Interrupted,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    #[test]
    fn only_the_third_request_kills() {
        let (order, orders) = watch::channel(Order::Stop);
        let terminal = Terminal::new();
        let mut asked = 0;
        insist(&mut asked, &[&order], &terminal);
        assert_eq!(*orders.borrow(), Order::Stop);
        insist(&mut asked, &[&order], &terminal);
        assert_eq!(*orders.borrow(), Order::Kill);
    }

    #[test]
    fn addresses_that_listen_everywhere_are_asked_at_loopback() {
        let url = |address: &str| banner::url(address.parse::<SocketAddr>().unwrap(), false);
        assert_eq!(url("127.0.0.1:7700"), "http://127.0.0.1:7700");
        assert_eq!(url("0.0.0.0:80"), "http://127.0.0.1:80");
        assert_eq!(url("[::]:7700"), "http://[::1]:7700");
        assert_eq!(url("[::1]:7700"), "http://[::1]:7700");
        assert_eq!(banner::url("0.0.0.0:80".parse().unwrap(), true), "https://127.0.0.1:80");
    }
}
