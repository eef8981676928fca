//! `CREATE`, `ALTER` and `DROP SECRET`: values that connectors use by name and nobody sees again.

use super::{done, text_rows, text_schema};
use crate::{
    database::Database,
    pg::{Outcome, PgError},
    session::Session,
};
use arrow::array::RecordBatch;
use std::sync::Arc;
use tidemark_catalog::{CatalogStore, Change, Secret, Snapshot, is_secret, secret_named};
use tidemark_planner::statement::Hidden;

pub const COLUMNS: [&str; 3] = ["name", "owner", "used by"];

pub async fn create(
    database: &Arc<Database>,
    session: &mut Session,
    name: &str,
    if_not_exists: bool,
    value: &Hidden,
) -> Result<Outcome, PgError> {
    let mut catalog = database.owner()?.catalog.lock().await;
    session.refresh(database);
    if database.snapshot().secret(name).is_some() {
        check_settled(session, &catalog, name)?;
        let message = format!("secret \"{name}\" already exists");
        if if_not_exists {
            session.notice(format!("{message}, skipping"));
            return done("CREATE SECRET");
        }
        return Err(PgError::error("42710", message).hint(format!("ALTER SECRET {name} AS '…' replaces its value")));
    }
    let secret = Secret {
        id: catalog.allocate_id().await?,
        name: name.to_string(),
        owner: session.rights.actor.role,
        created_us: database.clock.now_us(),
        value: value.0.clone(),
    };
    database.commit(&mut catalog, session, &[Change::PutSecret(secret)]).await?;
    done("CREATE SECRET")
}

/// Refuses to go by a name that another session's transaction has made or dropped: it may take that back.
fn check_settled(session: &Session, catalog: &CatalogStore, name: &str) -> Result<(), PgError> {
    let found = |snapshot: &Snapshot| snapshot.secret(name).map(|secret| secret.id);
    Ok(catalog.check_settled(session.block_id(), &format!("secret \"{name}\""), found)?)
}

/// What is connected by it connects anew.
pub async fn alter(
    database: &Arc<Database>,
    session: &mut Session,
    name: &str,
    value: &Hidden,
) -> Result<Outcome, PgError> {
    let owner = database.owner()?;
    let mut catalog = owner.catalog.lock().await;
    session.refresh(database);
    let secret = find(&database.snapshot(), name)?;
    check_owner(session, &secret)?;
    let changed = Secret { value: value.0.clone(), ..secret.as_ref().clone() };
    database.commit(&mut catalog, session, &[Change::PutSecret(changed)]).await?;
    let snapshot = database.snapshot();
    for object in snapshot.users_of_secret(name) {
        owner.feeds.stop(object.id).await;
        owner.feeds.start(object)?;
    }
    done("ALTER SECRET")
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
    let mut changes = vec![];
    for name in names {
        let secret = match find(&snapshot, name) {
            Ok(secret) => secret,
            Err(_) if if_exists => {
                check_settled(session, &catalog, name)?;
                session.notice(format!("secret \"{name}\" does not exist, skipping"));
                continue;
            }
            Err(error) => return Err(error),
        };
        check_owner(session, &secret)?;
        let users: Vec<String> = snapshot
            .users_of_secret(name)
            .map(|object| format!("{} \"{}\" uses it", object.kind(), object.name))
            .collect();
        if !users.is_empty() {
            return Err(PgError::error(
                "2BP01",
                format!("cannot drop secret \"{name}\" because other objects depend on it"),
            )
            .detail(users.join("\n"))
            .hint("ALTER … SET ( option = another value ), or drop them first"));
        }
        changes.push(Change::DropSecret(name.clone()));
    }
    database.commit(&mut catalog, session, &changes).await?;
    done("DROP SECRET")
}

/// `SHOW SECRETS`: never their values.
pub fn show(database: &Database) -> Result<RecordBatch, PgError> {
    let snapshot = database.snapshot();
    let rows: Vec<_> = snapshot
        .secrets()
        .map(|secret| {
            let owner = snapshot.access.role(secret.owner).map(|role| role.name.clone());
            let users: Vec<&str> = snapshot.users_of_secret(&secret.name).map(|object| object.name.as_str()).collect();
            vec![Some(secret.name.clone()), owner, Some(users.join(", "))]
        })
        .collect();
    text_rows(text_schema(&COLUMNS), &rows)
}

fn find(snapshot: &Snapshot, name: &str) -> Result<Arc<Secret>, PgError> {
    snapshot.secret(name).cloned().ok_or_else(|| {
        PgError::error("42704", format!("secret \"{name}\" does not exist")).hint("SHOW SECRETS lists what there is")
    })
}

fn check_owner(session: &Session, secret: &Secret) -> Result<(), PgError> {
    match session.rights.actor.is(secret.owner) {
        true => Ok(()),
        false => {
            Err(PgError::error("42501", format!("must be owner of secret {}", secret.name)).hint("superusers may"))
        }
    }
}

/// Whether options name only secrets that are there, that the session may use, and where a secret may stand: only what is
/// hidden anyway, and given to a connector.
pub fn check_options<'a>(
    session: &Session,
    snapshot: &Snapshot,
    options: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> Result<(), PgError> {
    for (option, value) in options {
        let Some(name) = secret_named(value) else { continue };
        let secret = find(snapshot, name)?;
        check_owner(session, &secret)?;
        let is_for_connector = option.starts_with("properties.");
        if !is_for_connector || !(is_secret(option) || option.contains("sasl.") || option.contains("ssl.")) {
            return Err(PgError::error("22023", format!("option \"{option}\" cannot be a secret"))
                .hint("options of a connector such as properties.sasl.password can; write the value of others"));
        }
    }
    Ok(())
}
