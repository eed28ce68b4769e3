//! What leaves hold.

use gannet_query::holdings::{BY_TIME_MAX, SPANS_MAX};
use gannet_query::{ColumnHolding, Holdings, LeafState, Phase, Span, TableHolding, TypeSet};

use super::{ConvertError, all, count, entry, position};
use crate::wire;

/// Rows of one span, so that the sum over twice the spans of a table, of a thousand leaves, stays within 64 bits.
const SPAN_ROWS_MAX: u64 = 1 << 40;

impl From<&Holdings> for wire::Holdings {
    fn from(holdings: &Holdings) -> Self {
        wire::Holdings {
            leaf: holdings.leaf.clone(),
            epoch: holdings.epoch,
            version: holdings.version.clone(),
            state: position(&LeafState::ALL, &holdings.state),
            source: holdings.source.clone(),
            source_detail: holdings.source_detail.clone(),
            memory_used_bytes: holdings.memory_used_bytes,
            memory_limit_bytes: holdings.memory_limit_bytes,
            phases: holdings.phases.iter().map(Into::into).collect(),
            tables: holdings.tables.iter().map(Into::into).collect(),
            rows_ingested: holdings.rows_ingested,
            rows_restored: holdings.rows_restored,
            process: holdings.process.clone(),
            machine: holdings.machine.clone(),
            takes_dictionaries: holdings.takes_dictionaries,
        }
    }
}

impl TryFrom<wire::Holdings> for Holdings {
    type Error = ConvertError;

    fn try_from(holdings: wire::Holdings) -> Result<Self, ConvertError> {
        if holdings.leaf.is_empty() {
            return Err(ConvertError::Missing("leaf id"));
        }
        Ok(Holdings {
            leaf: holdings.leaf,
            epoch: holdings.epoch,
            version: holdings.version,
            state: entry("state of a leaf", &LeafState::ALL, holdings.state)?,
            source: holdings.source,
            source_detail: holdings.source_detail,
            memory_used_bytes: holdings.memory_used_bytes,
            memory_limit_bytes: holdings.memory_limit_bytes,
            phases: holdings.phases.into_iter().map(Into::into).collect(),
            tables: all(holdings.tables)?,
            rows_ingested: count("rows ingested", holdings.rows_ingested)?,
            rows_restored: count("rows restored", holdings.rows_restored)?,
            process: holdings.process,
            machine: holdings.machine,
            takes_dictionaries: holdings.takes_dictionaries,
        })
    }
}

impl From<&Phase> for wire::Phase {
    fn from(phase: &Phase) -> Self {
        wire::Phase { name: phase.name.clone(), seconds: phase.seconds, bytes: phase.bytes }
    }
}

impl From<wire::Phase> for Phase {
    fn from(phase: wire::Phase) -> Self {
        Phase { name: phase.name, seconds: phase.seconds, bytes: phase.bytes }
    }
}

impl From<&TableHolding> for wire::TableHolding {
    fn from(table: &TableHolding) -> Self {
        wire::TableHolding {
            name: table.name.clone(),
            rows: table.rows,
            bytes: table.bytes,
            spans: table.spans.iter().map(Into::into).collect(),
            lost: table.lost.iter().map(Into::into).collect(),
            time_min: table.time_range.map(|(min, _)| min),
            time_max: table.time_range.map(|(_, max)| max),
            columns: table.columns.iter().map(Into::into).collect(),
            schema_version: table.schema_version,
            retention_seconds: table.retention_seconds,
            by_time: table.by_time.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::TableHolding> for TableHolding {
    type Error = ConvertError;

    fn try_from(table: wire::TableHolding) -> Result<Self, ConvertError> {
        // Twice, because what an aggregator passes on may be one leaf's lists joined.
        if table.spans.len() > 2 * SPANS_MAX || table.lost.len() > 2 * SPANS_MAX {
            return Err(ConvertError::Limit { what: "spans of a table", limit: 2 * SPANS_MAX as u64 });
        }
        if table.by_time.len() > BY_TIME_MAX {
            return Err(ConvertError::Limit { what: "steps of a table", limit: BY_TIME_MAX as u64 });
        }
        let time_range = match (table.time_min, table.time_max) {
            (Some(min), Some(max)) if min > max => {
                return Err(ConvertError::Number { what: "newest time", value: max.cast_unsigned() });
            }
            (Some(min), Some(max)) => Some((min, max)),
            _ => None,
        };
        Ok(TableHolding {
            name: table.name,
            rows: count("rows of a table", table.rows)?,
            bytes: count("bytes of a table", table.bytes)?,
            spans: all(table.spans)?,
            by_time: all(table.by_time)?,
            lost: all(table.lost)?,
            time_range,
            columns: all(table.columns)?,
            schema_version: table.schema_version,
            retention_seconds: table.retention_seconds,
        })
    }
}

impl From<&Span> for wire::Span {
    fn from(span: &Span) -> Self {
        wire::Span { first: span.first, last: span.last, rows: span.rows }
    }
}

impl TryFrom<wire::Span> for Span {
    type Error = ConvertError;

    fn try_from(span: wire::Span) -> Result<Self, ConvertError> {
        if span.first > span.last {
            return Err(ConvertError::Number { what: "end of a span", value: span.last.cast_unsigned() });
        }
        if span.rows > SPAN_ROWS_MAX {
            return Err(ConvertError::Limit { what: "rows of a span", limit: SPAN_ROWS_MAX });
        }
        Ok(Span { first: span.first, last: span.last, rows: span.rows })
    }
}

impl From<&ColumnHolding> for wire::ColumnHolding {
    fn from(column: &ColumnHolding) -> Self {
        wire::ColumnHolding {
            name: column.name.clone(),
            types: u32::from(column.types.bits()),
            value_count: column.value_count,
            distinct_estimate: column.distinct_estimate,
            bytes: column.bytes,
        }
    }
}

impl TryFrom<wire::ColumnHolding> for ColumnHolding {
    type Error = ConvertError;

    fn try_from(column: wire::ColumnHolding) -> Result<Self, ConvertError> {
        let bits = u8::try_from(column.types).ok().filter(|bits| TypeSet::from_bits(*bits).bits() == *bits);
        let bits =
            bits.ok_or(ConvertError::Number { what: "types of a column", value: u64::from(column.types) })?;
        Ok(ColumnHolding {
            name: column.name,
            types: TypeSet::from_bits(bits),
            value_count: count("values of a column", column.value_count)?,
            distinct_estimate: count("distinct values of a column", column.distinct_estimate)?,
            bytes: count("bytes of a column", column.bytes)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use gannet_query::ColumnType;

    use super::*;

    fn holdings() -> Holdings {
        Holdings {
            leaf: "leaf-1".into(),
            epoch: 3,
            version: "0.1.0".into(),
            state: LeafState::HandingOver,
            source: "shared memory".into(),
            source_detail: "".into(),
            memory_used_bytes: 10,
            memory_limit_bytes: 20,
            phases: vec![Phase { name: "attaching".into(), seconds: 0.25, bytes: 7 }],
            tables: vec![TableHolding {
                name: "requests".into(),
                rows: 5,
                bytes: 50,
                spans: vec![Span::of(0, 1, 5)],
                by_time: vec![Span::of(0, 0, 4), Span::of(1, 1, 1)],
                lost: vec![Span::of(i64::MIN, i64::MAX, 1)],
                time_range: Some((0, 1)),
                columns: vec![ColumnHolding {
                    name: "status".into(),
                    types: TypeSet::of(ColumnType::Int, true).union(TypeSet::of(ColumnType::String, false)),
                    value_count: 4,
                    distinct_estimate: 2,
                    bytes: 9,
                }],
                schema_version: 2,
                retention_seconds: 3600,
            }],
            rows_ingested: 1,
            rows_restored: 4,
            process: "host:1".into(),
            machine: "host".into(),
            takes_dictionaries: true,
        }
    }

    #[test]
    fn holdings_come_back_as_they_went() {
        assert_eq!(Holdings::try_from(wire::Holdings::from(&holdings())), Ok(holdings()));
        for (state, _) in LeafState::ALL {
            let holdings = Holdings { state, tables: vec![], ..holdings() };
            assert_eq!(Holdings::try_from(wire::Holdings::from(&holdings)), Ok(holdings));
        }
    }

    fn check(change: impl FnOnce(&mut wire::Holdings), expect: &str) {
        let mut message = wire::Holdings::from(&holdings());
        change(&mut message);
        assert_eq!(Holdings::try_from(message).unwrap_err().to_string(), expect);
    }

    #[test]
    fn numbers_are_checked() {
        check(|m| m.leaf.clear(), "leaf id is missing");
        check(|m| m.state = 7, "state of a leaf has no meaning for the number 7");
        check(|m| m.tables[0].columns[0].types = 128, "types of a column has no meaning for the number 128");
        check(
            |m| m.tables[0].spans[0].last = -1,
            "end of a span has no meaning for the number 18446744073709551615",
        );
        let limit = 2 * SPANS_MAX;
        check(
            |m| m.tables[0].spans = vec![m.tables[0].spans[0]; limit + 1],
            &format!("spans of a table exceed the limit of {limit}"),
        );
        check(|m| m.tables[0].rows = 1 << 60, "rows of a table exceed the limit of 4503599627370496");
    }
}
