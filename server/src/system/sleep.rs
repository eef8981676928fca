//! `pg_sleep(seconds)`: the statement waits on the server's clock. It holds no thread meanwhile, and ends as any other
//! that is cancelled or takes longer than `statement_timeout`.

use crate::wire::types::PG_TYPE;
use arrow::{
    array::{Array, AsArray, StringArray},
    datatypes::{DataType, Field, FieldRef, Float64Type},
};
use async_trait::async_trait;
use datafusion::{
    common::internal_err,
    error::Result as DfResult,
    logical_expr::{
        ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
        async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl},
    },
};
use std::{
    collections::HashMap,
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
    time::Duration,
};
use tidemark_engine::seam::Clock;

const NAME: &str = "pg_sleep";

/// A century: nobody sees the end of it, and a clock can add it to now.
const SECONDS_MAX: f64 = 3.2e9;

pub fn pg_sleep(clock: Arc<dyn Clock>) -> Arc<ScalarUDF> {
    let signature = Signature::exact(vec![DataType::Float64], Volatility::Volatile);
    Arc::new(AsyncScalarUDF::new(Arc::new(Sleep { clock, signature })).into_scalar_udf())
}

struct Sleep {
    clock: Arc<dyn Clock>,
    signature: Signature,
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAME)
    }
}

// A server has one clock.
impl PartialEq for Sleep {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Sleep {}

impl Hash for Sleep {
    fn hash<H: Hasher>(&self, state: &mut H) {
        NAME.hash(state);
    }
}

impl ScalarUDFImpl for Sleep {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Utf8)
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs) -> DfResult<FieldRef> {
        let field = Field::new(NAME, DataType::Utf8, true);
        Ok(Arc::new(field.with_metadata(HashMap::from([(PG_TYPE.to_string(), "void".to_string())]))))
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        internal_err!("{NAME} waits, so it cannot be called here")
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for Sleep {
    /// Once for each row, one after the other; a row of NULL does not wait, nor does a negative number.
    async fn invoke_async_with_args(&self, arguments: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let Some(seconds) = arguments.args.first() else { return internal_err!("{NAME} takes the seconds") };
        let seconds = seconds.to_array(arguments.number_rows)?;
        let seconds = seconds.as_primitive::<Float64Type>();
        // What is no number does not wait.
        let total: f64 = seconds.iter().flatten().map(|seconds| seconds.max(0.0)).sum();
        if total > 0.0 {
            self.clock.sleep(Duration::from_secs_f64(total.min(SECONDS_MAX))).await;
        }
        let done: StringArray = (0..seconds.len()).map(|row| seconds.is_valid(row).then_some("")).collect();
        Ok(ColumnarValue::Array(Arc::new(done)))
    }
}
