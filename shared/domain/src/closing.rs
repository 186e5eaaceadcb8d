//! An organisation leaves: it asks, support approves, a time for its export runs, then access ends and every wrapped
//! data key is deleted. There is no other way out of the customer's own keys (spec E11), and after the last step no
//! way back.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::catalogue::ClosingRules;
use crate::ids::TicketId;
use crate::policy::EncryptionPolicy;
use crate::values::Subject;

/// How far a closing has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "camelCase", tag = "stage")]
pub enum ClosingStage {
    /// A support agent has to approve.
    Asked {
        /// When it is due.
        due_at: Timestamp,
    },
    /// The organisation exports its data; nothing is taken from it yet.
    Exporting {
        /// Until when.
        until: Timestamp,
        /// The moments that lie up to here have been told.
        told: Timestamp,
    },
    /// Access has ended; the wrapped data keys are being deleted.
    Erasing {
        /// Since when.
        since: Timestamp,
        /// What there is to erase, once it was counted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        counted: Option<Counted>,
    },
}

/// What there is to erase. It is counted before the first key goes, so that no repetition counts too few.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counted {
    /// Data keys, each with all its wraps.
    pub data_keys: u64,
    /// App instances that have some.
    pub instances: u64,
}

/// A closing that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Closing {
    /// When it was asked for.
    pub asked_at: Timestamp,
    /// By which org admin.
    pub by: Subject,
    /// Its own ticket.
    pub ticket: TicketId,
    /// How far it has come.
    #[serde(flatten)]
    pub stage: ClosingStage,
}

impl Closing {
    /// The word that is shown.
    pub const fn slug(&self) -> &'static str {
        match self.stage {
            ClosingStage::Asked { .. } => "asked",
            ClosingStage::Exporting { .. } => "exporting",
            ClosingStage::Erasing { .. } => "erasing",
        }
    }
}

/// What was erased: the facts of the statement that the organisation gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Erasure {
    /// When the closing was asked for.
    pub asked_at: Timestamp,
    /// When access ended.
    pub access_ended_at: Timestamp,
    /// When the last wrapped data key was gone.
    pub erased_at: Timestamp,
    /// What there was.
    #[serde(flatten)]
    pub counted: Counted,
    /// The ticket of the closing.
    pub ticket: TicketId,
}

/// A moment of the time for the export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "camelCase", tag = "kind")]
pub enum ClosingMoment {
    /// The org admins are reminded that it ends.
    Reminder {
        /// When they are to be.
        at: Timestamp,
    },
    /// It ends.
    ExportEnds {
        /// When it does.
        at: Timestamp,
    },
}

impl ClosingMoment {
    /// When it is.
    pub const fn at(&self) -> Timestamp {
        match self {
            Self::Reminder { at } | Self::ExportEnds { at } => *at,
        }
    }
}

/// The latest moment that has come and was not told. Of several, only the latest says anything still.
///
/// INVARIANT (E3): the time for the export does not end while nobody is registered as an admin who could cancel.
pub fn due(rules: &ClosingRules, policy: &EncryptionPolicy, now: Timestamp) -> Option<ClosingMoment> {
    let ClosingStage::Exporting { until, told } = policy.closing.as_ref()?.stage else {
        return None;
    };
    let held = policy.records.as_ref().is_some_and(|records| records.without_admin);
    let day = |days: &u16| until - SignedDuration::from_hours(24 * i64::from(*days));
    let reminders = rules.remind_days_before.iter().map(|days| ClosingMoment::Reminder { at: day(days) });
    let moments = reminders.chain((!held).then_some(ClosingMoment::ExportEnds { at: until }));
    moments.filter(|moment| moment.at() <= now && moment.at() > told).max_by_key(ClosingMoment::at)
}
