//! Where a column comes from: of each column of a feature view, view or training set the columns of what it is made from. A pure
//! function of the definitions.
//!
//! ```text
//! feature view   ──▶ columns of sources and tables, through views, subqueries, windows, aggregates and joins
//! view, set      ──▶ columns of what its query reads, views among them written out
//! ```

mod query;

use crate::feature::{self, FeaturePlan, OutputKind, Slot};
use datafusion::logical_expr::Expr;
use std::collections::BTreeSet;
use tidemark_catalog::{Object, ObjectId, Snapshot};

/// What a column is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// A column of the entity key.
    Key,
    /// The time column.
    Time,
    Value,
    /// No column: which rows count.
    Filter,
    /// No column: which rows belong together.
    Join,
}

impl Role {
    /// As people read it.
    pub fn name(self) -> &'static str {
        match self {
            Role::Key => "key",
            Role::Time => "time",
            Role::Value => "value",
            Role::Filter => "filter",
            Role::Join => "join",
        }
    }
}

/// That one column comes from another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edge {
    /// The place of the column among the object's; `None`: all of its rows do.
    pub column: Option<usize>,
    pub role: Role,
    pub from: ObjectId,
    /// The name of a column; `None`: the rows as such, as `count(*)` counts them.
    pub from_column: Option<String>,
}

/// The edges of an object, each once, in the order of its columns; none of sources, tables and aggregates. Of a query that cannot
/// be bound again only the objects that it reads are known.
pub fn of(object: &Object, snapshot: &Snapshot) -> Vec<Edge> {
    let edges: BTreeSet<Edge> = match (object.feature_view(), object.view(), object.training_set()) {
        (Some(_), ..) => match feature::plan_definition(object, snapshot) {
            Ok(plan) => OfPlan { plan: &plan, snapshot }.edges(),
            Err(_) => objects(object.reads()),
        },
        (_, Some(view), _) => {
            query::edges(&view.query, &snapshot.within(object)).unwrap_or_else(|_| objects(view.reads.clone()))
        }
        (.., Some(set)) => {
            let read = set.record.reads.iter().map(|read| read.id).filter(|id| snapshot.get_id(*id).is_some());
            query::edges(&set.query, &snapshot.within(object)).unwrap_or_else(|_| objects(read.collect()))
        }
        _ => BTreeSet::new(),
    };
    edges.into_iter().collect()
}

fn objects(ids: Vec<ObjectId>) -> BTreeSet<Edge> {
    ids.into_iter().map(|from| Edge { column: None, role: Role::Value, from, from_column: None }).collect()
}

/// A column of a source or table; without one, its rows.
type Origin = (ObjectId, Option<String>);

struct OfPlan<'a> {
    plan: &'a FeaturePlan,
    snapshot: &'a Snapshot,
}

impl OfPlan<'_> {
    fn edges(&self) -> BTreeSet<Edge> {
        let plan = self.plan;
        let mut edges = BTreeSet::new();
        let mut add = |column: Option<usize>, role: Role, origins: BTreeSet<Origin>| {
            edges.extend(origins.into_iter().map(|(from, from_column)| Edge { column, role, from, from_column }));
        };
        for (at, output) in plan.outputs.iter().enumerate() {
            let (role, origins) = match &output.kind {
                OutputKind::Key(key) => {
                    (Role::Key, plan.key.get(*key).map(|key| self.of_rows(key)).unwrap_or_default())
                }
                OutputKind::Time => (Role::Time, self.times()),
                OutputKind::Slot(slot) => (Role::Value, self.of_slot(*slot)),
                OutputKind::Expr(expr) => {
                    (Role::Value, slots(expr).into_iter().flat_map(|slot| self.of_slot(slot)).collect())
                }
                OutputKind::TimeContinuous { bases, .. } => {
                    (Role::Value, bases.iter().flat_map(|slot| self.of_slot(*slot)).collect())
                }
            };
            add(Some(at), role, origins);
        }
        if let Some(filter) = &plan.filter {
            add(None, Role::Filter, self.of_rows(filter));
        }
        for (at, branch) in plan.branches.iter().enumerate() {
            let Some(taken) = &branch.taken else { continue };
            if let Some(filter) = &taken.filter {
                add(None, Role::Filter, self.of_branch(at, filter));
            }
            for joined in &taken.joined {
                let keys = joined.key.iter().flat_map(|key| self.of_branch(at, key));
                add(None, Role::Join, keys.collect());
            }
        }
        if let Some(beside) = &plan.beside {
            let on = beside.key.iter().map(|column| self.column(beside.table, *column));
            add(None, Role::Join, on.collect());
        }
        edges
    }

    fn of_slot(&self, slot: usize) -> BTreeSet<Origin> {
        let input = |at: &usize| self.plan.inputs.get(*at).map(|input| self.of_rows(&input.expr)).unwrap_or_default();
        match self.plan.slots.get(slot) {
            Some(Slot::Aggregate(call)) => {
                let inputs: BTreeSet<Origin> =
                    call.arg.iter().chain(&call.other).chain(&call.filter).flat_map(input).collect();
                match inputs.is_empty() {
                    false => inputs,
                    // It counts rows.
                    true => self.plan.branches.iter().map(|branch| (branch.relation, None)).collect(),
                }
            }
            Some(Slot::Raw { input: at, .. }) => input(at),
            Some(Slot::Beside { column, .. }) => {
                let beside = self.plan.beside.as_ref();
                beside
                    .and_then(|beside| Some(self.column(beside.table, *beside.columns.get(*column)?)))
                    .into_iter()
                    .collect()
            }
            Some(Slot::Bound { .. }) => self.times(),
            None => BTreeSet::new(),
        }
    }

    fn times(&self) -> BTreeSet<Origin> {
        self.plan.branches.iter().map(|branch| self.column(branch.relation, branch.event_time)).collect()
    }

    /// Of an expression over the view's rows.
    fn of_rows(&self, expr: &Expr) -> BTreeSet<Origin> {
        let mut origins = BTreeSet::new();
        for name in names(expr) {
            let Ok(at) = self.plan.row_schema.index_of(&name) else { continue };
            for (branch, taken) in self.plan.branches.iter().map(|branch| &branch.taken).enumerate() {
                match taken {
                    None => {
                        origins.insert(self.column(self.plan.branches[branch].relation, at));
                    }
                    Some(taken) => {
                        let of_column = taken.columns.get(at).map(|expr| self.of_branch(branch, expr));
                        origins.extend(of_column.unwrap_or_default());
                    }
                }
            }
        }
        origins
    }

    /// Of an expression over the columns of a branch's relation and of the tables joined to it.
    fn of_branch(&self, branch: usize, expr: &Expr) -> BTreeSet<Origin> {
        let branch = &self.plan.branches[branch];
        let Some(taken) = &branch.taken else { return BTreeSet::new() };
        let origin = |name: String| {
            let at = taken.schema.index_of(&name).ok()?;
            Some(match taken.joined.iter().find(|joined| joined.columns.contains(&at)) {
                Some(joined) => self.column(joined.table, at - joined.columns.start),
                None => self.column(branch.relation, at),
            })
        };
        names(expr).into_iter().filter_map(origin).collect()
    }

    fn column(&self, relation: ObjectId, at: usize) -> Origin {
        let columns = self.snapshot.get_id(relation).map(|object| object.columns()).unwrap_or_default();
        (relation, columns.get(at).map(|column| column.name.clone()))
    }
}

fn names(expr: &Expr) -> BTreeSet<String> {
    expr.column_refs().into_iter().map(|column| column.name.clone()).collect()
}

/// The slots that an expression over them reads.
fn slots(expr: &Expr) -> Vec<usize> {
    names(expr).iter().filter_map(|name| name.strip_prefix('s')?.parse().ok()).collect()
}

#[cfg(test)]
mod tests;
