//! A regional key is gone for good: access returns without it, and every data key moves to a new one (spec S2).

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use claviger_app::ports::{DataKeyRegistry, KeyRef, Policies, StoreError};
use claviger_domain::decide::decide;
use claviger_domain::event::PolicyEvent;
use claviger_domain::observation::{Observation, RefusalKind};
use claviger_domain::policy::PURPOSE_DATA_KEY;
use claviger_domain::values::KeyArn;
use claviger_testkit::builders;

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

    async fn asks_without(&self) {
        let policy = self.policy().await;
        let round = self.probe().round(&policy).await;
        let ticket = policy.ticket.unwrap();
        self.happens(PolicyEvent::RestorationRequested { ticket, round, into_degraded: true }).await;
    }

    fn new_key(&self) -> KeyArn {
        let key = builders::a_key("222222222222", DUBLIN, 2);
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
