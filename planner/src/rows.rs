//! Comparisons of rows, `(a, b) = (c, d)`, written out column by column, as SQL defines them. DataFusion compares structs, for
//! which a NULL inside is a value like any other.

use crate::{PlanError, PlanResult};
use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, Query, UnaryOperator, visit_expressions_mut};
use std::ops::ControlFlow;

/// Columns of a row that is compared: the tree of `<` is twice as deep.
const COLUMNS_MAX: usize = 100;

/// Writes the comparisons of the query out, where both sides are rows.
///
/// # Errors
/// 42601 for rows of different lengths, 54011 for very long ones.
pub fn compare_by_column(query: &mut Query) -> PlanResult<()> {
    let done = visit_expressions_mut(query, |expr| match written_out(expr) {
        Ok(None) => ControlFlow::Continue(()),
        Ok(Some(written)) => {
            *expr = Expr::Nested(Box::new(written));
            ControlFlow::Continue(())
        }
        Err(error) => ControlFlow::Break(error),
    });
    match done {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

fn written_out(expr: &Expr) -> PlanResult<Option<Expr>> {
    use BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
    match expr {
        Expr::BinaryOp { left, op: op @ (Eq | NotEq | Lt | LtEq | Gt | GtEq), right } => {
            let (Some(left), Some(right)) = (row(left), row(right)) else { return Ok(None) };
            check(left, right)?;
            Ok(match op {
                Eq => equal(left, right),
                NotEq => joined(&BinaryOperator::Or, each(left, right, |l, r| compared(l, NotEq, r))),
                Lt | LtEq => ordered(left, right, &Lt, op),
                _ => ordered(left, right, &Gt, op),
            })
        }
        Expr::IsDistinctFrom(left, right) => {
            let (Some(left), Some(right)) = (row(left), row(right)) else { return Ok(None) };
            check(left, right)?;
            let distinct = |l: &Expr, r: &Expr| Expr::IsDistinctFrom(operand(l), operand(r));
            Ok(joined(&BinaryOperator::Or, each(left, right, distinct)))
        }
        Expr::IsNotDistinctFrom(left, right) => {
            let (Some(left), Some(right)) = (row(left), row(right)) else { return Ok(None) };
            check(left, right)?;
            let same = |l: &Expr, r: &Expr| Expr::IsNotDistinctFrom(operand(l), operand(r));
            Ok(joined(&BinaryOperator::And, each(left, right, same)))
        }
        Expr::InList { expr, list, negated } => {
            let Some(left) = row(expr) else { return Ok(None) };
            let Some(rows) = list.iter().map(row).collect::<Option<Vec<_>>>() else { return Ok(None) };
            let mut one_of = vec![];
            for right in rows {
                check(left, right)?;
                one_of.extend(equal(left, right));
            }
            let found = joined(&BinaryOperator::Or, one_of);
            Ok(match negated {
                false => found,
                true => found.map(|found| Expr::UnaryOp {
                    op: UnaryOperator::Not,
                    expr: Box::new(Expr::Nested(Box::new(found))),
                }),
            })
        }
        _ => Ok(None),
    }
}

fn row(expr: &Expr) -> Option<&[Expr]> {
    match expr {
        Expr::Tuple(columns) => Some(columns),
        Expr::Nested(inner) => row(inner),
        _ => None,
    }
}

fn check(left: &[Expr], right: &[Expr]) -> PlanResult<()> {
    if left.len() != right.len() {
        return Err(PlanError::syntax("unequal number of entries in row expressions"));
    }
    if left.len() > COLUMNS_MAX {
        return Err(PlanError::new("54011", format!("rows of more than {COLUMNS_MAX} columns cannot be compared")));
    }
    Ok(())
}

fn each(left: &[Expr], right: &[Expr], compare: impl Fn(&Expr, &Expr) -> Expr) -> Vec<Expr> {
    left.iter().zip(right).map(|(left, right)| compare(left, right)).collect()
}

fn equal(left: &[Expr], right: &[Expr]) -> Option<Expr> {
    joined(&BinaryOperator::And, each(left, right, |l, r| compared(l, BinaryOperator::Eq, r)))
}

/// The first columns that differ decide; where none does, `last` says whether the last ones may be equal.
fn ordered(left: &[Expr], right: &[Expr], strict: &BinaryOperator, last: &BinaryOperator) -> Option<Expr> {
    let mut columns = left.iter().zip(right).rev();
    let (l, r) = columns.next()?;
    let mut written = compared(l, last.clone(), r);
    for (l, r) in columns {
        let rest = Expr::Nested(Box::new(written));
        let tied = binary(compared(l, BinaryOperator::Eq, r), BinaryOperator::And, rest);
        written = binary(compared(l, strict.clone(), r), BinaryOperator::Or, tied);
    }
    Some(written)
}

/// As a tree that is as flat as can be: a list may have thousands of rows.
fn joined(op: &BinaryOperator, mut exprs: Vec<Expr>) -> Option<Expr> {
    while exprs.len() > 1 {
        let mut rest = exprs.into_iter();
        let mut pairs = vec![];
        while let Some(left) = rest.next() {
            pairs.push(match rest.next() {
                Some(right) => binary(left, op.clone(), right),
                None => left,
            });
        }
        exprs = pairs;
    }
    exprs.pop()
}

fn compared(left: &Expr, op: BinaryOperator, right: &Expr) -> Expr {
    Expr::BinaryOp { left: operand(left), op, right: operand(right) }
}

fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) }
}

/// A column of a row, such that it stays one expression also in text.
fn operand(expr: &Expr) -> Box<Expr> {
    let expr = Box::new(expr.clone());
    match *expr {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::Value(_) | Expr::Nested(_) => expr,
        _ => Box::new(Expr::Nested(expr)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Statement, parse::parse};

    #[test]
    fn rows_are_compared_column_by_column() {
        for (sql, expected) in [
            ("(a, b) = (1, c + 1)", "(a = 1 AND b = (c + 1))"),
            ("(a, b) <> (1, 2)", "(a <> 1 OR b <> 2)"),
            ("(a, b, c) <= (1, 2, 3)", "(a < 1 OR a = 1 AND (b < 2 OR b = 2 AND (c <= 3)))"),
            ("(a, b) > (1, 2)", "(a > 1 OR a = 1 AND (b > 2))"),
            ("(a, b) IN ((1, 2), (3, 4), (5, 6))", "(a = 1 AND b = 2 OR a = 3 AND b = 4 OR a = 5 AND b = 6)"),
            ("(a, b) NOT IN ((1, 2))", "(NOT (a = 1 AND b = 2))"),
            ("(a, b) IS DISTINCT FROM (1, 2)", "(a IS DISTINCT FROM 1 OR b IS DISTINCT FROM 2)"),
            ("(a, b) = (SELECT 1, 2)", "(a, b) = (SELECT 1, 2)"),
            ("(a) = (1)", "(a) = (1)"),
        ] {
            let parsed = parse(&format!("SELECT {sql} FROM t")).unwrap_or_else(|error| panic!("{sql}: {error}"));
            let Statement::Query(mut query) = parsed[0].statement.clone() else { panic!("{sql} is in no query") };
            compare_by_column(&mut query).unwrap_or_else(|error| panic!("{sql}: {error}"));
            assert_eq!(query.to_string(), format!("SELECT {expected} FROM t"));
        }
    }
}
