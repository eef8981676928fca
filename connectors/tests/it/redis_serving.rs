//! What serving nodes read in a Redis: the catalog of the owner, who cannot be overtaken by an earlier one, and rows of views,
//! of which it is known whether all are there.

use crate::redis_server::{Kind, RedisServer};
use anyhow::{Result, ensure};
use bytes::Bytes;
use tidemark_catalog::ObjectId;
use tidemark_connectors::redis::{Address, Found, Kept, Published, RedisOnline, RedisReader};
use tidemark_engine::seam::{OnlineStore, OnlineValue, Put, PutVersion};

const VIEW: ObjectId = ObjectId(20_000);

fn start(kind: Kind) -> Result<Option<RedisServer>> {
    let server = RedisServer::start(kind, &[])?;
    if server.is_none() {
        crate::skipped("no redis-server on this machine; scripts/setup.sh test installs it");
    }
    Ok(server)
}

fn address(server: &RedisServer, parameters: &str) -> Result<Address> {
    Address::parse(&format!("{}{parameters}", server.url())).map_err(anyhow::Error::msg)
}

fn owner(server: &RedisServer, name: &str) -> Result<RedisOnline> {
    Ok(RedisOnline::new(address(server, "?buckets=64")?, name.to_string()))
}

fn of(epoch: u64, edition: u64, level_us: Option<i64>) -> Published {
    Published { epoch, edition, level_us }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_catalog_of_the_latest_owner_is_read_and_no_earlier_one_comes_back() -> Result<()> {
    for kind in [Kind::One, Kind::Cluster] {
        let Some(server) = start(kind)? else { return Ok(()) };
        let (reader, own) = (RedisReader::new(address(&server, "")?), owner(&server, "me")?);
        ensure!(reader.published().await?.is_none() && reader.catalog().await?.is_none(), "nobody has said anything");
        ensure!(own.publish(&of(7, 3, None), None, &[]).await? == Kept::NoDocument, "it is to be sent");
        ensure!(own.publish(&of(7, 3, None), Some("three"), &[(VIEW, 50)]).await? == Kept::Done);
        ensure!(reader.catalog().await? == Some((of(7, 3, None), "three".to_string())));
        ensure!(own.publish(&of(7, 3, Some(100)), None, &[]).await? == Kept::Done);
        // What was on its way for long does not set it back.
        ensure!(own.publish(&of(7, 3, Some(90)), None, &[(VIEW, 40)]).await? == Kept::Done);
        ensure!(reader.published().await? == Some(of(7, 3, Some(100))));
        ensure!(own.publish(&of(7, 4, Some(110)), None, &[]).await? == Kept::NoDocument, "another edition");
        ensure!(own.publish(&of(7, 4, Some(110)), Some("four"), &[]).await? == Kept::Done);
        ensure!(own.publish(&of(7, 3, Some(120)), Some("three"), &[]).await? == Kept::Done, "it came too late");
        ensure!(reader.catalog().await? == Some((of(7, 4, Some(110)), "four".to_string())));
        // A server that began earlier, and another data directory.
        let error = own.publish(&of(6, 9, None), Some("nine"), &[]).await.expect_err("an earlier epoch").to_string();
        ensure!(error.contains("began later (epoch 7)"), "{error}");
        let other = owner(&server, "you")?;
        let error = other.publish(&of(8, 1, None), Some("one"), &[]).await.expect_err("another's").to_string();
        ensure!(error.contains("belongs to another data directory (me)"), "{error}");
        ensure!(reader.catalog().await? == Some((of(7, 4, Some(110)), "four".to_string())));
        // A later one of the same directory, whose catalog may be a restored one.
        ensure!(own.publish(&of(8, 1, None), Some("one"), &[]).await? == Kept::Done);
        ensure!(reader.catalog().await? == Some((of(8, 1, None), "one".to_string())));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_read_with_what_tells_that_all_of_them_are_there() -> Result<()> {
    for kind in [Kind::One, Kind::Tls, Kind::Cluster] {
        let Some(server) = start(kind)? else { return Ok(()) };
        // The TLS address has a parameter already.
        let url = if kind == Kind::Tls {
            format!("{}&buckets=64", server.url())
        } else {
            format!("{}?buckets=64", server.url())
        };
        let own = RedisOnline::new(Address::parse(&url).map_err(anyhow::Error::msg)?, "me".to_string());
        // Nobody has told it how many buckets there are.
        let reader = RedisReader::new(address(&server, "")?);
        let keys: Vec<Bytes> = (0..300).map(|n| Bytes::from(format!("key {n}"))).collect();
        ensure!(reader.read(VIEW, &keys, true).await? == Found::NotFilled, "{kind:?}: there is no view");
        own.open_view(VIEW).await?;
        let value = |n: usize| OnlineValue {
            key: keys[n].clone(),
            version: PutVersion { epoch: 1, counter: n as u64 },
            row: (!n.is_multiple_of(10)).then(|| Bytes::from(format!("row {n}"))),
        };
        let values: Vec<OnlineValue> = (0..200).map(value).collect();
        ensure!(own.put(VIEW, values.clone()).await? == Put::Done);
        ensure!(reader.read(VIEW, &keys, true).await? == Found::NotFilled, "{kind:?}: there may be more");
        own.filled(VIEW).await?;
        let expected: Vec<Option<OnlineValue>> = (0..300).map(|n| values.get(n).cloned()).collect();
        let all = |now_us| Found::Values { values: expected.clone(), now_us };
        ensure!(reader.read(VIEW, &keys, true).await? == all(None), "{kind:?}");
        ensure!(own.publish(&of(1, 1, None), Some("one"), &[(VIEW, 77)]).await? == Kept::Done);
        ensure!(reader.read(VIEW, &keys, true).await? == all(Some(77)), "{kind:?}");
        ensure!(reader.read(VIEW, &keys, false).await? == all(None), "{kind:?}");
        let one = Found::Values { values: vec![expected[11].clone()], now_us: None };
        ensure!(reader.read(VIEW, &keys[11..12], false).await? == one, "{kind:?}");
        own.drop_view(VIEW).await?;
        ensure!(reader.read(VIEW, &keys, true).await? == Found::NotFilled, "{kind:?}: it is gone");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_came_back_with_what_it_had_is_not_believed_until_its_owner_has_filled_it() -> Result<()> {
    let Some(server) = start(Kind::One)? else { return Ok(()) };
    let (reader, own) = (RedisReader::new(address(&server, "")?), owner(&server, "me")?);
    let key = Bytes::from_static(b"key");
    let value = OnlineValue {
        key: key.clone(),
        version: PutVersion { epoch: 1, counter: 1 },
        row: Some(Bytes::from_static(b"row")),
    };
    own.open_view(VIEW).await?;
    ensure!(own.put(VIEW, vec![value.clone()]).await? == Put::Done);
    own.filled(VIEW).await?;
    let found = Found::Values { values: vec![Some(value.clone())], now_us: None };
    ensure!(reader.read(VIEW, std::slice::from_ref(&key), false).await? == found);
    server.cli(&["save"])?;
    server.kill()?;
    ensure!(reader.read(VIEW, std::slice::from_ref(&key), false).await.is_err(), "it is away");
    ensure!(own.ping().await.is_err(), "for its owner too");
    server.again(&[])?;
    ensure!(server.keys()?.len() > 64, "it has what it had");
    // The connection of before may end only now.
    let read = match reader.read(VIEW, std::slice::from_ref(&key), false).await {
        Err(_) => reader.read(VIEW, std::slice::from_ref(&key), false).await?,
        Ok(read) => read,
    };
    ensure!(read == Found::NotFilled, "{read:?}");
    let again = OnlineValue { version: PutVersion { epoch: 1, counter: 2 }, ..value };
    ensure!(!own.open_view(VIEW).await?, "nor does its owner believe it");
    ensure!(own.put(VIEW, vec![again.clone()]).await? == Put::Done);
    own.filled(VIEW).await?;
    let found = Found::Values { values: vec![Some(again)], now_us: None };
    ensure!(reader.read(VIEW, std::slice::from_ref(&key), false).await? == found);
    Ok(())
}
