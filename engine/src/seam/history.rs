//! The history store: one table of steps per feature view, readable by any engine.

use super::{Positions, SeamResult};
use arrow::{datatypes::SchemaRef, record_batch::RecordBatch};
use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, sync::Arc};
use tidemark_catalog::ObjectId;

/// What a history table looks like.
///
/// `schema`: key columns (NOT NULL), the time column (`timestamptz`, NOT NULL), feature columns, then `_op` (text, NOT
/// NULL: `upsert`, `delete` or `carry`), `_event_time` (`timestamptz`) and `_recorded_at` (`timestamptz`, NOT NULL).
/// Partitioned by month of the time column (UTC), sorted in every file by (key columns, time column).
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

#[async_trait]
pub trait HistoryStore: Send + Sync {
    /// Sees to it that the view has a table of this name. One of this name that belongs to the view is left as it is, one
    /// that belongs to another view (left by a crash in the middle of a drop) is replaced; a table of the view under
    /// another name (a crash in the middle of a rename) is renamed. Only then an empty one is created.
    async fn create(&self, table: &HistoryTable) -> SeamResult<()>;

    /// Removes the table and its files. Removing a table that is not there is no error.
    async fn drop(&self, name: &str) -> SeamResult<()>;

    /// Removes the tables of views that are not among these, which a crash in the middle of a drop has left. Tables of no
    /// view at all stay.
    async fn retain(&self, views: &BTreeSet<ObjectId>) -> SeamResult<()>;

    async fn rename(&self, from: &str, to: &str) -> SeamResult<()>;

    /// Appends steps (in `table.schema`; any order, at most one row per (key, instant)) and sets the tag, in one commit.
    /// `steps` may be empty: then only the tag moves. Refused (`NotDone`) if the table's tag carries a greater
    /// `writer_epoch`. After `SeamError::Unknown` the caller reads `last_tag` to learn whether it happened.
    async fn append(&self, table: &HistoryTable, steps: Vec<RecordBatch>, tag: &CommitTag) -> SeamResult<()>;

    /// The tag of the newest commit; `None` before the first.
    async fn last_tag(&self, name: &str) -> SeamResult<Option<CommitTag>>;

    /// A scan of the table as of its newest commit. The provider prunes by comparisons on the time column and on key
    /// columns (reported as inexact filters).
    async fn provider(&self, table: &HistoryTable) -> SeamResult<Arc<dyn TableProvider>>;

    /// Writes small files together into large ones, in the same order and with the same rows. The tag stays, and so do
    /// the replaced files until `vacuum`. Safe to stop anywhere; appends go on beside it. A store without files has
    /// nothing to do.
    async fn optimize(&self, _table: &HistoryTable) -> SeamResult<Rewritten> {
        Ok(Rewritten::default())
    }

    /// Forgets snapshots that were succeeded before `older_than_us` (microseconds), and removes files older than that
    /// which no snapshot that stays refers to: replaced files, and what a crash left. The newest snapshot stays.
    async fn vacuum(&self, _table: &HistoryTable, _older_than_us: i64) -> SeamResult<Removed> {
        Ok(Removed::default())
    }
}
