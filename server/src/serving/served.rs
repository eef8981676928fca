//! Feature views as a serving node has them: planned from the owner's definition by the same code, without any state.

use crate::{pg::PgError, places::DEFAULT};
use std::{collections::BTreeMap, sync::Arc};
use tidemark_catalog::{ClockMode, Object, ObjectId, Snapshot};
use tidemark_engine::{compiled::CompiledView, meter::Counter, online::OnlineRow};
use tidemark_planner::{
    PlanError,
    feature::{OutputKind, plan_definition},
};

pub struct Served {
    pub id: ObjectId,
    pub name: String,
    compiled: Result<CompiledView, PlanError>,
    /// Whether its now is at least the server's clock: one of its sources follows that.
    pub follows_clock: bool,
    /// Whether the owner is to be asked for its now: this node's clock does not tell it, or a value depends on it.
    pub reads_now: bool,
    /// Rows that were answered though they did not hold any more.
    pub stale: Arc<Counter>,
    /// What it was planned from: itself and what it reads.
    planned_from: Vec<Arc<Object>>,
}

/// The feature views of a snapshot. Planning takes a millisecond or more for each: what has not changed since `before` stays.
pub fn views(snapshot: &Snapshot, before: &BTreeMap<ObjectId, Arc<Served>>) -> BTreeMap<ObjectId, Arc<Served>> {
    let views = snapshot.objects().filter(|object| object.feature_view().is_some());
    let served = |object: &Arc<Object>| {
        let known = before.get(&object.id);
        let planned_from = planned_from(object, snapshot);
        match known.filter(|known| known.planned_from == planned_from) {
            Some(known) => known.clone(),
            None => {
                let stale = known.map(|known| known.stale.clone()).unwrap_or_default();
                Arc::new(Served::new(object, snapshot, planned_from, stale))
            }
        }
    };
    views.map(|object| (object.id, served(object))).collect()
}

/// The object and all that it reads, also by way of others.
fn planned_from(object: &Arc<Object>, snapshot: &Snapshot) -> Vec<Arc<Object>> {
    let mut all = vec![object.clone()];
    let mut at = 0;
    while at < all.len() {
        for id in all[at].reads() {
            if let Some(read) = snapshot.get_id(id)
                && !all.iter().any(|known| known.id == id)
            {
                all.push(read.clone());
            }
        }
        at += 1;
    }
    all
}

impl Served {
    fn new(object: &Object, snapshot: &Snapshot, planned_from: Vec<Arc<Object>>, stale: Arc<Counter>) -> Served {
        let compiled = plan_definition(object, snapshot).and_then(|plan| CompiledView::new(object, plan));
        if let Err(error) = &compiled {
            tracing::error!(view = object.name, %error, "the feature view cannot be planned; lookups of it are refused");
        }
        let is_continuous = compiled.as_ref().is_ok_and(|compiled| {
            compiled.plan.outputs.iter().any(|output| matches!(output.kind, OutputKind::TimeContinuous { .. }))
        });
        let sources = object.feature_view().into_iter().flat_map(|view| view.relations());
        let follows_clock = sources
            .filter_map(|id| snapshot.get_id(id)?.relation())
            .any(|relation| relation.clock == ClockMode::System);
        Served {
            id: object.id,
            name: object.shown_name(),
            compiled,
            follows_clock,
            reads_now: !follows_clock || is_continuous,
            stale,
            planned_from,
        }
    }

    /// The online store that the view has chosen, as it may be shown; `None`: the server's own.
    pub fn elsewhere(&self) -> Option<&str> {
        let place = self.planned_from.first()?.feature_view()?.options.get("online")?;
        (place != DEFAULT).then_some(place)
    }

    /// # Errors
    /// This version cannot plan it.
    pub fn compiled(&self) -> Result<&CompiledView, PgError> {
        self.compiled.as_ref().map_err(|error| {
            PgError::error("55000", format!("feature view \"{}\" cannot be served: {error}", self.name))
                .hint("run the same version as the server that owns the data directory")
        })
    }

    /// A row as Redis has it.
    ///
    /// # Errors
    /// It is not one of this view's.
    pub fn decode(&self, row: &[u8]) -> Result<OnlineRow, PgError> {
        let wrong = |what: String| {
            PgError::error("58030", format!("a row of feature view \"{}\" in Redis cannot be read: {what}", self.name))
                .hint("run the same version as the server that owns the data directory")
        };
        let row = OnlineRow::decode(row).map_err(wrong)?;
        let columns = self.compiled()?.output_count();
        match row.outputs.len() == columns {
            true => Ok(row),
            false => Err(wrong(format!("it has {} columns, the view {columns}", row.outputs.len()))),
        }
    }
}
