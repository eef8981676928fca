//! History in a directory of its own: it is there, it is all there after a restart, and a start that would leave it behind fails.

use super::world::World;
use std::path::PathBuf;
use tidemark_server::serve;

#[tokio::test(flavor = "multi_thread")]
async fn history_is_in_the_warehouse_and_goes_on_after_a_restart() {
    let (mut data, mut warehouse) = (PathBuf::new(), PathBuf::new());
    let mut world = World::with("2026-03-02 10:00:00", |settings| {
        let never = std::time::Duration::from_secs(100 * 365 * 86_400);
        (settings.online_tick, settings.checkpoint_interval, settings.commit_interval) = (never, never, never);
        data = settings.data.clone();
        warehouse = data.with_file_name("history on another disk");
        settings.warehouse = Some(warehouse.clone());
    })
    .await;
    world
        .run(
            "CREATE SOURCE clicks (u BIGINT NOT NULL, at TIMESTAMPTZ NOT NULL, WATERMARK FOR at AS at)
                 WITH (clock = 'event');
             CREATE FEATURE VIEW counted AS SELECT u, at, count(*) OVER w AS n FROM clicks
                 WINDOW w AS (PARTITION BY u ORDER BY at ROWS BETWEEN 9 PRECEDING AND CURRENT ROW);
             INSERT INTO clicks VALUES (1, '2026-03-01 10:00:00Z'), (1, '2026-03-01 11:00:00Z'),
                 (2, '2026-03-01 12:00:00Z');
             CHECKPOINT",
        )
        .await;
    let steps = "SELECT u, n FROM history.counted ORDER BY at";
    let before = world.rows(steps).await;
    assert!(before.len() >= 2, "{before:?}");
    let tables = std::fs::read_dir(warehouse.join("public")).expect("tables are in the warehouse").count();
    assert_eq!(tables, 1);
    assert!(!data.join("warehouse").exists());

    world.restart().await;
    assert_eq!(world.rows(steps).await, before);
    world.run("INSERT INTO clicks VALUES (1, '2026-03-01 13:00:00Z'), (2, '2026-03-01 14:00:00Z'); CHECKPOINT").await;
    let after = world.rows(steps).await;
    assert_eq!(after[..before.len()], before);
    assert!(after.len() > before.len(), "{after:?}");
    // Both keep to the files of this warehouse.
    world.run("OPTIMIZE history.counted").await;
    world.run("VACUUM history.counted RETAIN '0 seconds'").await;
    assert_eq!(world.rows(steps).await, after);

    // Without the setting the start would begin an empty history.
    let (running, client) = world.take();
    drop(client);
    running.shutdown().await.expect("it stops");
    let settings = tidemark_server::settings::Settings {
        listen: "127.0.0.1:0".parse().expect("an address"),
        http: tidemark_server::settings::Http::Off,
        data,
        ..Default::default()
    };
    let refused = serve::start_on(&settings, world.clock.clone()).await.err().expect("it does not start");
    assert!(format!("{refused:#}").contains("start the server with --warehouse"), "{refused:#}");
}
