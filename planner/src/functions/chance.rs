//! `gen_random_uuid()` and `clock_timestamp()`: names and types, so that a feature view refuses them as what asks chance or a clock. The
//! server has the functions: they need its clock.

use crate::table::instant_type;
use arrow_schema::DataType;
use datafusion::{
    common::plan_err,
    error::Result,
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
};

pub(super) fn functions() -> impl Iterator<Item = ScalarUDF> {
    [("gen_random_uuid", DataType::Utf8), ("clock_timestamp", instant_type())].into_iter().map(|(name, ty)| {
        let signature = Signature::nullary(Volatility::Volatile);
        ScalarUDF::from(Named { name, ty, signature })
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Named {
    name: &'static str,
    ty: DataType,
    signature: Signature,
}

impl ScalarUDFImpl for Named {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.ty.clone())
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        plan_err!("{}() has no clock here", self.name)
    }
}
