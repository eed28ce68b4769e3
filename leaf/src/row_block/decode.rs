//! From the buffers of an image to a column, with every check that later code relies on.
//!
//! Codes stay codes and point into the image. What is checked here holds for as long as the column lives: codes
//! lie in their dictionary, offsets ascend and lie in their text, text is UTF-8, no packed integer leaves 64 bits,
//! and no column decodes to more text than one array can hold.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, StringArray, TimestampNanosecondArray,
    new_null_array,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use gannet_query::ColumnType;

use super::layout::{ColumnMeta, Encoding};
use super::shape::list_lengths;
use crate::column::{Codes, Column, pick_validity};
use crate::packing::{unpack, unpack_at};
pub(super) use crate::text::TEXT_BYTES_MAX;
use crate::text::{BUFFERS_MAX, StoredText, TextParts, Verified};

/// The buffer that holds the validity of stored text.
pub(super) const TEXT_VALIDITY: usize = BUFFERS_MAX;
/// The buffer that holds the filter of its values.
pub(super) const TEXT_FILTER: usize = BUFFERS_MAX + 1;

/// Reads a column out of an image whose directory was checked. Of a column that was read before, what is expensive to
/// check is not checked again, and `values` are those of its dictionary.
pub(super) fn decode(
    image: &Buffer,
    meta: &ColumnMeta,
    row_count: usize,
    verified: Verified,
    values: Option<&ArrayRef>,
) -> Result<Column, String> {
    let reader = Reader { image, meta, row_count, verified, values };
    match meta.stored.encoding {
        Encoding::Null => Ok(Column::Constant(new_null_array(&meta.column_type.arrow(), 1))),
        Encoding::Constant => reader.constant(),
        Encoding::Packed => reader.packed(),
        Encoding::Dictionary => reader.dictionary(),
        Encoding::Text => reader.text(),
        Encoding::Bits => reader.bits(),
        Encoding::Floats => reader.floats(),
        Encoding::Decimal => reader.decimal(),
        Encoding::Lists => reader.lists(),
        Encoding::IntDictionary => reader.int_dictionary(),
        Encoding::FloatDictionary => reader.float_dictionary(),
        Encoding::Hex | Encoding::Template => reader.stored_text(),
    }
}

/// As [`decode`], of a column that was read before: the rows at some ascending positions, where they are found without
/// reading the others.
pub(super) fn decode_at(
    image: &Buffer,
    meta: &ColumnMeta,
    row_count: usize,
    values: Option<&ArrayRef>,
    rows: &[u32],
) -> Result<Option<Column>, String> {
    let reader = Reader { image, meta, row_count, verified: Verified::Before, values };
    let stored = &meta.stored;
    let codes = || unpack_at(&stored.packing, &reader.buffer(0), row_count, rows);
    let has_nulls = meta.null_count > 0;
    let validity =
        || -> Result<Option<NullBuffer>, String> { Ok(pick_validity(reader.validity(1)?.as_ref(), rows)) };
    Ok(Some(match stored.encoding {
        Encoding::Packed => {
            Column::Packed { base: stored.base, gcd: stored.gcd, codes: codes(), validity: validity()? }
        }
        Encoding::Decimal => Column::Decimal {
            base: stored.base,
            gcd: stored.gcd,
            digits: stored.parameter,
            codes: codes(),
            validity: validity()?,
        },
        Encoding::Dictionary => {
            Column::Dictionary { values: reader.dictionary_values(1, 2)?, codes: codes(), has_nulls }
        }
        Encoding::IntDictionary => {
            let values = ScalarBuffer::new(reader.buffer(1), 0, stored.value_count as usize);
            Column::IntDictionary { values, codes: codes(), has_nulls }
        }
        Encoding::FloatDictionary => {
            let values = ScalarBuffer::new(reader.buffer(1), 0, stored.value_count as usize);
            Column::FloatDictionary { values, codes: codes(), has_nulls }
        }
        Encoding::Null
        | Encoding::Constant
        | Encoding::Text
        | Encoding::Bits
        | Encoding::Floats
        | Encoding::Lists
        | Encoding::Hex
        | Encoding::Template => return Ok(None),
    }))
}

/// Whether a column is a view of the image, so that keeping it costs nothing.
pub(super) fn is_view(meta: &ColumnMeta) -> bool {
    match meta.stored.encoding {
        Encoding::Packed
        | Encoding::Dictionary
        | Encoding::Decimal
        | Encoding::IntDictionary
        | Encoding::FloatDictionary => meta.stored.packing.is_view(),
        Encoding::Lists => false,
        Encoding::Null
        | Encoding::Constant
        | Encoding::Text
        | Encoding::Bits
        | Encoding::Floats
        | Encoding::Hex
        | Encoding::Template => true,
    }
}

/// The values of a column's dictionary, which are a view of the image even where its codes are not.
pub(super) fn dictionary_values(column: &Column) -> Option<&ArrayRef> {
    match column {
        Column::Dictionary { values, .. } | Column::Lists { values, .. } => Some(values),
        _ => None,
    }
}

struct Reader<'a> {
    image: &'a Buffer,
    meta: &'a ColumnMeta,
    row_count: usize,
    verified: Verified,
    values: Option<&'a ArrayRef>,
}

impl Reader<'_> {
    fn is_new(&self) -> bool {
        self.verified == Verified::No
    }

    /// A buffer of the column. Its place was checked when the image was opened.
    fn buffer(&self, index: usize) -> Buffer {
        let place = self.meta.stored.buffers[index];
        self.image.slice_with_length(place.offset as usize, place.len as usize)
    }

    /// The rows that have a value, if any has none.
    fn validity(&self, index: usize) -> Result<Option<NullBuffer>, String> {
        if self.meta.null_count == 0 {
            return Ok(None);
        }
        let validity = NullBuffer::new(BooleanBuffer::new(self.buffer(index), 0, self.row_count));
        if validity.null_count() as u64 != self.meta.null_count {
            let (found, expect) = (validity.null_count(), self.meta.null_count);
            return Err(format!("has {found} rows without value, its entry says {expect}"));
        }
        Ok(Some(validity))
    }

    fn constant(&self) -> Result<Column, String> {
        let bits = self.meta.stored.base;
        Ok(Column::Constant(match self.meta.column_type {
            ColumnType::Int => Arc::new(Int64Array::from(vec![bits])),
            ColumnType::Time => {
                Arc::new(TimestampNanosecondArray::from(vec![bits]).with_timezone("+00:00")) as ArrayRef
            }
            ColumnType::Float => Arc::new(Float64Array::from(vec![f64::from_bits(bits as u64)])),
            ColumnType::Bool => Arc::new(BooleanArray::from(vec![bits != 0])),
            ColumnType::String | ColumnType::Strings => {
                let text = self.buffer(0);
                check_text_bytes(text.len() as u64 * self.row_count as u64)?;
                let offsets = OffsetBuffer::from_lengths([text.len()]);
                Arc::new(StringArray::try_new(offsets, text, None).map_err(|error| error.to_string())?)
            }
        }))
    }

    /// Codes, checked to stay within 64-bit integers.
    fn codes(&self) -> Result<Codes, String> {
        let stored = &self.meta.stored;
        let codes = unpack(&stored.packing, &self.buffer(0), self.row_count);
        if self.is_new() {
            let steps = i128::from(codes.max().unwrap_or(0));
            let last = i128::from(stored.base) + i128::from(stored.gcd) * steps;
            if i64::try_from(last).is_err() {
                return Err(format!("holds the integer {last}, which has more than 64 bits"));
            }
        }
        Ok(codes)
    }

    fn packed(&self) -> Result<Column, String> {
        let stored = &self.meta.stored;
        let (codes, validity) = (self.codes()?, self.validity(1)?);
        Ok(Column::Packed { base: stored.base, gcd: stored.gcd, codes, validity })
    }

    /// The values of a dictionary of strings, checked.
    fn dictionary_values(&self, offsets: usize, text: usize) -> Result<ArrayRef, String> {
        if let Some(values) = self.values {
            return Ok(Arc::clone(values));
        }
        let count = self.meta.stored.value_count as usize;
        let values = strings(self.buffer(offsets), self.buffer(text), count, None)?;
        if self.is_new() {
            check_order(&values)?;
        }
        Ok(Arc::new(values))
    }

    fn check_null_count(&self, found: u64) -> Result<(), String> {
        match self.meta.null_count {
            expect if expect != found => {
                Err(format!("has {found} rows without value, its entry says {expect}"))
            }
            _ => Ok(()),
        }
    }

    fn dictionary(&self) -> Result<Column, String> {
        let values = self.dictionary_values(1, 2)?;
        let codes = unpack(&self.meta.stored.packing, &self.buffer(0), self.row_count);
        if self.is_new() {
            let lens = values.as_string::<i32>().offsets().lengths().map(|len| len as u64);
            self.check_null_count(check_codes(&codes, values.len(), lens)?)?;
        }
        Ok(Column::Dictionary { values, codes, has_nulls: self.meta.null_count > 0 })
    }

    /// Codes of a dictionary of numbers.
    fn number_codes(&self) -> Result<Codes, String> {
        let codes = unpack(&self.meta.stored.packing, &self.buffer(0), self.row_count);
        if self.is_new() {
            let count = self.meta.stored.value_count as usize;
            self.check_null_count(check_codes(&codes, count, std::iter::repeat_n(8, count))?)?;
        }
        Ok(codes)
    }

    fn int_dictionary(&self) -> Result<Column, String> {
        let codes = self.number_codes()?;
        let values = ScalarBuffer::<i64>::new(self.buffer(1), 0, self.meta.stored.value_count as usize);
        if self.is_new() && !values.is_sorted_by(|a, b| a < b) {
            return Err("has a dictionary that is not in order".to_owned());
        }
        Ok(Column::IntDictionary { values, codes, has_nulls: self.meta.null_count > 0 })
    }

    fn float_dictionary(&self) -> Result<Column, String> {
        let codes = self.number_codes()?;
        let values = ScalarBuffer::<f64>::new(self.buffer(1), 0, self.meta.stored.value_count as usize);
        if self.is_new() && !values.is_sorted_by(|a, b| a.total_cmp(b).is_lt()) {
            return Err("has a dictionary that is not in order".to_owned());
        }
        Ok(Column::FloatDictionary { values, codes, has_nulls: self.meta.null_count > 0 })
    }

    fn stored_text(&self) -> Result<Column, String> {
        let stored = &self.meta.stored;
        let Some(form) = stored.encoding.form() else {
            return Err(format!("is stored as {}, which is no form of text", self.meta.encoding()));
        };
        let used =
            stored.buffers[..BUFFERS_MAX].iter().rposition(|place| place.len > 0).map_or(0, |at| at + 1);
        let buffers = (0..used).map(|index| self.buffer(index)).collect();
        let parts = TextParts { form, parameter: stored.base as u64, buffers };
        let text = StoredText::open(parts, self.row_count, self.validity(TEXT_VALIDITY)?, self.verified)?;
        Ok(Column::Text(Arc::new(text)))
    }

    fn text(&self) -> Result<Column, String> {
        let validity = self.validity(2)?;
        Ok(Column::Plain(Arc::new(strings(self.buffer(0), self.buffer(1), self.row_count, validity)?)))
    }

    fn bits(&self) -> Result<Column, String> {
        let bits = BooleanBuffer::new(self.buffer(0), 0, self.row_count);
        Ok(Column::Plain(Arc::new(BooleanArray::new(bits, self.validity(1)?))))
    }

    fn floats(&self) -> Result<Column, String> {
        let values = ScalarBuffer::new(self.buffer(0), 0, self.row_count);
        Ok(Column::Plain(Arc::new(Float64Array::new(values, self.validity(1)?))))
    }

    fn decimal(&self) -> Result<Column, String> {
        let stored = &self.meta.stored;
        let (codes, validity) = (self.codes()?, self.validity(1)?);
        Ok(Column::Decimal { base: stored.base, gcd: stored.gcd, digits: stored.parameter, codes, validity })
    }

    fn lists(&self) -> Result<Column, String> {
        let stored = &self.meta.stored;
        let item_count = stored.gcd as usize;
        let lengths = unpack(&list_lengths(self.meta), &self.buffer(0), self.row_count);
        let offsets = list_offsets(&lengths, item_count)?;
        let values = self.dictionary_values(2, 3)?;
        let codes = unpack(&stored.packing, &self.buffer(1), item_count);
        let has_null_items = match self.is_new() {
            true => {
                let lens = values.as_string::<i32>().offsets().lengths().map(|len| len as u64);
                check_codes(&codes, values.len(), lens)? > 0
            }
            // The code of NULL is the only one beyond the values.
            false => codes.max().is_some_and(|max| max >= values.len() as u64),
        };
        Ok(Column::Lists { offsets, values, codes, has_null_items, validity: self.validity(4)? })
    }
}

/// Strings from offsets and text, both checked.
fn strings(
    offsets: Buffer,
    text: Buffer,
    count: usize,
    validity: Option<NullBuffer>,
) -> Result<StringArray, String> {
    let offsets: ScalarBuffer<i32> = ScalarBuffer::new(offsets, 0, count + 1);
    // Without short circuit, so that it is one quick loop; the first offset being 0 makes the rest non-negative.
    let ascending = offsets.windows(2).fold(true, |ascending, pair| ascending & (pair[0] <= pair[1]));
    if offsets[0] != 0 || !ascending || offsets[count] as usize != text.len() {
        return Err("has offsets that do not ascend from the start to the end of its text".to_owned());
    }
    let array = StringArray::try_new(OffsetBuffer::new(offsets), text, validity);
    array.map_err(|error| format!("has text that cannot be read: {error}"))
}

fn check_order(values: &StringArray) -> Result<(), String> {
    match (1..values.len()).all(|code| values.value(code - 1) < values.value(code)) {
        true => Ok(()),
        false => Err("has a dictionary that is not in order".to_owned()),
    }
}

/// Checks that codes lie in a dictionary, or just past it, and that it decodes into one array. Returns how many
/// are just past it: NULLs.
fn check_codes(codes: &Codes, count: usize, lens: impl Iterator<Item = u64>) -> Result<u64, String> {
    let null_code = count as u64;
    if let Some(code) = codes.max().filter(|code| *code > null_code) {
        return Err(format!("has the code {code} in a dictionary of {null_code} values"));
    }
    let mut lens: Vec<u64> = lens.collect();
    lens.push(0);
    let (mut nulls, mut bytes) = (0, 0_u64);
    for code in codes.to_u32().iter() {
        nulls += u64::from(u64::from(*code) == null_code);
        bytes += lens[*code as usize];
    }
    check_text_bytes(bytes)?;
    Ok(nulls)
}

fn check_text_bytes(bytes: u64) -> Result<(), String> {
    match bytes <= TEXT_BYTES_MAX {
        true => Ok(()),
        false => Err(format!("decodes to {bytes} bytes of text, the limit is {TEXT_BYTES_MAX}")),
    }
}

fn list_offsets(lengths: &Codes, item_count: usize) -> Result<OffsetBuffer<i32>, String> {
    fn sum<T: Copy + Into<u64>>(lengths: &[T], end: &mut u64) -> Vec<i32> {
        let mut offsets = Vec::with_capacity(lengths.len() + 1);
        offsets.push(0_i32);
        offsets.extend(lengths.iter().map(|length| {
            *end += (*length).into();
            // Whether the last one fits is checked, and so whether all do.
            *end as i32
        }));
        offsets
    }
    let mut end = 0_u64;
    let offsets = match lengths {
        Codes::U8(lengths) => sum(lengths, &mut end),
        Codes::U16(lengths) => sum(lengths, &mut end),
        Codes::U32(lengths) => sum(lengths, &mut end),
        Codes::U64(_) => return Err("has list lengths of 8 bytes".to_owned()),
    };
    if end != item_count as u64 {
        return Err(format!("has lists of {end} items, but {item_count} items"));
    }
    Ok(OffsetBuffer::new(offsets.into()))
}
