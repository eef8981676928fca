//! `ALTER SOURCE s ADVANCE WATERMARK TO t`: nothing before t will come any more.

use crate::{
    database::Database,
    pg::{Outcome, PgError},
    session::Session,
};
use datafusion::{scalar::ScalarValue, sql::sqlparser::ast};
use std::sync::Arc;
use tidemark_catalog::{ClockMode, QualifiedName};
use tidemark_engine::admission::EVENT_TIMES_US;
use tidemark_planner::bind::{Binder, NoSystemTables};

pub async fn execute(
    database: &Arc<Database>,
    session: &mut Session,
    if_exists: bool,
    name: &QualifiedName,
    to: &ast::Expr,
    parameters: &[ScalarValue],
) -> Result<Outcome, PgError> {
    let snapshot = session.lasting(database);
    let object = match super::insert::target(&snapshot, name) {
        Err(error) if if_exists && error.sqlstate == "42P01" => {
            session.notice(format!("relation \"{name}\" does not exist, skipping"));
            return Ok(Outcome::Done { tag: "ALTER SOURCE".into() });
        }
        found => found?,
    };
    let relation = object.relation().ok_or_else(|| PgError::error("XX000", "not a relation"))?;
    if relation.event_time.is_none() {
        return Err(PgError::error("42P17", format!("{} \"{name}\" has no watermark", object.kind()))
            .hint("declare WATERMARK FOR column AS column - INTERVAL '…' when creating it"));
    }
    let now_us = database.clock.now_us();
    let to = &super::instants::written_expression(to, parameters, &session.format.time_zone)?;
    let to_us =
        Binder::new(&snapshot, &session.state, &NoSystemTables, now_us).instant(to, now_us, &name.to_string())?;
    if relation.clock == ClockMode::System && to_us > now_us {
        return Err(PgError::error(
            "22023",
            format!("cannot advance the watermark of {} \"{name}\" beyond now", object.kind()),
        )
        .hint("every event until then would be late; under clock = 'event' time is the replay's own"));
    }
    if !EVENT_TIMES_US.contains(&to_us) {
        let message = format!("cannot advance the watermark of {} \"{name}\" so far", object.kind());
        return Err(PgError::error("22023", message).hint("event times are admitted from the year 1900 to 2200"));
    }
    database.owner()?.engine.advance_watermark(object.id, to_us).await?;
    Ok(Outcome::Done { tag: format!("ALTER {}", object.kind().to_string().to_uppercase()).into() })
}
