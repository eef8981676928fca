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
    use arrow::{
        array::{
            BinaryArray, Date32Array, DurationMicrosecondArray, Float32Array, Float64Array, Int64Array,
            IntervalMonthDayNanoArray, ListArray, Time64MicrosecondArray, TimestampMicrosecondArray,
        },
        datatypes::{Float64Type, Int64Type, IntervalMonthDayNano},
    };

    #[test]
    fn a_cast_to_text_writes_what_clients_are_sent() {
        let span = |months, days, us: i64| Some(IntervalMonthDayNano { months, days, nanoseconds: us * 1_000 });
        let doubles =
            [5.0, -0.0, 0.1, 1e15, 123_456_789_012_345.0, 1e20, 1e23, 1e-5, 0.0001, f64::MIN_POSITIVE, f64::MAX];
        let doubles = doubles.into_iter().chain([f64::NAN, f64::INFINITY, f64::NEG_INFINITY]).map(Some).chain([None]);
        let instants = [0, -1, 1, 1_782_907_200_500_000, -62_135_596_800_000_000, -62_135_596_800_000_001];
        let instants = instants.into_iter().chain([i64::MAX, i64::MIN, i64::MAX - 1]).map(Some).chain([None]);
        let texts = [Some("a"), Some(""), Some("NULL"), Some("b c"), Some("{\"\\}"), None];
        let mut words = arrow::array::ListBuilder::new(arrow::array::StringBuilder::new());
        texts.into_iter().for_each(|text| words.values().append_option(text));
        words.append(true);
        words.append(true);
        words.append(false);
        let arrays: Vec<ArrayRef> = vec![
            Arc::new(Float64Array::from_iter(doubles)),
            Arc::new(Float32Array::from(vec![1.5, 16_777_216.0, 1e-7, 0.3, f32::MAX, f32::NAN])),
            Arc::new(TimestampMicrosecondArray::from_iter(instants.clone())),
            Arc::new(TimestampMicrosecondArray::from_iter(instants).with_timezone("+00:00")),
            Arc::new(Date32Array::from(vec![0, -1, 19_782, -719_529, i32::MAX, i32::MIN])),
            Arc::new(Time64MicrosecondArray::from(vec![0, 1, 36_000_250_000, 86_399_999_999])),
            Arc::new(IntervalMonthDayNanoArray::from(vec![
                span(0, 0, 0),
                span(14, -3, 10_000_000),
                span(-1, 2, -500_000),
                span(0, 1, 0),
                span(0, 0, 360_000_000_000),
                None,
            ])),
            Arc::new(DurationMicrosecondArray::from(vec![0, 90_000_000, -86_400_000_001, 172_800_000_000])),
            Arc::new(BinaryArray::from(vec![Some(&[0u8, 255][..]), Some(&[][..]), None])),
            Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>([
                Some(vec![Some(5.0), None]),
                Some(vec![]),
                None,
            ])),
            Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(-1), None, Some(2)])])),
            Arc::new(words.finish()),
        ];
        for array in arrays {
            assert!(tidemark_planner::value_text::is_shown(array.data_type()), "{}", array.data_type());
            let written = tidemark_planner::value_text::texts(array.as_ref()).expect("it is written");
            for row in 0..array.len() {
                let written = written.is_valid(row).then(|| written.value(row).to_string());
                assert_eq!(written, show_value(&array, row), "row {row} of {}", array.data_type());
            }
        }
        assert!(
            !tidemark_planner::value_text::is_shown(Int64Array::from(vec![1]).data_type()),
            "Arrow's text is right"
        );
    }

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
