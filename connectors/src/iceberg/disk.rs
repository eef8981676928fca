//! Local files under Iceberg locations: made durable before the catalog names them, and errors told apart. What is not about
//! local files goes through `place.rs`.
//!
//! The crate's local storage syncs what it streams (data files, manifest lists) but not what it writes in one piece
//! (metadata files, manifests), nor any folder. After a power cut the catalog would name a table that cannot be read.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};
use tidemark_engine::seam::{SeamError, SeamResult};

/// The local path of an Iceberg location (`file:///a/b`, `file:/a/b` or `/a/b`).
pub fn local_path(location: &str) -> PathBuf {
    let path = location.strip_prefix("file:").unwrap_or(location);
    PathBuf::from(format!("/{}", path.trim_start_matches('/')))
}

/// The Iceberg location of a local path.
pub fn location(path: &Path) -> String {
    format!("file://{}", path.display())
}

/// Writes a new file and makes it and its entry in its folder durable.
pub fn write_durably(location: &str, bytes: &[u8]) -> SeamResult<()> {
    let path = local_path(location);
    let write = || -> io::Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut file = File::create_new(&path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|error| SeamError::io(format_args!("writing {}", path.display()), &error))?;
    path.parent().map_or(Ok(()), |folder| sync_folders(folder, folder))
}

/// Makes a file that somebody else wrote durable.
pub fn sync_file(path: &Path) -> SeamResult<()> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(|error| SeamError::io(format_args!("syncing {}", path.display()), &error))
}

/// Makes `folder` durable, and the folders above it up to and including `top`.
pub fn sync_folders(folder: &Path, top: &Path) -> SeamResult<()> {
    for folder in folder.ancestors().take_while(|folder| folder.starts_with(top)) {
        File::open(folder)
            .and_then(|file| file.sync_all())
            .map_err(|error| SeamError::io(format_args!("syncing {}", folder.display()), &error))?;
    }
    Ok(())
}

/// Removes a file that nothing refers to. A failure costs disk space, nothing else.
pub fn discard(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(file = %path.display(), %error, "could not remove a file that is no longer needed");
    }
}

/// An error of the Iceberg crate, for an effect that certainly did not happen. Storages keep an I/O error only as text, so
/// a full disk is recognized by the operating system's number in it, and a full bucket by what its server says.
pub fn failed(what: &str, error: &iceberg::Error) -> SeamError {
    let text = format!("{what}: {error}");
    let full = [libc_error::ENOSPC, libc_error::EDQUOT];
    if full.iter().any(|number| text.contains(&format!("(os error {number})"))) || super::patient::is_full(&text) {
        return SeamError::Full(text);
    }
    SeamError::NotDone(text)
}

mod libc_error {
    /// "No space left on device" on Linux and macOS.
    pub const ENOSPC: i32 = 28;
    /// "Disk quota exceeded".
    pub const EDQUOT: i32 = if cfg!(target_os = "macos") { 69 } else { 122 };
}
