//! `UPDATE` and `DELETE`: the query that finds the rows and what becomes of them; `RETURNING`: the query over what became.

use crate::table::ROWS_SCHEMA;
use datafusion::sql::sqlparser::ast::{
    self, Expr, Ident, ObjectName, SelectItem, SelectItemQualifiedWildcardKind, WildcardAdditionalOptions,
};
use tidemark_catalog::QualifiedName;

/// `UPDATE name [AS alias] SET … [FROM …] [WHERE …] [RETURNING …]`, `DELETE FROM name [AS alias] [USING …] [WHERE …]
/// [RETURNING …]`, either behind `WITH`.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub table: QualifiedName,
    /// What the statement calls the table.
    pub alias: String,
    /// The columns that are set, in the order of the query's last columns; `None`: the rows go.
    pub sets: Option<Vec<String>>,
    /// `SELECT alias.*, value, … FROM "$rows".name AS alias, … WHERE …`: the place of each row, the row, and the new values.
    pub query: Box<ast::Query>,
    pub returning: Option<Vec<SelectItem>>,
}

impl Change {
    pub fn command(&self) -> &'static str {
        if self.sets.is_some() { "UPDATE" } else { "DELETE" }
    }

    /// The expression of each column that is set.
    pub fn values(&self) -> Vec<&Expr> {
        let ast::SetExpr::Select(select) = self.query.body.as_ref() else { return vec![] };
        let values = select.projection.iter().filter_map(|item| match item {
            SelectItem::ExprWithAlias { expr, .. } => Some(expr),
            _ => None,
        });
        values.collect()
    }

    /// The same, to be written anew.
    pub fn values_mut(query: &mut ast::Query) -> Vec<&mut Expr> {
        let ast::SetExpr::Select(select) = query.body.as_mut() else { return vec![] };
        let values = select.projection.iter_mut().filter_map(|item| match item {
            SelectItem::ExprWithAlias { expr, .. } => Some(expr),
            _ => None,
        });
        values.collect()
    }
}

/// Whether a column is to be set to its `DEFAULT`, which whoever knows the table puts in its place.
pub fn is_default(value: &Expr) -> bool {
    matches!(value, Expr::Identifier(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case("default"))
}

/// `"$rows".table` or `"$rows".schema.table`, which has the place of each row as well.
pub fn rows_of(table: &QualifiedName) -> ObjectName {
    let parts = [Some(ROWS_SCHEMA), table.schema.as_deref(), Some(table.name.as_str())];
    ObjectName::from(parts.into_iter().flatten().map(|part| Ident::with_quote('"', part)).collect::<Vec<_>>())
}

/// `alias.*`
pub fn all_of(alias: &str) -> SelectItem {
    let name = ObjectName::from(vec![Ident::with_quote('"', alias)]);
    SelectItem::QualifiedWildcard(
        SelectItemQualifiedWildcardKind::ObjectName(name),
        WildcardAdditionalOptions::default(),
    )
}

/// What `RETURNING` says, with the table's columns in the place of each `*`.
pub fn returned(items: &[SelectItem], alias: &str, columns: &[&str]) -> Vec<SelectItem> {
    let quoted = |name: &str| Ident::with_quote('"', name);
    let all = || {
        columns
            .iter()
            .map(|column| SelectItem::UnnamedExpr(Expr::CompoundIdentifier(vec![quoted(alias), quoted(column)])))
    };
    let mut returned = vec![];
    for item in items {
        match item {
            SelectItem::Wildcard(_) => returned.extend(all()),
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _)
                if name.0.last().and_then(|part| part.as_ident()).is_some_and(|ident| ident.value == alias) =>
            {
                returned.extend(all());
            }
            other => returned.push(other.clone()),
        }
    }
    returned
}
