//! An organisation leaves, and its data keys are erased (spec E11).

use claviger_app::close_organisation::CloseOrganisation;
use claviger_app::erase_data_keys::GRACE;
use claviger_app::error::WorkError;
use claviger_app::pass_deadlines::PassDeadlines;
use claviger_app::ports::{DataKeyRegistry, DataKeyRemoval, Policies, SupportRequestKind, SupportRequests};
use claviger_app::request_error::RequestError;
use claviger_app::request_instance::RequestInstance;
use claviger_app::support_requests::{DecideRequests, Decided, Verdict};
use claviger_domain::policy::Lifecycle;
use claviger_testkit::builders::{self, parsed};
use jiff::SignedDuration;

use crate::world::World;

fn close(world: &World) -> CloseOrganisation<'_> {
    CloseOrganisation { policies: &world.store, clock: &world.clock, settings: world.settings() }
}

pub async fn deadlines(world: &World) {
    assert_eq!(passing(world, &world.store).run().await.unwrap().failed, 0);
}

/// One run, with this in place of what says that data keys of former generations go.
pub fn passing<'a>(world: &'a World, removal: &'a dyn DataKeyRemoval) -> PassDeadlines<'a> {
    PassDeadlines {
        policies: &world.store,
        watch: &world.store,
        requests: &world.store,
        templates: &world.store,
        overdue: &world.store,
        instances: &world.store,
        erasures: &world.store,
        backups: &world.store,
        removal,
        ids: &world.ids,
        clock: &world.clock,
        settings: world.settings(),
    }
}

async fn approved(world: &World) {
    let waiting = world.store.support_requests(None, 10).await.unwrap().items;
    let [request] = &waiting[..] else { panic!("{waiting:?}") };
    assert_eq!(request.kind, SupportRequestKind::Closing);
    let decide = DecideRequests {
        requests: &world.store,
        organisations: &world.store,
        policies: &world.store,
        instances: &world.store,
        clock: &world.clock,
        settings: world.settings(),
    };
    for _ in 0..2 {
        let decided = decide.decide(request.id, &Verdict::Approved, &builders::by_support()).await.unwrap();
        assert!(matches!(decided, Decided::Closing(_)), "{decided:?}");
    }
    assert!(world.store.support_requests(None, 10).await.unwrap().items.is_empty());
}

async fn data_keys(world: &World) -> usize {
    let mut found = 0;
    for instance in world.instances().await {
        found += world.store.data_keys(instance.id).await.unwrap().len();
    }
    found
}

/// Works pages off until none is queued; each is delivered twice.
async fn erases(world: &World) {
    for _ in 0..50 {
        let pages = world.store.take_queued_erasures();
        if pages.is_empty() {
            return;
        }
        for (page, _) in pages {
            world.erase().page(&page).await.unwrap();
            if matches!(world.policy().await.lifecycle, Lifecycle::Active { .. }) {
                world.erase().page(&page).await.unwrap();
            }
        }
    }
    panic!("it never ends");
}

#[tokio::test]
async fn e11_an_organisation_that_leaves_keeps_its_data_for_the_export_and_then_no_data_key_is_left() {
    let world = World::with_acme().await;
    assert_eq!(data_keys(&world).await, 1);
    close(&world).ask(&world.name(), &builders::by_admin()).await.unwrap();
    approved(&world).await;
    world.drain().await;
    let leaving = RequestInstance {
        policies: &world.store,
        instances: &world.store,
        ids: &world.ids,
        clock: &world.clock,
        settings: world.settings(),
    };
    let organisation = builders::an_organisation("acme");
    let refused = leaving
        .run(&organisation, &parsed("acme-new"), &parsed("jira"), &builders::by_admin())
        .await
        .unwrap_err();
    assert!(matches!(refused, RequestError::NotNow { .. }), "{refused}");
    world.clock.advance(SignedDuration::from_hours(24 * 30 - 1));
    deadlines(&world).await;
    world.drain().await;
    assert!(world.asks_for_key().await.is_ok(), "until the last hour");
    world.clock.advance(SignedDuration::from_hours(1));
    deadlines(&world).await;
    assert!(world.asks_for_key().await.is_err(), "not a second longer");
    for row in world.store.outbox() {
        world.deliver().run(&row).await.unwrap();
    }
    let effects = world.store.take_published_effects();
    let erase =
        effects.iter().find(|row| row.effect == claviger_domain::effect::Effect::EraseDataKeys).unwrap();
    world.erase().run(erase).await.unwrap();
    // Whoever saw the fence open may still be about to store a key: nothing is deleted before they are done.
    let waits = world.store.take_queued_effects();
    assert_eq!((waits.len(), waits[0].1, data_keys(&world).await), (1, GRACE, 1));
    world.clock.advance(GRACE);
    world.erase().run(erase).await.unwrap();
    erases(&world).await;
    assert_eq!(data_keys(&world).await, 0);
    let policy = world.policy().await;
    assert!(matches!(policy.lifecycle, Lifecycle::Closed { .. }));
    let statement = close(&world).statement(&world.name()).await.unwrap();
    assert_eq!((statement.data_keys, statement.instances), (1, 1));
    assert!(
        statement.advice.iter().any(|line| line.contains("schedule-key-deletion")),
        "{:?}",
        statement.advice
    );
    assert_eq!(statement.audit, policy.audit);
    // Its keys are free, and nobody watches them.
    world.later(60);
    world.keys.forget_calls();
    world.sweep().await.unwrap();
    assert!(world.keys.calls().is_empty());
    assert!(world.store.organisations_of_account(&parsed("222222222222")).await.unwrap().is_empty());
}

#[tokio::test]
async fn e11_an_erasure_that_is_broken_off_and_doubled_at_every_page_counts_what_there_was() {
    let world = World::with_acme().await;
    close(&world).ask(&world.name(), &builders::by_admin()).await.unwrap();
    approved(&world).await;
    world.clock.advance(SignedDuration::from_hours(24 * 30));
    deadlines(&world).await;
    world.clock.advance(GRACE);
    let outbox = world.store.outbox();
    let erase =
        outbox.iter().find(|row| row.effect == claviger_domain::effect::Effect::EraseDataKeys).unwrap();
    // Three deliveries of the root: three chains of pages that overtake each other.
    for _ in 0..3 {
        world.erase().run(erase).await.unwrap();
    }
    erases(&world).await;
    assert_eq!(data_keys(&world).await, 0);
    let statement = close(&world).statement(&world.name()).await.unwrap();
    assert_eq!((statement.data_keys, statement.instances), (1, 1));
    let facts = world.store.all_facts(&world.name());
    assert_eq!(facts.iter().filter(|fact| fact.slug == "data-keys-erased").count(), 1);
}

#[tokio::test]
async fn e11_an_erasure_order_of_an_organisation_that_does_not_leave_deletes_nothing() {
    let world = World::with_acme().await;
    close(&world).ask(&world.name(), &builders::by_admin()).await.unwrap();
    approved(&world).await;
    let policy = world.policy().await;
    let forged = claviger_domain::effect::OutboxRow {
        id: claviger_domain::ids::EffectId::from_uuid(uuid::Uuid::nil()),
        organisation: world.name(),
        policy: policy.id,
        epoch: policy.fence.epoch,
        effect: claviger_domain::effect::Effect::EraseDataKeys,
        correlation: crate::world::correlation(),
        created_at: world.now(),
    };
    world.clock.advance(SignedDuration::from_hours(24 * 29));
    world.erase().run(&forged).await.unwrap();
    assert!(world.store.take_queued_erasures().is_empty() && world.store.take_queued_effects().is_empty());
    assert_eq!(data_keys(&world).await, 1);
    close(&world).cancel(&world.name(), &builders::by_admin()).await.unwrap();
    world.clock.advance(SignedDuration::from_hours(24 * 29));
    deadlines(&world).await;
    world.drain().await;
    assert!(world.policy().await.fence.is_open());
    assert!(close(&world).statement(&world.name()).await.is_err());
}

#[tokio::test]
async fn e11_an_app_that_was_approved_before_its_organisation_leaves_is_made_only_if_it_stays() {
    let world = World::with_acme().await;
    let id = crate::newer_data_keys::approved(&world).await;
    close(&world).ask(&world.name(), &builders::by_admin()).await.unwrap();
    let waits = world.provision(id).await;
    assert!(matches!(waits, Err(WorkError::NotNow { reason }) if reason.contains("closing")), "{waits:?}");
    assert!(world.store.data_keys(id).await.unwrap().is_empty());
    close(&world).cancel(&world.name(), &builders::by_admin()).await.unwrap();
    world.provision(id).await.unwrap();
    assert_eq!(world.store.data_keys(id).await.unwrap().len(), 1);
}

#[tokio::test]
async fn e11_nothing_is_made_for_an_organisation_that_left_however_often_the_message_comes() {
    let world = World::with_acme().await;
    let id = crate::newer_data_keys::approved(&world).await;
    let mut policy = world.policy().await;
    policy.lifecycle = Lifecycle::Closed { at: world.now() };
    world.store.seed_policy(policy);
    world.provision(id).await.unwrap();
    assert!(world.store.data_keys(id).await.unwrap().is_empty());
}
