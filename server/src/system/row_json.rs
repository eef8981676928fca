//! `row_to_json(t)`, where `t` is a subquery in FROM whose columns have names: dashboards ask for a row of numbers so. There are no
//! rows as values here, so the names are written out beside the values.
//!
//! ```text
//! row_to_json(t) FROM (SELECT count(*) AS "Total", … FROM …) t      object$json('Total', t."Total", …)
//! ```

use super::{rewrite::call, row_function::RowFunction, vacancy::last_part};
use arrow::datatypes::DataType;
use datafusion::{
    common::ScalarValue,
    error::{DataFusionError, Result as DfResult},
    logical_expr::ScalarUDF,
};
use sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Query, Select, SelectItem, SetExpr,
    TableFactor, Value, VisitMut, VisitorMut,
};
use std::{ops::ControlFlow, sync::Arc};

const CALLED: &str = "row_to_json";
const OBJECT: &str = "object$json";

/// Whether it is this function that is called.
pub fn is_called(function: &Function) -> bool {
    last_part(&function.name) == CALLED
}

/// Writes the calls in what is selected out.
pub fn write_out(select: &mut Select) {
    let first = select.from.iter().map(|from| &from.relation);
    let joined = select.from.iter().flat_map(|from| &from.joins).map(|join| &join.relation);
    let rows: Vec<Row> = first.chain(joined).filter_map(named).collect();
    if !rows.is_empty() {
        let _ = VisitMut::visit(&mut select.projection, &mut Writing { rows });
    }
}

/// A subquery's name, and those of its columns.
struct Row {
    name: Ident,
    columns: Vec<Ident>,
}

fn named(factor: &TableFactor) -> Option<Row> {
    let TableFactor::Derived { subquery, alias: Some(alias), .. } = factor else { return None };
    let columns = alias.columns.is_empty().then(|| columns(subquery)).flatten()?;
    Some(Row { name: alias.name.clone(), columns })
}

fn columns(query: &Query) -> Option<Vec<Ident>> {
    let SetExpr::Select(select) = query.body.as_ref() else { return None };
    let name = |item: &SelectItem| match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(alias.clone()),
        SelectItem::UnnamedExpr(Expr::Identifier(column)) => Some(column.clone()),
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => parts.last().cloned(),
        _ => None,
    };
    select.projection.iter().map(name).collect()
}

struct Writing {
    rows: Vec<Row>,
}

impl VisitorMut for Writing {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let Expr::Function(function) = expr else { return ControlFlow::Continue(()) };
        let FunctionArguments::List(list) = &function.args else { return ControlFlow::Continue(()) };
        if let [FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Identifier(row)))] = list.args.as_slice()
            && is_called(function)
            && let Some(found) = self.rows.iter().find(|known| folded(&known.name) == folded(row))
        {
            let pair = |column: &Ident| {
                let name = Expr::Value(Value::SingleQuotedString(folded(column)).into());
                [name, Expr::CompoundIdentifier(vec![found.name.clone(), column.clone()])]
            };
            *expr = call(OBJECT, found.columns.iter().flat_map(pair).collect(), vec![]);
        }
        ControlFlow::Continue(())
    }
}

fn folded(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

/// Of names and values, in turn.
pub fn function() -> Arc<ScalarUDF> {
    let object = |args: &[ScalarValue]| -> DfResult<String> {
        let mut members = vec![];
        for pair in args.chunks_exact(2) {
            let name = pair[0].try_as_str().flatten().unwrap_or_default();
            members.push(format!("{}:{}", quoted(name)?, json(&pair[1])?));
        }
        Ok(format!("{{{}}}", members.join(",")))
    };
    RowFunction::new(OBJECT, DataType::Utf8, move |args| Ok(ScalarValue::Utf8(Some(object(args.0)?))))
        .shown_as("json")
        .udf()
}

/// Numbers and truth values as they are, all else as text; NaN and infinity have no number in JSON.
fn json(value: &ScalarValue) -> DfResult<String> {
    if value.is_null() {
        return Ok("null".to_string());
    }
    let ty = value.data_type();
    let text = value.cast_to(&DataType::Utf8)?;
    let text = text.try_as_str().flatten().unwrap_or_default();
    let is_plain = ty == DataType::Boolean || (ty.is_numeric() && text.parse::<f64>().is_ok_and(f64::is_finite));
    if is_plain { Ok(text.to_string()) } else { quoted(text) }
}

fn quoted(text: &str) -> DfResult<String> {
    serde_json::to_string(text).map_err(|error| DataFusionError::External(Box::new(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_json() {
        for (value, expected) in [
            (ScalarValue::Int64(Some(-7)), "-7"),
            (ScalarValue::Int64(None), "null"),
            (ScalarValue::Decimal128(Some(1250), 10, 2), "12.50"),
            (ScalarValue::Float64(Some(f64::NAN)), "\"NaN\""),
            (ScalarValue::Boolean(Some(true)), "true"),
            (ScalarValue::Utf8(Some("a \"b\"\n".to_string())), "\"a \\\"b\\\"\\n\""),
        ] {
            assert_eq!(json(&value).expect("JSON"), expected);
        }
    }
}
