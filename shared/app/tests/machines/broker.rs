//! Data keys and proofs: what the data plane gets, and when it stops.

use std::sync::Mutex;

use async_trait::async_trait;
use claviger_app::hand_out_data_key::{HandOutDataKey, HandOutError, HandedOut, KeyRequest};
use claviger_app::messages::ProbeMessage;
use claviger_app::ports::{Clock, DataKeyChoice, Policies, StoreError};
use claviger_app::prove_policies::{Proof, ProvePolicies};
use claviger_app::report_probes::{Reason, ReportProbes};
use claviger_app::settings::Settings;
use claviger_domain::decide::Decision;
use claviger_domain::ids::{DataKeyId, PolicyId};
use claviger_domain::observation::{NoAnswerKind, Observation};
use claviger_domain::policy::EncryptionPolicy;
use claviger_domain::values::{AccountId, OrganisationName};
use claviger_testkit::{FakeClock, SequentialIds, builders};
use jiff::{SignedDuration, Timestamp};

use crate::world::{DENIED, DISABLED, NOTES_ROLE, World, correlation};

#[tokio::test]
async fn r7_the_broker_gives_nothing_out_after_the_cut_off_cached_keys_included() {
    let world = World::with_acme().await;
    world.asks_for_key().await.unwrap();
    world.cut_off().await;
    world.keys.forget_calls();
    let refused = world.asks_for_key().await.err().unwrap();
    assert!(matches!(refused, HandOutError::Suspended));
    assert!(world.keys.calls().is_empty(), "no key of a suspended organisation is used");
    world.restore().await;
    world.asks_for_key().await.unwrap();
}

#[tokio::test]
async fn a10_many_requests_for_one_data_key_cost_one_unwrap_each_lifetime() {
    let world = World::with_acme().await;
    world.keys.forget_calls();
    let asked = (0..100).map(|_| world.asks_for_key());
    for answer in futures_util::future::join_all(asked).await {
        answer.unwrap();
    }
    assert_eq!(world.keys.calls().len(), 1);
    world.later(301);
    world.asks_for_key().await.unwrap();
    assert_eq!(world.keys.calls().len(), 2);
}

#[tokio::test]
async fn i1_a_data_key_bears_an_end_of_five_minutes_at_most() {
    let world = World::with_acme().await;
    let key = world.asks_for_key().await.unwrap();
    assert!(key.not_after <= world.now() + SignedDuration::from_mins(5));
    assert!(key.proven_until <= world.now() + SignedDuration::from_secs(10));
}

#[tokio::test]
async fn r5_a_degraded_realm_is_served_from_the_other_region() {
    let world = World::with_acme().await;
    let before = world.asks_for_key().await.unwrap();
    world.later(301);
    world.keys.answer(&world.key("eu-central-1"), DISABLED);
    let after = world.asks_for_key().await.unwrap();
    assert_eq!(after.key.as_slice(), before.key.as_slice());
    let hints = world.store.take_queued_probes();
    assert!(matches!(&hints[..], [(ProbeMessage::Probe { data_key: Some(_), .. }, _)]), "{hints:?}");
}

#[tokio::test]
async fn r3_a_refusal_that_the_broker_meets_is_a_hint_and_suspends_nobody() {
    let world = World::with_acme().await;
    world.keys_answer(DISABLED);
    let refused = world.asks_for_key().await.err().unwrap();
    assert!(matches!(refused, HandOutError::Unavailable { .. }));
    assert!(world.policy().await.fence.is_open());
    assert_eq!(world.store.take_queued_probes().len(), 1);
}

#[tokio::test]
async fn r3_a_key_store_that_gives_no_answer_is_temporary_and_no_hint() {
    let world = World::with_acme().await;
    world.keys_answer(Observation::NoAnswer(NoAnswerKind::Throttled));
    let refused = world.asks_for_key().await.err().unwrap();
    assert!(matches!(refused, HandOutError::Unavailable { .. }));
    assert!(world.store.take_queued_probes().is_empty());
}

#[tokio::test]
async fn i7_nobody_gets_a_data_key_of_an_instance_that_is_not_its_own() {
    let world = World::with_acme().await;
    let key = world.asks_for_key().await.unwrap();
    let unknown = DataKeyId::from_uuid(SequentialIds::uuid(0xdead));
    for (role, organisation, choice) in [
        ("arn:aws:iam::111111111111:role/other-app", "acme", DataKeyChoice::Current),
        ("arn:aws:iam::999999999999:role/notes-app", "acme", DataKeyChoice::Current),
        (NOTES_ROLE, "globex", DataKeyChoice::Current),
        (NOTES_ROLE, "globex", DataKeyChoice::Id(key.id)),
        (NOTES_ROLE, "acme", DataKeyChoice::Id(unknown)),
        (NOTES_ROLE, "acme", DataKeyChoice::Version(2)),
    ] {
        let refused = world.asks_for_key_as(role, organisation, choice).await.err().unwrap();
        assert!(matches!(refused, HandOutError::NotFound), "{role} {organisation} {choice:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn r2_one_broker_proves_for_all_that_ask_at_once_and_a_refusal_is_not_tried_again_at_once() {
    let world = World::with_acme().await;
    let policy = world.policy().await.id;
    let clock = claviger_testkit::VirtualClock::at(world.now());
    let prove = ProvePolicies {
        policies: &world.store,
        proofs: &world.store,
        probe: world.probe(),
        clock: &clock,
        timer: &clock,
        settings: world.settings(),
    };
    let asks = || async { prove.run(&[policy]).await[0] };
    // One region keeps the round waiting, so that all of them ask meanwhile.
    world
        .keys
        .fall_silent(&claviger_testkit::builders::parsed("eu-west-1"), std::time::Duration::from_millis(500));
    let (key, before) = (world.key("eu-central-1"), world.keys.count(&world.key("eu-central-1")));
    let tried = || world.keys.count(&key) - before;
    let answers = futures_util::future::join_all((0..50).map(|_| asks())).await;
    assert!(answers.iter().all(|answer| matches!(answer.proof, Proof::Proven { .. })), "{answers:?}");
    assert_eq!(tried(), 1);
    assert_eq!(answers.iter().filter(|answer| answer.kms_calls > 0).count(), 1);
    tokio::time::sleep(std::time::Duration::from_secs(11)).await;
    world.keys_answer(DISABLED);
    let answers = futures_util::future::join_all((0..50).map(|_| asks())).await;
    assert!(answers.iter().all(|answer| answer.proof == Proof::Unavailable), "{answers:?}");
    assert_eq!(tried(), 2);
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    asks().await;
    assert_eq!(tried(), 3, "tried again after two seconds");
}

#[tokio::test]
async fn r2_a_proof_is_a_real_unwrap_shared_for_ten_seconds_and_refused_when_the_key_is() {
    let world = World::with_acme().await;
    let policy = world.policy().await.id;
    let prove = ProvePolicies {
        policies: &world.store,
        proofs: &world.store,
        probe: world.probe(),
        clock: &world.clock,
        timer: &world.clock,
        settings: world.settings(),
    };
    world.keys.forget_calls();
    let first = prove.run(&[policy]).await;
    assert!(
        matches!(first[0].proof, Proof::Proven { until } if until == world.now() + SignedDuration::from_secs(10))
    );
    let cost = world.keys.calls().len();
    assert_eq!(cost, 2, "a key a region");
    assert_eq!(first[0].kms_calls, 2, "the app is told what it cost");
    world.keys_answer(DISABLED);
    world.later(9);
    let shared = prove.run(&[policy]).await;
    assert_eq!((shared[0].proof, shared[0].kms_calls), (first[0].proof, 0), "shared by all brokers");
    assert_eq!(world.keys.calls().len(), cost);
    world.later(2);
    let refused = prove.run(&[policy]).await;
    assert_eq!((refused[0].proof, refused[0].kms_calls), (Proof::Unavailable, 2));
    world.keys_answer(DENIED);
    world.later(2);
    let asked = prove.run(&[policy]).await;
    assert_eq!((asked[0].proof, asked[0].kms_calls), (Proof::Unavailable, 4), "DescribeKey broke the ties");
    world.keys_answer(DISABLED);
    world.sweep().await.unwrap();
    assert_eq!(prove.run(&[policy]).await[0].proof, Proof::Suspended);
}

/// The settings of a vendor that makes any region enough to revoke.
fn any_region_is_enough(world: &World) -> Settings {
    let mut settings = world.settings().clone();
    settings.catalogue.any_region_is_enough = true;
    settings
}

#[tokio::test]
async fn i3_where_any_region_is_enough_to_revoke_one_that_works_proves_nothing() {
    let world = World::with_acme().await;
    let id = world.policy().await.id;
    let switched = any_region_is_enough(&world);
    let lost = world.key("eu-west-1");
    world.keys.answer(&lost, DISABLED);
    let proof = async |settings: &Settings| {
        let (store, clock) = (&world.store, &world.clock);
        let prove = ProvePolicies {
            policies: store,
            proofs: store,
            probe: world.probe(),
            clock,
            timer: clock,
            settings,
        };
        let proved = prove.run(&[id]).await[0].proof;
        // What was proven is not shared with the next question.
        world.later(11);
        proved
    };
    assert_eq!(proof(&switched).await, Proof::Unavailable);
    assert!(matches!(proof(world.settings()).await, Proof::Proven { .. }));
    let mut policy = world.policy().await;
    policy.keys.get_mut(lost.region()).unwrap().given_up = true;
    world.store.seed_policy(policy);
    assert!(
        matches!(proof(&switched).await, Proof::Proven { .. }),
        "nobody counts on a key that was given up"
    );
}

#[tokio::test]
async fn i3_where_any_region_is_enough_to_revoke_a_probe_with_a_silent_region_leaves_the_policy_unproven() {
    let world = World::with_acme().await;
    let switched = any_region_is_enough(&world);
    let silent = world.key("eu-west-1");
    world.keys.answer(&silent, Observation::NoAnswer(NoAnswerKind::Unreachable));
    let policy = world.policy().await;
    let report = ReportProbes { settings: &switched, ..world.report() };
    let seen = report.of_policy(&policy, &Reason::default(), correlation()).await.unwrap();
    assert!(!seen.is_proof(&switched.rules(), &policy));
    assert!(seen.is_proof(&world.settings().rules(), &policy), "every region has to refuse, and one works");
    let mut without = policy.clone();
    without.keys.get_mut(silent.region()).unwrap().given_up = true;
    assert!(seen.is_proof(&switched.rules(), &without));
}

/// A clock on which every look costs so much time: what lies between two looks was slow.
struct Slow {
    clock: FakeClock,
    each: SignedDuration,
}

impl Clock for Slow {
    fn now(&self) -> Timestamp {
        self.clock.advance(self.each)
    }
}

/// Policies of which the first reading is of before something happened.
struct AsOfBefore<'a> {
    world: &'a World,
    before: Mutex<Option<EncryptionPolicy>>,
}

#[async_trait]
impl Policies for AsOfBefore<'_> {
    async fn policy(&self, organisation: &OrganisationName) -> Result<Option<EncryptionPolicy>, StoreError> {
        let before = self.before.lock().unwrap().take();
        match before {
            Some(before) => Ok(Some(before)),
            None => self.world.store.policy(organisation).await,
        }
    }

    async fn policy_by_id(&self, id: PolicyId) -> Result<Option<EncryptionPolicy>, StoreError> {
        self.world.store.policy_by_id(id).await
    }

    async fn commit_policy(&self, _: Option<&EncryptionPolicy>, _: &Decision) -> Result<(), StoreError> {
        panic!("a broker decides nothing")
    }

    async fn organisations_of_account(&self, _: &AccountId) -> Result<Vec<OrganisationName>, StoreError> {
        panic!("a broker does not ask for it")
    }
}

/// A key for an app that came when the policy was as it was before, from a broker that is as slow as this.
async fn asked_before(
    world: &World,
    before: EncryptionPolicy,
    each: SignedDuration,
) -> Result<HandedOut, HandOutError> {
    let policies = AsOfBefore { world, before: Mutex::new(Some(before)) };
    let clock = Slow { clock: FakeClock::default(), each };
    clock.clock.set(world.now());
    let home = builders::parsed("eu-central-1");
    let broker = HandOutDataKey {
        policies: &policies,
        instances: &world.store,
        registry: &world.store,
        keys: &world.keys,
        hints: &world.store,
        newer: &world.store,
        cache: &world.cache,
        lifetime: SignedDuration::from_mins(5),
        home: &home,
        ids: &world.ids,
        clock: &clock,
        settings: world.settings(),
    };
    let request = KeyRequest {
        caller_role: NOTES_ROLE.to_owned(),
        organisation: world.name(),
        site: builders::parsed("acme-eng"),
        app: builders::parsed("jira"),
        choice: DataKeyChoice::Current,
        newer_than: None,
    };
    broker.run(&request).await
}

#[tokio::test]
async fn i1_a_fence_that_closes_while_an_unwrap_is_under_way_keeps_its_answer_back() {
    let world = World::with_acme().await;
    let open = world.policy().await;
    world.cut_off().await;
    world.keys_answer(Observation::Usable);
    let slow = SignedDuration::from_secs(1);
    let refused = asked_before(&world, open.clone(), slow).await.err().unwrap();
    assert!(matches!(refused, HandOutError::Suspended), "{refused}");

    // Closed and opened again: the unwrap began under a fence that is no more.
    world.restore().await;
    let refused = asked_before(&world, open, slow).await.err().unwrap();
    assert!(matches!(refused, HandOutError::Unavailable { .. }), "{refused}");
    let policy = world.policy().await;
    asked_before(&world, policy, slow).await.unwrap();
}

#[tokio::test]
async fn a10_an_answer_in_time_reads_the_policy_once() {
    let world = World::with_acme().await;
    let open = world.policy().await;
    world.cut_off().await;
    world.keys_answer(Observation::Usable);
    // Nobody can be quicker than one reading: what is asked for at the same moment is answered as of before.
    asked_before(&world, open, SignedDuration::from_millis(100)).await.unwrap();
}
