//! `ALTER {SOURCE | TABLE} … ADD, DROP, RENAME, ALTER COLUMN`: the catalog says first how rows are laid out, then the table's
//! log is read and written so. Rows that are there are not touched (`catalog/src/layout.rs`).

use super::{rename::written_name, set_default::kept};
use crate::{
    blocks,
    database::{Database, find},
    pg::{Outcome, PgError},
    session::Session,
    wire::SessionZone,
};
use arrow::datatypes::DataType;
use datafusion::logical_expr::LogicalPlan;
use std::{collections::BTreeSet, sync::Arc};
use tidemark_catalog::{
    Body, Change, Column, Object, ObjectId, ObjectKind, QualifiedName, Relation, Snapshot, SqlType, TEMPORARY_SCHEMA,
};
use tidemark_planner::{
    Statement,
    bind::Binder,
    feature::{bound_definition, plan_definition},
    parse::{definition, parse},
    shown,
    statement::{ColumnChange, ColumnDef},
};

pub async fn execute(
    database: &Arc<Database>,
    session: &mut Session,
    kind: ObjectKind,
    if_exists: bool,
    name: &QualifiedName,
    changes: &[ColumnChange],
) -> Result<Outcome, PgError> {
    let tag = format!("ALTER {}", kind.to_string().to_uppercase());
    let before = session.lasting(database);
    let is_temporary = name.schema.as_deref().is_none_or(|schema| schema == TEMPORARY_SCHEMA);
    if is_temporary && session.temporary(&name.name).is_some() {
        return Err(PgError::error("0A000", format!("columns of temporary table \"{name}\" cannot be changed"))
            .hint("CREATE TEMPORARY TABLE another AS SELECT … from it"));
    }
    let object = match find(&before, kind, name) {
        Ok(object) => object.clone(),
        Err(error) if if_exists && error.sqlstate == "42P01" => {
            let catalog = database.owner()?.catalog.lock().await;
            blocks::skip(database, session, &catalog, kind, name)?;
            return Ok(Outcome::Done { tag: tag.into() });
        }
        Err(error) => return Err(error.into()),
    };
    check_embedded(&object)?;
    let engine = &database.owner()?.engine;
    // Before the catalog: whoever writes to the table may take long, and should hold up nobody else.
    let alone = engine.alone(object.id).await?;
    let mut catalog = database.owner()?.catalog.lock().await;
    let snapshot = session.lasting(database);
    let gone = || PgError::error("42P01", format!("{kind} \"{name}\" does not exist")).hint("it was dropped just now");
    let before = snapshot.get_id(object.id).ok_or_else(gone)?;
    let mut after = before.as_ref().clone();
    for change in changes {
        let notice = apply(&mut after, change, &session.format.time_zone)?;
        notice.into_iter().for_each(|notice| session.notice(notice));
    }
    let (Some(old), Some(new)) = (before.relation().cloned(), relation_of(&mut after)) else {
        return Err(PgError::error("XX000", format!("\"{name}\" has no columns of its own")));
    };
    if *new == old {
        return Ok(Outcome::Done { tag: tag.into() });
    }
    new.sql = definition(kind, written_name(before.schema_name(), &before.name), new);
    let relation = new.clone();
    check_readers(database, session, &snapshot, &after, changes)?;
    database.commit_for_good(&mut catalog, session, &[Change::Put(after)]).await?;
    engine.alter_columns(alone, relation).await?;
    Ok(Outcome::Done { tag: tag.into() })
}

fn relation_of(object: &mut Object) -> Option<&mut Relation> {
    match &mut object.body {
        Body::Source(relation) | Body::Table(relation) => Some(relation),
        _ => None,
    }
}

/// Only what statements feed has its columns from us.
fn check_embedded(object: &Object) -> Result<(), PgError> {
    let (kind, name) = (object.kind(), &object.name);
    let refused = |hint: &str| {
        Err(PgError::error("0A000", format!("columns of {kind} \"{name}\" cannot be changed")).hint(hint.to_string()))
    };
    match object.relation() {
        Some(relation) if relation.files().is_some() => {
            refused("they are those of its files: DROP it, which leaves them, and create it again")
        }
        Some(relation) if relation.topic().is_some() => {
            refused("they are those of its topic's messages: create another over the same topic")
        }
        Some(relation) if relation.is_archived() => {
            refused("its archive has these: create another source, and copy what is to stay")
        }
        _ => Ok(()),
    }
}

/// One action; a notice where it has nothing to do.
fn apply(object: &mut Object, change: &ColumnChange, zone: &SessionZone) -> Result<Option<String>, PgError> {
    let (kind, name) = (object.kind(), object.name.clone());
    let Some(relation) = relation_of(object) else {
        return Err(PgError::error("42809", format!("\"{name}\" has no columns of its own")));
    };
    let missing =
        |column: &str| PgError::error("42703", format!("column \"{column}\" of relation \"{name}\" does not exist"));
    let exists =
        |column: &str| PgError::error("42701", format!("column \"{column}\" of relation \"{name}\" already exists"));
    match change {
        ColumnChange::Add { if_not_exists, column: ColumnDef { name: column, ty, not_null }, default } => {
            if place(relation, column).is_some() {
                return match if_not_exists {
                    true => Ok(Some(format!("column \"{column}\" of relation \"{name}\" already exists, skipping"))),
                    false => Err(exists(column)),
                };
            }
            let default = default.as_deref().map(|text| readable(&name, column, ty, text, zone)).transpose()?;
            if *not_null && default.is_none() {
                return Err(PgError::error(
                    "0A000",
                    format!("column \"{column}\" of {kind} \"{name}\" cannot be NOT NULL"),
                )
                .detail("rows that are there already would have NULL in it")
                .hint("give it a DEFAULT, or leave NOT NULL out"));
            }
            let column = Column { name: column.clone(), ty: ty.clone(), not_null: *not_null, comment: None };
            relation.add_column(column, default);
        }
        ColumnChange::Drop { if_exists, name: column } => {
            let Some(at) = place(relation, column) else {
                return match if_exists {
                    true => Ok(Some(format!("column \"{column}\" of relation \"{name}\" does not exist, skipping"))),
                    false => Err(missing(column)),
                };
            };
            let is_key = relation.primary_key.contains(&at);
            if is_key || relation.event_time == Some(at) {
                let needed = if is_key { "primary key" } else { "event time" };
                return Err(PgError::error("2BP01", format!("cannot drop column \"{column}\" of {kind} \"{name}\""))
                    .detail(format!("it is in the {kind}'s {needed}"))
                    .hint("create another without it, and copy the rows"));
            }
            if relation.columns.len() == 1 {
                return Err(PgError::error("42P16", format!("\"{column}\" is the only column of {kind} \"{name}\""))
                    .hint(format!("DROP {}", kind.to_string().to_uppercase())));
            }
            relation.drop_column(at);
        }
        ColumnChange::Rename { name: column, to } => {
            let at = place(relation, column).ok_or_else(|| missing(column))?;
            if place(relation, to).is_some() {
                return Err(exists(to));
            }
            relation.rename_column(at, to);
        }
        ColumnChange::SetDefault { name: column, value } => {
            let at = place(relation, column).ok_or_else(|| missing(column))?;
            let ty = relation.columns[at].ty.clone();
            match value {
                None => relation.layout.defaults.remove(column),
                Some(text) => {
                    let text = readable(&name, column, &ty, text, zone)?;
                    relation.layout.defaults.insert(column.clone(), text)
                }
            };
        }
    }
    Ok(None)
}

fn place(relation: &Relation, column: &str) -> Option<usize> {
    relation.columns.iter().position(|known| known.name == column)
}

/// The text of a default as the catalog has it.
///
/// # Errors
/// 22P02 and its like: it is no value of the type. 0A000: values of the type have no text that says the same to everybody.
pub fn readable(table: &str, column: &str, ty: &SqlType, text: &str, zone: &SessionZone) -> Result<String, PgError> {
    if matches!(ty.arrow(), DataType::List(_) | DataType::Binary) {
        return Err(PgError::error("0A000", format!("column \"{column}\" of \"{table}\" cannot have a default"))
            .detail(format!("it is of type {ty}"))
            .hint("give the value in every INSERT"));
    }
    kept(ty, text, zone).map_err(|error| error.context(format!("default of column \"{column}\" of \"{table}\"")))
}

/// Refuses what would change, or break, something that reads the table: definitions are text, and are planned again.
fn check_readers(
    database: &Database,
    session: &Session,
    snapshot: &Snapshot,
    after: &Object,
    changes: &[ColumnChange],
) -> Result<(), PgError> {
    let next = snapshot.apply(&[Change::Put(after.clone())]);
    let mut found: BTreeSet<ObjectId> = BTreeSet::new();
    let mut waiting = vec![after.id];
    while let Some(id) = waiting.pop() {
        let readers = next.readers(id).map(|reader| reader.id);
        waiting.extend(readers.filter(|reader| found.insert(*reader)).collect::<Vec<_>>());
    }
    let now_us = database.clock.now_us();
    let drops = changes.iter().any(|change| matches!(change, ColumnChange::Drop { .. }));
    for reader in found.into_iter().filter_map(|id| next.get_id(id)) {
        let (kind, name) = (after.kind(), &after.name);
        let refused = |detail: String| {
            let message = format!(
                "cannot change the columns of {kind} \"{name}\" so: {} \"{}\" reads it",
                reader.kind(),
                reader.name
            );
            Err(PgError::error("2BP01", message)
                .detail(detail)
                .hint("drop what reads it, and create it again afterwards"))
        };
        if drops && reader.feature_view().is_some() {
            return refused("a feature view reads the columns by their places, which DROP COLUMN changes".to_string());
        }
        let before = meaning_of(database, session, snapshot, reader, now_us);
        match meaning_of(database, session, &next, reader, now_us) {
            Ok(after) if before.as_ref().is_ok_and(|before| before.is(&after)) => {}
            Ok(after) if before.as_ref().is_ok_and(|before| before.columns == after.columns) => {
                let detail =
                    "it would say something else: it joins by NATURAL, or finds a name in a subquery's own table then";
                return refused(detail.to_string());
            }
            Ok(_) => return refused("it would have other columns: it says * somewhere".to_string()),
            Err(error) => return refused(error.message),
        }
    }
    Ok(())
}

/// What a view's text says over a catalog.
#[derive(Default)]
struct Meaning {
    /// Names and types.
    columns: Vec<(String, Option<SqlType>)>,
    /// Its plan in text.
    bound: String,
    /// The same optimised, where it can be: a column that nobody reads does not show there.
    optimised: Option<String>,
}

impl Meaning {
    fn of(session: &Session, plan: &LogicalPlan, columns: Vec<(String, Option<SqlType>)>) -> Meaning {
        let optimised = session.state.optimize(plan).ok();
        let optimised = optimised.map(|plan| without_numbers(&plan.display_indent().to_string()));
        Meaning { columns, bound: plan.display_indent().to_string(), optimised }
    }

    fn is(&self, other: &Meaning) -> bool {
        let same_optimised = || self.optimised.is_some() && self.optimised == other.optimised;
        self.columns == other.columns && (self.bound == other.bound || same_optimised())
    }
}

fn meaning_of(
    database: &Database,
    session: &Session,
    catalog: &Snapshot,
    reader: &Object,
    now_us: i64,
) -> Result<Meaning, PgError> {
    let Some(view) = reader.view() else {
        if reader.feature_view().is_none() {
            return Ok(Meaning::default());
        }
        let plan = plan_definition(reader, catalog)?;
        let outputs = plan.outputs.iter();
        let columns = outputs.map(|output| (output.name.clone(), SqlType::from_arrow(&output.ty))).collect();
        return Ok(Meaning::of(session, &bound_definition(reader, catalog)?, columns));
    };
    let parsed = parse(&view.query)?;
    let Some(Statement::Query(query)) = parsed.first().map(|parsed| &parsed.statement) else {
        return Err(PgError::error("XX000", "its text is not a query"));
    };
    let system = database.system(session);
    let within = catalog.within(reader);
    let bound = Binder::new(&within, &session.state, &system, now_us).keeping_now().query(query, &[])?;
    let plan = session.state.analyzer().execute_and_check(bound.plan, session.state.config_options(), |_, _| {})?;
    let fields = plan.schema().fields().iter().zip(shown::kept(&plan)?);
    let typed = fields.map(|(field, kept)| (field.name(), kept.or_else(|| SqlType::from_arrow(field.data_type()))));
    let columns = typed.map(|(name, ty)| (name.clone(), ty)).collect();
    Ok(Meaning::of(session, &plan, columns))
}

/// Names that the optimiser makes are numbered through, from one plan to the next.
fn without_numbers(plan: &str) -> String {
    let mut text = plan.to_string();
    for mark in ["_sq_", "__common_expr_"] {
        let mut parts = text.split(mark);
        let first = parts.next().unwrap_or_default().to_string();
        let unnumbered = |part: &str| part.trim_start_matches(|letter: char| letter.is_ascii_digit()).to_string();
        text = std::iter::once(first).chain(parts.map(unnumbered)).collect::<Vec<_>>().join(mark);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::without_numbers;

    #[test]
    fn plans_differ_by_what_they_read_and_not_by_how_many_came_before() {
        let plan = |n: u32| format!("Join: __correlated_sq_{n}.a = t_{n}.a, __common_expr_{n}9 + __scalar_sq_1.x1");
        let expected = "Join: __correlated_sq_.a = t_7.a, __common_expr_ + __scalar_sq_.x1";
        assert_eq!(without_numbers(&plan(7)), expected);
        assert_ne!(without_numbers(&plan(8)), expected);
        assert_eq!(without_numbers("Filter: t.a"), "Filter: t.a");
    }
}
