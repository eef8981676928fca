//! The sources that a topic feeds: started with the server and by CREATE, stopped by DROP and at the end; and what goes
//! into their topics.

use crate::pg::PgError;
use arrow::record_batch::RecordBatch;
use parking_lot::RwLock;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};
use tidemark_catalog::{Body, NoSecret, Object, ObjectId, ObjectKind, Relation, Snapshot};
use tidemark_connectors::kafka::{
    Batch, Broker, Feed, KafkaError, Kind, Options, Place, Sender, Start, Status, going_on, moves,
};
use tidemark_engine::{runtime::Engine, seam::Clock};

pub struct Feeds {
    engine: Arc<Engine>,
    clock: Arc<dyn Clock>,
    /// Has the secrets that options name.
    snapshot: RwLock<Arc<Snapshot>>,
    running: RwLock<HashMap<ObjectId, Arc<Feed>>>,
    /// Made by the first INSERT into a topic, with these options.
    senders: RwLock<HashMap<ObjectId, (Arc<Options>, Sender)>>,
    /// Held while a feed comes to its end: who stops it a second time waits for that too.
    stopping: tokio::sync::Mutex<()>,
}

/// Rows that were to go into a topic and did not, or not all.
pub struct Unproduced {
    pub error: PgError,
    /// So many are in the topic.
    pub acknowledged: usize,
}

/// What a topic answered when a source was to be made of it: where the source begins.
pub struct Beginning(BTreeMap<u32, u64>);

/// What a topic answered when its reading was to go on somewhere else.
pub type Places = Result<BTreeMap<u32, Place>, KafkaError>;

fn resolved(snapshot: &Snapshot, relation: &Relation) -> Result<Relation, KafkaError> {
    let missing = |error: NoSecret| KafkaError {
        kind: Kind::Options,
        message: error.to_string(),
        hint: Some("SHOW SECRETS lists what there is".to_string()),
    };
    snapshot.resolved(relation).map_err(missing)
}

/// Asks broker and topic, so that a source is refused that could not be read.
pub async fn ask(snapshot: &Snapshot, kind: ObjectKind, name: &str, relation: &Relation) -> Result<Beginning, PgError> {
    let asked = async {
        let broker = Broker::new(Arc::new(Options::of(&resolved(snapshot, relation)?)?))?;
        broker.ask(Broker::start).await
    };
    asked.await.map(Beginning).map_err(|error| refusal(kind, name, error))
}

/// Asks broker and topic whether they can be read with these options; wherever reading is.
pub async fn reach(snapshot: &Snapshot, kind: ObjectKind, name: &str, relation: &Relation) -> Result<(), PgError> {
    let asked = async {
        let broker = Broker::new(Arc::new(Options::of(&resolved(snapshot, relation)?)?))?;
        broker.ask(|broker| broker.ends(&broker.partitions()?)).await
    };
    asked.await.map(|_| ()).map_err(|error| refusal(kind, name, error))
}

/// An error of Kafka's as a client is told it.
fn refusal(kind: ObjectKind, name: &str, error: KafkaError) -> PgError {
    let sqlstate = match error.kind {
        Kind::Options => "22023",
        Kind::Unreachable => "08001",
        Kind::NoTopic => "42704",
        Kind::Denied => "28000",
        Kind::Gone | Kind::Again => "55000",
        Kind::Other => "58000",
    };
    let refused = PgError::error(sqlstate, format!("{kind} \"{name}\": {}", error.message));
    match error.hint {
        Some(hint) => refused.hint(hint),
        None => refused,
    }
}

impl Feeds {
    pub fn new(engine: Arc<Engine>, clock: Arc<dyn Clock>, snapshot: Arc<Snapshot>) -> Feeds {
        Feeds {
            engine,
            clock,
            snapshot: RwLock::new(snapshot),
            running: RwLock::default(),
            senders: RwLock::default(),
            stopping: tokio::sync::Mutex::default(),
        }
    }

    /// From here on this is the catalog.
    pub fn know(&self, snapshot: Arc<Snapshot>) {
        *self.snapshot.write() = snapshot;
    }

    /// With the values of the secrets that its options name.
    fn resolved(&self, relation: &Relation) -> Result<Relation, KafkaError> {
        let snapshot = self.snapshot.read().clone();
        resolved(&snapshot, relation)
    }

    /// Starts all that the catalog has. One that cannot be started does not keep the server from it.
    pub fn start_all(&self, snapshot: &Snapshot) {
        for object in snapshot.objects() {
            if let Err(error) = self.start(object) {
                tracing::error!(source = object.name, %error, "the topic is not read");
            }
        }
    }

    /// Keeps durably where a new source begins, before anything is read: what `latest` is, is decided once.
    pub async fn begin(&self, object: &Object, beginning: &Beginning) -> Result<(), PgError> {
        let Batch { rows, deletes, origin } = Batch::beginning(object.schema(), &beginning.0);
        self.engine.take(object.id, rows, deletes, origin).await?;
        Ok(())
    }

    /// Starts to feed a source from its topic; nothing to do for other objects.
    pub fn start(&self, object: &Object) -> Result<(), PgError> {
        if object.relation().and_then(Relation::topic).is_none() {
            return Ok(());
        }
        let mut resolved = object.clone();
        if let Body::Source(relation) | Body::Table(relation) = &mut resolved.body {
            *relation = self.resolved(relation).map_err(|error| refusal(object.kind(), &object.name, error))?;
        }
        let feed = Feed::start(self.engine.clone(), self.clock.clone(), &resolved);
        let feed = feed.map_err(|error| refusal(object.kind(), &object.name, error))?;
        self.running.write().insert(object.id, Arc::new(feed));
        Ok(())
    }

    /// Stops the source's feed, for nobody may be taking while it is decided from where, and asks where the choice leads in
    /// the partitions of its topic. Whatever comes of it, [`Self::reset`] or [`Self::start`] is to follow.
    pub async fn pause(&self, object: &Object, to: &Start) -> Places {
        self.stop(object.id).await;
        self.places(object, to).await
    }

    /// Asks where the choice leads while the source is fed, which may be given up: nothing has been touched.
    ///
    /// # Errors
    /// The broker does not answer, or not that.
    pub async fn probe(&self, object: &Object, to: &Start) -> Result<(), PgError> {
        let asked = self.places(object, to).await;
        asked.map(|_| ()).map_err(|error| refusal(object.kind(), &object.name, error))
    }

    async fn places(&self, object: &Object, to: &Start) -> Places {
        let relation = self.resolved(object.relation().ok_or_else(KafkaError::no_source)?)?;
        let broker = Broker::new(Arc::new(Options::of(&relation)?))?;
        let to = to.clone();
        broker.ask(move |broker| broker.places(&to)).await
    }

    /// Reading goes on from these places, durably; `again` says that records may be read a second time.
    /// Whatever comes of it, the source is fed again when this returns. Says what is read again by that, and what never is.
    pub async fn reset(&self, object: &Object, places: Places, again: bool) -> Result<Option<String>, PgError> {
        // Another that was paused beside this one may still be at its last batch.
        self.stop(object.id).await;
        let reset = async {
            let (places, next) = (places?, self.engine.begin_taking(object.id).await);
            let to = going_on(&places, &next, again)?;
            Ok::<_, KafkaError>((moves(&places, &next, &to), to))
        };
        let set = match reset.await.map_err(|error| refusal(object.kind(), &object.name, error)) {
            Ok((moves, partitions)) => {
                let Batch { rows, deletes, origin } = Batch::reset(object.schema(), &partitions);
                self.engine.take(object.id, rows, deletes, origin).await.map(|_| moves).map_err(PgError::from)
            }
            Err(error) => Err(error),
        };
        let started = self.start(object);
        set.and_then(|moves| started.map(|()| moves))
    }

    /// Nothing is taken from the source's topic any more when this returns.
    pub async fn stop(&self, id: ObjectId) {
        self.senders.write().remove(&id);
        let _stopping = self.stopping.lock().await;
        let feed = self.running.write().remove(&id);
        if let Some(feed) = feed {
            feed.stop().await;
        }
    }

    /// Sends rows into the source's topic; how many, when the brokers have them all. They come back by the feed.
    pub async fn produce(&self, object: &Object, batches: Vec<RecordBatch>) -> Result<usize, Unproduced> {
        let unproduced =
            |error, acknowledged| Unproduced { error: refusal(object.kind(), &object.name, error), acknowledged };
        let sender = self.sender(object).map_err(|error| unproduced(error, 0))?;
        sender.send(batches).await.map_err(|unsent| {
            // Else it goes on by itself when the brokers are back.
            if sender.has_failed() {
                self.senders.write().remove(&object.id);
            }
            unproduced(unsent.error, unsent.acknowledged)
        })
    }

    fn sender(&self, object: &Object) -> Result<Sender, KafkaError> {
        // What the source is now: a long COPY has it as it was when that began.
        let source = self.engine.source(object.id).ok_or_else(KafkaError::no_source)?;
        let relation = source.relation.read().clone();
        let relation = self.resolved(&relation)?;
        let options = Arc::new(Options::of(&relation)?);
        let mut senders = self.senders.write();
        if let Some((_, sender)) = senders.get(&object.id).filter(|(made_with, _)| made_with.client == options.client) {
            return Ok(sender.clone());
        }
        let sender = Sender::new(options.clone(), &relation)?;
        self.clock.spawn("kafka sender", Box::pin(sender.listening(self.clock.clone())));
        senders.insert(object.id, (options, sender.clone()));
        Ok(sender)
    }

    pub async fn stop_all(&self) {
        self.senders.write().clear();
        let feeds: Vec<Arc<Feed>> = self.running.write().drain().map(|(_, feed)| feed).collect();
        futures::future::join_all(feeds.iter().map(|feed| feed.stop())).await;
    }

    pub fn status(&self, id: ObjectId) -> Option<Arc<Status>> {
        self.running.read().get(&id).map(|feed| feed.status.clone())
    }

    /// Waits until all that is in the topics now has been applied.
    pub async fn flush(&self, snapshot: &Snapshot) -> Result<(), PgError> {
        let feeds: Vec<(ObjectId, Arc<Feed>)> =
            self.running.read().iter().map(|(id, feed)| (*id, feed.clone())).collect();
        let refused = |id: ObjectId, error: KafkaError| match snapshot.get_id(id) {
            Some(object) => refusal(object.kind(), &object.name, error),
            None => refusal(ObjectKind::Source, "", error),
        };
        let refused = &refused;
        let flushed =
            feeds.iter().map(|(id, feed)| async move { feed.flush().await.map_err(|error| refused(*id, error)) });
        futures::future::try_join_all(flushed).await.map(|_| ())
    }
}
