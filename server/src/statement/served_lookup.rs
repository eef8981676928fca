//! A point lookup on a serving node: as in `lookup.rs`, but rows that are not in its cache are waited for.

use super::{lookup, lookup_deadline, result_format};
use crate::{
    database::Database,
    pg::{Bound, Completed, Outcome, PgError, RowsTag, SessionEvent},
    prepared::{Prepared, PreparedLookup},
    serving::{Reading, Served, Serving},
    session::{MAX_STALENESS, Session},
};
use bytes::BytesMut;
use tidemark_engine::value::Value;

pub struct ServedLookup<'a> {
    pub database: &'a Database,
    pub serving: &'a Serving,
    pub prepared: &'a Prepared,
    pub lookup: &'a PreparedLookup,
    pub bound: &'a Bound,
}

impl ServedLookup<'_> {
    /// Answers into `out` from the cache; `None` where that does not do.
    pub fn answer_now(&self, session: &mut Session, out: &mut BytesMut) -> Option<Result<Completed, PgError>> {
        let view = self.serving.view(self.lookup.shape.view)?;
        let begun_us = self.database.clock.now_us();
        if let Err(error) = self.serving.check_freshness(&view, session.get(MAX_STALENESS)) {
            return Some(Err(error));
        }
        let keys = match self.keys(session) {
            Ok(keys) => keys?,
            Err(error) => return Some(Err(error)),
        };
        let reading = self.serving.read_cached(&view, &keys)?;
        Some(reading.and_then(|reading| self.write(session, &view, reading, begun_us, out)))
    }

    /// `None` where this is not to be answered here (the view is gone, a key literal does not read as the key's type): then the
    /// planned query answers, or fails, as any query would.
    ///
    /// # Errors
    /// As [`Serving::read`].
    pub async fn answer(&self, session: &mut Session) -> Result<Option<Outcome>, PgError> {
        let Some(view) = self.serving.view(self.lookup.shape.view) else { return Ok(None) };
        let begun_us = self.database.clock.now_us();
        self.serving.check_freshness(&view, session.get(MAX_STALENESS))?;
        let Some(keys) = self.keys(session)? else { return Ok(None) };
        let until_us = session.lookup_deadline_us.map(|deadline_us| begun_us.saturating_add(deadline_us));
        let asked = keys.len();
        let reading = self.serving.read(&view, keys, until_us).await?;
        if let Some(deadline_us) = session.lookup_deadline_us.filter(|_| !reading.late.is_empty()) {
            let late = format!("{} of {asked} keys were not there", reading.late.len());
            return Err(lookup_deadline::refusal(&view.name, deadline_us).detail(late));
        }
        let mut messages = BytesMut::new();
        let completed = self.write(session, &view, reading, begun_us, &mut messages)?;
        Ok(Some(Outcome::RawRows { messages, completed }))
    }

    fn keys(&self, session: &Session) -> Result<Option<Vec<Vec<Value>>>, PgError> {
        lookup::keys(session, self.prepared, self.lookup, self.bound, <[Value]>::to_vec)
    }

    fn write(
        &self,
        session: &mut Session,
        view: &Served,
        reading: Reading,
        begun_us: i64,
        out: &mut BytesMut,
    ) -> Result<Completed, PgError> {
        let Reading { rows, now_us, warning, .. } = reading;
        let (shape, compiled) = (&self.lookup.shape, view.compiled()?);
        if shape.columns.iter().all(|i| compiled.stored(*i).is_some()) {
            for row in &rows {
                let cell = |i: usize| lookup::cell(row, compiled.stored(shape.columns[i])?);
                shape.writer.write(&session.format, |i| result_format(self.bound, i), cell, out);
            }
        } else {
            let found = (compiled, &rows[..], now_us);
            lookup::evaluated(session, self.prepared, self.lookup, self.bound, found, out)?;
        }
        session.events.extend(warning.map(SessionEvent::Notice));
        lookup::observe(self.database, self.prepared, begun_us);
        Ok(Completed { rows: rows.len() as u64, tag: RowsTag::SELECT })
    }
}
