//! `CREATE INDEX` and `DROP INDEX`, which clients send: nothing is made of them, so little of them is kept.

use super::cursor::Cursor;
use crate::{
    PlanResult,
    statement::{CreateIndex, Statement},
};
use datafusion::sql::sqlparser::tokenizer::Token;

/// Behind `CREATE [UNIQUE] INDEX`: `[CONCURRENTLY] [[IF NOT EXISTS] name] ON [ONLY] table [USING method] (item, …) …`
pub(super) fn create(c: &mut Cursor<'_>, unique: bool) -> PlanResult<Statement> {
    c.eat("CONCURRENTLY");
    let named = c.if_not_exists() || !c.at("ON");
    // It would be beside its table.
    let name = if named { c.path()?.pop() } else { None };
    c.expect("ON")?;
    c.eat("ONLY");
    let table = c.object_name()?;
    if c.eat("USING") {
        c.identifier()?;
    }
    let mut columns = vec![];
    c.list(|item| {
        columns.push(column(item)?);
        Ok(())
    })?;
    // What a btree would be like.
    if ["INCLUDE", "NULLS", "WITH", "TABLESPACE", "WHERE"].iter().any(|word| c.at(word)) {
        c.at = c.end;
    }
    Ok(Statement::CreateIndex(CreateIndex { name, table, unique, columns }))
}

/// `name [order]`; `None`: an expression.
fn column(c: &mut Cursor<'_>) -> PlanResult<Option<String>> {
    let start = *c;
    let is_name = matches!(c.peek(0), Some(Token::Word(_))) && !matches!(c.peek(1), Some(Token::LParen));
    let name = if is_name { Some(c.identifier()?) } else { None };
    let mut depth = 0i32;
    while let Some(token) = c.peek(0) {
        match token {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            Token::Comma if depth == 0 => break,
            _ => {}
        }
        c.skip();
    }
    if c.at == start.at { Err(c.unexpected()) } else { Ok(name) }
}

/// Behind `DROP INDEX`: `[CONCURRENTLY] [IF EXISTS] name, … [CASCADE | RESTRICT]`
pub(super) fn drop(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    c.eat("CONCURRENTLY");
    let if_exists = c.if_exists();
    let mut names = vec![c.object_name()?];
    while c.eat_token(&Token::Comma) {
        names.push(c.object_name()?);
    }
    let _ = c.eat("CASCADE") || c.eat("RESTRICT");
    Ok(Statement::DropIndex { if_exists, names })
}
