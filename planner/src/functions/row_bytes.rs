//! `count(DISTINCT (a, b))` counts the bytes of the rows. DataFusion's would keep each row as a value of its own that holds on to the
//! batch it came from, and count that batch again for each of them: some thousands of rows asked for gigabytes.
//!
//! ```text
//! count(DISTINCT (a, b))      count(DISTINCT row_bytes(a, b))
//! ```
//!
//! A row is never NULL, whatever its columns are.

use crate::respelled::call;
use arrow::{
    array::BinaryArray,
    row::{RowConverter, SortField},
};
use arrow_schema::DataType;
use datafusion::{
    error::Result,
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
    sql::sqlparser::ast::{
        DuplicateTreatment, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Query, visit_expressions_mut,
    },
};
use std::{ops::ControlFlow, sync::Arc};

const ROW_BYTES: &str = "row_bytes";

/// Writes the counts of distinct rows so. A second time it changes nothing.
pub(crate) fn count_rows(query: &mut Query) {
    let _ = visit_expressions_mut(query, |expr| {
        if let Expr::Function(function) = expr
            && function.name.to_string().eq_ignore_ascii_case("count")
            && let FunctionArguments::List(list) = &mut function.args
            && list.duplicate_treatment == Some(DuplicateTreatment::Distinct)
            && let [FunctionArg::Unnamed(FunctionArgExpr::Expr(counted))] = list.args.as_mut_slice()
            && let Expr::Tuple(columns) = counted
        {
            *counted = call(ROW_BYTES, std::mem::take(columns));
        }
        ControlFlow::<()>::Continue(())
    });
}

pub(super) fn row_bytes() -> ScalarUDF {
    ScalarUDF::from(RowBytes { signature: Signature::variadic_any(Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct RowBytes {
    signature: Signature,
}

impl ScalarUDFImpl for RowBytes {
    fn name(&self) -> &str {
        ROW_BYTES
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Binary)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(&arguments.args)?;
        let fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
        let rows = RowConverter::new(fields)?.convert_columns(&columns)?;
        let bytes = BinaryArray::from_iter_values(rows.iter());
        Ok(ColumnarValue::Array(Arc::new(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Statement, parse::parse};

    #[test]
    fn distinct_rows_are_counted_by_their_bytes_and_nothing_else_is() {
        for (sql, expected) in [
            ("count(DISTINCT (a, b))", "count(DISTINCT row_bytes(a, b))"),
            ("count(DISTINCT a)", "count(DISTINCT a)"),
            ("count((a, b))", "count((a, b))"),
        ] {
            let parsed = parse(&format!("SELECT {sql} FROM t")).unwrap_or_else(|error| panic!("{sql}: {error}"));
            let Statement::Query(mut query) = parsed[0].statement.clone() else { panic!("{sql} is in no query") };
            count_rows(&mut query);
            count_rows(&mut query);
            assert_eq!(query.to_string(), format!("SELECT {expected} FROM t"));
        }
    }
}
