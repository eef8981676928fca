//! DataFusion's messages about the mistakes people make, in PostgreSQL's words and with its SQLSTATEs.
//!
//! They arrive as text, so text is what is taken apart here; whatever is not known stays as it is, and
//! `tests/sql/errors.slt` shows what a client sees of each.

use super::{PlanError, sqlstate};
use crate::words::in_sql;

const ADD_CASTS: &str =
    "No function matches the given name and argument types. You might need to add explicit type casts.";
const ADD_OPERATOR_CASTS: &str =
    "No operator matches the given name and argument types. You might need to add explicit type casts.";

/// What PostgreSQL would say.
pub(super) fn known(text: &str) -> Option<PlanError> {
    regex(text)
        .or_else(|| function(text))
        .or_else(|| operator(text))
        .or_else(|| types(text))
        .or_else(|| clause(text))
        .or_else(|| value(text))
        .or_else(|| unsupported(text))
}

/// What stands between the first `before` and the next `after`.
fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    rest.split_once(after).map(|(inside, _)| inside)
}

/// The same up to the end.
fn behind<'a>(text: &'a str, before: &str) -> Option<&'a str> {
    text.split_once(before).map(|(_, rest)| rest)
}

/// It is the first, because the message quotes the user's expression.
fn regex(text: &str) -> Option<PlanError> {
    if !text.starts_with("regex parse error") && !text.contains("Regular expression did not compile") {
        return None;
    }
    let why = text.lines().find_map(|line| line.trim().strip_prefix("error: ")).unwrap_or("it does not compile");
    Some(PlanError::new("2201B", format!("invalid regular expression: {why}")))
}

fn function(text: &str) -> Option<PlanError> {
    let undefined =
        |what: String| PlanError::new(sqlstate::UNDEFINED_FUNCTION, format!("function {what} does not exist"));
    if let Some(call) = between(text, "No function matches the given name and argument types '", "'. You might") {
        return Some(undefined(in_sql(call)).hint(ADD_CASTS));
    }
    if let Some(name) = between(text, "Invalid function '", "'") {
        let error = undefined(name.to_string());
        return Some(match between(text, "Did you mean '", "'") {
            Some(other) => error.hint(format!("perhaps you meant {other}")),
            None => error.hint(ADD_CASTS),
        });
    }
    // How many arguments a function takes, in its several wordings.
    let lower = text.to_lowercase();
    let counted = ["argument", "expect"].iter().all(|word| lower.contains(word)) || lower.contains("zero arguments");
    if counted && let Some(name) = between(text, "unction '", "'").or_else(|| between(text, "The function ", " expect"))
    {
        return Some(undefined(format!("{name} with these arguments")).detail(text.to_string()).hint(ADD_CASTS));
    }
    if text.contains("WITHIN GROUP is only supported for ordered-set") {
        let message = "it is not an ordered-set aggregate, so it cannot have WITHIN GROUP";
        return Some(
            PlanError::new(sqlstate::WRONG_OBJECT_TYPE, message).hint("percentile_cont(0.5) WITHIN GROUP (ORDER BY x)"),
        );
    }
    None
}

fn operator(text: &str) -> Option<PlanError> {
    let expression = between(text, "Cannot coerce arithmetic expression ", " to valid types")
        .or_else(|| behind(text, "Cannot infer common argument type for comparison operation "))
        .or_else(|| behind(text, "Cannot infer common argument type for regex operation "))
        .or_else(|| behind(text, "Cannot infer common type for bitwise operation "))
        .or_else(|| behind(text, "Cannot infer common string type for string concat operation "))
        .or_else(|| behind(text, "Cannot infer common argument type for operation "));
    let undefined = |expression: String| {
        PlanError::new(sqlstate::UNDEFINED_FUNCTION, format!("operator does not exist: {expression}"))
            .hint(ADD_OPERATOR_CASTS)
    };
    if let Some(expression) = expression {
        let expression =
            in_sql(expression).replace(" IS NOT DISTINCT FROM ", " = ").replace(" IS DISTINCT FROM ", " = ");
        return Some(undefined(expression));
    }
    if let Some(expression) = behind(text, "Cannot infer common argument type for logical boolean operation ") {
        let word = if expression.contains(" AND ") { "AND" } else { "OR" };
        let (left, right) = expression.split_once(&format!(" {word} "))?;
        let wrong = if left == "Boolean" { right } else { left };
        return Some(not_boolean(word, wrong));
    }
    if let Some(types) = between(text, "There isn't a common type to coerce ", " expression") {
        let (types, like) = types.rsplit_once(" in ")?;
        let symbol = if like == "ILIKE" { "~~*" } else { "~~" };
        return Some(undefined(in_sql(&types.replace(" and ", &format!(" {symbol} ")))));
    }
    if let Some(types) = behind(text, "Can not find compatible types to compare ") {
        let (left, right) = types.split_once(" with [")?;
        let other = in_sql(right.trim_end_matches(']'));
        let left = in_sql(left);
        let other = other.split(", ").find(|ty| *ty != left).unwrap_or(&other).to_string();
        return Some(undefined(format!("{left} = {other}")));
    }
    if let Some(types) = between(text, "Failed to coerce types ", " in BETWEEN expression") {
        return Some(undefined(in_sql(&types.replace(" and ", " >= "))));
    }
    None
}

fn not_boolean(clause: &str, ty: &str) -> PlanError {
    let ty = in_sql(ty);
    PlanError::new(sqlstate::DATATYPE_MISMATCH, format!("argument of {clause} must be type boolean, not type {ty}"))
}

fn types(text: &str) -> Option<PlanError> {
    let mismatch = |message: String| PlanError::new(sqlstate::DATATYPE_MISMATCH, message);
    if text.starts_with("Cannot create filter with non-boolean predicate") {
        return Some(not_boolean("WHERE", behind(text, " returning ")?));
    }
    if text.starts_with("Unsupported SQL type JSONB") {
        return Some(
            PlanError::unsupported("arrays of jsonb are not supported")
                .hint("use text[], and cast what is taken out of it: (x[1])::jsonb"),
        );
    }
    if let Some(types) = between(text, "Previous inputs were of type ", " on column") {
        let (left, right) = types.split_once(", but got incompatible type ")?;
        return Some(
            mismatch(format!("UNION types {} and {} cannot be matched", in_sql(left), in_sql(right)))
                .hint("cast one of them"),
        );
    }
    if text.contains("to common types in CASE WHEN expression") {
        let then = between(text, "Failed to coerce then (", ") and else");
        let all = match then {
            Some(then) => format!("{then}, {}", between(text, ") and else (", ") to common").unwrap_or_default()),
            None => format!(
                "{}, {}",
                between(text, "Failed to coerce case (", ") and when")?,
                between(text, ") and when (", ") to common")?
            ),
        };
        let all = in_sql(&all);
        let mut types: Vec<&str> = all.split(", ").filter(|ty| *ty != "None").collect();
        types.dedup();
        return Some(
            mismatch(format!("CASE types {} cannot be matched", types.join(" and "))).hint("cast them to one type"),
        );
    }
    // What passes values on one by one loses the metadata that says that they are vectors (decision 0038). It is noticed where a column
    // is checked, or where what has lost it meets what has not.
    let checked = between(text, "column types must match schema types, expected ", " at column index");
    let checked = checked.and_then(|types| types.split_once(" but found ")).map(|(one, other)| vec![one, other]);
    let met = between(text, "concatenate arrays of different data types (", ").");
    let met = met.map(in_sql);
    if let Some(types) = checked.or_else(|| met.as_deref().map(|types| types.split(", ").collect())) {
        let types: Vec<String> = types.into_iter().map(in_sql).collect();
        let as_array = |ty: &String| ty.replace("vector", "real[]");
        if !types.iter().any(|ty| ty.contains("vector")) || types.iter().any(|ty| as_array(ty) != as_array(&types[0])) {
            return None;
        }
        let error = PlanError::unsupported("a vector is passed on as an array of real here").detail(
            "max, min, first_value, last_value, lag, lead, DISTINCT ON, (SELECT …) as a value and WITH RECURSIVE do so",
        );
        return Some(error.hint("cast it to an array inside, and the result back: max(e::real[])::vector"));
    }
    if let Some(types) = behind(text, "Unsupported CAST from ") {
        let (from, to) = types.split_once(" to ")?;
        return Some(PlanError::new("42846", format!("cannot cast type {} to {}", in_sql(from), in_sql(to))));
    }
    if text.starts_with("Cast error: Casting from ") || text.starts_with("Casting from ") {
        let (from, to) = between(text, "Casting from ", " not supported")?.split_once(" to ")?;
        return Some(PlanError::new("42846", format!("cannot cast type {} to {}", in_sql(from), in_sql(to))));
    }
    None
}

fn clause(text: &str) -> Option<PlanError> {
    let grouping = |message: String| PlanError::new(sqlstate::GROUPING_ERROR, message);
    let position = |message: String| PlanError::new(sqlstate::INVALID_COLUMN_REFERENCE, message);
    if let Some(column) = between(text, "While expanding wildcard, column ", " must appear in the GROUP BY")
        .or_else(|| between(text, "olumn \"", "\" must appear in the GROUP BY"))
        .or_else(|| between(text, "HAVING clause references: ", " must appear in the GROUP BY"))
    {
        let column = in_sql(&column.replace('"', ""));
        return Some(
            grouping(format!(
                "column \"{column}\" must appear in the GROUP BY clause or be used in an aggregate function"
            ))
            .hint(format!("add it to GROUP BY, or take max({column})")),
        );
    }
    if text.contains("Aggregate functions are not allowed in the WHERE clause") {
        return Some(grouping("aggregate functions are not allowed in WHERE".to_string()).hint("use HAVING"));
    }
    if let Some(number) = between(text, "Cannot find column with position ", " in SELECT") {
        return Some(position(format!("GROUP BY position {number} is not in select list")));
    }
    if let Some(number) = between(text, "Order by column out of bounds, specified: ", ", max") {
        return Some(position(format!("ORDER BY position {number} is not in select list")));
    }
    if text.contains("For SELECT DISTINCT, ORDER BY expressions") {
        return Some(position("for SELECT DISTINCT, ORDER BY expressions must appear in select list".to_string()));
    }
    if text.contains("SELECT DISTINCT ON expressions must match initial ORDER BY") {
        return Some(position("SELECT DISTINCT ON expressions must match initial ORDER BY expressions".to_string()));
    }
    if text.contains("queries have different number of columns") {
        let word = text.split(' ').next().unwrap_or("UNION").to_uppercase();
        return Some(PlanError::syntax(format!("each {word} query must have the same number of columns")));
    }
    if text.contains("nconsistent data length across values list") {
        return Some(PlanError::syntax("VALUES lists must all be the same length"));
    }
    if text.contains("Too many columns! The subquery should only return one column") {
        return Some(
            PlanError::syntax("subquery must return only one column")
                .hint("rows are found by EXISTS (SELECT 1 FROM … WHERE a = x AND b = y), or by a join"),
        );
    }
    if text.contains("more than one row") && text.to_lowercase().contains("subquery") {
        return Some(PlanError::new("21000", "more than one row returned by a subquery used as an expression"));
    }
    if text.to_lowercase().contains("correlated scalar subquery can only be used in") {
        let message = "a subquery that reads the query around it is not supported here";
        return Some(PlanError::unsupported(message).hint("name it in a subquery in FROM, and read its column here"));
    }
    if text.contains("In/Exist/SetComparison subquery can only be used in") {
        let message = "EXISTS and IN (subquery) are not supported here; they are in WHERE and in the select list";
        return Some(PlanError::unsupported(message).hint("name it in the select list, and sort by the name"));
    }
    if text.contains("does not support logical expression Exists") {
        let error = PlanError::unsupported("EXISTS is not supported here; it is in WHERE and in the select list");
        return Some(error.hint("elsewhere: (SELECT count(*) > 0 FROM …)"));
    }
    if text.contains("does not support logical expression InSubquery") {
        let message = "IN (subquery) is not supported here; it is in WHERE and in the select list";
        return Some(PlanError::unsupported(message).hint("join with the subquery, or ask in a subquery in FROM"));
    }
    if text.contains("does not support logical expression ScalarSubquery") {
        let message = "a subquery that reads the query around it is not supported here";
        let hint = "outside aggregates it may be one without LIMIT that compares columns of both by =, \
                    (SELECT max(y) FROM … WHERE …); or join with it; x IN (SELECT …) beside or in an aggregate: \
                    name it in a subquery in FROM";
        return Some(PlanError::unsupported(message).hint(hint));
    }
    if text.contains("INTERVAL expression cannot be ") || text.contains("Invalid window frame: frame offsets for RANGE")
    {
        return Some(
            PlanError::new(sqlstate::WINDOWING_ERROR, "a bound of a window frame is not a constant")
                .hint("write RANGE INTERVAL '5 minutes' PRECEDING, or ROWS 5 PRECEDING"),
        );
    }
    if text.starts_with("LIMIT must be >= 0") {
        return Some(PlanError::new("2201W", "LIMIT must not be negative"));
    }
    if text.starts_with("OFFSET must be >= 0") || text.starts_with("OFFSET must be >=0") {
        return Some(PlanError::new("2201X", "OFFSET must not be negative"));
    }
    None
}

fn value(text: &str) -> Option<PlanError> {
    let lower = text.to_lowercase();
    if lower.contains("divide by zero") || lower.contains("division by zero") {
        return Some(PlanError::new("22012", "division by zero"));
    }
    if let Some(error) = argument(text) {
        return Some(error);
    }
    let invalid = |ty: &str, value: &str, sqlstate| {
        PlanError::new(sqlstate, format!("invalid input syntax for type {ty}: \"{value}\""))
    };
    // `Cannot cast string 'x' to value of Int64 type`, `Cannot cast value 'x' to value of Boolean type`
    if let Some((value, ty)) = behind(text, "Cannot cast string '")
        .or_else(|| behind(text, "Cannot cast value '"))
        .and_then(|rest| rest.rsplit_once("' to value of "))
    {
        let ty = in_sql(ty.trim_end_matches(" type"));
        let ty = ty.split('(').next().unwrap_or_default();
        let digits = value.trim().trim_start_matches(['-', '+']);
        if matches!(ty, "smallint" | "integer" | "bigint")
            && !digits.is_empty()
            && digits.bytes().all(|b| b.is_ascii_digit())
        {
            let message = format!("value \"{}\" is out of range for type {ty}", value.trim());
            return Some(PlanError::new(sqlstate::OUT_OF_RANGE, message));
        }
        let sqlstate = if matches!(ty, "date" | "time without time zone") { "22007" } else { "22P02" };
        return Some(invalid(ty, value, sqlstate));
    }
    if let Some(rest) = behind(text, "Error parsing timestamp from '") {
        let value = rest.rsplit_once("':").or_else(|| rest.split_once("' using")).map_or(rest, |(value, _)| value);
        return Some(invalid("timestamp", value, "22007"));
    }
    if let Some(rest) = behind(text, "Invalid input syntax for type interval: ") {
        let value = rest.split('"').nth(1).unwrap_or(rest);
        return Some(invalid("interval", value, "22007"));
    }
    if let Some(unit) = between(text, "Unsupported date_trunc granularity: '", "'")
        .or_else(|| between(text, "Date part '", "' not supported"))
    {
        // PostgreSQL has these.
        if ["decade", "century", "millennium"].contains(&unit.to_lowercase().as_str()) {
            return Some(PlanError::unsupported(format!("unit \"{unit}\" is not supported")));
        }
        return Some(
            PlanError::new(sqlstate::INVALID_PARAMETER, format!("unit \"{unit}\" not recognized"))
                .hint("units are year, quarter, month, week, day, hour, minute, second, millisecond, microsecond"),
        );
    }
    // `Can't cast value 100000 to type Int16`
    if let Some(ty) = behind(text, "Can't cast value ").and_then(|rest| rest.rsplit_once(" to type ")).map(|(_, ty)| ty)
    {
        return Some(PlanError::new(sqlstate::OUT_OF_RANGE, format!("{} out of range", in_sql(ty))));
    }
    if let Some((value, precision)) = text
        .split_once(" is too large to store in a Decimal")
        .or_else(|| text.split_once(" is too small to store in a Decimal"))
    {
        let value = value.rsplit(' ').next().unwrap_or_default();
        let precision = between(precision, "precision ", ".").unwrap_or_default();
        return Some(
            PlanError::new(sqlstate::OUT_OF_RANGE, "numeric field overflow")
                .detail(format!("{value} does not fit a field with precision {precision}")),
        );
    }
    if text.contains("Overflowing on ") || text.contains("Value overflows for output scale") {
        return Some(PlanError::new(sqlstate::OUT_OF_RANGE, "numeric field overflow"));
    }
    if let Some(ty) = between(text, "", " overflow on abs(").map(|ty| ty.rsplit(' ').next().unwrap_or_default()) {
        let ty = in_sql(ty.trim_end_matches("Array"));
        return Some(PlanError::new(sqlstate::OUT_OF_RANGE, format!("{ty} out of range")));
    }
    None
}

/// What a function was given, and cannot take.
fn argument(text: &str) -> Option<PlanError> {
    if text.starts_with("negative count not allowed: ") {
        return Some(PlanError::new("22011", "negative substring length not allowed"));
    }
    if text.starts_with("field position must not be zero") {
        return Some(PlanError::new(sqlstate::INVALID_PARAMETER, "field position must not be zero"));
    }
    if text.ends_with("Timestamp out of range") {
        return Some(PlanError::new(sqlstate::DATETIME_OUT_OF_RANGE, "timestamp out of range"));
    }
    if let Some(function) = between(text, "unction '", "' does not support named arguments") {
        let message = format!("function {function} does not exist with arguments of these names");
        let hint = "write its arguments in their order, without names";
        return Some(PlanError::new(sqlstate::UNDEFINED_FUNCTION, message).hint(hint));
    }
    None
}

/// What DataFusion does not do, and says by the names of its plans.
fn unsupported(text: &str) -> Option<PlanError> {
    let refused = |message: &str, hint: &str| Some(PlanError::unsupported(message).hint(hint));
    if let Some(expression) = behind(text, "does not support logical expression ") {
        return match expression.split(['(', ' ']).next().unwrap_or_default() {
            "OuterReferenceColumn" => refused(
                "LATERAL is not supported here: a subquery in FROM cannot read what stands beside it",
                "join it ON a condition, or write (SELECT max(y) FROM … WHERE …) in the select list",
            ),
            "WindowFunction" => {
                let error = PlanError::new(sqlstate::WINDOWING_ERROR, "window functions are not allowed in WHERE");
                Some(error.hint("compute them in a subquery, and filter its rows"))
            }
            "AggregateFunction" => {
                Some(PlanError::new(sqlstate::GROUPING_ERROR, "aggregate functions are not allowed here"))
            }
            _ => refused("this expression is not supported here", "compute it in a subquery, and read its column here"),
        };
    }
    if let Some(ty) = behind(text, "Unsupported SQL type ") {
        let message = format!("type {} is not available here", ty.to_lowercase());
        return Some(PlanError::unsupported(message).hint("text holds its values as they are written"));
    }
    if text.starts_with("Unsupported Interval Expression with ") {
        return refused(
            "an interval literal with fields is not supported",
            "write the units in the text: '1 day 02:03'",
        );
    }
    if let Some(literal) = between(text, "Unsupported Value '", "(") {
        return match literal {
            "UnicodeStringLiteral" => refused("U&'…' is not supported", "write the character itself, or E'\\u0061'"),
            _ => refused("bit strings are not supported", "write an integer, or a bytea: '\\x05'"),
        };
    }
    if let Some(operator) = behind(text, "Unsupported binary operator: ") {
        return match operator {
            "PGExp" => refused("operator ^ is not supported", "write power(x, y)"),
            "Overlaps" => refused("OVERLAPS is not supported", "write a < d AND c < b"),
            _ => refused("this operator is not supported", "docs/sql.md has those that are"),
        };
    }
    if let Some(operator) = behind(text, "Unsupported SQL unary operator ") {
        return match operator {
            "BitwiseNot" => refused("operator ~ before a value is not supported", "write -1 - x"),
            "PGSquareRoot" => refused("operator |/ is not supported", "write sqrt(x)"),
            "PGCubeRoot" => refused("operator ||/ is not supported", "write cbrt(x)"),
            "PGAbs" => refused("operator @ is not supported", "write abs(x)"),
            _ => refused("this operator is not supported", "docs/sql.md has those that are"),
        };
    }
    if text.starts_with("Only identifiers and literals are supported in tuples") {
        return refused(
            "a row of expressions is not supported here",
            "rows are compared: (a, b) = (c + 1, d); columns are computed in a subquery",
        );
    }
    if text.starts_with("Unsupported LIMIT expression") || text.starts_with("Unsupported OFFSET expression") {
        return refused("LIMIT and OFFSET take a constant or a parameter here", "run the subquery before");
    }
    if text.starts_with("Unsupported ast node") || text.starts_with("Dot access not supported") {
        return refused("this expression is not supported", "docs/sql.md has those that are");
    }
    if text.to_lowercase().contains("conflicting ordering requirements in aggregate functions") {
        return refused(
            "aggregates of different orders are not supported beside one with DISTINCT and ORDER BY",
            "give the aggregates one order, or compute each in a subquery",
        );
    }
    if text.starts_with("Aggregate ORDER BY is not implemented for window functions") {
        return refused(
            "aggregate ORDER BY is not implemented for window functions",
            "sort the rows by ORDER BY in OVER",
        );
    }
    if text.starts_with("Multiple recursive references") {
        let message = "recursive reference to a query must not appear more than once";
        return Some(PlanError::new(sqlstate::INVALID_RECURSION, message));
    }
    None
}
