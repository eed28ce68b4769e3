//! Leaves and aggregators in one process. They speak gRPC over unix sockets in a directory of their own, so every plan
//! and every partial goes through its wire bytes; questions come in over HTTP on a port the system chose.
//!
//! A cluster takes its sockets, its directories and its segments with it when it is dropped.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gannet_leaf::Leaf;
use gannet_proto::address::{ChildAddress, Listener};
use serde_json::Value as Json;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::http::Client;
use crate::segments;
use crate::wait::until;

/// How long anything in one process may take before a test gives up.
const SECONDS_MAX: u64 = 60;
/// How often the directory of a dropped cluster is tried to be removed.
const DIRECTORY_ATTEMPTS_MAX: usize = 100;

/// A server that runs until it is told to stop.
#[derive(Debug)]
struct Server {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), String>>,
}

impl Server {
    fn spawn<F>(run: impl FnOnce(oneshot::Receiver<()>) -> F) -> Server
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let (stop, stopping) = oneshot::channel();
        Server { stop, task: tokio::spawn(run(stopping)) }
    }

    async fn stop(self) -> Result<(), String> {
        let _ = self.stop.send(());
        self.task.await.map_err(|error| format!("a server ended early: {error}"))?
    }
}

/// Resolves when told to stop, and never because the test is over: a dropped cluster is a killed one.
async fn told(stopping: oneshot::Receiver<()>) {
    if stopping.await.is_err() {
        std::future::pending::<()>().await;
    }
}

struct LeafSlot {
    config: gannet_leaf::Config,
    running: Option<(Arc<Leaf>, Server)>,
}

struct AggregatorSlot {
    config: gannet_aggregator::Config,
    client: Client,
    server: Server,
}

/// What a cluster is made of.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Leaves.
    pub leaves: usize,
    /// An aggregator between the root and the leaves.
    pub intermediate: bool,
}

/// Changes of settings, for stories that need them.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Of each leaf.
    pub leaf: fn(&mut gannet_leaf::Config),
    /// Of each aggregator.
    pub aggregator: fn(&mut gannet_aggregator::Config),
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { leaf: |_| {}, aggregator: |_| {} }
    }
}

/// Leaves below a root aggregator.
pub struct Cluster {
    leaves: Vec<LeafSlot>,
    intermediate: Option<AggregatorSlot>,
    /// Aggregators that ask groups of leaves for the root.
    between: Vec<Option<AggregatorSlot>>,
    root: Option<AggregatorSlot>,
    settings: Settings,
    directory: TempDir,
}

impl Cluster {
    /// Starts a cluster with the settings of tests.
    ///
    /// # Panics
    /// When a part does not start.
    pub async fn start(shape: Shape) -> Cluster {
        Cluster::start_with(shape, Settings::default()).await
    }

    /// Starts a cluster with settings of its own.
    ///
    /// # Panics
    /// When a part does not start.
    pub async fn start_with(shape: Shape, settings: Settings) -> Cluster {
        let directory = TempDir::with_prefix("gannet-").unwrap();
        let mut cluster = Cluster {
            leaves: Vec::new(),
            intermediate: None,
            between: Vec::new(),
            root: None,
            settings,
            directory,
        };
        for index in 0..shape.leaves {
            let config = cluster.leaf_config(index);
            cluster.leaves.push(LeafSlot { config, running: None });
            cluster.start_leaf(index).await;
        }
        let mut children: Vec<String> =
            cluster.leaves.iter().map(|slot| slot.config.listen.clone()).collect();
        if shape.intermediate {
            let grpc = format!("unix:{}", cluster.path("intermediate.sock").display());
            let intermediate = cluster.start_aggregator("intermediate", children, Some(grpc.clone())).await;
            cluster.intermediate = Some(intermediate);
            children = vec![grpc];
        }
        cluster.root = Some(cluster.start_aggregator("root", children, None).await);
        cluster
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn leaf_config(&self, index: usize) -> gannet_leaf::Config {
        let id = format!("leaf-{index}");
        let mut config = gannet_leaf::Config {
            data_dir: self.path(&id),
            listen: format!("unix:{}", self.path(&format!("{id}.sock")).display()),
            id,
            scan_threads: 2,
            // Open rows stay open unless a test says otherwise.
            seal_age_seconds: 3600,
            // Generated rows are as old as they are.
            retention_seconds: 0,
            // Rows are where a crash takes them, unless a test says otherwise.
            seal_into_shm: false,
            ..Default::default()
        };
        (self.settings.leaf)(&mut config);
        config
    }

    async fn start_aggregator(
        &self,
        name: &str,
        children: Vec<String>,
        grpc: Option<String>,
    ) -> AggregatorSlot {
        let mut config = gannet_aggregator::Config {
            data_dir: self.path(name),
            children,
            grpc,
            // A test should not wait for the calm of a real cluster.
            describe_interval_ms: 50,
            probe_interval_ms: 50,
            roster_save_ms: 20,
            planning_threads: 1,
            ..Default::default()
        };
        (self.settings.aggregator)(&mut config);
        run_aggregator(config).await
    }

    /// A user of the root.
    pub fn client(&self) -> &Client {
        &self.root.as_ref().expect("a started cluster has a root").client
    }

    /// How many leaves there are, running or not.
    pub fn leaf_count(&self) -> usize {
        self.leaves.len()
    }

    /// The directory of a leaf.
    pub fn leaf_directory(&self, index: usize) -> &Path {
        &self.leaves[index].config.data_dir
    }

    /// The settings a leaf has, or will have at its next start.
    pub fn leaf_settings(&mut self, index: usize) -> &mut gannet_leaf::Config {
        &mut self.leaves[index].config
    }

    /// A running leaf.
    ///
    /// # Panics
    /// When it is stopped.
    pub fn leaf(&self, index: usize) -> &Arc<Leaf> {
        &self.leaves[index].running.as_ref().unwrap_or_else(|| panic!("leaf {index} is stopped")).0
    }

    /// Starts a leaf that is stopped.
    ///
    /// # Errors
    /// Why it did not start.
    pub async fn try_start_leaf(&mut self, index: usize) -> Result<(), String> {
        let config = self.leaves[index].config.clone();
        let address: ChildAddress = config.listen.parse().map_err(|error| format!("{error}"))?;
        let leaf = tokio::task::spawn_blocking(move || Leaf::start(config)).await.unwrap();
        let leaf = leaf.map_err(|error| error.to_string())?;
        let listener = Listener::bind(&address).await.map_err(|error| error.to_string())?;
        let served = Arc::clone(&leaf);
        let server = Server::spawn(|stopping| async move {
            gannet_leaf::service::serve(served, listener, told(stopping))
                .await
                .map_err(|error| error.to_string())
        });
        self.leaves[index].running = Some((leaf, server));
        Ok(())
    }

    /// Starts a leaf that is stopped.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start_leaf(&mut self, index: usize) {
        self.try_start_leaf(index).await.unwrap_or_else(|error| panic!("leaf {index}: {error}"));
    }

    /// Stops a leaf with hand-over, as SIGTERM does.
    ///
    /// # Panics
    /// When it does not hand over.
    pub async fn stop_leaf(&mut self, index: usize) {
        let (leaf, server) =
            self.leaves[index].running.take().unwrap_or_else(|| panic!("leaf {index} is stopped"));
        server.stop().await.unwrap_or_else(|error| panic!("leaf {index}: {error}"));
        // The directory is free when the last of the leaf is gone.
        until(SECONDS_MAX, "the leaf to be gone", || async { (Arc::strong_count(&leaf) == 1).then_some(()) })
            .await;
    }

    /// Ends a leaf without a word, as a crash does.
    ///
    /// # Panics
    /// When it is stopped.
    pub async fn kill_leaf(&mut self, index: usize) {
        let (leaf, server) =
            self.leaves[index].running.take().unwrap_or_else(|| panic!("leaf {index} is stopped"));
        server.task.abort();
        until(SECONDS_MAX, "the leaf to be gone", || async { (Arc::strong_count(&leaf) == 1).then_some(()) })
            .await;
    }

    /// Stops the root and starts it again on the same directory: what it knows is what its roster kept.
    ///
    /// # Panics
    /// When it does not.
    pub async fn restart_root(&mut self) {
        let root = self.root.take().expect("a started cluster has a root");
        root.server.stop().await.unwrap_or_else(|error| panic!("root: {error}"));
        self.root = Some(run_aggregator(root.config).await);
    }

    /// Starts aggregators without children of their own; the root, which is started anew, has them ask groups of its
    /// leaves when they are more than so many.
    ///
    /// # Panics
    /// When one does not start.
    pub async fn put_between(&mut self, aggregators: usize, children_max: usize) {
        let mut addresses = Vec::new();
        for _ in 0..aggregators {
            let name = format!("between-{}", self.between.len());
            let grpc = format!("unix:{}", self.path(&format!("{name}.sock")).display());
            let slot = self.start_aggregator(&name, Vec::new(), Some(grpc.clone())).await;
            self.between.push(Some(slot));
            addresses.push(grpc);
        }
        let root = self.root.as_mut().expect("a started cluster has a root");
        (root.config.aggregators, root.config.children_max) = (addresses, children_max);
        self.restart_root().await;
    }

    /// Ends an aggregator in between without a word.
    ///
    /// # Panics
    /// When it is gone already.
    pub async fn kill_between(&mut self, number: usize) {
        let slot = self.between[number].take().expect("an aggregator is killed once");
        slot.server.task.abort();
    }

    /// Posts events to one leaf, through an aggregator that has no other.
    ///
    /// # Panics
    /// When an event is not taken.
    pub async fn feed(&self, leaf: usize, batches: &[(String, String)]) {
        let directory = format!("feeder-{leaf}");
        let feeder =
            self.start_aggregator(&directory, vec![self.leaves[leaf].config.listen.clone()], None).await;
        for (table, ndjson) in batches {
            feeder.client.ingest(table, ndjson).await;
        }
        feeder.server.stop().await.unwrap_or_else(|error| panic!("feeder: {error}"));
    }

    /// Seals all open rows of all leaves, whose settings say that rows are sealed at any age.
    ///
    /// # Panics
    /// When rows stay open.
    pub async fn seal(&self, tables: &[&str]) {
        for slot in &self.leaves {
            let Some((leaf, _)) = &slot.running else { continue };
            assert_eq!(slot.config.seal_age_seconds, 0, "open rows of this cluster stay open");
            let leaf = Arc::clone(leaf);
            tokio::task::spawn_blocking(move || leaf.maintain()).await.unwrap();
        }
        for table in tables {
            // Sealing goes on in the background; a question tells how many row blocks it met.
            until(SECONDS_MAX, "rows to be sealed", || async {
                let stats = self.client().answer(&format!("SELECT count(time) FROM \"{table}\"")).await.stats;
                let blocks = |name: &str| stats[name].as_u64().unwrap_or_default();
                (blocks("blocks_scanned") + blocks("blocks_pruned") >= self.leaves.len() as u64).then_some(())
            })
            .await;
        }
    }

    /// Waits until the root knows of this many rows of each table.
    ///
    /// # Panics
    /// When it never does.
    pub async fn wait_for_rows(&self, tables: &[(&str, u64)]) {
        let expected: Vec<(String, u64)> = {
            let mut expected: Vec<_> =
                tables.iter().map(|(name, rows)| ((*name).to_owned(), *rows)).collect();
            expected.sort();
            expected
        };
        until(SECONDS_MAX, "the root to know its tables", || async {
            let shown = self.client().query("SHOW TABLES").await.ok()?;
            let mut found: Vec<(String, u64)> = shown
                .rows
                .iter()
                .map(|row| {
                    (row[0].as_str().unwrap_or_default().to_owned(), row[1].as_u64().unwrap_or_default())
                })
                .collect();
            found.sort();
            (found == expected).then_some(())
        })
        .await;
    }

    /// What the root says of its leaves.
    pub async fn status(&self) -> Json {
        self.client().get("/v1/status").await.json()
    }
}

async fn run_aggregator(config: gannet_aggregator::Config) -> AggregatorSlot {
    let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::new(&format!("http://{}", http.local_addr().unwrap()));
    let grpc = match &config.grpc {
        Some(address) => Some(Listener::bind(&address.parse().unwrap()).await.unwrap()),
        None => None,
    };
    let settings = config.clone();
    let server = Server::spawn(|stopping| async move {
        gannet_aggregator::run(settings, http, grpc, told(stopping)).await.map_err(|error| error.to_string())
    });
    let slot = AggregatorSlot { config, client, server };
    until(SECONDS_MAX, "an aggregator to be up", || async {
        assert!(!slot.server.task.is_finished(), "an aggregator ended at its start");
        slot.client.try_get("/healthz").await.filter(|reply| reply.status == 200)
    })
    .await;
    slot
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let leaves = self.leaves.iter().filter_map(|slot| slot.running.as_ref().map(|(_, server)| server));
        let between = self.between.iter().flatten();
        let aggregators = self.intermediate.iter().chain(between).chain(&self.root).map(|slot| &slot.server);
        leaves.chain(aggregators).for_each(|server| server.task.abort());
        for slot in &self.leaves {
            segments::remove(&slot.config.data_dir);
        }
        // What was just told to end may still write a file, and then a directory is not empty.
        for _ in 0..DIRECTORY_ATTEMPTS_MAX {
            let removed = std::fs::remove_dir_all(self.directory.path());
            if removed.is_ok() || !self.directory.path().exists() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}
