//! Seeded questions over the columns of [`crate::rows`].

use gannet_query::{TIME_COLUMN, Value};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::{Aggregate, Condition, Function, Key, Query};
use crate::rows::FIRST_TIME;

/// A question; the same seed gives the same. `row_count` says how far the times of the rows go.
pub fn generate(seed: u64, row_count: usize) -> Query {
    let random = &mut StdRng::seed_from_u64(seed);
    let filter = random.random_bool(0.7).then(|| condition(random, row_count, 2));
    if random.random_bool(0.2) {
        let mut columns: Vec<String> = vec![TIME_COLUMN.to_owned()];
        let others =
            ["host", "service.name", "statusCode", "durationMs", "ok", "tags", "extreme", "number", "flag"];
        let more = ["code", "level", "wide", "lateOnly", "traceId"];
        let all: Vec<&str> = others.into_iter().chain(more).collect();
        columns.extend(all.choose_multiple(random, 4).map(|name| (*name).to_owned()));
        let limit = random.random_range(1..60);
        return Query::Rows { filter, columns, descending: random.random_bool(0.7), limit };
    }
    let keys: Vec<Key> = (0..random.random_range(0..3)).map(|_| key(random)).collect();
    let aggregates = (0..random.random_range(1..5)).map(|_| aggregate(random, row_count)).collect();
    let limit = (!keys.is_empty() && random.random_bool(0.3)).then(|| random.random_range(1..20));
    Query::Groups { filter, keys: without_twins(keys), aggregates, limit }
}

/// The same key twice is a question of its own, and not this one.
fn without_twins(keys: Vec<Key>) -> Vec<Key> {
    let mut kept: Vec<Key> = Vec::new();
    for key in keys {
        if !kept.iter().any(|other| other.sql() == key.sql()) {
            kept.push(key);
        }
    }
    kept
}

fn one<'a>(random: &mut StdRng, of: &[&'a str]) -> &'a str {
    of.choose(random).unwrap()
}

fn key(random: &mut StdRng) -> Key {
    match random.random_range(0..8) {
        0 => Key::Minute,
        1 => Key::Bucket(*[7, 60, 90, 300].choose(random).unwrap()),
        2 => Key::Modulo(one(random, &["statusCode", "bytes", "flag", "extreme"]).to_owned(), 7),
        3 => Key::Upper(one(random, &["host", "service.name", "code"]).to_owned()),
        4 => Key::IsNull(one(random, &["service.name", "tags", "lateOnly", "ok", "bytes"]).to_owned()),
        5 => Key::Graded(one(random, &["statusCode", "bytes", "lateOnly"]).to_owned(), 500),
        _ => {
            let columns = [
                "host",
                "service.name",
                "statusCode",
                "ok",
                "extreme",
                "number",
                "flag",
                "code",
                "wide",
                "lateOnly",
            ];
            Key::Column(one(random, &columns).to_owned())
        }
    }
}

fn aggregate(random: &mut StdRng, row_count: usize) -> Aggregate {
    let numbers = ["durationMs", "bytes", "statusCode", "number", "flag", "lateOnly"];
    let ordered =
        ["durationMs", "bytes", "extreme", "number", "host", "code", "traceId", "wide", TIME_COLUMN];
    let any =
        ["host", "service.name", "statusCode", "extreme", "number", "flag", "code", "wide", "lateOnly", "ok"];
    let number = || numbers;
    let mut weighs = false;
    let function = match random.random_range(0..13) {
        0 | 1 => {
            weighs = true;
            Function::CountRows
        }
        2 => Function::Count(one(random, &any).to_owned()),
        3 => Function::CountDistinct(one(random, &any).to_owned()),
        4 => Function::ApproxDistinct(one(random, &["host", "statusCode", "traceId", "bytes"]).to_owned()),
        5 => {
            weighs = true;
            Function::Sum(one(random, &number()).to_owned())
        }
        6 => {
            weighs = true;
            Function::Average(one(random, &number()).to_owned())
        }
        7 => Function::Min(one(random, &ordered).to_owned()),
        8 => Function::Max(one(random, &ordered).to_owned()),
        9 => Function::Deviation(one(random, &number()).to_owned()),
        10 => Function::First(one(random, &any).to_owned()),
        11 => Function::Last(one(random, &any).to_owned()),
        _ => {
            let hundredths = *[5, 25, 50, 75, 90, 95, 99].choose(random).unwrap();
            Function::Percentile(one(random, &["durationMs", "bytes", "number"]).to_owned(), hundredths)
        }
    };
    Aggregate {
        function,
        filter: random.random_bool(0.25).then(|| condition(random, row_count, 1)),
        unweighted: weighs && random.random_bool(0.2),
    }
}

fn condition(random: &mut StdRng, row_count: usize, depth: usize) -> Condition {
    if depth > 0 && random.random_bool(0.4) {
        let count = random.random_range(2..4);
        let inner = (0..count).map(|_| condition(random, row_count, depth - 1)).collect();
        return match random.random_range(0..3) {
            0 => Condition::And(inner),
            1 => Condition::Or(inner),
            _ => Condition::Not(Box::new(condition(random, row_count, depth - 1))),
        };
    }
    let operator = *["=", "<>", "<", "<=", ">", ">="].choose(random).unwrap();
    let owned = |text: &str| text.to_owned();
    match random.random_range(0..12) {
        0 | 1 => Condition::Between(owned(TIME_COLUMN), time(random, row_count), time(random, row_count)),
        2 => Condition::Compare(owned(TIME_COLUMN), operator, time(random, row_count)),
        3 => Condition::Compare(owned("statusCode"), operator, Value::Int(random.random_range(199..505))),
        4 => {
            Condition::Compare(owned("durationMs"), operator, Value::Float(random.random_range(1.0..3000.0)))
        }
        5 => Condition::Compare(owned("extreme"), operator, Value::Int(extreme(random))),
        6 => {
            let values = ["web-1", "db", "", "nobody"].choose_multiple(random, 2);
            let values = values.map(|text| Value::String(owned(text))).collect();
            Condition::In(owned("host"), values, random.random_bool(0.4))
        }
        7 => {
            let values = [200, 201, 404, 7].choose_multiple(random, 3).map(|int| Value::Int(*int)).collect();
            Condition::In(owned("statusCode"), values, random.random_bool(0.4))
        }
        8 => {
            let pattern = owned(one(random, &["web%", "%-1", "w_b-_", "%e%", "WEB%", "%", "ä", "n%✓"]));
            let column = owned(one(random, &["host", "service.name", "code"]));
            if random.random_bool(0.3) {
                Condition::ILike(column, pattern)
            } else {
                Condition::Like(column, pattern)
            }
        }
        9 => Condition::IsNull(owned(one(
            random,
            &["service.name", "tags", "lateOnly", "ok", "bytes", "number"],
        ))),
        10 => Condition::Truth(owned("ok")),
        _ => {
            let wanted = ["canary", "eu", "beta", "", "nothing"].choose_multiple(random, 2);
            let wanted = wanted.map(|text| owned(text)).collect();
            let column = owned(one(random, &["tags", "level"]));
            if random.random_bool(0.5) {
                Condition::ContainsAny(column, wanted)
            } else {
                Condition::ContainsAll(column, wanted)
            }
        }
    }
}

fn time(random: &mut StdRng, row_count: usize) -> Value {
    // From a little before the first row to a little after the last one.
    let steps = random.random_range(-10..row_count as i64 + 10);
    Value::Int(FIRST_TIME + steps * 500_000_000)
}

fn extreme(random: &mut StdRng) -> i64 {
    *[i64::MAX, (1 << 53) + 1, -(1 << 53) - 1, 0, -1, 5].choose(random).unwrap()
}
