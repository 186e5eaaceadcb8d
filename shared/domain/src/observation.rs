//! What a probe of a key saw. Only [`ProbeRound`]s change what is believed about a key: events and
//! refusals met elsewhere are hints, a different type (design, point 7).

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{DataKeyId, InstanceId};
use crate::values::{KeyArn, Region};

/// Why KMS refused: the answer was about this key or this caller, and came from a healthy service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalKind {
    /// The key is disabled.
    KeyDisabled,
    /// The key is waiting to be deleted.
    KeyPendingDeletion,
    /// The key's imported material is gone.
    KeyPendingImport,
    /// The key's custom key store is disconnected (DescribeKey says `Unavailable`).
    KeyUnavailable,
    /// Access denied: key policy, trust policy, role, SCP; they cannot be told apart.
    AccessDenied,
    /// The customer's key-management role (BYOK) did not let itself be assumed: trust policy, external id, role
    /// gone, SCP; they cannot be told apart.
    RoleDenied,
    /// The key, or what was used of it, was not found.
    KeyNotFound,
    /// An invalid state that DescribeKey does not explain (a custom key store).
    InvalidState,
}

impl RefusalKind {
    /// Whether one answer is enough (spec R3, R4). An ambiguous refusal counts only when it persists.
    pub const fn is_definite(self) -> bool {
        match self {
            Self::KeyDisabled | Self::KeyPendingDeletion | Self::KeyPendingImport | Self::KeyUnavailable => {
                true
            }
            Self::AccessDenied | Self::RoleDenied | Self::KeyNotFound | Self::InvalidState => false,
        }
    }

    /// Whether the key will not come back, as far as this answer tells: an org admin may do without it (spec S2).
    pub const fn is_for_good(self) -> bool {
        match self {
            Self::KeyPendingDeletion | Self::KeyNotFound => true,
            Self::KeyDisabled
            | Self::KeyUnavailable
            | Self::KeyPendingImport
            | Self::AccessDenied
            | Self::RoleDenied
            | Self::InvalidState => false,
        }
    }

    /// What the customer does to give access back.
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::KeyDisabled => "enable the key: `aws kms enable-key --key-id <arn> --region <region>`",
            Self::KeyPendingDeletion => {
                "cancel the deletion, then enable the key: `aws kms cancel-key-deletion --key-id <arn> \
                 --region <region>`, `aws kms enable-key --key-id <arn> --region <region>`"
            }
            Self::KeyPendingImport => {
                "import the same key material again: `aws kms import-key-material --key-id <arn> --region <region> ...`"
            }
            Self::AccessDenied => {
                "put the key policy that `GET .../key-policy` prints on the key again: `aws kms put-key-policy \
                 --key-id <arn> --region <region> --policy-name default --policy file://policy.json`; where a \
                 key-management role is used, its permission policy too"
            }
            Self::RoleDenied => {
                "let the key-management role trust us again, with the trust policy that `GET .../key-policy` prints: \
                 `aws iam update-assume-role-policy --role-name <your role> --policy-document file://trust.json`; \
                 if the role was deleted, make it again under the same name with the same two policies"
            }
            Self::KeyNotFound => "check that the key still exists in this account and region",
            Self::KeyUnavailable => {
                "connect the key's custom key store again: `aws cloudhsmv2 describe-clusters` shows its cluster, `aws \
                 kms connect-custom-key-store --custom-key-store-id <its id> --region <region>` connects it"
            }
            Self::InvalidState => {
                "KMS says that the key's state does not allow its use, and DescribeKey does not say why: look at \
                 `aws kms describe-key --key-id <arn> --region <region>`, and, if it is in a custom key store, whether \
                 that is connected"
            }
        }
    }

    /// The remedy with the key's own ARN and region in its commands.
    pub fn remedy_for(self, key: &KeyArn) -> String {
        self.remedy().replace("<arn>", key.as_str()).replace("<region>", key.region().as_str())
    }
}

/// Why there was no answer about the key: nothing follows from it about the customer's will (I2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoAnswerKind {
    /// KMS asked us to slow down.
    Throttled,
    /// KMS or the way to it failed: 5xx, timeout, connection.
    Unreachable,
    /// Our own fault: credentials, a malformed request, an answer nobody expected.
    OurFault,
}

/// What one probe of one regional key saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "saw", content = "kind")]
pub enum Observation {
    /// The key decrypted the canary.
    Usable,
    /// KMS refused.
    Refused(RefusalKind),
    /// No answer about the key.
    NoAnswer(NoAnswerKind),
}

/// A data key that a broker could not unwrap: the prober repeats that very unwrap, so that no key policy can
/// please the canary and refuse the data keys (design, point 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RefusedUnwrap {
    /// Whose.
    pub instance: InstanceId,
    /// Which.
    pub data_key: DataKeyId,
}

/// One probe of each regional key of a policy, within one short window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeRound {
    /// When the first probe of the round was sent.
    pub started_at: Timestamp,
    /// What each region answered.
    pub observations: BTreeMap<Region, Observation>,
    /// Whether the control probes (the vendor's own canary keys) answered in the same round. Ambiguous
    /// refusals count only while they do. `None`: not asked, because nothing ambiguous was seen.
    pub controls_healthy: Option<bool>,
    /// A data key that was refused where the canary was not, to be unwrapped beside the canaries in every round
    /// until every region unwraps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused_unwrap: Option<RefusedUnwrap>,
}
