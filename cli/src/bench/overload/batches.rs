//! Batches of events as whole requests, made fast: everything but their numbers is written once.
//!
//! Each event carries the number of its batch, so that it can be counted afterwards which batches are there, and how often.

use std::fmt::Write as _;

/// The table they go to.
pub(super) const TABLE: &str = "sent";
/// Digits of a number, with zeros in front.
const DIGITS: usize = 10;
const SERVICES: u64 = 40;

/// Bytes, and where in them the number belongs.
#[derive(Debug, Clone)]
struct Template {
    bytes: Vec<u8>,
    places: Vec<usize>,
}

/// Makes requests.
#[derive(Debug, Clone)]
pub(super) struct Batches {
    rows: u64,
    /// The head of a batch without a name, then of one with a name.
    heads: [Template; 2],
    body: Template,
}

impl Template {
    fn numbered(&self, number: u64) -> Vec<u8> {
        let digits = text_of(number);
        let mut bytes = self.bytes.clone();
        for place in &self.places {
            bytes[*place..place + DIGITS].copy_from_slice(digits.as_bytes());
        }
        bytes
    }
}

fn head(table: &str, body_bytes: usize, is_named: bool, asks_first: bool) -> Template {
    let mut head =
        format!("POST /v1/events/{table} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/x-ndjson\r\n");
    match asks_first {
        true => head += "expect: 100-continue\r\ntransfer-encoding: chunked\r\n",
        false => {
            // Writing to a string cannot fail.
            let _ = write!(head, "content-length: {body_bytes}\r\n");
        }
    }
    let mut places = Vec::new();
    if is_named {
        head += "idempotency-key: bench-";
        places.push(head.len());
        head += &"0".repeat(DIGITS);
        head += "\r\n";
    }
    head += "\r\n";
    Template { bytes: head.into_bytes(), places }
}

fn body(rows: u64) -> Template {
    let zeros = "0".repeat(DIGITS);
    let mut body = String::new();
    let mut places = Vec::new();
    for row in 0..rows {
        body += "{\"batch\":\"";
        places.push(body.len());
        // Writing to a string cannot fail.
        let _ = writeln!(
            body,
            "{zeros}\",\"row\":{row},\"service\":\"svc-{}\",\"status\":{},\"ms\":{}.25}}",
            row * 7 % SERVICES,
            if row % 50 == 0 { 500 } else { 200 },
            row * 31 % 997
        );
    }
    Template { bytes: body.into_bytes(), places }
}

/// A batch's number as its events carry it.
fn text_of(number: u64) -> String {
    format!("{:0DIGITS$}", number % 10_u64.pow(DIGITS as u32))
}

impl Batches {
    /// Of so many rows, for this table.
    pub(super) fn new(table: &str, rows: u64) -> Batches {
        Batches::of(table, rows, false)
    }

    /// The same, where the server is asked before a body is sent.
    pub(super) fn asking_first(table: &str, rows: u64) -> Batches {
        Batches::of(table, rows, true)
    }

    fn of(table: &str, rows: u64, asks_first: bool) -> Batches {
        let body = body(rows);
        let heads = [false, true].map(|is_named| head(table, body.bytes.len(), is_named, asks_first));
        Batches { rows, heads, body }
    }

    /// Events of a batch.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// The head of a batch's request. Every second one names its sender, so that both ways of placing rows are under load.
    pub(super) fn head(&self, number: u64) -> Vec<u8> {
        self.heads[number as usize % 2].numbered(number)
    }

    /// The body of a batch's request.
    pub(super) fn body(&self, number: u64) -> Vec<u8> {
        self.body.numbered(number)
    }

    /// Both.
    pub(super) fn request(&self, number: u64) -> Vec<u8> {
        [self.head(number), self.body(number)].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_whole_and_numbered() {
        for (asks_first, number, key) in
            [(false, 12_u64, None), (true, 7, Some("idempotency-key: bench-0000000007\r\n"))]
        {
            let batches = Batches::of("t", 3, asks_first);
            let text = String::from_utf8(batches.request(number)).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with("POST /v1/events/t HTTP/1.1\r\n"), "{head}");
            let says_length = head.contains(&format!("content-length: {}", body.len()));
            let is_chunked = head.contains("transfer-encoding: chunked");
            let asks = head.contains("expect: 100-continue");
            assert_eq!((says_length, is_chunked, asks), (!asks_first, asks_first, asks_first), "{head}");
            assert_eq!(format!("{head}\r\n").contains("idempotency-key"), key.is_some());
            assert!(key.is_none_or(|key| format!("{head}\r\n").contains(key)), "{head}");
            let rows: Vec<serde_json::Value> =
                body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            assert_eq!(rows.len(), 3);
            assert!(rows.iter().all(|row| row["batch"] == text_of(number)), "{body}");
        }
    }
}
