//! Training sets through time: what becomes final, restarts, and rows that retention takes.

use super::world::World;
use std::time::Duration;

/// Feature view, labels, and the query that joins them.
const DEFINITIONS: &str =
    "CREATE SOURCE clicks (user_id BIGINT, at TIMESTAMPTZ NOT NULL, WATERMARK FOR at AS at - INTERVAL '1 minute')
       WITH (idle_timeout = '30 seconds');
     CREATE FEATURE VIEW counts AS SELECT user_id, at, count(*) OVER (PARTITION BY user_id ORDER BY at \
       RANGE INTERVAL '5 minutes' PRECEDING) AS n FROM clicks;
     CREATE TABLE labels (id INTEGER, user_id BIGINT, t TIMESTAMPTZ)";
const CREATE: &str = "CREATE TRAINING SET train AS SELECT l.id, c.n, now() AS made FROM labels l \
     ASOF LEFT JOIN counts c ON l.user_id = c.user_id AND l.t >= c.at";
const ROWS: &str = "SELECT id, n, made FROM train ORDER BY id";
/// The logs of clicks, labels and the training set.
const LOGS: usize = 3;

/// What goes is removed beside the statement.
async fn has_logs(world: &World, logs: usize) {
    while world.engine().sources().len() > logs {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.engine().sources().len(), logs);
}

#[tokio::test]
async fn a_set_outlives_restarts_and_is_the_same_as_recorded_whatever_has_come_since() {
    let mut world = World::at("2026-03-02 10:00:00").await;
    world.run(DEFINITIONS).await;
    world.run("INSERT INTO clicks VALUES (1, now() - INTERVAL '10 minutes'), (1, now())").await;
    world.run("INSERT INTO labels VALUES (1, 1, now() - INTERVAL '9 minutes'), (2, 1, now())").await;
    // The frontier is a minute behind; nothing is left of what was begun.
    assert_eq!(world.refusal(CREATE).await, "55000");
    has_logs(&world, LOGS - 1).await;
    // Time makes it final.
    world.clock.set("2026-03-02 10:05:00");
    world.tick().await;
    world.run(CREATE).await;
    let rows = ["1 1 2026-03-02 10:05:00+00", "2 1 2026-03-02 10:05:00+00"];
    assert_eq!(world.rows(ROWS).await, rows);
    world.restart().await;
    assert_eq!(world.rows(ROWS).await, rows);
    // Another label and another click do not show.
    world
        .run("INSERT INTO labels VALUES (3, 1, now() - INTERVAL '4 minutes'); INSERT INTO clicks VALUES (1, now())")
        .await;
    world.run("REFRESH TRAINING SET train AS RECORDED").await;
    has_logs(&world, LOGS).await;
    assert_eq!(world.rows(ROWS).await, rows);
    world.restart().await;
    has_logs(&world, LOGS).await;
    assert_eq!(world.rows(ROWS).await, rows);
    // By what there is now they do.
    world.clock.pass(Duration::from_secs(60));
    world.run("REFRESH TRAINING SET train").await;
    let rows = ["1 1 2026-03-02 10:06:00+00", "2 1 2026-03-02 10:06:00+00", "3 1 2026-03-02 10:06:00+00"];
    assert_eq!(world.rows(ROWS).await, rows);
    world.run("DROP TRAINING SET train").await;
    has_logs(&world, LOGS - 1).await;
}

#[tokio::test]
async fn a_set_whose_rows_retention_has_removed_stays_and_is_not_computed_as_recorded() {
    let world = World::with("2026-03-02 10:00:00", |settings| {
        let never = Duration::from_secs(100 * 365 * 86_400);
        (settings.online_tick, settings.checkpoint_interval, settings.commit_interval) = (never, never, never);
        settings.log_segment_bytes = 16 << 10;
    })
    .await;
    world
        .run(
            "CREATE SOURCE clicks (n BIGINT, filler TEXT, at TIMESTAMPTZ NOT NULL, WATERMARK FOR at AS at) \
             WITH (retention = '36 hours')",
        )
        .await;
    for n in 0..60 {
        world.run(&format!("INSERT INTO clicks VALUES ({n}, repeat('x', 1000), now())")).await;
    }
    world.run("CREATE TRAINING SET numbers AS SELECT n FROM clicks").await;
    world.run("REFRESH TRAINING SET numbers AS RECORDED").await;
    world.clock.set("2026-03-05 10:00:00");
    world.run("INSERT INTO clicks VALUES (60, '', now())").await;
    world.tick().await;
    assert_ne!(world.value("SELECT count(*) FROM clicks").await, "61", "retention has removed something");
    assert_eq!(world.refusal("REFRESH TRAINING SET numbers AS RECORDED").await, "55000");
    assert_eq!(world.value("SELECT count(*), sum(n) FROM numbers").await, "60 1770");
}
