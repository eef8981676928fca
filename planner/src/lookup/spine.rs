//! The keys that a statement asks for, as rows of its own: each of them has a row in the answer, whoever has been seen.
//!
//! ```sql
//! SELECT k.user_id, u.n FROM unnest($1::bigint[]) k (user_id) LEFT JOIN users u ON u.user_id = k.user_id
//! SELECT u.n, i.n FROM (VALUES ($1::bigint, 'a')) k (user_id, item) LEFT JOIN users u USING (user_id) LEFT JOIN items i USING (item)
//! ```
//!
//! Unlike an `IN` list they keep their order, and a key that is asked for twice, or is NULL, is answered as often.

use super::service::{is_constant, type_of, with_parameters};
use arrow_schema::{DataType, Field};
use datafusion::{
    common::{Column, DFSchema},
    logical_expr::{Expr, LogicalPlan},
    sql::sqlparser::ast,
};
use std::{collections::HashMap, sync::Arc};

/// Rows over parameters.
#[derive(Debug)]
pub struct Spine {
    /// Of each column.
    pub types: Vec<DataType>,
    pub rows: SpineRows,
}

#[derive(Debug)]
pub enum SpineRows {
    /// `VALUES`: an expression for each column.
    Values(Vec<Vec<Expr>>),
    /// `unnest`: the items of an array, in one column.
    Items(Expr),
}

impl Spine {
    pub(crate) fn of(plan: &LogicalPlan) -> Option<Spine> {
        match plan {
            LogicalPlan::Values(values) => {
                let types = values.schema.fields().iter().map(|field| field.data_type().clone()).collect();
                let constant = values.values.iter().flatten().all(is_constant);
                constant.then(|| Spine { types, rows: SpineRows::Values(values.values.clone()) })
            }
            LogicalPlan::Unnest(unnest) => {
                let LogicalPlan::Projection(lists) = unnest.input.as_ref() else { return None };
                let LogicalPlan::EmptyRelation(nothing) = lists.input.as_ref() else { return None };
                let ([list], [(0, unnested)]) = (lists.expr.as_slice(), unnest.list_type_columns.as_slice()) else {
                    return None;
                };
                let list = list.clone().unalias();
                let DataType::List(items) = type_of(&list)? else { return None };
                let plain = nothing.produce_one_row
                    && unnested.depth == 1
                    && unnest.struct_type_columns.is_empty()
                    // An array that is NULL has no items.
                    && !unnest.options.preserve_nulls
                    && is_constant(&list);
                plain.then(|| Spine { types: vec![items.data_type().clone()], rows: SpineRows::Items(list) })
            }
            _ => None,
        }
    }

    /// Its columns, as the service's outputs read them.
    pub(crate) fn columns(&self) -> Vec<Expr> {
        (0..self.types.len()).map(|i| Expr::Column(Column::new_unqualified(name(i)))).collect()
    }

    pub(crate) fn fields(&self) -> impl Iterator<Item = Field> {
        self.types.iter().enumerate().map(|(i, ty)| Field::new(name(i), ty.clone(), true))
    }

    /// Its parameters as columns. `None`: one of them has no type.
    pub(super) fn with_parameters(self) -> Option<Spine> {
        let rows = match self.rows {
            SpineRows::Items(list) => SpineRows::Items(with_parameters(list)?),
            SpineRows::Values(rows) => {
                let row = |row: Vec<Expr>| row.into_iter().map(with_parameters).collect::<Option<Vec<_>>>();
                SpineRows::Values(rows.into_iter().map(row).collect::<Option<_>>()?)
            }
        };
        Some(Spine { rows, ..self })
    }
}

/// The type of an expression over the columns of a spine, if there is one, and over parameters. `None`: it reads others.
pub(crate) fn type_over(spine: Option<&Spine>, expr: &Expr) -> Option<DataType> {
    use datafusion::logical_expr::ExprSchemable;
    let fields = spine.into_iter().flat_map(Spine::fields).map(|field| (None, Arc::new(field))).collect();
    let schema = DFSchema::new_with_metadata(fields, HashMap::new()).ok()?;
    let known = expr.column_refs().iter().all(|column| column.relation.is_none() && schema.has_column(column));
    if !known {
        return None;
    }
    expr.get_type(&schema).ok()
}

/// No column of a view has such a name and no relation.
fn name(i: usize) -> String {
    format!("asked {}", i + 1)
}

/// Whether a relation in FROM may be one.
pub(super) fn may_be(relation: &ast::TableFactor) -> bool {
    match relation {
        ast::TableFactor::UNNEST { array_exprs, with_offset: false, with_ordinality: false, .. } => {
            array_exprs.len() == 1
        }
        ast::TableFactor::Derived { lateral: false, subquery, sample: None, .. } => {
            let plain = subquery.with.is_none() && subquery.order_by.is_none() && subquery.limit_clause.is_none();
            plain
                && match subquery.body.as_ref() {
                    ast::SetExpr::Values(_) => true,
                    ast::SetExpr::Select(select) => select.from.is_empty() && select.selection.is_none(),
                    _ => false,
                }
        }
        _ => false,
    }
}
