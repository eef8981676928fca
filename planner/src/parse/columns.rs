//! `ALTER {SOURCE | TABLE} … ADD, DROP, RENAME, ALTER COLUMN`, and the literals that are defaults.

use super::{cursor::Cursor, relation::refuse_constraint};
use crate::{
    PlanError, PlanResult,
    statement::{ColumnChange, ColumnDef},
};
use datafusion::sql::sqlparser::tokenizer::Token;

/// What stands behind the table's name, if it is about columns.
pub(super) fn changes(c: &mut Cursor<'_>) -> PlanResult<Option<Vec<ColumnChange>>> {
    if c.at("RENAME") && !c.at_ahead(1, "CONSTRAINT") {
        c.skip();
        c.eat("COLUMN");
        let name = c.identifier()?;
        c.expect("TO")?;
        return Ok(Some(vec![ColumnChange::Rename { name, to: c.identifier()? }]));
    }
    let mut changes = vec![];
    loop {
        let start = *c;
        if c.eat("ADD") {
            changes.push(add(c)?);
        } else if c.eat("DROP") {
            if c.at("CONSTRAINT") {
                return Err(constraint(c));
            }
            c.eat("COLUMN");
            let if_exists = c.if_exists();
            let name = c.identifier()?;
            let _ = c.eat("CASCADE") || c.eat("RESTRICT");
            changes.push(ColumnChange::Drop { if_exists, name });
        } else if c.eat("ALTER") {
            c.eat("COLUMN");
            let name = c.identifier()?;
            changes.push(ColumnChange::SetDefault { name, value: default(c, "table")? });
        } else if changes.is_empty() {
            return Ok(None);
        } else {
            return Err(start.unexpected());
        }
        if !c.eat_token(&Token::Comma) {
            return Ok(Some(changes));
        }
    }
}

/// `[COLUMN] [IF NOT EXISTS] name type [NOT NULL] [DEFAULT literal]`
fn add(c: &mut Cursor<'_>) -> PlanResult<ColumnChange> {
    for word in ["CONSTRAINT", "PRIMARY", "UNIQUE", "FOREIGN", "CHECK", "EXCLUDE"] {
        // A column may be called "exclude"; the others are reserved.
        if c.at(word) && (word != "EXCLUDE" || c.at_ahead(1, "USING")) {
            return Err(constraint(c));
        }
    }
    c.eat("COLUMN");
    let if_not_exists = c.if_not_exists();
    let name = c.identifier()?;
    let ty = c.sql_type()?;
    let (mut not_null, mut value) = (false, None);
    loop {
        if c.eat_all(&["NOT", "NULL"]) {
            not_null = true;
        } else if c.eat("DEFAULT") {
            value = literal(c, "column")?;
        } else if !c.eat("NULL") {
            refuse_constraint(c)?;
            break;
        }
    }
    Ok(ColumnChange::Add { if_not_exists, column: ColumnDef { name, ty, not_null }, default: value })
}

fn constraint(c: &Cursor<'_>) -> PlanError {
    c.place(
        PlanError::unsupported("constraints of a table cannot be changed")
            .hint("a PRIMARY KEY is declared when the table is created: CREATE TABLE another, and copy the rows"),
    )
}

/// `SET DEFAULT literal | DROP DEFAULT`: the literal's text; the column says how it is read.
pub(super) fn default(c: &mut Cursor<'_>, of: &str) -> PlanResult<Option<String>> {
    if c.eat_all(&["DROP", "DEFAULT"]) {
        return Ok(None);
    }
    let action = *c;
    if !c.eat_all(&["SET", "DEFAULT"]) {
        let hint = match of {
            "feature view" => "SET DEFAULT and DROP DEFAULT; its type and name are what the view's SELECT says",
            _ => {
                "SET DEFAULT and DROP DEFAULT; for another type ADD a column, UPDATE it from this one, and DROP this one"
            }
        };
        return Err(match c.keyword(0) {
            Some(_) => action
                .place(PlanError::unsupported(format!("a column of a {of} can only be given a default")).hint(hint)),
            None => c.unexpected(),
        });
    }
    literal(c, if of == "feature view" { "feature" } else { "column" })
}

/// The text of a literal, `None` for NULL.
pub(super) fn literal(c: &mut Cursor<'_>, of: &str) -> PlanResult<Option<String>> {
    let start = *c;
    if c.eat("NULL") {
        return Ok(None);
    }
    for word in ["TRUE", "FALSE"] {
        if c.eat(word) {
            return Ok(Some(word.to_lowercase()));
        }
    }
    if c.keyword(0).is_none() {
        let value = c.option_value()?;
        return ends(c, start, of).map(|()| Some(value));
    }
    // `INTERVAL '0'`: the column has a type of its own.
    match c.sql_type().is_ok().then(|| c.at_string()).flatten() {
        Some(value) => {
            c.skip();
            ends(c, start, of).map(|()| Some(value))
        }
        None => Err(not_a_literal(start, of)),
    }
}

/// Behind a literal comes nothing that would make an expression of it.
fn ends(c: &Cursor<'_>, start: Cursor<'_>, of: &str) -> PlanResult<()> {
    match c.peek(0) {
        None | Some(Token::Comma | Token::Word(_)) => Ok(()),
        Some(_) => Err(not_a_literal(start, of)),
    }
}

fn not_a_literal(c: Cursor<'_>, of: &str) -> PlanError {
    c.place(PlanError::unsupported(format!("the default of a {of} is not a literal")).hint(format!(
        "write a number, TRUE, FALSE, NULL or a quoted text that reads as the {of}'s type: '2026-01-01', '1 hour'"
    )))
}
