//! A scalar function written as a Rust closure over one row: catalog statements are small, so this may be plain.

use crate::wire::types::PG_TYPE;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::{
    common::ScalarValue,
    error::Result as DfResult,
    logical_expr::{
        ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature,
        Volatility,
    },
};
use std::{
    collections::HashMap,
    hash::{Hash, Hasher},
    sync::Arc,
};

/// The arguments of one row.
pub struct Args<'a>(pub &'a [ScalarValue]);

impl Args<'_> {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// An integer, also one written as text: `'16397'`.
    pub fn int(&self, i: usize) -> Option<i64> {
        match self.0.get(i)? {
            ScalarValue::Int8(v) => v.map(i64::from),
            ScalarValue::Int16(v) => v.map(i64::from),
            ScalarValue::Int32(v) => v.map(i64::from),
            ScalarValue::Int64(v) => *v,
            ScalarValue::UInt8(v) => v.map(i64::from),
            ScalarValue::UInt16(v) => v.map(i64::from),
            ScalarValue::UInt32(v) => v.map(i64::from),
            ScalarValue::UInt64(v) => v.and_then(|v| i64::try_from(v).ok()),
            other => other.try_as_str().flatten()?.trim().parse().ok(),
        }
    }

    pub fn text(&self, i: usize) -> Option<&str> {
        self.0.get(i)?.try_as_str().flatten()
    }

    pub fn bool(&self, i: usize) -> Option<bool> {
        match self.0.get(i)? {
            ScalarValue::Boolean(v) => *v,
            _ => None,
        }
    }

    pub fn is_null(&self, i: usize) -> bool {
        self.0.get(i).is_none_or(ScalarValue::is_null)
    }
}

type Body = Arc<dyn Fn(Args<'_>) -> DfResult<ScalarValue> + Send + Sync>;

/// A function of any number of arguments of any type; its body sorts them out.
pub struct RowFunction {
    name: &'static str,
    returns: DataType,
    /// The PostgreSQL type to show where the Arrow type says too little.
    shown_as: Option<&'static str>,
    signature: Signature,
    body: Body,
}

impl RowFunction {
    pub fn new(
        name: &'static str,
        returns: DataType,
        body: impl Fn(Args<'_>) -> DfResult<ScalarValue> + Send + Sync + 'static,
    ) -> Self {
        let any = vec![TypeSignature::Nullary, TypeSignature::VariadicAny];
        // Stable: the same within one statement, not for ever.
        let signature = Signature::one_of(any, Volatility::Stable);
        RowFunction { name, returns, shown_as: None, signature, body: Arc::new(body) }
    }

    pub fn shown_as(mut self, pg_type: &'static str) -> Self {
        self.shown_as = Some(pg_type);
        self
    }

    /// It has effects: run it once per row, and never at planning.
    pub fn volatile(mut self) -> Self {
        self.signature.volatility = Volatility::Volatile;
        self
    }

    pub fn udf(self) -> Arc<ScalarUDF> {
        Arc::new(ScalarUDF::new_from_impl(self))
    }
}

impl std::fmt::Debug for RowFunction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

// Two of one name differ by the session and snapshot they were made for.
impl PartialEq for RowFunction {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && Arc::ptr_eq(&self.body, &other.body)
    }
}

impl Eq for RowFunction {}

impl Hash for RowFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for RowFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(self.returns.clone())
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs) -> DfResult<FieldRef> {
        let field = Field::new(self.name, self.returns.clone(), true);
        Ok(Arc::new(match self.shown_as {
            Some(shown) => field.with_metadata(HashMap::from([(PG_TYPE.to_string(), shown.to_string())])),
            None => field,
        }))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let constants: Option<Vec<ScalarValue>> = args
            .args
            .iter()
            .map(|arg| match arg {
                ColumnarValue::Scalar(value) => Some(value.clone()),
                ColumnarValue::Array(_) => None,
            })
            .collect();
        if let Some(constants) = constants {
            return Ok(ColumnarValue::Scalar((self.body)(Args(&constants))?));
        }
        let mut values = Vec::with_capacity(args.number_rows);
        for row in 0..args.number_rows {
            let row = args
                .args
                .iter()
                .map(|arg| match arg {
                    ColumnarValue::Scalar(value) => Ok(value.clone()),
                    ColumnarValue::Array(array) => ScalarValue::try_from_array(array, row),
                })
                .collect::<DfResult<Vec<_>>>()?;
            values.push((self.body)(Args(&row))?);
        }
        if values.is_empty() {
            return Ok(ColumnarValue::Array(arrow::array::new_empty_array(&self.returns)));
        }
        Ok(ColumnarValue::Array(ScalarValue::iter_to_array(values)?))
    }
}
