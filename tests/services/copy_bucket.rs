//! COPY to and from objects of a bucket: every format, requests that fail, a COPY that fails or is cancelled half-way.

use crate::{
    PATIENCE, POLL,
    http_proxy::{Fault, Proxy, forward},
    refused, run,
    s3_server::{BUCKET, S3Server},
    server::{Folder, Server, rows, shown, skipped, value},
};
use anyhow::{Result, bail, ensure};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};
use tokio_postgres::NoTls;

/// As CSV some 19 MB: three parts.
const ROWS: &str = "400000";

/// What has begun to go up and is no object yet.
async fn unfinished(s3: &S3Server) -> Result<String> {
    let head = format!("GET /{BUCKET}?uploads HTTP/1.1\r\nHost: 127.0.0.1\r\n");
    let answer = String::from_utf8_lossy(&forward(s3.port(), &head, b"").await?).to_string();
    ensure!(answer.contains("ListMultipartUploadsResult"), "{answer}");
    Ok(answer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_go_into_objects_whole_or_not_at_all_and_come_back_the_same() -> Result<()> {
    let Some(s3) = S3Server::shared()? else {
        return skipped("TIDEMARK_TEST_S3_PYTHON is not set; scripts/setup.sh test makes it");
    };
    let parts = Arc::new(AtomicU64::new(0));
    let count = |parts: &Arc<AtomicU64>, line: &str| {
        parts.fetch_add(u64::from(line.starts_with("PUT") && line.contains("partNumber=")), Ordering::Relaxed);
    };
    let counted = parts.clone();
    let proxy = Proxy::before(s3.port(), move |_, line| {
        count(&counted, line);
        None
    })
    .await?;
    let mut folder = Folder::new()?;
    folder.set("AWS_ACCESS_KEY_ID", "testkey".into());
    folder.set("AWS_SECRET_ACCESS_KEY", "testsecret".into());
    let endpoint = proxy.endpoint();
    let server = Server::start_with(&folder, &["--s3-endpoint", &endpoint]).await?;
    let (client, url) = (server.connect().await?, s3.prefix());
    let key = url.trim_start_matches(&format!("s3://{BUCKET}/")).to_string();
    let made = "CREATE TABLE t AS SELECT n, md5(n::text) AS h, n::double precision / 4 AS x FROM generate_series(1, ";
    run(&client, &format!("{made}{ROWS}) AS g(n)")).await?;
    let back = "SELECT count(*), sum(n), count(DISTINCT h), sum(x), count(*) FILTER (WHERE h <> md5(n::text)) FROM ";
    let expected = rows(&client, &format!("{back} t")).await?;
    for format in ["csv", "text", "binary", "parquet", "arrow"] {
        // Of the last two some answers are lost: parts go up twice, and an end of an upload may be made twice.
        let (counted, loses) = (parts.clone(), matches!(format, "parquet" | "arrow"));
        proxy.set(move |number, line| {
            count(&counted, line);
            (loses && number % 4 == 3).then_some(Fault::AnswerLost)
        });
        let object = format!("{url}/rows.{format}");
        // Over one of the same name too.
        for sql in ["(SELECT 'something else' AS said)", "t"] {
            run(&client, &format!("COPY {sql} TO '{object}' (FORMAT {format})")).await?;
        }
        run(&client, "CREATE TABLE b (n BIGINT, h TEXT, x DOUBLE PRECISION)").await?;
        run(&client, &format!("COPY b FROM '{object}' (FORMAT {format})")).await?;
        ensure!(rows(&client, &format!("{back} b")).await? == expected, "{format}");
        run(&client, "DROP TABLE b").await?;
    }
    ensure!(parts.load(Ordering::Relaxed) >= 6, "nothing went up in parts");

    // Its third part does not go up: what was there is there, and nothing of the other.
    let object = format!("{url}/rows.csv");
    proxy.set(|_, line| (line.starts_with("PUT") && line.contains("partNumber=3")).then_some(Fault::SlowDown));
    refused(&client, &format!("COPY (SELECT n, h, x FROM t) TO '{object}' (FORMAT csv)"), "SlowDown").await?;
    ensure!(!unfinished(&s3).await?.contains(&format!("{key}/rows.csv")), "parts are left behind");
    proxy.set(|_, _| None);
    run(&client, "CREATE TABLE b (n BIGINT, h TEXT, x DOUBLE PRECISION)").await?;
    run(&client, &format!("COPY b FROM '{object}' (FORMAT csv)")).await?;
    ensure!(rows(&client, &format!("{back} b")).await? == expected);

    // A row that fails.
    let failing = format!("COPY (SELECT n, h, 10 / ({ROWS} - n) FROM t) TO '{url}/failed.csv' (FORMAT csv)");
    refused(&client, &failing, "division by zero").await?;
    refused(&client, &format!("COPY b FROM '{url}/failed.csv' (FORMAT csv)"), "58P01").await?;
    ensure!(!unfinished(&s3).await?.contains(&format!("{key}/failed.csv")), "parts are left behind");
    refused(
        &client,
        "COPY (SELECT 1) TO 's3://no-such-bucket/x.csv' (FORMAT csv)",
        "there is no bucket no-such-bucket at",
    )
    .await?;

    // Cancelled when two parts are up.
    let (counted, before) = (parts.clone(), parts.load(Ordering::Relaxed));
    proxy.set(move |_, line| {
        count(&counted, line);
        None
    });
    let token = client.cancel_token();
    let long = format!("COPY (SELECT a.h, b.x FROM t a CROSS JOIN t b) TO '{url}/cancelled.csv' (FORMAT csv)");
    let mut copy = std::pin::pin!(client.batch_execute(&long));
    let error = loop {
        tokio::select! {
            ended = &mut copy => match ended {
                Ok(()) => bail!("it has ended by itself"),
                Err(error) => break error,
            },
            () = tokio::time::sleep(POLL) => {
                if parts.load(Ordering::Relaxed) >= before + 2 {
                    token.cancel_query(NoTls).await?;
                }
            }
        }
    };
    ensure!(error.code().is_some_and(|code| code.code() == "57014"), "{}", shown(&error));
    let started = Instant::now();
    while unfinished(&s3).await?.contains(&format!("{key}/cancelled.csv")) {
        ensure!(started.elapsed() < PATIENCE, "parts are left behind");
        tokio::time::sleep(POLL).await;
    }
    refused(&client, &format!("COPY b FROM '{url}/cancelled.csv' (FORMAT csv)"), "58P01").await?;
    ensure!(value(&client, "SELECT count(*) FROM t").await?.as_deref() == Some(ROWS), "the session goes on");
    Ok(())
}
