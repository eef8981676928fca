//! Rows on their way into a topic: `INSERT` and `COPY` return when the brokers have them.
//!
//! ```text
//!   a batch of rows ─▶ messages ─▶ librdkafka's queue ─▶ brokers
//!                                  (bounded)        ◀─── one report for every message: acknowledged, or why not
//! ```
//!
//! The producer is idempotent: what it sends again, because an answer was lost, the brokers take once. A message that
//! was given up may be there all the same; nobody can say, and the error says how many certainly are.

use super::{
    KafkaError, Kind, Options,
    client::Held,
    encode::{Encoder, Outgoing},
    explain::{self, Complaints, Doing},
};
use arrow::record_batch::RecordBatch;
use parking_lot::Mutex;
use rdkafka::{
    ClientConfig, ClientContext,
    config::RDKafkaLogLevel,
    error::{KafkaError as ClientError, RDKafkaErrorCode},
    message::{DeliveryResult, Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer, ProducerContext},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tidemark_catalog::Relation;
use tidemark_engine::seam::Clock;

/// Ours, before what the options say.
const PRODUCER: [(&str, &str); 7] = [
    ("enable.idempotence", "true"),
    ("acks", "all"),
    // How long a message may be on its way: a broker that fails over is back within seconds, and somebody waits for the
    // statement.
    ("message.timeout.ms", "30000"),
    // What waits in memory of all statements into this topic; a statement waits for room.
    ("queue.buffering.max.kbytes", "65536"),
    ("queue.buffering.max.messages", "100000"),
    // A statement's rows come at once: there is nothing to wait for, and 5 ms, the default, is more than all the rest
    // takes.
    ("linger.ms", "0"),
    ("client.id", "tidemark"),
];

/// How long one look for reports lasts: a call of librdkafka's goes on for all of it, also when it has some.
const LOOK: Duration = Duration::from_millis(1);

/// How often a producer is heard to which nobody gives anything: seldom enough to be no load, often enough that the lines of a
/// broker that is away (a few a second) do not pile up.
const LISTEN: Duration = Duration::from_secs(1);

/// How long the brokers may take to say which topics there are, once messages have waited in vain: as at CREATE SOURCE.
const METADATA: Duration = Duration::from_secs(5);

/// Not all rows were acknowledged.
#[derive(Debug)]
pub struct Unsent {
    pub error: KafkaError,
    /// So many are in the topic.
    pub acknowledged: usize,
}

/// A producer into one topic; cheap to clone.
#[derive(Clone)]
pub struct Sender {
    producer: Arc<Held<BaseProducer<Reports>>>,
    options: Arc<Options>,
    encoder: Arc<Encoder>,
}

impl Sender {
    /// # Errors
    /// The options say something that cannot be. Nobody has been asked yet.
    pub fn new(options: Arc<Options>, relation: &Relation) -> Result<Sender, KafkaError> {
        let encoder = Encoder::new(&options, relation).map_err(|message| KafkaError::new(Kind::Options, message))?;
        let mut config = ClientConfig::new();
        for (name, value) in PRODUCER {
            config.set(name, value);
        }
        for (name, value) in &options.client {
            config.set(name, value);
        }
        let producer: BaseProducer<Reports> =
            config.create_with_context(Reports::default()).map_err(explain::creation)?;
        Ok(Sender { producer: Arc::new(Held::new(producer)), options, encoder: Arc::new(encoder) })
    }

    /// Sends the rows and waits until the brokers have them; how many that were.
    pub async fn send(&self, batches: Vec<RecordBatch>) -> Result<usize, Unsent> {
        let sender = self.clone();
        #[allow(
            clippy::disallowed_methods,
            reason = "librdkafka's reports are waited for by blocking; they have a timeout"
        )]
        let sent = tokio::task::spawn_blocking(move || sender.send_all(&batches)).await;
        sent.unwrap_or_else(|error| {
            Err(Unsent { error: KafkaError::new(Kind::Other, error.to_string()), acknowledged: 0 })
        })
    }

    /// Hears what librdkafka says while nobody sends: it waits in a queue without bounds. Ends when the producer is let go of.
    pub fn listening(&self, clock: Arc<dyn Clock>) -> impl Future<Output = ()> + Send + use<> {
        let producer = Arc::downgrade(&self.producer);
        async move {
            loop {
                clock.sleep(LISTEN).await;
                let Some(producer) = producer.upgrade() else { return };
                #[allow(clippy::disallowed_methods, reason = "a look blocks for a millisecond")]
                let heard = tokio::task::spawn_blocking(move || producer.poll(LOOK)).await;
                // The runtime ends.
                if heard.is_err() {
                    return;
                }
            }
        }
    }

    /// It sends nothing more, for ever: the brokers have lost what they knew of it.
    pub fn has_failed(&self) -> bool {
        self.producer.client().fatal_error().is_some()
    }

    fn send_all(&self, batches: &[RecordBatch]) -> Result<usize, Unsent> {
        let tally = Arc::new(Tally::default());
        let mut sent = 0;
        let mut refused = None;
        for batch in batches {
            match self.encoder.messages(batch) {
                Ok(messages) => {
                    for message in messages {
                        match self.enqueue(&message, &tally) {
                            Ok(()) => sent += 1,
                            Err(error) => {
                                refused = Some(explain::call(&self.options, self.complaint(), Doing::Writing, &error));
                                break;
                            }
                        }
                    }
                }
                Err(message) => refused = Some(KafkaError::new(Kind::Options, message)),
            }
            // Where some have failed already, those behind them need not go.
            if refused.is_some() || tally.failed.load(Ordering::Acquire) > 0 {
                break;
            }
        }
        // Each gets its report, in time or by the timeout.
        while tally.reported() < sent {
            self.producer.poll(LOOK);
        }
        let failure = *tally.failure.lock();
        let failure = failure.map(|code| match self.topic_is_gone(code) {
            true => explain::no_topic(&self.options),
            false => explain::code(&self.options, self.complaint(), Doing::Writing, code),
        });
        let acknowledged = tally.acknowledged.load(Ordering::Acquire);
        match refused.or(failure) {
            None => {
                // What went wrong on the way, or before it, explains nothing that fails later.
                if acknowledged > 0 {
                    self.producer.client().context().complaints.forget();
                }
                Ok(acknowledged)
            }
            Some(error) => Err(Unsent { error, acknowledged }),
        }
    }

    /// Whether messages have waited in vain because nobody has their topic: librdkafka waits for one that was deleted as
    /// for brokers that are away, and says only that time is up. Metadata of all topics: asking for one may create it.
    fn topic_is_gone(&self, code: RDKafkaErrorCode) -> bool {
        if !matches!(code, RDKafkaErrorCode::MessageTimedOut | RDKafkaErrorCode::OperationTimedOut) {
            return false;
        }
        let known = self.producer.client().fetch_metadata(None, METADATA);
        known.is_ok_and(|known| !known.topics().iter().any(|topic| topic.name() == self.options.topic))
    }

    fn complaint(&self) -> Option<String> {
        self.producer.client().context().complaints.last()
    }

    /// Into librdkafka's queue, when it has room.
    fn enqueue(&self, message: &Outgoing, tally: &Arc<Tally>) -> Result<(), ClientError> {
        let mut record = BaseRecord::<[u8], [u8], Arc<Tally>>::with_opaque_to(&self.options.topic, tally.clone())
            .payload(message.payload.as_slice());
        if let Some(key) = &message.key {
            record = record.key(key.as_slice());
        }
        if !message.headers.is_empty() {
            let headers = OwnedHeaders::new_with_capacity(message.headers.len());
            let all = message.headers.iter();
            let headers = all
                .fold(headers, |headers, (key, value)| headers.insert(Header { key, value: Some(value.as_slice()) }));
            record = record.headers(headers);
        }
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                // Where nothing is in the queue, this message alone is too much for it.
                Err((error, back))
                    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull)
                        && self.producer.in_flight_count() > 0 =>
                {
                    self.producer.poll(LOOK);
                    record = back;
                }
                Err((error, _)) => return Err(error),
            }
        }
    }
}

/// The reports of one statement.
#[derive(Debug, Default)]
struct Tally {
    acknowledged: AtomicUsize,
    failed: AtomicUsize,
    /// Of the first that failed.
    failure: Mutex<Option<RDKafkaErrorCode>>,
}

impl Tally {
    fn reported(&self) -> usize {
        self.acknowledged.load(Ordering::Acquire) + self.failed.load(Ordering::Acquire)
    }
}

/// Takes reports to their statements.
#[derive(Debug, Default)]
struct Reports {
    complaints: Complaints,
}

impl ClientContext for Reports {
    // It hears by the same polling that brings the reports.
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        tracing::debug!(target: "librdkafka", facility, text);
        self.complaints.hear(level as i32, text);
    }

    fn error(&self, error: ClientError, reason: &str) {
        // The log has said why.
        tracing::debug!(target: "librdkafka", %error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Arc<Tally>;

    fn delivery(&self, report: &DeliveryResult<'_>, tally: Arc<Tally>) {
        match report {
            Ok(_) => tally.acknowledged.fetch_add(1, Ordering::AcqRel),
            Err((error, _)) => {
                tally.failure.lock().get_or_insert(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown));
                tally.failed.fetch_add(1, Ordering::AcqRel)
            }
        };
    }
}
