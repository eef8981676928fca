//! `VALUES (date '2026-01-01'), ('2026-01-02')`: a text has the type that another row says for its column. DataFusion wants every row
//! to say it.

use datafusion::sql::sqlparser::ast::{
    CastKind, DataType, Expr, Query, SetExpr, Value, ValueWithSpan, Values, VisitMut, VisitorMut,
};
use std::ops::ControlFlow;

/// Casts such texts.
pub fn type_texts(query: &mut Query) {
    struct Typing;
    impl VisitorMut for Typing {
        type Break = ();

        fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
            each(&mut query.body);
            ControlFlow::Continue(())
        }
    }
    let _ = VisitMut::visit(query, &mut Typing);
}

/// The lists of a query's body; those of queries in it are visited by themselves.
fn each(body: &mut SetExpr) {
    match body {
        SetExpr::Values(values) => type_columns(values),
        SetExpr::SetOperation { left, right, .. } => {
            each(left);
            each(right);
        }
        _ => {}
    }
}

fn type_columns(values: &mut Values) {
    let columns = values.rows.first().map_or(0, |row| row.content.len());
    for column in 0..columns {
        let mut said = values.rows.iter().filter_map(|row| said_type(row.content.get(column)?));
        let Some(first) = said.next() else { continue };
        if said.any(|other| other != first) {
            continue;
        }
        for row in &mut values.rows {
            if let Some(expr) = row.content.get_mut(column).filter(|expr| is_text(expr)) {
                let text = std::mem::replace(expr, Expr::value(Value::Null));
                *expr = Expr::Cast {
                    kind: CastKind::DoubleColon,
                    expr: Box::new(text),
                    data_type: first.clone(),
                    array: false,
                    format: None,
                };
            }
        }
    }
}

/// The type that an expression says of itself.
fn said_type(expr: &Expr) -> Option<DataType> {
    match expr {
        Expr::Nested(inner) => said_type(inner),
        Expr::Cast { data_type, array: false, .. } => Some(data_type.clone()),
        Expr::TypedString(typed) => Some(typed.data_type.clone()),
        Expr::Interval(_) => Some(DataType::Interval { fields: None, precision: None }),
        _ => None,
    }
}

fn is_text(expr: &Expr) -> bool {
    matches!(expr, Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(_), .. }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Statement, parse::parse};

    #[test]
    fn a_text_has_the_type_that_another_row_says() {
        for (sql, expected) in [
            ("VALUES (DATE '2026-01-01'), ('2026-01-02')", "VALUES (DATE '2026-01-01'), ('2026-01-02'::DATE)"),
            (
                "SELECT 1 FROM (VALUES ('a', '1'), ('b', 2::SMALLINT)) AS t",
                "SELECT 1 FROM (VALUES ('a', '1'::SMALLINT), ('b', 2::SMALLINT)) AS t",
            ),
            ("VALUES ('1 day'), (INTERVAL '1 hour')", "VALUES ('1 day'::INTERVAL), (INTERVAL '1 hour')"),
            ("VALUES ('a'), (1::BIGINT), (DATE '2026-01-01')", "VALUES ('a'), (1::BIGINT), (DATE '2026-01-01')"),
            ("VALUES ('a'), ('b')", "VALUES ('a'), ('b')"),
        ] {
            let parsed = parse(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
            let Statement::Query(mut query) = parsed[0].statement.clone() else { panic!("{sql} is no query") };
            type_texts(&mut query);
            assert_eq!(query.to_string(), expected);
        }
    }
}
