//! Where rows go, and who sends them: the pieces of a run of `gannet ingest` are the numbered requests of one producer.

use std::time::Duration;

use gannet_client::{Events, PostError, PostOptions, Producer, Reply};

use crate::client::Client;
use crate::ingest::cut::Piece;

/// Where rows go.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// The server.
    pub(crate) client: Client,
    /// The table.
    pub(crate) table: String,
    /// The column that holds the time, when it is not `time`.
    pub(crate) time_field: Option<String>,
    /// How long one request may take.
    pub(crate) timeout: Duration,
    /// How long a piece that is refused for now is tried again.
    pub(crate) patience: Duration,
    /// Who posts.
    pub(crate) producer: Producer,
}

/// A producer with a name of its own; `what` tells people where it comes from.
pub(crate) fn new_producer(what: &str) -> Producer {
    Producer::new(new_name(what), 1)
}

/// A name that nobody else has.
pub(crate) fn new_name(what: &str) -> String {
    format!("{what}-{}", uuid::Uuid::new_v4())
}

impl Target {
    /// Posts a piece, again and again while that may help.
    pub(crate) async fn post(&self, piece: &Piece) -> Result<Reply, PostError> {
        let events = Events {
            table: self.table.clone(),
            content_type: piece.content_type.to_owned(),
            body: piece.body.clone(),
            time_field: self.time_field.clone(),
        };
        let options = PostOptions { timeout: self.timeout, patience: self.patience };
        self.client.inner().post(&events, &self.producer, &options).await
    }
}
