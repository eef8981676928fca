//! A point lookup: no planning, no waiting. Keys are decoded, the key's state walks on to now, and the columns asked for go
//! from there to the wire.

use super::lookup_deadline::Finding;
use crate::{
    database::Database,
    meters::LookupPath,
    pg::{Bound, Completed, PgError, RowsTag},
    prepared::{Prepared, PreparedLookup},
    session::Session,
    wire::{FieldFormat, Interval, RowEncoder, Scalar, decode_param, types::array_oid},
};
use ahash::AHashSet;
use arrow::{array::ArrayRef, datatypes::DataType, record_batch::RecordBatch};
use bytes::BytesMut;
use datafusion::scalar::ScalarValue;
use std::{hash::Hash, sync::Arc};
use tidemark_engine::{
    compiled::{CompiledView, Row, Stored},
    provider::key_value,
    runtime::ViewRuntime,
    value::{Value, encode_row},
    view::Looked,
};
use tidemark_planner::lookup::{Keys, Operand};

/// Answers into `out`; `None` where this is not to be answered here (the view is gone, a key literal does not read as
/// the key's type): then the planned query answers, or fails, as any query would. Also where memory alone is to answer and does not
/// (`lookup_deadline.rs`).
pub fn execute(
    database: &Database,
    session: &Session,
    prepared: &Prepared,
    lookup: &PreparedLookup,
    bound: &Bound,
    finding: &mut Finding,
    out: &mut BytesMut,
) -> Option<Result<Completed, PgError>> {
    let view = database.as_owner()?.engine.view(lookup.shape.view)?;
    let begun_us = finding.begun_us(&*database.clock);
    let keys = match keys(session, prepared, lookup, bound, encode_row) {
        Ok(keys) => keys?,
        Err(error) => return Some(Err(error)),
    };
    let now_us = view.now_us(begun_us);
    let (shape, compiled) = (&lookup.shape, &view.state.compiled);
    let start = out.len();
    let answer = match shape.columns.iter().all(|i| compiled.stored(*i).is_some()) {
        true => rows(&view, &keys, now_us, finding, |row| {
            let cell = |i: usize| cell(row, compiled.stored(shape.columns[i])?);
            shape.writer.write(&session.format, |i| super::result_format(bound, i), cell, out);
        }),
        false => {
            let mut found = vec![];
            match rows(&view, &keys, now_us, finding, |row| found.push(row.clone())) {
                Ok(Some(_)) => {
                    evaluated(session, prepared, lookup, bound, (&**compiled, &found[..], now_us), out).map(Some)
                }
                other => other,
            }
        }
    };
    match answer {
        Ok(Some(rows)) => {
            observe(database, prepared, begun_us);
            Some(Ok(Completed { rows, tag: RowsTag::SELECT }))
        }
        Ok(None) => {
            // The rows before it: whoever answers next begins anew.
            out.truncate(start);
            finding.refusal(&compiled.name).map(Err)
        }
        Err(error) => Some(Err(error)),
    }
}

/// Notes the keys that it asks for; `None` as for [`execute`].
pub fn note(
    database: &Database,
    session: &Session,
    prepared: &Prepared,
    lookup: &PreparedLookup,
    bound: &Bound,
    finding: &mut Finding,
) -> Option<Result<(), PgError>> {
    let view = database.as_owner()?.engine.view(lookup.shape.view)?;
    let now_us = view.now_us(finding.begun_us(&*database.clock));
    let noted = keys(session, prepared, lookup, bound, encode_row).and_then(|keys| {
        for key in keys.iter().flatten() {
            finding.look(&view, key, now_us)?;
        }
        Ok(keys.map(|_| ()))
    });
    noted.transpose()
}

/// Counts a lookup that was answered.
pub(super) fn observe(database: &Database, prepared: &Prepared, begun_us: i64) {
    let path = if prepared.unparsed.is_some() { LookupPath::Fingerprint } else { LookupPath::Prepared };
    database.meters.lookups_us(path).observe_span(begun_us, database.clock.now_us());
}

/// The row of every key that has one, and how many that were; `None`: one of the keys is not to be had.
fn rows(
    view: &Arc<ViewRuntime>,
    keys: &[Vec<u8>],
    now_us: i64,
    finding: &mut Finding,
    mut take: impl FnMut(&Row),
) -> Result<Option<u64>, PgError> {
    let mut count = 0;
    for key in keys {
        match finding.look(view, key, now_us)? {
            Some(Looked::Row(row)) => {
                take(&row);
                count += 1;
            }
            Some(Looked::Expired | Looked::Missing) => {}
            None => return Ok(None),
        }
    }
    Ok(Some(count))
}

/// A column of a row as it is kept.
pub(super) fn cell(row: &Row, stored: Stored) -> Option<Scalar<'_>> {
    let value = match stored {
        Stored::Time => return Some(Scalar::Int(row.instant_us)),
        Stored::Key(i) => row.key.get(i)?,
        Stored::Output(i) => row.outputs.get(i)?,
    };
    Some(match value {
        // Arrays are no scalars: `CompiledView::stored` does not offer them.
        Value::Null | Value::List(_) => return None,
        Value::Bool(v) => Scalar::Bool(*v),
        Value::Int(v) => Scalar::Int(*v),
        Value::Float(v) => Scalar::Float(*v),
        Value::Decimal(v) => Scalar::Decimal(v.get()),
        Value::Text(v) => Scalar::Text(v),
        Value::Bytes(v) => Scalar::Bytes(v),
        Value::Interval { months, days, nanos } => {
            Scalar::Interval(Interval { months: *months, days: *days, us: nanos / 1000 })
        }
    })
}

/// Where a column is time-continuous or an array, the row is built over Arrow: the one is evaluated at now, the other has an
/// encoder there.
pub(super) fn evaluated(
    session: &Session,
    prepared: &Prepared,
    lookup: &PreparedLookup,
    bound: &Bound,
    (compiled, found, now_us): (&CompiledView, &[Row], i64),
    out: &mut BytesMut,
) -> Result<u64, PgError> {
    let found: Vec<&Row> = found.iter().collect();
    let visible = compiled.visible(&found, now_us)?;
    let columns: Vec<ArrayRef> = lookup.shape.columns.iter().map(|i| visible.column(*i).clone()).collect();
    let schema = prepared.schema.clone().ok_or_else(|| PgError::error("XX000", "a lookup without columns"))?;
    let formats = super::result_formats(bound, columns.len());
    let encoder = RowEncoder::new(&schema, &formats, &session.format)?;
    let batch = RecordBatch::try_new(schema, columns)?;
    encoder.encode_batch(&batch, 0..batch.num_rows(), out);
    Ok(found.len() as u64)
}

/// The keys asked for, each once, made of their columns' values by `key`; NULL matches nothing. `None`: a literal does not read
/// as the key's type.
pub(super) fn keys<K: Clone + Eq + Hash>(
    session: &Session,
    prepared: &Prepared,
    lookup: &PreparedLookup,
    bound: &Bound,
    key: impl Fn(&[Value]) -> K,
) -> Result<Option<Vec<K>>, PgError> {
    let zone = &session.format.time_zone;
    let shape = &lookup.shape;
    let parameter = |i: usize| -> Result<ScalarValue, PgError> {
        let format = match bound.parameter_formats.of(i).code() {
            1 => FieldFormat::Binary,
            _ => FieldFormat::Text,
        };
        let bytes = bound.parameters.get(i).and_then(|b| b.as_deref());
        Ok(decode_param(prepared.parameter_oids[i], format, bytes, zone)?)
    };
    // `Ok(None)`: the literal is not of the key's type. `Ok(Some(None))`: NULL.
    let value = |operand: &Operand, at: usize| -> Result<Option<Option<Value>>, PgError> {
        let ty = &shape.key_types[at];
        match operand {
            Operand::Parameter(i) => Ok(Some(key_value(parameter(*i)?, ty))),
            Operand::Literal(text) => {
                match decode_param(shape.key_oids[at], FieldFormat::Text, Some(text.as_bytes()), zone) {
                    Ok(scalar) => Ok(Some(key_value(scalar, ty))),
                    Err(_) => Ok(None),
                }
            }
        }
    };
    let mut keys: Vec<K> = vec![];
    match &lookup.keys {
        Keys::One(operands) => {
            let mut values = vec![];
            for (at, operand) in operands.iter().enumerate() {
                match value(operand, at)? {
                    None => return Ok(None),
                    Some(None) => return Ok(Some(vec![])),
                    Some(Some(value)) => values.push(value),
                }
            }
            keys.push(key(&values));
        }
        Keys::Any(operands) => {
            for operand in operands {
                match value(operand, 0)? {
                    None => return Ok(None),
                    Some(None) => {}
                    Some(Some(value)) => keys.push(key(&[value])),
                }
            }
        }
        Keys::AnyParameter(_) | Keys::AnyLiteral(_) => {
            let list = match &lookup.keys {
                Keys::AnyParameter(i) => parameter(*i)?,
                Keys::AnyLiteral(text) => {
                    let oid = array_oid(shape.key_oids[0]).unwrap_or_default();
                    match decode_param(oid, FieldFormat::Text, Some(text.as_bytes()), zone) {
                        Ok(list) => list,
                        Err(_) => return Ok(None),
                    }
                }
                _ => ScalarValue::Null,
            };
            for item in items(&list)? {
                if let Some(value) = key_value(item, &shape.key_types[0]) {
                    keys.push(key(&[value]));
                }
            }
        }
    }
    if keys.len() > 1 {
        let mut seen = AHashSet::with_capacity(keys.len());
        keys.retain(|key| seen.insert(key.clone()));
    }
    Ok(Some(keys))
}

fn items(list: &ScalarValue) -> Result<Vec<ScalarValue>, PgError> {
    use arrow::array::{Array, AsArray};
    if list.is_null() {
        return Ok(vec![]);
    }
    let array = list.to_array()?;
    let DataType::List(_) = array.data_type() else { return Ok(vec![]) };
    let inner = array.as_list::<i32>().value(0);
    Ok((0..inner.len()).map(|i| ScalarValue::try_from_array(&inner, i)).collect::<Result<_, _>>()?)
}
