//! One server per data directory: an exclusive lock on `DIR/LOCK`, held for as long as the process lives.

use fs4::fs_std::FileExt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::Duration;
use tidemark_engine::seam::{Clock, SeamError, SeamResult};

/// How long a start waits for the lock. The lock of a killed process is free only when the kernel has closed its files,
/// and on a busy machine that comes after its parent was told that it is gone: a supervisor that restarts at once would
/// meet it. Seconds are plenty; a second server started by mistake is told that much later.
pub const PATIENCE: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(20);

/// The lock; dropping it releases it. The file stays, with the process id of who held it last: removing it would let
/// two servers lock two files of that name.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
}

impl DirLock {
    /// Makes `dir` if need be and locks it. Fails at once if another process has it.
    pub fn acquire(dir: &Path) -> SeamResult<DirLock> {
        Self::attempt(dir)?.map_err(|who| in_use(dir, &who))
    }

    /// The same, and waits up to [`PATIENCE`] for another process to let go of it.
    pub async fn acquire_patiently(dir: &Path, clock: &dyn Clock) -> SeamResult<DirLock> {
        let give_up_us = clock.now_us().saturating_add(PATIENCE.as_micros() as i64);
        loop {
            match Self::attempt(dir)? {
                Ok(lock) => return Ok(lock),
                Err(who) if clock.now_us() >= give_up_us => return Err(in_use(dir, &who)),
                Err(_) => clock.sleep(PAUSE).await,
            }
        }
    }

    /// The inner error says who has it, as far as is known.
    fn attempt(dir: &Path) -> SeamResult<Result<DirLock, String>> {
        let io = |e: std::io::Error| SeamError::io(format!("cannot lock data directory {}", dir.display()), &e);
        // Nobody else's: the catalog has what connects to other services.
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io)?;
        let path = dir.join("LOCK");
        let mut file = File::options().read(true).write(true).create(true).truncate(false).open(path).map_err(io)?;
        if !FileExt::try_lock_exclusive(&file).map_err(io)? {
            let mut pid = String::new();
            // The other server may be about to write it.
            return Ok(Err(match file.read_to_string(&mut pid) {
                Ok(_) if !pid.trim().is_empty() => format!(" (process {})", pid.trim()),
                _ => String::new(),
            }));
        }
        file.set_len(0).map_err(io)?;
        file.seek(SeekFrom::Start(0)).map_err(io)?;
        file.write_all(format!("{}\n", std::process::id()).as_bytes()).map_err(io)?;
        Ok(Ok(DirLock { _file: file }))
    }
}

fn in_use(dir: &Path, who: &str) -> SeamError {
    SeamError::NotDone(format!(
        "data directory {} is in use by another tidemark server{who}; stop that one, or give this one another directory",
        dir.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_names_the_directory_and_the_process_and_waits_for_the_first_to_go() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = DirLock::acquire(dir.path()).expect("the first lock");
        let error = DirLock::acquire(dir.path()).expect_err("the second lock").to_string();
        assert!(error.contains(&dir.path().display().to_string()), "{error}");
        assert!(error.contains("another tidemark server"), "{error}");
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        drop(first);
        DirLock::acquire(dir.path()).expect("a lock after the first was released");
    }

    /// A clock on which only sleeping takes time; at a given moment it lets go of the lock that it holds.
    struct Releasing {
        now_us: std::sync::atomic::AtomicI64,
        release_at_us: i64,
        held: parking_lot::Mutex<Option<DirLock>>,
    }

    impl Clock for Releasing {
        fn now_us(&self) -> i64 {
            self.now_us.load(std::sync::atomic::Ordering::Relaxed)
        }

        fn sleep(&self, duration: Duration) -> futures::future::BoxFuture<'static, ()> {
            let step = duration.as_micros() as i64;
            let now_us = self.now_us.fetch_add(step, std::sync::atomic::Ordering::Relaxed) + step;
            if now_us >= self.release_at_us {
                self.held.lock().take();
            }
            Box::pin(std::future::ready(()))
        }

        fn random(&self) -> u64 {
            0
        }

        fn spawn(&self, _: &'static str, _: futures::future::BoxFuture<'static, ()>) {}
    }

    #[tokio::test]
    async fn a_lock_that_comes_free_in_time_is_waited_for_and_another_is_refused() {
        let patience_us = PATIENCE.as_micros() as i64;
        for (release_at_us, expected) in [(patience_us / 2, true), (patience_us * 2, false)] {
            let dir = tempfile::tempdir().expect("a directory");
            let held = parking_lot::Mutex::new(Some(DirLock::acquire(dir.path()).expect("the first lock")));
            let clock = Releasing { now_us: Default::default(), release_at_us, held };
            let second = DirLock::acquire_patiently(dir.path(), &clock).await;
            assert_eq!(second.is_ok(), expected, "{second:?}");
        }
    }
}
