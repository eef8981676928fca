//! What a training set is computed from: up to where each log, and below which instant each view, as things are now or as they
//! were recorded.

use crate::{pg::PgError, statement::moment::scans};
use datafusion::{common::tree_node::TreeNodeRecursion, logical_expr::LogicalPlan};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tidemark_catalog::{Feature, Object, ObjectId, Read, Record, Snapshot};
use tidemark_engine::{provider::extents, runtime::Engine, wording::instant};
use tidemark_planner::{
    asof::AsofNode,
    table::{ScanTarget, TidemarkTable},
};

#[derive(Debug, Default)]
pub struct Basis {
    /// Of feature views and changelog tables, microseconds.
    pub frontiers: BTreeMap<ObjectId, i64>,
    /// Of sources and tables whose rows are read: the first offset, and that behind the last.
    pub logs: BTreeMap<ObjectId, (u64, u64)>,
    /// Of feature views, the newest snapshot of their history.
    pub snapshots: BTreeMap<ObjectId, i64>,
}

/// The tables on the right of its `ASOF JOIN`s.
fn joined(plan: &LogicalPlan) -> Vec<TidemarkTable> {
    let mut found = vec![];
    let _ = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Extension(extension) = node
            && let Some(join) = extension.node.as_any().downcast_ref::<AsofNode>()
        {
            found.extend(scans(&join.right));
        }
        Ok(TreeNodeRecursion::Continue)
    });
    found
}

impl Basis {
    /// As things are now. What is not there any more is for the scan to say.
    pub async fn now(engine: &Engine, snapshot: &Snapshot, scans: &[TidemarkTable]) -> Result<Basis, PgError> {
        let mut basis = Basis::default();
        let mut relations = BTreeSet::new();
        for table in scans {
            match &table.target {
                // The rows of another training set, in a log that is no object, never change.
                ScanTarget::Relation(id) if snapshot.get_id(*id).is_some() => {
                    relations.insert(*id);
                }
                ScanTarget::Steps(id)
                | ScanTarget::CurrentRows(id)
                | ScanTarget::AsOf(id, _)
                | ScanTarget::History(id) => {
                    let of_source = || engine.source(*id).map(|source| source.frontier_us());
                    let frontier = engine.view(*id).map(|view| view.state.frontier_us()).or_else(of_source);
                    basis.frontiers.extend(frontier.map(|frontier_us| (*id, frontier_us)));
                    if let Some(view) = engine.view(*id).filter(|_| !basis.snapshots.contains_key(id)) {
                        let name = view.history.read().name.clone();
                        let snapshot_id = engine.seams.history.snapshot_id(&name).await?;
                        basis.snapshots.extend(snapshot_id.map(|snapshot_id| (*id, snapshot_id)));
                    }
                }
                _ => {}
            }
        }
        basis.logs = extents(engine, &relations).await?;
        Ok(basis)
    }

    /// As recorded.
    ///
    /// # Errors
    /// 55000: something is not there any more as it was.
    pub async fn recorded(engine: &Engine, snapshot: &Snapshot, name: &str, record: &Record) -> Result<Basis, PgError> {
        let mut basis = Basis::default();
        for read in &record.reads {
            let (kind, of) = (&read.kind, &read.name);
            let Some(object) = snapshot.get_id(read.id) else {
                return Err(not_as_recorded(name, &format!("{kind} \"{of}\" was dropped since")));
            };
            if object.sql() != read.definition {
                let why = format!("{kind} \"{of}\" is defined otherwise now");
                return Err(not_as_recorded(name, &why).detail(format!("then: {}", read.definition)));
            }
            // Where they are not recorded, the rows tell whether they are the same.
            if let Some(then) = read.defaults.as_ref().filter(|then| defaults(object) != **then) {
                let why = format!("features of {kind} \"{of}\" have other defaults now");
                return Err(not_as_recorded(name, &why).detail(format!("then: {}", shown(then))));
            }
            basis.frontiers.extend(read.frontier_us.map(|frontier_us| (read.id, frontier_us)));
            let Some((from, to)) = read.log else { continue };
            if let Some(source) = engine.source(read.id) {
                let first = source.log().range().await?.0.get(0);
                if first > from && from < to {
                    let why = format!("retention has removed rows of {kind} \"{of}\" that it was computed from");
                    return Err(not_as_recorded(name, &why));
                }
            }
            basis.logs.insert(read.id, (from, to));
        }
        Ok(basis)
    }

    /// Refuses what is not final though no label says so.
    pub fn check_final(&self, snapshot: &Snapshot, plan: &LogicalPlan) -> Result<(), PgError> {
        for table in joined(plan) {
            let of = |id| snapshot.get_id(id).and_then(|object| object.relation());
            if let ScanTarget::Relation(id) = table.target
                && of(id).is_some_and(|relation| relation.event_time.is_some())
            {
                let message = format!("the training set joins the events of \"{}\" as of a label's time", table.name);
                return Err(PgError::error("55000", message)
                    .detail("events that belong before that time may still come, and no frontier is kept of what a join of them has seen")
                    .hint("make a feature view over them and join that; or WITH (complete = 'state') takes what is known now"));
            }
        }
        for table in &scans(plan) {
            let view = &table.name;
            match table.target {
                ScanTarget::History(id) if snapshot.get_id(id).is_some_and(|object| object.relation().is_some()) => {
                    return Err(PgError::error(
                        "55000",
                        format!("the training set reads history.{view}, an archive, which goes as far as it is committed"),
                    )
                    .detail("events that the source has admitted may be missing until the next commit, and more may come")
                    .hint(format!(
                        "make a feature view over \"{view}\" and ASOF JOIN that; or WITH (complete = 'state') takes what is there now"
                    )));
                }
                ScanTarget::History(_) => {
                    return Err(PgError::error(
                        "55000",
                        format!("the training set reads history.{view}, which goes as far as it is committed"),
                    )
                    .detail("steps below the view's frontier may be missing until the next commit")
                    .hint(format!(
                        "ASOF JOIN \"{view}\" itself; or WITH (complete = 'state') takes what is there now"
                    )));
                }
                ScanTarget::CurrentRows(_) => {
                    return Err(PgError::error(
                        "55000",
                        format!("the training set reads the current rows of feature view \"{view}\""),
                    )
                    .detail("they are of now, whatever the time of a label, and change with every event")
                    .hint(format!(
                        "ASOF JOIN \"{view}\", or read it FOR SYSTEM_TIME AS OF a time below its frontier; or WITH (complete = 'state')"
                    )));
                }
                ScanTarget::AsOf(id, at_us) => {
                    if let Some(frontier_us) = self.frontiers.get(&id).filter(|frontier_us| at_us >= **frontier_us) {
                        return Err(PgError::error(
                            "55000",
                            format!(
                                "the training set reads feature view \"{view}\" as of {}, at or above its frontier, {}",
                                instant(at_us),
                                instant(*frontier_us)
                            ),
                        )
                        .detail("its rows may still change: events may come that belong before that time")
                        .hint("take an earlier time; or WITH (complete = 'state') takes what is known now"));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The objects, for the record.
    pub fn reads(&self, snapshot: &Snapshot, ids: &[ObjectId]) -> Vec<Read> {
        let objects = ids.iter().filter_map(|id| snapshot.get_id(*id));
        objects.map(|object: &Arc<Object>| self.read(object)).collect()
    }

    fn read(&self, object: &Object) -> Read {
        Read {
            id: object.id,
            name: object.name.clone(),
            kind: object.kind().to_string(),
            definition: object.sql().to_string(),
            frontier_us: self.frontiers.get(&object.id).copied(),
            log: self.logs.get(&object.id).copied(),
            defaults: object.feature_view().map(|_| defaults(object)),
            history_snapshot: self.snapshots.get(&object.id).copied(),
        }
    }
}

/// What an outer join shows of a view's features where the entity has no row.
fn defaults(object: &Object) -> BTreeMap<String, String> {
    let features = object.feature_view().map_or(&[][..], |view| &view.features);
    let default = |feature: &Feature| {
        let column = object.columns().get(feature.column)?;
        Some((column.name.clone(), feature.default.clone()?))
    };
    features.iter().filter_map(default).collect()
}

fn shown(defaults: &BTreeMap<String, String>) -> String {
    match defaults.is_empty() {
        true => "none".to_string(),
        false => defaults.iter().map(|(feature, value)| format!("{feature} = {value}")).collect::<Vec<_>>().join(", "),
    }
}

pub fn not_as_recorded(name: &str, why: &str) -> PgError {
    PgError::error("55000", format!("training set \"{name}\" cannot be computed as recorded: {why}"))
        .hint(format!("its rows stay as they are; REFRESH TRAINING SET {name} computes it by what there is now"))
}
