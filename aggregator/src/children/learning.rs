//! Asking another aggregator what it knows of leaves.

use std::time::Duration;

use gannet_proto::wire;

use super::{Child, ChildError, classify, malformed};
use crate::exchange::Told;

impl Child {
    /// What another aggregator knows and the asker does not.
    ///
    /// # Errors
    /// When it does not say, in time, or says what cannot be.
    pub(crate) async fn learn(
        &self,
        request: wire::LearnRequest,
        timeout: Duration,
    ) -> Result<Told, ChildError> {
        let mut client = self.roster.clone();
        let learn = async {
            let mut replies = client.learn(request).await.map_err(classify)?.into_inner();
            let mut told = Told::default();
            while let Some(reply) = replies.message().await.map_err(classify)? {
                told.add(reply).map_err(malformed)?;
            }
            Ok(told)
        };
        tokio::time::timeout(timeout, learn).await.unwrap_or(Err(ChildError::Timeout))
    }
}
