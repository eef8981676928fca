//! Aggregates of different orders beside one of DISTINCT and ORDER BY, which are refused.
//!
//! All aggregates of a node read their rows in one order, and what cannot be had by that sorts for itself, or says so;
//! `array_agg(DISTINCT x ORDER BY x)` takes the order that another has asked for instead, and answers wrongly.

use datafusion::{
    common::{config::ConfigOptions, not_impl_err, tree_node::TreeNodeRecursion},
    error::Result,
    logical_expr::{
        Expr, LogicalPlan,
        expr::{AggregateFunction, Sort},
    },
    optimizer::AnalyzerRule,
};

/// The rule for ordinary queries.
#[derive(Debug)]
pub struct OneOrder;

impl AnalyzerRule for OneOrder {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.apply_with_subqueries(|node| {
            if let LogicalPlan::Aggregate(aggregate) = node {
                check(&aggregate.aggr_expr)?;
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(plan)
    }

    fn name(&self) -> &'static str {
        "one_order"
    }
}

fn check(aggregates: &[Expr]) -> Result<()> {
    let orders: Vec<(bool, &[Sort])> = aggregates.iter().filter_map(order).collect();
    for (_, one) in orders.iter().filter(|(distinct, _)| *distinct) {
        // The longer of two orders that begin alike is both.
        if !orders.iter().all(|(_, other)| one.iter().zip(other.iter()).all(|(a, b)| a == b)) {
            return not_impl_err!("conflicting ordering requirements in aggregate functions");
        }
    }
    Ok(())
}

/// Whether it is DISTINCT, and its ORDER BY; that of WITHIN GROUP is an argument.
fn order(expr: &Expr) -> Option<(bool, &[Sort])> {
    let mut expr = expr;
    while let Expr::Alias(alias) = expr {
        expr = &alias.expr;
    }
    match expr {
        Expr::AggregateFunction(AggregateFunction { func, params })
            if !params.order_by.is_empty() && !func.supports_within_group_clause() =>
        {
            Some((params.distinct, params.order_by.as_slice()))
        }
        _ => None,
    }
}
