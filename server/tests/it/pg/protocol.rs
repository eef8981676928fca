//! The protocol by its bytes: what a driver would hide.

use super::fake::*;
use super::raw::*;
use bytes::BufMut;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use tidemark_engine::seam::Clock;
use tidemark_server::pg::{ListenError, Settings, TxEvent, bind as listen};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

pub fn codes(replies: &[Reply]) -> Vec<String> {
    replies.iter().filter(|reply| reply.kind == 'E').map(Reply::sqlstate).collect()
}

pub fn values(replies: &[Reply]) -> Vec<String> {
    replies.iter().filter(|reply| reply.kind == 'D').map(Reply::value).collect()
}

pub fn tags(replies: &[Reply]) -> Vec<String> {
    replies.iter().filter(|reply| reply.kind == 'C').map(Reply::tag).collect()
}

pub async fn settle() {
    // Lets every other task run until it can do no more: on this runtime they take turns.
    for _ in 0..10_000 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn encryption_is_refused_and_the_startup_packet_follows_on_the_same_connection() {
    let world = world(Settings::default());
    let mut stream = world.dial();
    for code in [80_877_104u32, 80_877_103] {
        stream.write_all(&[8u32.to_be_bytes(), code.to_be_bytes()].concat()).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'N');
    }
    let (_, greeting) = Raw::connected(stream).await;
    assert_eq!(greeting[0].kind, 'R');
}

#[tokio::test]
async fn a_newer_minor_version_and_unknown_extensions_are_negotiated_down() {
    let world = world(Settings::default());
    let mut raw = Raw::new(world.dial());
    raw.send(&[startup(3 << 16 | 2, &[("user", "ann"), ("database", "tidemark"), ("_pq_.x", "1")])]).await;
    let greeting = raw.until('Z').await;
    assert_eq!(greeting[0].kind, 'v');
    assert_eq!(greeting[0].body[..8], [0, 3, 0, 0, 0, 0, 0, 1]);
    assert_eq!(&greeting[0].body[8..], b"_pq_.x\0");
    // The key stays the four bytes of protocol 3.0.
    assert_eq!(greeting.iter().find(|reply| reply.kind == 'K').unwrap().body.len(), 8);
}

#[tokio::test]
async fn the_parameters_are_the_defaults_under_the_backends_own() {
    let world = world(Settings::default());
    let mut raw = Raw::new(world.dial());
    let options = [("user", "ann"), ("database", "tidemark"), ("application_name", "app"), ("options", "-c a=b\\ c")];
    raw.send(&[startup(3 << 16, &options)]).await;
    let greeting = raw.until('Z').await;
    let status = |name: &str| {
        let found: Vec<_> = greeting.iter().filter(|reply| reply.kind == 'S' && reply.tag() == name).collect();
        assert_eq!(found.len(), 1, "{name}");
        String::from_utf8_lossy(&found[0].body[name.len() + 1..]).trim_end_matches('\0').to_owned()
    };
    for (name, value) in [
        ("server_version", "15.0"),
        ("TimeZone", "Europe/Vienna"),
        ("server_encoding", "UTF8"),
        ("client_encoding", "UTF8"),
        ("DateStyle", "ISO, MDY"),
        ("IntervalStyle", "postgres"),
        ("integer_datetimes", "on"),
        ("standard_conforming_strings", "on"),
        ("session_authorization", "ann"),
        ("application_name", "app"),
        ("in_hot_standby", "off"),
        ("default_transaction_read_only", "off"),
        ("is_superuser", "on"),
    ] {
        assert_eq!(status(name), value, "{name}");
    }
    let startups = world.fake.startups.lock();
    assert_eq!(startups[0].settings[0], ("a".to_owned(), "b c".to_owned()));
}

#[tokio::test]
async fn another_database_is_a_fatal_3d000() {
    let world = world(Settings::default());
    let mut raw = Raw::new(world.dial());
    raw.send(&[startup(3 << 16, &[("user", "ann"), ("database", "other")])]).await;
    let replies = raw.rest().await;
    assert_eq!(codes(&replies), ["3D000"]);
    assert_eq!(replies[0].field('S').unwrap(), "FATAL");
}

#[tokio::test]
async fn a_simple_query_answers_each_statement_and_stops_at_the_first_error() {
    let world = world(Settings::default());
    let (mut raw, _) = Raw::connected(world.dial()).await;
    assert_eq!(kinds(&raw.ask(&[query(" ; ;")]).await), "IZ");
    let replies = raw.ask(&[query("series 2; nothing; fail; nothing")]).await;
    assert_eq!(kinds(&replies), "TDDCCEZ");
    assert_eq!(tags(&replies), ["SELECT 2", "NOTHING"]);
    let error = &replies[5];
    assert_eq!((error.field('D').unwrap(), error.field('H').unwrap()), ("a detail".into(), "a hint".into()));
    let events = std::mem::take(&mut *world.fake.transactions.lock());
    assert_eq!(events, [TxEvent::Begin { implicit: true }, TxEvent::Rollback]);
    raw.ask(&[query("nothing; nothing")]).await;
    let events = std::mem::take(&mut *world.fake.transactions.lock());
    assert_eq!(events, [TxEvent::Begin { implicit: true }, TxEvent::Commit]);
    raw.ask(&[query("nothing")]).await;
    assert!(world.fake.transactions.lock().is_empty());
}

#[tokio::test]
async fn a_simple_query_has_no_parameters() {
    let world = world(Settings::default());
    let (mut raw, _) = Raw::connected(world.dial()).await;
    assert_eq!(codes(&raw.ask(&[query("echo $1")]).await), ["42P02"]);
}

#[tokio::test]
async fn a_panic_behind_the_protocol_ends_one_connection_and_its_transaction() {
    let world = world(Settings::default());
    let (mut other, _) = Raw::connected(world.dial()).await;
    let (mut raw, _) = Raw::connected(world.dial()).await;
    raw.ask(&[query("begin")]).await;
    raw.send(&[query("panic")]).await;
    raw.rest().await;
    assert_eq!(*world.fake.transactions.lock(), [TxEvent::Begin { implicit: false }, TxEvent::Rollback]);
    assert_eq!(kinds(&other.ask(&[query("nothing")]).await), "CZ");
    assert_eq!(world.server.sessions(), 1);
}

#[tokio::test]
async fn rows_before_an_error_arrive_and_a_bad_row_leaves_no_half_message() {
    let world = world(Settings::default());
    let (mut raw, _) = Raw::connected(world.dial()).await;
    assert_eq!(kinds(&raw.ask(&[query("failafter 2")]).await), "TDDEZ");
    // The fast path writes a row and then fails: the row is taken back.
    let replies = raw.ask(&[parse("", "lookup $1"), bind("", "", &["-1"]), execute("", 0), sync()]).await;
    assert_eq!(kinds(&replies), "12EZ");
}

#[tokio::test]
async fn an_error_skips_to_sync_and_later_batches_run() {
    let world = world(Settings::default());
    let (mut raw, _) = Raw::connected(world.dial()).await;
    raw.send(&[
        parse("", "fail"),
        bind("", "", &[]),
        execute("", 0),
        parse("", "nothing"),
        bind("", "", &[]),
        query("nothing"),
        execute("", 0),
        sync(),
        parse("", "nothing"),
        bind("", "", &[]),
        execute("", 0),
        sync(),
    ])
    .await;
    assert_eq!(kinds(&raw.until('Z').await), "12EZ");
    assert_eq!(kinds(&raw.until('Z').await), "12CZ");
}

#[tokio::test]
async fn names_are_unique_and_unknown_ones_are_told_apart() {
    let world = world(Settings::default());
    let (mut raw, _) = Raw::connected(world.dial()).await;
    raw.ask(&[parse("s", "nothing"), sync()]).await;
    assert_eq!(codes(&raw.ask(&[parse("s", "nothing"), sync()]).await), ["42P05"]);
    assert_eq!(codes(&raw.ask(&[bind("", "t", &[]), sync()]).await), ["26000"]);
    assert_eq!(codes(&raw.ask(&[describe('S', "t"), sync()]).await), ["26000"]);
    assert_eq!(codes(&raw.ask(&[describe('P', "t"), sync()]).await), ["34000"]);
    assert_eq!(codes(&raw.ask(&[execute("t", 0), sync()]).await), ["34000"]);
    assert_eq!(codes(&raw.ask(&[bind("p", "s", &[]), bind("p", "s", &[]), sync()]).await), ["42P03"]);
    assert_eq!(kinds(&raw.ask(&[close('S', "s"), close('P', "p"), close('S', "none"), sync()]).await), "333Z");
    assert_eq!(kinds(&raw.ask(&[parse("s", "nothing"), sync()]).await), "1Z");
    assert_eq!(tags(&raw.ask(&[query("deallocate s")]).await), ["DEALLOCATE"]);
    assert_eq!(codes(&raw.ask(&[query("deallocate s")]).await), ["26000"]);
    raw.ask(&[parse("s", "nothing"), query("discard"), parse("s", "nothing"), sync()]).await;
    raw.until('Z').await;
}

#[tokio::test]
async fn a_bind_that_does_not_fit_its_statement_is_refused() {
    let world = world(Settings::default());
    let (mut raw, _) = Raw::connected(world.dial()).await;
    raw.ask(&[parse("s", "lookup $1"), sync()]).await;
    for (message, expected) in [
        (bind("", "s", &[]), "08P01"),
        (bind("", "s", &["1", "2"]), "08P01"),
        (bind_formats("", "s", &[0, 0], &["1"], &[]), "08P01"),
        (bind_formats("", "s", &[], &["1"], &[0, 0, 0]), "08P01"),
        (bind_formats("", "s", &[7], &["1"], &[]), "22023"),
    ] {
        assert_eq!(codes(&raw.ask(&[message, sync()]).await), [expected]);
    }
    let replies =
        raw.ask(&[bind_formats("", "s", &[0], &["7"], &[0, 1]), describe('P', ""), execute("", 0), sync()]).await;
    assert_eq!(kinds(&replies), "2TDCZ");
    assert_eq!(replies[1].body[replies[1].body.len() - 1], 1, "the second column is binary");
    let mut expected = vec![0, 2, 0, 0, 0, 1, b'7', 0, 0, 0, 8];
    expected.put_i64(70);
    assert_eq!(replies[2].body, expected);
}

#[tokio::test]
async fn a_portal_suspends_after_exactly_its_limit_and_resumes() {
    let world = world(Settings::default());
    let (mut raw, _) = Raw::connected(world.dial()).await;
    // Three ways for rows to come: streamed, ready-made, and at once.
    for (sql, parameters) in [("series 5", &[][..]), ("raw 5", &[]), ("lookups $1", &["5"])] {
        raw.ask(&[query("begin")]).await;
        raw.ask(&[parse("", sql), bind("p", "", parameters), sync()]).await;
        let first = raw.ask(&[execute("p", 2), sync()]).await;
        assert_eq!(kinds(&first), "DDsZ", "{sql}");
        let second = raw.ask(&[execute("p", 3), sync()]).await;
        // The limit suspends even where nothing is left, as in PostgreSQL.
        assert_eq!(kinds(&second), "DDDsZ", "{sql}");
        let third = raw.ask(&[execute("p", 3), execute("p", 0), sync()]).await;
        assert_eq!(tags(&third), ["SELECT 0", "SELECT 0"], "{sql}");
        let rows = [values(&first), values(&second)].concat();
        assert_eq!(rows.len(), 5, "{sql}");
        assert!(rows.windows(2).all(|pair| pair[0] < pair[1]), "{rows:?}");
        raw.ask(&[query("commit")]).await;
    }
}

#[tokio::test]
async fn a_suspended_unnamed_portal_goes_on_within_its_batch() {
    let world = world(Settings::default());
    let (mut raw, _) = Raw::connected(world.dial()).await;
    let batch = [parse("", "series 2500"), bind("", "", &[]), execute("", 1500), execute("", 0), sync()];
    let replies = raw.ask(&batch).await;
    assert_eq!(tags(&replies), ["SELECT 1000"]);
    let expected: Vec<String> = (1..=2500).map(|n| n.to_string()).collect();
    assert_eq!(values(&replies), expected);
}

#[tokio::test]
async fn portals_end_with_their_transaction() {
    let world = world(Settings::default());
    let (mut raw, _) = Raw::connected(world.dial()).await;
    raw.ask(&[parse("s", "stall"), bind("p", "s", &[]), execute("p", 1), sync()]).await;
    world.dropped(1).await;
    assert_eq!(codes(&raw.ask(&[execute("p", 1), sync()]).await), ["34000"]);
    raw.ask(&[query("begin")]).await;
    raw.ask(&[bind("p", "s", &[]), execute("p", 1), sync()]).await;
    assert_eq!(kinds(&raw.ask(&[describe('P', "p"), sync()]).await), "TZ");
    raw.ask(&[query("rollback")]).await;
    world.dropped(2).await;
    assert_eq!(codes(&raw.ask(&[describe('P', "p"), sync()]).await), ["34000"]);
    raw.ask(&[query("begin")]).await;
    raw.ask(&[bind("p", "s", &[]), execute("p", 1), sync()]).await;
    assert_eq!(tags(&raw.ask(&[query("close p")]).await), ["CLOSE CURSOR"]);
    assert_eq!(codes(&raw.ask(&[query("close p")]).await), ["34000"]);
}

#[tokio::test]
async fn a_statement_without_rows_runs_once_per_portal() {
    let world = world(Settings::default());
    let (mut raw, _) = Raw::connected(world.dial()).await;
    let replies = raw
        .ask(&[parse("", "nothing"), bind("", "", &[]), describe('P', ""), execute("", 0), execute("", 0), sync()])
        .await;
    assert_eq!(kinds(&replies), "12nCEZ");
    assert_eq!(codes(&replies), ["55000"]);
    assert_eq!(kinds(&raw.ask(&[parse("", ""), bind("", "", &[]), execute("", 0), sync()]).await), "12IZ");
}

#[tokio::test]
async fn a_failed_block_refuses_all_but_its_end_and_commit_says_rollback() {
    let world = world(Settings::default());
    let (mut raw, _) = Raw::connected(world.dial()).await;
    raw.ask(&[parse("s", "nothing"), sync()]).await;
    assert_eq!(raw.status(&[query("begin")]).await, 'T');
    assert_eq!(raw.status(&[query("fail")]).await, 'E');
    assert_eq!(codes(&raw.ask(&[query("nothing")]).await), ["25P02"]);
    assert_eq!(codes(&raw.ask(&[query("begin")]).await), ["25P02"]);
    assert_eq!(codes(&raw.ask(&[parse("", "nothing"), sync()]).await), ["25P02"]);
    assert_eq!(codes(&raw.ask(&[bind("", "s", &[]), sync()]).await), ["25P02"]);
    let replies = raw.ask(&[parse("", "commit"), bind("", "", &[]), execute("", 0), sync()]).await;
    assert_eq!(tags(&replies), ["ROLLBACK"]);
    assert_eq!(replies.last().unwrap().body, b"I");
    let events = std::mem::take(&mut *world.fake.transactions.lock());
    assert_eq!(events, [TxEvent::Begin { implicit: false }, TxEvent::Rollback]);
    // Warnings where there is nothing to begin or end.
    let replies = raw.ask(&[query("begin; begin; commit; commit")]).await;
    assert_eq!(kinds(&replies), "CNCCNCZ");
    assert_eq!((replies[1].sqlstate(), replies[4].sqlstate()), ("25001".into(), "25P01".into()));
    // A savepoint brings a failed block back.
    raw.ask(&[query("begin; savepoint a; fail")]).await;
    assert_eq!(raw.status(&[query("rollbackto a")]).await, 'T');
    assert_eq!(raw.status(&[query("commit")]).await, 'I');
}

#[tokio::test]
async fn a_connection_that_ends_inside_a_block_is_rolled_back() {
    let world = world(Settings::default());
    let (mut raw, _) = Raw::connected(world.dial()).await;
    raw.ask(&[query("begin")]).await;
    raw.send(&[message(b'X', b"")]).await;
    assert_eq!(raw.rest().await, []);
    assert_eq!(*world.fake.transactions.lock(), [TxEvent::Begin { implicit: false }, TxEvent::Rollback]);
}

/// Counts how often the server reads and writes.
struct Counting<S> {
    stream: S,
    reads: Arc<AtomicUsize>,
    writes: Arc<AtomicUsize>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counting<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.reads.fetch_add(usize::from(polled.is_ready()), Ordering::SeqCst);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counting<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn a_lookup_costs_one_read_and_one_write_and_so_does_a_pipelined_batch_of_them() {
    let world = world(Settings::default());
    let (client, server) = tokio::io::duplex(1 << 20);
    let (reads, writes) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let stream = Counting { stream: server, reads: Arc::clone(&reads), writes: Arc::clone(&writes) };
    world.clock.spawn("test", Box::pin(world.server.converse(stream, None)));
    let (mut raw, _) = Raw::connected(client).await;
    raw.ask(&[parse("s", "lookup $1"), sync()]).await;
    for lookups in [1, 1, 10] {
        let before = (reads.load(Ordering::SeqCst), writes.load(Ordering::SeqCst));
        let lookup = [bind("", "s", &["7"]), describe('P', ""), execute("", 0), sync()];
        raw.send(&vec![lookup.concat(); lookups]).await;
        for _ in 0..lookups {
            let replies = raw.until('Z').await;
            assert_eq!((kinds(&replies), values(&replies)), ("2TDCZ".to_owned(), vec!["7".to_owned()]));
        }
        let after = (reads.load(Ordering::SeqCst), writes.load(Ordering::SeqCst));
        assert_eq!((after.0 - before.0, after.1 - before.1), (1, 1));
    }
}

#[tokio::test]
async fn flush_sends_what_a_batch_has_so_far() {
    let world = world(Settings::default());
    let (mut raw, _) = Raw::connected(world.dial()).await;
    raw.send(&[parse("", "lookup $1"), describe('S', ""), flush()]).await;
    assert_eq!(kinds(&raw.until('T').await), "1tT");
    raw.send(&[bind("", "", &["1"]), execute("", 0), flush()]).await;
    assert_eq!(kinds(&raw.until('C').await), "2DC");
    assert_eq!(kinds(&raw.ask(&[sync()]).await), "Z");
}

#[tokio::test]
async fn replies_of_a_batch_go_out_before_a_statement_that_takes_long() {
    let world = world(Settings::default());
    let (mut raw, _) = Raw::connected(world.dial()).await;
    raw.send(&[query("nothing"), query("hang")]).await;
    assert_eq!(kinds(&raw.until('Z').await), "CZ");
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_stream_and_memory_stays_small() {
    let world = world(Settings::default());
    let (mut raw, _) = Raw::connected(world.dial_with(16 * 1024)).await;
    raw.send(&[query("endless")]).await;
    world.begun(1).await;
    settle().await;
    let produced = world.fake.batches.load(Ordering::SeqCst);
    // 64 KiB of output and 16 KiB of pipe are some five thousand rows of these.
    assert!(produced <= 8, "{produced} batches were produced for a client that reads nothing");
    settle().await;
    assert_eq!(world.fake.batches.load(Ordering::SeqCst), produced);
    for _ in 0..200_000 {
        assert!(raw.next().await.is_some());
    }
    assert!(world.fake.batches.load(Ordering::SeqCst) <= 200 + produced + 1);
    drop(raw);
    world.dropped(1).await;
}

fn cancel(greeting: &[Reply]) -> Vec<u8> {
    let key = &greeting.iter().find(|reply| reply.kind == 'K').unwrap().body;
    [&16u32.to_be_bytes(), &80_877_102u32.to_be_bytes(), &key[..]].concat()
}

#[tokio::test]
async fn a_cancel_request_stops_what_runs_and_only_with_the_right_key() {
    let world = world(Settings::default());
    let (mut raw, greeting) = Raw::connected(world.dial()).await;
    let mut begun = 0;
    for sql in ["hang", "stall", "endless", "copyin", "copyendless"] {
        raw.send(&[query(sql)]).await;
        begun += 1;
        world.begun(begun).await;
        let mut wrong = cancel(&greeting);
        *wrong.last_mut().unwrap() ^= 1;
        for packet in [wrong, cancel(&greeting)] {
            let mut other = Raw::new(world.dial());
            other.send(&[packet]).await;
            // Nothing is answered either way.
            assert_eq!(other.rest().await, []);
        }
        let replies = raw.until('Z').await;
        assert_eq!(codes(&replies), ["57014"], "{sql}");
        world.dropped(begun).await;
    }
    // One that comes when nothing runs is forgotten.
    let mut other = Raw::new(world.dial());
    other.send(&[cancel(&greeting)]).await;
    other.rest().await;
    assert_eq!(kinds(&raw.ask(&[query("series 1")]).await), "TDCZ");
}

#[tokio::test]
async fn what_must_not_be_left_half_done_is_stopped_by_nothing_until_it_lets_go() {
    let world = world(Settings::default());
    let (mut raw, greeting) = Raw::connected(world.dial()).await;
    raw.ask(&[query("timeout on")]).await;
    for (begun, sql) in [(1, "whole end"), (2, "whole hang")] {
        raw.send(&[query(sql)]).await;
        world.begun(begun).await;
        let mut other = Raw::new(world.dial());
        other.send(&[cancel(&greeting)]).await;
        assert_eq!(other.rest().await, []);
        world.clock.pass(TIMEOUT);
        // Everybody has had a turn, and it is still there.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(*world.fake.dropped.borrow(), begun - 1);
        world.fake.released.send_modify(|count| *count += 1);
        let replies = raw.until('Z').await;
        match sql {
            "whole end" => assert_eq!(kinds(&replies), "CZ"),
            _ => assert_eq!(codes(&replies), ["57014"]),
        }
        world.dropped(begun).await;
    }
}

#[tokio::test]
async fn the_statement_timeout_covers_execution_streaming_and_copy() {
    let world = world(Settings::default());
    let (mut raw, _) = Raw::connected(world.dial()).await;
    raw.ask(&[query("timeout on")]).await;
    for (index, sql) in ["hang", "stall", "endless", "copyin", "copyendless"].into_iter().enumerate() {
        raw.send(&[query(sql)]).await;
        world.begun(index as u64 + 1).await;
        world.clock.pass(TIMEOUT);
        let replies = raw.until('Z').await;
        assert_eq!(codes(&replies), ["57014"], "{sql}");
        let message = replies.iter().find(|reply| reply.kind == 'E').unwrap().field('M').unwrap();
        assert!(message.ends_with("statement timeout"), "{message}");
        world.dropped(index as u64 + 1).await;
    }
}

#[tokio::test]
async fn a_client_that_is_idle_for_too_long_is_told_and_let_go() {
    let world = world(Settings::default());
    for (sql, after, sqlstate) in [("idle on", 2 * TIMEOUT, "57P05"), ("idle on; begin", TIMEOUT, "25P03")] {
        let (mut raw, _) = Raw::connected(world.dial()).await;
        raw.ask(&[query(sql)]).await;
        // What comes in time is answered, and the time begins anew.
        raw.ask(&[query("nothing")]).await;
        settle().await;
        world.clock.pass(after);
        let replies = raw.rest().await;
        assert_eq!(codes(&replies), [sqlstate], "{sql}");
        assert_eq!(replies.last().and_then(|reply| reply.field('S')).as_deref(), Some("FATAL"));
    }
    // Only the time of where it is counts, and none in the middle of a batch.
    let (mut raw, _) = Raw::connected(world.dial()).await;
    raw.ask(&[query("idle on")]).await;
    settle().await;
    world.clock.pass(TIMEOUT);
    raw.send(&[parse("", "nothing")]).await;
    settle().await;
    world.clock.pass(2 * TIMEOUT);
    settle().await;
    assert!(codes(&raw.ask(&[sync()]).await).is_empty());
}

#[tokio::test]
async fn a_client_that_leaves_stops_its_statement() {
    let world = world(Settings::default());
    for (index, sql) in ["hang", "stall", "endless"].into_iter().enumerate() {
        let (mut raw, _) = Raw::connected(world.dial()).await;
        raw.send(&[query(sql)]).await;
        world.begun(index as u64 + 1).await;
        drop(raw);
        world.dropped(index as u64 + 1).await;
    }
    let (mut raw, _) = Raw::connected(world.dial()).await;
    raw.send(&[query("copyin")]).await;
    raw.until('G').await;
    drop(raw);
    world.dropped(4).await;
    assert_eq!(*world.fake.copies.lock(), ["fail: the client closed the connection"]);
}

#[tokio::test]
async fn copy_in_joins_small_messages_ignores_sync_and_goes_on_with_the_query() {
    let world = world(Settings::default());
    let (mut raw, _) = Raw::connected(world.dial()).await;
    raw.send(&[query("copyin; nothing")]).await;
    assert_eq!(raw.until('G').await[0].body, [0, 0, 2, 0, 0, 0, 0]);
    let rows: Vec<Vec<u8>> = (0..1000).map(|row| message(b'd', format!("{row}\n").as_bytes())).collect();
    raw.send(&rows).await;
    let replies = raw.ask(&[sync(), flush(), message(b'c', b"")]).await;
    assert_eq!(tags(&replies), ["COPY 1000", "NOTHING"]);
    let expected: String = (0..1000).map(|row| format!("{row}\n")).collect();
    assert_eq!(String::from_utf8(world.fake.copied.lock().clone()).unwrap(), expected);
    // Extended: drivers send Sync behind Execute; it is not answered, the one after CopyDone is.
    let replies = raw
        .ask(&[
            parse("", "copyin"),
            bind("", "", &[]),
            execute("", 0),
            sync(),
            message(b'd', b"x\n"),
            message(b'c', b""),
            sync(),
        ])
        .await;
    assert_eq!(kinds(&replies), "12GCZ");
}

/// The watch reads ahead to notice a client that leaves; what it has read is not waited for again.
#[tokio::test]
async fn a_copy_in_whose_end_comes_while_its_data_is_worked_on_ends() {
    let world = world(Settings::default());
    let (mut raw, _) = Raw::connected(world.dial()).await;
    raw.send(&[query("copyin"), message(b'd', b"slow\n")]).await;
    while world.fake.copies.lock().is_empty() {
        tokio::task::yield_now().await;
    }
    raw.send(&[message(b'd', b"rest\n"), message(b'c', b"")]).await;
    // Each gives the connection its turn.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    world.fake.go.notify_one();
    assert_eq!(tags(&raw.ask(&[]).await), ["COPY 2"]);
}

#[tokio::test]
async fn a_copy_in_fails_by_the_client_by_the_sink_and_by_a_wrong_message() {
    let world = world(Settings::default());
    let (mut raw, _) = Raw::connected(world.dial()).await;
    let replies = raw.ask(&[query("copyin"), message(b'f', b"changed my mind\0")]).await;
    assert_eq!(codes(&replies), ["57014"]);
    assert!(replies[1].field('M').unwrap().ends_with("changed my mind"));
    // What the client sends before it hears of the failure is ignored.
    let replies = raw.ask(&[query("copyin"), message(b'd', b"bad"), message(b'd', b"more"), message(b'c', b"")]).await;
    assert_eq!(codes(&replies), ["22P04"]);
    assert_eq!(replies[1].field('W').unwrap(), "COPY t, line 1");
    let replies = raw.ask(&[query("copyin"), query("nothing")]).await;
    assert_eq!(codes(&replies), ["08P01"]);
    assert_eq!(kinds(&raw.ask(&[query("nothing")]).await), "CZ");
    assert_eq!(world.fake.copies.lock().len(), 3);
}

#[tokio::test]
async fn copy_out_sends_a_message_per_row() {
    let world = world(Settings::default());
    let (mut raw, _) = Raw::connected(world.dial()).await;
    let replies = raw.ask(&[query("copyout 2")]).await;
    assert_eq!(kinds(&replies), "HddddcCZ");
    assert_eq!(tags(&replies), ["COPY 4"]);
    assert_eq!(replies[2].body, b"0\ty\n");
}

#[tokio::test]
async fn notices_and_changed_parameters_arrive_with_their_statement() {
    let world = world(Settings::default());
    let (mut raw, _) = Raw::connected(world.dial()).await;
    let replies = raw.ask(&[query("notice hello; set TimeZone UTC")]).await;
    assert_eq!(kinds(&replies), "NCSCZ");
    assert_eq!((replies[0].field('M').unwrap(), replies[0].sqlstate()), ("hello".into(), "00000".into()));
    assert_eq!(replies[2].body, b"TimeZone\0UTC\0");
}

#[tokio::test]
async fn statements_and_portals_have_a_limit_and_say_so() {
    let world = world(Settings { prepared_statements_max: 2, portals_max: 1, ..Settings::default() });
    let (mut raw, _) = Raw::connected(world.dial()).await;
    let replies = raw.ask(&[parse("a", "nothing"), parse("b", "nothing"), parse("c", "nothing"), sync()]).await;
    assert_eq!(codes(&replies), ["53400"]);
    let replies = raw.ask(&[bind("a", "a", &[]), bind("b", "a", &[]), sync()]).await;
    assert_eq!(codes(&replies), ["53400"]);
    assert_eq!(kinds(&raw.ask(&[parse("", "nothing"), bind("", "", &[]), sync()]).await), "12Z");
}

#[tokio::test]
async fn messages_too_large_or_of_no_known_type_end_the_connection_with_a_reason() {
    let world = world(Settings { message_bytes_max: 1000, ..Settings::default() });
    for (bytes, code) in [
        (query(&"x".repeat(2000)), "54000"),
        (message(b'E', &[0; 20_000]), "54000"),
        (message(b'?', b""), "08P01"),
        (vec![b'Q', 0, 0, 0, 3], "08P01"),
    ] {
        let (mut raw, _) = Raw::connected(world.dial()).await;
        raw.send(&[bytes]).await;
        let replies = raw.rest().await;
        assert_eq!(codes(&replies), [code]);
        assert_eq!(replies[0].field('S').unwrap(), "FATAL");
    }
    let mut raw = Raw::new(world.dial());
    raw.send(&[vec![0x7f, 0, 0, 0, 0, 3, 0, 0]]).await;
    assert_eq!(codes(&raw.rest().await), ["08P01"]);
}

#[tokio::test]
async fn five_hundred_clients_are_served_at_once_and_one_more_hears_that_there_is_no_room() {
    let world = world(Settings { max_connections: 500, ..Settings::default() });
    let mut clients = Vec::new();
    for _ in 0..500 {
        clients.push(Raw::connected(world.dial_with(8 * 1024)).await);
    }
    assert_eq!(world.server.sessions(), 500);
    for (raw, _) in &mut clients {
        raw.send(&[query("series 3")]).await;
    }
    for (raw, _) in &mut clients {
        assert_eq!(values(&raw.until('Z').await), ["1", "2", "3"]);
    }
    let mut late = Raw::new(world.dial());
    late.send(&[hello()]).await;
    let replies = late.rest().await;
    assert_eq!((codes(&replies), replies[0].field('S').unwrap()), (vec!["53300".to_owned()], "FATAL".to_owned()));
    // Cancelling works all the same: that is when it is needed.
    let (raw, greeting) = &mut clients[0];
    raw.send(&[query("hang")]).await;
    world.begun(1).await;
    Raw::new(world.dial()).send(&[cancel(greeting)]).await;
    assert_eq!(codes(&raw.until('Z').await), ["57014"]);
    clients.truncate(499);
    settle().await;
    Raw::connected(world.dial()).await;
}

#[tokio::test]
async fn a_client_that_does_not_say_who_it_is_is_closed_after_the_startup_timeout() {
    let settings = Settings::default();
    let timeout = settings.startup_timeout;
    let world = world(settings);
    let mut raw = Raw::new(world.dial());
    settle().await;
    world.clock.pass(timeout);
    assert_eq!(raw.rest().await, []);
}

#[tokio::test]
async fn shutdown_ends_idle_clients_lets_statements_finish_and_ends_those_that_do_not() {
    let settings = Settings::default();
    let grace = settings.shutdown_grace;
    let world = world(settings);
    let listener = listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (ended, end) = tokio::sync::oneshot::channel::<()>();
    let server = world.server.clone();
    let serve = async move {
        server.serve(listener, async { stopped.await.unwrap_or_default() }).await;
        ended.send(()).unwrap();
    };
    world.clock.spawn("serve", Box::pin(serve));
    let (mut idle, _) = Raw::connected(world.dial()).await;
    let (mut copying, _) = Raw::connected(world.dial()).await;
    let (mut hanging, _) = Raw::connected(world.dial()).await;
    copying.send(&[query("copyin")]).await;
    copying.until('G').await;
    hanging.send(&[query("hang")]).await;
    world.begun(2).await;
    stop.send(()).unwrap();
    assert_eq!(codes(&idle.rest().await), ["57P01"]);
    let replies = copying.ask(&[message(b'd', b"1\n"), message(b'c', b"")]).await;
    assert_eq!(tags(&replies), ["COPY 1"]);
    assert_eq!(codes(&copying.rest().await), ["57P01"]);
    settle().await;
    world.clock.pass(grace);
    assert_eq!(codes(&hanging.rest().await), ["57P01"]);
    end.await.unwrap();
    let mut late = Raw::new(world.dial());
    late.send(&[hello()]).await;
    assert!(!codes(&late.rest().await).is_empty());
}

#[tokio::test]
async fn a_port_in_use_and_an_open_address_are_refused_with_the_way_out() {
    let first = listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = first.local_addr().unwrap();
    let error = listen(address).await.unwrap_err();
    assert!(matches!(error, ListenError::InUse { .. }));
    let text = error.to_string();
    assert!(text.contains(&address.to_string()) && text.contains("--listen"), "{text}");
    let error = listen("0.0.0.0:5433".parse().unwrap()).await.unwrap_err();
    assert!(matches!(error, ListenError::NotLoopback { .. }));
}

#[tokio::test]
async fn what_was_answered_is_sent_before_a_client_that_has_said_goodbye_is_let_go() {
    let world = world(Settings::default());
    let (mut raw, _) = Raw::connected(world.dial()).await;
    raw.send(&[query("series 2"), message(b'X', b"")]).await;
    let replies = raw.rest().await;
    assert!(kinds(&replies).ends_with("CZ"), "{replies:?}");
    assert_eq!(values(&replies).len(), 2);
}
