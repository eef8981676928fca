//! What grows old goes: rows of a log after `retention`, dead letters after `dead_letter_retention`, and not before.

use super::world::World;

/// So many rows of a kilobyte: several segments of the log.
const ROWS: usize = 60;

async fn world() -> World {
    World::with("2026-03-02 10:00:00", |settings| {
        let never = std::time::Duration::from_secs(100 * 365 * 86_400);
        (settings.online_tick, settings.checkpoint_interval, settings.commit_interval) = (never, never, never);
        settings.log_segment_bytes = 16 << 10;
    })
    .await
}

/// A day's rows, one INSERT each: an append is never split over segments.
async fn insert(world: &World, day: i64) {
    for n in 0..ROWS {
        world.run(&format!("INSERT INTO clicks VALUES ({day}, {n}, repeat('x', 1000), now())")).await;
    }
}

async fn rows_of(world: &World, day: i64) -> usize {
    world.value(&format!("SELECT count(*) FROM clicks WHERE day = {day}")).await.parse().expect("a number")
}

#[tokio::test]
async fn rows_past_retention_leave_the_log_with_their_segments_and_features_stay() {
    let mut world = world().await;
    world
        .run(
            "CREATE SOURCE clicks (day BIGINT, n BIGINT, filler TEXT, at TIMESTAMPTZ NOT NULL, \
             WATERMARK FOR at AS at - INTERVAL '1 minute') WITH (retention = '36 hours');
             CREATE FEATURE VIEW latest WITH (key = 'day') AS SELECT day, at, n FROM clicks",
        )
        .await;
    let features = "SELECT day, n FROM latest ORDER BY day";
    for day in [2, 3, 4] {
        world.clock.set(&format!("2026-03-0{day} 10:00:00"));
        insert(&world, day).await;
        world.tick().await;
    }
    let all = world.rows(features).await;
    assert_eq!(all, ["2 59", "3 59", "4 59"]);
    // On the fourth those of the second are two days old: their segments are gone, but for the one that they share.
    let second = rows_of(&world, 2).await;
    assert!(second < ROWS / 2, "{second} rows of the second of March are left");
    assert_eq!((rows_of(&world, 3).await, rows_of(&world, 4).await), (ROWS, ROWS));
    // To the microsecond: those of the third may stay for 36 hours.
    world.clock.set("2026-03-04 22:00:00");
    world.tick().await;
    assert_eq!(rows_of(&world, 3).await, ROWS);
    world.clock.set("2026-03-04 22:00:00.000001");
    world.tick().await;
    assert!(rows_of(&world, 3).await < ROWS / 2);
    assert_eq!((rows_of(&world, 2).await, rows_of(&world, 4).await), (0, ROWS));
    assert_eq!(world.rows(features).await, all);
    world.restart().await;
    assert_eq!(world.rows(features).await, all, "after a restart");
    assert_eq!(rows_of(&world, 4).await, ROWS);
    // Longer from now on.
    world.run("ALTER SOURCE clicks SET (retention = '365 days')").await;
    world.clock.set("2026-06-01 00:00:00");
    world.tick().await;
    assert_eq!(rows_of(&world, 4).await, ROWS);
}

#[tokio::test]
async fn a_view_over_an_archived_source_begins_with_what_the_log_has_no_more() {
    let world = world().await;
    let view = |name: &str| format!("CREATE FEATURE VIEW {name} WITH (key = 'day') AS SELECT day, at, n FROM clicks");
    world
        .run(&format!(
            "CREATE SOURCE clicks (day BIGINT, n BIGINT, filler TEXT, at TIMESTAMPTZ NOT NULL, \
             WATERMARK FOR at AS at - INTERVAL '1 minute') WITH (retention = '36 hours', archive = 'iceberg');
             {}",
            view("before")
        ))
        .await;
    for day in [2, 3, 4] {
        world.clock.set(&format!("2026-03-0{day} 10:00:00"));
        insert(&world, day).await;
        world.tick().await;
    }
    world.clock.set("2026-03-04 22:00:00.000001");
    world.tick().await;
    assert_eq!(rows_of(&world, 2).await, 0);
    world.run(&view("later")).await;
    let features = async |view: &str| world.rows(&format!("SELECT day, n FROM {view} ORDER BY day")).await;
    assert_eq!(features("later").await, ["2 59", "3 59", "4 59"]);
    assert_eq!(features("later").await, features("before").await);
    let starts = "SELECT count(DISTINCT history_start) FROM tidemark.feature_views";
    assert_eq!(world.value(starts).await, "1");
}

#[tokio::test]
async fn a_retention_that_may_be_taken_back_makes_nothing_go() {
    let world = world().await;
    world
        .run(
            "CREATE SOURCE clicks (day BIGINT, n BIGINT, filler TEXT, at TIMESTAMPTZ NOT NULL, \
             WATERMARK FOR at AS at - INTERVAL '1 minute')",
        )
        .await;
    insert(&world, 2).await;
    world.clock.set("2026-03-09 10:00:00");
    insert(&world, 9).await;
    world.run("BEGIN; ALTER SOURCE clicks SET (retention = '36 hours'); SAVEPOINT shorter").await;
    world.tick().await;
    world.run("ALTER SOURCE clicks SET (retention = '40 hours'); ROLLBACK TO shorter").await;
    world.tick().await;
    assert_eq!(rows_of(&world, 2).await, ROWS, "the block is open");
    world.run("ROLLBACK").await;
    world.tick().await;
    assert_eq!(rows_of(&world, 2).await, ROWS, "it was taken back");
    world.run("BEGIN; ALTER SOURCE clicks SET (retention = '36 hours')").await;
    world.tick().await;
    assert_eq!(rows_of(&world, 2).await, ROWS, "the block is open");
    world.run("COMMIT").await;
    world.tick().await;
    assert!(rows_of(&world, 2).await < ROWS / 2, "it was committed");
}

#[tokio::test]
async fn without_a_retention_nothing_ever_goes() {
    let world = world().await;
    world
        .run(
            "CREATE SOURCE clicks (day BIGINT, n BIGINT, filler TEXT, at TIMESTAMPTZ NOT NULL, \
             WATERMARK FOR at AS at - INTERVAL '1 minute')",
        )
        .await;
    insert(&world, 2).await;
    world.run("INSERT INTO clicks VALUES (2, 0, 'late', now() - INTERVAL '1 hour')").await;
    world.clock.set("2036-03-02 10:00:00");
    world.tick().await;
    insert(&world, 3).await;
    world.tick().await;
    assert_eq!(rows_of(&world, 2).await, ROWS);
    assert_eq!(world.value("SELECT count(*) FROM tidemark.dead_letters").await, "1");
}

#[tokio::test]
async fn dead_letters_go_after_their_own_retention() {
    let mut world = world().await;
    let create = |name: &str, with: &str| {
        format!(
            "CREATE SOURCE {name} (k BIGINT, at TIMESTAMPTZ NOT NULL, WATERMARK FOR at AS at - INTERVAL '1 minute'){with};
             INSERT INTO {name} VALUES (1, now()), (2, now() - INTERVAL '1 hour')"
        )
    };
    world.run(&create("short", " WITH (dead_letter_retention = '2 days')")).await;
    world.run(&create("long", "")).await;
    world
        .run("CREATE FEATURE VIEW keyed AS SELECT k, at, count(*) OVER (PARTITION BY k ORDER BY at) AS n FROM short")
        .await;
    let letters = "SELECT object, view, reason FROM tidemark.dead_letters ORDER BY object, append_time";
    assert_eq!(world.rows(letters).await, ["long NULL late", "short NULL late"]);
    // A view's letters age as the source's do.
    world.clock.set("2026-03-03 10:00:00");
    world.run("INSERT INTO short VALUES (NULL, now())").await;
    assert_eq!(world.rows(letters).await, ["long NULL late", "short NULL late", "short keyed null_key"]);
    world.clock.set("2026-03-04 10:00:00");
    world.tick().await;
    assert_eq!(world.rows(letters).await, ["long NULL late", "short NULL late", "short keyed null_key"]);
    world.clock.set("2026-03-04 10:00:00.000001");
    world.tick().await;
    assert_eq!(world.rows(letters).await, ["long NULL late", "short keyed null_key"]);
    world.restart().await;
    assert_eq!(world.rows(letters).await, ["long NULL late", "short keyed null_key"], "after a restart");
    world.clock.set("2026-03-05 10:00:00.000001");
    world.tick().await;
    assert_eq!(world.rows(letters).await, ["long NULL late"]);
    // Set afterwards, it holds for what is there.
    world.run("ALTER SOURCE long SET (dead_letter_retention = '1 day')").await;
    world.tick().await;
    assert!(world.rows(letters).await.is_empty());
}
