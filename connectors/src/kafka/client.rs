//! Clients of librdkafka as they are held here: their end keeps no task waiting, and nothing they say goes past us.

use rdkafka::{ClientContext, config::RDKafkaLogLevel, consumer::ConsumerContext, error::KafkaError as ClientError};
use std::{
    ops::Deref,
    sync::{Arc, mpsc},
};

/// A client. To end it is to wait for librdkafka's threads, and for what a producer still has: a tenth of a second when all is
/// well, more when no broker answers. Let go of in a task, it ends on a thread that may block.
pub(super) struct Held<T: Send + Sync + 'static> {
    client: Arc<T>,
    /// After `client`, for fields go in their order: whoever waits at the other end lets go of the client last.
    let_go: Option<mpsc::Sender<()>>,
}

impl<T: Send + Sync + 'static> Held<T> {
    pub fn new(client: T) -> Held<T> {
        Held { client: Arc::new(client), let_go: None }
    }
}

impl<T: Send + Sync + 'static> Deref for Held<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.client
    }
}

impl<T: Send + Sync + 'static> Drop for Held<T> {
    fn drop(&mut self) {
        // Outside of any task it may end here.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (let_go, gone) = mpsc::channel();
        let last = self.client.clone();
        #[allow(clippy::disallowed_methods, reason = "librdkafka ends by blocking; it does end")]
        let _ending = runtime.spawn_blocking(move || {
            // An error: that is what it waits for.
            let _ = gone.recv();
            drop(last);
        });
        self.let_go = Some(let_go);
    }
}

/// What consumers have to say beside records. Whoever reads says in the log what is wrong, once in a while (`feed.rs`); the
/// crate's own context would say it with every try.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, text: &str) {
        tracing::debug!(target: "librdkafka", facility, text);
    }

    fn error(&self, error: ClientError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, reason);
    }
}

impl ConsumerContext for Quiet {}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use tokio::sync::oneshot;

    /// A client that ends when it is told to.
    struct Slow {
        told: Mutex<mpsc::Receiver<()>>,
        ended: Mutex<Option<oneshot::Sender<()>>>,
    }

    impl Drop for Slow {
        fn drop(&mut self) {
            let _ = self.told.lock().recv();
            if let Some(ended) = self.ended.lock().take() {
                let _ = ended.send(());
            }
        }
    }

    #[tokio::test]
    async fn the_end_of_a_client_keeps_no_task_waiting() {
        let (tell, told) = mpsc::channel();
        let (ended, has_ended) = oneshot::channel();
        // Would it end here, nobody could tell it to.
        drop(Held::new(Slow { told: Mutex::new(told), ended: Mutex::new(Some(ended)) }));
        tell.send(()).expect("it is still there");
        has_ended.await.expect("it ends");
    }
}
