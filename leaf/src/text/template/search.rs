//! Tests of text on words and literals instead of values.
//!
//! The test is an automaton that reads each shape field by field, for all rows at once. Before a field, rows are in one
//! of few states. For a field of words or of small numbers, the next state is a table over state and code, made once and
//! looked up for each row; for a literal, or where no value of the field makes a difference, the states just change.
//! Tables are minimised from the end: states that lead to the same answers become one, and a field that no longer makes a
//! difference is not looked at. What has no table is read row by row.

use arrow::buffer::BooleanBuffer;

use super::super::TextTest;
use super::automaton::{Automaton, Idle};
use super::bits::Sub;
use super::{DIGITS_MAX, Field, Kind, Shape, Template, format};
use crate::vectors::{pack_bits, pack_words, vectorized};

/// For fewer rows, making tables does not pay.
const ROWS_MIN: usize = 256;
/// States are bytes.
const STATES_MAX: usize = 255;
/// Largest table of a field.
const TABLE_MAX: usize = 1 << 18;
/// Codes that are unpacked at once.
const VECTOR: usize = 1_024;

/// What became of the rows of a shape.
enum Outcome {
    All(bool),
    /// 1 for each row that passes, 0 for the others.
    Each(Vec<u8>),
}

/// The rows that are asked about.
#[derive(Debug, Clone, Copy)]
pub(in super::super) enum Asked<'a> {
    All,
    /// Those whose bits are set; the others do not pass.
    Among(&'a BooleanBuffer),
    /// By position.
    At(&'a [u32]),
}

/// One bit for each row, or for each of those at positions: whether it passes.
pub(super) fn matches(template: &Template, test: &TextTest, asked: Asked<'_>) -> BooleanBuffer {
    let count = match asked {
        Asked::All => template.row_count,
        Asked::Among(bits) => bits.count_set_bits(),
        Asked::At(positions) => positions.len(),
    };
    let automaton = if count < ROWS_MIN { None } else { Automaton::new(test) };
    automaton
        .and_then(|automaton| by_shape(template, &automaton, asked))
        .unwrap_or_else(|| by_decoding(template, test, asked))
}

/// As [`matches`], one shape after the other; `None` where that does not work.
fn by_shape(template: &Template, automaton: &Automaton, asked: Asked<'_>) -> Option<BooleanBuffer> {
    let among: Option<Vec<u64>> = match asked {
        Asked::Among(bits) => Some(bits.bit_chunks().iter_padded().collect()),
        Asked::All | Asked::At(_) => None,
    };
    let (shapes, ranks) = match asked {
        Asked::At(positions) => {
            let (shapes, ranks) = locate(template, positions)?;
            (shapes, Some(ranks))
        }
        Asked::All | Asked::Among(_) => {
            let shapes = shapes(template);
            let ranks = among.as_ref().map(|among| locate_among(template, &shapes, among));
            (shapes, ranks)
        }
    };
    let idle = automaton.idle();
    let mut outcomes = Vec::with_capacity(template.shapes.len());
    for (index, shape) in template.shapes.iter().enumerate() {
        let ranks = ranks.as_ref().map(|ranks| &ranks[index][..]);
        let count = ranks.map_or(shape.row_count, <[u32]>::len);
        outcomes.push(Run::new(template, (automaton, idle.as_ref()), ranks, count).over(shape)?);
    }
    if let (Asked::All, [only]) = (asked, &outcomes[..]) {
        return Some(only.bits(template.row_count));
    }
    Some(BooleanBuffer::new(passing(&outcomes, &shapes, among.as_deref()).into(), 0, shapes.len()))
}

/// The shape of each row.
pub(super) fn shapes(template: &Template) -> Vec<u8> {
    let mut shapes = vec![0; template.row_count];
    let Some(which) = template.which else { return shapes };
    let codes = &template.codes[..];
    let all = &mut shapes[..];
    vectorized(
        #[inline(always)]
        move || {
            let mut unpacked = [0_u32; VECTOR];
            for (index, shapes) in all.chunks_mut(VECTOR).enumerate() {
                which.shapes.unpack(codes, index * VECTOR, &mut unpacked[..shapes.len()]);
                // There are at most 255.
                shapes.iter_mut().zip(&unpacked).for_each(|(shape, unpacked)| *shape = *unpacked as u8);
            }
        },
    );
    shapes
}

/// Of each shape which of its rows have their bit set.
fn locate_among(template: &Template, shapes: &[u8], among: &[u64]) -> Vec<Vec<u32>> {
    let of_shape = |shape: u8| {
        let rows = pack_words(shapes, move |other| other == shape);
        vectorized(
            #[inline(always)]
            move || ranks(&rows, among),
        )
    };
    (0_u8..).zip(&template.shapes).map(|(shape, _)| of_shape(shape)).collect()
}

/// The rank of each row of a shape that is asked about.
#[inline(always)]
fn ranks(rows: &[u64], among: &[u64]) -> Vec<u32> {
    let (mut ranks, mut before) = (Vec::new(), 0);
    for (rows, asked) in rows.iter().zip(among) {
        let mut wanted = rows & asked;
        while wanted != 0 {
            let lowest = wanted & wanted.wrapping_neg();
            ranks.push(before + (rows & (lowest - 1)).count_ones());
            wanted ^= lowest;
        }
        before += rows.count_ones();
    }
    ranks
}

/// The shape of each row, and of each shape which of its rows they are; `None` when there is no such shape.
pub(super) fn locate(template: &Template, positions: &[u32]) -> Option<(Vec<u8>, Vec<Vec<u32>>)> {
    let mut shapes = Vec::with_capacity(positions.len());
    let mut ranks: Vec<Vec<u32>> = vec![Vec::new(); template.shapes.len()];
    let mut reader = template.reader();
    for position in positions {
        let (shape, rank) = reader.locate(*position as usize);
        ranks.get_mut(shape)?.push(rank as u32);
        shapes.push(shape as u8);
    }
    Some((shapes, ranks))
}

/// One bit for each of these rows, from what became of each shape; of rows whose bits are set, if only some are asked
/// about.
fn passing(outcomes: &[Outcome], shapes: &[u8], among: Option<&[u64]>) -> Vec<u64> {
    let mut words = vec![0; shapes.len().div_ceil(64)];
    for (shape, outcome) in (0_u8..).zip(outcomes).filter(|(_, outcome)| outcome.has_some()) {
        let rows = pack_words(shapes, move |other| other == shape);
        let words = &mut words[..];
        vectorized(
            #[inline(always)]
            move || {
                let mut next = 0;
                for (index, (word, rows)) in words.iter_mut().zip(rows).enumerate() {
                    let asked = among.map_or(u64::MAX, |among| among[index]);
                    *word |= outcome.take(rows & asked, &mut next).to_le();
                }
            },
        );
    }
    words
}

fn by_decoding(template: &Template, test: &TextTest, asked: Asked<'_>) -> BooleanBuffer {
    let mut reader = template.reader();
    let mut value = Vec::new();
    let mut passes = |row: usize| {
        value.clear();
        reader.append(row, &mut value);
        std::str::from_utf8(&value).is_ok_and(|value| test.passes(value))
    };
    match asked {
        Asked::All => BooleanBuffer::collect_bool(template.row_count, passes),
        Asked::Among(bits) => {
            BooleanBuffer::collect_bool(template.row_count, |row| bits.value(row) && passes(row))
        }
        Asked::At(rows) => BooleanBuffer::collect_bool(rows.len(), |place| passes(rows[place] as usize)),
    }
}

impl Outcome {
    /// Of the next rows of the shape, which are at these bits, the bits of those that pass; `next` says how many rows came
    /// before.
    #[inline(always)]
    fn take(&self, mut rows: u64, next: &mut usize) -> u64 {
        let Outcome::Each(outcome) = self else { return rows };
        let count = rows.count_ones() as usize;
        let outcome = outcome.get(*next..*next + count).unwrap_or_default();
        *next += count;
        if memchr::memchr(1, outcome).is_none() {
            return 0;
        }
        let mut passing = 0;
        for passes in outcome {
            let lowest = rows & rows.wrapping_neg();
            passing |= if *passes != 0 { lowest } else { 0 };
            rows ^= lowest;
        }
        passing
    }

    /// Whether some row passes.
    fn has_some(&self) -> bool {
        match self {
            Outcome::All(passes) => *passes,
            Outcome::Each(rows) => memchr::memchr(1, rows).is_some(),
        }
    }

    fn bits(&self, count: usize) -> BooleanBuffer {
        match self {
            Outcome::All(true) => BooleanBuffer::new_set(count),
            Outcome::All(false) => BooleanBuffer::new_unset(count),
            Outcome::Each(rows) => pack_bits(&rows[..count], |passes| passes != 0),
        }
    }
}

/// What a part of a shape does to states.
struct Step {
    /// The next state at `state << bits | code`, as an index.
    next: Vec<u8>,
    /// Absent where the code makes no difference.
    codes: Option<Sub>,
}

impl Step {
    fn bits(&self) -> usize {
        self.codes.map_or(0, |codes| usize::from(codes.bits()))
    }
}

/// Reading the rows of a shape.
struct Run<'a> {
    template: &'a Template,
    automaton: &'a Automaton,
    idle: Option<&'a Idle<'a>>,
    /// Which rows of the shape, all without it.
    ranks: Option<&'a [u32]>,
    count: usize,
    /// The states that rows may be in now.
    states: Vec<u16>,
    /// For each row the index of its state before the first of `steps`; the first state for all without it.
    rows: Option<Vec<u8>>,
    /// What was not done to the rows yet.
    steps: Vec<Step>,
}

impl<'a> Run<'a> {
    fn new(
        template: &'a Template,
        (automaton, idle): (&'a Automaton, Option<&'a Idle<'a>>),
        ranks: Option<&'a [u32]>,
        count: usize,
    ) -> Run<'a> {
        Run { template, automaton, idle, ranks, count, states: vec![0], rows: None, steps: Vec::new() }
    }

    /// `None` when there are too many states.
    fn over(mut self, shape: &Shape) -> Option<Outcome> {
        for (index, literal) in shape.literals.iter().enumerate() {
            let after: Vec<u16> =
                self.states.iter().map(|state| self.automaton.read(*state, literal)).collect();
            self.change(&after)?;
            if let Some(field) = shape.fields.get(index) {
                self.field(field)?;
            }
        }
        let accepts: Vec<u8> =
            self.states.iter().map(|state| u8::from(self.automaton.accepts(*state))).collect();
        let first = self.flush(accepts);
        Some(match self.rows {
            Some(rows) => Outcome::Each(rows),
            None => Outcome::All(first != 0),
        })
    }

    /// Every state becomes the one at its index.
    fn change(&mut self, after: &[u16]) -> Option<()> {
        let mut states = Vec::new();
        let next = after.iter().map(|state| intern(&mut states, *state)).collect::<Option<Vec<u8>>>()?;
        self.steps.push(Step { next, codes: None });
        self.states = states;
        Some(())
    }

    fn field(&mut self, field: &Field) -> Option<()> {
        let fixed: Vec<Option<u16>> = self.states.iter().map(|state| self.fixed(field, *state)).collect();
        if fixed.iter().all(Option::is_some) {
            let after: Vec<u16> = fixed.into_iter().flatten().collect();
            return self.change(&after);
        }
        let bits = usize::from(field.codes.bits());
        let (code_count, is_cheap) = match &field.kind {
            Kind::Words { count, .. } => (*count, *count <= self.count),
            Kind::Number { .. } => (1_usize.checked_shl(bits as u32).unwrap_or(usize::MAX), bits <= 12),
            Kind::Plain { .. } => (0, false),
        };
        if is_cheap && bits <= 16 && self.states.len() << bits <= TABLE_MAX {
            self.table(field, code_count.min(1 << bits), &fixed)
        } else {
            self.by_row(field, &fixed)
        }
    }

    /// The state after this field, where it is the same for all values.
    fn fixed(&self, field: &Field, state: u16) -> Option<u16> {
        if self.automaton.is_final(state) {
            return Some(state);
        }
        let facts = field.facts(&self.template.codes, &self.template.text);
        self.automaton.read_any(state, facts.bytes, facts.has_empty)
    }

    /// The pieces of a field's text that have all of what is looked for first.
    fn having(&self, field: &Field) -> Vec<u32> {
        let (Some(idle), Kind::Words { ends, bytes, .. } | Kind::Plain { ends, bytes }) =
            (self.idle, &field.kind)
        else {
            return Vec::new();
        };
        ends.having(idle.finder(), &self.template.codes, &self.template.text, *bytes)
    }

    fn table(&mut self, field: &Field, code_count: usize, fixed: &[Option<u16>]) -> Option<()> {
        let bits = field.codes.bits();
        let mut next = vec![0_u8; self.states.len() << bits];
        let mut states = Vec::new();
        let mut digits = [0; DIGITS_MAX];
        let Template { codes, text, .. } = self.template;
        let having = self.having(field);
        let mut having = having.iter().peekable();
        for code in 0..code_count {
            let (value, has) = match &field.kind {
                // What is found in digits is found by reading them.
                Kind::Number { width, base } => {
                    (format(base.wrapping_add(code as u64), *width, &mut digits), true)
                }
                Kind::Words { ends, .. } | Kind::Plain { ends, .. } => {
                    (ends.get(codes, text, code), having.next_if(|piece| **piece as usize == code).is_some())
                }
            };
            let idle = self
                .idle
                .map(|idle| (idle, if has { self.automaton.read(0, value) } else { idle.read(value) }));
            for (index, state) in self.states.iter().enumerate() {
                let after = match (fixed[index], idle) {
                    (Some(after), _) => after,
                    (None, Some((_, after))) if *state == 0 => after,
                    (None, Some((idle, after))) => self.automaton.read_beside(*state, value, idle, after),
                    (None, None) => self.automaton.read(*state, value),
                };
                next[index << bits | code] = intern(&mut states, after)?;
            }
        }
        if states.is_empty() {
            // No words, as no row has any: any state does.
            states.push(0);
        }
        self.steps.push(Step { next, codes: Some(field.codes) });
        self.states = states;
        Some(())
    }

    fn by_row(&mut self, field: &Field, fixed: &[Option<u16>]) -> Option<()> {
        let all: Vec<u8> = (0..self.states.len()).map(|index| index as u8).collect();
        let first = self.flush(all);
        let mut rows = self.rows.take().unwrap_or_else(|| vec![first; self.count]);
        let mut states = Vec::new();
        let mut digits = [0; DIGITS_MAX];
        let mut numbers = Numbers { automaton: self.automaton, tables: Vec::new() };
        let Template { codes, text, .. } = self.template;
        // The pieces of plain text are those of the rows.
        let idle = self.idle.filter(|_| matches!(field.kind, Kind::Plain { .. }) && self.ranks.is_none());
        let having = idle.map(|_| self.having(field)).unwrap_or_default();
        let mut having = having.iter().peekable();
        for (place, row) in rows.iter_mut().enumerate() {
            let index = usize::from(*row);
            let has = having.next_if(|piece| **piece as usize == place).is_some();
            let after = fixed[index].unwrap_or_else(|| {
                let state = self.states[index];
                let rank = self.ranks.map_or(place, |ranks| ranks[place] as usize);
                if let Kind::Number { width: 0..=1, base } = field.kind {
                    return numbers.read(state, base.wrapping_add(field.codes.get(codes, rank)));
                }
                let value = field.get(rank, codes, text, &mut digits);
                match idle {
                    Some(idle) if state == 0 && !has => idle.read(value),
                    _ => self.automaton.read(state, value),
                }
            });
            *row = intern(&mut states, after)?;
        }
        if states.is_empty() {
            // No rows at all: any state does.
            states.push(0);
        }
        self.states = states;
        self.rows = Some(rows);
        Some(())
    }

    /// Does all steps. Each state becomes its class; the class of the first is returned, for where there are no rows.
    fn flush(&mut self, mut classes: Vec<u8>) -> u8 {
        let mut steps = Vec::new();
        for mut step in std::mem::take(&mut self.steps).into_iter().rev() {
            step.next.iter_mut().for_each(|next| *next = classes[usize::from(*next)]);
            let bits = step.bits();
            let by_state: Vec<&[u8]> = step.next.chunks(1 << bits).collect();
            if by_state.iter().all(|codes| codes.iter().all(|next| *next == codes[0])) {
                classes = by_state.iter().map(|codes| codes[0]).collect();
                continue;
            }
            let mut distinct: Vec<&[u8]> = Vec::new();
            classes = by_state
                .iter()
                .map(|codes| {
                    let known = distinct.iter().position(|other| other == codes);
                    known.unwrap_or_else(|| {
                        distinct.push(codes);
                        distinct.len() - 1
                    }) as u8
                })
                .collect();
            let next = distinct.concat();
            steps.push(Step { next, codes: step.codes });
        }
        let mut first = classes[0];
        if let Some(rows) = &mut self.rows {
            rows.iter_mut().for_each(|row| *row = classes[usize::from(*row)]);
        }
        for step in steps.iter().rev() {
            self.look_up(step, first);
            first = 0;
        }
        first
    }

    /// Replaces the states of rows by those after a step.
    fn look_up(&mut self, step: &Step, first: u8) {
        let Some(codes) = step.codes else { return };
        let bits = codes.bits();
        let bytes = &self.template.codes[..];
        let known = self.rows.is_some();
        let mut rows = self.rows.take().unwrap_or_else(|| vec![first; self.count]);
        let all = &step.next[usize::from(if known { 0 } else { first }) << bits..];
        let ranks = self.ranks;
        vectorized(
            #[inline(always)]
            || {
                let mut unpacked = [0_u32; VECTOR];
                for (index, rows) in rows.chunks_mut(VECTOR).enumerate() {
                    match ranks {
                        Some(ranks) => {
                            let ranks = &ranks[index * VECTOR..];
                            unpacked.iter_mut().zip(ranks).for_each(|(code, rank)| {
                                *code = codes.get(bytes, *rank as usize) as u32;
                            });
                        }
                        None => codes.unpack(bytes, index * VECTOR, &mut unpacked[..rows.len()]),
                    }
                    if known {
                        rows.iter_mut().zip(&unpacked).for_each(|(row, code)| {
                            *row = all[usize::from(*row) << bits | *code as usize];
                        });
                    } else {
                        rows.iter_mut().zip(&unpacked).for_each(|(row, code)| *row = all[*code as usize]);
                    }
                }
            },
        );
        self.rows = Some(rows);
    }
}

/// Reads numbers three digits at a time.
struct Numbers<'a> {
    automaton: &'a Automaton,
    /// For each state that was read from: the state after each number below 1,000 as it is written, and after those
    /// with three digits all.
    tables: Vec<(u16, Vec<[u16; 2]>)>,
}

impl Numbers<'_> {
    /// The state after a number without zeros before it.
    fn read(&mut self, state: u16, number: u64) -> u16 {
        if number < 1_000 {
            return self.after(state, number, 0);
        }
        let before = self.read(state, number / 1_000);
        self.after(before, number % 1_000, 1)
    }

    fn after(&mut self, state: u16, part: u64, form: usize) -> u16 {
        if self.automaton.is_final(state) {
            return state;
        }
        if let Some((_, table)) = self.tables.iter().find(|(from, _)| *from == state) {
            return table[part as usize][form];
        }
        let mut digits = [0; DIGITS_MAX];
        let mut read = |part, width| self.automaton.read(state, format(part, width, &mut digits));
        let table: Vec<[u16; 2]> = (0..1_000).map(|part| [read(part, 1), read(part, 3)]).collect();
        let after = table[part as usize][form];
        self.tables.push((state, table));
        after
    }
}

/// The index of a state, which is added where it is new; `None` when there are too many.
#[inline]
fn intern(states: &mut Vec<u16>, state: u16) -> Option<u8> {
    if let Some(index) = states.iter().position(|known| *known == state) {
        return Some(index as u8);
    }
    states.push(state);
    (states.len() <= STATES_MAX).then_some(states.len() as u8 - 1)
}
