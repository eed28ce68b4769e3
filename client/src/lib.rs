//! A client of Gannet over HTTP: post events, ask SQL, read the rows as Arrow
//! record batches, and see how complete the answer is.
//!
//! ```no_run
//! # async fn example() -> Result<(), gannet_client::Error> {
//! use gannet_client::{Client, QueryOptions};
//!
//! let client = Client::new("http://127.0.0.1:7700")?;
//! let answer = client.query("select count(*) as n from requests", &QueryOptions::default()).await?;
//! for batch in &answer.batches {
//!     println!("{batch:?}");
//! }
//! println!("completeness {}", answer.completeness.percent());
//! # Ok(())
//! # }
//! ```
//!
//! * [`Client::query`] collects an answer; [`Client::query_batches`] hands it out batch by batch as it arrives, for
//!   answers that should not be in memory at once; [`Client::query_json`] returns the reply as the server wrote it.
//! * [`Client::query_refined`] hands out ever better answers while the leaves reply.
//! * [`Client::post`] sends events so that they count once, however often they have to be sent; [`Client::post_once`] sends
//!   them once and says how that ended.
//! * [`Client::tables`], [`Client::table`] and [`Client::status`] say what there is.
//! * [`Client::with`] takes a [`Token`] and whom to [`Trust`] over TLS (`https://`).
//!
//! Dropping a future or a stream of this crate closes its connection, and the server stops working on the request.
//!
//! The crate prints nothing, reads no environment and follows no proxy from it: a proxy cannot reach the loopback
//! address that servers listen on by default. Everything a server sends is checked.

mod answer;
mod backoff;
mod batches;
mod catalogue;
mod client;
mod completeness;
mod error;
mod json_rows;
mod post;
mod query;
mod refined;
mod token;
mod trust;

pub use answer::{Answer, Stats};
pub use backoff::Backoff;
pub use batches::Batches;
pub use catalogue::{
    AggregatorStatus, LeafStatus, Phase, Status, Table, TableColumn, TableDescription, UnheardChild,
};
pub use client::{Client, ClientOptions};
pub use completeness::{BucketCompleteness, Completeness, Missing, percent};
pub use error::{Error, ErrorKind, Position, ServerError, server_error};
pub use post::{Ending, Events, PostError, PostOptions, Producer, Rejection, Reply, Rest};
pub use query::QueryOptions;
pub use refined::{Progress, Refined, Step};
pub use token::Token;
pub use trust::Trust;
