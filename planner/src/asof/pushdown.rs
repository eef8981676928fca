//! Filters below an `ASOF JOIN`, where that cannot change which row matches.
//!
//! A predicate on left columns decides about left rows alone, so it may go first. One on equality keys may go to both
//! sides: a right row with another key never meets a left row that is kept. A predicate on anything else of the right
//! stays above: below, an older row would match in place of the one that it removes.
//!
//! The rule looks through the projections and aliases above a join by itself, so that a chain of joins is passed at
//! once, and it runs before DataFusion's own pushdown, which would copy a predicate without columns to both sides.

use super::node::{AsofKind, AsofNode};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema};
use datafusion::error::Result;
use datafusion::logical_expr::expr::Alias;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    Expr, ExprSchemable, Extension, Filter, LogicalPlan, Projection, SubqueryAlias, UserDefinedLogicalNodeCore,
};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};
use std::sync::Arc;

/// Goes before `push_down_filter` in the optimizer's list.
#[derive(Debug, Default, Clone, Copy)]
pub struct PushDownAsofFilter;

impl OptimizerRule for PushDownAsofFilter {
    fn name(&self) -> &str {
        "push_down_asof_filter"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(&self, plan: LogicalPlan, _config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Filter(filter) = plan else { return Ok(Transformed::no(plan)) };
        if !leads_to_asof(&filter.input) {
            return Ok(Transformed::no(LogicalPlan::Filter(filter)));
        }
        let conjuncts = split_conjunction_owned(filter.predicate.clone());
        let before = conjuncts.len();
        let (kept, input) = push(conjuncts, filter.input.as_ref().clone())?;
        if kept.len() == before {
            return Ok(Transformed::no(LogicalPlan::Filter(filter)));
        }
        Ok(Transformed::yes(filtered(kept, input)?))
    }
}

/// Whether there is an `ASOF JOIN` below, with nothing but names between.
fn leads_to_asof(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Extension(extension) => as_asof(extension).is_some(),
        LogicalPlan::Projection(Projection { input, .. }) | LogicalPlan::SubqueryAlias(SubqueryAlias { input, .. }) => {
            leads_to_asof(input)
        }
        _ => false,
    }
}

fn as_asof(extension: &Extension) -> Option<&AsofNode> {
    extension.node.as_any().downcast_ref::<AsofNode>()
}

fn filtered(conjuncts: Vec<Expr>, plan: LogicalPlan) -> Result<LogicalPlan> {
    Ok(match conjunction(conjuncts) {
        Some(predicate) => LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(plan))?),
        None => plan,
    })
}

/// Moves conjuncts over a plan's output as far down as they go. Returns those that must stay above it.
fn push(conjuncts: Vec<Expr>, plan: LogicalPlan) -> Result<(Vec<Expr>, LogicalPlan)> {
    match plan {
        LogicalPlan::Extension(extension) => match as_asof(&extension) {
            Some(node) => push_into(conjuncts, node),
            None => Ok((conjuncts, LogicalPlan::Extension(extension))),
        },
        LogicalPlan::Projection(projection) if leads_to_asof(&projection.input) => {
            let names = |column: &Column| {
                let at = projection.schema.maybe_index_of_column(column)?;
                match projection.expr.get(at)? {
                    Expr::Column(below) => Some(below.clone()),
                    Expr::Alias(Alias { expr, .. }) => expr.try_as_col().cloned(),
                    _ => None,
                }
            };
            let (kept, input) = push_renamed(conjuncts, projection.input.as_ref().clone(), names)?;
            let projection = Projection::try_new_with_schema(projection.expr, Arc::new(input), projection.schema)?;
            Ok((kept, LogicalPlan::Projection(projection)))
        }
        LogicalPlan::SubqueryAlias(alias) if leads_to_asof(&alias.input) => {
            let names = |column: &Column| {
                let at = alias.schema.maybe_index_of_column(column)?;
                Some(Column::from(alias.input.schema().qualified_field(at)))
            };
            let (kept, input) = push_renamed(conjuncts, alias.input.as_ref().clone(), names)?;
            Ok((kept, LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(input), alias.alias)?)))
        }
        other => Ok((conjuncts, other)),
    }
}

/// Pushes what can be said in the names of the input; what the input does not let through becomes a filter on it.
fn push_renamed(
    conjuncts: Vec<Expr>,
    input: LogicalPlan,
    below: impl Fn(&Column) -> Option<Column>,
) -> Result<(Vec<Expr>, LogicalPlan)> {
    let (mut kept, mut pushed, mut originals) = (vec![], vec![], vec![]);
    for conjunct in conjuncts {
        match renamed(conjunct.clone(), &below)? {
            Some(expr) => {
                pushed.push(expr);
                originals.push(conjunct);
            }
            None => kept.push(conjunct),
        }
    }
    let (stuck, input) = push(pushed.clone(), input)?;
    // What stays directly above the join stays above the projection too: the other way would make work for nothing.
    for (expr, original) in pushed.into_iter().zip(originals) {
        if stuck.contains(&expr) {
            kept.push(original);
        }
    }
    Ok((kept, input))
}

/// The expression with every column renamed; `None` if one has no name below or the expression has a subquery.
fn renamed(expr: Expr, below: &impl Fn(&Column) -> Option<Column>) -> Result<Option<Expr>> {
    if has_subquery(&expr)? {
        return Ok(None);
    }
    let mut complete = true;
    let renamed = expr.transform(|e| {
        Ok(match e {
            Expr::Column(column) => match below(&column) {
                Some(below) => Transformed::yes(Expr::Column(below)),
                None => {
                    complete = false;
                    Transformed::no(Expr::Column(column))
                }
            },
            other => Transformed::no(other),
        })
    })?;
    Ok(complete.then_some(renamed.data))
}

fn has_subquery(expr: &Expr) -> Result<bool> {
    expr.exists(|e| {
        Ok(matches!(e, Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_)))
    })
}

fn push_into(conjuncts: Vec<Expr>, node: &AsofNode) -> Result<(Vec<Expr>, LogicalPlan)> {
    let (ls, rs) = (node.left.schema(), node.right.schema());
    let (mut kept, mut to_left, mut to_right) = (vec![], vec![], vec![]);
    for conjunct in conjuncts {
        let left = match node.kind {
            _ if conjunct.contains_outer() || has_subquery(&conjunct)? => None,
            // Where every row has both keys and they are the same, either side's name will do.
            AsofKind::Inner if !conjunct.is_volatile() => renamed(conjunct.clone(), &|c| {
                if ls.has_column(c) { Some(c.clone()) } else { other_key(node, c, true) }
            })?,
            _ => conjunct.column_refs().iter().all(|c| ls.has_column(c)).then(|| conjunct.clone()),
        };
        let Some(left) = left else {
            kept.push(conjunct);
            continue;
        };
        if !left.is_volatile() && left.any_column_refs() {
            to_right.extend(renamed(left.clone(), &|c| other_key(node, c, false))?);
        }
        to_left.push(left);
    }
    if to_left.is_empty() {
        let node = Arc::new(node.clone());
        return Ok((kept, LogicalPlan::Extension(Extension { node })));
    }
    debug_assert!(to_right.iter().all(|e| e.column_refs().iter().all(|c| rs.has_column(c))));
    let (stuck, left) = push(to_left, node.left.clone())?;
    let left = filtered(stuck, left)?;
    let right = filtered(to_right, node.right.clone())?;
    let node = node.with_exprs_and_inputs(UserDefinedLogicalNodeCore::expressions(node), vec![left, right])?;
    Ok((kept, LogicalPlan::Extension(Extension { node: Arc::new(node) })))
}

/// The column that an equality makes equal to `column` of the right side (`to_left`) or of the left side: both plain
/// columns of one type in which equal means identical.
fn other_key(node: &AsofNode, column: &Column, to_left: bool) -> Option<Column> {
    let exact = |expr: &Expr, schema: &DFSchema| expr.get_type(schema).is_ok_and(|ty| !ty.is_floating());
    node.keys.iter().find_map(|(l, r)| {
        let (from, to) = if to_left { (r, l) } else { (l, r) };
        let same = from.try_as_col()? == column && exact(l, node.left.schema());
        same.then(|| to.try_as_col().cloned()).flatten()
    })
}
