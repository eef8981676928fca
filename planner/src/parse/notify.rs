//! `LISTEN`, `UNLISTEN`, `NOTIFY`.

use super::cursor::Cursor;
use crate::{PlanResult, statement::Statement};
use datafusion::sql::sqlparser::tokenizer::Token;

pub(super) fn listen(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    c.expect("LISTEN")?;
    Ok(Statement::Listen { channel: c.identifier()? })
}

pub(super) fn unlisten(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    c.expect("UNLISTEN")?;
    let channel = if c.eat_token(&Token::Mul) { None } else { Some(c.identifier()?) };
    Ok(Statement::Unlisten { channel })
}

pub(super) fn notify(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    c.expect("NOTIFY")?;
    let channel = c.identifier()?;
    let payload = if c.eat_token(&Token::Comma) { c.string()? } else { String::new() };
    Ok(Statement::Notify { channel, payload })
}
