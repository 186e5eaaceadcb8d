//! The broker's answer to an app that needs a data key: gate, entitlement, unwrap, with an end.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use claviger_domain::fence::Epoch;
use claviger_domain::ids::{CorrelationId, DataKeyId, InstanceId, OrganisationId, PolicyId};
use claviger_domain::instance::{AppInstance, InstanceStatus};
use claviger_domain::key_access::KeyAccess;
use claviger_domain::observation::{Observation, RefusedUnwrap};
use claviger_domain::policy::{EncryptionPolicy, Lifecycle, PURPOSE_DATA_KEY};
use claviger_domain::values::{App, OrganisationName, Region, ShardId, SiteName};
use jiff::{SignedDuration, Timestamp};

use crate::explain_refusal::reached_kms;
use crate::make_data_key::{PURPOSE_RECORDS, may_make_data_keys};
use crate::messages::{NewerDataKey, ProbeMessage};
use crate::ports::{
    Clock, CustomerKeys, DataKeyChoice, DataKeyRegistry, Ids, Instances, KeyError, KeyRef, NewerDataKeys,
    Policies, ProbeQueue, StoreError, WrappedDataKey,
};
use crate::settings::Settings;
use crate::unwrapped_keys::RawKey;
pub use crate::unwrapped_keys::UnwrappedKeys;

/// How long an app may use a data key before it asks again, at most.
pub const NOT_AFTER: SignedDuration = SignedDuration::from_mins(5);

/// How long an answer may rest on one reading of the gate. An unwrap takes longer than that when KMS is slow or others
/// are waited for.
const GATE_HOLDS: SignedDuration = SignedDuration::from_secs(1);

/// Why an app got no data key.
#[derive(Debug, thiserror::Error)]
pub enum HandOutError {
    /// There is no such instance or data key, or the caller is not entitled to it.
    #[error("there is no such instance, or the caller is not entitled to it")]
    NotFound,
    /// The organisation is cut off. Ends by its org admin's doing.
    #[error("the organisation is suspended")]
    Suspended,
    /// No answer now; it heals by itself.
    #[error("temporarily unavailable: {reason}")]
    Unavailable {
        /// Why.
        reason: String,
    },
}

impl From<StoreError> for HandOutError {
    fn from(error: StoreError) -> Self {
        Self::Unavailable { reason: error.to_string() }
    }
}

/// Who asks for which data key.
#[derive(Debug, Clone)]
pub struct KeyRequest {
    /// The role ARN of the app that calls.
    pub caller_role: String,
    /// Whose data.
    pub organisation: OrganisationName,
    /// On which site.
    pub site: SiteName,
    /// Of which app.
    pub app: App,
    /// Which data key.
    pub choice: DataKeyChoice,
    /// The version that the app has used for long or often: if it is current, a newer one is to be made.
    pub newer_than: Option<u32>,
}

/// A data key in the clear, for one answer.
pub struct HandedOut {
    /// Under which policy.
    pub policy: PolicyId,
    /// Whose.
    pub organisation: OrganisationId,
    /// Of which instance.
    pub instance: InstanceId,
    /// Where its keys are swept.
    pub shard: ShardId,
    /// The policy's epoch.
    pub epoch: Epoch,
    /// Generation of the keys that wrap it.
    pub generation: u64,
    /// Its identifier.
    pub id: DataKeyId,
    /// Its version.
    pub version: u32,
    /// Whether it is the newest.
    pub current: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// The key.
    pub key: RawKey,
    /// The app may not use it afterwards.
    pub not_after: Timestamp,
    /// Until when the unwrap counts as a proof that the customer allows it.
    pub proven_until: Timestamp,
    /// KMS calls that this answer cost.
    pub kms_calls: u32,
}

/// Hands data keys out.
pub struct HandOutDataKey<'a> {
    /// Where policies are.
    pub policies: &'a dyn Policies,
    /// Where instances are.
    pub instances: &'a dyn Instances,
    /// Where wrapped data keys are.
    pub registry: &'a dyn DataKeyRegistry,
    /// The customers' keys.
    pub keys: &'a dyn CustomerKeys,
    /// Where hints go.
    pub hints: &'a dyn ProbeQueue,
    /// Where newer data keys are asked for.
    pub newer: &'a dyn NewerDataKeys,
    /// Unwrapped keys of this process.
    pub cache: &'a UnwrappedKeys,
    /// How long they are kept.
    pub lifetime: SignedDuration,
    /// The region this function runs in: unwrapped there first.
    pub home: &'a Region,
    /// Randomness.
    pub ids: &'a dyn Ids,
    /// The time.
    pub clock: &'a dyn Clock,
    /// Deploy parameters.
    pub settings: &'a Settings,
}

impl HandOutDataKey<'_> {
    /// Answers one request.
    ///
    /// # Errors
    /// Typed for the app: not found, suspended, or temporarily unavailable.
    pub async fn run(&self, request: &KeyRequest) -> Result<HandedOut, HandOutError> {
        let instance = self.entitled(request).await?;
        let started_at = self.clock.now();
        // INVARIANT (I1): the gate is a consistent read of the policy itself, on every answer, before
        // anything is unwrapped or taken from the cache, and again before the answer if that took its time.
        let policy = self.policies.policy(&request.organisation).await?;
        let policy = policy.ok_or(HandOutError::NotFound)?;
        gate(&policy)?;
        let current = self.current(&policy, instance.id).await?;
        let current_id = current.id;
        let wrapped = match request.choice {
            DataKeyChoice::Current => current,
            choice if choice == DataKeyChoice::Id(current_id) => current,
            choice => {
                let found = self.registry.data_key(instance.id, PURPOSE_RECORDS, choice).await?;
                let found = found.filter(|found| found.generation <= policy.generation);
                found.ok_or(HandOutError::NotFound)?
            }
        };
        let (key, unwrapped_at, kms_calls) = self.unwrapped(&policy, &instance, &wrapped).await?;
        self.still_open(&policy, started_at).await?;
        if wrapped.id == current_id && request.newer_than == Some(wrapped.version) {
            self.ask_for_newer(&policy, &wrapped, started_at);
        }
        Ok(HandedOut {
            policy: policy.id,
            organisation: policy.organisation,
            instance: instance.id,
            shard: policy.shard,
            epoch: policy.fence.epoch,
            generation: wrapped.generation,
            id: wrapped.id,
            version: wrapped.version,
            current: wrapped.id == current_id,
            created_at: wrapped.created_at,
            key,
            not_after: started_at + NOT_AFTER,
            proven_until: self.proven_until(&policy, unwrapped_at),
            kms_calls,
        })
    }

    /// INVARIANT (I1): nothing is handed out long after the cut-off, however long the unwrap took.
    async fn still_open(&self, policy: &EncryptionPolicy, read_at: Timestamp) -> Result<(), HandOutError> {
        if self.clock.now().duration_since(read_at).abs() <= GATE_HOLDS {
            return Ok(());
        }
        let now = self.policies.policy(&policy.organisation_name).await?.ok_or(HandOutError::NotFound)?;
        gate(&now)?;
        if now.id != policy.id || now.fence.epoch != policy.fence.epoch {
            return Err(HandOutError::Unavailable { reason: "the fence changed meanwhile".to_owned() });
        }
        Ok(())
    }

    /// The newest version that the policy's keys may hand out. A re-encryption makes the next one beforehand, under
    /// keys that the policy gets only at its switch.
    async fn current(
        &self,
        policy: &EncryptionPolicy,
        instance: InstanceId,
    ) -> Result<WrappedDataKey, HandOutError> {
        let newest = self.registry.data_key(instance, PURPOSE_RECORDS, DataKeyChoice::Current).await?;
        let newest = newest.ok_or(HandOutError::NotFound)?;
        if newest.generation <= policy.generation {
            return Ok(newest);
        }
        let all = self.registry.data_keys(instance).await?;
        let ours = all
            .into_iter()
            .filter(|key| key.purpose == PURPOSE_RECORDS && key.generation <= policy.generation);
        ours.max_by_key(|key| key.version).ok_or(HandOutError::NotFound)
    }

    /// Has a newer version made, where the provisioner would make one. It looks for itself: this spares messages.
    fn ask_for_newer(&self, policy: &EncryptionPolicy, used: &WrappedDataKey, now: Timestamp) {
        let old_enough = now.duration_since(used.created_at) >= self.settings.data_key_least_age;
        if !old_enough || may_make_data_keys(policy).is_err() || !self.cache.may_ask_for_newer(used.id, now) {
            return;
        }
        self.newer.ask_for_newer(NewerDataKey {
            instance: used.instance,
            newer_than: used.version,
            correlation: CorrelationId::from_uuid(self.ids.random()),
        });
    }

    /// Until when the unwrap proves that the customer lets us. Through a kept session of its role it proves nothing:
    /// the role may have stopped trusting us since.
    fn proven_until(&self, policy: &EncryptionPolicy, unwrapped_at: Timestamp) -> Timestamp {
        match policy.access {
            KeyAccess::KeyPolicy => unwrapped_at + self.settings.proof_reuse,
            KeyAccess::Role(_) => unwrapped_at,
        }
    }

    async fn entitled(&self, request: &KeyRequest) -> Result<AppInstance, HandOutError> {
        let apps = self.settings.app_roles.get(&request.caller_role);
        if !apps.is_some_and(|apps| apps.contains(&request.app)) {
            return Err(HandOutError::NotFound);
        }
        let instance = self.instances.instance_at(&request.site, &request.app).await?;
        let instance = instance.filter(|found| found.organisation_name == request.organisation);
        match instance {
            Some(instance) => match instance.status {
                // The policy's gate says whether it is suspended; an order that is still on its way to
                // the instance must not keep a restored organisation out.
                InstanceStatus::Active { .. } | InstanceStatus::Suspended { .. } => Ok(instance),
                InstanceStatus::Requested { .. }
                | InstanceStatus::Provisioning { .. }
                | InstanceStatus::NotEncrypted { .. }
                | InstanceStatus::Rejected { .. }
                | InstanceStatus::Erasing { .. }
                | InstanceStatus::Deleted { .. } => Err(HandOutError::NotFound),
            },
            None => Err(HandOutError::NotFound),
        }
    }

    async fn unwrapped(
        &self,
        policy: &EncryptionPolicy,
        instance: &AppInstance,
        wrapped: &WrappedDataKey,
    ) -> Result<(RawKey, Timestamp, u32), HandOutError> {
        let context = policy.encryption_context(PURPOSE_DATA_KEY, &instance.id.to_string());
        let (mut calls, mut refused_at) = (0_u32, None);
        let unwrap = async || {
            let mut failed: Option<KeyError> = None;
            for wrap in self.nearest_first(policy, wrapped) {
                let Ok(sealed) = BASE64_STANDARD.decode(&wrap.ciphertext) else {
                    return Err(HandOutError::Unavailable { reason: "a wrap cannot be read".to_owned() });
                };
                let at = self.clock.now();
                match self.keys.decrypt(KeyRef::of(policy, &wrap.key), &sealed, &context).await {
                    Ok(plain) => {
                        calls = calls.saturating_add(1);
                        return Ok((plain, at));
                    }
                    Err(error) => {
                        calls = calls.saturating_add(u32::from(reached_kms(error.observation)));
                        if matches!(error.observation, Observation::Refused(_)) {
                            refused_at = Some(at);
                        }
                        failed = Some(error);
                    }
                }
            }
            let reason = failed.map_or_else(|| "the data key has no wrap".to_owned(), |error| error.code);
            Err(HandOutError::Unavailable { reason })
        };
        let epoch = policy.fence.epoch;
        let unwrapped =
            self.cache.get_or_unwrap(wrapped.id, epoch, || self.clock.now(), self.lifetime, unwrap).await;
        // Not before every region was tried, nor while others wait for this data key: a queue may take its time.
        if refused_at.is_some_and(|at| self.cache.may_hint(policy.id, at)) {
            self.hint(&policy.organisation_name, instance.id, wrapped.id).await;
        }
        let (key, at) = unwrapped?;
        Ok((key, at, calls))
    }

    /// INVARIANT (I1, X3): the wraps under the policy's own keys, and no others: before the switch of a re-encryption
    /// not the new ones, afterwards not the old ones.
    fn nearest_first<'w>(
        &self,
        policy: &'w EncryptionPolicy,
        wrapped: &'w WrappedDataKey,
    ) -> impl Iterator<Item = &'w crate::ports::Wrap> {
        let mut regions: Vec<_> = policy.keys.iter().collect();
        regions.sort_by_key(|(region, _)| *region != self.home);
        regions.into_iter().filter_map(|(_, key)| wrapped.wrap_under(&key.arn))
    }

    /// Tells the prober that an unwrap was refused. Losing the hint costs nothing but time.
    async fn hint(&self, organisation: &OrganisationName, instance: InstanceId, key: DataKeyId) {
        let probe = ProbeMessage::Probe {
            organisation: organisation.clone(),
            attempt: 0,
            data_key: Some(RefusedUnwrap { instance, data_key: key }),
            heard: Vec::new(),
            correlation: CorrelationId::from_uuid(self.ids.random()),
        };
        if let Err(error) = self.hints.queue_probes(&[(probe, SignedDuration::ZERO)]).await {
            tracing::warn!(%error, "a hint to the prober was lost");
        }
    }
}

/// Whether a policy's keys may be used at all.
pub(crate) fn gate(policy: &EncryptionPolicy) -> Result<(), HandOutError> {
    if !policy.fence.is_open() {
        return Err(HandOutError::Suspended);
    }
    match policy.lifecycle {
        Lifecycle::Active { .. } => Ok(()),
        Lifecycle::Suspended { .. } | Lifecycle::Restoring { .. } | Lifecycle::Lapsed { .. } => {
            Err(HandOutError::Suspended)
        }
        Lifecycle::Requested { .. }
        | Lifecycle::Verifying { .. }
        | Lifecycle::Closed { .. }
        | Lifecycle::Rejected { .. } => Err(HandOutError::NotFound),
    }
}
