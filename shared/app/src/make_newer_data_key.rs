//! Gives an app instance a newer version of its data key, when an app has used the current one for long or often.
//!
//! Nothing hangs on it: the version that is current goes on, and whoever still has to write with it asks again. So what
//! stands in the way now is left to the next asking, and suspends nobody.

use claviger_domain::instance::{AppInstance, InstanceStatus};
use claviger_domain::policy::EncryptionPolicy;

use crate::error::{ATTEMPTS, WorkError};
use crate::make_data_key::{MakeDataKey, PURPOSE_RECORDS, may_make_data_keys};
use crate::messages::NewerDataKey;
use crate::ports::{Instances, Policies, StoreError};
use crate::settings::Settings;

/// Versions that an instance gets by asking, at most. Every one is kept as long as records may need it, and a
/// re-encryption moves them all; at one a day they last for years.
pub const MOST_VERSIONS: u32 = 1_000;

/// What became of a request for a newer version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renewal {
    /// It was made.
    Made {
        /// The new version.
        version: u32,
    },
    /// Nothing was stored: there is one, or it may not be made now.
    Left {
        /// Why.
        reason: String,
    },
}

/// Makes newer versions of data keys.
pub struct MakeNewerDataKey<'a> {
    /// Where instances are.
    pub instances: &'a dyn Instances,
    /// Where policies are.
    pub policies: &'a dyn Policies,
    /// How data keys are made.
    pub make: MakeDataKey<'a>,
    /// Deploy parameters.
    pub settings: &'a Settings,
}

impl MakeNewerDataKey<'_> {
    /// Makes a newer version than the one that is named, if that one is still current.
    ///
    /// # Errors
    /// When the store failed: to be tried again. A key that refuses or gives no answer is no error.
    pub async fn run(&self, wanted: &NewerDataKey) -> Result<Renewal, WorkError> {
        for _ in 0..ATTEMPTS {
            match self.attempt(wanted).await {
                Err(WorkError::Store(StoreError::Conflict)) => {}
                Ok(renewal) => {
                    tracing::info!(instance.id = %wanted.instance, outcome = ?renewal, "a newer data key was asked for");
                    return Ok(renewal);
                }
                Err(WorkError::Store(error)) => return Err(error.into()),
                Err(error @ WorkError::Call(_)) => return Err(error),
                // INVARIANT (I2): whatever a key says here, only a probe judges it.
                Err(
                    error @ (WorkError::Key(_)
                    | WorkError::Refused(_)
                    | WorkError::NotThere { .. }
                    | WorkError::NotNow { .. }),
                ) => {
                    tracing::info!(instance.id = %wanted.instance, %error, "no newer data key for now");
                    return Ok(Renewal::Left { reason: error.to_string() });
                }
            }
        }
        Err(StoreError::Conflict.into())
    }

    async fn attempt(&self, wanted: &NewerDataKey) -> Result<Renewal, WorkError> {
        let left = |reason: &str| Ok(Renewal::Left { reason: reason.to_owned() });
        let instance = self.instances.instance(wanted.instance).await?;
        let instance = instance.ok_or(WorkError::NotThere { what: "the app instance" })?;
        if !matches!(instance.status, InstanceStatus::Active { .. }) {
            return left("the app instance is not active");
        }
        let policy = self.policies.policy(&instance.organisation_name).await?;
        let policy = policy.ok_or(WorkError::NotThere { what: "the encryption policy" })?;
        may_make_data_keys(&policy)?;
        let Some((current, newest)) = self.versions(&policy, &instance).await? else {
            return left("the app instance has no data key");
        };
        if current.version != wanted.newer_than {
            return left("another version is current");
        }
        let age = self.make.clock.now().duration_since(current.created_at);
        if age < self.settings.data_key_least_age {
            return left("the current version is too young");
        }
        if newest >= MOST_VERSIONS {
            tracing::warn!(instance.id = %instance.id, newest, "the app instance has no versions of its data key left");
            return left("the app instance has as many versions as it may have");
        }
        let version = newest.saturating_add(1);
        self.make.run(&instance, &policy, version).await?;
        Ok(Renewal::Made { version })
    }

    /// The version that the policy's keys may hand out, and the highest there is: a re-encryption that was cancelled may
    /// have left one, which no policy ever names.
    async fn versions(
        &self,
        policy: &EncryptionPolicy,
        instance: &AppInstance,
    ) -> Result<Option<(crate::ports::WrappedDataKey, u32)>, StoreError> {
        let mut known = self.make.registry.data_keys(instance.id).await?;
        known.retain(|key| key.purpose == PURPOSE_RECORDS);
        let newest = known.iter().map(|key| key.version).max();
        let ours = known.into_iter().filter(|key| key.generation <= policy.generation);
        Ok(ours.max_by_key(|key| key.version).zip(newest))
    }
}
