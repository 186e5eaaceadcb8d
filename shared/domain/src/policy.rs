//! An organisation's one encryption policy: its keys, its lifecycle and its fence.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::access::{AccessRequest, KeyPermission};
use crate::catalogue::Mode;
use crate::closing::{Closing, Erasure};
use crate::fact::AuditHead;
use crate::fence::{Epoch, Fence};
use crate::heard::HeardChange;
use crate::ids::{OrganisationId, PolicyId, TicketId};
use crate::key_access::KeyAccess;
use crate::key_policy::KEY_POLICY_VERSION;
use crate::observation::{NoAnswerKind, RefusalKind, RefusedUnwrap};
use crate::outlook::Outlook;
use crate::reencryption::{Depth, EndedReencryption, FormerKeys, Reencryption};
use crate::values::{AccountId, App, ContextTag, KeyArn, OrganisationName, Realm, Region, ShardId, Subject};
use crate::vendor::{LiftProposal, VendorSuspension};

/// What is believed about a regional key, from probes alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub enum KeyHealth {
    /// Never probed.
    Unknown,
    /// The last answer was a success.
    Usable,
    /// The last answer was a refusal.
    Refused {
        /// What KMS said.
        kind: RefusalKind,
        /// Since when every answer was a refusal; `None` while the clock of an ambiguous one cannot start,
        /// because the control probes fail too.
        #[serde(rename = "refusedSince")]
        refused_since: Option<Timestamp>,
        /// Whether it counts: at once for a definite refusal, after persisting for an ambiguous one.
        stands: bool,
    },
    /// The last probe got no answer about the key. What was known before is kept, for an ambiguous
    /// refusal that was under way.
    NoAnswer {
        /// Why there was none.
        kind: NoAnswerKind,
        /// An ambiguous refusal's start, if one was under way.
        #[serde(rename = "refusedSince")]
        refused_since: Option<Timestamp>,
    },
}

impl KeyHealth {
    /// The word that is shown (design, HTTP interface).
    pub const fn slug(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Usable => "usable",
            Self::Refused { kind, .. } => match kind {
                RefusalKind::KeyDisabled => "disabled",
                RefusalKind::KeyPendingDeletion => "pending-deletion",
                RefusalKind::KeyPendingImport => "pending-import",
                RefusalKind::KeyNotFound => "deleted",
                RefusalKind::AccessDenied | RefusalKind::RoleDenied => "access-denied",
                RefusalKind::KeyUnavailable => "key-store-disconnected",
                RefusalKind::InvalidState => "invalid-state",
            },
            Self::NoAnswer { kind, .. } => match kind {
                NoAnswerKind::Throttled => "throttled",
                NoAnswerKind::Unreachable | NoAnswerKind::OurFault => "unreachable",
            },
        }
    }

    /// Whether the customer's refusal counts.
    pub const fn stands_refused(self) -> bool {
        matches!(self, Self::Refused { stands: true, .. })
    }
}

/// The key of one region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegionalKey {
    /// The customer's key.
    pub arn: KeyArn,
    /// A ciphertext made under the key when it was enrolled, base64; probes decrypt it.
    pub canary: Option<String>,
    /// What is believed about it.
    pub health: KeyHealth,
    /// Since when.
    pub since: Timestamp,
    /// A new key that takes this one's place once every data key is wrapped under it (spec S2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replacement: Option<Replacement>,
    /// What is known of it from descriptions; none before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outlook: Option<Outlook>,
    /// How many keys of this generation were lost in its place before it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lost_before: u64,
    /// An org admin restored access without it: it is gone for good.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub given_up: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// What is amiss in the vendor's customer records, and has been told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordsTrouble {
    /// Apps with instances that are encrypted, or approved, whose plan does not include encryption any more.
    pub plans_ended: BTreeSet<App>,
    /// Whether nobody is registered as an admin.
    pub without_admin: bool,
    /// The ticket that tells of it.
    pub ticket: TicketId,
}

/// One org admin's word that a key changes. It changes nothing: a second admin has to say so too, in time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyChange {
    /// Which region.
    pub region: Region,
    /// The new key.
    pub key: KeyArn,
    /// The first admin.
    pub by: Subject,
    /// When.
    pub at: Timestamp,
}

/// One org admin's word that everything moves to new keys. It changes nothing: a second admin has to say so too, in time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReencryptionProposal {
    /// The new keys; none where the service makes them.
    pub keys: BTreeMap<Region, KeyArn>,
    /// What is moved.
    pub depth: Depth,
    /// The first admin.
    pub by: Subject,
    /// When.
    pub at: Timestamp,
    /// The ticket that tells of it, and then of the job.
    pub ticket: TicketId,
}

/// A new key for a region whose key is gone for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Replacement {
    /// The new key.
    pub arn: KeyArn,
    /// When it was asked for.
    pub asked_at: Timestamp,
    /// By which org admin.
    pub by: Subject,
}

impl RegionalKey {
    /// Whether it is gone for good, as far as probes tell, or an org admin gave it up: nothing can be proven on it.
    pub const fn is_gone(&self) -> bool {
        self.given_up
            || matches!(self.health, KeyHealth::Refused { kind, stands: true, .. } if kind.is_for_good())
    }

    /// What the customer should do about this key, if anything, ready to paste.
    pub fn help(&self) -> Option<String> {
        match self.health {
            KeyHealth::Refused { kind, .. } => Some(kind.remedy_for(&self.arn)),
            KeyHealth::NoAnswer { .. } => {
                Some("nothing to do: it heals by itself when AWS answers again".to_owned())
            }
            KeyHealth::Unknown | KeyHealth::Usable => None,
        }
    }
}

const SUSPENDED: &str = "suspended";

/// Where a policy stands. What a state needs to know is in the state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub enum Lifecycle {
    /// Asked for; a support agent has to approve.
    Requested {
        /// When.
        at: Timestamp,
        /// By which org admin.
        by: Subject,
        /// When it is due (spec E10).
        #[serde(rename = "dueAt")]
        due_at: Timestamp,
    },
    /// Approved; keys are being proven and canaries made.
    Verifying {
        /// Since when.
        since: Timestamp,
        /// When it is due.
        #[serde(rename = "dueAt")]
        due_at: Timestamp,
    },
    /// In use.
    Active {
        /// Since when.
        since: Timestamp,
    },
    /// Cut off by the customer's keys. Ends by an org admin's request and fresh probes. (A suspension by the
    /// vendor is no state of its own: it may come and go in any state that has keys.)
    Suspended {
        /// The cut-off: when the fence closed. Windows count from here.
        #[serde(rename = "cutOffAt")]
        cut_off_at: Timestamp,
    },
    /// An org admin asked for restoration and every region answered once; being proven again.
    Restoring {
        /// Since when.
        since: Timestamp,
        /// The cut-off, kept for the window.
        #[serde(rename = "cutOffAt")]
        cut_off_at: Timestamp,
        /// Who asked.
        by: Subject,
        /// Regions whose key is gone for good, and without which access is restored (spec S2).
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        without: BTreeSet<Region>,
    },
    /// The window is over.
    Lapsed {
        /// The cut-off.
        #[serde(rename = "cutOffAt")]
        cut_off_at: Timestamp,
    },
    /// The organisation left.
    Closed {
        /// When.
        at: Timestamp,
    },
    /// Support refused the request, or verification failed.
    Rejected {
        /// When.
        at: Timestamp,
        /// Why.
        reason: String,
    },
}

impl Lifecycle {
    /// The word that is shown.
    pub const fn slug(&self) -> &'static str {
        match self {
            Self::Requested { .. } => "requested",
            Self::Verifying { .. } => "verifying",
            Self::Active { .. } => "active",
            Self::Suspended { .. } => SUSPENDED,
            Self::Restoring { .. } => "restoring",
            Self::Lapsed { .. } => "lapsed",
            Self::Closed { .. } => "closed",
            Self::Rejected { .. } => "rejected",
        }
    }

    /// When the fence closed, in the states that remember it.
    pub const fn cut_off_at(&self) -> Option<Timestamp> {
        match self {
            Self::Suspended { cut_off_at }
            | Self::Restoring { cut_off_at, .. }
            | Self::Lapsed { cut_off_at } => Some(*cut_off_at),
            Self::Requested { .. }
            | Self::Verifying { .. }
            | Self::Active { .. }
            | Self::Closed { .. }
            | Self::Rejected { .. } => None,
        }
    }

    /// Whether the policy's keys are swept by the prober: from its activation until it is closed.
    pub const fn is_watched(&self) -> bool {
        match self {
            Self::Active { .. } | Self::Suspended { .. } | Self::Restoring { .. } | Self::Lapsed { .. } => {
                true
            }
            Self::Requested { .. } | Self::Verifying { .. } | Self::Closed { .. } | Self::Rejected { .. } => {
                false
            }
        }
    }
}

/// The aggregate on which [`crate::decide::decide`] works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EncryptionPolicy {
    /// Its identifier.
    pub id: PolicyId,
    /// Whose it is.
    pub organisation: OrganisationId,
    /// The vendor's name for whose it is.
    pub organisation_name: OrganisationName,
    /// How the keys are reached, and with it the mode.
    pub access: KeyAccess,
    /// Where the data lives.
    pub realm: Realm,
    /// The customer's account.
    pub account: AccountId,
    /// The label in every encryption context.
    pub context_tag: ContextTag,
    /// The shard in which its keys are swept.
    pub shard: ShardId,
    /// One key per region of the realm; none yet while a BYOK organisation's keys are not made.
    pub keys: BTreeMap<Region, RegionalKey>,
    /// Where it stands.
    pub lifecycle: Lifecycle,
    /// What the data plane reads.
    pub fence: Fence,
    /// Generation of the keys; re-encryption raises it.
    pub generation: u64,
    /// The job that moves it to new keys, while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reencryption: Option<Reencryption>,
    /// The keys that it had before, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former_keys: Vec<FormerKeys>,
    /// Jobs that have ended, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reencryptions: Vec<EndedReencryption>,
    /// The open ticket of a revocation, complete or not.
    pub ticket: Option<TicketId>,
    /// What events of the customer's account said of this revocation, as far as it was told on its ticket.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub told_heard: Vec<HeardChange>,
    /// What was heard before this moment belongs to a revocation that is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told_until: Option<Timestamp>,
    /// The open ticket that warns of what is foretold of keys (spec K4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<TicketId>,
    /// What the vendor asked for since (spec K1), oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub access_requests: Vec<AccessRequest>,
    /// Epoch of the newest order that every instance has been told of: a fan-out that is carried out twice
    /// is finished once.
    pub told: Epoch,
    /// The vendor's own suspension, while there is one. INVARIANT: as long as the fence has the cause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor: Option<VendorSuspension>,
    /// What is amiss in the vendor's customer records (spec E1, E3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records: Option<RecordsTrouble>,
    /// A new key that a second org admin has to confirm, where the catalogue asks for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_change: Option<KeyChange>,
    /// A re-encryption that a second org admin has to confirm, where the catalogue asks for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reencryption_proposal: Option<ReencryptionProposal>,
    /// The organisation is leaving.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closing: Option<Closing>,
    /// It left, and this was erased.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub erasure: Option<Erasure>,
    /// What a support agent said about a mistake and a second one has not confirmed (spec S7).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lift: Option<LiftProposal>,
    /// Since it was cut off by its keys, KMS said of one of them what only its owner can have done: this suspension is
    /// no mistake (spec S7).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refused_for_certain: bool,
    /// When a restoration stopped that opened nothing: what was asked for on the ticket up to then is done with (spec S1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restoration_stopped_at: Option<Timestamp>,
    /// The moments of the restoration window that lie up to here have been told (spec S3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_told: Option<Timestamp>,
    /// Start of the newest probe that changed something; an older one is dropped.
    pub probed_at: Option<Timestamp>,
    /// A data key that its keys refused while they pleased the canary: probed beside it until that ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused_unwrap: Option<RefusedUnwrap>,
    /// The end of its chain of facts.
    pub audit: AuditHead,
    /// Raised by every commit; the store compares it.
    pub version: u64,
}

impl EncryptionPolicy {
    /// How the keys are held (spec E8). A job that changes it changes it when it is through (spec X6).
    pub fn mode(&self) -> Mode {
        self.reencryption.as_ref().map_or(self.access.mode(), |job| job.mode_until_done)
    }

    /// Who proposed a change of keys that waits for a second org admin.
    pub fn proposers(&self) -> impl Iterator<Item = &Subject> {
        let of_one = self.key_change.as_ref().map(|first| &first.by);
        of_one.into_iter().chain(self.reencryption_proposal.as_ref().map(|first| &first.by))
    }

    /// The word that is shown of where it stands: an active policy whose fence somebody closed for another
    /// cause than its keys is suspended for everybody who asks.
    pub fn standing(&self) -> &'static str {
        match self.lifecycle {
            Lifecycle::Active { .. } if !self.fence.is_open() => SUSPENDED,
            Lifecycle::Requested { .. }
            | Lifecycle::Verifying { .. }
            | Lifecycle::Active { .. }
            | Lifecycle::Suspended { .. }
            | Lifecycle::Restoring { .. }
            | Lifecycle::Lapsed { .. }
            | Lifecycle::Closed { .. }
            | Lifecycle::Rejected { .. } => self.lifecycle.slug(),
        }
    }

    /// Whether some regions refuse while others still work (spec R5).
    pub fn is_degraded(&self) -> bool {
        let refused = self.keys.values().filter(|key| key.health.stands_refused() || key.given_up).count();
        refused > 0 && refused < self.keys.len()
    }

    /// Whether instances are being told that they may work again: what ends that reports on the ticket (spec S4).
    pub fn is_coming_back(&self) -> bool {
        self.fence.is_open() && self.told < self.fence.epoch
    }

    /// The version of the key-policy template that its keys are known to have: of the newest request that was proven,
    /// else the one that the service began with.
    pub fn template_version(&self) -> &str {
        let newest = self.access_requests.iter().rev().find(|asked| asked.is_granted());
        newest.map_or(KEY_POLICY_VERSION, |asked| asked.version.as_str())
    }

    /// Every permission that was accepted since it enrolled: each was proven on the keys of then, and a key that takes
    /// another's place has to prove it too (spec K1).
    pub fn granted_permissions(&self) -> BTreeSet<KeyPermission> {
        let granted = self.access_requests.iter().filter(|asked| asked.is_granted());
        granted.flat_map(|asked| asked.permissions.iter().copied()).collect()
    }

    /// The regions in which a permission can be proven: all but those whose key is gone for good; all, if none is left.
    pub fn provable_regions(&self) -> BTreeSet<Region> {
        let whole = self.keys.iter().filter(|(_, key)| !key.is_gone());
        let provable: BTreeSet<Region> = whole.map(|(region, _)| region.clone()).collect();
        if provable.is_empty() { self.keys.keys().cloned().collect() } else { provable }
    }

    /// The access request for which new apps wait: one that was declined, or ignored (spec K1).
    pub fn held_back_by(&self, now: Timestamp) -> Option<&AccessRequest> {
        self.access_requests.iter().find(|asked| asked.holds_back(now))
    }

    /// The keys that nobody else may enrol: those in use, those that are to take their place, and those before.
    pub fn claimed_keys(&self) -> BTreeSet<KeyArn> {
        let wanted = self.keys.values().filter_map(|key| key.replacement.as_ref()).map(|wanted| &wanted.arn);
        let new = self.reencryption.iter().flat_map(|job| job.keys.values());
        // Old keys may still be needed, and one that was used once is never used again.
        let former = self.former_keys.iter().flat_map(|former| former.keys.values());
        self.keys.values().map(|key| &key.arn).chain(wanted).chain(new).chain(former).cloned().collect()
    }

    /// The encryption context of the canary, and with another purpose and instance, of data keys
    /// (spec K3, E9).
    pub fn encryption_context(&self, purpose: &str, subject: &str) -> BTreeMap<String, String> {
        encryption_context(self.organisation, purpose, subject, &self.context_tag)
    }
}

/// Every call under a customer's key carries these four; the key policy's condition is on the first.
pub fn encryption_context(
    organisation: OrganisationId,
    purpose: &str,
    subject: &str,
    tag: &ContextTag,
) -> BTreeMap<String, String> {
    [
        (CONTEXT_ORGANISATION.to_owned(), organisation.to_string()),
        (CONTEXT_PURPOSE.to_owned(), purpose.to_owned()),
        (CONTEXT_INSTANCE.to_owned(), subject.to_owned()),
        (CONTEXT_TAG.to_owned(), tag.to_string()),
    ]
    .into()
}

/// Context key of the opaque organisation id.
pub const CONTEXT_ORGANISATION: &str = "claviger:organisation";
/// Context key of the purpose.
pub const CONTEXT_PURPOSE: &str = "claviger:purpose";
/// Context key of the instance, or of the policy for canaries.
pub const CONTEXT_INSTANCE: &str = "claviger:instance";
/// Context key of the customer's label.
pub const CONTEXT_TAG: &str = "claviger:tag";
/// Purpose of the ciphertexts that probes decrypt.
pub const PURPOSE_CANARY: &str = "canary";
/// Purpose of data keys.
pub const PURPOSE_DATA_KEY: &str = "data-key";
