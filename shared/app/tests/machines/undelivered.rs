//! What neither a rule of the bus nor an invocation could finish.

use async_trait::async_trait;
use claviger_app::messages::AppOrder;
use claviger_app::ports::{Bus, CallError};
use claviger_app::see_to_undelivered::{SeeToUndelivered, SeenTo};
use claviger_domain::effect::{Effect, OutboxRow};
use serde_json::json;

use crate::world::{DISABLED, World};

fn see_to(world: &World) -> SeeToUndelivered<'_> {
    SeeToUndelivered { undelivered: &world.store, bus: &world.store }
}

/// Acme is cut off, and the rule cannot put the order into its queue.
async fn undelivered_order(world: &World) {
    world.keys_answer(DISABLED);
    world.sweep().await.unwrap();
    let waiting = world.store.outbox();
    let is_order = |effect: &Effect| matches!(effect, Effect::SuspendInstances { .. });
    let row = waiting.iter().find(|row| is_order(&row.effect)).unwrap();
    let event = json!({
        "version": "0", "id": "6d2ee3f0-2d5a-4a3e-8f0d-0c7d2f9d1a12", "source": "claviger",
        "detail-type": "SuspensionOrdered", "account": "111111111111", "time": "2026-11-23T09:00:00Z",
        "region": "eu-central-1", "resources": [], "detail": row,
    });
    world.store.set_aside(event.to_string());
}

#[tokio::test]
async fn r9_an_order_that_came_to_no_queue_is_published_again_and_applied_once() {
    let world = World::with_acme().await;
    undelivered_order(&world).await;
    world.store.take_published_effects();
    assert_eq!(see_to(&world).run().await.unwrap(), SeenTo { published: 1, ..SeenTo::default() });
    let published = world.store.take_published_effects();
    assert!(matches!(published[0].effect, Effect::SuspendInstances { .. }));
    assert!(world.store.still_undelivered().is_empty());
    assert_eq!(see_to(&world).run().await.unwrap(), SeenTo::default());
}

#[tokio::test]
async fn r9_an_order_that_cannot_be_published_stays_for_the_next_run() {
    let world = World::with_acme().await;
    undelivered_order(&world).await;
    let run = SeeToUndelivered { undelivered: &world.store, bus: &NoBus };
    assert_eq!(run.run().await.unwrap(), SeenTo { left: 1, ..SeenTo::default() });
    assert_eq!(world.store.still_undelivered().len(), 1);
    assert_eq!(see_to(&world).run().await.unwrap().published, 1);
}

#[tokio::test]
async fn r9_what_others_made_up_for_is_dropped_and_what_nobody_knows_stays() {
    let world = World::with_acme().await;
    let hint = include_str!("../../../../events/key-events/key-disabled.json");
    let role = include_str!("../../../../events/key-events/role-deleted.json");
    let ticks = ["tick", "sweep", "redrive", "describe"].map(|kind| json!({ "kind": kind }).to_string());
    let batch = json!({
        "requestContext": { "condition": "RetryAttemptsExhausted" },
        "DDBStreamBatchInfo": { "shardId": "shardId-1", "batchSize": 3 },
    });
    let made_up_for = [hint.to_owned(), role.to_owned(), batch.to_string()].into_iter().chain(ticks);
    let unknown = [
        "no JSON".to_owned(),
        "{}".to_owned(),
        json!({ "source": "claviger", "detail": { "not": "an effect" } }).to_string(),
        json!({ "source": "somebody", "kind": "tick" }).to_string(),
    ];
    for body in made_up_for.chain(unknown.clone()) {
        world.store.set_aside(body);
    }
    let seen_to = see_to(&world).run().await.unwrap();
    assert_eq!(seen_to, SeenTo { published: 0, dropped: 7, left: 4 });
    assert_eq!(world.store.still_undelivered(), unknown);
}

/// A bus that does not answer.
struct NoBus;

fn no_answer() -> CallError {
    CallError { what: "the event bus", reason: "test".to_owned() }
}

#[async_trait]
impl Bus for NoBus {
    async fn publish_effect(&self, _: &OutboxRow) -> Result<(), CallError> {
        Err(no_answer())
    }

    async fn publish_order(&self, _: &AppOrder) -> Result<(), CallError> {
        Err(no_answer())
    }
}
