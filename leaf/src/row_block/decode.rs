//! From the buffers of an image to a column, with every check that later code relies on.
//!
//! Codes stay codes and point into the image. What is checked here holds for as long as the column lives: codes
//! lie in their dictionary, offsets ascend and lie in their text, text is UTF-8, no packed integer leaves 64 bits,
//! and no column decodes to more text than one array can hold.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Float64Array, Int64Array, ListArray, StringArray,
    TimestampNanosecondArray, UInt32Array, new_null_array,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use gannet_query::ColumnType;

use super::encode::power_of_ten;
use super::layout::{ColumnMeta, Encoding};
use crate::cast::item_field;
use crate::column::{Codes, Column, unpack};

/// The most bytes of text in one array.
pub(super) const TEXT_BYTES_MAX: u64 = i32::MAX as u64;

/// Reads a column out of an image whose directory was checked.
pub(super) fn decode(image: &Buffer, meta: &ColumnMeta, row_count: usize) -> Result<Column, String> {
    let reader = Reader { image, meta, row_count };
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
    }
}

/// Whether a column is a view of the image, so that keeping it costs nothing.
pub(super) fn is_view(meta: &ColumnMeta) -> bool {
    !matches!(meta.stored.encoding, Encoding::Decimal | Encoding::Lists)
}

struct Reader<'a> {
    image: &'a Buffer,
    meta: &'a ColumnMeta,
    row_count: usize,
}

impl Reader<'_> {
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
        let codes = codes(self.buffer(0), stored.code_bytes, self.row_count);
        let last = i128::from(stored.base) + i128::from(stored.gcd) * i128::from(codes.max().unwrap_or(0));
        match i64::try_from(last) {
            Ok(_) => Ok(codes),
            Err(_) => Err(format!("holds the integer {last}, which has more than 64 bits")),
        }
    }

    fn packed(&self) -> Result<Column, String> {
        let stored = &self.meta.stored;
        let (codes, validity) = (self.codes()?, self.validity(1)?);
        Ok(Column::Packed { base: stored.base, gcd: stored.gcd, codes, validity })
    }

    fn dictionary(&self) -> Result<Column, String> {
        let stored = &self.meta.stored;
        let values = strings(self.buffer(1), self.buffer(2), stored.value_count as usize, None)?;
        check_order(&values)?;
        let codes = codes(self.buffer(0), stored.code_bytes, self.row_count);
        let null_count = check_codes(&codes, &values)?;
        if null_count != self.meta.null_count {
            let expect = self.meta.null_count;
            return Err(format!("has {null_count} rows without value, its entry says {expect}"));
        }
        Ok(Column::Dictionary { values: Arc::new(values), codes, has_nulls: null_count > 0 })
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
        let power = power_of_ten(stored.parameter);
        let ints = unpack(stored.base, stored.gcd, &self.codes()?);
        let values: ScalarBuffer<f64> = ints.into_iter().map(|int| int as f64 / power).collect();
        Ok(Column::Plain(Arc::new(Float64Array::new(values, self.validity(1)?))))
    }

    fn lists(&self) -> Result<Column, String> {
        let stored = &self.meta.stored;
        let item_codes = self.buffer(1);
        let item_count = item_codes.len() / usize::from(stored.code_bytes);
        let lengths = codes(self.buffer(0), stored.parameter, self.row_count);
        let offsets = list_offsets(&lengths, item_count)?;
        let values = strings(self.buffer(2), self.buffer(3), stored.value_count as usize, None)?;
        check_order(&values)?;
        let codes = codes(item_codes, stored.code_bytes, item_count);
        let has_nulls = check_codes(&codes, &values)? > 0;
        let null_code = values.len() as u32;
        let codes = codes.to_u32();
        let item_validity = has_nulls.then(|| {
            NullBuffer::new(BooleanBuffer::collect_bool(codes.len(), |item| codes[item] != null_code))
        });
        let indices = UInt32Array::new(codes, item_validity);
        let items = arrow::compute::take(&values, &indices, None).map_err(|error| error.to_string())?;
        let lists = ListArray::try_new(item_field(), offsets, items, self.validity(4)?);
        Ok(Column::Plain(Arc::new(lists.map_err(|error| error.to_string())?)))
    }
}

/// Codes of a width that was checked, in a buffer whose length was checked.
fn codes(buffer: Buffer, code_bytes: u8, count: usize) -> Codes {
    match code_bytes {
        1 => Codes::U8(ScalarBuffer::new(buffer, 0, count)),
        2 => Codes::U16(ScalarBuffer::new(buffer, 0, count)),
        4 => Codes::U32(ScalarBuffer::new(buffer, 0, count)),
        _ => Codes::U64(ScalarBuffer::new(buffer, 0, count)),
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
fn check_codes(codes: &Codes, values: &StringArray) -> Result<u64, String> {
    let null_code = values.len() as u64;
    if let Some(code) = codes.max().filter(|code| *code > null_code) {
        return Err(format!("has the code {code} in a dictionary of {null_code} values"));
    }
    let mut lens: Vec<u64> = values.offsets().lengths().map(|len| len as u64).collect();
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
    let mut offsets = Vec::with_capacity(lengths.len() + 1);
    offsets.push(0_i32);
    let mut end = 0_u64;
    for row in 0..lengths.len() {
        end += lengths.get(row);
        offsets.push(i32::try_from(end).map_err(|_| format!("has more than {} items", i32::MAX))?);
    }
    if end != item_count as u64 {
        return Err(format!("has lists of {end} items, but {item_count} items"));
    }
    Ok(OffsetBuffer::new(offsets.into()))
}
