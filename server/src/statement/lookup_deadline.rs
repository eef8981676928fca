//! `tidemark.lookup_deadline`: a lookup takes what memory has at once, waits for the rest no longer than that, and answers with
//! what is there.
//!
//! ```text
//! all keys in memory      answered as without a deadline, in the connection's own task
//! some are not            read on the threads of queries ─┬─▶ all came: the same
//!                                                         └─▶ some are late: `_status` behind an outer join, else 57014
//! ```
//!
//! A key is not to be had from memory at once where only the state store has it, or where its shard is at work. What is being read
//! when the deadline comes is read to its end, and is in memory for who asks next; what has not begun is left.

use super::{lookup, service_lookup};
use crate::{
    database::Database,
    pg::{Bound, Outcome, PgError, SessionEvent},
    prepared::Prepared,
    session::Session,
};
use bytes::BytesMut;
use datafusion::error::Result as DfResult;
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tidemark_catalog::ObjectId;
use tidemark_engine::{runtime::ViewRuntime, seam::Clock, view::Looked, wording::span};

/// Where a lookup is to find its keys.
pub enum Finding {
    /// Wherever they are, however long that takes.
    Anywhere,
    /// In memory. `missed`: one of them was not to be had there.
    Memory { missed: bool },
    /// Nowhere: which they are is noted.
    Noting { begun_us: i64, asked: Vec<Asked> },
    /// Among what has come by the deadline.
    Come(Come),
}

/// A key that a lookup asks for.
pub struct Asked {
    view: Arc<ViewRuntime>,
    key: Vec<u8>,
    now_us: i64,
}

/// The view and the key in it.
type Name = (ObjectId, Vec<u8>);

/// What has been read of keys so far.
type Read = Arc<Mutex<Vec<(Name, DfResult<Looked>)>>>;

pub struct Come {
    begun_us: i64,
    deadline_us: i64,
    found: HashMap<Name, Looked>,
    /// How many keys were asked for, and how many of them have not come.
    asked: usize,
    late: usize,
}

impl Asked {
    fn name(&self) -> Name {
        (self.view.state.id, self.key.clone())
    }
}

impl Finding {
    /// That of a statement of this session, before anything is waited for.
    pub fn of(session: &Session) -> Finding {
        match session.lookup_deadline_us {
            None => Finding::Anywhere,
            Some(_) => Finding::Memory { missed: false },
        }
    }

    /// The instant of the statement.
    pub fn begun_us(&self, clock: &dyn Clock) -> i64 {
        match self {
            Finding::Anywhere | Finding::Memory { .. } => clock.now_us(),
            Finding::Noting { begun_us, .. } | Finding::Come(Come { begun_us, .. }) => *begun_us,
        }
    }

    /// What is known of a key; `None`: it is not to be had.
    ///
    /// # Errors
    /// The state store fails.
    pub fn look(&mut self, view: &Arc<ViewRuntime>, key: &[u8], now_us: i64) -> DfResult<Option<Looked>> {
        match self {
            Finding::Anywhere => view.state.look(key, now_us).map(Some),
            Finding::Memory { missed } => {
                let looked = view.state.look_in_memory(key, now_us)?;
                *missed |= looked.is_none();
                Ok(looked)
            }
            Finding::Noting { asked, .. } => {
                asked.push(Asked { view: view.clone(), key: key.to_vec(), now_us });
                Ok(None)
            }
            Finding::Come(come) => Ok(come.found.get(&(view.state.id, key.to_vec())).cloned()),
        }
    }

    /// Whether the lookup is to be answered in another way, because memory does not do.
    pub fn has_missed(&self) -> bool {
        matches!(self, Finding::Memory { missed: true })
    }

    /// The refusal where the rows of this view that are late would change which rows there are; `None`: nobody has waited yet.
    pub fn refusal(&self, view: &str) -> Option<PgError> {
        let Finding::Come(Come { deadline_us, asked, late, .. }) = self else { return None };
        Some(refusal(view, *deadline_us).detail(format!("{late} of {asked} keys were not there")))
    }
}

/// 57014: a lookup without the rows that are late would say that nobody has seen their entities.
pub fn refusal(view: &str, deadline_us: i64) -> PgError {
    let within = span(deadline_us.unsigned_abs());
    let message = format!("feature view \"{view}\" has not answered within tidemark.lookup_deadline ({within})");
    PgError::error("57014", message).hint(
        "behind a LEFT JOIN a view may be late, and _status says so: \
         SELECT v.*, v._status FROM unnest($1) AS k (key) LEFT JOIN v ON v.key = k.key",
    )
}

/// The same of one whose views are not back since the server's start. Nothing is known then of what a lookup would show.
pub fn not_back(database: &Database, views: &[ObjectId], deadline_us: i64) -> PgError {
    let is_awaited = |view: &&ObjectId| database.as_owner().is_some_and(|owner| owner.engine.is_awaited(**view));
    let snapshot = database.snapshot();
    let awaited = views.iter().find(is_awaited).or(views.first()).and_then(|view| snapshot.get_id(*view));
    refusal(awaited.map_or("", |object| object.name.as_str()), deadline_us)
        .detail("it is not back yet since the server's start")
        .hint("it comes back before others now that it was asked for; /readyz tells when all are there")
}

/// What is told beside an answer of which a part is late.
pub fn warning(late: usize, asked: usize, deadline_us: i64) -> PgError {
    let within = span(deadline_us.unsigned_abs());
    let message = format!("{late} of {asked} keys were not there within tidemark.lookup_deadline ({within})");
    PgError::warning("01000", message)
        .detail("their columns are NULL or have the features' defaults, as of an entity that nobody has seen")
        .hint("_status of the view tells them apart: it is late")
}

/// Waits for the views of a lookup that are not back since the start, and no longer than the session's deadline; `false`: it was
/// answered, or not, from all of them.
///
/// # Errors
/// 57014 where the deadline comes first; as [`Database::views_restored`].
pub async fn wait_for_views(database: &Arc<Database>, session: &Session, prepared: &Prepared) -> Result<bool, PgError> {
    if database.is_restored() {
        return Ok(false);
    }
    let mut views: Vec<ObjectId> = prepared.lookup.iter().map(|lookup| lookup.shape.view).collect();
    views.extend(prepared.service.iter().flat_map(|service| service.views()));
    if views.is_empty() {
        return Ok(false);
    }
    let restored = database.views_restored(&views);
    let Some(deadline_us) = session.lookup_deadline_us else { return restored.await.map(|()| true) };
    let until = database.clock.sleep(Duration::from_micros(deadline_us.unsigned_abs()));
    tokio::select! {
        // First: who gives up has asked for them all the same.
        biased;
        restored = restored => restored.map(|()| true),
        () = until => Err(not_back(database, &views, deadline_us)),
    }
}

/// Answers a lookup that memory alone has not answered. `None`: it is no lookup, there is no deadline, or it is not to be answered
/// here; then the planned query answers, which knows of no deadline. `since_us`: when it was asked for; what it has waited since,
/// for a view that comes back, counts.
///
/// # Errors
/// 57014 where rows of a view that has to be there are late; those of the state store.
pub async fn answer(
    database: &Database,
    session: &mut Session,
    prepared: &Prepared,
    bound: &Bound,
    since_us: i64,
) -> Result<Option<Outcome>, PgError> {
    let Some(deadline_us) = session.lookup_deadline_us.filter(|_| database.as_owner().is_some()) else {
        return Ok(None);
    };
    let is_lookup = prepared.lookup.is_some() || prepared.service.is_some();
    if !is_lookup || session.reads_a_snapshot() || prepared.path != session.path_key(database) {
        return Ok(None);
    }
    if prepared.lookup.as_ref().is_some_and(|lookup| !session.rights.may_read(lookup.shape.view)) {
        return Ok(None);
    }
    session.queried_in_transaction = true;
    let begun_us = database.clock.now_us();
    let mut noting = Finding::Noting { begun_us, asked: vec![] };
    let noted = match (&prepared.lookup, &prepared.service) {
        (Some(lookup), _) => lookup::note(database, session, prepared, lookup, bound, &mut noting),
        (None, Some(service)) => service_lookup::note(database, session, prepared, service, bound, &mut noting),
        (None, None) => None,
    };
    let (Some(()), Finding::Noting { asked, .. }) = (noted.transpose()?, noting) else { return Ok(None) };
    let come = come(database, asked, (begun_us, since_us), deadline_us).await?;
    let (late, of) = (come.late, come.asked);
    database.meters.lookups_late.add(late as u64);
    let mut finding = Finding::Come(come);
    let mut messages = BytesMut::new();
    let answered = match (&prepared.lookup, &prepared.service) {
        (Some(lookup), _) => lookup::execute(database, session, prepared, lookup, bound, &mut finding, &mut messages),
        (None, Some(service)) => {
            service_lookup::execute(database, session, prepared, service, bound, &mut finding, &mut messages)
        }
        (None, None) => None,
    };
    let Some(completed) = answered.transpose()? else { return Ok(None) };
    let of_service = prepared.service.iter().flat_map(|service| service.views());
    session.warn_of_deprecated(prepared.lookup.iter().map(|lookup| lookup.shape.view).chain(of_service));
    if late > 0 {
        session.events.push(SessionEvent::Notice(warning(late, of, deadline_us)));
    }
    Ok(Some(Outcome::RawRows { messages, completed }))
}

/// Takes from memory what is there, and of the rest what comes by the deadline.
async fn come(
    database: &Database,
    asked: Vec<Asked>,
    (begun_us, since_us): (i64, i64),
    deadline_us: i64,
) -> Result<Come, PgError> {
    let mut come = Come { begun_us, deadline_us, found: HashMap::new(), asked: asked.len(), late: 0 };
    let mut rest = vec![];
    for asked in asked {
        match asked.view.state.look_in_memory(&asked.key, asked.now_us)? {
            Some(looked) => {
                come.found.insert(asked.name(), looked);
            }
            None => rest.push(asked),
        }
    }
    if rest.is_empty() {
        return Ok(come);
    }
    let names: Vec<Name> = rest.iter().map(Asked::name).collect();
    let came: Read = Arc::default();
    let until = database.clock.sleep(left(deadline_us, since_us, database.clock.now_us()));
    let reading = database.queries.work(read(rest, came.clone()));
    tokio::select! {
        biased;
        done = reading => done?,
        () = until => {}
    }
    let came = std::mem::take(&mut *came.lock());
    for (name, looked) in came {
        come.found.insert(name, looked?);
    }
    come.late = names.iter().filter(|name| !come.found.contains_key(*name)).count();
    Ok(come)
}

/// Reads keys one after the other. It ends between two of them where nobody waits for it any more.
async fn read(asked: Vec<Asked>, came: Read) {
    for asked in asked {
        let looked = asked.view.state.look(&asked.key, asked.now_us);
        came.lock().push((asked.name(), looked));
        tokio::task::yield_now().await;
    }
}

/// How much of the deadline there is now; `since_us`: when the lookup was asked for.
fn left(deadline_us: i64, since_us: i64, now_us: i64) -> Duration {
    let passed_us = now_us.saturating_sub(since_us);
    Duration::from_micros(deadline_us.saturating_sub(passed_us).max(0).unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_waited_for_a_view_is_not_there_to_wait_for_keys() {
        for (passed_us, left_us) in [(0, 5_000), (4_000, 1_000), (5_000, 0), (9_000, 0)] {
            assert_eq!(left(5_000, 100, 100 + passed_us), Duration::from_micros(left_us), "{passed_us} µs");
        }
    }
}
