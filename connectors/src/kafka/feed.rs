//! The task that feeds a source: what has come goes into the source's log, one batch after the other.
//!
//! ```text
//!   woken by librdkafka ─▶ a batch ─▶ Engine::take ─▶ the next; full ones follow without waiting
//!                          the next is decoded meanwhile, and waits
//!   every second        ─▶ where do the partitions end? ─▶ lag, new partitions, and who is waited for
//! ```
//!
//! A partition is idle only when it is known to have nothing: one that is behind, or of which no broker tells, is waited
//! for however long it takes. Else a broker that is away for a minute would make late whatever is written meanwhile.

use super::{Batch, Broker, Came, KafkaError, Kind, Options, Reader};
use arrow::datatypes::SchemaRef;
use futures::FutureExt;
use parking_lot::{Mutex, RwLock};
use rdkafka::error::RDKafkaErrorCode;
use std::{collections::BTreeMap, panic::AssertUnwindSafe, sync::Arc, time::Duration};
use tidemark_catalog::{Object, ObjectId};
use tidemark_engine::{
    runtime::{Engine, IngestError},
    seam::Clock,
};
use tokio::sync::{oneshot, watch};

/// How often partitions' ends are asked for: how old the lag that people see may be, and a fraction of any idle timeout.
const LOOK: Duration = Duration::from_secs(1);
/// Every so many looks the topic is asked for its partitions: new ones are found within seconds.
const LOOKS_FOR_PARTITIONS: u32 = 5;
/// After a failure of broker or log: often enough to be back soon, seldom enough to be no load.
const RETRY: Duration = Duration::from_secs(1);
/// How often a trouble is in the log while it lasts, or comes and goes: seldom enough that the log stays readable, often enough
/// that its last page has it.
const SAY_AGAIN_US: i64 = 60_000_000;

/// How a feed is, for people and for whoever waits.
#[derive(Debug, Default)]
pub struct Status {
    /// For each partition the offset below which everything has been applied.
    reached: RwLock<BTreeMap<u32, u64>>,
    /// Where each ended when last asked.
    ends: RwLock<BTreeMap<u32, u64>>,
    /// What does not work just now.
    error: RwLock<Option<KafkaError>>,
    /// It has given up; `error` says why.
    failed: RwLock<bool>,
}

impl Status {
    /// Partition, next offset, end where known; in order.
    pub fn partitions(&self) -> Vec<(u32, u64, Option<u64>)> {
        let ends = self.ends.read();
        self.reached.read().iter().map(|(id, next)| (*id, *next, ends.get(id).copied())).collect()
    }

    pub fn error(&self) -> Option<KafkaError> {
        self.error.read().clone()
    }

    pub fn has_failed(&self) -> bool {
        *self.failed.read()
    }

    fn is_at(&self, ends: &BTreeMap<u32, u64>) -> bool {
        let reached = self.reached.read();
        ends.iter().all(|(partition, end)| reached.get(partition).is_some_and(|next| next >= end))
    }
}

/// A running feed.
pub struct Feed {
    pub status: Arc<Status>,
    options: Arc<Options>,
    stop: watch::Sender<bool>,
    /// Changes whenever something was applied or went wrong.
    changed: watch::Receiver<()>,
}

impl Feed {
    /// Starts to feed the source; it reads on from where its log says, or, if that has nothing yet, from where the options
    /// say.
    pub fn start(engine: Arc<Engine>, clock: Arc<dyn Clock>, object: &Object) -> Result<Feed, KafkaError> {
        let relation = object.relation().ok_or_else(KafkaError::no_source)?;
        let options = Arc::new(Options::of(relation)?);
        let (stop, stopping) = watch::channel(false);
        let (applied, changed) = watch::channel(());
        let status = Arc::<Status>::default();
        let task = Task {
            source: object.id,
            schema: relation.schema(),
            options: options.clone(),
            engine,
            clock: clock.clone(),
            status: status.clone(),
            said: Mutex::default(),
            applied,
            stopping,
        };
        clock.spawn("kafka", Box::pin(Arc::new(task).run()));
        Ok(Feed { status, options, stop, changed })
    }

    /// Stops it; nothing of it is under way when this returns.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        let mut changed = self.changed.clone();
        // Its end of the channel goes with the task.
        while changed.changed().await.is_ok() {}
    }

    /// Waits until all that is in the topic now has been applied.
    pub async fn flush(&self) -> Result<(), KafkaError> {
        let broker = Broker::new(self.options.clone())?;
        let ends = broker.ask(|broker| broker.ends(&broker.partitions()?)).await?;
        let mut changed = self.changed.clone();
        let stopped = || KafkaError::new(Kind::Other, "it is not read any more");
        loop {
            if self.status.has_failed() {
                return Err(self.status.error().unwrap_or_else(stopped));
            }
            if self.status.is_at(&ends) {
                return Ok(());
            }
            changed.changed().await.map_err(|_| self.status.error().unwrap_or_else(stopped))?;
        }
    }
}

/// Why reading ended.
enum End {
    Stopped,
    /// Not for ever: it is tried again.
    Trouble(KafkaError),
    /// Somebody has to do something first.
    Failed(KafkaError),
}

impl From<KafkaError> for End {
    fn from(error: KafkaError) -> End {
        match error.kind {
            Kind::Options | Kind::Gone => End::Failed(error),
            _ => End::Trouble(error),
        }
    }
}

struct Task {
    source: ObjectId,
    options: Arc<Options>,
    engine: Arc<Engine>,
    clock: Arc<dyn Clock>,
    status: Arc<Status>,
    schema: SchemaRef,
    said: Mutex<Said>,
    applied: watch::Sender<()>,
    stopping: watch::Receiver<bool>,
}

/// What the log has of troubles.
#[derive(Debug, Default, PartialEq)]
struct Said {
    /// When it was last told of one.
    at_us: Option<i64>,
    /// It has not been told that it is over.
    is_open: bool,
}

impl Said {
    /// Whether to tell of a trouble now.
    fn begins(&mut self, now_us: i64) -> bool {
        let begins = self.at_us.is_none_or(|at_us| now_us.saturating_sub(at_us) >= SAY_AGAIN_US);
        if begins {
            *self = Said { at_us: Some(now_us), is_open: true };
        }
        begins
    }

    /// Whether to tell now that it is over.
    fn ends(&mut self) -> bool {
        std::mem::take(&mut self.is_open)
    }
}

impl Task {
    /// What the source is called now.
    fn name(&self) -> String {
        let source = self.engine.source(self.source);
        source.map_or_else(|| self.source.to_string(), |source| source.name.read().clone())
    }

    async fn run(self: Arc<Self>) {
        while let Err(end) = self.read_or_panic().await {
            match end {
                End::Stopped => return,
                End::Trouble(error) => {
                    self.report(error);
                    if self.rest().await.is_err() {
                        return;
                    }
                }
                End::Failed(error) => {
                    *self.status.failed.write() = true;
                    // It is the last that is heard of it, whatever was said before.
                    *self.said.lock() = Said::default();
                    self.report(error);
                    while self.rest().await.is_ok() {}
                    return;
                }
            }
        }
    }

    /// A mistake of the program is told like any other failure, and its partitions are waited for: the frontier does not go past
    /// records that nobody reads.
    async fn read_or_panic(self: &Arc<Self>) -> Result<(), End> {
        let read = AssertUnwindSafe(self.read()).catch_unwind().await;
        read.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked");
            let message = format!("an internal error while it was read: {text}");
            Err(End::Failed(
                KafkaError::new(Kind::Other, message).hint("please report it; the server's log says where"),
            ))
        })
    }

    /// A pause in which nothing is read. What is in the topic meanwhile is waited for, for ever if need be: the next start may
    /// read it.
    async fn rest(&self) -> Result<(), End> {
        let all: Vec<u32> = self.status.reached.read().keys().copied().collect();
        self.engine.looked(self.source, &all, &[]).await;
        self.unless_stopped(self.clock.sleep(RETRY)).await
    }

    /// What the work gives, unless it is to stop before that. For work that may be dropped in the middle: not for what goes
    /// into the log.
    async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Result<T, End> {
        let mut stopping = self.stopping.clone();
        tokio::select! {
            () = stopped(&mut stopping) => Err(End::Stopped),
            done = work => Ok(done),
        }
    }

    fn report(&self, error: KafkaError) {
        // Not once per try.
        if self.said.lock().begins(self.clock.now_us()) {
            tracing::warn!(source = self.name(), topic = self.options.topic, %error, "a topic cannot be read");
        }
        *self.status.error.write() = Some(error);
        self.applied.send_replace(());
    }

    /// Reads until something ends it. Nothing is under way when this returns: the next time the log is asked where it stands.
    async fn read(self: &Arc<Self>) -> Result<(), End> {
        let mut under_way = UnderWay::default();
        let read = self.read_beside(&mut under_way).await;
        read.and(under_way.settle().await)
    }

    async fn read_beside(self: &Arc<Self>, under_way: &mut UnderWay) -> Result<(), End> {
        let mut next = self.engine.begin_taking(self.source).await;
        *self.status.reached.write() = next.clone();
        let mut reader = Reader::new(self.options.clone(), self.schema.clone())?;
        let broker = reader.broker().clone();
        if next.is_empty() {
            next = self.unless_stopped(broker.ask(Broker::start)).await??;
            self.begin(&next).await?;
        }
        // With the topic known, the first records come at once and not after half a second.
        self.find_partitions(&broker, &mut next).await?;
        reader.assign(&next)?;
        let mut looks = 0u32;
        let mut looking = self.look(&broker, next.keys().copied().collect(), Duration::ZERO, false);
        let mut stopping = self.stopping.clone();
        let mut waiting: Option<Came> = None;
        loop {
            if !under_way.is_some()
                && let Some(came) = waiting.take()
            {
                under_way.begin(self.clone(), broker.clone(), came);
            }
            tokio::select! {
                () = stopped(&mut stopping) => return Err(End::Stopped),
                settled = under_way.settle(), if under_way.is_some() => settled?,
                came = reader.next(|| self.clock.now_us()), if waiting.is_none() => waiting = Some(came?),
                looked = &mut looking => {
                    // What the ends are compared with is how far all that has been read is.
                    under_way.settle().await?;
                    if let Some(came) = waiting.take() {
                        self.keep(&broker, came).await?;
                    }
                    if self.note(&broker, looked, &mut next).await? {
                        // A new partition; the others go on from where they are.
                        let reached = self.status.reached.read().clone();
                        for (partition, offset) in &mut next {
                            *offset = reached.get(partition).copied().unwrap_or(*offset);
                        }
                        reader.assign(&next)?;
                    }
                    looks += 1;
                    let partitions = looks.is_multiple_of(LOOKS_FOR_PARTITIONS);
                    looking = self.look(&broker, next.keys().copied().collect(), LOOK, partitions);
                }
            }
        }
    }

    /// Says durably where partitions begin, before anything of them is read: a start later begins there too.
    async fn begin(&self, partitions: &BTreeMap<u32, u64>) -> Result<(), End> {
        self.apply(Batch::beginning(self.schema.clone(), partitions)).await?;
        self.status.reached.write().extend(partitions);
        Ok(())
    }

    /// Partitions that the topic has and the log does not know: those begin at their first record.
    async fn find_partitions(&self, broker: &Broker, next: &mut BTreeMap<u32, u64>) -> Result<bool, End> {
        let found = self.unless_stopped(broker.ask(Broker::partitions)).await??;
        let new: Vec<u32> = found.into_iter().filter(|partition| !next.contains_key(partition)).collect();
        if new.is_empty() {
            return Ok(false);
        }
        let begin = broker.ask(move |broker| {
            new.into_iter().map(|partition| Ok((partition, broker.range(partition)?.0))).collect::<Result<_, _>>()
        });
        let begin: BTreeMap<u32, u64> = self.unless_stopped(begin).await??;
        self.begin(&begin).await?;
        next.extend(begin);
        Ok(true)
    }

    /// Keeps what has come.
    async fn keep(&self, broker: &Broker, came: Came) -> Result<(), End> {
        if let Some(batch) = came.batch {
            let taken: Vec<(u32, u64)> = batch.origin.taken.iter().map(|taken| (taken.partition, taken.next)).collect();
            self.apply(batch).await?;
            self.status.reached.write().extend(taken);
        }
        {
            let mut reached = self.status.reached.write();
            for (partition, end) in came.ends {
                // More may have come after the end was seen.
                let next = reached.entry(partition).or_insert(end);
                *next = end.max(*next);
            }
        }
        self.applied.send_replace(());
        for (partition, code, text) in came.errors {
            self.complain(broker, partition, code, text).await?;
        }
        Ok(())
    }

    /// Into the log, however often it takes.
    async fn apply(&self, batch: Batch) -> Result<(), End> {
        loop {
            let Batch { rows, deletes, origin } = batch.clone();
            let error = match self.engine.take(self.source, rows, deletes, origin).await {
                Ok(_) => return Ok(()),
                // Also where nobody could tell whether it is in the log: until that knows that it is not, it takes nothing
                // (`Source::append`), and a start asks it where it stands.
                Err(IngestError::Seam(error)) => error.to_string(),
                Err(error @ IngestError::TakenBefore { .. }) => {
                    return Err(End::Trouble(KafkaError::new(Kind::Other, error.to_string())));
                }
                Err(other) => return Err(End::Failed(KafkaError::new(Kind::Other, other.to_string()))),
            };
            self.report(KafkaError::new(Kind::Other, error));
            self.unless_stopped(self.clock.sleep(RETRY)).await?;
        }
    }

    /// What librdkafka says instead of records.
    async fn complain(
        &self,
        broker: &Broker,
        partition: Option<u32>,
        code: RDKafkaErrorCode,
        text: String,
    ) -> Result<(), End> {
        let gone = matches!(code, RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange);
        if let (true, Some(partition)) = (gone, partition) {
            let next = self.status.reached.read().get(&partition).copied().unwrap_or(0);
            let (low, high) = self.unless_stopped(broker.ask(move |broker| broker.range(partition))).await??;
            let topic = &self.options.topic;
            let message = format!(
                "partition {partition} of topic \"{topic}\" has no offset {next} to go on from: its records have offsets from \
                 {low}, the next is {high}"
            );
            let hint = "records were removed before they were read, or the topic was made anew; ALTER … RESET TO \
                        EARLIEST (with ALLOW DUPLICATES where that is back) or LATEST goes on with what there is";
            return Err(End::Failed(KafkaError::new(Kind::Gone, message).hint(hint)));
        }
        tracing::debug!(topic = self.options.topic, ?partition, text, "librdkafka complains");
        self.report(broker.explain_code(code));
        Ok(())
    }

    /// Asks where the partitions end, after a pause; and for new ones.
    fn look(
        &self,
        broker: &Broker,
        partitions: Vec<u32>,
        pause: Duration,
        find: bool,
    ) -> futures::future::BoxFuture<'static, Result<Looked, KafkaError>> {
        let (broker, pause) = (broker.clone(), self.clock.sleep(pause));
        Box::pin(async move {
            pause.await;
            broker
                .ask(move |broker| {
                    let ends = broker.ends(&partitions)?;
                    let new = if find { broker.partitions()? } else { vec![] };
                    let new = new.into_iter().filter(|partition| !partitions.contains(partition));
                    let new = new.map(|partition| Ok((partition, broker.range(partition)?.0)));
                    Ok(Looked { ends, new: new.collect::<Result<_, KafkaError>>()? })
                })
                .await
        })
    }

    /// Notes the answer; whether there are new partitions.
    async fn note(
        &self,
        broker: &Broker,
        looked: Result<Looked, KafkaError>,
        next: &mut BTreeMap<u32, u64>,
    ) -> Result<bool, End> {
        let looked = match looked {
            Ok(looked) => looked,
            Err(error) => {
                // Nobody knows what they have.
                let all: Vec<u32> = next.keys().copied().collect();
                self.engine.looked(self.source, &all, &[]).await;
                self.report(error);
                return Ok(false);
            }
        };
        let (level, behind): (Vec<u32>, Vec<u32>) = {
            let reached = self.status.reached.read();
            let is_level = |id: &u32| looked.ends.get(id) <= reached.get(id);
            looked.ends.keys().copied().partition(is_level)
        };
        self.engine.looked(self.source, &behind, &level).await;
        broker.forget_complaints();
        *self.status.ends.write() = looked.ends;
        *self.status.error.write() = None;
        if self.said.lock().ends() {
            tracing::info!(source = self.name(), topic = self.options.topic, "a topic is read again");
        }
        if looked.new.is_empty() {
            return Ok(false);
        }
        self.begin(&looked.new).await?;
        next.extend(looked.new);
        Ok(true)
    }
}

/// A batch on its way into the log, on a thread of its own while the next one is decoded.
#[derive(Default)]
struct UnderWay(Option<oneshot::Receiver<Result<(), End>>>);

impl UnderWay {
    fn is_some(&self) -> bool {
        self.0.is_some()
    }

    fn begin(&mut self, task: Arc<Task>, broker: Broker, came: Came) {
        let (told, under_way) = oneshot::channel();
        self.0 = Some(under_way);
        let clock = task.clock.clone();
        let keep = async move {
            // Nobody may be there any more.
            let _ = told.send(task.keep(&broker, came).await);
        };
        clock.spawn("kafka batch", Box::pin(keep));
    }

    /// Waits until it is in, if there is one. Dropped before that, it can be called again.
    async fn settle(&mut self) -> Result<(), End> {
        let Some(under_way) = &mut self.0 else { return Ok(()) };
        let kept = under_way.await;
        self.0 = None;
        kept.unwrap_or_else(|_| {
            let message = "an internal error while what was read went into the log";
            Err(End::Failed(
                KafkaError::new(Kind::Other, message).hint("please report it; the server's log says where"),
            ))
        })
    }
}

async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await;
}

struct Looked {
    ends: BTreeMap<u32, u64>,
    /// Partitions that were not known, and where they begin.
    new: BTreeMap<u32, u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_is_told_once_a_minute_and_its_end_once() {
        let mut said = Said::default();
        assert!(!said.ends(), "nothing was wrong");
        // A try a second, for two minutes and a half.
        let told: Vec<i64> = (0..150).filter(|second| said.begins(second * 1_000_000)).collect();
        assert_eq!(told, [0, 60, 120]);
        assert!(said.ends() && !said.ends());
        // It comes and goes: what was not told does not end.
        assert!(!said.begins(151_000_000) && !said.ends());
        assert!(said.begins(180_000_000) && said.ends());
    }
}
