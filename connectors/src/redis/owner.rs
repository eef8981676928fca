//! The name of a data directory in what others use too, a Redis or a warehouse: made once, kept in the directory.

use std::path::Path;
use tidemark_engine::seam::{Clock, SeamError, SeamResult};

/// Reads the name of the data directory, or gives it one.
pub fn owner(data: &Path, clock: &dyn Clock) -> SeamResult<String> {
    let path = data.join("OWNER");
    let io = |error: std::io::Error| SeamError::io(path.display(), &error);
    match std::fs::read_to_string(&path) {
        Ok(name) if !name.trim().is_empty() => return Ok(name.trim().to_string()),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(io(error)),
    }
    let name = format!("{:016x}", clock.random());
    // Beside it and then in its place: half a name would be another one.
    let new = data.join("OWNER.new");
    let written = std::fs::File::create(&new).and_then(|mut file| {
        std::io::Write::write_all(&mut file, format!("{name}\n").as_bytes())?;
        file.sync_all()
    });
    written.and_then(|()| std::fs::rename(&new, &path)).map_err(io)?;
    Ok(name)
}
