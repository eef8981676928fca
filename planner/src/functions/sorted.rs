//! `ORDER BY` of a statement with a subquery that stands for one value.
//!
//! DataFusion looks for the sort of the whole statement from the top of the physical plan down, through nodes of one
//! input, and asks for it there; a sort that nobody asks for is dropped. Over a plan with uncorrelated scalar subqueries
//! stands a `ScalarSubqueryExec`, which has their plans as inputs too, so the search ends at once: the order was lost
//! wherever the sort is not the very next node, as when the sort column is not selected. The search goes on in its main
//! input here, whose order it keeps.

use datafusion::{
    common::config::ConfigOptions,
    error::Result,
    execution::SessionStateBuilder,
    physical_optimizer::{
        PhysicalOptimizerRule, optimizer::PhysicalOptimizer, output_requirements::OutputRequirements,
    },
    physical_plan::{ExecutionPlan, scalar_subquery::ScalarSubqueryExec},
};
use std::sync::Arc;

/// Puts the rule in the place of the one it asks, which is the first of the two of its name: the other takes away what
/// this one adds.
pub fn install(builder: &mut SessionStateBuilder) {
    let optimizer = builder.physical_optimizers().get_or_insert_with(PhysicalOptimizer::new);
    let inner = OutputRequirements::new_add_mode();
    if let Some(first) = optimizer.rules.iter_mut().find(|rule| rule.name() == inner.name()) {
        *first = Arc::new(SortedUnderSubqueries { inner });
    }
}

#[derive(Debug)]
struct SortedUnderSubqueries {
    inner: OutputRequirements,
}

impl PhysicalOptimizerRule for SortedUnderSubqueries {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        if !plan.is::<ScalarSubqueryExec>() {
            return self.inner.optimize(plan, config);
        }
        // The first is the main input.
        let mut children: Vec<Arc<dyn ExecutionPlan>> = plan.children().into_iter().cloned().collect();
        if let Some(input) = children.first_mut() {
            *input = self.optimize(Arc::clone(input), config)?;
        }
        plan.with_new_children(children)
    }

    fn name(&self) -> &'static str {
        "SortedUnderSubqueries"
    }

    fn schema_check(&self) -> bool {
        self.inner.schema_check()
    }
}
