//! Makes a data key of an app instance: when it may be made, how, and how it is stored.

use std::collections::BTreeMap;

use claviger_domain::ids::DataKeyId;
use claviger_domain::instance::AppInstance;
use claviger_domain::policy::{EncryptionPolicy, Lifecycle, PURPOSE_DATA_KEY};

use crate::error::WorkError;
use crate::ports::{Clock, CustomerKeys, DataKeyRegistry, Ids, KeyRef, Wrap, WrappedDataKey};

/// The one purpose of data keys so far.
pub const PURPOSE_RECORDS: &str = "records";

/// Makes data keys.
#[derive(Clone, Copy)]
pub struct MakeDataKey<'a> {
    /// Where wrapped data keys are.
    pub registry: &'a dyn DataKeyRegistry,
    /// The customers' keys.
    pub keys: &'a dyn CustomerKeys,
    /// Randomness.
    pub ids: &'a dyn Ids,
    /// The time.
    pub clock: &'a dyn Clock,
}

impl MakeDataKey<'_> {
    /// Makes a data key under the first regional key and wraps it under every other (spec A7), and stores it if policy
    /// and instance still are as they were read.
    ///
    /// INVARIANT (I6): `policy` was read consistently before, and [`may_make_data_keys`] found nothing against it. A
    /// re-encryption that begins meanwhile makes the store refuse; one that begins later finds the data key.
    ///
    /// # Errors
    /// When a key did not do it, or the store failed. `Conflict`: to be looked at anew.
    pub(crate) async fn run(
        &self,
        instance: &AppInstance,
        policy: &EncryptionPolicy,
        version: u32,
    ) -> Result<(), WorkError> {
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
        let made = WrappedDataKey {
            id: DataKeyId::from_uuid(self.ids.random()),
            instance: instance.id,
            purpose: PURPOSE_RECORDS.to_owned(),
            version,
            generation: policy.generation,
            created_at: now,
            wraps,
            second: BTreeMap::new(),
        };
        Ok(self.registry.add_data_key_of(&made, policy, instance).await?)
    }
}

/// While a realm is degraded there are no new data keys: they could not be wrapped everywhere.
pub(crate) fn may_make_data_keys(policy: &EncryptionPolicy) -> Result<(), WorkError> {
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
