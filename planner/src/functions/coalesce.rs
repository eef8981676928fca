//! `coalesce(day, '2026-01-01')`, `greatest` and `least`: a text that is written there is of the type of the others. DataFusion looks at the
//! types alone, and refuses the call when it binds; here it is taken, [`crate::untyped`] reads the text, and refuses one that has a type
//! of its own.

use arrow_schema::{DataType, FieldRef};
use datafusion::{
    error::Result,
    functions::core as theirs,
    logical_expr::{
        ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
        simplify::{ExprSimplifyResult, SimplifyContext},
    },
};
use std::sync::Arc;

pub(super) fn functions() -> impl Iterator<Item = ScalarUDF> {
    [theirs::coalesce(), theirs::greatest(), theirs::least()]
        .into_iter()
        .map(|inner| ScalarUDF::from(Coalesce { inner }))
}

/// DataFusion's; `coalesce` also becomes a CASE.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Coalesce {
    inner: Arc<ScalarUDF>,
}

impl ScalarUDFImpl for Coalesce {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match crate::untyped::coalesced(types) {
            Some(ty) => Ok(vec![ty; types.len()]),
            None => self.inner.coerce_types(types),
        }
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn simplify(&self, args: Vec<Expr>, context: &SimplifyContext) -> Result<ExprSimplifyResult> {
        self.inner.simplify(args, context)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.inner.invoke_with_args(arguments)
    }

    fn conditional_arguments<'a>(&self, args: &'a [Expr]) -> Option<(Vec<&'a Expr>, Vec<&'a Expr>)> {
        self.inner.conditional_arguments(args)
    }

    fn short_circuits(&self) -> bool {
        self.inner.short_circuits()
    }
}
