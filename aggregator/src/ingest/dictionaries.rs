//! Texts that repeat go to leaves as dictionaries.
//!
//! A column of which most rows share a few texts is sent as the distinct ones, in order of their bytes, and one code of
//! one or two bytes a row: a fraction of the bytes for the wire, the leaf's log and its memory, and what the leaf makes of
//! the column when it seals it anyway. Which columns that pays for is measured batch by batch: first in a sample, then by
//! counting up to a limit.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, DictionaryArray, PrimitiveArray, RecordBatch, StringArray};
use arrow::datatypes::{ArrowDictionaryKeyType, DataType, Field, Schema, UInt8Type, UInt16Type};
use arrow::error::ArrowError;
use gannet_query::Dictionary;

/// Distinct texts of a dictionary: leaves seal columns with more in other ways.
const VALUES_MAX: usize = 4_096;
/// Rows that are looked at before all are.
const SAMPLE_ROWS: usize = 1_024;

/// The batch, if it has so many rows, with the columns as dictionaries for which that pays; `None` when there is none.
pub(crate) fn with_dictionaries(batch: &RecordBatch, rows_min: usize) -> Option<RecordBatch> {
    if batch.num_rows() < rows_min {
        return None;
    }
    let coded: Vec<Option<ArrayRef>> = batch.columns().iter().map(|array| coded(array)).collect();
    if coded.iter().all(Option::is_none) {
        return None;
    }
    let arrays = coded
        .into_iter()
        .zip(batch.columns())
        .map(|(coded, array)| coded.unwrap_or_else(|| Arc::clone(array)));
    replaced(batch, arrays.collect()).ok()
}

/// The batch without dictionaries, for leaves that do not know of them.
///
/// # Errors
/// When the texts of a column do not fit into one array.
pub(crate) fn without_dictionaries(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let plain = |array: &ArrayRef| match array.data_type() {
        DataType::Dictionary(_, values) => arrow::compute::cast(array, values),
        _ => Ok(Arc::clone(array)),
    };
    replaced(batch, batch.columns().iter().map(plain).collect::<Result<_, _>>()?)
}

fn replaced(batch: &RecordBatch, arrays: Vec<ArrayRef>) -> Result<RecordBatch, ArrowError> {
    let schema = batch.schema();
    let fields = schema.fields().iter().zip(&arrays);
    let fields: Vec<Field> = fields
        .map(|(field, array)| field.as_ref().clone().with_data_type(array.data_type().clone()))
        .collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
}

/// A column of texts as a dictionary; `None` for any other, and where that does not pay.
fn coded(array: &ArrayRef) -> Option<ArrayRef> {
    let texts = array.as_string_opt::<i32>()?;
    if looks_distinct(texts) {
        return None;
    }
    let dictionary = Dictionary::of(texts.iter(), VALUES_MAX.min(texts.len() / 4))?.sorted();
    // NULLs have the code behind the last value.
    match dictionary.values.len() {
        ..=0xff => with_keys::<UInt8Type>(&dictionary, texts, |code| code as u8),
        _ => with_keys::<UInt16Type>(&dictionary, texts, |code| code as u16),
    }
}

fn with_keys<K: ArrowDictionaryKeyType>(
    dictionary: &Dictionary<'_>,
    texts: &StringArray,
    narrow: impl Fn(u32) -> K::Native,
) -> Option<ArrayRef> {
    let codes: Vec<K::Native> = dictionary.codes.iter().map(|code| narrow(*code)).collect();
    let values: ArrayRef = Arc::new(StringArray::from_iter_values(&dictionary.values));
    let keys = PrimitiveArray::<K>::try_new(codes.into(), texts.nulls().cloned()).ok()?;
    Some(Arc::new(DictionaryArray::try_new(keys, values).ok()?))
}

/// Whether nearly all texts of a sample are distinct.
fn looks_distinct(texts: &StringArray) -> bool {
    let rows = (0..texts.len()).step_by((texts.len() / SAMPLE_ROWS).max(1));
    let sample: Vec<&str> = rows.filter(|row| texts.is_valid(*row)).map(|row| texts.value(row)).collect();
    let distinct: HashSet<&str> = sample.iter().copied().collect();
    distinct.len() * 10 > sample.len() * 9 && sample.len() > SAMPLE_ROWS / 4
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;

    use super::*;

    const ROWS: usize = 10_000;

    fn batch(text: impl Fn(usize) -> Option<String>) -> RecordBatch {
        let texts: StringArray = (0..ROWS).map(text).collect();
        let numbers = Int64Array::from_iter_values(0..ROWS as i64);
        let columns: [(&str, ArrayRef); 2] = [("number", Arc::new(numbers)), ("text", Arc::new(texts))];
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, array)| (name, array, true))).unwrap()
    }

    fn check_coded(batch: &RecordBatch, keys: DataType, values: usize) {
        let coded = with_dictionaries(batch, ROWS).unwrap();
        let expect = DataType::Dictionary(keys.into(), DataType::Utf8.into());
        assert_eq!(coded.schema().field(1).data_type(), &expect);
        let held = coded.column(1).as_any_dictionary().values();
        let held: Vec<&str> = held.as_string::<i32>().iter().map(Option::unwrap).collect();
        assert_eq!(held.len(), values);
        assert!(held.is_sorted_by(|a, b| a < b), "{held:?}");
        assert_eq!(&without_dictionaries(&coded).unwrap(), batch);
    }

    #[test]
    fn texts_that_repeat_become_dictionaries() {
        let mixed = |row: usize| (row as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
        let of = |count: u64| move |row: usize| (row % 7 != 3).then(|| format!("v{}", mixed(row) % count));
        check_coded(&batch(of(1)), DataType::UInt8, 1);
        check_coded(&batch(of(255)), DataType::UInt8, 255);
        check_coded(&batch(of(256)), DataType::UInt16, 256);
        check_coded(&batch(of(1_000)), DataType::UInt16, 1_000);
    }

    #[test]
    fn what_hardly_repeats_or_is_short_stays_as_it_is() {
        assert_eq!(with_dictionaries(&batch(|row| Some(row.to_string())), ROWS), None);
        // A few that are there often, and many others.
        assert_eq!(with_dictionaries(&batch(|row| Some((row / 2 * (row % 2)).to_string())), ROWS), None);
        assert_eq!(with_dictionaries(&batch(|row| Some((row % 3).to_string())), ROWS + 1), None);
        let plain = batch(|_| Some("a".to_owned())).project(&[0]).unwrap();
        assert_eq!(with_dictionaries(&plain, ROWS), None);
        assert_eq!(without_dictionaries(&plain).unwrap(), plain);
    }
}
