//! The wire: messages and services of `gannet.v1`, and their conversions to and from the types of `gannet-query`.
//!
//! Only doors name [`wire`]; everything else speaks the types of `gannet-query`. Converting into the wire cannot
//! fail but for bodies, which may be too large; converting out of it checks everything, because bytes from the wire
//! are input: no message makes this crate panic, recurse without bound or take more memory than a small multiple of
//! the message.
//!
//! * [`convert`] – plans, expressions, completeness and holdings, in both directions.
//! * [`batches`] – record batches and Arrow types as bytes.
//! * [`body`] – the bodies of partials, in pieces.
//! * [`reason`] – why a batch was refused, where the status alone does not tell.
//! * [`address`] – how servers name each other, connect and listen; [`connection`] – what those who connect must do;
//!   [`channel`] – requests on a connection.
//! * [`gossip`] – how they hear of each other; [`network`] – what all of this goes through.
//! * [`tls`] – certificates and keys between machines; [`watched`] – files that say whom to trust; [`exposed`] – what
//!   may not be open to other machines.

pub mod address;
pub mod batches;
pub mod body;
pub mod channel;
pub mod connection;
pub mod convert;
pub mod exposed;
pub mod gossip;
pub mod network;
pub mod reason;
pub mod tls;
pub mod watched;

pub use batches::{decode_batches, encode_batches};
pub use body::{decode_body, encode_body};
pub use convert::ConvertError;
pub use reason::Reason;

/// The largest message that clients and servers of `gannet.v1` send or take, bytes; 64 MiB.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// The largest request with a plan that servers take, bytes; 4 MiB. Plans are small, and each of their bytes may become
/// many in memory.
pub const PLAN_BYTES_MAX: usize = 4 << 20;

/// Generated from the `.proto` files beside this crate.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod wire {
    tonic::include_proto!("gannet.v1");
}
