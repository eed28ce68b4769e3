//! The aggregate functions that DataFusion does not have, or has otherwise.
//!
//! * [`Percentile`]: `p50(x)` … `p999(x)`, `median(x)`, `approx_percentile_cont(x, p)`, `approx_quantile(x, p)`. The
//!   answer is a double, approximate with a relative error of at most 1 %.
//! * [`Histogram`]: `histogram(x, width)` and `histogram(x, min, max, buckets)`.
//! * [`Unweighted`]: `unweighted_f(…)`, any aggregate over stored rows where `f` counts a row as `sample_rate` events.
//!
//! On tables these run on the leaves. Over answers (in CTEs, joins, windows) they run here, over the same states.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion::common::types::{NativeType, logical_float64};
use datafusion::common::{ScalarValue, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::expr::AggregateFunctionParams;
use datafusion::logical_expr::function::{AccumulatorArgs, AggregateFunctionSimplification, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Coercion, GroupsAccumulator, ReversedUDAF, Signature,
    TypeSignature, TypeSignatureClass, Volatility,
};
use datafusion::physical_plan::PhysicalExpr;
use datafusion::physical_plan::expressions::Literal;
use gannet_query::{
    Aggregate, AggregateFunction, Expr, Finish, HistogramBuckets, Input, States, Values, WeightKind, Weights,
};

use super::errors::external;
use super::states::{literal_number, scalar_number};
use crate::error::{ErrorCode, Failure};

/// Buckets of one histogram.
const BUCKETS_MAX: f64 = 10_000.0;

/// Percentiles of one family; see the module.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Percentile {
    name: String,
    aliases: Vec<String>,
    /// The bits of the fraction when the name says it; else it is the second argument.
    fraction_bits: Option<u64>,
    signature: Signature,
}

/// A number of any kind, seen as a double.
fn number() -> Coercion {
    Coercion::new_implicit(
        TypeSignatureClass::Native(logical_float64()),
        vec![TypeSignatureClass::Numeric],
        NativeType::Float64,
    )
}

impl Percentile {
    /// A percentile whose fraction is in its name, such as `p99`.
    pub(super) fn fixed(name: &str, fraction: f64) -> AggregateUDF {
        AggregateUDF::new_from_impl(Percentile {
            name: name.to_owned(),
            aliases: vec![],
            fraction_bits: Some(fraction.to_bits()),
            signature: Signature::coercible(vec![number()], Volatility::Immutable),
        })
    }

    /// The percentile whose fraction is its second argument.
    pub(super) fn with_argument() -> AggregateUDF {
        AggregateUDF::new_from_impl(Percentile {
            name: "approx_percentile_cont".to_owned(),
            aliases: vec!["approx_quantile".to_owned()],
            fraction_bits: None,
            signature: Signature::one_of(
                vec![
                    TypeSignature::Coercible(vec![number(), number()]),
                    // A number of centroids is taken and ignored: the sketch has a fixed error.
                    TypeSignature::Coercible(vec![number(), number(), number()]),
                ],
                Volatility::Immutable,
            ),
        })
    }

    /// The fraction that `p…` names: `p5` and `p05` are 0.05, `p50` is 0.5, `p999` is 0.999.
    pub(super) fn fraction_of_name(name: &str) -> Option<f64> {
        let digits = name.strip_prefix('p')?;
        if !(1..=6).contains(&digits.len())
            || !digits.bytes().all(|byte| byte.is_ascii_digit())
            || digits == "100"
        {
            return None;
        }
        let number: f64 = digits.parse().ok()?;
        Some(match digits.len() {
            1 => number / 100.0,
            length => number / 10f64.powi(length as i32),
        })
    }

    /// The fraction of a call, when it is a literal from 0 to 1.
    pub(super) fn fraction(&self, params: &AggregateFunctionParams) -> Option<f64> {
        let descending = params.order_by.first().is_some_and(|term| !term.asc);
        let fraction = match self.fraction_bits {
            Some(bits) => f64::from_bits(bits),
            None => literal_number(params.args.get(1)?)?,
        };
        (0.0..=1.0).contains(&fraction).then_some(if descending { 1.0 - fraction } else { fraction })
    }
}

impl AggregateUDFImpl for Percentile {
    fn name(&self) -> &str {
        &self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let descending = args.order_bys.first().is_some_and(|term| term.options.descending);
        let fraction = match self.fraction_bits {
            Some(bits) => f64::from_bits(bits),
            None => physical_number(args.exprs.get(1), "the fraction of a percentile")?,
        };
        if !(0.0..=1.0).contains(&fraction) {
            return Err(external(bad_fraction(fraction)));
        }
        let fraction = if descending { 1.0 - fraction } else { fraction };
        StatesAccumulator::boxed(AggregateFunction::Quantiles, Finish::Quantile(fraction))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(state_fields(&args))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn supports_within_group_clause(&self) -> bool {
        self.fraction_bits.is_none()
    }
}

/// The refusal of a fraction that is none.
pub(super) fn bad_fraction(fraction: f64) -> Failure {
    Failure::new(ErrorCode::BadRequest, format!("percentile {fraction} is not between 0 and 1"))
        .hint("Write 0.99 for the 99th percentile, or p99(x).")
}

/// `histogram(x, width)` and `histogram(x, min, max, buckets)`: a list of `{lower, upper, count}` without empty
/// buckets. Values outside `min..max` are counted in one bucket below and one above.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Histogram {
    signature: Signature,
}

impl Histogram {
    /// The function.
    pub(super) fn function() -> AggregateUDF {
        let signature = Signature::one_of(
            vec![TypeSignature::Coercible(vec![number(); 2]), TypeSignature::Coercible(vec![number(); 4])],
            Volatility::Immutable,
        );
        AggregateUDF::new_from_impl(Histogram { signature })
    }
}

/// The buckets for `(width)` or `(min, max, buckets)`.
pub(super) fn buckets(numbers: &[f64]) -> std::result::Result<HistogramBuckets, Failure> {
    let refuse = |what: String| {
        Err(Failure::new(ErrorCode::BadRequest, what)
            .hint("Write histogram(x, width) or histogram(x, min, max, buckets) with literal numbers."))
    };
    match *numbers {
        [width] if width.is_finite() && width > 0.0 => Ok(HistogramBuckets::Width(width)),
        [width] => refuse(format!("histogram width {width} is not a positive number")),
        [min, max, _] if !(min.is_finite() && max.is_finite() && min < max) => {
            refuse(format!("histogram range {min} to {max} is empty"))
        }
        [min, max, count] if (1.0..=BUCKETS_MAX).contains(&count) && count.fract() == 0.0 => {
            Ok(HistogramBuckets::Range { min, max, count: count as u32 })
        }
        [_, _, count] => refuse(format!("histogram bucket count {count} is not between 1 and {BUCKETS_MAX}")),
        _ => refuse(format!("histogram takes 2 or 4 arguments, not {}", numbers.len() + 1)),
    }
}

impl AggregateUDFImpl for Histogram {
    fn name(&self) -> &str {
        "histogram"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(Finish::Histogram.data_type(&DataType::Float64))
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let numbers = (1..args.exprs.len())
            .map(|index| physical_number(args.exprs.get(index), "an argument of histogram after the first"))
            .collect::<Result<Vec<f64>>>()?;
        let buckets = buckets(&numbers).map_err(external)?;
        StatesAccumulator::boxed(AggregateFunction::Histogram(buckets), Finish::Histogram)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(state_fields(&args))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

fn state_fields(args: &StateFieldsArgs) -> Vec<FieldRef> {
    vec![Arc::new(Field::new(format_state_name(args.name, "state"), DataType::Binary, true))]
}

fn physical_number(expr: Option<&Arc<dyn PhysicalExpr>>, what: &str) -> Result<f64> {
    let literal = expr.and_then(|expr| expr.downcast_ref::<Literal>());
    match literal.and_then(|literal| scalar_number(literal.value())) {
        Some(number) => Ok(number),
        None => plan_err!("{what} must be a literal number"),
    }
}

/// One state of the leaves, kept here over doubles.
#[derive(Debug)]
struct StatesAccumulator {
    aggregate: Aggregate,
    finish: Finish,
    states: States,
}

impl StatesAccumulator {
    fn boxed(function: AggregateFunction, finish: Finish) -> Result<Box<dyn Accumulator>> {
        let aggregate = Aggregate {
            function,
            argument: Some((Expr::column("x"), DataType::Float64)),
            filter: None,
            weighted: false,
        };
        let mut states = States::new(&aggregate, WeightKind::One).map_err(query_error)?;
        states.resize(1);
        Ok(Box::new(StatesAccumulator { aggregate, finish, states }))
    }
}

fn query_error(error: gannet_query::QueryError) -> datafusion::error::DataFusionError {
    external(Failure::new(ErrorCode::Internal, error.to_string()))
}

impl Accumulator for StatesAccumulator {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let Some(values) = values.first() else { return Ok(()) };
        let floats = arrow::compute::cast(values, &DataType::Float64)?;
        let floats = floats.as_primitive::<Float64Type>();
        let groups = vec![0; floats.len()];
        let input = Input {
            values: Values::Float(floats.values()),
            validity: floats.nulls(),
            weights: Weights::One,
            times: &[],
        };
        self.states.update(&groups, &input).map_err(query_error)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let column = self.states.finish(&self.finish, &DataType::Float64).map_err(query_error)?;
        ScalarValue::try_from_array(&column, 0)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.states.memory_bytes()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let arrays = self.states.to_arrays().map_err(query_error)?;
        arrays.iter().map(|array| ScalarValue::try_from_array(array, 0)).collect()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let theirs = States::from_arrays(&self.aggregate, WeightKind::One, states).map_err(query_error)?;
        self.states.merge(&theirs, &vec![0; theirs.len()]).map_err(query_error)
    }
}

/// Another aggregate, over stored rows; see the module.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Unweighted {
    name: String,
    inner: Arc<AggregateUDF>,
}

/// What the unweighted form of a function is called.
pub(super) const UNWEIGHTED_PREFIX: &str = "unweighted_";

impl Unweighted {
    /// The unweighted form of a function.
    pub(super) fn of(inner: Arc<AggregateUDF>) -> AggregateUDF {
        let name = format!("{UNWEIGHTED_PREFIX}{}", inner.name());
        AggregateUDF::new_from_impl(Unweighted { name, inner })
    }

    /// The function it is a form of.
    pub(super) fn inner(&self) -> &Arc<AggregateUDF> {
        &self.inner
    }
}

impl AggregateUDFImpl for Unweighted {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arg_types)
    }

    fn return_field(&self, arg_fields: &[FieldRef]) -> Result<FieldRef> {
        Ok(Arc::new(self.inner.return_field(arg_fields)?.as_ref().clone().with_name(&self.name)))
    }

    fn is_nullable(&self) -> bool {
        self.inner.is_nullable()
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.inner.accumulator(args)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.inner.state_fields(args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        self.inner.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        self.inner.create_groups_accumulator(args)
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.inner.create_sliding_accumulator(args)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.inner.order_sensitivity()
    }

    fn simplify(&self) -> Option<AggregateFunctionSimplification> {
        // A simplification would put the weighted function in its place.
        None
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::NotSupported
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(arg_types)
    }

    fn default_value(&self, data_type: &DataType) -> Result<ScalarValue> {
        self.inner.default_value(data_type)
    }

    fn supports_null_handling_clause(&self) -> bool {
        self.inner.supports_null_handling_clause()
    }

    fn supports_within_group_clause(&self) -> bool {
        self.inner.supports_within_group_clause()
    }
}
