//! A regional key is gone for good: access returns without it, and every data key moves to a new one (spec S2).

use std::sync::Mutex;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use claviger_app::messages::ProbeAnswer;
use claviger_app::ports::{Clock, DataKeyRegistry, KeyRef, Policies, StoreError};
use claviger_app::probe_keys::ProbeKeys;
use claviger_app::replace_key::ReplaceKey;
use claviger_app::unwrap_data_keys::UnwrapDataKeys;
use claviger_domain::decide::decide;
use claviger_domain::effect::Effect;
use claviger_domain::event::PolicyEvent;
use claviger_domain::observation::{Observation, RefusalKind};
use claviger_domain::policy::PURPOSE_DATA_KEY;
use claviger_domain::values::{KeyArn, Region};
use claviger_testkit::FakeClock;
use claviger_testkit::builders::{self, parsed};
use jiff::{SignedDuration, Timestamp};
use rstest::rstest;

use crate::newer_data_keys::{Meanwhile, Racing};
use crate::world::{DISABLED, USABLE, World};

const GONE: Observation = Observation::Refused(RefusalKind::KeyPendingDeletion);
const DUBLIN: &str = "eu-west-1";

impl World {
    /// Dublin's key is being deleted, Frankfurt's was disabled and is back.
    async fn with_a_lost_key() -> Self {
        let world = Self::with_acme().await;
        world.keys.answer(&world.key("eu-central-1"), DISABLED);
        world.keys.answer(&world.key(DUBLIN), GONE);
        world.sweep().await.unwrap();
        world.drain().await;
        assert!(!world.policy().await.fence.is_open());
        world.later(60);
        world.keys.answer(&world.key("eu-central-1"), USABLE);
        world
    }

    async fn happens(&self, event: PolicyEvent) {
        let policy = self.policy().await;
        let decision =
            decide(&builders::rules(), &policy, &event, &builders::by_admin(), self.now()).unwrap();
        self.store.commit_policy(Some(&policy), &decision).await.unwrap();
        self.later(1);
    }

    async fn wraps_in_dublin(&self) -> Vec<KeyArn> {
        let mut all = Vec::new();
        for instance in self.instances().await {
            for key in self.store.data_keys(instance.id).await.unwrap() {
                all.extend(key.wraps.get(&parsed::<Region>(DUBLIN)).map(|wrap| wrap.key.clone()));
            }
        }
        assert!(!all.is_empty());
        all
    }

    async fn asks_without(&self) {
        let policy = self.policy().await;
        let round = self.probe().round(&policy).await;
        let ticket = policy.ticket.unwrap();
        self.happens(PolicyEvent::RestorationRequested { ticket, round, into_degraded: true }).await;
    }

    fn new_key(&self) -> KeyArn {
        self.new_key_numbered(2)
    }

    fn new_key_numbered(&self, number: u32) -> KeyArn {
        let key = builders::a_key("222222222222", DUBLIN, number);
        self.keys.create(&key);
        self.keys.bind(&key, builders::an_organisation("acme").id);
        key
    }
}

#[tokio::test]
async fn s2_access_returns_without_a_lost_key_and_the_key_is_replaced() {
    let world = World::with_a_lost_key().await;
    world.asks_without().await;
    world.drain().await;
    let policy = world.policy().await;
    assert!(policy.fence.is_open() && policy.is_degraded());
    world.asks_for_key().await.unwrap();

    let new = world.new_key();
    world.later(60);
    world
        .happens(PolicyEvent::KeyReplacementAsked { region: builders::parsed(DUBLIN), key: new.clone() })
        .await;
    world.drain().await;
    let policy = world.policy().await;
    assert!(!policy.is_degraded());
    assert_eq!(policy.keys[&builders::parsed(DUBLIN)].arn, new);
    // INVARIANT (I6): every data key can be unwrapped under the new key alone.
    let instance = world.instances().await.remove(0);
    let context = policy.encryption_context(PURPOSE_DATA_KEY, &instance.id.to_string());
    let keys = world.store.data_keys(instance.id).await.unwrap();
    assert!(!keys.is_empty());
    for key in keys {
        let wrap = &key.wraps[&builders::parsed(DUBLIN)];
        assert_eq!(wrap.key, new);
        let sealed = BASE64_STANDARD.decode(&wrap.ciphertext).unwrap();
        assert_eq!(world.probe().unwrap(KeyRef::of(&policy, &new), &sealed, &context).await, USABLE);
    }
    world.later(60);
    world.sweep().await.unwrap();
    assert!(world.tickets().await.iter().all(|ticket| ticket.resolved_at.is_some()));
}

#[tokio::test]
async fn i6_a_key_that_is_not_to_take_the_place_any_more_gets_no_wrap_however_late_its_work_comes() {
    let world = World::with_a_lost_key().await;
    world.asks_without().await;
    world.drain().await;
    let (first, second) = (world.new_key(), world.new_key_numbered(3));
    let asked = |key: &KeyArn| PolicyEvent::KeyReplacementAsked { region: parsed(DUBLIN), key: key.clone() };
    let policy = world.policy().await;
    let decision =
        decide(&builders::rules(), &policy, &asked(&first), &builders::by_admin(), world.now()).unwrap();
    world.store.commit_policy(Some(&policy), &decision).await.unwrap();
    let mut rows = decision.outbox.iter();
    let row = rows.find(|row| matches!(row.effect, Effect::ReplaceKey { .. })).unwrap();

    // The other one is named when the first data key is about to be stored under this one.
    let meanwhile = Mutex::new(Some(Meanwhile::Policy(asked(&second))));
    let racing = Racing { world: &world, meanwhile };
    let replace = ReplaceKey {
        policies: &world.store,
        instances: &world.store,
        registry: &racing,
        keys: &world.keys,
        probe: world.probe(),
        queue: &world.store,
        ids: &world.ids,
        clock: &world.clock,
        settings: world.settings(),
    };
    replace.run(row).await.unwrap();
    assert!(racing.meanwhile.lock().unwrap().is_none(), "it came to that");
    assert_eq!(world.wraps_in_dublin().await.iter().filter(|key| **key == first).count(), 0);
    world.drain().await;
    assert_eq!(world.policy().await.keys[&parsed(DUBLIN)].arn, second);
    assert!(world.wraps_in_dublin().await.iter().all(|key| *key == second));
}

/// A decision of another kind costs a second look, and no delivery.
#[tokio::test]
async fn s2_a_replacement_goes_on_beside_decisions_that_do_not_hinder_it() {
    let world = World::with_a_lost_key().await;
    world.asks_without().await;
    world.drain().await;
    let new = world.new_key();
    let region: Region = parsed(DUBLIN);
    world.happens(PolicyEvent::KeyReplacementAsked { region: region.clone(), key: new.clone() }).await;
    world.store.fail_changes([StoreError::Conflict]);
    world.drain().await;
    assert_eq!(world.policy().await.keys[&region].arn, new);
}

#[tokio::test]
async fn i5_a_data_key_that_only_the_lost_key_wraps_keeps_the_fence_closed() {
    let world = World::with_a_lost_key().await;
    let instance = world.instances().await.remove(0);
    let known = world.store.data_keys(instance.id).await.unwrap().remove(0);
    let mut poorer = known.clone();
    poorer.wraps.remove(&builders::parsed("eu-central-1"));
    world.store.rewrap_data_key(&known, &poorer).await.unwrap();
    world.asks_without().await;
    world.drain().await;
    assert_eq!(world.policy().await.lifecycle.slug(), "suspended");
}

#[tokio::test]
async fn x3_a_replacement_that_is_broken_off_anywhere_is_finished_by_the_next_delivery() {
    let world = World::with_a_lost_key().await;
    world.asks_without().await;
    world.drain().await;
    let new = world.new_key();
    world.later(60);
    world
        .happens(PolicyEvent::KeyReplacementAsked { region: builders::parsed(DUBLIN), key: new.clone() })
        .await;
    world.store.fail_changes([
        StoreError::Unavailable { reason: "test".to_owned() },
        StoreError::Conflict,
        StoreError::Unavailable { reason: "test".to_owned() },
    ]);
    world
        .keys
        .answer_next(&new, [Observation::NoAnswer(claviger_domain::observation::NoAnswerKind::Throttled)]);
    world.drain().await;
    assert_eq!(world.policy().await.keys[&builders::parsed(DUBLIN)].arn, new);
    assert!(!world.policy().await.is_degraded());
}

/// A clock on which so much passes between two looks at it.
struct Passing<'a>(&'a FakeClock, SignedDuration);

impl Clock for Passing<'_> {
    fn now(&self) -> Timestamp {
        self.0.advance(self.1)
    }
}

#[rstest]
#[case::in_no_time(0, 1)]
#[case::some_at_a_time(6, 2)]
#[case::never_in_time(60, 4)]
#[tokio::test]
async fn s2_data_keys_that_take_long_to_unwrap_are_proven_in_several_calls_each_of_which_gets_on(
    #[case] seconds: i64,
    #[case] calls: usize,
) {
    let world = World::with_acme().await;
    let policy = world.policy().await;
    // What is there besides has no data keys, and takes its time all the same.
    for number in 0..27 {
        let site = format!("acme-{number}");
        world.store.seed_instance(builders::an_active_instance(&policy, &site, "jira", world.now()));
    }
    let clock = Passing(&world.clock, SignedDuration::from_secs(seconds));
    let store = &world.store;
    let probe = ProbeKeys { keys: &world.keys, controls: &world.keys, registry: store, clock: &clock };
    let unwrap = UnwrapDataKeys { probe, policies: store, instances: store, registry: store };
    let (mut cursor, mut unwrapped, mut made) = (None::<String>, 0, 0);
    loop {
        made += 1;
        let answer = unwrap.run(&world.name(), &parsed(DUBLIN), cursor.as_deref()).await.unwrap();
        let ProbeAnswer::Unwrapped { data_keys, next, fault: None } = answer else { panic!("{answer:?}") };
        unwrapped += data_keys;
        assert!(next.is_none() || next != cursor, "it gets on");
        cursor = next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!((unwrapped, made), (1, calls), "every data key, once");
}
