//! Scalar functions written for one row at a time: for those that are called of few rows, or do much for each. What is the same in
//! every row is computed once.

use crate::PlanResult;
use arrow::array::new_empty_array;
use arrow_schema::{DataType, FieldRef};
use datafusion::{
    common::{ScalarValue, plan_err},
    error::Result,
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
};
use std::{
    fmt,
    hash::{Hash, Hasher},
};
use tidemark_catalog::UTC;

/// What a body knows beside its values.
pub(crate) struct Call<'a> {
    /// Of the arguments.
    pub fields: &'a [FieldRef],
    /// In which the session reads the clock on the wall.
    pub zone: &'a str,
}

/// The types that arguments of these are read as.
type Takes = fn(&[DataType]) -> Result<Vec<DataType>>;
type Body = fn(&[ScalarValue], &Call<'_>) -> PlanResult<ScalarValue>;

/// Such a function, immutable.
pub(crate) struct ByRow {
    name: &'static str,
    takes: Takes,
    gives: DataType,
    /// Of NULL it gives NULL, and its body is not asked.
    strict: bool,
    body: Body,
    signature: Signature,
}

impl ByRow {
    pub fn strict(name: &'static str, takes: Takes, gives: DataType, body: Body) -> ScalarUDF {
        Self::made(name, takes, gives, true, body)
    }

    /// Its body sees NULL, too.
    pub fn of_nulls(name: &'static str, takes: Takes, gives: DataType, body: Body) -> ScalarUDF {
        Self::made(name, takes, gives, false, body)
    }

    fn made(name: &'static str, takes: Takes, gives: DataType, strict: bool, body: Body) -> ScalarUDF {
        let signature = Signature::user_defined(Volatility::Immutable);
        ScalarUDF::from(ByRow { name, takes, gives, strict, body, signature })
    }
}

/// Arguments of exactly these types.
///
/// # Errors
/// There are more or fewer.
pub(crate) fn exactly(name: &str, types: &[DataType], wanted: &[DataType]) -> Result<Vec<DataType>> {
    if types.len() == wanted.len() { Ok(wanted.to_vec()) } else { no_match(name, types) }
}

/// There is no function of that name for arguments of these types.
///
/// # Errors
/// Always.
pub(crate) fn no_match<T>(name: &str, types: &[DataType]) -> Result<T> {
    let types = types.iter().map(crate::words::full_type_name).collect::<Vec<_>>().join(", ");
    plan_err!("No function matches the given name and argument types '{name}({types})'. You might")
}

impl fmt::Debug for ByRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

// There is one of each name.
impl PartialEq for ByRow {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for ByRow {}

impl Hash for ByRow {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for ByRow {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        (self.takes)(types)
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.gives.clone())
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let zone = arguments.config_options.execution.time_zone.as_deref().unwrap_or(UTC);
        let call = Call { fields: &arguments.arg_fields, zone };
        let is_constant = arguments.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if is_constant { 1 } else { arguments.number_rows };
        let null = ScalarValue::try_from(&self.gives)?;
        let mut values = Vec::with_capacity(rows);
        let mut row = Vec::with_capacity(arguments.args.len());
        for at in 0..rows {
            row.clear();
            for arg in &arguments.args {
                row.push(match arg {
                    ColumnarValue::Scalar(value) => value.clone(),
                    ColumnarValue::Array(array) => ScalarValue::try_from_array(array, at)?,
                });
            }
            let is_asked = !self.strict || !row.iter().any(ScalarValue::is_null);
            values.push(if is_asked { (self.body)(&row, &call)? } else { null.clone() });
        }
        if is_constant {
            return Ok(ColumnarValue::Scalar(values.pop().unwrap_or(null)));
        }
        if values.is_empty() {
            return Ok(ColumnarValue::Array(new_empty_array(&self.gives)));
        }
        Ok(ColumnarValue::Array(ScalarValue::iter_to_array(values)?))
    }
}

/// An argument that was taken as `bigint`.
pub(crate) fn int(value: &ScalarValue) -> i64 {
    match value {
        ScalarValue::Int64(Some(value)) => *value,
        _ => 0,
    }
}

/// An argument that was taken as `double precision`.
pub(crate) fn float(value: &ScalarValue) -> f64 {
    match value {
        ScalarValue::Float64(Some(value)) => *value,
        _ => 0.0,
    }
}
