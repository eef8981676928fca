//! A folder of `sql_examples`: its data derived, its files run by `tidemark sql`, their output compared.

use anyhow::{Context, Result, ensure};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Instant, SystemTime};

/// What `derive_events.py` writes, the last one last.
const DERIVED: [&str; 5] = ["events.csv", "first_week.csv", "spine.csv", "weather.csv", "planes.csv"];

pub struct Example {
    pub folder: PathBuf,
}

impl Example {
    pub fn new(name: &str) -> Example {
        Example { folder: Path::new(env!("CARGO_MANIFEST_DIR")).join("sql_examples").join(name) }
    }

    /// Derives `out/` from `data/`, unless it is newer than all it is made of. One at a time.
    pub fn derive(&self) -> Result<()> {
        static DERIVING: Mutex<()> = Mutex::new(());
        let _deriving = DERIVING.lock();
        let script = self.folder.join("derive_events.py");
        let mut newest = modified(&script)?;
        for entry in fs::read_dir(self.folder.join("data"))? {
            newest = newest.max(modified(&entry?.path())?);
        }
        let out = self.folder.join("out");
        if DERIVED.iter().all(|file| modified(&out.join(file)).is_ok_and(|written| written >= newest)) {
            return Ok(());
        }
        let begun = Instant::now();
        succeed(Command::new("python3").arg(script))?;
        println!("derived {} in {:.0?}", out.display(), begun.elapsed());
        Ok(())
    }

    /// The SQL files in their order.
    pub fn files(&self) -> Result<Vec<PathBuf>> {
        let mut files: Vec<PathBuf> = fs::read_dir(&self.folder)?
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .filter(|path| path.extension().is_some_and(|extension| extension == "sql"))
            .collect();
        files.sort();
        ensure!(!files.is_empty(), "no SQL files in {}", self.folder.display());
        Ok(files)
    }

    /// Runs a file by psql, of which `tidemark sql` says that it prints the same.
    pub fn check_by_psql(&self, name: &str, port: u16) -> Result<()> {
        let file = self.files()?.into_iter().find(|file| file.file_stem().is_some_and(|stem| stem == name));
        let mut command = Command::new("psql");
        command.args(["-X", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", &port.to_string()]);
        command.args(["-U", "tidemark", "-d", "tidemark", "-f"]).arg(file.context("no such file")?);
        command.env("PGCLIENTENCODING", "UTF8").env("PAGER", "cat");
        let printed = self.printed(command, name)?;
        let number = name.split('_').next().unwrap_or(name);
        let wanted = fs::read_to_string(self.folder.join("expected").join(format!("{number}.out")))?;
        ensure!(printed == wanted, "psql prints another {name}\n{}", difference(&wanted, &printed));
        Ok(())
    }

    /// Runs a file and compares what it prints with `expected/`.
    pub fn check(&self, file: &Path, port: u16) -> Result<()> {
        let name = file.file_stem().context("a file has a name")?.to_string_lossy().into_owned();
        let begun = Instant::now();
        let printed = self.run(file, &name, port)?;
        println!("{name:<24} {:.1?}", begun.elapsed());
        let number = name.split('_').next().unwrap_or(&name);
        let expected = self.folder.join("expected").join(format!("{number}.out"));
        if std::env::var_os("TIDEMARK_TEST_REWRITE").is_some_and(|set| !set.is_empty()) {
            fs::create_dir_all(self.folder.join("expected"))?;
            return Ok(fs::write(expected, printed)?);
        }
        let wanted = fs::read_to_string(&expected).with_context(|| expected.display().to_string())?;
        ensure!(printed == wanted, "{name} differs from {}\n{}", expected.display(), difference(&wanted, &printed));
        Ok(())
    }

    /// All that `tidemark sql` prints, results and errors in one stream as a terminal shows them.
    fn run(&self, file: &Path, name: &str, port: u16) -> Result<String> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemark"));
        command.args(["sql", "--url", &format!("postgres://tidemark@127.0.0.1:{port}/tidemark")]);
        if name.ends_with("refusals") {
            command.arg("--keep-going"); // nothing in it but errors
        }
        command.arg(file);
        self.printed(command, name)
    }

    fn printed(&self, mut command: Command, name: &str) -> Result<String> {
        let (mut screen, screen_end) = std::io::pipe()?;
        // \copy reads files relative to the current directory.
        command.current_dir(&self.folder).stdout(screen_end.try_clone()?).stderr(screen_end);
        let mut process = command.spawn().with_context(|| format!("{command:?}"))?;
        drop(command); // it holds the pipe's writing end open
        let mut printed = String::new();
        screen.read_to_string(&mut printed)?;
        let status = process.wait()?;
        ensure!(status.success(), "{name} ended with {status} after printing\n{printed}");
        Ok(printed)
    }
}

/// Runs a program; what it printed, or why it failed with all of it.
pub fn succeed(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} ended with {}\n{printed}{errors}", output.status);
    Ok(printed)
}

/// Whether a program can be run at all.
pub fn is_installed(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

fn modified(path: &Path) -> Result<SystemTime> {
    Ok(fs::metadata(path).with_context(|| path.display().to_string())?.modified()?)
}

/// The first line in which two texts differ.
pub fn difference(wanted: &str, printed: &str) -> String {
    let (mut wanted, mut printed) = (wanted.lines(), printed.lines());
    let mut line = 1;
    loop {
        match (wanted.next(), printed.next()) {
            (None, None) => return "they differ in white space at their end".to_owned(),
            (left, right) if left != right => {
                let shown = |side: Option<&str>| side.unwrap_or("(nothing)").to_owned();
                return format!("line {line}\n  expected {}\n  printed  {}", shown(left), shown(right));
            }
            _ => line += 1,
        }
    }
}
