//! Training sets: rows that a query gave once, and what it takes to say where they came from.

use crate::{Body, Column, Object, ObjectId, ObjectKind, Relation};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainingSet {
    /// The statement that created it, as written.
    pub sql: String,
    /// The `SELECT` alone, as written.
    pub query: String,
    pub columns: Vec<Column>,
    pub complete: Complete,
    /// The log that has its rows, under an id of its own: another one after every REFRESH.
    pub rows: ObjectId,
    pub record: Record,
    /// Other engines find the rows in the warehouse too, in a table that is called as the set is.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub has_table: bool,
}

/// Sets of before there were such tables have one too.
fn yes() -> bool {
    true
}

fn is_yes(has_table: &bool) -> bool {
    *has_table
}

/// Of what instants values may be taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Complete {
    /// Below the frontiers only: what is taken never changes.
    #[default]
    Final,
    /// Up to now, at and above the frontiers from state: an event that comes yet may change it.
    State,
}

impl Complete {
    pub fn as_str(self) -> &'static str {
        match self {
            Complete::Final => "final",
            Complete::State => "state",
        }
    }
}

/// What the rows were computed from. Times are microseconds since 1970, UTC.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// When, and what `now()` was.
    pub at_us: i64,
    /// The session's.
    pub time_zone: String,
    pub rows: u64,
    /// Of the rows in whatever order; equal rows have an equal one.
    pub digest: String,
    /// All that the query reads or calls, directly or through views.
    pub reads: Vec<Read>,
    /// Its `ASOF JOIN`s.
    pub joins: Vec<Joined>,
}

impl Record {
    /// The least of the frontiers; `None`: nothing that it reads has one.
    pub fn frontier_us(&self) -> Option<i64> {
        self.reads.iter().filter_map(|read| read.frontier_us).min()
    }

    /// The feature views that it reads, by name.
    pub fn views(&self) -> Vec<String> {
        self.feature_views().map(|read| read.name.clone()).collect()
    }

    /// Of these the ones of which it does not say what defaults their features had.
    pub fn views_of_unknown_defaults(&self) -> Vec<&str> {
        self.feature_views().filter(|read| read.defaults.is_none()).map(|read| read.name.as_str()).collect()
    }

    fn feature_views(&self) -> impl Iterator<Item = &Read> {
        self.reads.iter().filter(|read| read.kind == ObjectKind::FeatureView.to_string())
    }
}

/// One object, as it was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Read {
    pub id: ObjectId,
    pub name: String,
    pub kind: String,
    /// The statement that created it.
    pub definition: String,
    /// Of a feature view, and of a table whose versions are joined: its values of instants below are final.
    pub frontier_us: Option<i64>,
    /// Of a source or table: the offset of the first row in its log, and that behind the last.
    pub log: Option<(u64, u64)>,
    /// Of a feature view: what an outer join shows of features where the entity has no row, by the feature's name. `None`: the
    /// record is from before that was in it, or had none and is from before that was told apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub defaults: Option<BTreeMap<String, String>>,
    /// Of a feature view: the newest Iceberg snapshot of its history then. Steps below the frontier that were not committed yet are in
    /// a later one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history_snapshot: Option<i64>,
}

/// What became of the labels of one `ASOF JOIN`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// The right side.
    pub name: String,
    pub matched: u64,
    pub unmatched: u64,
    /// At or above the frontier of the right side.
    pub provisional: u64,
}

impl Object {
    /// The table that a training set's rows are kept as.
    pub fn rows(&self) -> Option<Object> {
        let set = self.training_set()?;
        let table = Relation::plain(set.columns.clone(), set.sql.clone());
        Some(Object { id: set.rows, body: Body::Table(table), comment: None, ..self.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_as_far_as_the_least_frontier_that_it_has() {
        let read = |frontier_us| Read {
            id: ObjectId::FIRST,
            name: "v".into(),
            kind: "feature view".into(),
            definition: String::new(),
            frontier_us,
            log: None,
            defaults: None,
            history_snapshot: None,
        };
        let record = |frontiers: &[Option<i64>]| Record {
            at_us: 0,
            time_zone: "UTC".into(),
            rows: 0,
            digest: String::new(),
            reads: frontiers.iter().map(|frontier| read(*frontier)).collect(),
            joins: vec![],
        };
        assert_eq!(record(&[None, Some(7), Some(5)]).frontier_us(), Some(5));
        assert_eq!(record(&[None]).frontier_us(), None);
    }

    #[test]
    fn a_record_from_before_defaults_were_in_it_says_of_none_that_it_knows_them() {
        let old = r#"{"id":16384,"name":"v","kind":"feature view","definition":"","frontier_us":null,"log":null}"#;
        let old: Read = serde_json::from_str(old).expect("a record");
        let new = Read { name: "w".into(), defaults: Some(BTreeMap::new()), ..old.clone() };
        let again: Read = serde_json::from_str(&serde_json::to_string(&new).expect("JSON")).expect("a record");
        assert_eq!(again, new);
        let source = Read { kind: "source".into(), ..old.clone() };
        let (time_zone, digest) = (String::new(), String::new());
        let record = Record { at_us: 0, time_zone, rows: 0, digest, reads: vec![old, new, source], joins: vec![] };
        assert_eq!(record.views(), ["v", "w"]);
        assert_eq!(record.views_of_unknown_defaults(), ["v"]);
    }
}
