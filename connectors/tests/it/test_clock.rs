//! The clock of these tests: it stands still, and its chance is a counter.

use futures::future::BoxFuture;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tidemark_engine::seam::Clock;

/// Two stores given the same seed draw the same numbers.
pub struct TestClock(AtomicU64);

impl TestClock {
    pub fn seeded(seed: u64) -> Arc<dyn Clock> {
        Arc::new(TestClock(AtomicU64::new(seed)))
    }
}

impl Clock for TestClock {
    fn now_us(&self) -> i64 {
        0
    }

    fn sleep(&self, _duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    fn random(&self) -> u64 {
        // A multiplicative step spreads the counter over all bits.
        self.0.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn spawn(&self, _name: &'static str, _task: BoxFuture<'static, ()>) {}
}
