//! Every setting and limit of an aggregator, in one place, with units in the names.

use std::path::PathBuf;
use std::time::Duration;

use gannet_proto::address::AddressError;
use gannet_proto::gossip::{self, GossipConfig, GossipError, Kind, Said};
use gannet_proto::tls::Settings;
use serde::Deserialize;

use crate::membership::{CHILDREN_MAX, Place};

/// Settings and limits of an aggregator.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the roster is kept.
    pub data_dir: PathBuf,
    /// The addresses of the children: `host:port`, `unix:PATH`, or `dns:host:port` for a name that stands for many.
    pub children: Vec<String>,
    /// Other aggregators that serve the same leaves, by their gRPC address, as above. They ask groups of children for this
    /// one; its own address may be among them.
    pub aggregators: Vec<String>,
    /// Its id among aggregators that gossip; where it gossips, when none is said.
    pub id: Option<String>,
    /// Where others reach its gRPC, when that is another address than `grpc`.
    pub advertise: Option<String>,
    /// Gossip, instead of a list of children.
    pub gossip: Option<GossipConfig>,
    /// Where HTTP is served.
    pub http: String,
    /// Where gRPC is served, for an aggregator that is the child of another.
    pub grpc: Option<String>,
    /// The tokens of those who may use HTTP; everybody may without one.
    pub tokens_file: Option<PathBuf>,
    /// The SHA-256 of a token that is valid beside them: the supervisor's, made for one run.
    #[serde(skip)]
    pub supervisor_token: Option<String>,
    /// The certificate of the HTTP door, PEM.
    pub http_cert: Option<PathBuf>,
    /// The key of that certificate, PEM.
    pub http_key: Option<PathBuf>,
    /// The certificates of the cluster's authority, PEM: children and parents must show one that it signed.
    pub tls_ca: Option<PathBuf>,
    /// The certificate that is shown to children and parents, PEM.
    pub tls_cert: Option<PathBuf>,
    /// The key of that certificate, PEM.
    pub tls_key: Option<PathBuf>,
    /// The name that certificates of others must be for, instead of the host of their address: where addresses change,
    /// every certificate has one name beside its own.
    pub tls_name: Option<String>,
    /// Listens and asks beyond this machine without TLS and tokens.
    pub insecure: bool,
    /// HTTP connections at once.
    pub http_connections_max: usize,
    /// The headers of a request must arrive within this, and the next request on a connection.
    pub http_header_ms: u64,
    /// The body of a query must arrive within this.
    pub query_body_ms: u64,
    /// How often other aggregators are asked what they know of leaves.
    pub roster_exchange_ms: u64,
    /// How often DNS names are resolved.
    pub dns_interval_ms: u64,
    /// Children asked at once; of more, groups are asked by other aggregators, or they take turns.
    pub children_max: usize,
    /// How often a child is asked what it holds.
    pub describe_interval_ms: u64,
    /// How often a child that is down is tried.
    pub probe_interval_ms: u64,
    /// How long a child may take to say what it holds.
    pub describe_timeout_ms: u64,
    /// After this many of these in a row without an answer, a child counts as down.
    pub describe_failures_max: u32,
    /// A child that a query waited for in vain counts as down when it has said nothing at all for this long.
    pub child_silence_ms_max: u64,
    /// The deadline of a query that does not name one.
    pub query_timeout_ms: u64,
    /// The longest deadline that a query may name.
    pub query_timeout_ms_max: u64,
    /// Of a query's time, at least this much is kept for merging and the way back.
    pub margin_ms_min: u64,
    /// Of a query's time, this share is kept for merging and the way back.
    pub margin_percent: u64,
    /// Queries that run at once; four for each core unless it is said.
    pub queries_running_max: usize,
    /// Queries that wait for their turn.
    pub queries_waiting_max: usize,
    /// Groups of one query. Of more, those whose keys have the least hashes are kept, which every leaf agrees on, and the
    /// answer says that some were left out.
    pub query_groups_max: usize,
    /// Of an ordered answer with a limit, each of several children sends at least so many of its own first groups, and at
    /// least five times the limit.
    pub top_groups_min: u64,
    /// Memory for the groups or rows of one query while they merge.
    pub merge_bytes_max: u64,
    /// What one child may send for one query.
    pub child_answer_bytes_max: u64,
    /// Memory for the answers of children that wait to be merged, of one query.
    pub answers_bytes_max: u64,
    /// Raw rows that one query may pull when a part of it cannot run on the leaves.
    pub pulled_bytes_max: usize,
    /// Memory for sorting, joining and grouping answers, all queries together.
    pub finish_bytes_max: usize,
    /// Threads that plan queries.
    pub planning_threads: usize,
    /// The largest body of a query.
    pub query_body_bytes_max: usize,
    /// Bodies of events that are read at once.
    pub events_running_max: usize,
    /// Bodies of events that wait for a turn to be read, in a burst; fewer where somebody always waits.
    pub events_waiting_max: usize,
    /// How long a body of events waits for its turn.
    pub events_wait_ms: u64,
    /// Threads that work on bodies of events at once; one for each core unless it is said.
    pub decoding_threads: usize,
    /// A body of events of which nothing arrives for this long is given up.
    pub events_idle_ms: u64,
    /// Row batches of one body on their way to leaves at once.
    pub appends_in_flight_max: usize,
    /// Row batches with fewer rows are sent without dictionaries: leaves merge them as they come.
    pub dictionary_rows_min: usize,
    /// How long a leaf may take to take a row batch.
    pub append_timeout_ms: u64,
    /// Leaves that are tried for a row batch that is refused.
    pub append_attempts_max: usize,
    /// Rejected rows of one body that are listed.
    pub rejections_listed_max: usize,
    /// How long a change of the roster waits for others before it is written.
    pub roster_save_ms: u64,
    /// How long a stop waits for requests to finish.
    pub stop_grace_ms: u64,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            data_dir: PathBuf::from("gannet-data/aggregator"),
            children: Vec::new(),
            aggregators: Vec::new(),
            id: None,
            advertise: None,
            gossip: None,
            roster_exchange_ms: 5_000,
            dns_interval_ms: 10_000,
            http: "127.0.0.1:7700".to_owned(),
            grpc: None,
            tokens_file: None,
            supervisor_token: None,
            http_cert: None,
            http_key: None,
            tls_ca: None,
            tls_cert: None,
            tls_key: None,
            tls_name: None,
            insecure: false,
            http_connections_max: 4096,
            http_header_ms: 10_000,
            query_body_ms: 30_000,
            children_max: 64,
            describe_interval_ms: 1_000,
            probe_interval_ms: 500,
            describe_timeout_ms: 2_000,
            describe_failures_max: 3,
            child_silence_ms_max: 1_000,
            query_timeout_ms: 10_000,
            query_timeout_ms_max: 600_000,
            margin_ms_min: 20,
            margin_percent: 5,
            queries_running_max: default_queries_running(),
            queries_waiting_max: 256,
            query_groups_max: 20_000_000,
            top_groups_min: 10_000,
            merge_bytes_max: 1 << 30,
            child_answer_bytes_max: 1 << 30,
            answers_bytes_max: 1 << 30,
            pulled_bytes_max: 256 << 20,
            finish_bytes_max: 1 << 30,
            planning_threads: 2,
            query_body_bytes_max: 1 << 20,
            events_running_max: 64,
            events_waiting_max: 256,
            events_wait_ms: 500,
            decoding_threads: cores(),
            events_idle_ms: 300_000,
            appends_in_flight_max: 4,
            dictionary_rows_min: 4_096,
            append_timeout_ms: 30_000,
            append_attempts_max: 4,
            rejections_listed_max: 100,
            roster_save_ms: 1_000,
            stop_grace_ms: 5_000,
        }
    }
}

/// A query waits for its leaves more than it works here, so a core takes several.
fn default_queries_running() -> usize {
    (4 * cores()).clamp(8, 64)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// An address is not one.
    #[error("{what}: {source}")]
    Address {
        /// Whose.
        what: &'static str,
        /// Why.
        source: AddressError,
    },
    /// A child or an aggregator is named twice.
    #[error("{0} `{1}` is named twice")]
    Twice(&'static str, Place),
    /// Gossip cannot be used.
    #[error(transparent)]
    Gossip(#[from] GossipError),
    /// Gossip and a list both say which leaves there are.
    #[error("children are named and gossip is on: choose one, or a leaf would be there twice")]
    Both,
    /// An address that means every address is told to others.
    #[error("others cannot connect to `{0}`: name an address to advertise")]
    Everywhere(String),
    /// A number is out of its range.
    #[error("setting `{name}` is {value}, {limit}")]
    Number {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: u64,
        /// What it must be.
        limit: String,
    },
}

/// Addresses that mean every address begin so.
const EVERYWHERE: [&str; 2] = ["0.0.0.0:", "[::]:"];

/// Settings that were checked: who is there by them.
#[derive(Debug)]
pub struct Checked {
    /// Where the children are.
    pub children: Vec<Place>,
    /// Where other aggregators are.
    pub aggregators: Vec<Place>,
    /// How it gossips.
    pub gossip: Option<gossip::Checked>,
}

/// Reads places, each of which may be named once.
fn places(what: &'static str, texts: &[String]) -> Result<Vec<Place>, ConfigError> {
    let mut places: Vec<Place> = Vec::with_capacity(texts.len());
    for text in texts {
        let place = text.parse().map_err(|source| ConfigError::Address { what, source })?;
        if places.contains(&place) {
            return Err(ConfigError::Twice(what, place));
        }
        places.push(place);
    }
    Ok(places)
}

impl Config {
    /// Who is there by these settings, after all of them were checked.
    ///
    /// # Errors
    /// The first setting that cannot be used.
    pub fn checked(&self) -> Result<Checked, ConfigError> {
        let children = places("child", &self.children)?;
        let aggregators = places("aggregator", &self.aggregators)?;
        if children.len() > CHILDREN_MAX {
            let limit = format!("at most {CHILDREN_MAX}; let aggregators be children of others");
            return Err(ConfigError::Number { name: "children", value: children.len() as u64, limit });
        }
        if self.gossip.is_some() && !children.is_empty() {
            return Err(ConfigError::Both);
        }
        let gossip = self.gossip.as_ref().map(GossipConfig::checked).transpose()?;
        let address = self.said().address;
        if gossip.is_some() && EVERYWHERE.iter().any(|prefix| address.starts_with(prefix)) {
            return Err(ConfigError::Everywhere(address));
        }
        self.check_numbers()?;
        Ok(Checked { children, aggregators, gossip })
    }

    /// Its certificates towards children and parents.
    pub(crate) fn tls(&self) -> Settings<'_> {
        Settings {
            authority: self.tls_ca.as_ref(),
            certificate: self.tls_cert.as_ref(),
            key: self.tls_key.as_ref(),
            name: self.tls_name.as_deref(),
        }
    }

    /// What it says of itself in gossip.
    pub fn said(&self) -> Said {
        let gossip = self.gossip.as_ref();
        let at = gossip.map(|gossip| gossip.advertise.as_ref().unwrap_or(&gossip.listen).clone());
        Said {
            kind: Kind::Aggregator,
            id: self.id.clone().or(at).unwrap_or_default(),
            epoch: 0,
            address: self.advertise.as_ref().or(self.grpc.as_ref()).cloned().unwrap_or_default(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state: "serving".to_owned(),
            free_bytes: 0,
        }
    }

    fn check_numbers(&self) -> Result<(), ConfigError> {
        let at_least_one = [
            ("query_groups_max", self.query_groups_max as u64),
            ("top_groups_min", self.top_groups_min),
            ("children_max", self.children_max as u64),
            ("describe_interval_ms", self.describe_interval_ms),
            ("dns_interval_ms", self.dns_interval_ms),
            ("roster_exchange_ms", self.roster_exchange_ms),
            ("probe_interval_ms", self.probe_interval_ms),
            ("describe_timeout_ms", self.describe_timeout_ms),
            ("child_silence_ms_max", self.child_silence_ms_max),
            ("query_timeout_ms", self.query_timeout_ms),
            ("query_timeout_ms_max", self.query_timeout_ms_max),
            ("queries_running_max", self.queries_running_max as u64),
            ("http_connections_max", self.http_connections_max as u64),
            ("http_header_ms", self.http_header_ms),
            ("query_body_ms", self.query_body_ms),
            ("events_running_max", self.events_running_max as u64),
            ("events_idle_ms", self.events_idle_ms),
            ("appends_in_flight_max", self.appends_in_flight_max as u64),
            ("append_timeout_ms", self.append_timeout_ms),
            ("append_attempts_max", self.append_attempts_max as u64),
            ("planning_threads", self.planning_threads as u64),
            ("decoding_threads", self.decoding_threads as u64),
        ];
        for (name, value) in at_least_one {
            if value == 0 {
                return Err(ConfigError::Number { name, value, limit: "it must be at least 1".to_owned() });
            }
        }
        if self.margin_percent > 50 {
            let limit = "it must be at most 50".to_owned();
            return Err(ConfigError::Number { name: "margin_percent", value: self.margin_percent, limit });
        }
        Ok(())
    }

    /// What of a query's remaining time is kept for merging and the way back.
    pub fn margin(&self, remaining: Duration) -> Duration {
        let share = remaining.mul_f64(self.margin_percent as f64 / 100.0);
        share.max(Duration::from_millis(self.margin_ms_min)).min(remaining / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl FnOnce(&mut Config), expect: &str) {
        let mut config = Config::default();
        change(&mut config);
        assert_eq!(config.checked().unwrap_err().to_string(), expect);
    }

    #[test]
    fn settings_are_checked() {
        assert!(Config::default().checked().is_ok());
        check(
            |c| c.children = vec!["host".into()],
            "child: address `host` is not host:port, http://host:port or unix:PATH: \
             the port is missing or above 65535",
        );
        check(|c| c.children = vec!["a:1".into(), "http://a:1".into()], "child `a:1` is named twice");
        check(
            |c| c.children = (1..=8_193).map(|port| format!("a:{port}")).collect(),
            "setting `children` is 8193, at most 8192; let aggregators be children of others",
        );
        check(
            |c| {
                c.children = vec!["a:1".into()];
                c.gossip = Some(GossipConfig::default());
            },
            "children are named and gossip is on: choose one, or a leaf would be there twice",
        );
        check(
            |c| {
                c.grpc = Some("0.0.0.0:7720".into());
                c.gossip = Some(GossipConfig::default());
            },
            "others cannot connect to `0.0.0.0:7720`: name an address to advertise",
        );
        check(
            |c| c.aggregators = vec!["dns:a:1".into(), "dns:a:1".into()],
            "aggregator `dns:a:1` is named twice",
        );
        check(
            |c| c.aggregators = vec!["host".into()],
            "aggregator: address `host` is not host:port, http://host:port or unix:PATH: \
             the port is missing or above 65535",
        );
        check(|c| c.children_max = 0, "setting `children_max` is 0, it must be at least 1");
        check(|c| c.append_attempts_max = 0, "setting `append_attempts_max` is 0, it must be at least 1");
        check(|c| c.margin_percent = 51, "setting `margin_percent` is 51, it must be at most 50");
    }

    #[test]
    fn the_margin_leaves_at_least_half() {
        let margin = |ms| Config::default().margin(Duration::from_millis(ms)).as_millis();
        assert_eq!([margin(10_000), margin(200), margin(30), margin(0)], [500, 20, 15, 0]);
    }
}
