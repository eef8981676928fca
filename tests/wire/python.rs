//! Python's libraries: psycopg at the server, PyIceberg and DuckDB at its warehouse. `scripts/test.sh` has made
//! environments with them (`TIDEMARK_PYTHON`, `TIDEMARK_LAKE_PYTHON`).

use crate::server::{Folder, Server, shown, skipped, value};
use anyhow::{Result, bail, ensure};

const SCRIPT: &str = r#"
import sys
import psycopg
from datetime import datetime, timezone
with psycopg.connect(sys.argv[1], autocommit=True) as c:
    c.execute("CREATE SOURCE clicks (k BIGINT, x DOUBLE PRECISION, at TIMESTAMPTZ NOT NULL, WATERMARK FOR at AS at) WITH (clock = 'event')")
    c.execute("CREATE FEATURE VIEW spend AS SELECT k, at, sum(x) OVER (PARTITION BY k ORDER BY at) AS total FROM clicks")
    at = datetime(2026, 3, 2, 10, tzinfo=timezone.utc)
    c.execute("INSERT INTO clicks VALUES (%s, %s, %s)", (1, 0.5, at))
    with c.cursor().copy("COPY clicks FROM STDIN") as copy:
        copy.write_row((1, 1.0, at))
        copy.write_row((2, None, at))
    for binary in (False, True):
        cursor = c.cursor(binary=binary)
        assert cursor.execute("SELECT total, at FROM spend WHERE k = %s", (1,)).fetchall() == [(1.5, at)]
        assert sorted(cursor.execute("SELECT k FROM spend WHERE k = ANY(%s)", ([1, 2, 3],)).fetchall()) == [(1,), (2,)]
        assert cursor.execute("SELECT total FROM spend WHERE k = %s", (9,), prepare=True).fetchone() is None
        # Text that nothing gives a type, and an instant that decides what is read
        assert cursor.execute("SELECT %s", ("hey",)).fetchone() == ("hey",)
        assert cursor.execute("SELECT %s AS model, k FROM spend WHERE k = %s", ("m1", 2)).fetchall() == [("m1", 2)]
        for placeholder, instant in (("%t", at), ("%b", at), ("%s", str(at)), ("%s::timestamptz", str(at))):
            sql = f"SELECT total FROM spend FOR SYSTEM_TIME AS OF {placeholder} WHERE k = %s"
            assert cursor.execute(sql, (instant, 1)).fetchall() == [(1.5,)], placeholder
            c.execute(f"ALTER SOURCE clicks ADVANCE WATERMARK TO {placeholder}", (instant,))
        try:
            c.execute("SELECT total FROM spend FOR SYSTEM_TIME AS OF %s", (None,))
            raise SystemExit("as of NULL")
        except psycopg.errors.NullValueNotAllowed:
            pass
    try:
        c.execute("SELECT * FROM nothing")
        raise SystemExit("no error")
    except psycopg.errors.UndefinedTable as error:
        assert "nothing" in str(error)
print("ok")
"#;

/// Where psycopg is.
pub const PYTHON: &str = "TIDEMARK_PYTHON";

/// The Python that this variable names; `None` where it names none, unless it must.
pub fn python(variable: &str) -> Result<Option<String>> {
    match std::env::var(variable) {
        Ok(python) if std::path::Path::new(&python).exists() => Ok(Some(python)),
        Ok(python) => skipped(&format!("{variable}={python} is not there")).map(|()| None),
        Err(_) => skipped(&format!("{variable} is not set")).map(|()| None),
    }
}

/// Runs a script against a server of its own; it finds where to connect in its first argument.
pub async fn psycopg(script: &str) -> Result<()> {
    let Some(python) = python("TIDEMARK_PYTHON")? else { return Ok(()) };
    let folder = Folder::new()?;
    let server = Server::start(&folder).await?;
    let url = format!("host=127.0.0.1 port={} user=tidemark dbname=tidemark", server.port);
    let output = tokio::process::Command::new(python).args(["-c", script, &url]).kill_on_drop(true).output().await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[tokio::test]
async fn psycopg_looks_up_and_copies() -> Result<()> {
    psycopg(SCRIPT).await
}

/// A reader that is not ours evaluates a time-continuous feature by the formula beside its base.
#[tokio::test]
async fn the_history_tells_foreign_readers_how_to_compute_what_goes_on_with_time() -> Result<()> {
    let Some(python) = python("TIDEMARK_LAKE_PYTHON")? else { return Ok(()) };
    let folder = Folder::new()?;
    let server = Server::start(&folder).await?;
    let client = server.connect().await?;
    client
        .batch_execute(
            "CREATE SOURCE clicks (k BIGINT, x DOUBLE PRECISION, at TIMESTAMPTZ NOT NULL, WATERMARK FOR at AS at) WITH (clock = 'event');
             CREATE FEATURE VIEW spend AS SELECT k, at, sum(x) OVER w AS total, now() - max(at) OVER w AS since FROM clicks
               WINDOW w AS (PARTITION BY k ORDER BY at RANGE INTERVAL '1 hour' PRECEDING);
             COMMENT ON COLUMN spend.total IS 'said after CREATE: it stays in the catalog';
             INSERT INTO clicks VALUES (1, 0.5, '2026-03-02 10:00:00+00');
             ALTER SOURCE clicks ADVANCE WATERMARK TO TIMESTAMPTZ '2026-03-02 10:30:00+00';
             CHECKPOINT",
        )
        .await?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/read_history.py");
    let mut command = tokio::process::Command::new(python);
    command.arg(script).arg(folder.data().join("warehouse")).args(["spend", "k", "at", "--comments"]);
    let output = command.kill_on_drop(true).output().await?;
    let printed = String::from_utf8(output.stdout)?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let comment = |column: &str| {
        let mut lines = printed.lines().filter_map(|line| line.split_once(','));
        lines.find(|(name, _)| *name == column).map(|(_, comment)| comment)
    };
    let formula = comment("since_base").unwrap_or_default();
    for words in ["base of since: ", "__now", "since_base", "the instant of the reading"] {
        ensure!(formula.contains(words), "nothing about {words:?} beside the base: {printed}");
    }
    // What is said after CREATE stays in the catalog.
    ensure!(comment("total") == Some(""), "{printed}");
    Ok(())
}

/// What a model was trained on, read by the engines of those who train it.
#[tokio::test]
async fn a_training_set_is_a_table_that_pyiceberg_and_duckdb_read_whole_after_every_refresh() -> Result<()> {
    let Some(python) = python("TIDEMARK_LAKE_PYTHON")? else { return Ok(()) };
    let folder = Folder::new()?;
    let server = Server::start(&folder).await?;
    let client = server.connect().await?;
    client
        .batch_execute(
            "CREATE TABLE labels (id BIGINT NOT NULL, ts TIMESTAMPTZ, tags TEXT[], price NUMERIC(8,2), waited INTERVAL, small SMALLINT);
             INSERT INTO labels VALUES (1, '2026-03-02 10:00:00.5+00', '{a,NULL}', 1.50, '1 month 2 days 3.5 seconds', -7), (2, NULL, NULL, NULL, NULL, NULL);
             CREATE TRAINING SET train AS SELECT * FROM labels",
        )
        .await?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/read_history.py");
    let read = async || -> Result<String> {
        let mut command = tokio::process::Command::new(&python);
        command.arg(script).arg(folder.data().join("warehouse")).args(["train", "id", "ts"]);
        let output = command.kill_on_drop(true).output().await?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    };
    let mut expected = "id,ts,tags,price,waited,small\n".to_string();
    expected += "1,2026-03-02 10:00:00.500000+00,\"{a,NULL}\",1.50,1 mons 2 days 3.500000000 secs,-7\n2,,,,,\n";
    ensure!(read().await? == expected, "{}", read().await?);
    client.batch_execute("INSERT INTO labels (id) VALUES (3); REFRESH TRAINING SET train").await?;
    expected += "3,,,,,\n";
    ensure!(read().await? == expected, "{}", read().await?);
    Ok(())
}

/// A file of PyArrow's, with types that we do not have ourselves.
const LAKE: &str = r#"
import sys
from datetime import date, datetime, time, timezone
from decimal import Decimal
import pyarrow as pa
import pyarrow.parquet as pq
at = datetime(2026, 3, 2, 10, 0, 0, 123000, tzinfo=timezone.utc)
def column(values, ty):
    return pa.array(values, ty)
table = pa.table({
    "u8": column([255, None, 0], pa.uint8()),
    "u16": column([65535, None, 0], pa.uint16()),
    "u32": column([4294967295, None, 0], pa.uint32()),
    "u64": column([18446744073709551615, None, 0], pa.uint64()),
    "i8": column([-128, None, 0], pa.int8()),
    "d": column([Decimal("1234567890123456.789"), None, Decimal("-0.001")], pa.decimal128(38, 3)),
    "ms": column([at, None, at], pa.timestamp("ms", tz="UTC")),
    "naive": column([at.replace(tzinfo=None), None, None], pa.timestamp("us")),
    "day": column([date(2026, 3, 2), None, date(1969, 12, 31)], pa.date32()),
    "clock": column([time(1, 2, 3, 4000), None, None], pa.time32("ms")),
    "word": pa.array(["a", None, "b"]).dictionary_encode(),
    "large": column(["long", None, ""], pa.large_string()),
    "fixed": column([b"\x00\x01", None, b"ab"], pa.binary(2)),
    "floats": column([[1.5, None], None, []], pa.list_(pa.float32())),
    "Quoted Name": column([True, None, False], pa.bool_()),
})
# A row group for each row
pq.write_table(table, sys.argv[1] + "/types.parquet", row_group_size=1)
pq.write_table(pa.table({"id": [1], "ns": column([at], pa.timestamp("ns", tz="UTC"))}), sys.argv[1] + "/ns.parquet")
pq.write_table(pa.table({"id": [1], "s": [{"a": 1}]}), sys.argv[1] + "/struct.parquet")
"#;

#[tokio::test]
async fn a_parquet_file_of_pyarrows_is_a_table_with_the_same_values() -> Result<()> {
    let Some(python) = python("TIDEMARK_LAKE_PYTHON")? else { return Ok(()) };
    let folder = Folder::new()?;
    let output =
        tokio::process::Command::new(python).args(["-c", LAKE]).arg(folder.path()).kill_on_drop(true).output().await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let server = Server::start(&folder).await?;
    let client = server.connect().await?;
    client.batch_execute("CREATE TABLE types WITH (connector = 'parquet', path = 'types.parquet')").await?;
    let expected = [
        ("u8", "smallint", "255", "0"),
        ("u16", "integer", "65535", "0"),
        ("u32", "bigint", "4294967295", "0"),
        ("u64", "numeric", "18446744073709551615", "0"),
        ("i8", "smallint", "-128", "0"),
        ("d", "numeric", "1234567890123456.789", "-0.001"),
        ("ms", "timestamp with time zone", "2026-03-02 10:00:00.123+00", "2026-03-02 10:00:00.123+00"),
        ("naive", "timestamp without time zone", "2026-03-02 10:00:00.123", "NULL"),
        ("day", "date", "2026-03-02", "1969-12-31"),
        ("clock", "time without time zone", "01:02:03.004", "NULL"),
        ("word", "text", "a", "b"),
        ("large", "text", "long", ""),
        ("fixed", "bytea", "\\x0001", "\\x6162"),
        ("floats", "ARRAY", "{1.5,NULL}", "{}"),
        ("Quoted Name", "boolean", "t", "f"),
    ];
    for (column, ty, first, last) in expected {
        let sql = format!(
            "SELECT data_type FROM information_schema.columns WHERE table_name = 'types' AND column_name = '{column}'"
        );
        let found = value(&client, &sql).await?;
        ensure!(found.as_deref() == Some(ty), "{column} is {found:?}");
        // By what is in the first row group and in the last; the one between is NULL throughout.
        for (word, expected) in [("= 'a'", first), ("= 'b'", last), ("IS NULL", "NULL")] {
            let found = value(&client, &format!("SELECT \"{column}\" FROM types WHERE word {word}")).await?;
            let found = found.as_deref().unwrap_or("NULL");
            ensure!(found == expected, "{column} where word {word} is {found}");
        }
    }
    for (filter, expected) in [
        ("u64 = 18446744073709551615::numeric(20, 0)", "1"),
        ("u8 < 1", "1"),
        ("ms = TIMESTAMPTZ '2026-03-02 10:00:00.123+00'", "2"),
        ("ms > TIMESTAMPTZ '2026-03-02 10:00:00.123+00'", "0"),
        ("d < 0", "1"),
        ("day < DATE '1970-01-01' OR large = 'long'", "2"),
        ("\"Quoted Name\"", "1"),
        ("i8 IS NULL", "1"),
    ] {
        let found = value(&client, &format!("SELECT count(*) FROM types WHERE {filter}")).await?;
        ensure!(found.as_deref() == Some(expected), "{found:?} rows have {filter}");
    }
    for (file, column) in [("ns", "ns"), ("struct", "s")] {
        let sql = format!("CREATE TABLE bad WITH (connector = 'parquet', path = '{file}.parquet')");
        let Err(error) = client.batch_execute(&sql).await else { bail!("{file} was taken") };
        let said = shown(&error);
        ensure!(said.starts_with(&format!("0A000: column \"{column}\" of file")), "{said}");
        // The others can be read.
        let sql = format!("CREATE TABLE {file} (id BIGINT) WITH (connector = 'parquet', path = '{file}.parquet')");
        client.batch_execute(&sql).await?;
        ensure!(value(&client, &format!("SELECT id FROM {file}")).await?.as_deref() == Some("1"), "{file}");
    }
    // The definition lasts, without a log.
    drop(client);
    drop(server);
    let server = Server::start(&folder).await?;
    ensure!(value(&server.connect().await?, "SELECT count(*) FROM types").await?.as_deref() == Some("3"));
    Ok(())
}
