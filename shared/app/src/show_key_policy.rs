//! Shows what the customer pastes (spec E12, K1): the key policy of each key, or, for BYOK, the two policies of its
//! key-management role.

use claviger_domain::access::{KeyPermission, KeyPolicyTemplate, TemplateVersion};
use claviger_domain::ids::OrganisationId;
use claviger_domain::invalid::{Invalid, InvalidField};
use claviger_domain::key_access::{ExternalId, KeyAccess, RoleArn};
use claviger_domain::key_policy::{
    KEY_POLICY_VERSION, key_policy, made_key_policy, role_permissions, trust_policy,
};
use claviger_domain::organisation::Organisation;
use claviger_domain::policy::{CONTEXT_ORGANISATION, Lifecycle};
use claviger_domain::values::{AccountId, KeyArn, Realm, Region};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

use crate::ports::{Policies, Templates};
use crate::request_error::RequestError;
use crate::settings::Settings;

/// What to paste where.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyPolicyView {
    /// Version of the newest template.
    pub version: String,
    /// What templates ask for that were published since this service was made (spec K1), oldest first. The documents
    /// grant it.
    pub additions: Vec<AdditionView>,
    /// Whom it allows.
    pub principal: PrincipalView,
    /// What every call under the key bears; the policy's condition is on it.
    pub encryption_context: BTreeMap<&'static str, OrganisationId>,
    /// The document.
    pub policy: Value,
    /// The document for each region's key; empty while no realm is known.
    pub regions: Vec<RegionView>,
    /// The key-management role; none for an organisation that is enrolled with keys of its own making.
    pub role: Option<RoleView>,
    /// What taking it away does (spec R1).
    pub warning: &'static str,
}

/// What a published template asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AdditionView {
    /// The template's version.
    pub version: TemplateVersion,
    /// What it asks for.
    pub permissions: Vec<KeyPermission>,
    /// By when to decide, unless the organisation's own access request gives it longer.
    pub decide_by: Timestamp,
}

/// What to make for BYOK: a role in the organisation's account, with these two policies.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RoleView {
    /// The role, once it is known.
    pub role_arn: Option<RoleArn>,
    /// What the trust policy asks of us. The organisation's own, and the same for good.
    pub external_id: ExternalId,
    /// Who may assume the role: `aws iam create-role --assume-role-policy-document`.
    pub trust_policy: Value,
    /// What the role may do: `aws iam put-role-policy --policy-document`.
    pub permission_policy: Value,
}

/// The vendor's principal.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PrincipalView {
    /// The vendor's account.
    pub account: AccountId,
    /// The one role in it that uses customers' keys.
    pub role_arn: String,
}

/// The document of one region.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RegionView {
    /// Where.
    pub region: Region,
    /// On which key, once it is known.
    pub key_arn: Option<KeyArn>,
    /// The document.
    pub policy: Value,
}

/// What is said to whoever may take a key away (spec R1).
pub(crate) const WARNING: &str = "taking a key or this policy away stops every encrypted app of the organisation, for its \
    users and for us, within the published bound; it is meant for emergencies. To renew keys, ask for \
    re-encryption instead";

/// Shows the key policy.
pub struct ShowKeyPolicy<'a> {
    /// Where policies are.
    pub policies: &'a dyn Policies,
    /// Where templates are.
    pub templates: &'a dyn Templates,
    /// Deploy parameters.
    pub settings: &'a Settings,
}

impl ShowKeyPolicy<'_> {
    /// The documents for an organisation. Before it enrols, it may name the account and the realm that it
    /// is going to use; afterwards they are known.
    ///
    /// # Errors
    /// When the realm is not in the catalogue, or the store fails.
    pub async fn run(
        &self,
        organisation: &Organisation,
        account: Option<AccountId>,
        realm: Option<Realm>,
    ) -> Result<KeyPolicyView, RequestError> {
        let enrolled = self.policies.policy(&organisation.name).await?;
        let account = account.or_else(|| enrolled.as_ref().map(|policy| policy.account.clone()));
        let binding =
            enrolled.as_ref().filter(|policy| !matches!(policy.lifecycle, Lifecycle::Rejected { .. }));
        let access = binding.map(|policy| &policy.access);
        let role_arn = access.and_then(KeyAccess::role).map(|role| &role.arn);
        let mut templates: Vec<KeyPolicyTemplate> =
            self.templates.templates().await?.into_iter().map(|published| published.template).collect();
        templates.sort_by_key(|template| template.published_at);
        let asked: BTreeSet<KeyPermission> =
            templates.iter().flat_map(|template| template.permissions.iter().copied()).collect();
        let version =
            templates.last().map_or(KEY_POLICY_VERSION, |template| template.version.as_str()).to_owned();
        let document = match role_arn {
            Some(arn) => made_key_policy(arn, organisation.id),
            None => key_policy(&self.settings.vendor, organisation.id, account.as_ref(), (&version, &asked)),
        };
        let role = match access {
            Some(KeyAccess::KeyPolicy) => None,
            Some(KeyAccess::Role(_)) | None => Some(RoleView {
                role_arn: role_arn.cloned(),
                external_id: organisation.external_id.clone(),
                trust_policy: trust_policy(&self.settings.vendor, &organisation.external_id),
                permission_policy: role_permissions(organisation.id, account.as_ref(), &asked),
            }),
        };
        let realm = realm.or_else(|| enrolled.as_ref().map(|policy| policy.realm.clone()));
        let regions = match &realm {
            None => &[],
            Some(realm) => self.settings.catalogue.regions(realm).ok_or_else(|| unknown(realm))?,
        };
        let of_region = |region: &Region| RegionView {
            region: region.clone(),
            key_arn: enrolled.as_ref().and_then(|policy| policy.keys.get(region)).map(|key| key.arn.clone()),
            policy: document.clone(),
        };
        Ok(KeyPolicyView {
            version,
            additions: templates.into_iter().map(addition).collect(),
            principal: PrincipalView {
                account: self.settings.vendor.account.clone(),
                role_arn: self.settings.vendor.key_access_role.clone(),
            },
            encryption_context: [(CONTEXT_ORGANISATION, organisation.id)].into(),
            regions: regions.iter().map(of_region).collect(),
            policy: document,
            role,
            warning: WARNING,
        })
    }
}

fn addition(template: KeyPolicyTemplate) -> AdditionView {
    AdditionView {
        version: template.version,
        permissions: template.permissions.into_iter().collect(),
        decide_by: template.decide_by,
    }
}

fn unknown(realm: &Realm) -> RequestError {
    let reason = format!("`{realm}` is not a realm of the catalogue");
    let help = "use one of the realms that `GET /v1/catalogue` lists";
    let field: InvalidField = Invalid::new(reason, help).at("realm");
    RequestError::Invalid(vec![field])
}
