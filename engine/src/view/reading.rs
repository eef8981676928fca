//! The three readings of a running view: the row of a key, the rows of all keys, the steps that history does not have.
//! Each walks on from where the finished part of a key stands.

use super::{
    Pending, ViewState,
    shard::{Entry, hash},
    shard_of,
    step::{SharedSteps, Steps},
};
use crate::{
    compiled::Row,
    key::{Held, Instants, KeyState},
    value::{Value, encode_row},
};
use datafusion::error::Result as DfResult;
use std::sync::Arc;

impl ViewState {
    /// `V(key, at)` for an instant at or after the frontier.
    pub fn lookup(&self, encoded: &[u8], at_us: i64) -> DfResult<Option<Row>> {
        let hash = hash(encoded);
        let mut shard = self.shards[shard_of(hash)].lock();
        match shard.find(hash, encoded).and_then(|id| shard.get_mut(id)) {
            Some(entry) => self.read(&mut entry.state, at_us),
            None => Ok(None),
        }
    }

    /// `V(k, at)` for every key present, at or after the frontier.
    pub fn rows(&self, at_us: i64) -> DfResult<Vec<Row>> {
        let mut rows = vec![];
        for shard in &self.shards {
            for entry in shard.lock().entries_mut() {
                rows.extend(self.read(&mut entry.state, at_us)?);
            }
        }
        Ok(rows)
    }

    pub(super) fn read(&self, state: &mut KeyState, at_us: i64) -> DfResult<Option<Row>> {
        let at_us = at_us.max(self.frontier_us().saturating_sub(1));
        let key = state.key.clone();
        let mut instants = Instants::default();
        let cursor = state.online(&self.compiled.walk, at_us, &mut instants);
        let outcomes = self.outcomes(instants)?;
        outcomes.settle_each(outcomes.all(), &mut cursor.held, &key, |_| {});
        Ok(cursor.held.as_ref().map(|held| row(&key, held)))
    }

    /// The steps between the frontier and `at_us` that history does not have: the pending ones and the provisional ones.
    /// Also the instant below which the history table is complete; read the table after this, only below that instant.
    pub fn steps_above_history(&self, at_us: i64, key: Option<&[u8]>) -> DfResult<(i64, SharedSteps)> {
        let _finishing = self.finishing.read();
        let mut provisional = Steps::default();
        match key {
            Some(key) => {
                let hash = hash(key);
                let shard = self.shards[shard_of(hash)].lock();
                if let Some(entry) = shard.find(hash, key).and_then(|id| shard.get(id)) {
                    self.add_provisional(entry, at_us, &mut provisional)?;
                }
            }
            None => {
                for shard in &self.shards {
                    for entry in shard.lock().entries() {
                        self.add_provisional(entry, at_us, &mut provisional)?;
                    }
                }
            }
        }
        let Pending { committed_us, chunks } = self.pending();
        let mut chunks = match key {
            Some(key) => vec![Arc::new(of_key(&chunks, key))],
            None => chunks,
        };
        chunks.push(Arc::new(provisional));
        Ok((committed_us, SharedSteps(chunks)))
    }

    /// The steps of a key between the frontier and `at_us`.
    fn add_provisional(&self, entry: &Entry, at_us: i64, steps: &mut Steps) -> DfResult<()> {
        let mut instants = Instants::default();
        let mut cursor = entry.state.provisional(&self.compiled.walk, at_us, &mut instants);
        let outcomes = self.outcomes(instants)?;
        outcomes.settle_each(outcomes.all(), &mut cursor.held, &entry.state.key, |step| steps.push(step));
        Ok(())
    }
}

fn row(key: &Arc<[Value]>, held: &Held) -> Row {
    Row { key: key.clone(), instant_us: held.instant_us, event_us: held.event_us, outputs: held.outputs.clone() }
}

/// The steps of one key, copied: few of many.
fn of_key(chunks: &[Arc<Steps>], key: &[u8]) -> Steps {
    let mut steps = Steps::default();
    let all = chunks.iter().flat_map(|chunk| chunk.iter());
    all.filter(|step| encode_row(step.key) == key).for_each(|step| steps.push(step));
    steps
}
