//! Control probes: canary keys of the vendor's, in an account of its own, that nobody takes away.
//!
//! They go the same way as customers' keys of their mode, through the same roles, clients and region, so while they
//! answer, a refusal that could have been ours was the customer's (spec R4). A region without a canary, or for BYOK
//! without a canary role, is unhealthy: nothing ambiguous counts there.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use claviger_app::messages::EncryptionContext;
use claviger_app::ports::{ControlProbes, CustomerKeys, KeyError, KeyRef, RoleSession};
use claviger_domain::catalogue::Mode;
use claviger_domain::ids::OrganisationId;
use claviger_domain::key_access::{CustomerRole, KeyAccess};
use claviger_domain::policy::{
    CONTEXT_INSTANCE, CONTEXT_ORGANISATION, CONTEXT_PURPOSE, CONTEXT_TAG, PURPOSE_CANARY,
};
use claviger_domain::values::{KeyArn, Region};
use serde::Deserialize;
use tracing::warn;

use super::KmsKeys;

/// The canary customer's key in one region.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CanaryKey {
    /// The key, with the key policy of the newest template.
    pub key_arn: KeyArn,
    /// The opaque organisation id in that key policy's condition.
    pub organisation: OrganisationId,
    /// A role of the canary customer's that uses the same key: the control probe of BYOK.
    #[serde(skip)]
    pub role: Option<CustomerRole>,
}

/// The canary customer, as the deploy parameter names it: one role, a key in each region.
#[derive(Deserialize)]
struct Canary {
    #[serde(default)]
    role: Option<CustomerRole>,
    #[serde(flatten)]
    keys: BTreeMap<Region, CanaryKey>,
}

/// Why the canary keys could not be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "the canary keys are not JSON of the form {{region: {{keyArn, organisation}}, role: {{arn, externalId}}}}: {0}"
)]
pub struct CanaryKeysError(#[from] serde_json::Error);

/// Parses `CLAVIGER_CANARY_KEYS`; empty text is none.
///
/// # Errors
/// When it is not JSON of that form.
pub fn parse_canary_keys(json: &str) -> Result<BTreeMap<Region, CanaryKey>, CanaryKeysError> {
    if json.trim().is_empty() {
        return Ok(BTreeMap::new());
    }
    let Canary { role, mut keys } = serde_json::from_str(json)?;
    for key in keys.values_mut() {
        key.role.clone_from(&role);
    }
    Ok(keys)
}

const PLAINTEXT: &[u8] = b"claviger control probe";
const TAG: &str = "claviger";

/// The canary keys and, once made, the ciphertexts that are decrypted each time.
#[derive(Debug)]
pub(super) struct Canaries {
    keys: BTreeMap<Region, CanaryKey>,
    ciphertexts: Mutex<HashMap<Region, Vec<u8>>>,
}

impl Canaries {
    pub(super) fn new(keys: BTreeMap<Region, CanaryKey>) -> Self {
        Self { keys, ciphertexts: Mutex::default() }
    }

    fn ciphertext(&self, region: &Region) -> Option<Vec<u8>> {
        self.ciphertexts.lock().unwrap_or_else(PoisonError::into_inner).get(region).cloned()
    }

    fn keep(&self, region: &Region, ciphertext: Vec<u8>) {
        let mut known = self.ciphertexts.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(region.clone(), ciphertext);
    }
}

fn context(key: &CanaryKey) -> EncryptionContext {
    let organisation = key.organisation.to_string();
    [
        (CONTEXT_ORGANISATION, organisation.as_str()),
        (CONTEXT_PURPOSE, PURPOSE_CANARY),
        (CONTEXT_INSTANCE, organisation.as_str()),
        (CONTEXT_TAG, TAG),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

impl KmsKeys {
    async fn control(&self, region: &Region, key: &CanaryKey, access: &KeyAccess) -> Result<bool, KeyError> {
        let context = context(key);
        let arn = &key.key_arn;
        let way = KeyRef { arn, access, organisation: key.organisation, session: RoleSession::Fresh };
        let ciphertext = match self.canaries.ciphertext(region) {
            Some(known) => known,
            None => {
                let made = self.encrypt(way, PLAINTEXT, &context).await?;
                self.canaries.keep(region, made.clone());
                made
            }
        };
        let plaintext = self.decrypt(way, &ciphertext, &context).await?;
        Ok(plaintext.as_slice() == PLAINTEXT)
    }
}

#[async_trait]
impl ControlProbes for KmsKeys {
    async fn control_is_healthy(&self, region: &Region, mode: Mode) -> bool {
        let Some(key) = self.canaries.keys.get(region) else {
            warn!(
                key.region = region.as_str(),
                "there is no canary key in this region: ambiguous refusals do not count"
            );
            return false;
        };
        let access = match (mode, &key.role) {
            (Mode::Cmk, _) => KeyAccess::KeyPolicy,
            (Mode::Byok, Some(role)) => KeyAccess::Role(role.clone()),
            (Mode::Byok, None) => {
                warn!(
                    key.region = region.as_str(),
                    "there is no canary role in this region: ambiguous refusals of BYOK keys do not count"
                );
                return false;
            }
        };
        match self.control(region, key, &access).await {
            Ok(healthy) => healthy,
            Err(error) => {
                warn!(
                    key.region = region.as_str(),
                    outcome = error.code,
                    kms.request_id = error.request_id,
                    "the control probe failed"
                );
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canary_keys_are_read_from_json() {
        let json = r#"{"eu-central-1": {"keyArn": "arn:aws:kms:eu-central-1:555555555555:key/1234abcd-12ab-34cd-56ef-1234567890ab",
            "organisation": "0193d2a7-0000-4000-8000-000000000001"}}"#;
        assert_eq!(parse_canary_keys(json).unwrap().len(), 1);
        assert!(parse_canary_keys("").unwrap().is_empty());
        assert!(parse_canary_keys("{}").unwrap().is_empty());
        assert!(parse_canary_keys("[]").is_err());
        assert!(parse_canary_keys(r#"{"role": "arn"}"#).is_err());
        let with_role = json.trim_end().trim_end_matches('}').to_owned()
            + r#"}, "role": {"arn": "arn:aws:iam::555555555555:role/canary", "externalId": "x"}}"#;
        let keys = parse_canary_keys(&with_role).unwrap();
        assert!(keys.values().all(|key| key.role.as_ref().is_some_and(|role| role.arn.name() == "canary")));
    }
}
