//! Whatever is sent as a statement is planned or refused with a reason: no panic, no error of ours (XX000), no stack that is too small.
//! Over the small catalog of the server's own tests.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::{
    sync::{
        LazyLock, Mutex,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};
use world::World;

#[allow(dead_code)] // what other tests ask of it
#[path = "../../server/tests/it/system/catalog.rs"]
mod catalog;
#[allow(dead_code)]
#[path = "../../server/tests/it/front/world.rs"]
mod world;

/// Where `world` looks for it.
mod system {
    pub use crate::catalog;
}

/// What a server's threads have.
const STACK_BYTES: usize = 64 << 20;

/// Statements go to a thread with a server's stack, one after the other. A panic there ends the process, as one here does.
static PLANNER: LazyLock<Mutex<(SyncSender<String>, Receiver<()>)>> = LazyLock::new(|| {
    let (ask, asked) = sync_channel::<String>(0);
    let (answer, answered) = sync_channel(0);
    let planner = move || {
        let world = World::browsed();
        for sql in asked {
            check(&world, &sql);
            if answer.send(()).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().stack_size(STACK_BYTES).spawn(planner).expect("a thread starts");
    Mutex::new((ask, answered))
});

fuzz_target!(|bytes: &[u8]| {
    let Ok(sql) = std::str::from_utf8(bytes) else { return };
    let planner = PLANNER.lock().expect("the thread goes on");
    planner.0.send(sql.to_string()).expect("the thread goes on");
    planner.1.recv().expect("the thread goes on");
});

fn check(world: &World, sql: &str) {
    if let Err(error) = world.plan(sql) {
        let is_given = error.sqlstate.len() == 5 && error.sqlstate != "XX000" && !error.message.is_empty();
        assert!(is_given, "{}: {}", error.sqlstate, error.message);
    }
}
