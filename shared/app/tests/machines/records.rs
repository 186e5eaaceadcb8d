//! What an enrolled organisation is told of the vendor's customer records (spec E1, E3).

use claviger_app::error::WorkError;
use claviger_app::ports::{DataKeyRegistry, Instances, Organisations};
use claviger_app::put_organisation::{Feed, PutOrganisation};
use claviger_domain::effect::Effect;
use claviger_domain::event::InstanceEvent;
use claviger_domain::ids::InstanceId;
use claviger_domain::policy::Lifecycle;
use claviger_domain::ticket::TicketStatus;
use claviger_testkit::builders;
use serde_json::{Value, json};

use crate::world::World;

async fn fed(world: &World, plans: Value, admins: Value) {
    let body = json!({ "plans": plans, "government": false, "admins": admins, "auditors": [] });
    let put = PutOrganisation {
        organisations: &world.store,
        policies: &world.store,
        instances: &world.store,
        ids: &world.ids,
        clock: &world.clock,
        settings: world.settings(),
    };
    let feed = Feed::parse(&body, &world.settings().catalogue).unwrap();
    for _ in 0..2 {
        put.run(&world.name(), feed.clone(), &builders::by_claviger()).await.unwrap();
    }
    world.drain().await;
}

async fn with_records() -> World {
    let world = World::with_acme().await;
    world.store.save_organisation(&builders::an_organisation("acme")).await.unwrap();
    fed(&world, json!({ "jira": "enterprise", "confluence": "enterprise" }), json!(["admin"])).await;
    world
}

#[tokio::test]
async fn e1_a_plan_that_ends_while_enrolled_is_told_and_takes_nothing_away() {
    let world = with_records().await;
    assert!(world.tickets().await.is_empty());
    // Confluence is not encrypted anywhere: its plan is nobody's concern here.
    fed(&world, json!({ "jira": "free" }), json!(["admin"])).await;
    let tickets = world.tickets().await;
    assert_eq!((tickets.len(), tickets[0].comments.len()), (1, 1), "once, however often it is fed");
    let told = &tickets[0].comments[0].body;
    assert!(
        told.contains("`jira`") && told.contains("stays encrypted") && !told.contains("confluence"),
        "{told}"
    );
    assert!(matches!(world.policy().await.lifecycle, Lifecycle::Active { .. }));
    assert!(world.asks_for_key().await.is_ok());
    fed(&world, json!({ "jira": "enterprise-trial" }), json!(["admin"])).await;
    assert_eq!(world.tickets().await[0].status, TicketStatus::Resolved);
    assert_eq!(world.policy().await.records, None);
}

#[tokio::test]
async fn e3_the_last_admin_who_leaves_is_told_and_the_keys_cut_off_as_ever() {
    let world = with_records().await;
    fed(&world, json!({ "jira": "enterprise" }), json!([])).await;
    let tickets = world.tickets().await;
    assert!(tickets[0].comments[0].body.contains("Nobody is registered as an admin"), "{tickets:?}");
    fed(&world, json!({ "jira": "free" }), json!([])).await;
    assert_eq!(world.tickets().await[0].comments.len(), 2, "one ticket for what is amiss in the records");
    world.cut_off().await;
    fed(&world, json!({ "jira": "enterprise" }), json!(["eve"])).await;
    assert_eq!(world.policy().await.records, None);
    assert!(!world.policy().await.fence.is_open(), "records open no fence");
}

/// An app that support has approved, and that waits for its data key.
async fn approved(world: &World, app: &str) -> InstanceId {
    let asked = builders::an_instance_decision(&world.policy().await, "acme-eng", app, world.now());
    world.store.commit_instance(None, &asked).await.unwrap();
    let (event, support) = (InstanceEvent::InstanceApproved, builders::by_support());
    let approved = builders::instance_decided(&asked.next, &event, &support, world.now());
    world.store.commit_instance(Some(&asked.next), &approved).await.unwrap();
    // Its message is carried by hand.
    for row in world.store.outbox() {
        world.deliver().run(&row).await.unwrap();
    }
    world.store.take_published_effects();
    asked.next.id
}

#[tokio::test]
async fn e1_what_was_approved_is_not_encrypted_on_a_plan_that_ended_meanwhile_and_waits_until_it_is_back() {
    let world = with_records().await;
    let id = approved(&world, "confluence").await;
    fed(&world, json!({ "jira": "enterprise", "confluence": "free" }), json!(["admin"])).await;
    let told = &world.tickets().await[0].comments[0].body;
    assert!(told.contains("`confluence`") && told.contains("one that was approved waits"), "{told}");
    for _ in 0..2 {
        let waits = world.provision(id).await;
        assert!(matches!(waits, Err(WorkError::NotNow { .. })), "{waits:?}");
    }
    assert!(world.store.data_keys(id).await.unwrap().is_empty());
    fed(&world, json!({ "jira": "free", "confluence": "enterprise" }), json!(["admin"])).await;
    world.provision(id).await.unwrap();
    assert_eq!(world.store.instance(id).await.unwrap().unwrap().status.slug(), "active");
}

#[tokio::test]
async fn e2_an_enrolment_that_was_approved_is_not_verified_while_the_records_do_not_allow_it() {
    let world = World::byok_approved().await;
    let row = world.store.outbox().into_iter().find(|row| row.effect == Effect::VerifyPolicy).unwrap();
    let acme = builders::an_organisation("acme");
    let mut government = acme.clone();
    government.government = true;
    let mut free = acme.clone();
    free.plans = [(builders::parsed("jira"), "free".to_owned())].into();
    for not_allowed in [government, free] {
        world.store.save_organisation(&not_allowed).await.unwrap();
        let waits = world.work(&row).await;
        assert!(matches!(waits, Err(WorkError::NotNow { .. })), "{waits:?}");
        assert_eq!(world.policy().await.lifecycle.slug(), "verifying", "a record can be wrong for a day");
        assert_eq!(world.keys.made_count(), 0);
    }
    world.store.save_organisation(&acme).await.unwrap();
    world.work(&row).await.unwrap();
    assert_eq!(world.policy().await.lifecycle.slug(), "active");
}
