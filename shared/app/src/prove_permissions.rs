//! Proves permissions on every key of a policy (spec K1): by trying each, in every region, as a dry run where KMS has
//! one: it proves the permission, and leaves nothing behind.

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
use crate::ports::{CustomerKeys, KeyError, KeyRef, Policies, Trial};

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
        let canary = || {
            let canary = key.canary.as_ref().and_then(|text| BASE64_STANDARD.decode(text).ok());
            canary.ok_or_else(|| KeyError {
                observation: Observation::NoAnswer(NoAnswerKind::OurFault),
                code: "no-canary".to_owned(),
                request_id: None,
            })
        };
        let sealed;
        let trial = match permission {
            KeyPermission::Decrypt => {
                sealed = canary()?;
                Trial::Decrypt(&sealed)
            }
            KeyPermission::ReEncryptFrom | KeyPermission::ReEncryptTo => {
                sealed = canary()?;
                Trial::ReEncrypt(&sealed)
            }
            KeyPermission::Encrypt => Trial::Encrypt,
            KeyPermission::GenerateDataKey => Trial::GenerateDataKey,
            KeyPermission::GenerateDataKeyWithoutPlaintext => Trial::GenerateDataKeyWithoutPlaintext,
            KeyPermission::GenerateDataKeyPair => Trial::GenerateDataKeyPair,
            KeyPermission::GenerateDataKeyPairWithoutPlaintext => Trial::GenerateDataKeyPairWithoutPlaintext,
            // These change nothing, and KMS knows no dry run of them.
            KeyPermission::DescribeKey => return self.keys.describe(by).await.map(drop),
            KeyPermission::GetKeyRotationStatus => return self.keys.rotates(by).await.map(drop),
        };
        self.keys.dry_run(by, trial, &context).await
    }
}
