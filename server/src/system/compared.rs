//! Comparisons in catalog queries, typed as PostgreSQL types them: a literal takes the type of the column beside it.
//!
//! ```text
//! indisprimary = 'f'                        indisprimary = false
//! typinput = 'array_in'::regproc            typinput = 'array_in': a function is kept as its name
//! typreceive <> 0                           typreceive <> '-'
//! oid = $1                                  a parameter that is an oid
//! ```

use super::{columns::is_oid, inventory::SYSTEM, regclass::Reg, vacancy::last_part};
use arrow::datatypes::DataType;
use sqlparser::ast::{Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Value};
use std::{collections::HashMap, sync::LazyLock};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bool,
    Oid,
    /// A function, kept as its name.
    Function,
}

/// Columns that hold functions.
const FUNCTIONS: [&str; 14] = [
    "typsubscript",
    "typinput",
    "typoutput",
    "typreceive",
    "typsend",
    "typmodin",
    "typmodout",
    "typanalyze",
    "amhandler",
    "prosupport",
    "aggtransfn",
    "aggfinalfn",
    "rngcanonical",
    "rngsubdiff",
];

/// The columns of `pg_catalog` by name: PostgreSQL gives those of a table a prefix of their own, so that a name has one type.
static KINDS: LazyLock<HashMap<String, Kind>> = LazyLock::new(|| {
    let fields = SYSTEM.get("pg_catalog").into_iter().flatten().flat_map(|table| table.schema.fields());
    let of_type = |field: &arrow::datatypes::Field| match field.data_type() {
        DataType::Boolean => Some(Kind::Bool),
        _ if is_oid(field) => Some(Kind::Oid),
        _ => None,
    };
    let mut kinds: HashMap<String, Kind> =
        fields.filter_map(|field| Some((field.name().clone(), of_type(field)?))).collect();
    kinds.extend(FUNCTIONS.map(|name| (name.to_string(), Kind::Function)));
    kinds
});

fn kind(expr: &Expr) -> Option<Kind> {
    let column = match expr {
        Expr::Identifier(ident) => ident,
        Expr::CompoundIdentifier(parts) => parts.last()?,
        Expr::Nested(inner) => return kind(inner),
        _ => return None,
    };
    KINDS.get(&column.value.to_lowercase()).copied()
}

/// Whether the expression is a column that has OIDs.
pub fn is_oid_column(expr: &Expr) -> bool {
    kind(expr) == Some(Kind::Oid)
}

/// Gives the literal on either side of a comparison the type of the column on the other.
pub fn settle(left: &mut Expr, right: &mut Expr) {
    let settled = |column: &Expr, literal: &Expr| match kind(column)? {
        Kind::Bool => truth(literal).map(Value::Boolean),
        Kind::Function => function(literal).map(Value::SingleQuotedString),
        Kind::Oid => None,
    };
    if let Some(value) = settled(left, right) {
        *right = Expr::Value(value.into());
    } else if let Some(value) = settled(right, left) {
        *left = Expr::Value(value.into());
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

fn truth(literal: &Expr) -> Option<bool> {
    match string(literal)?.to_lowercase().as_str() {
        "t" | "true" | "yes" | "on" | "1" => Some(true),
        "f" | "false" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

/// The name that a literal says: `'array_in'::regproc` has become a call by now, and 0 is no function.
fn function(literal: &Expr) -> Option<String> {
    match literal {
        Expr::Value(value) if matches!(&value.value, Value::Number(number, _) if number == "0") => {
            Some("-".to_string())
        }
        Expr::Function(call) if last_part(&call.name) == Reg::Proc.functions().0 => {
            let FunctionArguments::List(list) = &call.args else { return None };
            let [FunctionArg::Unnamed(FunctionArgExpr::Expr(written))] = list.args.as_slice() else { return None };
            let written = string(written)?;
            Some(written.strip_prefix("pg_catalog.").unwrap_or(written).to_string())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sqlparser::{dialect::PostgreSqlDialect, parser::Parser};

    #[test]
    fn a_literal_takes_the_type_of_the_column_beside_it() {
        for (sql, expected) in [
            ("indisprimary = 'f'", "indisprimary = false"),
            ("'t' = ix.indisunique", "true = ix.indisunique"),
            ("typreceive <> 0", "typreceive <> '-'"),
            ("t.typinput = regproc$oid('pg_catalog.array_in')", "t.typinput = 'array_in'"),
            ("relname = 'f'", "relname = 'f'"),
            ("relnatts = 0", "relnatts = 0"),
        ] {
            let mut parser = Parser::new(&PostgreSqlDialect {}).try_with_sql(sql).expect("it tokenizes");
            let mut expr = parser.parse_expr().expect("it parses");
            let Expr::BinaryOp { left, right, .. } = &mut expr else { panic!("{sql}") };
            settle(left, right);
            assert_eq!(expr.to_string(), expected);
        }
    }
}
