//! Arrow out of COPY, as a file of the server and as a stream to the client: PyArrow reads both, and COPY reads both back.

use crate::{
    python::python,
    server::{Folder, Server, rows, value},
};
use anyhow::{Context, Result, ensure};
use arrow::{array::AsArray, datatypes::Int64Type, ipc::reader::StreamReader};
use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use tokio_postgres::Client;

async fn stream(client: &Client, sql: &str) -> Result<BytesMut> {
    let out = client.copy_out(sql).await.with_context(|| sql.to_owned())?;
    let add = |mut all: BytesMut, piece: Bytes| async move {
        all.extend_from_slice(&piece);
        Ok(all)
    };
    out.try_fold(BytesMut::new(), add).await.with_context(|| sql.to_owned())
}

/// Prints the schema and the rows of a file of either format.
const READ: &str = r#"
import sys
import pyarrow as pa
for path, reader in ((sys.argv[1], pa.ipc.open_file), (sys.argv[2], pa.ipc.open_stream)):
    table = reader(pa.memory_map(path)).read_all()
    print(", ".join(f"{field.name} {field.type}" for field in table.schema))
    for row in table.to_pylist():
        print(", ".join(str(value) for value in row.values()))
"#;

const QUERY: &str = "SELECT id, word, price, at, day, ok, raw, nums FROM t ORDER BY id";

#[tokio::test]
async fn pyarrow_reads_what_copy_writes_as_a_file_and_as_a_stream() -> Result<()> {
    let Some(python) = python("TIDEMARK_LAKE_PYTHON")? else { return Ok(()) };
    let folder = Folder::new()?;
    let server = Server::start(&folder).await?;
    let client = server.connect().await?;
    client
        .batch_execute(
            "CREATE TABLE t (id BIGINT, word TEXT, price NUMERIC(8,2), at TIMESTAMPTZ, day DATE, ok BOOLEAN, raw BYTEA, nums BIGINT[]);
             INSERT INTO t VALUES (1, 'one', 1.50, '2026-03-02 10:00:00+00', '2026-03-02', true, '\\x00ff', '{1,NULL}'),
                                  (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
        )
        .await?;
    client.batch_execute(&format!("COPY ({QUERY}) TO 'out.arrow' (FORMAT arrow)")).await?;
    let (file, streamed) = (folder.path().join("out.arrow"), folder.path().join("out.arrows"));
    std::fs::write(&streamed, stream(&client, &format!("COPY ({QUERY}) TO STDOUT (FORMAT arrow)")).await?)?;
    let mut command = tokio::process::Command::new(python);
    let output = command.args(["-c", READ]).arg(&file).arg(&streamed).kill_on_drop(true).output().await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read = String::from_utf8(output.stdout)?;
    let lines: Vec<&str> = read.lines().collect();
    ensure!(lines.len() == 6 && lines[..3] == lines[3..], "{read}");
    ensure!(lines[0].starts_with("id int64, word string, price decimal128(8, 2), at timestamp[us, tz="), "{read}");
    ensure!(
        lines[1] == "1, one, 1.50, 2026-03-02 10:00:00+00:00, 2026-03-02, True, b'\\x00\\xff', [1, None]",
        "{read}"
    );
    ensure!(lines[2] == "2, None, None, None, None, None, None, None", "{read}");

    let expected = rows(&client, QUERY).await?;
    for file in ["out.arrow", "out.arrows"] {
        client.batch_execute("TRUNCATE t").await?;
        client.batch_execute(&format!("COPY t FROM '{file}' (FORMAT arrow)")).await?;
        ensure!(rows(&client, QUERY).await? == expected, "{file}");
    }
    Ok(())
}

#[tokio::test]
async fn a_long_stream_of_arrow_comes_whole_in_messages_of_any_size() -> Result<()> {
    let folder = Folder::new()?;
    let server = Server::start(&folder).await?;
    let client = server.connect().await?;
    let bytes = stream(
        &client,
        "COPY (SELECT n, repeat('x', 100) AS t FROM generate_series(1, 100000) AS g (n)) TO STDOUT (FORMAT arrow)",
    )
    .await?;
    let (mut count, mut sum) = (0, 0);
    for batch in StreamReader::try_new(&bytes[..], None)? {
        let batch = batch?;
        count += batch.num_rows();
        sum += batch.column(0).as_primitive::<Int64Type>().values().iter().sum::<i64>();
    }
    ensure!((count, sum) == (100_000, 5_000_050_000), "{count} rows, {sum}");
    // Of no rows there is a schema, and an end.
    let bytes = stream(&client, "COPY (SELECT 1 AS a WHERE false) TO STDOUT (FORMAT arrow)").await?;
    let none = StreamReader::try_new(&bytes[..], None)?;
    ensure!(none.schema().field(0).name() == "a" && none.count() == 0, "rows came");
    ensure!(value(&client, "SELECT 1").await?.as_deref() == Some("1"));
    Ok(())
}
