//! How long a text, a `bytea` or an array is, and where in an array: `integer`, as in PostgreSQL.
//!
//! DataFusion's `length` reads bytes as text, which they need not be; its functions over arrays count in a type that SQL
//! has none of, and was `numeric` to clients. An array without items has no dimension, so its `array_length` is NULL.

use super::by_row::{ByRow, no_match};
use arrow::{
    array::{AsArray, Int32Array},
    compute::{cast, kernels::length::length as bytes},
    datatypes::Int32Type,
};
use arrow_schema::{DataType, Field};
use datafusion::{
    common::ScalarValue,
    error::Result,
    functions::unicode,
    functions_nested::{
        cardinality::cardinality_udf,
        dimension::array_ndims_udf,
        length::array_length_udf,
        position::{array_position_udf, array_positions_udf},
    },
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
};
use std::sync::Arc;

pub(super) fn functions() -> impl Iterator<Item = ScalarUDF> {
    let integers = DataType::List(Arc::new(Field::new_list_field(DataType::Int32, true)));
    let retyped = [
        (array_length_udf(), DataType::Int32),
        (cardinality_udf(), DataType::Int32),
        (array_ndims_udf(), DataType::Int32),
        (array_position_udf(), DataType::Int32),
        (array_positions_udf(), integers),
    ];
    let retyped = retyped.into_iter().map(|(plain, ty)| ScalarUDF::from(Retyped { plain, ty }));
    let lengths = ["length", "octet_length"].into_iter().map(|name| ScalarUDF::from(Length::new(name)));
    lengths.chain(retyped).chain([dimensions()])
}

/// `array_dims`: `[1:2][1:3]`, a text.
fn dimensions() -> ScalarUDF {
    ByRow::strict(
        "array_dims",
        |types| match types {
            [DataType::List(_) | DataType::Null] => Ok(types.to_vec()),
            _ => no_match("array_dims", types),
        },
        DataType::Utf8,
        |args, _| {
            let ScalarValue::List(list) = &args[0] else { return Ok(ScalarValue::Utf8(None)) };
            let mut items = list.value(0);
            let mut dimensions = String::new();
            while !items.is_empty() {
                dimensions.push_str(&format!("[1:{}]", items.len()));
                items = match items.as_list_opt::<i32>() {
                    Some(inner) => inner.value(0),
                    None => break,
                };
            }
            // None has no dimension.
            Ok(ScalarValue::Utf8(Some(dimensions).filter(|dimensions| !dimensions.is_empty())))
        },
    )
}

/// `length`: the characters of a text, the bytes of a `bytea`; `octet_length`: the bytes of both.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Length {
    name: &'static str,
    signature: Signature,
}

impl Length {
    fn new(name: &'static str) -> Length {
        use DataType::{Binary, BinaryView, LargeBinary, LargeUtf8, Utf8, Utf8View};
        // What is none of them is read as the first, a text.
        let types = vec![Utf8, LargeUtf8, Utf8View, Binary, LargeBinary, BinaryView];
        Length { name, signature: Signature::uniform(1, types, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Length {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int32)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_text = arguments.args.first().is_some_and(|arg| arg.data_type().is_string());
        if self.name == "length" && is_text {
            let characters = unicode::character_length().inner().invoke_with_args(arguments)?;
            return characters.cast_to(&DataType::Int32, None);
        }
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        Ok(ColumnarValue::Array(cast(&bytes(arrays[0].as_ref())?, &DataType::Int32)?))
    }
}

/// One of DataFusion's functions, of another type.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Retyped {
    plain: Arc<ScalarUDF>,
    ty: DataType,
}

impl ScalarUDFImpl for Retyped {
    fn name(&self) -> &str {
        self.plain.name()
    }

    fn aliases(&self) -> &[String] {
        self.plain.aliases()
    }

    fn signature(&self) -> &Signature {
        self.plain.signature()
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.ty.clone())
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let value = self.plain.inner().invoke_with_args(arguments)?.cast_to(&self.ty, None)?;
        if self.plain.name() != "array_length" {
            return Ok(value);
        }
        let arrays = ColumnarValue::values_to_arrays(&[value])?;
        let lengths = arrays[0].as_primitive::<Int32Type>();
        let of_items: Int32Array = lengths.iter().map(|length| length.filter(|length| *length > 0)).collect();
        Ok(ColumnarValue::Array(Arc::new(of_items)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::common::config::ConfigOptions;

    fn call(name: &str, value: ScalarValue) -> ScalarValue {
        let function = functions().find(|function| function.name() == name).expect("a function");
        let arguments = ScalarFunctionArgs {
            arg_fields: vec![Arc::new(Field::new("x", value.data_type(), true))],
            args: vec![ColumnarValue::Scalar(value)],
            number_rows: 1,
            return_field: Arc::new(Field::new(name, DataType::Int32, true)),
            config_options: Arc::new(ConfigOptions::default()),
        };
        let value = function.inner().invoke_with_args(arguments).expect("a value");
        ScalarValue::try_from_array(&value.into_array(1).expect("an array"), 0).expect("a row")
    }

    #[test]
    fn lengths_are_integers_and_bytes_need_not_be_text() {
        let text = |text: &str| ScalarValue::Utf8(Some(text.to_string()));
        let bytea = |bytes: &[u8]| ScalarValue::Binary(Some(bytes.to_vec()));
        let array = |items: &[i64]| {
            let items: Vec<ScalarValue> = items.iter().map(|item| ScalarValue::Int64(Some(*item))).collect();
            ScalarValue::List(ScalarValue::new_list_nullable(&items, &DataType::Int64))
        };
        for (name, value, expected) in [
            ("length", text("né"), Some(2)),
            ("octet_length", text("né"), Some(3)),
            ("length", bytea(&[0xff, 0, 0xfe]), Some(3)),
            ("octet_length", bytea(&[0xff]), Some(1)),
            ("length", ScalarValue::Utf8(None), None),
            ("length", ScalarValue::Binary(None), None),
            ("array_length", array(&[7, 8]), Some(2)),
            ("array_length", array(&[]), None),
            ("cardinality", array(&[7, 8]), Some(2)),
            ("cardinality", array(&[]), Some(0)),
            ("array_ndims", array(&[7]), Some(1)),
        ] {
            assert_eq!(call(name, value.clone()), ScalarValue::Int32(expected), "{name}({value})");
        }
    }
}
