//! History behind an Iceberg REST catalog, the reference server (or Nessie) with a bucket: the same contract as with a file,
//! commits whose outcome nobody knows, writers that were replaced, tokens, and commits of other engines between ours.
//!
//! Needs `TIDEMARK_TEST_S3_PYTHON` and the jars in `tests/services/.iceberg-rest`.

use crate::{
    contract_history::{
        DAY, HOUR, NEW_YEAR, assert_same_rows, contract, files_planned, flights, instant, scan, steps, tag,
    },
    history_bucket::{bucket, settings as bucket_settings},
    http_proxy::{Fault, Proxy, answer, forward, header, read_request},
    rest_catalog::RestCatalog,
    test_clock::TestClock,
};
use arrow::array::AsArray;
use serde_json::{Value, json};
use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};
use tidemark_connectors::iceberg::{Bucket, BucketObject, Credential, IcebergHistory, Place, RestSettings};
use tidemark_engine::seam::{Expiry, HistoryStore, Removed, SeamError};
use tokio::{io::AsyncWriteExt, net::TcpListener};

fn catalog() -> Option<Arc<RestCatalog>> {
    let catalog = RestCatalog::shared().unwrap();
    if catalog.is_none() {
        crate::skipped("TIDEMARK_TEST_S3_PYTHON is not set, or tests/services/.iceberg-rest is missing");
    }
    catalog
}

/// Other namespaces every time.
fn settings(uri: String) -> RestSettings {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    RestSettings {
        uri,
        warehouse: None,
        prefix: format!("tests{}_", NEXT.fetch_add(1, Ordering::Relaxed)),
        credential: None,
        oauth2: None,
        scope: None,
    }
}

async fn open(rest: &RestSettings, url: &str, s3: String, directory: &str, seed: u64) -> Arc<dyn HistoryStore> {
    let clock = TestClock::seeded(seed);
    let place = Place::Bucket(Bucket::open(url, &bucket_settings(s3), clock.clone()).unwrap());
    Arc::new(IcebergHistory::open_rest(rest, directory.to_string(), place, clock).await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rest_catalog_keeps_the_contract_of_a_history_store() {
    let Some(catalog) = catalog() else { return };
    let (rest, url) = (settings(catalog.endpoint()), catalog.s3.prefix());
    let opened = AtomicU64::new(1);
    contract(|| open(&rest, &url, catalog.s3.endpoint(), "one", opened.fetch_add(1_000_000, Ordering::Relaxed))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_rest_files_are_written_together_and_removed_and_a_drop_leaves_nothing() {
    let Some(catalog) = catalog() else { return };
    let (rest, url) = (settings(catalog.endpoint()), catalog.s3.prefix());
    let store = open(&rest, &url, catalog.s3.endpoint(), "one", 1).await;
    let table = flights("delays", 16400);
    store.create(&table).await.unwrap();
    for sequence in 1..=4 {
        let rows = ["JFK", "EWR"].map(|origin| (origin, NEW_YEAR + sequence as i64 * HOUR));
        store.append(&table, vec![steps(&table, &rows)], &tag(1, sequence)).await.unwrap();
    }
    store.append(&table, vec![steps(&table, &[("EWR", NEW_YEAR - DAY)])], &tag(1, 5)).await.unwrap();
    let before = scan(&store, &table).await;
    let done = store.optimize(&table).await.unwrap();
    assert_eq!((done.files_before, done.files_after), (4, 1));
    assert_eq!(files_planned(&store, &table, "true").await, 2);
    assert_same_rows(&scan(&store, &table).await, &before);
    let gone = store.vacuum(&table, i64::MAX).await.unwrap();
    match catalog.is_open_about_files() {
        true => assert!(gone.files >= 4 && gone.snapshots > 0, "{gone:?}"),
        // What is elsewhere is in the catalog's own care.
        false => assert_eq!(gone, Removed::default()),
    }
    assert_eq!(store.vacuum(&table, i64::MAX).await.unwrap(), Removed::default());
    assert_same_rows(&scan(&store, &table).await, &before);
    store.append(&table, vec![], &tag(1, 6)).await.unwrap();
    assert_eq!(store.last_tag("delays").await.unwrap(), Some(tag(1, 6)));

    // A table of another server stays what it is, whatever is asked here.
    let other = open(&rest, &url, catalog.s3.endpoint(), "two", 2).await;
    let refused = other.create(&flights("delays", 16400)).await.unwrap_err();
    assert!(matches!(&refused, SeamError::NotDone(text) if text.contains("prefix of their own")), "{refused:?}");
    other.retain(&[].into()).await.unwrap();
    other.as_ref().drop("delays").await.unwrap();
    other.append(&table, vec![], &tag(9, 9)).await.unwrap_err();
    assert_same_rows(&scan(&store, &table).await, &before);

    store.as_ref().drop("delays").await.unwrap();
    assert!(bucket(&url, catalog.s3.endpoint()).is_empty().await.unwrap());
}

/// As another engine: a request to the catalog, and the body of its answer where it did.
async fn request(method: &str, url: String, body: String) -> Option<String> {
    let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
    let request = reqwest::Client::new().request(method, url).header("content-type", "application/json").body(body);
    let answer = request.send().await.unwrap();
    match answer.status().is_success() {
        true => Some(answer.text().await.unwrap()),
        false => None,
    }
}

/// What the catalog says of a table.
async fn told(table: &str) -> Value {
    let told = request("GET", table.to_string(), String::new()).await.expect("the table");
    serde_json::from_str(&told).unwrap()
}

/// What is at a location. It takes keys: to a request without them the server refuses even what is there.
fn object(catalog: &RestCatalog, location: &str) -> BucketObject {
    BucketObject::named(location, &bucket_settings(catalog.s3.endpoint()), TestClock::seeded(1)).unwrap()
}

async fn is_there(catalog: &RestCatalog, location: &str) -> bool {
    object(catalog, location).read().await.unwrap().is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_is_set_while_snapshots_are_being_forgotten_keeps_its_snapshot() {
    let Some(catalog) = catalog().filter(|catalog| catalog.is_open_about_files()) else { return };
    let proxy = Proxy::before(catalog.port(), |_, _| None).await.unwrap();
    let (rest, url) = (settings(catalog.behind(&proxy.endpoint())), catalog.s3.prefix());
    let store = open(&rest, &url, catalog.s3.endpoint(), "one", 1).await;
    let table = flights("delays", 16400);
    store.create(&table).await.unwrap();
    for sequence in 1..=3 {
        let rows = vec![steps(&table, &[("JFK", NEW_YEAR + sequence as i64 * HOUR)])];
        store.append(&table, rows, &tag(1, sequence)).await.unwrap();
    }
    let address = format!("{}/v1/namespaces/{}public/tables/delays", catalog.endpoint(), rest.prefix);
    let first = told(&address).await["metadata"]["snapshots"]
        .as_array()
        .unwrap()
        .iter()
        .min_by_key(|snapshot| snapshot["sequence-number"].as_i64())
        .and_then(|snapshot| snapshot["snapshot-id"].as_i64())
        .unwrap();
    // After the table was read to be changed, and before it is.
    let (reads, elsewhere) = (AtomicUsize::new(0), address.clone());
    proxy.set(move |_, line| {
        if line.starts_with("GET") && reads.fetch_add(1, Ordering::Relaxed) == 1 {
            let update =
                json!({ "action": "set-snapshot-ref", "ref-name": "audit", "type": "tag", "snapshot-id": first });
            let body = json!({ "requirements": [], "updates": [update] }).to_string();
            let set = request("POST", elsewhere.clone(), body);
            let done = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(set));
            assert!(done.is_some(), "no tag was set");
        }
        None
    });
    let refused = store.vacuum(&table, i64::MAX).await.unwrap_err();
    assert!(matches!(&refused, SeamError::NotDone(text) if text.contains("tag or branch")), "{refused:?}");
    proxy.set(|_, _| None);
    // The next time it is known.
    assert_eq!(store.vacuum(&table, i64::MAX).await.unwrap().snapshots, 1);
    let metadata = told(&address).await["metadata"].take();
    assert_eq!(metadata["refs"]["audit"]["snapshot-id"], json!(first));
    let kept = metadata["snapshots"].as_array().unwrap().iter();
    let kept: Vec<_> = kept.filter(|snapshot| snapshot["snapshot-id"] == json!(first)).collect();
    let list = kept[0]["manifest-list"].as_str().unwrap();
    assert!(is_there(&catalog, list).await, "what the tag leads to stays");
    assert_eq!(scan(&store, &table).await.num_rows(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_files_of_the_catalog_stay_while_it_names_them_and_are_orphans_afterwards() {
    let Some(catalog) = catalog().filter(|catalog| catalog.is_open_about_files()) else { return };
    let (rest, url) = (settings(catalog.endpoint()), catalog.s3.prefix());
    let store = open(&rest, &url, catalog.s3.endpoint(), "one", 1).await;
    let table = flights("delays", 16400);
    store.create(&table).await.unwrap();
    for sequence in 1..=3 {
        let rows = vec![steps(&table, &[("JFK", NEW_YEAR + sequence as i64 * HOUR)])];
        store.append(&table, rows, &tag(1, sequence)).await.unwrap();
    }
    let address = format!("{}/v1/namespaces/{}public/tables/delays", catalog.endpoint(), rest.prefix);
    let told = told(&address).await;
    let current = told["metadata-location"].as_str().unwrap();
    // As an expiry leaves one that the catalog names no more.
    let left = format!("{}/00000-left.metadata.json", current.rsplit_once('/').unwrap().0);
    let mut file = object(&catalog, &left).upload();
    file.write(b"{}").await.unwrap();
    file.close().await.unwrap();
    let orphans = |before_us| Expiry { snapshots_before_us: 0, orphans_before_us: Some(before_us) };
    assert_eq!(store.expire(&table, &orphans(0)).await.unwrap(), Removed::default(), "none is old");
    assert!(is_there(&catalog, &left).await);
    assert_eq!(store.expire(&table, &orphans(i64::MAX)).await.unwrap().files, 1);
    assert!(!is_there(&catalog, &left).await);
    let log = told["metadata"]["metadata-log"].as_array().unwrap().iter();
    let named: Vec<&str> = log.map(|log| log["metadata-file"].as_str().unwrap()).chain([current]).collect();
    assert!(named.len() > 3, "{named:?}");
    for file in named {
        assert!(is_there(&catalog, file).await, "{file} is named, and gone");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_which_nobody_knows_is_said_to_be_so_and_the_table_tells() {
    let Some(catalog) = catalog() else { return };
    let proxy = Proxy::before(catalog.port(), |_, _| None).await.unwrap();
    let (rest, url) = (settings(catalog.behind(&proxy.endpoint())), catalog.s3.prefix());
    let store = open(&rest, &url, catalog.s3.endpoint(), "one", 1).await;
    let table = flights("delays", 16400);
    store.create(&table).await.unwrap();
    let row = |sequence: u64| vec![steps(&table, &[("JFK", NEW_YEAR + sequence as i64 * HOUR)])];
    let mut sequence = 0;
    let mut expected = 0;
    for (fault, happened) in
        [(Fault::AnswerLost, true), (Fault::AnswerCut, true), (Fault::SlowDown, false), (Fault::Reset, false)]
    {
        let before = store.last_tag("delays").await.unwrap();
        sequence += 1;
        proxy.set(move |_, line| line.starts_with("POST").then_some(fault));
        let error = store.append(&table, row(sequence), &tag(1, sequence)).await.unwrap_err();
        proxy.set(|_, _| None);
        assert!(matches!(error, SeamError::Unknown(_)), "{fault:?}: {error:?}");
        let last = store.last_tag("delays").await.unwrap();
        assert_eq!(last, if happened { Some(tag(1, sequence)) } else { before }, "{fault:?}");
        if !happened {
            store.append(&table, row(sequence), &tag(1, sequence)).await.unwrap();
        }
        expected += 1;
        assert_eq!(scan(&store, &table).await.num_rows(), expected, "{fault:?}");
    }
    // Reads, and what removes, are made again.
    let kinds = [Fault::SlowDown, Fault::Reset, Fault::AnswerLost, Fault::AnswerCut];
    proxy.set(move |number, line| {
        (!line.starts_with("POST") && number % 2 == 0).then_some(kinds[(number / 2) as usize % kinds.len()])
    });
    assert_eq!(scan(&store, &table).await.num_rows(), expected);
    store.append(&table, row(9), &tag(1, 9)).await.unwrap();
    store.as_ref().drop("delays").await.unwrap();
    proxy.set(|_, _| None);
    assert!(store.last_tag("delays").await.is_err());
    // Without a connection nothing can have happened.
    let gone = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let place = Place::Bucket(bucket(&url, catalog.s3.endpoint()));
    let nobody = settings(format!("http://127.0.0.1:{gone}"));
    let error = IcebergHistory::open_rest(&nobody, "one".into(), place, TestClock::seeded(1)).await.err().unwrap();
    assert!(matches!(&error, SeamError::NotDone(text) if text.contains("is the catalog running?")), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_arrives_after_a_newer_writers_is_refused_by_the_catalog() {
    let Some(catalog) = catalog() else { return };
    let proxy = Proxy::before(catalog.port(), |_, _| None).await.unwrap();
    let (rest, url) = (settings(catalog.behind(&proxy.endpoint())), catalog.s3.prefix());
    let store = open(&rest, &url, catalog.s3.endpoint(), "one", 1).await;
    let table = flights("delays", 16400);
    store.create(&table).await.unwrap();
    store.append(&table, vec![steps(&table, &[("JFK", NEW_YEAR)])], &tag(1, 1)).await.unwrap();
    for (epoch, newer) in [
        // Another writer's that has steps, and one that only moves the tag, which must be seen all the same.
        (1, vec![steps(&table, &[("EWR", NEW_YEAR)])]),
        (2, vec![]),
    ] {
        proxy.set(|_, line| line.starts_with("POST").then_some(Fault::Late));
        let late = vec![steps(&table, &[("LGA", NEW_YEAR + epoch as i64 * HOUR)])];
        let error = store.append(&table, late, &tag(epoch, 10 * epoch)).await.unwrap_err();
        assert!(matches!(error, SeamError::Unknown(_)), "{error:?}");
        proxy.set(|_, _| None);
        let replaced = open(&rest, &url, catalog.s3.endpoint(), "one", 100 + epoch).await;
        replaced.append(&table, newer, &tag(epoch + 1, 10 * epoch + 1)).await.unwrap();
        let (last, rows) = (store.last_tag("delays").await.unwrap(), scan(&store, &table).await);
        proxy.release().await;
        assert_eq!(store.last_tag("delays").await.unwrap(), last);
        assert_same_rows(&scan(&store, &table).await, &rows);
        let fenced = store.append(&table, vec![], &tag(epoch, 10 * epoch + 2)).await.unwrap_err();
        assert!(matches!(&fenced, SeamError::NotDone(text) if text.contains("fenced")), "{fenced:?}");
    }
    assert_eq!(scan(&store, &table).await.num_rows(), 2);
}

/// Lets nobody through to the catalog without a token that it has given out, and the last of them only: every token is good
/// for so many requests. Beside each token it has refused once.
async fn guard(upstream: u16, uses: usize) -> (String, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let endpoint = format!("http://127.0.0.1:{}", listener.local_addr().unwrap().port());
    let (given, refused) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (tokens, refusals) = (given.clone(), refused.clone());
    tokio::spawn(async move {
        let mut used = 0;
        while let Ok((mut client, _)) = listener.accept().await {
            let Ok(Some((head, body))) = read_request(&mut client).await else { continue };
            let line = head.lines().next().unwrap_or_default();
            if line.starts_with("POST ") && line.contains("/v1/oauth/tokens ") {
                let body = String::from_utf8_lossy(&body);
                let known =
                    body == "grant_type=client_credentials&client_id=me&client_secret=my%20secret&scope=history";
                used = 0;
                let _ = match known {
                    true => {
                        let number = tokens.fetch_add(1, Ordering::Relaxed) + 1;
                        let body =
                            format!("{{\"access_token\":\"t{number}\",\"token_type\":\"bearer\",\"expires_in\":3600}}");
                        answer(&mut client, "200 OK", &body).await
                    }
                    false => answer(&mut client, "401 Unauthorized", "{\"error\":\"invalid_client\"}").await,
                };
                continue;
            }
            let last = format!("Bearer t{}", tokens.load(Ordering::Relaxed));
            used += 1;
            if header(&head, "authorization") != Some(&last) || used > uses {
                refusals.fetch_add(1, Ordering::Relaxed);
                let body = "{\"error\":{\"message\":\"Not authorized: t0ken\",\"type\":\"NotAuthorizedException\",\"code\":401}}";
                let _ = answer(&mut client, "401 Unauthorized", body).await;
                continue;
            }
            if let Ok(answer) = forward(upstream, &head, &body).await {
                let _ = client.write_all(&answer).await;
            }
        }
    });
    (endpoint, given, refused)
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_got_for_a_clients_credentials_and_renewed_when_they_are_refused() {
    let Some(catalog) = catalog() else { return };
    let (endpoint, given, refused) = guard(catalog.port(), 5).await;
    let url = catalog.s3.prefix();
    let mut rest = settings(catalog.behind(&endpoint));
    rest.scope = Some("history".to_string());
    rest.credential = Some(Credential::parse("me:my secret"));
    let store = open(&rest, &url, catalog.s3.endpoint(), "one", 1).await;
    let table = flights("delays", 16400);
    store.create(&table).await.unwrap();
    for sequence in 1..=6 {
        let rows = vec![steps(&table, &[("JFK", NEW_YEAR + sequence as i64 * HOUR)])];
        store.append(&table, rows, &tag(1, sequence)).await.unwrap();
    }
    assert_eq!(scan(&store, &table).await.num_rows(), 6);
    let (given, refused) = (given.load(Ordering::Relaxed), refused.load(Ordering::Relaxed));
    assert!(given >= 3 && refused == given - 1, "{given} tokens, {refused} refusals");

    for (credential, said) in
        [(None, "Not authorized"), (Some("a.bearer.token"), "Not authorized"), (Some("me:wrong"), "no token from")]
    {
        let rest = RestSettings { credential: credential.map(Credential::parse), ..rest.clone() };
        let place = Place::Bucket(bucket(&url, catalog.s3.endpoint()));
        let error = IcebergHistory::open_rest(&rest, "one".into(), place, TestClock::seeded(1)).await.err().unwrap();
        let text = error.to_string();
        assert!(matches!(error, SeamError::NotDone(_)) && text.contains(said), "{text}");
        assert!(text.contains("HINT: check --history-catalog-credential"), "{text}");
        assert!(!text.contains("wrong") && !text.contains("a.bearer.token"), "{text}");
    }
}

/// Needs `TIDEMARK_LAKE_PYTHON` too.
#[tokio::test(flavor = "multi_thread")]
async fn pyiceberg_and_duckdb_read_through_the_catalog_and_a_commit_of_theirs_between_ours_stays() {
    let Some(catalog) = catalog() else { return };
    let Ok(python) = std::env::var("TIDEMARK_LAKE_PYTHON") else {
        return crate::skipped("TIDEMARK_LAKE_PYTHON is not set");
    };
    let (rest, url) = (settings(catalog.endpoint()), catalog.s3.prefix());
    let store = open(&rest, &url, catalog.s3.endpoint(), "one", 1).await;
    let table = flights("delays", 16400);
    store.create(&table).await.unwrap();
    for sequence in 1..=2 {
        let rows: Vec<_> =
            (0..30).map(|n| (["EWR", "JFK", "LGA"][n % 3], NEW_YEAR + n as i64 * DAY + sequence)).collect();
        store.append(&table, vec![steps(&table, &rows)], &tag(1, sequence as u64)).await.unwrap();
    }
    store.append(&table, vec![], &tag(1, 3)).await.unwrap();
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/python/read_rest.py");
    let run = |more: &[&str]| {
        let mut command = std::process::Command::new(&python);
        command
            .arg(&script)
            .args([&catalog.endpoint(), &format!("{}public", rest.prefix), "delays", "origin", "ts"])
            .args(more);
        command.env("AWS_ENDPOINT_URL", catalog.s3.endpoint());
        command.envs([
            ("AWS_ACCESS_KEY_ID", "testkey"),
            ("AWS_SECRET_ACCESS_KEY", "testsecret"),
            ("AWS_REGION", "us-east-1"),
        ]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let expected = |rows: &arrow::array::RecordBatch| {
        let origins = rows["origin"].as_string::<i32>();
        let times = rows["ts"].as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
        (0..rows.num_rows())
            .map(|row| format!("{},{}\n", origins.value(row), instant(times.value(row))))
            .collect::<String>()
    };
    let rows = scan(&store, &table).await;
    assert_eq!(rows.num_rows(), 60);
    assert_eq!(run(&[]), expected(&rows));
    run(&["--overwrite"]);
    assert_same_rows(&scan(&store, &table).await, &rows);
    assert_eq!(store.last_tag("delays").await.unwrap(), Some(tag(1, 3)));
    store.append(&table, vec![steps(&table, &[("SFO", NEW_YEAR)])], &tag(1, 4)).await.unwrap();
    let rows = scan(&store, &table).await;
    assert_eq!(rows.num_rows(), 61);
    assert_eq!(run(&[]), expected(&rows));
}
