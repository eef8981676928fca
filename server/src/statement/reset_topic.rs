//! `ALTER SOURCE … RESET TO …`: the reading of a topic goes on somewhere else. Where, is a record of the source's own
//! log, as its beginning is, so that every start and every replay does the same.

use crate::{
    blocks,
    database::{Database, find},
    pg::{Outcome, PgError},
    session::Session,
};
use datafusion::scalar::ScalarValue;
use std::sync::Arc;
use tidemark_catalog::{ObjectKind, QualifiedName, Relation};
use tidemark_connectors::kafka::Start;
use tidemark_planner::{
    bind::{Binder, NoSystemTables},
    statement::ResetTo,
};

/// What the statement says.
pub struct Reset<'a> {
    pub kind: ObjectKind,
    pub if_exists: bool,
    pub name: &'a QualifiedName,
    pub to: &'a ResetTo,
    pub allow_duplicates: bool,
}

pub async fn execute(
    database: &Arc<Database>,
    session: &mut Session,
    reset: Reset<'_>,
    parameters: &[ScalarValue],
) -> Result<Outcome, PgError> {
    let Reset { kind, name, .. } = reset;
    let owner = database.owner()?;
    let tag = format!("ALTER {}", kind.to_string().to_uppercase());
    loop {
        let snapshot = session.lasting(database);
        let object = match find(&snapshot, kind, name) {
            Ok(object) => object.clone(),
            Err(error) if reset.if_exists && error.sqlstate == "42P01" => {
                let catalog = database.owner()?.catalog.lock().await;
                blocks::skip(database, session, &catalog, kind, name)?;
                return Ok(Outcome::Done { tag: tag.into() });
            }
            Err(error) => return Err(error.into()),
        };
        if object.relation().and_then(Relation::topic).is_none() {
            return Err(PgError::error("0A000", format!("no topic feeds {kind} \"{name}\""))
                .hint("INSERT and COPY do; RESET is for connector = 'kafka'"));
        }
        let start = match reset.to {
            ResetTo::Earliest => Start::Earliest,
            ResetTo::Latest => Start::Latest,
            ResetTo::Offsets(text) => Start::offsets(text).ok_or_else(|| {
                PgError::error("22023", format!("\"{text}\" are no offsets"))
                    .hint("RESET TO OFFSETS 'partition:0,offset:42;partition:1,offset:300'")
            })?,
            ResetTo::Instant(at) => {
                let now_us = database.clock.now_us();
                let at = &super::instants::written_expression(at, parameters, &session.format.time_zone)?;
                let at_us = Binder::new(&snapshot, &session.state, &NoSystemTables, now_us).instant(
                    at,
                    now_us,
                    &name.to_string(),
                )?;
                // Kafka's times are milliseconds: the first one that is not before.
                Start::Timestamp(at_us.div_euclid(1000).saturating_add(i64::from(at_us.rem_euclid(1000) > 0)).max(0))
            }
        };
        // A broker may take seconds to answer, or not to: until it has, nothing is changed, and the statement may be stopped.
        owner.feeds.probe(&object, &start).await?;
        let _held = session.hold.hold();
        // With nothing locked, and asked again: nobody may be taking while it is decided from where.
        let places = owner.feeds.pause(&object, &start).await;
        // From here on nobody drops or alters it, and nobody else stops and starts its feed.
        let _catalog = owner.catalog.lock().await;
        match database.snapshot().get_id(object.id) {
            // Somebody else has fed it again meanwhile, or dropped it, or there is another topic to ask.
            Some(_) if owner.feeds.status(object.id).is_some() => {}
            Some(now) if now.relation() != object.relation() => owner.feeds.start(now)?,
            Some(now) => {
                if let Some(moves) = owner.feeds.reset(now, places, reset.allow_duplicates).await? {
                    session.notice(format!("{kind} \"{name}\": {moves}"));
                }
                return Ok(Outcome::Done { tag: tag.into() });
            }
            None => {}
        }
    }
}
