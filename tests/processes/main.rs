//! Real processes: leaves that come and go, `gannet up`, and the commands with their exit codes.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and the backtrace says where")]

mod agent;
mod agent_killed;
mod bench;
mod commands;
mod examples;
mod four_leaves;
mod full_shm;
mod killed;
mod namespaces;
mod overload;
mod rolling;
mod secure;
mod shell;
mod tail;
mod tour;
mod transcripts;
mod unkind;
mod up;

use std::fmt::Write;

use gannet_tests::http::Client;

/// What a body of events holds, small enough to be one of many.
const ROWS_PER_BODY: u64 = 10_000;

/// Events `from..until` of a day of requests: 8 services, a status, a duration.
fn requests(from: u64, until: u64) -> String {
    let mut text = String::new();
    for number in from..until {
        // 1772323200 is 2026-03-01T00:00:00Z; some five events a second.
        let _ = writeln!(
            text,
            "{{\"time\":{}.{:03},\"n\":{number},\"service\":\"s{}\",\"status\":{},\"ms\":{}.5}}",
            1_772_323_200 + number / 5,
            number % 5 * 200,
            number * 7 % 8,
            if number % 50 == 0 { 500 } else { 200 },
            number % 997
        );
    }
    text
}

/// Posts events `0..count` in bodies, four at a time.
async fn post_requests(client: &Client, count: u64) {
    use futures::StreamExt;
    futures::stream::iter((0..count).step_by(ROWS_PER_BODY as usize))
        .for_each_concurrent(4, |from| async move {
            client.ingest("requests", &requests(from, (from + ROWS_PER_BODY).min(count))).await;
        })
        .await;
}
