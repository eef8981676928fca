//! A point lookup: no planning, no waiting. Keys are decoded, the key's state walks on to now, rows go to the wire.

use crate::{
    database::Database,
    pg::{Bound, Completed, PgError, RowsTag},
    prepared::{Prepared, PreparedLookup},
    session::Session,
    wire::{FieldFormat, RowEncoder, decode_param, types::array_oid},
};
use arrow::{array::ArrayRef, datatypes::DataType, record_batch::RecordBatch};
use bytes::BytesMut;
use datafusion::scalar::ScalarValue;
use tidemark_engine::{
    compiled::Row,
    provider::key_value,
    value::{Value, encode_row},
};
use tidemark_planner::lookup::{Keys, Operand};

/// Answers into `out`; `None` where this is not to be answered here (the view is gone, a key literal does not read as
/// the key's type): then the planned query answers, or fails, as any query would.
pub fn execute(
    database: &Database,
    session: &Session,
    prepared: &Prepared,
    lookup: &PreparedLookup,
    bound: &Bound,
    out: &mut BytesMut,
) -> Option<Result<Completed, PgError>> {
    let view = database.engine.view(lookup.lookup.view)?;
    let keys = match keys(session, prepared, lookup, bound) {
        Ok(keys) => keys?,
        Err(error) => return Some(Err(error)),
    };
    let now_us = view.now_us(database.clock.now_us());
    let mut answer = || -> Result<Completed, PgError> {
        let mut rows = vec![];
        for key in &keys {
            rows.extend(view.state.lookup(key, now_us)?);
        }
        let rows: Vec<&Row> = rows.iter().collect();
        let visible = view.state.compiled.visible(&rows, now_us)?;
        let columns: Vec<ArrayRef> = lookup.lookup.projection.iter().map(|(i, _)| visible.column(*i).clone()).collect();
        let schema = prepared.schema.clone().ok_or_else(|| PgError::error("XX000", "a lookup without columns"))?;
        let formats = super::result_formats(bound, columns.len());
        let encoder = RowEncoder::new(&schema, &formats, &session.format)?;
        let batch = RecordBatch::try_new(schema, columns)?;
        encoder.encode_batch(&batch, 0..batch.num_rows(), out);
        Ok(Completed { rows: rows.len() as u64, tag: RowsTag::SELECT })
    };
    Some(answer())
}

/// The encoded keys asked for, each once; NULL matches nothing.
fn keys(
    session: &Session,
    prepared: &Prepared,
    lookup: &PreparedLookup,
    bound: &Bound,
) -> Result<Option<Vec<Vec<u8>>>, PgError> {
    let zone = &session.format.time_zone;
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
        let ty = &lookup.key_types[at];
        match operand {
            Operand::Parameter(i) => Ok(Some(key_value(parameter(*i)?, ty))),
            Operand::Literal(text) => {
                match decode_param(lookup.key_oids[at], FieldFormat::Text, Some(text.as_bytes()), zone) {
                    Ok(scalar) => Ok(Some(key_value(scalar, ty))),
                    Err(_) => Ok(None),
                }
            }
        }
    };
    let mut keys: Vec<Vec<u8>> = vec![];
    let mut add = |key: Vec<u8>| {
        if !keys.contains(&key) {
            keys.push(key);
        }
    };
    match &lookup.lookup.keys {
        Keys::One(operands) => {
            let mut values = vec![];
            for (at, operand) in operands.iter().enumerate() {
                match value(operand, at)? {
                    None => return Ok(None),
                    Some(None) => return Ok(Some(vec![])),
                    Some(Some(value)) => values.push(value),
                }
            }
            add(encode_row(&values));
        }
        Keys::Any(operands) => {
            for operand in operands {
                match value(operand, 0)? {
                    None => return Ok(None),
                    Some(None) => {}
                    Some(Some(value)) => add(encode_row(&[value])),
                }
            }
        }
        Keys::AnyParameter(_) | Keys::AnyLiteral(_) => {
            let list = match &lookup.lookup.keys {
                Keys::AnyParameter(i) => parameter(*i)?,
                Keys::AnyLiteral(text) => {
                    let oid = array_oid(lookup.key_oids[0]).unwrap_or_default();
                    match decode_param(oid, FieldFormat::Text, Some(text.as_bytes()), zone) {
                        Ok(list) => list,
                        Err(_) => return Ok(None),
                    }
                }
                _ => ScalarValue::Null,
            };
            for item in items(&list)? {
                if let Some(value) = key_value(item, &lookup.key_types[0]) {
                    add(encode_row(&[value]));
                }
            }
        }
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
