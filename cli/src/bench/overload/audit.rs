//! What must hold after any load: every acknowledged batch is there whole and once; a refused one is not there at all; one
//! that nobody knows about is there whole and once, or not at all.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value as Json;

use super::super::door::Door;
use super::super::servers::query;
use super::batches::TABLE;
use super::outcome::{Fate, Kind, Outcome};
use crate::outcome::Failure;

const TIMEOUT: Duration = Duration::from_secs(120);

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Audit {
    /// Batches that were acknowledged.
    pub(super) acknowledged: u64,
    /// Of those: not all there.
    pub(super) lost: u64,
    /// There more than once, whatever was said of them.
    pub(super) doubled: u64,
    /// Refused, and there.
    pub(super) refused_and_there: u64,
    /// There in part, though nobody knows what became of them.
    pub(super) torn: u64,
}

impl Audit {
    /// What is wrong, in words.
    pub(super) fn problems(&self) -> Vec<String> {
        let named = [
            (self.lost, "acknowledged batches are not there"),
            (self.doubled, "batches are there more than once"),
            (self.refused_and_there, "refused batches are there"),
            (self.torn, "batches are there in part"),
        ];
        named.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect()
    }
}

/// Compares what was said of batches of so many rows with how many rows of each there are.
fn compare(fates: &[Outcome], rows: u64, there: &BTreeMap<u64, u64>) -> Audit {
    let mut audit = Audit::default();
    for outcome in fates.iter().filter(|outcome| outcome.kind == Kind::Ingest) {
        let found = there.get(&outcome.number).copied().unwrap_or(0);
        let is_acknowledged = outcome.fate == Fate::Done;
        audit.acknowledged += u64::from(is_acknowledged);
        audit.doubled += u64::from(found > rows);
        match &outcome.fate {
            Fate::Done => audit.lost += u64::from(found < rows),
            Fate::Refused => audit.refused_and_there += u64::from(found > 0),
            _ => audit.torn += u64::from(found > 0 && found < rows),
        }
    }
    audit
}

/// Asks how often each batch is there, and compares.
pub(super) async fn audit(door: &Door, fates: &[Outcome], rows: u64) -> Result<Audit, Failure> {
    if !fates.iter().any(|outcome| outcome.kind == Kind::Ingest) {
        return Ok(Audit::default());
    }
    let sql = format!("SELECT batch, count(*) FROM {TABLE} GROUP BY batch");
    let failed = |what: String| Failure::failed(format!("count the batches: {what}"));
    let reply = door.send(&query(&sql, TIMEOUT)).await.map_err(|error| failed(error.to_string()))?;
    let json: Json = serde_json::from_slice(&reply.body).map_err(|error| failed(error.to_string()))?;
    if json["completeness"]["ratio"].as_f64() != Some(1.0) {
        return Err(failed(format!("status {}, completeness {}", reply.status, json["completeness"])));
    }
    let counted = json["rows"].as_array().into_iter().flatten().map(|row| {
        let batch = row[0].as_str().and_then(|batch| batch.parse::<u64>().ok());
        batch.zip(row[1].as_u64()).ok_or_else(|| failed(format!("{row} is no batch and its count")))
    });
    Ok(compare(fates, rows, &counted.collect::<Result<_, _>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_breach_is_found() {
        let fates = [
            (Fate::Done, 5),
            (Fate::Done, 4),
            (Fate::Done, 0),
            (Fate::Done, 10),
            (Fate::Refused, 0),
            (Fate::Refused, 5),
            (Fate::Broken(String::new()), 5),
            (Fate::Broken(String::new()), 0),
            (Fate::Unconfirmed, 3),
            (Fate::Unconfirmed, 10),
        ];
        let outcome = |(number, (fate, _)): (usize, &(Fate, u64))| Outcome {
            kind: Kind::Ingest,
            number: number as u64,
            at: Duration::ZERO,
            ended: Duration::ZERO,
            fate: fate.clone(),
        };
        let outcomes: Vec<Outcome> = fates.iter().enumerate().map(outcome).collect();
        let there = fates.iter().enumerate().map(|(number, (_, rows))| (number as u64, *rows)).collect();
        let found = compare(&outcomes, 5, &there);
        let expect = Audit { acknowledged: 4, lost: 2, doubled: 2, refused_and_there: 1, torn: 1 };
        assert_eq!(found, expect);
        assert_eq!(found.problems().len(), 4);
        assert_eq!(Audit::default().problems(), Vec::<String>::new());
    }
}
