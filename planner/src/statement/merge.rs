//! `MERGE`: the query that says of each row what becomes of it, and the clauses that it chooses from.

use datafusion::sql::sqlparser::ast::{self, Expr, SelectItem};
use tidemark_catalog::QualifiedName;

/// `[WITH …] MERGE INTO name [AS alias] USING source ON condition WHEN [NOT] MATCHED [AND condition] THEN …`
#[derive(Debug, Clone, PartialEq)]
pub struct Merge {
    pub table: QualifiedName,
    /// What the statement calls the table.
    pub alias: String,
    pub clauses: Vec<MergeClause>,
    /// `SELECT alias.*, clause, value, … FROM "$rows".name AS alias RIGHT JOIN source ON …`: the place of each row and the row,
    /// NULL where none matches; which clause it is for, counted from 0, NULL for none; the values of all clauses in their order,
    /// each computed only for the rows of its clause.
    pub query: Box<ast::Query>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct MergeClause {
    pub action: MergeAction,
    /// Those that are named, of an UPDATE as many as it has values.
    pub columns: Vec<String>,
    /// How many of the query's values are its own.
    pub values: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MergeAction {
    Nothing,
    Delete,
    Update,
    Insert,
}

impl Merge {
    /// The column of the query that says which clause a row is for.
    pub const CLAUSE: &str = "$clause";

    pub fn does(&self, action: MergeAction) -> bool {
        self.clauses.iter().any(|clause| clause.action == action)
    }

    /// The values of all clauses in their order.
    pub fn values(&self) -> Vec<&Expr> {
        let ast::SetExpr::Select(select) = self.query.body.as_ref() else { return vec![] };
        let values = select.projection.iter().filter_map(|item| match item {
            SelectItem::ExprWithAlias { expr, alias } if alias.value != Merge::CLAUSE => Some(expr),
            _ => None,
        });
        values.collect()
    }

    /// The same, to be written anew.
    pub fn values_mut(query: &mut ast::Query) -> Vec<&mut Expr> {
        let ast::SetExpr::Select(select) = query.body.as_mut() else { return vec![] };
        let values = select.projection.iter_mut().filter_map(|item| match item {
            SelectItem::ExprWithAlias { expr, alias } if alias.value != Merge::CLAUSE => Some(expr),
            _ => None,
        });
        values.collect()
    }
}
