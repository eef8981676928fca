//! `current_date`, `current_time`, `localtime` and `localtimestamp`: what a clock on the wall shows at `now()`, in the
//! session's zone. As `now()` they are only names, which binding replaces by the statement's instant; DataFusion's read
//! the machine's clock.

use crate::zone::wall;
use arrow_schema::{DataType, TimeUnit};
use datafusion::{
    common::plan_err,
    error::Result,
    logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
};
use std::sync::Arc;

const TIME: DataType = DataType::Time64(TimeUnit::Microsecond);

/// Their names and types; `current_time` has no zone here, as there is no type that has one.
fn clocks() -> [(&'static str, DataType); 4] {
    [("current_date", DataType::Date32), ("current_time", TIME), ("localtime", TIME), ("localtimestamp", wall())]
}

/// To what the instant has to be cast, if this very node is one of them.
pub(crate) fn shown_by(expr: &Expr) -> Option<DataType> {
    let Expr::ScalarFunction(call) = expr else { return None };
    clocks().into_iter().find(|(name, _)| *name == call.name()).map(|(_, ty)| ty)
}

pub(super) fn functions() -> impl Iterator<Item = Arc<ScalarUDF>> {
    clocks().into_iter().map(|(name, ty)| {
        let signature = Signature::nullary(Volatility::Stable);
        // DataFusion's other name for its own.
        let aliases = if name == "current_date" { vec!["today".to_string()] } else { vec![] };
        Arc::new(ScalarUDF::from(Clock { name, ty, signature, aliases }))
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Clock {
    name: &'static str,
    ty: DataType,
    signature: Signature,
    aliases: Vec<String>,
}

impl ScalarUDFImpl for Clock {
    fn name(&self) -> &str {
        self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.ty.clone())
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        plan_err!("{} was not bound to an instant", self.name)
    }
}
