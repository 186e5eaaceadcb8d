//! What KMS says of a key besides whether it works: how its material is renewed (spec K2), when it will be deleted
//! and when its imported material expires (spec K4). Shown, recorded and warned of; only a probe says whether a key
//! works.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

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
}

impl Described {
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
