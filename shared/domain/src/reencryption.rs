//! Moving to new keys (spec X): a job of a policy, from its request to its ledger.
//!
//! Every data key is first wrapped under the new keys too (preparing), then the policy's keys are exchanged in one
//! decision (the switch, the point of no return), then records are written anew under data keys that the old keys
//! never wrapped. So at every instant each data key that a record names is wrapped under a known key (I6).

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::catalogue::Mode;
use crate::data_keys::FormerDataKeys;
use crate::fence::Cause;
use crate::ids::{ReencryptionId, TicketId};
use crate::invalid::{Invalid, shown};
use crate::key_access::KeyAccess;
use crate::observation::Observation;
use crate::policy::{EncryptionPolicy, KeyHealth, Lifecycle};
use crate::values::{KeyArn, Region, Subject};

/// What is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Depth {
    /// Every record: what the old key protected is readable only with the new one.
    Rekey,
    /// The data keys alone: no record is touched, and the old key never becomes safe to delete by it.
    Rewrap,
}

impl Depth {
    /// As it is written in requests and answers.
    pub const fn slug(self) -> &'static str {
        match self {
            Self::Rekey => "rekey",
            Self::Rewrap => "rewrap",
        }
    }
}

impl std::str::FromStr for Depth {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "rekey" => Ok(Self::Rekey),
            "rewrap" => Ok(Self::Rewrap),
            _ => Err(Invalid::new(
                format!("`{}` is not a depth", shown(text)),
                "use `rekey` (every record) or `rewrap` (the data keys alone)",
            )),
        }
    }
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "camelCase", tag = "phase")]
pub enum Phase {
    /// Every data key is wrapped under the new keys too. Losing a new key here harms nothing.
    Preparing,
    /// It was cancelled in time; the new wraps are taken away.
    Cancelling,
    /// After the switch: records are written anew.
    Rewriting {
        /// Which pass over the data, from 1.
        pass: u32,
    },
    /// Looking for what is still old.
    Scanning {
        /// Which pass over the data.
        pass: u32,
        /// When an earlier scan ended that found nothing; none for the first.
        clean_since: Option<Timestamp>,
    },
    /// A scan found nothing; what was in transit meanwhile may still arrive.
    Waiting {
        /// The pass that was clean.
        pass: u32,
        /// When it ended.
        clean_since: Timestamp,
    },
    /// The wraps under the old keys are taken away.
    Finishing,
}

impl Phase {
    /// The word that is shown.
    pub const fn slug(self) -> &'static str {
        match self {
            Self::Preparing => "preparing",
            Self::Cancelling => "cancelling",
            Self::Rewriting { .. } => "rewriting",
            Self::Scanning { .. } => "scanning",
            Self::Waiting { .. } => "waiting",
            Self::Finishing => "finishing",
        }
    }

    /// The pass over the data that is under way.
    pub const fn pass(self) -> Option<u32> {
        match self {
            Self::Rewriting { pass } | Self::Scanning { pass, .. } => Some(pass),
            Self::Preparing | Self::Cancelling | Self::Waiting { .. } | Self::Finishing => None,
        }
    }

    /// Whether the policy's keys are the new ones already.
    pub const fn is_switched(self) -> bool {
        match self {
            Self::Preparing | Self::Cancelling => false,
            Self::Rewriting { .. } | Self::Scanning { .. } | Self::Waiting { .. } | Self::Finishing => true,
        }
    }
}

/// A new key that could not be used while the job prepared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyFault {
    /// Where.
    pub region: Region,
    /// What it answered.
    pub saw: Observation,
}

/// A job that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reencryption {
    /// Its identifier.
    pub id: ReencryptionId,
    /// The ticket that tells of it.
    pub ticket: TicketId,
    /// When it was asked for.
    pub requested_at: Timestamp,
    /// By which org admin.
    pub by: Subject,
    /// What is moved.
    pub depth: Depth,
    /// How far it is.
    #[serde(flatten)]
    pub phase: Phase,
    /// The new keys.
    pub keys: BTreeMap<Region, KeyArn>,
    /// How they are reached.
    pub access: KeyAccess,
    /// The generation of the policy once it has them.
    pub generation: u64,
    /// When the policy got them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switched_at: Option<Timestamp>,
    /// The mode that is shown until the job is through (spec X6).
    pub mode_until_done: Mode,
    /// Since when an org admin has it stand still.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Timestamp>,
    /// A new key that refuses, while the job prepares; afterwards the watcher knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<KeyFault>,
}

/// The keys that a policy had before: known for good, because old wraps and backups name them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FormerKeys {
    /// Their generation.
    pub generation: u64,
    /// One a region.
    pub keys: BTreeMap<Region, KeyArn>,
    /// How they are reached.
    pub access: KeyAccess,
    /// When others took their place.
    pub replaced_at: Timestamp,
    /// By which job.
    pub job: ReencryptionId,
    /// What became of the data keys of this generation.
    #[serde(default, skip_serializing_if = "FormerDataKeys::are_kept")]
    pub data_keys: FormerDataKeys,
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Everything was moved.
    Completed,
    /// An org admin cancelled it before the switch; nothing has changed.
    Cancelled,
}

/// A job that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndedReencryption {
    /// As it was in the end.
    pub job: Reencryption,
    /// How it ended.
    pub outcome: Outcome,
    /// When.
    pub at: Timestamp,
    /// How many old versions of objects its last scan left under old data keys; none if nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_versions: Option<u64>,
}

/// What keeps a job from going on. It goes on by itself when that is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hindrance {
    /// The organisation is cut off.
    CutOff(Option<Cause>),
    /// A new key refuses.
    NewKey {
        /// Where.
        region: Region,
    },
}

impl Hindrance {
    /// In words.
    pub fn words(&self) -> String {
        match self {
            Self::CutOff(Some(cause)) => {
                format!("access to the data of the organisation is cut off (cause `{}`)", cause.slug())
            }
            Self::CutOff(None) => "access to the data of the organisation is cut off".to_owned(),
            Self::NewKey { region } => format!("the new key in {region} refuses"),
        }
    }
}

impl EncryptionPolicy {
    /// What keeps its job from going on; none without a job.
    pub fn hindrance(&self) -> Option<Hindrance> {
        let job = self.reencryption.as_ref()?;
        // Taking wraps away needs no key.
        if job.phase == Phase::Cancelling {
            return None;
        }
        if !self.fence.is_open() || !matches!(self.lifecycle, Lifecycle::Active { .. }) {
            return Some(Hindrance::CutOff(self.fence.causes.first().copied()));
        }
        if !job.phase.is_switched() {
            return job.fault.as_ref().map(|fault| Hindrance::NewKey { region: fault.region.clone() });
        }
        let lost = |key: &crate::policy::RegionalKey| key.given_up || key.health.stands_refused();
        let lost = self.keys.iter().find(|(_, key)| lost(key));
        lost.map(|(region, _)| Hindrance::NewKey { region: region.clone() })
    }

    /// Whether its job may work now.
    pub fn may_reencrypt(&self) -> bool {
        self.reencryption.as_ref().is_some_and(|job| job.paused.is_none()) && self.hindrance().is_none()
    }

    /// The generation that the next job gives its keys: one that no job had, a cancelled one neither.
    pub fn next_generation(&self) -> u64 {
        let ended = self.reencryptions.iter().map(|ended| ended.job.generation).max();
        self.generation.max(ended.unwrap_or(0)).saturating_add(1)
    }

    /// How a key of this policy, of a job or of former generations is reached; none if nobody knows it (I6).
    pub fn access_of(&self, arn: &KeyArn) -> Option<&KeyAccess> {
        if self.keys.values().any(|key| key.arn == *arn) {
            return Some(&self.access);
        }
        let job = self.reencryption.as_ref().filter(|job| job.keys.values().any(|key| key == arn));
        let former =
            || self.former_keys.iter().rev().find(|former| former.keys.values().any(|key| key == arn));
        job.map(|job| &job.access).or_else(|| former().map(|former| &former.access))
    }

    /// The policy as the switch of its job makes it, with these canaries: what has to be probed before.
    #[must_use]
    pub fn with_new_keys(&self, canaries: &BTreeMap<Region, String>, now: Timestamp) -> Self {
        let mut next = self.clone();
        if let Some(job) = &self.reencryption {
            next.access = job.access.clone();
            next.refused_unwrap = None;
            next.keys = job
                .keys
                .iter()
                .map(|(region, arn)| {
                    let key = crate::policy::RegionalKey {
                        arn: arn.clone(),
                        canary: canaries.get(region).cloned(),
                        health: KeyHealth::Usable,
                        since: now,
                        replacement: None,
                        outlook: None,
                        lost_before: 0,
                        given_up: false,
                    };
                    (region.clone(), key)
                })
                .collect();
        }
        next
    }
}
