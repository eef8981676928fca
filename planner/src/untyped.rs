//! `at > '2026-07-01 12:00'`, `span = '90 minutes'`, `coalesce(day, '2026-01-01')`: text that is written in a query has no type yet, and
//! takes that of what it stands beside, as in PostgreSQL.
//!
//! DataFusion's type coercion would bring times and texts to nanoseconds, which end in the year 2262, compare bytes with the letters
//! of `'\x01'`, make `CASE WHEN c THEN 1 ELSE 'x' END` a text, and refuse the others.

use crate::{
    PlanError, PlanResult, each_expression::each_expression, error::sqlstate, interval_text, words::type_name,
};
use arrow_schema::{DataType, Field, IntervalUnit};
use datafusion::{
    common::{
        DFSchema, ScalarValue,
        config::ConfigOptions,
        tree_node::{Transformed, TreeNode},
    },
    error::Result,
    logical_expr::{
        Between, BinaryExpr, Case, Expr, ExprSchemable, LogicalPlan, Operator, cast,
        expr::{InList, Placeholder},
        lit,
        planner::{ExprPlanner, PlannerResult, RawBinaryExpr},
    },
    optimizer::AnalyzerRule,
    sql::sqlparser::ast::BinaryOperator,
};
use std::sync::Arc;
use tidemark_catalog::vector;

const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);

/// The rule for ordinary queries; comes before type coercion.
#[derive(Debug)]
pub struct UntypedTexts;

impl AnalyzerRule for UntypedTexts {
    fn name(&self) -> &str {
        "untyped_texts"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        typed(plan)
    }
}

/// A plan in which text that is written there has the type of what it stands beside.
pub fn typed(plan: LogicalPlan) -> Result<LogicalPlan> {
    each_expression(plan, |expr, schema| expr.transform_up(|expr| beside(expr, schema)))
}

/// What texts stand beside: that decides which types they take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Numbers are left to type coercion, which knows which columns of a comparison can stay as they are.
    Compared,
    /// The branches of CASE and the arguments of COALESCE, GREATEST and LEAST, which are all of one type.
    Result,
}

fn beside(mut expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let changed = match &mut expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(*op) => {
            type_alike(vec![left, right], Place::Compared, schema)?
        }
        Expr::Between(Between { expr, low, high, .. }) => type_alike(vec![expr, low, high], Place::Compared, schema)?,
        Expr::InList(InList { expr, list, .. }) => {
            let all = std::iter::once(expr.as_mut()).chain(list.iter_mut()).collect();
            type_alike(all, Place::Compared, schema)?
        }
        Expr::Case(Case { expr, when_then_expr, else_expr }) => {
            let (mut compared, mut results) = (vec![], vec![]);
            compared.extend(expr.as_deref_mut());
            for (when, then) in when_then_expr {
                compared.push(when.as_mut());
                results.push(then.as_mut());
            }
            results.extend(else_expr.as_deref_mut());
            let compared = type_alike(compared, Place::Compared, schema)?;
            type_alike(results, Place::Result, schema)? | compared
        }
        Expr::ScalarFunction(call) if matches!(call.name(), "coalesce" | "greatest" | "least") => {
            let changed = type_alike(call.args.iter_mut().collect(), Place::Result, schema)?;
            agree(call.name(), &call.args, schema)?;
            changed
        }
        _ => false,
    };
    Ok(if changed { Transformed::yes(expr) } else { Transformed::no(expr) })
}

fn compares(op: Operator) -> bool {
    use Operator::*;
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

fn is_text(ty: &DataType) -> bool {
    matches!(ty, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// The text that an expression is, if it is written in the query.
fn written(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Literal(ScalarValue::Utf8(Some(text)), _) => Some(text),
        _ => None,
    }
}

/// Reads the texts among `exprs` as values of the type that the others have; says whether there was any.
fn type_alike(exprs: Vec<&mut Expr>, place: Place, schema: &DFSchema) -> Result<bool> {
    if !exprs.iter().any(|expr| written(expr).is_some()) {
        return Ok(false);
    }
    let types = exprs.iter().filter(|expr| written(expr).is_none()).map(|expr| expr.get_type(schema));
    let types: Vec<DataType> = types.flatten().filter(|ty| !ty.is_null()).collect();
    // Times of several types have one in common.
    let time = types.iter().find(|ty| matches!(ty, DataType::Timestamp(..)));
    let Some(wanted) = time.or_else(|| one(&types).filter(|ty| is_read(ty, place))) else { return Ok(false) };
    let mut changed = false;
    for expr in exprs {
        if let Some(text) = written(expr) {
            *expr = read(text, wanted)?;
            changed = true;
        }
    }
    Ok(changed)
}

/// The type that all of them are.
fn one(types: &[DataType]) -> Option<&DataType> {
    let first = types.first()?;
    types.iter().all(|ty| ty == first).then_some(first)
}

/// Whether text that is written beside such a value is read as one here.
fn is_read(ty: &DataType, place: Place) -> bool {
    match ty {
        DataType::Date32 | DataType::Time64(_) | DataType::Interval(_) | DataType::Boolean | DataType::Binary => true,
        DataType::Duration(_) => place == Place::Compared,
        ty => vector::is_vector(ty) || (place == Place::Result && (ty.is_integer() || ty.is_floating())),
    }
}

/// A text as a value of this type.
///
/// # Errors
/// It is none, also where it is never looked at. Of a time that shows when it is: it may need the session's zone.
fn read(text: &str, ty: &DataType) -> PlanResult<Expr> {
    if let Some(dimensions) = vector::dimensions(ty) {
        vector::parse(text, dimensions)?;
        return Ok(cast(lit(text), ty.clone()));
    }
    Ok(match ty {
        DataType::Timestamp(..) => cast(lit(text), ty.clone()),
        DataType::Binary => lit(ScalarValue::Binary(Some(bytes(text)?))),
        // The difference of two timestamps is one, too.
        DataType::Interval(_) | DataType::Duration(_) => {
            let words = interval_text::words(text).unwrap_or_else(|| text.to_string());
            lit(ScalarValue::Utf8(Some(words)).cast_to(&INTERVAL)?)
        }
        ty => lit(ScalarValue::Utf8(Some(text.to_string())).cast_to(ty)?),
    })
}

/// `\x01ff`, or text with `\\` and `\377` in it.
fn bytes(text: &str) -> PlanResult<Vec<u8>> {
    let refused = |sqlstate, message: String| Err(PlanError::new(sqlstate, message));
    if let Some(digits) = text.strip_prefix("\\x") {
        let mut halves = vec![];
        for digit in digits.chars().filter(|c| !c.is_ascii_whitespace()) {
            match digit.to_digit(16) {
                Some(half) => halves.push(half as u8),
                None => {
                    let message = format!("invalid hexadecimal digit: \"{digit}\"");
                    return refused(sqlstate::INVALID_PARAMETER, message);
                }
            }
        }
        if halves.len() % 2 == 1 {
            return refused(sqlstate::INVALID_PARAMETER, "invalid hexadecimal data: odd number of digits".to_string());
        }
        return Ok(halves.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect());
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, behind)) = rest.split_first() {
        let octal = |at: usize, most: u8| behind.get(at).filter(|b| (b'0'..=most).contains(*b)).map(|b| b - b'0');
        rest = match (byte, behind.first()) {
            (b'\\', Some(b'\\')) => {
                out.push(b'\\');
                &behind[1..]
            }
            (b'\\', _) => {
                let (Some(a), Some(b), Some(c)) = (octal(0, b'3'), octal(1, b'7'), octal(2, b'7')) else {
                    return refused(sqlstate::INVALID_TEXT, "invalid input syntax for type bytea".to_string());
                };
                out.push(a << 6 | b << 3 | c);
                &behind[3..]
            }
            _ => {
                out.push(*byte);
                behind
            }
        };
    }
    Ok(out)
}

/// Refuses a text that has a type among values of another: DataFusion would make texts of all. A parameter may be what it is asked for.
fn agree(function: &str, args: &[Expr], schema: &DFSchema) -> PlanResult<()> {
    let args = args.iter().filter(|arg| written(arg).is_none() && !matches!(arg, Expr::Placeholder(_)));
    let types = args.filter_map(|arg| arg.get_type(schema).ok()).filter(|ty| !ty.is_null());
    let types: Vec<DataType> = types.collect();
    let (Some(text), Some(other)) = (types.iter().find(|ty| is_text(ty)), types.iter().find(|ty| !is_text(ty))) else {
        return Ok(());
    };
    let (first, second) = if is_text(&types[0]) { (text, other) } else { (other, text) };
    let function = function.to_uppercase();
    let message = format!("{function} types {} and {} cannot be matched", type_name(first), type_name(second));
    Err(PlanError::new(sqlstate::DATATYPE_MISMATCH, message).hint("cast one of them"))
}

/// What `coalesce`, `greatest` and `least` take these types for, where a text among them is one that is written in the query; `None`: as
/// DataFusion has it.
pub(crate) fn coalesced(types: &[DataType]) -> Option<DataType> {
    let others: Vec<DataType> = types.iter().filter(|ty| !is_text(ty) && !ty.is_null()).cloned().collect();
    if !types.iter().any(is_text) {
        // DataFusion finds no type for a NULL beside bytes.
        return one(&others).filter(|_| others.len() < types.len()).cloned();
    }
    let time = others.iter().find(|ty| matches!(ty, DataType::Timestamp(..)));
    time.or_else(|| one(&others).filter(|ty| is_read(ty, Place::Result))).cloned()
}

/// Operators that have to be mended before DataFusion looks at their types: it refuses an interval beside a text, and compares a number
/// with a date, which PostgreSQL refuses.
#[derive(Debug)]
pub struct UntypedOperands;

impl ExprPlanner for UntypedOperands {
    fn plan_binary_op(&self, mut expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let (Ok(left), Ok(right)) = (expr.left.get_type(schema), expr.right.get_type(schema)) else {
            return Ok(PlannerResult::Original(expr));
        };
        let is_date = |ty: &DataType| matches!(ty, DataType::Date32);
        let with_number = (left.is_numeric() && is_date(&right)) || (is_date(&left) && right.is_numeric());
        if with_number && is_comparison(&expr.op) {
            let message = format!("operator does not exist: {} {} {}", type_name(&left), expr.op, type_name(&right));
            let hint =
                "No operator matches the given name and argument types. You might need to add explicit type casts.";
            return Err(PlanError::new(sqlstate::UNDEFINED_FUNCTION, message).hint(hint).into());
        }
        if expr.op == BinaryOperator::StringConcat {
            expr.left = joined(expr.left, &right);
            expr.right = joined(expr.right, &left);
        }
        if let Some(mended) = mended(&expr.right, &expr.op, &left)? {
            expr.right = mended;
        } else if let Some(mended) = mended(&expr.left, &expr.op, &right)? {
            expr.left = mended;
        }
        Ok(PlannerResult::Original(expr))
    }
}

/// An operand that is text as it is written, as what it is beside a value of this type.
fn mended(expr: &Expr, op: &BinaryOperator, beside: &DataType) -> PlanResult<Option<Expr>> {
    match (written(expr), operand(op, beside)) {
        (Some(text), Some(wanted)) => read(text, &wanted).map(Some),
        _ => Ok(None),
    }
}

/// A parameter beside `||`, if nobody has said its type: a text, unless arrays or bytes are joined.
fn joined(expr: Expr, beside: &DataType) -> Expr {
    let is_joined = beside.is_null() || beside.is_string() || beside.is_numeric() || beside.is_temporal();
    match expr {
        Expr::Placeholder(Placeholder { id, field: None }) if is_joined || *beside == DataType::Boolean => {
            let field = Some(Arc::new(Field::new("", DataType::Utf8, true)));
            Expr::Placeholder(Placeholder { id, field })
        }
        expr => expr,
    }
}

fn is_comparison(op: &BinaryOperator) -> bool {
    use BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq)
}

/// What text that is written on the other side of the operator is read as; `None`: it is left to DataFusion.
fn operand(op: &BinaryOperator, beside: &DataType) -> Option<DataType> {
    use DataType::{Binary, Boolean, Date32, Duration, Float64, Interval, Time64, Timestamp};
    match (op, beside) {
        (op, Interval(_) | Duration(_) | Binary | Boolean) if is_comparison(op) => Some(beside.clone()),
        (op, beside) if is_comparison(op) && vector::is_vector(beside) => Some(beside.clone()),
        // PostgreSQL takes it for the same as the other side where there is such an operator.
        (BinaryOperator::Plus, Timestamp(..) | Interval(_) | Duration(_) | Time64(_)) => Some(INTERVAL),
        (BinaryOperator::Minus, Timestamp(..) | Date32 | Interval(_) | Duration(_)) => Some(beside.clone()),
        (BinaryOperator::StringConcat, Binary) => Some(Binary),
        (BinaryOperator::Multiply, Interval(_) | Duration(_)) => Some(Float64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_as_postgresql_reads_them() {
        for (text, expected) in [
            ("\\x01fF", Ok(vec![1, 255])),
            ("\\x", Ok(vec![])),
            ("\\x 01 02", Ok(vec![1, 2])),
            ("a\\\\b\\377", Ok(vec![b'a', b'\\', b'b', 255])),
            ("é", Ok(vec![0xc3, 0xa9])),
            ("", Ok(vec![])),
            ("\\x1", Err("22023")),
            ("\\x0g", Err("22023")),
            ("\\400", Err("22P02")),
            ("a\\", Err("22P02")),
        ] {
            assert_eq!(bytes(text).map_err(|error| error.sqlstate), expected, "{text}");
        }
    }
}
