//! Newer versions of data keys, by age and use: the broker asks, the provisioner makes, and a re-encryption that begins
//! at any moment passes none over.

use std::sync::Mutex;

use async_trait::async_trait;
use claviger_app::error::WorkError;
use claviger_app::make_data_key::MakeDataKey;
use claviger_app::make_newer_data_key::{MOST_VERSIONS, MakeNewerDataKey, Renewal};
use claviger_app::messages::NewerDataKey;
use claviger_app::ports::{
    CallError, DataKeyChoice, DataKeyRegistry, Instances, Policies, StoreError, WrappedDataKey,
};
use claviger_app::provision_instance::ProvisionInstance;
use claviger_domain::decide::decide;
use claviger_domain::event::{InstanceEvent, PolicyEvent};
use claviger_domain::fence::Epoch;
use claviger_domain::ids::{DataKeyId, InstanceId};
use claviger_domain::instance::{AppInstance, InstanceStatus};
use claviger_domain::observation::{NoAnswerKind, Observation};
use claviger_domain::policy::EncryptionPolicy;
use claviger_domain::reencryption::Depth;
use claviger_testkit::{SequentialIds, builders};
use jiff::SignedDuration;
use rstest::rstest;

use crate::world::{DENIED, DISABLED, NOTES_ROLE, USABLE, World, correlation};

const REGIONS: [&str; 2] = ["eu-central-1", "eu-west-1"];
const TWO_DAYS: i64 = 2 * 24 * 60 * 60;

/// `acme`, whose data key is two days old.
async fn aged() -> World {
    let world = World::with_acme().await;
    world.later(TWO_DAYS);
    world
}

async fn instance(world: &World) -> AppInstance {
    world.instances().await.remove(0)
}

async fn versions(world: &World) -> Vec<(u32, u64)> {
    let keys = world.store.data_keys(instance(world).await.id).await.unwrap();
    keys.iter().map(|key| (key.version, key.generation)).collect()
}

async fn newer_than(world: &World, version: u32) -> NewerDataKey {
    NewerDataKey { instance: instance(world).await.id, newer_than: version, correlation: correlation() }
}

async fn makes(world: &World, newer: u32) -> Renewal {
    world.makes_newer(&newer_than(world, newer).await).await.unwrap()
}

fn job_on(world: &World) -> PolicyEvent {
    let keys = REGIONS.map(|region| {
        let key = builders::a_key("222222222222", region, 2);
        world.keys.create(&key);
        world.keys.bind(&key, builders::an_organisation("acme").id);
        (builders::parsed(region), key)
    });
    PolicyEvent::ReencryptionRequested { keys: keys.into(), depth: Depth::Rekey }
}

async fn decides(world: &World, event: &PolicyEvent) {
    let policy = world.policy().await;
    let decision = decide(&builders::rules(), &policy, event, &builders::by_admin(), world.now()).unwrap();
    world.store.commit_policy(Some(&policy), &decision).await.unwrap();
}

/// What happens between the look at policy and instance and the moment at which the data key is to be stored.
pub enum Meanwhile {
    Policy(PolicyEvent),
    /// A decision that hinders nothing.
    AnyDecision,
    Instance(InstanceEvent),
    /// The same message, delivered twice, is faster.
    Other(NewerDataKey),
    /// It is stored, and the process dies before it knows.
    Crash,
    /// Nothing can be read.
    Outage,
}

/// The registry, in which something happens right before, or after, a data key is stored.
pub struct Racing<'a> {
    pub world: &'a World,
    pub meanwhile: Mutex<Option<Meanwhile>>,
}

#[async_trait]
impl DataKeyRegistry for Racing<'_> {
    async fn data_key(
        &self,
        instance: InstanceId,
        purpose: &str,
        choice: DataKeyChoice,
    ) -> Result<Option<WrappedDataKey>, StoreError> {
        if matches!(*self.meanwhile.lock().unwrap(), Some(Meanwhile::Outage)) {
            return Err(StoreError::Unavailable { reason: "an outage".to_owned() });
        }
        self.world.store.data_key(instance, purpose, choice).await
    }

    async fn data_keys(&self, instance: InstanceId) -> Result<Vec<WrappedDataKey>, StoreError> {
        self.world.store.data_keys(instance).await
    }

    async fn rewrap_data_key(&self, known: &WrappedDataKey, next: &WrappedDataKey) -> Result<(), StoreError> {
        self.world.store.rewrap_data_key(known, next).await
    }

    async fn rewrap_data_key_of(
        &self,
        known: &WrappedDataKey,
        next: &WrappedDataKey,
        policy: &EncryptionPolicy,
    ) -> Result<(), StoreError> {
        let meanwhile = self.meanwhile.lock().unwrap().take();
        if let Some(Meanwhile::Policy(event)) = &meanwhile {
            decides(self.world, event).await;
        }
        self.world.store.rewrap_data_key_of(known, next, policy).await
    }

    async fn erase_data_key(&self, key: &WrappedDataKey) -> Result<(), StoreError> {
        self.world.store.erase_data_key(key).await
    }

    async fn add_data_key(&self, key: &WrappedDataKey) -> Result<(), StoreError> {
        self.world.store.add_data_key(key).await
    }

    async fn add_data_key_of(
        &self,
        key: &WrappedDataKey,
        policy: &EncryptionPolicy,
        instance: &AppInstance,
    ) -> Result<(), StoreError> {
        let meanwhile = self.meanwhile.lock().unwrap().take();
        match &meanwhile {
            Some(Meanwhile::Policy(event)) => decides(self.world, event).await,
            Some(Meanwhile::AnyDecision) => {
                let mut next = self.world.policy().await;
                next.version += 1;
                self.world.store.seed_policy(next);
            }
            Some(Meanwhile::Instance(event)) => {
                let now = self.world.now();
                let decided = builders::instance_decided(instance, event, &builders::by_claviger(), now);
                self.world.store.commit_instance(Some(instance), &decided).await.unwrap();
            }
            Some(Meanwhile::Other(wanted)) => {
                let renewal = self.world.makes_newer(wanted).await.unwrap();
                assert_eq!(renewal, Renewal::Made { version: 2 });
            }
            Some(Meanwhile::Crash | Meanwhile::Outage) | None => {}
        }
        self.world.store.add_data_key_of(key, policy, instance).await?;
        match meanwhile {
            Some(Meanwhile::Crash) => Err(StoreError::Unavailable { reason: "the process died".to_owned() }),
            Some(_) | None => Ok(()),
        }
    }

    async fn remove_data_key(&self, known: &WrappedDataKey) -> Result<(), StoreError> {
        self.world.store.remove_data_key(known).await
    }
}

impl<'a> Racing<'a> {
    pub fn new(world: &'a World, meanwhile: Meanwhile) -> Self {
        Self { world, meanwhile: Mutex::new(Some(meanwhile)) }
    }

    fn make(&self) -> MakeDataKey<'_> {
        let World { keys, ids, clock, .. } = self.world;
        MakeDataKey { registry: self, keys, ids, clock }
    }

    async fn makes(&self, newer: u32) -> Result<Renewal, WorkError> {
        let store = &self.world.store;
        let settings = self.world.settings();
        let newer_key = MakeNewerDataKey { instances: store, policies: store, make: self.make(), settings };
        newer_key.run(&newer_than(self.world, newer).await).await
    }
}

#[tokio::test]
async fn a10_the_broker_asks_once_for_a_newer_version_and_answers_with_the_current_one() {
    let world = aged().await;
    for _ in 0..100 {
        assert_eq!(world.asks_for_newer(1).await.unwrap().version, 1);
    }
    let asked = world.store.take_asked_for_newer();
    let [one] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!((one.instance, one.newer_than), (instance(&world).await.id, 1));
    world.later(301);
    world.asks_for_newer(1).await.unwrap();
    assert_eq!(world.store.take_asked_for_newer().len(), 1, "what was lost is asked for again");

    assert_eq!(world.makes_newer(one).await.unwrap(), Renewal::Made { version: 2 });
    let newer = world.asks_for_newer(1).await.unwrap();
    assert_eq!((newer.version, newer.current, newer.created_at), (2, true, world.now()));
    let old = world.asks_for_key_as(NOTES_ROLE, "acme", DataKeyChoice::Version(1)).await.unwrap();
    assert_eq!((old.version, old.current), (1, false), "records of it are read as ever");
    assert_ne!(newer.key.as_slice(), old.key.as_slice());
    world.later(301);
    world.asks_for_newer(1).await.unwrap();
    assert!(world.store.take_asked_for_newer().is_empty(), "the current one is the answer");
}

#[tokio::test]
async fn a10_a_queue_that_fails_costs_no_answer() {
    let world = aged().await;
    world.store.fail_calls([CallError { what: "the queue", reason: "test".to_owned() }]);
    assert_eq!(world.asks_for_newer(1).await.unwrap().version, 1);
    assert!(world.store.take_asked_for_newer().is_empty());
}

#[tokio::test]
async fn the_broker_asks_for_nothing_that_the_provisioner_would_not_make() {
    let young = World::with_acme().await;
    young.asks_for_newer(1).await.unwrap();
    assert!(young.store.take_asked_for_newer().is_empty());

    let degraded = aged().await;
    degraded.keys.answer(&degraded.key("eu-west-1"), DISABLED);
    degraded.sweep().await.unwrap();
    assert!(degraded.policy().await.is_degraded());
    degraded.asks_for_newer(1).await.unwrap();
    assert!(degraded.store.take_asked_for_newer().is_empty());
    assert!(matches!(makes(&degraded, 1).await, Renewal::Left { .. }));

    let moving = aged().await;
    decides(&moving, &job_on(&moving)).await;
    moving.asks_for_newer(1).await.unwrap();
    assert!(moving.store.take_asked_for_newer().is_empty());
    assert!(matches!(makes(&moving, 1).await, Renewal::Left { .. }));

    for world in [&young, &degraded, &moving] {
        assert_eq!(versions(world).await, [(1, 1)]);
    }
}

#[tokio::test]
async fn a7_a_newer_version_is_wrapped_under_every_regional_key() {
    let world = aged().await;
    assert_eq!(makes(&world, 1).await, Renewal::Made { version: 2 });
    let id = instance(&world).await.id;
    let made = world.store.data_key(id, "records", DataKeyChoice::Current).await.unwrap().unwrap();
    let regions: Vec<&str> = made.wraps.keys().map(|region| region.as_str()).collect();
    assert_eq!(regions, REGIONS);
    for region in REGIONS {
        world.keys.answer(&world.key(region), DISABLED);
        assert_eq!(world.asks_for_key().await.unwrap().version, 2, "without {region}");
        world.keys.answer(&world.key(region), USABLE);
        world.later(301);
    }
}

#[tokio::test]
async fn a_hasty_or_hostile_app_cannot_have_versions_without_end() {
    let world = World::with_acme().await;
    assert!(matches!(makes(&world, 1).await, Renewal::Left { .. }), "an hour old");
    world.later(TWO_DAYS);
    assert_eq!(makes(&world, 1).await, Renewal::Made { version: 2 });
    assert!(matches!(makes(&world, 2).await, Renewal::Left { .. }), "just made");
    for wrong in [0, 1, 3, u32::MAX] {
        assert!(matches!(makes(&world, wrong).await, Renewal::Left { .. }), "{wrong} is not current");
    }
    let id = instance(&world).await.id;
    let second = world.store.data_key(id, "records", DataKeyChoice::Version(2)).await.unwrap().unwrap();
    let last = WrappedDataKey {
        id: DataKeyId::from_uuid(SequentialIds::uuid(0x1a57)),
        version: MOST_VERSIONS,
        ..second
    };
    world.store.add_data_key(&last).await.unwrap();
    world.later(TWO_DAYS);
    assert!(matches!(makes(&world, MOST_VERSIONS).await, Renewal::Left { .. }));
    assert_eq!(versions(&world).await.len(), 3);
}

#[tokio::test]
async fn i4_a_message_that_comes_twice_makes_one_version() {
    let world = aged().await;
    let wanted = newer_than(&world, 1).await;
    assert_eq!(world.makes_newer(&wanted).await.unwrap(), Renewal::Made { version: 2 });
    assert!(matches!(world.makes_newer(&wanted).await.unwrap(), Renewal::Left { .. }));

    let beside = aged().await;
    let other = newer_than(&beside, 1).await;
    let slower = Racing::new(&beside, Meanwhile::Other(other)).makes(1).await.unwrap();
    assert!(matches!(slower, Renewal::Left { .. }), "{slower:?}");
    for world in [&world, &beside] {
        assert_eq!(versions(world).await, [(1, 1), (2, 1)]);
    }
}

#[tokio::test]
async fn i4_a_crash_right_after_the_store_makes_no_second_version() {
    let world = aged().await;
    let racing = Racing::new(&world, Meanwhile::Crash);
    let died = racing.makes(1).await;
    assert!(matches!(died, Err(WorkError::Store(StoreError::Unavailable { .. }))), "it is delivered again");
    assert!(matches!(racing.makes(1).await.unwrap(), Renewal::Left { .. }));
    assert_eq!(versions(&world).await, [(1, 1), (2, 1)]);
}

#[tokio::test]
async fn i6_a_re_encryption_that_begins_meanwhile_keeps_the_version_from_being_stored() {
    let world = aged().await;
    let job = Meanwhile::Policy(job_on(&world));
    let left = Racing::new(&world, job).makes(1).await.unwrap();
    assert!(matches!(left, Renewal::Left { .. }), "{left:?}");
    assert_eq!(versions(&world).await, [(1, 1)]);
    assert!(world.policy().await.reencryption.is_some());
}

#[tokio::test]
async fn r7_no_version_is_made_behind_a_closed_fence() {
    let world = aged().await;
    let (policy, found) = (world.policy().await, instance(&world).await);
    world.cut_off().await;
    world.keys_answer(USABLE);
    world.keys.forget_calls();
    assert!(matches!(makes(&world, 1).await, Renewal::Left { .. }));
    assert!(world.keys.calls().is_empty(), "no key of a suspended organisation is used");
    // Whoever had looked at the policy before does not get it stored.
    let known = world.store.data_keys(found.id).await.unwrap().remove(0);
    let late = WrappedDataKey { id: DataKeyId::from_uuid(SequentialIds::uuid(7)), version: 2, ..known };
    assert_eq!(world.store.add_data_key_of(&late, &policy, &found).await, Err(StoreError::Conflict));
    assert_eq!(versions(&world).await, [(1, 1)]);
}

#[tokio::test]
async fn an_instance_that_changes_meanwhile_is_looked_at_anew() {
    let world = aged().await;
    let told = Meanwhile::Instance(InstanceEvent::SuspensionOrdered { epoch: Epoch(1) });
    let left = Racing::new(&world, told).makes(1).await.unwrap();
    assert!(matches!(left, Renewal::Left { .. }), "it is not active any more: {left:?}");
    assert_eq!(versions(&world).await, [(1, 1)]);
}

#[rstest]
#[tokio::test]
async fn i2_a_key_that_does_not_do_it_leaves_the_current_version_and_suspends_nobody(
    #[values(0, 1)] region: usize,
    #[values(
        Observation::NoAnswer(NoAnswerKind::Throttled),
        Observation::NoAnswer(NoAnswerKind::Unreachable),
        DENIED,
        DISABLED
    )]
    answer: Observation,
) {
    let world = aged().await;
    let key = world.key(REGIONS[region]);
    world.keys.answer(&key, answer);
    assert!(matches!(makes(&world, 1).await, Renewal::Left { .. }));
    assert_eq!(versions(&world).await, [(1, 1)]);
    assert!(world.policy().await.fence.is_open());
    assert!(world.store.take_queued_probes().is_empty(), "the sweep is what judges a key");
    world.keys.answer(&key, USABLE);
    assert_eq!(makes(&world, 1).await, Renewal::Made { version: 2 });
}

#[tokio::test]
async fn i6_what_a_cancelled_re_encryption_left_takes_no_version_and_is_given_to_nobody() {
    let world = aged().await;
    let id = instance(&world).await.id;
    let known = world.store.data_keys(id).await.unwrap().remove(0);
    let left_over = WrappedDataKey {
        id: DataKeyId::from_uuid(SequentialIds::uuid(0x1ef7)),
        version: 2,
        generation: 2,
        ..known
    };
    world.store.add_data_key(&left_over).await.unwrap();
    assert_eq!(makes(&world, 1).await, Renewal::Made { version: 3 });
    assert_eq!(versions(&world).await, [(1, 1), (2, 2), (3, 1)]);
    assert_eq!(world.asks_for_key().await.unwrap().version, 3);
}

/// An instance that support has approved and that has no data key yet.
pub async fn approved(world: &World) -> InstanceId {
    let asked = builders::an_instance_decision(&world.policy().await, "acme-eng", "confluence", world.now());
    world.store.commit_instance(None, &asked).await.unwrap();
    let (event, support) = (InstanceEvent::InstanceApproved, builders::by_support());
    let approved = builders::instance_decided(&asked.next, &event, &support, world.now());
    world.store.commit_instance(Some(&asked.next), &approved).await.unwrap();
    asked.next.id
}

#[tokio::test]
async fn i6_the_first_data_key_is_not_stored_beside_a_job_that_began_meanwhile_either() {
    let world = World::with_acme().await;
    let id = approved(&world).await;
    let (racing, store) = (Racing::new(&world, Meanwhile::Policy(job_on(&world))), &world.store);
    let provision = ProvisionInstance {
        organisations: store,
        instances: store,
        policies: store,
        make: racing.make(),
        clock: &world.clock,
        settings: world.settings(),
    };
    let waits = provision.run(id, correlation()).await;
    assert!(matches!(waits, Err(WorkError::NotNow { .. })), "{waits:?}");
    assert!(world.store.data_keys(id).await.unwrap().is_empty());
}

#[tokio::test]
async fn i6_an_instance_whose_policy_changes_while_it_is_provisioned_has_its_data_key_all_the_same() {
    let world = World::with_acme().await;
    let id = approved(&world).await;
    let (racing, store) = (Racing::new(&world, Meanwhile::AnyDecision), &world.store);
    let provision = ProvisionInstance {
        organisations: store,
        instances: store,
        policies: store,
        make: racing.make(),
        clock: &world.clock,
        settings: world.settings(),
    };
    provision.run(id, correlation()).await.unwrap();
    let activated = world.store.instance(id).await.unwrap().unwrap();
    assert!(matches!(activated.status, InstanceStatus::Active { .. }));
    assert_eq!(world.store.data_keys(id).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a10_each_version_is_a_day_apart_however_often_it_is_asked_for() {
    let world = World::with_acme().await;
    for hour in 0..(5 * 24) {
        world.later(60 * 60);
        let current = world.asks_for_key().await.unwrap();
        world.asks_for_newer(current.version).await.unwrap();
        for wanted in world.store.take_asked_for_newer() {
            world.makes_newer(&wanted).await.unwrap();
        }
        let age = world.now().duration_since(world.asks_for_key().await.unwrap().created_at);
        assert!(age <= SignedDuration::from_hours(25), "hour {hour}");
    }
    assert_eq!(versions(&world).await.len(), 6);
}
