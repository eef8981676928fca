//! What is asked of a broker beside records: whether it answers, the topic's partitions, where they begin and end.
//!
//! librdkafka answers these by blocking, up to a timeout; [`Broker::ask`] moves that to a thread that may block.

use super::{
    KafkaError, Kind, Options, Start,
    client::{Held, Quiet},
    explain::{self, Complaints, Doing},
    queue::Log,
};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError as ClientError, RDKafkaErrorCode},
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// How long a broker may take to answer: several times what a slow network needs, and what somebody waits at a prompt.
const ANSWER: Duration = Duration::from_secs(5);

/// Ours, before what the options say. librdkafka's own defaults are for a program that reads message by message.
const CLIENT: [(&str, &str); 10] = [
    // Required for assigning partitions; no group is ever joined and nothing committed.
    ("group.id", "tidemark"),
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("enable.partition.eof", "true"),
    ("auto.offset.reset", "error"),
    ("isolation.level", "read_committed"),
    // What waits in memory: some batches, so that the broker is not waited for between two.
    ("queued.max.messages.kbytes", "16384"),
    ("fetch.max.bytes", "16777216"),
    // The default, 1 s, is a stall whenever the queue is full for a moment (measured).
    ("fetch.queue.backoff.ms", "5"),
    ("client.id", "tidemark"),
];

/// What a partition has, and where reading is to begin in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Its first offset.
    pub low: u64,
    /// The one after its last record.
    pub high: u64,
    /// `None`: nothing was said of this partition.
    pub chosen: Option<u64>,
}

/// A client of the brokers that the options name.
#[derive(Clone)]
pub struct Broker {
    pub(super) consumer: Arc<Held<BaseConsumer<Quiet>>>,
    options: Arc<Options>,
    log: Arc<Log>,
    complaints: Arc<Complaints>,
}

impl Broker {
    /// # Errors
    /// librdkafka does not know an option, or not its value. Nobody has been asked yet.
    pub fn new(options: Arc<Options>) -> Result<Broker, KafkaError> {
        Self::telling(options, || {})
    }

    /// `wake` is called, from a thread of librdkafka's, when records come after there were none.
    pub(super) fn telling(
        options: Arc<Options>,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Result<Broker, KafkaError> {
        let mut config = ClientConfig::new();
        for (name, value) in CLIENT {
            config.set(name, value);
        }
        for (name, value) in &options.client {
            config.set(name, value);
        }
        let mut consumer: BaseConsumer<Quiet> = config.create_with_context(Quiet).map_err(explain::creation)?;
        consumer.set_nonempty_callback(wake);
        let consumer = Arc::new(Held::new(consumer));
        let log =
            Log::of(&consumer).ok_or_else(|| KafkaError::new(Kind::Other, "librdkafka gives no queue of its log"))?;
        Ok(Broker { consumer, options, log: Arc::new(log), complaints: Arc::default() })
    }

    /// Asks on a thread that may block.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Broker) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, KafkaError> {
        let broker = self.clone();
        #[allow(clippy::disallowed_methods, reason = "librdkafka answers by blocking; it ends by its own timeout")]
        let asked = tokio::task::spawn_blocking(move || question(&broker)).await;
        asked.map_err(|error| KafkaError::new(Kind::Other, error.to_string()))?
    }

    /// The partitions of the topic.
    pub fn partitions(&self) -> Result<Vec<u32>, KafkaError> {
        let topic = &self.options.topic;
        let metadata =
            self.consumer.fetch_metadata(Some(topic.as_str()), ANSWER).map_err(|error| self.explain(&error))?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let found = found.ok_or_else(|| self.no_topic())?;
        if let Some(error) = found.error() {
            return Err(self.explain_code(error.into()));
        }
        if found.partitions().is_empty() {
            return Err(self.no_topic());
        }
        Ok(found.partitions().iter().filter_map(|partition| u32::try_from(partition.id()).ok()).collect())
    }

    /// The first offset of a partition and the one after its last record.
    pub fn range(&self, partition: u32) -> Result<(u64, u64), KafkaError> {
        let (low, high) = self
            .consumer
            .fetch_watermarks(&self.options.topic, partition as i32, ANSWER)
            .map_err(|error| self.explain(&error))?;
        Ok((u64::try_from(low).unwrap_or(0), u64::try_from(high).unwrap_or(0)))
    }

    /// Where each of these partitions ends now.
    pub fn ends(&self, partitions: &[u32]) -> Result<BTreeMap<u32, u64>, KafkaError> {
        partitions.iter().map(|partition| Ok((*partition, self.range(*partition)?.1))).collect()
    }

    /// Where reading begins, by the options.
    pub fn start(&self) -> Result<BTreeMap<u32, u64>, KafkaError> {
        let places = self.places(&self.options.start)?.into_iter();
        Ok(places.map(|(partition, place)| (partition, place.chosen.unwrap_or(place.low))).collect())
    }

    /// All partitions, and where in each a choice leads.
    pub fn places(&self, choice: &Start) -> Result<BTreeMap<u32, Place>, KafkaError> {
        let partitions = self.partitions()?;
        let ranges: BTreeMap<u32, (u64, u64)> = partitions
            .iter()
            .map(|partition| Ok((*partition, self.range(*partition)?)))
            .collect::<Result<_, KafkaError>>()?;
        let chosen: BTreeMap<u32, u64> = match choice {
            Start::Earliest => ranges.iter().map(|(partition, (low, _))| (*partition, *low)).collect(),
            Start::Latest => ranges.iter().map(|(partition, (_, high))| (*partition, *high)).collect(),
            Start::Timestamp(millis) => self.at(*millis, &ranges)?,
            Start::Offsets(offsets) => {
                for (partition, offset) in offsets {
                    let (low, high) = ranges.get(partition).copied().ok_or_else(|| {
                        let message = format!("topic \"{}\" has no partition {partition}", self.options.topic);
                        KafkaError::new(Kind::Options, message).hint(format!("it has {}", partitions.len()))
                    })?;
                    if !(low..=high).contains(offset) {
                        let message =
                            format!("partition {partition} of topic \"{}\" has no offset {offset}", self.options.topic);
                        return Err(KafkaError::new(Kind::Options, message)
                            .hint(format!("its records have offsets from {low}, the next is {high}")));
                    }
                }
                offsets.clone()
            }
        };
        let place = |(partition, (low, high)): (u32, (u64, u64))| {
            (partition, Place { low, high, chosen: chosen.get(&partition).copied() })
        };
        Ok(ranges.into_iter().map(place).collect())
    }

    /// The first record of that time or later in each partition; its end where there is none.
    fn at(&self, millis: i64, ranges: &BTreeMap<u32, (u64, u64)>) -> Result<BTreeMap<u32, u64>, KafkaError> {
        let mut asked = TopicPartitionList::new();
        for partition in ranges.keys() {
            asked
                .add_partition_offset(&self.options.topic, *partition as i32, Offset::Offset(millis))
                .map_err(|error| self.explain(&error))?;
        }
        let found = self.consumer.offsets_for_times(asked, ANSWER).map_err(|error| self.explain(&error))?;
        let mut from: BTreeMap<u32, u64> = ranges.iter().map(|(partition, (_, high))| (*partition, *high)).collect();
        for element in found.elements() {
            element.error().map_err(|error| self.explain(&error))?;
            if let (Offset::Offset(offset), Ok(partition)) = (element.offset(), u32::try_from(element.partition())) {
                from.insert(partition, u64::try_from(offset).unwrap_or(0));
            }
        }
        Ok(from)
    }

    /// Reads these partitions from there on, and no others.
    pub(super) fn assign(&self, next: &BTreeMap<u32, u64>) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in next {
            let offset = Offset::Offset(i64::try_from(*offset).unwrap_or(i64::MAX));
            list.add_partition_offset(&self.options.topic, *partition as i32, offset)
                .map_err(|error| self.explain(&error))?;
        }
        self.consumer.assign(&list).map_err(|error| self.explain(&error))
    }

    /// Hears what librdkafka has said, and gives the last of what was a complaint.
    fn complaint(&self) -> Option<String> {
        self.log.each(|level, text| {
            tracing::debug!(target: "librdkafka", topic = self.options.topic, level, text);
            self.complaints.hear(level, text);
        });
        self.complaints.last()
    }

    /// All is well again. To be called now and then: what librdkafka says waits until it is heard.
    pub(super) fn forget_complaints(&self) {
        self.complaint();
        self.complaints.forget();
    }

    fn no_topic(&self) -> KafkaError {
        explain::no_topic(&self.options)
    }

    pub(super) fn explain(&self, error: &ClientError) -> KafkaError {
        explain::call(&self.options, self.complaint(), Doing::Reading, error)
    }

    pub(super) fn explain_code(&self, code: RDKafkaErrorCode) -> KafkaError {
        explain::code(&self.options, self.complaint(), Doing::Reading, code)
    }
}
