//! The groups that are wanted of an answer, and those that were left out of it.

use gannet_query::{Finish, LeftOut, Plan, Top, TopTerm, TopValue, Wanted};

use super::{ConvertError, PLAN_ITEMS_MAX, all};
use crate::wire;

impl From<&Top> for wire::Top {
    fn from(top: &Top) -> Self {
        wire::Top {
            terms: top.terms.iter().map(Into::into).collect(),
            complete: top.complete,
            limit: top.limit,
        }
    }
}

impl TryFrom<wire::Top> for Top {
    type Error = ConvertError;

    fn try_from(top: wire::Top) -> Result<Self, ConvertError> {
        if top.terms.len() > PLAN_ITEMS_MAX {
            return Err(ConvertError::Limit { what: "terms of an order", limit: PLAN_ITEMS_MAX as u64 });
        }
        Ok(Top { terms: all(top.terms)?, complete: top.complete, limit: top.limit })
    }
}

/// What is wanted of the groups of a plan; the orders are checked against it.
///
/// # Errors
/// When an order is not one of the plan's groups.
pub fn wanted(
    plan: &Plan,
    top: Option<wire::Top>,
    loose: Option<wire::Top>,
    groups_max: Option<u64>,
    alone: bool,
) -> Result<Wanted, ConvertError> {
    let order = |order: Option<wire::Top>| -> Result<Option<Top>, ConvertError> {
        let order = order.map(Top::try_from).transpose()?;
        order.iter().try_for_each(|order| order.check(plan))?;
        Ok(order)
    };
    Ok(Wanted { top: order(top)?, loose: order(loose)?, groups_max, alone })
}

impl From<LeftOut> for wire::LeftOut {
    fn from(left_out: LeftOut) -> Self {
        wire::LeftOut { bound: left_out.bound, hash: left_out.hash }
    }
}

impl From<wire::LeftOut> for LeftOut {
    fn from(left_out: wire::LeftOut) -> Self {
        // A bound that is no number bounds nothing.
        let bound = left_out.bound.map(|bound| if bound.is_nan() { f64::INFINITY } else { bound });
        LeftOut { bound, hash: left_out.hash }
    }
}

impl From<&TopTerm> for wire::TopTerm {
    fn from(term: &TopTerm) -> Self {
        let mut fraction = 0.0;
        let (value, index) = match &term.value {
            TopValue::Key(index) => (0, *index),
            TopValue::State(index, finish) => {
                let value = match finish {
                    Finish::Count => 1,
                    Finish::Sum => 2,
                    Finish::Average => 3,
                    Finish::Value => 4,
                    Finish::Variance { sample: true } => 5,
                    Finish::Variance { sample: false } => 6,
                    Finish::StandardDeviation { sample: true } => 7,
                    Finish::StandardDeviation { sample: false } => 8,
                    Finish::DistinctCount => 9,
                    Finish::Quantile(of) => {
                        fraction = *of;
                        10
                    }
                    // Lists have no order; a child refuses the number.
                    Finish::Histogram => u32::MAX,
                };
                (value, *index)
            }
        };
        wire::TopTerm {
            value,
            index: u32::try_from(index).unwrap_or(u32::MAX),
            fraction,
            descending: term.descending,
            nulls_first: term.nulls_first,
        }
    }
}

impl TryFrom<wire::TopTerm> for TopTerm {
    type Error = ConvertError;

    fn try_from(term: wire::TopTerm) -> Result<Self, ConvertError> {
        let index = term.index as usize;
        let finish = match term.value {
            0 => None,
            1 => Some(Finish::Count),
            2 => Some(Finish::Sum),
            3 => Some(Finish::Average),
            4 => Some(Finish::Value),
            5 => Some(Finish::Variance { sample: true }),
            6 => Some(Finish::Variance { sample: false }),
            7 => Some(Finish::StandardDeviation { sample: true }),
            8 => Some(Finish::StandardDeviation { sample: false }),
            9 => Some(Finish::DistinctCount),
            10 if (0.0..=1.0).contains(&term.fraction) => Some(Finish::Quantile(term.fraction)),
            10 => {
                return Err(ConvertError::Number {
                    what: "fraction of a quantile (bits)",
                    value: term.fraction.to_bits(),
                });
            }
            value => {
                return Err(ConvertError::Number { what: "value of an order", value: u64::from(value) });
            }
        };
        let value = finish.map_or(TopValue::Key(index), |finish| TopValue::State(index, finish));
        Ok(TopTerm { value, descending: term.descending, nulls_first: term.nulls_first })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_comes_back_as_it_went() {
        let finishes = [
            Finish::Count,
            Finish::Sum,
            Finish::Average,
            Finish::Value,
            Finish::Variance { sample: true },
            Finish::Variance { sample: false },
            Finish::StandardDeviation { sample: true },
            Finish::StandardDeviation { sample: false },
            Finish::DistinctCount,
            Finish::Quantile(0.25),
        ];
        let states = finishes.into_iter().enumerate().map(|(index, finish)| TopValue::State(index, finish));
        let terms = states.chain([TopValue::Key(7)]).map(|value| {
            let descending = matches!(value, TopValue::State(1, _));
            TopTerm { nulls_first: !descending, descending, value }
        });
        let top = Top { terms: terms.collect(), complete: false, limit: 10 };
        assert_eq!(Top::try_from(wire::Top::from(&top)), Ok(top));
    }

    #[test]
    fn what_was_left_out_comes_back_as_it_went() {
        for left_out in [
            LeftOut::default(),
            LeftOut { bound: Some(-1.5), hash: None },
            LeftOut { bound: Some(f64::INFINITY), hash: Some(u64::MAX) },
        ] {
            assert_eq!(LeftOut::from(wire::LeftOut::from(left_out)), left_out);
        }
        let nothing = wire::LeftOut { bound: Some(f64::NAN), hash: None };
        assert_eq!(LeftOut::from(nothing).bound, Some(f64::INFINITY));
    }

    #[test]
    fn numbers_that_mean_nothing_are_refused() {
        let refused = |term: wire::TopTerm, text: &str| {
            let top = wire::Top { terms: vec![term], ..Default::default() };
            assert_eq!(Top::try_from(top).unwrap_err().to_string(), text);
        };
        let term = |value, fraction| wire::TopTerm { value, fraction, ..Default::default() };
        refused(term(11, 0.0), "value of an order has no meaning for the number 11");
        refused(term(u32::MAX, 0.0), "value of an order has no meaning for the number 4294967295");
        let text = "fraction of a quantile (bits) has no meaning for the number 4611686018427387904";
        refused(term(10, 2.0), text);
        let terms = vec![wire::TopTerm::default(); PLAN_ITEMS_MAX + 1];
        let limit = ConvertError::Limit { what: "terms of an order", limit: PLAN_ITEMS_MAX as u64 };
        assert_eq!(Top::try_from(wire::Top { terms, ..Default::default() }), Err(limit));
    }
}
