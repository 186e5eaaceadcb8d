//! What KMS says of a key besides whether it works: how its material is renewed (spec K2), when it will be deleted
//! and when its imported material expires (spec K4). Shown, recorded and warned of; only a probe says whether a key
//! works.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::key_access::KeyAccess;
use crate::values::KeyArn;

/// A way in for who does not come for the organisation. Such a key, or role, is refused when it is enrolled (spec E12);
/// one that opens later is warned of, and cuts nobody off: whose key it is stays claimed, so nobody else gets in by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loophole {
    /// The key also works with another organisation's encryption context.
    ContextCondition,
    /// The key-management role also lets us in without its external id, or with a wrong one (BYOK).
    ExternalIdEnforced,
}

impl Loophole {
    /// The slug of the check of an enrolment that it would fail.
    pub const fn slug(self) -> &'static str {
        match self {
            Self::ContextCondition => "context-condition",
            Self::ExternalIdEnforced => "external-id-enforced",
        }
    }

    /// What was seen, and what closes it, ready to paste.
    pub fn told(self, key: &KeyArn, access: &KeyAccess) -> String {
        let region = key.region();
        let put = format!(
            "`aws kms put-key-policy --key-id {key} --region {region} --policy-name default --policy file://policy.json`"
        );
        match (self, access) {
            (Self::ContextCondition, KeyAccess::KeyPolicy) => format!(
                "{key} also works with another organisation's encryption context. Put the key policy that `GET \
                 .../key-policy` prints on it, with its condition on the context: {put}."
            ),
            (Self::ContextCondition, KeyAccess::Role(role)) => format!(
                "{key} also works with another organisation's encryption context. Put the key policy that `GET \
                 .../key-policy` prints on it: {put}; and the permission policy on the role: `aws iam put-role-policy \
                 --role-name {} --policy-name claviger --policy-document file://permissions.json`.",
                role.arn.name()
            ),
            (Self::ExternalIdEnforced, KeyAccess::KeyPolicy) => {
                format!("the role in front of {key} lets us in without its external id.")
            }
            (Self::ExternalIdEnforced, KeyAccess::Role(role)) => format!(
                "the role {arn} in front of {key} also lets us in without its external id, or with a wrong one. Put the \
                 trust policy that `GET .../key-policy` prints on it, and no other statement that allows us: `aws iam \
                 update-assume-role-policy --role-name {name} --policy-document file://trust.json`.",
                arn = role.arn,
                name = role.arn.name()
            ),
        }
    }
}

/// What a description of a key said.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Described {
    /// Whether AWS renews its material by itself; none where nobody may ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotates: Option<bool>,
    /// Names the material under which new data is encrypted; AWS gives it a new name with each rotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub material: Option<String>,
    /// When it will be deleted; it refuses already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<Timestamp>,
    /// When its imported material expires; until then it works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub material_expires_at: Option<Timestamp>,
    /// Ways in that were found; none when it was not tried, or could not be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loopholes: Option<BTreeSet<Loophole>>,
    /// How many data keys its older material wraps: counted after a rotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<MaterialShare>,
}

/// How much of what a key wraps is under material that it had before its last rotation. All of it stays readable; only
/// wrapping it anew brings it under the new material (spec K2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MaterialShare {
    /// Data keys that the key wraps.
    pub data_keys: u64,
    /// Those that were wrapped before new material was seen.
    pub under_old: u64,
    /// When they were counted.
    pub counted_at: Timestamp,
}

/// How long a count of data keys is good for, as long as some are under old material.
const COUNT_AGAIN: SignedDuration = SignedDuration::from_hours(7 * 24);

impl Described {
    /// The ways in that are known.
    pub fn open(&self) -> impl Iterator<Item = Loophole> + '_ {
        self.loopholes.iter().flatten().copied()
    }

    /// What runs out, soonest first.
    pub fn countdowns(&self) -> Vec<Countdown> {
        let deletion = self.deleted_at.map(|at| Countdown { what: RunsOut::Deletion, at });
        let expiry = self.material_expires_at.map(|at| Countdown { what: RunsOut::MaterialExpiry, at });
        let mut all: Vec<Countdown> = deletion.into_iter().chain(expiry).collect();
        all.sort_by_key(|countdown| countdown.at);
        all
    }
}

/// What takes effect when a countdown is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunsOut {
    /// The key is deleted, and cannot be brought back.
    Deletion,
    /// The imported material is gone, and the key refuses until it is imported again.
    MaterialExpiry,
}

/// Something that will take effect at a known moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Countdown {
    /// What.
    pub what: RunsOut,
    /// When.
    pub at: Timestamp,
}

impl Countdown {
    /// The moments at which it is told again: so many days before it takes effect.
    pub fn reminders<'a>(&self, days_before: &'a [u16]) -> impl Iterator<Item = Timestamp> + use<'a> {
        let at = self.at;
        days_before.iter().map(move |days| at - SignedDuration::from_hours(24 * i64::from(*days)))
    }
}

/// What is known of a key from descriptions. It is stored when it changes, not each time that somebody looked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outlook {
    /// What the last description said.
    #[serde(flatten)]
    pub described: Described,
    /// Since when it says so.
    pub seen_at: Timestamp,
    /// When another material than before was first seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotated_at: Option<Timestamp>,
    /// When its countdowns were last told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warned_at: Option<Timestamp>,
}

impl Outlook {
    /// Since when other material is in use, if it is time to count what the older still wraps.
    pub fn count_since(&self, now: Timestamp) -> Option<Timestamp> {
        let rotated_at = self.rotated_at?;
        let due = self.described.share.is_none_or(|share| {
            let stale = share.under_old > 0 && now.duration_since(share.counted_at) >= COUNT_AGAIN;
            share.counted_at < rotated_at || stale
        });
        due.then_some(rotated_at)
    }
}
