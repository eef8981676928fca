//! The online store: the shared, durable copy of every key's current row, written on every change, read after a
//! restart or by other nodes.

use super::SeamResult;
use arrow::datatypes::FieldRef;
use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tidemark_catalog::ObjectId;

/// The version of a put: compared as a pair, greater wins, an equal or smaller one is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PutVersion {
    /// Grows with every start of a writer; an older writer is thereby fenced.
    pub epoch: u64,
    pub counter: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnlineValue {
    /// The entity key, in the engine's encoding.
    pub key: Bytes,
    pub version: PutVersion,
    /// The row in the engine's encoding; `None` marks an absent key (expired or deleted) and keeps its version.
    pub row: Option<Bytes>,
}

/// What became of a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Put {
    Done,
    /// The store does not know the view (any more): it was never opened, or the store has lost what it had. Any part of
    /// the call may be visible.
    NoView,
}

/// What a store has asked of the server behind it since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Times that commands went out together and their answers were waited for.
    pub round_trips: u64,
    pub commands: u64,
}

/// A store may be another machine's, that is away, full, or back without what it had.
#[async_trait]
pub trait OnlineStore: Send + Sync {
    /// The columns of a view's rows, in their order, for a store that shows them to people. Said before the view is opened.
    fn describe(&self, _view: ObjectId, _columns: Vec<FieldRef>) {}

    /// Makes room for the view where there is none. `false`: the store does not have all of its values, and all are to be
    /// put, with [`Self::filled`] after the last.
    async fn open_view(&self, view: ObjectId) -> SeamResult<bool>;

    /// A server of this epoch puts the view's values from now on, also where it has nothing to put yet. An error where one of a
    /// later epoch does: this one is to put nothing more. For a store that several servers may reach.
    async fn claim(&self, _view: ObjectId, _epoch: u64) -> SeamResult<()> {
        Ok(())
    }

    /// From here on the store has all values of the view. An error where it does not know the view (any more): of what was put
    /// before nothing may be there, and a view of which nothing more is put learns it nowhere else.
    async fn filled(&self, view: ObjectId) -> SeamResult<()>;

    /// Writes the values of one view that is open; a value never goes backwards in version, and a writer of an older epoch
    /// than the view has seen is ignored or refused. All of the call or, after an error, any part of it may be visible;
    /// repeating the call is safe.
    async fn put(&self, view: ObjectId, values: Vec<OnlineValue>) -> SeamResult<Put>;

    /// One entry per key asked, in the order asked; `None` for a key never put.
    async fn get_many(&self, view: ObjectId, keys: &[Bytes]) -> SeamResult<Vec<Option<OnlineValue>>>;

    /// Removes everything of a view; no key is left behind. It is not open after that.
    async fn drop_view(&self, view: ObjectId) -> SeamResult<()>;

    /// Which server the view's values are on: its trouble is told once for all the views there. No view waits for another.
    fn lane(&self, _view: ObjectId) -> u64 {
        0
    }

    /// None where there is no server behind it.
    fn traffic(&self) -> Traffic {
        Traffic::default()
    }
}
