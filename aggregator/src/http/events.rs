//! `POST /v1/events/{table}`: a body of any length becomes row batches on leaves.
//!
//! The body is decoded on a blocking thread while it arrives. Pieces wait in a short queue before that thread and
//! batches in a short queue behind it, so whoever is slowest, client, decoder or leaves, slows the others down, and
//! memory does not grow with the body.
//!
//! When the request names its sender, each batch travels as a numbered part, and one part waits until it is known whether
//! another follows: the leaf must learn which is the last. A body that ends too early has no last part, and only batches
//! that the whole body would have had too; so the whole body may come later under the same name and adds what is missing.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, Version, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::sender::sender;
use super::unread::refuse;
use super::{About, Shared, named, refused, refused_with};
use crate::aggregator::bodies::Decoding;
use crate::aggregator::{Aggregator, Appended, Pin, Rows, encode};
use crate::children::Child;
use crate::error::{ErrorCode, Failure};
use crate::ingest::{
    BodyEncoding, BodyFormat, CsvHeader, Decoder, IngestLimits, IngestOptions, Rejection, check_table_name,
};
use crate::sender::Part;

/// Pieces of a body that wait for the decoder.
const PIECES_WAITING_MAX: usize = 8;
/// Row batches that wait for a leaf, beside those on their way.
const BATCHES_WAITING_MAX: usize = 1;
/// What rows survive on a leaf that cannot tell whether a batch came before.
const UNTOLD: &str = "memory";

pub(super) async fn events(
    State(aggregator): Shared,
    table: Result<Path<String>, PathRejection>,
    version: Version,
    headers: HeaderMap,
    RawQuery(parameters): RawQuery,
    body: Body,
) -> Response {
    let parameters = parameters.as_deref().unwrap_or("");
    let mut body = body;
    match answer(&aggregator, table, &headers, parameters, &mut body).await {
        Ok(taken) => taken.into_response(),
        Err(failure) => refuse((version, &headers), body, refused(failure, About::Body)).await,
    }
}

async fn answer(
    aggregator: &Aggregator,
    table: Result<Path<String>, PathRejection>,
    headers: &HeaderMap,
    parameters: &str,
    body: &mut Body,
) -> Result<Taken, Failure> {
    let table = named(table)?;
    // First, because saying no must cost little.
    let _turn = aggregator.bodies().turn().await?;
    let decoder = decoder(aggregator, &table, headers, parameters)?;
    let sender = sender(headers)?;
    let (is_named, decoder) = match &sender {
        Some(_) => (true, decoder.only_whole_bodies()),
        None => (false, decoder),
    };
    let pin = sender.map(|sender| aggregator.pin(&table, sender)).transpose()?;
    let mut taken = take(aggregator, &table, pin, decoder, std::mem::take(body)).await;
    aggregator.metrics().body_read(taken.bytes, taken.decoded.rejected_count);
    if is_named && taken.placed.durability == UNTOLD {
        let note = "Retries are not recognised yet: rows that are sent twice are counted twice.";
        taken.decoded.notes.push(note.to_owned());
    }
    Ok(taken)
}

/// A decoder for what the request says about its body.
fn decoder(
    aggregator: &Aggregator,
    table: &str,
    headers: &HeaderMap,
    parameters: &str,
) -> Result<Decoder, Failure> {
    check_table_name(table)?;
    let text = |name: header::HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let format = BodyFormat::from_content_type(text(header::CONTENT_TYPE))?;
    let encodings: Vec<&str> =
        headers.get_all(header::CONTENT_ENCODING).iter().map(|value| value.to_str().unwrap_or("?")).collect();
    let encoding = BodyEncoding::from_content_encoding(
        (!encodings.is_empty()).then(|| encodings.join(", ")).as_deref(),
    )?;
    let mut options = options(parameters)?;
    // The parameter of RFC 4180.
    if text(header::CONTENT_TYPE).is_some_and(says_header_absent) {
        options.csv_header = CsvHeader::None;
    }
    let kept = aggregator.config().rejections_listed_max;
    let limits = IngestLimits { rejections_kept_max: kept, ..IngestLimits::default() };
    let arrival_ns = chrono::Utc::now().timestamp_nanos_opt().unwrap_or(i64::MAX);
    Decoder::new(format, encoding, options, limits, arrival_ns)
}

/// Whether a content type says that a CSV body has no header line.
fn says_header_absent(content_type: &str) -> bool {
    content_type.split(';').skip(1).any(|parameter| parameter.trim().eq_ignore_ascii_case("header=absent"))
}

fn options(parameters: &str) -> Result<IngestOptions, Failure> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Parameters {
        time_field: Option<String>,
        csv_header: Option<Header>,
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Header {
        First,
        None,
    }
    let uri = format!("/?{parameters}").parse::<axum::http::Uri>();
    let parsed = uri.map_err(|error| error.to_string()).and_then(|uri| {
        axum::extract::Query::<Parameters>::try_from_uri(&uri).map_err(|error| error.body_text())
    });
    let parsed = parsed.map_err(|why| {
        Failure::new(ErrorCode::BadRequest, format!("parameters are not those of events: {why}"))
            .hint("Parameters are time_field=NAME and csv_header=first or none.")
    })?;
    let mut options = IngestOptions::default();
    if let Some(time_field) = parsed.0.time_field {
        options.time_field = time_field;
    }
    if let Some(Header::None) = parsed.0.csv_header {
        options.csv_header = CsvHeader::None;
    }
    Ok(options)
}

/// What the decoder has to say when it is done.
#[derive(Debug, Default)]
struct Decoded {
    outcome: Option<Failure>,
    rejected: Vec<Rejection>,
    rejected_count: u64,
    notes: Vec<String>,
}

/// What became of a body.
#[derive(Debug)]
struct Taken {
    placed: Placed,
    bytes: u64,
    decoded: Decoded,
    /// The body broke off.
    broken: Option<Failure>,
}

#[derive(Serialize)]
struct TakenText {
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Failure>,
    accepted: u64,
    #[serde(skip_serializing_if = "is_zero")]
    duplicates: u64,
    rejected: Vec<Rejection>,
    rejected_count: u64,
    durability: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Taken {
    fn into_response(self) -> Response {
        let Placed { accepted, duplicates, durability, failure } = self.placed;
        let Decoded { outcome, rejected, rejected_count, notes } = self.decoded;
        let mut failure = failure.or(self.broken).or(outcome);
        if failure.is_none() && accepted == 0 && rejected_count > 0 {
            let message = match rejected_count {
                1 => "the only row was rejected".to_owned(),
                count => format!("all {count} rows were rejected"),
            };
            let first = rejected.first().map(|first| format!("Row {}: {}.", first.row, first.error));
            let all = Failure::new(ErrorCode::BadRequest, message);
            failure = Some(match first {
                Some(first) => all.detail(first),
                None => all,
            });
        }
        let text =
            |error| TakenText { error, accepted, duplicates, rejected, rejected_count, durability, notes };
        match failure {
            None => Json(text(None)).into_response(),
            Some(failure) => refused_with(failure, About::Body, |failure| text(Some(failure))),
        }
    }
}

/// A piece of a body, or word that the rest will not come.
enum Piece {
    Bytes(Bytes),
    Broken,
}

/// What the decoder passes on.
enum FromDecoder {
    Rows(Rows),
    /// The body was read to its end; no batch follows.
    End,
}

/// Reads, decodes and places a body.
async fn take(aggregator: &Aggregator, table: &str, pin: Option<Pin>, decoder: Decoder, body: Body) -> Taken {
    let (pieces, waiting_pieces) = mpsc::channel(PIECES_WAITING_MAX);
    let (batches, waiting_batches) = mpsc::channel(BATCHES_WAITING_MAX);
    let turns = aggregator.bodies().decoding();
    let rows_min = aggregator.config().dictionary_rows_min;
    let decoding =
        tokio::task::spawn_blocking(move || decode(decoder, rows_min, &turns, waiting_pieces, batches));
    let idle = Duration::from_millis(aggregator.config().events_idle_ms);
    let ((bytes, broken), placed) =
        tokio::join!(read(body, pieces, idle), place(aggregator, table, Parts::new(pin), waiting_batches));
    let decoded = decoding.await.unwrap_or_else(|error| Decoded {
        outcome: Some(Failure::new(ErrorCode::Internal, format!("decoding ended early: {error}"))),
        ..Decoded::default()
    });
    Taken { placed, bytes, decoded, broken }
}

/// Passes a body on to the decoder; gives back how long it was, and what went wrong.
async fn read(body: Body, pieces: mpsc::Sender<Piece>, idle: Duration) -> (u64, Option<Failure>) {
    let mut body = body.into_data_stream();
    let mut bytes = 0;
    let broken = loop {
        let what = match tokio::time::timeout(idle, body.next()).await {
            Ok(Some(Ok(piece))) => {
                bytes += piece.len() as u64;
                if pieces.send(Piece::Bytes(piece)).await.is_err() {
                    // The decoder has ended, and says why.
                    return (bytes, None);
                }
                continue;
            }
            Ok(None) => return (bytes, None),
            Ok(Some(Err(error))) => {
                Failure::new(ErrorCode::BadRequest, format!("the body broke off: {error}"))
            }
            Err(_) => {
                let message = format!("nothing of the body arrived for {} ms", idle.as_millis());
                Failure::new(ErrorCode::Timeout, message)
            }
        };
        break what;
    };
    // An error means that the decoder has ended already.
    let _ = pieces.send(Piece::Broken).await;
    (bytes, Some(broken))
}

/// Decodes pieces into batches; on a blocking thread, which has a turn while it works and none while it waits.
fn decode(
    mut decoder: Decoder,
    dictionary_rows_min: usize,
    turns: &Decoding,
    mut pieces: mpsc::Receiver<Piece>,
    batches: mpsc::Sender<FromDecoder>,
) -> Decoded {
    // Nobody takes batches any more when placing one has failed; that failure is the one the client sees.
    let stopped = || Failure::new(ErrorCode::Unavailable, "placing rows has ended");
    let turn = RefCell::new(None);
    let send = |rows| match batches.try_send(FromDecoder::Rows(rows)) {
        Ok(()) => Ok(()),
        Err(TrySendError::Closed(_)) => Err(stopped()),
        Err(TrySendError::Full(rows)) => {
            turn.take();
            let sent = batches.blocking_send(rows);
            turn.replace(Some(turns.turn()));
            sent.map_err(|_| stopped())
        }
    };
    let mut sink = |batch: RecordBatch| encode(&batch, dictionary_rows_min)?.into_iter().try_for_each(send);
    let mut decode = || {
        while let Some(piece) = pieces.blocking_recv() {
            turn.replace(Some(turns.turn()));
            match piece {
                Piece::Bytes(bytes) => decoder.push(&bytes, &mut sink)?,
                Piece::Broken => return Ok(false),
            }
            turn.take();
        }
        turn.replace(Some(turns.turn()));
        decoder.finish(&mut sink).map(|()| true)
    };
    let is_whole: Result<bool, Failure> = decode();
    turn.take();
    let outcome = match is_whole {
        Ok(true) => batches.blocking_send(FromDecoder::End).map_err(|_| stopped()),
        Ok(false) => Ok(()),
        Err(failure) => Err(failure),
    };
    Decoded {
        outcome: outcome.err(),
        rejected: decoder.rejections().to_vec(),
        rejected_count: decoder.rejected_count(),
        notes: decoder.notes(),
    }
}

/// What became of the batches of a body.
#[derive(Debug, Default)]
struct Placed {
    accepted: u64,
    duplicates: u64,
    durability: String,
    /// Why not all of them were taken.
    failure: Option<Failure>,
}

impl Placed {
    fn note(&mut self, number: u64, outcome: Result<Appended, Failure>) {
        match outcome {
            Ok(appended) => {
                self.accepted += appended.rows;
                self.duplicates += appended.duplicates;
                // A body survives what the weakest of its batches survives.
                if self.durability.is_empty() || strength(&appended.durability) < strength(&self.durability) {
                    self.durability = appended.durability;
                }
            }
            Err(failure) => {
                // The first failure is told, but one after which nobody knows what was taken before any other: a sender
                // may send elsewhere what was surely not taken. Its place in the body is what they cannot know otherwise.
                let place = format!("It was row batch {number} of the request.");
                let detail =
                    failure.detail.as_ref().map_or(place.clone(), |detail| format!("{detail} {place}"));
                let is_worse = failure.code == ErrorCode::Unconfirmed
                    && self.failure.as_ref().is_some_and(|first| first.code != ErrorCode::Unconfirmed);
                if self.failure.is_none() || is_worse {
                    self.failure = Some(failure.detail(detail));
                }
            }
        }
    }
}

/// How much a durability is, for comparing two.
fn strength(durability: &str) -> u8 {
    match durability {
        "power" => 2,
        "process" => 1,
        _ => 0,
    }
}

/// Batches on their way out of the decoder: with a sender, numbered, and one behind, until it is known whether another
/// follows.
struct Parts {
    pin: Option<Pin>,
    held: Option<Rows>,
    number: u32,
}

/// A batch ready to be sent.
struct Message {
    rows: Rows,
    /// The leaf and the place in the request, when the request has a sender.
    part: Option<(Arc<Child>, Part)>,
}

impl Parts {
    fn new(pin: Option<Pin>) -> Parts {
        Parts { pin, held: None, number: 0 }
    }

    /// What can be sent now that this came.
    fn ready(&mut self, came: FromDecoder) -> Result<Option<Message>, Failure> {
        let (rows, is_last) = match came {
            FromDecoder::End => (self.held.take(), true),
            FromDecoder::Rows(rows) if self.pin.is_some() => (self.held.replace(rows), false),
            FromDecoder::Rows(rows) => (Some(rows), false),
        };
        rows.map(|rows| self.message(rows, is_last)).transpose()
    }

    fn message(&mut self, rows: Rows, is_last: bool) -> Result<Message, Failure> {
        let part = self.pin.as_ref().map(|pin| pin.part(self.number, is_last));
        self.number = self.number.checked_add(1).ok_or_else(|| {
            let message = format!("a request of more than {} row batches exceeds the limit", u32::MAX);
            Failure::new(ErrorCode::TooLarge, message)
        })?;
        Ok(Message { rows, part })
    }
}

/// Hands batches to leaves, some at once, until there are no more or one fails. Those on their way are waited for.
async fn place(
    aggregator: &Aggregator,
    table: &str,
    mut parts: Parts,
    mut batches: mpsc::Receiver<FromDecoder>,
) -> Placed {
    let in_flight_max = aggregator.config().appends_in_flight_max;
    let mut placed = Placed::default();
    let mut in_flight = FuturesUnordered::new();
    let mut number = 0;
    while placed.failure.is_none() {
        tokio::select! {
            Some((number, outcome)) = in_flight.next(), if !in_flight.is_empty() => placed.note(number, outcome),
            came = batches.recv(), if in_flight.len() < in_flight_max => {
                let Some(came) = came else { break };
                let message = match parts.ready(came) {
                    Ok(message) => message,
                    Err(failure) => {
                        placed.note(number + 1, Err(failure));
                        break;
                    }
                };
                if let Some(Message { rows, part }) = message {
                    number += 1;
                    let of_batch = number;
                    in_flight.push(async move {
                        let outcome = match part {
                            Some(part) => aggregator.append_part(table, rows, part).await,
                            None => aggregator.append(table, rows).await,
                        };
                        (of_batch, outcome)
                    });
                }
            }
        }
    }
    drop(batches);
    while let Some((number, outcome)) = in_flight.next().await {
        placed.note(number, outcome);
    }
    placed
}
