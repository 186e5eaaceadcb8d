//! What an organisation's keys were used for: KMS calls by day, key, operation and purpose (spec K3).
//!
//! They are counted where they leave for KMS, kept in the process ([`meter`]), and added to what is stored from time to
//! time ([`FlushUsage`]): a write a call would cost more than the call. So these counts may lack what a process had not
//! written when it ended, and are never above what KMS saw. The customer's CloudTrail is the reference.

mod flush;
mod meter;
mod price;
mod show;

use std::collections::BTreeMap;

use claviger_domain::ids::OrganisationId;
use claviger_domain::values::{KeyArn, Region};
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use flush::FlushUsage;
pub use meter::{MOST_USES, UsageMeter};
pub use price::KmsPrice;
pub use show::{RETENTION_DAYS, ShowUsage, UsageAnswer, UsageQuery, UsageRow};

/// In whose AWS account a call was made: KMS bills the requests to it and takes them from its quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Payer {
    /// In the vendor's, by the key-access role (CMK).
    Vendor,
    /// In the customer's own, by a session of its role (BYOK).
    Customer,
}

impl Payer {
    /// Its word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Vendor => "vendor",
            Self::Customer => "customer",
        }
    }
}

impl std::str::FromStr for Payer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "vendor" => Ok(Self::Vendor),
            "customer" => Ok(Self::Customer),
            other => Err(format!("`{other}` is nobody who pays")),
        }
    }
}

/// One way in which a key is used.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyUse {
    /// As CloudTrail spells it: `Decrypt`.
    pub operation: String,
    /// The purpose in the encryption context; none for calls that have no context.
    pub purpose: Option<String>,
    /// Where.
    pub region: Region,
    /// The key; none for calls about no single key (`ListKeys`), and for keys beyond [`MOST_USES`].
    pub key: Option<KeyArn>,
    /// In whose account.
    pub payer: Payer,
}

/// How often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Calls that KMS answered, whatever it said.
    pub calls: i64,
    /// Of those: access denied.
    pub denied: i64,
    /// Of those: throttled.
    pub throttled: i64,
    /// Calls that went out and were not answered, or not yet: nobody knows whether KMS saw them. An answer takes its
    /// call away from here, so what is added may be negative.
    pub unanswered: i64,
}

impl Tally {
    /// A call that leaves.
    pub const SENT: Self = Self { calls: 0, denied: 0, throttled: 0, unanswered: 1 };

    /// A call that came back with this error code; none for success.
    pub fn answered(code: Option<&str>) -> Self {
        let is = |wanted: &str| i64::from(code == Some(wanted));
        Self {
            calls: 1,
            denied: is("AccessDeniedException"),
            throttled: is("ThrottlingException"),
            unanswered: -1,
        }
    }

    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            calls: self.calls.saturating_add(other.calls),
            denied: self.denied.saturating_add(other.denied),
            throttled: self.throttled.saturating_add(other.throttled),
            unanswered: self.unanswered.saturating_add(other.unanswered),
        }
    }

    /// Whether it says nothing.
    pub fn is_nothing(self) -> bool {
        self == Self::default()
    }
}

/// Uses, and how often each.
pub type Uses = BTreeMap<KeyUse, Tally>;

/// What is added to a day of an organisation's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageDelta {
    /// Told apart from others that say the same: sent again, it adds nothing twice.
    pub id: Uuid,
    /// Whose.
    pub organisation: OrganisationId,
    /// The day of the calls, UTC.
    pub day: Date,
    /// What.
    pub uses: Uses,
}

/// What is stored of one day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DayOfUse {
    /// Which, UTC.
    pub day: Date,
    /// What.
    pub uses: Uses,
}
