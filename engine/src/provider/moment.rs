//! What relations have at one moment, so that all that is read there fits together.
//!
//! ```text
//! A  ──────●────────┬──────▶       the ends of A's and B's logs, taken one after the other and then once more:
//! B  ──────────●────┴──────▶       where none has moved, all were so at the instant in between
//! ```
//!
//! Who reads A before a row came into it and B after another came that was written later would see the second without the
//! first. So a statement that reads several takes all of them first.

use super::seam;
use crate::{
    runtime::{Engine, Plain, SourceRuntime, lock_all},
    seam::{Positions, SeamResult},
};
use arrow::array::RecordBatch;
use datafusion::error::Result as DfResult;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tidemark_catalog::ObjectId;

/// How often it is tried without holding anybody up. A pass takes microseconds where no table with a primary key is among
/// them.
const ATTEMPTS: usize = 16;

/// The same where one is: its rows are copied each time, and while a large one is, something comes in each time.
const COPIES: usize = 2;

/// What one relation has.
#[derive(Debug, Clone)]
pub(super) enum Fixed {
    /// The records between these positions, as they were when the log ended there.
    Between(Positions, Positions),
    /// The records from there on, and which of their rows; what retention takes before they are read is not among them.
    Log(Positions, Plain),
    /// The same, and all of them.
    Whole(Positions, Plain),
    /// The rows of a table with a primary key.
    Rows(RecordBatch),
}

/// Sources and tables at one moment.
#[derive(Debug, Default)]
pub struct Moment {
    relations: BTreeMap<ObjectId, Fixed>,
    frontiers: BTreeMap<ObjectId, i64>,
    ends: BTreeMap<ObjectId, Positions>,
}

impl Moment {
    /// These relations as they are now, for one statement; those that are no more are left out.
    pub async fn of(engine: &Engine, relations: &BTreeSet<ObjectId>) -> DfResult<Moment> {
        let sources: Vec<Arc<SourceRuntime>> = relations.iter().filter_map(|id| engine.source(*id)).collect();
        let attempts = if sources.iter().any(|source| source.has_key()) { COPIES } else { ATTEMPTS };
        for _ in 0..attempts {
            let before = ends(&sources).await.map_err(seam)?;
            let taken = taken(&sources).await?;
            if sources.len() < 2 || ends(&sources).await.map_err(seam)? == before {
                return Ok(Moment { relations: taken, ..Moment::default() });
            }
        }
        // What appends waits, as long as the rows are copied.
        let _still = lock_all(&sources).await;
        Ok(Moment { relations: taken(&sources).await?, ..Moment::default() })
    }

    /// All relations as they are now, and how far the feature views are final, for statements to come. Of a table with a
    /// primary key only where its log ends: who reads it walks the log.
    pub async fn of_all(engine: &Engine) -> DfResult<Moment> {
        // By their ids, as everybody locks them.
        let sources = engine.sources();
        let still = lock_all(&sources).await;
        let mut moment = Moment::default();
        for (source, inner) in sources.iter().zip(&still) {
            let (from, shown) = source.shown().await.map_err(seam)?;
            let fixed = match source.has_key() {
                true => Fixed::Between(from, inner.end.clone()),
                false => Fixed::Whole(from, shown),
            };
            moment.relations.insert(source.id, fixed);
            moment.frontiers.insert(source.id, source.frontier_us());
            moment.ends.insert(source.id, inner.end.clone());
        }
        moment.frontiers.extend(engine.views().iter().map(|view| (view.state.id, view.state.frontier_us())));
        Ok(moment)
    }

    pub(super) fn relation(&self, id: ObjectId) -> Option<&Fixed> {
        self.relations.get(&id)
    }

    /// Whether the relation was there.
    pub fn has(&self, id: ObjectId) -> bool {
        self.relations.contains_key(&id)
    }

    /// Below which instants each feature view and each changelog table was final, microseconds. Of a moment of all only.
    pub fn frontiers(&self) -> &BTreeMap<ObjectId, i64> {
        &self.frontiers
    }

    /// Whether nothing has come to the relation since, or to what the feature view reads; waits for what is on its way in. Of a
    /// moment of all only. What is not there any more is for the scan to say.
    pub async fn still_holds(&self, engine: &Engine, id: ObjectId) -> bool {
        let sources: Vec<Arc<SourceRuntime>> = match engine.view(id) {
            Some(view) => view.sources.iter().map(|reading| reading.source.clone()).collect(),
            None => engine.source(id).into_iter().collect(),
        };
        for source in sources {
            if self.ends.get(&source.id) != Some(&source.lock().await.end) {
                return false;
            }
        }
        true
    }
}

/// Where the logs end.
async fn ends(sources: &[Arc<SourceRuntime>]) -> SeamResult<Vec<Positions>> {
    let mut ends = Vec::with_capacity(sources.len());
    for source in sources {
        ends.push(source.log().range().await?.1);
    }
    Ok(ends)
}

/// Each as it is when its turn comes.
async fn taken(sources: &[Arc<SourceRuntime>]) -> DfResult<BTreeMap<ObjectId, Fixed>> {
    let mut taken = BTreeMap::new();
    for source in sources {
        let fixed = match source.current_rows() {
            Some(rows) => Fixed::Rows(rows?),
            None => {
                let (from, shown) = source.shown().await.map_err(seam)?;
                Fixed::Log(from, shown)
            }
        };
        taken.insert(source.id, fixed);
    }
    Ok(taken)
}

/// From where to where the logs of these relations go, all at one moment.
pub async fn extents(engine: &Engine, relations: &BTreeSet<ObjectId>) -> SeamResult<BTreeMap<ObjectId, (u64, u64)>> {
    let sources: Vec<Arc<SourceRuntime>> = relations.iter().filter_map(|id| engine.source(*id)).collect();
    let mut before = ranges(&sources).await?;
    for _ in 0..ATTEMPTS {
        let after = ranges(&sources).await?;
        if after == before {
            return Ok(after);
        }
        before = after;
    }
    let _still = lock_all(&sources).await;
    ranges(&sources).await
}

async fn ranges(sources: &[Arc<SourceRuntime>]) -> SeamResult<BTreeMap<ObjectId, (u64, u64)>> {
    let mut ranges = BTreeMap::new();
    for source in sources {
        let (from, to) = source.log().range().await?;
        ranges.insert(source.id, (from.get(0), to.get(0)));
    }
    Ok(ranges)
}
