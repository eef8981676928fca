//! Statements about an existing object: `DROP`, `ALTER`, `REFRESH`, `COMMENT`, `DESCRIBE`.

use super::{columns, cursor::Cursor, index, name::qualified, reset, role, schema, secret};
use crate::{PlanError, PlanResult, statement::Statement};
use datafusion::sql::sqlparser::tokenizer::Token;
use tidemark_catalog::{ObjectKind, QualifiedName};

/// `SOURCE`, `TABLE`, `FEATURE VIEW` (to PostgreSQL's clients `MATERIALIZED VIEW`), `VIEW`, `AGGREGATE` or `TRAINING SET`, if that is what is
/// here.
pub(super) fn kind(c: &mut Cursor<'_>) -> Option<ObjectKind> {
    if c.eat("SOURCE") {
        Some(ObjectKind::Source)
    } else if c.eat("TABLE") {
        Some(ObjectKind::Table)
    } else if c.eat_all(&["FEATURE", "VIEW"]) || c.eat_all(&["MATERIALIZED", "VIEW"]) {
        Some(ObjectKind::FeatureView)
    } else if c.eat("VIEW") {
        Some(ObjectKind::View)
    } else if c.eat("AGGREGATE") {
        Some(ObjectKind::Aggregate)
    } else if c.eat_all(&["TRAINING", "SET"]) {
        Some(ObjectKind::TrainingSet)
    } else {
        None
    }
}

/// The kinds of objects PostgreSQL has and we do not.
const UNKNOWN_KINDS: &[&str] = &[
    "INDEX",
    "ROLE",
    "USER",
    "SECRET",
    "DATABASE",
    "SEQUENCE",
    "TYPE",
    "FUNCTION",
    "EXTENSION",
    "TRIGGER",
    "PROCEDURE",
    "DOMAIN",
    "POLICY",
    "SYSTEM",
    "DEFAULT",
    "CONSTRAINT",
];

fn expect_kind(c: &mut Cursor<'_>, verb: &str) -> PlanResult<ObjectKind> {
    if let Some(kind) = kind(c) {
        return Ok(kind);
    }
    Err(match c.keyword(0).filter(|word| UNKNOWN_KINDS.contains(&word.as_str())) {
        Some(word) => c.place(
            PlanError::unsupported(format!("{verb} {word} is not supported"))
                .hint(format!("{verb} SOURCE, TABLE, FEATURE VIEW, VIEW, AGGREGATE and TRAINING SET are")),
        ),
        None => c.unexpected(),
    })
}

/// The name of an object that exists. PostgreSQL writes an aggregate's arguments behind it; here they tell nothing.
fn existing(c: &mut Cursor<'_>, kind: ObjectKind) -> PlanResult<QualifiedName> {
    let name = c.object_name()?;
    if kind == ObjectKind::Aggregate && c.at_token(&Token::LParen) {
        return Err(c.unexpected().hint("no two aggregates have one name: write it without its arguments"));
    }
    Ok(name)
}

pub(super) fn drop(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    c.expect("DROP")?;
    if role::word(c).is_some() {
        return role::drop(c);
    }
    if c.eat("SECRET") {
        return secret::drop(c);
    }
    if c.eat("SCHEMA") {
        return schema::drop(c);
    }
    if c.eat("INDEX") {
        return index::drop(c);
    }
    if c.at("OWNED") {
        let error = PlanError::unsupported("DROP OWNED is not supported");
        return Err(c.place(error.hint("REASSIGN OWNED BY … TO …, or DROP each; grants go with DROP ROLE")));
    }
    let kind = expect_kind(c, "DROP")?;
    let if_exists = c.if_exists();
    let mut names = vec![existing(c, kind)?];
    while c.eat_token(&Token::Comma) {
        names.push(existing(c, kind)?);
    }
    let cascade = c.eat("CASCADE");
    if !cascade {
        c.eat("RESTRICT");
    }
    Ok(Statement::Drop { kind, if_exists, names, cascade })
}

/// `REFRESH ONLINE STORE FOR [FEATURE VIEW] name`
pub(super) fn refresh_online_store(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    for word in ["REFRESH", "ONLINE", "STORE", "FOR"] {
        c.expect(word)?;
    }
    c.eat_all(&["FEATURE", "VIEW"]);
    Ok(Statement::RefreshOnlineStore { name: c.object_name()? })
}

/// `REFRESH MATERIALIZED VIEW [CONCURRENTLY] name [WITH DATA]`: there is nothing to do, it is fresh.
pub(super) fn refresh_materialized(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    for word in ["REFRESH", "MATERIALIZED", "VIEW"] {
        c.expect(word)?;
    }
    c.eat("CONCURRENTLY");
    let name = c.object_name()?;
    c.eat_all(&["WITH", "DATA"]);
    Ok(Statement::RefreshView { name })
}

pub(super) fn alter(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    c.expect("ALTER")?;
    if let Some(word) = role::word(c) {
        return role::alter(c, word);
    }
    if c.eat("SECRET") {
        return secret::alter(c);
    }
    if c.eat("SCHEMA") {
        return schema::alter(c);
    }
    if c.at_all(&["DEFAULT", "PRIVILEGES"]) {
        let error = PlanError::unsupported("ALTER DEFAULT PRIVILEGES is not supported");
        return Err(c.place(
            error.hint("members of tidemark_reader may read every view, those of pg_read_all_data everything"),
        ));
    }
    let kind = expect_kind(c, "ALTER")?;
    let if_exists = c.if_exists();
    let name = existing(c, kind)?;
    let action = *c;
    if c.eat_all(&["RENAME", "TO"]) {
        let to = c.identifier()?;
        return Ok(Statement::Rename { kind, if_exists, name, to });
    }
    if c.eat_all(&["OWNER", "TO"]) {
        return Ok(Statement::SetOwner { kind, if_exists, name, to: role::role_name(c)? });
    }
    let has_options = !matches!(kind, ObjectKind::View | ObjectKind::Aggregate);
    if c.at("SET") && c.peek(1) == Some(&Token::LParen) && has_options {
        c.skip();
        let options = c.options()?;
        return Ok(Statement::SetOptions { kind, if_exists, name, options });
    }
    if c.eat_all(&["ADVANCE", "WATERMARK", "TO"]) {
        if !matches!(kind, ObjectKind::Source | ObjectKind::Table) {
            let kind = kind.with_article();
            return Err(action.place(
                PlanError::unsupported(format!("{kind} has no watermark of its own"))
                    .hint("ALTER SOURCE … ADVANCE WATERMARK TO … on the source that it reads"),
            ));
        }
        let to = Box::new(c.expr()?);
        return Ok(Statement::AdvanceWatermark { if_exists, name, to });
    }
    if matches!(kind, ObjectKind::Source | ObjectKind::Table) && c.eat_all(&["RESET", "TO"]) {
        return reset::reset_topic(c, kind, if_exists, name);
    }
    if matches!(kind, ObjectKind::Source | ObjectKind::Table)
        && let Some(changes) = columns::changes(c)?
    {
        return Ok(Statement::AlterColumns { kind, if_exists, name, changes });
    }
    if kind == ObjectKind::FeatureView && c.eat("ALTER") {
        c.eat("COLUMN");
        let column = c.identifier()?;
        let value = columns::default(c, "feature view")?;
        return Ok(Statement::SetDefault { if_exists, name, column, value });
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
                        ObjectKind::View | ObjectKind::Aggregate | ObjectKind::TrainingSet => {
                            format!("ALTER {verb} … RENAME TO and OWNER TO are")
                        }
                        ObjectKind::FeatureView => format!(
                            "ALTER {verb} … RENAME TO, OWNER TO, SET ( option = value ), ALTER COLUMN … SET DEFAULT and RESUME are"
                        ),
                        _ => format!(
                            "ALTER {verb} … ADD, DROP, RENAME and ALTER COLUMN, RENAME TO, OWNER TO, SET ( option = value ), ADVANCE WATERMARK TO and RESET TO are"
                        ),
                    },
                ),
            ))
        }
        None => Err(c.unexpected()),
    }
}

/// `REASSIGN OWNED BY role, … TO role`
pub(super) fn reassign(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    for word in ["REASSIGN", "OWNED", "BY"] {
        c.expect(word)?;
    }
    let mut from = vec![role::role_name(c)?];
    while c.eat_token(&Token::Comma) {
        from.push(role::role_name(c)?);
    }
    c.expect("TO")?;
    Ok(Statement::ReassignOwned { from, to: role::role_name(c)? })
}

pub(super) fn comment(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    c.expect("COMMENT")?;
    c.expect("ON")?;
    if c.eat("SCHEMA") {
        return schema::comment(c);
    }
    let (kind, name, column) = if c.eat("COLUMN") {
        let start = *c;
        let mut parts = c.path()?;
        let column = parts.pop();
        if parts.is_empty() {
            return Err(start.place(PlanError::syntax("column name must be qualified").hint("write object.column")));
        }
        (None, qualified(parts).map_err(|error| start.place(error))?, column)
    } else {
        let kind = expect_kind(c, "COMMENT ON")?;
        (Some(kind), existing(c, kind)?, None)
    };
    let text = comment_text(c)?;
    Ok(Statement::Comment { kind, name, column, text })
}

/// `IS 'text' | NULL`
pub(super) fn comment_text(c: &mut Cursor<'_>) -> PlanResult<Option<String>> {
    c.expect("IS")?;
    let text = if c.eat("NULL") { None } else { Some(c.string()?) };
    // PostgreSQL: an empty comment is none
    Ok(text.filter(|text| !text.is_empty()))
}

pub(super) fn describe(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    c.skip();
    // an object may itself be called "source" or "view"
    if c.peek(1).is_some_and(|next| *next != Token::Period) {
        let start = *c;
        if kind(c) == Some(ObjectKind::Aggregate) {
            return Err(start.place(
                PlanError::unsupported("DESCRIBE AGGREGATE is not supported: an aggregate has no columns")
                    .hint("SHOW AGGREGATES and SHOW CREATE AGGREGATE say what it is"),
            ));
        }
    }
    Ok(Statement::Describe { name: c.object_name()? })
}
