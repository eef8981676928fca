//! `SELECT *, n` and `SELECT a.*, *`: which names are there twice is only known when the wildcards are written out.

use super::name_columns;
use datafusion::{
    common::SchemaError,
    error::DataFusionError,
    logical_expr::LogicalPlan,
    sql::sqlparser::ast::{
        Expr, GroupByExpr, Ident, Query, Select, SelectItem, SetExpr, Values, helpers::attached_token::AttachedToken,
    },
};

/// Whether planning failed because two columns have one name.
pub fn is_duplicate(error: &DataFusionError) -> bool {
    match error.find_root() {
        DataFusionError::SchemaError(schema, _) => matches!(
            schema.as_ref(),
            SchemaError::DuplicateQualifiedField { .. } | SchemaError::DuplicateUnqualifiedField { .. }
        ),
        DataFusionError::Plan(message) => message.contains("require unique expression names"),
        _ => false,
    }
}

/// The columns of a plan: the parts of each one's qualifier, and its name.
pub fn columns_of(plan: &LogicalPlan) -> Vec<Vec<String>> {
    let parts = plan.schema().iter().map(|(qualifier, field)| {
        let qualifier = qualifier.map(|table| table.to_vec()).unwrap_or_default();
        qualifier.into_iter().chain([field.name().clone()]).collect()
    });
    parts.collect()
}

/// Writes out the wildcards of the SELECT (or SELECTs) that the result comes from, and names their columns; `columns_of`
/// binds a query and gives its columns, with the parts of their qualifiers.
pub fn expand<E>(query: &mut Query, columns_of: &mut dyn FnMut(Query) -> Result<Vec<Vec<String>>, E>) -> Result<(), E> {
    let empty = Values { explicit_row: false, value_keyword: false, rows: vec![] };
    let frame = Query { body: Box::new(SetExpr::Values(empty)), order_by: None, ..query.clone() };
    let frame = Query { limit_clause: None, fetch: None, ..frame };
    each(&mut query.body, &mut |select| {
        let mut items = vec![];
        for item in std::mem::take(&mut select.projection) {
            if !matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)) {
                items.push(item);
                continue;
            }
            let probe = SetExpr::Select(Box::new(bare(select, item)));
            for parts in columns_of(Query { body: Box::new(probe), ..frame.clone() })? {
                let mut parts: Vec<Ident> = parts.into_iter().map(|part| Ident::with_quote('"', part)).collect();
                items.push(SelectItem::UnnamedExpr(match parts.len() {
                    1 => Expr::Identifier(parts.remove(0)),
                    _ => Expr::CompoundIdentifier(parts),
                }));
            }
        }
        select.projection = items;
        Ok(())
    })?;
    name_columns(query);
    Ok(())
}

fn each<E>(body: &mut SetExpr, action: &mut dyn FnMut(&mut Select) -> Result<(), E>) -> Result<(), E> {
    match body {
        SetExpr::Select(select) => action(select),
        SetExpr::Query(query) => each(&mut query.body, action),
        SetExpr::SetOperation { left, right, .. } => {
            each(left, action)?;
            each(right, action)
        }
        _ => Ok(()),
    }
}

/// The wildcard alone over the same relations.
fn bare(select: &Select, wildcard: SelectItem) -> Select {
    Select {
        projection: vec![wildcard],
        from: select.from.clone(),
        distinct: None,
        selection: None,
        group_by: GroupByExpr::Expressions(vec![], vec![]),
        having: None,
        qualify: None,
        named_window: vec![],
        select_token: AttachedToken::empty(),
        ..select.clone()
    }
}
