//! `CREATE`, `ALTER` and `DROP SCHEMA`, `COMMENT ON SCHEMA`.

use super::{
    cursor::Cursor,
    object::comment_text,
    role::{self, role_name},
};
use crate::{PlanError, PlanResult, statement::Statement};
use datafusion::sql::sqlparser::tokenizer::Token;

/// Behind `CREATE SCHEMA`.
pub(super) fn create(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    let if_not_exists = c.if_not_exists();
    let name = if c.at("AUTHORIZATION") { None } else { Some(name(c)?) };
    let owner = if c.eat("AUTHORIZATION") { Some(role_name(c)?) } else { None };
    if !c.done() {
        return Err(c.place(
            PlanError::unsupported("CREATE SCHEMA with what is to be in it is not supported")
                .hint("CREATE SCHEMA name, then each by itself: CREATE TABLE name.table …"),
        ));
    }
    Ok(Statement::CreateSchema { name, if_not_exists, owner })
}

/// Behind `DROP SCHEMA`.
pub(super) fn drop(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    let if_exists = c.if_exists();
    let mut names = vec![name(c)?];
    while c.eat_token(&Token::Comma) {
        names.push(name(c)?);
    }
    let cascade = c.eat("CASCADE");
    if !cascade {
        c.eat("RESTRICT");
    }
    Ok(Statement::DropSchema { if_exists, names, cascade })
}

/// Behind `ALTER SCHEMA`.
pub(super) fn alter(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    let name = name(c)?;
    if c.eat_all(&["RENAME", "TO"]) {
        return Ok(Statement::RenameSchema { name, to: c.identifier()? });
    }
    if c.eat_all(&["OWNER", "TO"]) {
        return Ok(Statement::SetSchemaOwner { name, to: role::role_name(c)? });
    }
    Err(c.unexpected().hint("ALTER SCHEMA … RENAME TO and OWNER TO are"))
}

/// Behind `COMMENT ON SCHEMA`.
pub(super) fn comment(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    let name = name(c)?;
    Ok(Statement::CommentSchema { name, text: comment_text(c)? })
}

/// `schema` or `tidemark.schema`.
fn name(c: &mut Cursor<'_>) -> PlanResult<String> {
    let start = *c;
    let mut parts = c.path()?;
    match (parts.pop(), parts.as_slice()) {
        (Some(name), []) => Ok(name),
        (Some(name), [database]) if database == "tidemark" => Ok(name),
        (_, before) => Err(start.place(
            PlanError::unsupported(format!("cross-database references are not implemented: \"{}\"", before.join(".")))
                .hint("the database is called tidemark"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{parse::parse, statement::RoleName};

    fn one(sql: &str) -> PlanResult<Statement> {
        parse(sql).map(|mut parsed| parsed.remove(0).statement)
    }

    #[test]
    fn schemas_are_made_changed_and_dropped() {
        let create = |name: Option<&str>, if_not_exists, owner| Statement::CreateSchema {
            name: name.map(str::to_string),
            if_not_exists,
            owner,
        };
        let ann = || RoleName::Named("ann".into());
        let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        let cases = [
            ("CREATE SCHEMA marts", create(Some("marts"), false, None)),
            ("create schema if not exists \"X\" authorization ann", create(Some("X"), true, Some(ann()))),
            ("CREATE SCHEMA AUTHORIZATION ann", create(None, false, Some(ann()))),
            (
                "CREATE SCHEMA tidemark.marts AUTHORIZATION CURRENT_USER",
                create(Some("marts"), false, Some(RoleName::Current)),
            ),
            ("DROP SCHEMA a", Statement::DropSchema { if_exists: false, names: names(&["a"]), cascade: false }),
            (
                "DROP SCHEMA IF EXISTS a, b CASCADE",
                Statement::DropSchema { if_exists: true, names: names(&["a", "b"]), cascade: true },
            ),
            (
                "DROP SCHEMA a RESTRICT",
                Statement::DropSchema { if_exists: false, names: names(&["a"]), cascade: false },
            ),
            ("ALTER SCHEMA a RENAME TO b", Statement::RenameSchema { name: "a".into(), to: "b".into() }),
            ("ALTER SCHEMA a OWNER TO ann", Statement::SetSchemaOwner { name: "a".into(), to: ann() }),
            ("COMMENT ON SCHEMA a IS 'x'", Statement::CommentSchema { name: "a".into(), text: Some("x".into()) }),
            ("COMMENT ON SCHEMA a IS NULL", Statement::CommentSchema { name: "a".into(), text: None }),
        ];
        for (sql, expected) in cases {
            assert_eq!(one(sql), Ok(expected), "{sql}");
        }
        for sql in [
            "CREATE SCHEMA",
            "CREATE SCHEMA a.b",
            "CREATE SCHEMA a CREATE TABLE t (x int)",
            "CREATE OR REPLACE SCHEMA a",
            "DROP SCHEMA",
            "ALTER SCHEMA a",
            "ALTER SCHEMA a SET x",
            "COMMENT ON SCHEMA a",
        ] {
            assert!(one(sql).is_err(), "{sql}");
        }
    }
}
