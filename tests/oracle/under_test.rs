//! What the oracle asks of the system under test, and Tidemark answering over its wire.

use crate::check::canonical_key;
use crate::model::{Case, Probe, Row, Source, View, instant};
use crate::postgres::rows;
use crate::value::{self, Answer};
use crate::{connect, quoted};
use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use futures::SinkExt;
use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;
use tokio_postgres::{Client, SimpleQueryRow};

/// One row of `history.<view>`. Time-continuous outputs are not in it.
#[derive(Debug, Clone)]
pub struct Step {
    pub key: Vec<String>,
    pub instant_us: i64,
    pub op: String,
    pub event_time_us: Option<i64>,
    pub values: Vec<value::Value>,
}

/// A feature view as the oracle addresses it.
pub struct Named<'a> {
    pub name: String,
    pub source: &'a Source,
    pub view: &'a View,
}

#[async_trait]
pub trait UnderTest {
    async fn create_source(&mut self, name: &str, source: &Source) -> Result<()>;
    async fn create_view(&mut self, source_name: &str, view: &Named<'_>) -> Result<()>;
    /// The text of `EXPLAIN (FORMAT PROBES) CREATE FEATURE VIEW …`.
    async fn probes_sql(&mut self, source_name: &str, view: &Named<'_>) -> Result<String>;
    async fn ingest(&mut self, name: &str, source: &Source, rows: &[Row]) -> Result<()>;
    /// How many rows the source has admitted; of a table with a primary key, how many it has.
    async fn admitted(&mut self, name: &str, source: &Source) -> Result<usize>;
    /// Plain lookups, evaluated at the event clock's now.
    async fn lookup_now(&mut self, view: &Named<'_>, keys: &[Vec<String>]) -> Result<Vec<Answer>>;
    /// `FOR SYSTEM_TIME AS OF` one instant, all keys.
    async fn lookup_as_of(&mut self, view: &Named<'_>, keys: &[Vec<String>], t_us: i64) -> Result<Vec<Answer>>;
    /// One `ASOF LEFT JOIN` of all probes.
    async fn spine(&mut self, view: &Named<'_>, probes: &[Probe]) -> Result<Vec<Answer>>;
    /// Makes every step below `to_us` final and in history.
    async fn finish(&mut self, source_name: &str, source: &Source, to_us: i64) -> Result<()>;
    /// All steps, in order of their instant.
    async fn history(&mut self, view: &Named<'_>) -> Result<Vec<Step>>;
    async fn drop_case(&mut self, source_name: &str, case: &Case) -> Result<()>;
    /// Whether it still answers at all.
    fn is_alive(&self) -> bool;
}

/// A `tidemark serve` of its own, on a fresh data directory.
pub struct Tidemark {
    process: Child,
    port: u16,
    data: TempDir,
}

/// One client of it.
pub struct Session {
    client: Client,
    /// How many lists of keys were looked up.
    lookups: usize,
}

/// One list of keys in so many is looked up key by key, the others by one statement.
const ONE_BY_ONE: usize = 4;

impl Tidemark {
    pub async fn start() -> Result<Tidemark> {
        let data = tempfile::Builder::new().prefix("tidemark-oracle-data-").tempdir()?;
        let port = crate::free_port()?;
        let log = std::fs::File::create(data.path().join("server.log"))?;
        let mut process = Command::new(env!("CARGO_BIN_EXE_tidemark"))
            .args(["serve", "--listen", &format!("127.0.0.1:{port}"), "--data"])
            .arg(data.path().join("data"))
            .env("TIDEMARK_HTTP", "off")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        if let Err(error) = connect(port, "tidemark", "tidemark", || !matches!(process.try_wait(), Ok(None))).await {
            let _ = process.kill();
            let _ = process.wait();
            let log = std::fs::read_to_string(data.path().join("server.log")).unwrap_or_default();
            bail!("tidemark serve did not start: {error:#}\n{log}");
        }
        Ok(Tidemark { process, port, data })
    }

    pub async fn session(&self) -> Result<Session> {
        let client = connect(self.port, "tidemark", "tidemark", || false).await?;
        client.batch_execute("SET TimeZone = 'UTC'").await?;
        Ok(Session { client, lookups: 0 })
    }

    /// The end of the server's log, for a failure's report.
    pub fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.data.path().join("server.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Session {
    async fn run(&self, sql: &str) -> Result<()> {
        self.client.batch_execute(sql).await.with_context(|| sql.to_owned())
    }

    async fn rows(&self, sql: &str) -> Result<Vec<SimpleQueryRow>> {
        rows(&self.client, sql).await.with_context(|| sql.to_owned())
    }

    /// Alternates between COPY and INSERT by the number of rows, so that both are used.
    async fn ingest_part(&self, name: &str, source: &Source, rows: &[&Row]) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        if rows.len() % 2 == 1 {
            let values: Vec<String> = rows
                .iter()
                .map(|row| {
                    let cells = row.cells.iter().zip(&source.columns).map(|(cell, (_, ty))| match cell {
                        Some(text) => format!("{}::{}", quoted(text), ty.sql()),
                        None => "NULL".to_owned(),
                    });
                    format!("({})", cells.collect::<Vec<_>>().join(", "))
                })
                .collect();
            return self.run(&format!("INSERT INTO {name} VALUES {}", values.join(", "))).await;
        }
        let text: String = rows
            .iter()
            .map(|row| {
                let escaped = |text: &String| text.replace('\\', "\\\\");
                let cells = row.cells.iter().map(|cell| cell.as_ref().map_or("\\N".to_owned(), escaped));
                cells.collect::<Vec<_>>().join("\t") + "\n"
            })
            .collect();
        let sink = self.client.copy_in(&format!("COPY {name} FROM STDIN")).await.context("COPY")?;
        let mut sink = std::pin::pin!(sink);
        sink.send(bytes::Bytes::from(text)).await.context("COPY")?;
        sink.finish().await.with_context(|| format!("COPY {name}"))?;
        Ok(())
    }
}

impl Drop for Tidemark {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn literal(key: &str, source: &Source, column: &str) -> String {
    format!("{}::{}", quoted(key), source.columns[source.column(column)].1.sql())
}

fn features(view: &View, from: &str) -> String {
    (0..view.outputs.len()).map(|i| format!("{from}o{i}")).collect::<Vec<_>>().join(", ")
}

/// The features of a row that begin at column `first`.
fn answer(row: &SimpleQueryRow, first: usize, view: &View) -> Result<Vec<value::Value>> {
    let outputs = view.outputs.iter().enumerate();
    outputs.map(|(i, output)| value::parse(row.try_get(first + i)?, output.ty)).collect()
}

fn at_most_one(rows: &[SimpleQueryRow], view: &View) -> Result<Answer> {
    match rows {
        [] => Ok(None),
        [row] => answer(row, 0, view).map(Some),
        _ => bail!("{} rows for one key", rows.len()),
    }
}

/// Whether a reader was told that its instant lies before the view's history.
fn before_history(error: &anyhow::Error) -> bool {
    let told = error.downcast_ref::<tokio_postgres::Error>().and_then(|error| error.as_db_error());
    told.is_some_and(|told| told.code().code() == "22023" && told.message().contains("before the history"))
}

fn key_is(view: &Named<'_>, key: &[String]) -> String {
    let conditions = view.view.key.iter().zip(key).map(|(c, k)| format!("{c} = {}", literal(k, view.source, c)));
    conditions.collect::<Vec<_>>().join(" AND ")
}

/// That the key is one of these.
fn key_is_among(view: &Named<'_>, keys: &[Vec<String>]) -> String {
    match view.view.key.as_slice() {
        [column] => {
            let literals = keys.iter().flatten().map(|key| literal(key, view.source, column));
            format!("{column} IN ({})", literals.collect::<Vec<_>>().join(", "))
        }
        _ => {
            let each = keys.iter().map(|key| format!("({})", key_is(view, key)));
            each.collect::<Vec<_>>().join(" OR ")
        }
    }
}

/// The answers of rows that begin with the view's key, in the order of the keys that were asked for.
fn by_key(view: &Named<'_>, keys: &[Vec<String>], rows: &[SimpleQueryRow]) -> Result<Vec<Answer>> {
    let width = view.view.key.len();
    let mut found = BTreeMap::new();
    for row in rows {
        let key = (0..width).map(|i| row.try_get(i).map(|cell| cell.map(str::to_owned)));
        let key: Vec<Option<String>> = key.collect::<Result<_, _>>()?;
        let key: Vec<String> = key.into_iter().collect::<Option<_>>().context("a NULL key")?;
        if let Some(twice) = found.insert(key, answer(row, width, view.view)?) {
            bail!("two rows for one key, one of them {twice:?}");
        }
    }
    let answers = keys.iter().map(|key| found.remove(&canonical_key(view, key))).collect();
    match found.first_key_value() {
        Some((key, _)) => bail!("a row of {key:?}, which nobody asked for"),
        None => Ok(answers),
    }
}

#[async_trait]
impl UnderTest for Session {
    async fn create_source(&mut self, name: &str, source: &Source) -> Result<()> {
        for part in source.parts(name) {
            self.run(&source.create_sql(&part)).await?;
        }
        Ok(())
    }

    async fn create_view(&mut self, source_name: &str, view: &Named<'_>) -> Result<()> {
        self.run(&view.view.create_sql(&view.name, &view.source.in_from(source_name))).await
    }

    async fn probes_sql(&mut self, source_name: &str, view: &Named<'_>) -> Result<String> {
        let create = view.view.create_sql(&format!("{}_x", view.name), &view.source.in_from(source_name));
        let rows = self.rows(&format!("EXPLAIN (FORMAT PROBES) {create}")).await?;
        let lines: Result<Vec<&str>, _> =
            rows.iter().map(|row| row.try_get(0).map(Option::unwrap_or_default)).collect();
        Ok(lines?.join("\n"))
    }

    async fn ingest(&mut self, name: &str, source: &Source, rows: &[Row]) -> Result<()> {
        for (part, second) in source.parts(name).iter().zip([false, true]) {
            let rows: Vec<&Row> = rows.iter().filter(|row| row.second == second).collect();
            self.ingest_part(part, source, &rows).await?;
        }
        Ok(())
    }

    async fn admitted(&mut self, name: &str, source: &Source) -> Result<usize> {
        let mut admitted = 0;
        for part in source.parts(name) {
            let rows = self.rows(&format!("SELECT count(*) FROM {part}")).await?;
            let count: usize = rows.first().and_then(|row| row.get(0)).context("no count")?.parse()?;
            admitted += count;
        }
        Ok(admitted)
    }

    async fn lookup_now(&mut self, view: &Named<'_>, keys: &[Vec<String>]) -> Result<Vec<Answer>> {
        let columns = features(view.view, "");
        self.lookups += 1;
        if !self.lookups.is_multiple_of(ONE_BY_ONE) && !keys.is_empty() {
            let (names, among) = (view.view.key.join(", "), key_is_among(view, keys));
            let sql = format!("SELECT {names}, {columns} FROM {} WHERE {among}", view.name);
            let rows = self.rows(&sql).await?;
            return by_key(view, keys, &rows).context(sql);
        }
        let mut answers = Vec::new();
        for key in keys {
            let sql = format!("SELECT {columns} FROM {} WHERE {}", view.name, key_is(view, key));
            answers.push(at_most_one(&self.rows(&sql).await?, view.view)?);
        }
        Ok(answers)
    }

    async fn lookup_as_of(&mut self, view: &Named<'_>, keys: &[Vec<String>], t_us: i64) -> Result<Vec<Answer>> {
        if keys.is_empty() {
            return Ok(vec![]);
        }
        let sql = format!(
            "SELECT {}, {} FROM {} FOR SYSTEM_TIME AS OF TIMESTAMPTZ '{}' WHERE {}",
            view.view.key.join(", "),
            features(view.view, ""),
            view.name,
            instant(t_us),
            key_is_among(view, keys)
        );
        // Before its history starts a view has no values; by definition it then has no row either.
        let rows = self.rows(&sql).await;
        match rows {
            Err(error) if before_history(&error) => Ok(vec![None; keys.len()]),
            rows => by_key(view, keys, &rows?).context(sql),
        }
    }

    async fn spine(&mut self, view: &Named<'_>, probes: &[Probe]) -> Result<Vec<Answer>> {
        let keys: Vec<String> = (0..view.view.key.len()).map(|i| format!("k{i}")).collect();
        let values: Vec<String> = probes
            .iter()
            .enumerate()
            .map(|(id, probe)| {
                let key = probe.key.iter().zip(&view.view.key).map(|(k, c)| literal(k, view.source, c));
                let key = key.collect::<Vec<_>>().join(", ");
                format!("({id}, {key}, TIMESTAMPTZ '{}')", instant(probe.t_us))
            })
            .collect();
        let same: Vec<String> = keys.iter().zip(&view.view.key).map(|(k, c)| format!("s.{k} = v.{c}")).collect();
        let sql = format!(
            "SELECT s.id, v.{} IS NOT NULL, {} FROM (VALUES {}) AS s (id, {}, t) \
             ASOF LEFT JOIN {} v ON {} AND s.t >= v.event_time ORDER BY s.id",
            view.view.key[0],
            features(view.view, "v."),
            values.join(", "),
            keys.join(", "),
            view.name,
            same.join(" AND ")
        );
        let rows = self.rows(&sql).await?;
        if rows.len() != probes.len() {
            bail!("{} rows for a spine of {}: {sql}", rows.len(), probes.len());
        }
        rows.iter()
            .map(|row| match row.try_get(1)? {
                Some("t") => answer(row, 2, view.view).map(Some),
                _ => Ok(None),
            })
            .collect()
    }

    async fn finish(&mut self, source_name: &str, source: &Source, to_us: i64) -> Result<()> {
        let (kind, to) = (source.kind(), instant(to_us));
        for part in source.parts(source_name) {
            self.run(&format!("ALTER {kind} {part} ADVANCE WATERMARK TO TIMESTAMPTZ '{to}'")).await?;
        }
        self.run("CHECKPOINT").await
    }

    async fn history(&mut self, view: &Named<'_>) -> Result<Vec<Step>> {
        let kept: Vec<usize> =
            (0..view.view.outputs.len()).filter(|i| !view.view.outputs[*i].is_continuous()).collect();
        let columns: String = kept.iter().map(|i| format!(", o{i}")).collect();
        let keys = view.view.key.join(", ");
        let sql = format!(
            "SELECT event_time, _op, _event_time, {keys}{columns} FROM history.{} ORDER BY event_time",
            view.name
        );
        let rows = self.rows(&sql).await?;
        rows.iter()
            .map(|row| {
                let time = |column: usize| Ok::<_, anyhow::Error>(row.try_get(column)?.and_then(value::instant));
                let mut column = 3;
                let mut key = Vec::new();
                for _ in &view.view.key {
                    key.push(row.try_get(column)?.context("a NULL key in history")?.to_owned());
                    column += 1;
                }
                let mut values = Vec::new();
                for i in &kept {
                    values.push(value::parse(row.try_get(column)?, view.view.outputs[*i].ty)?);
                    column += 1;
                }
                Ok(Step {
                    key,
                    instant_us: time(0)?.context("a step without an instant")?,
                    op: row.try_get(1)?.context("a step without _op")?.to_owned(),
                    event_time_us: time(2)?,
                    values,
                })
            })
            .collect()
    }

    async fn drop_case(&mut self, source_name: &str, case: &Case) -> Result<()> {
        for part in case.source.parts(source_name) {
            self.run(&format!("DROP {} {part} CASCADE", case.source.kind())).await?;
        }
        Ok(())
    }

    fn is_alive(&self) -> bool {
        !self.client.is_closed()
    }
}
