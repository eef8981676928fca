//! What the labels say of the right side, as a filter for its scan.
//!
//! The labels are collected before the right side is opened. Then their times and keys are known, and files, row groups and
//! pages that hold nothing for them need not be read. It only prunes: a row that passes may still match nothing.
//!
//! ```text
//! labels  (7, 10:00), (9, 12:00)        l.ts >= r.ts
//! filter  r.ts <= 12:00  AND  (r.k = 7 OR r.k = 9)  AND  r.k IN (7, 9)
//!         and over a feature view r.ts >= the start of 10:00's month, where every live key has a step
//! ```

use super::exec::Condition;
use super::labels::{Index, Rows, normalised};
use crate::key::month_start;
use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute::{concat, take};
use arrow::datatypes::{DataType, Schema, TimeUnit};
use datafusion::error::Result;
use datafusion::functions_aggregate::min_max::{MaxAccumulator, MinAccumulator};
use datafusion::logical_expr::{Accumulator, Operator};
use datafusion::physical_expr::expressions::{BinaryExpr, Column, in_list, lit};
use datafusion::physical_plan::PhysicalExpr;
use datafusion::scalar::ScalarValue;
use std::cmp::Ordering;
use std::sync::Arc;
use tidemark_catalog::ObjectKind;
use tidemark_planner::asof::AsofOp;

type Expr = Arc<dyn PhysicalExpr>;

/// Up to so many distinct keys are named one by one, for Bloom filters; a Bloom filter is asked for each.
const VALUES_MAX: usize = 1024;
/// Ranges that the named keys are put into, for bounds; each is compared with the bounds of every file, row group and page.
const RANGES: usize = 64;

/// Months of earlier instants are not asked for: they might begin before time does.
const EARLIEST_US: i64 = i64::MIN / 2;

/// The columns of the right side that a filter may be about; empty where there is nothing to prune by.
pub fn columns(condition: &Condition) -> Vec<Expr> {
    let all = condition.right_keys.iter().chain([&condition.right_time]);
    all.filter(|expr| expr.downcast_ref::<Column>().is_some()).cloned().collect()
}

/// What may be read for such labels.
pub fn filter(rows: &Rows, index: &Index, condition: &Condition, right: &Schema) -> Result<Expr> {
    let mut all = times(index.range(), condition, right)?;
    let few = (index.groups() <= VALUES_MAX).then(|| index.row_of_each_key());
    for (left, column) in condition.left.keys.iter().zip(&condition.right_keys) {
        let ty = column.data_type(right)?;
        if column.downcast_ref::<Column>().is_none() || !has_bounds(&ty) {
            continue;
        }
        match &few {
            Some(wanted) => all.extend(named(column, values(rows, left, wanted)?, right)?),
            None => all.extend(bounds(rows, left, column)?),
        }
    }
    Ok(joined(all, Operator::And).unwrap_or_else(|| lit(true)))
}

/// What may be read for labels between two times, whatever their keys; `None`: nothing is known of them.
pub fn filter_times(range: Option<(i64, i64)>, condition: &Condition, right: &Schema) -> Result<Expr> {
    Ok(joined(times(range, condition, right)?, Operator::And).unwrap_or_else(|| lit(true)))
}

fn times(range: Option<(i64, i64)>, condition: &Condition, right: &Schema) -> Result<Vec<Expr>> {
    let time = &condition.right_time;
    let Some((first, last)) = range else { return Ok(vec![]) };
    if time.downcast_ref::<Column>().is_none() {
        return Ok(vec![]);
    }
    let ty = time.data_type(right)?;
    let value = |at: i64| match &ty {
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            Some(ScalarValue::TimestampMicrosecond(Some(at), zone.clone()))
        }
        DataType::Int64 => Some(ScalarValue::Int64(Some(at))),
        _ => None,
    };
    // No base is later than its row's time: what a tolerance leaves out by the one, it leaves out by the other.
    let span = condition.tolerance.map(|tolerance| tolerance.span);
    let (least, greatest) = match condition.op.is_backward() {
        true => {
            let held = if condition.op == AsofOp::Gt { first.saturating_sub(1) } else { first };
            let month = (is_feature_view(condition) && held > EARLIEST_US).then(|| month_start(held));
            (span.map(|span| first.saturating_sub(span)).max(month), Some(last))
        }
        false => (Some(first), span.map(|span| last.saturating_add(span))),
    };
    let bound = |at: Option<i64>, op| at.and_then(value).map(|value| binary(time.clone(), op, lit(value)));
    Ok([bound(least, Operator::GtEq), bound(greatest, Operator::LtEq)].into_iter().flatten().collect())
}

/// Its live keys have a step at the start of every month (`carry`).
fn is_feature_view(condition: &Condition) -> bool {
    condition.known.as_ref().is_some_and(|known| known.kind == ObjectKind::FeatureView)
}

/// Types of one order everywhere. Bounds of floats leave out NaN, which SQL orders above every number.
fn has_bounds(ty: &DataType) -> bool {
    use DataType::*;
    let plain = matches!(ty, Utf8 | LargeUtf8 | Utf8View | Binary | LargeBinary | BinaryView | Boolean | Date32);
    plain || ty.is_integer() || matches!(ty, Timestamp(..) | Decimal128(..))
}

/// The distinct values of a key in such rows, ascending; none where they have no order.
fn values(rows: &Rows, key: &Expr, wanted: &[usize]) -> Result<Vec<ScalarValue>> {
    let mut arrays: Vec<ArrayRef> = vec![];
    let (mut before, mut wanted) = (0, wanted);
    for batch in &rows.batches {
        let end = before + batch.num_rows();
        let (here, later) = wanted.split_at(wanted.partition_point(|row| *row < end));
        if !here.is_empty() {
            let column = normalised(key.evaluate(batch)?.into_array(batch.num_rows())?);
            let at = UInt32Array::from_iter_values(here.iter().map(|row| (row - before) as u32));
            arrays.push(take(&column, &at, None)?);
        }
        (before, wanted) = (end, later);
    }
    let arrays: Vec<&dyn Array> = arrays.iter().map(AsRef::as_ref).collect();
    if arrays.is_empty() {
        return Ok(vec![]);
    }
    let all = concat(&arrays)?;
    let mut values = (0..all.len()).map(|i| ScalarValue::try_from_array(&all, i)).collect::<Result<Vec<_>>>()?;
    values.sort_by(|a, b| a.partial_cmp(b).unwrap_or(Ordering::Equal));
    values.dedup();
    let ascends = values.windows(2).all(|pair| pair[0].partial_cmp(&pair[1]) == Some(Ordering::Less));
    Ok(if ascends { values } else { vec![] })
}

/// One of the values: as ranges, which bounds can tell, and one by one, which Bloom filters can.
fn named(column: &Expr, values: Vec<ScalarValue>, right: &Schema) -> Result<Vec<Expr>> {
    if values.is_empty() {
        return Ok(vec![]);
    }
    let ranges = values.chunks(values.len().div_ceil(RANGES)).filter_map(|values| match values {
        [] => None,
        [only] => Some(binary(column.clone(), Operator::Eq, lit(only.clone()))),
        [least, .., greatest] => Some(between(column, least, greatest)),
    });
    let ranges = joined(ranges.collect(), Operator::Or);
    let list = in_list(column.clone(), values.into_iter().map(lit).collect(), &false, right)?;
    Ok(ranges.into_iter().chain([list]).collect())
}

/// Between the least and the greatest.
fn bounds(rows: &Rows, key: &Expr, column: &Expr) -> Result<Option<Expr>> {
    let Some(first) = rows.batches.first() else { return Ok(None) };
    let ty = key.data_type(&first.schema())?;
    let (Ok(mut least), Ok(mut greatest)) = (MinAccumulator::try_new(&ty), MaxAccumulator::try_new(&ty)) else {
        return Ok(None);
    };
    for batch in &rows.batches {
        let column = key.evaluate(batch)?.into_array(batch.num_rows())?;
        least.update_batch(std::slice::from_ref(&column))?;
        greatest.update_batch(std::slice::from_ref(&column))?;
    }
    let (least, greatest) = (least.evaluate()?, greatest.evaluate()?);
    Ok((!least.is_null() && !greatest.is_null()).then(|| between(column, &least, &greatest)))
}

fn between(column: &Expr, least: &ScalarValue, greatest: &ScalarValue) -> Expr {
    let least = binary(column.clone(), Operator::GtEq, lit(least.clone()));
    let greatest = binary(column.clone(), Operator::LtEq, lit(greatest.clone()));
    binary(least, Operator::And, greatest)
}

fn binary(left: Expr, op: Operator, right: Expr) -> Expr {
    Arc::new(BinaryExpr::new(left, op, right))
}

/// All of them, as a tree that is not deep.
fn joined(mut all: Vec<Expr>, op: Operator) -> Option<Expr> {
    while all.len() > 1 {
        all = all
            .chunks(2)
            .map(|pair| match pair {
                [left, right] => binary(left.clone(), op, right.clone()),
                other => other[0].clone(),
            })
            .collect();
    }
    all.pop()
}
