//! `DECLARE`, `FETCH`, `MOVE`, `CLOSE`: results that a client takes in portions.

use super::{cursor::Cursor, parsed};
use crate::{
    PlanError, PlanResult,
    statement::{Direction, Statement},
};
use datafusion::sql::sqlparser::tokenizer::Token;

/// `DECLARE name [BINARY] [ASENSITIVE | INSENSITIVE] [NO SCROLL] CURSOR [{WITH | WITHOUT} HOLD] FOR query`; as in
/// PostgreSQL the words before CURSOR come in any order.
pub(super) fn declare(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    c.expect("DECLARE")?;
    let name = c.identifier()?;
    let mut is_binary = false;
    while !c.eat("CURSOR") {
        if c.at("SCROLL") {
            return Err(c.place(
                PlanError::unsupported("SCROLL cursors are not supported")
                    .hint("a cursor reads forward only, as NO SCROLL says; declare another to read again"),
            ));
        }
        let binary = c.eat("BINARY");
        is_binary |= binary;
        if !(binary || c.eat("INSENSITIVE") || c.eat("ASENSITIVE") || c.eat_all(&["NO", "SCROLL"])) {
            return Err(c.unexpected());
        }
    }
    let is_held = c.eat_all(&["WITH", "HOLD"]);
    if !is_held {
        c.eat_all(&["WITHOUT", "HOLD"]);
    }
    c.expect("FOR")?;
    let start = *c;
    let query = Box::new(parsed(*c)?);
    c.at = c.end;
    match query.statement {
        Statement::Query(_) => Ok(Statement::Declare { name, is_binary, is_held, query }),
        _ => Err(start.unexpected()),
    }
}

/// `FETCH` and `MOVE`, both `[direction] [FROM | IN] name`
pub(super) fn fetch(c: &mut Cursor<'_>, moves: bool) -> PlanResult<Statement> {
    c.skip();
    let direction = direction(c)?;
    if !c.eat("FROM") {
        c.eat("IN");
    }
    Ok(Statement::Fetch { cursor: c.identifier()?, direction, moves })
}

fn direction(c: &mut Cursor<'_>) -> PlanResult<Direction> {
    // A word alone is the cursor's name.
    if c.peek(1).is_none() {
        return Ok(Direction::Next(1));
    }
    if let Some(count) = count(c)? {
        return Ok(forward(count));
    }
    for (word, direction) in [
        ("NEXT", Direction::Next(1)),
        ("FIRST", Direction::Absolute(1)),
        ("PRIOR", Direction::Backward),
        ("LAST", Direction::Backward),
    ] {
        if c.eat(word) {
            return Ok(direction);
        }
    }
    if c.eat("FORWARD") {
        return Ok(forward(count(c)?.unwrap_or(1)));
    }
    if c.eat("BACKWARD") {
        // As many rows the other way, which a negative count turns round.
        return Ok(forward(count(c)?.unwrap_or(1).saturating_neg()));
    }
    let relative = c.eat("RELATIVE");
    if relative || c.eat("ABSOLUTE") {
        let at = number(c)?.ok_or_else(|| c.unexpected())?;
        return Ok(match u64::try_from(at) {
            Ok(0) if relative => Direction::Next(0),
            Ok(at @ 1..) if relative => Direction::Relative(at),
            Ok(at @ 1..) => Direction::Absolute(at),
            _ => Direction::Backward,
        });
    }
    Ok(Direction::Next(1))
}

fn forward(count: i64) -> Direction {
    match u64::try_from(count) {
        // ALL is more than there can be.
        Ok(count) if count == i64::MAX as u64 => Direction::Next(u64::MAX),
        Ok(count) => Direction::Next(count),
        Err(_) => Direction::Backward,
    }
}

/// `n` or `ALL`, if one of them is here.
fn count(c: &mut Cursor<'_>) -> PlanResult<Option<i64>> {
    if c.eat("ALL") { Ok(Some(i64::MAX)) } else { number(c) }
}

fn number(c: &mut Cursor<'_>) -> PlanResult<Option<i64>> {
    let is_negative = c.at_token(&Token::Minus);
    if is_negative || c.at_token(&Token::Plus) {
        c.skip();
    } else if !matches!(c.peek(0), Some(Token::Number(..))) {
        return Ok(None);
    }
    let number: i64 = c.number()?;
    Ok(Some(if is_negative { -number } else { number }))
}

pub(super) fn close(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    c.expect("CLOSE")?;
    let name = if c.eat("ALL") { None } else { Some(c.identifier()?) };
    Ok(Statement::Close { name })
}
