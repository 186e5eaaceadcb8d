//! What a re-encryption stores and sends beside the policy: how far the job and each shard are, and the messages of
//! its two functions.

pub use claviger_domain::data_keys::Backup;
use claviger_domain::ids::{CorrelationId, InstanceId, PolicyId, ReencryptionId};
use claviger_domain::reencryption::Phase;
use claviger_domain::values::{App, OrganisationName, SiteName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What was found and done, in a batch or in sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Records that were looked at.
    pub seen: u64,
    /// Records that were written anew.
    pub rewritten: u64,
    /// Records that were new already.
    pub current: u64,
    /// Records that the app wrote in the same moment: its write stays.
    pub lost_races: u64,
    /// Records that are still old.
    pub old: u64,
    /// Old versions of objects under old data keys, which nobody can rewrite.
    pub old_versions: u64,
    /// Bytes that were written.
    pub bytes: u64,
}

impl Counts {
    /// The sum of both.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            seen: self.seen.saturating_add(other.seen),
            rewritten: self.rewritten.saturating_add(other.rewritten),
            current: self.current.saturating_add(other.current),
            lost_races: self.lost_races.saturating_add(other.lost_races),
            old: self.old.saturating_add(other.old),
            old_versions: self.old_versions.saturating_add(other.old_versions),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }
}

/// A batch of a shard.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecordBatch {
    /// What was found and done.
    pub counts: Counts,
    /// Where the next batch starts; none at the end of the shard.
    pub next: Option<String>,
}

/// Why there was no batch. Nothing was lost; the shard is tried again from its checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordsError {
    /// The organisation is cut off.
    #[error("the organisation is suspended")]
    Suspended,
    /// No keys now.
    #[error("no data keys are to be had now")]
    TemporarilyUnavailable,
    /// The vendor's store asks to go slower, or does not answer.
    #[error("the store is not available: {reason}")]
    Store {
        /// What it said.
        reason: String,
    },
    /// The vendor's store will not do it: rights, names.
    #[error("the store refuses: {reason}")]
    Refused {
        /// What it said.
        reason: String,
    },
    /// There is no store of records for this app: a fault of the deployment.
    #[error("no store is set up for the app `{app}`")]
    NoStore {
        /// Which.
        app: App,
    },
    /// A record cannot be read. Named by its key, never by its content.
    #[error("the record `{record}` cannot be read: {reason}")]
    Unreadable {
        /// Its key in the store.
        record: String,
        /// Why.
        reason: String,
    },
}

/// How far a job is in its phase, kept by the planner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobProgress {
    /// Which job.
    pub job: ReencryptionId,
    /// The phase that this is about. Another phase begins from the start.
    pub of: Phase,
    /// When that phase began.
    pub began_at: Timestamp,
    /// Whether every instance of the phase was gone through.
    pub listed: bool,
    /// Where the next page of instances starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Data keys that were gone through in this pass.
    pub data_keys: u64,
    /// Data keys that had to be changed in this pass.
    pub changed: u64,
    /// Shards of this pass.
    pub shards: u64,
    /// Shards of this pass that are through.
    pub shards_done: u64,
    /// What the shards of this pass found and did.
    pub counts: Counts,
    /// Records of those shards that are through: what is left is estimated by them where no store counts.
    #[serde(default)]
    pub seen_by_done: u64,
    /// Records that earlier passes wrote anew.
    pub rewritten_before: u64,
    /// About how many records there are; none if nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate: Option<u64>,
    /// What the last scan that went through everything found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scanned: Option<Scanned>,
    /// What stands in the way of some shard, by its record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// Whose step is the next. A message with another token is a doubled or a late one.
    pub token: Uuid,
    /// Until when that step is waited for; afterwards any message takes the job up.
    pub token_until: Timestamp,
    /// Raised by every change.
    pub version: u64,
}

impl JobProgress {
    /// How many records there are, once a pass has gone through all of them.
    pub fn counted(&self) -> Option<u64> {
        let through = self.of.pass().is_some() && self.listed && self.shards_done == self.shards;
        through.then_some(self.counts.seen)
    }

    /// About how many records there are: as the stores say, else by the shards that are through.
    pub fn estimated(&self) -> Option<u64> {
        let by_shards = || estimate_by_shards(self.seen_by_done, self.shards_done, self.shards);
        self.estimate.or_else(by_shards).map(|total| total.max(self.counts.seen))
    }
}

/// Shards are about the same size: what those that are through have seen tells of the others.
pub(crate) fn estimate_by_shards(seen: u64, done: u64, of: u64) -> Option<u64> {
    let total = u128::from(seen).checked_mul(u128::from(of))?.checked_div(u128::from(done))?;
    u64::try_from(total).ok()
}

/// What a whole scan found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Scanned {
    /// When it ended.
    pub at: Timestamp,
    /// How many records it saw.
    pub records: u64,
    /// How many of them are old.
    pub old: u64,
    /// Old versions of objects under old data keys.
    pub old_versions: u64,
}

/// Where a shard is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShardPlace {
    /// Of which job.
    pub job: ReencryptionId,
    /// Of which instance's records.
    pub instance: InstanceId,
    /// Which part, from 0.
    pub index: u16,
}

/// How far a shard is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShardCheckpoint {
    /// Where it is.
    #[serde(flatten)]
    pub place: ShardPlace,
    /// The instance's site.
    pub site: SiteName,
    /// The instance's app.
    pub app: App,
    /// In how many parts.
    pub of: u16,
    /// In which pass over the data.
    pub pass: u32,
    /// Where the next batch starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Whether it is through.
    pub done: bool,
    /// What was found and done in this pass.
    pub counts: Counts,
    /// About how many records its instance has; kept by the first part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate: Option<u64>,
    /// What stands in its way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// Who may work on it next.
    pub token: Uuid,
    /// Until when; afterwards anybody may.
    pub token_until: Timestamp,
    /// Raised by every change.
    pub version: u64,
}

/// Message: a job's next step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobStep {
    /// Whose.
    pub organisation: OrganisationName,
    /// Of which policy.
    pub policy: PolicyId,
    /// Which job.
    pub job: ReencryptionId,
    /// The step's token; none for a message that takes up whatever nobody is at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Uuid>,
    /// What it belongs to.
    pub correlation: CorrelationId,
}

/// Message: work on a shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShardWork {
    /// Whose.
    pub organisation: OrganisationName,
    /// Which shard.
    #[serde(flatten)]
    pub place: ShardPlace,
    /// In which pass.
    pub pass: u32,
    /// Who may work on it.
    pub token: Uuid,
    /// What it belongs to.
    pub correlation: CorrelationId,
}
