//! A bound expression as PostgreSQL text with the same value.
//!
//! DataFusion's unparser is made for moving a query to another engine, not for agreeing with it to the last bit: it
//! prints `0.5` (a `numeric` there), and drops time zones of literals. Here every literal carries its type and every
//! difference we know is written out; what has no exact counterpart is refused.

use crate::{
    PlanError, PlanResult,
    functions::{rounded::ROUNDED, span::SPAN},
    value_text::TEXT_OF,
};
use arrow_schema::DataType;
use chrono::{DateTime, Utc};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::logical_expr::expr::{Case, Cast, InList, Like, ScalarFunction};
use datafusion::logical_expr::{Between, BinaryExpr, Expr, ExprSchemable, Operator};
use tidemark_catalog::SqlType;

/// Prints expressions over one schema.
pub(super) struct Printer<'a> {
    schema: &'a DFSchema,
    /// A column of the schema as the query has it.
    column: &'a dyn Fn(&str) -> String,
}

/// The expression with its columns named without their relation.
pub(super) fn unqualified(expr: &Expr) -> PlanResult<Expr> {
    let plain = expr.clone().transform(|e| {
        Ok(match e {
            Expr::Column(c) if c.relation.is_some() => {
                Transformed::yes(Expr::Column(Column::new_unqualified(c.name.clone())))
            }
            other => Transformed::no(other),
        })
    });
    plain.map(|t| t.data).map_err(|e| PlanError::new(crate::error::sqlstate::INTERNAL, e.to_string()))
}

impl<'a> Printer<'a> {
    pub(super) fn new(schema: &'a DFSchema, column: &'a dyn Fn(&str) -> String) -> Self {
        Printer { schema, column }
    }

    /// The text of `expr`: an operand that needs no more parentheses.
    pub(super) fn print(&self, expr: &Expr) -> PlanResult<String> {
        self.operand(&unqualified(expr)?)
    }

    fn operand(&self, expr: &Expr) -> PlanResult<String> {
        Ok(match expr {
            Expr::Alias(alias) => self.operand(&alias.expr)?,
            Expr::Column(column) => (self.column)(&column.name),
            Expr::Literal(value, _) => literal(value)?,
            Expr::BinaryExpr(binary) => self.binary(binary, expr)?,
            Expr::Not(e) => format!("(NOT {})", self.operand(e)?),
            Expr::Negative(e) => format!("(- {})", self.operand(e)?),
            Expr::IsNull(e) => format!("({} IS NULL)", self.operand(e)?),
            Expr::IsNotNull(e) => format!("({} IS NOT NULL)", self.operand(e)?),
            Expr::IsTrue(e) => format!("({} IS TRUE)", self.operand(e)?),
            Expr::IsFalse(e) => format!("({} IS FALSE)", self.operand(e)?),
            Expr::IsUnknown(e) => format!("({} IS UNKNOWN)", self.operand(e)?),
            Expr::IsNotTrue(e) => format!("({} IS NOT TRUE)", self.operand(e)?),
            Expr::IsNotFalse(e) => format!("({} IS NOT FALSE)", self.operand(e)?),
            Expr::IsNotUnknown(e) => format!("({} IS NOT UNKNOWN)", self.operand(e)?),
            Expr::Between(Between { expr, negated, low, high }) => format!(
                "({} {}BETWEEN {} AND {})",
                self.operand(expr)?,
                not(*negated),
                self.operand(low)?,
                self.operand(high)?
            ),
            Expr::InList(InList { expr, list, negated }) => {
                let items = list.iter().map(|e| self.operand(e)).collect::<PlanResult<Vec<_>>>()?;
                format!("({} {}IN ({}))", self.operand(expr)?, not(*negated), items.join(", "))
            }
            Expr::Like(Like { negated, expr, pattern, escape_char, case_insensitive }) => {
                let escape =
                    escape_char.map(|c| format!(" ESCAPE {}", super::text(&c.to_string()))).unwrap_or_default();
                format!(
                    "({} {}{} {}{escape})",
                    self.operand(expr)?,
                    not(*negated),
                    if *case_insensitive { "ILIKE" } else { "LIKE" },
                    self.operand(pattern)?
                )
            }
            Expr::Case(case) => self.case(case)?,
            Expr::Cast(cast) => self.cast(cast)?,
            Expr::ScalarFunction(call) => self.function(call)?,
            other => return Err(no_counterpart(&other.to_string())),
        })
    }

    fn ty(&self, expr: &Expr) -> PlanResult<DataType> {
        expr.get_type(self.schema).map_err(|e| PlanError::new(crate::error::sqlstate::INTERNAL, e.to_string()))
    }

    fn binary(&self, binary: &BinaryExpr, whole: &Expr) -> PlanResult<String> {
        let BinaryExpr { left, op, right } = binary;
        let (l, r) = (self.operand(left)?, self.operand(right)?);
        let plain = |op: &str| format!("({l} {op} {r})");
        Ok(match op {
            Operator::Eq => plain("="),
            Operator::NotEq => plain("<>"),
            Operator::Lt => plain("<"),
            Operator::LtEq => plain("<="),
            Operator::Gt => plain(">"),
            Operator::GtEq => plain(">="),
            Operator::Plus => plain("+"),
            Operator::Minus => plain("-"),
            Operator::Multiply => plain("*"),
            Operator::Divide => match self.ty(whole)? {
                // Decimal division keeps so many digits and cuts the rest off.
                DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) => {
                    format!("(div({l} * 1e{scale}, {r}) / 1e{scale})")
                }
                _ => plain("/"),
            },
            Operator::Modulo if !self.ty(left)?.is_floating() => plain("%"),
            Operator::And => plain("AND"),
            Operator::Or => plain("OR"),
            Operator::StringConcat => plain("||"),
            Operator::IsDistinctFrom => plain("IS DISTINCT FROM"),
            Operator::IsNotDistinctFrom => plain("IS NOT DISTINCT FROM"),
            Operator::BitwiseAnd => plain("&"),
            Operator::BitwiseOr => plain("|"),
            Operator::BitwiseXor => plain("#"),
            Operator::BitwiseShiftLeft => format!("({l} << ({r})::integer)"),
            Operator::BitwiseShiftRight => format!("({l} >> ({r})::integer)"),
            Operator::RegexMatch => plain("~"),
            Operator::RegexIMatch => plain("~*"),
            Operator::RegexNotMatch => plain("!~"),
            Operator::RegexNotIMatch => plain("!~*"),
            Operator::LikeMatch => plain("LIKE"),
            Operator::ILikeMatch => plain("ILIKE"),
            Operator::NotLikeMatch => plain("NOT LIKE"),
            Operator::NotILikeMatch => plain("NOT ILIKE"),
            _ => return Err(no_counterpart(&whole.to_string())),
        })
    }

    fn case(&self, case: &Case) -> PlanResult<String> {
        let mut sql = "CASE".to_owned();
        if let Some(operand) = &case.expr {
            sql.push_str(&format!(" {}", self.operand(operand)?));
        }
        for (when, then) in &case.when_then_expr {
            sql.push_str(&format!(" WHEN {} THEN {}", self.operand(when)?, self.operand(then)?));
        }
        if let Some(otherwise) = &case.else_expr {
            sql.push_str(&format!(" ELSE {}", self.operand(otherwise)?));
        }
        sql.push_str(" END");
        Ok(sql)
    }

    fn cast(&self, cast: &Cast) -> PlanResult<String> {
        let (from, to) = (self.ty(&cast.expr)?, cast.field.data_type());
        if let Expr::Literal(value, _) = cast.expr.as_ref()
            && let Ok(value) = value.cast_to(to)
        {
            return literal(&value);
        }
        let value = self.operand(&cast.expr)?;
        let name = pg_type(to);
        if pg_type(&from) == name {
            return Ok(value);
        }
        let text = |ty: &DataType| SqlType::from_arrow(ty) == Some(SqlType::Text);
        Ok(match (&from, to) {
            // Microseconds.
            (DataType::Duration(_), DataType::Int64) => format!("(extract(epoch FROM {value}) * 1000000)::bigint"),
            (from, DataType::Boolean) if from.is_integer() => format!("({value} <> 0)"),
            (DataType::Boolean, to) if to.is_numeric() => format!("{value}::integer::{name}"),
            // A literal: a `numeric` there, with its digits as they are written.
            (from, to) if from.is_floating() && text(to) => return Err(no_counterpart("a double as text")),
            _ if name == "?" => return Err(no_counterpart(&format!("a cast to {to}"))),
            _ => format!("{value}::{name}"),
        })
    }

    fn function(&self, call: &ScalarFunction) -> PlanResult<String> {
        let mut args = call.args.iter().map(|e| self.operand(e)).collect::<PlanResult<Vec<_>>>()?;
        // Lengths and positions are `integer` there.
        if matches!(call.name(), "substr" | "left" | "right" | "repeat" | "lpad" | "rpad" | "split_part" | "chr") {
            for (arg, text) in call.args.iter().zip(&mut args) {
                if self.ty(arg)?.is_integer() {
                    *text = format!("{text}::integer");
                }
            }
        }
        let doubles = match call.args.first() {
            Some(first) => self.ty(first)?.is_floating(),
            None => false,
        };
        let listed = args.join(", ");
        Ok(match call.name() {
            // Digits behind the point of a double: half away from zero here, and not there.
            "round" if doubles && args.len() > 1 => match args.as_slice() {
                [x, digits] => format!("round({x}::numeric, ({digits})::integer)::float8"),
                _ => return Err(no_counterpart(&format!("round({listed})"))),
            },
            "nvl" => format!("coalesce({listed})"),
            "interval_times" => format!("({})", args.join(" * ")),
            "time_later" => format!("({})", args.join(" + ")),
            "time_earlier" => format!("({})", args.join(" - ")),
            "interval_over" => format!("({})", args.join(" / ")),
            // What is rounded is cast to an integer, which rounds there; intervals are compared by length there.
            ROUNDED | SPAN => listed,
            TEXT_OF => match call.args.first().map(|arg| self.ty(arg)).transpose()? {
                // What clients are sent, not what a cast makes.
                Some(DataType::Boolean) => return Err(no_counterpart("a boolean in concat")),
                _ => format!("({listed})::text"),
            },
            crate::zone::INSTANT_OF => format!("({listed})::timestamp with time zone"),
            crate::zone::TIMEZONE => format!("timezone({listed})"),
            name if crate::json_text::operator(name).is_some() => self.part_of_json(call, &args)?,
            name if crate::json_text::binary_operator(name).is_some() => {
                let operator = crate::json_text::binary_operator(name).unwrap_or_default();
                match args.as_slice() {
                    [document, wanted] => format!("(({document})::jsonb {operator} {wanted})"),
                    _ => return Err(no_counterpart(&format!("{name}({listed})"))),
                }
            }
            name @ (crate::json_text::CONCAT | crate::json_text::CONTAINS) => match args.as_slice() {
                [one, other] if name == crate::json_text::CONTAINS => format!("(({one})::jsonb @> ({other})::jsonb)"),
                [one, other] => format!("(({one})::jsonb || ({other})::jsonb)::text"),
                _ => return Err(no_counterpart(&format!("{name}({listed})"))),
            },
            crate::json_text::JSON => format!("({listed})::json::text"),
            crate::json_text::JSONB => format!("({listed})::jsonb::text"),
            name @ ("json_typeof" | "json_array_length") => format!("{name}(({listed})::json)"),
            "make_array" => format!("ARRAY[{listed}]"),
            "array_element" => match args.as_slice() {
                [array, place] => format!("({array})[({place})::integer]"),
                _ => return Err(no_counterpart(&format!("array_element({listed})"))),
            },
            "log10" => format!("log({listed})"),
            "character_length" | "char_length" | "length" => format!("length({listed})::integer"),
            "date_part" => match args.as_slice() {
                [field, at] if !matches!(self.ty(&call.args[1])?, DataType::Duration(_)) => {
                    format!("trunc(date_part({field}, {at}))::integer")
                }
                _ => format!("date_part({listed})"),
            },
            name @ ("coalesce" | "nullif" | "abs" | "ceil" | "floor" | "round" | "trunc" | "sqrt" | "cbrt"
            | "power" | "exp" | "ln" | "greatest" | "least" | "lower" | "upper" | "substr" | "concat"
            | "btrim" | "ltrim" | "rtrim" | "replace" | "strpos" | "starts_with" | "left" | "right"
            | "reverse" | "repeat" | "md5" | "date_trunc" | "signum" | "lpad" | "rpad" | "split_part"
            | "ascii" | "chr" | "initcap" | "translate" | "array_to_string" | "octet_length"
            | "cardinality" | "array_length" | "array_ndims" | "array_position") => {
                let name = if name == "signum" { "sign" } else { name };
                format!("{name}({listed})")
            }
            name => return Err(no_counterpart(&format!("function {name}"))),
        })
    }

    /// Over `json`, which like ours keeps values as they are written.
    fn part_of_json(&self, call: &ScalarFunction, args: &[String]) -> PlanResult<String> {
        let operator = crate::json_text::operator(call.name()).unwrap_or_default();
        let wanted = match args.get(1) {
            Some(wanted) if self.ty(&call.args[1])?.is_integer() => format!("({wanted})::integer"),
            Some(wanted) => wanted.clone(),
            None => return Err(no_counterpart(call.name())),
        };
        Ok(format!("(({})::json {operator} {wanted})::text", args[0]))
    }
}

fn not(negated: bool) -> &'static str {
    if negated { "NOT " } else { "" }
}

fn no_counterpart(what: &str) -> PlanError {
    PlanError::unsupported(format!("{what} has no exact counterpart in PostgreSQL"))
        .hint("EXPLAIN (FORMAT PROBES) prints views whose every expression PostgreSQL computes to the same bits")
}

/// A literal with its type.
fn literal(value: &ScalarValue) -> PlanResult<String> {
    let ty = pg_type(&value.data_type());
    if value.is_null() {
        return Ok(if ty == "?" || value.data_type() == DataType::Null {
            "NULL".to_owned()
        } else {
            format!("NULL::{ty}")
        });
    }
    let quoted = |text: String| Ok(format!("{}::{ty}", super::text(&text)));
    let instant = |us: i64| match DateTime::<Utc>::from_timestamp_micros(us) {
        Some(at) => {
            let zone = if ty == "timestamp with time zone" { "+00" } else { "" };
            Ok(format!("'{}{zone}'::{ty}", at.format("%Y-%m-%d %H:%M:%S%.6f")))
        }
        None => Err(no_counterpart("an instant so far away")),
    };
    match value {
        ScalarValue::Boolean(Some(b)) => Ok(b.to_string()),
        ScalarValue::Int32(Some(v)) if *v >= 0 => Ok(v.to_string()),
        ScalarValue::Int8(Some(v)) => quoted(v.to_string()),
        ScalarValue::Int16(Some(v)) => quoted(v.to_string()),
        ScalarValue::Int32(Some(v)) => quoted(v.to_string()),
        ScalarValue::Int64(Some(v)) if *v >= 0 => Ok(format!("{v}::bigint")),
        ScalarValue::Int64(Some(v)) => quoted(v.to_string()),
        ScalarValue::UInt8(Some(v)) => quoted(v.to_string()),
        ScalarValue::UInt16(Some(v)) => quoted(v.to_string()),
        ScalarValue::UInt32(Some(v)) => quoted(v.to_string()),
        ScalarValue::UInt64(Some(v)) => quoted(v.to_string()),
        // Debug prints the shortest text that reads back to the same double.
        ScalarValue::Float32(Some(v)) => quoted(format!("{v:?}")),
        ScalarValue::Float64(Some(v)) => quoted(format!("{v:?}")),
        ScalarValue::Decimal128(Some(v), _, scale) => quoted(format!("{v}e{}", -i16::from(*scale))),
        ScalarValue::Utf8(Some(s)) | ScalarValue::LargeUtf8(Some(s)) | ScalarValue::Utf8View(Some(s)) => {
            quoted(s.clone())
        }
        ScalarValue::Time64Microsecond(Some(us)) => {
            let seconds = us / 1_000_000;
            let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
            Ok(format!("'{hour:02}:{minute:02}:{second:02}.{:06}'::time", us % 1_000_000))
        }
        ScalarValue::TimestampSecond(Some(v), _) => instant(v.saturating_mul(1_000_000)),
        ScalarValue::TimestampMillisecond(Some(v), _) => instant(v.saturating_mul(1_000)),
        ScalarValue::TimestampMicrosecond(Some(v), _) => instant(*v),
        ScalarValue::TimestampNanosecond(Some(v), _) => instant(v.div_euclid(1_000)),
        ScalarValue::Date32(Some(days)) => match DateTime::<Utc>::from_timestamp(i64::from(*days) * 86_400, 0) {
            Some(at) => quoted(at.format("%Y-%m-%d").to_string()),
            None => Err(no_counterpart("a date so far away")),
        },
        ScalarValue::IntervalMonthDayNano(Some(v)) => {
            quoted(format!("{} months {} days {} microseconds", v.months, v.days, v.nanoseconds.div_euclid(1_000)))
        }
        ScalarValue::IntervalDayTime(Some(v)) => quoted(format!("{} days {} milliseconds", v.days, v.milliseconds)),
        ScalarValue::IntervalYearMonth(Some(v)) => quoted(format!("{v} months")),
        ScalarValue::DurationSecond(Some(v)) => quoted(format!("{v} seconds")),
        ScalarValue::DurationMillisecond(Some(v)) => quoted(format!("{v} milliseconds")),
        ScalarValue::DurationMicrosecond(Some(v)) => quoted(format!("{v} microseconds")),
        ScalarValue::DurationNanosecond(Some(v)) => quoted(format!("{} microseconds", v.div_euclid(1_000))),
        ScalarValue::List(items) => {
            let items = (0..items.value(0).len()).map(|i| literal(&ScalarValue::try_from_array(&items.value(0), i)?));
            Ok(format!("ARRAY[{}]::{ty}", items.collect::<PlanResult<Vec<_>>>()?.join(", ")))
        }
        other => Err(no_counterpart(&format!("the literal {other}"))),
    }
}

/// PostgreSQL's name of a type, `?` where there is none.
pub(super) fn pg_type(ty: &DataType) -> String {
    match SqlType::from_arrow(ty) {
        Some(SqlType::Timestamp) => "timestamp".to_owned(),
        Some(ty) => ty.to_string(),
        None => "?".to_owned(),
    }
}

/// A quoted identifier.
pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
