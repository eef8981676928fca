//! Where queries run: on threads of their own. An operator may compute for seconds without giving way; on the threads that
//! serve connections it would hold up every lookup, and its own cancellation.
#![allow(clippy::disallowed_methods, reason = "a query's tasks belong to its own runtime, and end with it")]

use arrow::{datatypes::SchemaRef, record_batch::RecordBatch};
use datafusion::{
    error::{DataFusionError, Result},
    execution::TaskContext,
    physical_plan::{ExecutionPlan, SendableRecordBatchStream, execute_stream, stream::RecordBatchStreamAdapter},
};
use futures::{StreamExt, stream};
use std::{io, sync::Arc};
use tokio::{
    runtime::{Builder, Runtime},
    sync::mpsc,
    task::JoinHandle,
};

/// Batches computed ahead of the client: one on its way, one being made.
const BATCHES_AHEAD: usize = 1;

pub struct Queries {
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
}

impl Queries {
    pub fn new(threads: usize) -> io::Result<Queries> {
        let runtime = Builder::new_multi_thread().worker_threads(threads).thread_name("query").enable_all().build()?;
        Ok(Queries { runtime: Some(runtime) })
    }

    /// Runs a plan; dropping the stream stops it as soon as it gives way.
    pub fn run(&self, plan: Arc<dyn ExecutionPlan>, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let Some(runtime) = &self.runtime else { return Err(DataFusionError::Execution("the server stops".into())) };
        let schema: SchemaRef = plan.schema();
        let (sender, receiver) = mpsc::channel(BATCHES_AHEAD);
        let task = runtime.spawn(async move {
            let mut batches = match execute_stream(plan, context) {
                Ok(batches) => batches,
                Err(error) => {
                    let _ = sender.send(Err(error)).await;
                    return;
                }
            };
            while let Some(batch) = batches.next().await {
                if sender.send(batch).await.is_err() {
                    return;
                }
            }
        });
        let batches = stream::unfold(Running { receiver, task: Task(task) }, Running::next);
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }

    /// Does other long work there; dropping the future stops it as soon as it gives way.
    pub async fn work<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Result<T> {
        let Some(runtime) = &self.runtime else { return Err(DataFusionError::Execution("the server stops".into())) };
        let mut task = Task(runtime.spawn(work));
        (&mut task.0).await.map_err(|error| match error.is_panic() {
            true => DataFusionError::Internal("the statement panicked".into()),
            false => DataFusionError::Execution("the server stops".into()),
        })
    }
}

impl Drop for Queries {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waits for nobody: whoever reads has gone.
            runtime.shutdown_background();
        }
    }
}

struct Running {
    receiver: mpsc::Receiver<Result<RecordBatch>>,
    task: Task<()>,
}

impl Running {
    async fn next(mut self) -> Option<(Result<RecordBatch>, Running)> {
        if let Some(batch) = self.receiver.recv().await {
            return Some((batch, self));
        }
        match (&mut self.task.0).await {
            Err(error) if error.is_panic() => {
                let error = DataFusionError::Internal("the query panicked".into());
                self.task.0 = tokio::spawn(async {});
                Some((Err(error), self))
            }
            _ => None,
        }
    }
}

/// Stopped when it is dropped.
struct Task<T>(JoinHandle<T>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
