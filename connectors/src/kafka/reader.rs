//! A topic's partitions, read from given offsets on, a batch at a time.

use super::{
    Batch, Broker, Decoder, KafkaError, Kind, Options,
    queue::{Delivery, Queue},
};
use arrow::datatypes::SchemaRef;
use rdkafka::error::RDKafkaErrorCode;
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::Notify;

/// A batch ends with this many messages or bytes: what the log writes and the views apply at once. Only who is behind meets them: then the more
/// come together, the fewer times a key is gone to (decision 0034).
const BATCH_MESSAGES: usize = 32_768;
const BATCH_BYTES: usize = 16 << 20;

pub struct Reader {
    queue: Queue,
    broker: Broker,
    decoder: Decoder,
    /// Told by librdkafka when something comes after there was nothing.
    ready: Arc<Notify>,
    /// There may be more without being told.
    is_full: bool,
}

/// What has come, in this order.
#[derive(Debug, Default)]
pub struct Came {
    pub batch: Option<Batch>,
    /// Partitions that have been read to their end, and where that is. Behind the last record there may be marks of
    /// transactions, which are no records.
    pub ends: BTreeMap<u32, u64>,
    /// What librdkafka said instead of records: partition, code, text.
    pub errors: Vec<(Option<u32>, RDKafkaErrorCode, String)>,
}

impl Reader {
    /// # Errors
    /// The options say something that cannot be. Nobody has been asked yet.
    pub fn new(options: Arc<Options>, schema: SchemaRef) -> Result<Reader, KafkaError> {
        let ready = Arc::new(Notify::new());
        let told = ready.clone();
        let decoder = Decoder::new(&options, schema)?;
        let broker = Broker::telling(options, move || told.notify_one())?;
        let queue = Queue::of(&broker.consumer);
        let queue = queue.ok_or_else(|| KafkaError::new(Kind::Other, "librdkafka gives no queue of its consumer"))?;
        Ok(Reader { queue, broker, decoder, ready, is_full: true })
    }

    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Reads these partitions from these offsets on, and no others.
    pub fn assign(&mut self, next: &BTreeMap<u32, u64>) -> Result<(), KafkaError> {
        self.is_full = true;
        self.broker.assign(next)
    }

    /// Waits until something has come and takes it. Dropped while it waits, it has taken nothing.
    ///
    /// # Errors
    /// Rows that were decoded make no batch: a mistake of the program.
    pub async fn next(&mut self, now_us: impl Fn() -> i64) -> Result<Came, KafkaError> {
        loop {
            if !self.is_full {
                self.ready.notified().await;
            }
            let mut came = Came::default();
            let now_us = now_us();
            self.is_full = false;
            while !self.is_full {
                let decoder = &mut self.decoder;
                let taken = self.queue.each(|delivery| match delivery {
                    Delivery::Message(message) => decoder.push(&message, now_us),
                    Delivery::End { partition, offset } => {
                        came.ends.insert(partition, offset);
                    }
                    Delivery::Error { partition, code, text } => came.errors.push((partition, code, text)),
                });
                if taken == 0 {
                    break;
                }
                self.is_full = decoder.messages() >= BATCH_MESSAGES || decoder.bytes() >= BATCH_BYTES;
            }
            if self.decoder.messages() > 0 {
                came.batch = Some(self.decoder.finish()?);
            }
            if came.batch.is_some() || !came.ends.is_empty() || !came.errors.is_empty() {
                return Ok(came);
            }
        }
    }
}
