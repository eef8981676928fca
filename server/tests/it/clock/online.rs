//! The online store holds, for whoever reads it, what a lookup answers.

use super::world::World;
use bytes::Bytes;
use futures::poll;
use std::{pin::pin, task::Poll, time::Duration};
use tidemark_engine::online::OnlineRow;
use tidemark_engine::seam::Clock;
use tidemark_engine::value::{Value, encode_row};
use tokio_postgres::NoTls;

const SETUP: &str = "
    CREATE SOURCE clicks (user_id BIGINT, price DOUBLE PRECISION, at TIMESTAMPTZ NOT NULL, WATERMARK FOR at AS at - INTERVAL '1 minute');
    CREATE FEATURE VIEW spend WITH (ttl = '1 hour') AS
      SELECT user_id, at, count(*) OVER m5 AS n, sum(price) OVER m5 AS total, price AS last_price FROM clicks
      WINDOW m5 AS (PARTITION BY user_id ORDER BY at RANGE INTERVAL '5 minutes' PRECEDING);
";
const KEYS: std::ops::Range<i64> = 1..5;

/// Flushes, and compares the store with the lookups of all keys; how many of them have a row.
async fn level(world: &World) -> usize {
    let engine = world.engine();
    engine.flush_online().await.expect("a flush");
    same(world).await
}

async fn same(world: &World) -> usize {
    let engine = world.engine();
    let view = engine.views().pop().expect("one view");
    let now_us = view.now_us(world.clock.now_us());
    let mut present = 0;
    for key in KEYS {
        let encoded = encode_row(&[Value::Int(key)]);
        let looked_up = view.state.lookup(&encoded, now_us).expect("a lookup");
        let stored =
            engine.seams.online.get_many(view.state.id, &[Bytes::from(encoded)]).await.expect("the store answers");
        let stored = stored.into_iter().next().flatten().and_then(|value| value.row);
        let stored = stored.map(|row| OnlineRow::decode(&row).expect("a row"));
        match (&stored, &looked_up) {
            (None, None) => {}
            (Some(stored), Some(row)) => {
                let read = (stored.instant_us, stored.event_us, stored.outputs.as_slice());
                assert_eq!(read, (row.instant_us, row.event_us, &row.outputs[..]), "key {key}");
                present += 1;
            }
            _ => panic!("key {key}: the store has a row: {}, a lookup: {}", stored.is_some(), looked_up.is_some()),
        }
    }
    let rows = world.rows("SELECT user_id FROM spend").await;
    assert_eq!(rows.len(), present, "keys nobody asked for: {rows:?}");
    present
}

#[tokio::test]
async fn after_a_flush_after_departures_and_after_the_end_of_a_key_the_stores_row_is_the_lookups() {
    let world = World::at("2026-03-02 10:00:00").await;
    world.run(SETUP).await;
    assert_eq!(level(&world).await, 0);
    world.run("INSERT INTO clicks VALUES (1, 1, now()), (1, 2, now()), (2, 4, now() - INTERVAL '30 seconds')").await;
    // One ahead of its time.
    world.run("INSERT INTO clicks VALUES (3, 8, now() + INTERVAL '2 minutes')").await;
    assert_eq!(level(&world).await, 2);
    world.clock.set("2026-03-02 10:02:00");
    assert_eq!(level(&world).await, 3);
    // Out of order, below what is online.
    world.run("INSERT INTO clicks VALUES (1, 16, TIMESTAMPTZ '2026-03-02 09:59:30+00')").await;
    assert_eq!(level(&world).await, 3);
    for time in ["10:04:30", "10:04:30.000001", "10:05:00", "10:05:00.000001", "10:07:00.000001"] {
        world.clock.set(&format!("2026-03-02 {time}"));
        assert_eq!(level(&world).await, 3, "{time}");
    }
    // What is final goes from memory; the store does not notice.
    world.clock.set("2026-03-02 10:30:00");
    world.tick().await;
    assert_eq!(level(&world).await, 3);
    for (time, present) in [("10:59:30.000001", 2), ("11:00:00.000001", 1), ("11:02:00.000001", 0)] {
        world.clock.set(&format!("2026-03-02 {time}"));
        assert_eq!(level(&world).await, present, "{time}");
    }
    world.tick().await;
    assert_eq!(level(&world).await, 0);
    world.run("INSERT INTO clicks VALUES (1, 1, now()), (4, 1, now())").await;
    assert_eq!(level(&world).await, 2);
}

#[tokio::test]
async fn a_refresh_puts_again_what_somebody_has_removed_and_pipelines_say_how_level_the_store_is() {
    let level_of = "SELECT online_waiting, online_level, online_error FROM tidemark.pipelines WHERE name = 'spend'";
    let world = World::at("2026-03-02 10:00:00").await;
    world.run(SETUP).await;
    assert_eq!(world.value(level_of).await, "0 1 NULL");
    world.run("INSERT INTO clicks VALUES (1, 1, now()), (2, 4, now() - INTERVAL '30 seconds')").await;
    assert_eq!(world.value(level_of).await, "2 0 NULL");
    assert_eq!(level(&world).await, 2);
    assert_eq!(world.value(level_of).await, "0 1 NULL");
    // Two keys that are in the state store, one that is not, and one that the online store has not seen.
    world.tick().await;
    world.run("INSERT INTO clicks VALUES (3, 8, now())").await;
    assert_eq!(level(&world).await, 3);
    world.run("INSERT INTO clicks VALUES (4, 8, now())").await;
    let view = world.engine().views().pop().expect("one view");
    let store = world.engine().seams.online.clone();
    for _ in 0..2 {
        store.drop_view(view.state.id).await.expect("somebody empties it");
        world.run("REFRESH ONLINE STORE FOR spend").await;
        assert_eq!(same(&world).await, 4);
        assert_eq!(world.value(level_of).await, "0 1 NULL");
    }
    // Also as of now: two minutes before the end of the first key.
    world.clock.set("2026-03-02 10:59:00");
    world.run("REFRESH ONLINE STORE FOR spend").await;
    assert_eq!(same(&world).await, 4);
    world.clock.set("2026-03-02 11:00:00.000001");
    world.run("REFRESH ONLINE STORE FOR spend").await;
    assert_eq!(same(&world).await, 0);
    world.run("DROP FEATURE VIEW spend").await;
    assert_eq!(world.refusal("REFRESH ONLINE STORE FOR spend").await, "42P01");
}

/// More than are put without a rest.
const MANY: i64 = 3_000;

/// How many of [`MANY`] keys have a row in the store.
async fn stored(world: &World) -> i64 {
    let engine = world.engine();
    let view = engine.views().pop().expect("one view");
    let keys: Vec<Bytes> = (1..=MANY).map(|key| Bytes::from(encode_row(&[Value::Int(key)]))).collect();
    let found = engine.seams.online.get_many(view.state.id, &keys).await.expect("the store answers");
    found.into_iter().flatten().filter(|value| value.row.is_some()).count() as i64
}

#[tokio::test]
async fn a_refresh_rests_and_may_be_stopped_and_the_next_one_puts_all() {
    let sql = "REFRESH ONLINE STORE FOR spend";
    let waiting = "SELECT online_waiting, online_error FROM tidemark.pipelines WHERE name = 'spend'";
    let world = World::at("2026-03-02 10:00:00").await;
    world.run(SETUP).await;
    world.run(&format!("INSERT INTO clicks SELECT g, 1, now() FROM generate_series(1, {MANY}) AS g")).await;
    world.engine().flush_online().await.expect("a flush");
    assert_eq!(stored(&world).await, MANY);
    let view = world.engine().views().pop().expect("one view");
    let store = world.engine().seams.online.clone();
    // The clock stands still, so its first rest has no end. First a cancel stops it, then its timeout.
    for timeout_ms in [0, 5] {
        store.drop_view(view.state.id).await.expect("somebody empties it");
        world.run(&format!("SET statement_timeout = {timeout_ms}")).await;
        let mut refresh = pin!(world.client().batch_execute(sql));
        while stored(&world).await == 0 {
            assert!(poll!(&mut refresh).is_pending());
            tokio::task::yield_now().await;
        }
        match timeout_ms {
            0 => world.client().cancel_token().cancel_query(NoTls).await.expect("it is asked to stop"),
            _ => world.clock.pass(Duration::from_millis(timeout_ms)),
        }
        let error = refresh.await.expect_err("it was stopped");
        assert_eq!(error.code().map(|code| code.code()), Some("57014"));
        let put = stored(&world).await;
        assert!(0 < put && put < MANY, "{put} rows");
        world.run("RESET statement_timeout").await;
        assert_eq!(world.value(waiting).await, "0 NULL");
    }
    let mut refresh = pin!(world.client().batch_execute(sql));
    let refreshed = loop {
        if let Poll::Ready(refreshed) = poll!(&mut refresh) {
            break refreshed;
        }
        world.clock.pass(Duration::from_millis(1));
        tokio::task::yield_now().await;
    };
    refreshed.expect("all is put");
    assert_eq!(stored(&world).await, MANY);
    assert_eq!(world.value(waiting).await, "0 NULL");
}

#[tokio::test]
async fn after_a_restart_departures_still_reach_the_store() {
    let mut world = World::at("2026-03-02 10:00:00").await;
    world.run(SETUP).await;
    world.run("INSERT INTO clicks VALUES (1, 1, now()), (2, 4, now() - INTERVAL '30 seconds')").await;
    assert_eq!(level(&world).await, 2);
    world.tick().await;
    // The server brings the store level when it stops.
    world.restart().await;
    assert_eq!(same(&world).await, 2);
    assert_eq!(level(&world).await, 2);
    world.clock.set("2026-03-02 10:04:45");
    assert_eq!(level(&world).await, 2);
    world.clock.set("2026-03-02 10:06:00");
    assert_eq!(level(&world).await, 2);
    // Time that passes while there is no server counts as well.
    let clock = world.clock.clone();
    world.restart_with(move |_| clock.set("2026-03-02 12:00:00")).await;
    assert_eq!(level(&world).await, 0);
}

#[tokio::test]
async fn a_view_that_moved_and_was_dropped_in_a_block_is_back_where_it_was() {
    let world = World::at("2026-03-02 10:00:00").await;
    world.run(SETUP).await;
    world.run("INSERT INTO clicks VALUES (1, 1, now())").await;
    assert_eq!(level(&world).await, 1);
    world.run("BEGIN; ALTER FEATURE VIEW spend SET (online = 'none'); DROP FEATURE VIEW spend; ROLLBACK").await;
    world.run("INSERT INTO clicks VALUES (2, 1, now())").await;
    assert_eq!(level(&world).await, 2);
}
