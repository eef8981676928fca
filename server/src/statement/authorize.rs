//! Whether a session may do what a statement says. What a query reads is checked where it is planned
//! (`query::physical`), a lookup where it is answered; the rest is here, before anything is done.

use crate::{pg::PgError, rights::Rights, session::Session};
use datafusion::sql::sqlparser::ast;
use std::{collections::BTreeMap, ops::ControlFlow, sync::Arc};
use tidemark_catalog::{
    Object, ObjectId, ObjectKind, PUBLIC_SCHEMA, Privileges, QualifiedName, Relation, Snapshot, role,
};
use tidemark_planner::{
    Statement,
    lookup::object_named,
    statement::{CopyTarget, CreateIndex, CreateTrainingSet, Insert, MergeAction, OnConflict},
};

/// # Errors
/// 42501: not by this role.
pub fn authorize(session: &Session, snapshot: &Snapshot, statement: &Statement) -> Result<(), PgError> {
    let rights = &session.rights;
    let of_kind = |kind: ObjectKind, name: &QualifiedName| match kind {
        ObjectKind::Aggregate => snapshot.aggregate(name),
        _ => snapshot.get(name),
    };
    // One that is not there is for the statement itself to say.
    let owned = |object: Option<&Arc<Object>>| object.map_or(Ok(()), |object| rights.check_owner(object));
    let creates = |name: &QualifiedName| -> Result<(), PgError> { rights.check_create(&snapshot.place_of(name)?) };
    match statement {
        Statement::Query(_)
        | Statement::Explain { .. }
        | Statement::ExplainFeatureView { .. }
        | Statement::ShowObjects(_)
        | Statement::ShowCreate { .. }
        | Statement::Describe { .. }
        | Statement::ShowSecrets
        | Statement::Flush
        | Statement::Set { .. }
        | Statement::SetTransaction { .. }
        | Statement::ShowSetting { .. }
        | Statement::Reset { .. }
        | Statement::Begin { .. }
        | Statement::Commit
        | Statement::Rollback
        | Statement::Savepoint { .. }
        | Statement::RollbackTo { .. }
        | Statement::Release { .. }
        | Statement::Prepare { .. }
        | Statement::Execute { .. }
        | Statement::Deallocate { .. }
        | Statement::Discard { .. }
        | Statement::Declare { .. }
        | Statement::Fetch { .. }
        | Statement::Close { .. }
        | Statement::Listen { .. }
        | Statement::Unlisten { .. }
        | Statement::DropIndex { .. }
        | Statement::Notify { .. }
        | Statement::Nothing { .. } => Ok(()),
        // Who may do these depends on more than the statement.
        Statement::CreateRole { .. }
        | Statement::AlterRole { .. }
        | Statement::RenameRole { .. }
        | Statement::DropRole { .. }
        | Statement::ReassignOwned { .. }
        | Statement::Grant(_)
        | Statement::GrantRoles(_)
        | Statement::AlterSecret { .. }
        | Statement::CreateSchema { .. }
        | Statement::DropSchema { .. }
        | Statement::RenameSchema { .. }
        | Statement::SetSchemaOwner { .. }
        | Statement::CommentSchema { .. }
        | Statement::DropSecret { .. } => Ok(()),
        Statement::Insert(insert) => into(rights, snapshot, insert),
        Statement::Change(change) => {
            let privilege = if change.sets.is_some() { Privileges::UPDATE } else { Privileges::DELETE };
            snapshot.get(&change.table).map_or(Ok(()), |object| rights.check(privilege, object))
        }
        Statement::Merge(merge) => {
            let wanted = [
                (MergeAction::Insert, Privileges::INSERT),
                (MergeAction::Update, Privileges::UPDATE),
                (MergeAction::Delete, Privileges::DELETE),
            ];
            let Some(object) = snapshot.get(&merge.table) else { return Ok(()) };
            let mut wanted = wanted.into_iter().filter(|(action, _)| merge.does(*action));
            wanted.try_for_each(|(_, privilege)| rights.check(privilege, object))
        }
        Statement::Truncate { tables } => tables
            .iter()
            .filter_map(|name| snapshot.get(name))
            .try_for_each(|object| rights.check(Privileges::TRUNCATE, object)),
        Statement::CopyFrom { table, file, .. } => {
            if let Some(name) = file {
                let what = match is_url(name) {
                    true => "read an object with the server's keys",
                    false => "read a file of the server",
                };
                rights.check_member(role::READ_SERVER_FILES, what)?;
            }
            snapshot.get(table).map_or(Ok(()), |object| rights.check(Privileges::INSERT, object))
        }
        Statement::CopyTo { target, .. } => match target {
            CopyTarget::File(name) => {
                let what = match is_url(name) {
                    true => "write an object with the server's keys",
                    false => "write a file of the server",
                };
                rights.check_member(role::WRITE_SERVER_FILES, what)
            }
            CopyTarget::Stdout => Ok(()),
        },
        Statement::CreateRelation(create) => {
            creates(&create.name)?;
            options(rights, &create.options)
        }
        Statement::CreateTemporary { .. } => Ok(()),
        // What its query reads is checked where it is planned.
        Statement::CreateTableAs { name, .. }
        | Statement::CreateView { name, .. }
        | Statement::CreateTrainingSet(CreateTrainingSet { name, .. }) => creates(name),
        Statement::CreateSecret { .. } => rights.check_create(PUBLIC_SCHEMA),
        Statement::CreateFeatureView(create) => {
            creates(&create.name)?;
            options(rights, &create.options)?;
            rights.check_read(&named(&create.query, snapshot))
        }
        Statement::CreateAggregate(create) => {
            creates(&create.name)?;
            let schema = snapshot.place_of(&create.name)?;
            let existing = snapshot.aggregate((schema.as_str(), create.name.name.as_str()));
            owned(existing.filter(|_| create.or_replace))
        }
        Statement::Drop { kind, names, .. } => names.iter().try_for_each(|name| owned(of_kind(*kind, name))),
        Statement::SetOptions { kind, name, options: changed, .. } => {
            owned(of_kind(*kind, name))?;
            options(rights, changed)
        }
        Statement::Rename { kind, name, .. }
        | Statement::AlterColumns { kind, name, .. }
        | Statement::ResetTopic { kind, name, .. }
        | Statement::SetOwner { kind, name, .. } => owned(of_kind(*kind, name)),
        Statement::CreateIndex(CreateIndex { table: name, .. })
        | Statement::AdvanceWatermark { name, .. }
        | Statement::Resume { name, .. }
        | Statement::SetDefault { name, .. }
        | Statement::RefreshOnlineStore { name }
        | Statement::RefreshView { name }
        | Statement::RefreshTrainingSet { name, .. }
        | Statement::Optimize { view: name }
        | Statement::VacuumHistory { view: name, .. } => owned(snapshot.get(name)),
        Statement::Comment { kind, name, .. } => owned(of_kind(kind.unwrap_or(ObjectKind::Table), name)),
        Statement::Checkpoint => rights.check_member(role::CHECKPOINT, "CHECKPOINT"),
        // What nobody has thought of here is for superusers.
        #[allow(unreachable_patterns)]
        _ => rights.check_superuser("run this statement"),
    }
}

fn is_url(name: &str) -> bool {
    name.contains("://")
}

fn into(rights: &Rights, snapshot: &Snapshot, insert: &Insert) -> Result<(), PgError> {
    let Some(object) = snapshot.get(&insert.table) else { return Ok(()) };
    let privileges = match insert.on_conflict {
        OnConflict::Replace => Privileges::INSERT | Privileges::UPDATE,
        _ => Privileges::INSERT,
    };
    rights.check(privileges, object)
}

/// Options that make the server read a file or connect to somebody.
fn options(rights: &Rights, options: &BTreeMap<String, String>) -> Result<(), PgError> {
    for (option, value) in options {
        let address = match option.as_str() {
            "online" => !matches!(value.as_str(), "embedded" | "none" | "default"),
            "connector" => value == "kafka",
            other => other.starts_with("properties."),
        };
        if address {
            rights.check_member(role::CONNECTOR, "name brokers or online stores to connect to")?;
        }
        let file = match option.as_str() {
            "connector" => Relation::FILES.contains(&value.as_str()),
            "online" => value.contains("ca="),
            other => other.ends_with(".location"),
        };
        if file {
            rights.check_member(role::READ_SERVER_FILES, "read a file of the server")?;
        }
    }
    Ok(())
}

/// The relations that a query names; a name of its own WITH counts as the relation that is called the same.
fn named(query: &ast::Query, snapshot: &Snapshot) -> Vec<ObjectId> {
    let mut named = vec![];
    let _ = ast::visit_relations(query, |name| {
        let object = object_named(name, snapshot).or_else(|| {
            // The same may stand before a name as its history: who reads that reads the view.
            let last = name.0.last().and_then(|part| part.as_ident()).filter(|_| name.0.len() > 1)?;
            snapshot.get(last.value.as_str()).map(|object| object.as_ref())
        });
        named.extend(object.map(|object| object.id));
        ControlFlow::<()>::Continue(())
    });
    named
}
