//! Catalog queries in PostgreSQL's full dialect, turned into what DataFusion's planner reads.
//!
//! Only statements that [`concerns`] says so are rewritten; a user's own queries never are. What changes:
//!
//! ```text
//! pg_catalog.f(x)                      f(x)
//! x OPERATOR(pg_catalog.~) y           x ~ y
//! x COLLATE c                          x
//! x::pg_catalog.text, x::oid           casts to types the planner knows
//! x::regclass                          the OID of a name, or the name of an OID where it is shown or cast to text
//! (SELECT a FROM … WHERE …)            (SELECT first_value(a) FROM … WHERE …): at most one row, and decorrelates
//! ARRAY(SELECT a FROM …)               (SELECT array_agg(a) FROM …)
//! a subquery over an empty table       NULL, false or an empty array
//! generate_subscripts(a, 1)            unnest(…) of a list of them (`row_lists.rs`)
//! FROM pg_show_all_settings()          the relation that it is (`from_functions.rs`)
//! indisprimary = 'f'                   indisprimary = false (`compared.rs`)
//! x = ANY (ARRAY(SELECT …))            x IN (SELECT …)
//! substring(x FROM 'a(.*)b')           the first group that the pattern finds
//! pg_listening_channels()              the same, in FROM in a subquery
//! i.indkey[0]                          i.indkey[(0) + 1]: PostgreSQL's vectors begin at 0
//! 'pg_…' = ANY (ARRAY(WITH RECURSIVE … pg_auth_members …))    false: no role is predefined
//! c.tableoid, c.xmin                   the OID of that catalog table, and 2
//! FROM t CROSS JOIN UNNEST(a) AS k     a SELECT that unnests (`lateral.rs`)
//! ```

use super::{
    compared, from_functions, functions, introspection, lateral, regclass::Reg, row_json, row_lists, tableoid, vacancy,
};
use crate::wire::types::{by_name, oid};
use sqlparser::ast::{
    AccessExpr, Array, ArrayElemTypeDef, BinaryOperator, CastKind, DataType, Expr, Function, FunctionArg,
    FunctionArgExpr, FunctionArgumentClause, FunctionArgumentList, FunctionArguments, GroupByExpr, Ident, ObjectName,
    OrderByKind, Query, Select, SelectItem, SetExpr, Subscript, TableFactor, TimezoneInfo, Value, Visit, VisitMut,
    Visitor, VisitorMut,
};
use sqlparser::{dialect::PostgreSqlDialect, parser::Parser};
use std::{collections::BTreeMap, ops::ControlFlow};
use tidemark_planner::names::column_name;

/// Whether a query asks about the catalog: it reads one of its tables, calls one of its functions, or writes its types
/// or operators.
pub fn concerns(query: &Query) -> bool {
    struct Search;
    impl Visitor for Search {
        type Break = ();

        fn pre_visit_relation(&mut self, name: &ObjectName) -> ControlFlow<()> {
            if is_system_relation(name) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            let concerned = match expr {
                Expr::Function(f) => {
                    qualifier_is_system(&f.name)
                        || row_json::is_called(f)
                        || functions::NAMES.contains(&vacancy::last_part(&f.name))
                        || vacancy::last_part(&f.name) == CHANNELS
                        || matches!(f.args, FunctionArguments::Subquery(_))
                }
                Expr::Cast { data_type, .. } => !matches!(target(data_type), Target::Same),
                Expr::BinaryOp { op: BinaryOperator::PGCustomBinaryOperator(_), .. } | Expr::Collate { .. } => true,
                Expr::Identifier(ident) => is_value_word(ident),
                _ => false,
            };
            if concerned { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
    }
    query.visit(&mut Search).is_break()
}

fn parameter_number(expr: &Expr) -> Option<usize> {
    let Expr::Value(value) = expr else { return None };
    let Value::Placeholder(placeholder) = &value.value else { return None };
    placeholder.strip_prefix('$')?.parse().ok()
}

/// The types that a query gives its parameters by a cast (`$1::oid[]`) or by comparing them with an OID, by number: what a
/// client should be told where it did not say itself. To be asked before [`rewrite`], which writes other types.
pub fn declared_parameters(query: &Query) -> BTreeMap<usize, u32> {
    struct Search(BTreeMap<usize, u32>);
    impl Visitor for Search {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            if let Expr::BinaryOp { left, op: BinaryOperator::Eq, right } = expr {
                for (column, parameter) in [(left, right), (right, left)] {
                    if let Some(number) = parameter_number(parameter).filter(|_| compared::is_oid_column(column)) {
                        self.0.entry(number).or_insert(oid::OID);
                    }
                }
            }
            if let Expr::Cast { expr, data_type, .. } = expr
                && let Some(number) = parameter_number(expr)
            {
                let name = data_type.to_string().to_lowercase().replace("pg_catalog.", "");
                let name = match data_type {
                    // A name to be looked up arrives as text: `'pg_class'`, not an OID.
                    _ if matches!(target(data_type), Target::Reg(_)) => "text",
                    // SQL's `char` is a text; the one byte that the catalog's columns have is `"char"`.
                    DataType::Char(_) => "bpchar",
                    _ => &name,
                };
                if let Some(ty) = by_name(name) {
                    self.0.entry(number).or_insert(ty.oid);
                }
            }
            ControlFlow::Continue(())
        }
    }
    let mut search = Search(BTreeMap::new());
    let _ = query.visit(&mut search);
    search.0
}

/// Rewrites a query that concerns the catalog, and leaves any other as it is; says which.
pub fn rewrite(query: &mut Query) -> bool {
    if !concerns(query) {
        return false;
    }
    introspection::answer(query);
    shown(&mut query.body);
    let _ = VisitMut::visit(query, &mut Rewriting);
    true
}

fn is_system_relation(name: &ObjectName) -> bool {
    let parts: Vec<String> = name.0.iter().filter_map(|p| p.as_ident()).map(|i| i.value.to_lowercase()).collect();
    match parts.as_slice() {
        [table] => table.starts_with("pg_"),
        [.., schema, _] => schema == "pg_catalog" || schema == "information_schema",
        [] => false,
    }
}

fn qualifier_is_system(name: &ObjectName) -> bool {
    name.0.len() > 1 && is_system_relation(name)
}

/// Words that PostgreSQL reads as values and sqlparser as columns.
fn is_value_word(ident: &Ident) -> bool {
    ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case("current_schema")
}

/// What a cast's type becomes.
enum Target {
    Same,
    Other(DataType),
    Reg(Reg),
}

fn target(data_type: &DataType) -> Target {
    match data_type {
        DataType::Regclass => Target::Reg(Reg::Class),
        DataType::Array(ArrayElemTypeDef::SquareBracket(inner, size)) => {
            let inner = match target(inner) {
                Target::Same => return Target::Same,
                Target::Other(inner) => inner,
                Target::Reg(_) => DataType::BigInt(None),
            };
            Target::Other(DataType::Array(ArrayElemTypeDef::SquareBracket(Box::new(inner), *size)))
        }
        DataType::Custom(name, _) => {
            let name = vacancy::last_part(name);
            if let Some(reg) = Reg::of(&name) {
                return Target::Reg(reg);
            }
            Target::Other(match name.as_str() {
                "text" | "name" | "char" | "bpchar" | "varchar" | "cstring" | "pg_node_tree" | "sql_identifier"
                | "character_data" | "yes_or_no" | "json" | "aclitem" => DataType::Text,
                "oid" | "xid" | "int8" => DataType::BigInt(None),
                "int4" | "cardinal_number" => DataType::Integer(None),
                "int2" => DataType::SmallInt(None),
                "float4" => DataType::Real,
                "float8" => DataType::DoublePrecision,
                "bool" => DataType::Boolean,
                "timestamptz" => DataType::Timestamp(None, TimezoneInfo::Tz),
                "int2vector" => bracketed(DataType::SmallInt(None)),
                "oidvector" => bracketed(DataType::BigInt(None)),
                _ => return Target::Same,
            })
        }
        _ => Target::Same,
    }
}

fn bracketed(inner: DataType) -> DataType {
    DataType::Array(ArrayElemTypeDef::SquareBracket(Box::new(inner), None))
}

pub fn call(name: &str, args: Vec<Expr>, clauses: Vec<FunctionArgumentClause>) -> Expr {
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: args.into_iter().map(|arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg))).collect(),
            clauses,
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    })
}

fn cast(expr: Expr, data_type: DataType) -> Expr {
    Expr::Cast { kind: CastKind::Cast, expr: Box::new(expr), data_type, array: false, format: None }
}

fn null_text() -> Expr {
    cast(Expr::Value(Value::Null.into()), DataType::Text)
}

fn empty_texts() -> Expr {
    cast(Expr::Array(Array { elem: vec![], named: true }), bracketed(DataType::Text))
}

fn false_value() -> Expr {
    Expr::Value(Value::Boolean(false).into())
}

fn take(expr: &mut Expr) -> Expr {
    std::mem::replace(expr, Expr::Value(Value::Null.into()))
}

/// The select lists whose columns the client sees: what it reads there as `regclass` is a name, and what becomes a call
/// keeps the name it was written with.
fn shown(body: &mut SetExpr) {
    match body {
        SetExpr::Select(select) => shown_columns(select),
        SetExpr::SetOperation { left, right, .. } => {
            shown(left);
            shown(right);
        }
        SetExpr::Query(query) => shown(&mut query.body),
        _ => {}
    }
}

fn shown_columns(select: &mut Select) {
    for item in &mut select.projection {
        let (SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) = item else { continue };
        let name = column_name(expr);
        if let Expr::Cast { expr: inner, data_type, .. } = expr
            && let Target::Reg(reg) = target(data_type)
        {
            *expr = call(reg.functions().1, vec![take(inner)], vec![]);
        }
        if let SelectItem::UnnamedExpr(expr) = item
            && column(expr).is_none_or(|ident| is_value_word(ident) || tableoid::is_hidden(ident))
        {
            *item = SelectItem::ExprWithAlias { expr: take(expr), alias: Ident::with_quote('"', name) };
        }
    }
}

fn column(expr: &Expr) -> Option<&Ident> {
    match expr {
        Expr::Identifier(ident) => Some(ident),
        Expr::CompoundIdentifier(parts) => parts.last(),
        _ => None,
    }
}

/// A function that returns rows, for FROM and for SELECT.
const CHANNELS: &str = "pg_listening_channels";

/// What stands for such a function in FROM.
fn rows_of(function: &str) -> Option<TableFactor> {
    let sql = format!("SELECT * FROM (SELECT {function}() AS {function}) AS {function}");
    let query = Parser::new(&PostgreSqlDialect {}).try_with_sql(&sql).ok()?.parse_query().ok()?;
    let SetExpr::Select(select) = *query.body else { return None };
    Some(select.from.into_iter().next()?.relation)
}

struct Rewriting;

impl VisitorMut for Rewriting {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        tableoid::resolve(select);
        lateral::write_out(select);
        row_json::write_out(select);
        // Nothing inside is ever evaluated, so what the planner cannot read may go.
        if vacancy::reads_nothing(select) {
            let _ = VisitMut::visit(&mut select.projection, &mut Blanking);
            let _ = VisitMut::visit(&mut select.selection, &mut Blanking);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { name, args: Some(_), alias, .. } = factor
            && vacancy::last_part(name) == CHANNELS
            && let Some(mut rows) = rows_of(CHANNELS)
        {
            if let (Some(given), TableFactor::Derived { alias: own, .. }) = (alias.take(), &mut rows) {
                *own = Some(given);
            }
            *factor = rows;
        }
        if let TableFactor::Table { name, args: Some(_), .. } = factor
            && qualifier_is_system(name)
        {
            name.0.drain(..name.0.len() - 1);
        }
        from_functions::answer(factor);
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if asks_for_predefined_role(expr) {
            *expr = false_value();
            return ControlFlow::Continue(());
        }
        if let Expr::AnyOp { left, compare_op: BinaryOperator::Eq, right, .. } = expr
            && let Expr::Function(array) = right.as_mut()
            && matches!(array.args, FunctionArguments::Subquery(_))
            && let FunctionArguments::Subquery(subquery) = std::mem::replace(&mut array.args, FunctionArguments::None)
        {
            *expr = Expr::InSubquery { expr: Box::new(take(left)), subquery, negated: false };
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        rewrite_expr(expr);
        ControlFlow::Continue(())
    }
}

/// `'pg_signal_backend' = ANY (ARRAY(WITH RECURSIVE … pg_auth_members …))`: whether a role has one of PostgreSQL's predefined
/// ones, found by a walk that starts at a row outside. There are none here. pgAdmin asks it when it connects.
fn asks_for_predefined_role(expr: &Expr) -> bool {
    let Expr::AnyOp { left, compare_op: BinaryOperator::Eq, right, .. } = expr else { return false };
    let (Expr::Value(name), Expr::Function(array)) = (left.as_ref(), right.as_ref()) else { return false };
    let FunctionArguments::Subquery(roles) = &array.args else { return false };
    let is_predefined = matches!(&name.value, Value::SingleQuotedString(name) if name.starts_with("pg_"));
    let walks = roles.with.as_ref().is_some_and(|with| with.recursive);
    is_predefined && walks && roles.to_string().contains("pg_auth_members")
}

/// Takes the subqueries out of a SELECT that has no rows.
struct Blanking;

impl VisitorMut for Blanking {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Subquery(_) => *expr = null_text(),
            Expr::Exists { .. } | Expr::InSubquery { .. } => *expr = false_value(),
            Expr::Function(f) if matches!(f.args, FunctionArguments::Subquery(_)) => *expr = empty_texts(),
            Expr::Function(f) if vacancy::last_part(&f.name) == "unnest" => *expr = null_text(),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

fn is_text(expr: &Expr) -> bool {
    matches!(expr, Expr::Value(value) if matches!(value.value, Value::SingleQuotedString(_)))
}

/// The columns of `int2vector` and `oidvector`, whose subscripts begin at 0; those of a list at 1.
const VECTORS: [&str; 5] = ["indkey", "indclass", "indoption", "indcollation", "proargtypes"];

/// `i.indkey[0]`, the first: psqlODBC finds the columns of a primary key so.
fn count_from_one(expr: &mut Expr) {
    let Expr::CompoundFieldAccess { root, access_chain } = expr else { return };
    let Some((AccessExpr::Subscript(Subscript::Index { index }), before)) = access_chain.split_last_mut() else {
        return;
    };
    let vector = match before.last() {
        Some(AccessExpr::Dot(Expr::Identifier(field))) => Some(field),
        Some(_) => None,
        None => column(root),
    };
    if vector.is_some_and(|vector| VECTORS.contains(&vector.value.to_lowercase().as_str())) {
        let (written, one) = (Expr::Nested(Box::new(take(index))), Expr::value(Value::Number("1".to_string(), false)));
        *index = Expr::BinaryOp { left: Box::new(written), op: BinaryOperator::Plus, right: Box::new(one) };
    }
}

fn rewrite_expr(expr: &mut Expr) {
    count_from_one(expr);
    match expr {
        Expr::Identifier(ident) if is_value_word(ident) => {
            let name = ident.value.to_lowercase();
            *expr = call(&name, vec![], vec![]);
        }
        Expr::Collate { expr: inner, .. } => *expr = take(inner),
        // A field of a row: `(x).n` is `(x)['n']` to DataFusion; `t.xs[1]` begins with a table.
        Expr::CompoundFieldAccess { root, access_chain } if !matches!(root.as_ref(), Expr::Identifier(_)) => {
            for access in access_chain {
                if let AccessExpr::Dot(Expr::Identifier(field)) = access {
                    let index = Expr::value(Value::SingleQuotedString(field.value.clone()));
                    *access = AccessExpr::Subscript(Subscript::Index { index });
                }
            }
        }
        Expr::BinaryOp { op, left, right } => {
            if let BinaryOperator::PGCustomBinaryOperator(parts) = op
                && let Some(plain) = parts.last().and_then(|op| operator(op))
            {
                *op = plain;
            }
            if matches!(op, BinaryOperator::Eq | BinaryOperator::NotEq) {
                array_literal(right);
                array_literal(left);
                compared::settle(left, right);
            }
        }
        Expr::Function(f) => {
            if matches!(f.args, FunctionArguments::Subquery(_)) {
                let FunctionArguments::Subquery(mut query) = std::mem::replace(&mut f.args, FunctionArguments::None)
                else {
                    return;
                };
                *expr = if vacancy::is_empty(&query) {
                    empty_texts()
                } else {
                    aggregate_rows(&mut query, "array_agg");
                    Expr::Subquery(query)
                };
                return;
            }
            if qualifier_is_system(&f.name) {
                f.name.0.drain(..f.name.0.len() - 1);
            }
            // A function that returns rows: an array of them, unnested.
            let name = vacancy::last_part(&f.name);
            let channels = (name == CHANNELS).then_some("channels$list");
            if let Some(list) = row_lists::list_of(&name).or(channels) {
                f.name = ObjectName::from(vec![Ident::new(list)]);
                let list = take(expr);
                *expr = call("unnest", vec![list], vec![]);
            }
        }
        Expr::Cast { .. } => rewrite_cast(expr),
        // By a pattern: the first group in it, or all of it, which is what the array begins with.
        Expr::Substring { expr: text, substring_from: Some(pattern), substring_for: None, .. } if is_text(pattern) => {
            let found = call("regexp_match", vec![take(text), take(pattern)], vec![]);
            let first = Expr::Value(Value::Number("1".to_string(), false).into());
            *expr = call("array_element", vec![found, first], vec![]);
        }
        Expr::AnyOp { right, .. } | Expr::AllOp { right, .. } => array_literal(right),
        // The planner's LIKE knows the backslash only.
        Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. } => {
            if let Some(escape) = escape_char.take() {
                **pattern = call("like_escape", vec![take(pattern), Expr::Value(escape)], vec![]);
            }
        }
        Expr::Exists { subquery, negated } if vacancy::is_empty(subquery) => {
            *expr = Expr::Value(Value::Boolean(*negated).into());
        }
        Expr::InSubquery { subquery, negated, .. } if vacancy::is_empty(subquery) => {
            *expr = Expr::Value(Value::Boolean(*negated).into());
        }
        Expr::Subquery(query) if vacancy::is_zero(query) => {
            *expr = cast(Expr::Value(Value::Number("0".to_string(), false).into()), DataType::BigInt(None));
        }
        Expr::Subquery(query) if vacancy::is_null(query) => *expr = null_text(),
        Expr::Subquery(query) if reads_only_the_catalog(query) => aggregate_rows(query, "first_value"),
        _ => {}
    }
}

fn operator(symbol: &str) -> Option<BinaryOperator> {
    Some(match symbol {
        "~" => BinaryOperator::PGRegexMatch,
        "~*" => BinaryOperator::PGRegexIMatch,
        "!~" => BinaryOperator::PGRegexNotMatch,
        "!~*" => BinaryOperator::PGRegexNotIMatch,
        "~~" => BinaryOperator::PGLikeMatch,
        "~~*" => BinaryOperator::PGILikeMatch,
        "!~~" => BinaryOperator::PGNotLikeMatch,
        "!~~*" => BinaryOperator::PGNotILikeMatch,
        "=" => BinaryOperator::Eq,
        "<>" | "!=" => BinaryOperator::NotEq,
        "<" => BinaryOperator::Lt,
        "<=" => BinaryOperator::LtEq,
        ">" => BinaryOperator::Gt,
        ">=" => BinaryOperator::GtEq,
        "+" => BinaryOperator::Plus,
        "-" => BinaryOperator::Minus,
        "*" => BinaryOperator::Multiply,
        "/" => BinaryOperator::Divide,
        "||" => BinaryOperator::StringConcat,
        _ => return None,
    })
}

fn rewrite_cast(expr: &mut Expr) {
    let Expr::Cast { expr: inner, data_type, .. } = expr else { return };
    match target(data_type) {
        Target::Reg(reg) => *expr = call(reg.functions().0, vec![take(inner)], vec![]),
        kind => {
            if let Target::Other(other) = kind {
                *data_type = other;
            }
            if matches!(data_type, DataType::Array(_)) {
                array_literal(inner);
            }
            if matches!(data_type, DataType::Text | DataType::Varchar(_))
                && let Expr::Function(f) = inner.as_mut()
            {
                let called = vacancy::last_part(&f.name);
                if let Some(reg) = Reg::ALL.into_iter().find(|reg| reg.functions().0 == called) {
                    f.name = ObjectName::from(vec![Ident::new(reg.functions().1)]);
                }
            }
        }
    }
}

/// `'{1,2}'` as `ARRAY[1, 2]`; elements that are no numbers only where the text cannot mean anything else.
fn array_literal(expr: &mut Expr) {
    let Expr::Value(value) = &*expr else { return };
    let Value::SingleQuotedString(text) = &value.value else { return };
    let Some(inside) = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')) else { return };
    let elements: Vec<&str> = inside.split(',').map(str::trim).filter(|e| !e.is_empty()).collect();
    let numbers = elements.iter().all(|e| e.parse::<i64>().is_ok());
    let elem = elements
        .iter()
        .map(|e| {
            let value = if numbers {
                Value::Number(e.to_string(), false)
            } else {
                Value::SingleQuotedString(e.trim_matches('"').to_string())
            };
            Expr::Value(value.into())
        })
        .collect();
    *expr = Expr::Array(Array { elem, named: true });
}

/// Whether only catalog tables are read, so that what they hold is known to give at most one row where one is wanted.
fn reads_only_the_catalog(query: &Query) -> bool {
    struct Search {
        system: usize,
        other: usize,
    }
    impl Visitor for Search {
        type Break = ();

        fn pre_visit_relation(&mut self, name: &ObjectName) -> ControlFlow<()> {
            if is_system_relation(name) {
                self.system += 1;
            } else {
                self.other += 1;
            }
            ControlFlow::Continue(())
        }
    }
    let mut search = Search { system: 0, other: 0 };
    let _ = query.visit(&mut search);
    search.system > 0 && search.other == 0
}

/// Turns the rows of a plain SELECT of one column into one row that aggregates them, in their order.
fn aggregate_rows(query: &mut Query, function: &str) {
    let SetExpr::Select(select) = query.body.as_mut() else { return };
    let ungrouped = matches!(&select.group_by, GroupByExpr::Expressions(exprs, _) if exprs.is_empty());
    if !ungrouped || select.having.is_some() || select.distinct.is_some() || vacancy::aggregates(select) {
        return;
    }
    let [SelectItem::UnnamedExpr(item) | SelectItem::ExprWithAlias { expr: item, .. }] =
        select.projection.as_mut_slice()
    else {
        return;
    };
    let by_position = |expr: &Expr| matches!(expr, Expr::Value(v) if matches!(v.value, Value::Number(..)));
    let mut clauses = vec![];
    if let Some(order_by) = query.order_by.take()
        && let OrderByKind::Expressions(mut keys) = order_by.kind
    {
        for key in &mut keys {
            if by_position(&key.expr) {
                key.expr = item.clone();
            }
        }
        clauses.push(FunctionArgumentClause::OrderBy(keys));
    }
    if function == "first_value" {
        query.limit_clause = None;
    }
    *item = call(function, vec![take(item)], clauses);
}
