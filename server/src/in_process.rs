//! A server inside this process, on a port of its own choice: for `tidemark sql --in-process` and `tidemark demo`.

use crate::serve::{self, Running};
use crate::settings::Settings;
use std::net::SocketAddr;
use std::path::PathBuf;

/// A server of our own, and the directory to remove when it is gone.
pub struct InProcess {
    pub address: SocketAddr,
    running: Running,
    scratch: Option<PathBuf>,
}

/// Starts a server by the settings. `scratch`: its data directory is removed when it stops.
pub async fn start_in_process(settings: &Settings, scratch: bool) -> anyhow::Result<InProcess> {
    let running = serve::start(settings).await?;
    Ok(InProcess { address: running.address, running, scratch: scratch.then(|| settings.data.clone()) })
}

impl InProcess {
    /// Closes it in order. What cannot be removed is left, and said.
    pub async fn stop(self) -> anyhow::Result<()> {
        let stopped = self.running.shutdown().await;
        if let Some(directory) = self.scratch
            && let Err(error) = std::fs::remove_dir_all(&directory)
        {
            tracing::warn!(directory = %directory.display(), %error, "a scratch directory stays");
        }
        stopped
    }
}
