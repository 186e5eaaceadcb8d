//! Descriptions of keys, beside their probes (spec K2, K4).

use claviger_app::describe_keys::DescribeKeys;
use claviger_app::messages::ProbeMessage;
use claviger_app::show_policy::ShowPolicy;
use claviger_domain::observation::{NoAnswerKind, Observation, RefusalKind};
use claviger_domain::outlook::RunsOut;
use claviger_testkit::a_description;

use crate::world::{World, correlation};

fn describe(world: &World) -> DescribeKeys<'_> {
    DescribeKeys {
        policies: &world.store,
        watch: &world.store,
        keys: &world.keys,
        queue: &world.store,
        ids: &world.ids,
        clock: &world.clock,
        settings: world.settings(),
    }
}

async fn described(world: &World) -> u64 {
    describe(world).shard(world.policy().await.shard).await.unwrap()
}

#[tokio::test]
async fn k4_every_shard_is_described_within_the_hour() {
    let world = World::with_acme().await;
    let planned = describe(&world).plan().await.unwrap();
    assert_eq!(planned, usize::from(world.settings().shards));
    let queued = world.store.take_queued_probes();
    assert_eq!(queued.len(), planned);
    assert!(queued.iter().all(|(_, wait)| wait.as_secs() < 15 * 60), "as long as a queue lets it wait");
}

#[tokio::test]
async fn k4_what_kms_foretells_is_stored_when_it_changes_shown_with_its_countdown_and_touches_no_health() {
    let world = World::with_acme().await;
    assert_eq!(described(&world).await, 1, "the first description");
    assert_eq!(described(&world).await, 0);
    let key = world.key("eu-west-1");
    let expires: jiff::Timestamp = "2026-12-24T00:00:00Z".parse().unwrap();
    let mut description = a_description();
    description.origin = "EXTERNAL".to_owned();
    description.material_expires = Some(expires);
    world.keys.describe_as(&key, Ok(description));
    assert_eq!(described(&world).await, 1);
    assert_eq!(described(&world).await, 0);
    world.drain().await;
    let policy = world.policy().await;
    assert!(policy.fence.is_open() && !policy.is_degraded());
    assert_eq!(world.tickets().await.len(), 1);
    let show = ShowPolicy {
        policies: &world.store,
        watch_list: &world.store,
        clock: &world.clock,
        settings: world.settings(),
    };
    let shown = show.view(&policy, None);
    let [countdown] = &shown.keys[1].countdowns[..] else { panic!("{:?}", shown.keys[1]) };
    assert_eq!((countdown.what, countdown.at), (RunsOut::MaterialExpiry, expires));
    assert_eq!(countdown.remaining_seconds, expires.duration_since(world.now()).as_secs());
    assert_eq!(
        shown.keys[1].rotation.as_ref().unwrap().enabled,
        Some(false),
        "imported material is not renewed"
    );
    assert_eq!(shown.keys[0].rotation.as_ref().unwrap().enabled, Some(true));
    world.keys.describe_as(&key, Err(Observation::NoAnswer(NoAnswerKind::Throttled)));
    assert_eq!(described(&world).await, 0, "silence takes nothing back");
    world.keys.describe_as(&key, Ok(a_description()));
    assert_eq!(described(&world).await, 1);
    world.drain().await;
    assert!(world.tickets().await.iter().all(|ticket| ticket.resolved_at.is_some()));
}

#[tokio::test]
async fn k4_a_key_that_is_seen_to_wait_for_its_deletion_is_described_at_once() {
    let world = World::with_acme().await;
    let key = world.key("eu-west-1");
    world.keys.answer(&key, Observation::Refused(RefusalKind::KeyPendingDeletion));
    let mut description = a_description();
    description.state = "PendingDeletion".to_owned();
    description.deletion_date = Some("2026-12-24T00:00:00Z".parse().unwrap());
    world.keys.describe_as(&key, Ok(description));
    world.sweep().await.unwrap();
    let queued = world.store.take_queued_probes();
    let asked = |(message, _): &(ProbeMessage, _)| matches!(message, ProbeMessage::DescribeKeys { .. });
    assert_eq!(queued.iter().filter(|one| asked(one)).count(), 1, "{queued:?}");
    assert!(describe(&world).of_organisation(&world.name(), correlation()).await.unwrap());
    let outlook = world.policy().await.keys[key.region()].outlook.clone().unwrap();
    assert_eq!(outlook.described.countdowns()[0].what, RunsOut::Deletion);
    // Nothing more is asked while it stays so.
    world.later(60);
    world.sweep().await.unwrap();
    assert!(!world.store.take_queued_probes().iter().any(asked));
}
