//! What Redis adds to the contract of an `OnlineStore`: it may be away, full, slow, or back without what it had; it is shared
//! with others; and it may be a cluster, or behind TLS and a password.

use crate::{
    contract_online::online_contract,
    redis_server::{Kind, PASSWORD_ENCODED, RedisServer},
};
use anyhow::{Context, Result, ensure};
use arrow::datatypes::{DataType, Field};
use bytes::Bytes;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use tidemark_catalog::ObjectId;
use tidemark_connectors::redis::{Address, RedisOnline};
use tidemark_engine::{
    compiled::Row,
    online::OnlineRow,
    seam::{OnlineStore, OnlineValue, Put, PutVersion, SeamError},
    value::{Value, encode_row},
};

const VIEW: ObjectId = ObjectId(20_000);

fn start(kind: Kind, more: &[&str]) -> Result<Option<RedisServer>> {
    let server = RedisServer::start(kind, more)?;
    if server.is_none() {
        crate::skipped("no redis-server on this machine; scripts/setup.sh test installs it");
    }
    Ok(server)
}

/// With these parameters, for this owner.
fn store(server: &RedisServer, parameters: &str, owner: &str) -> RedisOnline {
    let url = server.url();
    let url = if url.contains('?') { format!("{url}&{parameters}") } else { format!("{url}?{parameters}") };
    RedisOnline::new(Address::parse(&url).expect("a URL"), owner.to_string())
}

fn values(numbers: std::ops::Range<u64>, epoch: u64, row: &str) -> Vec<OnlineValue> {
    let value = |n: u64| OnlineValue {
        key: Bytes::from(format!("key {n}")),
        version: PutVersion { epoch, counter: n },
        row: Some(Bytes::from(row.to_string())),
    };
    numbers.map(value).collect()
}

async fn found(store: &RedisOnline, numbers: std::ops::Range<u64>) -> Result<usize> {
    let keys: Vec<Bytes> = numbers.map(|n| Bytes::from(format!("key {n}"))).collect();
    Ok(store.get_many(VIEW, &keys).await?.iter().flatten().count())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_keeps_the_contract_alone_behind_tls_and_as_a_cluster() -> Result<()> {
    for kind in [Kind::One, Kind::Tls, Kind::Cluster] {
        let Some(server) = start(kind, &[])? else { return Ok(()) };
        let server = Arc::new(server);
        let fresh = AtomicUsize::new(0);
        online_contract(|| {
            let (server, nth) = (server.clone(), fresh.fetch_add(1, Ordering::Relaxed));
            move || -> Arc<dyn OnlineStore> {
                Arc::new(store(&server, &format!("prefix=case{nth}&buckets=1024"), "me"))
            }
        })
        .await;
        // Under a prefix each case had the store for itself; a drop takes all there is.
        let store = store(&server, "prefix=last", "me");
        ensure!(!store.open_view(VIEW).await?);
        ensure!(store.put(VIEW, values(0..5000, 1, "row")).await? == Put::Done);
        ensure!(found(&store, 0..5001).await? == 5000);
        let has = |keys: Vec<String>| keys.into_iter().filter(|key| key.starts_with("last")).count();
        ensure!(has(server.keys()?) > 1000, "{kind:?}: values are in buckets");
        store.drop_view(VIEW).await?;
        ensure!(has(server.keys()?) == 0, "{kind:?}: keys are left");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_layout_for_people_keeps_the_contract_and_shows_what_is_there() -> Result<()> {
    for kind in [Kind::One, Kind::Cluster] {
        let Some(server) = start(kind, &[])? else { return Ok(()) };
        let server = Arc::new(server);
        let fresh = AtomicUsize::new(0);
        online_contract(|| {
            let (server, nth) = (server.clone(), fresh.fetch_add(1, Ordering::Relaxed));
            move || -> Arc<dyn OnlineStore> {
                Arc::new(store(&server, &format!("prefix=case{nth}&buckets=1024&layout=hash"), "me"))
            }
        })
        .await;
        let people = store(&server, "prefix=p&buckets=64&layout=hash", "me");
        let own = |keys: Vec<String>| keys.into_iter().filter(|key| key.starts_with("p:")).count();
        let columns = [("n", DataType::Int64), ("country", DataType::Utf8)];
        people.describe(VIEW, columns.map(|(name, ty)| Arc::new(Field::new(name, ty, true))).into());
        ensure!(!people.open_view(VIEW).await?);
        let value = |counter: u64, outputs: Option<[Value; 2]>| -> Result<OnlineValue> {
            let row = |outputs: [Value; 2]| {
                let row = Row { key: [].into(), instant_us: 1_000, event_us: 990, outputs: outputs.into() };
                OnlineRow::encode(&row, None).map(Bytes::from)
            };
            let key = Bytes::from(encode_row(&[Value::Int(7)]));
            let version = PutVersion { epoch: 1, counter };
            let row = outputs.map(row).transpose().map_err(|error| anyhow::anyhow!("{error}"))?;
            Ok(OnlineValue { key, version, row })
        };
        let shown = || server.cli(&["hgetall", "p:{20000.11}/7"]);
        let row = [Value::Int(3), Value::Text("CH".into())];
        ensure!(people.put(VIEW, vec![value(5, Some(row))?]).await? == Put::Done);
        people.filled(VIEW).await?;
        let expected = "@version\n1.5\n@since\n1000\n@event\n990\nn\n3\ncountry\nCH";
        ensure!(shown()? == expected, "{kind:?}: {}", shown()?);
        ensure!(people.put(VIEW, vec![value(6, Some([Value::Int(4), Value::Null]))?]).await? == Put::Done);
        ensure!(shown()?.ends_with("\nn\n4"), "{kind:?}: {}", shown()?);
        ensure!(people.put(VIEW, vec![value(7, None)?]).await? == Put::Done);
        ensure!(shown()?.is_empty(), "{kind:?}: {}", shown()?);
        // What a filling does not bring goes; and another layout, or a drop, takes all there is.
        ensure!(people.put(VIEW, vec![value(8, Some([Value::Int(4), Value::Null]))?]).await? == Put::Done);
        server.cli(&["del", "p:{20000.0}"])?;
        ensure!(!people.open_view(VIEW).await?);
        ensure!(people.put(VIEW, values(0..10, 2, "row")).await? == Put::Done);
        people.filled(VIEW).await?;
        ensure!(shown()?.is_empty(), "{kind:?}: {}", shown()?);
        ensure!(own(server.keys()?) > 64);
        let packed = store(&server, "prefix=p&buckets=64", "me");
        ensure!(!packed.open_view(VIEW).await?);
        ensure!(own(server.keys()?) == 64, "{kind:?}: the marks only: {:?}", server.keys()?);
        ensure!(!people.open_view(VIEW).await?);
        ensure!(people.put(VIEW, vec![value(9, Some([Value::Int(4), Value::Null]))?]).await? == Put::Done);
        people.drop_view(VIEW).await?;
        ensure!(own(server.keys()?) == 0, "{kind:?}: {:?}", server.keys()?);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_was_away_is_noticed_and_filled_again() -> Result<()> {
    let Some(server) = start(Kind::One, &[])? else { return Ok(()) };
    let store = store(&server, "buckets=64", "me");
    ensure!(store.put(VIEW, values(0..10, 1, "row")).await? == Put::NoView, "nobody has opened it");
    ensure!(!store.open_view(VIEW).await?);
    ensure!(store.put(VIEW, values(0..10, 1, "row")).await? == Put::Done);
    store.filled(VIEW).await?;
    ensure!(store.open_view(VIEW).await?);
    server.kill()?;
    let error = store.put(VIEW, values(10..20, 1, "row")).await.expect_err("it is away");
    ensure!(!error.to_string().contains("secret"));
    let error = store.put(VIEW, values(10..20, 1, "row")).await.expect_err("it is away");
    ensure!(matches!(&error, SeamError::NotDone(said) if said.contains("no Redis at 127.0.0.1")), "{error}");
    server.again(&[])?;
    ensure!(store.put(VIEW, values(10..20, 1, "row")).await? == Put::NoView, "it has nothing");
    ensure!(store.filled(VIEW).await.is_err(), "of a view that it does not know");
    ensure!(!store.open_view(VIEW).await?);
    ensure!(store.put(VIEW, values(0..20, 1, "row")).await? == Put::Done);
    ensure!(found(&store, 0..20).await? == 20);
    // Somebody empties it.
    server.cli(&["flushall"])?;
    ensure!(store.put(VIEW, values(20..21, 1, "row")).await? == Put::NoView);
    Ok(())
}

/// The rows of some keys.
async fn rows(store: &RedisOnline, numbers: std::ops::Range<u64>) -> Result<Vec<Option<String>>> {
    let keys: Vec<Bytes> = numbers.map(|n| Bytes::from(format!("key {n}"))).collect();
    let found = store.get_many(VIEW, &keys).await?;
    let row = |value: Option<OnlineValue>| value?.row.map(|row| String::from_utf8_lossy(&row).into_owned());
    Ok(found.into_iter().map(row).collect())
}

/// As if each had been put later by so much.
fn later(values: Vec<OnlineValue>, by: u64) -> Vec<OnlineValue> {
    let later = |value: OnlineValue| {
        let PutVersion { epoch, counter } = value.version;
        OnlineValue { version: PutVersion { epoch, counter: counter + by }, ..value }
    };
    values.into_iter().map(later).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_back_with_older_values_is_noticed_and_filled_again() -> Result<()> {
    let Some(server) = start(Kind::One, &[])? else { return Ok(()) };
    let store = store(&server, "buckets=1024", "me");
    ensure!(!store.open_view(VIEW).await?);
    ensure!(store.put(VIEW, values(0..100, 1, "old")).await? == Put::Done);
    store.filled(VIEW).await?;
    server.cli(&["save"])?;
    ensure!(store.put(VIEW, later(values(0..100, 1, "new"), 1000)).await? == Put::Done);
    server.kill()?;
    store.put(VIEW, later(values(0..10, 1, "newer"), 2000)).await.map(drop).err().context("it is away")?;
    server.again(&[])?;
    ensure!(rows(&store, 0..1).await? == [Some("old".to_string())], "it has what it had saved");
    ensure!(store.put(VIEW, later(values(0..10, 1, "newer"), 2000)).await? == Put::NoView, "not noticed by a put");
    ensure!(!store.open_view(VIEW).await?, "not noticed by an opening");
    // Half of the keys have gone meanwhile, and nobody knows them any more.
    ensure!(store.put(VIEW, later(values(0..50, 1, "newest"), 3000)).await? == Put::Done);
    store.filled(VIEW).await?;
    ensure!(rows(&store, 0..50).await?.iter().all(|row| row.as_deref() == Some("newest")));
    ensure!(rows(&store, 50..100).await?.iter().all(Option::is_none), "keys that are no more are left");
    // What was on its way before that does not come back.
    ensure!(store.put(VIEW, values(0..100, 1, "late")).await? == Put::Done);
    ensure!(found(&store, 0..100).await? == 50);
    ensure!(store.open_view(VIEW).await?, "nothing is lost");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loss_while_the_server_was_away_or_with_redis_on_its_feet_is_noticed() -> Result<()> {
    let Some(server) = start(Kind::One, &[])? else { return Ok(()) };
    let first = store(&server, "", "me");
    ensure!(!first.open_view(VIEW).await?);
    ensure!(first.put(VIEW, values(0..100, 1, "old")).await? == Put::Done);
    first.filled(VIEW).await?;
    server.cli(&["save"])?;
    ensure!(store(&server, "", "me").open_view(VIEW).await?, "it has everything");
    ensure!(first.put(VIEW, later(values(0..100, 1, "new"), 1000)).await? == Put::Done);
    server.kill()?;
    server.again(&[])?;
    // A server that has itself been restarted does not know what was there.
    let second = store(&server, "", "me");
    ensure!(!second.open_view(VIEW).await?, "it has what it had saved, which may be old");
    ensure!(second.put(VIEW, values(0..100, 2, "new")).await? == Put::Done);
    second.filled(VIEW).await?;
    ensure!(second.open_view(VIEW).await?);
    // As a replica has it that has taken over in a cluster, and lagged: less than what was answered for.
    for group in 0..64 {
        server.cli(&["hdel", &format!("tidemark:{{{}.{group}}}", VIEW.0), "newest"])?;
    }
    ensure!(second.put(VIEW, later(values(0..1, 2, "newer"), 5000)).await? == Put::NoView);
    ensure!(!second.open_view(VIEW).await?);
    // All keys but one have gone.
    ensure!(found(&second, 0..100).await? == 100);
    ensure!(second.put(VIEW, values(200..201, 3, "the last")).await? == Put::Done);
    second.filled(VIEW).await?;
    ensure!(found(&second, 0..100).await? == 0 && found(&second, 200..201).await? == 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_without_memory_says_so_and_takes_it_later() -> Result<()> {
    let Some(server) = start(Kind::One, &["--maxmemory", "3mb", "--maxmemory-policy", "noeviction"])? else {
        return Ok(());
    };
    let store = store(&server, "", "me");
    store.open_view(VIEW).await?;
    let large = "x".repeat(1000);
    let error = store.put(VIEW, values(0..10_000, 1, &large)).await.expect_err("10 MB into 3");
    ensure!(matches!(&error, SeamError::Full(said) if said.contains("maxmemory")), "{error:?}");
    server.cli(&["config", "set", "maxmemory", "0"])?;
    ensure!(store.put(VIEW, values(0..10_000, 1, &large)).await? == Put::Done);
    ensure!(found(&store, 0..10_000).await? == 10_000);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_does_not_answer_is_given_up_and_asked_again() -> Result<()> {
    let Some(server) = start(Kind::One, &[])? else { return Ok(()) };
    let store = store(&server, "", "me");
    store.open_view(VIEW).await?;
    server.cli(&["client", "pause", "600000", "write"])?;
    let error = store.put(VIEW, values(0..10, 1, "row")).await.expect_err("it is paused");
    ensure!(matches!(&error, SeamError::Unknown(said) if said.contains("does not answer")), "{error:?}");
    server.cli(&["client", "unpause"])?;
    ensure!(store.put(VIEW, values(0..10, 1, "row")).await? == Put::Done);
    ensure!(found(&store, 0..10).await? == 10);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_at_the_same_redis_are_noticed() -> Result<()> {
    let Some(server) = start(Kind::Tls, &[])? else { return Ok(()) };
    let own = store(&server, "", "me");
    own.open_view(VIEW).await?;
    ensure!(own.put(VIEW, values(0..10, 7, "row")).await? == Put::Done);
    // A copy of the data directory that began earlier.
    let error = own.put(VIEW, values(10..20, 6, "row")).await.expect_err("an older epoch");
    ensure!(error.to_string().contains("epoch 7"), "{error}");
    ensure!(found(&own, 0..20).await? == 10);
    // One that began later and has nothing to put is told of all the same, as often as somebody asks.
    let later = store(&server, "", "me");
    later.open_view(VIEW).await?;
    later.claim(VIEW, 8).await?;
    let error = own.put(VIEW, values(10..20, 7, "row")).await.expect_err("an older epoch");
    ensure!(error.to_string().contains("epoch 8"), "{error}");
    let error = own.claim(VIEW, 7).await.expect_err("an older epoch");
    ensure!(error.to_string().contains("epoch 8"), "{error}");
    later.claim(VIEW, 8).await?;
    // Another data directory: neither takes over nor removes what is not its own.
    let other = store(&server, "", "you");
    let error = other.open_view(VIEW).await.expect_err("another's");
    ensure!(error.to_string().contains("belong to another data directory (me)"), "{error}");
    ensure!(other.put(VIEW, values(0..1, 9, "row")).await? == Put::NoView);
    other.drop_view(VIEW).await?;
    ensure!(found(&own, 0..20).await? == 10);
    // With other buckets all is put again, and nothing of the old ones is left.
    let wide = store(&server, "buckets=64", "me");
    ensure!(!wide.open_view(VIEW).await?);
    ensure!(server.keys()?.len() == 64, "the marks only: {:?}", server.keys()?);
    // Who may not come in is told so, without the password.
    let url = server.url().replace(PASSWORD_ENCODED, "wrong");
    let stranger = RedisOnline::new(Address::parse(&url).map_err(anyhow::Error::msg)?, "me".to_string());
    let error = stranger.ping().await.expect_err("a wrong password").to_string();
    ensure!(error.contains("does not let this server in") && !error.contains("wrong@"), "{error}");
    let error = RedisOnline::new(
        Address::parse(
            &server.url().replace("localhost", "127.0.0.1").replace("rediss", "redis").replace("?ca", "?prefix"),
        )
        .map_err(anyhow::Error::msg)?,
        "me".to_string(),
    );
    error.ping().await.map(drop).err().context("no TLS where TLS is spoken")?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_is_one_round_trip_however_many_values_it_has() -> Result<()> {
    let Some(server) = start(Kind::One, &[])? else { return Ok(()) };
    let store = store(&server, "buckets=1024", "me");
    ensure!(!store.open_view(VIEW).await?);
    // The first put of an epoch tells all groups who puts, in one command.
    for (round_trips, commands) in [(2, 65), (1, 64)] {
        let before = store.traffic();
        ensure!(store.put(VIEW, values(0..5000, 1, "row")).await? == Put::Done);
        let after = store.traffic();
        let made = (after.round_trips - before.round_trips, after.commands - before.commands);
        ensure!(made == (round_trips, commands), "{made:?}");
    }
    ensure!(store.put(VIEW, vec![]).await? == Put::Done);
    Ok(())
}
