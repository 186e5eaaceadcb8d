//! An order that was under way when the next one overtook it (spec R9).

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use claviger_app::add_instance_directly::AddInstanceDirectly;
use claviger_app::fan_out::CarryOrder;
use claviger_app::messages::FanOut;
use claviger_app::ports::{Instances, Policies, StoreError};
use claviger_domain::decide::Decision;
use claviger_domain::effect::{Effect, Order};
use claviger_domain::fence::Epoch;
use claviger_domain::ids::PolicyId;
use claviger_domain::instance::AppInstance;
use claviger_domain::policy::EncryptionPolicy;
use claviger_domain::values::{AccountId, OrganisationName};
use claviger_testkit::builders;
use futures_util::FutureExt;

use crate::world::{DISABLED, World};

/// Policies as somebody reads them whom others overtake before he goes on.
struct Overtaken<'a> {
    world: &'a World,
    /// What was read before.
    read: Option<EncryptionPolicy>,
    /// Whether access is restored right after the next reading.
    restored_next: AtomicBool,
}

#[async_trait]
impl Policies for Overtaken<'_> {
    async fn policy(&self, organisation: &OrganisationName) -> Result<Option<EncryptionPolicy>, StoreError> {
        if let Some(read) = &self.read {
            return Ok(Some(read.clone()));
        }
        let read = self.world.store.policy(organisation).await;
        if self.restored_next.swap(false, Ordering::SeqCst) {
            self.world.restore().now_or_never().unwrap();
        }
        read
    }

    async fn policy_by_id(&self, id: PolicyId) -> Result<Option<EncryptionPolicy>, StoreError> {
        self.world.store.policy_by_id(id).await
    }

    async fn commit_policy(
        &self,
        previous: Option<&EncryptionPolicy>,
        decision: &Decision,
    ) -> Result<(), StoreError> {
        self.world.store.commit_policy(previous, decision).await
    }

    async fn organisations_of_account(
        &self,
        account: &AccountId,
    ) -> Result<Vec<OrganisationName>, StoreError> {
        self.world.store.organisations_of_account(account).await
    }
}

async fn adds(world: &World, policies: &dyn Policies, app: &str) -> AppInstance {
    let add = AddInstanceDirectly {
        policies,
        instances: &world.store,
        ids: &world.ids,
        clock: &world.clock,
        settings: world.settings(),
    };
    let (organisation, site) = (builders::an_organisation("acme"), builders::parsed("acme-eng"));
    add.run(&organisation, &site, &builders::parsed(app), &builders::by_system()).await.unwrap().0
}

async fn stands(world: &World, instance: &AppInstance) -> (&'static str, Epoch) {
    let instance = world.store.instance(instance.id).await.unwrap().unwrap();
    (instance.status.slug(), instance.epoch)
}

#[tokio::test]
async fn r9_a_page_of_a_suspension_that_was_overtaken_by_the_restoration_stops_no_unencrypted_sibling() {
    let world = World::with_acme().await;
    let early = adds(&world, &world.store, "jira-product-discovery").await;
    world.keys_answer(DISABLED);
    world.sweep().await.unwrap();
    for row in world.store.outbox() {
        world.deliver().run(&row).await.unwrap();
    }
    let orders = world.store.take_published_effects();
    let found = orders.iter().find_map(|row| match row.effect {
        Effect::SuspendInstances { epoch } => Some(FanOut::root(row, epoch)),
        _ => None,
    });
    // It has read the policy, and stalls.
    let (page, read) = (found.unwrap(), world.policy().await);
    world.later(60);
    world.restore().await;
    let late = adds(&world, &world.store, "jira-service-management").await;
    let overtaken = Overtaken { world: &world, read: Some(read), restored_next: AtomicBool::new(false) };
    let carry = CarryOrder {
        policies: &overtaken,
        instances: &world.store,
        queue: &world.store,
        clock: &world.clock,
        settings: world.settings(),
    };
    world.store.take_published_orders();
    // What it commits at last meets the policy as it is.
    carry.run(Order::Suspend, &page).await.unwrap_err();
    world.drain().await;
    assert_eq!(stands(&world, &early).await, ("not-encrypted", Epoch(2)));
    assert_eq!(stands(&world, &late).await, ("not-encrypted", Epoch(2)));
    assert!(world.store.take_published_orders().is_empty(), "no app is told anything");
    // The next cut-off stops both as ever.
    world.cut_off().await;
    assert_eq!(stands(&world, &early).await, ("suspended", Epoch(3)));
    assert_eq!(stands(&world, &late).await, ("suspended", Epoch(3)));
}

#[tokio::test]
async fn r9_an_app_that_is_added_while_access_is_restored_is_not_stopped_by_the_cut_off_before() {
    let world = World::with_acme().await;
    world.cut_off().await;
    let overtaken = Overtaken { world: &world, read: None, restored_next: AtomicBool::new(true) };
    let added = adds(&world, &overtaken, "jira-product-discovery").await;
    world.drain().await;
    assert_eq!(stands(&world, &added).await, ("not-encrypted", Epoch(2)));
    assert_eq!((added.status.slug(), added.epoch), ("not-encrypted", Epoch(2)));
}

#[tokio::test]
async fn a6_an_app_whose_adding_broke_off_before_it_was_stopped_is_stopped_when_it_is_told_again() {
    let world = World::with_acme().await;
    world.cut_off().await;
    let mut half = builders::an_active_instance(
        &world.policy().await,
        "acme-eng",
        "jira-product-discovery",
        world.now(),
    );
    (half.policy, half.realm, half.epoch) = (None, None, Epoch::default());
    half.status =
        claviger_domain::instance::InstanceStatus::NotEncrypted { since: world.now(), suspended_since: None };
    world.store.seed_instance(half.clone());
    let again = adds(&world, &world.store, "jira-product-discovery").await;
    assert_eq!((again.id, again.status.slug(), again.epoch), (half.id, "suspended", Epoch(1)));
}
