//! What a join says of itself: to `EXPLAIN ANALYZE`, and to the record of a training set.

use super::exec::Condition;
use arrow::array::{Array, ArrayRef};
use arrow::datatypes::SchemaRef;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::PhysicalExpr;
use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use std::sync::Arc;

/// What has become of the labels so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Matches {
    /// The relation on the right.
    pub name: String,
    pub matched: usize,
    pub unmatched: usize,
    /// At or above the frontier, where [`super::Finality`] says that there is one.
    pub provisional: usize,
}

impl Matches {
    /// Of one of the joins of an operator, over all executions.
    pub fn of(metrics: &MetricsSet, condition: &Condition, suffix: &str) -> Matches {
        let count = |name: &str| metrics.sum_by_name(&format!("{name}{suffix}")).map_or(0, |value| value.as_usize());
        Matches {
            name: condition.right.clone(),
            matched: count("matched"),
            unmatched: count("unmatched"),
            provisional: count("provisional"),
        }
    }
}

/// What tells the counts of several joins in one operator apart; nothing where there is one.
pub fn suffix(at: usize, of: usize, condition: &Condition) -> String {
    match of {
        0 | 1 => String::new(),
        _ => format!("_{}_{}", at + 1, condition.right),
    }
}

/// The counts of one join while it runs.
pub struct Counts {
    pub matched: Count,
    pub unmatched: Count,
    pub provisional: Count,
    /// Rows of the right side that were read.
    pub right_rows: Count,
    /// Of each right column that is a value of the match.
    nulls: Vec<Option<Count>>,
}

impl Counts {
    pub fn new(metrics: &ExecutionPlanMetricsSet, condition: &Condition, right: &SchemaRef, suffix: &str) -> Counts {
        let count = |name: &str| MetricBuilder::new(metrics).counter(format!("{name}{suffix}"), 0);
        let nulls = right
            .fields()
            .iter()
            .enumerate()
            .map(|(i, field)| (!condition.finds_by(i)).then(|| count(&format!("nulls_of_{}", field.name()))));
        Counts {
            matched: count("matched"),
            unmatched: count("unmatched"),
            provisional: match condition.known.as_ref().and_then(|known| known.frontier_us) {
                Some(_) => count("provisional"),
                None => Count::new(),
            },
            right_rows: count("right_rows"),
            nulls: nulls.collect(),
        }
    }

    /// The values that a batch of output has of the right side.
    pub fn values(&self, columns: &[ArrayRef]) {
        for (column, nulls) in columns.iter().zip(&self.nulls) {
            if let Some(nulls) = nulls {
                nulls.add(column.logical_null_count());
            }
        }
    }
}

impl Condition {
    /// Whether a right column is there to find the match, and is no value of it.
    fn finds_by(&self, column: usize) -> bool {
        let is = |expr: &Arc<dyn PhysicalExpr>| expr.downcast_ref::<Column>().is_some_and(|c| c.index() == column);
        let keys = self.right_keys.iter().chain([&self.right_time]);
        keys.chain(&self.base).chain(&self.operation).any(is)
    }
}
