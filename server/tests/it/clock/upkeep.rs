//! Nobody says OPTIMIZE or VACUUM, and the files of history stay few, while commits and queries go on.

use super::world::World;
use std::time::{Duration, Instant};

/// When the server's turn comes, and then some.
const TURN: Duration = Duration::from_secs(61);

async fn world() -> World {
    // After all times of snapshots, which are by the real clock where an append makes them.
    let world = World::with("2100-01-01 10:00:00", |settings| {
        let never = Duration::from_secs(100 * 365 * 86_400);
        (settings.online_tick, settings.checkpoint_interval, settings.commit_interval) = (never, never, never);
        settings.maintenance = true;
        settings.maintenance_files = 4;
        settings.worker_threads = Some(1);
    })
    .await;
    world
        .run(
            "CREATE SOURCE clicks (user_id BIGINT, at TIMESTAMPTZ NOT NULL, WATERMARK FOR at AS at) WITH (clock = 'event');
             CREATE FEATURE VIEW seen AS SELECT user_id, at, count(*) OVER (PARTITION BY user_id ORDER BY at) AS n FROM clicks",
        )
        .await;
    world
}

/// One commit of history, with two new events.
async fn commit(world: &World, minute: usize) {
    let at = |second| format!("2026-03-02 {:02}:{:02}:{second:02}+00", 10 + minute / 60, minute % 60);
    world.run(&format!("INSERT INTO clicks VALUES (1, '{}'), (2, '{}')", at(0), at(30))).await;
    world.run("CHECKPOINT").await;
}

/// Asks until it is so, on a clock that stands still: what happens by itself happens beside the test.
async fn until(world: &World, what: &str, condition: &str) {
    wait(world, what, condition, Duration::ZERO).await;
}

/// The same while turns go on: the server may just have begun to wait for its next one.
async fn in_a_turn(world: &World, what: &str, condition: &str) {
    wait(world, what, condition, TURN).await;
}

async fn wait(world: &World, what: &str, condition: &str, pass: Duration) {
    let started = Instant::now();
    let mut asked = 0;
    while world.value(&format!("SELECT {condition}")).await != "t" {
        let runs = "SELECT what, files_before, files_after, files_removed, error FROM tidemark.maintenance_runs";
        assert!(started.elapsed() < Duration::from_secs(60), "{what}: {:?}", world.rows(runs).await);
        asked += 1;
        if asked % 32 == 0 {
            world.clock.pass(pass);
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn done(what: &str, times: usize) -> String {
    format!(
        "count(*) >= {times} FROM tidemark.maintenance_runs \
         WHERE view = 'seen' AND what = '{what}' AND ended IS NOT NULL AND error IS NULL AND unasked"
    )
}

/// Each user's events are numbered from 1, and all but the last event of all are final.
async fn assert_whole(world: &World, commits: usize) {
    let wrong = "SELECT count(*) FROM (SELECT n, row_number() OVER (PARTITION BY user_id ORDER BY at) AS nth \
                 FROM history.seen) AS numbered WHERE n <> nth";
    assert_eq!(world.value(wrong).await, "0");
    assert_eq!(world.value("SELECT count(*) FROM history.seen").await, (2 * commits - 1).to_string());
    assert_eq!(world.value("SELECT n FROM seen WHERE user_id = 2").await, commits.to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_files_become_few_and_what_they_were_goes_after_its_time() {
    let mut world = world().await;
    for minute in 0..9 {
        commit(&world, minute).await;
    }
    assert_eq!(world.history_files(), 9);
    assert_eq!(world.value("SELECT surveyed_at IS NULL FROM tidemark.maintenance").await, "t", "it is not its turn");
    world.clock.pass(TURN);
    until(&world, "orphans are looked for after the start", &done("remove orphans", 1)).await;
    until(&world, "nine files become one", &done("compact", 1)).await;
    let runs = "SELECT what, files_before, files_after, bytes_before > bytes_after, started = ended, error \
                FROM tidemark.maintenance_runs WHERE what = 'compact'";
    assert_eq!(world.rows(runs).await, ["compact 9 1 t t NULL"]);
    // What was replaced stays for as long as another engine may read it.
    assert_eq!(world.history_files(), 10);
    assert_whole(&world, 9).await;

    world.clock.pass(Duration::from_secs(3 * 3600));
    let few = "files = 1 AND small_files = 0 AND old_snapshots = 0 AND snapshots = 1 AND running IS NULL \
               FROM tidemark.maintenance WHERE view = 'seen'";
    in_a_turn(&world, "old snapshots expire", &done("expire snapshots", 2)).await;
    in_a_turn(&world, "one file in one snapshot", few).await;
    assert_eq!(world.history_files(), 1);
    assert_whole(&world, 9).await;
    world.restart().await;
    assert_whole(&world, 9).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_stay_few_while_commits_and_queries_go_on() {
    const COMMITS: usize = 40;
    let world = world().await;
    for minute in 0..COMMITS {
        commit(&world, minute).await;
        // Sometimes before the last turn has ended.
        world.clock.pass(if minute % 8 == 7 { Duration::from_secs(2 * 3600) } else { TURN });
        assert_eq!(world.value("SELECT n FROM seen WHERE user_id = 1").await, (minute + 1).to_string());
        assert_eq!(world.value("SELECT count(*) FROM history.seen").await, (2 * minute + 1).to_string());
    }
    let settled = "files < 12 AND small_files = 0 FROM tidemark.maintenance WHERE view = 'seen'";
    in_a_turn(&world, "files are few", settled).await;
    assert_eq!(world.value("SELECT last_error FROM tidemark.maintenance").await, "NULL");
    assert_whole(&world, COMMITS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_reads_on_though_the_snapshot_that_it_reads_has_expired() {
    let world = world().await;
    for minute in 0..30 {
        commit(&world, minute).await;
    }
    world.run("BEGIN").await;
    world.run("DECLARE c CURSOR FOR SELECT user_id, at, n FROM history.seen").await;
    let mut read = world.rows("FETCH 1 FROM c").await.len();
    world.clock.pass(TURN);
    until(&world, "thirty files become one", &done("compact", 1)).await;
    world.clock.pass(Duration::from_secs(3 * 3600));
    in_a_turn(&world, "their snapshots expire", &done("expire snapshots", 1)).await;
    read += world.rows("FETCH ALL FROM c").await.len();
    world.run("COMMIT").await;
    assert_eq!(read, 59);
    assert_whole(&world, 30).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_it_is_off_nothing_happens_by_itself() {
    let mut world = world().await;
    world.restart_with(|settings| settings.maintenance = false).await;
    for minute in 0..6 {
        commit(&world, minute).await;
        world.clock.pass(Duration::from_secs(86_400));
    }
    assert_eq!(world.history_files(), 6);
    assert!(world.rows("SELECT * FROM tidemark.maintenance_runs").await.is_empty());
    // Asked for, it does.
    world.run("OPTIMIZE history.seen").await;
    assert_eq!(world.rows("SELECT what, unasked FROM tidemark.maintenance_runs").await, ["OPTIMIZE f"]);
}
