//! What travels between the functions, as JSON: over queues, the bus and synchronous calls.

use std::collections::{BTreeMap, BTreeSet};

use claviger_domain::access::KeyPermission;
use claviger_domain::closing::Counted;
use claviger_domain::effect::OutboxRow;
use claviger_domain::enrolment::Enrolment;
use claviger_domain::fence::Epoch;
use claviger_domain::heard::{HeardChange, one_or_many};
use claviger_domain::ids::{CorrelationId, InstanceId, OrganisationId, PolicyId};
use claviger_domain::key_access::ExternalId;
use claviger_domain::observation::{Observation, ProbeRound, RefusedUnwrap};
use claviger_domain::values::{KeyArn, OrganisationName, Region, ShardId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Work for the prober that waits in its queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "camelCase", tag = "kind")]
pub enum ProbeMessage {
    /// Probe every key of a shard.
    Sweep {
        /// Which.
        shard: ShardId,
        /// When it was meant to start. A message that comes a phase too late is dropped: the next one
        /// is there already.
        due_at: Timestamp,
    },
    /// Probe what a sweep of a shard had no time for.
    SweepRest(Rest),
    /// Probe the keys of one organisation, because of a hint.
    Probe {
        /// Whose.
        organisation: OrganisationName,
        /// How many hinted probes of this hint came before; each success is repeated, because KMS may
        /// still be propagating.
        attempt: u8,
        /// The data key whose unwrap was refused: it is unwrapped again, so that no key policy can
        /// please the canary and refuse the data keys.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        data_key: Option<RefusedUnwrap>,
        /// What an event of the customer's account said, for the ticket and the audit log.
        #[serde(default, skip_serializing_if = "Vec::is_empty", with = "one_or_many")]
        heard: Vec<HeardChange>,
        /// What it belongs to.
        correlation: CorrelationId,
    },
    /// Describe every key of a shard (spec K2, K4).
    Describe {
        /// Which.
        shard: ShardId,
    },
    /// Describe the keys of one organisation: a probe saw that there is something to tell.
    DescribeKeys {
        /// Whose.
        organisation: OrganisationName,
        /// What it belongs to.
        correlation: CorrelationId,
    },
    /// Probe the keys of one organisation when an ambiguous refusal becomes due (spec R4).
    FollowUp {
        /// Whose.
        organisation: OrganisationName,
        /// When the refusal stands, if it still persists.
        due_at: Timestamp,
        /// What an event of the customer's account said when the refusal began.
        #[serde(default, skip_serializing_if = "Vec::is_empty", with = "one_or_many")]
        heard: Vec<HeardChange>,
        /// What it belongs to.
        correlation: CorrelationId,
    },
}

/// What a sweep of a shard had no time for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rest {
    /// Which shard.
    pub shard: ShardId,
    /// When the sweep was meant to start: a phase later the next one is there.
    pub due_at: Timestamp,
    /// When it started, by which its beat is known.
    pub swept_at: Timestamp,
    /// What is left.
    pub policies: BTreeSet<PolicyId>,
}

/// A synchronous request to the prober.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "camelCase", tag = "kind")]
pub enum ProbeRequest {
    /// Probe every key of an organisation's policy now, `rounds` times.
    ProbeNow {
        /// Whose.
        organisation: OrganisationName,
        /// How many rounds, one after the other (1 to 3).
        rounds: u8,
    },
    /// Prove permissions on every key of an organisation's policy (spec K1).
    ProvePermissions {
        /// Whose.
        organisation: OrganisationName,
        /// Which.
        permissions: BTreeSet<KeyPermission>,
    },
    /// Unwrap every data key of a page of instances in one region (spec S2).
    UnwrapDataKeys {
        /// Whose.
        organisation: OrganisationName,
        /// Where.
        region: Region,
        /// Where the page starts; none for the first.
        cursor: Option<String>,
    },
    /// Make the key that takes the place of a lost one (BYOK, spec S2).
    MakeReplacement {
        /// Whose.
        organisation: OrganisationName,
        /// Where.
        region: Region,
    },
    /// Check the keys, or the role, of an enrolment that is not stored (spec E12).
    Check {
        /// The organisation's opaque id.
        organisation: OrganisationId,
        /// What its role asks for (BYOK).
        external_id: ExternalId,
        /// The regions of the realm.
        regions: Vec<Region>,
        /// What is asked for.
        enrolment: Enrolment,
        /// Permissions that the organisation has granted besides; the keys have to bear them too.
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        granted: BTreeSet<KeyPermission>,
    },
}

/// The prober's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "camelCase", tag = "kind")]
pub enum ProbeAnswer {
    /// What the rounds saw.
    Probed {
        /// Oldest first.
        rounds: Vec<ProbeRound>,
    },
    /// A page of data keys was unwrapped.
    Unwrapped {
        /// How many.
        data_keys: u64,
        /// Where the next page starts.
        next: Option<String>,
        /// What stood in the way of the first that could not be.
        fault: Option<Observation>,
    },
    /// A key was made, and proven.
    Made {
        /// Which.
        key: KeyArn,
    },
    /// What the checks found.
    Checked {
        /// One entry a check.
        checks: Vec<Check>,
    },
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckResult {
    /// As it should be.
    Pass,
    /// Works, but should be looked at.
    Warn,
    /// Enrolment would be refused.
    Fail,
}

/// One check of a key, with the remedy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// The check's slug.
    pub id: String,
    /// The region it is about; none for checks of the request itself.
    pub region: Option<Region>,
    /// How it ended.
    pub result: CheckResult,
    /// What was seen.
    pub observed: String,
    /// What to do.
    pub help: String,
}

/// Work for the suspender or the restorer: one page of a fan-out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FanOut {
    /// Whose instances.
    pub organisation: OrganisationName,
    /// Of which policy.
    pub policy: PolicyId,
    /// The epoch of the order.
    pub epoch: Epoch,
    /// Where the page starts; none for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Instances handled so far in this pass.
    #[serde(default)]
    pub done: u64,
    /// What it belongs to.
    pub correlation: CorrelationId,
}

impl FanOut {
    /// The first page of an effect's fan-out.
    pub fn root(row: &OutboxRow, epoch: Epoch) -> Self {
        Self {
            organisation: row.organisation.clone(),
            policy: row.policy,
            epoch,
            cursor: None,
            done: 0,
            correlation: row.correlation,
        }
    }
}

/// A page of an organisation's data keys that an effect wants gone through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DataKeyPage {
    /// The effect.
    pub row: OutboxRow,
    /// The region that it is about.
    pub region: Region,
    /// Where the page of instances starts; none for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Data keys handled so far.
    #[serde(default)]
    pub data_keys: u64,
}

/// A page of an organisation's data keys that are to be erased.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ErasurePage {
    /// The effect.
    pub row: OutboxRow,
    /// What is done to the page.
    pub step: ErasureStep,
    /// Where the page of instances starts; none for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// What is done to data keys that are to be erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "camelCase", tag = "do")]
pub enum ErasureStep {
    /// They are counted.
    Count {
        /// What was counted so far.
        counted: Counted,
    },
    /// They are deleted.
    Erase {
        /// Whether this pass has found none so far.
        clean: bool,
    },
}

/// A request for a newer version of an instance's data key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewerDataKey {
    /// Whose data key.
    pub instance: InstanceId,
    /// The version that an app has used for long or often. If it is not the current one any more, there is nothing to do.
    pub newer_than: u32,
    /// What it belongs to.
    pub correlation: CorrelationId,
}

/// What the vendor's apps hear on the bus about one instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AppOrder {
    /// Whose.
    pub organisation: OrganisationName,
    /// Which instance.
    pub instance_id: InstanceId,
    /// Its site.
    pub site: String,
    /// Its app.
    pub app: String,
    /// `suspend` or `restore`.
    pub order: String,
    /// The order's epoch; an app that knows a higher one ignores it.
    pub epoch: Epoch,
    /// What it belongs to.
    pub correlation_id: CorrelationId,
}

/// Context of a KMS call, by name.
pub type EncryptionContext = BTreeMap<String, String>;
