//! How members of a cluster find each other: each says who it is and where, and hears it of all others.
//!
//! Gossip only routes. Nothing that an answer is made of comes from it: which rows are expected is the roster's to say,
//! and what a leaf holds is asked of the leaf. So the worst that gossip can do, forged, late, torn apart or silent, is
//! that somebody is not found.
//!
//! Every datagram is proven with the cluster's key ([`key`]), is fresh, and counts once (`seal`); every message is looked
//! at before it is decoded (`shape`, `socket`). A member that is listed twice, because it started anew, is heard of once.
//!
//! * [`GossipConfig`] – the settings, checked by [`GossipConfig::checked`].
//! * [`Gossip`] – a running member.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chitchat::{
    ChitchatConfig, ChitchatId, FailureDetectorConfig, NodeState, ProtocolVersion, spawn_chitchat,
};
use ring::rand::{SecureRandom, SystemRandom};
use serde::Deserialize;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub mod key;
mod said;
mod seal;
mod shape;
mod socket;

use crate::network::{Datagrams, Network, System};
use key::{ClusterKey, KeyError};
pub use said::{Kind, Said};
pub use seal::Refused;
use shape::{FORGET_MS, KEY, NAME_BYTES_MAX};
pub use socket::Counts;
use socket::{Sealed, now_ms};

/// Seeds of one member.
const SEEDS_MAX: usize = 64;
/// Gossip that ended by itself begins anew after this long.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// A member that was last heard of so many rounds ago, or a few more, counts as gone.
const ROUNDS_EXPECTED: u32 = 2;

/// Settings of gossip.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GossipConfig {
    /// Where it listens, UDP: an IP address and a port; port 0 takes a free one.
    pub listen: String,
    /// Where others reach it, when that is another address than the one it listens on.
    pub advertise: Option<String>,
    /// Members to begin with: `host:port`. Names are resolved again and again.
    pub seeds: Vec<String>,
    /// The file with the cluster's key.
    pub key_file: Option<PathBuf>,
    /// The name of the cluster; messages of another are dropped.
    pub cluster: String,
    /// How often it gossips.
    pub interval_ms: u64,
}

impl Default for GossipConfig {
    fn default() -> GossipConfig {
        GossipConfig {
            listen: "127.0.0.1:7709".to_owned(),
            advertise: None,
            seeds: Vec::new(),
            key_file: None,
            cluster: "gannet".to_owned(),
            interval_ms: 1_000,
        }
    }
}

/// Why there is no gossip.
#[derive(Debug, thiserror::Error)]
pub enum GossipError {
    /// An address is none.
    #[error("gossip {what} `{text}` is not {must}")]
    Address {
        /// Which.
        what: &'static str,
        /// The text.
        text: String,
        /// What it must be.
        must: &'static str,
    },
    /// Others cannot reach an address that means every address.
    #[error("gossip listens on `{0}`, which others cannot connect to: name an address to advertise")]
    Unspecified(SocketAddr),
    /// Whoever reaches the port could say who is a member.
    #[error(
        "gossip on `{0}` needs a cluster key, because it is not on loopback: make one with `gannet cluster key`"
    )]
    NoKey(SocketAddr),
    /// The key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A number or a list is out of its range.
    #[error("gossip setting `{name}` is {value}, {must}")]
    Limit {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it must be.
        must: &'static str,
    },
    /// The system refused the socket.
    #[error("cannot listen on `{at}` for gossip")]
    Listen {
        /// Where.
        at: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What this member says of itself is too long.
    #[error("member `{0}` has too long an id or address for gossip")]
    TooLong(String),
}

/// Settings that were checked.
#[derive(Debug, Clone)]
pub struct Checked {
    listen: SocketAddr,
    advertise: Option<SocketAddr>,
    seeds: Vec<String>,
    key: ClusterKey,
    cluster: String,
    interval: Duration,
}

impl GossipConfig {
    /// The settings, when they can be used; reads the key.
    ///
    /// # Errors
    /// The first setting that cannot be used.
    pub fn checked(&self) -> Result<Checked, GossipError> {
        let address = |what, text: &String| {
            let wrong =
                || GossipError::Address { what, text: text.clone(), must: "an IP address and a port" };
            text.parse::<SocketAddr>().map_err(|_| wrong())
        };
        let limit = |name, value: String, must| Err(GossipError::Limit { name, value, must });
        let listen = address("address", &self.listen)?;
        let advertise =
            self.advertise.as_ref().map(|text| address("address to advertise", text)).transpose()?;
        if advertise.map_or(listen, |at| at).ip().is_unspecified() {
            return Err(GossipError::Unspecified(listen));
        }
        for seed in &self.seeds {
            let port = seed.rsplit_once(':').map(|(host, port)| (host.is_empty(), port.parse::<u16>()));
            if !matches!(port, Some((false, Ok(1..)))) {
                let (what, text) = ("seed", seed.clone());
                return Err(GossipError::Address { what, text, must: "HOST:PORT" });
            }
        }
        if self.seeds.len() > SEEDS_MAX {
            return limit("seeds", self.seeds.len().to_string(), "it must be at most 64");
        }
        if !(10..=60_000).contains(&self.interval_ms) {
            return limit("interval_ms", self.interval_ms.to_string(), "it must be 10 to 60000");
        }
        if self.cluster.is_empty() || self.cluster.len() > NAME_BYTES_MAX {
            return limit("cluster", format!("{:?}", self.cluster), "it must have 1 to 128 bytes");
        }
        let is_local = listen.ip().is_loopback() && advertise.is_none_or(|at| at.ip().is_loopback());
        let key = match &self.key_file {
            Some(path) => ClusterKey::read(path)?,
            None if is_local => ClusterKey::of_loopback(&self.cluster),
            None => return Err(GossipError::NoKey(listen)),
        };
        let interval = Duration::from_millis(self.interval_ms);
        let (seeds, cluster) = (self.seeds.clone(), self.cluster.clone());
        Ok(Checked { listen, advertise, seeds, key, cluster, interval })
    }

    /// Whether messages stay on this machine.
    pub fn is_on_loopback(&self) -> bool {
        self.listen.parse::<SocketAddr>().is_ok_and(|at| at.ip().is_loopback())
    }
}

/// A member that gossips for as long as this lives.
#[derive(Debug)]
pub struct Gossip {
    at: SocketAddr,
    say: watch::Sender<Said>,
    heard: watch::Receiver<Arc<Vec<Said>>>,
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

impl Gossip {
    /// Begins to gossip in the system's network; see [`Gossip::start_over`].
    ///
    /// # Errors
    /// As [`Gossip::start_over`].
    pub async fn start(config: Checked, me: Said) -> Result<Gossip, GossipError> {
        Gossip::start_over(Arc::new(System), config, me).await
    }

    /// Begins to gossip. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the socket cannot be bound, or what the member says of itself is too long.
    pub async fn start_over(
        network: Arc<dyn Network>,
        config: Checked,
        me: Said,
    ) -> Result<Gossip, GossipError> {
        if me.to_text().is_none() || me.name().len() > NAME_BYTES_MAX {
            return Err(GossipError::TooLong(me.name()));
        }
        let failed = |source| GossipError::Listen { at: config.listen, source };
        let bound = network.datagrams(config.listen).await.map_err(failed)?;
        let listen = bound.local_address().map_err(failed)?;
        let mut at = config.advertise.unwrap_or(listen);
        if at.port() == 0 {
            at.set_port(listen.port());
        }
        let mut sender = [0; 8];
        SystemRandom::new().fill(&mut sender).map_err(|_| KeyError::Random)?;
        let counts = Arc::new(Counts::default());
        let (say, said) = watch::channel(me);
        let (tell, heard) = watch::channel(Arc::default());
        let member = Member {
            listen,
            at,
            sender: u64::from_le_bytes(sender),
            counts: Arc::clone(&counts),
            network,
            config,
            said,
            tell,
        };
        let task = tokio::spawn(member.run(bound));
        Ok(Gossip { at, say, heard, counts, task })
    }

    /// Where others reach it.
    pub fn address(&self) -> SocketAddr {
        self.at
    }

    /// Says something else of itself from now on. Its kind and id stay.
    pub fn say(&self, change: impl FnOnce(&mut Said)) {
        self.say.send_if_modified(|said| {
            let mut new = said.clone();
            change(&mut new);
            (new.kind, new.id) = (said.kind, said.id.clone());
            let is_news = new != *said && new.to_text().is_some();
            if is_news {
                *said = new;
            }
            is_news
        });
    }

    /// What the others say who are there now, in order of kind and id, each once.
    pub fn heard(&self) -> watch::Receiver<Arc<Vec<Said>>> {
        self.heard.clone()
    }

    /// Datagrams that were read and dropped.
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }
}

impl Drop for Gossip {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the task of a member knows.
struct Member {
    listen: SocketAddr,
    at: SocketAddr,
    sender: u64,
    counts: Arc<Counts>,
    network: Arc<dyn Network>,
    config: Checked,
    said: watch::Receiver<Said>,
    tell: watch::Sender<Arc<Vec<Said>>>,
}

impl Member {
    async fn run(mut self, bound: Box<dyn Datagrams>) {
        let mut bound = Some(bound);
        loop {
            if let Err(error) = self.gossip(bound.take()).await {
                tracing::error!(%error, "gossip ended and begins anew");
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    /// Gossips until that fails.
    async fn gossip(&mut self, bound: Option<Box<dyn Datagrams>>) -> anyhow::Result<()> {
        let (name, started) = (self.said.borrow().name(), now_ms());
        let sealed = Sealed {
            key: self.config.key.clone(),
            sender: self.sender.wrapping_add(started),
            name: name.clone(),
            started,
            advertised: self.at,
            counts: Arc::clone(&self.counts),
            bound: Mutex::new(bound),
            network: Arc::clone(&self.network),
        };
        let interval = self.config.interval;
        let config = ChitchatConfig {
            chitchat_id: ChitchatId::new(name.clone(), started, self.at),
            cluster_id: self.config.cluster.clone(),
            gossip_interval: interval,
            listen_addr: self.listen,
            seed_nodes: self.config.seeds.clone(),
            failure_detector_config: FailureDetectorConfig {
                initial_interval: interval * ROUNDS_EXPECTED,
                max_interval: interval * (10 * ROUNDS_EXPECTED),
                dead_node_grace_period: Duration::from_millis(FORGET_MS / 4),
                ..Default::default()
            },
            marked_for_deletion_grace_period: Duration::from_secs(3600),
            catchup_callback: None,
            extra_liveness_predicate: None,
            protocol_version: ProtocolVersion::V1,
        };
        let text = self.said.borrow_and_update().to_text().unwrap_or_default();
        let handle = spawn_chitchat(config, vec![(KEY.to_owned(), text)], &sealed).await?;
        let mut there = handle.with_chitchat(|chitchat| chitchat.live_nodes_watcher()).await;
        let mut ended = std::pin::pin!(handle.termination_watcher());
        loop {
            tokio::select! {
                changed = there.changed() => {
                    changed?;
                    let heard = newest(&name, &there.borrow_and_update());
                    self.tell.send_if_modified(|before| {
                        let is_news = **before != heard;
                        if is_news {
                            *before = Arc::new(heard);
                        }
                        is_news
                    });
                }
                changed = self.said.changed() => {
                    changed?;
                    let text = self.said.borrow_and_update().to_text();
                    if let Some(text) = text {
                        handle.with_chitchat(|chitchat| chitchat.self_node_state().set(KEY, &text)).await;
                    }
                }
                outcome = &mut ended => return outcome,
            }
        }
    }
}

/// What the members say who are there, without this one.
fn newest(own: &str, there: &std::collections::BTreeMap<ChitchatId, NodeState>) -> Vec<Said> {
    let others = there.iter().filter(|(id, _)| *id.node_id != *own);
    said::newest(
        others
            .filter_map(|(id, state)| Some((id.generation_id, Said::of_text(&id.node_id, state.get(KEY)?)?))),
    )
}

#[cfg(test)]
mod tests;
