//! From a folded table factor to an [`AsofNode`]: the hook into DataFusion's SQL planner.

use super::condition::{self, Condition};
use super::nest::is_asof;
use super::service::{self, Service};
use super::service_join::over_service;
use super::steps::{StepsScan, at_left_time};
use super::{AsofKind, AsofNode, refuse};
use crate::{PlanError, PlanResult, defaults, error::sqlstate};
use arrow::row::{RowConverter, SortField};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Column, DFSchema};
use datafusion::error::Result;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::utils::split_conjunction_owned;
use datafusion::logical_expr::{Expr, ExprSchemable, Extension, LogicalPlan, Projection};
use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::ast::{JoinConstraint, JoinOperator, ObjectName, TableFactor, TableWithJoins};
use std::sync::Arc;

/// Plans the table factors that [`super::nest_asof`] makes; leaves all others alone.
///
/// Refusals are [`PlanError`]s inside `DataFusionError::External`.
#[derive(Debug, Default, Clone, Copy)]
pub struct AsofPlanner;

impl RelationPlanner for AsofPlanner {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        match relation {
            TableFactor::NestedJoin { mut table_with_joins, alias: None }
                if table_with_joins.joins.last().is_some_and(is_asof) =>
            {
                let TableWithJoins { relation, joins } = table_with_joins.as_mut();
                let join = joins.pop();
                let left = if joins.is_empty() {
                    relation.clone()
                } else {
                    TableFactor::NestedJoin { table_with_joins, alias: None }
                };
                match join {
                    Some(join) => plan_join(left, join, context),
                    None => Ok(RelationPlanning::Original(Box::new(left))),
                }
            }
            other => Ok(RelationPlanning::Original(Box::new(other))),
        }
    }
}

fn plan_join(left: TableFactor, join: ast::Join, context: &mut dyn RelationPlannerContext) -> Result<RelationPlanning> {
    let (kind, match_condition, constraint) = match join.join_operator {
        JoinOperator::Join(constraint) | JoinOperator::Inner(constraint) => (AsofKind::Inner, None, constraint),
        JoinOperator::Left(constraint) | JoinOperator::LeftOuter(constraint) => (AsofKind::Left, None, constraint),
        JoinOperator::AsOf { match_condition, constraint } => {
            let kind = if join.global { AsofKind::Left } else { AsofKind::Inner };
            (kind, Some(match_condition), constraint)
        }
        _ => return Err(refuse(PlanError::unsupported("only ASOF JOIN and ASOF LEFT JOIN are supported"))),
    };
    let left = context.plan(left)?;
    let right = defaults::fill(context.plan(join.relation)?)?;
    let (condition, using) = bind(match_condition, constraint, &left, &right, context)?;
    let plan = match StepsScan::find(&right) {
        Some(steps) => over_steps(left, steps, kind, condition, &using)?,
        None if reads_steps(&right) => {
            let service = Service::of(&right).map_err(|why| refuse(refuse_current_rows(&right, &why)))?;
            over_service(left, &right, service, kind, condition, &using)?
        }
        None => over_relation(left, right, kind, condition, &using)?,
    };
    Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, None))))
}

/// Whether there are current rows of something that has a history.
fn reads_steps(plan: &LogicalPlan) -> bool {
    let mut found = false;
    let _ = plan.apply_with_subqueries(|node| {
        found |= matches!(node, LogicalPlan::TableScan(scan) if StepsScan::of(scan, None).is_some());
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    found
}

/// What is no feature service has current rows only: joined to the past they would carry the present into a training
/// set, without anybody noticing.
fn refuse_current_rows(right: &LogicalPlan, why: &str) -> PlanError {
    PlanError::unsupported(format!("\"{}\" cannot be taken as of the left rows: it {why}", service::name(right)))
        .detail("its current rows would carry the present into the past; a view or subquery can be taken as of a time where it only looks feature views up by their entity keys and computes on top")
        .hint("join the feature views themselves, one ASOF JOIN each, and filter in WHERE; or select from history.<view>")
}

/// The condition, and the right columns that `USING` merges into the left ones.
fn bind(
    match_condition: Option<ast::Expr>,
    constraint: JoinConstraint,
    left: &LogicalPlan,
    right: &LogicalPlan,
    context: &mut dyn RelationPlannerContext,
) -> Result<(Condition, Vec<Column>)> {
    let schema = left.schema().join(right.schema())?;
    let mut conjuncts = vec![];
    let has_match_condition = match_condition.is_some();
    if let Some(expr) = match_condition {
        conjuncts.extend(split_conjunction_owned(context.sql_to_expr(expr, &schema)?));
    }
    let mut using = vec![];
    match constraint {
        JoinConstraint::On(expr) => conjuncts.extend(split_conjunction_owned(context.sql_to_expr(expr, &schema)?)),
        JoinConstraint::None if has_match_condition => {}
        JoinConstraint::Using(names) => {
            let last = names.len().saturating_sub(1);
            for (i, name) in names.into_iter().enumerate() {
                let name = using_name(name, context).map_err(refuse)?;
                let l = using_column(left.schema(), &name, "left").map_err(refuse)?;
                let r = using_column(right.schema(), &name, "right").map_err(refuse)?;
                let (l, key) = (Expr::Column(l), Expr::Column(r.clone()));
                conjuncts.push(if i == last && !has_match_condition { l.gt_eq(key) } else { l.eq(key) });
                using.push(r);
            }
        }
        JoinConstraint::Natural => {
            return Err(refuse(PlanError::unsupported("NATURAL ASOF JOIN is not supported").hint("name the columns")));
        }
        JoinConstraint::None => {
            return Err(refuse(
                PlanError::syntax("an ASOF JOIN needs a condition")
                    .hint("add ON l.key = r.key AND l.ts >= r.ts, or USING (key, ts)"),
            ));
        }
    }
    let condition = condition::split(conjuncts, left.schema(), right.schema()).map_err(refuse)?;
    Ok((condition, using))
}

fn using_name(name: ObjectName, context: &dyn RelationPlannerContext) -> PlanResult<String> {
    match name.0.as_slice() {
        [part] => part.as_ident().map(|ident| context.normalize_ident(ident.clone())),
        _ => None,
    }
    .ok_or_else(|| PlanError::syntax(format!("{name} in USING is not a column name")))
}

fn using_column(schema: &DFSchema, name: &str, side: &str) -> PlanResult<Column> {
    match schema.qualified_fields_with_unqualified_name(name).as_slice() {
        [(qualifier, field)] => Ok(Column::from((*qualifier, *field))),
        [] => Err(PlanError::new(
            sqlstate::UNDEFINED_COLUMN,
            format!("column \"{name}\" in USING does not exist on the {side} side of the ASOF JOIN"),
        )),
        _ => Err(PlanError::new(
            sqlstate::AMBIGUOUS_COLUMN,
            format!("column \"{name}\" in USING is ambiguous on the {side} side of the ASOF JOIN"),
        )
        .hint("use ON with qualified names")),
    }
}

/// The node over two plain inputs, types agreed, ties not yet.
fn node(left: LogicalPlan, right: LogicalPlan, kind: AsofKind, condition: &Condition) -> Result<AsofNode> {
    let (ls, rs) = (left.schema().clone(), right.schema().clone());
    let mut keys = Vec::with_capacity(condition.keys.len());
    for (l, r) in &condition.keys {
        let ty = condition::common_key((l, &l.get_type(&ls)?), (r, &r.get_type(&rs)?)).map_err(refuse)?;
        keys.push((cast(l, &ty, &ls)?, cast(r, &ty, &rs)?));
    }
    let (l, r) = (&condition.left_time, &condition.right_time);
    let ty = condition::common_time((l, &l.get_type(&ls)?), (r, &r.get_type(&rs)?)).map_err(refuse)?;
    let (left_time, right_time) = (cast(l, &ty, &ls)?, cast(r, &ty, &rs)?);
    let mut node = AsofNode::try_new(left, right, kind, condition.op, keys, left_time, right_time)?;
    if let Some((span, strict)) = &condition.tolerance {
        node.tolerance = Some(condition::tolerance(span, *strict, &ty).map_err(refuse)?);
    }
    Ok(node)
}

fn cast(expr: &Expr, ty: &arrow_schema::DataType, schema: &DFSchema) -> Result<Expr> {
    expr.clone().cast_to(ty, schema)
}

fn over_relation(
    left: LogicalPlan,
    right: LogicalPlan,
    kind: AsofKind,
    condition: Condition,
    using: &[Column],
) -> Result<LogicalPlan> {
    let mut node = node(left, right, kind, &condition)?;
    node.ties = ties(&node, &condition);
    if using.is_empty() {
        return Ok(extension(node));
    }
    let right = columns(node.right.schema()).filter(|c| !using.contains(c)).map(Expr::Column).collect();
    project(node, right)
}

/// The remaining columns in declared order, then those of key and time whose values may differ where the comparison
/// sees none (−0 and 0, or before a cast), so that the winner is the same in every run.
fn ties(node: &AsofNode, condition: &Condition) -> Vec<Expr> {
    let raw = condition.keys.iter().map(|(_, r)| r).chain([&condition.right_time]);
    let compared = node.keys.iter().map(|(_, r)| r).chain([&node.right_time]);
    let (mut plain, mut differing) = (vec![], vec![]);
    for (raw, compared) in raw.zip(compared) {
        if let Expr::Column(column) = raw {
            plain.push(column);
            let float = compared.get_type(node.right.schema()).is_ok_and(|ty| ty.is_floating());
            if (raw != compared || float) && !differing.contains(column) {
                differing.push(column.clone());
            }
        }
    }
    let remaining = columns(node.right.schema()).filter(|c| !plain.contains(&c));
    remaining
        .chain(differing)
        .map(Expr::Column)
        .filter(|c| {
            c.get_type(node.right.schema()).is_ok_and(|ty| RowConverter::supports_fields(&[SortField::new(ty)]))
        })
        .collect()
}

/// The steps of a feature view or changelog table, seen as the table that the user knows.
fn over_steps(
    left: LogicalPlan,
    steps: StepsScan,
    kind: AsofKind,
    condition: Condition,
    using: &[Column],
) -> Result<LogicalPlan> {
    steps.check(&condition).map_err(refuse)?;
    let node = steps_node(left, &steps, kind, &condition)?;
    let right = steps
        .user_columns()?
        .into_iter()
        .filter(|(column, _)| !using.contains(column))
        .map(|(column, expr)| match (expr, steps.table().default(&column.name).filter(|_| kind == AsofKind::Left)) {
            (expr @ Expr::Column(_), None) => Ok(expr),
            (expr, None) => Ok(at_left_time(expr, &node)?.alias_qualified(column.relation, column.name)),
            (expr, Some(default)) => {
                let value = defaults::or(steps.is_matched(), at_left_time(expr, &node)?, default.clone())?;
                Ok(value.alias_qualified(column.relation, column.name))
            }
        })
        .collect::<Result<_>>()?;
    project(node, right)
}

/// The node over the steps of a feature view or changelog table.
pub(super) fn steps_node(
    left: LogicalPlan,
    steps: &StepsScan,
    kind: AsofKind,
    condition: &Condition,
) -> Result<AsofNode> {
    let mut node = node(left, steps.plan()?, kind, condition)?;
    node.operation = Some(Expr::Column(steps.operation()));
    if node.tolerance.is_some() {
        let ty = node.right_time.get_type(node.right.schema())?;
        node.base = Some(cast(&Expr::Column(steps.event_time()), &ty, node.right.schema())?);
    }
    Ok(node)
}

/// All left columns and `right` over the node.
fn project(node: AsofNode, right: Vec<Expr>) -> Result<LogicalPlan> {
    let left: Vec<Column> = columns(node.left.schema()).collect();
    project_over(extension(node), left, right)
}

pub(super) fn project_over(plan: LogicalPlan, left: Vec<Column>, right: Vec<Expr>) -> Result<LogicalPlan> {
    let exprs = left.into_iter().map(Expr::Column).chain(right).collect();
    Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(plan))?))
}

pub(super) fn columns(schema: &DFSchema) -> impl Iterator<Item = Column> + '_ {
    schema.iter().map(Column::from)
}

pub(super) fn extension(node: AsofNode) -> LogicalPlan {
    LogicalPlan::Extension(Extension { node: Arc::new(node) })
}
