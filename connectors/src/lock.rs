//! One server per data directory: an exclusive lock on `DIR/LOCK`, held for as long as the process lives.

use fs4::fs_std::FileExt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use tidemark_engine::seam::{SeamError, SeamResult};

/// The lock; dropping it releases it. The file stays, with the process id of who held it last: removing it would let
/// two servers lock two files of that name.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
}

impl DirLock {
    /// Makes `dir` if need be and locks it. Fails at once if another process has it.
    pub fn acquire(dir: &Path) -> SeamResult<DirLock> {
        let io = |e: std::io::Error| SeamError::io(format!("cannot lock data directory {}", dir.display()), &e);
        std::fs::create_dir_all(dir).map_err(io)?;
        let path = dir.join("LOCK");
        let mut file = File::options().read(true).write(true).create(true).truncate(false).open(path).map_err(io)?;
        if !FileExt::try_lock_exclusive(&file).map_err(io)? {
            let mut pid = String::new();
            // The other server may be about to write it.
            let who = match file.read_to_string(&mut pid) {
                Ok(_) if !pid.trim().is_empty() => format!(" (process {})", pid.trim()),
                _ => String::new(),
            };
            return Err(SeamError::NotDone(format!(
                "data directory {} is in use by another tidemark server{who}; stop that one, or give this one another \
                 directory",
                dir.display()
            )));
        }
        file.set_len(0).map_err(io)?;
        file.seek(SeekFrom::Start(0)).map_err(io)?;
        file.write_all(format!("{}\n", std::process::id()).as_bytes()).map_err(io)?;
        Ok(DirLock { _file: file })
    }
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
}
