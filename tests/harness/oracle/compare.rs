//! An answer as JSON against what it must be.

use gannet_query::Value;
use gannet_query::rfc3339::format_time;
use serde_json::Value as Json;

/// One value of an answer.
#[derive(Debug, Clone)]
pub enum Expected {
    /// Exactly this; an int may be a time.
    Value(Value, bool),
    /// A number, this far off at most.
    Near {
        /// The number.
        value: f64,
        /// How far.
        tolerance: f64,
    },
}

impl Expected {
    pub(super) fn int(value: f64) -> Expected {
        Expected::Value(Value::Int(value as i64), false)
    }

    fn fits(&self, found: &Json) -> bool {
        match self {
            Expected::Near { value, tolerance } => {
                // Printing and reading back may cost the last digit.
                found.as_f64().is_some_and(|found| (found - value).abs() <= tolerance + value.abs() * 1e-14)
            }
            Expected::Value(Value::Int(time), true) => found.as_str() == Some(&format_time(*time)),
            Expected::Value(value, _) => match value {
                Value::Null => found.is_null(),
                Value::Bool(bool) => found.as_bool() == Some(*bool),
                Value::Int(int) => found.as_i64() == Some(*int),
                Value::Float(float) => found.as_f64().is_some_and(|found| found.to_bits() == float.to_bits()),
                Value::String(text) => found.as_str() == Some(text),
                Value::Strings(texts) => *found == Json::from(texts.clone()),
            },
        }
    }
}

/// Where an answer's rows differ from what they must be; empty when they agree. At most a few are told.
pub fn differences(expected: &[Vec<Expected>], found: &[Vec<Json>]) -> Vec<String> {
    const TOLD_MAX: usize = 5;
    let mut told = Vec::new();
    if expected.len() != found.len() {
        told.push(format!("{} rows instead of {}", found.len(), expected.len()));
    }
    for (index, (expected, found)) in expected.iter().zip(found).enumerate() {
        if expected.len() != found.len() {
            told.push(format!("row {index} has {} columns instead of {}", found.len(), expected.len()));
        }
        for (column, (expected, found)) in expected.iter().zip(found).enumerate() {
            if !expected.fits(found) {
                told.push(format!("row {index} column {column} is {found}, must be {expected:?}"));
            }
        }
        if told.len() >= TOLD_MAX {
            break;
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_wrong_answer_is_seen() {
        let expected = vec![vec![Expected::int(3.0), Expected::Near { value: 10.0, tolerance: 0.1 }]];
        assert!(differences(&expected, &[vec![json!(3), json!(10.05)]]).is_empty());
        assert_eq!(differences(&expected, &[vec![json!(4), json!(10.05)]]).len(), 1);
        assert_eq!(differences(&expected, &[vec![json!(3), json!(10.2)]]).len(), 1);
        assert_eq!(differences(&expected, &[vec![json!("3"), json!(10.0)]]).len(), 1);
        assert_eq!(differences(&expected, &[]), ["0 rows instead of 1"]);
    }
}
