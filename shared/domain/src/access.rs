//! Access requests (spec K1): the vendor publishes a new key-policy template; each customer accepts or declines what it
//! asks for by a date.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::TicketId;
use crate::invalid::{Invalid, shown};
use crate::values::{Region, Subject};

/// A permission on a customer's key that a template may carry: each that a probe can prove without leaving anything behind.
///
/// Grants are not among them: a grant outlives the key policy, so a customer that takes the key policy back would not
/// have revoked (spec R1). Nor is what AWS offers to callers of the key's own account alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum KeyPermission {
    /// Decrypt.
    #[serde(rename = "kms:Decrypt")]
    Decrypt,
    /// Encrypt.
    #[serde(rename = "kms:Encrypt")]
    Encrypt,
    /// Move a ciphertext from the key, inside KMS.
    #[serde(rename = "kms:ReEncryptFrom")]
    ReEncryptFrom,
    /// Move a ciphertext to the key, inside KMS.
    #[serde(rename = "kms:ReEncryptTo")]
    ReEncryptTo,
    /// Make a data key.
    #[serde(rename = "kms:GenerateDataKey")]
    GenerateDataKey,
    /// Make a data key that comes wrapped only.
    #[serde(rename = "kms:GenerateDataKeyWithoutPlaintext")]
    GenerateDataKeyWithoutPlaintext,
    /// Make a pair of data keys.
    #[serde(rename = "kms:GenerateDataKeyPair")]
    GenerateDataKeyPair,
    /// Make a pair of data keys whose private one comes wrapped only.
    #[serde(rename = "kms:GenerateDataKeyPairWithoutPlaintext")]
    GenerateDataKeyPairWithoutPlaintext,
    /// Look at the key.
    #[serde(rename = "kms:DescribeKey")]
    DescribeKey,
    /// Ask whether AWS renews its material.
    #[serde(rename = "kms:GetKeyRotationStatus")]
    GetKeyRotationStatus,
}

/// Every permission, for tests and documents.
pub const KEY_PERMISSIONS: [KeyPermission; 10] = [
    KeyPermission::Decrypt,
    KeyPermission::Encrypt,
    KeyPermission::ReEncryptFrom,
    KeyPermission::ReEncryptTo,
    KeyPermission::GenerateDataKey,
    KeyPermission::GenerateDataKeyWithoutPlaintext,
    KeyPermission::GenerateDataKeyPair,
    KeyPermission::GenerateDataKeyPairWithoutPlaintext,
    KeyPermission::DescribeKey,
    KeyPermission::GetKeyRotationStatus,
];

impl KeyPermission {
    /// The action as key policies name it.
    pub const fn action(self) -> &'static str {
        match self {
            Self::Decrypt => "kms:Decrypt",
            Self::Encrypt => "kms:Encrypt",
            Self::ReEncryptFrom => "kms:ReEncryptFrom",
            Self::ReEncryptTo => "kms:ReEncryptTo",
            Self::GenerateDataKey => "kms:GenerateDataKey",
            Self::GenerateDataKeyWithoutPlaintext => "kms:GenerateDataKeyWithoutPlaintext",
            Self::GenerateDataKeyPair => "kms:GenerateDataKeyPair",
            Self::GenerateDataKeyPairWithoutPlaintext => "kms:GenerateDataKeyPairWithoutPlaintext",
            Self::DescribeKey => "kms:DescribeKey",
            Self::GetKeyRotationStatus => "kms:GetKeyRotationStatus",
        }
    }

    /// Whether the action bears an encryption context, on which a policy can make it depend.
    pub const fn has_context(self) -> bool {
        match self {
            Self::Decrypt
            | Self::Encrypt
            | Self::ReEncryptFrom
            | Self::ReEncryptTo
            | Self::GenerateDataKey
            | Self::GenerateDataKeyWithoutPlaintext
            | Self::GenerateDataKeyPair
            | Self::GenerateDataKeyPairWithoutPlaintext => true,
            Self::DescribeKey | Self::GetKeyRotationStatus => false,
        }
    }

    /// The permission without which this one can be neither used nor proven: KMS moves a ciphertext from and to in one
    /// call.
    pub const fn counterpart(self) -> Option<Self> {
        match self {
            Self::ReEncryptFrom => Some(Self::ReEncryptTo),
            Self::ReEncryptTo => Some(Self::ReEncryptFrom),
            Self::Decrypt
            | Self::Encrypt
            | Self::GenerateDataKey
            | Self::GenerateDataKeyWithoutPlaintext
            | Self::GenerateDataKeyPair
            | Self::GenerateDataKeyPairWithoutPlaintext
            | Self::DescribeKey
            | Self::GetKeyRotationStatus => None,
        }
    }
}

impl fmt::Display for KeyPermission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.action())
    }
}

impl FromStr for KeyPermission {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        KEY_PERMISSIONS.into_iter().find(|known| known.action() == text).ok_or_else(|| {
            let known: Vec<&str> = KEY_PERMISSIONS.iter().map(|known| known.action()).collect();
            Invalid::new(
                format!("`{}` is not a permission that a probe can prove", shown(text)),
                format!("use some of {}", known.join(", ")),
            )
        })
    }
}

/// The version of a template: a label of the vendor's, a date say.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TemplateVersion(String);

impl TemplateVersion {
    /// The label.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TemplateVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TemplateVersion {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let plain = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_lowercase() || b"-.".contains(&byte);
        if (1..=32).contains(&text.len()) && text.bytes().all(plain) {
            return Ok(Self(text.to_owned()));
        }
        Err(Invalid::new(
            format!("`{}` is not a version", shown(text)),
            "use 1 to 32 of a-z, 0-9, hyphen and full stop: `2027-01-15`",
        ))
    }
}

/// A key-policy template that asks for more than the one before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyPolicyTemplate {
    /// Its version.
    pub version: TemplateVersion,
    /// What it asks for.
    pub permissions: BTreeSet<KeyPermission>,
    /// By when customers decide.
    pub decide_by: Timestamp,
    /// When it was published.
    pub published_at: Timestamp,
    /// By which support agent.
    pub published_by: Subject,
}

/// Who meets a template late still has this long to decide.
const AT_LEAST: SignedDuration = SignedDuration::from_hours(14 * 24);

/// What a customer answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "answer")]
pub enum AccessAnswer {
    /// Nothing yet.
    Open,
    /// It gave the permission, and a probe proved it.
    Granted {
        /// When.
        at: Timestamp,
    },
    /// It will not.
    Declined {
        /// When.
        at: Timestamp,
    },
}

/// Where an access request stands at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccessStanding {
    /// It waits for the customer.
    Open,
    /// It was accepted, and proven.
    Accepted,
    /// It was declined.
    Declined,
    /// Its date has passed without an answer.
    Ignored,
}

/// What one template asks of one customer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessRequest {
    /// Its identifier.
    pub id: Uuid,
    /// Of which template.
    pub version: TemplateVersion,
    /// What it asks for.
    pub permissions: BTreeSet<KeyPermission>,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// By when to decide.
    pub decide_by: Timestamp,
    /// The ticket that tells of it.
    pub ticket: TicketId,
    /// What the customer said.
    pub answer: AccessAnswer,
    /// Regions that were not asked when it was accepted, because their key was gone for good: the key that takes its place
    /// has to prove the permissions, and so has the lost one if it comes back after all.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub unproven: BTreeSet<Region>,
}

impl AccessRequest {
    /// The request of a template, opened now.
    pub fn new(template: &KeyPolicyTemplate, ticket: TicketId, now: Timestamp) -> Self {
        Self {
            id: ticket.as_uuid(),
            version: template.version.clone(),
            permissions: template.permissions.clone(),
            opened_at: now,
            decide_by: template.decide_by.max(now + AT_LEAST),
            ticket,
            answer: AccessAnswer::Open,
            unproven: BTreeSet::new(),
        }
    }

    /// Whether the customer gave the permission, and probes proved it.
    pub const fn is_granted(&self) -> bool {
        match self.answer {
            AccessAnswer::Granted { .. } => true,
            AccessAnswer::Open | AccessAnswer::Declined { .. } => false,
        }
    }

    /// Where it stands.
    pub fn standing(&self, now: Timestamp) -> AccessStanding {
        match self.answer {
            AccessAnswer::Open if now < self.decide_by => AccessStanding::Open,
            AccessAnswer::Open => AccessStanding::Ignored,
            AccessAnswer::Granted { .. } => AccessStanding::Accepted,
            AccessAnswer::Declined { .. } => AccessStanding::Declined,
        }
    }

    /// Whether new apps wait for it: it was declined, or ignored.
    pub fn holds_back(&self, now: Timestamp) -> bool {
        matches!(self.standing(now), AccessStanding::Declined | AccessStanding::Ignored)
    }
}
