//! Images of row blocks, in every encoding.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::buffer::Buffer;
use arrow::compute::take;
use gannet_leaf::held_block::HeldBlock;
use gannet_leaf::row_block::{Preference, RowBlock};
use gannet_leaf::row_ranges::RowRanges;
use gannet_leaf::scan::{Cancel, RowRun, ScanLimits, scan};
use gannet_query::expr::BinaryOp;
use gannet_query::plan::{Key, OutputColumn};
use gannet_query::{Aggregate, AggregateFunction, Expr, Output, Plan, TimeRange, WeightKind};
use gannet_tests::mutate::Mutator;
use gannet_tests::sweep::Outcome;
use gannet_tests::{encodings, reseal};
use rand::Rng;

/// A row that stands at no end of anything.
const ROW: u32 = 123;

struct Seed {
    id: u64,
    rows: RecordBatch,
    image: Vec<u8>,
}

/// The cases of the target.
pub(crate) fn cases() -> impl Fn(u64) -> Outcome {
    let mut seeds = Vec::new();
    for (at, preference) in
        [Preference::Best, Preference::Plain, Preference::Packed, Preference::Dictionary, Preference::Text]
            .into_iter()
            .enumerate()
    {
        for count in [200, 1_100] {
            let rows = encodings::batch(at as u64 * 5_000, count);
            // Each of its own, so that a whole one in the place of another is refused.
            let id = 70 + seeds.len() as u64;
            let block = RowBlock::seal_with(id, std::slice::from_ref(&rows), preference).unwrap();
            seeds.push(Seed { id, rows, image: block.image().as_slice().to_vec() });
        }
    }
    let images: Vec<Vec<u8>> = seeds.iter().map(|seed| seed.image.clone()).collect();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).stack_size(8 << 20).build().unwrap();
    move |number| {
        let mut mutator = Mutator::new(number, &images);
        let which = mutator.random().random_range(0..seeds.len());
        let mut image = images[which].clone();
        let resealed = mutator.random().random_bool(0.6);
        if mutator.random().random_bool(0.6) {
            // Header and directory are small beside the buffers.
            let head = 128 + u64::from_le_bytes(image[64..72].try_into().unwrap()) as usize;
            let mut changed = image[..head].to_vec();
            mutator.change(&mut changed);
            image.splice(..head, changed);
        } else {
            mutator.change(&mut image);
        }
        if resealed {
            reseal::image(&mut image);
        }
        let said = mutator.said();
        check(&seeds[which], &image, resealed, &pool).map_err(|what| format!("{what}\nseed {which}: {said}"))
    }
}

fn check(seed: &Seed, image: &[u8], resealed: bool, pool: &rayon::ThreadPool) -> Outcome {
    let open = || RowBlock::open(Buffer::from(image), seed.id);
    let block = match open() {
        Ok(block) => block,
        Err(_) => return Ok("refused".to_owned()),
    };
    let mut damaged = 0;
    for meta in block.columns() {
        let some = block.column_at(&meta.name, &[3, ROW]);
        let column = match block.column(&meta.name) {
            Ok(Some(column)) => column,
            Ok(None) => return Err(format!("column {} is listed and not there", meta.name)),
            Err(_) => {
                damaged += 1;
                continue;
            }
        };
        let array = column.to_typed_array(meta.column_type, block.rows());
        if array.len() != block.rows() {
            return Err(format!("column {} has {} rows of {}", meta.name, array.len(), block.rows()));
        }
        if block.rows() <= ROW as usize {
            continue;
        }
        let some = some.map_err(|error| error.to_string())?.ok_or("few rows are not there")?;
        same_rows(&meta.name, &some.to_typed_array(meta.column_type, 2), &array, &[3, ROW])?;
        // Now that it is known to be sound, few rows are found without the others.
        let known = block.column_at(&meta.name, &[3, ROW]).map_err(|error| error.to_string())?;
        let known = known.ok_or("few known rows are not there")?;
        same_rows(&meta.name, &known.to_typed_array(meta.column_type, 2), &array, &[3, ROW])?;
        if !resealed {
            let expected = seed.rows.column_by_name(&meta.name).ok_or("a column nobody wrote")?;
            if &array != expected {
                return Err(format!("column {} has other values", meta.name));
            }
            if let Some(texts) = array.as_string_opt::<i32>()
                && !texts.is_null(ROW as usize)
                && [false, true].iter().any(|is_prefix| {
                    !open().unwrap().may_hold_text(&meta.name, texts.value(ROW as usize), *is_prefix)
                })
            {
                return Err(format!("column {} denies a value that it has", meta.name));
            }
        }
    }
    if block.verify().is_ok() != (damaged == 0) {
        return Err(format!("{damaged} columns are damaged, and that is not what a check of all says"));
    }
    ask(open().unwrap(), pool)?;
    Ok(if damaged > 0 { "damaged" } else { "read" }.to_owned())
}

fn same_rows(name: &str, some: &ArrayRef, all: &ArrayRef, rows: &[u32]) -> Result<(), String> {
    let rows = arrow::array::UInt32Array::from(rows.to_vec());
    let expected = take(all, &rows, None).map_err(|error| error.to_string())?;
    if *some != expected {
        Err(format!("few rows of column {name} are not what all of them are"))
    } else {
        Ok(())
    }
}

/// Questions that work on what is stored. What they answer is any error or any rows, but never an end of the process.
fn ask(block: RowBlock, pool: &rayon::ThreadPool) -> Result<(), String> {
    let rows = block.rows() as u64;
    let runs: [Arc<dyn RowRun>; 1] = [Arc::new(HeldBlock::sealed(block, RowRanges::default()))];
    let equals = |name: &str, literal| Expr::binary(BinaryOp::Eq, Expr::column(name), literal);
    let like = Expr::Like {
        operand: Box::new(Expr::column("line")),
        pattern: Box::new(Expr::text("%items/9%")),
        negated: false,
        case_insensitive: false,
        escape: None,
    };
    let columns = |names: &[&str]| -> Vec<OutputColumn> {
        let known = encodings::COLUMNS.iter().filter(|(name, _)| names.contains(name));
        let shown = known.map(|(name, column_type)| OutputColumn {
            name: (*name).to_owned(),
            expr: Expr::column(*name),
            data_type: column_type.arrow(),
        });
        shown.collect()
    };
    let shown =
        |names: &[&str]| Output::Rows { columns: columns(names), order_by: Vec::new(), limit: Some(50) };
    let sum = |name: &str, data_type| Aggregate {
        function: AggregateFunction::Sum,
        argument: Some((Expr::column(name), data_type)),
        filter: None,
        weighted: true,
    };
    let groups = |key: &str, data_type| Output::Groups {
        keys: vec![Key { expr: Expr::column(key), data_type }],
        aggregates: vec![
            sum("patched", arrow::datatypes::DataType::Int64),
            sum("ratio", arrow::datatypes::DataType::Float64),
        ],
    };
    let string = arrow::datatypes::DataType::Utf8;
    for (names, filter, output) in [
        (&["line", "host", "tags"][..], Some(like), shown(&["line", "host", "tags"])),
        (&["trace", "uuid", "free"][..], Some(equals("trace", Expr::text("00"))), shown(&["uuid", "free"])),
        (
            &["kind", "host", "patched", "ratio"][..],
            Some(equals("kind", Expr::int(3))),
            groups("host", string),
        ),
        (&["level", "patched", "ratio"][..], None, groups("level", arrow::datatypes::DataType::Float64)),
    ] {
        let known = encodings::COLUMNS.iter().filter(|(name, _)| names.contains(name));
        let plan = Plan {
            table: "t".to_owned(),
            columns: known.map(|(name, column_type)| ((*name).to_owned(), *column_type)).collect(),
            time_range: TimeRange::ALL,
            filter,
            weight: WeightKind::One,
            output,
        };
        let limits = ScanLimits { memory_bytes_max: 64 << 20, result_bytes_max: 64 << 20, top: None };
        if let Ok(outcome) = scan(&runs, &plan, &limits, &Cancel::new(None), pool)
            && outcome.rows_covered != if outcome.unreadable.is_empty() { rows } else { 0 }
        {
            return Err(format!("{} rows of {rows} are covered", outcome.rows_covered));
        }
    }
    Ok(())
}
