//! What an operator has a leaf do.

use std::time::Duration;

use gannet_proto::wire;

use super::{Child, ChildError, classify};
use crate::rollout::Order;

/// What a leaf says that did what it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Obeyed {
    /// There was nothing to do.
    pub already: bool,
    /// No batch is on its way in any more.
    pub settled: bool,
}

impl Child {
    /// Has a leaf at or below it do something, in this life of the leaf, or in any for epoch 0.
    ///
    /// # Errors
    /// When it does not do so, or nobody knows. [`ChildError::Stale`] when its state or its life is another.
    pub async fn order(
        &self,
        order: Order,
        leaf: &str,
        epoch: u64,
        timeout: Duration,
    ) -> Result<Obeyed, ChildError> {
        let mut client = self.admin.clone();
        let leaf = leaf.to_owned();
        let obey = async {
            Ok(match order {
                Order::Drain => {
                    let request = wire::DrainRequest { leaf, epoch };
                    let reply = client.drain(request).await.map_err(classify)?.into_inner();
                    Obeyed { already: reply.already, settled: reply.settled }
                }
                Order::Undrain => {
                    let request = wire::UndrainRequest { leaf, epoch };
                    let reply = client.undrain(request).await.map_err(classify)?.into_inner();
                    Obeyed { already: reply.already, settled: true }
                }
                Order::Stop => {
                    client.stop(wire::StopRequest { leaf, epoch }).await.map_err(classify)?;
                    Obeyed { already: false, settled: true }
                }
            })
        };
        let outcome = tokio::time::timeout(timeout, obey).await.unwrap_or(Err(ChildError::Timeout));
        self.note(outcome)
    }
}
