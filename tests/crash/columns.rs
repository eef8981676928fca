//! A crash after `ALTER TABLE`: rows from before it come back with the columns that the table has now, and so does what a
//! feature view has of them.

use crate::server::{Folder, Server, rows, value};
use anyhow::{Result, ensure};

#[tokio::test]
async fn rows_from_before_a_column_came_or_went_survive_a_kill() -> Result<()> {
    let folder = Folder::new()?;
    let mut server = Server::start(&folder).await?;
    let client = server.connect().await?;
    client
        .batch_execute(
            "CREATE TABLE orders (id BIGINT PRIMARY KEY, shop TEXT, total NUMERIC(8,2), at TIMESTAMPTZ NOT NULL, WATERMARK FOR at AS at)
               WITH (clock = 'event');
             CREATE FEATURE VIEW shops AS SELECT shop, count(*) AS n, sum(total) AS total FROM orders GROUP BY shop;
             CREATE TABLE notes (n INT NOT NULL, t TEXT NOT NULL, m INT);
             INSERT INTO orders VALUES (1, 'a', 10, '2026-03-01 10:00:00+00'), (2, 'a', 20, '2026-03-01 11:00:00+00');
             INSERT INTO notes VALUES (1, 'x', 1), (2, 'y', 2);
             CHECKPOINT;
             INSERT INTO orders VALUES (3, 'b', 5, '2026-03-01 12:00:00+00');
             ALTER TABLE orders ADD COLUMN note TEXT DEFAULT 'old', ADD COLUMN times INT[];
             ALTER TABLE notes DROP COLUMN t, ADD COLUMN w DOUBLE PRECISION DEFAULT 0.5;
             INSERT INTO orders VALUES (4, 'b', 7, '2026-03-01 13:00:00+00', 'new', '{1,2}');
             UPDATE orders SET total = 1, at = '2026-03-01 14:00:00+00' WHERE id = 1;
             INSERT INTO notes VALUES (3, 3, 1.5);
             DELETE FROM notes WHERE n = 1;
             ALTER TABLE notes RENAME m TO e",
        )
        .await?;
    let questions = [
        "SELECT * FROM orders ORDER BY id",
        "SELECT * FROM notes ORDER BY n",
        "SELECT shop, n, total FROM shops WHERE shop IN ('a', 'b') ORDER BY shop",
        "SELECT shop, n, total FROM shops FOR SYSTEM_TIME AS OF TIMESTAMPTZ '2026-03-01 12:30:00+00' ORDER BY shop",
    ];
    let mut before = vec![];
    for question in questions {
        before.push(rows(&client, question).await?);
    }
    ensure!(before[0].len() == 4 && before[1].len() == 2, "{before:?}");
    for _ in 0..2 {
        server.kill()?;
        server = Server::start(&folder).await?;
        let client = server.connect().await?;
        for (question, before) in questions.iter().zip(&before) {
            let after = rows(&client, question).await?;
            ensure!(after == *before, "{question}: {after:?}, before {before:?}\n{}", folder.log_tail());
        }
        // The view and the log go on, and the next time from a checkpoint with all of it.
        client
            .batch_execute("INSERT INTO orders (id, shop, total, at) VALUES (9, 'c', 1, '2026-03-02 10:00:00+00')")
            .await?;
        ensure!(value(&client, "SELECT note FROM orders WHERE id = 9").await?.as_deref() == Some("old"));
        ensure!(value(&client, "SELECT n FROM shops WHERE shop = 'c'").await?.as_deref() == Some("1"));
        client.batch_execute("DELETE FROM orders WHERE id = 9; CHECKPOINT").await?;
    }
    Ok(())
}
