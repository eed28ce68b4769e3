//! What an aggregator lives in besides its files: the network, and how it waits for its own threads. A simulation puts
//! its own in their place; time is tokio's everywhere, which a runtime can pause.

use std::sync::Arc;

use gannet_proto::network::{Network, System};

/// See the module. The default are those of this machine.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// How children, other aggregators and members of the cluster are reached.
    pub network: Arc<dyn Network>,
    /// How the planning of a statement is waited for.
    pub planning: Planning,
}

/// How a statement is waited for that is planned on a thread with a big stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Planning {
    /// Other things happen meanwhile.
    #[default]
    Beside,
    /// Nothing else happens, and no time passes that only a runtime knows of.
    Alone,
}

impl Default for Surroundings {
    fn default() -> Surroundings {
        Surroundings { network: Arc::new(System), planning: Planning::default() }
    }
}
