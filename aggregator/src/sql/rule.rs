//! What the optimizer rules of ours have in common: each replaces the operators that it knows, and leaves all others.

use std::fmt;

use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

/// See the module.
pub(super) struct Rule {
    /// Its name in DataFusion's list.
    pub(super) name: &'static str,
    /// Whether it sees an operator before those below it.
    pub(super) order: ApplyOrder,
    /// What stands for an operator; `None` when that stays as it is.
    pub(super) replace: fn(&LogicalPlan) -> Result<Option<LogicalPlan>>,
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl OptimizerRule for Rule {
    fn name(&self) -> &str {
        self.name
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(self.order)
    }

    fn rewrite(&self, plan: LogicalPlan, _config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        Ok(match (self.replace)(&plan)? {
            Some(replacement) => Transformed::yes(replacement),
            None => Transformed::no(plan),
        })
    }
}
