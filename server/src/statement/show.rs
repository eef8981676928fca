//! `SHOW SOURCES | TABLES | FEATURE VIEWS | VIEWS | AGGREGATES | TRAINING SETS`, `SHOW CREATE …`, `DESCRIBE …`.

use super::{text_rows, text_schema};
use crate::{
    database::{Database, find},
    pg::PgError,
    session::Session,
};
use arrow::{array::RecordBatch, datatypes::SchemaRef};
use tidemark_catalog::{Body, Object, ObjectKind};
use tidemark_planner::{Statement, error::missing_object, feature::describe_duration};

pub fn schema(statement: &Statement) -> SchemaRef {
    match statement {
        Statement::ShowObjects(ObjectKind::FeatureView) => {
            text_schema(&["name", "key", "time", "features", "source", "ttl", "owner", "tags", "comment"])
        }
        Statement::ShowObjects(ObjectKind::View) => text_schema(&["name", "columns", "comment"]),
        Statement::ShowObjects(ObjectKind::Aggregate) => {
            text_schema(&["name", "arguments", "returns", "expression", "comment"])
        }
        Statement::ShowObjects(ObjectKind::TrainingSet) => {
            text_schema(&["name", "rows", "columns", "views", "complete", "comment"])
        }
        Statement::ShowObjects(_) => text_schema(&["name", "columns", "primary key", "watermark", "clock", "comment"]),
        Statement::ShowCreate { .. } => text_schema(&["name", "statement"]),
        _ => text_schema(&["column", "type", "nullable", "role", "definition", "comment"]),
    }
}

pub fn rows(database: &Database, session: &Session, statement: &Statement) -> Result<RecordBatch, PgError> {
    let snapshot = session.snapshot(database);
    let rows: Vec<Vec<Option<String>>> = match statement {
        Statement::ShowObjects(ObjectKind::Aggregate) => snapshot.aggregates().map(|o| listed(database, o)).collect(),
        Statement::ShowObjects(kind) => {
            snapshot.objects().filter(|o| o.kind() == *kind).map(|o| listed(database, o)).collect()
        }
        Statement::ShowCreate { kind, name } => {
            let object = find(&snapshot, *kind, name)?;
            vec![vec![Some(object.shown_name()), Some(object.sql().to_string())]]
        }
        Statement::Describe { name } => {
            let object = snapshot.get(name).ok_or_else(|| missing_object(&snapshot, "relation", name, |_| true))?;
            described(object)
        }
        _ => vec![],
    };
    text_rows(schema(statement), &rows)
}

fn listed(database: &Database, object: &Object) -> Vec<Option<String>> {
    let names = |at: &[usize]| at.iter().map(|i| object.columns()[*i].name.as_str()).collect::<Vec<_>>().join(", ");
    let name = Some(object.shown_name());
    match &object.body {
        Body::Source(r) | Body::Table(r) => vec![
            name,
            Some(r.columns.len().to_string()),
            (!r.primary_key.is_empty()).then(|| names(&r.primary_key)),
            r.event_time.map(|i| match r.delay_us {
                0 => r.columns[i].name.clone(),
                delay => format!("{} - {}", r.columns[i].name, describe_duration(delay)),
            }),
            r.event_time.map(|_| format!("{:?}", r.clock).to_lowercase()),
            object.comment.clone(),
        ],
        Body::FeatureView(v) => vec![
            name,
            Some(names(&v.key)),
            Some(v.columns[v.time].name.clone()),
            Some(v.features.len().to_string()),
            Some(database.snapshot().relation_names(v)),
            v.ttl_us.map(describe_duration),
            v.owner.clone(),
            (!v.tags.is_empty()).then(|| v.tags.join(", ")),
            object.comment.clone(),
        ],
        Body::View(v) => vec![name, Some(v.columns.len().to_string()), object.comment.clone()],
        Body::Aggregate(a) => vec![
            name,
            Some(a.arguments()),
            Some(a.returns.to_string()),
            Some(a.expression.clone()),
            object.comment.clone(),
        ],
        Body::TrainingSet(set) => vec![
            name,
            Some(set.record.rows.to_string()),
            Some(set.columns.len().to_string()),
            Some(set.record.views().join(", ")),
            Some(set.complete.as_str().to_string()),
            object.comment.clone(),
        ],
    }
}

fn described(object: &Object) -> Vec<Vec<Option<String>>> {
    object
        .columns()
        .iter()
        .enumerate()
        .map(|(i, column)| {
            let (role, definition) = match &object.body {
                Body::Source(r) | Body::Table(r) => {
                    let role = match (r.primary_key.contains(&i), r.event_time == Some(i)) {
                        (true, _) => Some("primary key"),
                        (_, true) => Some("event time"),
                        _ => None,
                    };
                    (role, None)
                }
                Body::FeatureView(v) => {
                    let role = match (v.key.contains(&i), v.time == i) {
                        (true, _) => "entity key",
                        (_, true) => "time",
                        _ => "feature",
                    };
                    (Some(role), v.features.iter().find(|f| f.column == i).map(|f| f.expression.clone()))
                }
                Body::View(_) | Body::Aggregate(_) | Body::TrainingSet(_) => (None, None),
            };
            vec![
                Some(column.name.clone()),
                Some(column.ty.to_string()),
                Some(if column.not_null { "no" } else { "yes" }.to_string()),
                role.map(str::to_string),
                definition,
                column.comment.clone(),
            ]
        })
        .collect()
}
