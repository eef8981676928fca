//! A real PostgreSQL for one test run: started in a fresh folder, stopped when dropped. Its tables are temporary ones of a
//! session, so that several sessions ask it at once.

use crate::model::{Cell, Probe, Row, Source, Ty, View, instant};
use crate::value::{self, Answer, Value};
use crate::{admission, connect, definition, quoted};
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use tempfile::TempDir;
use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};

/// One session of it.
pub struct Postgres {
    cluster: Arc<Cluster>,
    pub client: Client,
}

struct Cluster {
    /// Under /tmp, because the user that runs the server must reach it.
    folder: TempDir,
    port: u16,
}

/// What the definition says about one probe.
pub struct Expected {
    pub answer: Answer,
    pub event_time_us: Option<i64>,
    /// The key had events, and its TTL has passed.
    pub expired: bool,
    /// For each output, for each call: whether its frame has peers, and NULL arguments.
    pub flags: Vec<Vec<(bool, bool)>>,
}

impl Postgres {
    pub async fn start() -> Result<Postgres> {
        let folder = tempfile::Builder::new().prefix("tidemark-oracle-").tempdir_in("/tmp")?;
        let port = crate::free_port()?;
        script(&["start", path(folder.path())?, &port.to_string()])?;
        Self::session(Arc::new(Cluster { folder, port })).await
    }

    /// Another session, with tables of its own.
    pub async fn another(&self) -> Result<Postgres> {
        Self::session(self.cluster.clone()).await
    }

    async fn session(cluster: Arc<Cluster>) -> Result<Postgres> {
        let client = connect(cluster.port, "postgres", "postgres", || false).await?;
        client.batch_execute("SET TimeZone = 'UTC'; SET extra_float_digits = 1; SET jit = off").await?;
        Ok(Postgres { cluster, client })
    }

    /// Makes `events` hold exactly these rows, those of the first part of a source before the second, in order of arrival; `events_0`
    /// and `events_1` have the parts. Each row is with the time of the next row of its primary key.
    pub async fn load<'a>(&self, source: &Source, rows: impl Iterator<Item = &'a Row>) -> Result<()> {
        let columns: Vec<String> = source.columns.iter().map(|(n, ty)| format!("{n} {}", ty.sql())).collect();
        let mut sql = format!(
            "DROP TABLE IF EXISTS events, events_0, events_1; CREATE TEMP TABLE events ({}, _seq bigint, _until timestamptz);",
            columns.join(", ")
        );
        let mut rows: Vec<&Row> = rows.collect();
        rows.sort_by_key(|row| row.second);
        let first = rows.iter().filter(|row| !row.second).count();
        let until = admission::until(source, &rows);
        let values: Vec<String> = rows
            .iter()
            .zip(until)
            .enumerate()
            .map(|(seq, (row, until))| {
                let cells: Vec<String> = row.cells.iter().map(cell).collect();
                let until = until.map_or("infinity".to_owned(), instant);
                format!("({}, {seq}, '{until}')", cells.join(", "))
            })
            .collect();
        if !values.is_empty() {
            sql.push_str(&format!("INSERT INTO events VALUES {}; ANALYZE events", values.join(", ")));
        }
        if source.is_split {
            sql.push_str(&format!(
                "; CREATE TEMP TABLE events_0 AS SELECT * FROM events WHERE _seq < {first}; \
                 CREATE TEMP TABLE events_1 AS SELECT * FROM events WHERE _seq >= {first}"
            ));
        }
        self.client.batch_execute(&sql).await.context("loading events")
    }

    /// The statements after which `probes` holds these, with their number as `id`.
    fn asking(source: &Source, view: &View, probes: &[Probe]) -> String {
        let types: Vec<String> = view
            .key
            .iter()
            .enumerate()
            .map(|(i, name)| format!("k{i} {}", source.columns[source.column(name)].1.sql()))
            .collect();
        let mut sql = format!(
            "DROP TABLE IF EXISTS probes; CREATE TEMP TABLE probes (id bigint, {}, t timestamptz);",
            types.join(", ")
        );
        let values: Vec<String> = probes
            .iter()
            .enumerate()
            .map(|(id, probe)| {
                let key: Vec<String> = probe.key.iter().map(|k| quoted(k)).collect();
                format!("({id}, {}, '{}')", key.join(", "), instant(probe.t_us))
            })
            .collect();
        if !values.is_empty() {
            sql.push_str(&format!("INSERT INTO probes VALUES {};", values.join(", ")));
        }
        sql
    }

    /// V(k, t) for every probe, over what `load` loaded: one round trip, whatever the number of probes.
    pub async fn expected(&self, source: &Source, view: &View, probes: &[Probe]) -> Result<Vec<Expected>> {
        let definition = definition::query(view);
        let sql = Self::asking(source, view, probes) + &definition;
        let rows = rows(&self.client, &sql).await.with_context(|| format!("the definition: {definition}"))?;
        rows.iter().map(|row| expected_row(row, view)).collect()
    }

    /// The same by the text that `EXPLAIN (FORMAT PROBES)` prints; call `expected` first.
    pub async fn by_probes_sql(&self, view: &View, sql: &str) -> Result<Vec<Answer>> {
        let sql = format!("SELECT * FROM (\n{sql}\n) x ORDER BY id");
        let rows = rows(&self.client, &sql).await.with_context(|| format!("EXPLAIN (FORMAT PROBES): {sql}"))?;
        rows.iter()
            .map(|row| {
                if row.try_get("_event_time")?.is_none() {
                    return Ok(None);
                }
                let outputs = view.outputs.iter().enumerate();
                outputs
                    .map(|(i, o)| value::parse(row.try_get(format!("o{i}").as_str())?, o.ty))
                    .collect::<Result<_>>()
                    .map(Some)
            })
            .collect()
    }
}

fn expected_row(row: &SimpleQueryRow, view: &View) -> Result<Expected> {
    let event_time_us = match value::parse(row.try_get("_event_time")?, Ty::Instant)? {
        Value::Instant(us) => Some(us),
        _ => None,
    };
    let flag = |column: usize| Ok::<bool, anyhow::Error>(row.try_get(column)? == Some("t"));
    let mut column = 3;
    let mut values = Vec::new();
    for output in &view.outputs {
        values.push(value::parse(row.try_get(column)?, output.ty)?);
        column += 1;
    }
    let mut flags = Vec::new();
    for output in &view.outputs {
        let mut of_output = Vec::new();
        for _ in &output.calls {
            of_output.push((flag(column)?, flag(column + 1)?));
            column += 2;
        }
        flags.push(of_output);
    }
    Ok(Expected { answer: event_time_us.map(|_| values), event_time_us, expired: flag(2)?, flags })
}

fn cell(cell: &Cell) -> String {
    cell.as_deref().map_or("NULL".to_owned(), quoted)
}

/// The rows of one query by the simple protocol: every value as text.
pub async fn rows(client: &Client, sql: &str) -> Result<Vec<SimpleQueryRow>> {
    let messages = client.simple_query(sql).await?;
    Ok(messages
        .into_iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        })
        .collect())
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("the folder's name is not UTF-8")
}

fn script(args: &[&str]) -> Result<()> {
    let output = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/services/postgres.sh"))
        .args(args)
        .output()
        .context("tests/services/postgres.sh")?;
    if !output.status.success() {
        bail!("postgres.sh {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Ok(folder) = path(self.folder.path())
            && let Err(error) = script(&["stop", folder])
        {
            eprintln!("{error:#}");
        }
    }
}
