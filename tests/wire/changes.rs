//! What other sessions see of an UPDATE while it runs: what was there before it, or all of it.

use crate::server::{Folder, Server, value};
use anyhow::{Result, ensure};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_is_seen_whole_or_not_at_all() -> Result<()> {
    let folder = Folder::new()?;
    let server = Server::start(&folder).await?;
    let client = server.connect().await?;
    for table in ["keyed (id BIGINT PRIMARY KEY, v BIGINT)", "plain (id BIGINT, v BIGINT)"] {
        let name = &table[..5];
        // Several batches of rows.
        client.batch_execute(&format!("CREATE TABLE {table}")).await?;
        client.batch_execute(&format!("INSERT INTO {name} SELECT n, 1 FROM generate_series(1, 30000) AS g(n)")).await?;
        let other = server.connect().await?;
        let update = format!("UPDATE {name} SET v = v + CASE WHEN id <= 15000 THEN 1 ELSE -1 END");
        let writer = tokio::spawn(async move {
            for _ in 0..10 {
                other.batch_execute(&update).await?;
            }
            Ok::<_, tokio_postgres::Error>(())
        });
        let mut seen = 0;
        while !writer.is_finished() || seen == 0 {
            let read = value(&client, &format!("SELECT count(*) || ' ' || sum(v) FROM {name}")).await?;
            ensure!(read.as_deref() == Some("30000 30000"), "{name}, reading {seen}: {read:?}");
            seen += 1;
        }
        writer.await??;
    }
    Ok(())
}
