//! The bare parts beside which the benchmarks over Kafka and Redis are read, and the hands that feed and watch both
//! sides.
//! All begin with `VERB BROKER TOPIC PARTITIONS`:
//!
//! - `topic` makes a topic.
//! - `fill … FROM EVENTS KEYS FIRST_KEY STEP_MS` sends the events of benches/stream.py as JSON, as fast as it can.
//! - `load … EVENTS REDIS`: the anchor. Batches out of librdkafka, `serde_json` to a struct, four fields by HSET in
//!   pipelines, two threads; no windows, no history. Prints events, sum of keys, sum of prices, seconds.
//! - `set … REDIS`: the same loop with SET, until it is ended.
//! - `probe … RATE SECONDS KEYS READER` sends at that rate, in between single events of keys of their own, and asks for
//!   these until they are seen. READER is `sql:PORT` or `redis:URL`. Prints how many events and probes, then each
//!   probe's microseconds.
//!
//! benches/bare.py starts it.
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock and starts threads")]
#![allow(unsafe_code, reason = "rd_kafka_consume_batch_queue has no safe binding")]

use anyhow::{Context, Result, bail, ensure};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    bindings as sys,
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::RDKafkaErrorCode,
    producer::{BaseProducer, BaseRecord, Producer},
};
use serde::Deserialize;
use std::{
    collections::VecDeque,
    env,
    fmt::Write,
    ptr, slice,
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

const PATIENCE: Duration = Duration::from_secs(60);
/// Messages of a batch, and commands of a pipeline.
const BATCH: usize = 256;
const THREADS: i32 = 2;
/// Milliseconds since 1970 of event 0, as in benches/stream.py.
const EPOCH_MS: i64 = 1_767_225_600_000;
/// Keys of probes; no event of `fill` has one.
const FIRST_PROBE: i64 = 1 << 40;
const PROBE_EVERY: Duration = Duration::from_millis(20);
/// Between two questions; the readings are no finer.
const ASK_EVERY: Duration = Duration::from_micros(200);

/// What the bare loop wants of a message.
#[derive(Deserialize)]
struct Event {
    user_id: i64,
    price: f64,
}

#[derive(Clone, Copy)]
struct Topic<'a> {
    broker: &'a str,
    name: &'a str,
    partitions: i32,
}

fn main() -> Result<()> {
    // `cargo bench` adds `--bench`.
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let [verb, broker, name, partitions, more @ ..] = &arguments[..] else { bail!("usage: see the top of bare.rs") };
    let topic = Topic { broker, name, partitions: partitions.parse()? };
    match (*verb, more) {
        ("topic", []) => create(topic),
        ("fill", [from, events, keys, first_key, step_ms]) => {
            fill(topic, from.parse()?, events.parse()?, keys.parse()?, first_key.parse()?, step_ms.parse()?)
        }
        ("load", [events, redis]) => load(topic, events.parse()?, redis),
        ("set", [redis]) => set(topic, redis),
        ("probe", [rate, seconds, keys, reader]) => {
            probe(topic, rate.parse()?, seconds.parse()?, keys.parse()?, reader)
        }
        _ => bail!("usage: see the top of bare.rs"),
    }
}

fn create(topic: Topic<'_>) -> Result<()> {
    let mut config = ClientConfig::new();
    let admin: AdminClient<DefaultClientContext> = config.set("bootstrap.servers", topic.broker).create()?;
    let new = NewTopic::new(topic.name, topic.partitions, TopicReplication::Fixed(1));
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
    for created in futures::executor::block_on(admin.create_topics([&new], &options))? {
        created.map_err(|(name, code)| anyhow::anyhow!("topic {name}: {code}"))?;
    }
    Ok(())
}

// ---- sending ----

struct Sender<'a> {
    producer: BaseProducer,
    topic: Topic<'a>,
    text: String,
}

impl<'a> Sender<'a> {
    fn new(topic: Topic<'a>, linger_ms: &str) -> Result<Sender<'a>> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", topic.broker).set("linger.ms", linger_ms);
        config.set("queue.buffering.max.messages", "200000").set("batch.size", "262144");
        Ok(Sender { producer: config.create()?, topic, text: String::new() })
    }

    /// Some 150 bytes; a key's events are in one partition.
    fn send(&mut self, key: i64, price: f64, event_time_ms: i64, i: u64) -> Result<()> {
        self.text.clear();
        let session = i.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let page = i % 1000;
        write!(
            self.text,
            "{{\"user_id\":{key},\"event\":\"view\",\"price\":{price},\"event_time\":{event_time_ms},\
             \"session\":\"{session:016x}\",\"page\":\"/catalog/shoes/{page}\",\"score\":0.25,\"retries\":3}}"
        )?;
        let partition = (key % i64::from(self.topic.partitions)) as i32;
        let mut record =
            BaseRecord::<[u8], [u8]>::to(self.topic.name).partition(partition).payload(self.text.as_bytes());
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((error, back)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) => {
                    self.producer.poll(Duration::from_millis(1));
                    record = back;
                }
                Err((error, _)) => return Err(error).context("a message cannot be sent"),
            }
        }
    }

    /// Event `i` of benches/stream.py.
    fn send_event(&mut self, i: u64, keys: u64, first_key: i64, event_time_ms: i64) -> Result<()> {
        let key = first_key + (i * 1_103_515_245 % 2_147_483_648 / 8 % keys) as i64;
        self.send(key, (i * 40_503 % 4096) as f64 / 16.0, event_time_ms, i)
    }

    fn finish(&self) -> Result<()> {
        self.producer.flush(PATIENCE).context("the broker does not take all that was sent")
    }
}

fn fill(topic: Topic<'_>, from: u64, events: u64, keys: u64, first_key: i64, step_ms: i64) -> Result<()> {
    let mut sender = Sender::new(topic, "5")?;
    let begun = Instant::now();
    for i in from..from + events {
        sender.send_event(i, keys, first_key, EPOCH_MS + i as i64 * step_ms)?;
        if i % 1024 == 0 {
            sender.producer.poll(Duration::ZERO);
        }
    }
    sender.finish()?;
    println!("{events} {}", begun.elapsed().as_secs_f64());
    Ok(())
}

// ---- the bare loop ----

/// A consumer of some partitions with its queue, from which messages come by the batch.
struct Batches {
    queue: *mut sys::rd_kafka_queue_t,
    slots: Vec<*mut sys::rd_kafka_message_t>,
    /// The queue is the consumer's: it goes first.
    _consumer: BaseConsumer,
}

impl Batches {
    /// Of the partitions whose number modulo the threads is `thread`. The options are those of Tidemark's own consumer.
    fn of(topic: Topic<'_>, thread: i32) -> Result<Batches> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", topic.broker).set("group.id", "bare");
        config.set("enable.auto.commit", "false").set("enable.auto.offset.store", "false");
        config.set("queued.max.messages.kbytes", "16384").set("fetch.max.bytes", "16777216");
        config.set("fetch.queue.backoff.ms", "5");
        let consumer: BaseConsumer = config.create()?;
        let mut assigned = TopicPartitionList::new();
        for partition in (0..topic.partitions).filter(|partition| partition % THREADS == thread) {
            assigned.add_partition_offset(topic.name, partition, Offset::Beginning)?;
        }
        consumer.assign(&assigned)?;
        // SAFETY: the client lives as long as the consumer, which is kept beside the queue.
        let queue = unsafe { sys::rd_kafka_queue_get_consumer(consumer.client().native_ptr()) };
        ensure!(!queue.is_null(), "librdkafka gives no queue");
        Ok(Batches { queue, slots: vec![ptr::null_mut(); BATCH], _consumer: consumer })
    }

    /// Waits a little for the first; returns how many there were.
    fn each(&mut self, mut look: impl FnMut(Event)) -> Result<u64> {
        // SAFETY: the array has as many slots as are told; what the function fills in is ours until destroyed.
        let filled =
            unsafe { sys::rd_kafka_consume_batch_queue(self.queue, 10, self.slots.as_mut_ptr(), self.slots.len()) };
        let filled = usize::try_from(filled).context("librdkafka gives no messages")?;
        for slot in &mut self.slots[..filled] {
            let message = std::mem::replace(slot, ptr::null_mut());
            // SAFETY: filled in, not yet destroyed; pointer and length belong together.
            let (event, code) = unsafe {
                let raw = &*message;
                let code = RDKafkaErrorCode::from(raw.err);
                let event = (code == RDKafkaErrorCode::NoError && !raw.payload.is_null())
                    .then(|| serde_json::from_slice::<Event>(slice::from_raw_parts(raw.payload.cast::<u8>(), raw.len)));
                (event, code)
            };
            // SAFETY: ours, and destroyed once; the event has borrowed nothing from it.
            unsafe { sys::rd_kafka_message_destroy(message) };
            look(event.with_context(|| format!("no message but {code}"))??);
        }
        Ok(filled as u64)
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        // SAFETY: from `rd_kafka_queue_get_consumer`, destroyed once.
        unsafe { sys::rd_kafka_queue_destroy(self.queue) };
    }
}

/// How many events a thread has taken, the sum of their keys, and of their prices.
type Taken = (u64, i64, f64);

/// Until all threads together have taken `events`.
fn consume(topic: Topic<'_>, thread: i32, redis: &str, events: u64, done: &AtomicU64) -> Result<Taken> {
    let mut connection = redis::Client::open(redis)?.get_connection()?;
    let mut batches = Batches::of(topic, thread)?;
    let mut pipeline = redis::pipe();
    let (mut keys, mut prices, mut taken) = (0i64, 0.0, 0);
    while done.load(Ordering::Relaxed) < events {
        pipeline.clear();
        let filled = batches.each(|event| {
            keys += event.user_id;
            prices += event.price;
            pipeline.cmd("HSET").arg(format!("bare:{}", event.user_id)).arg("n").arg(1).arg("total").arg(event.price);
            pipeline.arg("total_long").arg(event.price).arg("most_long").arg(event.price).ignore();
        })?;
        if filled > 0 {
            pipeline.exec(&mut connection)?;
            taken += filled;
            done.fetch_add(filled, Ordering::Relaxed);
        }
    }
    Ok((taken, keys, prices))
}

fn load(topic: Topic<'_>, events: u64, redis: &str) -> Result<()> {
    let done = AtomicU64::new(0);
    let done = &done;
    let begun = Instant::now();
    let total = thread::scope(|scope| {
        let mut threads = Vec::new();
        for number in 0..THREADS {
            threads.push(scope.spawn(move || consume(topic, number, redis, events, done)));
        }
        let mut total: Taken = (0, 0, 0.0);
        for thread in threads {
            let (taken, keys, prices) = thread.join().map_err(|_| anyhow::anyhow!("a thread has panicked"))??;
            total = (total.0 + taken, total.1 + keys, total.2 + prices);
        }
        Ok::<Taken, anyhow::Error>(total)
    })?;
    println!("{} {} {} {}", total.0, total.1, total.2, begun.elapsed().as_secs_f64());
    Ok(())
}

fn set_on(topic: Topic<'_>, number: i32, redis: &str) -> Result<()> {
    let mut connection = redis::Client::open(redis)?.get_connection()?;
    let mut batches = Batches::of(topic, number)?;
    let mut pipeline = redis::pipe();
    loop {
        pipeline.clear();
        let filled = batches.each(|event| {
            pipeline.cmd("SET").arg(format!("bare:{}", event.user_id)).arg(event.price).ignore();
        })?;
        if filled > 0 {
            pipeline.exec(&mut connection)?;
        }
    }
}

fn set(topic: Topic<'_>, redis: &str) -> Result<()> {
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for number in 0..THREADS {
            threads.push(scope.spawn(move || set_on(topic, number, redis)));
        }
        for thread in threads {
            thread.join().map_err(|_| anyhow::anyhow!("a thread has panicked"))??;
        }
        Ok(())
    })
}

// ---- from produced to readable ----

/// A probe that nobody has seen yet.
struct Probe {
    key: i64,
    price: f64,
    sent: Instant,
}

/// Sends `rate` events a second for so long, and a probe every now and then; returns how many events went out.
fn pace(topic: Topic<'_>, rate: f64, length: Duration, keys: u64, probes: &mpsc::Sender<Probe>) -> Result<u64> {
    let mut crowd = Sender::new(topic, "1")?;
    let mut single = Sender::new(topic, "0")?;
    let begun = Instant::now();
    let (mut sent, mut probed) = (0u64, 0u32);
    while begun.elapsed() < length {
        let due = (begun.elapsed().as_secs_f64() * rate) as u64;
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as i64;
        // Not for longer than a probe may wait.
        let upto = due.min(sent + 2048);
        while sent < upto {
            crowd.send_event(sent, keys, 0, now_ms)?;
            sent += 1;
        }
        crowd.producer.poll(Duration::ZERO);
        if begun.elapsed() >= PROBE_EVERY * probed {
            let (key, price) = (FIRST_PROBE + i64::from(probed), f64::from(probed + 1));
            probes.send(Probe { key, price, sent: Instant::now() })?;
            single.send(key, price, now_ms, 0)?;
            probed += 1;
        }
        single.producer.poll(Duration::ZERO);
        if sent >= due {
            thread::sleep(Duration::from_micros(500));
        }
    }
    crowd.finish()?;
    single.finish()?;
    Ok(sent)
}

/// Asks for the probes that are under way, the oldest first, until the last has been seen. Microseconds of each.
fn watch(probes: &mpsc::Receiver<Probe>, mut read: impl FnMut(&Probe) -> Result<Option<f64>>) -> Result<Vec<u128>> {
    let mut under_way: VecDeque<Probe> = VecDeque::new();
    let mut seen = Vec::new();
    loop {
        if under_way.is_empty() {
            // The sender has gone: there is no more.
            let Ok(probe) = probes.recv() else { return Ok(seen) };
            under_way.push_back(probe);
        }
        under_way.extend(probes.try_iter());
        let mut unseen = VecDeque::new();
        for probe in under_way {
            if read(&probe)? == Some(probe.price) {
                seen.push(probe.sent.elapsed().as_micros());
            } else {
                ensure!(probe.sent.elapsed() < PATIENCE, "probe {} is not to be seen", probe.key);
                unseen.push_back(probe);
            }
        }
        under_way = unseen;
        thread::sleep(ASK_EVERY);
    }
}

fn watch_redis(probes: &mpsc::Receiver<Probe>, url: &str) -> Result<Vec<u128>> {
    let mut connection = redis::Client::open(url)?.get_connection()?;
    watch(probes, |probe| {
        Ok(redis::cmd("GET").arg(format!("bare:{}", probe.key)).query::<Option<f64>>(&mut connection)?)
    })
}

fn watch_sql(probes: &mpsc::Receiver<Probe>, port: &str) -> Result<Vec<u128>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let config = format!("host=127.0.0.1 port={port} user=tidemark dbname=tidemark");
    let (client, connection) = runtime.block_on(tokio_postgres::connect(&config, tokio_postgres::NoTls))?;
    let _driver = runtime.spawn(connection);
    let query = runtime.block_on(client.prepare("SELECT most_long FROM recent WHERE user_id = $1"))?;
    watch(probes, |probe| {
        let row = runtime.block_on(client.query_opt(&query, &[&probe.key]))?;
        // The key has one event. A row without a value: it has come and left its window, so it is late, but seen.
        Ok(row.map(|row| row.get::<_, Option<f64>>(0).unwrap_or(probe.price)))
    })
}

fn probe(topic: Topic<'_>, rate: f64, seconds: u64, keys: u64, reader: &str) -> Result<()> {
    let (sender, receiver) = mpsc::channel();
    let (sent, seen) = thread::scope(|scope| {
        let pacer = scope.spawn(move || pace(topic, rate, Duration::from_secs(seconds), keys, &sender));
        let seen = match reader.split_once(':') {
            Some(("sql", port)) => watch_sql(&receiver, port),
            Some(("redis", url)) => watch_redis(&receiver, url),
            _ => bail!("a reader is sql:PORT or redis:URL"),
        };
        let sent = pacer.join().map_err(|_| anyhow::anyhow!("the sender has panicked"))??;
        Ok::<_, anyhow::Error>((sent, seen?))
    })?;
    println!("{sent} {}", seen.len());
    for microseconds in seen {
        println!("{microseconds}");
    }
    Ok(())
}
