//! Entity keys over joins: what the conditions say of a column holds for the column that it is joined to, so each member of a
//! feature service is asked for by its key. DataFusion does this for inner joins; the optional side of an outer join needs it too.
//!
//! ```text
//! WHERE l.user_id = 7    lately l LEFT JOIN counted c ON c.user_id = l.user_id    ─▶    c.user_id = 7 on the right
//! ```

use arrow::array::Array;
use datafusion::{
    common::{Column, JoinType, NullEquality, ScalarValue, tree_node::Transformed},
    error::Result as DfResult,
    logical_expr::{Expr, Filter, Join, LogicalPlan, Unnest, expr_rewriter::replace_col, utils::split_conjunction},
};
use std::{collections::HashMap, sync::Arc};

/// The same plan, which is optimised, with conditions on both sides of its joins. Rows of a side that they take away would have
/// found no partner.
pub fn spread(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let spread = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Join(join) => Ok(Transformed::yes(LogicalPlan::Join(over(join)?))),
        other => Ok(Transformed::no(other)),
    })?;
    Ok(spread.data)
}

fn over(mut join: Join) -> DfResult<Join> {
    // Where NULLs are partners (`IS NOT DISTINCT FROM`), rows of NULL have one, and no condition on a key finds them.
    if join.null_equality == NullEquality::NullEqualsNull {
        return Ok(join);
    }
    let (to_right, to_left) = match join.join_type {
        JoinType::Inner => (true, true),
        JoinType::Left => (true, false),
        JoinType::Right => (false, true),
        _ => return Ok(join),
    };
    for (left, right) in join.on.clone() {
        let (Expr::Column(left), Expr::Column(right)) = (left, right) else { continue };
        if to_right {
            join.right = with(join.right, conditions(&join.left, &left)?, &left, &right)?;
        }
        if to_left {
            join.left = with(join.left, conditions(&join.right, &right)?, &right, &left)?;
        }
    }
    Ok(join)
}

/// The plan's rows for which the conditions on `from` hold for `to`.
fn with(plan: Arc<LogicalPlan>, found: Vec<Expr>, from: &Column, to: &Column) -> DfResult<Arc<LogicalPlan>> {
    let mut plan = plan;
    let known = conditions(&plan, to)?;
    for condition in found {
        let condition = renamed(condition, from, to)?;
        if !known.contains(&condition) {
            plan = Arc::new(LogicalPlan::Filter(Filter::try_new(condition, plan)?));
        }
    }
    Ok(plan)
}

/// The conditions that hold for every row of a plan and are on this column alone.
fn conditions(plan: &LogicalPlan, column: &Column) -> DfResult<Vec<Expr>> {
    let on_it = |filter: &&Expr| {
        let columns = filter.column_refs();
        columns.len() == 1 && columns.contains(column) && !filter.is_volatile()
    };
    let of =
        |filters: &[Expr]| -> Vec<Expr> { filters.iter().flat_map(split_conjunction).filter(on_it).cloned().collect() };
    // The column below, which is shown as this one.
    let below = |input: &LogicalPlan, inner: &Column| -> DfResult<Vec<Expr>> {
        conditions(input, inner)?.into_iter().map(|condition| renamed(condition, inner, column)).collect()
    };
    match plan {
        LogicalPlan::Filter(filter) => {
            let mut found = of(std::slice::from_ref(&filter.predicate));
            found.extend(conditions(&filter.input, column)?);
            Ok(found)
        }
        LogicalPlan::TableScan(scan) => Ok(of(&scan.filters)),
        LogicalPlan::SubqueryAlias(alias) => {
            let Some(at) = alias.schema.maybe_index_of_column(column) else { return Ok(vec![]) };
            let columns = alias.input.schema().columns();
            columns.get(at).map_or(Ok(vec![]), |inner| below(alias.input.as_ref(), inner))
        }
        LogicalPlan::Projection(projection) => {
            let at = projection.schema.maybe_index_of_column(column);
            match at.and_then(|at| projection.expr.get(at)).map(|expr| expr.clone().unalias()) {
                Some(Expr::Column(inner)) => below(projection.input.as_ref(), &inner),
                // The same in every row.
                Some(literal @ Expr::Literal(..)) => Ok(vec![Expr::Column(column.clone()).eq(literal)]),
                _ => Ok(vec![]),
            }
        }
        LogicalPlan::Values(values) => {
            let Some(at) = values.schema.maybe_index_of_column(column) else { return Ok(vec![]) };
            let literal = |row: &Vec<Expr>| row.get(at).filter(|item| matches!(item, Expr::Literal(..))).cloned();
            let literals = values.values.iter().map(literal).collect::<Option<Vec<_>>>();
            Ok(literals.map(|literals| Expr::Column(column.clone()).in_list(literals, false)).into_iter().collect())
        }
        LogicalPlan::Unnest(unnest) => {
            let items = items(unnest, column).map(|items| Expr::Column(column.clone()).in_list(items, false));
            Ok(items.into_iter().collect())
        }
        LogicalPlan::Join(join) => {
            let (left, right) = match join.join_type {
                JoinType::Inner => (true, true),
                JoinType::Left => (true, false),
                JoinType::Right => (false, true),
                _ => return Ok(vec![]),
            };
            if left && join.left.schema().has_column(column) {
                return conditions(&join.left, column);
            }
            if right && join.right.schema().has_column(column) {
                return conditions(&join.right, column);
            }
            Ok(vec![])
        }
        _ => Ok(vec![]),
    }
}

/// What the column is one of, where it has the items of an array that is written out.
fn items(unnest: &Unnest, column: &Column) -> Option<Vec<Expr>> {
    let at = unnest.schema.maybe_index_of_column(column)?;
    let of = *unnest.dependency_indices.get(at)?;
    let (_, unnested) = unnest.list_type_columns.iter().find(|(list, _)| *list == of)?;
    let LogicalPlan::Projection(lists) = unnest.input.as_ref() else { return None };
    let Expr::Literal(ScalarValue::List(list), _) = lists.expr.get(of)?.clone().unalias() else { return None };
    if unnested.depth != 1 {
        return None;
    }
    let items = list.value(0);
    let literal = |at| ScalarValue::try_from_array(&items, at).ok().map(|item| Expr::Literal(item, None));
    (0..items.len()).map(literal).collect()
}

fn renamed(condition: Expr, from: &Column, to: &Column) -> DfResult<Expr> {
    replace_col(condition, &HashMap::from([(from, to)]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::logical_expr::{LogicalPlanBuilder, col, lit, table_scan};

    fn scan(name: &str) -> LogicalPlanBuilder {
        let schema = Schema::new(["k", "n"].map(|name| Field::new(name, DataType::Int64, true)).to_vec());
        table_scan(Some(name), &schema, None).expect("a scan")
    }

    /// The lines of `FROM a … JOIN b ON a.k = b.k WHERE a.k = 1`, spread.
    fn joined(join_type: JoinType, condition: Expr) -> Vec<String> {
        let left = scan("a").filter(condition).and_then(|plan| plan.alias("l")).expect("a left side");
        let right = scan("b").build().expect("a right side");
        let keys = (vec![Column::from("l.k")], vec![Column::from("b.k")]);
        let plan = left.join(right, join_type, keys, None).and_then(LogicalPlanBuilder::build).expect("a join");
        let plan = spread(plan).expect("a plan");
        plan.display_indent().to_string().lines().map(|line| line.trim().to_string()).collect()
    }

    #[test]
    fn keys_that_are_rows_of_their_own_are_conditions_too() {
        let values = LogicalPlanBuilder::values(vec![vec![lit(1_i64)], vec![lit(2_i64)]]).expect("values");
        let one = LogicalPlanBuilder::empty(true).project([lit(1_i64).alias("column1")]).expect("a row");
        for (keys, expected) in [(values, "Filter: b.k IN ([Int64(1), Int64(2)])"), (one, "Filter: b.k = Int64(1)")] {
            let left = keys.alias("l").expect("a left side");
            let right = scan("b").build().expect("a right side");
            let on = (vec![Column::from("l.column1")], vec![Column::from("b.k")]);
            let plan = left.join(right, JoinType::Left, on, None).and_then(LogicalPlanBuilder::build).expect("a join");
            let plan = spread(plan).expect("a plan").display_indent().to_string();
            assert!(plan.lines().any(|line| line.trim() == expected), "{plan}");
        }
    }

    #[test]
    fn keys_that_are_items_of_an_array_are_conditions_too() {
        let items = [1, 2].map(|item| ScalarValue::Int64(Some(item)));
        let array = ScalarValue::List(ScalarValue::new_list_nullable(&items, &DataType::Int64));
        let list = LogicalPlanBuilder::empty(true).project([Expr::Literal(array, None).alias("k")]).expect("a row");
        let keys = list.unnest_column("k").and_then(|plan| plan.alias("l")).expect("a left side");
        let right = scan("b").build().expect("a right side");
        let on = (vec![Column::from("l.k")], vec![Column::from("b.k")]);
        let plan = keys.join(right, JoinType::Left, on, None).and_then(LogicalPlanBuilder::build).expect("a join");
        let plan = spread(plan).expect("a plan").display_indent().to_string();
        assert!(plan.lines().any(|line| line.trim() == "Filter: b.k IN ([Int64(1), Int64(2)])"), "{plan}");
    }

    #[test]
    fn the_other_side_of_a_join_gets_the_key_where_rows_without_it_find_no_partner() {
        let with_key = "Filter: b.k = Int64(1)".to_string();
        for (join_type, expected) in
            [(JoinType::Inner, true), (JoinType::Left, true), (JoinType::Right, false), (JoinType::Full, false)]
        {
            let plan = joined(join_type, col("a.k").eq(lit(1_i64)));
            assert_eq!(plan.contains(&with_key), expected, "{join_type}: {plan:#?}");
        }
        // A condition on another column, or on more than the key, says nothing of it.
        for condition in [col("a.n").eq(lit(1_i64)), col("a.k").eq(col("a.n"))] {
            let plan = joined(JoinType::Left, condition);
            assert!(!plan.iter().any(|line| line.starts_with("Filter: b.")), "{plan:#?}");
        }
    }
}
