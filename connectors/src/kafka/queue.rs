//! Messages out of librdkafka by the batch. Its Rust crate hands them out one by one, at twice the CPU a message (measured:
//! about 300 ns against 420 to 600), so this calls the C function that fills an array. The only unsafe code of the program.
#![allow(unsafe_code, reason = "rd_kafka_consume_batch_queue has no safe binding")]

use super::client::{Held, Quiet};
use rdkafka::{
    bindings as sys,
    consumer::{BaseConsumer, Consumer},
    error::RDKafkaErrorCode,
};
use std::{ffi::CStr, ptr, slice, sync::Arc};

/// Messages asked for in one call: enough to amortise it, little enough that a batch ends near the bytes it may have.
const SLOTS: usize = 256;

/// The queue into which a consumer's partitions deliver.
pub(super) struct Queue {
    queue: *mut sys::rd_kafka_queue_t,
    slots: Vec<*mut sys::rd_kafka_message_t>,
    /// The queue is the consumer's: it goes first.
    _consumer: Arc<Held<BaseConsumer<Quiet>>>,
}

// SAFETY: librdkafka's queues may be used from any thread; the slots are empty between calls.
unsafe impl Send for Queue {}

/// What comes out of the queue; borrowed for as long as it is looked at.
pub(super) enum Delivery<'a> {
    Message(Message<'a>),
    /// Everything of this partition has been delivered up to this offset.
    End {
        partition: u32,
        offset: u64,
    },
    Error {
        partition: Option<u32>,
        code: RDKafkaErrorCode,
        text: String,
    },
}

pub(super) struct Message<'a> {
    pub partition: u32,
    pub offset: u64,
    pub key: Option<&'a [u8]>,
    pub payload: Option<&'a [u8]>,
    /// Milliseconds since 1970, where the message has a time.
    pub timestamp_ms: Option<i64>,
    /// The time is that of the append, by the broker.
    pub is_append_time: bool,
    raw: &'a sys::rd_kafka_message_t,
}

impl Queue {
    pub fn of(consumer: &Arc<Held<BaseConsumer<Quiet>>>) -> Option<Queue> {
        // SAFETY: the client lives as long as the consumer, of which this keeps one reference.
        let queue = unsafe { sys::rd_kafka_queue_get_consumer(consumer.client().native_ptr()) };
        let slots = vec![ptr::null_mut(); SLOTS];
        (!queue.is_null()).then(|| Queue { queue, slots, _consumer: consumer.clone() })
    }

    /// Takes what has been delivered, at most [`SLOTS`], without waiting; returns how many that were.
    pub fn each(&mut self, mut look: impl FnMut(Delivery<'_>)) -> usize {
        // SAFETY: the array has as many slots as are told; what the function fills in is ours until destroyed.
        let filled =
            unsafe { sys::rd_kafka_consume_batch_queue(self.queue, 0, self.slots.as_mut_ptr(), self.slots.len()) };
        let filled = usize::try_from(filled).unwrap_or(0);
        for slot in &mut self.slots[..filled] {
            let owned = Owned(std::mem::replace(slot, ptr::null_mut()));
            // SAFETY: not null, for it was filled in, and alive until `owned` is dropped.
            look(delivery(unsafe { &*owned.0 }));
        }
        filled
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: from `rd_kafka_queue_get_consumer`, destroyed once.
        unsafe { sys::rd_kafka_queue_destroy(self.queue) };
    }
}

/// What librdkafka has to say. Without a queue of its own it would go to the standard error, past the log: whoever polls
/// messages by the batch has no part in events.
pub(super) struct Log {
    queue: *mut sys::rd_kafka_queue_t,
    _consumer: Arc<Held<BaseConsumer<Quiet>>>,
}

// SAFETY: librdkafka's queues may be used from any thread.
unsafe impl Send for Log {}
// SAFETY: and from several at once.
unsafe impl Sync for Log {}

impl Log {
    pub fn of(consumer: &Arc<Held<BaseConsumer<Quiet>>>) -> Option<Log> {
        let client = consumer.client().native_ptr();
        // SAFETY: the client lives as long as the consumer, of which this keeps one reference.
        let queue = unsafe { sys::rd_kafka_queue_new(client) };
        if queue.is_null() {
            return None;
        }
        let log = Log { queue, _consumer: consumer.clone() };
        // SAFETY: both are alive; librdkafka keeps a reference of its own to the queue.
        let set = unsafe { sys::rd_kafka_set_log_queue(client, queue) };
        (set == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR).then_some(log)
    }

    /// Takes what has been said: the level as in syslog (4: a warning, less is worse), and the text.
    pub fn each(&self, mut look: impl FnMut(i32, &str)) {
        loop {
            // SAFETY: the queue is alive; without waiting.
            let event = unsafe { sys::rd_kafka_queue_poll(self.queue, 0) };
            if event.is_null() {
                return;
            }
            let (mut facility, mut text, mut level) = (ptr::null(), ptr::null(), 0);
            // SAFETY: the event is ours until it is destroyed, and its texts live as long as it does.
            unsafe {
                if sys::rd_kafka_event_log(event, &mut facility, &mut text, &mut level) == 0 && !text.is_null() {
                    look(level, &CStr::from_ptr(text).to_string_lossy());
                }
                sys::rd_kafka_event_destroy(event);
            }
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        // SAFETY: from `rd_kafka_queue_new`, destroyed once.
        unsafe { sys::rd_kafka_queue_destroy(self.queue) };
    }
}

/// A message that is destroyed when it is dropped, also where a look at it panics.
struct Owned(*mut sys::rd_kafka_message_t);

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: ours, and destroyed once.
        unsafe { sys::rd_kafka_message_destroy(self.0) };
    }
}

fn delivery(raw: &sys::rd_kafka_message_t) -> Delivery<'_> {
    let partition = u32::try_from(raw.partition).ok();
    let offset = u64::try_from(raw.offset).unwrap_or(0);
    let code = RDKafkaErrorCode::from(raw.err);
    match (code, partition) {
        (RDKafkaErrorCode::NoError, Some(partition)) => {
            let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
            // SAFETY: `raw` is a live message.
            let timestamp = unsafe { sys::rd_kafka_message_timestamp(raw, &mut kind) };
            Delivery::Message(Message {
                partition,
                offset,
                key: bytes(raw, raw.key, raw.key_len),
                payload: bytes(raw, raw.payload, raw.len),
                timestamp_ms: (timestamp >= 0).then_some(timestamp),
                is_append_time: kind == sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME,
                raw,
            })
        }
        (RDKafkaErrorCode::PartitionEOF, Some(partition)) => Delivery::End { partition, offset },
        (code, partition) => {
            // SAFETY: the text of an error is its payload, and the function returns a C string in any case.
            let text = unsafe { CStr::from_ptr(sys::rd_kafka_message_errstr(raw)) };
            Delivery::Error { partition, code, text: text.to_string_lossy().into_owned() }
        }
    }
}

/// Key or payload; `None` is Kafka's null.
fn bytes(_alive: &sys::rd_kafka_message_t, at: *mut std::ffi::c_void, length: usize) -> Option<&[u8]> {
    // SAFETY: librdkafka's pointer and length belong together, and live as long as the message does.
    (!at.is_null()).then(|| unsafe { slice::from_raw_parts(at.cast::<u8>(), length) })
}

impl Message<'_> {
    /// The last header of that name; `None`: there is none, or it is null.
    pub fn header(&self, name: &CStr) -> Option<&[u8]> {
        let mut headers = ptr::null_mut();
        let (mut value, mut length) = (ptr::null(), 0);
        // SAFETY: the headers stay the message's; the value lives as long as they do.
        unsafe {
            use sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR as FOUND;
            if sys::rd_kafka_message_headers(self.raw, &mut headers) != FOUND
                || sys::rd_kafka_header_get_last(headers, name.as_ptr(), &mut value, &mut length) != FOUND
                || value.is_null()
            {
                return None;
            }
            Some(slice::from_raw_parts(value.cast::<u8>(), length))
        }
    }
}
