//! The DataFusion session all queries are clones of.

use std::sync::Arc;

use datafusion::catalog::EmptyCatalogProviderList;
use datafusion::error::Result;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::execution::{SessionState, SessionStateDefaults};
use datafusion::logical_expr::AggregateUDF;
use datafusion::optimizer::Optimizer;
use datafusion::prelude::SessionConfig;

use super::functions::{Histogram, Percentile};
use super::grouped_first::GROUP_FIRST;
use super::lateral::UNNEST_BESIDE;
use super::push::PUSH_TO_LEAVES;
use super::tables::{CATALOG, SCHEMA};

/// Percentiles that are there by name; others of their kind are made when a statement names one.
const PERCENTILES: [&str; 9] = ["p01", "p05", "p10", "p25", "p50", "p75", "p90", "p95", "p99"];

/// Builds the session: our functions, our rules, no files, no catalog of its own.
pub(super) fn session(memory_bytes_max: usize) -> Result<SessionState> {
    let mut config = SessionConfig::new()
        .with_target_partitions(1)
        .with_information_schema(true)
        .with_default_catalog_and_schema(CATALOG, SCHEMA)
        .with_create_default_catalog_and_schema(false)
        .with_collect_statistics(false);
    let options = config.options_mut();
    options.sql_parser.enable_ident_normalization = false;
    options.sql_parser.map_string_types_to_utf8view = false;
    options.sql_parser.collect_spans = true;
    options.explain.physical_plan_only = true;
    // One pass does nearly all; the second sees what the first made possible.
    options.optimizer.max_passes = 2;
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(GreedyMemoryPool::new(memory_bytes_max)))
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
        .build_arc()?;
    let mut aggregates = SessionStateDefaults::default_aggregate_functions();
    aggregates.extend(own_aggregates().into_iter().map(Arc::new));
    Ok(SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(runtime)
        .with_catalog_list(Arc::new(EmptyCatalogProviderList))
        .with_expr_planners(SessionStateDefaults::default_expr_planners())
        .with_scalar_functions(scalar_functions())
        .with_higher_order_functions(SessionStateDefaults::default_higher_order_functions())
        .with_window_functions(SessionStateDefaults::default_window_functions())
        .with_table_function_list(SessionStateDefaults::default_table_functions())
        .with_aggregate_functions(aggregates)
        .with_optimizer_rules(rules())
        .build())
}

/// Functions whose result is as large as an argument says: a few characters of SQL would take all memory.
const MEMORY_BOMBS: [&str; 6] =
    ["repeat", "range", "generate_series", "gen_series", "array_repeat", "array_resize"];

fn scalar_functions() -> Vec<Arc<datafusion::logical_expr::ScalarUDF>> {
    let all = SessionStateDefaults::default_scalar_functions();
    all.into_iter().filter(|function| !MEMORY_BOMBS.contains(&function.name())).collect()
}

/// Ours come after DataFusion's and take their names.
fn own_aggregates() -> Vec<AggregateUDF> {
    let mut own: Vec<AggregateUDF> = PERCENTILES
        .iter()
        .chain(&["p999"])
        .filter_map(|name| Some(Percentile::fixed(name, Percentile::fraction_of_name(name)?)))
        .collect();
    own.push(Percentile::fixed("median", 0.5));
    own.push(Percentile::fixed("approx_median", 0.5));
    own.push(Percentile::with_argument());
    own.push(Histogram::function());
    own.push(
        AggregateUDF::clone(&datafusion::functions_aggregate::approx_distinct::approx_distinct_udaf())
            .with_aliases(["approx_count_distinct"]),
    );
    own.push(
        AggregateUDF::clone(&datafusion::functions_aggregate::variance::var_samp_udaf())
            .with_aliases(["variance", "variance_samp"]),
    );
    own
}

/// DataFusion's rules in their order, with one of ours before them and two before the first that takes aggregates apart.
fn rules() -> Vec<Arc<dyn datafusion::optimizer::OptimizerRule + Send + Sync>> {
    let mut rules = Optimizer::new().rules;
    let place = rules
        .iter()
        .position(|rule| rule.name() == "single_distinct_aggregation_to_group_by")
        .unwrap_or(rules.len());
    rules.insert(place, Arc::new(PUSH_TO_LEAVES));
    rules.insert(place, Arc::new(GROUP_FIRST));
    rules.insert(0, Arc::new(UNNEST_BESIDE));
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_rule_runs_after_filters_are_pushed_and_before_aggregates_are_taken_apart() {
        let rules = rules();
        let place = |name: &str| rules.iter().position(|rule| rule.name() == name);
        let ours = place("push_to_leaves");
        assert!(place("push_down_filter") < ours && place("push_down_limit") < ours);
        assert!(ours < place("single_distinct_aggregation_to_group_by"));
        assert!(ours < place("common_sub_expression_eliminate"));
    }
}
