//! What PostgreSQL calls a column that was given no name.
//!
//! A column and a function call have names of their own; what passes a value through (a cast, a subscript, the ELSE of a
//! CASE) takes the name of the value if that is such a one, else its own word, else there is none.

use datafusion::sql::sqlparser::ast::{
    AccessExpr, ArrayElemTypeDef, DataType, Expr, Ident, ObjectName, SelectItem, SetExpr, TimezoneInfo, TrimWhereField,
    Value,
};

/// PostgreSQL's name for a column that was given none.
pub fn column_name(expr: &Expr) -> String {
    match named(expr) {
        Some(Name::Own(name) | Name::Weak(name)) => name,
        None => "?column?".to_string(),
    }
}

enum Name {
    /// Of a column or function: a cast around it keeps it.
    Own(String),
    /// Of a type, or `case`: something around it may know better.
    Weak(String),
}

fn own(name: impl Into<String>) -> Option<Name> {
    Some(Name::Own(name.into()))
}

fn named(expr: &Expr) -> Option<Name> {
    match expr {
        Expr::Identifier(ident) => own(folded(ident)),
        Expr::CompoundIdentifier(parts) => own(folded(parts.last()?)),
        Expr::CompoundFieldAccess { root, access_chain } => {
            access_chain.iter().rev().find_map(field).map(Name::Own).or_else(|| named(root))
        }
        Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => named(inner),
        Expr::Function(function) => own(last_part(&function.name)?),
        Expr::Cast { expr: inner, data_type, .. } => over(inner, type_name(data_type)),
        Expr::TypedString(typed) => Some(Name::Weak(type_name(&typed.data_type))),
        Expr::Interval(_) => Some(Name::Weak("interval".to_string())),
        Expr::Value(value) if matches!(value.value, Value::Boolean(_)) => Some(Name::Weak("bool".to_string())),
        Expr::Case { else_result, .. } => match else_result.as_deref().and_then(named) {
            Some(Name::Own(name)) => own(name),
            _ => Some(Name::Weak("case".to_string())),
        },
        Expr::Exists { .. } => own("exists"),
        Expr::Array(_) => own("array"),
        Expr::Tuple(_) => own("row"),
        Expr::Extract { .. } => own("extract"),
        Expr::Ceil { .. } => own("ceil"),
        Expr::Floor { .. } => own("floor"),
        Expr::Position { .. } => own("position"),
        Expr::Substring { .. } => own("substring"),
        Expr::Overlay { .. } => own("overlay"),
        Expr::AtTimeZone { .. } => own("timezone"),
        Expr::IsNormalized { .. } => own("is_normalized"),
        Expr::Trim { trim_where, .. } => own(match trim_where {
            Some(TrimWhereField::Leading) => "ltrim",
            Some(TrimWhereField::Trailing) => "rtrim",
            Some(TrimWhereField::Both) | None => "btrim",
        }),
        Expr::Subquery(query) => first_column(&query.body),
        _ => None,
    }
}

/// What passes the value of `inner` through, and has a word of its own for it.
fn over(inner: &Expr, word: String) -> Option<Name> {
    match named(inner) {
        Some(Name::Own(name)) => own(name),
        _ => Some(Name::Weak(word)),
    }
}

fn field(access: &AccessExpr) -> Option<String> {
    match access {
        AccessExpr::Dot(expr) => column(expr).map(folded),
        AccessExpr::Subscript(_) => None,
    }
}

fn first_column(body: &SetExpr) -> Option<Name> {
    match body {
        SetExpr::Select(select) => match select.projection.first()? {
            SelectItem::ExprWithAlias { alias, .. } => own(folded(alias)),
            SelectItem::UnnamedExpr(expr) => own(column_name(expr)),
            _ => None,
        },
        SetExpr::Query(query) => first_column(&query.body),
        SetExpr::SetOperation { left, .. } => first_column(left),
        SetExpr::Values(_) => own("column1"),
        _ => None,
    }
}

/// The column that an expression is.
pub fn column(expr: &Expr) -> Option<&Ident> {
    match expr {
        Expr::Identifier(ident) => Some(ident),
        Expr::CompoundIdentifier(parts) => parts.last(),
        _ => None,
    }
}

/// A name as it is looked up: in lower case unless quoted.
pub fn folded(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

fn last_part(name: &ObjectName) -> Option<String> {
    name.0.last()?.as_ident().map(folded)
}

/// `pg_type.typname` of a type as written; of an array's elements for an array.
fn type_name(ty: &DataType) -> String {
    let name = match ty {
        DataType::Boolean | DataType::Bool => "bool",
        DataType::SmallInt(_) | DataType::Int2(_) => "int2",
        DataType::Int(_) | DataType::Integer(_) | DataType::Int4(_) => "int4",
        DataType::BigInt(_) | DataType::Int8(_) => "int8",
        DataType::Real | DataType::Float4 => "float4",
        DataType::DoublePrecision | DataType::Double(_) | DataType::Float8 | DataType::Float(_) => "float8",
        DataType::Numeric(_) | DataType::Decimal(_) | DataType::Dec(_) => "numeric",
        DataType::Varchar(_) | DataType::CharacterVarying(_) | DataType::CharVarying(_) => "varchar",
        DataType::Char(_) | DataType::Character(_) => "bpchar",
        DataType::Text => "text",
        DataType::Bytea => "bytea",
        DataType::Date => "date",
        DataType::Time(_, zone) if has_zone(zone) => "timetz",
        DataType::Time(..) => "time",
        DataType::Timestamp(_, zone) if has_zone(zone) => "timestamptz",
        DataType::Timestamp(..) => "timestamp",
        DataType::Interval { .. } => "interval",
        DataType::Array(
            ArrayElemTypeDef::SquareBracket(inner, _)
            | ArrayElemTypeDef::AngleBracket(inner)
            | ArrayElemTypeDef::Parenthesis(inner),
        ) => return type_name(inner),
        DataType::Custom(name, _) => return last_part(name).unwrap_or_default(),
        other => return other.to_string().to_lowercase(),
    };
    name.to_string()
}

fn has_zone(zone: &TimezoneInfo) -> bool {
    matches!(zone, TimezoneInfo::Tz | TimezoneInfo::WithTimeZone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Statement, parse::parse};

    #[test]
    fn a_column_is_called_what_postgresql_calls_it() {
        for (expr, name) in [
            ("t.price", "price"),
            ("\"Price\"", "Price"),
            ("COUNT(*)", "count"),
            ("count(*) FILTER (WHERE a) OVER w", "count"),
            ("pg_catalog.version()", "version"),
            ("price + 1", "?column?"),
            ("-price", "?column?"),
            ("'x'", "?column?"),
            ("NULL", "?column?"),
            ("true", "bool"),
            ("price::int", "price"),
            ("(price)::int", "price"),
            ("'1'::int", "int4"),
            ("CAST(a + b AS double precision)", "float8"),
            ("'1'::int::text", "text"),
            ("lower(x)::varchar(3)", "lower"),
            ("'{1}'::bigint[]", "int8"),
            ("timestamptz '2026-01-01'", "timestamptz"),
            ("interval '1 day'", "interval"),
            ("CASE WHEN a THEN b END", "case"),
            ("CASE WHEN a THEN b ELSE c END", "c"),
            ("CASE WHEN a THEN b ELSE 1 END", "case"),
            ("(CASE WHEN a THEN 1 ELSE 2 END)::int", "int4"),
            ("COALESCE(a, b)", "coalesce"),
            ("nullif(a, b)", "nullif"),
            ("greatest(a, b)", "greatest"),
            ("EXISTS (SELECT 1)", "exists"),
            ("ARRAY[1, 2]", "array"),
            ("(1, 2)", "row"),
            ("(SELECT max(x) FROM t)", "max"),
            ("(SELECT 1 AS one)", "one"),
            ("(SELECT 1)", "?column?"),
            ("extract(epoch FROM a)", "extract"),
            ("a AT TIME ZONE 'UTC'", "timezone"),
            ("substring(a FROM 1 FOR 2)", "substring"),
            ("trim(a)", "btrim"),
            ("trim(leading 'x' from a)", "ltrim"),
            ("a LIKE 'b'", "?column?"),
            ("a IS NULL", "?column?"),
            ("a IN (1, 2)", "?column?"),
            ("current_timestamp", "current_timestamp"),
            ("now()::date", "now"),
            ("a[1]", "a"),
        ] {
            let parsed = parse(&format!("SELECT {expr} FROM t")).unwrap_or_else(|e| panic!("{expr}: {e}"));
            let Statement::Query(query) = &parsed[0].statement else { panic!("{expr} is in no query") };
            let SetExpr::Select(select) = query.body.as_ref() else { panic!("{expr} is in no SELECT") };
            let SelectItem::UnnamedExpr(parsed) = &select.projection[0] else { panic!("{expr} has a name") };
            assert_eq!(column_name(parsed), name, "{expr}");
        }
    }
}
