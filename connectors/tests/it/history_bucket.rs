//! History in a bucket of S3, with a real server (moto, or versitygw): the same contract as in a folder, requests that fail, a commit whose
//! answers do not come, and what other engines read there.
//!
//! Needs `TIDEMARK_TEST_S3_PYTHON`: a Python with `tests/python/requirements-s3.txt` installed.

use crate::{
    contract_history::{
        DAY, HOUR, NEW_YEAR, assert_same_rows, contract, files_planned, flights, instant, scan, steps, tag,
    },
    http_proxy::{Fault, Proxy},
    s3_server::S3Server,
    test_clock::TestClock,
};
use arrow::array::AsArray;
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tidemark_connectors::iceberg::{Bucket, BucketSettings, IcebergHistory, Keys};
use tidemark_engine::seam::{HistoryStore, Removed, SeamError};

pub fn server() -> Option<Arc<S3Server>> {
    let server = S3Server::shared().unwrap();
    if server.is_none() {
        crate::skipped("TIDEMARK_TEST_S3_PYTHON is not set");
    }
    server
}

pub fn settings(endpoint: String) -> BucketSettings {
    let keys = Keys { id: "testkey".to_string(), secret: "testsecret".to_string() };
    BucketSettings { endpoint: Some(endpoint), region: None, keys: Some(keys) }
}

pub fn bucket(url: &str, endpoint: String) -> Bucket {
    Bucket::open(url, &settings(endpoint), TestClock::seeded(1)).unwrap()
}

async fn open(folder: &Path, url: &str, endpoint: String, seed: u64) -> Arc<dyn HistoryStore> {
    let clock = TestClock::seeded(seed);
    let bucket = Bucket::open(url, &settings(endpoint), clock.clone()).unwrap();
    Arc::new(IcebergHistory::open_bucket(folder, bucket, clock).await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_keeps_the_contract_of_a_history_store() {
    let Some(server) = server() else { return };
    let (folder, url) = (tempfile::tempdir().unwrap(), server.prefix());
    let opened = AtomicU64::new(1);
    contract(|| open(folder.path(), &url, server.endpoint(), opened.fetch_add(1_000_000, Ordering::Relaxed))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn small_files_of_a_bucket_become_large_ones_and_nothing_is_left_over() {
    let Some(server) = server() else { return };
    let (folder, url) = (tempfile::tempdir().unwrap(), server.prefix());
    let store = open(folder.path(), &url, server.endpoint(), 1).await;
    let table = flights("delays", 16400);
    store.create(&table).await.unwrap();
    for sequence in 1..=6 {
        let rows = ["JFK", "EWR", "LGA"].map(|origin| (origin, NEW_YEAR + sequence as i64 * HOUR));
        store.append(&table, vec![steps(&table, &rows)], &tag(1, sequence)).await.unwrap();
    }
    store.append(&table, vec![steps(&table, &[("EWR", NEW_YEAR - DAY)])], &tag(1, 7)).await.unwrap();
    let before = scan(&store, &table).await;
    assert_eq!(files_planned(&store, &table, "true").await, 7);
    let done = store.optimize(&table).await.unwrap();
    assert_eq!((done.files_before, done.files_after), (6, 1));
    assert_eq!(files_planned(&store, &table, "true").await, 2);
    assert_eq!(files_planned(&store, &table, "ts < '2013-01-01'").await, 1);
    assert_same_rows(&scan(&store, &table).await, &before);
    // Nothing is old yet; then all of it is.
    assert_eq!(store.vacuum(&table, 0).await.unwrap(), Removed::default());
    let gone = store.vacuum(&table, i64::MAX).await.unwrap();
    assert!(gone.files >= 6 && gone.snapshots > 0 && gone.bytes > 0, "{gone:?}");
    assert_eq!(store.vacuum(&table, i64::MAX).await.unwrap(), Removed::default());
    assert_same_rows(&scan(&store, &table).await, &before);
    assert_eq!(store.last_tag("delays").await.unwrap(), Some(tag(1, 7)));
    // Dropped, and nothing is there: a prefix without objects is nobody's.
    store.as_ref().drop("delays").await.unwrap();
    assert!(bucket(&url, server.endpoint()).is_empty().await.unwrap());
}

/// More than one part of an upload: rows that compress badly.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_several_parts_is_one_object() {
    let Some(server) = server() else { return };
    let (folder, url) = (tempfile::tempdir().unwrap(), server.prefix());
    // Every fourth request loses its answer, so that parts go up twice, and an end of an upload may be made twice.
    let parts = Arc::new(AtomicU64::new(0));
    let counted = parts.clone();
    let proxy = Proxy::before(server.port(), move |number, line| {
        counted.fetch_add(u64::from(line.starts_with("PUT") && line.contains("partNumber=")), Ordering::Relaxed);
        (number % 4 == 3).then_some(Fault::AnswerLost)
    })
    .await
    .unwrap();
    let store = open(folder.path(), &url, proxy.endpoint(), 1).await;
    let table = flights("delays", 16400);
    store.create(&table).await.unwrap();
    let mut random = 1u64;
    let rows: Vec<(&str, i64)> = (0..1_000_000)
        .map(|_| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ("JFK", NEW_YEAR + (random >> 20) as i64 % (20 * DAY))
        })
        .collect();
    store.append(&table, vec![steps(&table, &rows)], &tag(1, 1)).await.unwrap();
    assert!(parts.load(Ordering::Relaxed) >= 2, "the file went up at once");
    let found = scan(&store, &table).await;
    assert_eq!(found.num_rows(), rows.len());
    let times = found["ts"].as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
    let mut expected: Vec<i64> = rows.iter().map(|(_, at)| *at).collect();
    expected.sort_unstable();
    assert_eq!(times.values().to_vec(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_fail_are_made_again_and_lose_and_double_nothing() {
    let Some(server) = server() else { return };
    let (folder, url) = (tempfile::tempdir().unwrap(), server.prefix());
    let kinds = [Fault::SlowDown, Fault::Reset, Fault::AnswerLost, Fault::AnswerCut];
    let proxy = Proxy::before(server.port(), move |number, _| {
        (number % 3 == 2).then_some(kinds[(number / 3) as usize % kinds.len()])
    })
    .await
    .unwrap();
    let store = open(folder.path(), &url, proxy.endpoint(), 1).await;
    let table = flights("delays", 16400);
    store.create(&table).await.unwrap();
    let mut all = Vec::new();
    for sequence in 1..=8 {
        let rows = [("JFK", NEW_YEAR + sequence as i64 * HOUR), ("LGA", NEW_YEAR - sequence as i64 * DAY)];
        store.append(&table, vec![steps(&table, &rows)], &tag(1, sequence)).await.unwrap();
        all.extend(rows);
    }
    all.sort_unstable();
    assert_same_rows(&scan(&store, &table).await, &steps(&table, &all));
    assert!(store.optimize(&table).await.unwrap().files_before > 0);
    assert!(store.vacuum(&table, i64::MAX).await.unwrap().files > 0);
    assert_same_rows(&scan(&store, &table).await, &steps(&table, &all));
    assert!(proxy.requests() > 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_away_is_an_error_that_says_so_and_the_commit_is_made_when_it_is_back() {
    let Some(server) = server() else { return };
    let (folder, url) = (tempfile::tempdir().unwrap(), server.prefix());
    let proxy = Proxy::before(server.port(), |_, _| None).await.unwrap();
    let store = open(folder.path(), &url, proxy.endpoint(), 1).await;
    let table = flights("delays", 16400);
    store.create(&table).await.unwrap();
    let row = |sequence: u64| vec![steps(&table, &[("JFK", NEW_YEAR + sequence as i64 * HOUR)])];
    store.append(&table, row(1), &tag(1, 1)).await.unwrap();
    // Away from each request of a commit on, once: whatever it has written by then is nobody's.
    let mut failures = 0;
    for from in 0.. {
        let begun = proxy.requests();
        proxy.set(move |number, _| (number >= begun + from).then_some(Fault::SlowDown));
        let done = store.append(&table, row(2), &tag(1, 2)).await;
        let was_away = proxy.requests() > begun + from;
        proxy.set(|_, _| None);
        match done {
            Ok(()) => break,
            Err(SeamError::NotDone(text)) => {
                assert!(was_away && text.contains("s3://lake/") && text.contains("SlowDown"), "{text}");
                failures += 1;
            }
            Err(other) => panic!("{other:?}"),
        }
        assert_eq!(store.last_tag("delays").await.unwrap(), Some(tag(1, 1)));
        assert_eq!(scan(&store, &table).await.num_rows(), 1);
    }
    // At least: the metadata, the data file, the manifest, its list, the next metadata.
    assert!(failures >= 5, "{failures}");
    assert_eq!(store.last_tag("delays").await.unwrap(), Some(tag(1, 2)));
    assert_eq!(scan(&store, &table).await.num_rows(), 2);
    // What the failures have left goes by a vacuum.
    assert!(store.vacuum(&table, i64::MAX).await.unwrap().files > 0);
    assert_eq!(store.vacuum(&table, i64::MAX).await.unwrap(), Removed::default());
    assert_eq!(scan(&store, &table).await.num_rows(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_has_one_claim_and_who_lost_it_commits_and_removes_nothing() {
    let Some(server) = server() else { return };
    let (folder, url) = (tempfile::tempdir().unwrap(), server.prefix());
    // Lost answers: a claim that was made is not taken for another's.
    let proxy =
        Proxy::before(server.port(), |_, line| line.starts_with("PUT").then_some(Fault::AnswerLost)).await.unwrap();
    let lost = bucket(&url, proxy.endpoint());
    assert_eq!(lost.claimed_by().await.unwrap(), None);
    let first = lost.claim("directory 1", None).await;
    // Every try loses its answer, so in the end it is an error or found to be ours; the next one reads it.
    proxy.set(|_, _| None);
    let claim = lost.claimed_by().await.unwrap().expect("the claim is there");
    assert_eq!(claim.text, "directory 1");
    assert!(first.is_err() || first.is_ok_and(|done| done));

    let ours = bucket(&url, server.endpoint());
    assert!(ours.claim("directory 2", Some(&claim)).await.unwrap());
    let clock = TestClock::seeded(1);
    let store: Arc<dyn HistoryStore> =
        Arc::new(IcebergHistory::open_bucket(folder.path(), ours.clone(), clock).await.unwrap());
    let table = flights("delays", 16400);
    store.create(&table).await.unwrap();
    store.append(&table, vec![steps(&table, &[("JFK", NEW_YEAR)])], &tag(1, 1)).await.unwrap();
    // Of two that read the same claim one comes first.
    let seen = ours.claimed_by().await.unwrap();
    assert!(bucket(&url, server.endpoint()).claim("directory 3", seen.as_ref()).await.unwrap());
    assert!(!bucket(&url, server.endpoint()).claim("directory 4", seen.as_ref()).await.unwrap());
    for refused in [
        store.append(&table, vec![steps(&table, &[("EWR", NEW_YEAR)])], &tag(1, 2)).await.unwrap_err(),
        store.vacuum(&table, i64::MAX).await.unwrap_err(),
        store.as_ref().drop("delays").await.unwrap_err(),
    ] {
        assert!(matches!(&refused, SeamError::NotDone(text) if text.contains("taken over")), "{refused:?}");
    }
    assert_eq!(scan(&store, &table).await.num_rows(), 1);
    assert_eq!(store.last_tag("delays").await.unwrap(), Some(tag(1, 1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_a_bucket_says_what_to_do() {
    let Some(server) = server() else { return };
    let error = bucket("s3://no-such-bucket/x", server.endpoint()).claimed_by().await.unwrap_err().to_string();
    assert!(
        error.contains("NoSuchBucket") && error.contains("HINT: there is no bucket no-such-bucket at http://"),
        "{error}"
    );
    // Nobody listens there any more.
    let gone = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let error = bucket("s3://lake/x", format!("http://127.0.0.1:{gone}")).claimed_by().await.unwrap_err().to_string();
    assert!(
        error.contains("s3://lake/x/OWNER") && error.contains("6 tries") && error.contains("is http://"),
        "{error}"
    );
    assert!(!error.contains("testsecret"), "{error}");
    for endpoint in ["127.0.0.1:9000", "http://user:word@host"] {
        let refused = Bucket::open("s3://lake/x", &settings(endpoint.to_string()), TestClock::seeded(1));
        let error = refused.unwrap_err().to_string();
        assert!(error.contains("--s3-endpoint") && !error.contains("word"), "{error}");
    }
    assert!(!format!("{:?}", settings(server.endpoint())).contains("testsecret"));
}

/// Needs `TIDEMARK_LAKE_PYTHON` too.
#[tokio::test(flavor = "multi_thread")]
async fn pyiceberg_and_duckdb_read_the_bucket_that_we_read_and_a_commit_of_theirs_stays() {
    let Some(server) = server() else { return };
    let Ok(python) = std::env::var("TIDEMARK_LAKE_PYTHON") else {
        return crate::skipped("TIDEMARK_LAKE_PYTHON is not set");
    };
    let (folder, url) = (tempfile::tempdir().unwrap(), server.prefix());
    let store = open(folder.path(), &url, server.endpoint(), 1).await;
    let table = flights("delays", 16400);
    store.create(&table).await.unwrap();
    for sequence in 1..=2 {
        let rows: Vec<_> =
            (0..30).map(|n| (["EWR", "JFK", "LGA"][n % 3], NEW_YEAR + n as i64 * DAY + sequence)).collect();
        store.append(&table, vec![steps(&table, &rows)], &tag(1, sequence as u64)).await.unwrap();
    }
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(&python);
        command.args(arguments).env("AWS_ENDPOINT_URL", server.endpoint());
        command.envs([
            ("AWS_ACCESS_KEY_ID", "testkey"),
            ("AWS_SECRET_ACCESS_KEY", "testsecret"),
            ("AWS_REGION", "us-east-1"),
        ]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/python/read_history.py");
    let read = || run(&[script.to_str().unwrap(), folder.path().to_str().unwrap(), "delays", "origin", "ts"]);
    let expected = |rows: &arrow::array::RecordBatch| {
        let origins = rows["origin"].as_string::<i32>();
        let times = rows["ts"].as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
        let lines = (0..rows.num_rows()).map(|row| format!("{},{}", origins.value(row), instant(times.value(row))));
        lines.collect::<Vec<_>>()
    };
    let keys = |csv: String| {
        let cut = |line: &str| line.splitn(3, ',').take(2).collect::<Vec<_>>().join(",");
        csv.lines().skip(1).map(cut).collect::<Vec<_>>()
    };
    let rows = scan(&store, &table).await;
    assert_eq!(rows.num_rows(), 60);
    assert_eq!(keys(read()), expected(&rows));
    // Their own rewrite, in files of theirs, is between two commits of ours.
    let rewrite = "import os, sys, urllib.parse\n\
        from pyiceberg.catalog.sql import SqlCatalog\n\
        uri = 'sqlite:///' + urllib.parse.quote(sys.argv[1]) + '/catalog.db'\n\
        s3 = {'s3.endpoint': os.environ['AWS_ENDPOINT_URL'], 's3.access-key-id': 'testkey', 's3.secret-access-key': 'testsecret', 's3.region': 'us-east-1'}\n\
        table = SqlCatalog('tidemark', uri=uri, **s3).load_table(('public', 'delays'))\n\
        table.overwrite(table.scan().to_arrow())\n";
    run(&["-c", rewrite, folder.path().to_str().unwrap()]);
    assert_same_rows(&scan(&store, &table).await, &rows);
    assert_eq!(store.last_tag("delays").await.unwrap(), Some(tag(1, 2)));
    store.append(&table, vec![steps(&table, &[("SFO", NEW_YEAR)])], &tag(1, 3)).await.unwrap();
    let rows = scan(&store, &table).await;
    assert_eq!(rows.num_rows(), 61);
    assert_eq!(keys(read()), expected(&rows));
}
