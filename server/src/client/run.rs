//! Runs a script: one item after another, printing what psql prints.

use super::copy_command::CopyCommand;
use super::script::{Item, Script};
use super::table::aligned;
use super::wire::{ClientError, Connection, Reply};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tidemark_engine::seam::Clock;

/// Where results and errors go: apart on a terminal, together where a test reads them in order.
pub struct Output {
    results: Box<dyn Write + Send>,
    errors: Option<Box<dyn Write + Send>>,
}

impl Output {
    pub fn standard() -> Self {
        Output { results: Box::new(std::io::stdout()), errors: Some(Box::new(std::io::stderr())) }
    }

    pub fn together(writer: impl Write + Send + 'static) -> Self {
        Output { results: Box::new(writer), errors: None }
    }

    pub fn result(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        self.results.write_all(bytes).map_err(ClientError::Output)
    }

    /// Everything printed before stands before it, also where both streams are one file.
    pub fn error(&mut self, text: &str) -> Result<(), ClientError> {
        self.results.flush().map_err(ClientError::Output)?;
        let errors = self.errors.as_mut().unwrap_or(&mut self.results);
        errors.write_all(text.as_bytes()).and_then(|()| errors.flush()).map_err(ClientError::Output)
    }

    pub fn flush(&mut self) -> Result<(), ClientError> {
        self.results.flush().map_err(ClientError::Output)
    }
}

/// Why a script was left before its end.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    #[error("stopped at line {line} of {script}\nHINT: --keep-going carries on after errors")]
    AtError { script: String, line: usize },
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// A session that scripts are run in, one after another.
pub struct Runner {
    pub connection: Connection,
    pub output: Output,
    clock: Arc<dyn Clock>,
    /// Prints each statement before it runs.
    pub echo: bool,
    pub stop_on_error: bool,
    timing: bool,
    /// What relative paths of `\copy` are relative to; `None`: the current directory.
    pub folder: Option<PathBuf>,
}

/// Where the data of a COPY comes from or goes to.
enum Data<'a, 's> {
    /// The script's next lines in, the screen out.
    Script(&'a mut Script<'s>),
    From(File, PathBuf),
    To(File, PathBuf),
}

const READ_BYTES: usize = 128 * 1024;

impl Runner {
    pub fn new(connection: Connection, output: Output, clock: Arc<dyn Clock>) -> Self {
        Runner { connection, output, clock, echo: false, stop_on_error: true, timing: false, folder: None }
    }

    /// Runs a whole script; `name` is for messages.
    pub async fn run(&mut self, name: &str, text: &str) -> Result<(), Stopped> {
        let mut script = Script::new(text);
        while let Some(item) = script.next() {
            let line = match &item {
                Item::Statement { line, .. } | Item::Command { line, .. } => *line,
            };
            if matches!(&item, Item::Command { name, .. } if name == "q") {
                break;
            }
            if !self.run_item(item, &mut script).await? && self.stop_on_error {
                self.output.flush()?;
                return Err(Stopped::AtError { script: name.to_string(), line });
            }
        }
        Ok(self.output.flush()?)
    }

    /// Runs one item; false: it failed, and the error has been printed.
    pub async fn run_item(&mut self, item: Item, script: &mut Script<'_>) -> Result<bool, ClientError> {
        match item {
            Item::Statement { sql, .. } => {
                if self.echo {
                    self.output.result(format!("{sql}\n").as_bytes())?;
                }
                self.timed(&sql, Data::Script(script)).await
            }
            Item::Command { name, arguments, .. } => match name.as_str() {
                "copy" => {
                    if self.echo {
                        self.output.result(format!("\\copy {arguments}\n").as_bytes())?;
                    }
                    self.copy(&arguments, script).await
                }
                "echo" => {
                    let words = words(&arguments);
                    let text = match words.split_first() {
                        Some((first, rest)) if first == "-n" => rest.join(" "),
                        _ => words.join(" ") + "\n",
                    };
                    self.output.result(text.as_bytes()).map(|()| true)
                }
                "timing" => self.switch("timing", &arguments, |runner| &mut runner.timing),
                "set" => self.set(&arguments),
                "pset" | "unset" => Ok(true),
                _ => self.failed(&format!(
                    "invalid command \\{name}\nHINT: tidemark sql knows \\copy, \\echo, \\set, \\timing, \\g and \\q; psql knows \
                     more and connects to the same server"
                )),
            },
        }
    }

    fn failed(&mut self, message: &str) -> Result<bool, ClientError> {
        let message = message.replace("\nHINT: ", "\nHINT:  ");
        self.output.error(&format!("ERROR:  {message}\n")).map(|()| false)
    }

    fn switch(&mut self, name: &str, value: &str, field: fn(&mut Runner) -> &mut bool) -> Result<bool, ClientError> {
        let current = *field(self);
        *field(self) = match value.to_ascii_lowercase().as_str() {
            "" if name == "timing" => !current,
            "" | "on" | "1" | "true" => true,
            "off" | "0" | "false" => false,
            other => {
                let message = format!("unrecognized value \"{other}\" for \"{name}\": on or off expected");
                return self.failed(&message);
            }
        };
        Ok(true)
    }

    /// Only what changes how a script runs. Variables in statements are psql's.
    fn set(&mut self, arguments: &str) -> Result<bool, ClientError> {
        let words = words(arguments);
        let word = |n: usize| words.get(n).map(String::as_str).unwrap_or_default();
        match word(0) {
            name @ "ON_ERROR_STOP" => self.switch(name, word(1), |runner| &mut runner.stop_on_error),
            "ECHO" => {
                self.echo = matches!(word(1), "all" | "queries");
                Ok(true)
            }
            "QUIET" | "VERBOSITY" => Ok(true),
            name => self.failed(&format!(
                "\\set {name} is not supported\nHINT: tidemark sql knows ON_ERROR_STOP and ECHO; use psql for variables"
            )),
        }
    }

    async fn copy(&mut self, arguments: &str, script: &mut Script<'_>) -> Result<bool, ClientError> {
        let command = match CopyCommand::parse(arguments) {
            Ok(command) => command,
            Err(message) => return self.failed(&message),
        };
        let sql = command.sql();
        let Some(path) = &command.file else {
            return self.timed(&sql, Data::Script(script)).await;
        };
        let place = self.folder.as_deref().unwrap_or(Path::new("")).join(path);
        let file = if command.from { File::open(&place) } else { File::create(&place) };
        match file {
            Ok(file) if command.from => self.timed(&sql, Data::From(file, path.clone())).await,
            Ok(file) => self.timed(&sql, Data::To(file, path.clone())).await,
            Err(error) => self.failed(&format!(
                "could not open file \"{}\": {}\nHINT: a relative path is relative to the current directory",
                path.display(),
                plain(&error)
            )),
        }
    }

    async fn timed(&mut self, sql: &str, data: Data<'_, '_>) -> Result<bool, ClientError> {
        let begun = self.clock.now_us();
        let succeeded = self.exchange(sql, data).await?;
        if self.timing {
            let took_us = self.clock.now_us() - begun;
            self.output.result(format!("Time: {}.{:03} ms\n", took_us / 1000, took_us % 1000).as_bytes())?;
        }
        Ok(succeeded)
    }

    /// Sends a query and prints every reply to it.
    async fn exchange(&mut self, sql: &str, mut data: Data<'_, '_>) -> Result<bool, ClientError> {
        self.connection.query(sql).await?;
        let (mut headings, mut rows, mut succeeded, mut quiet) = (None, Vec::new(), true, false);
        loop {
            match self.connection.reply().await? {
                Reply::Columns(columns) => headings = Some(columns),
                Reply::Row(row) => rows.push(row),
                Reply::Done(tag) => {
                    if let Some(headings) = headings.take() {
                        self.output.result(aligned(&headings, &rows).as_bytes())?;
                        rows.clear();
                        // INSERT … RETURNING and its kin show their rows and their tag.
                        quiet = !["INSERT", "UPDATE", "DELETE", "MERGE"].iter().any(|verb| tag.starts_with(verb));
                    }
                    if !tag.is_empty() && !quiet {
                        self.output.result(format!("{tag}\n").as_bytes())?;
                    }
                    quiet = false;
                }
                Reply::CopyIn => self.send(&mut data).await?,
                Reply::CopyOut => quiet = !matches!(data, Data::To(..)),
                Reply::CopyData(bytes) => match &mut data {
                    Data::To(file, path) => {
                        file.write_all(&bytes).map_err(|source| ClientError::File { path: path.clone(), source })?
                    }
                    _ => self.output.result(&bytes)?,
                },
                Reply::Error(report) => {
                    succeeded = false;
                    (headings, quiet) = (None, false);
                    rows.clear();
                    self.output.error(&report.show(sql))?;
                }
                Reply::Notice(report) => self.output.error(&report.show(sql))?,
                Reply::Ready => return Ok(succeeded),
            }
        }
    }

    /// The data of a COPY … FROM STDIN.
    async fn send(&mut self, data: &mut Data<'_, '_>) -> Result<(), ClientError> {
        match data {
            Data::Script(script) => {
                for piece in script.inline_data().as_bytes().chunks(READ_BYTES) {
                    self.connection.copy_data(piece).await?;
                }
            }
            Data::From(file, path) => {
                let mut buffer = vec![0; READ_BYTES];
                loop {
                    match file.read(&mut buffer) {
                        Ok(0) => break,
                        Ok(length) => self.connection.copy_data(&buffer[..length]).await?,
                        Err(error) => {
                            let reason = format!("could not read file \"{}\": {}", path.display(), plain(&error));
                            return self.connection.copy_fail(&reason).await;
                        }
                    }
                }
            }
            Data::To(..) => return self.connection.copy_fail("\\copy TO cannot send data").await,
        }
        self.connection.copy_done().await
    }
}

/// The operating system's words without its number.
fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_string()
}

/// The arguments of a backslash command: apart by blanks, quotes taken off (`'it''s'` is `it's`).
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut in_word) = (Vec::new(), String::new(), false);
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '\'' => {
                in_word = true;
                while let Some(c) = characters.next() {
                    if c == '\'' && characters.next_if_eq(&'\'').is_none() {
                        break;
                    }
                    word.push(c);
                }
            }
            c if c.is_whitespace() => {
                if std::mem::take(&mut in_word) {
                    words.push(std::mem::take(&mut word));
                }
            }
            c => {
                in_word = true;
                word.push(c);
            }
        }
    }
    if in_word {
        words.push(word);
    }
    words
}
