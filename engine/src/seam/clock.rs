//! Time, chance and tasks. The only way to any of them: clippy's `disallowed-methods` points here.

use futures::future::BoxFuture;
use std::time::Duration;

pub trait Clock: Send + Sync + 'static {
    /// Microseconds since 1970, UTC; never less than a value already returned by this clock.
    fn now_us(&self) -> i64;

    /// Completes after `duration`.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;

    /// A uniformly random number.
    fn random(&self) -> u64;

    /// Runs a task beside the caller until it ends; `name` is for logs.
    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>);
}
