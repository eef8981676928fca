//! `CREATE`, `ALTER` and `DROP ROLE | USER | GROUP`, as PostgreSQL writes them.

use super::cursor::Cursor;
use crate::{
    PlanError, PlanResult,
    statement::{Hidden, RoleName, RoleOptions, Statement},
};
use datafusion::sql::sqlparser::tokenizer::Token;

/// `ROLE`, `USER` or `GROUP`, if that is what is here.
pub(super) fn word(c: &mut Cursor<'_>) -> Option<&'static str> {
    ["ROLE", "USER", "GROUP"].into_iter().find(|word| c.eat(word))
}

/// Behind `CREATE ROLE | USER | GROUP`.
pub(super) fn create(c: &mut Cursor<'_>, word: &'static str) -> PlanResult<Statement> {
    let name = c.identifier()?;
    let mut options = RoleOptions { login: (word == "USER").then_some(true), ..RoleOptions::default() };
    c.eat("WITH");
    while !c.done() {
        option(c, &mut options, true)?;
    }
    Ok(Statement::CreateRole { name, options })
}

/// Behind `ALTER ROLE | USER | GROUP`.
pub(super) fn alter(c: &mut Cursor<'_>, word: &'static str) -> PlanResult<Statement> {
    if c.at("ALL") {
        return Err(settings(c));
    }
    let role = role_name(c)?;
    if c.eat_all(&["RENAME", "TO"]) {
        return Ok(Statement::RenameRole { role, to: c.identifier()? });
    }
    if word == "GROUP" && (c.at_all(&["ADD", "USER"]) || c.at_all(&["DROP", "USER"])) {
        return Err(c.place(PlanError::unsupported("ALTER GROUP is not supported").hint("GRANT group TO role, REVOKE")));
    }
    if c.at("SET") || c.at("RESET") || c.at_all(&["IN", "DATABASE"]) {
        return Err(settings(c));
    }
    let mut options = RoleOptions::default();
    c.eat("WITH");
    if c.done() {
        return Err(c.unexpected());
    }
    while !c.done() {
        option(c, &mut options, false)?;
    }
    Ok(Statement::AlterRole { role, options })
}

fn settings(c: &Cursor<'_>) -> PlanError {
    c.place(
        PlanError::unsupported("settings of a role are not supported")
            .hint("SET them in the session, or let the client send them: options='-c name=value'"),
    )
}

/// Behind `DROP ROLE | USER | GROUP`.
pub(super) fn drop(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    let if_exists = c.if_exists();
    let mut names = vec![c.identifier()?];
    while c.eat_token(&Token::Comma) {
        names.push(c.identifier()?);
    }
    Ok(Statement::DropRole { if_exists, names })
}

fn option(c: &mut Cursor<'_>, options: &mut RoleOptions, is_new: bool) -> PlanResult<()> {
    let start = *c;
    let twice = |is_given: bool| match is_given {
        true => Err(start.place(PlanError::syntax("conflicting or redundant options"))),
        false => Ok(()),
    };
    c.eat("ENCRYPTED");
    if c.eat("PASSWORD") {
        twice(options.password.is_some())?;
        options.password = Some(if c.eat("NULL") { None } else { Some(Hidden(password(c)?)) });
        return Ok(());
    }
    if c.at != start.at {
        return Err(c.unexpected());
    }
    let word = c.keyword(0).ok_or_else(|| c.unexpected())?;
    let (name, is_on) = match word.strip_prefix("NO") {
        Some(name) => (name.to_string(), false),
        None => (word, true),
    };
    let place = match name.as_str() {
        "SUPERUSER" => &mut options.superuser,
        "INHERIT" => &mut options.inherit,
        "CREATEROLE" => &mut options.create_role,
        "CREATEDB" => &mut options.create_db,
        "LOGIN" => &mut options.login,
        "REPLICATION" | "BYPASSRLS" => {
            c.skip();
            // Nothing is replicated, and no row hidden: to have it is to have nothing.
            return match is_on {
                true => Err(start.place(
                    PlanError::unsupported(format!("{name} is not supported"))
                        .hint("there is no streaming replication, and no row-level security to bypass"),
                )),
                false => Ok(()),
            };
        }
        "CONNECTION" if is_on => return connection_limit(c),
        "VALID" if is_on => return valid_until(c),
        "SYSID" if is_on => {
            c.skip();
            return c.number::<u32>().map(|_| ());
        }
        "IN" | "ROLE" | "USER" | "ADMIN" if is_on && is_new => return members(c, options),
        _ => return Err(start.unexpected()),
    };
    // `CREATE USER` has said LOGIN without a word.
    if name != "LOGIN" {
        twice(place.is_some())?;
    }
    *place = Some(is_on);
    c.skip();
    Ok(())
}

/// A password is a text; what is not one is not repeated.
fn password(c: &mut Cursor<'_>) -> PlanResult<String> {
    c.string().map_err(|_| c.place(PlanError::syntax("PASSWORD needs a text in quotes, or NULL")))
}

fn connection_limit(c: &mut Cursor<'_>) -> PlanResult<()> {
    let start = *c;
    c.expect("CONNECTION")?;
    c.expect("LIMIT")?;
    let is_negative = c.eat_token(&Token::Minus);
    let limit: i32 = c.number()?;
    match is_negative && limit == 1 {
        true => Ok(()),
        false => Err(start.place(
            PlanError::unsupported("CONNECTION LIMIT is not supported")
                .hint("the setting max_connections limits all; a pooler limits one"),
        )),
    }
}

fn valid_until(c: &mut Cursor<'_>) -> PlanResult<()> {
    let start = *c;
    c.expect("VALID")?;
    c.expect("UNTIL")?;
    match c.string()?.as_str() {
        "infinity" => Ok(()),
        _ => Err(start.place(
            PlanError::unsupported("VALID UNTIL is not supported").hint("ALTER ROLE … PASSWORD NULL when it is over"),
        )),
    }
}

fn members(c: &mut Cursor<'_>, options: &mut RoleOptions) -> PlanResult<()> {
    let list = if c.eat_all(&["IN", "ROLE"]) || c.eat_all(&["IN", "GROUP"]) {
        &mut options.in_roles
    } else if c.eat("ADMIN") {
        &mut options.admins
    } else if c.eat("ROLE") || c.eat("USER") {
        &mut options.members
    } else {
        return Err(c.unexpected());
    };
    loop {
        list.push(c.identifier()?);
        if !c.eat_token(&Token::Comma) {
            return Ok(());
        }
    }
}

/// A role that is there.
pub(super) fn role_name(c: &mut Cursor<'_>) -> PlanResult<RoleName> {
    if c.eat("CURRENT_USER") || c.eat("CURRENT_ROLE") {
        return Ok(RoleName::Current);
    }
    if c.eat("SESSION_USER") {
        return Ok(RoleName::Session);
    }
    if c.eat("PUBLIC") {
        return Ok(RoleName::Public);
    }
    c.identifier().map(RoleName::Named)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse;

    fn one(sql: &str) -> PlanResult<Statement> {
        parse(sql).map(|mut all| all.remove(0).statement)
    }

    #[test]
    fn a_role_is_created_with_what_is_said_of_it() {
        let Ok(Statement::CreateRole { name, options }) =
            one("CREATE ROLE \"An n\" WITH LOGIN NOSUPERUSER PASSWORD 'it''s' IN ROLE a, b ROLE c ADMIN d")
        else {
            panic!("no CREATE ROLE");
        };
        let expected = RoleOptions {
            superuser: Some(false),
            login: Some(true),
            password: Some(Some(Hidden("it's".into()))),
            in_roles: vec!["a".into(), "b".into()],
            members: vec!["c".into()],
            admins: vec!["d".into()],
            ..RoleOptions::default()
        };
        assert_eq!((name.as_str(), &options), ("An n", &expected));
        assert!(!format!("{options:?}").contains("it's"));
    }

    #[test]
    fn a_user_is_a_role_that_may_log_in_unless_it_says_otherwise() {
        let login = |sql: &str| match one(sql) {
            Ok(Statement::CreateRole { options, .. }) => options.login,
            other => panic!("{sql}: {other:?}"),
        };
        assert_eq!(login("CREATE USER a"), Some(true));
        assert_eq!(login("CREATE USER a NOLOGIN"), Some(false));
        assert_eq!(login("CREATE ROLE a"), None);
        assert_eq!(login("CREATE GROUP a NOREPLICATION CONNECTION LIMIT -1 VALID UNTIL 'infinity'"), None);
    }

    #[test]
    fn a_password_that_is_no_text_is_not_repeated() {
        for sql in ["CREATE ROLE a PASSWORD secret", "ALTER ROLE a PASSWORD secret", "CREATE ROLE a PASSWORD"] {
            let error = one(sql).expect_err("refused");
            assert!(!error.message.contains("secret"), "{sql}: {error}");
        }
    }

    #[test]
    fn what_is_not_kept_is_refused() {
        for sql in [
            "CREATE ROLE a REPLICATION",
            "CREATE ROLE a BYPASSRLS",
            "CREATE ROLE a CONNECTION LIMIT 5",
            "CREATE ROLE a VALID UNTIL '2030-01-01'",
            "CREATE ROLE a LOGIN SUPERUSER NOSUPERUSER",
            "CREATE ROLE a NOPASSWORD",
            "ALTER ROLE a SET search_path = x",
            "ALTER ROLE a IN ROLE b",
            "ALTER ROLE a",
            "ALTER GROUP a ADD USER b",
        ] {
            assert!(one(sql).is_err(), "{sql}");
        }
    }
}
