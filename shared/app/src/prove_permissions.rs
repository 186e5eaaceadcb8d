//! Proves permissions on keys (spec K1): by trying each, as a dry run where KMS has one: it proves the permission, and
//! leaves nothing behind.

use std::collections::BTreeSet;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use claviger_domain::access::KeyPermission;
use claviger_domain::observation::{NoAnswerKind, Observation};
use claviger_domain::policy::PURPOSE_CANARY;
use claviger_domain::values::OrganisationName;
use futures_util::future::join_all;

use crate::error::WorkError;
use crate::messages::{Check, CheckResult, EncryptionContext};
use crate::ports::{CustomerKeys, KeyError, KeyRef, Policies, Trial};

/// Proves permissions on the keys of a policy.
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
        let policy = self.policies.policy(organisation).await?;
        let policy = policy.ok_or(WorkError::NotThere { what: "the encryption policy" })?;
        let context = policy.encryption_context(PURPOSE_CANARY, &policy.id.to_string());
        let (provable, context) = (policy.provable_regions(), &context);
        let keys = policy.keys.iter().filter(|(region, _)| provable.contains(*region));
        let checked = keys.map(|(_, regional)| {
            let canary = regional.canary.as_ref().and_then(|text| BASE64_STANDARD.decode(text).ok());
            // A kept session of a role would prove what it was granted when it began.
            let key = KeyRef::of(&policy, &regional.arn).fresh();
            async move {
                let tried = tried(self.keys, key, canary.as_deref(), context, permissions).await;
                tried
                    .into_iter()
                    .map(|(permission, outcome)| check(key, permission, outcome))
                    .collect::<Vec<_>>()
            }
        });
        Ok(join_all(checked).await.into_iter().flatten().collect())
    }
}

fn check(key: KeyRef<'_>, permission: KeyPermission, outcome: Result<(), KeyError>) -> Check {
    let region = key.region();
    let (result, observed, help) = match outcome.map_err(|error| error.observation) {
        Ok(()) => (CheckResult::Pass, "used".to_owned(), String::new()),
        Err(Observation::Refused(kind)) => {
            let help = format!(
                "add `{permission}` to the statement for us in the key policy in {region}; if the key itself refuses: {}",
                kind.remedy_for(key.arn)
            );
            (CheckResult::Fail, "refused".to_owned(), help)
        }
        Err(Observation::NoAnswer(_) | Observation::Usable) => {
            let help = "try again: AWS or the way to it failed".to_owned();
            (CheckResult::Warn, "no answer".to_owned(), help)
        }
    };
    Check { id: permission.action().to_owned(), region: Some(region.clone()), result, observed, help }
}

/// Which of the permissions a key gives; `canary` is a ciphertext of it in this context.
///
/// # Errors
/// When the key gave no answer about one: that is neither given nor refused.
pub(crate) async fn given(
    keys: &dyn CustomerKeys,
    key: KeyRef<'_>,
    canary: &[u8],
    context: &EncryptionContext,
    permissions: &BTreeSet<KeyPermission>,
) -> Result<BTreeSet<KeyPermission>, WorkError> {
    let mut given = BTreeSet::new();
    for (permission, outcome) in tried(keys, key.fresh(), Some(canary), context, permissions).await {
        match outcome.map_err(|error| error.observation) {
            Ok(()) => {
                given.insert(permission);
            }
            Err(Observation::Refused(_)) => {}
            Err(Observation::NoAnswer(_) | Observation::Usable) => {
                return Err(WorkError::NotNow { reason: "the new key gave no answer about a permission" });
            }
        }
    }
    Ok(given)
}

/// Tries each of the permissions on a key; `canary` is a ciphertext of it in this context.
pub(crate) async fn tried(
    keys: &dyn CustomerKeys,
    key: KeyRef<'_>,
    canary: Option<&[u8]>,
    context: &EncryptionContext,
    permissions: &BTreeSet<KeyPermission>,
) -> Vec<(KeyPermission, Result<(), KeyError>)> {
    let each = permissions.iter().map(|permission| async move {
        (*permission, tried_one(keys, key, canary, context, *permission).await)
    });
    join_all(each).await
}

async fn tried_one(
    keys: &dyn CustomerKeys,
    key: KeyRef<'_>,
    canary: Option<&[u8]>,
    context: &EncryptionContext,
    permission: KeyPermission,
) -> Result<(), KeyError> {
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
        KeyPermission::DescribeKey => return keys.describe(key).await.map(drop),
        KeyPermission::GetKeyRotationStatus => return keys.rotates(key).await.map(drop),
    };
    keys.dry_run(key, trial, context).await
}
