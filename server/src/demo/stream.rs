//! The year streams in on one connection while another looks up.

use super::Story;
use crate::client::copy_command::CopyCommand;
use crate::client::{Connection, Reply};
use anyhow::{Context, anyhow, bail};
use std::cell::Cell;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::time::Duration;
use tidemark_engine::seam::Clock;

/// Rows in one COPY: each is acknowledged as a whole.
const CHUNK_ROWS: u64 = 20_000;

/// A line is printed at the first lookup after so many further rows.
const SHOW_ROWS: u64 = 100_000;

/// Between lookups: the demo shows them, it does not measure how many there could be.
const PAUSE: Duration = Duration::from_millis(5);

const ORIGINS: [&str; 3] = ["EWR", "JFK", "LGA"];

impl Story {
    /// Runs a `\copy` of events in chunks, with lookups beside it.
    pub(super) async fn stream(&mut self, copy: &CopyCommand) -> anyhow::Result<()> {
        let path = self.examples.join(copy.file.as_deref().context("the events come from a file")?);
        let file = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
        self.say(&format!("\\copy flights FROM '{}' (in parts of {CHUNK_ROWS} rows)\n", path.display()))?;

        let begun = self.clock.now_us();
        let loading = Loading { acknowledged: Cell::new(0), done: Cell::new(false) };
        let (sql, rows_max) = (copy.sql(), self.rows_max.unwrap_or(u64::MAX));
        let (loaded, looked_up) = futures::join!(
            loading.load(&mut self.runner.connection, &sql, BufReader::new(file), rows_max),
            loading.look_up(&mut self.lookups, self.clock.as_ref()),
        );
        loaded?;
        let mut took_us = looked_up?;

        let rows = loading.acknowledged.get();
        let seconds = self.seconds_since(begun);
        took_us.sort_unstable();
        let at = |share: usize| took_us.get(took_us.len() * share / 100).copied().unwrap_or(0) as f64 / 1e3;
        self.say(&format!(
            "COPY {rows}\n   {rows} events into five views in {seconds:.1} s ({:.0} a second); {} lookups beside them: half \
             within {:.2} ms, 99 % within {:.2} ms\n",
            rows as f64 / seconds.max(1e-6),
            took_us.len(),
            at(50),
            at(99),
        ))
    }
}

struct Loading {
    acknowledged: Cell<u64>,
    done: Cell<bool>,
}

impl Loading {
    async fn load(
        &self,
        connection: &mut Connection,
        sql: &str,
        mut file: impl BufRead,
        rows_max: u64,
    ) -> anyhow::Result<()> {
        // Also when it fails: the lookups end with the load.
        let result = self.load_chunks(connection, sql, &mut file, rows_max).await;
        self.done.set(true);
        result
    }

    async fn load_chunks(
        &self,
        connection: &mut Connection,
        sql: &str,
        file: &mut impl BufRead,
        rows_max: u64,
    ) -> anyhow::Result<()> {
        let mut header = Vec::new();
        file.read_until(b'\n', &mut header)?;
        loop {
            let mut chunk = header.clone();
            let wanted = CHUNK_ROWS.min(rows_max - self.acknowledged.get());
            let mut rows = 0;
            while rows < wanted && file.read_until(b'\n', &mut chunk)? > 0 {
                rows += 1;
            }
            if rows == 0 {
                return Ok(());
            }
            connection.query(sql).await?;
            loop {
                match connection.reply().await? {
                    Reply::CopyIn => {
                        connection.copy_data(&chunk).await?;
                        connection.copy_done().await?;
                    }
                    Reply::Error(report) => bail!("{}", report.show(sql).trim_end()),
                    Reply::Ready => break,
                    _ => {}
                }
            }
            self.acknowledged.set(self.acknowledged.get() + rows);
        }
    }

    /// Looks up until the load is done; how long each took.
    async fn look_up(&self, connection: &mut Connection, clock: &dyn Clock) -> anyhow::Result<Vec<i64>> {
        let (mut took_us, mut shown) = (Vec::new(), 0);
        for origin in ORIGINS.iter().cycle() {
            let acknowledged = self.acknowledged.get();
            let begun = clock.now_us();
            let sql = format!("SELECT departures_1h, delay_mean_1h FROM origin_delays WHERE origin = '{origin}'");
            let row = one_row(connection, &sql).await?;
            took_us.push(clock.now_us() - begun);
            if acknowledged >= shown + SHOW_ROWS {
                shown = acknowledged - acknowledged % SHOW_ROWS;
                println!("{acknowledged:>10} events in   {origin}: {}", describe(row.as_deref()));
            }
            if self.done.get() {
                break;
            }
            clock.sleep(PAUSE).await;
        }
        Ok(took_us)
    }
}

fn describe(row: Option<&[Option<String>]>) -> String {
    match row {
        Some([Some(departures), mean]) => {
            let mean = mean.as_deref().and_then(|text| text.parse::<f64>().ok());
            let mean = mean.map_or("no delay known".to_string(), |mean| format!("mean delay {mean:.1} min"));
            format!("{departures} departures in the last hour, {mean}")
        }
        _ => "nothing known yet".to_string(),
    }
}

async fn one_row(connection: &mut Connection, sql: &str) -> anyhow::Result<Option<Vec<Option<String>>>> {
    connection.query(sql).await?;
    let mut result = Ok(None);
    loop {
        match connection.reply().await? {
            Reply::Row(row) => result = Ok(Some(row)),
            Reply::Error(report) => result = Err(anyhow!("{}", report.show(sql).trim_end())),
            Reply::Ready => return result,
            _ => {}
        }
    }
}
