//! Counts, sums and ends of groups, on codes.
//!
//! A sum of weight × (base + gcd × code) needs the sum of weight × code and that of the weights alone, and the largest
//! code stands for the largest value. So what is asked of a column of packed ints is found without decoding it: codes
//! of any width are added to totals of the run, one for each group, and become sums once per run. The ints of a
//! dictionary are added likewise, as their distances from the least of them.
//!
//! Where both sums of a stretch of rows fit into 64 bits together, they are one number, and a row takes one
//! multiplication and one addition: (code + 2^s) × weight adds the code to the lower s bits and the weight to the rest.
//! And a row whose group is that of the row before would wait for what that one stored; so each of four rows that
//! follow one another has totals of its own where groups are few.
//!
//! A row without value has the code 0, which adds nothing to a sum. All rows are counted with the codes, and those
//! without value once more, by themselves: so a sum counts the events of all rows beside its own.
//!
//! Invariant: no total overflows. What the widths of codes and a bound of the weights allow is known before the first
//! row is read; columns that could leave 64 bits are left to the states.

use std::ops::BitOr;

use arrow::buffer::NullBuffer;
use gannet_query::{AggregateFunction, Input, States, Values, Weights};

use super::ScanError;
use super::arguments::{Argument, RowWeights};
use super::readers::{Floats, Ints, code_max, for_each_null, look_up, nulls_at, nulls_coded};
use super::selection::Rows;
use crate::column::Codes;

/// Rows that follow one another and have totals of their own.
const LANES: usize = 4;
/// Lanes of more groups do not stay in the nearest cache.
const FEW: usize = 256;

type Lanes = [[u64; LANES]; FEW];

/// Ints as codes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packed<'a> {
    pub(super) base: i64,
    pub(super) gcd: i64,
    /// Digits behind the point.
    pub(super) digits: Option<u8>,
    pub(super) codes: &'a Codes,
    pub(super) validity: Option<&'a NullBuffer>,
}

/// The ints of a dictionary, as if what is listed for their codes were packed.
#[derive(Debug)]
struct Listed<'a> {
    packed: Packed<'a>,
    /// From the least int to that of each code; at the code of NULL it is 0.
    distances: Vec<u32>,
    null: Option<u32>,
}

/// What is found for each group.
#[derive(Debug)]
enum What<'a> {
    Events,
    /// What the sum at this place counts anyway.
    EventsOf(usize),
    Sum(Packed<'a>),
    SumListed(Listed<'a>),
    Max(Packed<'a>),
    Min(Packed<'a>),
}

/// One aggregate of a run. See the module.
#[derive(Debug)]
pub(super) struct CodeSums<'a> {
    aggregate: usize,
    what: What<'a>,
    weighted: bool,
    weight_max: u64,
    totals: Totals,
    /// The events of each group's rows without value; empty while there are none.
    missing: Vec<u64>,
}

/// Of each group: the sum of weight × code, or what [`Totals::choose`] keeps; and the events of its rows.
#[derive(Debug)]
struct Totals(Vec<[u64; 2]>);

/// How many events each row of a stretch stands for.
#[derive(Debug, Clone, Copy)]
pub(super) enum StretchWeights<'s> {
    One,
    Each(&'s [i64]),
    /// The entry at the code.
    Coded(&'s [u8], &'s [i64; 256]),
}

impl<'a> CodeSums<'a> {
    /// For an aggregate over at most so many rows in so many groups, if codes do for it. Without weights every row is one
    /// event.
    pub(super) fn of(
        (aggregate, function): (usize, &AggregateFunction),
        argument: Option<&Argument<'a>>,
        weights: Option<&RowWeights<'_>>,
        (group_count, row_count): (usize, usize),
    ) -> Option<CodeSums<'a>> {
        let what = match (function, argument) {
            (AggregateFunction::Count, None) => What::Events,
            (AggregateFunction::Sum, Some(Argument::Ints(ints @ Ints::Dictionary { .. }))) => {
                What::SumListed(Listed::of(ints)?)
            }
            (AggregateFunction::Sum, Some(argument)) => What::Sum(summed(argument)?),
            (AggregateFunction::Max, Some(argument)) => What::Max(ordered(argument)?),
            (AggregateFunction::Min, Some(argument)) => What::Min(ordered(argument)?),
            _ => return None,
        };
        let weight_max = match weights {
            None => 1,
            Some(weights) => weights.bound().filter(|_| weights.least().is_some_and(|least| least >= 0))?,
        };
        let code_max = match &what {
            What::Events | What::EventsOf(_) => 1,
            What::SumListed(listed) => listed.distances.iter().copied().max()?.into(),
            What::Sum(packed) | What::Max(packed) | What::Min(packed) => code_max(packed.codes)?,
        };
        code_max.checked_mul(weight_max)?.checked_mul(row_count as u64)?;
        let first = if matches!(what, What::Min(_)) { u64::MAX } else { 0 };
        let totals = Totals(vec![[first, 0]; group_count]);
        Some(CodeSums {
            aggregate,
            what,
            weighted: weights.is_some(),
            weight_max,
            totals,
            missing: Vec::new(),
        })
    }

    /// The place of the aggregate in the plan.
    pub(super) fn aggregate(&self) -> usize {
        self.aggregate
    }

    pub(super) fn is_weighted(&self) -> bool {
        self.weighted
    }

    /// Leaves counts to sums over the same rows.
    pub(super) fn share(all: &mut [CodeSums<'_>]) {
        for place in 0..all.len() {
            let counts_alike = |other: &CodeSums<'_>| {
                matches!(other.what, What::Sum(_) | What::SumListed(_))
                    && other.weighted == all[place].weighted
            };
            if matches!(all[place].what, What::Events)
                && let Some(other) = all.iter().position(counts_alike)
            {
                all[place].what = What::EventsOf(other);
                all[place].totals = Totals(Vec::new());
            }
        }
    }

    /// Whether a group without events is one without rows.
    pub(super) fn tells_groups(&self, weights: &RowWeights<'_>) -> bool {
        matches!(self.what, What::Events | What::Sum(_) | What::SumListed(_))
            && (!self.weighted || weights.least().is_some_and(|least| least >= 1))
    }

    /// The groups that have events.
    pub(super) fn groups(&self) -> Vec<u32> {
        let with_events = self.totals.0.iter().zip(0..).filter(|([_, events], _)| *events > 0);
        with_events.map(|(_, group)| group).collect()
    }

    /// Adds the rows of a stretch, whose groups these are.
    pub(super) fn add(
        &mut self,
        rows: Rows<'_>,
        groups: &[u32],
        weights: StretchWeights<'_>,
        out: &mut Vec<u32>,
    ) {
        let weights = if self.weighted { weights } else { StretchWeights::One };
        let (totals, weight_max) = (&mut self.totals, self.weight_max);
        match &self.what {
            What::EventsOf(_) => {}
            What::Events => totals.count(groups, weights),
            What::SumListed(Listed { packed, distances, .. }) => {
                look_up(distances, packed.codes, rows, out);
                totals.add(groups, out, weights, weight_max);
            }
            What::Sum(packed) => match codes_at(packed.codes, rows, out) {
                Slice::U8(codes) => totals.add(groups, codes, weights, weight_max),
                Slice::U16(codes) => totals.add(groups, codes, weights, weight_max),
                Slice::U32(codes) => totals.add(groups, codes, weights, weight_max),
            },
            What::Max(packed) => match codes_at(packed.codes, rows, out) {
                Slice::U8(codes) => totals.choose::<_, true>(groups, codes),
                Slice::U16(codes) => totals.choose::<_, true>(groups, codes),
                Slice::U32(codes) => totals.choose::<_, true>(groups, codes),
            },
            What::Min(packed) => match codes_at(packed.codes, rows, out) {
                Slice::U8(codes) => totals.choose::<_, false>(groups, codes),
                Slice::U16(codes) => totals.choose::<_, false>(groups, codes),
                Slice::U32(codes) => totals.choose::<_, false>(groups, codes),
            },
        }
        let nulls = match &self.what {
            What::Sum(packed) => nulls_at(packed.validity, rows),
            What::SumListed(Listed { packed, null, .. }) => nulls_coded(packed.codes, *null, rows),
            What::Events | What::EventsOf(_) | What::Max(_) | What::Min(_) => None,
        };
        if let Some(nulls) = nulls {
            self.missing.resize(self.totals.0.len(), 0);
            count_missing(&mut self.missing, &nulls, groups, weights);
        }
    }

    /// Moves what all of a pass have found into the states of their aggregates: group `i` of these is group `used[i]`
    /// here, which has rows.
    pub(super) fn finish(all: &[CodeSums<'_>], states: &mut [States], used: &[u32]) -> Result<(), ScanError> {
        for sums in all {
            let events = match sums.what {
                What::EventsOf(place) => &all[place].totals,
                _ => &sums.totals,
            };
            let states = &mut states[sums.aggregate];
            states.resize(used.len());
            if !sums.put(states, events, used)? {
                return Err(ScanError::Evaluate("a total that its aggregate does not take".to_owned()));
            }
        }
        Ok(())
    }

    fn put(&self, states: &mut States, events: &Totals, used: &[u32]) -> Result<bool, ScanError> {
        Ok(match &self.what {
            What::Events | What::EventsOf(_) => {
                let mut events = used.iter().map(|group| events.0[*group as usize][1]).enumerate();
                events.all(|(group, events)| states.add_count(group, events.into()))
            }
            What::Sum(packed) | What::SumListed(Listed { packed, .. }) => {
                used.iter().enumerate().all(|(place, group)| {
                    let [codes, all] = self.totals.0[*group as usize];
                    let events = all - self.missing.get(*group as usize).copied().unwrap_or(0);
                    let sum = packed.sum(codes.into(), events.into());
                    states.add_sum(place, sum, packed.digits, events.into())
                })
            }
            What::Max(packed) | What::Min(packed) => {
                // A FILTER may have left a group without rows.
                let kept = used.iter().map(|group| self.totals.0[*group as usize][0]).enumerate();
                let kept = kept.filter(|(_, kept)| *kept != u64::MAX && *kept != 0);
                let (groups, values): (Vec<u32>, Vec<i64>) =
                    kept.map(|(group, kept)| (group as u32, packed.value(kept - 1))).unzip();
                let values = packed.digits.map_or(Values::Int(&values), |of| Values::Scaled(&values, of));
                let input = Input { values, validity: None, weights: Weights::One, times: &[] };
                states.update(&groups, &input)?;
                true
            }
        })
    }
}

impl<'a> Listed<'a> {
    /// `None` where they lie too far apart, or are none.
    fn of(ints: &Ints<'a>) -> Option<Listed<'a>> {
        let Ints::Dictionary { table, codes, null } = ints else { return None };
        let base = ints.least()?;
        let (_, values) = table.split_last()?;
        let distance = |value: &i64| u32::try_from(value.checked_sub(base)?).ok();
        let mut distances = values.iter().map(distance).collect::<Option<Vec<u32>>>()?;
        distances.push(0);
        let packed = Packed { base, gcd: 1, digits: None, codes, validity: None };
        Some(Listed { packed, distances, null: *null })
    }
}

impl Packed<'_> {
    fn is_whole(&self) -> bool {
        self.validity.is_none_or(|validity| validity.null_count() == 0)
    }

    pub(super) fn value(&self, code: u64) -> i64 {
        self.base.wrapping_add(self.gcd.wrapping_mul(code as i64))
    }

    /// The sum of weight × value, from that of weight × code and that of the weights.
    pub(super) fn sum(&self, codes: i128, events: i128) -> i128 {
        let bases = i128::from(self.base).saturating_mul(events);
        bases.saturating_add(i128::from(self.gcd).saturating_mul(codes))
    }
}

/// What is summed, as codes.
fn summed<'a>(argument: &Argument<'a>) -> Option<Packed<'a>> {
    match argument {
        Argument::Ints(ints) | Argument::Floats(Floats::Ints(ints)) => packed(ints, None),
        Argument::Scaled(ints, digits) => packed(ints, Some(*digits)),
        Argument::Floats(_)
        | Argument::Codes(..)
        | Argument::Computed(_)
        | Argument::ComputedFloats(_)
        | Argument::Expression(_) => None,
    }
}

/// What is compared, as codes that all stand for a value.
fn ordered<'a>(argument: &Argument<'a>) -> Option<Packed<'a>> {
    let packed = match argument {
        Argument::Ints(ints) => packed(ints, None),
        Argument::Scaled(ints, digits) => packed(ints, Some(*digits)),
        Argument::Floats(_)
        | Argument::Codes(..)
        | Argument::Computed(_)
        | Argument::ComputedFloats(_)
        | Argument::Expression(_) => None,
    };
    packed.filter(Packed::is_whole)
}

fn packed<'a>(ints: &Ints<'a>, digits: Option<u8>) -> Option<Packed<'a>> {
    match ints {
        Ints::Packed { base, gcd, codes, validity } => {
            Some(Packed { base: *base, gcd: *gcd, digits, codes, validity: *validity })
        }
        _ => None,
    }
}

/// Codes of some rows that lie next to each other.
#[derive(Debug)]
enum Slice<'s> {
    U8(&'s [u8]),
    U16(&'s [u16]),
    U32(&'s [u32]),
}

fn codes_at<'s>(codes: &'s Codes, rows: Rows<'_>, out: &'s mut Vec<u32>) -> Slice<'s> {
    match (codes, rows) {
        (Codes::U8(codes), Rows::Range { start, count }) => Slice::U8(&codes[start..start + count]),
        (Codes::U16(codes), Rows::Range { start, count }) => Slice::U16(&codes[start..start + count]),
        (Codes::U32(codes), Rows::Range { start, count }) => Slice::U32(&codes[start..start + count]),
        (Codes::U8(codes), Rows::At(_)) => {
            rows.read(codes, out, u32::from);
            Slice::U32(out)
        }
        (Codes::U16(codes), Rows::At(_)) => {
            rows.read(codes, out, u32::from);
            Slice::U32(out)
        }
        (Codes::U32(codes), Rows::At(_)) => {
            rows.read(codes, out, |code| code);
            Slice::U32(out)
        }
        // Nobody asks for these; see `code_max`.
        (Codes::U64(_), _) => Slice::U8(&[]),
    }
}

/// Adds the events of rows without value.
fn count_missing(missing: &mut [u64], nulls: &NullBuffer, groups: &[u32], weights: StretchWeights<'_>) {
    for_each_null(nulls, |row| {
        let weight = match weights {
            StretchWeights::One => 1,
            StretchWeights::Each(weights) => weights[row] as u64,
            StretchWeights::Coded(codes, table) => table[usize::from(codes[row])] as u64,
        };
        missing[groups[row] as usize] += weight;
    });
}

/// The numbers that rows add to their groups.
trait Terms {
    /// Those of four rows that follow one another, by their place among all such.
    fn four(&self, index: usize) -> [u64; LANES];
    /// That of a row.
    fn one(&self, row: usize) -> u64;
}

/// The same for all.
struct Alike(u64);

impl Terms for Alike {
    #[inline(always)]
    fn four(&self, _: usize) -> [u64; LANES] {
        [self.0; LANES]
    }

    #[inline(always)]
    fn one(&self, _: usize) -> u64 {
        self.0
    }
}

/// As they are.
struct Plain<'s>(&'s [i64]);

impl Terms for Plain<'_> {
    #[inline(always)]
    fn four(&self, index: usize) -> [u64; LANES] {
        self.0.as_chunks::<LANES>().0[index].map(|weight| weight as u64)
    }

    #[inline(always)]
    fn one(&self, row: usize) -> u64 {
        self.0[row] as u64
    }
}

/// The entries at codes.
struct Coded<'s>(&'s [u8], &'s [i64; 256]);

impl Terms for Coded<'_> {
    #[inline(always)]
    fn four(&self, index: usize) -> [u64; LANES] {
        self.0.as_chunks::<LANES>().0[index].map(|code| self.1[usize::from(code)] as u64)
    }

    #[inline(always)]
    fn one(&self, row: usize) -> u64 {
        self.1[usize::from(self.0[row])] as u64
    }
}

/// A code, and all bits of two.
trait Code: Copy + Into<u64> + Default + BitOr<Output = Self> {}

impl<C: Copy + Into<u64> + Default + BitOr<Output = C>> Code for C {}

/// (code + plus) × weight.
struct Products<'s, C, W> {
    codes: &'s [C],
    plus: u64,
    weights: W,
}

impl<C: Code, W: Terms> Terms for Products<'_, C, W> {
    #[inline(always)]
    fn four(&self, index: usize) -> [u64; LANES] {
        let (codes, weights) = (self.codes.as_chunks::<LANES>().0[index], self.weights.four(index));
        std::array::from_fn(|lane| (codes[lane].into() + self.plus).wrapping_mul(weights[lane]))
    }

    #[inline(always)]
    fn one(&self, row: usize) -> u64 {
        (self.codes[row].into() + self.plus).wrapping_mul(self.weights.one(row))
    }
}

/// Adds terms by group and lane.
#[inline(always)]
fn add_to_lanes(lanes: &mut Lanes, groups: &[u32], terms: &impl Terms) {
    let (fours, rest) = groups.as_chunks::<LANES>();
    for (index, four) in fours.iter().enumerate() {
        let terms = terms.four(index);
        for lane in 0..LANES {
            let total = &mut lanes[usize::from(four[lane] as u8)][lane];
            *total = total.wrapping_add(terms[lane]);
        }
    }
    for (lane, group) in rest.iter().enumerate() {
        let total = &mut lanes[usize::from(*group as u8)][lane];
        *total = total.wrapping_add(terms.one(fours.len() * LANES + lane));
    }
}

fn bits(number: u64) -> u32 {
    u64::BITS - number.leading_zeros()
}

impl Totals {
    /// Adds the events of rows.
    fn count(&mut self, groups: &[u32], weights: StretchWeights<'_>) {
        let rows = groups.len();
        match weights {
            StretchWeights::One => self.add_terms::<1>(groups, &Alike(1)),
            StretchWeights::Each(weights) => self.add_terms::<1>(groups, &Plain(&weights[..rows])),
            StretchWeights::Coded(codes, table) => {
                self.add_terms::<1>(groups, &Coded(&codes[..rows], table));
            }
        }
    }

    /// Adds weight × code of rows, and their events.
    fn add<C: Code>(&mut self, groups: &[u32], codes: &[C], weights: StretchWeights<'_>, weight_max: u64) {
        let rows = groups.len();
        let codes = &codes[..rows];
        match weights {
            StretchWeights::One => self.add_both(groups, codes, || Alike(1), weight_max),
            StretchWeights::Each(weights) => {
                let weights = &weights[..rows];
                self.add_both(groups, codes, || Plain(weights), weight_max);
            }
            StretchWeights::Coded(weights, table) => {
                let weights = &weights[..rows];
                self.add_both(groups, codes, || Coded(weights, table), weight_max);
            }
        }
    }

    #[inline(always)]
    fn add_both<C: Code, W: Terms>(
        &mut self,
        groups: &[u32],
        codes: &[C],
        weights: impl Fn() -> W,
        weight_max: u64,
    ) {
        if self.0.len() > FEW {
            let weights = weights();
            for (row, (group, code)) in groups.iter().zip(codes).enumerate() {
                let [sum, events] = &mut self.0[*group as usize];
                let (code, weight): (u64, u64) = ((*code).into(), weights.one(row));
                *sum = sum.wrapping_add(code.wrapping_mul(weight));
                *events = events.wrapping_add(weight);
            }
            return;
        }
        // No code has more bits than all of them together.
        let code_max = codes.iter().fold(C::default(), |bits, code| bits | *code).into();
        let events_max = weight_max.saturating_mul(groups.len() as u64);
        let shift = bits(code_max.saturating_mul(events_max));
        if shift + bits(events_max) > u64::BITS {
            self.add_terms::<0>(groups, &Products { codes, plus: 0, weights: weights() });
            return self.add_terms::<1>(groups, &weights());
        }
        let mut lanes = [[0; LANES]; FEW];
        add_to_lanes(&mut lanes, groups, &Products { codes, plus: 1 << shift, weights: weights() });
        for ([sum, events], lanes) in self.0.iter_mut().zip(&lanes) {
            for both in lanes {
                *sum += both & ((1 << shift) - 1);
                *events += both >> shift;
            }
        }
    }

    /// Adds terms to one of both totals of each group.
    #[inline(always)]
    fn add_terms<const PLACE: usize>(&mut self, groups: &[u32], terms: &impl Terms) {
        if self.0.len() > FEW {
            for (row, group) in groups.iter().enumerate() {
                let total = &mut self.0[*group as usize][PLACE];
                *total = total.wrapping_add(terms.one(row));
            }
            return;
        }
        let mut lanes = [[0; LANES]; FEW];
        add_to_lanes(&mut lanes, groups, terms);
        for (totals, lanes) in self.0.iter_mut().zip(&lanes) {
            lanes.iter().for_each(|total| totals[PLACE] = totals[PLACE].wrapping_add(*total));
        }
    }

    /// Keeps one more than the largest code of each group, or than the smallest: 0 and [`u64::MAX`] are none.
    fn choose<C: Code, const LARGEST: bool>(&mut self, groups: &[u32], codes: &[C]) {
        let of = |kept: u64, code: C| {
            let code = code.into() + 1;
            if LARGEST { kept.max(code) } else { kept.min(code) }
        };
        if self.0.len() > FEW {
            for (group, code) in groups.iter().zip(codes) {
                let [kept, _] = &mut self.0[*group as usize];
                *kept = of(*kept, *code);
            }
            return;
        }
        let mut lanes = [[if LARGEST { 0 } else { u64::MAX }; LANES]; FEW];
        let ((fours, rest), (codes, last)) = (groups.as_chunks::<LANES>(), codes.as_chunks::<LANES>());
        for (four, codes) in fours.iter().zip(codes) {
            for lane in 0..LANES {
                let kept = &mut lanes[usize::from(four[lane] as u8)][lane];
                *kept = of(*kept, codes[lane]);
            }
        }
        for (group, code) in rest.iter().zip(last) {
            let kept = &mut lanes[usize::from(*group as u8)][0];
            *kept = of(*kept, *code);
        }
        for ([kept, _], lanes) in self.0.iter_mut().zip(&lanes) {
            let of = |kept: u64, lane: &u64| if LARGEST { kept.max(*lane) } else { kept.min(*lane) };
            *kept = lanes.iter().fold(*kept, of);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What going row by row gives.
    fn expected(groups: &[u32], codes: &[u32], weights: &[i64], group_count: usize) -> Vec<[u64; 2]> {
        let mut totals = vec![[0, 0]; group_count];
        for ((group, code), weight) in groups.iter().zip(codes).zip(weights) {
            let [sum, events] = &mut totals[*group as usize];
            *sum += u64::from(*code) * *weight as u64;
            *events += *weight as u64;
        }
        totals
    }

    #[test]
    fn totals_are_those_of_going_row_by_row() {
        for (group_count, rows) in [(1, 3), (2, 64), (40, 4_095), (256, 4_096), (257, 4_096), (3_000, 4_096)]
        {
            let groups: Vec<u32> = (0..rows).map(|row: u32| row * row % group_count).collect();
            // From codes that share 64 bits with their events to those that leave no room.
            for (bits, weight_max) in [(8, 1), (16, 100), (24, 100), (32, 1_000), (32, 65_000)] {
                let codes: Vec<u32> =
                    (0..rows).map(|row| row.wrapping_mul(0x9e37_79b9) >> (32 - bits)).collect();
                let weights: Vec<i64> = (0..rows).map(|row| i64::from(row) * 7 % (weight_max + 1)).collect();
                let said =
                    format!("{group_count} groups, {rows} rows, {bits} bits, weights up to {weight_max}");
                let new = || Totals(vec![[0, 0]; group_count as usize]);
                let expect = expected(&groups, &codes, &weights, group_count as usize);
                let mut totals = new();
                totals.add(&groups, &codes, StretchWeights::Each(&weights), weight_max as u64);
                assert_eq!(totals.0, expect, "{said}");
                let mut totals = new();
                totals.count(&groups, StretchWeights::Each(&weights));
                assert!(totals.0.iter().zip(&expect).all(|(found, expect)| found[1] == expect[1]), "{said}");
                let table: [i64; 256] = std::array::from_fn(|code| code as i64 % (weight_max + 1));
                let coded: Vec<u8> = (0..rows).map(|row| (row * 13 % 256) as u8).collect();
                let looked_up: Vec<i64> = coded.iter().map(|code| table[usize::from(*code)]).collect();
                let mut totals = new();
                totals.add(&groups, &codes, StretchWeights::Coded(&coded, &table), weight_max as u64);
                assert_eq!(totals.0, expected(&groups, &codes, &looked_up, group_count as usize), "{said}");
                let ones = vec![1; weights.len()];
                let mut totals = new();
                totals.add(&groups, &codes, StretchWeights::One, 1);
                assert_eq!(totals.0, expected(&groups, &codes, &ones, group_count as usize), "{said}");
                let (mut most, mut least) = (new(), Totals(vec![[u64::MAX, 0]; group_count as usize]));
                let (mut largest, mut smallest) = (most.0.clone(), least.0.clone());
                for (group, code) in groups.iter().zip(&codes) {
                    let (largest, smallest) =
                        (&mut largest[*group as usize][0], &mut smallest[*group as usize][0]);
                    *largest = (*largest).max(u64::from(*code) + 1);
                    *smallest = (*smallest).min(u64::from(*code) + 1);
                }
                most.choose::<_, true>(&groups, &codes);
                least.choose::<_, false>(&groups, &codes);
                assert_eq!((most.0, least.0), (largest, smallest), "{said}");
            }
        }
    }

    #[test]
    fn rows_without_value_are_counted_by_themselves() {
        for rows in [1_usize, 63, 64, 65, 200] {
            let nulls: NullBuffer = (0..rows).map(|row| row % 3 != 1).collect();
            let groups: Vec<u32> = (0..rows as u32).map(|row| row % 2).collect();
            let codes: Vec<u8> = (0..rows).map(|row| row as u8).collect();
            let table: [i64; 256] = std::array::from_fn(|code| code as i64 * 5 + 1);
            let each: Vec<i64> = codes.iter().map(|code| table[usize::from(*code)]).collect();
            for (weights, weight) in [
                (StretchWeights::One, [1].repeat(rows)),
                (StretchWeights::Each(&each), each.clone()),
                (StretchWeights::Coded(&codes, &table), each.clone()),
            ] {
                let mut missing = [3, 4];
                count_missing(&mut missing, &nulls, &groups, weights);
                let of = |group: usize| (0..rows).filter(move |row| row % 3 == 1 && row % 2 == group);
                let sum = |group: usize| of(group).map(|row| weight[row] as u64).sum::<u64>();
                assert_eq!(missing, [3 + sum(0), 4 + sum(1)], "{rows} rows, {weights:?}");
            }
        }
    }

    #[test]
    fn columns_that_could_leave_64_bits_are_left_alone() {
        let codes = Codes::U32(vec![1, 2].into());
        let argument = |gcd| Argument::Ints(Ints::Packed { base: 0, gcd, codes: &codes, validity: None });
        let weight = |weight| RowWeights::Ints(Ints::Constant(Some(weight)));
        let takes = |weight: &RowWeights<'_>, rows| {
            CodeSums::of((0, &AggregateFunction::Sum), Some(&argument(1)), Some(weight), (1, rows)).is_some()
        };
        assert!(takes(&weight(65_535), 65_536) && !takes(&weight(65_537), 65_536));
        assert!(takes(&weight(0), 1) && !takes(&weight(-1), 1));
        let wide = Codes::U64(vec![1, 2].into());
        let argument = Argument::Ints(Ints::Packed { base: 0, gcd: 1, codes: &wide, validity: None });
        assert!(CodeSums::of((0, &AggregateFunction::Sum), Some(&argument), None, (1, 2)).is_none());
    }
}
