//! Arrays, vectors and bytes out of text: `payload ->> 'scores'` cast to `bigint[]`, `'\xff'::bytea`. DataFusion's casts would
//! make an array of one item, and the text's own bytes; these read the text as PostgreSQL does. An array may also be
//! written as JSON, `[1, null]`, which is how `->>` gives the arrays of a dead letter.

use crate::{
    pg::PgError,
    wire::{ColumnBuilder, SessionZone, show_value},
};
use arrow::{
    array::{Array, ArrayRef, AsArray, StringArray},
    compute::cast,
    datatypes::DataType,
};
use datafusion::{
    common::tree_node::{Transformed, TreeNode},
    error::{DataFusionError, Result as DfResult},
    logical_expr::{
        ColumnarValue, Expr, ExprSchemable, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
        Volatility,
    },
};
use std::sync::Arc;
use tidemark_catalog::vector::is_vector;
use tidemark_planner::each_expression::each_expression;

/// Whether text becomes a value of this type here, and not by a cast of Arrow's.
pub fn reads(from: &DataType, to: &DataType) -> bool {
    matches!(from, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
        && matches!(to, DataType::List(_) | DataType::Binary)
}

/// The column of type `to` that the texts mean.
pub fn column(texts: &ArrayRef, to: &DataType, zone: &SessionZone) -> Result<ArrayRef, PgError> {
    let texts = cast(texts, &DataType::Utf8)?;
    let mut column = ColumnBuilder::new(to)?;
    for text in texts.as_string::<i32>() {
        match text {
            None => column.append_null(),
            Some(text) => match json_array(text).filter(|_| matches!(to, DataType::List(_)) && !is_vector(to)) {
                Some(literal) => column.append_text(&literal, zone)?,
                None => column.append_text(text, zone)?,
            },
        }
    }
    Ok(column.finish()?)
}

/// A JSON array of scalars as an array literal; `None` for what is none.
fn json_array(text: &str) -> Option<String> {
    use serde_json::Value as J;
    let items: Vec<J> = serde_json::from_str(text.trim_start().starts_with('[').then_some(text)?).ok()?;
    let items = items.into_iter().map(|item| match item {
        J::Null => Some("NULL".to_string()),
        J::String(text) => Some(format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))),
        J::Bool(_) | J::Number(_) => Some(item.to_string()),
        J::Array(_) | J::Object(_) => None,
    });
    Some(format!("{{{}}}", items.collect::<Option<Vec<_>>>()?.join(",")))
}

/// Puts this reading in the place of every such cast of a plan.
pub fn read_casts(plan: LogicalPlan, zone: &SessionZone) -> DfResult<LogicalPlan> {
    each_expression(plan, |expr, schema| {
        expr.transform_up(|expr| match expr {
            Expr::Cast(cast) if cast.expr.get_type(schema).is_ok_and(|from| reads(&from, cast.field.data_type())) => {
                let function = ScalarUDF::from(FromText::new(cast.field.data_type().clone(), *zone));
                Ok(Transformed::yes(function.call(vec![*cast.expr])))
            }
            Expr::Cast(cast)
                if *cast.field.data_type() == DataType::Utf8
                    && cast.expr.get_type(schema).is_ok_and(|from| is_vector(&from)) =>
            {
                let function = ToText { signature: Signature::any(1, Volatility::Immutable) };
                Ok(Transformed::yes(ScalarUDF::from(function).call(vec![*cast.expr])))
            }
            other => Ok(Transformed::no(other)),
        })
    })
}

/// The cast as a function, which is what a plan can have in its place.
#[derive(Debug, PartialEq, Eq, Hash)]
struct FromText {
    to: DataType,
    zone: SessionZone,
    signature: Signature,
}

impl FromText {
    fn new(to: DataType, zone: SessionZone) -> FromText {
        FromText { to, zone, signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for FromText {
    fn name(&self) -> &str {
        "from_text"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(self.to.clone())
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let texts = ColumnarValue::values_to_arrays(&arguments.args)?;
        let column = column(&texts[0], &self.to, &self.zone).map_err(|e| DataFusionError::External(Box::new(e)))?;
        Ok(ColumnarValue::Array(column))
    }
}

/// A vector as the text that clients are sent; DataFusion would write `[1.0, 2.0]`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ToText {
    signature: Signature,
}

impl ScalarUDFImpl for ToText {
    fn name(&self) -> &str {
        "to_text"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let vectors = ColumnarValue::values_to_arrays(&arguments.args)?;
        let texts = (0..vectors[0].len()).map(|row| show_value(&vectors[0], row));
        Ok(ColumnarValue::Array(Arc::new(StringArray::from_iter(texts))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_json_array_is_read_as_an_array_literal() {
        let cases = [
            ("[]", Some("{}")),
            (r#" [1, null, 2.5, true]"#, Some("{1,NULL,2.5,true}")),
            (r#"["a", "null", "b\"c\\", "é,{}"]"#, Some(r#"{"a","null","b\"c\\","é,{}"}"#)),
            ("[[1]]", None),
            ("[1:2]={1,2}", None),
            ("{1,2}", None),
            ("1", None),
        ];
        for (text, expected) in cases {
            assert_eq!(json_array(text).as_deref(), expected, "{text}");
        }
    }
}
