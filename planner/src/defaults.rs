//! Defaults of features: what an outer join shows of an entity that has no row.
//!
//! ```sql
//! ALTER FEATURE VIEW users ALTER COLUMN n SET DEFAULT 0;
//! SELECT i.item, u.n FROM items i LEFT JOIN users u ON u.user_id = i.seller      -- n is 0 for a seller nobody has seen
//! ```
//!
//! A NULL that the view has computed stays NULL: a default stands for the row, not for the value. It is the plan that has
//! them, so the lookup that is recognised from the plan shows the same, and so does the `ASOF JOIN` that trains on it:
//!
//! ```text
//! Projection  CASE WHEN found IS NOT NULL THEN u.n ELSE 0 END AS n, …
//!   Left Join
//!     items
//!     Projection  u.*, true AS found
//!       users
//! ```

use crate::{
    PlanResult,
    status::MISSING,
    table::{STATUS_COLUMN, TidemarkTable},
};
use arrow::datatypes::IntervalMonthDayNano;
use arrow_schema::DataType;
use datafusion::{
    common::{
        Column, DFSchema, JoinType, ScalarValue,
        tree_node::{Transformed, TreeNodeRecursion},
    },
    error::Result,
    logical_expr::{Case, Distinct, Expr, Join, LogicalPlan, Projection, cast, lit, when},
};
use std::sync::Arc;
use tidemark_catalog::FeatureView;

/// The columns that say whether the left and the right side of an outer join have a row. Nobody can write such a name.
const FOUND: [&str; 2] = ["left side found\0", "right side found\0"];

/// Those of a feature view, by column.
///
/// # Errors
/// None for what [`read`] took when it was set.
pub(crate) fn of(view: &FeatureView) -> PlanResult<Vec<(String, Expr)>> {
    let with_default = view.features.iter().filter_map(|feature| Some((feature, feature.default.as_deref()?)));
    let defaults = with_default.filter_map(|(feature, text)| Some((view.columns.get(feature.column)?, text)));
    defaults.map(|(column, text)| Ok((column.name.clone(), read(text, &column.ty.arrow())?))).collect()
}

/// That of `_status`. Known from those of features by its name.
pub(crate) fn of_status() -> Expr {
    lit(MISSING).alias(STATUS_COLUMN)
}

fn is_status(default: &Expr) -> bool {
    matches!(default, Expr::Alias(alias) if alias.name == STATUS_COLUMN)
}

/// A default as it is kept, as a value of its column's type. It says the same in every time zone, but for arrays of times.
///
/// # Errors
/// The text is no value of this type.
pub fn read(text: &str, ty: &DataType) -> Result<Expr> {
    match ty {
        // Read by whoever executes the plan: to Arrow a text is one item.
        DataType::List(_) | DataType::Binary => Ok(cast(lit(text), ty.clone())),
        _ => Ok(Expr::Literal(ScalarValue::from(text).cast_to(ty)?, None)),
    }
}

/// The text that [`read`] takes for a value. `None`: arrays and bytes have none here.
///
/// # Errors
/// Values of this type have no text.
pub fn written(value: &ScalarValue) -> Result<Option<String>> {
    match value {
        ScalarValue::List(_) | ScalarValue::Binary(_) => Ok(None),
        // Arrow writes none of no length.
        ScalarValue::IntervalMonthDayNano(Some(interval)) => Ok(Some(written_interval(*interval))),
        _ => Ok(value.cast_to(&DataType::Utf8)?.try_as_str().flatten().map(str::to_string)),
    }
}

fn written_interval(IntervalMonthDayNano { months, days, nanoseconds }: IntervalMonthDayNano) -> String {
    let (sign, nanos) = (if nanoseconds < 0 { "-" } else { "" }, nanoseconds.unsigned_abs());
    let mut parts = vec![];
    if months != 0 {
        parts.push(format!("{months} mons"));
    }
    if days != 0 {
        parts.push(format!("{days} days"));
    }
    if nanos != 0 || parts.is_empty() {
        let fraction = format!(".{:09}", nanos % 1_000_000_000);
        parts.push(format!("{sign}{}{} secs", nanos / 1_000_000_000, fraction.trim_end_matches(['0', '.'])));
    }
    parts.join(" ")
}

/// The plan with defaults above its outer joins, also in subqueries. What has them already stays as it is.
pub(crate) fn fill(plan: LogicalPlan) -> Result<LogicalPlan> {
    let mut has_any = false;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            has_any |= TidemarkTable::of(&scan.source).is_some_and(|table| !table.defaults.is_empty());
        }
        Ok(if has_any { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    if !has_any {
        return Ok(plan);
    }
    let filled = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Join(join) => over_join(join),
        other => Ok(Transformed::no(other)),
    })?;
    Ok(filled.data)
}

fn over_join(join: Join) -> Result<Transformed<LogicalPlan>> {
    let is_optional = match join.join_type {
        JoinType::Left => [false, true],
        JoinType::Right => [true, false],
        JoinType::Full => [true, true],
        _ => return Ok(Transformed::no(LogicalPlan::Join(join))),
    };
    let mut sides = [join.left.clone(), join.right.clone()];
    let mut defaults: Vec<Option<Expr>> = vec![];
    for ((side, is_optional), found) in sides.iter_mut().zip(is_optional).zip(FOUND) {
        let of_side = of_columns(side);
        if is_optional && !is_marked(side) && of_side.iter().any(Option::is_some) {
            *side = Arc::new(marked(side.clone(), found)?);
            let is_found = Expr::Column(Column::new_unqualified(found)).is_not_null();
            for (default, column) in of_side.into_iter().zip(side.schema().iter().map(Column::from)) {
                let filled = default.map(|default| filled(is_found.clone(), Expr::Column(column), default));
                defaults.push(filled.transpose()?);
            }
        } else {
            defaults.extend(of_side.iter().map(|_| None));
        }
    }
    if defaults.iter().all(Option::is_none) {
        return Ok(Transformed::no(LogicalPlan::Join(join)));
    }
    let columns: Vec<Column> = join.schema.iter().map(Column::from).collect();
    let shown = columns.into_iter().zip(defaults).map(|(column, filled)| match filled {
        Some(filled) => filled.alias_qualified(column.relation, column.name),
        None => Expr::Column(column),
    });
    let shown = shown.collect();
    let [left, right] = sides;
    let join = LogicalPlan::Join(Join { left, right, ..join }).recompute_schema()?;
    Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(shown, Arc::new(join))?)))
}

/// The value where `found` holds, else the default.
pub(crate) fn or(found: Expr, value: Expr, default: Expr) -> Result<Expr> {
    when(found, value).otherwise(default.unalias())
}

/// The same above an outer join. A status may be there where no row is, and then says why.
fn filled(found: Expr, value: Expr, default: Expr) -> Result<Expr> {
    if !is_status(&default) {
        return or(found, value, default);
    }
    let why = or(value.clone().is_not_null(), value.clone(), default)?;
    when(found, value).otherwise(why)
}

/// The default that [`filled`] was given.
fn unfilled(otherwise: &Expr) -> Expr {
    match otherwise {
        Expr::Case(Case { else_expr: Some(missing), .. }) => missing.as_ref().clone().alias(STATUS_COLUMN),
        default => default.clone(),
    }
}

fn marked(side: Arc<LogicalPlan>, found: &str) -> Result<LogicalPlan> {
    let columns = side.schema().iter().map(Column::from).map(Expr::Column);
    let columns = columns.chain([lit(true).alias(found)]).collect();
    Ok(LogicalPlan::Projection(Projection::try_new(columns, side)?))
}

pub(crate) fn is_marked(side: &LogicalPlan) -> bool {
    side.schema().fields().last().is_some_and(|field| FOUND.contains(&field.name().as_str()))
}

/// For each column of a plan the default that it has because it is a feature that has one, under whatever name. What is
/// computed has none.
pub(crate) fn of_columns(plan: &LogicalPlan) -> Vec<Option<Expr>> {
    match plan {
        LogicalPlan::TableScan(scan) => {
            let table = TidemarkTable::of(&scan.source);
            let fields = scan.projected_schema.fields().iter();
            fields.map(|field| table.and_then(|table| table.default(field.name())).cloned()).collect()
        }
        LogicalPlan::SubqueryAlias(alias) => of_columns(&alias.input),
        LogicalPlan::Filter(filter) => of_columns(&filter.input),
        LogicalPlan::Sort(sort) => of_columns(&sort.input),
        LogicalPlan::Limit(limit) => of_columns(&limit.input),
        LogicalPlan::Distinct(Distinct::All(input)) => of_columns(input),
        LogicalPlan::Projection(projection) => {
            let below = of_columns(&projection.input);
            projection.expr.iter().map(|expr| of_expression(expr, projection.input.schema(), &below)).collect()
        }
        LogicalPlan::Join(join)
            if matches!(join.join_type, JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full) =>
        {
            [of_columns(&join.left), of_columns(&join.right)].concat()
        }
        other => vec![None; other.schema().fields().len()],
    }
}

fn of_expression(expr: &Expr, schema: &DFSchema, below: &[Option<Expr>]) -> Option<Expr> {
    match expr {
        Expr::Alias(alias) => of_expression(&alias.expr, schema, below),
        Expr::Column(column) => below.get(schema.maybe_index_of_column(column)?)?.clone(),
        // What an outer join below has filled.
        Expr::Case(Case { expr: None, when_then_expr, else_expr: Some(default) }) => {
            let [(found, _)] = when_then_expr.as_slice() else { return None };
            let Expr::IsNotNull(found) = found.as_ref() else { return None };
            let is_ours = found.try_as_col().is_some_and(|column| FOUND.contains(&column.name.as_str()));
            is_ours.then(|| unfilled(default))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_as_the_same_value() {
        let interval = |months, days, nanoseconds| {
            ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano { months, days, nanoseconds }))
        };
        let instant =
            ScalarValue::TimestampMicrosecond(Some(1_772_445_600_000_001), Some(tidemark_catalog::UTC.into()));
        let cases = [
            (ScalarValue::from(true), "true"),
            (ScalarValue::from(-7_i64), "-7"),
            (ScalarValue::from(0.1_f64), "0.1"),
            (ScalarValue::from(f64::NAN), "NaN"),
            (ScalarValue::Decimal128(Some(-150), 10, 2), "-1.50"),
            (ScalarValue::from("it's"), "it's"),
            (instant, "2026-03-02T10:00:00.000001Z"),
            (interval(0, 0, 0), "0 secs"),
            (interval(1, 2, 0), "1 mons 2 days"),
            (interval(0, -1, -500_000_000), "-1 days -0.5 secs"),
            (interval(0, 0, 3_600_000_001_000), "3600.000001 secs"),
        ];
        for (value, expected) in cases {
            let text = written(&value).expect("a text");
            assert_eq!(text.as_deref(), Some(expected));
            assert_eq!(read(expected, &value.data_type()).expect("a value"), Expr::Literal(value, None));
        }
        assert!(read("one", &DataType::Int64).is_err());
    }
}
