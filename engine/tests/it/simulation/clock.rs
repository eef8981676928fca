//! The clock that only the simulation moves.

use futures::future::BoxFuture;
use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};
use tidemark_engine::seam::Clock;

pub struct SimClock(AtomicI64);

impl SimClock {
    pub fn at(us: i64) -> SimClock {
        SimClock(AtomicI64::new(us))
    }

    pub fn move_on(&self, us: i64) {
        self.0.fetch_add(us, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now_us(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }

    fn random(&self) -> u64 {
        0
    }

    fn spawn(&self, name: &'static str, _: BoxFuture<'static, ()>) {
        panic!("{name}: the engine starts nothing by itself");
    }
}
