//! History whose catalog is in a PostgreSQL: the same contract as with a file, commits whose outcome nobody knows, connections
//! that end, others' tables in the same database, and other engines that read.
//!
//! Needs PostgreSQL's server programs (`tests/services/postgres.sh`).

use crate::{
    contract_history::{DAY, HOUR, NEW_YEAR, contract, files_below, flights, scan, steps, tag},
    postgres_server::PostgresServer,
    test_clock::TestClock,
};
use arrow::array::AsArray;
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tidemark_connectors::{
    clock::SystemClock,
    iceberg::{IcebergHistory, Place, PostgresSettings},
};
use tidemark_engine::seam::{HistoryStore, SeamError, SeamResult};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Handle,
};

fn server() -> Option<Arc<PostgresServer>> {
    let server = PostgresServer::shared().unwrap();
    if server.is_none() {
        crate::skipped("there are no server programs of PostgreSQL");
    }
    server
}

fn url(port: u16, database: &str) -> String {
    format!("postgres://postgres:unseen@127.0.0.1:{port}/{database}")
}

async fn try_open(url: &str, folder: &Path, directory: &str) -> SeamResult<Arc<dyn HistoryStore>> {
    let settings = PostgresSettings::parse(url, None).unwrap();
    // Statements take real time.
    let clock = Arc::new(SystemClock::new(Handle::current()));
    let place = Place::folder(folder).unwrap();
    Ok(Arc::new(IcebergHistory::open_postgres(&settings, directory.to_string(), place, clock).await?))
}

async fn open(url: &str, folder: &Path, directory: &str) -> Arc<dyn HistoryStore> {
    try_open(url, folder, directory).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_in_postgres_keeps_the_contract_of_a_history_store() {
    let Some(server) = server() else { return };
    let (url, folder) = (url(server.port(), &server.database().await.unwrap()), tempfile::tempdir().unwrap());
    contract(|| open(&url, folder.path(), "one")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_rows_are_those_of_a_sql_catalog_and_old_files_go() {
    let Some(server) = server() else { return };
    let database = server.database().await.unwrap();
    let (url, folder) = (url(server.port(), &database), tempfile::tempdir().unwrap());
    let store = open(&url, folder.path(), "one").await;
    let table = flights("marts.delays", 16400);
    store.create(&table).await.unwrap();
    for sequence in 1..=4 {
        let rows = vec![steps(&table, &[("JFK", NEW_YEAR + sequence as i64 * HOUR)])];
        store.append(&table, rows, &tag(1, sequence)).await.unwrap();
    }
    let session = server.session(&database).await.unwrap();
    let row = session
        .query_one(
            "SELECT catalog_name, table_namespace, table_name, iceberg_type, metadata_location, \
             previous_metadata_location FROM iceberg_tables",
            &[],
        )
        .await
        .unwrap();
    let text = |at: usize| row.get::<usize, String>(at);
    assert_eq!([text(0), text(1), text(2), text(3)], ["tidemark", "marts", "delays", "TABLE"]);
    assert!(text(4).contains("/metadata/00004-") && text(5).contains("/metadata/00003-"), "{} {}", text(4), text(5));
    let namespaces = session
        .query("SELECT namespace FROM iceberg_namespace_properties WHERE catalog_name = 'tidemark' ORDER BY 1", &[])
        .await
        .unwrap();
    let namespaces: Vec<String> = namespaces.iter().map(|row| row.get(0)).collect();
    assert_eq!(namespaces, ["marts", "public"]);

    assert_eq!(store.optimize(&table).await.unwrap().files_after, 1);
    assert!(store.vacuum(&table, i64::MAX).await.unwrap().files >= 4);
    assert_eq!(files_below(&folder.path().join("marts"), ".parquet").len(), 1);
    assert_eq!(scan(&store, &table).await.num_rows(), 4);
    store.as_ref().drop("marts.delays").await.unwrap();
    assert!(files_below(&folder.path().join("marts"), "").is_empty());
    let left = session.query_one("SELECT count(*) FROM iceberg_tables", &[]).await.unwrap();
    assert_eq!(left.get::<usize, i64>(0), 0);
}

/// What a commit is known by on the wire.
const COMMIT: &[u8] = b"UPDATE iceberg_tables SET metadata_location";

/// Before the database: where to connect, and what is set for the answer of the next commit to be lost.
async fn losing(port: u16) -> (u16, Arc<AtomicBool>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let at = listener.local_addr().unwrap().port();
    let armed = Arc::new(AtomicBool::new(false));
    let is_armed = armed.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(lose_answers(client, port, is_armed.clone()));
        }
    });
    (at, armed)
}

async fn lose_answers(mut client: TcpStream, port: u16, armed: Arc<AtomicBool>) {
    let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut asked, mut told) = (vec![0; 16 << 10], vec![0; 16 << 10]);
    let mut is_lost = false;
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let Ok(bytes @ 1..) = read else { return };
                let is_commit = asked[..bytes].windows(COMMIT.len()).any(|part| part == COMMIT);
                is_lost |= is_commit && armed.swap(false, Ordering::SeqCst);
                if server.write_all(&asked[..bytes]).await.is_err() {
                    return;
                }
            }
            read = server.read(&mut told) => {
                let Ok(bytes @ 1..) = read else { return };
                // PostgreSQL sends nothing of it before it is committed.
                if is_lost || client.write_all(&told[..bytes]).await.is_err() {
                    return;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_which_nobody_knows_is_said_to_be_so_and_the_table_tells() {
    let Some(server) = server() else { return };
    let database = server.database().await.unwrap();
    let (port, lose) = losing(server.port()).await;
    let (url, folder) = (url(port, &database), tempfile::tempdir().unwrap());
    let store = open(&url, folder.path(), "one").await;
    let table = flights("delays", 16400);
    store.create(&table).await.unwrap();
    let row = |sequence: u64| vec![steps(&table, &[("JFK", NEW_YEAR + sequence as i64 * HOUR)])];
    store.append(&table, row(1), &tag(1, 1)).await.unwrap();

    // It happened, and the answer does not come.
    lose.store(true, Ordering::SeqCst);
    let error = store.append(&table, row(2), &tag(1, 2)).await.unwrap_err();
    assert!(matches!(error, SeamError::Unknown(_)), "{error:?}");
    assert!(!lose.load(Ordering::SeqCst) && !error.to_string().contains("unseen"), "{error}");
    assert_eq!(store.last_tag("delays").await.unwrap(), Some(tag(1, 2)));
    assert_eq!(scan(&store, &table).await.num_rows(), 2);

    // Another engine holds the row, and the connection of a commit that waits for it is ended.
    let (holder, watcher) = (server.session(&database).await.unwrap(), server.session(&database).await.unwrap());
    holder.batch_execute("BEGIN; SELECT 1 FROM iceberg_tables FOR UPDATE").await.unwrap();
    let (committing, into, rows) = (store.clone(), table.clone(), row(3));
    let commit = tokio::spawn(async move { committing.append(&into, rows, &tag(1, 3)).await });
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE 'UPDATE iceberg_tables%'";
    while watcher.query(end, &[]).await.unwrap().is_empty() {
        assert!(!commit.is_finished(), "it did not wait");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let error = commit.await.unwrap().unwrap_err();
    assert!(matches!(error, SeamError::Unknown(_)), "{error:?}");
    holder.batch_execute("COMMIT").await.unwrap();
    assert_eq!(store.last_tag("delays").await.unwrap(), Some(tag(1, 2)));
    store.append(&table, row(3), &tag(1, 3)).await.unwrap();
    assert_eq!(scan(&store, &table).await.num_rows(), 3);

    // What speaks for a database, a pooler or a cluster, may say ERROR and that it does not know.
    for (code, is_known) in [("08006", false), ("40003", false), ("23514", true)] {
        let refuse = format!(
            "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql \
             AS $$ BEGIN RAISE 'refused' USING ERRCODE = '{code}'; END $$; \
             DROP TRIGGER IF EXISTS refuse ON iceberg_tables; \
             CREATE TRIGGER refuse BEFORE UPDATE ON iceberg_tables FOR EACH ROW EXECUTE FUNCTION refuse()"
        );
        holder.batch_execute(&refuse).await.unwrap();
        let error = store.append(&table, row(4), &tag(1, 4)).await.unwrap_err();
        assert_eq!(matches!(error, SeamError::NotDone(_)), is_known, "{code}: {error:?}");
        assert_eq!(matches!(error, SeamError::Unknown(_)), !is_known, "{code}: {error:?}");
    }
    holder.batch_execute("DROP TRIGGER refuse ON iceberg_tables").await.unwrap();
    store.append(&table, row(4), &tag(1, 4)).await.unwrap();
    assert_eq!(scan(&store, &table).await.num_rows(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_was_held_up_while_a_newer_writer_came_is_refused() {
    let Some(server) = server() else { return };
    let database = server.database().await.unwrap();
    let (url, folder) = (url(server.port(), &database), tempfile::tempdir().unwrap());
    let (store, newer) = (open(&url, folder.path(), "one").await, open(&url, folder.path(), "one").await);
    let table = flights("delays", 16400);
    store.create(&table).await.unwrap();
    store.append(&table, vec![steps(&table, &[("JFK", NEW_YEAR)])], &tag(1, 1)).await.unwrap();
    let (holder, watcher) = (server.session(&database).await.unwrap(), server.session(&database).await.unwrap());
    holder.batch_execute("BEGIN; SELECT 1 FROM iceberg_tables FOR UPDATE").await.unwrap();
    let late = vec![steps(&table, &[("LGA", NEW_YEAR + DAY)])];
    let (committing, into) = (store.clone(), table.clone());
    let commit = tokio::spawn(async move { committing.append(&into, late, &tag(1, 2)).await });
    let waiting = "SELECT pid FROM pg_stat_activity \
                   WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE 'UPDATE iceberg_tables%'";
    while watcher.query(waiting, &[]).await.unwrap().is_empty() {
        assert!(!commit.is_finished(), "it did not wait");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Both have checked their epochs against the same table.
    let (moved, moving) = (newer.clone(), table.clone());
    let later = tokio::spawn(async move { moved.append(&moving, vec![], &tag(2, 2)).await });
    while watcher.query(waiting, &[]).await.unwrap().len() < 2 {
        assert!(!later.is_finished(), "it did not wait");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    holder.batch_execute("COMMIT").await.unwrap();
    let (first, second) = (commit.await.unwrap(), later.await.unwrap());
    // Exactly one of them moved the table, whichever was let go first; the other is told.
    let refused = match (first, second) {
        (Ok(()), Err(error)) | (Err(error), Ok(())) => error,
        other => panic!("{other:?}"),
    };
    assert!(matches!(&refused, SeamError::NotDone(text) if text.contains("another writer committed")), "{refused:?}");
    newer.append(&table, vec![], &tag(2, 3)).await.unwrap();
    let fenced = store.append(&table, vec![], &tag(1, 4)).await.unwrap_err();
    assert!(matches!(&fenced, SeamError::NotDone(text) if text.contains("fenced")), "{fenced:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_were_ended_while_nobody_used_them_are_made_again() {
    let Some(server) = server() else { return };
    let database = server.database().await.unwrap();
    let (url, folder) = (url(server.port(), &database), tempfile::tempdir().unwrap());
    let store = open(&url, folder.path(), "one").await;
    let table = flights("delays", 16400);
    store.create(&table).await.unwrap();
    let session = server.session(&database).await.unwrap();
    for sequence in 1..=2 {
        let ended = session
            .query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE datname = current_database() AND application_name = 'tidemark'",
                &[],
            )
            .await
            .unwrap();
        assert!(!ended.is_empty());
        let rows = || vec![steps(&table, &[("JFK", NEW_YEAR + sequence as i64 * HOUR)])];
        let appended = store.append(&table, rows(), &tag(1, sequence)).await;
        if !matches!(appended, Err(SeamError::Unknown(_))) {
            appended.unwrap();
        } else if store.last_tag("delays").await.unwrap() != Some(tag(1, sequence)) {
            // The end was not heard of yet: as the pipeline does, the table is asked.
            store.append(&table, rows(), &tag(1, sequence)).await.unwrap();
        }
    }
    assert_eq!(scan(&store, &table).await.num_rows(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_others_in_the_same_database_stay_and_a_prefix_keeps_them_apart() {
    let Some(server) = server() else { return };
    let url = url(server.port(), &server.database().await.unwrap());
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = open(&url, one.path(), "one").await;
    let table = flights("delays", 16400);
    store.create(&table).await.unwrap();
    store.append(&table, vec![steps(&table, &[("JFK", NEW_YEAR)])], &tag(1, 1)).await.unwrap();

    // Its files are where this one does not look; and where it does, they are another directory's.
    for (folder, directory) in [(two.path(), "two"), (one.path(), "two")] {
        let other = open(&url, folder, directory).await;
        let refused = other.create(&flights("delays", 16400)).await.unwrap_err();
        assert!(matches!(&refused, SeamError::NotDone(text) if text.contains("prefix of their own")), "{refused:?}");
        other.retain(&[].into()).await.unwrap();
        other.append(&table, vec![], &tag(9, 9)).await.unwrap_err();
        assert_eq!(scan(&store, &table).await.num_rows(), 1);
    }
    for apart in ["prefix=two_", "catalog=two"] {
        let other = open(&format!("{url}?{apart}"), two.path(), "two").await;
        other.create(&table).await.unwrap();
        let rows = [("JFK", NEW_YEAR), ("EWR", NEW_YEAR)];
        other.append(&table, vec![steps(&table, &rows)], &tag(5, 1)).await.unwrap();
        assert_eq!((scan(&store, &table).await.num_rows(), scan(&other, &table).await.num_rows()), (1, 2));
        other.retain(&[].into()).await.unwrap();
        assert!(other.last_tag("delays").await.is_err());
    }
    assert_eq!(store.last_tag("delays").await.unwrap(), Some(tag(1, 1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_another_engine_made_are_used_as_they_are_and_rights_that_are_missing_are_named() {
    let Some(server) = server() else { return };
    let database = server.database().await.unwrap();
    let (url, folder) = (url(server.port(), &database), tempfile::tempdir().unwrap());
    let session = server.session(&database).await.unwrap();
    session
        .batch_execute(
            "CREATE TABLE iceberg_tables (catalog_name VARCHAR(255) NOT NULL, table_namespace VARCHAR(255) NOT NULL, \
             table_name VARCHAR(255) NOT NULL, metadata_location VARCHAR(1000), \
             previous_metadata_location VARCHAR(1000), PRIMARY KEY (catalog_name, table_namespace, table_name)); \
             CREATE TABLE iceberg_namespace_properties (catalog_name VARCHAR(255) NOT NULL, \
             namespace VARCHAR(255) NOT NULL, property_key VARCHAR(255) NOT NULL, property_value VARCHAR(1000) NOT NULL, \
             PRIMARY KEY (catalog_name, namespace, property_key))",
        )
        .await
        .unwrap();
    let store = open(&url, folder.path(), "one").await;
    let table = flights("delays", 16400);
    store.create(&table).await.unwrap();
    store.append(&table, vec![steps(&table, &[("JFK", NEW_YEAR)])], &tag(1, 1)).await.unwrap();
    assert_eq!(scan(&store, &table).await.num_rows(), 1);

    // Of the cluster, and of this test alone.
    session.batch_execute("CREATE ROLE lake_stranger LOGIN").await.unwrap();
    let stranger = url.replace("postgres:unseen@", "lake_stranger:unseen@");
    let nothing = url.replace(&format!("/{database}"), "/nothing");
    for (url, said) in [(stranger, "HINT: the role needs SELECT"), (nothing, "\"nothing\" does not exist")] {
        let error = try_open(&url, folder.path(), "one").await.err().unwrap();
        let text = error.to_string();
        assert!(matches!(error, SeamError::NotDone(_)) && text.contains(said), "{text}");
        assert!(!text.contains("unseen"), "{text}");
    }
    // By a clock on which all time passes at once.
    let settings = PostgresSettings::parse(&url, None).unwrap();
    let place = Place::folder(folder.path()).unwrap();
    let opened = IcebergHistory::open_postgres(&settings, "one".to_string(), place, TestClock::seeded(1)).await;
    let error = opened.err().unwrap();
    assert!(matches!(&error, SeamError::NotDone(text) if text.contains("is the database running?")), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_tls_the_server_is_verified_and_nothing_goes_in_the_clear() {
    let Some((server, authority)) = PostgresServer::with_tls().unwrap() else {
        return crate::skipped("there are no server programs of PostgreSQL");
    };
    let database = server.database().await.unwrap();
    let (url, folder) = (url(server.port(), &database), tempfile::tempdir().unwrap());
    let verified = format!("{url}?sslmode=verify-full&sslrootcert={authority}");
    let store = open(&verified, folder.path(), "one").await;
    let table = flights("delays", 16400);
    store.create(&table).await.unwrap();
    store.append(&table, vec![steps(&table, &[("JFK", NEW_YEAR)])], &tag(1, 1)).await.unwrap();
    assert_eq!(scan(&store, &table).await.num_rows(), 1);
    let session = server.session(&database).await.unwrap();
    let encrypted = session
        .query_one(
            "SELECT count(*), count(*) FILTER (WHERE s.ssl) FROM pg_stat_activity a JOIN pg_stat_ssl s USING (pid) \
             WHERE a.application_name = 'tidemark'",
            &[],
        )
        .await
        .unwrap();
    let (all, encrypted) = (encrypted.get::<usize, i64>(0), encrypted.get::<usize, i64>(1));
    assert!(all == 2 && encrypted == all, "{encrypted} of {all}");

    // A certificate that vouches for nobody else.
    let other = authority.replace("ca.crt", "server.crt");
    let unknown = format!("{url}?sslmode=verify-full&sslrootcert={other}");
    let error = try_open(&unknown, folder.path(), "one").await.err().unwrap();
    assert!(matches!(&error, SeamError::NotDone(text) if text.contains("certificate")), "{error:?}");
}

/// Needs `TIDEMARK_LAKE_PYTHON`: a Python with `tests/python/requirements-lake.txt` installed.
#[tokio::test(flavor = "multi_thread")]
async fn pyiceberg_reads_through_the_database() {
    let Some(server) = server() else { return };
    let Ok(python) = std::env::var("TIDEMARK_LAKE_PYTHON") else {
        return crate::skipped("TIDEMARK_LAKE_PYTHON is not set");
    };
    let database = server.database().await.unwrap();
    let (url, folder) = (url(server.port(), &database), tempfile::tempdir().unwrap());
    let store = open(&url, folder.path(), "one").await;
    let table = flights("delays", 16400);
    store.create(&table).await.unwrap();
    for sequence in 1..=3 {
        let rows: Vec<_> = (0..20).map(|n| (["EWR", "JFK"][n % 2], NEW_YEAR + n as i64 * DAY + sequence)).collect();
        store.append(&table, vec![steps(&table, &rows)], &tag(1, sequence as u64)).await.unwrap();
    }
    let output = std::process::Command::new(python)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/python/read_history.py"))
        .arg(folder.path())
        .args(["delays", "origin", "ts", "--catalog"])
        .arg(format!("postgresql+psycopg2://postgres@127.0.0.1:{}/{database}", server.port()))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read = String::from_utf8(output.stdout).unwrap();
    let mut lines = read.lines();
    assert!(lines.next().is_some_and(|header| header.starts_with("origin,ts,delay_1h")), "{read}");
    // The same rows in the same order, by their key.
    let rows = scan(&store, &table).await;
    let origins = rows["origin"].as_string::<i32>();
    let read: Vec<&str> = lines.filter_map(|line| line.split(',').next()).collect();
    assert_eq!(read, origins.iter().flatten().collect::<Vec<_>>());
}
