//! Finds shapes and the best form of each field, and writes them.

use arrow::array::{Array, StringArray};
use arrow::buffer::Buffer;
use hashbrown::{HashMap, HashSet};

use super::super::{Form, TEXT_BYTES_MAX, TextParts};
use super::bits::{self, bits_for, write, write_ends};
use super::cut::{Level, MARK, Span, cut};
use super::{DIGITS_MAX, FIELDS_MAX, NUMBER, PLAIN, WORDS, sample_step};

/// Values that are looked at before all are.
const SAMPLE: usize = 1_000;
/// More shapes than this are not stored, and one more for the values of the others.
const SHAPES_KEPT: usize = 63;
/// More keys than this are not told apart.
const KEYS_MAX: usize = 4_096;
/// A shape is kept for one row in this many, and for at least this many rows.
const SHARE: usize = 2_000;
const ROWS_MIN: usize = 16;
/// Longest word of a dictionary in bytes.
const WORD_BYTES_MAX: usize = 4_096;
/// Numbers of more digits are text.
const NUMBER_DIGITS_MAX: usize = 18;
/// Where words are expected to repeat, they do so within this many values.
const LOOK_AHEAD: usize = 4_096;
/// Longest text in bytes: any more, and what it decodes to is not bounded cheaply.
const BYTES_MAX: usize = 100 << 20;

/// Rows whose values share the text between fields.
struct Group {
    key: Vec<u8>,
    rows: Vec<u32>,
    /// The fields of one row after another.
    fields: Vec<Span>,
}

/// How a field's values are stored.
enum Column {
    Number {
        prefix: Vec<u8>,
        width: usize,
        base: u64,
        bits: u8,
        codes: Vec<u64>,
    },
    Words {
        words: Vec<Span>,
        codes: Vec<u32>,
    },
    Plain(Vec<Span>),
    /// Fields of its own, with literals around them.
    Inline(Shape),
}

/// A shape to be written.
struct Shape {
    literals: Vec<Vec<u8>>,
    fields: Vec<Column>,
}

/// Stores text as shapes and fields, if there are few shapes and it is much smaller than plain.
pub fn encode(array: &StringArray) -> Option<TextParts> {
    let row_count = array.len();
    let offsets = array.value_offsets();
    let text_bytes = (offsets[row_count] - offsets[0]) as usize;
    if array.null_count() == row_count || text_bytes > BYTES_MAX {
        return None;
    }
    let sample: Vec<u32> =
        (0..row_count).step_by((row_count / SAMPLE).max(1)).map(|row| row as u32).collect();
    let source = Source { array, text: array.value_data() };
    let plain: usize = sample.iter().map(|row| array.value_length(*row as usize) as usize + 4).sum();
    let (mut cost, mut level) = (source.estimate(&sample, Level::Fine), Level::Fine);
    // Where fine fields take a sixth, coarse ones are not tried.
    if cost * 6 > plain {
        let coarse = source.estimate(&sample, Level::Coarse);
        if coarse < cost {
            (cost, level) = (coarse, Level::Coarse);
        }
    }
    if cost * 10 > plain * 6 {
        return None;
    }
    encode_at(array, level)
}

/// Stores text as the shapes and fields of one way to cut it.
pub(super) fn encode_at(array: &StringArray, level: Level) -> Option<TextParts> {
    let source = Source { array, text: array.value_data() };
    source.write(source.groups((0..array.len() as u32).collect(), level), level)
}

struct Source<'a> {
    array: &'a StringArray,
    text: &'a [u8],
}

impl Source<'_> {
    fn span(&self, row: u32) -> Span {
        let offsets = self.array.value_offsets();
        (offsets[row as usize] as u32, offsets[row as usize + 1] as u32)
    }

    fn bytes(&self, (start, end): Span) -> &[u8] {
        &self.text[start as usize..end as usize]
    }

    /// Bytes that some rows would take, without those for the shapes of rows.
    fn estimate(&self, sample: &[u32], level: Level) -> usize {
        let groups = self.groups(sample.to_vec(), level);
        groups
            .iter()
            .map(|group| {
                let shape = self.shape(group, level);
                let literals: usize = shape.literals.iter().map(Vec::len).sum();
                // A literal stands for many rows, of which few are in the sample.
                literals / 64 + shape.fields.iter().map(|field| self.cost(field)).sum::<usize>()
            })
            .sum()
    }

    /// Rows by shape, the most common first, and last the rows of rare ones under an empty key with one field.
    fn groups(&self, rows: Vec<u32>, level: Level) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        let mut by_key: HashMap<Vec<u8>, usize> = HashMap::new();
        let (mut key, mut fields) = (Vec::new(), Vec::new());
        let mut rest = Group { key: vec![MARK], rows: Vec::new(), fields: Vec::new() };
        let mut last = usize::MAX;
        let row_count = rows.len();
        for row in rows {
            if self.array.is_null(row as usize) {
                // Takes what the row before it has, or no text at all.
                match groups.get_mut(last) {
                    Some(group) => {
                        let again = group.fields.len() - field_count(&group.key)..group.fields.len();
                        group.fields.extend_from_within(again);
                        group.rows.push(row);
                    }
                    None => rest.rows.push(row),
                }
                continue;
            }
            fields.clear();
            cut(self.text, self.span(row), level, &mut key, &mut fields);
            if groups.get(last).is_none_or(|group| group.key != key) {
                last = match by_key.get(&key) {
                    Some(index) => *index,
                    None if groups.len() < KEYS_MAX && fields.len() <= FIELDS_MAX => {
                        by_key.insert(key.clone(), groups.len());
                        groups.push(Group { key: key.clone(), rows: Vec::new(), fields: Vec::new() });
                        groups.len() - 1
                    }
                    None => usize::MAX,
                };
            }
            let Some(group) = groups.get_mut(last) else {
                rest.rows.push(row);
                continue;
            };
            group.rows.push(row);
            group.fields.extend_from_slice(&fields);
        }
        groups.sort_by_key(|group| std::cmp::Reverse(group.rows.len()));
        let enough = (row_count / SHARE).max(ROWS_MIN.min(row_count / 64));
        let kept = groups.iter().take(SHAPES_KEPT).take_while(|group| group.rows.len() >= enough).count();
        groups.drain(kept..).for_each(|group| rest.rows.extend(group.rows));
        if !rest.rows.is_empty() {
            rest.rows.sort_unstable();
            rest.fields = rest.rows.iter().map(|row| self.span(*row)).collect();
            groups.push(rest);
        }
        groups
    }

    /// The literals and fields of a group.
    fn shape(&self, group: &Group, level: Level) -> Shape {
        let count = field_count(&group.key);
        let mut shape = Shape { literals: vec![Vec::new()], fields: Vec::new() };
        let mut values = Vec::with_capacity(group.rows.len());
        let mut index = 0;
        for byte in &group.key {
            if *byte != MARK {
                shape.push_literal(&[*byte]);
                continue;
            }
            let mut fields = group.fields.iter().skip(index).step_by(count);
            index += 1;
            let first = fields.next().map_or(&[][..], |value| self.bytes(*value));
            if fields.all(|value| self.bytes(*value) == first) {
                shape.push_literal(first);
                continue;
            }
            values.clear();
            values.extend(group.fields.iter().skip(index - 1).step_by(count));
            let mut column = self.column(&values);
            if level == Level::Coarse && matches!(column, Column::Words { .. } | Column::Plain(_)) {
                column = self.inline(&values, column);
            }
            shape.push(column);
        }
        shape
    }

    /// A column cut finer, where that is smaller and all values have one shape.
    fn inline(&self, values: &[Span], column: Column) -> Column {
        let (mut first, mut key, mut fields) = (Vec::new(), Vec::new(), Vec::new());
        for (index, value) in values.iter().enumerate() {
            cut(self.text, *value, Level::Fine, &mut key, &mut fields);
            if index == 0 {
                first = key.clone();
            } else if first != key {
                return column;
            }
        }
        if field_count(&first) < 2 || field_count(&first) > 32 {
            return column;
        }
        let group = Group { key: first, rows: (0..values.len() as u32).collect(), fields };
        let finer = Column::Inline(self.shape(&group, Level::Fine));
        if self.cost(&finer) < self.cost(&column) { finer } else { column }
    }

    /// The best form of some values, which are not all the same.
    fn column(&self, values: &[Span]) -> Column {
        let first = values.first().map_or(&[][..], |value| self.bytes(*value));
        let number = self.numbers(values, first);
        if let Some(Column::Number { bits, codes, .. }) = &number {
            let seen: HashSet<u64> = codes.iter().take(1_024).copied().collect();
            if *bits <= 10 || seen.len() > 128 {
                return number.unwrap_or_else(|| Column::Plain(values.to_vec()));
            }
        }
        let words = self.words(values);
        let plain = || Column::Plain(values.to_vec());
        let text = words.filter(|words| number.is_some() || self.cost(words) < self.cost(&plain()));
        match (number, text) {
            (Some(number), Some(text)) if self.cost(&text) < self.cost(&number) => text,
            (Some(number), _) => number,
            (None, text) => text.unwrap_or_else(plain),
        }
    }

    /// Values as numbers behind a prefix that all have, if there is one way to write them.
    fn numbers(&self, values: &[Span], first: &[u8]) -> Option<Column> {
        let letters = first.iter().position(u8::is_ascii_digit)?;
        let prefix = &first[..letters];
        let mut numbers = Vec::with_capacity(values.len());
        let (mut padded, mut shortest) = (1, usize::MAX);
        let (mut min, mut max) = (u64::MAX, 0);
        for value in values {
            let digits = self.bytes(*value).strip_prefix(prefix)?;
            if digits.is_empty() || digits.len() > NUMBER_DIGITS_MAX {
                return None;
            }
            let mut number = 0_u64;
            for digit in digits {
                if !digit.is_ascii_digit() {
                    return None;
                }
                number = number * 10 + u64::from(digit - b'0');
            }
            if digits[0] == b'0' && digits.len() > 1 {
                if padded > 1 && padded != digits.len() {
                    return None;
                }
                padded = digits.len();
            }
            shortest = shortest.min(digits.len());
            min = min.min(number);
            max = max.max(number);
            numbers.push(number);
        }
        if shortest < padded {
            return None;
        }
        numbers.iter_mut().for_each(|number| *number -= min);
        let bits = bits_for(max - min);
        Some(Column::Number { prefix: prefix.to_vec(), width: padded, base: min, bits, codes: numbers })
    }

    /// Values as codes of distinct sorted words, unless few repeat.
    fn words(&self, values: &[Span]) -> Option<Column> {
        let mut by_word: HashMap<&[u8], u32> = HashMap::new();
        let mut words = Vec::new();
        let mut codes = Vec::with_capacity(values.len());
        for (index, value) in values.iter().enumerate() {
            let word = self.bytes(*value);
            if word.len() > WORD_BYTES_MAX || (index == LOOK_AHEAD && words.len() > LOOK_AHEAD / 5 * 4) {
                return None;
            }
            codes.push(*by_word.entry(word).or_insert_with(|| {
                words.push(*value);
                words.len() as u32 - 1
            }));
        }
        let mut order: Vec<u32> = (0..words.len() as u32).collect();
        order.sort_unstable_by_key(|index| self.bytes(words[*index as usize]));
        let mut ranks = vec![0; words.len()];
        order.iter().enumerate().for_each(|(rank, index)| ranks[*index as usize] = rank as u32);
        codes.iter_mut().for_each(|code| *code = ranks[*code as usize]);
        let words = order.iter().map(|index| words[*index as usize]).collect();
        Some(Column::Words { words, codes })
    }

    /// Bytes that a column takes, about.
    fn cost(&self, column: &Column) -> usize {
        // A piece of text has an end, of perhaps ten bits.
        let text = |pieces: &[Span]| {
            pieces.iter().map(|(start, end)| (end - start) as usize).sum::<usize>() + pieces.len() * 5 / 4
        };
        match column {
            Column::Number { bits, codes, .. } => codes.len() * usize::from(*bits) / 8,
            Column::Words { words, codes } => text(words) + codes.len() * usize::from(word_bits(words)) / 8,
            Column::Plain(values) => text(values),
            Column::Inline(shape) => shape.fields.iter().map(|field| self.cost(field)).sum(),
        }
    }

    fn write(&self, groups: Vec<Group>, level: Level) -> Option<TextParts> {
        let row_count = self.array.len();
        let mut parts = Writer { directory: Vec::new(), text: Vec::new(), codes: Vec::new(), decoded: 0 };
        parts.number(groups.len() as u64);
        if groups.len() > 1 {
            parts.which(&groups, row_count);
        }
        for group in groups {
            let shape = self.shape(&group, level);
            if shape.fields.len() > FIELDS_MAX {
                return None;
            }
            parts.number(group.rows.len() as u64);
            parts.number(shape.fields.len() as u64);
            parts.literal(&shape.literals[0], group.rows.len());
            for (field, literal) in shape.fields.iter().zip(&shape.literals[1..]) {
                self.write_field(field, &group, &mut parts);
                parts.literal(literal, group.rows.len());
            }
        }
        parts.codes.extend_from_slice(&[0; bits::PAD]);
        let buffers = [parts.directory, parts.text, parts.codes].map(Buffer::from_vec).to_vec();
        let fits = parts.decoded <= TEXT_BYTES_MAX;
        fits.then_some(TextParts { form: Form::Template, parameter: 0, buffers })
    }

    fn write_field(&self, field: &Column, group: &Group, parts: &mut Writer) {
        let row_count = group.rows.len();
        match field {
            Column::Number { width, base, bits, codes, .. } => {
                parts.numbers(&[NUMBER, u64::from(*bits), *width as u64, *base]);
                write(codes.iter().copied(), *bits, &mut parts.codes);
                parts.decoded += (row_count * DIGITS_MAX) as u64;
            }
            Column::Words { words, codes } => {
                let bits = word_bits(words);
                parts.numbers(&[WORDS, u64::from(bits), words.len() as u64]);
                let longest = parts.pieces(words.iter().map(|word| self.bytes(*word)));
                write(codes.iter().map(|code| u64::from(*code)), bits, &mut parts.codes);
                parts.decoded += (row_count * longest) as u64;
            }
            Column::Plain(values) => {
                parts.numbers(&[PLAIN, 0]);
                let is_null = |row: u32| self.array.is_null(row as usize);
                let values = values.iter().zip(&group.rows);
                let text = values.map(|(value, row)| if is_null(*row) { &[] } else { self.bytes(*value) });
                let before = parts.text.len();
                parts.pieces(text);
                parts.decoded += (parts.text.len() - before) as u64;
            }
            // A shape has no such fields.
            Column::Inline(_) => {}
        }
    }
}

fn field_count(key: &[u8]) -> usize {
    key.iter().filter(|byte| **byte == MARK).count()
}

fn word_bits(words: &[Span]) -> u8 {
    bits_for(words.len() as u64 - 1)
}

impl Shape {
    fn push_literal(&mut self, text: &[u8]) {
        if let Some(last) = self.literals.last_mut() {
            last.extend_from_slice(text);
        }
    }

    fn push(&mut self, column: Column) {
        match column {
            Column::Inline(shape) => {
                let mut literals = shape.literals.into_iter();
                self.push_literal(&literals.next().unwrap_or_default());
                self.fields.extend(shape.fields);
                self.literals.extend(literals);
            }
            column => {
                if let Column::Number { prefix, .. } = &column {
                    self.push_literal(prefix);
                }
                self.fields.push(column);
                self.literals.push(Vec::new());
            }
        }
    }
}

struct Writer {
    directory: Vec<u8>,
    text: Vec<u8>,
    codes: Vec<u8>,
    /// At most how many bytes all rows decode to.
    decoded: u64,
}

impl Writer {
    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.directory.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.directory.push(number as u8);
    }

    fn numbers(&mut self, numbers: &[u64]) {
        numbers.iter().for_each(|number| self.number(*number));
    }

    fn literal(&mut self, text: &[u8], row_count: usize) {
        self.number(text.len() as u64);
        self.directory.extend_from_slice(text);
        self.decoded += (text.len() * row_count) as u64;
    }

    /// Appends pieces of text and returns the length of the longest.
    fn pieces<'a>(&mut self, pieces: impl Iterator<Item = &'a [u8]>) -> usize {
        let before = self.text.len();
        let lengths: Vec<usize> =
            pieces.inspect(|piece| self.text.extend_from_slice(piece)).map(<[u8]>::len).collect();
        let bits = write_ends(&lengths, &mut self.codes);
        self.number((self.text.len() - before) as u64);
        self.number(u64::from(bits));
        lengths.into_iter().max().unwrap_or(0)
    }

    fn which(&mut self, groups: &[Group], row_count: usize) {
        let mut shapes = vec![0_u8; row_count];
        for (index, group) in groups.iter().enumerate() {
            group.rows.iter().for_each(|row| shapes[*row as usize] = index as u8);
        }
        let bits = bits_for(groups.len() as u64 - 1);
        write(shapes.iter().map(|shape| u64::from(*shape)), bits, &mut self.codes);
        let mut ranks = vec![0_u64; groups.len()];
        let mut samples = Vec::new();
        for rows in shapes.chunks(sample_step(groups.len())) {
            samples.extend_from_slice(&ranks);
            rows.iter().for_each(|shape| ranks[usize::from(*shape)] += 1);
        }
        write(samples.into_iter(), bits_for(row_count as u64), &mut self.codes);
    }
}
