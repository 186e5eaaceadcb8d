//! Gives an approved app instance its first data key and activates it.

use claviger_domain::decide::Refusal;
use claviger_domain::event::{Actor, InstanceEvent, Origin};
use claviger_domain::ids::{CorrelationId, InstanceId};
use claviger_domain::instance::{AppInstance, InstanceStatus, decide_instance};
use claviger_domain::organisation::Organisation;
use claviger_domain::policy::{EncryptionPolicy, Lifecycle};
use claviger_domain::values::App;
use jiff::Timestamp;

use crate::error::{ATTEMPTS, WorkError};
use crate::make_data_key::{MakeDataKey, PURPOSE_RECORDS, may_make_data_keys};
use crate::ports::{Clock, DataKeyChoice, Instances, Organisations, Policies, StoreError, WrappedDataKey};
use crate::request_instance::app_allows;
use crate::settings::Settings;

/// Provisions an instance.
pub struct ProvisionInstance<'a> {
    /// Where organisations are.
    pub organisations: &'a dyn Organisations,
    /// Where instances are.
    pub instances: &'a dyn Instances,
    /// Where policies are.
    pub policies: &'a dyn Policies,
    /// How data keys are made.
    pub make: MakeDataKey<'a>,
    /// The time.
    pub clock: &'a dyn Clock,
    /// Deploy parameters.
    pub settings: &'a Settings,
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
            // Nothing is made for an organisation that left, however often the message comes.
            if matches!(policy.lifecycle, Lifecycle::Closed { .. }) {
                return Ok(());
            }
            let organisation = self.organisations.organisation(&instance.organisation_name).await?;
            let organisation = organisation.ok_or(WorkError::NotThere { what: "the organisation" })?;
            self.still_allowed(&organisation, &instance.app)?;
            may_provision(&policy, self.clock.now())?;
            match self.ensure_data_key(&instance, &policy).await {
                // Another delivery of the same message was faster, or the policy or the instance changed meanwhile.
                Err(WorkError::Store(StoreError::Conflict)) => continue,
                other => other?,
            }
            // A data key that was made under keys which are not the policy's any more is seen to by the next delivery.
            let after = self.policies.policy(&instance.organisation_name).await?;
            if after.as_ref().is_none_or(|after| after.generation != policy.generation) {
                return Err(WorkError::NotNow { reason: "the policy got new keys meanwhile" });
            }
            may_provision(after.as_ref().unwrap_or(&policy), self.clock.now())?;
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

    /// What support's approval asked of the customer records is asked again: weeks may lie between the two (spec E1).
    /// When they allow it again, the next delivery provisions.
    fn still_allowed(&self, organisation: &Organisation, app: &App) -> Result<(), WorkError> {
        app_allows(organisation, app, self.settings)
            .map_err(|_| WorkError::NotNow { reason: "the app's plan does not include encryption any more" })
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
        let known = self.make.registry.data_key(instance.id, PURPOSE_RECORDS, DataKeyChoice::Current).await?;
        // One that was made just before the policy got new keys is no good any more; nobody was ever given it.
        let ours = |known: &WrappedDataKey| known.is_under(policy.keys.values().map(|key| &key.arn));
        if known.as_ref().is_some_and(ours) {
            return Ok(());
        }
        let version = known.map_or(1, |known| known.version.saturating_add(1));
        self.make.run(instance, policy, version).await
    }
}

/// What was approved may have been overtaken: an organisation that leaves, or has not given a permission, gets no new
/// apps (spec K1). When it stays, or gives it, the next delivery provisions them.
fn may_provision(policy: &EncryptionPolicy, now: Timestamp) -> Result<(), WorkError> {
    if policy.closing.is_some() {
        return Err(WorkError::NotNow { reason: "the organisation is closing" });
    }
    if policy.held_back_by(now).is_some() {
        return Err(WorkError::NotNow { reason: "an access request is not accepted" });
    }
    may_make_data_keys(policy)
}
