//! What the owner of a data directory tells serving nodes, beside the rows: the catalog, the now of views that follow their
//! events' clock, and how far Redis is.
//!
//! ```text
//! tick:   now of views ─▶ rows (Engine::take_turn) ─▶ level: what had changed when this tick began is there
//! ```
//!
//! The now goes first: a row that does not hold any more is then known to be stale before its successor is there.

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::{collections::HashMap, sync::Arc};
use tidemark_catalog::{Access, Body, HIDDEN, Object, ObjectId, Schema, Snapshot, is_secret, without_credentials};
use tidemark_connectors::redis::{Kept, Published, RedisOnline};
use tidemark_engine::{
    runtime::Engine,
    seam::{SeamError, SeamResult},
};

/// How often the level is told where nothing else is: serving nodes show by it how old their values may be, and a Redis that
/// has lost the catalog is noticed by it.
const BEAT_US: i64 = 1_000_000;

/// What is tried in vain (a Redis that is away, a catalog of another server) is not tried with every tick.
const RETRY_US: i64 = 500_000;

pub struct Publisher {
    redis: Arc<RedisOnline>,
    said: Mutex<Said>,
}

/// What Redis has been told.
#[derive(Debug, Default)]
struct Said {
    /// Of the document that Redis has; `None`: none that is known of.
    edition: Option<u64>,
    /// Grows with every document that is sent, also where nobody knows whether it came: no two have the same.
    sent: u64,
    /// What that document was made of.
    generation: u64,
    failed: Failed,
    nows: HashMap<ObjectId, i64>,
    level_us: Option<i64>,
    /// Not before this, by the clock; set by a failure, of which the log knows.
    retry_us: Option<i64>,
}

/// Views that stand still, and why: their rows are of before.
pub type Failed = Vec<(ObjectId, String)>;

/// The objects of a catalog, as they go to serving nodes.
#[derive(Debug, Serialize, Deserialize)]
pub struct Document {
    pub objects: Vec<Object>,
    #[serde(default)]
    pub schemas: Vec<Schema>,
    #[serde(default)]
    pub failed: Failed,
    /// Roles with the verifiers of their passwords, owners and grants: nodes let in and refuse as the owner does. Who can read
    /// Redis can read the rows anyway (decision 0020). Secrets stay at home.
    #[serde(default)]
    pub access: Access,
}

impl Document {
    /// All that there is, without what lets somebody into something: a serving node reads no topic.
    pub fn of(snapshot: &Snapshot, failed: Failed) -> Document {
        let objects = snapshot.objects().chain(snapshot.aggregates()).map(|object| without_secrets(object));
        let schemas = snapshot.schemas().map(|schema| schema.as_ref().clone()).collect();
        Document { objects: objects.collect(), schemas, failed, access: snapshot.access.as_ref().clone() }
    }
}

fn without_secrets(object: &Object) -> Object {
    let mut object = object.clone();
    match &mut object.body {
        Body::Source(relation) | Body::Table(relation) => {
            for (option, value) in &mut relation.options {
                if is_secret(option) {
                    *value = HIDDEN.to_string();
                }
            }
        }
        Body::FeatureView(view) => {
            if let Some(online) = view.options.get_mut("online") {
                *online = without_credentials(online);
            }
        }
        Body::View(_) | Body::Aggregate(_) | Body::TrainingSet(_) => {}
    }
    object
}

impl Publisher {
    pub fn new(redis: Arc<RedisOnline>) -> Publisher {
        Publisher { redis, said: Mutex::default() }
    }

    /// Tells what has changed since it was last told. `level_us`: what had changed by then has been put. Never an error: what
    /// could not be told is told later, and the log says so once.
    pub async fn tell(&self, engine: &Engine, snapshot: &Snapshot, clock_us: i64, level_us: Option<i64>) {
        if self.said.lock().retry_us.is_some_and(|retry_us| clock_us < retry_us) {
            return;
        }
        let told = self.try_to_tell(engine, snapshot, clock_us, level_us).await;
        let mut said = self.said.lock();
        let was_failing = said.retry_us.is_some();
        said.retry_us = told.is_err().then(|| clock_us.saturating_add(RETRY_US));
        if let Err(error) = told
            && !was_failing
        {
            tracing::warn!(%error, "serving nodes are not told the catalog; it is tried again");
        }
    }

    async fn try_to_tell(
        &self,
        engine: &Engine,
        snapshot: &Snapshot,
        clock_us: i64,
        level_us: Option<i64>,
    ) -> SeamResult<()> {
        let nows = engine.nows(clock_us);
        let views = snapshot.objects().filter(|object| object.feature_view().is_some());
        let failed: Failed = views.filter_map(|view| Some((view.id, engine.failure(view.id)?.error))).collect();
        let (known, changed, level_us, told_us) = {
            let said = self.said.lock();
            let is_same = said.generation == snapshot.generation && said.failed == failed;
            let known = said.edition.filter(|_| is_same);
            let changed: Vec<(ObjectId, i64)> =
                nows.iter().filter(|(view, now_us)| said.nows.get(view) != Some(now_us)).copied().collect();
            let is_due = |us: &i64| said.level_us.is_none_or(|last| us.saturating_sub(last) >= BEAT_US);
            (known, changed, level_us.filter(is_due), said.level_us)
        };
        let epoch = engine.epoch();
        if let Some(edition) = known {
            let published = Published { epoch, edition, level_us };
            if changed.is_empty() && level_us.is_none() {
                return Ok(());
            }
            if self.redis.publish(&published, None, &changed).await? == Kept::Done {
                self.note(&published, nows);
                return Ok(());
            }
        }
        let edition = {
            let mut said = self.said.lock();
            said.sent += 1;
            // Whether it comes is not known before it is answered.
            said.edition = None;
            said.sent
        };
        // A Redis that has lost the document has lost rows, too.
        let level_us = level_us.or(if known.is_none() { told_us } else { None });
        let published = Published { epoch, edition, level_us };
        let document = Document::of(snapshot, failed.clone());
        let text = serde_json::to_string(&document).map_err(SeamError::not_done)?;
        match self.redis.publish(&published, Some(&text), &nows).await? {
            Kept::Done => {
                self.note(&published, nows);
                let mut said = self.said.lock();
                said.generation = snapshot.generation;
                said.failed = failed;
            }
            Kept::NoDocument => {
                return Err(SeamError::NotDone("Redis has lost the catalog while it was written".to_string()));
            }
        }
        Ok(())
    }

    fn note(&self, published: &Published, nows: Vec<(ObjectId, i64)>) {
        let mut said = self.said.lock();
        said.edition = Some(published.edition);
        said.nows = nows.into_iter().collect();
        said.level_us = published.level_us.or(said.level_us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use tidemark_catalog::{ClockMode, Column, Encode, Relation, SqlType};

    fn source(options: &[(&str, &str)]) -> Object {
        let options: BTreeMap<String, String> = options.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        let column = Column { name: "at".to_string(), ty: SqlType::TimestampTz, not_null: false, comment: None };
        let relation = Relation {
            columns: vec![column],
            primary_key: vec![],
            upsert: false,
            encode: Encode::Json,
            event_time: Some(0),
            delay_us: 0,
            clock: ClockMode::Event,
            max_ahead_us: 0,
            idle_timeout_us: 0,
            retention_us: None,
            dead_letter_retention_us: None,
            options,
            includes: vec![],
            layout: Default::default(),
            sql: "CREATE SOURCE clicks …".to_string(),
        };
        let (id, name) = (ObjectId::FIRST, "clicks".to_string());
        Object { id, name, created_us: 1, comment: None, place: Default::default(), body: Body::Source(relation) }
    }

    #[test]
    fn a_document_comes_back_as_it_was_but_for_secrets() {
        let object = source(&[("topic", "clicks"), ("properties.sasl.password", "geheim")]);
        let object_id = object.id;
        let snapshot = Snapshot::new(3, [object]);
        let text = serde_json::to_string(&Document::of(&snapshot, vec![(object_id, "why".to_string())])).expect("JSON");
        assert!(!text.contains("geheim"), "{text}");
        let document: Document = serde_json::from_str(&text).expect("a document");
        assert_eq!(document.failed, [(object_id, "why".to_string())]);
        assert_eq!(document.objects, [source(&[("topic", "clicks"), ("properties.sasl.password", HIDDEN)])]);
    }
}
