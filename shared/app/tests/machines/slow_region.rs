//! A region that answers nothing, in a full shard: in virtual time.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use claviger_app::messages::{ProbeMessage, Rest};
use claviger_app::ports::{Clock, CustomerKeys, KeyRef, Policies, WatchList};
use claviger_app::probe_in_lanes::{MOST_AT_ONCE, Probed, Probing, probe_in_lanes};
use claviger_app::probe_keys::ProbeKeys;
use claviger_app::report_probes::ReportProbes;
use claviger_app::sweep::{Sweep, Swept};
use claviger_domain::ids::PolicyId;
use claviger_domain::policy::{EncryptionPolicy, PURPOSE_CANARY};
use claviger_domain::values::{Region, ShardId};
use claviger_testkit::builders::parsed;
use claviger_testkit::{FakeKeys, MemoryWorld, SequentialIds, VirtualClock, builders};
use jiff::{SignedDuration, Timestamp};

use crate::world::DISABLED;

const SHARD: ShardId = ShardId(5);
/// What the SDK gives a call.
const LIMIT: Duration = Duration::from_secs(5);

struct Slow {
    store: MemoryWorld,
    keys: FakeKeys,
    ids: SequentialIds,
    clock: VirtualClock,
}

impl Slow {
    fn new() -> Self {
        Self {
            store: MemoryWorld::new(),
            keys: FakeKeys::new(),
            ids: SequentialIds::default(),
            clock: VirtualClock::at(parsed("2026-11-23T09:00:00Z")),
        }
    }

    async fn customers(&self, realm: &str, from: u64, many: u64) -> Vec<EncryptionPolicy> {
        let mut all = Vec::new();
        for number in from..from + many {
            let account = format!("{}", 700_000_000_000_u64 + number);
            let organisation = builders::an_organisation(&format!("customer-{number}"));
            let enrolment = builders::an_enrolment(&account, realm);
            let mut policy = builders::an_active_policy(&organisation, &enrolment, self.clock.now());
            policy.shard = SHARD;
            // Names that are as many as these share the builder's numbers.
            policy.id = PolicyId::from_uuid(SequentialIds::uuid(0x5000_0000 + number));
            let whose = policy.clone();
            let context = policy.encryption_context(PURPOSE_CANARY, &policy.id.to_string());
            for key in policy.keys.values_mut() {
                self.keys.create(&key.arn);
                let sealed = self.keys.encrypt(KeyRef::of(&whose, &key.arn), b"canary", &context).await;
                key.canary = Some(BASE64_STANDARD.encode(sealed.unwrap()));
            }
            self.store.seed_policy(policy.clone());
            all.push(policy);
        }
        all
    }

    fn sweep(&self) -> Sweep<'_> {
        let (clock, settings) = (&self.clock, builders::settings());
        let probe = ProbeKeys { keys: &self.keys, controls: &self.keys, registry: &self.store, clock };
        let report = ReportProbes {
            probe,
            policies: &self.store,
            hints: &self.store,
            queue: &self.store,
            watch: &self.store,
            clock,
            settings,
        };
        let (watch, queue, ids) = (&self.store, &self.store, &self.ids);
        Sweep { report, watch, queue, ids, clock, timer: clock, settings }
    }

    async fn swept_for(&self, seconds: i64) -> Swept {
        let now = self.clock.now();
        self.sweep().run(SHARD, now, now + SignedDuration::from_secs(seconds)).await.unwrap()
    }

    async fn passes(&self, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    async fn unproven(&self) -> Vec<PolicyId> {
        self.store.last_beat(SHARD).await.unwrap().unwrap().unproven.into_keys().collect()
    }

    async fn closed_at(&self, policy: &EncryptionPolicy) -> Option<Timestamp> {
        let now = self.store.policy(&policy.organisation_name).await.unwrap().unwrap();
        now.lifecycle.cut_off_at()
    }

    fn rest(&self) -> Rest {
        let queued = self.store.take_queued_probes();
        let mut rest = queued.into_iter().filter_map(|(message, wait)| match message {
            ProbeMessage::SweepRest(rest) => Some((rest, wait)),
            _ => None,
        });
        let (found, wait) = rest.next().expect("a follow-on");
        assert_eq!((wait, rest.next()), (SignedDuration::ZERO, None));
        found
    }
}

fn frankfurt() -> Region {
    parsed("eu-central-1")
}

#[tokio::test(start_paused = true)]
async fn r2_a_region_that_times_out_delays_no_refusal_of_a_healthy_one_and_the_rest_is_tried_by_a_follow_on()
{
    let slow = Slow::new();
    let silent = slow.customers("germany", 0, 300).await;
    let healthy = slow.customers("united-kingdom", 1000, 30).await;
    assert_eq!(slow.swept_for(26).await, Swept::Done { policies: 330, unproven: 0, left: 0 });
    slow.passes(60).await;
    slow.keys.fall_silent(&frankfurt(), LIMIT);
    for policy in &healthy {
        slow.keys.answer(&policy.keys.values().next().unwrap().arn, DISABLED);
    }
    let began = slow.clock.now();
    let swept = slow.swept_for(6).await;
    let Swept::Done { policies: 330, unproven: 300, left } = swept else { panic!("{swept:?}") };
    assert!(left > 50, "{left}: the time was too short for all");
    assert!(slow.clock.now().duration_since(began) <= SignedDuration::from_secs(6), "it ends by itself");
    for policy in &healthy {
        let closed = slow.closed_at(policy).await.expect("found").duration_since(began);
        assert!(closed <= SignedDuration::from_secs(2), "{closed:?} for {}", policy.organisation_name);
    }
    // Whoever was not tried counts as unproven, so the shard can count as watched.
    let mut unproven = slow.unproven().await;
    unproven.sort();
    let mut all: Vec<PolicyId> = silent.iter().map(|policy| policy.id).collect();
    all.sort();
    assert_eq!(unproven, all);
    // The follow-on: by then the region answers again.
    let rest = slow.rest();
    assert_eq!(rest.policies.len(), left);
    slow.keys.answers_again(&frankfurt());
    let until = slow.clock.now() + SignedDuration::from_secs(26);
    let swept = slow.sweep().rest(&rest, until).await.unwrap();
    assert_eq!(swept, Swept::Done { policies: left, unproven: 0, left: 0 });
    assert_eq!(slow.unproven().await.len(), 300 - left, "those that were tried wait for the next sweep");
}

#[tokio::test(start_paused = true)]
async fn r2_whoever_was_slow_last_time_comes_last_the_next_time() {
    let slow = Slow::new();
    slow.customers("germany", 0, 100).await;
    let healthy = slow.customers("united-kingdom", 1000, 5).await;
    slow.keys.fall_silent(&frankfurt(), LIMIT);
    slow.swept_for(26).await;
    slow.passes(60).await;
    for policy in &healthy {
        slow.keys.answer(&policy.keys.values().next().unwrap().arn, DISABLED);
    }
    let began = slow.clock.now();
    slow.swept_for(26).await;
    for policy in &healthy {
        assert_eq!(slow.closed_at(policy).await, Some(began));
    }
}

#[tokio::test(start_paused = true)]
async fn i3_a_sweep_that_is_killed_has_lost_nothing_it_found_and_claims_nothing() {
    let slow = Slow::new();
    slow.customers("germany", 0, 100).await;
    let healthy = slow.customers("united-kingdom", 1000, 20).await;
    slow.swept_for(26).await;
    let before = slow.store.last_beat(SHARD).await.unwrap();
    slow.passes(60).await;
    slow.keys.fall_silent(&frankfurt(), LIMIT);
    for policy in &healthy {
        slow.keys.answer(&policy.keys.values().next().unwrap().arn, DISABLED);
    }
    let killed = tokio::time::timeout(Duration::from_secs(3), slow.swept_for(26)).await;
    assert!(killed.is_err());
    assert_eq!(slow.store.last_beat(SHARD).await.unwrap(), before, "the shard goes stale: nobody reads on");
    for policy in &healthy {
        assert!(slow.closed_at(policy).await.is_some(), "what was found is committed");
    }
    slow.passes(57).await;
    slow.keys.answers_again(&frankfurt());
    assert_eq!(slow.swept_for(26).await, Swept::Done { policies: 120, unproven: 0, left: 0 });
}

#[tokio::test(start_paused = true)]
async fn i3_a_follow_on_says_nothing_about_a_newer_sweep_and_none_when_it_is_late() {
    let slow = Slow::new();
    let silent = slow.customers("germany", 0, 10).await;
    slow.keys.fall_silent(&frankfurt(), LIMIT);
    let swept = slow.swept_for(3).await;
    assert_eq!(swept, Swept::Done { policies: 10, unproven: 10, left: 10 });
    let rest = slow.rest();
    slow.passes(30).await;
    slow.swept_for(26).await;
    let newer = slow.store.last_beat(SHARD).await.unwrap();
    slow.keys.answers_again(&frankfurt());
    let until = slow.clock.now() + SignedDuration::from_secs(26);
    let answer = slow.sweep().rest(&rest, until).await.unwrap();
    assert_eq!(answer, Swept::Done { policies: silent.len(), unproven: 0, left: 0 });
    assert_eq!(slow.store.last_beat(SHARD).await.unwrap(), newer);
    slow.passes(61).await;
    assert_eq!(slow.sweep().rest(&rest, slow.clock.now()).await.unwrap(), Swept::Late);
}

/// A full shard: an eighth of 20,000 keys, each a customer of one region, every eighth in a healthy one.
fn full_shard() -> Vec<EncryptionPolicy> {
    let some = |realm| {
        let organisation = builders::an_organisation("acme");
        builders::an_active_policy(
            &organisation,
            &builders::an_enrolment("222222222222", realm),
            parsed("2026-11-23T12:00:00Z"),
        )
    };
    let (silent, healthy) = (some("germany"), some("united-kingdom"));
    let one = |number: u128| {
        let like = if number.is_multiple_of(8) { &healthy } else { &silent };
        EncryptionPolicy { id: PolicyId::from_uuid(uuid::Uuid::from_u128(number)), ..like.clone() }
    };
    (0..2_500).map(one).collect()
}

fn is_healthy(policy: &EncryptionPolicy) -> bool {
    policy.keys.keys().all(|region| region.as_str() == "eu-west-2")
}

#[tokio::test(start_paused = true)]
async fn r2_a_full_shard_with_a_silent_region_is_through_in_its_limit_and_one_follow_on_before_the_next_sweep()
 {
    let settings = builders::settings();
    let clock = VirtualClock::at(parsed("2026-11-23T12:00:00Z"));
    let began = tokio::time::Instant::now();
    let probe = |policy: EncryptionPolicy| -> Probing<'_, (bool, Duration)> {
        Box::pin(async move {
            let healthy = is_healthy(&policy);
            // Of a dead region KMS's client says so after five seconds.
            let takes = if healthy { Duration::from_millis(20) } else { Duration::from_secs(5) };
            tokio::time::sleep(takes).await;
            (healthy, began.elapsed())
        })
    };
    let all = full_shard();
    let Probed { seen, left } = probe_in_lanes(&clock, all.clone(), settings.sweep_limit(), probe).await;
    let healthy: Vec<Duration> = seen.iter().filter(|(healthy, _)| *healthy).map(|(_, at)| *at).collect();
    assert_eq!(healthy.len(), 313);
    assert!(healthy.iter().all(|at| *at < Duration::from_secs(2)), "{:?}", healthy.iter().max());
    assert_eq!(seen.len() + left.len(), all.len());
    assert!(began.elapsed() <= Duration::try_from(settings.sweep_limit()).unwrap());
    let rest: Vec<_> = all.into_iter().filter(|policy| left.contains(&policy.id)).collect();
    assert!(!rest.is_empty(), "a harder test is needed");
    let after = probe_in_lanes(&clock, rest, settings.sweep_limit(), probe).await;
    assert!(after.left.is_empty(), "{}", after.left.len());
    assert!(began.elapsed() < Duration::try_from(settings.probe_phase).unwrap(), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn r2_no_more_probes_are_under_way_than_a_function_has_connections() {
    let clock = VirtualClock::at(parsed("2026-11-23T12:00:00Z"));
    let under_way = std::sync::atomic::AtomicUsize::new(0);
    let most = std::sync::atomic::AtomicUsize::new(0);
    let order = std::sync::atomic::Ordering::SeqCst;
    let probe = |_| -> Probing<'_, ()> {
        Box::pin(async {
            most.fetch_max(under_way.fetch_add(1, order) + 1, order);
            tokio::time::sleep(Duration::from_secs(5)).await;
            under_way.fetch_sub(1, order);
        })
    };
    let hour = SignedDuration::from_hours(1);
    let Probed { seen, left } = probe_in_lanes(&clock, full_shard(), hour, probe).await;
    assert_eq!((seen.len(), left.len()), (2_500, 0));
    assert_eq!(most.into_inner(), MOST_AT_ONCE);
}
