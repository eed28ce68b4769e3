//! What a fan-out costs: milliseconds over the slowest child, for one to thousands of children, with and without
//! aggregators that stand between.
//!
//! Goals: what an aggregator adds to eight real leaves; how the cost grows with the number of children in one and in two
//! levels, through real aggregators and real connections, when all children answer at the same moment and when they
//! differ. Children only wait and answer ([`children`]), but they run on this machine too, as do all aggregators: on
//! machines of their own each would have its own processors. Not a goal: networks.
//!
//! `cargo bench -p gannet-benches --bench fan_out [-- [CHILDREN] [--plot FILE]]`

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gannet_aggregator::{Aggregator, Config};
use gannet_benches::measure::Arguments;
use gannet_query::{Body, Finish, Wanted};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::children::{Children, Delays, GROUPS, ROWS};

mod children;
mod leaves;
mod plot;

/// As the servers have it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Children that an aggregator asks at once.
const FAN_OUT: usize = 64;
const COUNTS: [usize; 9] = [1, 8, 32, 64, 128, 256, 1_000, 2_048, 4_096];
/// Aggregators that stand between, at most.
const BETWEEN_MAX: usize = 64;

/// What one arrangement costs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    pub(crate) children: usize,
    /// Over the slowest child, milliseconds.
    pub(crate) over_ms: f64,
    /// Processor time of all aggregators, microseconds a child.
    cpu_us: f64,
    /// Processor time of the children, microseconds each.
    children_cpu_us: f64,
}

fn main() {
    let arguments = Arguments::of_process();
    raise_file_limit();
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    let runtime = runtime.expect("threads can be started");
    let (runs, counts) = match arguments.measured {
        true => (9, COUNTS.to_vec()),
        false => (1, vec![1, 8]),
    };
    let counts = arguments.rows.map_or(counts, |children| vec![children]);
    runtime.block_on(children::serve_if_asked());
    // As a task: what runs beside the workers would wake one of them for every word with a child, and be woken.
    let measured = runtime.block_on(runtime.spawn(measure_all(runs, counts, arguments)));
    let lines = measured.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
    if let Some(file) = plot_file() {
        let machine = format!(
            "{GROUPS} groups; {threads} processors for everything: children, aggregators, root; \
             two levels from {} children on",
            FAN_OUT + 1
        );
        std::fs::write(&file, plot::svg(&lines, &machine)).expect("the plot can be written");
        println!("\nwritten: {}", file.display());
    }
}

async fn measure_all(runs: usize, counts: Vec<usize>, arguments: Arguments) -> Vec<(String, Vec<Measured>)> {
    if arguments.rows.is_none() {
        leaves::measure(if arguments.measured { 250_000 } else { 1_000 }, 4 * runs).await;
    }
    let mut lines = Vec::new();
    let spread = Delays { least_ms: 10, most_ms: 100 };
    let together = Delays { least_ms: 50, most_ms: 50 };
    for (delays, when) in [(spread, "10 to 100 ms"), (together, "50 ms, all at once")] {
        println!("\nchildren that answer after {when}: milliseconds over the slowest, median of {runs};");
        println!("processor time in microseconds a child");
        println!(
            "{:>8} {:>7} {:>9} {:>12} {:>12}",
            "children", "levels", "ms over", "aggregators", "children"
        );
        for (levels, name) in [(1, "one level"), (2, "two levels")] {
            let mut line = Vec::new();
            for children in counts.iter().copied().filter(|children| levels == 1 || *children > FAN_OUT) {
                let measured = measure(children, levels, delays, runs).await;
                let Measured { over_ms, cpu_us, children_cpu_us, .. } = measured;
                println!("{children:>8} {levels:>7} {over_ms:>9.2} {cpu_us:>12.1} {children_cpu_us:>12.1}");
                line.push(measured);
            }
            lines.push((format!("{name}, {when}"), line));
        }
    }
    lines
}

/// What comes after `--plot`, from where the workspace is.
fn plot_file() -> Option<PathBuf> {
    let mut words = std::env::args().skip_while(|word| word != "--plot");
    let file = words.nth(1)?;
    Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file))
}

pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

async fn measure(count: usize, levels: usize, delays: Delays, runs: usize) -> Measured {
    let folder = tempfile::tempdir().expect("a folder for rosters");
    let (children, addresses) = Children::start(count, delays);
    let mut between = Vec::new();
    if levels == 2 {
        for number in 0..count.isqrt().clamp(count.div_ceil(FAN_OUT), BETWEEN_MAX) {
            between.push(Between::start(folder.path(), number).await);
        }
    }
    let config = Config {
        data_dir: folder.path().join("root"),
        children: addresses,
        children_max: if levels == 2 { FAN_OUT } else { count },
        aggregators: between.iter().map(|one| one.address.clone()).collect(),
        describe_timeout_ms: 60_000,
        ..quiet()
    };
    let root = Aggregator::start(config).await.expect("an aggregator starts in an empty folder");
    // The first two connect to everybody.
    for _ in 0..2 {
        ask(&root, count).await;
    }
    let (here, there) = (cpu_time("self"), cpu_time(&children.process_id().to_string()));
    let mut over = Vec::with_capacity(runs);
    for _ in 0..runs {
        over.push(ask(&root, count).await);
    }
    let a_child =
        |before: Duration, now: Duration| (now - before).as_secs_f64() * 1e6 / (runs * count) as f64;
    let cpu_us = a_child(here, cpu_time("self"));
    let children_cpu_us = a_child(there, cpu_time(&children.process_id().to_string()));
    for one in between {
        // It may have ended by itself, when the process is about to.
        let _ = one.stop.send(());
    }
    Measured { children: count, over_ms: median(&over), cpu_us, children_cpu_us }
}

/// Milliseconds that an answer took longer than the slowest child.
async fn ask(root: &Aggregator, count: usize) -> f64 {
    let begun = Instant::now();
    let deadline = begun + Duration::from_secs(60);
    let answer = root.gather(&children::plan(), &Wanted::default(), deadline.into(), "bench", None).await;
    let took = begun.elapsed();
    let answer = answer.unwrap_or_else(|error| panic!("the fan-out failed: {error:?}"));
    let record = &answer.completeness;
    let first_missing = record.missing.first();
    assert_eq!((record.ratio(), record.leaves_answered()), (Some(1.0), count as u64), "{first_missing:?}");
    let Body::Groups(groups) = &answer.body else { panic!("rows for a plan of groups") };
    let counts = groups.states[0].finish(&Finish::Count, &arrow::datatypes::DataType::Null);
    let counts = counts.expect("counts can be finished");
    let sum =
        arrow::compute::sum(arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(&counts));
    assert_eq!((groups.group_count, sum), (GROUPS, Some((count * GROUPS * ROWS) as i64)));
    took.saturating_sub(Duration::from_micros(answer.stats.scan_us_max)).as_secs_f64() * 1e3
}

/// Settings without background work that would be measured as well.
fn quiet() -> Config {
    Config {
        describe_interval_ms: 3_600_000,
        probe_interval_ms: 3_600_000,
        roster_save_ms: 3_600_000,
        planning_threads: 1,
        // A machine that is busy with thousands of processes' work is no reason to ask anybody else.
        child_silence_ms_max: 60_000,
        ..Config::default()
    }
}

/// An aggregator without children of its own, served.
struct Between {
    address: String,
    stop: oneshot::Sender<()>,
}

impl Between {
    async fn start(folder: &Path, number: usize) -> Between {
        let address = format!("unix:{}", folder.join(format!("between-{number}.sock")).display());
        let grpc =
            gannet_proto::address::Listener::bind(&address.parse().expect("a path is an address")).await;
        let grpc = grpc.expect("nobody listens in a new folder");
        let http = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let data_dir = folder.join(format!("between-{number}"));
        let config = Config { data_dir, grpc: Some(address.clone()), ..quiet() };
        let (stop, stopped) = oneshot::channel();
        tokio::spawn(gannet_aggregator::run(config, http, Some(grpc), async {
            // An error means that nobody waits for it any more, which is a stop as well.
            let _ = stopped.await;
        }));
        Between { address, stop }
    }
}

/// Processor time of a process.
fn cpu_time(process: &str) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // After the name, which may have spaces: the 12th and 13th word, in hundredths of a second.
    let words = text.rsplit_once(')').map_or("", |(_, words)| words);
    let ticks = words.split_whitespace().skip(11).take(2).filter_map(|word| word.parse::<u64>().ok());
    Duration::from_millis(10 * ticks.sum::<u64>())
}

/// Thousands of connections take as many descriptors.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
        .expect("up to the maximum it may be raised");
}
