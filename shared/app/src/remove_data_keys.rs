//! Removes the data keys of former generations that no backup needs any more (spec X4), a page of instances a message. It can
//! be broken off anywhere: what is there is removed, what is gone is passed over, and one pass is enough, because nobody makes
//! a data key of a former generation.

use std::collections::BTreeMap;

use claviger_domain::closing::ClosingStage;
use claviger_domain::data_keys::FormerDataKeys;
use claviger_domain::decide::{Refusal, decide};
use claviger_domain::effect::{Effect, OutboxRow};
use claviger_domain::event::{Actor, Origin, PolicyEvent};
use claviger_domain::instance::AppInstance;
use claviger_domain::policy::{EncryptionPolicy, Lifecycle};
use jiff::SignedDuration;

use crate::carry_reencryption::has_data_keys;
use crate::error::{ATTEMPTS, WorkError};
use crate::messages::{ErasurePage, ErasureStep};
use crate::ports::{Clock, DataKeyRegistry, DataKeyRemoval, FanOutQueue, Instances, Policies, StoreError};
use crate::settings::Settings;

/// How many instances one message handles.
const PAGE: u16 = 50;

/// Removes data keys of former generations.
pub struct RemoveDataKeys<'a> {
    /// Where policies are.
    pub policies: &'a dyn Policies,
    /// Where instances are.
    pub instances: &'a dyn Instances,
    /// Where wrapped data keys are.
    pub registry: &'a dyn DataKeyRegistry,
    /// What says that they go.
    pub removal: &'a dyn DataKeyRemoval,
    /// Where the next page waits.
    pub queue: &'a dyn FanOutQueue,
    /// The time.
    pub clock: &'a dyn Clock,
    /// Deploy parameters.
    pub settings: &'a Settings,
}

impl RemoveDataKeys<'_> {
    /// Begins with the first page.
    ///
    /// # Errors
    /// As [`RemoveDataKeys::page`].
    pub async fn run(&self, row: &OutboxRow) -> Result<(), WorkError> {
        let step = ErasureStep::Erase { clean: true };
        self.page(&ErasurePage { row: row.clone(), step, cursor: None }).await
    }

    /// Handles one page.
    ///
    /// # Errors
    /// When the store or the queue failed, or somebody was at the same data key: to be tried again. When an instance has no
    /// newer data key: never to be right, so somebody has to look.
    pub async fn page(&self, page: &ErasurePage) -> Result<(), WorkError> {
        let Effect::RemoveDataKeys { generation } = page.row.effect else {
            return Err(WorkError::NotThere { what: "data keys to remove" });
        };
        if self.removing(&page.row, generation).await?.is_none() {
            return Ok(());
        }
        let found = self.instances.instances(&page.row.organisation, page.cursor.as_deref(), PAGE).await?;
        // One that is being erased loses all of them by an order of its own.
        for instance in found.items.iter().filter(|instance| has_data_keys(instance)) {
            self.of_instance(instance, generation).await?;
        }
        if let Some(cursor) = found.next {
            let next = ErasurePage { cursor: Some(cursor), ..page.clone() };
            return Ok(self.queue.queue_erasure(&next, SignedDuration::ZERO).await?);
        }
        self.settle(&page.row, generation).await
    }

    async fn of_instance(&self, instance: &AppInstance, generation: u64) -> Result<(), WorkError> {
        let keys = self.registry.data_keys(instance.id).await?;
        let mut newest: BTreeMap<&str, u64> = BTreeMap::new();
        for key in &keys {
            let of = newest.entry(&key.purpose).or_default();
            *of = key.generation.max(*of);
        }
        for key in keys.iter().filter(|key| key.generation <= generation) {
            // INVARIANT (I6): the job that moved the records made a newer one for each; without, it did not.
            if newest.get(key.purpose.as_str()).is_none_or(|newest| *newest <= generation) {
                return Err(WorkError::NotThere { what: "a newer data key of the app instance" });
            }
            self.removal.remove_former(&instance.organisation_name, key).await?;
        }
        Ok(())
    }

    /// The policy while these data keys are being removed; none when this is not wanted, or done. Of an organisation that
    /// leaves, all of them are erased by another order.
    async fn removing(
        &self,
        row: &OutboxRow,
        generation: u64,
    ) -> Result<Option<EncryptionPolicy>, WorkError> {
        let policy = self.policies.policy(&row.organisation).await?;
        let policy = policy.ok_or(WorkError::NotThere { what: "the encryption policy" })?;
        let of = policy.former_keys.iter().find(|former| former.generation == generation);
        let removing = matches!(of.map(|former| former.data_keys), Some(FormerDataKeys::Removing { .. }));
        let erased = matches!(policy.lifecycle, Lifecycle::Closed { .. })
            || policy.closing.as_ref().is_some_and(|it| matches!(it.stage, ClosingStage::Erasing { .. }));
        Ok((policy.id == row.policy && removing && !erased).then_some(policy))
    }

    async fn settle(&self, row: &OutboxRow, generation: u64) -> Result<(), WorkError> {
        let actor = Actor::Claviger("provisioner".to_owned());
        let origin = Origin { actor, correlation: row.correlation };
        let event = PolicyEvent::DataKeysRemoved { generation };
        for _ in 0..ATTEMPTS {
            let Some(policy) = self.removing(row, generation).await? else {
                return Ok(());
            };
            let decision = match decide(&self.settings.rules(), &policy, &event, &origin, self.clock.now()) {
                Ok(decision) => decision,
                Err(Refusal::Redundant) => return Ok(()),
                Err(other) => return Err(other.into()),
            };
            match self.policies.commit_policy(Some(&policy), &decision).await {
                Err(StoreError::Conflict) => {}
                other => return Ok(other?),
            }
        }
        Err(StoreError::Conflict.into())
    }
}
