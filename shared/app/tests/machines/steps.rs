//! Every step repeated, failed, crashed: the final state is the same.

use claviger_app::ports::{CallError, Policies, StoreError};
use claviger_domain::decide::decide;
use claviger_domain::effect::{Effect, OutboxRow};
use claviger_domain::event::PolicyEvent;
use claviger_domain::fact::AuditHead;
use claviger_domain::fence::Epoch;
use claviger_domain::ids::{EffectId, TicketId};
use claviger_domain::ticket::TicketStatus;
use claviger_testkit::{SequentialIds, builders};
use jiff::SignedDuration;
use rstest::rstest;

use crate::world::{DISABLED, USABLE, World};

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

/// A row like `one`, on which something else is to be done.
fn another(one: &OutboxRow, number: u64, effect: Effect) -> OutboxRow {
    OutboxRow { id: EffectId::from_uuid(SequentialIds::uuid(number)), effect, ..one.clone() }
}

#[tokio::test]
async fn i4_effects_that_can_never_be_delivered_keep_nobody_elses_waiting() {
    let world = World::with_acme().await;
    world.cut_off().await;
    world.keys_answer(USABLE);
    let policy = world.policy().await;
    let round = world.probe().round(&policy).await;
    let ticket = policy.ticket.unwrap();
    let event = PolicyEvent::RestorationRequested { ticket, round, into_degraded: false };
    let mut asked = decide(&builders::rules(), &policy, &event, &builders::by_admin(), world.now()).unwrap();
    // Older than what matters, and on a ticket that never comes: more of them than one sweep takes.
    let nowhere = TicketId::from_uuid(SequentialIds::uuid(0xdead));
    let hopeless: Vec<OutboxRow> = (0..450)
        .map(|number| {
            let comment = Effect::CommentTicket { ticket: nowhere, body: "to nobody".to_owned() };
            let row = another(&asked.outbox[0], 0xbad_0000 + number, comment);
            OutboxRow { created_at: row.created_at - SignedDuration::from_secs(1), ..row }
        })
        .collect();
    let wanted = asked.outbox.len();
    asked.outbox.extend(hopeless);
    world.store.commit_policy(Some(&policy), &asked).await.unwrap();
    world.later(62);
    let mut delivered = 0;
    for _ in 0..4 {
        delivered += world.deliver().sweep().await.unwrap();
        world.later(60);
    }
    assert_eq!(delivered, wanted);
    let published = world.store.take_published_effects();
    assert!(published.iter().any(|row| row.effect == Effect::ProveRestoration), "{published:?}");
    assert_eq!(world.store.outbox().len(), 450, "they stay, and are tried again");
    world.later(1200);
    assert_eq!(world.deliver().sweep().await.unwrap(), 0);
}

#[tokio::test]
async fn i4_a_ticket_that_is_full_gets_last_words_its_status_and_nothing_more() {
    let world = World::with_acme().await;
    world.keys_answer(DISABLED);
    world.sweep().await.unwrap();
    let one = world.store.outbox().remove(0);
    world.drain().await;
    let ticket = world.policy().await.ticket.unwrap();
    let body = "x".repeat(2_000);
    let size = async || {
        let tickets = world.tickets().await;
        let found = tickets.into_iter().find(|known| known.id == ticket).unwrap();
        (serde_json::to_string(&found).unwrap().len(), found)
    };
    for number in 0..400 {
        let comment = Effect::CommentTicket { ticket, body: body.clone() };
        world.deliver().run(&another(&one, 0xf11_0000 + number, comment)).await.unwrap();
    }
    let (length, full) = size().await;
    assert!((290_000..310_000).contains(&length), "one item of the store takes 400 KB: {length}");
    let last = full.comments.last().unwrap();
    assert!(last.body.contains("audit"), "{}", last.body);
    assert_eq!(full.comments.iter().filter(|known| known.body == last.body).count(), 1);

    // What is short enough does not come after the last words either, and a status is no word.
    let short = Effect::CommentTicket { ticket, body: "short".to_owned() };
    world.deliver().run(&another(&one, 0xf12_0000, short)).await.unwrap();
    let resolving = another(&one, 0xf12_0001, Effect::ResolveTicket { ticket, body });
    for _ in 0..2 {
        world.deliver().run(&resolving).await.unwrap();
    }
    let (_, resolved) = size().await;
    assert_eq!(resolved.comments, full.comments);
    assert_eq!((resolved.status, resolved.version), (TicketStatus::Resolved, full.version + 1));
    assert!(resolved.resolved_at.is_some());
}
