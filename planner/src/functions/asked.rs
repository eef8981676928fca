//! What is asked of values of any type: `pg_typeof`, `num_nulls`, `num_nonnulls`.

use super::by_row::{ByRow, no_match};
use crate::{shown::PG_TYPE, words::type_name};
use arrow_schema::{DataType, Field};
use datafusion::{common::ScalarValue, error::Result, logical_expr::ScalarUDF};

pub(super) fn functions() -> impl Iterator<Item = ScalarUDF> {
    [
        ByRow::of_nulls("pg_typeof", of_one, DataType::Utf8, |_, call| {
            Ok(ScalarValue::Utf8(call.fields.first().map(|field| name(field))))
        }),
        ByRow::of_nulls(
            "num_nulls",
            |types| some("num_nulls", types),
            DataType::Int32,
            |args, _| Ok(count(args, true)),
        ),
        ByRow::of_nulls(
            "num_nonnulls",
            |types| some("num_nonnulls", types),
            DataType::Int32,
            |args, _| Ok(count(args, false)),
        ),
    ]
    .into_iter()
}

fn of_one(types: &[DataType]) -> Result<Vec<DataType>> {
    if types.len() == 1 { Ok(types.to_vec()) } else { no_match("pg_typeof", types) }
}

fn some(name: &str, types: &[DataType]) -> Result<Vec<DataType>> {
    if types.is_empty() { no_match(name, types) } else { Ok(types.to_vec()) }
}

fn count(args: &[ScalarValue], nulls: bool) -> ScalarValue {
    let count = args.iter().filter(|arg| arg.is_null() == nulls).count();
    ScalarValue::Int32(i32::try_from(count).ok())
}

/// The type that a client is shown.
fn name(field: &Field) -> String {
    match (field.metadata().get(PG_TYPE).map(String::as_str), field.data_type()) {
        (Some("int4"), _) => "integer".to_string(),
        (Some("_text"), _) => "text[]".to_string(),
        (Some("_name"), _) => "name[]".to_string(),
        (Some(shown), _) if shown.starts_with("varchar") => "character varying".to_string(),
        (Some(shown), _) => shown.to_string(),
        // The difference of two times.
        (None, DataType::Duration(_)) => "interval".to_string(),
        (None, ty) => type_name(ty),
    }
}
