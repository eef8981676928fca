//! What every `StateStore` keeps to. The reference is a `BTreeMap` per keyspace.

use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemark_connectors::state::FjallState;
use tidemark_engine::seam::{Keyspace, StateStore, WriteBatch};

type Entries = Vec<(Vec<u8>, Vec<u8>)>;

/// `fresh` makes a new, empty place and returns what opens it, again and again.
async fn state_contract<O: Fn() -> Arc<dyn StateStore>>(fresh: impl Fn() -> O) {
    a_checkpoint_is_there_in_every_keyspace_after_a_reopen(fresh()).await;
    deletes_come_before_puts_and_the_last_put_wins(fresh()).await;
    pages_of_a_prefix_neither_repeat_nor_leave_out(fresh()).await;
    remove_takes_a_prefix_and_nothing_beside_it(fresh()).await;
    a_key_that_cannot_be_stored_is_an_error_and_nothing_is_written(fresh()).await;
}

async fn all(store: &dyn StateStore, keyspace: Keyspace) -> Entries {
    store.page(keyspace, b"", None, usize::MAX).expect("entries")
}

fn puts(entries: &[(Keyspace, &[u8], &[u8])]) -> WriteBatch {
    let puts = entries.iter().map(|(s, k, v)| (*s, k.to_vec(), v.to_vec())).collect();
    WriteBatch { puts, deletes: vec![] }
}

async fn a_checkpoint_is_there_in_every_keyspace_after_a_reopen(open: impl Fn() -> Arc<dyn StateStore>) {
    let store = open();
    store.checkpoint(WriteBatch::default()).await.expect("an empty checkpoint");
    let batch = Keyspace::ALL.map(|s| (s, b"key".as_slice(), s.name().as_bytes()));
    store.checkpoint(puts(&batch)).await.expect("a checkpoint");
    drop(store);
    let store = open();
    for keyspace in Keyspace::ALL {
        assert_eq!(all(&*store, keyspace).await, [(b"key".to_vec(), keyspace.name().as_bytes().to_vec())]);
    }
}

async fn deletes_come_before_puts_and_the_last_put_wins(open: impl Fn() -> Arc<dyn StateStore>) {
    let store = open();
    store.checkpoint(puts(&[(Keyspace::Keys, b"a", b"1"), (Keyspace::Keys, b"b", b"1")])).await.expect("puts");
    let mut batch = puts(&[(Keyspace::Keys, b"a", b"2"), (Keyspace::Keys, b"a", b"3")]);
    batch.deletes = vec![(Keyspace::Keys, b"a".to_vec()), (Keyspace::Keys, b"b".to_vec())];
    store.checkpoint(batch).await.expect("both");
    assert_eq!(all(&*store, Keyspace::Keys).await, [(b"a".to_vec(), b"3".to_vec())]);
    drop(store);
    assert_eq!(all(&*open(), Keyspace::Keys).await, [(b"a".to_vec(), b"3".to_vec())]);
}

async fn pages_of_a_prefix_neither_repeat_nor_leave_out(open: impl Fn() -> Arc<dyn StateStore>) {
    let store = open();
    let keys = (0u32..1000).map(|i| i.to_be_bytes().to_vec()).collect::<Vec<_>>();
    let puts = keys.iter().map(|k| (Keyspace::Rows, k.clone(), k.clone())).collect();
    store.checkpoint(WriteBatch { puts, deletes: vec![] }).await.expect("puts");
    for prefix in [&[][..], &[0, 0], &[0, 0, 1], &[0, 0, 3, 231], &[9]] {
        let (mut paged, mut after) = (vec![], None);
        loop {
            let page = store.page(Keyspace::Rows, prefix, after.as_deref(), 7).expect("a page");
            assert!(page.len() <= 7);
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            paged.extend(page.into_iter().map(|(k, _)| k));
        }
        let expected = keys.iter().filter(|k| k.starts_with(prefix)).cloned().collect::<Vec<_>>();
        assert_eq!(paged, expected, "prefix {prefix:?}");
    }
    // An `after` outside the prefix: before it everything follows, behind it nothing.
    assert_eq!(store.page(Keyspace::Rows, &[0, 0, 1], Some(&[0]), 9999).expect("a page").len(), 256);
    assert_eq!(store.page(Keyspace::Rows, &[0, 0, 1], Some(&[7]), 9999).expect("a page").len(), 0);
}

async fn remove_takes_a_prefix_and_nothing_beside_it(open: impl Fn() -> Arc<dyn StateStore>) {
    let store = open();
    // More than fit one write, and keys of 0xff, after which no byte string of their length comes.
    let keys = (0u32..20_000).map(|i| [&[255, 255], &i.to_be_bytes()[..]].concat());
    let beside = [vec![255], vec![255, 254, 255], vec![1]];
    let puts = keys.chain(beside.clone()).map(|k| (Keyspace::Keys, k, vec![1])).collect();
    store.checkpoint(WriteBatch { puts, deletes: vec![] }).await.expect("puts");
    store.checkpoint(self::puts(&[(Keyspace::Rows, &[255, 255, 1], b"")])).await.expect("puts");
    store.remove(Keyspace::Keys, &[255, 255]).await.expect("remove");
    store.remove(Keyspace::Keys, &[77]).await.expect("remove what is not there");
    drop(store);
    let store = open();
    let left = all(&*store, Keyspace::Keys).await.into_iter().map(|(k, _)| k).collect::<Vec<_>>();
    assert_eq!(left, [vec![1], vec![255], vec![255, 254, 255]]);
    assert_eq!(all(&*store, Keyspace::Rows).await.len(), 1);
}

async fn a_key_that_cannot_be_stored_is_an_error_and_nothing_is_written(open: impl Fn() -> Arc<dyn StateStore>) {
    let store = open();
    let long = vec![1; 70_000];
    for bad in [&b""[..], &long] {
        let batch = puts(&[(Keyspace::Keys, b"good", b"1"), (Keyspace::Keys, bad, b"1")]);
        store.checkpoint(batch).await.expect_err("a key that cannot be stored");
    }
    assert_eq!(all(&*store, Keyspace::Keys).await, []);
}

fn fresh_fjall() -> impl Fn() -> Arc<dyn StateStore> {
    let dir = tempfile::tempdir().expect("a directory");
    move || Arc::new(FjallState::open(&dir.path().join("state")).expect("a store"))
}

#[tokio::test]
async fn the_fjall_state_store_keeps_the_contract() {
    state_contract(fresh_fjall).await;
}

fn any_batch() -> impl Strategy<Value = WriteBatch> {
    let keyspace = prop::sample::select(Keyspace::ALL.to_vec());
    let key = prop::collection::vec(prop::sample::select(vec![0u8, 1, 255]), 1..4);
    let put = (keyspace.clone(), key.clone(), prop::collection::vec(any::<u8>(), 0..3));
    (prop::collection::vec(put, 0..8), prop::collection::vec((keyspace, key), 0..4))
        .prop_map(|(puts, deletes)| WriteBatch { puts, deletes })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 32))]
    #[test]
    fn the_fjall_state_store_holds_what_ordered_maps_hold(batches in prop::collection::vec(any_batch(), 1..8)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let open = fresh_fjall();
        let mut expected = Keyspace::ALL.map(|_| BTreeMap::new());
        let store = open();
        for batch in batches {
            for (keyspace, key) in &batch.deletes {
                expected[*keyspace as usize].remove(key);
            }
            for (keyspace, key, value) in &batch.puts {
                expected[*keyspace as usize].insert(key.clone(), value.clone());
            }
            runtime.block_on(store.checkpoint(batch)).expect("a checkpoint");
        }
        drop(store);
        let store = open();
        for (keyspace, expected) in Keyspace::ALL.into_iter().zip(expected) {
            let got = runtime.block_on(all(&*store, keyspace));
            prop_assert_eq!(got, expected.into_iter().collect::<Vec<_>>());
        }
    }
}
