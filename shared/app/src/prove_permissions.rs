//! Proves permissions on every key of a policy (spec K1): by using each, in every region.

use std::collections::BTreeSet;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use claviger_domain::access::KeyPermission;
use claviger_domain::observation::{NoAnswerKind, Observation};
use claviger_domain::policy::{EncryptionPolicy, PURPOSE_CANARY, RegionalKey};
use claviger_domain::values::OrganisationName;
use futures_util::future::join_all;

use crate::error::WorkError;
use crate::messages::{Check, CheckResult};
use crate::ports::{CustomerKeys, KeyError, KeyRef, Policies};

/// Proves permissions.
pub struct ProvePermissions<'a> {
    /// Where policies are.
    pub policies: &'a dyn Policies,
    /// The customers' keys.
    pub keys: &'a dyn CustomerKeys,
}

impl ProvePermissions<'_> {
    /// One check a region and permission. A region whose checks all pass is proven.
    ///
    /// # Errors
    /// When the organisation has no policy, or the store fails.
    pub async fn run(
        &self,
        organisation: &OrganisationName,
        permissions: &BTreeSet<KeyPermission>,
    ) -> Result<Vec<Check>, WorkError> {
        let policy = self.policies.policy(organisation).await?;
        let policy = policy.ok_or(WorkError::NotThere { what: "the encryption policy" })?;
        let policy = &policy;
        let tried = policy.keys.iter().flat_map(|(region, key)| {
            permissions.iter().map(move |permission| async move {
                let outcome = self.tried(policy, key, *permission).await;
                let (result, observed, help) = match outcome.map_err(|error| error.observation) {
                    Ok(()) => (CheckResult::Pass, "used".to_owned(), String::new()),
                    Err(Observation::Refused(kind)) => {
                        let help = format!(
                            "add `{permission}` to the statement for us in the key policy in {region}; if the key \
                             itself refuses: {}",
                            kind.remedy_for(&key.arn)
                        );
                        (CheckResult::Fail, "refused".to_owned(), help)
                    }
                    Err(Observation::NoAnswer(_) | Observation::Usable) => {
                        let help = "try again: AWS or the way to it failed".to_owned();
                        (CheckResult::Warn, "no answer".to_owned(), help)
                    }
                };
                let id = permission.action().to_owned();
                Check { id, region: Some(region.clone()), result, observed, help }
            })
        });
        Ok(join_all(tried).await)
    }

    async fn tried(
        &self,
        policy: &EncryptionPolicy,
        key: &RegionalKey,
        permission: KeyPermission,
    ) -> Result<(), KeyError> {
        let context = policy.encryption_context(PURPOSE_CANARY, &policy.id.to_string());
        // A kept session of a role would prove what it was granted when it began.
        let by = KeyRef::of(policy, &key.arn).fresh();
        match permission {
            KeyPermission::Decrypt => {
                let canary = key.canary.as_ref().and_then(|text| BASE64_STANDARD.decode(text).ok());
                let canary = canary.ok_or_else(|| KeyError {
                    observation: Observation::NoAnswer(NoAnswerKind::OurFault),
                    code: "no-canary".to_owned(),
                    request_id: None,
                })?;
                self.keys.decrypt(by, &canary, &context).await.map(drop)
            }
            KeyPermission::Encrypt => {
                self.keys.encrypt(by, policy.id.as_uuid().as_bytes(), &context).await.map(drop)
            }
            KeyPermission::GenerateDataKey => self.keys.generate_data_key(by, &context).await.map(drop),
            KeyPermission::DescribeKey => self.keys.describe(by).await.map(drop),
        }
    }
}
