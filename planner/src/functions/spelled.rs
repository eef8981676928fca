//! Functions of PostgreSQL's that are others under another name, or an expression over others: written out on the syntax tree, before
//! anything is bound.
//!
//! ```text
//! mod(a, b)                                (a) % (b)
//! make_timestamptz(2026, 2, 3, 4, 5, 6)    CAST(make_timestamp(2026, 2, 3, 4, 5, 6) AS TIMESTAMPTZ), in the session's zone
//! make_interval(days => 10)                make_interval(0, 0, 0, 10, 0, 0, 0)
//! array_remove(a, x)                       array_remove_all(a, x): DataFusion's takes away the first alone
//! ```

use crate::{respelled::call, zone::TIMEZONE};
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CastKind, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, TimezoneInfo,
    UnaryOperator, Value,
};

/// Writes such a call out. A second time it changes nothing.
pub(crate) fn write_out(expr: &mut Expr) {
    let written = match &*expr {
        Expr::Substring { expr: text, substring_from: Some(pattern), substring_for: None, .. } => {
            string(pattern).map(|_| first_match(text.as_ref().clone(), pattern.as_ref().clone()))
        }
        Expr::Function(function) => written(function),
        _ => None,
    };
    if let Some(written) = written {
        *expr = written;
    }
}

fn written(function: &Function) -> Option<Expr> {
    let name = function.name.to_string().to_lowercase();
    if name == "make_interval" {
        return interval(function);
    }
    let mut args = arguments(function)?;
    let written = match (name.as_str(), args.as_mut_slice()) {
        ("mod", [_, _]) => {
            let mut sides = args.into_iter().map(nested);
            let (left, right) = (sides.next()?, sides.next()?);
            nested(Expr::BinaryOp { left: Box::new(left), op: BinaryOperator::Modulo, right: Box::new(right) })
        }
        ("ceiling", [_]) => call("ceil", args),
        ("sign", [_]) => call("signum", args),
        ("array_remove", [_, _]) => call("array_remove_all", args),
        ("array_replace", [_, _, _]) => call("array_replace_all", args),
        // An array begins with its first item, wherever one is.
        ("array_lower", [_, _]) => {
            let has_items = Expr::IsNotNull(Box::new(call("array_length", args)));
            call("nullif", [cast(has_items, DataType::Integer(None)), number(0)])
        }
        ("date_trunc", [unit, time, zone]) => {
            let wall = call(TIMEZONE, [zone.clone(), time.clone()]);
            call(TIMEZONE, [zone.clone(), call("date_trunc", [unit.clone(), wall])])
        }
        ("make_timestamptz", [_, _, _, _, _, _]) => {
            cast(call("make_timestamp", args), DataType::Timestamp(None, TimezoneInfo::Tz))
        }
        ("make_timestamptz", [_, _, _, _, _, _, _]) => {
            let zone = args.pop()?;
            call(TIMEZONE, [zone, call("make_timestamp", args)])
        }
        ("age", [since]) => {
            let today = cast(call("current_date", []), DataType::Timestamp(None, TimezoneInfo::None));
            call("age", [today, since.clone()])
        }
        ("regexp_substr", [text, pattern]) => {
            let whole = format!("({})", string(pattern)?);
            first_match(text.clone(), Expr::value(Value::SingleQuotedString(whole)))
        }
        ("regexp_replace", [_, _, replacement] | [_, _, replacement, _]) => {
            let text = string(replacement)?;
            let theirs = replacement_of(text)?;
            // A cast is left alone by the next reading.
            *replacement = cast(Expr::value(Value::SingleQuotedString(theirs)), DataType::Text);
            call(&name, args)
        }
        ("pg_typeof", [value]) => match type_of_literal(value)? {
            Literal::Text => Expr::value(Value::SingleQuotedString("unknown".to_string())),
            Literal::Integer => call(&name, [cast(value.clone(), DataType::Integer(None))]),
        },
        _ => return None,
    };
    Some(written)
}

/// The arguments of a plain call.
fn arguments(function: &Function) -> Option<Vec<Expr>> {
    let FunctionArguments::List(list) = &function.args else { return None };
    let is_plain = function.over.is_none()
        && function.filter.is_none()
        && function.within_group.is_empty()
        && list.duplicate_treatment.is_none()
        && list.clauses.is_empty();
    let unnamed = |argument: &FunctionArg| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(argument)) => Some(argument.clone()),
        _ => None,
    };
    if is_plain { list.args.iter().map(unnamed).collect() } else { None }
}

/// All seven parts in their places; `None`: they are, or are none of these.
fn interval(function: &Function) -> Option<Expr> {
    const PARTS: [&str; 7] = ["years", "months", "weeks", "days", "hours", "mins", "secs"];
    let FunctionArguments::List(list) = &function.args else { return None };
    let mut parts: [Option<Expr>; 7] = [const { None }; 7];
    let (mut is_written, mut is_named) = (list.args.len() == PARTS.len(), false);
    for (at, argument) in list.args.iter().enumerate() {
        let (at, value) = match argument {
            // None stands behind one with a name.
            FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) if !is_named => (at, value),
            FunctionArg::Named { name, arg: FunctionArgExpr::Expr(value), .. } => {
                (is_written, is_named) = (false, true);
                (PARTS.iter().position(|part| name.value.eq_ignore_ascii_case(part))?, value)
            }
            FunctionArg::ExprNamed { name: Expr::Identifier(name), arg: FunctionArgExpr::Expr(value), .. } => {
                (is_written, is_named) = (false, true);
                (PARTS.iter().position(|part| name.value.eq_ignore_ascii_case(part))?, value)
            }
            _ => return None,
        };
        let part = parts.get_mut(at)?;
        if part.is_some() {
            return None;
        }
        *part = Some(value.clone());
    }
    if is_written {
        return None;
    }
    Some(call("make_interval", parts.map(|part| part.unwrap_or_else(|| number(0)))))
}

/// The first group of the first match, or all of it where the pattern has none.
fn first_match(text: Expr, pattern: Expr) -> Expr {
    call("array_element", [call("regexp_match", [text, pattern]), number(1)])
}

/// PostgreSQL's replacement as DataFusion reads it, `$` for itself and `\&` for the whole match; `None`: it is the same.
fn replacement_of(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len() + 8);
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '$' => out.push_str("$$"),
            '\\' if characters.next_if_eq(&'&').is_some() => out.push_str("${0}"),
            '\\' if characters.next_if_eq(&'\\').is_some() => {
                out.push('\\');
                // DataFusion would take it for a group.
                if characters.peek().is_some_and(char::is_ascii_digit) {
                    return None;
                }
            }
            other => out.push(other),
        }
    }
    (out != text).then_some(out)
}

enum Literal {
    /// Of no type yet.
    Text,
    /// Of 32 bits.
    Integer,
}

fn type_of_literal(value: &Expr) -> Option<Literal> {
    let (digits, sign) = match value {
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => (expr.as_ref(), "-"),
        other => (other, ""),
    };
    let Expr::Value(digits) = digits else { return None };
    match &digits.value {
        Value::Number(digits, _) => format!("{sign}{digits}").parse::<i32>().ok().map(|_| Literal::Integer),
        Value::SingleQuotedString(_) => Some(Literal::Text),
        _ => None,
    }
}

fn string(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => Some(text),
            _ => None,
        },
        _ => None,
    }
}

fn number(number: i32) -> Expr {
    Expr::value(Value::Number(number.to_string(), false))
}

fn nested(expr: Expr) -> Expr {
    Expr::Nested(Box::new(expr))
}

fn cast(expr: Expr, data_type: DataType) -> Expr {
    Expr::Cast { kind: CastKind::Cast, expr: Box::new(expr), data_type, array: false, format: None }
}

#[cfg(test)]
mod tests {
    use crate::{Statement, parse::parse};

    #[test]
    fn functions_are_written_out_once() {
        for (sql, expected) in [
            ("mod(a + 1, b)", "((a + 1) % (b))"),
            ("ceiling(a)", "ceil(a)"),
            ("make_interval(days => 10)", "make_interval(0, 0, 0, 10, 0, 0, 0)"),
            ("make_interval(1, 2)", "make_interval(1, 2, 0, 0, 0, 0, 0)"),
            ("make_interval(days => 10, 5)", "make_interval(days => 10, 5)"),
            ("make_interval(1, years => 2)", "make_interval(1, years => 2)"),
            ("make_timestamptz(1, 2, 3, 4, 5, 6, 'UTC')", "timezone('UTC', make_timestamp(1, 2, 3, 4, 5, 6))"),
            ("date_trunc('day', a, 'UTC')", "timezone('UTC', date_trunc('day', timezone('UTC', a)))"),
            ("date_trunc('day', a)", "date_trunc('day', a)"),
            ("pg_typeof(-1)", "pg_typeof(CAST(-1 AS INTEGER))"),
            ("pg_typeof('a')", "'unknown'"),
            ("pg_typeof(3000000000)", "pg_typeof(3000000000)"),
            ("regexp_replace(a, 'b', '$1 \\&', 'g')", "regexp_replace(a, 'b', CAST('$$1 ${0}' AS TEXT), 'g')"),
            ("regexp_replace(a, 'b', '\\1')", "regexp_replace(a, 'b', '\\1')"),
            ("substring(a FROM 'b(c)')", "array_element(regexp_match(a, 'b(c)'), 1)"),
            ("substring(a FROM 2)", "SUBSTRING(a FROM 2)"),
            ("regexp_substr(a, 'b(c)')", "array_element(regexp_match(a, '(b(c))'), 1)"),
            ("to_json(a)", "json(json_value_of('v', a))"),
            ("jsonb_build_object('a', b -> 'c')", "jsonb(json_object_of('vj', 'a', b -> 'c'))"),
            (
                "json_agg(a ORDER BY b) FILTER (WHERE c)",
                "json(json_items('v', array_agg(a ORDER BY b) FILTER (WHERE c)))",
            ),
            ("json_object_agg(a, b::json)", "json(json_pairs('vj', array_agg(a), array_agg(json(b))))"),
        ] {
            let parsed = parse(&format!("SELECT {sql} FROM t")).unwrap_or_else(|error| panic!("{sql}: {error}"));
            let Statement::Query(mut query) = parsed[0].statement.clone() else { panic!("{sql} is in no query") };
            crate::respelled::respell(&mut query);
            assert_eq!(query.to_string(), format!("SELECT {expected} FROM t"));
            let once = query.clone();
            crate::respelled::respell(&mut query);
            assert_eq!(query, once, "a second time changes nothing");
        }
    }
}
