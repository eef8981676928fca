//! The real clock: the wall clock, the operating system's randomness and tokio's timer and tasks. The only file of
//! the program that may call them.
#![allow(clippy::disallowed_methods, reason = "this is what they are to be replaced with")]

use futures::FutureExt;
use futures::future::BoxFuture;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tidemark_engine::seam::Clock;
use tokio::runtime::Handle;

/// Follows the wall clock, and stands still where that is set back until it has caught up.
#[derive(Debug)]
pub struct SystemClock {
    /// The greatest value returned.
    last_us: AtomicI64,
    runtime: Handle,
}

impl SystemClock {
    /// Tasks run on `runtime`, from whatever thread they are spawned.
    pub fn new(runtime: Handle) -> SystemClock {
        SystemClock { last_us: AtomicI64::new(0), runtime }
    }
}

impl Clock for SystemClock {
    fn now_us(&self) -> i64 {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall = i64::try_from(wall.as_micros()).unwrap_or(i64::MAX);
        self.last_us.fetch_max(wall, Ordering::AcqRel).max(wall)
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        // Inside, because the timer is found by the runtime that polls it.
        async move { tokio::time::sleep(duration).await }.boxed()
    }

    fn random(&self) -> u64 {
        rand::random()
    }

    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) {
        self.runtime.spawn(async move {
            if AssertUnwindSafe(task).catch_unwind().await.is_err() {
                tracing::error!(task = name, "a task panicked");
            }
        });
    }
}
