//! What EventBridge brings from a customer's account: KMS's own events, and API calls that CloudTrail
//! recorded. Parsed into a hint, or ignored with the reason. Best effort, unordered, doubled, forgeable:
//! nothing but a probe follows from any of them.

use claviger_domain::heard::{HeardChange, RoleName};
use claviger_domain::values::{AccountId, KeyArn};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

/// The parts of an event that a hint is made of. Everything else is ignored, and what is missing is no
/// fault: events differ (`RetireGrant` has null parameters, `DisconnectCustomKeyStore` no resources).
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct KeyEvent {
    /// `aws.kms`, `aws.iam`.
    pub source: String,
    /// `AWS API Call via CloudTrail`, or the name of KMS's own event.
    pub detail_type: String,
    /// The account that the event is from.
    pub account: String,
    /// When, as the bus says.
    #[serde(default)]
    pub time: Option<String>,
    /// ARNs, in KMS's own events.
    #[serde(default)]
    pub resources: Value,
    /// What happened.
    #[serde(default)]
    pub detail: Detail,
}

/// The part that CloudTrail or KMS wrote.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Detail {
    /// The API call.
    #[serde(default)]
    pub event_name: Option<String>,
    /// Denied attempts are recorded too; they changed nothing.
    #[serde(default)]
    pub error_code: Option<String>,
    /// CloudTrail's identifier of the record.
    #[serde(default, rename = "eventID")]
    pub event_id: Option<String>,
    /// Who called.
    #[serde(default)]
    pub user_identity: Option<UserIdentity>,
    /// What the call was about.
    #[serde(default)]
    pub resources: Option<Vec<Resource>>,
    /// What the call asked for, as it likes; null for some.
    #[serde(default)]
    pub request_parameters: Value,
}

/// Who made an API call.
#[derive(Debug, Clone, Deserialize)]
pub struct UserIdentity {
    /// The ARN of the user, or of the role's session; absent for services of AWS.
    #[serde(default)]
    pub arn: Option<String>,
}

/// A resource of an API call.
#[derive(Debug, Clone, Deserialize)]
pub struct Resource {
    /// Its ARN; of a key, also when the call named an alias.
    #[serde(default, rename = "ARN")]
    pub arn: Option<String>,
}

/// What was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// Something that may have changed whether keys of this account can be used.
    Hint {
        /// The one slug of the situation.
        slug: &'static str,
        /// The account whose keys are to be probed.
        account: AccountId,
        /// Who did what, as the event says: shown, never believed.
        change: HeardChange,
    },
    /// Nothing of interest.
    Ignored {
        /// Why.
        reason: &'static str,
    },
}

impl KeyEvent {
    /// Makes a hint of the event.
    pub fn heard(&self) -> Heard {
        if self.detail.error_code.is_some() {
            return Heard::Ignored { reason: "the call was denied and changed nothing" };
        }
        let slug = match self.slug() {
            Some(slug) => slug,
            None => return Heard::Ignored { reason: "this cannot change whether a key can be used" },
        };
        let Ok(sender) = self.account.parse::<AccountId>() else {
            return Heard::Ignored { reason: "the event names no account" };
        };
        // Keys are changed in their own account. What another account says about a key would only use up the
        // budget of its owner.
        let key = self.key();
        if key.as_ref().is_some_and(|key| *key.account() != sender) {
            return Heard::Ignored { reason: "the event is from another account than the key's" };
        }
        let by = self.detail.user_identity.as_ref().and_then(|identity| identity.arn.as_ref()?.parse().ok());
        let at = self.time.as_deref().and_then(|time| time.parse::<Timestamp>().ok());
        let role = self.detail.request_parameters.get("roleName").and_then(Value::as_str);
        let role = role.and_then(|name| name.parse::<RoleName>().ok());
        let change = HeardChange { slug: slug.to_owned(), by, at, key, role };
        Heard::Hint { slug, account: sender, change }
    }

    fn slug(&self) -> Option<&'static str> {
        let name = self.detail.event_name.as_deref().unwrap_or(&self.detail_type);
        let slug = match (self.source.as_str(), name) {
            ("aws.kms", "DisableKey") => "key-disabled",
            ("aws.kms", "EnableKey") => "key-enabled",
            ("aws.kms", "ScheduleKeyDeletion") => "key-deletion-scheduled",
            ("aws.kms", "CancelKeyDeletion") => "key-deletion-cancelled",
            ("aws.kms", "DeleteKey" | "KMS CMK Deletion") => "key-deleted",
            ("aws.kms", "PutKeyPolicy") => "key-policy-changed",
            ("aws.kms", "CreateGrant") => "grant-created",
            ("aws.kms", "RevokeGrant") => "grant-revoked",
            ("aws.kms", "RetireGrant") => "grant-retired",
            ("aws.kms", "ImportKeyMaterial") => "key-material-imported",
            ("aws.kms", "DeleteImportedKeyMaterial") => "key-material-deleted",
            ("aws.kms", "DeleteExpiredKeyMaterial" | "KMS Imported Key Material Expiration") => {
                "key-material-expired"
            }
            ("aws.kms", "DisconnectCustomKeyStore") => "key-store-disconnected",
            ("aws.kms", "ConnectCustomKeyStore") => "key-store-connected",
            ("aws.kms", "RotateKey" | "RotateKeyOnDemand" | "KMS CMK Rotation") => "key-rotated",
            ("aws.iam", "UpdateAssumeRolePolicy") => "trust-policy-changed",
            ("aws.iam", "DeleteRole") => "role-deleted",
            ("aws.iam", "CreateRole") => "role-created",
            (
                "aws.iam",
                "PutRolePolicy"
                | "DeleteRolePolicy"
                | "AttachRolePolicy"
                | "DetachRolePolicy"
                | "CreatePolicyVersion"
                | "SetDefaultPolicyVersion"
                | "DeletePolicyVersion"
                | "PutRolePermissionsBoundary"
                | "DeleteRolePermissionsBoundary",
            ) => "role-policy-changed",
            _ => return None,
        };
        Some(slug)
    }

    /// The key: from the resource's ARN (of the call, or of KMS's own event), for `requestParameters.keyId` may be an id, an alias or an ARN.
    fn key(&self) -> Option<KeyArn> {
        let own = self.resources.as_array().into_iter().flatten().filter_map(Value::as_str);
        let called = self.detail.resources.iter().flatten().filter_map(|resource| resource.arn.as_deref());
        called.chain(own).find_map(|arn| arn.parse().ok())
    }
}
