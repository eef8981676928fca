//! What is around a server and fails it: its clock is moved, its disk is full, a program holds the catalog of the history.

use crate::server::Folder;
use anyhow::{Context, Result, ensure};
use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// The wall clock of all servers on one folder; see `clock.c`.
pub struct Clock {
    file: PathBuf,
    ahead_seconds: i64,
}

impl Clock {
    /// A clock that is right until it is moved.
    pub fn of(folder: &mut Folder) -> Result<Clock> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/services/schedules/clock.c");
        let (library, file) = (folder.path().join("clock.so"), folder.path().join("clock.ahead"));
        let made = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).status();
        let made = made.context("cc")?;
        ensure!(made.success(), "cc ended with {made}");
        std::fs::write(&file, 0i64.to_ne_bytes())?;
        folder.set("LD_PRELOAD", library);
        folder.set("CLOCK_AHEAD_FILE", file.clone());
        Ok(Clock { file, ahead_seconds: 0 })
    }

    /// So much later than it was, or earlier.
    pub fn move_by(&mut self, seconds: i64) -> Result<()> {
        self.ahead_seconds += seconds;
        // In its place: servers look at these bytes.
        let mut file = File::options().write(true).open(&self.file)?;
        Ok(file.write_all(&self.ahead_seconds.to_ne_bytes())?)
    }
}

/// What takes up all the room of a small disk; dropping it makes room again.
pub struct Ballast(PathBuf);

impl Ballast {
    /// Nothing more goes onto the disk, but what fits into blocks that files have already.
    pub fn fill(disk: &Path) -> Result<Ballast> {
        let ballast = Ballast(disk.join("ballast"));
        let mut file = File::create(&ballast.0)?;
        for piece in [vec![7; 1 << 20], vec![7; 512]] {
            while file.write_all(&piece).is_ok() {}
        }
        Ok(ballast)
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Until its input ends.
const HOLD: &str = "import sqlite3, sys
held = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
held.execute('BEGIN IMMEDIATE')
print('held', flush=True)
sys.stdin.read()
";

/// Another program that holds a file of SQLite, so that nobody else writes; dropping this ends it.
pub struct Holder(Child);

impl Holder {
    pub fn of(catalog: &Path) -> Result<Holder> {
        let mut command = Command::new("python3");
        command.args(["-c", HOLD]).arg(catalog).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = Holder(command.spawn().context("python3")?);
        let mut said = String::new();
        BufReader::new(holder.0.stdout.take().context("no output")?).read_line(&mut said)?;
        ensure!(said.trim() == "held", "{} cannot be held: {said}", catalog.display());
        Ok(holder)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
