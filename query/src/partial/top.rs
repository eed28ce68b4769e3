//! The few groups of an answer that its asker keeps, cut where they are so that the rest need not travel.
//!
//! A cut is final: groups that were dropped cannot be added up with those of another child. So a [`Top`] is sent as it is
//! to a child that is the only one; [`Top::for_several`] says what several children are sent instead.
//!
//! Invariants: what is kept includes the first `limit` groups of some order that the terms allow; where the terms are
//! only the beginning of the asker's order, every group that is equal to the last one kept is kept too.

use std::cmp::Ordering;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::{LexicographicalComparator, SortColumn, SortOptions, lexsort_to_indices};
use arrow::datatypes::DataType;

use super::Groups;
use crate::{Finish, Output, Plan, QueryError};

/// Which groups of a plan are wanted. See the module.
#[derive(Debug, Clone, PartialEq)]
pub struct Top {
    /// The order; without terms any groups will do.
    pub terms: Vec<TopTerm>,
    /// Whether the terms are the whole order; if not, groups equal to the last one are kept as well.
    pub complete: bool,
    /// How many groups.
    pub limit: u64,
}

/// One term of the order of groups.
#[derive(Debug, Clone, PartialEq)]
pub struct TopTerm {
    /// What is compared.
    pub value: TopValue,
    /// Largest first.
    pub descending: bool,
    /// NULL before all others.
    pub nulls_first: bool,
}

/// What groups are ordered by.
#[derive(Debug, Clone, PartialEq)]
pub enum TopValue {
    /// A key of the plan, by index.
    Key(usize),
    /// An aggregate of the plan, by index, finished.
    State(usize, Finish),
}

impl Top {
    /// Whether the order is one of values alone, of no keys.
    pub(super) fn is_by_values(&self) -> bool {
        !self.terms.is_empty() && self.is_without_keys()
    }

    /// Whether no key has a part in the order.
    pub fn is_without_keys(&self) -> bool {
        self.terms.iter().all(|term| matches!(term.value, TopValue::State(..)))
    }

    /// Refuses an order that the plan's groups do not have.
    ///
    /// # Errors
    /// When the plan has no groups, or a term names a key or an aggregate that it does not have.
    pub fn check(&self, plan: &Plan) -> Result<(), QueryError> {
        let Output::Groups { keys, aggregates } = &plan.output else {
            return Err(QueryError::Mismatch("groups are to be cut in a plan of rows".to_owned()));
        };
        for term in &self.terms {
            let (what, index, count) = match &term.value {
                TopValue::Key(index) => ("key", *index, keys.len()),
                TopValue::State(index, _) => ("aggregate", *index, aggregates.len()),
            };
            if index >= count {
                return Err(QueryError::Mismatch(format!("order by {what} {index} of {count}")));
            }
        }
        Ok(())
    }
}

impl Groups {
    /// The wanted groups, in no particular order.
    ///
    /// # Errors
    /// When the groups are not those of the plan, or the terms are of values that have no order; the groups are
    /// unchanged then, and as good an answer as before.
    pub fn cut(&mut self, plan: &Plan, top: &Top) -> Result<(), QueryError> {
        top.check(plan)?;
        let limit = usize::try_from(top.limit).unwrap_or(usize::MAX);
        let Output::Groups { keys, .. } = &plan.output else { return Ok(()) };
        if self.group_count <= limit || keys.is_empty() {
            return Ok(());
        }
        let kept = match top.terms.is_empty() {
            true => (0..limit).map(|group| group as u32).collect(),
            false => self.first(plan, top, limit)?,
        };
        *self = self.take(kept.values())?;
        Ok(())
    }

    /// Which groups come first.
    pub(super) fn first(&self, plan: &Plan, top: &Top, limit: usize) -> Result<UInt32Array, QueryError> {
        let columns = top.terms.iter().map(|term| self.column(plan, term)).collect::<Result<Vec<_>, _>>()?;
        let first = lexsort_to_indices(&columns, Some(limit)).map_err(|error| mismatch(&error))?;
        if top.complete || first.is_empty() {
            return Ok(first);
        }
        let last = first.value(first.len() - 1) as usize;
        let order = LexicographicalComparator::try_new(&columns).map_err(|error| mismatch(&error))?;
        let kept = (0..self.group_count).filter(|group| order.compare(*group, last) != Ordering::Greater);
        Ok(kept.map(|group| group as u32).collect())
    }

    /// Which groups come first, of groups whose keys need not be there; `None` where the values have no order.
    pub(super) fn first_by_values(&self, plan: &Plan, top: &Top) -> Option<UInt32Array> {
        top.check(plan).ok()?;
        self.first(plan, top, usize::try_from(top.limit).unwrap_or(usize::MAX)).ok()
    }

    pub(super) fn column(&self, plan: &Plan, term: &TopTerm) -> Result<SortColumn, QueryError> {
        let missing = || QueryError::Mismatch("groups without a key or state of their plan".to_owned());
        let values = match &term.value {
            TopValue::Key(index) => ArrayRef::clone(self.keys.get(*index).ok_or_else(missing)?),
            TopValue::State(index, finish) => {
                let argument = match &plan.output {
                    Output::Groups { aggregates, .. } => aggregates.get(*index),
                    Output::Rows { .. } => None,
                };
                let argument = argument.ok_or_else(missing)?.argument.as_ref();
                let data_type = argument.map_or(DataType::Null, |(_, data_type)| data_type.clone());
                self.states.get(*index).ok_or_else(missing)?.finish(finish, &data_type)?
            }
        };
        let options = SortOptions { descending: term.descending, nulls_first: term.nulls_first };
        Ok(SortColumn { values, options: Some(options) })
    }
}

pub(super) fn mismatch(error: &arrow::error::ArrowError) -> QueryError {
    QueryError::Mismatch(format!("groups to be cut: {error}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Array, AsArray, Int64Array};
    use arrow::datatypes::Int64Type;

    use super::*;
    use crate::plan::Key;
    use crate::{Aggregate, AggregateFunction, Expr, States, TimeRange, WeightKind};

    fn plan() -> Plan {
        let max = Aggregate {
            function: AggregateFunction::Max,
            argument: Some((Expr::column("x"), DataType::Int64)),
            filter: None,
            weighted: false,
        };
        Plan {
            table: "t".into(),
            columns: vec![],
            time_range: TimeRange::ALL,
            filter: None,
            weight: WeightKind::One,
            output: Output::Groups {
                keys: vec![Key { expr: Expr::column("k"), data_type: DataType::Int64 }],
                aggregates: vec![max],
            },
        }
    }

    /// Groups with these values of `max(x)`; their keys count from 0.
    fn groups(values: &[Option<i64>]) -> Groups {
        let plan = plan();
        let Output::Groups { aggregates, .. } = &plan.output else { panic!("groups") };
        let values: ArrayRef = Arc::new(values.iter().copied().collect::<Int64Array>());
        let count = values.len();
        let keys: ArrayRef = Arc::new((0..count as i64).collect::<Int64Array>());
        let states = States::from_arrays(&aggregates[0], WeightKind::One, &[values]).unwrap();
        Groups { keys: vec![keys], states: vec![states], group_count: count }
    }

    fn by(value: TopValue, descending: bool, nulls_first: bool) -> TopTerm {
        TopTerm { value, descending, nulls_first }
    }

    fn max() -> TopValue {
        TopValue::State(0, Finish::Value)
    }

    fn check(values: &[Option<i64>], terms: &[TopTerm], complete: bool, limit: u64, expect: &[i64]) {
        let mut groups = groups(values);
        let top = Top { terms: terms.to_vec(), complete, limit };
        groups.cut(&plan(), &top).unwrap();
        let mut kept = groups.keys[0].as_primitive::<Int64Type>().values().to_vec();
        let states = groups.states[0].finish(&Finish::Value, &DataType::Int64).unwrap();
        let states: Vec<_> = states.as_primitive::<Int64Type>().iter().collect();
        let expected: Vec<_> = kept.iter().map(|key| values[*key as usize]).collect();
        assert_eq!(states, expected, "states stay with their keys: {top:?}");
        assert_eq!(groups.group_count, kept.len());
        kept.sort_unstable();
        assert_eq!(kept, expect, "{values:?} {top:?}");
    }

    #[test]
    fn the_first_groups_of_the_order_are_kept() {
        let values = [Some(5), None, Some(9), Some(5), Some(1)];
        check(&values, &[by(max(), true, true)], true, 2, &[1, 2]);
        check(&values, &[by(max(), true, false)], true, 1, &[2]);
        check(&values, &[by(max(), false, false)], true, 1, &[4]);
        check(&values, &[by(max(), false, true)], true, 2, &[1, 4]);
        check(&values, &[by(TopValue::Key(0), true, false)], true, 2, &[3, 4]);
        check(&values, &[by(max(), true, false), by(TopValue::Key(0), true, false)], true, 2, &[2, 3]);
        check(&values, &[by(max(), true, false), by(TopValue::Key(0), false, false)], true, 2, &[0, 2]);
        check(&values, &[], true, 2, &[0, 1]);
        check(&values, &[by(max(), true, true)], true, 5, &[0, 1, 2, 3, 4]);
        check(&values, &[by(max(), true, true)], true, u64::MAX, &[0, 1, 2, 3, 4]);
        check(&values, &[by(max(), true, true)], true, 0, &[]);
        check(&[], &[by(max(), true, true)], true, 3, &[]);
    }

    #[test]
    fn groups_equal_to_the_last_one_are_kept_when_the_order_goes_on() {
        let values = [Some(5), None, Some(9), Some(5), Some(1), None];
        check(&values, &[by(max(), true, false)], false, 2, &[0, 2, 3]);
        check(&values, &[by(max(), true, true)], false, 1, &[1, 5]);
        check(&values, &[by(max(), false, false)], false, 5, &[0, 1, 2, 3, 4, 5]);
        check(&values, &[by(max(), false, false)], false, 0, &[]);
    }

    #[test]
    fn an_order_of_something_else_is_refused_and_nothing_is_cut() {
        let refused = |value: TopValue, text: &str| {
            let mut groups = groups(&[Some(1), Some(2)]);
            let top = Top { terms: vec![by(value, true, true)], complete: true, limit: 1 };
            assert_eq!(groups.cut(&plan(), &top), Err(QueryError::Mismatch(text.to_owned())));
            assert_eq!((groups.group_count, groups.keys[0].len()), (2, 2));
        };
        refused(TopValue::Key(1), "order by key 1 of 1");
        refused(TopValue::State(3, Finish::Value), "order by aggregate 3 of 1");
        let mut groups = groups(&[Some(1), Some(2)]);
        let top =
            Top { terms: vec![by(TopValue::State(0, Finish::Sum), true, true)], complete: true, limit: 1 };
        assert!(groups.cut(&plan(), &top).is_err());
        assert_eq!(groups.group_count, 2);
    }
}
