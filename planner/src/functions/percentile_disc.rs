//! `percentile_disc(p) WITHIN GROUP (ORDER BY x)`, which DataFusion lacks: of the values in their order, without NULLs, the
//! one at which the fraction `p` of them is reached. Great Expectations asks for quantiles so.
//!
//! ```text
//! CASE WHEN p BETWEEN 0 AND 1 THEN
//!   array_element(array_agg(x ORDER BY x) FILTER (WHERE x IS NOT NULL), greatest(ceil(p * count(x)), 1)) END
//! ```
//!
//! A fraction outside 0 to 1, and NULL, give NULL.

use crate::parse::TidemarkDialect;
use datafusion::sql::sqlparser::{
    ast::{Expr, FunctionArg, FunctionArgExpr, FunctionArguments},
    parser::Parser,
};

/// Writes such a call out.
pub(crate) fn write_out(expr: &mut Expr) {
    if let Some(written) = written_out(expr) {
        *expr = written;
    }
}

fn written_out(expr: &Expr) -> Option<Expr> {
    let Expr::Function(call) = expr else { return None };
    let [order] = call.within_group.as_slice() else { return None };
    let FunctionArguments::List(list) = &call.args else { return None };
    let [FunctionArg::Unnamed(FunctionArgExpr::Expr(fraction))] = list.args.as_slice() else { return None };
    // Several fractions at once are not known.
    let is_ours = call.name.to_string().eq_ignore_ascii_case("percentile_disc")
        && call.over.is_none()
        && !matches!(fraction, Expr::Array(_));
    if !is_ours {
        return None;
    }
    let (value, fraction) = (&order.expr, format!("CAST({fraction} AS DOUBLE PRECISION)"));
    let (also, counted) = match &call.filter {
        Some(filter) => (format!(" AND ({filter})"), format!(" FILTER (WHERE {filter})")),
        None => (String::new(), String::new()),
    };
    let sql = format!(
        "CASE WHEN {fraction} BETWEEN 0 AND 1 THEN array_element(\
         array_agg({value} ORDER BY {order}) FILTER (WHERE ({value}) IS NOT NULL{also}), \
         CAST(greatest(ceil({fraction} * count({value}){counted}), 1) AS BIGINT)) END"
    );
    let dialect = TidemarkDialect::of(false, sql.len());
    Parser::new(&dialect).try_with_sql(&sql).ok()?.parse_expr().ok()
}
