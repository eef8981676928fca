//! `INSERT`, read by sqlparser and narrowed to what an append or a replacement by key can be.

use super::{cursor::Cursor, name::qualified};
use crate::{
    PlanError, PlanResult, asof,
    statement::{Insert, OnConflict, Statement},
};
use datafusion::sql::sqlparser::{ast, tokenizer::Token};

pub(super) fn insert(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    let start = *c;
    if let Some(overriding) = top_level(c, &["OVERRIDING"]) {
        return Err(overriding.place(
            PlanError::unsupported("OVERRIDING is not supported").hint("remove it: there are no identity columns"),
        ));
    }
    // behind a SELECT without FROM sqlparser takes `ON` for an alias, so the clause is cut off first
    let conflict = top_level(c, &["ON", "CONFLICT"]);
    let mut appended = Cursor { end: conflict.map_or(c.end, |clause| clause.at), ..*c };
    let ast::Statement::Insert(insert) = appended.embedded(|parser| parser.parse_statement())? else {
        return Err(start.unexpected());
    };
    c.at = appended.end;
    let mut insert = narrowed(insert).map_err(|error| start.place(error))?;
    if let Some(mut clause) = conflict {
        (insert.on_conflict, insert.replaces) = on_conflict(&mut clause)?;
        if clause.eat("RETURNING") {
            insert.returning =
                Some(clause.embedded(|parser| parser.parse_comma_separated(|parser| parser.parse_select_item()))?);
        }
        *c = clause;
    }
    Ok(Statement::Insert(insert))
}

/// The first place outside parentheses where these words stand.
fn top_level<'a>(c: &Cursor<'a>, keywords: &[&str]) -> Option<Cursor<'a>> {
    let mut depth = 0i32;
    (c.at..c.end).map(|at| Cursor { at, ..*c }).find(|here| {
        match here.peek(0) {
            Some(Token::LParen) => depth += 1,
            Some(Token::RParen) => depth -= 1,
            _ => {}
        }
        depth == 0 && here.at_all(keywords)
    })
}

fn narrowed(insert: ast::Insert) -> PlanResult<Insert> {
    let ast::TableObject::TableName(table) = &insert.table else {
        return Err(PlanError::unsupported("INSERT takes the name of a source or table").hint("INSERT INTO name …"));
    };
    if insert.overwrite
        || insert.or.is_some()
        || insert.ignore
        || insert.replace_into
        || insert.partitioned.is_some()
        || insert.on.is_some()
        || insert.output.is_some()
        || insert.priority.is_some()
        || insert.insert_alias.is_some()
        || insert.settings.is_some()
        || insert.format_clause.is_some()
        || insert.multi_table_insert_type.is_some()
        || !insert.assignments.is_empty()
        || !insert.after_columns.is_empty()
    {
        return Err(PlanError::syntax("this form of INSERT is not PostgreSQL's").hint("INSERT INTO name [(columns)] …"));
    }
    let Some(mut query) = insert.source else {
        return Err(PlanError::unsupported("INSERT … DEFAULT VALUES is not supported").hint("give the values"));
    };
    asof::nest_asof(&mut query)?;
    super::ignored::check(&mut query)?;
    let columns = insert.columns.iter().map(column).collect::<PlanResult<Vec<_>>>()?;
    let table = qualified(parts(table)?)?;
    let returning = insert.returning;
    Ok(Insert { table, columns, query, on_conflict: OnConflict::Error, replaces: vec![], returning })
}

/// `WITH … INSERT …`: the common tables are the query's.
pub(super) fn behind_with(mut insert: ast::Insert, with: Option<ast::With>) -> PlanResult<Insert> {
    if insert.on.is_some() {
        return Err(PlanError::unsupported("ON CONFLICT behind WITH is not supported")
            .hint("write WITH behind the table: INSERT INTO name WITH … SELECT … ON CONFLICT …"));
    }
    if let (Some(query), Some(with)) = (&mut insert.source, with)
        && query.with.replace(with).is_some()
    {
        return Err(PlanError::unsupported("WITH before INSERT and again before its SELECT is not supported")
            .hint("put both into the second"));
    }
    narrowed(insert)
}

/// `ON CONFLICT [(key)] DO NOTHING` or `ON CONFLICT (key) DO UPDATE SET column = excluded.column, …`, with the columns
/// that the second names.
fn on_conflict(c: &mut Cursor<'_>) -> PlanResult<(OnConflict, Vec<String>)> {
    let start = *c;
    let whole_row = || {
        start.place(
            PlanError::unsupported("ON CONFLICT DO UPDATE can only replace the whole row")
                .hint("ON CONFLICT (key) DO UPDATE SET a = excluded.a, b = excluded.b, … for every other column"),
        )
    };
    c.expect("ON")?;
    c.expect("CONFLICT")?;
    let mut replaces = if c.at_token(&Token::LParen) { c.names()? } else { vec![] };
    if c.eat_all(&["ON", "CONSTRAINT"]) {
        c.identifier()?;
    }
    c.expect("DO")?;
    if c.eat("NOTHING") {
        return Ok((OnConflict::Nothing, vec![]));
    }
    c.expect("UPDATE")?;
    c.expect("SET")?;
    if replaces.is_empty() {
        return Err(whole_row());
    }
    loop {
        if c.at_token(&Token::LParen) {
            return Err(whole_row());
        }
        let target = c.identifier()?;
        c.expect_token(&Token::Eq)?;
        let mut value = *c;
        let is_excluded = value.path().is_ok_and(|path| path == ["excluded", &target]);
        let at_end = value.done() || value.at_token(&Token::Comma) || value.at("RETURNING");
        if !(is_excluded && at_end) {
            return Err(if c.done() { c.unexpected() } else { whole_row() });
        }
        *c = value;
        if !replaces.contains(&target) {
            replaces.push(target);
        }
        if !c.eat_token(&Token::Comma) {
            break;
        }
    }
    Ok((OnConflict::Replace, replaces))
}

pub(super) fn fold(ident: &ast::Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

pub(super) fn parts(name: &ast::ObjectName) -> PlanResult<Vec<String>> {
    let part = |part: &ast::ObjectNamePart| part.as_ident().map(fold);
    name.0.iter().map(part).collect::<Option<Vec<_>>>().ok_or_else(|| PlanError::syntax(format!("invalid name {name}")))
}

pub(super) fn column(name: &ast::ObjectName) -> PlanResult<String> {
    let mut parts = parts(name)?;
    match (parts.pop(), parts.is_empty()) {
        (Some(column), true) => Ok(column),
        _ => Err(PlanError::unsupported(format!("column \"{name}\" cannot be qualified here"))),
    }
}
