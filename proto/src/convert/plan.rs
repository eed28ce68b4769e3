//! Plans and what they are made of.

use arrow::datatypes::DataType;
use gannet_query::{
    Aggregate, AggregateFunction, ColumnType, Expr, HistogramBuckets, Key, OrderBy, Output, OutputColumn,
    Plan, TimeRange, WeightKind,
};

use super::{ConvertError, all};
use crate::batches::{decode_type, encode_type};
use crate::wire;

/// Columns, keys, aggregates or order terms of one plan that is read.
pub const PLAN_ITEMS_MAX: usize = 65_536;

/// Buckets of one histogram that is asked for over the wire.
const HISTOGRAM_BUCKETS_MAX: u32 = 1 << 20;

/// The types in the order of their numbers.
const COLUMN_TYPES: [ColumnType; 6] = [
    ColumnType::Bool,
    ColumnType::Int,
    ColumnType::Float,
    ColumnType::String,
    ColumnType::Strings,
    ColumnType::Time,
];

impl From<&Plan> for wire::Plan {
    fn from(plan: &Plan) -> Self {
        wire::Plan {
            table: plan.table.clone(),
            columns: plan.columns.iter().map(plan_column).collect(),
            time_min: plan.time_range.min,
            time_max: plan.time_range.max,
            filter: plan.filter.as_ref().map(Into::into),
            weight: match plan.weight {
                WeightKind::One => 0,
                WeightKind::Int => 1,
                WeightKind::Float => 2,
            },
            output: Some(match &plan.output {
                Output::Groups { keys, aggregates } => wire::plan::Output::Groups(wire::GroupsOutput {
                    keys: keys.iter().map(Into::into).collect(),
                    aggregates: aggregates.iter().map(Into::into).collect(),
                }),
                Output::Rows { columns, order_by, limit } => wire::plan::Output::Rows(wire::RowsOutput {
                    columns: columns.iter().map(Into::into).collect(),
                    order_by: order_by.iter().map(Into::into).collect(),
                    limit: *limit,
                }),
            }),
        }
    }
}

impl TryFrom<wire::Plan> for Plan {
    type Error = ConvertError;

    fn try_from(plan: wire::Plan) -> Result<Self, ConvertError> {
        limited(plan.columns.len())?;
        let output = match plan.output.ok_or(ConvertError::Missing("output of the plan"))? {
            wire::plan::Output::Groups(groups) => {
                limited(groups.keys.len())?;
                limited(groups.aggregates.len())?;
                Output::Groups { keys: all(groups.keys)?, aggregates: all(groups.aggregates)? }
            }
            wire::plan::Output::Rows(rows) => rows_output(rows)?,
        };
        Ok(Plan {
            table: plan.table,
            columns: plan.columns.into_iter().map(column).collect::<Result<_, _>>()?,
            time_range: TimeRange { min: plan.time_min, max: plan.time_max },
            filter: plan.filter.map(Expr::try_from).transpose()?,
            weight: match plan.weight {
                0 => WeightKind::One,
                1 => WeightKind::Int,
                2 => WeightKind::Float,
                value => return Err(ConvertError::Number { what: "weight", value: u64::from(value) }),
            },
            output,
        })
    }
}

fn limited(count: usize) -> Result<(), ConvertError> {
    if count > PLAN_ITEMS_MAX {
        return Err(ConvertError::Limit { what: "columns of a plan", limit: PLAN_ITEMS_MAX as u64 });
    }
    Ok(())
}

fn rows_output(rows: wire::RowsOutput) -> Result<Output, ConvertError> {
    limited(rows.columns.len())?;
    limited(rows.order_by.len())?;
    let order_by: Vec<OrderBy> = rows.order_by.into_iter().map(Into::into).collect();
    if let Some(term) = order_by.iter().find(|term| term.column >= rows.columns.len()) {
        return Err(ConvertError::Number { what: "column of order by", value: term.column as u64 });
    }
    Ok(Output::Rows { columns: all(rows.columns)?, order_by, limit: rows.limit })
}

fn plan_column((name, column_type): &(String, ColumnType)) -> wire::PlanColumn {
    let number = COLUMN_TYPES.iter().position(|known| known == column_type).unwrap_or(COLUMN_TYPES.len());
    wire::PlanColumn { name: name.clone(), column_type: number as u32 }
}

fn column(column: wire::PlanColumn) -> Result<(String, ColumnType), ConvertError> {
    let column_type = COLUMN_TYPES
        .get(column.column_type as usize)
        .ok_or(ConvertError::Number { what: "type of a column", value: u64::from(column.column_type) })?;
    Ok((column.name, *column_type))
}

impl From<&Key> for wire::Key {
    fn from(key: &Key) -> Self {
        wire::Key { expr: Some((&key.expr).into()), data_type: encode_type(&key.data_type) }
    }
}

impl TryFrom<wire::Key> for Key {
    type Error = ConvertError;

    fn try_from(key: wire::Key) -> Result<Self, ConvertError> {
        let expr = key.expr.ok_or(ConvertError::Missing("expression of a group key"))?;
        Ok(Key { expr: expr.try_into()?, data_type: decode_type(&key.data_type)? })
    }
}

impl From<&OutputColumn> for wire::OutputColumn {
    fn from(column: &OutputColumn) -> Self {
        wire::OutputColumn {
            name: column.name.clone(),
            expr: Some((&column.expr).into()),
            data_type: encode_type(&column.data_type),
        }
    }
}

impl TryFrom<wire::OutputColumn> for OutputColumn {
    type Error = ConvertError;

    fn try_from(column: wire::OutputColumn) -> Result<Self, ConvertError> {
        let expr = column.expr.ok_or(ConvertError::Missing("expression of a column"))?;
        Ok(OutputColumn {
            name: column.name,
            expr: expr.try_into()?,
            data_type: decode_type(&column.data_type)?,
        })
    }
}

impl From<&OrderBy> for wire::OrderBy {
    fn from(term: &OrderBy) -> Self {
        wire::OrderBy {
            column: u32::try_from(term.column).unwrap_or(u32::MAX),
            descending: term.descending,
            nulls_first: term.nulls_first,
        }
    }
}

impl From<wire::OrderBy> for OrderBy {
    fn from(term: wire::OrderBy) -> Self {
        OrderBy { column: term.column as usize, descending: term.descending, nulls_first: term.nulls_first }
    }
}

impl From<&Aggregate> for wire::Aggregate {
    fn from(aggregate: &Aggregate) -> Self {
        let mut message = wire::Aggregate {
            argument: aggregate.argument.as_ref().map(|(expr, _)| expr.into()),
            argument_type: aggregate.argument.as_ref().map(|(_, to)| encode_type(to)).unwrap_or_default(),
            filter: aggregate.filter.as_ref().map(Into::into),
            weighted: aggregate.weighted,
            ..Default::default()
        };
        message.function = match &aggregate.function {
            AggregateFunction::Count => 0,
            AggregateFunction::Sum => 1,
            AggregateFunction::Min => 2,
            AggregateFunction::Max => 3,
            AggregateFunction::Moments => 4,
            AggregateFunction::Distinct => 5,
            AggregateFunction::ApproxDistinct => 6,
            AggregateFunction::Quantiles => 7,
            AggregateFunction::Histogram(buckets) => {
                match buckets {
                    HistogramBuckets::Width(width) => message.histogram_width = *width,
                    HistogramBuckets::Range { min, max, count } => {
                        message.histogram_min = *min;
                        message.histogram_max = *max;
                        message.histogram_count = *count;
                    }
                }
                8
            }
            AggregateFunction::First { ignore_nulls } => {
                message.ignore_nulls = *ignore_nulls;
                9
            }
            AggregateFunction::Last { ignore_nulls } => {
                message.ignore_nulls = *ignore_nulls;
                10
            }
        };
        message
    }
}

impl TryFrom<wire::Aggregate> for Aggregate {
    type Error = ConvertError;

    fn try_from(message: wire::Aggregate) -> Result<Self, ConvertError> {
        let ignore_nulls = message.ignore_nulls;
        let function = match message.function {
            0 => AggregateFunction::Count,
            1 => AggregateFunction::Sum,
            2 => AggregateFunction::Min,
            3 => AggregateFunction::Max,
            4 => AggregateFunction::Moments,
            5 => AggregateFunction::Distinct,
            6 => AggregateFunction::ApproxDistinct,
            7 => AggregateFunction::Quantiles,
            8 => AggregateFunction::Histogram(histogram(&message)?),
            9 => AggregateFunction::First { ignore_nulls },
            10 => AggregateFunction::Last { ignore_nulls },
            value => return Err(ConvertError::Number { what: "aggregate", value: u64::from(value) }),
        };
        let argument: Option<(Expr, DataType)> = match message.argument {
            Some(expr) => Some((expr.try_into()?, decode_type(&message.argument_type)?)),
            None => None,
        };
        if argument.is_none() && function != AggregateFunction::Count {
            return Err(ConvertError::Missing("argument of an aggregate"));
        }
        let filter = message.filter.map(Expr::try_from).transpose()?;
        Ok(Aggregate { function, argument, filter, weighted: message.weighted })
    }
}

fn histogram(message: &wire::Aggregate) -> Result<HistogramBuckets, ConvertError> {
    let (min, max, count) = (message.histogram_min, message.histogram_max, message.histogram_count);
    let wrong = |what| ConvertError::Number { what, value: u64::from(count) };
    if count == 0 {
        let width = message.histogram_width;
        return if width.is_finite() && width > 0.0 {
            Ok(HistogramBuckets::Width(width))
        } else {
            Err(ConvertError::Number { what: "width of histogram buckets (bits)", value: width.to_bits() })
        };
    }
    if count > HISTOGRAM_BUCKETS_MAX {
        return Err(ConvertError::Limit {
            what: "buckets of a histogram",
            limit: u64::from(HISTOGRAM_BUCKETS_MAX),
        });
    }
    if min.is_finite() && max.is_finite() && min < max {
        Ok(HistogramBuckets::Range { min, max, count })
    } else {
        Err(wrong("range of histogram buckets"))
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::TimeUnit;
    use gannet_query::BinaryOp;

    use super::*;

    fn aggregate(function: AggregateFunction) -> Aggregate {
        let argument = (function != AggregateFunction::Count).then(|| (Expr::column("x"), DataType::Float64));
        Aggregate { function, argument, filter: Some(Expr::column("ok")), weighted: true }
    }

    fn plan() -> Plan {
        let functions = [
            AggregateFunction::Count,
            AggregateFunction::Sum,
            AggregateFunction::Min,
            AggregateFunction::Max,
            AggregateFunction::Moments,
            AggregateFunction::Distinct,
            AggregateFunction::ApproxDistinct,
            AggregateFunction::Quantiles,
            AggregateFunction::Histogram(HistogramBuckets::Width(0.5)),
            AggregateFunction::Histogram(HistogramBuckets::Range { min: -1.0, max: 1.0, count: 4 }),
            AggregateFunction::First { ignore_nulls: true },
            AggregateFunction::Last { ignore_nulls: false },
        ];
        Plan {
            table: "requests".into(),
            columns: COLUMN_TYPES.iter().map(|t| (t.name().to_owned(), *t)).collect(),
            time_range: TimeRange { min: i64::MIN, max: -1 },
            filter: Some(Expr::binary(BinaryOp::GtEq, Expr::column("x"), Expr::int(500))),
            weight: WeightKind::Float,
            output: Output::Groups {
                keys: vec![Key {
                    expr: Expr::column("time"),
                    data_type: DataType::Timestamp(TimeUnit::Nanosecond, Some("+00:00".into())),
                }],
                aggregates: functions.into_iter().map(aggregate).collect(),
            },
        }
    }

    fn rows_plan() -> Plan {
        Plan {
            weight: WeightKind::One,
            filter: None,
            output: Output::Rows {
                columns: vec![OutputColumn {
                    name: "x".into(),
                    expr: Expr::column("x"),
                    data_type: DataType::Float64,
                }],
                order_by: vec![OrderBy { column: 0, descending: true, nulls_first: false }],
                limit: Some(10),
            },
            ..plan()
        }
    }

    #[test]
    fn plans_come_back_as_they_went() {
        for plan in [plan(), rows_plan()] {
            let back = Plan::try_from(wire::Plan::from(&plan)).unwrap();
            assert_eq!(format!("{plan:?}"), format!("{back:?}"));
        }
    }

    fn check(change: impl FnOnce(&mut wire::Plan), expect: &str) {
        let mut message = wire::Plan::from(&plan());
        change(&mut message);
        assert_eq!(Plan::try_from(message).unwrap_err().to_string(), expect);
    }

    fn groups(plan: &mut wire::Plan) -> &mut wire::GroupsOutput {
        match plan.output.as_mut() {
            Some(wire::plan::Output::Groups(groups)) => groups,
            _ => panic!("the plan asks for groups"),
        }
    }

    #[test]
    fn numbers_are_checked() {
        check(|m| m.output = None, "output of the plan is missing");
        check(|m| m.weight = 3, "weight has no meaning for the number 3");
        check(|m| m.columns[0].column_type = 6, "type of a column has no meaning for the number 6");
        check(|m| groups(m).aggregates[0].function = 11, "aggregate has no meaning for the number 11");
        check(|m| groups(m).aggregates[1].argument = None, "argument of an aggregate is missing");
        check(|m| groups(m).keys[0].expr = None, "expression of a group key is missing");
        check(
            |m| groups(m).aggregates[9].histogram_count = u32::MAX,
            "buckets of a histogram exceed the limit of 1048576",
        );
        check(
            |m| groups(m).aggregates[9].histogram_max = -5.0,
            "range of histogram buckets has no meaning for the number 4",
        );
        check(
            |m| groups(m).aggregates = vec![groups(m).aggregates[0].clone(); PLAN_ITEMS_MAX + 1],
            "columns of a plan exceed the limit of 65536",
        );
        let mut message = wire::Plan::from(&rows_plan());
        if let Some(wire::plan::Output::Rows(rows)) = message.output.as_mut() {
            rows.order_by[0].column = 1;
        }
        let error = Plan::try_from(message).unwrap_err().to_string();
        assert_eq!(error, "column of order by has no meaning for the number 1");
    }
}
