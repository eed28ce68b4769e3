//! What a literal in an expression says, for whoever knows a faster way when it says the right thing.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, IntervalDayTimeType, IntervalMonthDayNanoType, IntervalUnit};

use crate::Expr;

/// Nanoseconds of a day.
const DAY: i64 = 86_400_000_000_000;

impl Expr {
    /// The array of a literal, which has one value; `None` for NULL and for everything else.
    pub fn as_literal(&self) -> Option<&ArrayRef> {
        match self {
            Expr::Literal(array) if array.len() == 1 && array.is_valid(0) => Some(array),
            _ => None,
        }
    }

    /// The text of a literal.
    pub fn literal_text(&self) -> Option<&str> {
        let array = self.as_literal()?;
        match array.data_type() {
            DataType::Utf8 => Some(array.as_string::<i32>().value(0)),
            DataType::LargeUtf8 => Some(array.as_string::<i64>().value(0)),
            DataType::Utf8View => Some(array.as_string_view().value(0)),
            _ => None,
        }
    }

    /// The nanoseconds of a literal interval; `None` for one with months, which have several lengths.
    pub fn literal_interval(&self) -> Option<i64> {
        let array = self.as_literal()?;
        match array.data_type() {
            DataType::Interval(IntervalUnit::DayTime) => {
                let value = array.as_primitive::<IntervalDayTimeType>().value(0);
                let (days, ms) = IntervalDayTimeType::to_parts(value);
                i64::from(days).checked_mul(DAY)?.checked_add(i64::from(ms) * 1_000_000)
            }
            DataType::Interval(IntervalUnit::MonthDayNano) => {
                let value = array.as_primitive::<IntervalMonthDayNanoType>().value(0);
                let (months, days, ns) = IntervalMonthDayNanoType::to_parts(value);
                if months != 0 {
                    return None;
                }
                i64::from(days).checked_mul(DAY)?.checked_add(ns)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        Int64Array, IntervalDayTimeArray, IntervalMonthDayNanoArray, LargeStringArray, StringArray,
        StringViewArray,
    };

    use super::*;

    #[test]
    fn texts_are_read_from_every_type_of_text() {
        let check = |array: ArrayRef, text: Option<&str>| {
            assert_eq!(Expr::Literal(array).literal_text(), text);
        };
        check(Arc::new(StringArray::from(vec!["Day"])), Some("Day"));
        check(Arc::new(LargeStringArray::from(vec!["Day"])), Some("Day"));
        check(Arc::new(StringViewArray::from(vec!["Day"])), Some("Day"));
        check(Arc::new(StringArray::from(vec![None::<&str>])), None);
        check(Arc::new(Int64Array::from(vec![1])), None);
        assert_eq!(Expr::column("a").literal_text(), None);
    }

    #[test]
    fn intervals_have_a_length_unless_they_have_months() {
        let day_time = |days, ms| {
            let value = IntervalDayTimeType::make_value(days, ms);
            Expr::Literal(Arc::new(IntervalDayTimeArray::from(vec![value]))).literal_interval()
        };
        let month_day_nano = |months, days, ns| {
            let value = IntervalMonthDayNanoType::make_value(months, days, ns);
            Expr::Literal(Arc::new(IntervalMonthDayNanoArray::from(vec![value]))).literal_interval()
        };
        assert_eq!(day_time(1, 5), Some(DAY + 5_000_000));
        assert_eq!(month_day_nano(0, 2, -7), Some(2 * DAY - 7));
        assert_eq!(month_day_nano(1, 0, 0), None);
        assert_eq!(day_time(i32::MAX, 0), None);
        assert_eq!(Expr::Literal(Arc::new(Int64Array::from(vec![1]))).literal_interval(), None);
    }
}
