//! What a batch of a changelog takes out of a view: the versions that its rows replace or delete.

use super::{Keyed, ViewState, seam};
use crate::{compiled::BatchRows, current::Replaced, seam::SeamResult};
use datafusion::error::Result as DfResult;

impl ViewState {
    /// Ends the replaced versions where they count: with the entity key that each had. One that the view could not use, or that
    /// WHERE did not let through, is not there; it has been reported.
    pub(super) fn end_versions(&self, batch: &BatchRows<'_>) -> DfResult<()> {
        // A table's other views know a row by its key: the next one takes its place.
        let has_ends = |replaced: &&Replaced| self.compiled.walk.versions && !replaced.is_empty();
        let Some(replaced) = batch.replaced.filter(has_ends) else { return Ok(()) };
        let rows = replaced.batch(&batch.rows.schema())?;
        let times_us: Vec<i64> = (0..rows.num_rows()).map(|i| replaced.time_us(i)).collect();
        let (versions, _) = self.compiled.events(&BatchRows::all(&rows, &times_us), None)?;
        let keyed = Keyed::of(&versions);
        let walk = &self.compiled.walk;
        let pieces: Vec<_> =
            self.shards.iter().zip(&keyed.by_shard).filter(|(_, of_shard)| !of_shard.is_empty()).collect();
        let ended = self.each_shard(versions.len(), &pieces, |(shard, of_shard)| -> SeamResult<()> {
            let mut end = walk.layout.row();
            let mut shard = shard.lock();
            for (hash, i) in of_shard.iter().copied() {
                let Some(id) = self.find_or_load(&mut shard, hash, keyed.key(i))? else { continue };
                let version = versions.row(i as usize);
                let by = replaced.by(version);
                let until_us = batch.times_us[by];
                end.reset(&walk.layout, until_us, batch.mark(by), true);
                let (time_us, offset) = (times_us[version], replaced.offset(version));
                if shard.change(id, walk).is_some_and(|entry| entry.state.end(walk, time_us, offset, &mut end)) {
                    shard.due_sooner(id, until_us);
                    shard.mark_stale(id);
                    shard.weigh(id);
                }
            }
            self.relieve(&mut shard)
        });
        ended.into_iter().try_for_each(|ended| ended.map_err(seam))
    }
}
