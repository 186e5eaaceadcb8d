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
use claviger_domain::access::TemplateVersion;
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

/// A canary customer's key in one region.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CanaryKey {
    /// The key.
    pub key_arn: KeyArn,
    /// The opaque organisation id in that key policy's condition.
    pub organisation: OrganisationId,
    /// The version of its key policy; without one it stands for every version that no other canary has.
    #[serde(default)]
    pub template: Option<TemplateVersion>,
    /// A role of the canary customer's that uses the same key: the control probe of BYOK.
    #[serde(skip)]
    pub role: Option<CustomerRole>,
}

/// The canary customers by region.
pub type CanaryKeys = BTreeMap<Region, Vec<CanaryKey>>;

/// A role, with the version of its permission policy.
#[derive(Deserialize)]
struct CanaryRole {
    #[serde(flatten)]
    role: CustomerRole,
    #[serde(default)]
    template: Option<TemplateVersion>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore<T> {
    One(T),
    More(Vec<T>),
}

impl<T> OneOrMore<T> {
    fn all(self) -> Vec<T> {
        match self {
            Self::One(one) => vec![one],
            Self::More(more) => more,
        }
    }
}

/// The canary customers, as the deploy parameter names them: a role, a key in each region; or several of each, one a
/// template version.
#[derive(Deserialize)]
struct Canary {
    #[serde(default)]
    role: Option<OneOrMore<CanaryRole>>,
    #[serde(flatten)]
    keys: BTreeMap<Region, OneOrMore<CanaryKey>>,
}

/// Why the canary keys could not be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "the canary keys are not JSON of the form {{region: {{keyArn, organisation, template}}, role: {{arn, externalId, \
     template}}}}, or lists of them: {0}"
)]
pub struct CanaryKeysError(#[from] serde_json::Error);

/// Parses `CLAVIGER_CANARY_KEYS`; empty text is none.
///
/// # Errors
/// When it is not JSON of that form.
pub fn parse_canary_keys(json: &str) -> Result<CanaryKeys, CanaryKeysError> {
    if json.trim().is_empty() {
        return Ok(CanaryKeys::new());
    }
    let Canary { role, keys } = serde_json::from_str(json)?;
    let roles = role.map(OneOrMore::all).unwrap_or_default();
    let role_of = |template: &Option<TemplateVersion>| {
        let same = roles.iter().find(|role| role.template == *template);
        same.or_else(|| roles.iter().find(|role| role.template.is_none())).map(|found| found.role.clone())
    };
    let with_roles = |key: CanaryKey| CanaryKey { role: role_of(&key.template), ..key };
    let all =
        keys.into_iter().map(|(region, keys)| (region, keys.all().into_iter().map(with_roles).collect()));
    Ok(all.collect())
}

/// The canary that stands for customers with this template version.
fn standing_for<'a>(keys: &'a [CanaryKey], template: &str) -> Option<&'a CanaryKey> {
    let same = |key: &&CanaryKey| key.template.as_ref().is_some_and(|version| version.as_str() == template);
    keys.iter().find(same).or_else(|| keys.iter().find(|key| key.template.is_none()))
}

const PLAINTEXT: &[u8] = b"claviger control probe";
const TAG: &str = "claviger";

/// The canary keys and, once made, the ciphertexts that are decrypted each time.
#[derive(Debug)]
pub(super) struct Canaries {
    keys: CanaryKeys,
    ciphertexts: Mutex<HashMap<KeyArn, Vec<u8>>>,
}

impl Canaries {
    pub(super) fn new(keys: CanaryKeys) -> Self {
        Self { keys, ciphertexts: Mutex::default() }
    }

    fn ciphertext(&self, key: &KeyArn) -> Option<Vec<u8>> {
        self.ciphertexts.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    fn keep(&self, key: &KeyArn, ciphertext: Vec<u8>) {
        let mut known = self.ciphertexts.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(key.clone(), ciphertext);
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
    async fn control(&self, key: &CanaryKey, access: &KeyAccess) -> Result<bool, KeyError> {
        let context = context(key);
        let arn = &key.key_arn;
        let way = KeyRef { arn, access, organisation: key.organisation, session: RoleSession::Fresh };
        let ciphertext = match self.canaries.ciphertext(arn) {
            Some(known) => known,
            None => {
                let made = self.encrypt(way, PLAINTEXT, &context).await?;
                self.canaries.keep(arn, made.clone());
                made
            }
        };
        let plaintext = self.decrypt(way, &ciphertext, &context).await?;
        Ok(plaintext.as_slice() == PLAINTEXT)
    }
}

#[async_trait]
impl ControlProbes for KmsKeys {
    async fn control_is_healthy(&self, region: &Region, mode: Mode, template: &str) -> bool {
        let keys = self.canaries.keys.get(region).map(Vec::as_slice).unwrap_or_default();
        let Some(key) = standing_for(keys, template) else {
            warn!(
                key.region = region.as_str(),
                key_policy.version = template,
                "there is no canary key for these customers: ambiguous refusals do not count"
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
        match self.control(key, &access).await {
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
        let named = |key: &CanaryKey| key.role.as_ref().is_some_and(|role| role.arn.name() == "canary");
        assert!(keys.values().flatten().all(named));
    }

    #[test]
    fn r4_a_canary_stands_for_the_customers_of_its_template_version_and_one_without_for_all_others() {
        let key = |last: u8, template: &str| {
            let id = format!("1234abcd-12ab-34cd-56ef-12345678900{last}");
            format!(
                r#"{{"keyArn": "arn:aws:kms:eu-central-1:555555555555:key/{id}",
                    "organisation": "0193d2a7-0000-4000-8000-00000000000{last}"{template}}}"#
            )
        };
        let (any, old) = (key(1, ""), key(2, r#", "template": "2026-11-22""#));
        let new = key(3, r#", "template": "2027-01-15""#);
        let json = format!(
            r#"{{"eu-central-1": [{any}, {old}, {new}], "eu-west-1": [{old}],
                "role": [{{"arn": "arn:aws:iam::555555555555:role/any", "externalId": "x"}},
                         {{"arn": "arn:aws:iam::555555555555:role/new", "externalId": "x", "template": "2027-01-15"}}]}}"#
        );
        let keys = parse_canary_keys(&json).unwrap();
        let chosen = |region: &str, template: &str| {
            let key = standing_for(&keys[&region.parse::<Region>().unwrap()], template)?;
            Some((key.organisation.to_string(), key.role.as_ref()?.arn.name().to_owned()))
        };
        let is = |last: u8, role: &str| {
            Some((format!("0193d2a7-0000-4000-8000-00000000000{last}"), role.to_owned()))
        };
        assert_eq!(chosen("eu-central-1", "2026-11-22"), is(2, "any"));
        assert_eq!(chosen("eu-central-1", "2027-01-15"), is(3, "new"));
        assert_eq!(chosen("eu-central-1", "2028-01-01"), is(1, "any"));
        assert_eq!(chosen("eu-west-1", "2026-11-22"), is(2, "any"));
        assert_eq!(
            chosen("eu-west-1", "2027-01-15"),
            None,
            "nobody stands for them: nothing ambiguous counts"
        );
    }
}
