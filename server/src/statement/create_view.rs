//! `CREATE VIEW`: a name for a query. A feature service is one over feature views.

use super::{
    create_relation::{exists, named, placed},
    done,
};
use crate::{
    database::Database,
    pg::{Outcome, PgError},
    session::Session,
};
use datafusion::sql::sqlparser::ast;
use std::sync::Arc;
use tidemark_catalog::{Body, Column, Object, Place, QualifiedName, SqlType, View};
use tidemark_planner::{bind::Binder, meaning, names, shown};

pub struct NewView<'a> {
    pub name: &'a QualifiedName,
    pub columns: &'a [String],
    pub query: &'a ast::Query,
    pub query_text: &'a str,
    pub sql: &'a str,
}

pub async fn execute(
    database: &Arc<Database>,
    session: &mut Session,
    new: NewView<'_>,
    if_not_exists: bool,
) -> Result<Outcome, PgError> {
    let mut catalog = database.owner()?.catalog.lock().await;
    let snapshot = session.lasting(database);
    if let Some(existing) = named(database, session, new.name, None)? {
        return exists(session, &catalog, &existing, if_not_exists, "CREATE VIEW");
    }
    let system = database.system(session);
    let bound = Binder::new(&snapshot, &session.state, &system, database.clock.now_us()).query(new.query, &[])?;
    session.refresh(database);
    session.rights.check_read(&bound.names)?;
    let config = session.state.config_options();
    let plan = session.state.analyzer().execute_and_check(bound.plan, config, |_, _| {})?;
    let kept = shown::kept(&plan)?;
    let fields = plan.schema().fields();
    if new.columns.len() > fields.len() {
        return Err(PgError::error("42601", "CREATE VIEW specifies more column names than columns"));
    }
    let mut columns: Vec<Column> = vec![];
    for (i, field) in fields.iter().enumerate() {
        let name = new.columns.get(i).map_or(names::shown(field.name()), String::as_str).to_string();
        let ty = kept[i].clone().or_else(|| SqlType::from_arrow(field.data_type())).ok_or_else(|| {
            PgError::error(
                "0A000",
                format!("column \"{name}\" of view \"{}\" has a type that has no name here", new.name),
            )
        })?;
        if columns.iter().any(|c| c.name == name) {
            return Err(PgError::error("42701", format!("column \"{name}\" specified more than once"))
                .hint("name the columns with AS"));
        }
        columns.push(Column { name, ty, not_null: false, comment: None });
    }
    let (Place { schema, .. }, sql) = placed(&snapshot, new.name, None, new.sql)?;
    let place = meaning::of_query(schema, new.query, &snapshot, &system);
    let view = View { sql, query: new.query_text.to_string(), columns, reads: bound.reads };
    let object = Object {
        id: catalog.allocate_id().await?,
        name: new.name.name.clone(),
        created_us: database.clock.now_us(),
        comment: None,
        place,
        body: Body::View(view),
    };
    database.create(&mut catalog, session, object).await?;
    done("CREATE VIEW")
}
