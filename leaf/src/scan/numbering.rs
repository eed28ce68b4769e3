//! One dense group number a row, from the codes of one or more keys.
//!
//! Codes of several keys are combined by mixed radix while a table of all combinations is small, and by hash where it
//! is not. Where combinations are few beside the rows, a combined code is the number: then there are numbers without
//! rows, which are left out at the end. Otherwise numbers follow the order of first appearance. Either way they stay the
//! same for as long as the run is scanned, so that rows can be numbered stretch by stretch, and some of them again for
//! a FILTER. Where the runs before showed that rows hardly share groups, each row is one ([`Numbering::apart`]).

use gannet_query::PlacedKeys;

use super::coder::{Coder, NumberTable, Numbers};
use super::keys::Key;
use super::selection::Rows;

/// Tables of at most this many entries are dense; larger ones are hashed.
pub(super) const DENSE_MAX: u64 = 1 << 18;

/// So many combined codes are always numbers, and more of them where a run has this many times as many rows.
const PLAIN_MIN: usize = 256;
const ROWS_PER_PLAIN: usize = 8;

const UNSEEN: u32 = u32::MAX;

/// Buffers that a thread keeps from run to run, so that none of them is allocated for a stretch of rows.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// The group of each row of the stretch.
    pub(super) groups: Vec<u32>,
    pub(super) ints: Vec<i64>,
    pub(super) floats: Vec<f64>,
    pub(super) weights: Vec<i64>,
    pub(super) float_weights: Vec<f64>,
    pub(super) times: Vec<i64>,
    /// Codes of each key.
    codes: Vec<Vec<u32>>,
    fresh: Vec<u32>,
    /// All [`UNSEEN`] between two runs.
    table: Vec<u32>,
    /// Empty tables that grew to the size that a run needs.
    number_tables: Vec<NumberTable>,
    pub(super) argument_codes: Vec<u32>,
    /// Where columns were in the run before.
    pub(super) places: Vec<usize>,
}

/// How the codes of the next key join those before it.
#[derive(Debug)]
enum Stage {
    /// number × radix + code.
    Radix(u32),
    /// The number of the pair.
    Pairs(Numbers),
}

/// The groups of a run's rows. See the module.
#[derive(Debug)]
pub(super) struct Numbering<'a> {
    keys: Vec<Key<'a>>,
    stages: Vec<Stage>,
    by: By,
    group_count: usize,
}

/// What knows which group has which codes.
#[derive(Debug)]
enum By {
    /// All stages are by radix: a table of combined codes.
    Table {
        /// The number of each combined code.
        table: Vec<u32>,
        /// The combined code of each group.
        used: Vec<u32>,
    },
    /// The last stage, or the only key, numbers by itself: for each key the code of each group.
    Order(Vec<Vec<u32>>),
    /// All stages are by radix, and combined codes are numbers: which of them have rows, unless somebody else knows.
    Plain(Option<Vec<bool>>),
    /// Each row is a group of its own: the number of each is its place.
    Apart { placed: PlacedKeys, places: Vec<u32> },
}

/// The groups of all rows.
#[derive(Debug)]
pub(super) struct Numbered<'a> {
    pub(super) keys: Vec<Key<'a>>,
    /// For each key the code of each group.
    pub(super) codes: Vec<Vec<u32>>,
    /// The number of each group, where others have no rows.
    pub(super) used: Option<Vec<u32>>,
    /// The keys of the groups, where each row is one.
    pub(super) placed: Option<PlacedKeys>,
}

impl<'a> Numbering<'a> {
    /// For rows of which there are so many; `plain` says that groups without rows do no harm.
    pub(super) fn new(
        mut keys: Vec<Key<'a>>,
        row_count: usize,
        plain: bool,
        scratch: &mut Scratch,
    ) -> Numbering<'a> {
        for key in &mut keys {
            if let Coder::Numbered { numbers, .. } = &mut key.coder {
                *numbers = Numbers::with_table(scratch.number_tables.pop().unwrap_or_default());
            }
        }
        let mut stages = Vec::new();
        let mut bound = keys.first().map_or(1, |key| key.bound);
        let mut is_numbered = keys.first().is_none_or(|key| key.is_numbered);
        for key in keys.iter().skip(1) {
            match bound.saturating_mul(key.bound) {
                combined if combined <= DENSE_MAX => {
                    stages.push(Stage::Radix(key.bound as u32));
                    bound = combined;
                    is_numbered = false;
                }
                _ => {
                    let table = scratch.number_tables.pop().unwrap_or_default();
                    stages.push(Stage::Pairs(Numbers::with_table(table)));
                    bound = u64::from(u32::MAX);
                    is_numbered = true;
                }
            }
        }
        scratch.codes.resize_with(keys.len().max(scratch.codes.len()), Vec::new);
        let plain_max = (row_count / ROWS_PER_PLAIN).max(PLAIN_MIN);
        // A single key with too many codes for a table numbers by itself, see `keys`.
        let by = match is_numbered {
            true => By::Order(vec![Vec::new(); keys.len()]),
            false if plain && bound <= plain_max as u64 => By::Plain(Some(vec![false; bound as usize])),
            false => {
                let mut table = std::mem::take(&mut scratch.table);
                if table.len() < bound as usize {
                    table.resize(bound as usize, UNSEEN);
                }
                By::Table { table, used: Vec::new() }
            }
        };
        let group_count = match by {
            By::Plain(_) => bound as usize,
            By::Table { .. } | By::Order(_) | By::Apart { .. } => usize::from(keys.is_empty()),
        };
        Numbering { keys, stages, by, group_count }
    }

    /// With each row as a group of its own, where the only key is one of ints.
    pub(super) fn apart(
        mut keys: Vec<Key<'a>>,
        row_count: usize,
        ints: &mut Vec<i64>,
    ) -> Result<Numbering<'a>, Vec<Key<'a>>> {
        let [Key { coder: Coder::Numbered { ints: reader, .. }, .. }] = &keys[..] else { return Err(keys) };
        let rows = Rows::all(row_count);
        let (placed, places) = PlacedKeys::new(reader.read(rows, ints), reader.nulls(rows).as_ref());
        keys.clear();
        Ok(Numbering { keys, stages: Vec::new(), by: By::Apart { placed, places }, group_count: row_count })
    }

    /// How many groups there are by now.
    pub(super) fn group_count(&self) -> usize {
        self.group_count
    }

    /// How many groups there are whatever rows come, where combined codes are numbers.
    pub(super) fn plain_count(&self) -> Option<usize> {
        matches!(self.by, By::Plain(_)).then_some(self.group_count)
    }

    /// Somebody else will tell which groups have rows.
    pub(super) fn leave_marks_out(&mut self) {
        if let By::Plain(marks) = &mut self.by {
            *marks = None;
        }
    }

    /// The groups; `used` tells which have rows where that was left to somebody else. Gives the tables back.
    pub(super) fn finish(mut self, used: impl FnOnce() -> Vec<u32>, scratch: &mut Scratch) -> Numbered<'a> {
        for key in &mut self.keys {
            if let Coder::Numbered { numbers, .. } = &mut key.coder {
                scratch.number_tables.push(numbers.give_table());
            }
        }
        for stage in &mut self.stages {
            if let Stage::Pairs(numbers) = stage {
                scratch.number_tables.push(numbers.give_table());
            }
        }
        let (combined, used) = match self.by {
            By::Order(codes) => return Numbered { keys: self.keys, codes, used: None, placed: None },
            By::Apart { placed, .. } => {
                let placed = Some(placed);
                return Numbered { keys: self.keys, codes: Vec::new(), used: None, placed };
            }
            By::Table { mut table, used } => {
                used.iter().for_each(|code| table[*code as usize] = UNSEEN);
                scratch.table = table;
                (used, None)
            }
            By::Plain(marks) => {
                let used = match marks {
                    Some(marks) => {
                        marks.iter().zip(0..).filter(|(mark, _)| **mark).map(|(_, at)| at).collect()
                    }
                    None => used(),
                };
                (used.clone(), Some(used))
            }
        };
        Numbered { codes: parts(combined, &self.stages), keys: self.keys, used, placed: None }
    }

    /// Puts the group of each of some rows into `scratch.groups`.
    pub(super) fn number(&mut self, rows: Rows<'_>, scratch: &mut Scratch) {
        let Scratch { groups, ints, codes, fresh, .. } = scratch;
        if let By::Apart { places, .. } = &self.by {
            return rows.read(places, groups, |place| place);
        }
        let Some((first, rest)) = self.keys.split_first_mut() else {
            groups.clear();
            groups.resize(rows.len(), 0);
            return;
        };
        first.coder.read(rows, ints, groups);
        if let By::Order(_) = self.by {
            codes[0].clear();
            codes[0].extend_from_slice(groups);
        }
        for ((key, stage), codes) in rest.iter_mut().zip(&mut self.stages).zip(&mut codes[1..]) {
            key.coder.read(rows, ints, codes);
            match stage {
                Stage::Radix(radix) => {
                    let radix = *radix;
                    for (number, code) in groups.iter_mut().zip(codes) {
                        *number = *number * radix + *code;
                    }
                }
                Stage::Pairs(numbers) => {
                    for (number, code) in groups.iter_mut().zip(codes) {
                        *number = numbers.number(u64::from(*number) << 32 | u64::from(*code));
                    }
                }
            }
        }
        match &mut self.by {
            By::Table { table, used } => {
                for number in groups.iter_mut() {
                    let entry = &mut table[*number as usize];
                    if *entry == UNSEEN {
                        *entry = used.len() as u32;
                        used.push(*number);
                    }
                    *number = *entry;
                }
                self.group_count = used.len();
            }
            By::Plain(marks) => {
                if let Some(marks) = marks {
                    groups.iter().for_each(|number| marks[*number as usize] = true);
                }
            }
            By::Apart { .. } => {}
            // New numbers ascend, so a row is the first of its group when its number is the next one.
            By::Order(firsts) => {
                fresh.clear();
                let mut next = self.group_count as u32;
                for (row, number) in groups.iter().enumerate() {
                    if *number == next {
                        next += 1;
                        fresh.push(row as u32);
                    }
                }
                self.group_count += fresh.len();
                for (firsts, codes) in firsts.iter_mut().zip(codes.iter()) {
                    firsts.extend(fresh.iter().map(|row| codes[*row as usize]));
                }
            }
        }
    }
}

/// The codes that were combined, for each key.
fn parts(mut combined: Vec<u32>, stages: &[Stage]) -> Vec<Vec<u32>> {
    let mut codes = Vec::with_capacity(stages.len() + 1);
    for stage in stages.iter().rev() {
        if let Stage::Radix(radix) = stage {
            codes.push(combined.iter().map(|code| code % radix).collect());
            combined.iter_mut().for_each(|code| *code /= radix);
        }
    }
    codes.push(combined);
    codes.reverse();
    codes
}
