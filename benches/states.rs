//! How fast aggregate states take rows, and how fast groups merge: nanoseconds a row.
//!
//! Goals: the cost of each kind of state by the number of groups, with weights and without; the cost of merging blocks
//! into tables of few and of millions of groups. Not a goal: finding the groups of rows, reading columns. Rows come as
//! a scan brings them: blocks of 65,536 rows in runs of 4,096, one thread. Under `cargo test` it runs on a few rows, so
//! that it cannot rot; every line prints a hash of the answer.
//!
//! `cargo bench -p gannet-benches --bench states [-- [PART OF A NAME] [ROWS]]`

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{Array, ArrayData, ArrayRef, AsArray, Int64Array, StringArray};
use arrow::datatypes::{DataType, Int64Type};
use gannet_query::{
    Aggregate, AggregateFunction, Body, Expr, Groups, Input, Key, Merger, Output, PlacedKeys, Plan, States,
    TimeRange, Values, WeightKind, Weights,
};

const BLOCK: usize = 65_536;
const RUN: usize = 4_096;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let measured = arguments.iter().any(|argument| argument == "--bench");
    let asked = arguments.iter().find_map(|argument| argument.parse::<usize>().ok());
    let rows = asked.unwrap_or(if measured { 4_000_000 } else { 10_000 });
    let runs = if measured { 5 } else { 1 };
    println!("{rows} rows");
    println!("{:<28} {:>8} {:>10} {:>10}  answer", "state", "groups", "ns/row", "weighted");
    let columns = Columns::new(rows);
    let is_asked = |name: &str| match arguments.iter().skip(1).find(|text| !text.starts_with('-')) {
        Some(part) if part.parse::<usize>().is_err() => name.contains(part.as_str()),
        _ => true,
    };
    for (name, function, argument) in kinds().into_iter().filter(|(name, ..)| is_asked(name)) {
        for groups in [1, 8, 40, 1_000, 60_000] {
            let of_rows = columns.groups(groups);
            let work = |weight| columns.run(&function, argument, &of_rows, groups, weight);
            let (plain, _) = measure(runs, rows, || work(WeightKind::One));
            let (weighted, hash) = measure(runs, rows, || work(WeightKind::Int));
            println!("{name:<28} {groups:>8} {plain:>10.2} {weighted:>10.2}  {hash:016x}");
        }
    }
    println!("{:<28} {:>8} {:>10}", "merge of two threads", "groups", "ns/row");
    for (name, key, rows_as_groups) in [
        ("count by int", DataType::Int64, false),
        ("count by int, rows", DataType::Int64, true),
        ("count by text", DataType::Utf8, false),
    ]
    .into_iter()
    .filter(|(name, ..)| is_asked(name))
    {
        for groups in [1_000, 100_000, 1_500_000] {
            let blocks = columns.blocks(&key, groups, rows_as_groups);
            let (nanoseconds, hash) =
                measure(runs.min(3), rows, || columns.merge(&key, &blocks, rows_as_groups));
            println!("{name:<28} {groups:>8} {nanoseconds:>10.2} {:>10}  {hash:016x}", "");
        }
    }
}

/// A hash of an array's buffers.
fn fingerprint(data: &ArrayData) -> u64 {
    let own = data.buffers().iter().map(|buffer| xxhash_rust::xxh3::xxh3_64(buffer));
    own.chain(data.child_data().iter().map(fingerprint)).fold(0, |hash, one| hash.rotate_left(1) ^ one)
}

/// The median time a row, and the answer.
fn measure(runs: usize, rows: usize, mut work: impl FnMut() -> u64) -> (f64, u64) {
    let mut times = Vec::new();
    let mut hash = 0;
    for _ in 0..runs {
        let started = Instant::now();
        hash = work();
        times.push(started.elapsed().as_secs_f64() * 1e9 / rows as f64);
    }
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], hash)
}

#[derive(Debug, Clone, Copy)]
enum Argument {
    None,
    Int,
    Float,
    Scaled,
    User,
    Code,
}

fn kinds() -> Vec<(&'static str, AggregateFunction, Argument)> {
    vec![
        ("count", AggregateFunction::Count, Argument::None),
        ("sum of ints", AggregateFunction::Sum, Argument::Int),
        ("sum of floats", AggregateFunction::Sum, Argument::Float),
        ("sum of scaled ints", AggregateFunction::Sum, Argument::Scaled),
        ("min of ints", AggregateFunction::Min, Argument::Int),
        ("max of floats", AggregateFunction::Max, Argument::Float),
        ("moments", AggregateFunction::Moments, Argument::Float),
        ("quantiles", AggregateFunction::Quantiles, Argument::Float),
        ("approx distinct of ints", AggregateFunction::ApproxDistinct, Argument::User),
        ("approx distinct of codes", AggregateFunction::ApproxDistinct, Argument::Code),
        ("distinct of ints", AggregateFunction::Distinct, Argument::User),
        ("distinct of codes", AggregateFunction::Distinct, Argument::Code),
    ]
}

struct Columns {
    random: Vec<u32>,
    ints: Vec<i64>,
    floats: Vec<f64>,
    users: Vec<i64>,
    weights: Vec<i64>,
    codes: Vec<u32>,
    texts: ArrayRef,
}

/// A reproducible stream of numbers (SplitMix64).
fn numbers(rows: usize, seed: u64) -> impl Iterator<Item = u64> {
    (0..rows as u64).map(move |row| {
        let mut z = (row + (seed << 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

impl Columns {
    fn new(rows: usize) -> Columns {
        let ints: Vec<i64> =
            numbers(rows, 1).map(|n| ((n % 1_000) as f64 / 90.0).exp() as i64 + 200).collect();
        Columns {
            random: numbers(rows, 2).map(|n| (n >> 32) as u32).collect(),
            floats: ints.iter().map(|int| *int as f64 / 100.0).collect(),
            users: numbers(rows, 3).map(|n| (n % 2_000_000) as i64).collect(),
            weights: numbers(rows, 4).map(|n| 1 + (n % 8 == 0) as i64 * 9).collect(),
            codes: numbers(rows, 5).map(|n| (n % 300) as u32).collect(),
            texts: Arc::new(StringArray::from_iter_values((0..300).map(|code| format!("/item/{code}")))),
            ints,
        }
    }

    fn groups(&self, groups: usize) -> Vec<u32> {
        self.random.iter().map(|n| ((u64::from(*n) * groups as u64) >> 32) as u32).collect()
    }

    fn input(&self, argument: Argument, weight: WeightKind, rows: std::ops::Range<usize>) -> Input<'_> {
        let values = match argument {
            Argument::None => Values::None,
            Argument::Int => Values::Int(&self.ints[rows.clone()]),
            Argument::Float => Values::Float(&self.floats[rows.clone()]),
            Argument::Scaled => Values::Scaled(&self.ints[rows.clone()], 2),
            Argument::User => Values::Int(&self.users[rows.clone()]),
            Argument::Code => Values::Codes(&self.codes[rows.clone()], &self.texts),
        };
        let weights = match weight {
            WeightKind::Int => Weights::Int(&self.weights[rows]),
            WeightKind::One | WeightKind::Float => Weights::One,
        };
        Input { values, validity: None, weights, times: &[] }
    }

    /// All blocks into the states of one aggregate, and these into one.
    fn run(
        &self,
        function: &AggregateFunction,
        argument: Argument,
        groups: &[u32],
        group_count: usize,
        weight: WeightKind,
    ) -> u64 {
        let data_type = match argument {
            Argument::None => None,
            Argument::Int | Argument::User => Some(DataType::Int64),
            Argument::Float | Argument::Scaled => Some(DataType::Float64),
            Argument::Code => Some(DataType::Utf8),
        };
        let aggregate = Aggregate {
            function: function.clone(),
            argument: data_type.map(|data_type| (Expr::column("x"), data_type)),
            filter: None,
            weighted: true,
        };
        let to: Vec<u32> = (0..group_count as u32).collect();
        let mut all = States::new(&aggregate, weight).expect("the aggregate is sound");
        all.resize(group_count);
        for block in (0..groups.len()).step_by(BLOCK) {
            let mut states = States::new(&aggregate, weight).expect("the aggregate is sound");
            states.resize(group_count);
            // As a scan knows from a block's directory.
            states.set_bounds(Some(1 << 21), Some(10));
            let block_end = groups.len().min(block + BLOCK);
            for run in (block..block_end).step_by(RUN) {
                let rows = run..block_end.min(run + RUN);
                states
                    .update(&groups[rows.clone()], &self.input(argument, weight, rows))
                    .expect("the values fit");
            }
            all.merge(&states, &to).expect("the states fit");
        }
        all.settle();
        let arrays = all.to_arrays().expect("states have arrays");
        arrays.iter().fold(0, |hash, array| hash.rotate_left(7) ^ fingerprint(&array.to_data()))
    }

    /// The keys of each block and the groups of its rows: the rows themselves, or the distinct keys.
    fn blocks(&self, key: &DataType, group_count: usize, rows_as_groups: bool) -> Vec<(ArrayRef, Vec<u32>)> {
        let block = |keys: &[u32]| {
            let mut values = keys.to_vec();
            let mut rows: Vec<u32> = (0..keys.len() as u32).collect();
            if !rows_as_groups {
                values.sort_unstable();
                values.dedup();
                let number = |key: &u32| values.binary_search(key).map_or(0, |number| number as u32);
                rows = keys.iter().map(number).collect();
            }
            let values: ArrayRef = match key {
                DataType::Utf8 => {
                    Arc::new(StringArray::from_iter_values(values.iter().map(|key| format!("user {key}"))))
                }
                _ => Arc::new(Int64Array::from_iter_values(values.into_iter().map(i64::from))),
            };
            (values, rows)
        };
        self.groups(group_count).chunks(BLOCK).map(block).collect()
    }

    /// Counts by key: blocks to the mergers of two threads in turn, and the shares of both.
    fn merge(&self, key: &DataType, blocks: &[(ArrayRef, Vec<u32>)], rows_as_groups: bool) -> u64 {
        let count =
            Aggregate { function: AggregateFunction::Count, argument: None, filter: None, weighted: true };
        let plan = Plan {
            table: "t".to_owned(),
            columns: vec![],
            time_range: TimeRange::ALL,
            filter: None,
            weight: WeightKind::Int,
            output: Output::Groups {
                keys: vec![Key { expr: Expr::column("k"), data_type: key.clone() }],
                aggregates: vec![count.clone()],
            },
        };
        let mergers = (0..2).map(|_| Merger::new(&plan, 1 << 32).expect("the plan is sound"));
        let mut mergers: Vec<Merger> = mergers.collect();
        let mut start = 0;
        for (index, (keys, rows)) in blocks.iter().enumerate() {
            let mut states = States::new(&count, WeightKind::Int).expect("the aggregate is sound");
            states.resize(keys.len());
            let input = self.input(Argument::None, WeightKind::Int, start..start + rows.len());
            start += rows.len();
            if rows_as_groups {
                let ints = keys.as_primitive::<Int64Type>();
                let (placed, places) = PlacedKeys::new(ints.values(), ints.nulls());
                states.update(&places, &input).expect("the values fit");
                mergers[index % 2].push_placed(placed, vec![states]).expect("there is memory");
                continue;
            }
            states.update(rows, &input).expect("the values fit");
            let groups =
                Groups { group_count: keys.len(), keys: vec![Arc::clone(keys)], states: vec![states] };
            mergers[index % 2].push(Body::Groups(groups)).expect("there is memory");
        }
        let shares = Merger::shares(mergers).expect("the mergers fit");
        let bodies = shares.into_iter().map(|share| share.merge(None).expect("the shares fit")).collect();
        match Merger::join(bodies, 1 << 32).expect("there is memory") {
            Body::Groups(groups) => groups.group_count as u64,
            Body::Rows(_) => 0,
        }
    }
}
