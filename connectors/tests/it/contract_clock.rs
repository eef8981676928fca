//! What every `Clock` keeps to.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tidemark_connectors::clock::SystemClock;
use tidemark_engine::seam::Clock;

async fn clock_contract(clock: Arc<dyn Clock>) {
    // Never less than a value already returned, whichever thread asks.
    let threads = (0..4).map(|_| {
        let clock = clock.clone();
        std::thread::spawn(move || {
            let mut last = clock.now_us();
            for _ in 0..10_000 {
                let now = clock.now_us();
                assert!(now >= last, "{now} after {last}");
                last = now;
            }
            last
        })
    });
    let latest = threads.collect::<Vec<_>>().into_iter().map(|t| t.join().expect("a thread")).max();
    assert!(Some(clock.now_us()) >= latest);

    // A sleep takes at least as long as it says, by the same clock. (A wall clock may be set back; it stands then.)
    let before = clock.now_us();
    clock.sleep(Duration::from_millis(20)).await;
    assert!(clock.now_us() >= before);

    let numbers = (0..100).map(|_| clock.random()).collect::<HashSet<_>>();
    assert!(numbers.len() > 95, "random numbers repeat: {numbers:?}");

    // A task runs beside its caller, and one that panics takes nothing down.
    clock.spawn("panics", Box::pin(async { panic!("on purpose, in a test") }));
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let (clock_of_task, spawner) = (clock.clone(), clock.clone());
    // From a thread that knows no runtime.
    std::thread::spawn(move || {
        let task = async move {
            clock_of_task.sleep(Duration::from_millis(1)).await;
            let _ = sender.send(7);
        };
        spawner.spawn("sends", Box::pin(task));
    });
    assert_eq!(receiver.await, Ok(7));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_system_clock_keeps_the_contract() {
    clock_contract(Arc::new(SystemClock::new(tokio::runtime::Handle::current()))).await;
}
