//! Gives an approved app instance its first data key and activates it.

use std::collections::BTreeMap;

use claviger_domain::decide::Refusal;
use claviger_domain::event::{Actor, InstanceEvent, Origin};
use claviger_domain::ids::{CorrelationId, DataKeyId, InstanceId};
use claviger_domain::instance::{AppInstance, InstanceStatus, decide_instance};
use claviger_domain::policy::{EncryptionPolicy, Lifecycle, PURPOSE_DATA_KEY};

use crate::error::{ATTEMPTS, WorkError};
use crate::ports::{
    Clock, CustomerKeys, DataKeyRegistry, Ids, Instances, KeyRef, Policies, StoreError, Wrap, WrappedDataKey,
};

/// The one purpose of data keys so far.
pub const PURPOSE_RECORDS: &str = "records";

/// Provisions an instance.
pub struct ProvisionInstance<'a> {
    /// Where instances are.
    pub instances: &'a dyn Instances,
    /// Where policies are.
    pub policies: &'a dyn Policies,
    /// Where wrapped data keys are.
    pub registry: &'a dyn DataKeyRegistry,
    /// The customers' keys.
    pub keys: &'a dyn CustomerKeys,
    /// Randomness.
    pub ids: &'a dyn Ids,
    /// The time.
    pub clock: &'a dyn Clock,
}

impl ProvisionInstance<'_> {
    /// Provisions the instance. One that is not waiting for it is left alone.
    ///
    /// # Errors
    /// When the organisation cannot be worked for now, a key gave no answer, or the store failed: to be
    /// tried again.
    pub async fn run(&self, id: InstanceId, correlation: CorrelationId) -> Result<(), WorkError> {
        for _ in 0..ATTEMPTS {
            let instance = self.instances.instance(id).await?;
            let instance = instance.ok_or(WorkError::NotThere { what: "the app instance" })?;
            if !matches!(instance.status, InstanceStatus::Provisioning { .. }) {
                return Ok(());
            }
            let policy = self.policies.policy(&instance.organisation_name).await?;
            let policy = policy.ok_or(WorkError::NotThere { what: "the encryption policy" })?;
            may_make_data_keys(&policy)?;
            self.ensure_data_key(&instance, &policy).await?;
            // A data key that was made under keys which are not the policy's any more is seen to by the next delivery.
            let after = self.policies.policy(&instance.organisation_name).await?;
            if after.as_ref().is_none_or(|after| after.generation != policy.generation) {
                return Err(WorkError::NotNow { reason: "the policy got new keys meanwhile" });
            }
            may_make_data_keys(after.as_ref().unwrap_or(&policy))?;
            let event = InstanceEvent::InstanceProvisioned { epoch: policy.fence.epoch };
            let origin = Origin { actor: Actor::Claviger("provisioner".to_owned()), correlation };
            let decision = match decide_instance(&instance, &event, &origin, self.clock.now()) {
                Ok(decision) => decision,
                Err(Refusal::Redundant) => return Ok(()),
                Err(other) => return Err(other.into()),
            };
            match self.instances.commit_instance(Some(&instance), &decision).await {
                Err(StoreError::Conflict) => {}
                Err(other) => return Err(other.into()),
                Ok(()) => return self.catch_up(&decision.next, &origin).await,
            }
        }
        Err(StoreError::Conflict.into())
    }

    /// The fan-out of a cut-off passes over instances that are not active yet. One that was activated
    /// meanwhile is told here. The fence has cut it off already, so nothing hangs on this.
    async fn catch_up(&self, instance: &AppInstance, origin: &Origin) -> Result<(), WorkError> {
        let policy = self.policies.policy(&instance.organisation_name).await?;
        let Some(policy) = policy.filter(|policy| !policy.fence.is_open()) else {
            return Ok(());
        };
        let event = InstanceEvent::SuspensionOrdered { epoch: policy.fence.epoch };
        match decide_instance(instance, &event, origin, self.clock.now()) {
            Ok(decision) => match self.instances.commit_instance(Some(instance), &decision).await {
                // The fan-out was faster.
                Ok(()) | Err(StoreError::Conflict) => Ok(()),
                Err(other) => Err(other.into()),
            },
            Err(_) => Ok(()),
        }
    }

    async fn ensure_data_key(
        &self,
        instance: &AppInstance,
        policy: &EncryptionPolicy,
    ) -> Result<(), WorkError> {
        let known = self.current_data_key(instance).await?;
        // One that was made just before the policy got new keys is no good any more; nobody was ever given it.
        let ours = |known: &WrappedDataKey| known.is_under(policy.keys.values().map(|key| &key.arn));
        if known.as_ref().is_some_and(ours) {
            return Ok(());
        }
        let version = known.map_or(1, |known| known.version.saturating_add(1));
        let key = self.make_data_key(instance, policy, version).await?;
        match self.registry.add_data_key(&key).await {
            Ok(()) => Ok(()),
            // Another delivery of the same message was faster, if its key is there: that one is as good, and it stays.
            // Else somebody was at the same item and stored nothing.
            Err(StoreError::Conflict) => match self.current_data_key(instance).await? {
                Some(there) if ours(&there) => Ok(()),
                Some(_) | None => Err(StoreError::Conflict.into()),
            },
            Err(other) => Err(other.into()),
        }
    }

    async fn current_data_key(&self, instance: &AppInstance) -> Result<Option<WrappedDataKey>, StoreError> {
        self.registry.data_key(instance.id, PURPOSE_RECORDS, crate::ports::DataKeyChoice::Current).await
    }

    /// Makes a data key under the first regional key and wraps it under every other (spec A7).
    async fn make_data_key(
        &self,
        instance: &AppInstance,
        policy: &EncryptionPolicy,
        version: u32,
    ) -> Result<WrappedDataKey, WorkError> {
        let context = policy.encryption_context(PURPOSE_DATA_KEY, &instance.id.to_string());
        let mut regions = policy.keys.iter();
        let (first, key) = regions.next().ok_or(WorkError::NotThere { what: "the policy's first key" })?;
        let (plain, sealed) = self.keys.generate_data_key(KeyRef::of(policy, &key.arn), &context).await?;
        let now = self.clock.now();
        let mut wraps = BTreeMap::from([(first.clone(), Wrap::new(&key.arn, &sealed, now))]);
        for (region, key) in regions {
            let sealed = self.keys.encrypt(KeyRef::of(policy, &key.arn), &plain, &context).await?;
            wraps.insert(region.clone(), Wrap::new(&key.arn, &sealed, now));
        }
        Ok(WrappedDataKey {
            id: DataKeyId::from_uuid(self.ids.random()),
            instance: instance.id,
            purpose: PURPOSE_RECORDS.to_owned(),
            version,
            generation: policy.generation,
            created_at: now,
            wraps,
            second: BTreeMap::new(),
        })
    }
}

/// While a realm is degraded there are no new data keys: they could not be wrapped everywhere.
fn may_make_data_keys(policy: &EncryptionPolicy) -> Result<(), WorkError> {
    if !policy.fence.is_open() || !matches!(policy.lifecycle, Lifecycle::Active { .. }) {
        return Err(WorkError::NotNow { reason: "the organisation is not active" });
    }
    if policy.is_degraded() {
        return Err(WorkError::NotNow { reason: "a regional key refuses" });
    }
    // INVARIANT (I6): a data key that is made while others are prepared for new keys could be passed over.
    if policy.reencryption.as_ref().is_some_and(|job| !job.phase.is_switched()) {
        return Err(WorkError::NotNow { reason: "a re-encryption prepares the data keys" });
    }
    Ok(())
}
