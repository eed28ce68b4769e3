//! Asking another aggregator what it knows of leaves, of decisions, and of a rolling restart.

use std::time::Duration;

use gannet_proto::wire;

use super::{Child, ChildError, classify, malformed};
use crate::exchange::Told;

/// Characters of a version that are kept.
const VERSION_CHARS_MAX: usize = 64;

impl Child {
    /// Its version, when it is an aggregator; unknown before it was first heard of.
    pub fn aggregator_version(&self) -> Option<String> {
        self.aggregator_version.lock().clone()
    }

    /// Notes what it says of itself.
    pub(super) fn told_version(&self, reply: &wire::DescribeReply) {
        let version: String = reply.aggregator_version.chars().take(VERSION_CHARS_MAX).collect();
        *self.aggregator_version.lock() = Some(version).filter(|version| !version.is_empty());
    }

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

    /// Tells a child that is an aggregator what is decided about leaves. What it knows to be decided after that.
    ///
    /// # Errors
    /// When it does not do so, in time.
    pub(crate) async fn decide(
        &self,
        standings: Vec<wire::Standing>,
        timeout: Duration,
    ) -> Result<Vec<wire::Standing>, ChildError> {
        let mut client = self.roster.clone();
        let decide = async {
            let reply = client.decide(wire::DecideRequest { standings }).await.map_err(classify)?;
            Ok(reply.into_inner().standings)
        };
        tokio::time::timeout(timeout, decide).await.unwrap_or(Err(ChildError::Timeout))
    }

    /// The text of the rolling restart that another aggregator runs or ran; empty when there was none.
    ///
    /// # Errors
    /// When it does not say, in time.
    pub(crate) async fn rollout(&self, timeout: Duration) -> Result<String, ChildError> {
        let mut client = self.roster.clone();
        let ask = async {
            let reply = client.rollout(wire::RolloutRequest {}).await.map_err(classify)?;
            Ok(reply.into_inner().text)
        };
        tokio::time::timeout(timeout, ask).await.unwrap_or(Err(ChildError::Timeout))
    }
}
