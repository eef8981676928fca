//! `GRANT` and `REVOKE`: of privileges on something, or of roles.

use super::{cursor::Cursor, object, role::role_name};
use crate::{
    PlanError, PlanResult,
    error::sqlstate,
    statement::{Grant, GrantRoles, GrantTarget, RoleName, Statement},
};
use datafusion::sql::sqlparser::tokenizer::Token;
use tidemark_catalog::{ObjectKind, Privileges, QualifiedName};

pub(super) fn grant(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    let is_revoke = c.eat("REVOKE");
    if !is_revoke {
        c.expect("GRANT")?;
    }
    if is_revoke && c.at_all(&["GRANT", "OPTION", "FOR"]) {
        return Err(no_grant_option(c));
    }
    let admin_alone = is_revoke && c.eat_all(&["ADMIN", "OPTION", "FOR"]);
    if !admin_alone && is_about_privileges(c) { privileges(c, is_revoke) } else { roles(c, is_revoke, admin_alone) }
}

/// `… ON …` before `TO` or `FROM`.
fn is_about_privileges(c: &Cursor<'_>) -> bool {
    (c.at..c.end).map(|at| Cursor { at, ..*c }).take_while(|c| !c.at("TO") && !c.at("FROM")).any(|c| c.at("ON"))
}

fn no_grant_option(c: &Cursor<'_>) -> PlanError {
    c.place(
        PlanError::unsupported("grant options are not supported")
            .hint("the owner grants, and superusers; members of the owner's role do, too"),
    )
}

fn privileges(c: &mut Cursor<'_>, is_revoke: bool) -> PlanResult<Statement> {
    let start = *c;
    let mut privileges = None;
    if c.eat("ALL") {
        c.eat("PRIVILEGES");
    } else {
        let mut all = Privileges::NONE;
        loop {
            all = all | privilege(c)?;
            if !c.eat_token(&Token::Comma) {
                break;
            }
        }
        privileges = Some(all);
    }
    if c.at_token(&Token::LParen) {
        return Err(c.place(
            PlanError::unsupported("privileges on single columns are not supported")
                .hint("grant on a view that selects the columns"),
        ));
    }
    c.expect("ON")?;
    let target = target(c)?;
    let fits = match target {
        GrantTarget::Schemas(_) => Privileges::OF_SCHEMA,
        _ => Privileges::OF_RELATION,
    };
    if let Some(wrong) = privileges.map(|all| all.without(fits)).filter(|wrong| !wrong.is_empty()) {
        let of = if matches!(target, GrantTarget::Schemas(_)) { "schema" } else { "relation" };
        let message = format!("invalid privilege type {wrong} for {of}");
        return Err(start.place(PlanError::new("0LP01", message).hint(format!("there are {fits}"))));
    }
    c.expect(if is_revoke { "FROM" } else { "TO" })?;
    let roles = role_names(c)?;
    end(c, is_revoke)?;
    Ok(Statement::Grant(Grant { is_revoke, privileges, target, roles }))
}

fn privilege(c: &mut Cursor<'_>) -> PlanResult<Privileges> {
    let start = *c;
    let name = c.label()?;
    match Privileges::named(&name) {
        Some(privilege) => Ok(privilege),
        None if ["references", "trigger", "execute", "connect", "temporary", "temp", "maintain"]
            .contains(&name.as_str()) =>
        {
            let name = name.to_uppercase();
            Err(start.place(PlanError::unsupported(format!("the privilege {name} is not supported")).hint(
                "there are SELECT, INSERT, UPDATE, DELETE and TRUNCATE on relations, USAGE and CREATE on schemas; who may connect is said by hba",
            )))
        }
        None => Err(start.place(PlanError::syntax(format!("unrecognized privilege type \"{name}\"")))),
    }
}

fn target(c: &mut Cursor<'_>) -> PlanResult<GrantTarget> {
    let start = *c;
    if c.eat("SCHEMA") {
        return schemas(c).map(GrantTarget::Schemas);
    }
    let all = [
        (&["ALL", "TABLES", "IN", "SCHEMA"][..], None),
        (&["ALL", "SOURCES", "IN", "SCHEMA"][..], Some(ObjectKind::Source)),
        (&["ALL", "FEATURE", "VIEWS", "IN", "SCHEMA"][..], Some(ObjectKind::FeatureView)),
        (&["ALL", "VIEWS", "IN", "SCHEMA"][..], Some(ObjectKind::View)),
    ];
    for (words, kind) in all {
        if c.eat_all(words) {
            return Ok(GrantTarget::AllIn(kind, schemas(c)?));
        }
    }
    let elsewhere = [
        ("DATABASE", "there is one database, and hba says who may connect to it"),
        ("FUNCTION", "functions and aggregates are for everybody"),
        ("AGGREGATE", "functions and aggregates are for everybody"),
        ("SEQUENCE", "there are no sequences"),
        ("LANGUAGE", "there are no languages"),
        ("TYPE", "types are for everybody"),
        ("SECRET", "its owner and superusers may name it in options"),
        ("TABLESPACE", "there are no tablespaces"),
        ("LARGE", "there are no large objects"),
        ("FOREIGN", "there are no foreign servers"),
        ("PARAMETER", "settings of a session are for everybody"),
        ("ALL", "ALL TABLES, SOURCES, FEATURE VIEWS and VIEWS IN SCHEMA can be granted on"),
    ];
    // A relation may itself be called so.
    if let Some((word, hint)) =
        elsewhere.iter().find(|(word, _)| c.at(word) && !c.at_ahead(1, "TO") && !c.at_ahead(1, "FROM"))
    {
        return Err(c.place(PlanError::unsupported(format!("privileges on {word} are not supported")).hint(*hint)));
    }
    let mut kind = None;
    // A relation may be called "source".
    if c.peek(1).is_some_and(|next| !matches!(next, Token::Comma | Token::Period))
        && !c.at_ahead(1, "TO")
        && !c.at_ahead(1, "FROM")
    {
        // TABLE is any relation, as in PostgreSQL.
        kind = if c.eat("TABLE") { None } else { object::kind(c) };
    }
    let mut names = vec![relation(c)?];
    while c.eat_token(&Token::Comma) {
        names.push(relation(c)?);
    }
    if kind == Some(ObjectKind::Aggregate) {
        return Err(start.unexpected());
    }
    Ok(GrantTarget::Objects(kind, names))
}

fn relation(c: &mut Cursor<'_>) -> PlanResult<QualifiedName> {
    let start = *c;
    if c.at("HISTORY") && c.peek(1) == Some(&Token::Period) {
        return Err(start.place(
            PlanError::unsupported("privileges on history tables are not supported")
                .hint("who may SELECT from a feature view may read its history"),
        ));
    }
    c.object_name()
}

fn schemas(c: &mut Cursor<'_>) -> PlanResult<Vec<String>> {
    let mut names = vec![];
    loop {
        let start = *c;
        let name = c.identifier()?;
        if ["tidemark", "pg_catalog", "information_schema"].contains(&name.as_str()) {
            let message = format!("privileges on schema \"{name}\" are not supported");
            return Err(start
                .place(PlanError::new(sqlstate::FEATURE_NOT_SUPPORTED, message).hint("everybody may look into it")));
        }
        names.push(name);
        if !c.eat_token(&Token::Comma) {
            return Ok(names);
        }
    }
}

fn role_names(c: &mut Cursor<'_>) -> PlanResult<Vec<RoleName>> {
    let mut names = vec![];
    loop {
        c.eat("GROUP");
        names.push(role_name(c)?);
        if !c.eat_token(&Token::Comma) {
            return Ok(names);
        }
    }
}

fn roles(c: &mut Cursor<'_>, is_revoke: bool, admin_alone: bool) -> PlanResult<Statement> {
    let mut roles = vec![c.identifier()?];
    while c.eat_token(&Token::Comma) {
        roles.push(c.identifier()?);
    }
    c.expect(if is_revoke { "FROM" } else { "TO" })?;
    let members = role_names(c)?;
    let admin = admin_alone || (!is_revoke && c.eat_all(&["WITH", "ADMIN", "OPTION"]));
    end(c, is_revoke)?;
    Ok(Statement::GrantRoles(GrantRoles { is_revoke, roles, members, admin }))
}

/// What may follow.
fn end(c: &mut Cursor<'_>, is_revoke: bool) -> PlanResult<()> {
    if c.at_all(&["WITH", "GRANT", "OPTION"]) {
        return Err(no_grant_option(c));
    }
    if c.at_all(&["GRANTED", "BY"]) {
        return Err(c.place(PlanError::unsupported("GRANTED BY is not supported").hint("leave it out")));
    }
    if is_revoke && !c.eat("CASCADE") {
        c.eat("RESTRICT");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse;

    fn one(sql: &str) -> PlanResult<Statement> {
        parse(sql).map(|mut all| all.remove(0).statement)
    }

    fn named(name: &str) -> RoleName {
        RoleName::Named(name.to_string())
    }

    #[test]
    fn privileges_are_granted_on_relations_of_any_kind() {
        let cases = [
            ("GRANT SELECT ON v TO a", Some(Privileges::SELECT), GrantTarget::Objects(None, vec!["v".into()])),
            (
                "GRANT SELECT, insert ON TABLE v, \"W\" TO a",
                Some(Privileges::SELECT | Privileges::INSERT),
                GrantTarget::Objects(None, vec!["v".into(), "W".into()]),
            ),
            (
                "GRANT ALL PRIVILEGES ON FEATURE VIEW public.v TO a",
                None,
                GrantTarget::Objects(Some(ObjectKind::FeatureView), vec![QualifiedName::new("public", "v")]),
            ),
            ("GRANT ALL ON source TO a", None, GrantTarget::Objects(None, vec!["source".into()])),
            (
                "GRANT SELECT ON ALL TABLES IN SCHEMA public TO a",
                Some(Privileges::SELECT),
                GrantTarget::AllIn(None, vec!["public".into()]),
            ),
            (
                "GRANT USAGE, CREATE ON SCHEMA public TO a",
                Some(Privileges::USAGE | Privileges::CREATE),
                GrantTarget::Schemas(vec!["public".into()]),
            ),
        ];
        for (sql, privileges, target) in cases {
            let grant = Grant { is_revoke: false, privileges, target, roles: vec![named("a")] };
            assert_eq!(one(sql).unwrap(), Statement::Grant(grant), "{sql}");
        }
        let Statement::Grant(revoke) = one("REVOKE SELECT ON v FROM PUBLIC, GROUP a, CURRENT_USER CASCADE").unwrap()
        else {
            panic!("no REVOKE");
        };
        assert_eq!((revoke.is_revoke, revoke.roles), (true, vec![RoleName::Public, named("a"), RoleName::Current]));
    }

    #[test]
    fn roles_are_granted_to_roles() {
        let grant = |is_revoke, admin| {
            let (roles, members) = (vec!["a".to_string(), "b".to_string()], vec![named("c")]);
            Statement::GrantRoles(GrantRoles { is_revoke, roles, members, admin })
        };
        assert_eq!(one("GRANT a, b TO c").unwrap(), grant(false, false));
        assert_eq!(one("GRANT a, b TO c WITH ADMIN OPTION").unwrap(), grant(false, true));
        assert_eq!(one("REVOKE a, b FROM c").unwrap(), grant(true, false));
        assert_eq!(one("REVOKE ADMIN OPTION FOR a, b FROM c").unwrap(), grant(true, true));
    }

    #[test]
    fn what_is_not_kept_is_refused_with_the_way_out() {
        for sql in [
            "GRANT SELECT (a) ON v TO x",
            "GRANT SELECT ON v TO x WITH GRANT OPTION",
            "REVOKE GRANT OPTION FOR SELECT ON v FROM x",
            "GRANT CONNECT ON DATABASE tidemark TO x",
            "GRANT EXECUTE ON FUNCTION f TO x",
            "GRANT SELECT ON history.v TO x",
            "GRANT USAGE ON SCHEMA pg_catalog TO x",
            "GRANT USAGE ON v TO x",
            "GRANT SELECT ON SCHEMA public TO x",
            "GRANT SELECT ON v TO x GRANTED BY y",
        ] {
            let error = one(sql).expect_err(sql);
            assert!(error.hint.is_some(), "{sql}: {error}");
        }
        for sql in ["GRANT", "GRANT SELECT ON TO x", "GRANT SELECT ON v", "GRANT looking ON v TO x", "REVOKE a TO b"] {
            assert!(one(sql).is_err(), "{sql}");
        }
    }
}
