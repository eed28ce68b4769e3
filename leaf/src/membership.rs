//! What a leaf tells the other members of its cluster: where it is, how it does, and how much room it has.
//!
//! It only helps to be found. Who asks the leaf is told by the leaf itself what it is and holds.

use std::sync::{Arc, Weak};
use std::time::Duration;

use gannet_proto::address::ChildAddress;
use gannet_proto::gossip::{Gossip, Kind, Said};

use crate::{Leaf, LeafError};

/// How often what is told is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Free memory is told anew when it changed by this share of the limit.
const SHARE_TOLD: u64 = 32;

/// Where others connect to that cannot be meant by an address that means every address.
const EVERYWHERE: [&str; 2] = ["0.0.0.0:", "[::]:"];

/// Begins to tell, when the settings say so; `at` is where the leaf serves. It goes on for as long as the leaf lives.
///
/// # Errors
/// When the settings of gossip cannot be used.
pub(crate) async fn tell(leaf: &Arc<Leaf>, at: &ChildAddress) -> Result<(), LeafError> {
    let Some(gossip) = &leaf.config().gossip else { return Ok(()) };
    let wrong = |error: &dyn std::fmt::Display| LeafError::Config(error.to_string());
    let checked = gossip.checked().map_err(|error| wrong(&error))?;
    let address = leaf.config().advertise.clone().unwrap_or_else(|| at.to_string());
    if EVERYWHERE.iter().any(|prefix| address.starts_with(prefix)) {
        let text = format!("others cannot connect to `{address}`: name an address to advertise");
        return Err(LeafError::Config(text));
    }
    if address.starts_with("unix:") && !gossip.is_on_loopback() {
        let text = format!("members on other machines cannot connect to `{address}`: listen on HOST:PORT");
        return Err(LeafError::Config(text));
    }
    let said = said(leaf, address);
    let gossip = Gossip::start_over(Arc::clone(&leaf.surroundings.network), checked, said)
        .await
        .map_err(|error| wrong(&error))?;
    tokio::spawn(keep_telling(gossip, Arc::downgrade(leaf)));
    Ok(())
}

fn said(leaf: &Leaf, address: String) -> Said {
    Said {
        kind: Kind::Leaf,
        id: leaf.id().to_owned(),
        epoch: leaf.epoch(),
        address,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        state: leaf.state().name().to_owned(),
        free_bytes: free_bytes(leaf),
    }
}

fn free_bytes(leaf: &Leaf) -> u64 {
    leaf.config().memory_limit_bytes.saturating_sub(leaf.used_bytes())
}

async fn keep_telling(gossip: Gossip, leaf: Weak<Leaf>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(leaf) = leaf.upgrade() else { return };
        gossip.say(|said| {
            said.state = leaf.state().name().to_owned();
            let free = free_bytes(&leaf);
            if free.abs_diff(said.free_bytes) >= leaf.config().memory_limit_bytes / SHARE_TOLD {
                said.free_bytes = free;
            }
        });
    }
}
