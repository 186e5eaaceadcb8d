//! What an enrolled organisation is told of the vendor's customer records (spec E1, E3).

use claviger_app::ports::Organisations;
use claviger_app::put_organisation::{Feed, PutOrganisation};
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
