//! `INSERT`, read by sqlparser and narrowed to what an append or a replacement by key can be.

use super::{cursor::Cursor, name::in_public};
use crate::{
    PlanError, PlanResult, asof,
    statement::{Insert, OnConflict, Statement},
};
use datafusion::sql::sqlparser::ast;

pub(super) fn insert(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    let start = *c;
    let ast::Statement::Insert(insert) = c.embedded(|parser| parser.parse_statement())? else {
        return Err(start.unexpected());
    };
    narrowed(insert).map(Statement::Insert).map_err(|error| start.place(error))
}

fn narrowed(insert: ast::Insert) -> PlanResult<Insert> {
    let ast::TableObject::TableName(table) = &insert.table else {
        return Err(PlanError::unsupported("INSERT takes the name of a source or table"));
    };
    if insert.returning.is_some() {
        return Err(PlanError::unsupported("RETURNING is not supported").hint("SELECT the rows after the INSERT"));
    }
    if insert.overwrite || insert.or.is_some() || insert.ignore || insert.replace_into || insert.partitioned.is_some() {
        return Err(PlanError::syntax("this form of INSERT is not PostgreSQL's").hint("INSERT INTO name [(columns)] …"));
    }
    let Some(mut query) = insert.source else {
        return Err(PlanError::unsupported("INSERT … DEFAULT VALUES is not supported").hint("give the values"));
    };
    asof::nest_asof(&mut query)?;
    super::embedded::check(&query)?;
    let columns = insert.columns.iter().map(column).collect::<PlanResult<Vec<_>>>()?;
    let (on_conflict, replaces) = match insert.on {
        None => (OnConflict::Error, vec![]),
        Some(ast::OnInsert::OnConflict(conflict)) => on_conflict(conflict)?,
        Some(_) => return Err(PlanError::syntax("ON DUPLICATE KEY is not PostgreSQL's").hint("use ON CONFLICT")),
    };
    Ok(Insert { table: in_public(parts(table)?)?, columns, query, on_conflict, replaces })
}

fn on_conflict(conflict: ast::OnConflict) -> PlanResult<(OnConflict, Vec<String>)> {
    let update = match conflict.action {
        ast::OnConflictAction::DoNothing => return Ok((OnConflict::Nothing, vec![])),
        ast::OnConflictAction::DoUpdate(update) => update,
    };
    let whole_row = || {
        PlanError::unsupported("ON CONFLICT DO UPDATE can only replace the whole row")
            .hint("ON CONFLICT (key) DO UPDATE SET a = excluded.a, b = excluded.b, … for every other column")
    };
    let Some(ast::ConflictTarget::Columns(key)) = conflict.conflict_target else { return Err(whole_row()) };
    if update.selection.is_some() {
        return Err(whole_row());
    }
    let mut replaces: Vec<String> = key.iter().map(fold).collect();
    for assignment in &update.assignments {
        let ast::AssignmentTarget::ColumnName(target) = &assignment.target else { return Err(whole_row()) };
        let target = column(target)?;
        let ast::Expr::CompoundIdentifier(value) = &assignment.value else { return Err(whole_row()) };
        if value.iter().map(fold).collect::<Vec<_>>() != ["excluded".to_string(), target.clone()] {
            return Err(whole_row());
        }
        if !replaces.contains(&target) {
            replaces.push(target);
        }
    }
    Ok((OnConflict::Replace, replaces))
}

fn fold(ident: &ast::Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

fn parts(name: &ast::ObjectName) -> PlanResult<Vec<String>> {
    let part = |part: &ast::ObjectNamePart| part.as_ident().map(fold);
    name.0.iter().map(part).collect::<Option<Vec<_>>>().ok_or_else(|| PlanError::syntax(format!("invalid name {name}")))
}

fn column(name: &ast::ObjectName) -> PlanResult<String> {
    let mut parts = parts(name)?;
    match (parts.pop(), parts.is_empty()) {
        (Some(column), true) => Ok(column),
        _ => Err(PlanError::unsupported(format!("column \"{name}\" cannot be qualified here"))),
    }
}
