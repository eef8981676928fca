//! A feature view over a source that follows the server's clock.

use super::world::World;
use std::time::Duration;

const CLICKS: &str = "CREATE SOURCE clicks (user_id BIGINT, price DOUBLE PRECISION, at TIMESTAMPTZ NOT NULL, \
     WATERMARK FOR at AS at - INTERVAL '1 minute') WITH (idle_timeout = '30 seconds')";
const SPEND: &str = "CREATE FEATURE VIEW spend WITH (ttl = '1 hour') AS \
     SELECT user_id, at, count(*) OVER m5 AS n, sum(price) OVER m5 AS total, now() - max(at) OVER m5 AS since FROM clicks \
     WINDOW m5 AS (PARTITION BY user_id ORDER BY at RANGE INTERVAL '5 minutes' PRECEDING)";
const LOOKUP: &str = "SELECT at, n, total, since FROM spend WHERE user_id = 1";
/// The same answered by a plan: not a lookup.
const SCAN: &str = "SELECT at, n, total, since FROM spend WHERE user_id + 0 = 1";
const HISTORY: &str = "SELECT at, n, total, _op FROM history.spend WHERE user_id = 1 ORDER BY at";

async fn world(time: &str) -> World {
    let world = World::at(time).await;
    world.run(CLICKS).await;
    world.run(SPEND).await;
    world
}

/// Looked up, scanned, as of now, and as of now by the training join.
async fn reads(world: &World, expected: &[&str]) {
    for sql in [LOOKUP, SCAN] {
        assert_eq!(world.rows(sql).await, expected, "{sql}");
    }
    let now = world.value("SELECT now()").await;
    let as_of =
        format!("SELECT at, n, total, since FROM spend FOR SYSTEM_TIME AS OF TIMESTAMPTZ '{now}' WHERE user_id = 1");
    assert_eq!(world.rows(&as_of).await, expected, "{as_of}");
    let joined = format!(
        "SELECT f.at, f.n, f.total, f.since FROM (VALUES (1::bigint, TIMESTAMPTZ '{now}')) AS s (user_id, t) \
         ASOF JOIN spend f ON s.user_id = f.user_id AND s.t >= f.at"
    );
    assert_eq!(world.rows(&joined).await, expected, "{joined}");
}

#[tokio::test]
async fn windows_decay_and_keys_expire_though_nothing_happens() {
    let world = world("2026-03-02 10:00:00").await;
    world.run("INSERT INTO clicks VALUES (1, 1, now()), (1, 2, now() - INTERVAL '30 seconds')").await;
    reads(&world, &["2026-03-02 10:00:00+00 2 3 00:00:00"]).await;
    // Both ends of the window count.
    world.clock.set("2026-03-02 10:04:30");
    reads(&world, &["2026-03-02 10:00:00+00 2 3 00:04:30"]).await;
    world.clock.set("2026-03-02 10:04:30.000001");
    reads(&world, &["2026-03-02 10:04:30.000001+00 1 1 00:04:30.000001"]).await;
    world.clock.set("2026-03-02 10:05:00.000001");
    reads(&world, &["2026-03-02 10:05:00.000001+00 0 NULL NULL"]).await;
    // The time to live is the server's time too.
    world.clock.set("2026-03-02 11:00:00");
    reads(&world, &["2026-03-02 10:05:00.000001+00 0 NULL NULL"]).await;
    world.clock.set("2026-03-02 11:00:00.000001");
    reads(&world, &[]).await;
    assert_eq!(world.value("SELECT count(*) FROM spend").await, "0");
    // What was is still there to be read.
    let before =
        "SELECT n, total FROM spend FOR SYSTEM_TIME AS OF TIMESTAMPTZ '2026-03-02 10:04:00+00' WHERE user_id = 1";
    assert_eq!(world.rows(before).await, ["2 3"]);
    // A new life.
    world.run("INSERT INTO clicks VALUES (1, 8, now())").await;
    reads(&world, &["2026-03-02 11:00:00.000001+00 1 8 00:00:00"]).await;
}

#[tokio::test]
async fn a_lookup_over_each_protocol_reads_the_clock_once_for_each_statement() {
    let world = world("2026-03-02 10:00:00").await;
    world.run("INSERT INTO clicks VALUES (1, 1, now())").await;
    // Prepared once; time goes on between the executions.
    world.run("PREPARE one (bigint) AS SELECT n, since FROM spend WHERE user_id = $1").await;
    assert_eq!(world.rows("EXECUTE one (1)").await, ["1 00:00:00"]);
    world.clock.set("2026-03-02 10:05:00");
    assert_eq!(world.rows("EXECUTE one (1)").await, ["1 00:05:00"]);
    world.clock.set("2026-03-02 10:06:00");
    assert_eq!(world.rows("EXECUTE one (1)").await, ["0 NULL"]);
    assert_eq!(world.rows("SELECT a.n = b.n AS same, now() = now() AS one FROM spend a, spend b").await, ["t t"]);
}

#[tokio::test]
async fn an_event_half_an_hour_ahead_is_hidden_until_its_time_and_moves_no_watermark_beyond_the_clock() {
    let world = world("2026-03-02 10:00:00").await;
    world.run("INSERT INTO clicks VALUES (1, 4, TIMESTAMPTZ '2026-03-02 10:30:00+00')").await;
    reads(&world, &[]).await;
    assert_eq!(world.value("SELECT count(*) FROM clicks").await, "1");
    // min(event time, append time) less the delay: not 10:29.
    let watermark = "SELECT watermark FROM tidemark.sources WHERE name = 'clicks'";
    assert_eq!(world.value(watermark).await, "2026-03-02 09:59:00+00");
    // So what others send at the right time is not late; what lies below the watermark is.
    world
        .run("INSERT INTO clicks VALUES (1, 1, TIMESTAMPTZ '2026-03-02 09:59:00+00'), (1, 2, TIMESTAMPTZ '2026-03-02 09:58:59.999999+00')")
        .await;
    reads(&world, &["2026-03-02 09:59:00+00 1 1 00:01:00"]).await;
    // More than `max_ahead`, an hour, is refused; an hour is not.
    world
        .run("INSERT INTO clicks VALUES (1, 8, now() + INTERVAL '1 hour 1 microsecond'), (2, 8, now() + INTERVAL '1 hour')")
        .await;
    assert_eq!(
        world.rows("SELECT reason, payload ->> 'price' FROM tidemark.dead_letters ORDER BY \"offset\"").await,
        ["late 2.0", "future 8.0"]
    );
    world.clock.set("2026-03-02 10:29:59.999999");
    assert_eq!(world.rows("SELECT n FROM spend WHERE user_id = 1").await, ["0"]);
    world.clock.set("2026-03-02 10:30:00");
    reads(&world, &["2026-03-02 10:30:00+00 1 4 00:00:00"]).await;
    world.clock.set("2026-03-02 10:35:00.000001");
    assert_eq!(world.rows("SELECT n FROM spend WHERE user_id = 1").await, ["0"]);
    assert_eq!(world.rows("SELECT user_id FROM spend").await, ["1"], "user 2 has no event before 11:00");
    // As of an instant before it, the event ahead does not show either.
    let before = "SELECT n FROM spend FOR SYSTEM_TIME AS OF TIMESTAMPTZ '2026-03-02 10:29:00+00' WHERE user_id = 1";
    assert_eq!(world.rows(before).await, ["0"]);
}

#[tokio::test]
async fn a_silent_source_moves_its_frontier_with_the_clock_and_history_follows() {
    let mut world = world("2026-03-02 10:00:00").await;
    world.run("INSERT INTO clicks VALUES (1, 1, now())").await;
    let frontier = "SELECT frontier FROM tidemark.feature_views WHERE name = 'spend'";
    // Silent for less than `idle_timeout`: the last event decides.
    world.clock.set("2026-03-02 10:00:29.999999");
    world.tick().await;
    assert_eq!(world.value(frontier).await, "2026-03-02 09:59:00+00");
    assert!(world.rows(HISTORY).await.is_empty());
    // From then on, now less the delay.
    world.clock.set("2026-03-02 10:00:30");
    world.tick().await;
    assert_eq!(world.value(frontier).await, "2026-03-02 09:59:30+00");
    assert!(world.rows(HISTORY).await.is_empty());
    world.clock.set("2026-03-02 10:06:30");
    world.tick().await;
    assert_eq!(world.value(frontier).await, "2026-03-02 10:05:30+00");
    let steps = ["2026-03-02 10:00:00+00 1 1 upsert", "2026-03-02 10:05:00.000001+00 0 NULL upsert"];
    assert_eq!(world.rows(HISTORY).await, steps);
    // What comes below it now is late: history does not change.
    world
        .run("INSERT INTO clicks VALUES (1, 2, TIMESTAMPTZ '2026-03-02 10:05:29.999999+00'), (1, 4, TIMESTAMPTZ '2026-03-02 10:05:30+00')")
        .await;
    assert_eq!(world.rows("SELECT reason, payload ->> 'price' FROM tidemark.dead_letters").await, ["late 2.0"]);
    reads(&world, &["2026-03-02 10:05:30+00 1 4 00:01:00"]).await;
    // A replay repeats the moves: they are in the log.
    world.restart().await;
    assert_eq!(world.value(frontier).await, "2026-03-02 10:05:30+00");
    assert_eq!(world.rows(HISTORY).await, steps);
    reads(&world, &["2026-03-02 10:05:30+00 1 4 00:01:00"]).await;
    // And at last the end of the key.
    world.clock.set("2026-03-02 11:10:00");
    world.tick().await;
    assert_eq!(
        world.rows(HISTORY).await[2..],
        [
            "2026-03-02 10:05:30+00 1 4 upsert",
            "2026-03-02 10:10:30.000001+00 0 NULL upsert",
            "2026-03-02 11:05:30.000001+00 NULL NULL delete"
        ]
    );
}

#[tokio::test]
async fn a_quiet_source_without_anything_due_still_keeps_its_frontier_near_the_clock() {
    let world = world("2026-03-02 10:00:00").await;
    world.run("INSERT INTO clicks VALUES (1, 1, now())").await;
    world.clock.set("2026-03-02 12:00:00");
    world.tick().await;
    let frontier = "SELECT frontier FROM tidemark.feature_views WHERE name = 'spend'";
    assert_eq!(world.value(frontier).await, "2026-03-02 11:59:00+00");
    // Nothing waits for it any more, so it is recorded every `idle_timeout`, not at every tick.
    for second in 1..30 {
        world.clock.set(&format!("2026-03-02 12:00:{second:02}"));
        world.tick().await;
        world.engine().advance_idle_in_time().await.expect("idle sources move on");
    }
    assert_eq!(world.value(frontier).await, "2026-03-02 11:59:00+00");
    world.clock.set("2026-03-02 12:00:30");
    world.engine().advance_idle_in_time().await.expect("idle sources move on");
    assert_eq!(world.value(frontier).await, "2026-03-02 11:59:30+00");
    // A short one is heeded, down to once a second; a long one still moves once a minute.
    for (timeout, moments) in [
        ("2 seconds", [("12:10:02", "12:09:02"), ("12:10:03", "12:09:02"), ("12:10:04", "12:09:04")]),
        ("1 millisecond", [("12:20:00", "12:19:00"), ("12:20:00.9", "12:19:00"), ("12:20:01", "12:19:01")]),
        ("5 minutes", [("12:40:00", "12:39:00"), ("12:40:59", "12:39:00"), ("12:41:00", "12:40:00")]),
    ] {
        world.run(&format!("ALTER SOURCE clicks SET (idle_timeout = '{timeout}')")).await;
        for (at, moved) in moments {
            world.clock.set(&format!("2026-03-02 {at}"));
            world.engine().advance_idle_in_time().await.expect("idle sources move on");
            assert_eq!(world.value(frontier).await, format!("2026-03-02 {moved}+00"), "{timeout} at {at}");
        }
    }
}

#[tokio::test]
async fn as_of_reads_up_to_now_by_the_servers_clock_and_no_further() {
    let world = world("2026-03-02 10:00:00").await;
    world.run("INSERT INTO clicks VALUES (1, 1, now())").await;
    world.clock.set("2026-03-02 10:07:00");
    let as_of = |time: &str| {
        format!("SELECT n FROM spend FOR SYSTEM_TIME AS OF TIMESTAMPTZ '2026-03-02 {time}+00' WHERE user_id = 1")
    };
    let expected: [(&str, &[&str]); 4] =
        [("10:00:00", &["1"]), ("10:05:00", &["1"]), ("10:05:00.000001", &["0"]), ("10:07:00", &["0"])];
    // Above the frontier, and below it.
    for _ in 0..2 {
        for (time, rows) in expected {
            assert_eq!(world.rows(&as_of(time)).await, rows, "{time}");
        }
        // Not after now, and not before the view's history.
        assert_eq!(world.refusal(&as_of("10:07:00.000001")).await, "22023");
        assert_eq!(world.refusal(&as_of("09:59:59.999999")).await, "22023");
        world.tick().await;
    }
    assert_eq!(world.value("SELECT count(*) FROM history.spend").await, "2");
}

#[tokio::test]
async fn the_servers_own_background_moves_what_is_silent_into_history() {
    let world = World::with("2026-03-02 10:00:00", |_| ()).await;
    world.run(CLICKS).await;
    world.run(SPEND).await;
    world.run("INSERT INTO clicks VALUES (1, 1, now())").await;
    // Nobody asks for a checkpoint: time passes and that is all.
    for _ in 0..10_000 {
        world.clock.pass(Duration::from_secs(1));
        if world.rows(HISTORY).await.len() >= 2 {
            break;
        }
    }
    assert_eq!(
        world.rows(HISTORY).await[..2],
        ["2026-03-02 10:00:00+00 1 1 upsert", "2026-03-02 10:05:00.000001+00 0 NULL upsert"]
    );
}
