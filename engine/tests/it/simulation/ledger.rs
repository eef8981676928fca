//! What clients sent and what they were told: against what the logs have.

use super::{
    log::SimLogs,
    rows::numbers,
    views::{RELATIONS, T},
};
use std::collections::BTreeMap;
use tidemark_catalog::ObjectId;
use tidemark_engine::{
    runtime::{IngestError, IngestReport},
    seam::SeamError,
};

/// One INSERT.
pub struct Sent {
    relation: ObjectId,
    numbers: Vec<i64>,
    told: Told,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// So many rows were taken in.
    Done(usize),
    NotDone,
    /// No answer, or none that says what happened.
    Nothing,
}

#[derive(Default)]
pub struct Ledger {
    sent: Vec<Sent>,
}

impl Ledger {
    /// A client sends rows; the answer is noted under the number returned.
    pub fn send(&mut self, relation: ObjectId, numbers: Vec<i64>) -> usize {
        self.sent.push(Sent { relation, numbers, told: Told::Nothing });
        self.sent.len() - 1
    }

    pub fn answer(&mut self, sent: usize, answer: &Result<IngestReport, IngestError>) {
        self.sent[sent].told = match answer {
            Ok(report) => Told::Done(report.rows),
            Err(IngestError::Seam(SeamError::Unknown(_))) => Told::Nothing,
            Err(_) => Told::NotDone,
        };
    }

    /// What the logs have lost with a crash, as their settings allow, is not missed any more.
    pub fn forget_lost(&mut self, logs: &SimLogs) {
        let found = found(logs);
        self.sent.retain(|sent| sent.numbers.iter().any(|no| found[&sent.relation].contains_key(no)));
    }

    pub fn check(&self, logs: &SimLogs) -> Result<(), String> {
        let found = found(logs);
        let doubled =
            found.iter().find_map(|(id, rows)| rows.iter().find(|(_, times)| **times > 1).map(|(no, _)| (id, no)));
        if let Some((id, no)) = doubled {
            return Err(format!("row {no} is twice in the log of {id}"));
        }
        for Sent { relation, numbers, told } in &self.sent {
            let there = numbers.iter().filter(|no| found[relation].contains_key(no)).count();
            let is_right = match told {
                Told::Done(rows) => there == *rows,
                Told::NotDone => there == 0,
                // Of a table's rows those are left out that are there.
                Told::Nothing => there == 0 || there == numbers.len() || *relation == T,
            };
            if !is_right {
                let (first, sent) = (numbers.first(), numbers.len());
                return Err(format!(
                    "{there} of {sent} rows from {first:?} on are in the log of {relation}: told {told:?}"
                ));
            }
        }
        Ok(())
    }
}

/// How often each row is in each log.
fn found(logs: &SimLogs) -> BTreeMap<ObjectId, BTreeMap<i64, usize>> {
    let of_log = |id: ObjectId| {
        let mut times = BTreeMap::new();
        for record in logs.records(id) {
            numbers(&record.rows).into_iter().for_each(|no| *times.entry(no).or_default() += 1);
        }
        times
    };
    RELATIONS.into_iter().map(|id| (id, of_log(id))).collect()
}
