//! Point lookups, recognised from the syntax tree alone: no planning.
//!
//! ```sql
//! SELECT a, b AS c | * FROM v [AS x] WHERE k1 = $1 AND k2 = 'x'      -- every column of the entity key, once
//!                                  WHERE k = ANY ($1) | IN ($1, 2)  -- a key of one column
//! ```
//!
//! Expressions, joins and LIMIT over lookups are recognised from the bound plan (`lookup/service.rs`); anything else is planned
//! as a query.

pub mod fingerprint;
pub mod service;
pub mod spine;

use datafusion::sql::sqlparser::ast::{self, Expr, Value};
use tidemark_catalog::{NameRef, Object, ObjectId, Snapshot, SqlType};

#[derive(Debug, Clone, PartialEq)]
pub struct Lookup {
    pub view: ObjectId,
    /// For each row asked, how to find its key: one operand per key column. For `ANY($n)` a single operand.
    pub keys: Keys,
    /// Indices into the view's columns, with the name each is shown under.
    pub projection: Vec<(usize, String)>,
    /// How many parameters the statement has.
    pub parameters: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Keys {
    /// One row: an operand for each key column, in key order.
    One(Vec<Operand>),
    /// Several rows of a one-column key.
    Any(Vec<Operand>),
    /// `= ANY ($n)`: an array parameter.
    AnyParameter(usize),
    /// `= ANY ('{a,b}')`: an array literal.
    AnyLiteral(String),
}

impl Keys {
    fn has_literals(&self) -> bool {
        match self {
            Keys::One(operands) | Keys::Any(operands) => operands.iter().any(|o| matches!(o, Operand::Literal(_))),
            Keys::AnyParameter(_) => false,
            Keys::AnyLiteral(_) => true,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Operand {
    /// 0-based.
    Parameter(usize),
    /// In text form, to be read as the key column's type.
    Literal(String),
}

/// The lookup that `query` is, if it is one.
pub fn recognise(query: &ast::Query, snapshot: &Snapshot) -> Option<Lookup> {
    let plain = query.with.is_none()
        && query.order_by.is_none()
        && query.limit_clause.is_none()
        && query.fetch.is_none()
        && query.locks.is_empty();
    let ast::SetExpr::Select(select) = query.body.as_ref() else { return None };
    let grouped = !matches!(&select.group_by, ast::GroupByExpr::Expressions(e, m) if e.is_empty() && m.is_empty());
    if !plain || select.distinct.is_some() || grouped || select.having.is_some() || select.qualify.is_some() {
        return None;
    }
    let [table] = select.from.as_slice() else { return None };
    let ast::TableFactor::Table { name, alias, args: None, version: None, sample: None, with_hints, .. } =
        &table.relation
    else {
        return None;
    };
    if !table.joins.is_empty() || !with_hints.is_empty() || alias.as_ref().is_some_and(|a| !a.columns.is_empty()) {
        return None;
    }
    let object = object_named(name, snapshot)?;
    let view = object.feature_view()?;
    let known = alias.as_ref().map_or_else(|| object.name.clone(), |a| fold(&a.name));
    let column = |expr: &Expr| -> Option<usize> {
        let name = match expr {
            Expr::Identifier(name) => fold(name),
            Expr::CompoundIdentifier(parts) => match parts.as_slice() {
                [table, name] if fold(table) == known => fold(name),
                _ => return None,
            },
            _ => return None,
        };
        view.columns.iter().position(|c| c.name == name)
    };

    let mut projection = vec![];
    for item in &select.projection {
        match item {
            ast::SelectItem::UnnamedExpr(expr) => {
                let i = column(expr)?;
                projection.push((i, view.columns[i].name.clone()));
            }
            ast::SelectItem::ExprWithAlias { expr, alias } => projection.push((column(expr)?, fold(alias))),
            ast::SelectItem::Wildcard(options) if *options == ast::WildcardAdditionalOptions::default() => {
                projection.extend(view.columns.iter().enumerate().map(|(i, c)| (i, c.name.clone())));
            }
            _ => return None,
        }
    }

    let mut conditions = vec![];
    conjuncts(select.selection.as_ref()?, &mut conditions);
    let keys = match (view.key.as_slice(), conditions.as_slice()) {
        ([key], [Expr::AnyOp { left, compare_op: ast::BinaryOperator::Eq, right, .. }]) if column(left)? == *key => {
            match right.as_ref() {
                Expr::Nested(inner) => any(inner)?,
                right => any(right)?,
            }
        }
        ([key], [Expr::InList { expr, list, negated: false }]) if column(expr)? == *key => {
            Keys::Any(list.iter().map(operand).collect::<Option<_>>()?)
        }
        (key, conditions) if key.len() == conditions.len() => {
            let mut operands: Vec<Option<Operand>> = vec![None; key.len()];
            for condition in conditions {
                let Expr::BinaryOp { left, op: ast::BinaryOperator::Eq, right } = condition else { return None };
                let (i, value) = match (column(left), column(right)) {
                    (Some(i), None) => (i, operand(right)?),
                    (None, Some(i)) => (i, operand(left)?),
                    _ => return None,
                };
                let at = key.iter().position(|k| *k == i)?;
                if operands[at].replace(value).is_some() {
                    return None;
                }
            }
            Keys::One(operands.into_iter().collect::<Option<_>>()?)
        }
        _ => return None,
    };
    // Beside a column of single precision a number is compared in double, a quoted text in single: the plan knows which.
    let is_single = |key: &usize| view.columns[*key].ty == SqlType::Float4;
    if view.key.iter().any(is_single) && keys.has_literals() {
        return None;
    }
    let parameters = parameters(&keys)?;
    Some(Lookup { view: object.id, keys, projection, parameters })
}

/// The relation that a name in a statement means.
pub fn object_named<'a>(name: &ast::ObjectName, snapshot: &'a Snapshot) -> Option<&'a Object> {
    let parts: Vec<String> = name.0.iter().map(|p| p.as_ident().map(fold)).collect::<Option<_>>()?;
    let name = match parts.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [name] => NameRef::from(*name),
        [schema, name] | ["tidemark", schema, name] => NameRef::from((*schema, *name)),
        _ => return None,
    };
    snapshot.get(name).map(|o| o.as_ref())
}

fn fold(ident: &ast::Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

fn conjuncts<'a>(expr: &'a Expr, out: &mut Vec<&'a Expr>) {
    match expr {
        Expr::BinaryOp { left, op: ast::BinaryOperator::And, right } => {
            conjuncts(left, out);
            conjuncts(right, out);
        }
        Expr::Nested(inner) => conjuncts(inner, out),
        other => out.push(other),
    }
}

fn any(expr: &Expr) -> Option<Keys> {
    match expr {
        Expr::Array(array) => Some(Keys::Any(array.elem.iter().map(operand).collect::<Option<_>>()?)),
        Expr::Cast { expr, .. } => any(expr),
        other => match operand(other)? {
            Operand::Parameter(i) => Some(Keys::AnyParameter(i)),
            Operand::Literal(text) => Some(Keys::AnyLiteral(text)),
        },
    }
}

fn operand(expr: &Expr) -> Option<Operand> {
    match expr {
        Expr::Nested(inner) => operand(inner),
        Expr::Value(value) => match &value.value {
            Value::Placeholder(name) => {
                let n: usize = name.strip_prefix('$')?.parse().ok()?;
                Some(Operand::Parameter(n.checked_sub(1)?))
            }
            Value::SingleQuotedString(text) => Some(Operand::Literal(text.clone())),
            Value::Number(text, _) => Some(Operand::Literal(text.clone())),
            _ => None,
        },
        Expr::UnaryOp { op: ast::UnaryOperator::Minus, expr } => match operand(expr)? {
            Operand::Literal(text) if text.starts_with(|c: char| c.is_ascii_digit()) => {
                Some(Operand::Literal(format!("-{text}")))
            }
            _ => None,
        },
        _ => None,
    }
}

/// The parameters must be `$1` … `$n`, each at least once.
fn parameters(keys: &Keys) -> Option<usize> {
    let mut used: Vec<usize> = match keys {
        Keys::One(operands) | Keys::Any(operands) => operands
            .iter()
            .filter_map(|o| match o {
                Operand::Parameter(i) => Some(*i),
                Operand::Literal(_) => None,
            })
            .collect(),
        Keys::AnyParameter(i) => vec![*i],
        Keys::AnyLiteral(_) => vec![],
    };
    used.sort_unstable();
    used.dedup();
    used.iter().enumerate().all(|(i, p)| i == *p).then_some(used.len())
}
