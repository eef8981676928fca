//! `CREATE FEATURE VIEW`: recognised, built from the beginning of its source, durable, then visible.

use super::{
    create_relation::{exists, named, placed},
    done, secret, set_default,
};
use crate::{
    database::Database,
    pg::{Outcome, PgError},
    places::Refused,
    progress::Doing,
    session::Session,
    wire::SessionZone,
};
use std::sync::Arc;
use tidemark_catalog::{Body, Column, Feature, FeatureView, Object, ObjectId, Place, QualifiedName, Snapshot, SqlType};
use tidemark_engine::{compiled::CompiledView, progress::Phase};
use tidemark_planner::{
    bind::NoSystemTables,
    feature::{FeaturePlan, OutputKind, Slot, bound_definition, plan_feature_view, retention},
    meaning,
    parse::without_secrets,
    shown,
    statement::CreateFeatureView,
};

pub async fn execute(
    database: &Arc<Database>,
    session: &mut Session,
    create: &CreateFeatureView,
    sql: &str,
) -> Result<Outcome, PgError> {
    let running = database.begin(session, Doing::new("CREATE FEATURE VIEW", &create.name.to_string(), Some("records")));
    let mut catalog = database.owner()?.catalog.lock().await;
    let snapshot = session.lasting(database);
    secret::check_options(session, &snapshot, &create.options)?;
    let plan = plan(&snapshot, session, create)?;
    if let Some(existing) = named(database, session, &create.name, None)? {
        return exists(session, &catalog, &existing, create.if_not_exists, "CREATE FEATURE VIEW");
    }
    let online = create.options.get("online");
    if let Some(online) = online {
        reach(database, &create.name, online).await?;
    }
    let id = catalog.allocate_id().await?;
    let (Place { schema, .. }, sql) = placed(&snapshot, &create.name, None, &without_secrets(sql))?;
    let place = meaning::of_query(schema, &create.query, &snapshot, &NoSystemTables);
    let mut object = object(database, session, create, &plan, sql, id)?;
    object.place = place;
    declare(&mut object, &snapshot, &session.format.time_zone)?;
    let compiled = CompiledView::new(&object, plan)?;
    let owner = database.owner()?;
    owner.places.begin(id, online.map(String::as_str))?;
    let history_start_us = owner.engine.create_view_watched(&object, compiled, &running.progress).await?;
    running.progress.enter(Phase::Finishing);
    if let Body::FeatureView(view) = &mut object.body {
        view.history_start_us = history_start_us;
    }
    if let Err(error) = database.create(&mut catalog, session, object).await {
        database.owner()?.engine.drop_view(id).await?;
        return Err(error);
    }
    done("CREATE FEATURE VIEW")
}

/// Asks the online store that a view names whether it may be put there.
pub async fn reach(database: &Database, view: &QualifiedName, online: &str) -> Result<(), PgError> {
    let refused = |sqlstate, why: &dyn std::fmt::Display| {
        PgError::error(sqlstate, format!("the online store of feature view \"{view}\" cannot be used: {why}"))
    };
    match database.owner()?.places.check(online).await {
        Ok(()) => Ok(()),
        Err(Refused::Address(error)) => Err(refused("22023", &error)),
        Err(Refused::Away(error)) => Err(refused("08001", &error.into_not_done())),
    }
}

pub fn plan(snapshot: &Snapshot, session: &Session, create: &CreateFeatureView) -> Result<FeaturePlan, PgError> {
    if create.or_replace {
        return Err(PgError::error(
            "0A000",
            format!("CREATE OR REPLACE FEATURE VIEW \"{}\" is not available", create.name),
        )
        .hint("create it under a new name and drop the old one when its readers have moved"));
    }
    let zone = session.get("timezone").unwrap_or("UTC");
    let plan = plan_feature_view(&create.name.name, &create.query, &create.options, snapshot, zone)?;
    for relation in plan.relations().into_iter().filter_map(|id| snapshot.get_id(id)) {
        retention::check_view(&create.name.name, &plan, relation)?;
    }
    Ok(plan)
}

fn object(
    database: &Database,
    session: &Session,
    create: &CreateFeatureView,
    plan: &FeaturePlan,
    sql: String,
    id: ObjectId,
) -> Result<Object, PgError> {
    let mut columns = vec![];
    let mut features = vec![];
    for (i, output) in plan.outputs.iter().enumerate() {
        let ty = SqlType::from_arrow(&output.ty).ok_or_else(|| {
            PgError::error("0A000", format!("column \"{}\" has a type that cannot be stored", output.name))
        })?;
        let keyed = matches!(output.kind, OutputKind::Key(_) | OutputKind::Time);
        columns.push(Column { name: output.name.clone(), ty, not_null: keyed, comment: None });
        if !keyed {
            let (aggregate, window) = describe(plan, &output.kind);
            features.push(Feature { column: i, aggregate, window, expression: output.sql.clone(), default: None });
        }
    }
    let text = |name: &str| create.options.get(name).cloned();
    let relations = plan.relations();
    let mut options = create.options.clone();
    let mut view = FeatureView {
        sql,
        query: create.query_text.clone(),
        relation: relations[0],
        others: relations[1..].to_vec(),
        through: plan.through.clone(),
        columns,
        key: plan.key_outputs(),
        time: plan.time_output(),
        features,
        ttl_us: plan.ttl_us,
        time_zone: session.get("timezone").unwrap_or("UTC").to_string(),
        owner: text("owner").or_else(|| Some(session.user.clone())),
        tags: text("tags")
            .map(|tags| tags.split(',').map(|t| t.trim().to_string()).filter(|t| !t.is_empty()).collect())
            .unwrap_or_default(),
        options: Default::default(),
        version: 1,
        history_start_us: None,
    };
    set_default::take_options(&mut view, &create.name.name, &mut options, &session.format.time_zone)?;
    view.options = options;
    Ok(Object {
        id,
        name: create.name.name.clone(),
        created_us: database.clock.now_us(),
        comment: None,
        place: Default::default(),
        body: Body::FeatureView(view),
    })
}

/// Columns that the query takes out of its relations as they are have the types that they are declared with there.
fn declare(object: &mut Object, snapshot: &Snapshot, zone: &SessionZone) -> Result<(), PgError> {
    let kept = shown::kept(&bound_definition(object, snapshot)?)?;
    if let Body::FeatureView(view) = &mut object.body {
        for (at, (column, kept)) in view.columns.iter_mut().zip(kept).enumerate() {
            // A document that is a key is looked up by its text.
            let fits =
                |ty: &SqlType| ty.arrow() == column.ty.arrow() && (*ty == SqlType::Uuid || !view.key.contains(&at));
            let Some(ty) = kept.filter(fits) else { continue };
            for feature in view.features.iter_mut().filter(|feature| feature.column == at) {
                if let Some(default) = feature.default.take() {
                    feature.default = Some(set_default::kept(&ty, &default, zone)?);
                }
            }
            column.ty = ty;
        }
    }
    Ok(())
}

/// Aggregate and window of a feature, for people; of an expression over several, those it is made of.
pub fn describe(plan: &FeaturePlan, kind: &OutputKind) -> (String, String) {
    let slots: Vec<usize> = match kind {
        OutputKind::Slot(slot) => vec![*slot],
        OutputKind::TimeContinuous { bases, .. } => bases.clone(),
        OutputKind::Expr(expr) => {
            let mut slots: Vec<usize> =
                expr.column_refs().iter().filter_map(|c| c.name.strip_prefix('s')?.parse().ok()).collect();
            slots.sort_unstable();
            slots
        }
        OutputKind::Key(_) | OutputKind::Time => vec![],
    };
    let (mut aggregates, mut windows): (Vec<String>, Vec<String>) = (vec![], vec![]);
    for slot in slots {
        if let Slot::Aggregate(call) = &plan.slots[slot] {
            let (name, window) = (call.function.name().to_string(), plan.frames[call.frame].describe());
            if !aggregates.contains(&name) {
                aggregates.push(name);
            }
            if !windows.contains(&window) {
                windows.push(window);
            }
        }
    }
    (aggregates.join(", "), windows.join(", "))
}
