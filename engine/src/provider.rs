//! What queries read: a DataFusion table for each kind of scan.
//!
//! A lookup that is recognised never comes here (`server::statement::lookup`); everything else that reads a source, a
//! view or its history does.

mod archive;
pub(crate) mod log_scan;
mod moment;
mod rows;
pub(crate) mod steps;

use crate::{
    compiled::CompiledView,
    runtime::{Engine, Failure, SourceRuntime, ViewRuntime},
    seam::SeamError,
    value::{Value, encode_row},
    wording::instant,
};
use arrow::datatypes::DataType;
use datafusion::{
    catalog::TableProvider,
    common::DataFusionError,
    error::Result as DfResult,
    logical_expr::{Expr, Operator, utils::split_conjunction},
    scalar::ScalarValue,
};
pub use moment::{Moment, extents};
use std::sync::Arc;
use tidemark_catalog::ObjectId;
use tidemark_planner::table::{ScanTarget, TidemarkTable};

/// The provider of a scan; `clock_us` is the statement's instant on the server's clock. `None`: system tables and
/// files are the server's. Relations are as at `moment`, where that has them, else as they are when they are scanned.
pub fn provider(
    engine: &Arc<Engine>,
    table: &TidemarkTable,
    clock_us: i64,
    moment: Option<&Moment>,
) -> DfResult<Option<Arc<dyn TableProvider>>> {
    let gone = |id: ObjectId| match engine.failure(id) {
        Some(failure) => failed(&failure),
        None => DataFusionError::Execution(format!("\"{}\" (id {id}) was dropped while the statement ran", table.name)),
    };
    Ok(Some(match &table.target {
        ScanTarget::Relation(id) => {
            let source = engine.source(*id).ok_or_else(|| gone(*id))?;
            Arc::new(match moment.and_then(|moment| moment.relation(*id)) {
                Some(fixed) => log_scan::LogTable::fixed(source, fixed.clone()),
                None => log_scan::LogTable::new(source),
            })
        }
        ScanTarget::Rows(id) => {
            let source = engine.source(*id).ok_or_else(|| gone(*id))?;
            Arc::new(log_scan::LogTable::placed(source, table.schema.clone()))
        }
        ScanTarget::CurrentRows(id) => {
            let view = engine.view(*id).ok_or_else(|| gone(*id))?;
            let at_us = view.now_us(clock_us);
            Arc::new(rows::RowsTable::current(view, at_us).showing(&table.schema))
        }
        ScanTarget::AsOf(id, at_us) => {
            let view = engine.view(*id).ok_or_else(|| gone(*id))?;
            let now_us = view.now_us(clock_us);
            if *at_us > now_us {
                return Err(tidemark_planner::PlanError::new(
                    "22023",
                    format!("FOR SYSTEM_TIME AS OF a time after now, on feature view \"{}\"", table.name),
                )
                .hint("a feature view has no values in the future; under the event clock now is its newest event")
                .into());
            }
            if let Some(start_us) = view.history_start_us().filter(|start_us| at_us < start_us) {
                return Err(tidemark_planner::PlanError::new(
                    "22023",
                    format!(
                        "FOR SYSTEM_TIME AS OF {} lies before the history of feature view \"{}\"",
                        instant(*at_us),
                        table.name
                    ),
                )
                .hint(format!("its history starts at {}: events before that are not known", instant(start_us)))
                .into());
            }
            Arc::new(rows::RowsTable::as_of(engine.clone(), view, *at_us).showing(&table.schema))
        }
        ScanTarget::Steps(id) => match (engine.view(*id), engine.source(*id)) {
            (Some(view), _) => {
                let now_us = view.now_us(clock_us);
                Arc::new(steps::StepsTable::new(engine.clone(), view, now_us))
            }
            (None, Some(source)) => Arc::new(log_scan::VersionsTable::new(source, table.schema.clone())),
            (None, None) => return Err(gone(*id)),
        },
        ScanTarget::History(id) => match (engine.view(*id), engine.source(*id)) {
            (Some(view), _) => Arc::new(steps::HistoryTable::new(engine.clone(), view)),
            (None, Some(source)) => Arc::new(archive::ArchiveTable::new(engine.clone(), source, table.schema.clone())),
            (None, None) => return Err(gone(*id)),
        },
        ScanTarget::Files(_) | ScanTarget::System(_) | ScanTarget::Nothing => return Ok(None),
    }))
}

/// A source or table as it was when its log had the rows from offset `from` to before `to`.
pub fn log_between(source: Arc<SourceRuntime>, from: u64, to: u64) -> Arc<dyn TableProvider> {
    Arc::new(log_scan::LogTable::between(source, from, to))
}

/// Who reads a view that has failed is told so: its values would be of before.
fn failed(failure: &Failure) -> DataFusionError {
    let name = &failure.name;
    tidemark_planner::PlanError::new("55000", format!("feature view \"{name}\" has failed: {}", failure.error))
        .hint(format!("mend what the message names, then ALTER FEATURE VIEW {name} RESUME"))
        .into()
}

/// Errors of the seams inside queries.
pub(crate) fn seam(error: SeamError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// The one entity key that the filters ask for, if they do, as it is kept.
pub(crate) fn wanted_key(view: &ViewRuntime, filters: &[Expr]) -> Option<Vec<u8>> {
    wanted_values(&view.state.compiled, filters).map(|values| encode_row(&values))
}

/// The same as values: `key = literal` for every key column.
pub fn wanted_values(compiled: &CompiledView, filters: &[Expr]) -> Option<Vec<Value>> {
    let types = compiled.key_types().ok()?;
    let mut values = vec![];
    for (output, ty) in compiled.plan.key_outputs().into_iter().zip(types) {
        let name = &compiled.plan.outputs[output].name;
        let literal = filters.iter().flat_map(split_conjunction).find_map(|filter| equal(filter, name))?;
        values.push(key_value(literal.clone(), &ty)?);
    }
    Some(values)
}

/// The literal that `filter` says the column equals.
pub fn equal<'a>(filter: &'a Expr, column: &str) -> Option<&'a ScalarValue> {
    let Expr::BinaryExpr(binary) = filter else { return None };
    if binary.op != Operator::Eq {
        return None;
    }
    match (binary.left.as_ref(), binary.right.as_ref()) {
        (Expr::Column(c), Expr::Literal(v, _)) | (Expr::Literal(v, _), Expr::Column(c)) if c.name == column => Some(v),
        _ => None,
    }
}

/// A literal as a value of a key column's type; `None` for NULL and for what no value of the type equals, such as 1.004 for a
/// key of two decimal places.
pub fn key_value(literal: ScalarValue, ty: &DataType) -> Option<Value> {
    if let Some(value) = plain_key(&literal, ty) {
        return Some(value);
    }
    if literal.is_null() {
        return None;
    }
    let literal = if literal.data_type() == *ty { literal } else { exactly(literal, ty)? };
    let array = literal.to_array().ok()?;
    let value = crate::value::values_of(&array).ok()?.pop()?;
    (!value.is_null()).then_some(value)
}

/// The literal in another type, unless that changes its value.
fn exactly(literal: ScalarValue, ty: &DataType) -> Option<ScalarValue> {
    let cast = literal.cast_to(ty).ok()?;
    // Beside a double the other side becomes a double too, in SQL as here.
    let rounds = literal.data_type().is_numeric() && ty.is_numeric() && *ty != DataType::Float64;
    let is_same = |back: ScalarValue| !back.is_null() && back == literal;
    (!rounds || cast.cast_to(&literal.data_type()).is_ok_and(is_same)).then_some(cast)
}

/// The same for most keys there are, without an array for each.
fn plain_key(literal: &ScalarValue, ty: &DataType) -> Option<Value> {
    let int = match literal {
        ScalarValue::Utf8(Some(text)) if *ty == DataType::Utf8 => return Some(Value::Text(text.as_str().into())),
        ScalarValue::Int64(Some(v)) => *v,
        ScalarValue::Int32(Some(v)) => (*v).into(),
        ScalarValue::Int16(Some(v)) => (*v).into(),
        _ => return None,
    };
    let fits = match ty {
        DataType::Int64 => true,
        DataType::Int32 => i32::try_from(int).is_ok(),
        DataType::Int16 => i16::try_from(int).is_ok(),
        _ => false,
    };
    fits.then_some(Value::Int(int))
}
