//! `CREATE`, `ALTER`, `RENAME` and `DROP ROLE`, and who may do what of it to whom.

use super::done;
use crate::{
    database::Database,
    pg::{Outcome, PgError},
    scram::Verifier,
    session::Session,
};
use std::sync::Arc;
use tidemark_catalog::{Access, Change, ObjectId, Role, Snapshot, role::Membership};
use tidemark_engine::seam::Clock;
use tidemark_planner::statement::{Hidden, RoleName, RoleOptions};

pub async fn create(
    database: &Arc<Database>,
    session: &mut Session,
    name: &str,
    options: &RoleOptions,
) -> Result<Outcome, PgError> {
    let mut catalog = database.owner()?.catalog.lock().await;
    let snapshot = database.snapshot();
    session.refresh(database);
    may_manage(session, "create role")?;
    check_name(name)?;
    let mut access = snapshot.access.as_ref().clone();
    if access.role_named(name).is_some() {
        return Err(PgError::error("42710", format!("role \"{name}\" already exists"))
            .hint(format!("ALTER ROLE {name} changes it; DROP ROLE {name} removes it")));
    }
    let of =
        |names: &[String]| names.iter().map(|name| Ok(find(&access, name)?.id)).collect::<Result<Vec<_>, PgError>>();
    let [of_roles, members, admins] = [of(&options.in_roles)?, of(&options.members)?, of(&options.admins)?];
    let mut role = Role::new(catalog.allocate_id().await?, name);
    apply(database, session, &mut role, options)?;
    let (id, grantor) = (role.id, session.rights.actor.role);
    access.put_role(role);
    for of in of_roles {
        may_admit(session, &access, of)?;
        add(&mut access, id, of, false, grantor)?;
    }
    for (members, admin) in [(members, false), (admins, true)] {
        for member in members {
            add(&mut access, member, id, admin, grantor)?;
        }
    }
    commit(database, session, &mut catalog, &snapshot, access).await?;
    done("CREATE ROLE")
}

pub async fn alter(
    database: &Arc<Database>,
    session: &mut Session,
    name: &RoleName,
    options: &RoleOptions,
) -> Result<Outcome, PgError> {
    let mut catalog = database.owner()?.catalog.lock().await;
    let snapshot = database.snapshot();
    session.refresh(database);
    let mut access = snapshot.access.as_ref().clone();
    let mut role = named(session, &access, name)?.clone();
    let only_password = RoleOptions { password: options.password.clone(), ..RoleOptions::default() } == *options;
    // Everybody may change his own password.
    if !(only_password && role.id == session.rights.actor.role) {
        may_change(session, &role, "alter role")?;
    }
    if role.is_predefined() && (role.name != "tidemark" || options.superuser == Some(false)) {
        return Err(PgError::error("42939", format!("role \"{}\" cannot be changed so: it is predefined", role.name))
            .hint("create a role, and GRANT it this one"));
    }
    apply(database, session, &mut role, options)?;
    access.put_role(role);
    commit(database, session, &mut catalog, &snapshot, access).await?;
    done("ALTER ROLE")
}

pub async fn rename(
    database: &Arc<Database>,
    session: &mut Session,
    name: &RoleName,
    to: &str,
) -> Result<Outcome, PgError> {
    let mut catalog = database.owner()?.catalog.lock().await;
    let snapshot = database.snapshot();
    session.refresh(database);
    let mut access = snapshot.access.as_ref().clone();
    let mut role = named(session, &access, name)?.clone();
    may_change(session, &role, "rename role")?;
    if role.is_predefined() {
        return Err(PgError::error("42939", format!("role \"{}\" cannot be renamed: it is predefined", role.name)));
    }
    if role.id == session.login || role.id == session.rights.actor.role {
        return Err(PgError::error("0A000", "session user cannot be renamed").hint("do it as another superuser"));
    }
    check_name(to)?;
    if access.role_named(to).is_some() {
        return Err(PgError::error("42710", format!("role \"{to}\" already exists")));
    }
    role.name = to.to_string();
    access.put_role(role);
    commit(database, session, &mut catalog, &snapshot, access).await?;
    done("ALTER ROLE")
}

pub async fn drop(
    database: &Arc<Database>,
    session: &mut Session,
    if_exists: bool,
    names: &[String],
) -> Result<Outcome, PgError> {
    let mut catalog = database.owner()?.catalog.lock().await;
    let snapshot = database.snapshot();
    session.refresh(database);
    let mut access = snapshot.access.as_ref().clone();
    for name in names {
        let role = match find(&access, name) {
            Ok(role) => role.clone(),
            Err(_) if if_exists => {
                session.notice(format!("role \"{name}\" does not exist, skipping"));
                continue;
            }
            Err(error) => return Err(error),
        };
        may_change(session, &role, "drop role")?;
        if role.is_predefined() {
            return Err(PgError::error("42939", format!("role \"{name}\" cannot be dropped: it is predefined")));
        }
        if role.id == session.login || role.id == session.rights.actor.role {
            return Err(PgError::error("55006", "current user cannot be dropped").hint("do it as another superuser"));
        }
        check_owns_nothing(&snapshot, &role)?;
        access.drop_role(role.id);
    }
    commit(database, session, &mut catalog, &snapshot, access).await?;
    done("DROP ROLE")
}

/// Makes it so.
pub async fn commit(
    database: &Database,
    session: &Session,
    catalog: &mut tidemark_catalog::CatalogStore,
    before: &Snapshot,
    mut access: Access,
) -> Result<(), PgError> {
    let locks_out = |access: &Access| access.has_password() && !access.has_superuser_with_password();
    if locks_out(&access) && !locks_out(&before.access) && !database.has_rules {
        let message = match before.access.has_password() {
            false => "this would be the first password, and no superuser has one",
            true => "no superuser would have a password any more",
        };
        return Err(PgError::error("55000", message)
            .detail(
                "as soon as one role has a password everybody needs one, and nobody could log in who may do everything",
            )
            .hint("first ALTER ROLE tidemark PASSWORD '…'; or say with the setting hba who needs none"));
    }
    if access.mock == 0 && access.has_password() {
        access.mock = database.clock.random();
    }
    database.commit(catalog, session, &[Change::Access(access)]).await
}

/// The role of that name.
pub fn find<'a>(access: &'a Access, name: &str) -> Result<&'a Role, PgError> {
    access.role_named(name).ok_or_else(|| {
        PgError::error("42704", format!("role \"{name}\" does not exist")).hint("psql's \\du lists the roles")
    })
}

/// The role that a statement means.
pub fn named<'a>(session: &Session, access: &'a Access, name: &RoleName) -> Result<&'a Role, PgError> {
    let gone = || PgError::error("42704", "the role of this session does not exist any more");
    match name {
        RoleName::Named(name) => find(access, name),
        RoleName::Current => access.role(session.rights.actor.role).ok_or_else(gone),
        RoleName::Session => access.role(session.login).ok_or_else(gone),
        RoleName::Public => Err(PgError::error("42704", "role \"public\" does not exist")
            .hint("PUBLIC is everybody: only privileges can be granted to it")),
    }
}

fn check_name(name: &str) -> Result<(), PgError> {
    match Role::is_reserved(name) || name.starts_with("tidemark_") {
        true => Err(PgError::error("42939", format!("role name \"{name}\" is reserved"))
            .detail("names that begin with pg_ or tidemark_ are the server's")),
        false => Ok(()),
    }
}

fn may_manage(session: &Session, what: &str) -> Result<(), PgError> {
    let rights = &session.rights;
    let creates = rights.access().role(rights.actor.role).is_some_and(|role| role.create_role);
    match rights.actor.is_superuser || creates {
        true => Ok(()),
        false => Err(PgError::error("42501", format!("permission denied to {what}"))
            .hint("superusers and roles with CREATEROLE may")),
    }
}

/// A superuser is changed by superusers only.
fn may_change(session: &Session, role: &Role, what: &str) -> Result<(), PgError> {
    match role.superuser {
        true => session.rights.check_superuser(&format!("{what} \"{}\", which is a superuser", role.name)),
        false => may_manage(session, what),
    }
}

/// Whether the session may make others members of this role: who has its ADMIN OPTION, or CREATEROLE where that gives nobody
/// more than he could create.
pub fn may_admit(session: &Session, access: &Access, of: ObjectId) -> Result<(), PgError> {
    let rights = &session.rights;
    let Some(role) = access.role(of) else { return Ok(()) };
    let what = format!("grant role \"{}\"", role.name);
    if rights.actor.is_superuser || access.membership(rights.actor.role, of).is_some_and(|m| m.admin) {
        return Ok(());
    }
    if role.superuser || role.is_predefined() {
        return rights.check_superuser(&what);
    }
    may_manage(session, &what)
}

/// Makes one a member of the other.
pub fn add(
    access: &mut Access,
    member: ObjectId,
    of: ObjectId,
    admin: bool,
    grantor: ObjectId,
) -> Result<bool, PgError> {
    let name = |id| access.role(id).map_or_else(String::new, |role| role.name.clone());
    if access.memberships(of).contains(&member) {
        return Err(PgError::error("0LP01", format!("role \"{}\" is a member of role \"{}\"", name(of), name(member))));
    }
    let Some(role) = access.role(member) else { return Ok(false) };
    let mut role = role.clone();
    let is_new = match role.member_of.iter_mut().find(|membership| membership.role == of) {
        Some(membership) => {
            let gets_more = admin && !membership.admin;
            membership.admin |= admin;
            gets_more
        }
        None => {
            role.member_of.push(Membership { role: of, admin, grantor });
            true
        }
    };
    access.put_role(role);
    Ok(is_new)
}

fn apply(database: &Database, session: &mut Session, role: &mut Role, options: &RoleOptions) -> Result<(), PgError> {
    if options.superuser.is_some_and(|superuser| superuser != role.superuser) {
        session.rights.check_superuser("make or unmake a superuser")?;
    }
    for (field, said) in [
        (&mut role.superuser, options.superuser),
        (&mut role.inherit, options.inherit),
        (&mut role.create_role, options.create_role),
        (&mut role.create_db, options.create_db),
        (&mut role.login, options.login),
    ] {
        *field = said.unwrap_or(*field);
    }
    match &options.password {
        None => {}
        Some(None) => role.verifier = None,
        Some(Some(Hidden(password))) if password.is_empty() => {
            session.notice("empty string is not a valid password, clearing password");
            role.verifier = None;
        }
        Some(Some(Hidden(password))) => role.verifier = Some(verifier(database.clock.as_ref(), password)?),
    }
    Ok(())
}

/// What is kept of a password; a verifier is kept as it is.
pub fn verifier(clock: &dyn Clock, password: &str) -> Result<String, PgError> {
    if let Some(verifier) = Verifier::read(password) {
        return Ok(verifier.to_string());
    }
    let is_md5 = password.len() == 35 && password.starts_with("md5");
    if is_md5 && password[3..].bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(PgError::error("0A000", "MD5 passwords are not supported")
            .hint("give the password itself, or its SCRAM-SHA-256 verifier"));
    }
    Ok(Verifier::of(password, clock).to_string())
}

fn check_owns_nothing(snapshot: &Snapshot, role: &Role) -> Result<(), PgError> {
    let mut owned: Vec<String> = snapshot
        .access
        .owned_by(role.id)
        .filter_map(|id| snapshot.get_id(id))
        .map(|object| format!("owner of {} {}", object.kind(), object.shown_name()))
        .collect();
    owned.extend(snapshot.access.schemas_owned_by(role.id).map(|schema| format!("owner of schema {schema}")));
    let secrets = snapshot.secrets().filter(|secret| secret.owner == role.id);
    owned.extend(secrets.map(|secret| format!("owner of secret {}", secret.name)));
    if owned.is_empty() {
        return Ok(());
    }
    let name = &role.name;
    Err(PgError::error("2BP01", format!("role \"{name}\" cannot be dropped because some objects depend on it"))
        .detail(owned.join("\n"))
        .hint(format!("REASSIGN OWNED BY {name} TO another role, or drop them")))
}
