//! `CREATE INDEX` and `DROP INDEX`: accepted, because clients insist, and said to do nothing. What a unique index promises is
//! not: it is refused unless the primary key, or the entity key, keeps it anyway.

use super::done;
use crate::{
    database::Database,
    pg::{Outcome, PgError},
    session::Session,
};
use std::sync::Arc;
use tidemark_catalog::{Body, Object, QualifiedName, Snapshot};
use tidemark_planner::{error::missing_object, statement::CreateIndex};

pub fn create(database: &Arc<Database>, session: &mut Session, create: &CreateIndex) -> Result<Outcome, PgError> {
    let snapshot = session.snapshot(database);
    let table = &create.table;
    let Some(object) = snapshot.get(table) else {
        return Err(missing_object(&snapshot, "relation", table, |_| true).into());
    };
    let key: &[usize] = match &object.body {
        Body::Source(_) | Body::TrainingSet(_) => &[],
        Body::Table(relation) => &relation.primary_key,
        Body::FeatureView(view) => &view.key,
        Body::View(_) | Body::Aggregate(_) => {
            let message = format!("cannot create an index on {} \"{table}\"", object.kind());
            return Err(PgError::error("42809", message).hint("it has no rows of its own"));
        }
    };
    let columns = object.columns();
    let mut indexed = vec![];
    for name in create.columns.iter().flatten() {
        let at = columns.iter().position(|column| column.name == *name);
        let missing = || PgError::error("42703", format!("column \"{name}\" of relation \"{table}\" does not exist"));
        indexed.push(at.ok_or_else(missing)?);
    }
    let is_kept_unique = !key.is_empty() && key.iter().all(|column| indexed.contains(column));
    if create.unique && !is_kept_unique {
        let hint = match key.is_empty() {
            true => "only a PRIMARY KEY keeps rows apart: declare it when the table is created".to_string(),
            false => {
                let key: Vec<&str> = key.iter().map(|at| columns[*at].name.as_str()).collect();
                format!("its key is ({}): only that keeps rows apart", key.join(", "))
            }
        };
        let message = format!("a unique index on {} \"{table}\" is not supported", object.kind());
        return Err(PgError::error("0A000", message).hint(hint));
    }
    let name = create.name.as_deref().map_or(String::new(), |name| format!(" \"{name}\""));
    session.notice(match create.unique {
        true => format!("index{name} is not made: the key of \"{table}\" keeps its rows apart already"),
        false => {
            format!("index{name} is not made: rows are found by the key of \"{table}\", or by reading all of them")
        }
    });
    done("CREATE INDEX")
}

pub fn drop(
    database: &Arc<Database>,
    session: &mut Session,
    if_exists: bool,
    names: &[QualifiedName],
) -> Result<Outcome, PgError> {
    let snapshot = session.snapshot(database);
    for name in names {
        if let Some(table) = of_key(&snapshot, name) {
            return Err(PgError::error(
                "2BP01",
                format!("cannot drop index \"{name}\": it is the key of \"{}\"", table.shown_name()),
            )
            .hint("a key stays as it was declared: create another table, and copy the rows"));
        }
        session.notice(match if_exists {
            true => format!("index \"{name}\" does not exist, skipping"),
            false => format!("index \"{name}\" was never made, so nothing is dropped"),
        });
    }
    done("DROP INDEX")
}

/// Whose key clients know as this index.
fn of_key<'a>(snapshot: &'a Snapshot, index: &QualifiedName) -> Option<&'a Object> {
    let table = index.beside(index.name.strip_suffix("_pkey")?);
    let object = snapshot.get(&table)?;
    let has_key = match &object.body {
        Body::Table(relation) => !relation.primary_key.is_empty(),
        Body::FeatureView(_) => true,
        _ => false,
    };
    has_key.then_some(object.as_ref())
}
