//! `has_table_privilege` and its kin. There are no grants so far: every user may do everything, and these say so.

use super::row_function::RowFunction;
use arrow::datatypes::DataType;
use datafusion::{common::ScalarValue, logical_expr::ScalarUDF};
use std::sync::Arc;

const NAMES: [&str; 13] = [
    "has_table_privilege",
    "has_any_column_privilege",
    "has_column_privilege",
    "has_schema_privilege",
    "has_database_privilege",
    "has_function_privilege",
    "has_sequence_privilege",
    "has_language_privilege",
    "has_tablespace_privilege",
    "has_type_privilege",
    "has_server_privilege",
    "has_foreign_data_wrapper_privilege",
    "pg_has_role",
];

pub fn functions() -> impl Iterator<Item = Arc<ScalarUDF>> {
    NAMES.into_iter().map(|name| {
        RowFunction::new(name, DataType::Boolean, |args| {
            let unknown = (0..args.len()).any(|i| args.is_null(i));
            Ok(ScalarValue::Boolean((!unknown).then_some(true)))
        })
        .udf()
    })
}
