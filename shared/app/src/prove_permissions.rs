//! Proves permissions on the keys of a policy (spec K1): by trying each, in every region, as a dry run where KMS has
//! one: it proves the permission, and leaves nothing behind.

use std::collections::BTreeSet;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use claviger_domain::access::KeyPermission;
use claviger_domain::observation::{NoAnswerKind, Observation};
use claviger_domain::policy::{EncryptionPolicy, PURPOSE_CANARY};
use claviger_domain::values::{KeyArn, OrganisationName};
use futures_util::future::join_all;

use crate::error::WorkError;
use crate::messages::{Check, CheckResult};
use crate::ports::{CustomerKeys, KeyError, KeyRef, Policies, Trial};

/// What a key that has no canary yet encrypts to have one: no secret.
const SAMPLE: &[u8] = b"claviger";

/// Proves permissions.
pub struct ProvePermissions<'a> {
    /// Where policies are.
    pub policies: &'a dyn Policies,
    /// The customers' keys.
    pub keys: &'a dyn CustomerKeys,
}

impl ProvePermissions<'_> {
    /// One check a region and permission. A region whose checks all pass is proven. A key that is gone for good is left
    /// out, as long as another is left: it can prove nothing any more.
    ///
    /// # Errors
    /// When the organisation has no policy, or the store fails.
    pub async fn run(
        &self,
        organisation: &OrganisationName,
        permissions: &BTreeSet<KeyPermission>,
    ) -> Result<Vec<Check>, WorkError> {
        let policy = self.load(organisation).await?;
        let provable = policy.provable_regions();
        let keys = policy.keys.iter().filter(|(region, _)| provable.contains(*region));
        let tried = keys.map(|(_, key)| {
            let canary = key.canary.as_ref().and_then(|text| BASE64_STANDARD.decode(text).ok());
            self.of_key(&policy, &key.arn, canary, permissions)
        });
        Ok(join_all(tried).await.into_iter().flatten().collect())
    }

    /// One check a permission, on a key that is to take a lost one's place.
    ///
    /// # Errors
    /// As [`ProvePermissions::run`].
    pub async fn on(
        &self,
        organisation: &OrganisationName,
        key: &KeyArn,
        permissions: &BTreeSet<KeyPermission>,
    ) -> Result<Vec<Check>, WorkError> {
        let policy = self.load(organisation).await?;
        let context = policy.encryption_context(PURPOSE_CANARY, &policy.id.to_string());
        let sample = self.keys.encrypt(KeyRef::of(&policy, key).fresh(), SAMPLE, &context).await;
        Ok(self.of_key(&policy, key, sample.ok(), permissions).await)
    }

    async fn load(&self, organisation: &OrganisationName) -> Result<EncryptionPolicy, WorkError> {
        let policy = self.policies.policy(organisation).await?;
        policy.ok_or(WorkError::NotThere { what: "the encryption policy" })
    }

    /// One check a permission, on one key; `canary` is a ciphertext of it.
    pub(crate) async fn of_key(
        &self,
        policy: &EncryptionPolicy,
        key: &KeyArn,
        canary: Option<Vec<u8>>,
        permissions: &BTreeSet<KeyPermission>,
    ) -> Vec<Check> {
        let (region, canary) = (key.region(), canary.as_deref());
        let tried = permissions.iter().map(move |permission| async move {
            let outcome = self.tried(policy, key, canary, *permission).await;
            let (result, observed, help) = match outcome.map_err(|error| error.observation) {
                Ok(()) => (CheckResult::Pass, "used".to_owned(), String::new()),
                Err(Observation::Refused(kind)) => {
                    let help = format!(
                        "add `{permission}` to the statement for us in the key policy in {region}; if the key itself \
                         refuses: {}",
                        kind.remedy_for(key)
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
        });
        join_all(tried).await
    }

    async fn tried(
        &self,
        policy: &EncryptionPolicy,
        key: &KeyArn,
        canary: Option<&[u8]>,
        permission: KeyPermission,
    ) -> Result<(), KeyError> {
        let context = policy.encryption_context(PURPOSE_CANARY, &policy.id.to_string());
        // A kept session of a role would prove what it was granted when it began.
        let by = KeyRef::of(policy, key).fresh();
        let canary = || {
            canary.ok_or_else(|| KeyError {
                observation: Observation::NoAnswer(NoAnswerKind::OurFault),
                code: "no-canary".to_owned(),
                request_id: None,
            })
        };
        let trial = match permission {
            KeyPermission::Decrypt => Trial::Decrypt(canary()?),
            KeyPermission::ReEncryptFrom | KeyPermission::ReEncryptTo => Trial::ReEncrypt(canary()?),
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
