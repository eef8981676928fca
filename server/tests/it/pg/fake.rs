//! A database of a few words, enough to see what the protocol does with rows, copies, errors and things that never end.

use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};
use futures::StreamExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tidemark_engine::seam::Clock;
use tidemark_server::pg::*;
use tidemark_server::scram::Verifier;
use tokio::sync::{Notify, watch};

pub const INT8: u32 = 20;
pub const TEXT: u32 = 25;
pub const TIMEOUT: Duration = Duration::from_millis(1234);
pub const ROWS_PER_BATCH: usize = 1_000;

/// Time passes when the test says so: a sleep ends when its very duration is let pass after it began.
pub struct TestClock {
    passed: watch::Sender<Vec<Duration>>,
    numbers: AtomicU64,
}

impl TestClock {
    pub fn pass(&self, duration: Duration) {
        self.passed.send_modify(|passed| passed.push(duration));
    }
}

impl Clock for TestClock {
    fn now_us(&self) -> i64 {
        0
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let mut passed = self.passed.subscribe();
        let count = move |passed: &Vec<Duration>| passed.iter().filter(|passed| **passed == duration).count();
        let before = count(&passed.borrow());
        Box::pin(async move {
            if passed.wait_for(|passed| count(passed) > before).await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }

    fn random(&self) -> u64 {
        self.numbers.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
    }

    #[allow(clippy::disallowed_methods)]
    fn spawn(&self, _name: &'static str, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }
}

/// What the fake saw.
pub struct Fake {
    /// What clients have to know; `None`: nothing.
    pub password: Mutex<Option<String>>,
    /// Clients that were not let in, by SQLSTATE.
    pub refused: Mutex<Vec<&'static str>>,
    pub startups: Mutex<Vec<Startup>>,
    pub transactions: Mutex<Vec<TxEvent>>,
    /// Ends of COPY IN: `finish`, or `fail: reason`.
    pub copies: Arc<Mutex<Vec<String>>>,
    pub copied: Arc<Mutex<Vec<u8>>>,
    /// Data that begins with `slow` waits for it.
    pub go: Arc<Notify>,
    pub batches: Arc<AtomicU64>,
    /// Endless statements begun, and ended by being dropped.
    pub begun: watch::Sender<u64>,
    pub dropped: watch::Sender<u64>,
    /// How many statements that hold on may go on.
    pub released: watch::Sender<u64>,
    /// Those of all its connections.
    pub cursors: OpenCursors,
    /// For whichever connection is rung.
    pub notifications: Mutex<Vec<Notification>>,
}

pub struct World {
    pub fake: Arc<Fake>,
    pub clock: Arc<TestClock>,
    pub server: Server<Fake>,
}

pub fn world(settings: Settings) -> World {
    let fake = Arc::new(Fake {
        password: Mutex::default(),
        refused: Mutex::default(),
        startups: Mutex::default(),
        transactions: Mutex::default(),
        copies: Arc::default(),
        copied: Arc::default(),
        go: Arc::default(),
        batches: Arc::default(),
        begun: watch::Sender::new(0),
        dropped: watch::Sender::new(0),
        released: watch::Sender::new(0),
        cursors: OpenCursors::default(),
        notifications: Mutex::default(),
    });
    let clock = Arc::new(TestClock { passed: watch::Sender::new(Vec::new()), numbers: AtomicU64::new(42) });
    let server = Server::new(Arc::clone(&fake), Arc::clone(&clock) as Arc<dyn Clock>, settings);
    World { fake, clock, server }
}

impl World {
    /// A new client's end of a connection that the server serves.
    pub fn dial(&self) -> tokio::io::DuplexStream {
        self.dial_with(1 << 20)
    }

    pub fn dial_with(&self, buffer: usize) -> tokio::io::DuplexStream {
        let (client, server) = tokio::io::duplex(buffer);
        self.clock.spawn("test", Box::pin(self.server.converse(server, None)));
        client
    }

    /// Notifications for the first connection; it is rung.
    pub fn notify(&self, payloads: &[&str]) {
        let notification = |payload: &&str| Notification { sender: 9, channel: "c".into(), payload: (*payload).into() };
        self.fake.notifications.lock().extend(payloads.iter().map(notification));
        self.fake.startups.lock()[0].bell.ring();
    }

    pub async fn begun(&self, count: u64) {
        self.fake.begun.subscribe().wait_for(|begun| *begun >= count).await.unwrap();
    }

    pub async fn dropped(&self, count: u64) {
        self.fake.dropped.subscribe().wait_for(|dropped| *dropped >= count).await.unwrap();
    }
}

/// Counts its own end.
struct Endless(watch::Sender<u64>);

impl Drop for Endless {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count += 1);
    }
}

pub struct FakeSession {
    timeout: Option<Duration>,
    /// How long the client may be idle, in a transaction and outside.
    idle: Option<Duration>,
    events: Vec<SessionEvent>,
    hold: Hold,
}

pub struct FakePrepared {
    words: Vec<String>,
    parameters: Vec<u32>,
    columns: Option<Vec<Column>>,
    declared: Option<Arc<FakePrepared>>,
}

fn prepared(sql: &str) -> Result<Arc<FakePrepared>, PgError> {
    let mut words: Vec<String> = sql.split_whitespace().map(str::to_owned).collect();
    // Drivers say BEGIN and COMMIT by themselves.
    words.iter_mut().take(1).for_each(|word| word.make_ascii_lowercase());
    let declares = matches!(words.first().map(String::as_str), Some("declare" | "hold" | "binary"));
    let declared = declares.then(|| prepared(&words[2..].join(" "))).transpose()?;
    let int8 = |name: &str| Column::computed(name, INT8, 8);
    let (parameters, columns) = match words.first().map(String::as_str) {
        None => (vec![], None),
        Some("declare" | "hold" | "binary") => (declared.iter().flat_map(|d| d.parameters.clone()).collect(), None),
        Some("fetch" | "move") => (vec![], None),
        Some("echo") => (vec![TEXT], Some(vec![Column::computed("echo", TEXT, -1)])),
        Some("lookup" | "lookups") => (vec![INT8], Some(vec![int8("key"), int8("value")])),
        Some("raw") => (vec![], Some(vec![int8("key"), int8("value")])),
        Some("series" | "endless" | "stall" | "failafter") => (vec![], Some(vec![int8("n")])),
        Some(
            "begin" | "start" | "commit" | "rollback" | "savepoint" | "release" | "rollbackto" | "deallocate" | "close"
            | "set" | "notice" | "timeout" | "idle" | "hang" | "copyin" | "copyout" | "copyendless" | "fail"
            | "discard" | "nothing" | "panic" | "whole",
        ) => (vec![], None),
        Some(word) => {
            return Err(PgError::error("42601", format!("syntax error at or near \"{word}\"")).at(1));
        }
    };
    Ok(Arc::new(FakePrepared { words, parameters, columns, declared }))
}

impl FakePrepared {
    fn word(&self, index: usize) -> &str {
        self.words.get(index).map_or("", String::as_str)
    }

    fn number(&self) -> usize {
        self.word(1).parse().unwrap_or(0)
    }
}

fn integer(bound: &Bound, index: usize) -> Result<i64, PgError> {
    let bad = || PgError::error("22P02", "not an integer");
    let value = bound.parameters.get(index).and_then(Option::as_ref).ok_or_else(bad)?;
    match bound.parameter_formats.of(index) {
        Format::Binary => Ok(i64::from_be_bytes(value[..].try_into().map_err(|_| bad())?)),
        Format::Text => std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).ok_or_else(bad),
    }
}

fn value(out: &mut BytesMut, format: Format, value: i64) {
    let bytes = match format {
        Format::Binary => value.to_be_bytes().to_vec(),
        Format::Text => value.to_string().into_bytes(),
    };
    out.put_i32(bytes.len() as i32);
    out.put_slice(&bytes);
}

/// One complete DataRow of two integers.
fn row(out: &mut BytesMut, formats: &Formats, key: i64) {
    let mut body = BytesMut::new();
    body.put_i16(2);
    value(&mut body, formats.of(0), key);
    value(&mut body, formats.of(1), key * 10);
    out.put_u8(b'D');
    out.put_i32(body.len() as i32 + 4);
    out.put_slice(&body);
}

/// One CopyData message.
fn copy_row(text: &str) -> BytesMut {
    let mut message = BytesMut::new();
    message.put_u8(b'd');
    message.put_i32(text.len() as i32 + 4);
    message.put_slice(text.as_bytes());
    message
}

struct Encoder(Format);

impl EncodeRows for Encoder {
    fn encode(&mut self, batch: &RecordBatch, rows: Range<usize>, out: &mut BytesMut) -> Result<(), PgError> {
        let column = batch.column(0);
        for index in rows {
            let mut body = BytesMut::new();
            body.put_i16(1);
            match column.data_type() {
                DataType::Int64 => value(&mut body, self.0, column.as_primitive::<Int64Type>().value(index)),
                _ => {
                    let text = column.as_string::<i32>().value(index);
                    body.put_i32(text.len() as i32);
                    body.put_slice(text.as_bytes());
                }
            }
            out.put_u8(b'D');
            out.put_i32(body.len() as i32 + 4);
            out.put_slice(&body);
        }
        Ok(())
    }
}

fn batch(name: &str, column: ArrayRef) -> RecordBatch {
    let schema = Schema::new(vec![Field::new(name, column.data_type().clone(), true)]);
    RecordBatch::try_new(Arc::new(schema), vec![column]).unwrap()
}

fn integers(range: Range<i64>) -> RecordBatch {
    batch("n", Arc::new(Int64Array::from_iter_values(range)))
}

struct Sink {
    copied: Arc<Mutex<Vec<u8>>>,
    copies: Arc<Mutex<Vec<String>>>,
    go: Arc<Notify>,
    dropped: watch::Sender<u64>,
}

#[async_trait]
impl CopyInSink for Sink {
    async fn data(&mut self, data: Bytes) -> Result<(), PgError> {
        if data.starts_with(b"bad") {
            return Err(PgError::error("22P04", "bad row").context("COPY t, line 1"));
        }
        if data.starts_with(b"slow") {
            self.copies.lock().push("slow".to_owned());
            self.go.notified().await;
        }
        self.copied.lock().extend_from_slice(&data);
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<Copied, PgError> {
        self.copies.lock().push("finish".to_owned());
        let rows = self.copied.lock().iter().filter(|byte| **byte == b'\n').count();
        Ok(Copied { tag: format!("COPY {rows}"), notice: None })
    }

    async fn fail(self: Box<Self>, reason: &str) {
        self.copies.lock().push(format!("fail: {reason}"));
        self.dropped.send_modify(|count| *count += 1);
    }
}

#[async_trait]
impl Backend for Fake {
    type Session = FakeSession;
    type Prepared = FakePrepared;
    type Piece = String;

    fn admit(&self, _: &Login<'_>) -> Result<Admission, PgError> {
        let clock = TestClock { passed: watch::Sender::new(vec![]), numbers: AtomicU64::new(7) };
        let verifier = self.password.lock().as_ref().map(|password| Verifier::of(password, &clock));
        Ok(Admission { verifier, role: 1 })
    }

    fn refused(&self, _: &Login<'_>, error: &PgError) {
        self.refused.lock().push(error.sqlstate);
    }

    async fn open(&self, startup: Startup) -> Result<FakeSession, PgError> {
        if startup.database != "tidemark" {
            let message = format!("database \"{}\" does not exist", startup.database);
            return Err(PgError::error("3D000", message));
        }
        let hold = startup.hold.clone();
        self.startups.lock().push(startup);
        Ok(FakeSession { timeout: None, idle: None, events: Vec::new(), hold })
    }

    fn parameters(&self, _session: &mut FakeSession) -> Vec<(Cow<'static, str>, String)> {
        vec![("server_version".into(), "15.0".into()), ("TimeZone".into(), "Europe/Vienna".into())]
    }

    fn split(&self, _session: &mut FakeSession, sql: &str) -> Result<Vec<String>, PgError> {
        Ok(sql.split(';').map(str::trim).filter(|piece| !piece.is_empty()).map(str::to_owned).collect())
    }

    async fn prepare_piece(&self, _session: &mut FakeSession, piece: String) -> Result<Arc<FakePrepared>, PgError> {
        prepared(&piece)
    }

    async fn prepare(
        &self,
        _session: &mut FakeSession,
        sql: &str,
        _parameter_oids: &[u32],
    ) -> Result<Arc<FakePrepared>, PgError> {
        prepared(sql)
    }

    fn parameter_types<'a>(&self, prepared: &'a FakePrepared) -> &'a [u32] {
        &prepared.parameters
    }

    fn columns<'a>(&self, _session: &mut FakeSession, prepared: &'a FakePrepared) -> Option<Cow<'a, [Column]>> {
        prepared.columns.as_deref().map(Cow::Borrowed)
    }

    fn verb<'a>(&self, prepared: &'a FakePrepared) -> Option<Verb<'a>> {
        let name = prepared.word(1);
        let named = (name != "all").then_some(name);
        Some(match prepared.word(0) {
            "begin" | "start" => Verb::Begin { read_only: None, isolation: None },
            "commit" => Verb::Commit,
            "rollback" => Verb::Rollback,
            "savepoint" => Verb::Savepoint(name),
            "release" => Verb::Release(name),
            "rollbackto" => Verb::RollbackTo(name),
            "deallocate" => Verb::Deallocate(named),
            "close" => Verb::CloseCursor(named),
            _ => return None,
        })
    }

    fn cursor_verb<'a>(&self, prepared: &'a FakePrepared) -> Option<CursorVerb<'a, FakePrepared>> {
        let verb = prepared.word(0);
        if let Some(query) = &prepared.declared {
            let (is_binary, is_held) = (verb == "binary", verb == "hold");
            let (name, text) = (prepared.word(1), verb);
            return Some(CursorVerb::Declare(Declaration { name, query, text, is_binary, is_held }));
        }
        let reach = match prepared.word(1) {
            "all" => Reach::Next(u64::MAX),
            "back" => Reach::Backward,
            rows => Reach::Next(rows.parse().unwrap_or(0)),
        };
        matches!(verb, "fetch" | "move")
            .then(|| CursorVerb::Fetch(Fetch { cursor: prepared.word(2), reach, moves: verb == "move" }))
    }

    async fn open_cursor(
        &self,
        session: &mut FakeSession,
        query: &Arc<FakePrepared>,
        bound: &Bound,
    ) -> Result<Batches, PgError> {
        match self.execute(session, query, bound).await? {
            Outcome::Rows { stream, .. } => Ok(stream),
            _ => Err(PgError::error("42601", "no query")),
        }
    }

    fn encoder(
        &self,
        _session: &mut FakeSession,
        _query: &FakePrepared,
        formats: &Formats,
    ) -> Result<Box<dyn EncodeRows>, PgError> {
        Ok(Box::new(Encoder(formats.of(0))))
    }

    fn take_notifications(&self, _session: &mut FakeSession) -> Vec<Notification> {
        std::mem::take(&mut *self.notifications.lock())
    }

    fn cursors(&self, _session: &mut FakeSession) -> OpenCursors {
        self.cursors.clone()
    }

    fn execute_now(
        &self,
        _session: &mut FakeSession,
        prepared: &Arc<FakePrepared>,
        bound: &Bound,
        out: &mut BytesMut,
    ) -> Option<Result<Completed, PgError>> {
        let keys = match prepared.word(0) {
            "lookup" => integer(bound, 0).map(|key| key..key + 1),
            "lookups" => integer(bound, 0).map(|rows| 0..rows),
            _ => return None,
        };
        Some(keys.and_then(|keys| {
            let rows = keys.clone().count() as u64;
            for key in keys {
                row(out, &bound.result_formats, key);
                if key < 0 {
                    return Err(PgError::error("22012", "negative key"));
                }
            }
            Ok(Completed { rows, tag: RowsTag::SELECT })
        }))
    }

    async fn execute(
        &self,
        session: &mut FakeSession,
        prepared: &Arc<FakePrepared>,
        bound: &Bound,
    ) -> Result<Outcome, PgError> {
        let rows = |stream: Batches| {
            let encoder = Box::new(Encoder(bound.result_formats.of(0)));
            Ok(Outcome::Rows { stream, encoder, tag: RowsTag::SELECT })
        };
        let done = |tag: &'static str| Ok(Outcome::Done { tag: tag.into() });
        let batches = Arc::clone(&self.batches);
        match prepared.word(0) {
            "" => Ok(Outcome::Empty),
            "nothing" => done("NOTHING"),
            "panic" => panic!("the fake was told to panic"),
            "echo" => {
                let text = bound.parameters[0].as_ref().map(|value| String::from_utf8_lossy(value).into_owned());
                rows(futures::stream::iter([Ok(batch("echo", Arc::new(StringArray::from(vec![text]))))]).boxed())
            }
            "raw" => {
                let mut messages = BytesMut::new();
                (0..prepared.number()).for_each(|key| row(&mut messages, &bound.result_formats, key as i64));
                let completed = Completed { rows: prepared.number() as u64, tag: RowsTag::SELECT };
                Ok(Outcome::RawRows { messages, completed })
            }
            "series" => {
                let count = prepared.number() as i64;
                let step = ROWS_PER_BATCH as i64;
                let starts = futures::stream::iter((0..count).step_by(ROWS_PER_BATCH));
                rows(
                    starts
                        .map(move |start| {
                            batches.fetch_add(1, Ordering::SeqCst);
                            Ok(integers(start + 1..(start + step).min(count) + 1))
                        })
                        .boxed(),
                )
            }
            "failafter" => {
                let count = prepared.number() as i64;
                let failure = Err(PgError::error("22012", "division by zero"));
                rows(futures::stream::iter([Ok(integers(0..count)), failure]).boxed())
            }
            "endless" => {
                let end = Endless(self.dropped.clone());
                self.begun.send_modify(|count| *count += 1);
                let batches = futures::stream::repeat_with(move || {
                    let _ = &end;
                    batches.fetch_add(1, Ordering::SeqCst);
                    Ok(integers(0..ROWS_PER_BATCH as i64))
                });
                rows(batches.boxed())
            }
            "stall" => {
                let end = Endless(self.dropped.clone());
                self.begun.send_modify(|count| *count += 1);
                let stall = futures::stream::pending().inspect(move |_| {
                    let _ = &end;
                });
                rows(futures::stream::iter([Ok(integers(0..1))]).chain(stall).boxed())
            }
            // `whole end` is done when it lets go, `whole hang` goes on for ever.
            "whole" => {
                let _end = Endless(self.dropped.clone());
                let held = session.hold.hold();
                let mut released = self.released.subscribe();
                let before = *released.borrow();
                self.begun.send_modify(|count| *count += 1);
                let _ = released.wait_for(|released| *released > before).await;
                drop(held);
                if prepared.word(1) == "hang" {
                    std::future::pending::<()>().await;
                }
                done("WHOLE")
            }
            "hang" => {
                let _end = Endless(self.dropped.clone());
                self.begun.send_modify(|count| *count += 1);
                std::future::pending().await
            }
            "fail" => Err(PgError::error("22012", "division by zero").detail("a detail").hint("a hint")),
            "set" => {
                let (name, value) = (prepared.word(1).to_owned(), prepared.word(2).to_owned());
                session.events.push(SessionEvent::Parameter { name: name.into(), value });
                done("SET")
            }
            "notice" => {
                session.events.push(SessionEvent::Notice(PgError::notice(prepared.word(1))));
                done("NOTICE")
            }
            "idle" => {
                session.idle = (prepared.word(1) == "on").then_some(TIMEOUT);
                done("IDLE")
            }
            "timeout" => {
                session.timeout = (prepared.word(1) == "on").then_some(TIMEOUT);
                done("SET")
            }
            "discard" => {
                session.events.push(SessionEvent::Discarded);
                done("DISCARD ALL")
            }
            "copyin" => {
                self.begun.send_modify(|count| *count += 1);
                let (copied, copies) = (Arc::clone(&self.copied), Arc::clone(&self.copies));
                let sink = Sink { copied, copies, go: Arc::clone(&self.go), dropped: self.dropped.clone() };
                Ok(Outcome::CopyIn { sink: Box::new(sink), layout: CopyLayout { binary: false, columns: 2 } })
            }
            "copyendless" => {
                let end = Endless(self.dropped.clone());
                self.begun.send_modify(|count| *count += 1);
                let chunks = futures::stream::repeat_with(move || {
                    let _ = &end;
                    Ok(CopyChunk { messages: copy_row("row\n"), rows: 1 })
                });
                Ok(Outcome::CopyOut { stream: chunks.boxed(), layout: CopyLayout { binary: false, columns: 1 } })
            }
            "copyout" => {
                let rows = 0..prepared.number();
                let chunks = futures::stream::iter(rows.map(|row| {
                    let mut messages = copy_row(&format!("{row}\tx\n"));
                    messages.unsplit(copy_row(&format!("{row}\ty\n")));
                    Ok(CopyChunk { messages, rows: 2 })
                }));
                let layout = CopyLayout { binary: false, columns: 2 };
                Ok(Outcome::CopyOut { stream: chunks.boxed(), layout })
            }
            other => Err(PgError::error("XX000", format!("the fake cannot run {other}"))),
        }
    }

    async fn transaction(&self, _session: &mut FakeSession, event: TxEvent) -> Result<(), PgError> {
        self.transactions.lock().push(event);
        Ok(())
    }

    fn statement_timeout(&self, session: &mut FakeSession) -> Option<Duration> {
        session.timeout
    }

    fn idle_timeout(&self, session: &mut FakeSession, in_transaction: bool) -> Option<Duration> {
        // Twice as long outside.
        session.idle.map(|idle| if in_transaction { idle } else { 2 * idle })
    }

    fn take_events(&self, session: &mut FakeSession) -> Vec<SessionEvent> {
        std::mem::take(&mut session.events)
    }
}
