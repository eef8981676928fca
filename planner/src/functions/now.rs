//! `now()` in microseconds. DataFusion's own counts nanoseconds, and reads the wall clock; ours is only a name that
//! binding replaces by the statement's instant (and a feature view by the instant of the reading).

use arrow_schema::DataType;
use datafusion::{
    common::plan_err,
    error::Result,
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility},
};

#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Now {
    signature: Signature,
    aliases: Vec<String>,
}

impl Now {
    pub fn new() -> Self {
        let aliases =
            ["current_timestamp", "transaction_timestamp", "statement_timestamp"].map(str::to_string).to_vec();
        Now { signature: Signature::nullary(Volatility::Stable), aliases }
    }
}

impl ScalarUDFImpl for Now {
    fn name(&self) -> &str {
        "now"
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(crate::table::instant_type())
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        plan_err!("now() was not bound to an instant")
    }
}
