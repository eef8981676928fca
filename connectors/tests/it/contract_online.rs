//! What every `OnlineStore` keeps to.

use bytes::Bytes;
use std::sync::Arc;
use tidemark_catalog::ObjectId;
use tidemark_connectors::online::FjallOnline;
use tidemark_engine::seam::{OnlineStore, OnlineValue, Put, PutVersion, SeamResult};

const VIEW: ObjectId = ObjectId(20_000);
const NEXT_VIEW: ObjectId = ObjectId(20_001);

/// `fresh` makes a new, empty place and returns what opens it, again and again.
pub async fn online_contract<O: Fn() -> Arc<dyn OnlineStore>>(fresh: impl Fn() -> O) {
    values_come_back_in_the_order_asked_also_after_a_reopen(fresh()).await;
    a_value_never_goes_backwards_in_version(fresh()).await;
    an_absent_key_keeps_its_version(fresh()).await;
    a_dropped_view_leaves_nothing_and_takes_nothing_else(fresh()).await;
    writers_at_once_leave_the_greatest_version(fresh()).await;
    a_view_is_whole_when_it_has_been_filled(fresh()).await;
}

fn value(key: &str, epoch: u64, counter: u64, row: Option<&str>) -> OnlineValue {
    OnlineValue {
        key: Bytes::copy_from_slice(key.as_bytes()),
        version: PutVersion { epoch, counter },
        row: row.map(|r| Bytes::copy_from_slice(r.as_bytes())),
    }
}

/// Into a view that is opened where it has to be.
async fn put(store: &dyn OnlineStore, view: ObjectId, values: Vec<OnlineValue>) -> SeamResult<()> {
    if store.put(view, values.clone()).await? == Put::NoView {
        store.open_view(view).await?;
        assert_eq!(store.put(view, values).await?, Put::Done);
    }
    Ok(())
}

async fn get(store: &dyn OnlineStore, view: ObjectId, key: &str) -> Option<OnlineValue> {
    let keys = [Bytes::copy_from_slice(key.as_bytes())];
    store.get_many(view, &keys).await.expect("an answer").pop().expect("one entry per key")
}

async fn values_come_back_in_the_order_asked_also_after_a_reopen(open: impl Fn() -> Arc<dyn OnlineStore>) {
    let store = open();
    // The empty key is the key of a view without key columns; an empty row is not an absent one.
    let written = vec![value("", 1, 1, Some("all")), value("a", 1, 1, Some("")), value("b", 1, 2, None)];
    store.put(VIEW, vec![]).await.map(drop).expect("nothing put");
    put(&*store, VIEW, written.clone()).await.expect("a put");
    let asked = ["b", "never", "a", "b", ""].map(|k| Bytes::copy_from_slice(k.as_bytes()));
    let [all, a, b] = [0, 1, 2].map(|i| Some(written[i].clone()));
    let expected = vec![b.clone(), None, a, b, all];
    assert_eq!(store.get_many(VIEW, &asked).await.expect("values"), expected);
    assert_eq!(store.get_many(VIEW, &[]).await.expect("no values"), []);
    drop(store);
    assert_eq!(open().get_many(VIEW, &asked).await.expect("values"), expected);
}

async fn a_value_never_goes_backwards_in_version(open: impl Fn() -> Arc<dyn OnlineStore>) {
    let versions = [(0, 0), (0, 9), (1, 0), (1, 5), (1, 6), (2, 0), (2, 300), (300, 1)];
    let store = open();
    for (i, old) in versions.into_iter().enumerate() {
        for new in &versions[i + 1..] {
            let key = format!("{old:?} {new:?}");
            // One that refuses a writer of an older epoch does so for the whole view.
            store.drop_view(VIEW).await.expect("a drop");
            store.drop_view(NEXT_VIEW).await.expect("a drop");
            let (old, new) = (value(&key, old.0, old.1, Some("old")), value(&key, new.0, new.1, Some("new")));
            put(&*store, VIEW, vec![old.clone()]).await.expect("a put");
            put(&*store, VIEW, vec![new.clone()]).await.expect("a put");
            let stale = put(&*store, VIEW, vec![old.clone()]).await;
            assert!(stale.is_ok() || old.version.epoch < new.version.epoch, "{stale:?}");
            assert_eq!(get(&*store, VIEW, &key).await, Some(new.clone()));
            let again = OnlineValue { row: None, ..new.clone() };
            put(&*store, VIEW, vec![again]).await.expect("an equal version is no error");
            assert_eq!(get(&*store, VIEW, &key).await, Some(new.clone()));
            put(&*store, NEXT_VIEW, vec![new.clone(), old]).await.expect("both in one put");
            assert_eq!(get(&*store, NEXT_VIEW, &key).await, Some(new));
        }
    }
    // A writer of an older epoch is fenced over a restart too.
    put(&*store, VIEW, vec![value("k", 8, 0, Some("new"))]).await.expect("a put");
    drop(store);
    let store = open();
    let _ = put(&*store, VIEW, vec![value("k", 7, 99, Some("old"))]).await;
    assert_eq!(get(&*store, VIEW, "k").await, Some(value("k", 8, 0, Some("new"))));
}

async fn an_absent_key_keeps_its_version(open: impl Fn() -> Arc<dyn OnlineStore>) {
    let store = open();
    put(&*store, VIEW, vec![value("k", 1, 4, None)]).await.expect("a put");
    put(&*store, VIEW, vec![value("k", 1, 3, Some("stale"))]).await.expect("a put");
    assert_eq!(get(&*store, VIEW, "k").await, Some(value("k", 1, 4, None)));
    put(&*store, VIEW, vec![value("k", 1, 5, Some("back"))]).await.expect("a put");
    assert_eq!(get(&*store, VIEW, "k").await, Some(value("k", 1, 5, Some("back"))));
}

async fn a_dropped_view_leaves_nothing_and_takes_nothing_else(open: impl Fn() -> Arc<dyn OnlineStore>) {
    let store = open();
    let keys = (0..20_000).map(|i| format!("key {i}")).collect::<Vec<_>>();
    put(&*store, VIEW, keys.iter().map(|k| value(k, 5, 5, Some(k))).collect()).await.expect("a put");
    let neighbours = [ObjectId(VIEW.0 - 1), NEXT_VIEW, ObjectId(u32::MAX)];
    for view in neighbours {
        put(&*store, view, vec![value("key 1", 5, 5, Some("other"))]).await.expect("a put");
    }
    store.drop_view(VIEW).await.expect("a drop");
    store.drop_view(ObjectId(u32::MAX)).await.expect("a drop of the last id there can be");
    store.drop_view(ObjectId(1)).await.expect("a drop of a view never put");
    let asked = keys.iter().map(|k| Bytes::copy_from_slice(k.as_bytes())).collect::<Vec<_>>();
    let mut store = store;
    for reopen in [false, true] {
        if reopen {
            drop(store);
            store = open();
        }
        assert!(store.get_many(VIEW, &asked).await.expect("values").iter().all(Option::is_none));
        assert_eq!(get(&*store, neighbours[0], "key 1").await, Some(value("key 1", 5, 5, Some("other"))));
        assert_eq!(get(&*store, neighbours[1], "key 1").await, Some(value("key 1", 5, 5, Some("other"))));
        assert_eq!(get(&*store, neighbours[2], "key 1").await, None);
        // Nor is a version left that would fence a view of the same id.
        put(&*store, VIEW, vec![value("key 1", 1, 1, Some("new"))]).await.expect("a put");
        assert_eq!(get(&*store, VIEW, "key 1").await, Some(value("key 1", 1, 1, Some("new"))));
        store.drop_view(VIEW).await.expect("a drop");
    }
}

async fn writers_at_once_leave_the_greatest_version(open: impl Fn() -> Arc<dyn OnlineStore>) {
    let store = open();
    let writers = (0..4u64).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for counter in 0..200 {
                let value = value("k", counter % 7, counter * 4 + writer, Some("row"));
                let _ = put(&*store, VIEW, vec![value]).await;
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("a writer");
    }
    let greatest = (0..4u64).flat_map(|w| (0..200u64).map(move |c| (c % 7, c * 4 + w))).max().expect("some");
    assert_eq!(get(&*store, VIEW, "k").await, Some(value("k", greatest.0, greatest.1, Some("row"))));
}

async fn a_view_is_whole_when_it_has_been_filled(open: impl Fn() -> Arc<dyn OnlineStore>) {
    let store = open();
    if !store.open_view(VIEW).await.expect("an answer") {
        assert!(!store.open_view(VIEW).await.expect("an answer"), "nobody has filled it");
        put(&*store, VIEW, vec![value("k", 1, 1, Some("row"))]).await.expect("a put");
        store.filled(VIEW).await.expect("an answer");
    }
    drop(store);
    for _ in 0..2 {
        assert!(open().open_view(VIEW).await.expect("an answer"));
    }
    assert!(open().open_view(NEXT_VIEW).await.is_ok());
}

fn fresh_fjall() -> impl Fn() -> Arc<dyn OnlineStore> {
    let dir = tempfile::tempdir().expect("a directory");
    move || Arc::new(FjallOnline::open(&dir.path().join("online")).expect("a store"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fjall_online_store_keeps_the_contract() {
    online_contract(fresh_fjall).await;
}
