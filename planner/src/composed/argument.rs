//! An argument of a user's aggregate, as its parameter's type. PostgreSQL converts it where nothing can be lost, and else says
//! that there is no such function.
//!
//! What type an argument has is known where it is bound: until then the conversion is an operator that no statement can contain.

use crate::{
    PlanError, PlanResult,
    error::sqlstate,
    parse::written_type,
    words::{full_type_name, type_name},
};
use arrow_schema::DataType;
use datafusion::{
    common::{DFSchema, Result},
    logical_expr::{
        self, ExprSchemable,
        planner::{ExprPlanner, PlannerResult, RawBinaryExpr},
    },
    sql::sqlparser::ast::{self, BinaryOperator},
};
use tidemark_catalog::{Aggregate, Object, Parameter, SqlType};

/// A statement cannot contain it.
const MARK: char = '\0';

/// `argument` with its conversion.
pub(super) fn coerced(
    argument: &ast::Expr,
    parameter: &Parameter,
    object: &Object,
    aggregate: &Aggregate,
) -> PlanResult<ast::Expr> {
    let cast = |expr: ast::Expr| {
        Ok(ast::Expr::Cast {
            kind: ast::CastKind::Cast,
            expr: Box::new(expr),
            data_type: written_type(&parameter.ty)?,
            array: false,
            format: None,
        })
    };
    // What has no type of its own takes the parameter's.
    if let ast::Expr::Value(value) = argument
        && !matches!(value.value, ast::Value::Boolean(_) | ast::Value::Number(..))
    {
        return cast(argument.clone());
    }
    let is_inexact = matches!(parameter.ty, SqlType::Float4 | SqlType::Float8 | SqlType::Numeric { .. });
    if is_inexact && is_number(argument) {
        return cast(argument.clone());
    }
    let what = [&parameter.name, &object.name, &format!("{}({})", object.name, aggregate.arguments())];
    Ok(ast::Expr::BinaryOp {
        left: Box::new(ast::Expr::Nested(Box::new(argument.clone()))),
        op: BinaryOperator::Custom(format!("{MARK}{}", what.map(String::as_str).join("\0"))),
        right: Box::new(cast(ast::Expr::value(ast::Value::Null))?),
    })
}

fn is_number(expr: &ast::Expr) -> bool {
    match expr {
        ast::Expr::Value(value) => matches!(value.value, ast::Value::Number(..)),
        ast::Expr::UnaryOp { op: ast::UnaryOperator::Minus, expr } => is_number(expr),
        _ => false,
    }
}

/// Reads the operator as a cast, where it is one that PostgreSQL does by itself.
#[derive(Debug)]
pub struct Arguments;

impl ExprPlanner for Arguments {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let BinaryOperator::Custom(what) = &expr.op else { return Ok(PlannerResult::Original(expr)) };
        let Some(what) = what.strip_prefix(MARK) else { return Ok(PlannerResult::Original(expr)) };
        let target = expr.right.get_type(schema)?;
        // Not known of a parameter of the statement, which is of any type.
        let source = expr.left.get_type(schema).unwrap_or(DataType::Null);
        if !is_implicit(&source, &target) {
            let mut words = what.split(MARK);
            let mut word = || words.next().unwrap_or_default();
            let (parameter, name, whole) = (word(), word(), word());
            let message = format!(
                "parameter \"{parameter}\" of aggregate \"{name}\" is {}, and the argument {}",
                full_type_name(&target),
                type_name(&source)
            );
            let error = PlanError::new(sqlstate::UNDEFINED_FUNCTION, message);
            return Err(error.hint(format!("cast the argument: it is {whole}")).into());
        }
        Ok(PlannerResult::Planned(match source == target {
            true => expr.left,
            false => logical_expr::cast(expr.left, target),
        }))
    }
}

/// PostgreSQL's implicit casts.
fn is_implicit(source: &DataType, target: &DataType) -> bool {
    if source.is_null() {
        return true;
    }
    match (SqlType::from_arrow(source), SqlType::from_arrow(target)) {
        (Some(source), Some(target)) => widens(&source, &target),
        _ => false,
    }
}

fn widens(source: &SqlType, target: &SqlType) -> bool {
    use SqlType::*;
    let place = |ty: &SqlType| match ty {
        Int2 => Some(0),
        Int4 => Some(1),
        Int8 => Some(2),
        Numeric { .. } => Some(3),
        Float4 => Some(4),
        Float8 => Some(5),
        _ => None,
    };
    match (source, target) {
        (Array(source), Array(target)) => widens(source, target),
        (Date, Timestamp | TimestampTz) | (Timestamp, TimestampTz) | (Time, Interval) => true,
        _ => match (place(source), place(target)) {
            (Some(source), Some(target)) => source <= target,
            _ => source == target,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_is_converted_where_postgresql_does_so_by_itself() {
        use SqlType::*;
        let numeric = |precision, scale| Numeric { precision, scale };
        for (source, target) in [(Int2, Int8), (Int8, Float4), (numeric(9, 4), numeric(4, 2)), (Date, TimestampTz)] {
            assert!(widens(&source, &target), "{source} to {target}");
        }
        for (source, target) in [(Int8, Int4), (Float8, Int8), (Float8, numeric(9, 2)), (Text, Int8), (Int8, Text)] {
            assert!(!widens(&source, &target), "{source} to {target}");
        }
        assert!(widens(&Array(Box::new(Int4)), &Array(Box::new(Float8))));
        assert!(is_implicit(&DataType::Null, &DataType::Int64));
    }
}
