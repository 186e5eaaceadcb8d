//! From a lost key to cut off, told and restored.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use claviger_app::messages::{FanOut, ProbeMessage};
use claviger_app::ports::{
    Beat, CallError, ControlProbes, CustomerKeys, DataKeyRegistry, Instances, KeyRef, Policies, StoreError,
    WatchList,
};
use claviger_app::report_probes::Reason;
use claviger_app::settings::Settings;
use claviger_app::show_policy::ShowPolicy;
use claviger_app::sweep::{PlanSweeps, Swept};
use claviger_domain::catalogue::Mode;
use claviger_domain::effect::{Effect, Order};
use claviger_domain::fence::Epoch;
use claviger_domain::instance::InstanceStatus;
use claviger_domain::observation::{NoAnswerKind, Observation, RefusalKind};
use claviger_domain::policy::{PURPOSE_CANARY, encryption_context};
use claviger_domain::ticket::TicketStatus;
use claviger_domain::values::{Region, ShardId};
use claviger_testkit::builders;
use jiff::{SignedDuration, Timestamp};
use rstest::rstest;

use crate::world::{DENIED, DISABLED, USABLE, World, correlation};

#[tokio::test]
async fn a7_a_conflict_that_stored_no_data_key_activates_no_instance() {
    let world = World::with_acme().await;
    let policy = world.policy().await;
    let asked = builders::an_instance_decision(&policy, "acme-eng", "confluence", world.now());
    world.store.commit_instance(None, &asked).await.unwrap();
    let event = claviger_domain::event::InstanceEvent::InstanceApproved;
    let approved = builders::instance_decided(&asked.next, &event, &builders::by_support(), world.now());
    world.store.commit_instance(Some(&asked.next), &approved).await.unwrap();
    // As often as one delivery tries.
    world.store.fail_changes([const { StoreError::Conflict }; 5]);
    world.provision(asked.next.id).await.unwrap_err();
    let instance = || async { world.store.instance(asked.next.id).await.unwrap().unwrap() };
    assert_eq!(instance().await.status.slug(), "provisioning", "it is tried again");
    world.provision(asked.next.id).await.unwrap();
    assert_eq!(instance().await.status.slug(), "active");
    assert_eq!(world.store.data_keys(asked.next.id).await.unwrap().len(), 1);
}

#[tokio::test]
async fn e12_an_approved_policy_and_instance_are_provisioned_with_canaries_and_one_data_key() {
    let world = World::with_acme().await;
    let policy = world.policy().await;
    assert_eq!(policy.lifecycle.slug(), "active");
    assert!(policy.keys.values().all(|key| key.canary.is_some()));
    assert_eq!(world.instances().await[0].status.slug(), "active");
    let generated = world.keys.calls().iter().filter(|call| call.operation == "GenerateDataKey").count();
    assert_eq!(generated, 1, "one data key is made once and wrapped for the other region");
}

#[tokio::test]
async fn r2_a_sweep_alone_finds_a_revocation_whose_events_were_all_lost() {
    let world = World::with_acme().await;
    world.keys_answer(DISABLED);
    world.sweep().await.unwrap();
    let policy = world.policy().await;
    assert_eq!(policy.lifecycle.slug(), "suspended");
    let item = world.store.fence(policy.id).expect("the fence item is written with the decision");
    assert!(!item.fence.is_open());
    world.drain().await;
    assert!(matches!(world.instances().await[0].status, InstanceStatus::Suspended { .. }));
    let tickets = world.tickets().await;
    assert_eq!(tickets[0].title, "CMK revocation started for AWS account 222222222222");
    assert!(tickets[0].comments.iter().any(|comment| comment.body.contains("told to stop: 1")));
}

#[tokio::test]
async fn r6_a_definite_refusal_costs_two_decrypts_per_region_and_no_other_kms_call() {
    let world = World::with_acme().await;
    world.keys_answer(DISABLED);
    world.keys.forget_calls();
    world.sweep().await.unwrap();
    let calls = world.keys.calls();
    assert_eq!(calls.len(), 4);
    assert!(calls.iter().all(|call| call.operation == "Decrypt"));
    assert_eq!(world.keys.control_count(), 0);
}

/// Control probes that take their time, so often.
struct Slow<'a> {
    world: &'a World,
    seconds: i64,
    left: std::sync::atomic::AtomicU32,
}

#[async_trait]
impl ControlProbes for Slow<'_> {
    async fn control_is_healthy(&self, region: &Region, mode: Mode, template: &str) -> bool {
        let order = std::sync::atomic::Ordering::SeqCst;
        if self.left.fetch_update(order, order, |left| left.checked_sub(1)).is_ok() {
            self.world.later(self.seconds);
        }
        self.world.keys.control_is_healthy(region, mode, template).await
    }
}

#[rstest]
#[case::the_first_is_slow(1, 3, true)]
#[case::every_one_is_slow(u32::MAX, 3, false)]
#[case::none_is_slow(0, 2, true)]
#[tokio::test]
async fn r5_a_round_that_took_too_long_is_confirmed_by_the_two_after_it(
    #[case] slow: u32,
    #[case] rounds: usize,
    #[case] closes: bool,
) {
    let world = World::with_acme().await;
    world.keys_answer(DENIED);
    world.sweep().await.unwrap();
    world.later(60);
    // Two regions ask for a control probe each.
    let left = slow.saturating_mul(2).into();
    let controls = Slow { world: &world, seconds: 4, left };
    let mut report = world.report();
    report.probe.controls = &controls;
    let policy = world.policy().await;
    let seen = report.of_policy(&policy, &Reason::default(), correlation()).await.unwrap();
    assert_eq!(seen.rounds.len(), rounds);
    assert_eq!(!world.policy().await.fence.is_open(), closes);
}

#[rstest]
#[case(NoAnswerKind::Throttled)]
#[case(NoAnswerKind::Unreachable)]
#[case(NoAnswerKind::OurFault)]
#[tokio::test]
async fn i2_a_day_without_answers_suspends_nobody_and_lists_the_policy_as_unproven(
    #[case] kind: NoAnswerKind,
) {
    let world = World::with_acme().await;
    world.keys_answer(Observation::NoAnswer(kind));
    for _ in 0..24 * 60 {
        assert_eq!(world.sweep().await.unwrap(), Swept::Done { policies: 1, unproven: 1, left: 0 });
        world.later(60);
    }
    let policy = world.policy().await;
    assert!(policy.fence.is_open());
    let beat = world.store.last_beat(policy.shard).await.unwrap().unwrap();
    assert_eq!(beat.unproven.keys().collect::<Vec<_>>(), [&policy.id]);
    let day = SignedDuration::from_hours(24);
    let oldest = world.now().duration_since(beat.oldest_proof());
    assert!(oldest >= day && oldest < day + SignedDuration::from_mins(2), "{oldest:?}");
    world.keys_answer(USABLE);
    assert_eq!(world.sweep().await.unwrap(), Swept::Done { policies: 1, unproven: 0, left: 0 });
    assert!(world.tickets().await.is_empty());
}

#[tokio::test]
async fn r4_access_denied_suspends_when_it_persists_and_the_controls_are_healthy() {
    let world = World::with_acme().await;
    world.keys_answer(DENIED);
    world.sweep().await.unwrap();
    assert!(world.policy().await.fence.is_open());
    world.later(30);
    world.sweep().await.unwrap();
    assert!(world.policy().await.fence.is_open());
    world.later(30);
    world.sweep().await.unwrap();
    assert!(!world.policy().await.fence.is_open());
}

#[tokio::test]
async fn r6_an_ambiguous_refusal_is_probed_once_more_at_the_moment_it_becomes_due() {
    let world = World::with_acme().await;
    world.store.take_queued_probes();
    world.keys_answer(DENIED);
    for _ in 0..3 {
        world.sweep().await.unwrap();
        world.later(7);
    }
    let queued = world.store.take_queued_probes();
    let [(ProbeMessage::FollowUp { due_at, .. }, delay)] = &queued[..] else {
        panic!("one for the start of the refusal, whatever the number of probes: {queued:?}");
    };
    assert_eq!(*delay, world.settings().ambiguity);
    // Clocks differ: what comes early waits on.
    world.follow_up(*due_at).await.unwrap();
    let early = world.store.take_queued_probes();
    assert_eq!(early[0].1, SignedDuration::from_secs(60 - 21));
    assert!(world.policy().await.fence.is_open());
    world.later(60 - 21);
    world.follow_up(*due_at).await.unwrap();
    assert!(!world.policy().await.fence.is_open());
    assert!(world.store.take_queued_probes().is_empty());
}

#[tokio::test]
async fn r6_a_refusal_whose_follow_up_cannot_be_queued_does_not_start_its_clock() {
    let world = World::with_acme().await;
    world.store.take_queued_probes();
    world.keys_answer(DENIED);
    world.store.fail_calls([CallError { what: "the probe queue", reason: "test".to_owned() }]);
    assert_eq!(world.sweep().await.unwrap(), Swept::Done { policies: 1, unproven: 1, left: 0 });
    assert!(world.policy().await.keys.values().all(|key| key.health.slug() == "usable"));
    world.later(60);
    world.sweep().await.unwrap();
    assert_eq!(world.store.take_queued_probes().len(), 1);
}

#[tokio::test]
async fn r4_describe_key_turns_an_ambiguous_refusal_into_a_definite_one() {
    let world = World::with_acme().await;
    world.keys_answer(DENIED);
    for region in ["eu-central-1", "eu-west-1"] {
        let described = claviger_app::ports::KeyDescription {
            state: "PendingDeletion".to_owned(),
            ..claviger_testkit::a_description()
        };
        world.keys.describe_as(&world.key(region), Ok(described));
    }
    world.sweep().await.unwrap();
    assert!(!world.policy().await.fence.is_open());
}

#[tokio::test]
async fn r4_access_denied_while_the_controls_fail_suspends_nobody() {
    let world = World::with_acme().await;
    world.keys_answer(DENIED);
    world.keys.control(&builders::parsed("eu-west-1"), false);
    for _ in 0..100 {
        world.sweep().await.unwrap();
        world.later(60);
    }
    assert!(world.policy().await.fence.is_open());
}

/// Six customers, each with one key, swept in one shard.
async fn six_customers(world: &World) -> Vec<claviger_domain::policy::EncryptionPolicy> {
    customers_in_shards(world, &[5; 6]).await
}

/// A customer a shard that is named, each with one key.
async fn customers_in_shards(
    world: &World,
    shards: &[u16],
) -> Vec<claviger_domain::policy::EncryptionPolicy> {
    let mut all = Vec::new();
    for (number, shard) in (1..).zip(shards) {
        let account = format!("{}", 700_000_000_000_u64 + number);
        let organisation = builders::an_organisation(&format!("customer-{number}-of-six"));
        let mut policy = builders::an_active_policy(
            &organisation,
            &builders::an_enrolment(&account, "germany"),
            world.now(),
        );
        policy.shard = ShardId(*shard);
        let whose = policy.clone();
        for key in policy.keys.values_mut() {
            world.keys.create(&key.arn);
            world.keys.bind(&key.arn, organisation.id);
            let context = encryption_context(
                policy.organisation,
                PURPOSE_CANARY,
                &policy.id.to_string(),
                &policy.context_tag,
            );
            let canary = world.keys.encrypt(KeyRef::of(&whose, &key.arn), b"canary", &context).await.unwrap();
            key.canary = Some(BASE64_STANDARD.encode(canary));
        }
        world.store.seed_policy(policy.clone());
        all.push(policy);
    }
    all
}

#[tokio::test]
async fn r4_many_customers_refused_at_once_delay_ambiguous_refusals_and_no_definite_one() {
    let world = World::with_acme().await;
    let all = six_customers(&world).await;
    let shard = claviger_domain::values::ShardId(5);
    world.later(1);
    let (disabled, denied) = all.split_first().unwrap();
    for policy in &all {
        let key = &policy.keys.values().next().unwrap().arn;
        world.keys.answer(key, if policy.id == disabled.id { DISABLED } else { DENIED });
    }
    for _ in 0..10 {
        world.sweep_shard(shard).await.unwrap();
        world.later(60);
    }
    assert!(world.store.last_beat(shard).await.unwrap().unwrap().mass_failure);
    let closed = async |policy: &claviger_domain::policy::EncryptionPolicy| {
        let now = world.store.policy(&policy.organisation_name).await.unwrap().unwrap();
        !now.fence.is_open()
    };
    assert!(closed(disabled).await, "a definite refusal goes on");
    for policy in denied {
        assert!(!closed(policy).await, "an ambiguous one waits");
        // Nor does the probe that waited for it suspend anybody.
        world.follow_up_of(&policy.organisation_name, world.now()).await.unwrap();
        assert!(!closed(policy).await);
    }
    // All but one work again: what that one says counts after it persisted from now on.
    for policy in denied.iter().skip(1) {
        world.keys.answer(&policy.keys.values().next().unwrap().arn, USABLE);
    }
    world.sweep_shard(shard).await.unwrap();
    world.later(60);
    assert!(!world.store.last_beat(shard).await.unwrap().unwrap().mass_failure);
    world.sweep_shard(shard).await.unwrap();
    assert!(!closed(&denied[0]).await);
    world.later(60);
    world.sweep_shard(shard).await.unwrap();
    assert!(closed(&denied[0]).await);
    assert!(!closed(&denied[1]).await);
}

#[tokio::test]
async fn r4_a_mass_failure_is_seen_too_where_each_shard_has_few_customers() {
    let world = World::with_acme().await;
    let all = customers_in_shards(&world, &[1, 1, 2, 2, 3, 3]).await;
    world.later(1);
    for policy in &all {
        world.keys.answer(&policy.keys.values().next().unwrap().arn, DENIED);
    }
    let open = async |policy: &claviger_domain::policy::EncryptionPolicy| {
        world.store.policy(&policy.organisation_name).await.unwrap().unwrap().fence.is_open()
    };
    for _ in 0..5 {
        for shard in [1, 2, 3] {
            world.sweep_shard(ShardId(shard)).await.unwrap();
        }
        world.later(60);
        for policy in &all {
            world.follow_up_of(&policy.organisation_name, world.now()).await.unwrap();
            assert!(open(policy).await, "{} of six in three shards", policy.organisation_name);
        }
    }
    // Four of them work again: what the two others say counts after it persisted.
    for policy in &all[2..] {
        world.keys.answer(&policy.keys.values().next().unwrap().arn, USABLE);
    }
    for _ in 0..3 {
        for shard in [1, 2, 3] {
            world.sweep_shard(ShardId(shard)).await.unwrap();
        }
        world.later(60);
    }
    assert!(!open(&all[0]).await && !open(&all[1]).await);
    assert!(open(&all[2]).await);
}

#[tokio::test]
async fn r2_a_sweep_sees_a_second_revocation_though_its_row_is_from_before_the_restoration() {
    let world = World::with_acme().await;
    world.cut_off().await;
    let stale = world.policy().await;
    world.restore().await;
    assert!(world.policy().await.fence.is_open());
    world.later(1);
    world.keys_answer(DISABLED);
    let report = world.report();
    report.of_policy(&stale, &Reason::default(), correlation()).await.unwrap();
    assert!(!world.policy().await.fence.is_open());
}

/// When each shard is swept, in milliseconds from now, if ticks come at these times.
async fn sweeps_planned(world: &World, settings: &Settings, ticks: &[i64]) -> BTreeMap<ShardId, Vec<i64>> {
    let plan = PlanSweeps { queue: &world.store, watch: &world.store, clock: &world.clock, settings };
    world.store.take_queued_probes();
    let (began, mut sweeps) = (world.now(), BTreeMap::<ShardId, Vec<i64>>::new());
    let mut waiting: Vec<(Timestamp, ShardId)> = Vec::new();
    for tick in ticks {
        let now = began + SignedDuration::from_millis(*tick);
        // Until then the queue brings what is due.
        waiting.sort();
        for (at, shard) in waiting.extract_if(.., |(at, _)| *at <= now) {
            sweeps.entry(shard).or_default().push(at.duration_since(began).as_millis() as i64);
            let watched_until = at + settings.probe_phase + settings.watch_slack;
            let (unproven, mass_failure) = (BTreeMap::new(), false);
            let beat = Beat { swept_at: at, watched_until, unproven, mass_failure, refused: 0, open: 0 };
            world.store.beat(shard, &beat).await.unwrap();
        }
        world.clock.set(now);
        plan.run().await.unwrap();
        for (message, delay) in world.store.take_queued_probes() {
            let ProbeMessage::Sweep { shard, due_at } = message else { panic!("{message:?}") };
            assert_eq!(due_at, world.now() + delay);
            waiting.push((due_at, shard));
        }
    }
    sweeps
}

#[tokio::test]
async fn r2_every_shard_is_swept_once_a_phase_at_whatever_second_of_a_minute_the_ticks_come() {
    let world = World::with_acme().await;
    let settings = Settings { shards: 4, ..world.settings().clone() };
    // As late in its minute as a tick may be, as early, one that is lost, one that comes twice.
    let seconds = [0, 59, 119, 120, 181, 240, 359, 360, 360, 421, 539, 540, 600, 660];
    let sweeps = sweeps_planned(&world, &settings, &seconds.map(|second| second * 1000)).await;
    assert_eq!(sweeps.len(), 4);
    for (shard, sweeps) in &sweeps {
        assert_eq!(sweeps[0], 0, "a shard that nobody watched yet is swept at once");
        assert!(sweeps[1] <= 60_000, "{shard}: {sweeps:?}");
        let apart: Vec<i64> = sweeps[1..].windows(2).map(|two| two[1] - two[0]).collect();
        // 0: what a doubled tick planned twice.
        assert!(apart.iter().all(|apart| [0, 60_000].contains(apart)), "{shard}: {sweeps:?}");
        assert!(apart.iter().filter(|apart| **apart == 0).count() <= 2, "{shard}: {sweeps:?}");
        assert!(sweeps.last().unwrap() > &590_000, "{shard}: {sweeps:?}");
    }
    let second: BTreeSet<i64> = sweeps.values().map(|sweeps| sweeps[1] % 60_000).collect();
    assert_eq!(second.len(), 4, "not all shards at once");
}

#[tokio::test]
async fn r2_a_shard_that_counts_as_watched_no_longer_is_swept_with_the_next_tick() {
    let world = World::with_acme().await;
    let settings = Settings { shards: 1, ..world.settings().clone() };
    // Nobody ticks for ten minutes; what was planned before runs out.
    let sweeps = sweeps_planned(&world, &settings, &[0, 60_000, 660_000, 661_000]).await;
    let sweeps = &sweeps[&ShardId(0)];
    assert!(sweeps.contains(&660_000), "{sweeps:?}");
}

#[tokio::test]
async fn r2_a_tick_that_cannot_say_how_far_it_planned_leaves_no_gap() {
    let world = World::with_acme().await;
    let settings = Settings { shards: 1, ..world.settings().clone() };
    let plan =
        PlanSweeps { queue: &world.store, watch: &world.store, clock: &world.clock, settings: &settings };
    world.store.fail_changes([StoreError::Unavailable { reason: "test".to_owned() }]);
    let first = plan.run().await.unwrap().sweeps;
    assert_eq!(world.store.planned_until().await.unwrap(), None);
    let again = plan.run().await.unwrap().sweeps;
    assert_eq!(again, first);
    // A clock that was an hour ahead is not believed.
    world.store.plan_until(world.now() + SignedDuration::from_hours(1)).await.unwrap();
    assert_eq!(plan.run().await.unwrap().sweeps, first);
}

#[tokio::test]
async fn r2_a_sweep_that_came_twice_probes_once() {
    let world = World::with_acme().await;
    let (shard, due_at) = (world.policy().await.shard, world.now());
    world.clock.advance(SignedDuration::from_millis(40));
    assert!(matches!(world.sweep_due(shard, due_at).await.unwrap(), Swept::Done { .. }));
    assert_eq!(world.sweep_due(shard, due_at).await.unwrap(), Swept::Already);
}

#[tokio::test]
async fn r2_the_economy_interval_sweeps_a_shard_once_in_five_minutes() {
    let world = World::with_acme().await;
    let economy =
        Settings { probe_phase: SignedDuration::from_secs(300), shards: 1, ..world.settings().clone() };
    let ticks: Vec<i64> = (0..30).map(|minute| minute * 60_000).collect();
    let sweeps = sweeps_planned(&world, &economy, &ticks).await;
    let sweeps = &sweeps[&ShardId(0)];
    assert!(sweeps[1] <= 300_000, "{sweeps:?}");
    assert!(sweeps[1..].windows(2).all(|two| two[1] - two[0] == 300_000), "{sweeps:?}");
    assert!(sweeps.len() >= 6, "{sweeps:?}");
    assert_eq!(economy.cut_off_bound(), SignedDuration::from_secs(340));
}

#[tokio::test]
async fn i3_a_sweep_that_cannot_write_its_beat_leaves_the_shard_unwatched() {
    let world = World::with_acme().await;
    world.sweep().await.unwrap();
    let shard = world.policy().await.shard;
    let before = world.store.last_beat(shard).await.unwrap().unwrap();
    world.later(60);
    world.store.fail_changes([StoreError::Unavailable { reason: "test".to_owned() }]);
    world.sweep().await.unwrap_err();
    assert_eq!(world.store.last_beat(shard).await.unwrap().unwrap(), before);
}

#[tokio::test]
async fn i3_a_revocation_that_cannot_be_committed_leaves_the_policy_unproven() {
    let world = World::with_acme().await;
    world.keys_answer(DISABLED);
    world.store.fail_changes([StoreError::Unavailable { reason: "test".to_owned() }]);
    assert_eq!(world.sweep().await.unwrap(), Swept::Done { policies: 1, unproven: 1, left: 0 });
    world.later(60);
    world.sweep().await.unwrap();
    assert!(!world.policy().await.fence.is_open());
}

#[tokio::test]
async fn r9_a_hinted_probe_that_succeeds_is_repeated_because_kms_may_be_propagating() {
    let world = World::with_acme().await;
    world.store.take_queued_probes();
    world.hinted().await.unwrap();
    let queued = world.store.take_queued_probes();
    let [(ProbeMessage::Probe { attempt: 1, .. }, delay)] = &queued[..] else {
        panic!("{queued:?}");
    };
    assert_eq!(*delay, SignedDuration::from_secs(5));
    world.keys_answer(DISABLED);
    world.hinted().await.unwrap();
    assert!(world.store.take_queued_probes().is_empty(), "what is found needs no repetition");
    assert!(!world.policy().await.fence.is_open());
}

#[tokio::test]
async fn r9_a_suspension_that_arrives_after_the_restoration_stops_nobody() {
    let world = World::with_acme().await;
    world.cut_off().await;
    let policy = world.policy().await;
    let late = FanOut {
        organisation: world.name(),
        policy: policy.id,
        epoch: policy.fence.epoch,
        cursor: None,
        done: 0,
        correlation: correlation(),
    };
    world.restore().await;
    world.store.take_published_orders();
    world.carry().run(Order::Suspend, &late).await.unwrap();
    world.drain().await;
    assert_eq!(world.instances().await[0].status.slug(), "active");
    assert!(world.policy().await.fence.is_open());
    assert!(world.store.take_published_orders().is_empty(), "no app was told anything");
}

#[tokio::test]
async fn s4_a_restoration_opens_the_fence_tells_the_instances_and_resolves_the_ticket() {
    let world = World::with_acme().await;
    world.cut_off().await;
    world.restore().await;
    let policy = world.policy().await;
    assert_eq!(policy.fence.epoch, Epoch(2));
    assert_eq!(world.instances().await[0].epoch, Epoch(2));
    let ticket = &world.tickets().await[0];
    assert_eq!(ticket.status, TicketStatus::Resolved);
    let orders: Vec<_> = world.store.take_published_orders();
    let told: Vec<(&str, Epoch)> = orders.iter().map(|order| (order.order.as_str(), order.epoch)).collect();
    assert_eq!(told, [("suspend", Epoch(1)), ("restore", Epoch(2))]);
}

#[tokio::test]
async fn s6_a_key_that_is_lost_again_during_restoration_leaves_the_fence_closed() {
    let world = World::with_acme().await;
    world.cut_off().await;
    world.ask_for_restoration().await;
    world.keys.answer(&world.key("eu-west-1"), DISABLED);
    world.drain().await;
    let policy = world.policy().await;
    assert_eq!(policy.lifecycle.slug(), "suspended");
    assert!(!policy.fence.is_open());
    world.restore().await;
}

#[tokio::test]
async fn s2_a_restoration_waits_while_a_region_gives_no_answer() {
    let world = World::with_acme().await;
    world.cut_off().await;
    world.ask_for_restoration().await;
    world.keys.answer_next(&world.key("eu-west-1"), vec![Observation::NoAnswer(NoAnswerKind::Throttled); 4]);
    world.drain().await;
    assert!(world.policy().await.fence.is_open());
}

#[tokio::test]
async fn a7_an_instance_is_pinned_to_the_realm_and_its_data_key_is_wrapped_under_every_regional_key() {
    let world = World::with_acme().await;
    let policy = world.policy().await;
    let instance = &world.instances().await[0];
    assert_eq!(instance.realm.as_ref(), Some(&policy.realm));
    let made = claviger_app::ports::DataKeyRegistry::data_keys(&world.store, instance.id).await.unwrap();
    assert_eq!(made.len(), 1);
    for (region, key) in &policy.keys {
        assert_eq!(made[0].wraps[region].key, key.arn);
    }
    assert_eq!(made[0].wraps.len(), policy.keys.len());
}

#[tokio::test]
async fn k3_and_e9_every_use_of_a_key_bears_opaque_ids_the_purpose_and_the_label() {
    let world = World::with_acme().await;
    // An enrolment tries another organisation's context too, on purpose (e12).
    world.keys.forget_calls();
    world.asks_for_key().await.unwrap();
    world.sweep().await.unwrap();
    let (policy, instance) = (world.policy().await, world.instances().await[0].id.to_string());
    let uses: Vec<_> = world.keys.calls().into_iter().filter(|call| !call.context.is_empty()).collect();
    let purposes: std::collections::BTreeSet<&str> =
        uses.iter().map(|call| call.context["claviger:purpose"].as_str()).collect();
    assert_eq!(purposes.len(), 2, "canaries and data keys: {purposes:?}");
    for call in &uses {
        assert_eq!(call.context.len(), 4, "{call:?}");
        assert_eq!(call.context["claviger:organisation"], policy.organisation.to_string());
        assert_eq!(call.context["claviger:tag"], policy.context_tag.as_str());
        let subject = &call.context["claviger:instance"];
        assert!([&instance, &policy.id.to_string()].contains(&subject), "{call:?}");
        // Names of people and places are nobody's business in another account's log.
        assert!(call.context.values().all(|value| !value.contains("acme-eng")), "{call:?}");
    }
}

#[tokio::test]
async fn a7_no_data_key_is_made_while_a_realm_is_degraded() {
    let world = World::with_acme().await;
    world.keys.answer(&world.key("eu-west-1"), DISABLED);
    world.sweep().await.unwrap();
    let policy = world.policy().await;
    assert!(policy.is_degraded());
    let asked = builders::an_instance_decision(&policy, "acme-two", "confluence", world.now());
    world.store.commit_instance(None, &asked).await.unwrap();
    let event = claviger_domain::event::InstanceEvent::InstanceApproved;
    let approved = builders::instance_decided(&asked.next, &event, &builders::by_support(), world.now());
    world.store.commit_instance(Some(&asked.next), &approved).await.unwrap();
    world.provision(asked.next.id).await.unwrap_err();
    world.keys_answer(USABLE);
    world.later(60);
    world.sweep().await.unwrap();
    world.provision(asked.next.id).await.unwrap();
}

/// Ten thousand are in the benchmark, which checks the same.
#[rstest]
#[case::one(1)]
#[case::a_page(100)]
#[case::a_page_and_one(101)]
#[case::pages(250)]
#[tokio::test]
async fn r6_a_fan_out_reaches_every_instance_however_many_pages_there_are(#[case] instances: usize) {
    let world = World::with_acme().await;
    let policy = world.policy().await;
    for number in 1..instances {
        let site = format!("acme-{number}");
        world.store.seed_instance(builders::an_active_instance(&policy, &site, "jira", world.now()));
    }
    world.cut_off().await;
    let mut cursor = None;
    let mut suspended = 0;
    loop {
        let page = world.store.instances(&world.name(), cursor.as_deref(), 100).await.unwrap();
        suspended += page.items.iter().filter(|one| one.status.slug() == "suspended").count();
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(suspended, instances);
    let comments = &world.tickets().await[0].comments;
    let told = format!("told to stop: {instances}.");
    assert!(comments.iter().any(|comment| comment.body.contains(&told)), "{comments:?}");
}

#[tokio::test]
async fn i4_one_root_row_is_written_whatever_the_number_of_instances() {
    let world = World::with_acme().await;
    let policy = world.policy().await;
    for number in 0..50 {
        let site = format!("acme-{number}");
        world.store.seed_instance(builders::an_active_instance(&policy, &site, "jira", world.now()));
    }
    world.keys_answer(DISABLED);
    world.sweep().await.unwrap();
    let rows = world.store.outbox();
    assert_eq!(rows.len(), 2, "a ticket and one fan-out");
    assert!(rows.iter().any(|row| matches!(row.effect, Effect::SuspendInstances { .. })));
}

#[tokio::test]
async fn a6_the_unencrypted_family_on_the_site_is_told_too_and_acknowledges() {
    let world = World::with_acme().await;
    let add = |site: &'static str, app: &'static str| {
        let world = &world;
        async move {
            claviger_app::add_instance_directly::AddInstanceDirectly {
                policies: &world.store,
                instances: &world.store,
                ids: &world.ids,
                clock: &world.clock,
                settings: world.settings(),
            }
            .run(
                &builders::an_organisation("acme"),
                &builders::parsed(site),
                &builders::parsed(app),
                &builders::by_claviger(),
            )
            .await
            .unwrap()
            .0
            .id
        }
    };
    let sibling = add("acme-eng", "jira-product-discovery").await;
    let others = [add("acme-eng", "confluence").await, add("acme-old", "jira-product-discovery").await];
    world.store.take_published_orders();
    world.cut_off().await;
    let instance = async |id| world.store.instance(id).await.unwrap().unwrap();
    let told: Vec<(bool, String)> = world
        .store
        .take_published_orders()
        .into_iter()
        .map(|order| (order.instance_id == sibling, order.order))
        .collect();
    assert_eq!(told.len(), 2, "the encrypted app and its sibling: {told:?}");
    assert!(told.contains(&(true, "suspend".to_owned())));
    let suspended = instance(sibling).await;
    assert_eq!((suspended.status.slug(), suspended.epoch), ("suspended", Epoch(1)));
    for other in others {
        assert_eq!(instance(other).await.status.slug(), "not-encrypted");
    }
    // Its answer is the boundary.
    claviger_app::acknowledge_order::AcknowledgeOrder { instances: &world.store, clock: &world.clock }
        .run(&world.name(), sibling, Epoch(1), 7, &builders::by_claviger())
        .await
        .unwrap();
    assert_eq!(instance(sibling).await.acknowledged.unwrap().evicted, 7);
    world.restore().await;
    let restored = instance(sibling).await;
    assert_eq!((restored.status.slug(), restored.epoch), ("not-encrypted", Epoch(2)));
    let orders = world.store.take_published_orders();
    assert!(orders.iter().any(|order| order.instance_id == sibling && order.order == "restore"));
    assert!(!orders.iter().any(|order| others.contains(&order.instance_id)));
}

#[tokio::test]
async fn s5_a_restoration_is_due_within_two_business_days_and_the_product_does_it_by_itself_in_minutes() {
    let world = World::with_acme().await;
    world.cut_off().await;
    // A Thursday: Friday and Monday are its business days.
    world.clock.advance(SignedDuration::from_hours(24 * 3));
    world.ask_for_restoration().await;
    let show = ShowPolicy {
        policies: &world.store,
        watch_list: &world.store,
        clock: &world.clock,
        settings: world.settings(),
    };
    let shown = show.run(&world.name()).await.unwrap();
    assert_eq!(shown.lifecycle, "restoring");
    let due = shown.due_at.unwrap();
    assert!(due.to_string().starts_with("2026-11-30T"), "{due}");
    let asked_at = world.now();
    world.drain().await;
    assert!(world.policy().await.fence.is_open(), "nobody had to do anything");
    assert!(world.now().duration_since(asked_at) < SignedDuration::from_mins(5));
    assert_eq!(show.run(&world.name()).await.unwrap().due_at, None);
    assert!(world.tickets().await.iter().all(|ticket| ticket.resolved_at.is_some()));
}

#[tokio::test]
async fn r8_a_key_whose_store_is_disconnected_is_called_that_on_the_ticket_with_the_way_back() {
    let world = World::with_acme().await;
    world.keys_answer(Observation::Refused(RefusalKind::KeyUnavailable));
    world.sweep().await.unwrap();
    let policy = world.policy().await;
    assert!(!policy.fence.is_open(), "DescribeKey said so: that is definite");
    assert!(policy.keys.values().all(|key| key.health.slug() == "key-store-disconnected"));
    world.drain().await;
    let told = &world.tickets().await[0].comments[0].body;
    assert!(told.contains("is key-store-disconnected: connect the key's custom key store"), "{told}");
}
