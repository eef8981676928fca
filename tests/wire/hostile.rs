//! Bytes that no client should send, at a whole server, beside a client that behaves: a corpus of broken conversations with
//! what is answered to each, and random ones. Nobody panics, nobody hangs, every answer is whole messages, and the
//! neighbour goes on.
//!
//! `TIDEMARK_TEST_WIRE_SEED` (default 1) and `TIDEMARK_TEST_WIRE` (default 2,000) say which are made up; one seed is one
//! conversation. One that ever failed is written to `tests/wire/corpus/`, from where every later run sends it first. The
//! protocol's code alone has more of this, on a backend of the test's own: `server/tests/it/pg/hostile.rs`.

mod conversation;
mod corpus;

use crate::server::{Folder, Server, value};
use anyhow::{Context, Result, bail, ensure};
use conversation::conversation;
use std::io::ErrorKind;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, tcp::OwnedWriteHalf};
use tokio_postgres::Client;

const CONVERSATIONS: u64 = 2_000;
/// Conversations at once.
const BESIDE: u64 = 16;
/// One in so many comes byte by byte.
const SLOW: u64 = 20;
/// Far more than any conversation takes: what is not over by then hangs.
const PATIENCE: Duration = Duration::from_secs(60);
/// More than any answer to what is sent here.
const REPLY_BYTES_MAX: usize = 64 << 20;

/// What a client of broken conversations got.
struct Answered {
    bytes: Vec<u8>,
    /// The server closed with bytes of ours unread: some of its answer may be lost on the way.
    was_reset: bool,
}

/// Sends the bytes, at once or one by one, says that no more will come when it has the answers that it expects, and reads to the end: a
/// server that sees its client leave need not answer any more.
async fn converse(port: u16, sent: &[u8], byte_by_byte: bool, expected: Option<&str>) -> Result<Answered> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    let (mut read, mut write) = stream.into_split();
    // The server may close first; then the rest cannot be sent.
    let writing = async move {
        let piece = if byte_by_byte { 1 } else { sent.len().max(1) };
        for piece in sent.chunks(piece) {
            if write.write_all(piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        write
    };
    let conversation = async {
        tokio::pin!(writing);
        let mut answered = Answered { bytes: Vec::new(), was_reset: false };
        let (mut half, mut is_late) = (None::<OwnedWriteHalf>, false);
        let late = tokio::time::sleep(PATIENCE / 2);
        tokio::pin!(late);
        let mut has_left = false;
        loop {
            let has_all =
                is_late || expected.is_none_or(|expected| is_beginning(expected, &in_short(&answered.so_far())));
            if let Some(half) = half.as_mut().filter(|_| has_all && !has_left) {
                let _ = half.shutdown().await;
                has_left = true;
            }
            tokio::select! {
                sent = &mut writing, if half.is_none() => half = Some(sent),
                () = &mut late, if !is_late => is_late = true,
                read = read.read_buf(&mut answered.bytes) => match read {
                    Ok(0) => return Ok(answered),
                    Ok(_) => ensure!(answered.bytes.len() <= REPLY_BYTES_MAX, "an answer without an end"),
                    Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                        answered.was_reset = true;
                        return Ok(answered);
                    }
                    Err(error) => return Err(error.into()),
                },
            }
        }
    };
    tokio::time::timeout(PATIENCE, conversation).await.context("the conversation does not end")?
}

impl Answered {
    /// The kinds of the messages that are whole, as far as they are known.
    fn so_far(&self) -> Vec<String> {
        let answered = Answered { bytes: self.bytes.clone(), was_reset: true };
        answered.messages().unwrap_or_default()
    }

    /// The kinds of its messages, errors with their code: `R S… K Z E(42601) Z`.
    fn messages(&self) -> Result<Vec<String>> {
        let mut kinds = Vec::new();
        let mut rest = self.bytes.as_slice();
        // Answers to requests for encryption are single bytes; NoticeResponse has a length, which begins with zeros.
        while rest.first() == Some(&b'N') && (rest.len() == 1 || !rest[1..].starts_with(&[0, 0])) {
            kinds.push("n".to_owned());
            rest = &rest[1..];
        }
        while let Some(kind) = rest.first() {
            let length = rest.get(1..5).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
            let length = length.map(|length| length as usize).filter(|length| (4..rest.len()).contains(length));
            let Some(length) = length else {
                ensure!(self.was_reset, "the answer ends inside a message: {:?}", &rest[..rest.len().min(60)]);
                break;
            };
            let body = &rest[5..=length];
            kinds.push(match kind {
                b'E' => format!("E({})", code(body).context("an error without a code")?),
                b'A'..=b'Z' | b'a'..=b'z' | b'1'..=b'3' => char::from(*kind).to_string(),
                other => bail!("a message of kind {other}"),
            });
            rest = &rest[length + 1..];
        }
        Ok(kinds)
    }
}

fn code(body: &[u8]) -> Option<String> {
    let field = body.split(|byte| *byte == 0).find(|field| field.first() == Some(&b'C'))?;
    Some(String::from_utf8_lossy(&field[1..]).into_owned())
}

/// Runs of the same kind in short: how many parameters a server tells of is none of this test's business.
fn in_short(kinds: &[String]) -> String {
    let mut runs: Vec<(&String, usize)> = Vec::new();
    for kind in kinds {
        match runs.last_mut() {
            Some((last, count)) if *last == kind => *count += 1,
            _ => runs.push((kind, 1)),
        }
    }
    let words = runs.into_iter().map(|(kind, count)| match (kind.as_str(), count) {
        ("S", _) => "S…".to_owned(),
        (_, 1) => kind.clone(),
        (_, count) => format!("{kind}×{count}"),
    });
    words.collect::<Vec<_>>().join(" ")
}

/// A client that behaves, with a view that it looks up.
struct Neighbour {
    client: Client,
    lookup: tokio_postgres::Statement,
}

impl Neighbour {
    async fn of(server: &Server) -> Result<Neighbour> {
        let client = server.connect().await?;
        client
            .batch_execute(
                "CREATE TABLE junk (a BIGINT, b TEXT);
                 CREATE SOURCE c (k BIGINT NOT NULL, at TIMESTAMPTZ NOT NULL, WATERMARK FOR at AS at) WITH (clock = 'event');
                 CREATE FEATURE VIEW v AS SELECT k, at, count(*) OVER (PARTITION BY k ORDER BY at) AS n FROM c;
                 INSERT INTO c VALUES (1, '2026-03-02 10:00:00+00'), (2, '2026-03-02 10:00:01+00'), (1, '2026-03-02 10:00:02+00')",
            )
            .await?;
        let lookup = client.prepare("SELECT n FROM v WHERE k = $1").await?;
        Ok(Neighbour { client, lookup })
    }

    /// The right answers, in time.
    async fn is_well(&self) -> Result<()> {
        let asked = async {
            for (key, expected) in [(1i64, 2i64), (2, 1)] {
                let found: i64 = self.client.query_one(&self.lookup, &[&key]).await?.try_get(0)?;
                ensure!(found == expected, "key {key} says {found}");
            }
            ensure!(value(&self.client, "SELECT n FROM v WHERE k = 1").await?.as_deref() == Some("2"));
            Ok(())
        };
        tokio::time::timeout(PATIENCE, asked).await.context("the neighbour waits")?.context("the neighbour")
    }

    /// Waits until nobody else is connected.
    async fn is_alone(&self) -> Result<()> {
        let others =
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
        let waited = async {
            while value(&self.client, others).await?.as_deref() != Some("0") {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok(())
        };
        tokio::time::timeout(PATIENCE, waited).await.context("sessions of clients that are gone stay")?
    }
}

fn no_panic(folder: &Folder) -> Result<()> {
    let log = std::fs::read_to_string(folder.path().join("server.log"))?;
    match log.lines().position(|line| line.contains("panicked")) {
        Some(at) => bail!("the server panicked:\n{}", log.lines().skip(at).take(20).collect::<Vec<_>>().join("\n")),
        None => Ok(()),
    }
}

#[tokio::test]
async fn every_broken_conversation_of_the_corpus_is_answered_as_it_is_written_there() -> Result<()> {
    let folder = Folder::new()?;
    let mut server = Server::start(&folder).await?;
    let neighbour = Neighbour::of(&server).await?;
    let kept = corpus::kept()?;
    ensure!(kept.len() >= 75, "only {} conversations", kept.len());
    let mut wrong = Vec::new();
    for one in &kept {
        for byte_by_byte in [false, true] {
            let expected = one.expected.as_deref();
            let answered = converse(server.port, &one.sent, byte_by_byte, expected).await;
            let answered = answered.with_context(|| one.name.clone())?;
            let said = in_short(&answered.messages().with_context(|| one.name.clone())?);
            // Of an answer that was cut off on its way only the beginning is here; behind what is written there may come what else the
            // server answers before it sees that the client has left.
            let is_right = |expected: &String| {
                is_beginning(expected, &said) || answered.was_reset && is_beginning(&said, expected)
            };
            if let Some(expected) = one.expected.as_ref().filter(|expected| !is_right(expected)) {
                wrong.push(format!(
                    "{} (byte by byte: {byte_by_byte})\n  is      {said}\n  must be {expected}",
                    one.name
                ));
            }
        }
        neighbour.is_well().await.with_context(|| format!("after {}", one.name))?;
        ensure!(server.is_running(), "{} ended the server\n{}", one.name, folder.log_tail());
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    neighbour.is_alone().await?;
    no_panic(&folder)
}

/// Whether these messages are the first ones of those; a run may be cut in its middle.
fn is_beginning(said: &str, expected: &str) -> bool {
    let kinds = |text: &str| -> Vec<String> {
        text.split(' ').map(|word| word.split('×').next().unwrap_or_default().to_owned()).collect()
    };
    said.is_empty() || kinds(expected).starts_with(&kinds(said))
}

#[tokio::test]
async fn random_broken_conversations_harm_nobody() -> Result<()> {
    let first: u64 = std::env::var("TIDEMARK_TEST_WIRE_SEED").ok().map_or(Ok(1), |text| text.parse())?;
    let count = std::env::var("TIDEMARK_TEST_WIRE").ok().map_or(Ok(CONVERSATIONS), |text| text.parse())?;
    let folder = Folder::new()?;
    let mut server = Server::start(&folder).await?;
    let neighbour = Neighbour::of(&server).await?;
    let port = server.port;
    let mut answered_in_all = 0;
    for begin in (0..count).step_by(BESIDE as usize) {
        let seeds = (begin..count.min(begin + BESIDE)).map(|i| first.wrapping_add(i));
        let conversations = seeds.map(|seed| async move {
            let sent = conversation(seed);
            let answered = converse(port, &sent, seed.is_multiple_of(SLOW), None).await;
            (seed, answered.and_then(|answered| answered.messages()))
        });
        let (answers, well) = tokio::join!(futures::future::join_all(conversations), neighbour.is_well());
        let mut problem = well.context("beside them").and_then(|()| no_panic(&folder)).err();
        if !server.is_running() {
            problem = Some(anyhow::anyhow!("the server has ended"));
        }
        for (seed, answer) in answers {
            match answer {
                Ok(messages) => answered_in_all += messages.len(),
                Err(error) => {
                    let file = corpus::keep(seed, &conversation(seed))?;
                    bail!("TIDEMARK_TEST_WIRE_SEED={seed}: {error:#}; kept as {file}\n{}", folder.log_tail());
                }
            }
        }
        if let Some(error) = problem {
            // One of these: all are kept, and whoever mends it leaves the one that it was.
            for i in begin..count.min(begin + BESIDE) {
                corpus::keep(first.wrapping_add(i), &conversation(first.wrapping_add(i)))?;
            }
            bail!("with seeds {first} + {begin} and after: {error:#}\n{}", folder.log_tail());
        }
    }
    // They are no empty talk: most get past the greeting, which alone is more than ten messages.
    ensure!(answered_in_all as u64 > 10 * count, "only {answered_in_all} messages for {count} conversations");
    neighbour.is_alone().await?;
    no_panic(&folder)
}
