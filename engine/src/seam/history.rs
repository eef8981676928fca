//! The history store: one table of steps per feature view, readable by any engine; and tables beside them that are replaced as a whole.

use super::{Positions, SeamResult};
use arrow::{datatypes::SchemaRef, record_batch::RecordBatch};
use async_trait::async_trait;
use datafusion::{catalog::TableProvider, physical_plan::SendableRecordBatchStream};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tidemark_catalog::ObjectId;

/// What a history table looks like.
///
/// `schema`: key columns (NOT NULL), the time column (`timestamptz`, NOT NULL), feature columns, then `_op` (text, NOT
/// NULL: `upsert`, `delete` or `carry`), `_event_time` (`timestamptz`) and `_recorded_at` (`timestamptz`, NOT NULL).
/// Partitioned by month or day of the time column (UTC), sorted in every file by (key columns, time column).
#[derive(Debug, Clone)]
pub struct HistoryTable {
    pub view: ObjectId,
    /// Table name inside namespace `public`.
    pub name: String,
    pub schema: SchemaRef,
    /// Column indices of the entity key.
    pub key: Vec<usize>,
    /// Column index of the time column.
    pub time: usize,
    /// One comment per column, or empty text.
    pub comments: Vec<String>,
    /// For a table that is created; one that is there keeps what it has.
    pub partition: HistoryPartition,
}

/// A table that is replaced as a whole: the rows of a training set, for other engines.
#[derive(Debug, Clone)]
pub struct KeptTable {
    /// The training set.
    pub id: ObjectId,
    /// As of a [`HistoryTable`].
    pub name: String,
    pub schema: SchemaRef,
    /// One comment per column, or empty text; of a table that is made.
    pub comments: Vec<String>,
    /// Which computation its rows are of.
    pub computation: ObjectId,
    /// Set as table properties in the very commit that replaces the rows, and repeated in its snapshot's summary.
    pub properties: BTreeMap<String, String>,
}

/// By what of its time a step finds its file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HistoryPartition {
    #[default]
    Month,
    Day,
}

/// Set as table properties in the very commit that appends the steps (and repeated in its snapshot summary).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitTag {
    /// Every step with an instant below this is in the table; microseconds.
    pub frontier_us: i64,
    pub positions: Positions,
    pub view_version: u32,
    pub writer_epoch: u64,
    /// Counts commits of this table.
    pub sequence: u64,
}

/// What became of a table's data files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rewritten {
    /// Files that were replaced, and their bytes.
    pub files_before: u64,
    pub bytes_before: u64,
    /// Files in their place.
    pub files_after: u64,
    pub bytes_after: u64,
}

/// What a table no longer has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    pub snapshots: u64,
    pub files: u64,
    pub bytes: u64,
}

/// How far a rewrite of small files goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effort {
    /// Files grow to about this; what is below half of it is small.
    pub target_bytes: u64,
    /// Where fewer files of a partition (a month, or a day) would be written together, the partition is left alone.
    pub files_min: usize,
    /// A file is written again only together with files that are at least as large as it in all. So a row is written
    /// again as often as its file can double before it is large, however often small ones are appended.
    pub doubling: bool,
    /// About this much is read and written at most; what is left waits for the next time.
    pub bytes_max: u64,
}

impl Effort {
    /// All that is small, at once.
    pub const WHOLE: Effort = Effort { target_bytes: 128 << 20, files_min: 2, doubling: false, bytes_max: u64::MAX };
}

/// What of a table may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiry {
    /// Snapshots that were succeeded before this time (microseconds) are forgotten, and files that only they needed go.
    pub snapshots_before_us: i64,
    /// Files older than this that no snapshot leads to go too; `None`: they are not looked for, which needs a look at
    /// every file. A writer that has not committed yet has such files.
    pub orphans_before_us: Option<i64>,
}

/// What a table is like: what its care is decided by. Of the newest snapshot, where nothing else is said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Survey {
    pub files: u64,
    pub bytes: u64,
    /// Files that a rewrite of this effort would write together.
    pub small_files: u64,
    pub manifests: u64,
    /// Manifests that would be written together.
    pub small_manifests: u64,
    pub snapshots: u64,
    /// Snapshots that would be forgotten.
    pub old_snapshots: u64,
    /// When the oldest of those was succeeded, microseconds.
    pub oldest_us: Option<i64>,
}

/// How many manifests there were, and are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Folded {
    pub manifests_before: u64,
    pub manifests_after: u64,
}

#[async_trait]
pub trait HistoryStore: Send + Sync {
    /// Sees to it that the view has a table of this name. One of this name that belongs to the view is left as it is, one
    /// that belongs to another view (left by a crash in the middle of a drop, or of names that were exchanged) makes way, and is that
    /// view's under another name until [`HistoryStore::retain`]; a table of the view under
    /// another name (a crash in the middle of a rename) is renamed. Only then an empty one is created.
    async fn create(&self, table: &HistoryTable) -> SeamResult<()>;

    /// Removes the table and its files. Removing a table that is not there is no error.
    async fn drop(&self, name: &str) -> SeamResult<()>;

    /// Removes the tables of views and training sets that are not among these, which a crash in the middle of a drop has left.
    /// Tables of neither stay.
    async fn retain(&self, owners: &BTreeSet<ObjectId>) -> SeamResult<()>;

    async fn rename(&self, from: &str, to: &str) -> SeamResult<()>;

    /// Appends steps (in `table.schema`; any order, at most one row per (key, instant)) and sets the tag, in one commit.
    /// `steps` may be empty: then only the tag moves. Refused (`NotDone`) if the table's tag carries a greater
    /// `writer_epoch`. After `SeamError::Unknown` the caller reads `last_tag` to learn whether it happened.
    async fn append(&self, table: &HistoryTable, steps: Vec<RecordBatch>, tag: &CommitTag) -> SeamResult<()>;

    /// The tag of the newest commit; `None` before the first.
    async fn last_tag(&self, name: &str) -> SeamResult<Option<CommitTag>>;

    /// [`HistoryStore::create`], then [`HistoryStore::last_tag`]: what a start asks of every view, so a store that can tell both by
    /// one look at the table does.
    async fn take_up(&self, table: &HistoryTable) -> SeamResult<Option<CommitTag>> {
        self.create(table).await?;
        self.last_tag(&table.name).await
    }

    /// A scan of the table as of its newest commit. The provider prunes by comparisons on the time column and on key
    /// columns (reported as inexact filters).
    async fn provider(&self, table: &HistoryTable) -> SeamResult<Arc<dyn TableProvider>>;

    /// The newest snapshot of a table; `None`: it has none yet, or the store has no such thing.
    async fn snapshot_id(&self, _name: &str) -> SeamResult<Option<i64>> {
        Ok(None)
    }

    /// Whether the table is there under its name, with these columns and the rows of this computation. One of the same training set
    /// under another name gets its name first, and one of another set makes way for it. A store that keeps no such tables has nothing to do.
    async fn is_kept(&self, _table: &KeptTable) -> SeamResult<bool> {
        Ok(true)
    }

    /// Makes these the rows of the table, in one commit with its properties; a reader sees those before or these. It is created where it is
    /// not there, and made anew where its columns are others. After an error its rows are those before, and after
    /// `Unknown` perhaps these: `is_kept` tells. Safe to stop anywhere.
    async fn keep(&self, _table: &KeptTable, _rows: SendableRecordBatchStream) -> SeamResult<()> {
        Ok(())
    }

    /// Removes the table of this view or training set, which is called so as far as is known: another's of that name stays. A store
    /// that does not know whose its tables are goes by the name.
    async fn forget(&self, _id: ObjectId, name: &str) -> SeamResult<()> {
        self.drop(name).await
    }

    /// What the table is like, for rewrites of this effort and an end of snapshots that were succeeded before that time.
    /// A store without files has nothing to tell.
    async fn survey(&self, _table: &HistoryTable, _effort: &Effort, _old_us: i64) -> SeamResult<Survey> {
        Ok(Survey::default())
    }

    /// Writes small files together into large ones, in the same order and with the same rows. The tag stays, and so do
    /// the replaced files until they expire. Safe to stop anywhere; appends go on beside it, and where another engine has
    /// changed the same files meanwhile nothing happens (`NotDone`). A store without files has nothing to do.
    async fn compact(&self, _table: &HistoryTable, _effort: &Effort) -> SeamResult<Rewritten> {
        Ok(Rewritten::default())
    }

    /// Writes small manifests together. No data file and no row changes; as safe as `compact`.
    async fn fold_manifests(&self, _table: &HistoryTable) -> SeamResult<Folded> {
        Ok(Folded::default())
    }

    /// Forgets old snapshots and removes what nothing needs any more. The newest snapshot stays, and every file that a
    /// scan of this process may still read.
    async fn expire(&self, _table: &HistoryTable, _expiry: &Expiry) -> SeamResult<Removed> {
        Ok(Removed::default())
    }

    /// All small files at once.
    async fn optimize(&self, table: &HistoryTable) -> SeamResult<Rewritten> {
        self.compact(table, &Effort::WHOLE).await
    }

    /// Forgets snapshots that were succeeded before `older_than_us` (microseconds), and removes files older than that
    /// which no snapshot that stays refers to: replaced files, and what a crash left. The newest snapshot stays.
    async fn vacuum(&self, table: &HistoryTable, older_than_us: i64) -> SeamResult<Removed> {
        let expiry = Expiry { snapshots_before_us: older_than_us, orphans_before_us: Some(older_than_us) };
        self.expire(table, &expiry).await
    }
}
