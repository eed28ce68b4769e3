//! DNS names of servers, asked again and again for the addresses behind them.
//!
//! A name that cannot be resolved keeps the addresses that it had: an answer must not become thinner because a resolver
//! is away.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gannet_proto::address::ChildAddress;
use tokio::sync::watch;

/// Addresses of one name that are used.
const ADDRESSES_MAX: usize = 4_096;
/// How long a resolver may take.
const RESOLVE_TIME_MAX: Duration = Duration::from_secs(5);

/// What names stand for now.
pub(crate) type Found = BTreeMap<String, Vec<ChildAddress>>;

/// Whoever knows the addresses of a name.
#[async_trait]
pub(crate) trait Resolver: Send + Sync + std::fmt::Debug {
    /// The addresses of `host:port`.
    async fn resolve(&self, name: &str) -> io::Result<Vec<SocketAddr>>;
}

/// The system's resolver.
#[derive(Debug)]
pub(crate) struct System;

#[async_trait]
impl Resolver for System {
    async fn resolve(&self, name: &str) -> io::Result<Vec<SocketAddr>> {
        match tokio::time::timeout(RESOLVE_TIME_MAX, tokio::net::lookup_host(name)).await {
            Ok(addresses) => Ok(addresses?.collect()),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the resolver did not answer in time")),
        }
    }
}

/// Names and what they stood for last.
#[derive(Debug)]
pub(crate) struct Names {
    resolver: Arc<dyn Resolver>,
    found: Found,
    /// Names whose last attempt failed, so that a failure is told once.
    failing: BTreeMap<String, bool>,
}

impl Names {
    pub(crate) fn new(names: impl IntoIterator<Item = String>, resolver: Arc<dyn Resolver>) -> Names {
        let found = names.into_iter().map(|name| (name, Vec::new())).collect();
        Names { resolver, found, failing: BTreeMap::new() }
    }

    /// There is nothing to resolve.
    pub(crate) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Asks for every name, and gives back what they stand for now.
    pub(crate) async fn resolve(&mut self) -> Found {
        let resolver = &self.resolver;
        let asked = self.found.keys().map(async |name| (name.clone(), resolver.resolve(name).await));
        for (name, outcome) in futures::future::join_all(asked).await {
            let was_failing = self.failing.insert(name.clone(), outcome.is_err()).unwrap_or(false);
            match outcome {
                Ok(mut addresses) => {
                    addresses.sort_unstable();
                    addresses.dedup();
                    if addresses.len() > ADDRESSES_MAX {
                        tracing::warn!(
                            name,
                            limit = ADDRESSES_MAX,
                            "a name has more addresses than are used"
                        );
                        addresses.truncate(ADDRESSES_MAX);
                    }
                    let addresses = addresses.into_iter().map(|at| ChildAddress::Tcp(at.to_string()));
                    self.found.insert(name, addresses.collect());
                }
                Err(error) if !was_failing => {
                    tracing::warn!(name, %error, "a name cannot be resolved; its last addresses stand");
                }
                Err(_) => {}
            }
        }
        self.found.clone()
    }

    /// Asks again and again, and tells what changed.
    pub(crate) async fn follow(mut self, every: Duration, tell: watch::Sender<Found>) {
        if self.is_empty() {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(every).await;
            let found = self.resolve().await;
            tell.send_if_modified(|before| {
                let is_news = *before != found;
                if is_news {
                    *before = found;
                }
                is_news
            });
        }
    }
}
