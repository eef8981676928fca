//! Statements about an existing object: `DROP`, `ALTER`, `COMMENT`, `DESCRIBE`.

use super::{cursor::Cursor, name::in_public};
use crate::{PlanError, PlanResult, statement::Statement};
use datafusion::sql::sqlparser::tokenizer::Token;
use tidemark_catalog::ObjectKind;

/// `SOURCE`, `TABLE`, `FEATURE VIEW` or `VIEW`, if that is what is here.
pub(super) fn kind(c: &mut Cursor<'_>) -> Option<ObjectKind> {
    if c.eat("SOURCE") {
        Some(ObjectKind::Source)
    } else if c.eat("TABLE") {
        Some(ObjectKind::Table)
    } else if c.eat_all(&["FEATURE", "VIEW"]) {
        Some(ObjectKind::FeatureView)
    } else if c.eat("VIEW") {
        Some(ObjectKind::View)
    } else {
        None
    }
}

/// The kinds of objects PostgreSQL has and we do not.
const UNKNOWN_KINDS: &[&str] = &[
    "MATERIALIZED",
    "INDEX",
    "SCHEMA",
    "ROLE",
    "USER",
    "DATABASE",
    "SEQUENCE",
    "TYPE",
    "FUNCTION",
    "EXTENSION",
    "TRIGGER",
    "PROCEDURE",
    "AGGREGATE",
    "DOMAIN",
    "POLICY",
    "SYSTEM",
    "DEFAULT",
    "OWNED",
    "CONSTRAINT",
    "GROUP",
];

fn expect_kind(c: &mut Cursor<'_>, verb: &str) -> PlanResult<ObjectKind> {
    if let Some(kind) = kind(c) {
        return Ok(kind);
    }
    Err(match c.keyword(0).filter(|word| UNKNOWN_KINDS.contains(&word.as_str())) {
        Some(word) => c.place(
            PlanError::unsupported(format!("{verb} {word} is not supported"))
                .hint(format!("{verb} SOURCE, TABLE, FEATURE VIEW and VIEW are")),
        ),
        None => c.unexpected(),
    })
}

pub(super) fn drop(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    c.expect("DROP")?;
    let kind = expect_kind(c, "DROP")?;
    let if_exists = c.if_exists();
    let mut names = vec![c.object_name()?];
    while c.eat_token(&Token::Comma) {
        names.push(c.object_name()?);
    }
    let cascade = c.eat("CASCADE");
    if !cascade {
        c.eat("RESTRICT");
    }
    Ok(Statement::Drop { kind, if_exists, names, cascade })
}

pub(super) fn alter(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    c.expect("ALTER")?;
    let kind = expect_kind(c, "ALTER")?;
    let if_exists = c.if_exists();
    let name = c.object_name()?;
    let action = *c;
    if c.eat_all(&["RENAME", "TO"]) {
        let to = c.identifier()?;
        return Ok(Statement::Rename { kind, if_exists, name, to });
    }
    if c.at("SET") && c.peek(1) == Some(&Token::LParen) && kind != ObjectKind::View {
        c.skip();
        let options = c.options()?;
        return Ok(Statement::SetOptions { kind, if_exists, name, options });
    }
    if c.eat_all(&["ADVANCE", "WATERMARK", "TO"]) {
        if !matches!(kind, ObjectKind::Source | ObjectKind::Table) {
            return Err(action.place(
                PlanError::unsupported(format!("a {kind} has no watermark of its own"))
                    .hint("ALTER SOURCE … ADVANCE WATERMARK TO … on the source that it reads"),
            ));
        }
        let to = Box::new(c.expr()?);
        return Ok(Statement::AdvanceWatermark { if_exists, name, to });
    }
    if kind == ObjectKind::FeatureView && c.eat("RESUME") {
        return Ok(Statement::Resume { if_exists, name });
    }
    let known =
        ["ADD", "ALTER", "DROP", "RENAME", "PAUSE", "RESUME", "OWNER", "SET", "RESET", "ENABLE", "DISABLE", "CLUSTER"];
    match c.keyword(0).filter(|word| known.contains(&word.as_str())) {
        Some(word) => {
            let verb = kind.to_string().to_uppercase();
            Err(action.place(
                PlanError::unsupported(format!("ALTER {verb} … {word} is not supported in this form")).hint(
                    match kind {
                        ObjectKind::View => format!("ALTER {verb} … RENAME TO is"),
                        ObjectKind::FeatureView => {
                            format!("ALTER {verb} … RENAME TO, SET ( option = value ) and RESUME are")
                        }
                        _ => format!("ALTER {verb} … RENAME TO, SET ( option = value ) and ADVANCE WATERMARK TO are"),
                    },
                ),
            ))
        }
        None => Err(c.unexpected()),
    }
}

pub(super) fn comment(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    c.expect("COMMENT")?;
    c.expect("ON")?;
    let (kind, name, column) = if c.eat("COLUMN") {
        let start = *c;
        let mut parts = c.path()?;
        let column = parts.pop();
        if parts.is_empty() {
            return Err(start.place(PlanError::syntax("column name must be qualified").hint("write object.column")));
        }
        (None, in_public(parts).map_err(|error| start.place(error))?, column)
    } else {
        (Some(expect_kind(c, "COMMENT ON")?), c.object_name()?, None)
    };
    c.expect("IS")?;
    let text = if c.eat("NULL") { None } else { Some(c.string()?) };
    // PostgreSQL: an empty comment is none
    let text = text.filter(|text| !text.is_empty());
    Ok(Statement::Comment { kind, name, column, text })
}

pub(super) fn describe(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    c.skip();
    // an object may itself be called "source" or "view"
    if c.peek(1).is_some_and(|next| *next != Token::Period) {
        kind(c);
    }
    Ok(Statement::Describe { name: c.object_name()? })
}
