//! The fence: what every process of the data plane reads before it uses a key (design, point 5).

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Why a fence is closed. Each cause is lifted only by its own authority (I5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The customer took its keys away.
    Key,
    /// The vendor suspended (spec K1).
    Vendor,
    /// The organisation is leaving.
    Closing,
}

impl Cause {
    /// The cause as it is stored and shown.
    pub const fn slug(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Vendor => "vendor",
            Self::Closing => "closing",
        }
    }
}

/// How often the fence of a policy closed or opened. Effects and keys of an older epoch count for nothing. A
/// second cause that comes, or goes while another stays, is no new epoch: nothing changes for anybody who was
/// told to stop, and an order that is on its way has to arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// The fence of one policy. Open when it has no cause.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fence {
    /// Raised by every close and every open.
    pub epoch: Epoch,
    /// The open causes.
    pub causes: BTreeSet<Cause>,
    /// Generation of keys below which nothing may be written any more (design, point 11).
    pub min_write_generation: u64,
    /// When it last changed; `None` while it never did.
    pub changed_at: Option<Timestamp>,
}

impl Fence {
    /// Whether keys may be used.
    pub fn is_open(&self) -> bool {
        self.causes.is_empty()
    }

    /// The fence with one more cause. A cause that is there already changes nothing.
    #[must_use]
    pub fn closed_by(&self, cause: Cause, now: Timestamp) -> Self {
        let mut next = self.clone();
        if next.causes.insert(cause) {
            if self.is_open() {
                next.epoch = self.epoch.next();
            }
            next.changed_at = Some(now);
        }
        next
    }

    /// The fence without a cause; other causes keep it closed.
    #[must_use]
    pub fn lifted(&self, cause: Cause, now: Timestamp) -> Self {
        let mut next = self.clone();
        if next.causes.remove(&cause) {
            if next.is_open() {
                next.epoch = self.epoch.next();
            }
            next.changed_at = Some(now);
        }
        next
    }
}
