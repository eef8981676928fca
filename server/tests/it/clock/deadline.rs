//! `tidemark.lookup_deadline`: what is late while the thread that reads keys from the disk has something else to do.

use super::world::World;
use futures::poll;
use std::{pin::pin, sync::mpsc, task::Poll, time::Duration};
use tidemark_engine::{
    seam::Clock,
    value::{Value, encode_row},
};
use tokio::sync::oneshot;

const SETUP: &str = "
    CREATE SOURCE clicks (user_id BIGINT, price DOUBLE PRECISION, at TIMESTAMPTZ NOT NULL, WATERMARK FOR at AS at - INTERVAL '1 minute');
    CREATE FEATURE VIEW lately WITH (key = 'user_id', default.price = -1) AS SELECT user_id, at, price FROM clicks;
";
const ONE: &str = "SELECT price FROM lately WHERE user_id = 1";
const EACH: &str = "SELECT k.user_id, l.price, l._status FROM unnest('{1,2,99}'::bigint[]) AS k (user_id)
    LEFT JOIN lately l ON l.user_id = k.user_id";
const THERE: &str = "SELECT l.price FROM unnest('{1}'::bigint[]) AS k (user_id) JOIN lately l ON l.user_id = k.user_id";

/// Time passes until there is an answer.
async fn in_the_end<T>(world: &World, answer: impl Future<Output = T>) -> T {
    let mut answer = pin!(answer);
    loop {
        if let Poll::Ready(answer) = poll!(answer.as_mut()) {
            return answer;
        }
        world.clock.pass(Duration::from_millis(1));
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_is_not_read_by_the_deadline_is_late_and_is_there_for_who_asks_again() {
    let never = Duration::from_secs(100 * 365 * 86_400);
    let world = World::with("2026-03-02 10:00:00", |settings| {
        (settings.online_tick, settings.checkpoint_interval, settings.commit_interval) = (never, never, never);
        // No key stays in memory, and one thread reads them.
        (settings.state_memory, settings.worker_threads) = (1, Some(1));
    })
    .await;
    world.run(SETUP).await;
    world.run("INSERT INTO clicks VALUES (1, 5, now()), (2, 7, now())").await;
    let view = world.engine().views().pop().expect("one view");
    let in_memory = view.state.look_in_memory(&encode_row(&[Value::Int(1)]), view.now_us(world.clock.now_us()));
    assert_eq!(in_memory.expect("an answer"), None);

    // Time stands still: whatever has to be read is in time.
    let all = ["1 5 present", "2 7 present", "99 -1 missing"];
    world.run("SET tidemark.lookup_deadline = '5ms'").await;
    assert_eq!(world.rows(EACH).await, all);
    assert_eq!((world.value(ONE).await, world.value(THERE).await), ("5".to_string(), "5".to_string()));
    let asked = world.client().query("SELECT price FROM lately WHERE user_id = ANY ($1)", &[&vec![1_i64, 99]]).await;
    assert_eq!(asked.expect("a lookup answers").len(), 1);
    assert_eq!(world.server().database.meters.lookups_late.get(), 0);

    // The thread does something else until it is let go.
    let (release, held) = mpsc::channel::<()>();
    let (enter, entered) = oneshot::channel();
    let mut busy = pin!(world.server().database.queries.work(async move {
        let _ = enter.send(());
        let _ = held.recv();
    }));
    assert!(poll!(busy.as_mut()).is_pending());
    entered.await.expect("it has begun");
    assert_eq!(in_the_end(&world, world.rows(EACH)).await, ["1 -1 late", "2 -1 late", "99 -1 late"]);
    // Without its row there would be no row, as of an entity that nobody has seen.
    assert_eq!(in_the_end(&world, world.refusal(ONE)).await, "57014");
    assert_eq!(in_the_end(&world, world.refusal(THERE)).await, "57014");
    assert_eq!(world.server().database.meters.lookups_late.get(), 5);
    // Who has no deadline reads in the connection's own task.
    world.run("RESET tidemark.lookup_deadline").await;
    assert_eq!(world.rows(EACH).await, all);

    drop(release);
    busy.await.expect("it ends");
    world.run("SET tidemark.lookup_deadline = '5ms'").await;
    assert_eq!(world.rows(EACH).await, all);
    assert_eq!(world.value(ONE).await, "5");
}
