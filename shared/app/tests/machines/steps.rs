//! Every step repeated, failed, crashed: the final state is the same.

use claviger_app::ports::{CallError, StoreError};
use claviger_domain::fact::AuditHead;
use claviger_domain::fence::Epoch;
use claviger_domain::ticket::TicketStatus;
use rstest::rstest;

use crate::world::{DISABLED, World};

/// What must be the same whatever happened on the way.
async fn outcome(world: &World) -> (String, Epoch, Vec<String>, Vec<(TicketStatus, usize)>) {
    let policy = world.policy().await;
    let instances = world.instances().await.iter().map(|one| one.status.slug().to_owned()).collect();
    let tickets = world.tickets().await.iter().map(|one| (one.status, one.comments.len())).collect();
    (policy.lifecycle.slug().to_owned(), policy.fence.epoch, instances, tickets)
}

async fn cut_off_and_restored() -> World {
    let world = World::with_acme().await;
    world.cut_off().await;
    world.restore().await;
    world
}

#[rstest]
#[tokio::test]
async fn i4_a_store_that_fails_at_any_step_changes_nothing_about_the_outcome(
    #[values(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)] step: usize,
    #[values(true, false)] conflict: bool,
) {
    let wanted = outcome(&cut_off_and_restored().await).await;
    let fault =
        if conflict { StoreError::Conflict } else { StoreError::Unavailable { reason: "test".to_owned() } };
    let world = World::with_acme().await;
    world.keys_answer(DISABLED);
    // The faults lie at different depths: `step` changes succeed first.
    let mut faults = 0;
    while world.policy().await.fence.is_open() {
        if faults == 0 && step == 0 {
            world.store.fail_changes([fault.clone()]);
        }
        faults += 1;
        let _ = world.sweep().await;
        world.later(60);
        assert!(faults < 5);
    }
    world.store.fail_changes(vec![fault.clone(); step]);
    world.drain().await;
    world.later(60);
    world.ask_for_restoration().await;
    world.store.fail_changes(vec![fault; step]);
    world.drain().await;
    assert_eq!(outcome(&world).await, wanted);
    let mut head = AuditHead::default();
    let policy = world.policy().await;
    for fact in world.store.all_facts(&world.name()) {
        if fact.stream == policy.id.as_uuid() {
            assert!(fact.follows(&head), "{}", fact.slug);
            head = AuditHead { seq: fact.seq, hash: fact.hash };
        }
    }
    assert_eq!(head, policy.audit, "every committed decision has exactly one fact");
}

#[tokio::test]
async fn i4_effects_that_are_delivered_twice_and_in_any_order_are_applied_once() {
    let wanted = outcome(&cut_off_and_restored().await).await;
    let world = World::with_acme().await;
    world.keys_answer(DISABLED);
    world.sweep().await.unwrap();
    let rows = world.store.outbox();
    for row in rows.iter().rev().chain(rows.iter()).chain(rows.iter()) {
        let _ = world.deliver().run(row).await;
    }
    world.drain().await;
    for row in &rows {
        let _ = world.deliver().run(row).await;
    }
    world.drain().await;
    world.later(60);
    world.restore().await;
    for row in &rows {
        let _ = world.deliver().run(row).await;
    }
    world.drain().await;
    assert_eq!(outcome(&world).await, wanted);
}

#[tokio::test]
async fn i4_a_bus_that_fails_keeps_the_effect_in_the_outbox() {
    let world = World::with_acme().await;
    world.keys_answer(DISABLED);
    world.sweep().await.unwrap();
    let waiting = world.store.outbox().len();
    world.store.fail_calls([CallError { what: "the bus", reason: "test".to_owned() }]);
    for row in world.store.outbox() {
        let _ = world.deliver().run(&row).await;
    }
    assert_eq!(world.store.outbox().len(), 1, "of {waiting}");
    world.later(61);
    assert_eq!(world.deliver().sweep().await.unwrap(), 1);
    assert!(world.store.outbox().is_empty());
}
