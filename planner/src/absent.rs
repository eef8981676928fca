//! Why an entity has no row, in a query that is planned: behind an outer join by its key the scan of a feature view also has the
//! entities of which something is known (`_status` is `expired`, or `late`), and the plan above hides what else they have.
//!
//! ```text
//! Projection  CASE WHEN found IS NOT NULL THEN u.n END AS n, …, u._status, else 'missing'
//!   Left Join  k.user_id = u.user_id
//!     k
//!     Projection  u.*, is there AS found
//!       users, and entities without a row           is there: NULL for these
//! ```
//!
//! Done to the plan that `defaults` has made, before it gets its data. Lookups without a plan know it by themselves.

use crate::{
    defaults,
    table::{ScanTarget, StepsTable, TidemarkTable, has_status, with_found},
};
use arrow_schema::DataType;
use datafusion::{
    common::{
        Column, DFSchemaRef, JoinType,
        tree_node::{Transformed, TreeNodeRecursion},
    },
    error::Result,
    logical_expr::{
        Expr, Join, LogicalPlan, LogicalPlanBuilder, Operator, Projection, SubqueryAlias, expr::BinaryExpr,
        utils::split_conjunction, when,
    },
};
use std::{collections::BTreeSet, sync::Arc};

/// The plan whose outer joins tell it, also in subqueries.
///
/// # Errors
/// None for a plan that was bound.
pub fn told(plan: LogicalPlan) -> Result<LogicalPlan> {
    let mut asks = false;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            asks |= TidemarkTable::of(&scan.source).is_some_and(|table| has_status(&table.schema));
        }
        Ok(if asks { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    if !asks {
        return Ok(plan);
    }
    let told = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Projection(projection) => over_join(projection),
        other => Ok(Transformed::no(other)),
    })?;
    Ok(told.data)
}

fn over_join(projection: Projection) -> Result<Transformed<LogicalPlan>> {
    let told = match projection.input.as_ref() {
        LogicalPlan::Join(join) => told_join(join)?,
        _ => None,
    };
    let Some((join, found, optional)) = told else {
        return Ok(Transformed::no(LogicalPlan::Projection(projection)));
    };
    let is_found = Expr::Column(found).is_not_null();
    let shown = projection.expr.into_iter().map(|expr| match expr {
        Expr::Column(column) if optional.has_column(&column) => {
            let value = when(is_found.clone(), Expr::Column(column.clone())).end()?;
            Ok(value.alias_qualified(column.relation, column.name))
        }
        // A default, or a status.
        other => Ok(other),
    });
    let shown = shown.collect::<Result<Vec<Expr>>>()?;
    Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(shown, Arc::new(join))?)))
}

/// The join over a scan with entities that have no row; the column that is NULL for these, and the columns of its optional side.
fn told_join(join: &Join) -> Result<Option<(LogicalPlan, Column, DFSchemaRef)>> {
    let optional = match join.join_type {
        JoinType::Left => &join.right,
        JoinType::Right => &join.left,
        // Of a FULL JOIN they would be rows.
        _ => return Ok(None),
    };
    let LogicalPlan::Projection(side) = optional.as_ref() else { return Ok(None) };
    if !defaults::is_marked(optional) || !is_by_key(join, side) {
        return Ok(None);
    }
    let Some(scan) = with_absent(&side.input)? else { return Ok(None) };
    let (Some(is_there), Some((Expr::Alias(mark), columns))) =
        (scan.schema().iter().last().map(Column::from), side.expr.split_last())
    else {
        return Ok(None);
    };
    let mut columns = columns.to_vec();
    columns.push(Expr::Column(is_there).alias(mark.name.clone()));
    let told = Arc::new(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(scan))?));
    let told = match join.join_type {
        JoinType::Left => Join { right: told, ..join.clone() },
        _ => Join { left: told, ..join.clone() },
    };
    let found = Column::new_unqualified(mark.name.clone());
    Ok(Some((LogicalPlan::Join(told).recompute_schema()?, found, optional.schema().clone())))
}

/// The scan of a feature view, under whatever names, with entities that have no row.
fn with_absent(plan: &LogicalPlan) -> Result<Option<LogicalPlan>> {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => {
            let Some(input) = with_absent(&alias.input)? else { return Ok(None) };
            let renamed = SubqueryAlias::try_new(Arc::new(input), alias.alias.clone())?;
            Ok(Some(LogicalPlan::SubqueryAlias(renamed)))
        }
        LogicalPlan::TableScan(scan) => {
            let whole = scan.projection.is_none() && scan.filters.is_empty();
            let current = |table: &&TidemarkTable| matches!(table.target, ScanTarget::CurrentRows(_));
            let table = TidemarkTable::of(&scan.source).filter(current).filter(|table| has_status(&table.schema));
            let Some(table) = table.filter(|_| whole) else { return Ok(None) };
            let source = TidemarkTable { schema: with_found(&table.schema), ..table.clone() };
            LogicalPlanBuilder::scan(scan.table_name.clone(), Arc::new(source), None)?.build().map(Some)
        }
        _ => Ok(None),
    }
}

/// Whether the join is by the whole entity key and asks for nothing else: an entity without a row is met where its row would be.
fn is_by_key(join: &Join, side: &Projection) -> bool {
    let Some(steps) = steps_of(&side.input) else { return false };
    let key = |expr: &Expr| {
        let at = side.schema.maybe_index_of_column(key_column(expr, side)?)?;
        let name = side.input.schema().fields().get(at)?.name();
        steps.key.iter().position(|key| key == name)
    };
    let reads_side = |expr: &Expr| expr.column_refs().into_iter().any(|column| side.schema.has_column(column));
    let mut met = BTreeSet::new();
    let mut meets = |left: &Expr, right: &Expr| match (key(left), key(right)) {
        (Some(key), None) if !reads_side(right) => met.insert(key),
        (None, Some(key)) if !reads_side(left) => met.insert(key),
        _ => false,
    };
    let on = join.on.iter().all(|(left, right)| meets(left, right));
    let rest = join.filter.iter().flat_map(split_conjunction).all(|condition| match condition {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => meets(left, right),
        _ => false,
    });
    on && rest && met.len() == steps.key.len()
}

/// The column, also where it has been made as wide as the other side of a comparison: each value is another one then, too.
fn key_column<'e>(expr: &'e Expr, side: &Projection) -> Option<&'e Column> {
    let Expr::Cast(cast) = expr else { return expr.try_as_col() };
    let column = cast.expr.try_as_col()?;
    let from = side.schema.field(side.schema.maybe_index_of_column(column)?).data_type();
    let widens = matches!(
        (from, cast.field.data_type()),
        (DataType::Int16, DataType::Int32 | DataType::Int64) | (DataType::Int32, DataType::Int64)
    );
    widens.then_some(column)
}

fn steps_of(plan: &LogicalPlan) -> Option<&StepsTable> {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => steps_of(&alias.input),
        LogicalPlan::TableScan(scan) => TidemarkTable::of(&scan.source)?.steps.as_deref(),
        _ => None,
    }
}
