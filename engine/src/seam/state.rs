//! Where operator state, positions and dead letters are kept between runs: ordered byte keys, atomic batches.

use super::SeamResult;
use async_trait::async_trait;

/// One ordered key space per kind of thing; the object's id is a prefix of the key, not a keyspace of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Keyspace {
    /// Positions, frontiers and epochs, one per object.
    Progress,
    /// Per (view, entity key): events kept and accumulators.
    Keys,
    /// Rows of tables with a primary key, by key.
    Rows,
    /// Records that were not admitted or not usable by a view.
    DeadLetters,
    /// Per (view, instant, entity key): the key next changes by itself at that instant. May also name instants at which it
    /// does not, any more.
    Due,
    /// Per (view, generation, entity key): what belongs to a checkpoint that is not finished, on its way to `Keys`.
    Spilled,
}

impl Keyspace {
    pub const ALL: [Keyspace; 6] =
        [Keyspace::Progress, Keyspace::Keys, Keyspace::Rows, Keyspace::DeadLetters, Keyspace::Due, Keyspace::Spilled];

    pub fn name(self) -> &'static str {
        match self {
            Keyspace::Progress => "progress",
            Keyspace::Keys => "keys",
            Keyspace::Rows => "rows",
            Keyspace::DeadLetters => "dead_letters",
            Keyspace::Due => "due",
            Keyspace::Spilled => "spilled",
        }
    }
}

/// Changes that become visible and durable together, or not at all.
#[derive(Debug, Clone, Default)]
pub struct WriteBatch {
    pub puts: Vec<(Keyspace, Vec<u8>, Vec<u8>)>,
    pub deletes: Vec<(Keyspace, Vec<u8>)>,
}

impl WriteBatch {
    pub fn is_empty(&self) -> bool {
        self.puts.is_empty() && self.deletes.is_empty()
    }
}

/// A store on the local disk. What may take long is asynchronous; single keys and pages are read where the caller stands,
/// as any engine reads its own files: lookups and ingestion need a key that is not in memory before they can go on.
#[async_trait]
pub trait StateStore: Send + Sync {
    /// Applies the batch atomically; durable (synced) when it returns, and with it everything spilled before. Deletes are
    /// applied before puts.
    async fn checkpoint(&self, batch: WriteBatch) -> SeamResult<()>;

    /// Applies the batch atomically, visible when it returns; durable with the next checkpoint, or not at all. Deletes are
    /// applied before puts.
    fn spill(&self, batch: WriteBatch) -> SeamResult<()>;

    /// The value of a key.
    fn get(&self, keyspace: Keyspace, key: &[u8]) -> SeamResult<Option<Vec<u8>>>;

    /// The entries whose key begins with `prefix` and is greater than `after` (if given), ascending by key, at most
    /// `entries_max`.
    fn page(
        &self,
        keyspace: Keyspace,
        prefix: &[u8],
        after: Option<&[u8]>,
        entries_max: usize,
    ) -> SeamResult<Vec<(Vec<u8>, Vec<u8>)>>;

    /// Removes every entry whose key begins with `prefix`; durable when it returns.
    async fn remove(&self, keyspace: Keyspace, prefix: &[u8]) -> SeamResult<()>;
}
