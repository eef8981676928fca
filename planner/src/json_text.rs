//! `document ->> 'key'`: a field of a JSON object as text, so that the payload of a dead letter can be taken apart and
//! driven in again with nothing but SQL. PostgreSQL's operator, over text; its function is `json_object_field_text`.

use datafusion::{
    arrow::array::{Array, ArrayRef, AsArray, StringArray, StringBuilder},
    arrow::datatypes::DataType,
    common::{DFSchema, DataFusionError, Result, exec_datafusion_err},
    logical_expr::{
        ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
        planner::{ExprPlanner, PlannerResult, RawBinaryExpr},
    },
    sql::sqlparser::ast::BinaryOperator,
};
use serde_json::Value;
use std::sync::Arc;

/// Reads `a ->> b` as a call of the function.
#[derive(Debug)]
pub struct JsonOperators;

impl ExprPlanner for JsonOperators {
    fn plan_binary_op(&self, expr: RawBinaryExpr, _: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        Ok(match expr.op {
            BinaryOperator::LongArrow => {
                PlannerResult::Planned(json_object_field_text().call(vec![expr.left, expr.right]))
            }
            _ => PlannerResult::Original(expr),
        })
    }
}

pub fn json_object_field_text() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(FieldText {
        signature: Signature::exact(vec![DataType::Utf8, DataType::Utf8], Volatility::Immutable),
    }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct FieldText {
    signature: Signature,
}

impl ScalarUDFImpl for FieldText {
    fn name(&self) -> &str {
        "json_object_field_text"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        let [documents, keys] = arrays.as_slice() else {
            return Err(exec_datafusion_err!("json_object_field_text takes a document and a key"));
        };
        let (documents, keys): (&StringArray, &StringArray) = (documents.as_string(), keys.as_string());
        let mut fields = StringBuilder::with_capacity(documents.len(), documents.len() * 8);
        for row in 0..documents.len() {
            if documents.is_null(row) || keys.is_null(row) {
                fields.append_null();
            } else {
                fields.append_option(field_text(documents.value(row), keys.value(row))?);
            }
        }
        Ok(ColumnarValue::Array(Arc::new(fields.finish()) as ArrayRef))
    }
}

/// The field's text: a string without its quotes, anything else as JSON writes it. `None` for JSON's null, a missing
/// field, and a document that is no object.
fn field_text(document: &str, key: &str) -> Result<Option<String>, DataFusionError> {
    let value: Value = serde_json::from_str(document)
        .map_err(|error| exec_datafusion_err!("invalid input syntax for type json: {error}"))?;
    Ok(match value {
        Value::Object(mut fields) => match fields.remove(key) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text),
            Some(other) => Some(other.to_string()),
        },
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::prelude::SessionContext;

    #[test]
    fn a_field_is_given_as_text() {
        let document = r#"{"event": "arrived", "dep_delay": -5, "late": true, "tailnum": null, "a": [1, 2]}"#;
        let cases = [
            ("event", Some("arrived")),
            ("dep_delay", Some("-5")),
            ("late", Some("true")),
            ("tailnum", None),
            ("a", Some("[1,2]")),
            ("nothing", None),
        ];
        for (key, expected) in cases {
            assert_eq!(field_text(document, key).expect("it is JSON").as_deref(), expected, "{key}");
        }
        assert_eq!(field_text("[1]", "a").expect("it is JSON"), None);
        assert!(field_text("event,arrived", "a").is_err());
    }

    #[tokio::test]
    async fn the_operator_is_read_in_sql_with_postgresql_precedence() {
        let context = SessionContext::new_with_state(crate::functions::planning_state("UTC"));
        let sql = r#"SELECT (d ->> 'n')::bigint + 1 = 8 AND d ->> 'x' IS NULL AND d ->> 's' = 'it' AS all_right
            FROM (VALUES ('{"n": 7, "s": "it"}')) AS t (d)"#;
        let rows = context.sql(sql).await.expect("it plans").collect().await.expect("it runs");
        assert!(rows[0].column(0).as_boolean().value(0));
    }
}
