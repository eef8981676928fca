//! Views of the same windows, while nothing fails: that they are kept together, through restarts and drops, and that each is then
//! what it would be alone. What faults do to them the seeds show, which draw the same views.

use super::{
    check::{check, check_end},
    views,
    world::{Op, World},
};
use std::collections::BTreeSet;
use tidemark_catalog::ObjectId;
use tidemark_engine::seam::{Keyspace, StateStore, WriteBatch};

/// Kin by their windows, source and key, whatever they aggregate.
const KIN: [&str; 3] = ["short", "short_too", "short_raw"];

async fn one(world: &World, op: Op) {
    assert!(world.perform(std::slice::from_ref(&op)).await.expect("a promise is kept"), "nothing ends: {op:?}");
}

/// Some of what goes on beside CREATE and DROP.
async fn go_on(world: &mut World, ops: usize) {
    let mut left = ops;
    while left > 0 {
        let op = world.draw();
        let goes_on = matches!(
            op,
            Op::Insert(..)
                | Op::Tick(_)
                | Op::Idle
                | Op::Advance(..)
                | Op::Flush
                | Op::Commit
                | Op::Checkpoint
                | Op::Warm
                | Op::Lookup(..)
                | Op::Scan(_)
        );
        if goes_on {
            one(world, op).await;
            left -= 1;
        }
    }
}

async fn create(world: &World, name: &str) {
    let shape = views::of(world.mode).iter().position(|shape| shape.name == name).expect(name);
    one(world, Op::Create(shape)).await;
    assert!(world.views().iter().any(|(_, shape)| shape.name == name), "{name} is made");
}

async fn drop_view(world: &World, name: &str) {
    let at = world.views().iter().position(|(_, shape)| shape.name == name).expect(name);
    one(world, Op::Drop(at)).await;
}

async fn restart(world: &mut World) {
    world.crash();
    world.start().await.expect("it starts");
    world.faults.calm();
}

/// What keeps the keys of some views; `None`: one of them stands for itself.
fn families(world: &World, names: &[&str]) -> Option<BTreeSet<ObjectId>> {
    let of =
        |(id, _): &(ObjectId, _)| world.engine().view(*id).expect("it runs").state.host().map(|host| host.state.id);
    world.views().iter().filter(|(_, shape)| names.contains(&shape.name)).map(of).collect()
}

async fn run(seed: u64) {
    let mut world = World::new(seed, false);
    let world = &mut world;
    world.start().await.expect("it starts");
    world.faults.calm();
    let same = |world: &World, names: &[&str]| families(world, names).is_some_and(|families| families.len() == 1);
    create(world, KIN[0]).await;
    create(world, "long").await;
    go_on(world, 20).await;
    assert!(!same(world, &KIN[..1]), "seed {seed}: alone so far");
    create(world, KIN[1]).await;
    assert!(same(world, &KIN), "seed {seed}: both in one family");
    go_on(world, 10).await;
    check(world, false, true).await.expect("two");
    create(world, KIN[2]).await;
    create(world, "mortal").await;
    create(world, "mortal_too").await;
    assert!(same(world, &KIN) && same(world, &["mortal", "mortal_too"]), "seed {seed}: two families");
    assert!(!same(world, &["long"]) && !same(world, &["short", "mortal"]), "seed {seed}: and one that is in none");
    // Before their first checkpoint as families: as they were before, and the newest begins anew.
    restart(world).await;
    check(world, false, true).await.expect("after a restart without a checkpoint");
    for name in KIN {
        drop_view(world, name).await;
    }
    for name in KIN {
        create(world, name).await;
        go_on(world, 5).await;
    }
    one(world, Op::Checkpoint).await;
    go_on(world, 10).await;
    restart(world).await;
    assert!(same(world, &KIN), "seed {seed}: still together after a restart");
    check(world, false, true).await.expect("after a restart");
    // The columns of one that is gone stay where they are.
    drop_view(world, KIN[1]).await;
    go_on(world, 10).await;
    check(world, false, true).await.expect("without one of them");
    one(world, Op::Checkpoint).await;
    restart(world).await;
    assert!(same(world, &[KIN[0], KIN[2]]), "seed {seed}: the others are still together");
    go_on(world, 10).await;
    check(world, false, true).await.expect("without one of them, after a restart");
    create(world, KIN[1]).await;
    assert!(same(world, &KIN), "seed {seed}: together again");
    go_on(world, 10).await;
    check(world, false, true).await.expect("together again");
    drop_view(world, KIN[0]).await;
    drop_view(world, KIN[2]).await;
    go_on(world, 5).await;
    check(world, false, true).await.expect("the last one");
    drop_view(world, KIN[1]).await;
    one(world, Op::Checkpoint).await;
    restart(world).await;
    world.clock.move_on(3_600 * views::SECOND);
    check_end(world).await.expect("when all is over");
}

#[test]
fn views_of_the_same_windows_are_kept_together_and_each_is_what_it_is_alone() {
    for seed in 0..60 {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(run(seed));
    }
}

/// What a checkpoint has of the keys that a family keeps cannot be read any more.
async fn spoil(world: &World, family: ObjectId) {
    let mut puts = vec![];
    for keyspace in [Keyspace::Keys, Keyspace::Spilled] {
        let kept = world.store.page(keyspace, &family.0.to_be_bytes(), None, usize::MAX).expect("it is in memory");
        puts.extend(kept.into_iter().map(|(key, _)| (keyspace, key, vec![0xff])));
    }
    assert!(!puts.is_empty(), "there are keys");
    world.store.checkpoint(WriteBatch { puts, deletes: vec![] }).await.expect("it is in memory");
}

async fn given_up(seed: u64) {
    let mut world = World::new(seed, false);
    let world = &mut world;
    world.start().await.expect("it starts");
    world.faults.calm();
    create(world, KIN[0]).await;
    create(world, KIN[1]).await;
    let family = families(world, &KIN).and_then(|families| families.first().copied()).expect("one family");
    let ids: Vec<ObjectId> = world.views().iter().map(|(id, _)| *id).collect();
    let keys = |world: &World| {
        let view = world.engine().view(ids[0]).expect("it runs");
        view.state.count(|counters| &counters.keys)
    };
    while keys(world) == 0 {
        go_on(world, 5).await;
    }
    one(world, Op::Checkpoint).await;
    spoil(world, family).await;
    restart(world).await;
    let fails = |world: &World| ids.iter().filter(|id| world.engine().failure(**id).is_some()).count();
    while fails(world) == 0 {
        go_on(world, 5).await;
    }
    assert_eq!(fails(world), 2, "seed {seed}: they fail together");
    check(world, true, true).await.expect("started again from the log");
    // No checkpoint since: the one that does not do is not gone by again.
    restart(world).await;
    assert_eq!(fails(world), 0, "seed {seed}: they start");
    go_on(world, 20).await;
    check(world, false, true).await.expect("each for itself");
    one(world, Op::Checkpoint).await;
    restart(world).await;
    go_on(world, 20).await;
    check(world, false, true).await.expect("each for itself, from its own checkpoint");
}

#[test]
fn views_whose_common_checkpoint_cannot_be_read_stand_for_themselves_from_then_on() {
    for seed in 0..20 {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(given_up(seed));
    }
}
