//! Who is there: the servers that settings name, that DNS names stand for, or that gossip tells of; and the children
//! that follow from it.
//!
//! Membership only routes. It says where to connect; what a leaf is and holds is asked of the leaf, and which leaves must
//! exist is the roster's to say. A leaf that vanishes from here stays on the roster and counts as missing. Unless the
//! settings name every address, the last address of each leaf of the roster is kept as a child as well: a leaf is found
//! again when everything but itself forgot it, and one that moved is let go of only when it answered from its new place.
//!
//! * [`place`] – an address, or a DNS name.
//! * `names` – asks DNS again and again.
//! * `follow` – keeps the children to what is known.

use std::collections::BTreeSet;
use std::sync::Arc;

use gannet_proto::address::ChildAddress;
use gannet_proto::gossip::{Kind, Said};
use gannet_query::LeafState;
use tokio::sync::watch;

pub(crate) mod follow;
pub(crate) mod names;
pub mod place;

pub use place::Place;

/// Children beyond this are not connected to.
pub const CHILDREN_MAX: usize = 8_192;

/// The members of the cluster there are now, as they say themselves; each once, in order of id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    /// Leaves that gossip tells of.
    pub leaves: Vec<LeafMember>,
    /// Other aggregators, which serve the same leaves.
    pub aggregators: Vec<AggregatorMember>,
}

/// A leaf that gossip tells of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafMember {
    /// Its id.
    pub id: String,
    /// Its epoch.
    pub epoch: u64,
    /// Where it serves.
    pub address: ChildAddress,
    /// The program's version.
    pub version: String,
    /// Its state.
    pub state: LeafState,
    /// Of its memory limit, bytes that are free.
    pub free_bytes: u64,
}

/// Another aggregator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AggregatorMember {
    /// Its id; its address when settings name it.
    pub id: String,
    /// Where it serves gRPC.
    pub address: ChildAddress,
    /// The program's version; empty when it is not known.
    pub version: String,
}

/// The members, and every later picture of them.
pub type MembersWatch = watch::Receiver<Arc<Members>>;

impl Members {
    /// From what gossip tells and from the addresses of aggregators that settings name.
    pub fn new(said: &[Said], aggregators: &[ChildAddress]) -> Members {
        let mut members = Members::default();
        for said in said {
            // Who serves nowhere that can be connected to cannot be asked.
            let Ok(address) = said.address.parse::<ChildAddress>() else { continue };
            match said.kind {
                Kind::Leaf => members.leaves.push(LeafMember {
                    id: said.id.clone(),
                    epoch: said.epoch,
                    address,
                    version: said.version.clone(),
                    state: state_of(&said.state),
                    free_bytes: said.free_bytes,
                }),
                Kind::Aggregator => members.aggregators.push(AggregatorMember {
                    id: said.id.clone(),
                    address,
                    version: said.version.clone(),
                }),
            }
        }
        for address in aggregators {
            if !members.aggregators.iter().any(|known| known.address == *address) {
                let (id, version) = (address.to_string(), String::new());
                members.aggregators.push(AggregatorMember { id, address: address.clone(), version });
            }
        }
        members.aggregators.sort_by(|a, b| a.id.cmp(&b.id));
        members
    }
}

/// The state with this name; a word that this version does not know is of a leaf that is not serving yet.
fn state_of(name: &str) -> LeafState {
    let known = LeafState::ALL.iter().find(|(_, known)| *known == name);
    known.map_or(LeafState::Starting, |(state, _)| *state)
}

/// The addresses of the children: those that settings and DNS name, those of leaves that gossip tells of, and, unless
/// settings name every address, where leaves of the roster were last heard of (`homes`). A leaf that was taken out of
/// the roster is no child because gossip still tells of it.
pub(crate) fn wanted(
    named: &[ChildAddress],
    members: &Members,
    homes: &[String],
    is_decommissioned: impl Fn(&str) -> bool,
) -> Vec<ChildAddress> {
    let told =
        members.leaves.iter().filter(|leaf| !is_decommissioned(&leaf.id)).map(|leaf| leaf.address.clone());
    let homes = homes.iter().filter_map(|home| home.parse().ok());
    let mut seen = BTreeSet::new();
    let all = named.iter().cloned().chain(told).chain(homes);
    all.filter(|address| seen.insert(address.clone())).take(CHILDREN_MAX).collect()
}

#[cfg(test)]
mod tests;
