//! The condition of an `ASOF JOIN`: equalities, one inequality, perhaps a tolerance, and nothing else.
//!
//! Anything else in `ON` could mean "filter before matching" or "filter the match", and people differ on which: a
//! subquery says the first, `WHERE` the second.

use super::node::{AsofOp, Tolerance};
use crate::{PlanError, PlanResult, error::sqlstate};
use arrow_schema::{DataType, TimeUnit};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::expr::{BinaryExpr, Cast};
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;
use datafusion::logical_expr::{Expr, Operator};

/// The parts of a condition as the user wrote them: nothing cast yet.
#[derive(Debug)]
pub(super) struct Condition {
    /// Left and right.
    pub keys: Vec<(Expr, Expr)>,
    pub op: AsofOp,
    pub left_time: Expr,
    pub right_time: Expr,
    pub tolerance: Option<(ScalarValue, bool)>,
}

const HINT: &str = "filter before matching in a subquery on the right, or after matching in WHERE";

/// Sorts the conjuncts of a condition.
pub(super) fn split(conjuncts: Vec<Expr>, left: &DFSchema, right: &DFSchema) -> PlanResult<Condition> {
    let mut keys = vec![];
    let mut times: Option<(Expr, AsofOp, Expr)> = None;
    let mut distance: Option<(Expr, Expr, ScalarValue, bool)> = None;
    for conjunct in conjuncts {
        match classify(conjunct, left, right)? {
            Part::Key(l, r) => keys.push((l, r)),
            Part::Time(l, op, r) => {
                if let Some((l0, op0, r0)) = &times {
                    return Err(PlanError::unsupported("an ASOF JOIN takes one inequality")
                        .detail(format!("found {l0} {op0} {r0} and {l} {op} {r}"))
                        .hint(format!("write a tolerance as {l0} - {r0} <= INTERVAL '1 day'; {HINT}")));
                }
                times = Some((l, op, r));
            }
            Part::Distance(a, b, span, strict) => {
                if distance.is_some() {
                    return Err(PlanError::unsupported("an ASOF JOIN takes one tolerance"));
                }
                distance = Some((a, b, span, strict));
            }
        }
    }
    let Some((left_time, op, right_time)) = times else {
        return Err(PlanError::syntax("an ASOF JOIN needs an inequality between the times of its two sides")
            .hint("add one to ON, such as l.ts >= r.ts, or end USING with the time column"));
    };
    let tolerance = match distance {
        None => None,
        Some((later, earlier, span, strict)) => {
            let expected = if op.is_backward() { (&left_time, &right_time) } else { (&right_time, &left_time) };
            if expected != (&later, &earlier) {
                let (later, earlier) = expected;
                return Err(PlanError::unsupported(
                    "the tolerance of an ASOF JOIN is not between the times it compares",
                )
                .hint(format!("write it as {later} - {earlier} <= INTERVAL '1 day'")));
            }
            Some((span, strict))
        }
    };
    Ok(Condition { keys, op, left_time, right_time, tolerance })
}

enum Part {
    Key(Expr, Expr),
    Time(Expr, AsofOp, Expr),
    /// The first minus the second is at most the constant (`true`: less than it).
    Distance(Expr, Expr, ScalarValue, bool),
}

fn classify(conjunct: Expr, left: &DFSchema, right: &DFSchema) -> PlanResult<Part> {
    let other = || {
        PlanError::unsupported(format!("{conjunct} is not supported in the condition of an ASOF JOIN"))
            .detail("it takes equalities between the two sides, one inequality between their times, and a tolerance")
            .hint(HINT)
    };
    let Expr::BinaryExpr(BinaryExpr { left: a, op, right: b }) = &conjunct else { return Err(other()) };
    if !is_plain(&conjunct) {
        return Err(other());
    }
    match (side(a, left, right), side(b, left, right)) {
        (Side::Left, Side::Right) => sides(a, *op, b).ok_or_else(other),
        (Side::Right, Side::Left) => op.swap().and_then(|op| sides(b, op, a)).ok_or_else(other),
        (Side::Both, Side::Neither) => distance(a, *op, b).ok_or_else(other),
        (Side::Neither, Side::Both) => op.swap().and_then(|op| distance(b, op, a)).ok_or_else(other),
        _ => Err(other()),
    }
}

fn sides(left: &Expr, op: Operator, right: &Expr) -> Option<Part> {
    let (l, r) = (left.clone(), right.clone());
    Some(match op {
        Operator::Eq => Part::Key(l, r),
        Operator::GtEq => Part::Time(l, AsofOp::GtEq, r),
        Operator::Gt => Part::Time(l, AsofOp::Gt, r),
        Operator::LtEq => Part::Time(l, AsofOp::LtEq, r),
        Operator::Lt => Part::Time(l, AsofOp::Lt, r),
        _ => return None,
    })
}

fn distance(difference: &Expr, op: Operator, span: &Expr) -> Option<Part> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Minus, right }) = difference else { return None };
    let strict = match op {
        Operator::LtEq => false,
        Operator::Lt => true,
        _ => return None,
    };
    Some(Part::Distance(left.as_ref().clone(), right.as_ref().clone(), constant(span)?, strict))
}

/// A literal, or a cast of one.
fn constant(expr: &Expr) -> Option<ScalarValue> {
    match expr {
        Expr::Literal(value, _) => Some(value.clone()),
        Expr::Cast(Cast { expr, field }) => constant(expr)?.cast_to(field.data_type()).ok(),
        _ => None,
    }
}

#[derive(PartialEq)]
enum Side {
    Left,
    Right,
    Both,
    Neither,
}

fn side(expr: &Expr, left: &DFSchema, right: &DFSchema) -> Side {
    let columns = expr.column_refs();
    let on_left = columns.iter().any(|c| left.has_column(c));
    let on_right = columns.iter().any(|c| right.has_column(c));
    match (on_left, on_right) {
        (true, false) => Side::Left,
        (false, true) => Side::Right,
        (true, true) => Side::Both,
        (false, false) => Side::Neither,
    }
}

/// No subquery, no column of an outer query, nothing volatile.
pub(super) fn is_plain(expr: &Expr) -> bool {
    use datafusion::common::tree_node::TreeNode;
    let subquery = expr.exists(|e| {
        Ok(matches!(e, Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_)))
    });
    !expr.contains_outer() && !expr.is_volatile() && subquery.is_ok_and(|found| !found)
}

/// The type in which two times are compared: microseconds, or whole numbers.
pub(super) fn common_time(left: (&Expr, &DataType), right: (&Expr, &DataType)) -> PlanResult<DataType> {
    use DataType::{Date32, Date64, Timestamp};
    match (left.1, right.1) {
        (Timestamp(_, Some(zone)), Timestamp(_, Some(_))) => Ok(Timestamp(TimeUnit::Microsecond, Some(zone.clone()))),
        (Timestamp(_, None) | Date32 | Date64, Timestamp(_, None) | Date32 | Date64) => {
            Ok(Timestamp(TimeUnit::Microsecond, None))
        }
        (l, r) if is_small_integer(l) && is_small_integer(r) => Ok(DataType::Int64),
        (l, r) => {
            check_zones(left, right)?;
            let (wrong, ty) = if is_time(l) { (right.0, r) } else { (left.0, l) };
            Err(PlanError::new(
                sqlstate::DATATYPE_MISMATCH,
                format!("the times of an ASOF JOIN must be timestamps, dates or integers of one kind, {wrong} is {ty}"),
            )
            .hint("cast one side"))
        }
    }
}

/// The type in which two keys are compared.
pub(super) fn common_key(left: (&Expr, &DataType), right: (&Expr, &DataType)) -> PlanResult<DataType> {
    check_zones(left, right)?;
    let (l, r) = (left.1, right.1);
    if matches!((l, r), (DataType::Timestamp(..), DataType::Timestamp(..))) {
        return common_time(left, right);
    }
    let common = if l.is_string() == r.is_string() || l.is_null() || r.is_null() || is_dictionary(l) || is_dictionary(r)
    {
        comparison_coercion(l, r).filter(|ty| !ty.is_nested())
    } else {
        None
    };
    common.ok_or_else(|| {
        let message = format!("ASOF JOIN cannot compare the keys {} ({l}) and {} ({r})", left.0, right.0);
        PlanError::new(sqlstate::DATATYPE_MISMATCH, message).hint("cast one side")
    })
}

/// Which instant a timestamp without zone means is the session's business, and must not be guessed here.
fn check_zones(left: (&Expr, &DataType), right: (&Expr, &DataType)) -> PlanResult<()> {
    use DataType::{Date32, Date64, Timestamp};
    let (zoned, bare, kind) = match (left, right) {
        ((l, Timestamp(_, Some(_))), (r, Timestamp(_, None))) => (l, r, "timestamp"),
        ((l, Timestamp(_, None)), (r, Timestamp(_, Some(_)))) => (r, l, "timestamp"),
        ((l, Timestamp(_, Some(_))), (r, Date32 | Date64)) => (l, r, "date"),
        ((l, Date32 | Date64), (r, Timestamp(_, Some(_)))) => (r, l, "date"),
        _ => return Ok(()),
    };
    let message = format!("ASOF JOIN cannot compare timestamptz {zoned} with {kind} {bare}");
    Err(PlanError::new(sqlstate::DATATYPE_MISMATCH, message)
        .hint(format!("cast: {bare} AT TIME ZONE 'UTC', or {bare}::timestamptz for the session's time zone")))
}

fn is_dictionary(ty: &DataType) -> bool {
    matches!(ty, DataType::Dictionary(..))
}

fn is_time(ty: &DataType) -> bool {
    matches!(ty, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64) || is_small_integer(ty)
}

/// Every integer that a `bigint` holds.
fn is_small_integer(ty: &DataType) -> bool {
    ty.is_integer() && *ty != DataType::UInt64
}

/// A tolerance in the unit of the times it is between.
pub(super) fn tolerance(span: &ScalarValue, strict: bool, time: &DataType) -> PlanResult<Tolerance> {
    let span = match time {
        DataType::Int64 => match span.cast_to(&DataType::Int64) {
            Ok(ScalarValue::Int64(Some(units))) if span.data_type().is_integer() => Some((units, false)),
            _ => None,
        },
        _ => microseconds(span)?,
    };
    let Some((span, more)) = span else {
        let expected = if *time == DataType::Int64 { "an integer" } else { "an interval" };
        return Err(PlanError::new(
            sqlstate::DATATYPE_MISMATCH,
            format!("the tolerance of this ASOF JOIN must be {expected}"),
        ));
    };
    // Distances are whole microseconds: below 1.5 µs is below 2 µs, up to 1.5 µs is up to 1 µs.
    Ok(Tolerance { span: if strict && more { span.saturating_add(1) } else { span }, strict })
}

/// Whole microseconds of an interval, and whether there is a fraction of one besides; `None` if it is no interval.
fn microseconds(span: &ScalarValue) -> PlanResult<Option<(i64, bool)>> {
    const DAY_US: i128 = 86_400_000_000;
    let (months, nanos) = match span {
        ScalarValue::IntervalMonthDayNano(Some(i)) => {
            (i.months, i128::from(i.days) * DAY_US * 1000 + i128::from(i.nanoseconds))
        }
        ScalarValue::IntervalDayTime(Some(i)) => {
            (0, i128::from(i.days) * DAY_US * 1000 + i128::from(i.milliseconds) * 1_000_000)
        }
        ScalarValue::IntervalYearMonth(Some(months)) => (*months, 0),
        ScalarValue::DurationSecond(Some(d)) => (0, i128::from(*d) * 1_000_000_000),
        ScalarValue::DurationMillisecond(Some(d)) => (0, i128::from(*d) * 1_000_000),
        ScalarValue::DurationMicrosecond(Some(d)) => (0, i128::from(*d) * 1_000),
        ScalarValue::DurationNanosecond(Some(d)) => (0, i128::from(*d)),
        _ => return Ok(None),
    };
    if months != 0 {
        return Err(PlanError::unsupported("the tolerance of an ASOF JOIN cannot have months or years")
            .hint("their length varies: write it in days"));
    }
    let micros = i64::try_from(nanos.div_euclid(1000)).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX });
    Ok(Some((micros, nanos.rem_euclid(1000) != 0)))
}
