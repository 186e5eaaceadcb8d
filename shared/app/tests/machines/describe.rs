//! Descriptions of keys, beside their probes (spec K2, K4).

use claviger_app::check_enrolment::CheckEnrolment;
use claviger_app::describe_keys::DescribeKeys;
use claviger_app::messages::ProbeMessage;
use claviger_app::ports::{DataKeyRegistry, Wrap, WrappedDataKey};
use claviger_app::show_policy::ShowPolicy;
use claviger_domain::ids::DataKeyId;
use claviger_domain::observation::{NoAnswerKind, Observation, RefusalKind};
use claviger_domain::outlook::{Loophole, RunsOut};
use claviger_domain::values::KeyArn;
use claviger_testkit::{SequentialIds, a_description, builders};

use crate::world::{World, correlation};

fn describe(world: &World) -> DescribeKeys<'_> {
    DescribeKeys {
        policies: &world.store,
        watch: &world.store,
        instances: &world.store,
        registry: &world.store,
        keys: &world.keys,
        queue: &world.store,
        check: CheckEnrolment { keys: &world.keys, roles: &world.keys, ids: &world.ids },
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

/// A whole day of the hourly schedule.
async fn a_day(world: &World) -> u64 {
    let mut news = 0;
    for _ in 0..24 {
        news += described(world).await;
        world.later(3600);
    }
    news
}

fn tried(world: &World) -> usize {
    world.keys.calls().iter().filter(|call| call.operation == "Encrypt").count()
}

#[tokio::test]
async fn e12_the_context_condition_is_tried_again_once_a_day_and_a_key_without_it_is_warned_of_and_cuts_nobody_off()
 {
    let world = World::with_acme().await;
    world.keys.forget_calls();
    a_day(&world).await;
    assert_eq!(tried(&world), 4, "per region one with the organisation's context, one with a random one");
    assert!(world.keys.calls().iter().all(|call| call.operation != "Encrypt" || call.dry_run));
    assert_eq!(a_day(&world).await, 0, "what stays as it is is not stored again");
    // The owner took the condition out of one key's policy.
    let key = world.key("eu-west-1");
    world.keys.bind_to_nobody(&key);
    assert_eq!(a_day(&world).await, 1);
    world.drain().await;
    let policy = world.policy().await;
    assert!(policy.fence.is_open() && !policy.is_degraded(), "it is no revocation");
    let ticket = world.tickets().await.into_iter().find(|ticket| Some(ticket.id) == policy.warning).unwrap();
    let body = &ticket.comments[0].body;
    assert!(body.contains("another organisation's encryption context"), "{body}");
    assert!(body.contains(&format!("put-key-policy --key-id {key}")), "{body}");
    let show = ShowPolicy {
        policies: &world.store,
        watch_list: &world.store,
        clock: &world.clock,
        settings: world.settings(),
    };
    let shown = show.view(&policy, None);
    assert_eq!(shown.keys[1].loopholes[0].what, Loophole::ContextCondition);
    assert!(shown.keys[0].loopholes.is_empty());
    // Of a key that refuses everybody, a refusal says nothing: what is known stays.
    world.keys.answer_next(&key, [Observation::NoAnswer(NoAnswerKind::Throttled)]);
    assert_eq!(a_day(&world).await, 0);
    // And one that was not for the context closes nothing.
    world.keys.answer_next(&key, [Observation::Usable, Observation::Refused(RefusalKind::KeyDisabled)]);
    assert_eq!(a_day(&world).await, 0);
    world.keys.bind(&key, policy.organisation);
    assert_eq!(a_day(&world).await, 1);
    world.drain().await;
    assert!(world.tickets().await.iter().all(|ticket| ticket.resolved_at.is_some()));
    assert_eq!(world.policy().await.warning, None);
}

#[tokio::test]
async fn e12_behind_a_closed_fence_no_key_is_tried_again() {
    let world = World::with_acme().await;
    for region in ["eu-central-1", "eu-west-1"] {
        world.keys.answer(&world.key(region), Observation::Refused(RefusalKind::KeyDisabled));
    }
    world.sweep().await.unwrap();
    assert!(!world.policy().await.fence.is_open());
    world.keys.forget_calls();
    a_day(&world).await;
    assert_eq!(tried(&world), 0);
}

#[tokio::test]
async fn e12_byok_a_role_that_lets_in_without_the_external_id_is_found_within_a_day_and_warned_of() {
    let world = World::with_byok_acme().await;
    a_day(&world).await;
    assert_eq!(a_day(&world).await, 0);
    let asked = world.keys.assumed();
    assert!(asked.iter().any(|one| !one.with_external_id && !one.let_in), "{asked:?}");
    // The owner lets the role be assumed without it.
    world.keys.create_role(&world.role(), None);
    assert_eq!(a_day(&world).await, 1);
    world.drain().await;
    let policy = world.policy().await;
    assert!(policy.fence.is_open());
    let ticket = world.tickets().await.into_iter().find(|ticket| Some(ticket.id) == policy.warning).unwrap();
    assert!(ticket.comments[0].body.contains("update-assume-role-policy"), "{ticket:?}");
    // A role that nobody can assume any more says nothing about its external id.
    world.keys.role_answers(&world.role(), Observation::Refused(RefusalKind::RoleDenied));
    assert_eq!(a_day(&world).await, 0);
    assert!(world.policy().await.warning.is_some());
    let organisation = claviger_testkit::builders::an_organisation("acme");
    world.keys.create_role(&world.role(), Some(&organisation.external_id));
    assert_eq!(a_day(&world).await, 1);
    assert_eq!(world.policy().await.warning, None);
}

#[tokio::test]
async fn k2_the_share_of_data_keys_under_old_material_is_shown_after_a_rotation() {
    let world = World::with_acme().await;
    let with_material = |material: &str| {
        let mut description = a_description();
        description.material = Some(material.to_owned());
        Ok(description)
    };
    let key = world.key("eu-west-1");
    world.keys.describe_as(&key, with_material("m1"));
    described(&world).await;
    world.later(3600);
    world.keys.describe_as(&key, with_material("m2"));
    described(&world).await;
    let shown = async || {
        let show = ShowPolicy {
            policies: &world.store,
            watch_list: &world.store,
            clock: &world.clock,
            settings: world.settings(),
        };
        show.view(&world.policy().await, None).keys[1].rotation.clone().unwrap()
    };
    assert!(shown().await.last_seen_at.is_some() && shown().await.old_material.is_none(), "not counted yet");
    world.later(3600);
    // One that is made since is under new material.
    let instance = world.instances().await.remove(0);
    let known = world.store.data_keys(instance.id).await.unwrap().remove(0);
    let wrap = |arn: &KeyArn| Wrap::new(arn, b"sealed", world.now());
    let wraps =
        ["eu-central-1", "eu-west-1"].map(|region| (builders::parsed(region), wrap(&world.key(region))));
    let id = DataKeyId::from_uuid(SequentialIds::uuid(4711));
    let version = known.version + 1;
    let newer = WrappedDataKey { id, version, created_at: world.now(), wraps: wraps.into(), ..known };
    world.store.add_data_key(&newer).await.unwrap();
    assert_eq!(described(&world).await, 1);
    let share = shown().await.old_material.unwrap();
    assert_eq!((share.data_keys, share.of, share.counted_at), (1, 2, world.now()));
    assert!((share.share - 0.5).abs() < f64::EPSILON);
    world.later(3600);
    assert_eq!(described(&world).await, 0, "it is not counted every hour");
    let frankfurt = world.policy().await.keys[world.key("eu-central-1").region()].outlook.clone().unwrap();
    assert_eq!(frankfurt.described.share, None, "a key that did not rotate is not counted");
}
