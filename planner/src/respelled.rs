//! What PostgreSQL spells in a way that DataFusion's planner does not know, or takes for something else: respelled
//! before a statement is bound.

use crate::{
    PlanResult, exact, existing, functions, interval_text, json_text, like, quantified, recursive, rows, similar,
    value_lists, zone,
};
use datafusion::sql::sqlparser::ast::{
    self, AccessExpr, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident,
    ObjectName, Subscript, Value, VisitMut, visit_expressions_mut,
};
use std::ops::ControlFlow;

/// Writes a query out in what DataFusion's planner has. `defining`: a view that is kept, in which what stands for rows of other
/// queries would be refused in words of what it was written out to.
pub fn write_out(query: &mut ast::Query, defining: bool) -> PlanResult<()> {
    like::escape_by_backslash(query)?;
    similar::by_regex(query)?;
    rows::compare_by_column(query)?;
    quantified::write_out(query)?;
    recursive::name_columns(query);
    value_lists::type_texts(query);
    if !defining {
        existing::write_out(query);
        functions::row_bytes::count_rows(query);
    }
    respell(query);
    Ok(())
}

/// Respells the expressions of a query, or of an expression. A second time it changes nothing.
pub fn respell(ast: &mut impl VisitMut) {
    let _ = visit_expressions_mut(ast, |expr| {
        exact::keep_cast_number(expr);
        zone::call_timezone(expr);
        interval_text::spell_out(expr);
        functions::by_pattern::call_by_pattern(expr);
        functions::percentile_disc::write_out(expr);
        json_text::call_json(expr);
        functions::uuid::call_uuid(expr);
        functions::spelled::write_out(expr);
        rate_of_all(expr);
        whole_slice(expr);
        ControlFlow::<()>::Continue(())
    });
}

/// Reads `rate(*)` as `rate(1)`; DataFusion does so for `count(*)` alone.
fn rate_of_all(expr: &mut Expr) {
    if let Expr::Function(Function { name, args: FunctionArguments::List(list), .. }) = expr
        && let [FunctionArg::Unnamed(argument @ FunctionArgExpr::Wildcard)] = list.args.as_mut_slice()
        && name.to_string().eq_ignore_ascii_case("rate")
    {
        *argument = FunctionArgExpr::Expr(Expr::value(Value::Number("1".into(), false)));
    }
}

/// Reads `a[:2]` as `a[1:2]`, and `a[2:]` as one to the last place that there can be.
fn whole_slice(expr: &mut Expr) {
    let Expr::CompoundFieldAccess { access_chain, .. } = expr else { return };
    for access in access_chain {
        if let AccessExpr::Subscript(Subscript::Slice { lower_bound, upper_bound, .. }) = access {
            let number = |number: i32| Expr::value(Value::Number(number.to_string(), false));
            lower_bound.get_or_insert_with(|| number(1));
            upper_bound.get_or_insert_with(|| number(i32::MAX));
        }
    }
}

/// A function's call.
pub(crate) fn call(name: &str, arguments: impl IntoIterator<Item = Expr>) -> Expr {
    let unnamed = |argument| FunctionArg::Unnamed(FunctionArgExpr::Expr(argument));
    let args = arguments.into_iter().map(unnamed).collect();
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: vec![] }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Statement, parse::parse};

    #[test]
    fn what_postgresql_spells_is_respelled_and_nothing_else() {
        for (sql, expected) in [
            ("a AT TIME ZONE 'UTC' AT TIME ZONE z", "timezone(z, timezone('UTC', a))"),
            ("interval '1 day 02:00'", "INTERVAL '1 day 2 hours 0 minutes 0 seconds'"),
            ("'90'::interval", "'90 seconds'::INTERVAL"),
            ("INTERVAL '5' DAY", "INTERVAL '5' DAY"),
            ("sum(a) OVER (ORDER BY b ROWS '2' PRECEDING)", "sum(a) OVER (ORDER BY b ROWS INTERVAL '2' PRECEDING)"),
            ("to_date(a, 'YYYY')", "CAST(time_by_pattern(a, 'YYYY') AS DATE)"),
            ("to_timestamp(a, 'DD MM')", "CAST(time_by_pattern(a, 'DD MM') AS TIMESTAMPTZ)"),
            ("to_timestamp(a, '%d %m')", "to_timestamp(a, '%d %m')"),
            ("to_timestamp(a)", "to_timestamp(a)"),
            ("a::json -> 'b'", "json(a) -> 'b'"),
            ("a = b::uuid", "a = uuid_in(b)"),
            ("a = ANY(b::uuid[])", "a = ANY(uuids_in(CAST(b AS TEXT[])))"),
            (
                "percentile_disc(0.9) WITHIN GROUP (ORDER BY a DESC) FILTER (WHERE b)",
                "CASE WHEN CAST(0.9 AS DOUBLE PRECISION) BETWEEN 0 AND 1 THEN array_element(array_agg(a ORDER BY a DESC) \
                 FILTER (WHERE (a) IS NOT NULL AND (b)), CAST(greatest(CEIL(CAST(0.9 AS DOUBLE PRECISION) * count(a) \
                 FILTER (WHERE b)), 1) AS BIGINT)) END",
            ),
            ("percentile_disc(a, 0.9) OVER w", "percentile_disc(a, 0.9) OVER w"),
            ("rate(*) OVER w", "rate(1) OVER w"),
            ("count(*) OVER w", "count(*) OVER w"),
            ("a[:2]", "a[1:2]"),
            ("a[2:]", "a[2:2147483647]"),
        ] {
            let parsed = parse(&format!("SELECT {sql} FROM t")).unwrap_or_else(|error| panic!("{sql}: {error}"));
            let Statement::Query(mut query) = parsed[0].statement.clone() else { panic!("{sql} is in no query") };
            respell(&mut query);
            assert_eq!(query.to_string(), format!("SELECT {expected} FROM t"));
            let once = query.clone();
            respell(&mut query);
            assert_eq!(query, once, "a second time changes nothing");
        }
    }
}
