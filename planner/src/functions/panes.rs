//! `TUMBLE`, `HOP` and `SESSION` in GROUP BY, and `window_start()`, `window_end()` beside it: names and types for a feature
//! view. Elsewhere there is `date_bin`.

use crate::table::instant_type;
use arrow_schema::DataType;
use datafusion::{
    common::not_impl_err,
    error::Result,
    logical_expr::{
        Accumulator, AggregateUDF, AggregateUDFImpl, ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
        Signature, Volatility, function::AccumulatorArgs,
    },
};

pub fn panes() -> impl Iterator<Item = ScalarUDF> {
    [("tumble", 2), ("hop", 3), ("session", 2)].into_iter().map(|(name, arguments)| {
        ScalarUDF::from(PaneOf { name, signature: Signature::any(arguments, Volatility::Immutable) })
    })
}

pub fn bounds() -> impl Iterator<Item = AggregateUDF> {
    ["window_start", "window_end"]
        .into_iter()
        .map(|name| AggregateUDF::new_from_impl(BoundOf { name, signature: Signature::nullary(Volatility::Immutable) }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct PaneOf {
    name: &'static str,
    signature: Signature,
}

impl ScalarUDFImpl for PaneOf {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    /// The start of the window.
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(instant_type())
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        not_impl_err!("{} groups the rows of a feature view, and is not available elsewhere", self.name)
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct BoundOf {
    name: &'static str,
    signature: Signature,
}

impl AggregateUDFImpl for BoundOf {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(instant_type())
    }

    fn accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        not_impl_err!("{} is a column of a feature view with TUMBLE, HOP or SESSION", self.name)
    }
}
