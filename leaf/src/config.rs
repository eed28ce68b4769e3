//! Every setting and every limit of a leaf, with units in their names.

use std::collections::BTreeMap;
use std::path::PathBuf;

use gannet_proto::gossip::GossipConfig;
use serde::Deserialize;

use crate::row_block::Preference;
use crate::wal::Durability;

/// A leaf's settings. `Default` is a sound leaf for a laptop; `gannet leaf --config FILE` reads this as TOML.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The leaf's id, which must not change over restarts.
    pub id: String,
    /// Where the manifest and the lock live.
    pub data_dir: PathBuf,
    /// Where gRPC listens: `host:port` or `unix:PATH`.
    pub listen: String,
    /// The machine it runs on: a rolling restart stops one leaf of a machine at a time. Empty when nobody said, and then
    /// the host of its address counts.
    pub machine: String,
    /// The certificates of the cluster's authority, PEM; who connects must show one that it signed.
    pub tls_ca: Option<PathBuf>,
    /// The leaf's own certificate for the host of its address, PEM.
    pub tls_cert: Option<PathBuf>,
    /// The key of that certificate, PEM.
    pub tls_key: Option<PathBuf>,
    /// The name that certificates of others must be for, instead of the host of their address: where addresses change,
    /// every certificate has one name beside its own.
    pub tls_name: Option<String>,
    /// Listens beyond this machine without TLS.
    pub insecure: bool,
    /// Where other members reach it, when that is another address than the one it listens on.
    pub advertise: Option<String>,
    /// Gossip, by which aggregators find it; none when they know its address.
    pub gossip: Option<GossipConfig>,
    /// Bytes that rows may take, in row blocks and open rows.
    pub memory_limit_bytes: u64,
    /// Threads that scan; 0 means one for each core.
    pub scan_threads: usize,
    /// Open rows are sealed when their oldest has waited this long.
    pub seal_age_seconds: u64,
    /// Rows older than this expire; 0, the default, keeps them until their memory is needed: somebody who loads a file
    /// of last year must not see it vanish.
    pub retention_seconds: u64,
    /// Bytes that one table may take; beyond it its oldest row blocks expire. 0 means no limit but the leaf's memory.
    pub table_bytes_max: u64,
    /// Rows older than this are subsampled: one in `subsample_one_in` is kept and stands for the others. 0 means never.
    pub subsample_after_seconds: u64,
    /// One row in so many is kept of those that are subsampled; at least 2.
    pub subsample_one_in: u64,
    /// Settings of single tables that differ from those above.
    pub tables: BTreeMap<String, TableConfig>,
    /// Tables a leaf may hold.
    pub tables_max: usize,
    /// Columns a table may have.
    pub columns_per_table_max: usize,
    /// Rows in one batch.
    pub batch_rows_max: usize,
    /// Bytes in one batch.
    pub batch_bytes_max: usize,
    /// Bytes that the groups of one query may take.
    pub query_memory_bytes_max: u64,
    /// Bytes that the rows one query returns may take.
    pub query_rows_bytes_max: u64,
    /// Queries that run at once; more of them wait.
    pub queries_running_max: usize,
    /// Which encodings rows are sealed in. `best`, unless somebody wants to see what another costs.
    pub encodings: Preference,
    /// A hand-over that takes longer leaves the rest to the disk; the service manager's stop timeout must be longer.
    pub hand_over_seconds_max: u64,
    /// What an acknowledged row survives: `power` (the default) waits for the disk, `process` survives the end of the
    /// process however it ends, but may lose the last second when the power fails.
    pub durability: Durability,
    /// Bytes of the write-ahead log. It is cut whenever rows are sealed and written; when it cannot be, new rows are
    /// refused beyond this.
    pub wal_bytes_max: u64,
    /// Row blocks are put into shared memory when they are sealed, the default, so that not even a crash takes them from
    /// there and a stop has nothing to move. Without room there they stay in the process until it stops. Measured:
    /// neither ingest nor scans get slower by it, and a leaf of 8 GB has every row again 0.2 s after a kill, not 3 s.
    pub seal_into_shm: bool,
}

/// Retention of one table.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TableConfig {
    /// Rows older than this expire; 0 keeps them.
    pub retention_seconds: Option<u64>,
    /// Bytes the table may take; 0 means no limit but the leaf's memory.
    pub table_bytes_max: Option<u64>,
    /// Rows older than this are subsampled; 0 means never.
    pub subsample_after_seconds: Option<u64>,
    /// One row in so many is kept of those.
    pub subsample_one_in: Option<u64>,
}

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

impl Default for Config {
    fn default() -> Config {
        Config {
            id: "leaf-0".to_owned(),
            data_dir: PathBuf::from("gannet-data/leaf-0"),
            listen: "127.0.0.1:7710".to_owned(),
            machine: String::new(),
            tls_ca: None,
            tls_cert: None,
            tls_key: None,
            tls_name: None,
            insecure: false,
            advertise: None,
            gossip: None,
            memory_limit_bytes: 4 * GIB,
            scan_threads: 0,
            seal_age_seconds: 300,
            retention_seconds: 0,
            table_bytes_max: 0,
            subsample_after_seconds: 0,
            subsample_one_in: 10,
            tables: BTreeMap::new(),
            tables_max: 10_000,
            columns_per_table_max: 10_000,
            batch_rows_max: 1_000_000,
            batch_bytes_max: (64 * MIB) as usize,
            query_memory_bytes_max: 2 * GIB,
            query_rows_bytes_max: 512 * MIB,
            queries_running_max: 8,
            encodings: Preference::Best,
            hand_over_seconds_max: 60,
            durability: Durability::Power,
            wal_bytes_max: 2 * GIB,
            seal_into_shm: true,
        }
    }
}

impl Config {
    /// Rows of this table older than this expire; 0 keeps them.
    pub fn retention_seconds_of(&self, table: &str) -> u64 {
        self.tables.get(table).and_then(|table| table.retention_seconds).unwrap_or(self.retention_seconds)
    }

    /// Bytes this table may take; 0 means no limit of its own.
    pub fn table_bytes_max_of(&self, table: &str) -> u64 {
        self.tables.get(table).and_then(|table| table.table_bytes_max).unwrap_or(self.table_bytes_max)
    }

    /// The age in seconds past which this table is subsampled, 0 for never, and how many rows one then stands for.
    pub fn subsampling_of(&self, table: &str) -> (u64, u64) {
        let table = self.tables.get(table);
        (
            table.and_then(|table| table.subsample_after_seconds).unwrap_or(self.subsample_after_seconds),
            table.and_then(|table| table.subsample_one_in).unwrap_or(self.subsample_one_in),
        )
    }

    /// Checks what serde cannot.
    ///
    /// # Errors
    /// Names the setting, its value and what it must be.
    pub fn check(&self) -> Result<(), crate::LeafError> {
        let wrong = |setting: &str, value: String, must: &str| {
            Err(crate::LeafError::Config(format!("setting {setting} is {value}, must be {must}")))
        };
        if self.id.is_empty() || self.id.len() > 64 || !self.id.bytes().all(|b| b.is_ascii_graphic()) {
            return wrong("id", format!("{:?}", self.id), "1 to 64 visible ASCII characters");
        }
        if self.machine.len() > 128 || !self.machine.bytes().all(|b| b.is_ascii_graphic()) {
            return wrong("machine", format!("{:?}", self.machine), "at most 128 visible ASCII characters");
        }
        if let Some(Err(error)) = self.gossip.as_ref().map(GossipConfig::checked) {
            return Err(crate::LeafError::Config(error.to_string()));
        }
        if self.memory_limit_bytes < MIB {
            return wrong("memory_limit_bytes", self.memory_limit_bytes.to_string(), "at least 1048576");
        }
        let one_in = self.tables.values().filter_map(|table| table.subsample_one_in);
        for one_in in one_in.chain([self.subsample_one_in]) {
            if !(2..=1_000_000).contains(&one_in) {
                return wrong("subsample_one_in", one_in.to_string(), "2 to 1000000");
            }
        }
        if self.batch_rows_max == 0 || self.batch_bytes_max == 0 || self.queries_running_max == 0 {
            return wrong(
                "batch_rows_max, batch_bytes_max or queries_running_max",
                "0".to_owned(),
                "above 0",
            );
        }
        Ok(())
    }
}
