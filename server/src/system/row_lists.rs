//! Functions that return rows where PostgreSQL's do: a list of the rows here, and `unnest` around it.
//!
//! ```text
//! generate_subscripts(a, 1)                    unnest(subscripts$list(a, 1))
//! (information_schema._pg_expandarray(a)).n    (unnest(expandarray$list(a))).n
//! (aclexplode(a)).grantee                      (unnest(aclexplode$list(a))).grantee
//! ```

use super::{acl, row_function::RowFunction};
use arrow::{
    array::{ArrayRef, Int32Array, Int64Array, StructArray},
    datatypes::{DataType, Field, Fields},
};
use datafusion::{common::ScalarValue, logical_expr::ScalarUDF};
use std::sync::Arc;

const SUBSCRIPTS: &str = "subscripts$list";
const EXPANDED: &str = "expandarray$list";

/// The function that makes the list of what this one returns.
pub fn list_of(function: &str) -> Option<&'static str> {
    Some(match function {
        "generate_subscripts" => SUBSCRIPTS,
        "_pg_expandarray" => EXPANDED,
        "aclexplode" => acl::EXPLODED,
        _ => return None,
    })
}

pub fn functions() -> Vec<Arc<ScalarUDF>> {
    let numbers = DataType::List(Arc::new(Field::new_list_field(DataType::Int64, true)));
    // From 1, also for the vectors that PostgreSQL counts from 0.
    let subscripts = RowFunction::new(SUBSCRIPTS, numbers, |args| {
        let length = match args.0.first() {
            Some(ScalarValue::List(list)) if !args.is_null(0) => i64::from(list.value_length(0)),
            _ => 0,
        };
        let numbers: Vec<ScalarValue> = (1..=length).map(|n| ScalarValue::Int64(Some(n))).collect();
        Ok(ScalarValue::List(ScalarValue::new_list_nullable(&numbers, &DataType::Int64)))
    });
    let fields = Fields::from(vec![Field::new("x", DataType::Int64, true), Field::new("n", DataType::Int32, true)]);
    let row = DataType::Struct(fields.clone());
    let rows = DataType::List(Arc::new(Field::new_list_field(row.clone(), true)));
    // Of arrays of numbers, which is what the catalog's are: an element, and its place from 1.
    let expanded = RowFunction::new(EXPANDED, rows, move |args| {
        let elements = match args.0.first() {
            Some(ScalarValue::List(list)) if !args.is_null(0) => {
                ScalarValue::convert_array_to_scalar_vec(list.as_ref())?.into_iter().flatten().flatten().collect()
            }
            _ => vec![],
        };
        let element = |(i, element): (usize, ScalarValue)| {
            let x = match element {
                ScalarValue::Int16(x) => x.map(i64::from),
                ScalarValue::Int32(x) => x.map(i64::from),
                ScalarValue::Int64(x) => x,
                _ => None,
            };
            let columns: Vec<ArrayRef> =
                vec![Arc::new(Int64Array::from(vec![x])), Arc::new(Int32Array::from(vec![i as i32 + 1]))];
            ScalarValue::Struct(Arc::new(StructArray::new(fields.clone(), columns, None)))
        };
        let rows: Vec<ScalarValue> = elements.into_iter().enumerate().map(element).collect();
        Ok(ScalarValue::List(ScalarValue::new_list_nullable(&rows, &row)))
    });
    vec![subscripts.udf(), expanded.udf()]
}
