//! A real Kafka broker for one test run: started in a fresh folder, killed when dropped. Test binaries include this file by
//! its path, as one cannot import another.

use anyhow::{Context, Result, ensure};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer},
};
use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// How long a broker may take for anything, on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Broker {
    folder: TempDir,
    port: u16,
    is_secure: bool,
}

/// One message; `None` as a payload is a tombstone.
#[derive(Debug, Clone, Default)]
pub struct Sent {
    pub partition: i32,
    pub key: Option<Vec<u8>>,
    pub payload: Option<Vec<u8>>,
    pub timestamp_ms: Option<i64>,
    pub header: Option<(&'static str, Vec<u8>)>,
}

impl Sent {
    pub fn to(partition: i32, payload: impl Into<Vec<u8>>) -> Sent {
        Sent { partition, payload: Some(payload.into()), ..Sent::default() }
    }
}

fn script() -> PathBuf {
    // The same from a crate's folder and from the root.
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let here = root.join("tests/services/kafka.sh");
    if here.exists() { here } else { root.join("../tests/services/kafka.sh") }
}

#[allow(dead_code)] // each test binary uses its part
impl Broker {
    /// `None`: there is no Kafka on this machine.
    pub fn start() -> Result<Option<Broker>> {
        Self::start_with(false)
    }

    /// One that listens with TLS and SASL too.
    pub fn start_secure() -> Result<Option<Broker>> {
        Self::start_with(true)
    }

    fn start_with(is_secure: bool) -> Result<Option<Broker>> {
        let jars = script().with_file_name(".kafka");
        if std::env::var_os("KAFKA_JARS").is_none() && !jars.exists() {
            return Ok(None);
        }
        let fresh = || -> Result<Broker> {
            let folder = tempfile::Builder::new().prefix("tidemark-kafka-").tempdir()?;
            Ok(Broker { folder, port: three_free_ports()?, is_secure })
        };
        let broker = fresh()?;
        if broker.again().is_ok() {
            return Ok(Some(broker));
        }
        // Another process may have taken a free port before the broker did.
        let broker = fresh()?;
        broker.again()?;
        Ok(Some(broker))
    }

    fn run(&self, verb: &str, more: &[&str]) -> Result<()> {
        let status = Command::new(script()).arg(verb).arg(self.folder.path()).args(more).status()?;
        ensure!(status.success(), "kafka.sh {verb} ended with {status}");
        Ok(())
    }

    pub fn kill(&self) -> Result<()> {
        self.run("kill", &[])
    }

    /// With the data it had.
    pub fn again(&self) -> Result<()> {
        let port = self.port.to_string();
        let mut start = vec![port.as_str()];
        if self.is_secure {
            start.push("secure");
        }
        self.run("start", &start)
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Where it listens with TLS and SASL; see `kafka.sh`.
    pub fn secure_address(&self) -> String {
        format!("127.0.0.1:{}", self.port + 2)
    }

    /// A file that the script has made.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.address()).set("message.timeout.ms", PATIENCE.as_millis().to_string());
        config
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>> {
        let mut config = ClientConfig::new();
        Ok(config.set("bootstrap.servers", self.address()).create()?)
    }

    pub async fn create_topic(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) -> Result<()> {
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        let topic = settings.iter().fold(topic, |topic, (name, value)| topic.set(name, value));
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        for created in self.admin()?.create_topics([&topic], &options).await? {
            created.map_err(|(name, code)| anyhow::anyhow!("topic {name}: {code}"))?;
        }
        // The controller has made it; the broker that is asked for it hears of that a little later.
        let (admin, started) = (self.admin()?, Instant::now());
        let has_leaders = || {
            let known = admin.inner().fetch_metadata(Some(name), PATIENCE).ok()?;
            let topic = known.topics().iter().find(|topic| topic.name() == name && topic.error().is_none())?;
            let led = topic.partitions().iter().filter(|partition| partition.leader() >= 0).count();
            (led == partitions as usize).then_some(())
        };
        while has_leaders().is_none() {
            anyhow::ensure!(started.elapsed() < PATIENCE, "topic {name} has no leaders");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    pub async fn add_partitions(&self, name: &str, all: usize) -> Result<()> {
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        for created in self.admin()?.create_partitions([&NewPartitions::new(name, all)], &options).await? {
            created.map_err(|(name, code)| anyhow::anyhow!("topic {name}: {code}"))?;
        }
        Ok(())
    }

    pub async fn delete_topic(&self, name: &str) -> Result<()> {
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        for deleted in self.admin()?.delete_topics(&[name], &options).await? {
            deleted.map_err(|(name, code)| anyhow::anyhow!("topic {name}: {code}"))?;
        }
        Ok(())
    }

    /// Sends the messages in this order and returns when the broker has them.
    pub fn send(&self, topic: &str, messages: impl IntoIterator<Item = Sent>) -> Result<()> {
        // In this order, and each once, also where a broker has just come back.
        let mut config = self.config();
        let producer: BaseProducer = config.set("linger.ms", "1").set("enable.idempotence", "true").create()?;
        for message in messages {
            produce(&producer, topic, &message)?;
        }
        producer.flush(PATIENCE)?;
        Ok(())
    }

    /// The same in one transaction, which is committed or not.
    pub fn send_in_transaction(&self, topic: &str, messages: &[Sent], commit: bool) -> Result<()> {
        let producer: BaseProducer = self.config().set("transactional.id", topic).create()?;
        producer.init_transactions(PATIENCE)?;
        producer.begin_transaction()?;
        for message in messages {
            produce(&producer, topic, message)?;
        }
        producer.flush(PATIENCE)?;
        match commit {
            true => producer.commit_transaction(PATIENCE)?,
            false => producer.abort_transaction(PATIENCE)?,
        }
        Ok(())
    }
}

fn produce(producer: &BaseProducer, topic: &str, message: &Sent) -> Result<()> {
    let mut record = BaseRecord::<[u8], [u8]>::to(topic).partition(message.partition);
    if let Some(key) = &message.key {
        record = record.key(key);
    }
    if let Some(payload) = &message.payload {
        record = record.payload(payload);
    }
    if let Some(timestamp_ms) = message.timestamp_ms {
        record = record.timestamp(timestamp_ms);
    }
    if let Some((key, value)) = &message.header {
        record = record.headers(OwnedHeaders::new().insert(Header { key, value: Some(value) }));
    }
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            // Its queue is full: what is in it goes first.
            Err((error, back)) if error.rdkafka_error_code() == Some(rdkafka::error::RDKafkaErrorCode::QueueFull) => {
                producer.poll(Duration::from_millis(10));
                record = back;
            }
            Err((error, _)) => return Err(error).context("a message cannot be sent"),
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.run("destroy", &[]);
    }
}

/// A port whose neighbours are free too: the controller's, and the one with TLS.
fn three_free_ports() -> Result<u16> {
    loop {
        let port = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let is_free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
        if port < u16::MAX - 1 && is_free(port + 1) && is_free(port + 2) {
            return Ok(port);
        }
    }
}
