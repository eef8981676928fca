//! DECLARE, FETCH, MOVE and CLOSE at message level, in both protocols.

use super::fake::{ROWS_PER_BATCH, world};
use super::protocol::{codes, tags, values};
use super::raw::*;
use std::sync::atomic::Ordering;
use tidemark_server::pg::Settings;

#[tokio::test]
async fn a_cursor_gives_what_is_fetched_and_takes_no_more_from_its_query() {
    let world = world(Settings::default());
    let (mut raw, _) = Raw::connected(world.dial()).await;
    assert_eq!(tags(&raw.ask(&[query("begin; declare c series 100000")]).await), ["BEGIN", "DECLARE CURSOR"]);
    let first = raw.ask(&[query("fetch 2 c")]).await;
    assert_eq!(kinds(&first), "TDDCZ");
    assert_eq!((values(&first), tags(&first)), (vec!["1".into(), "2".into()], vec!["FETCH 2".to_owned()]));
    let next = raw.ask(&[query("fetch 1 c; move 10 c; fetch 0 c")]).await;
    assert_eq!(codes(&next), ["55000"]);
    assert_eq!((values(&next), tags(&next)), (vec!["3".to_owned()], vec!["FETCH 1".to_owned(), "MOVE 10".to_owned()]));
    // One batch was enough for all that.
    assert_eq!(world.fake.batches.load(Ordering::SeqCst), 1);
    assert_eq!(codes(&raw.ask(&[query("fetch 1 c")]).await), ["25P02"]);
    raw.ask(&[query("rollback")]).await;
    assert_eq!(codes(&raw.ask(&[query("fetch 1 c")]).await), ["34000"]);
    assert!(world.fake.cursors.all().is_empty());
}

#[tokio::test]
async fn a_cursor_is_at_its_end_when_less_comes_than_was_asked_for() {
    let world = world(Settings::default());
    let (mut raw, _) = Raw::connected(world.dial()).await;
    raw.ask(&[query("begin; declare c series 1500")]).await;
    assert_eq!(tags(&raw.ask(&[query("move 1400 c")]).await), ["MOVE 1400"]);
    let rest = raw.ask(&[query("fetch all c; fetch all c; fetch 0 c; move all c")]).await;
    assert_eq!(values(&rest).len(), 100);
    assert_eq!(values(&rest)[0], "1401");
    assert_eq!(tags(&rest), ["FETCH 100", "FETCH 0", "FETCH 0", "MOVE 0"]);
    assert_eq!(tags(&raw.ask(&[query("close c; commit")]).await), ["CLOSE CURSOR", "COMMIT"]);
}

#[tokio::test]
async fn a_fetch_of_the_extended_protocol_is_described_and_encoded_as_its_bind_says() {
    let world = world(Settings::default());
    let (mut raw, _) = Raw::connected(world.dial()).await;
    raw.ask(&[query("begin")]).await;
    // The parameters are those of the whole DECLARE.
    let declared = raw.ask(&[parse("", "declare e echo"), bind("", "", &["hey"]), execute("", 0), sync()]).await;
    assert_eq!((kinds(&declared), tags(&declared)), ("12CZ".into(), vec!["DECLARE CURSOR".to_owned()]));
    // A portal of that name, as psycopg looks at it.
    assert_eq!(kinds(&raw.ask(&[describe('P', "e"), sync()]).await), "TZ");
    assert_eq!(values(&raw.ask(&[query("fetch 1 e")]).await), ["hey"]);
    raw.ask(&[query("declare c series 10")]).await;
    let fetched = raw
        .ask(&[
            parse("", "fetch 2 c"),
            describe('S', ""),
            bind_formats("", "", &[], &[], &[1]),
            describe('P', ""),
            execute("", 0),
            sync(),
        ])
        .await;
    assert_eq!((kinds(&fetched), tags(&fetched)), ("1tT2TDDCZ".into(), vec!["FETCH 2".to_owned()]));
    assert_eq!(fetched[5].body[6..], 1i64.to_be_bytes());
    // The format of one FETCH is not the next one's.
    assert_eq!(values(&raw.ask(&[query("fetch 1 c")]).await), ["3"]);
    // Where there is no cursor there is nothing to describe.
    let missing =
        raw.ask(&[parse("", "fetch 2 d"), bind("", "", &[]), describe('P', ""), execute("", 0), sync()]).await;
    assert_eq!((kinds(&missing), codes(&missing)), ("12nEZ".into(), vec!["34000".to_owned()]));
}

#[tokio::test]
async fn a_fetch_is_suspended_at_the_clients_limit_of_rows() {
    let world = world(Settings::default());
    let (mut raw, _) = Raw::connected(world.dial()).await;
    raw.ask(&[query("begin; declare c series 10")]).await;
    let fetched = raw
        .ask(&[parse("", "fetch 5 c"), bind("", "", &[]), execute("", 3), execute("", 3), execute("", 3), sync()])
        .await;
    assert_eq!(kinds(&fetched), "12DDDsDDCCZ");
    assert_eq!(values(&fetched), ["1", "2", "3", "4", "5"]);
    assert_eq!(tags(&fetched), ["FETCH 5", "FETCH 0"]);
    // The cursor itself is a portal too, and goes on from there.
    let portal = raw.ask(&[execute("c", 2), execute("c", 0), close('P', "c"), sync()]).await;
    assert_eq!(
        (kinds(&portal), values(&portal)),
        ("DDsDDDC3Z".into(), ["6", "7", "8", "9", "10"].map(String::from).into())
    );
    assert_eq!(codes(&raw.ask(&[query("fetch 1 c")]).await), ["34000"]);
}

/// As asyncpg's `Cursor.forward()` does it, before the first row and later.
#[tokio::test]
async fn rows_of_a_portal_that_bind_has_made_can_be_passed() {
    let world = world(Settings::default());
    let (mut raw, _) = Raw::connected(world.dial()).await;
    raw.ask(&[query("begin")]).await;
    raw.ask(&[parse("s", "series 10"), bind("p", "s", &[]), sync()]).await;
    let moved = raw.ask(&[query("move 3 p")]).await;
    assert_eq!((kinds(&moved), tags(&moved)), ("CZ".into(), vec!["MOVE 3".to_owned()]));
    let next = raw.ask(&[execute("p", 2), sync()]).await;
    assert_eq!((kinds(&next), values(&next)), ("DDsZ".into(), vec!["4".to_owned(), "5".to_owned()]));
    // In the extended protocol too.
    let moved = raw.ask(&[parse("", "move 2 p"), bind("", "", &[]), execute("", 0), sync()]).await;
    assert_eq!((kinds(&moved), tags(&moved)), ("12CZ".into(), vec!["MOVE 2".to_owned()]));
    assert_eq!(values(&raw.ask(&[execute("p", 1), sync()]).await), ["8"]);
    assert_eq!(tags(&raw.ask(&[query("move all p; move 1 p")]).await), ["MOVE 2", "MOVE 0"]);
    assert_eq!(kinds(&raw.ask(&[execute("p", 0), sync()]).await), "CZ");
    // Rows that were answered at once.
    raw.ask(&[parse("l", "raw 5"), bind("r", "l", &[]), sync()]).await;
    assert_eq!(tags(&raw.ask(&[query("move 4 r")]).await), ["MOVE 4"]);
    assert_eq!(kinds(&raw.ask(&[execute("r", 0), sync()]).await), "DCZ");
    // What has no rows is no cursor, nor is there a way back.
    raw.ask(&[parse("n", "nothing"), bind("q", "n", &[]), sync()]).await;
    assert_eq!(codes(&raw.ask(&[query("move 1 q")]).await), ["55000"]);
    raw.ask(&[query("rollback; begin")]).await;
    raw.ask(&[bind("p", "s", &[]), sync()]).await;
    assert_eq!(codes(&raw.ask(&[query("move back p")]).await), ["55000"]);
}

#[tokio::test]
async fn a_binary_cursor_is_binary_in_a_simple_query() {
    let world = world(Settings::default());
    let (mut raw, _) = Raw::connected(world.dial()).await;
    let replies = raw.ask(&[query("begin; binary c series 10; fetch 1 c")]).await;
    assert_eq!(kinds(&replies), "CCTDCZ");
    assert_eq!(replies[3].body[6..], 1i64.to_be_bytes());
}

#[tokio::test]
async fn a_cursor_outside_of_a_block_has_to_be_held() {
    let world = world(Settings::default());
    let (mut raw, _) = Raw::connected(world.dial()).await;
    assert_eq!(codes(&raw.ask(&[query("declare c series 10")]).await), ["25P01"]);
    // The statements of one query are a block.
    let within = raw.ask(&[query("declare c series 10; fetch 1 c")]).await;
    assert_eq!((kinds(&within), values(&within)), ("CTDCZ".into(), vec!["1".to_owned()]));
    assert_eq!(codes(&raw.ask(&[query("fetch 1 c")]).await), ["34000"]);
    raw.ask(&[query("hold c endless")]).await;
    assert_eq!(values(&raw.ask(&[query("fetch 1 c")]).await).len(), 1);
    assert_eq!(world.fake.cursors.all().len(), 1);
    // Errors of others do not end it; its own transaction's does.
    raw.ask(&[query("fail")]).await;
    raw.ask(&[query("begin; hold d series 10; fail")]).await;
    raw.ask(&[query("rollback")]).await;
    raw.ask(&[query("hold e series 10; fail")]).await;
    let names: Vec<String> = world.fake.cursors.all().iter().map(|cursor| cursor.name.clone()).collect();
    assert_eq!(names, ["c"]);
    assert_eq!(codes(&raw.ask(&[query("hold c series 1")]).await), ["42P03"]);
    assert_eq!(tags(&raw.ask(&[query("close all")]).await), ["CLOSE CURSOR ALL"]);
    world.dropped(1).await;
    assert!(world.fake.cursors.all().is_empty());
}

#[tokio::test]
async fn a_cursor_of_a_savepoint_goes_with_it() {
    let world = world(Settings::default());
    let (mut raw, _) = Raw::connected(world.dial()).await;
    raw.ask(&[query("begin; declare a series 9; savepoint s; declare b series 9; savepoint t; declare c series 9")])
        .await;
    let names = || world.fake.cursors.all().iter().map(|cursor| cursor.name.clone()).collect::<Vec<_>>();
    raw.ask(&[query("rollbackto t")]).await;
    assert_eq!(names(), ["a", "b"]);
    raw.ask(&[query("declare c series 9; release t; rollbackto s")]).await;
    assert_eq!(names(), ["a"]);
    raw.ask(&[query("commit")]).await;
    assert_eq!(names(), [""; 0]);
}

#[tokio::test]
async fn a_connection_has_so_many_cursors_and_no_more() {
    let world = world(Settings { portals_max: 2, ..Settings::default() });
    let (mut raw, _) = Raw::connected(world.dial()).await;
    raw.ask(&[query("begin; declare a series 9; declare b series 9")]).await;
    let refused = raw.ask(&[query("declare c series 9")]).await;
    assert_eq!(codes(&refused), ["53400"]);
}

/// A client that does not read holds its cursor's query back.
#[tokio::test]
async fn a_fetch_of_all_waits_for_its_client() {
    let world = world(Settings::default());
    let (mut raw, _) = Raw::connected(world.dial_with(1 << 14)).await;
    raw.ask(&[query("begin; declare c series 100000")]).await;
    raw.send(&[query("fetch all c")]).await;
    // Half of what there is would be more than all buffers hold.
    let mut rows = 0;
    while raw.next().await.unwrap().kind != 'C' {
        if rows == 1_000 {
            let batches = world.fake.batches.load(Ordering::SeqCst);
            assert!(batches < 50_000 / ROWS_PER_BATCH as u64, "{batches} batches for 1,000 rows");
        }
        rows += 1;
    }
    assert_eq!(rows, 100_001);
}
