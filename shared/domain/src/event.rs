//! What happened to a policy or an instance: the inputs of the deciding functions, in the past tense.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::access::{KeyPermission, KeyPolicyTemplate};
use crate::calendar::{MomentKind, WindowMoment};
use crate::closing::{ClosingMoment, Counted};
use crate::fence::Epoch;
use crate::heard::{HeardChange, one_or_many};
use crate::ids::{CorrelationId, PolicyId, ReencryptionId, TicketId};
use crate::observation::ProbeRound;
use crate::outlook::Described;
use crate::reencryption::{Depth, KeyFault};
use crate::values::{App, KeyArn, Region, SiteName, Subject};
use crate::vendor::Ground;

/// Who caused something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "role", content = "subject")]
pub enum Actor {
    /// A registered administrator of the organisation.
    OrgAdmin(Subject),
    /// The vendor's support.
    Support(Subject),
    /// The vendor's own machines.
    System(Subject),
    /// A function of claviger itself.
    Claviger(String),
}

/// Who caused an event, and what it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Who.
    pub actor: Actor,
    /// What it belongs to.
    pub correlation: CorrelationId,
}

/// What happened to a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "camelCase", tag = "event")]
pub enum PolicyEvent {
    /// Support approved the enrolment.
    EnrolmentApproved,
    /// Support refused the enrolment, before or after it was approved; not once it is in use.
    EnrolmentRejected {
        /// Why.
        reason: String,
    },
    /// BYOK: the organisation's keys were made, or found again, through its role.
    KeysCreated {
        /// One per region of the realm.
        keys: BTreeMap<Region, KeyArn>,
    },
    /// Every key was proven and holds a canary.
    KeysVerified {
        /// Ciphertext of the canary per region, base64.
        canaries: BTreeMap<Region, String>,
        /// The probe of those canaries.
        round: ProbeRound,
    },
    /// A key did not stand the verification; nothing was stored but this.
    VerificationFailed {
        /// What was wrong, by region.
        faults: BTreeMap<Region, String>,
    },
    /// The prober saw this. The second round, if there is one, was sent to confirm the first.
    ProbesReported {
        /// One or two rounds, oldest first.
        rounds: Vec<ProbeRound>,
        /// What events of the customer's account said that was not told before: shown, never believed.
        #[serde(default, skip_serializing_if = "Vec::is_empty", with = "one_or_many")]
        heard: Vec<HeardChange>,
    },
    /// An org admin asked for restoration; every region was probed for it.
    RestorationRequested {
        /// The ticket it was asked on.
        ticket: TicketId,
        /// The probe that the request caused.
        round: ProbeRound,
        /// Whether to do without keys that are gone for good (spec S2).
        #[serde(default)]
        into_degraded: bool,
    },
    /// The restorer probed again.
    RestorationProbed {
        /// At least two rounds, oldest first.
        rounds: Vec<ProbeRound>,
        /// The region in which every data key was unwrapped, where a restoration does without another; none if
        /// one could not be.
        #[serde(default)]
        unwrapped_in: Option<Region>,
    },
    /// An org admin named a new key for a region whose key is gone for good.
    KeyReplacementAsked {
        /// Which region.
        region: Region,
        /// The new key, which stood the checks of an enrolment.
        key: KeyArn,
    },
    /// Every data key is wrapped under the new key.
    KeyReplaced {
        /// Which region.
        region: Region,
        /// The new key.
        key: KeyArn,
        /// Its canary, base64.
        canary: String,
        /// How many data keys.
        data_keys: u64,
        /// The permissions that it was tried for and gives (spec K1).
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        proven: BTreeSet<KeyPermission>,
        /// The probe of the canary.
        round: ProbeRound,
    },
    /// Every instance has been told that it may work again.
    InstancesRestored {
        /// The epoch of the fan-out.
        epoch: Epoch,
    },
    /// The vendor published a key-policy template that asks for more (spec K1).
    AccessRequested {
        /// Which.
        template: KeyPolicyTemplate,
    },
    /// The org admin accepted an access request, and probes proved every permission in these regions.
    AccessGranted {
        /// Which request.
        request: uuid::Uuid,
        /// Where it is proven.
        proven: BTreeSet<Region>,
    },
    /// The org admin declined an access request.
    AccessDeclined {
        /// Which request.
        request: uuid::Uuid,
    },
    /// Every instance has been told to stop.
    InstancesSuspended {
        /// The epoch of the fan-out.
        epoch: Epoch,
        /// How many.
        instances: u64,
    },
    /// KMS described keys (spec K2, K4). It says nothing about whether they work.
    KeysDescribed {
        /// By region; a region that could not be asked is left out.
        described: BTreeMap<Region, Described>,
    },
    /// A moment of the restoration window has come: a reminder, or the end of a phase.
    WindowMomentCame {
        /// Which.
        moment: WindowMoment,
    },
    /// After the window, support carries out what an org admin asked for on the ticket.
    RestorationCarriedOut {
        /// The ticket that bears the request.
        ticket: TicketId,
        /// The org admin who asked.
        asked_by: Subject,
        /// When that admin did.
        #[serde(default)]
        asked_at: Timestamp,
        /// Whether that admin asked to do without keys that are gone for good (spec S2).
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        into_degraded: bool,
        /// The probe that this caused.
        round: ProbeRound,
    },
    /// Support suspended the organisation.
    VendorSuspended {
        /// Why, and so how it ends.
        ground: Ground,
        /// In the agent's words.
        reason: String,
    },
    /// Support lifted the suspension that support had ordered.
    VendorSuspensionLifted,
    /// The permission that an access request asked for is proven.
    PermissionProven {
        /// The access request.
        request: uuid::Uuid,
        /// The probe that proved it: every region used the new permission.
        round: ProbeRound,
    },
    /// Who proposed a change of keys, which takes two org admins, is none any more.
    ProposerLeft {
        /// Who.
        by: Subject,
    },
    /// The vendor's customer records changed in a way that an enrolled organisation has to know.
    RecordsFed {
        /// Apps with encrypted instances whose plan does not include encryption any more.
        plans_ended: BTreeSet<App>,
        /// Whether nobody is registered as an admin.
        without_admin: bool,
    },
    /// An org admin asked to leave (spec E11).
    ClosingAsked,
    /// Support approved it: the time for the export begins.
    ClosingApproved,
    /// Support did not.
    ClosingRejected {
        /// Why.
        reason: String,
    },
    /// An org admin thought better of it.
    ClosingCancelled,
    /// A moment of the time for the export has come: a reminder, or its end.
    ClosingMomentCame {
        /// Which.
        moment: ClosingMoment,
    },
    /// It was counted what there is to erase.
    DataKeysCounted {
        /// How much.
        counted: Counted,
    },
    /// No wrapped data key is left.
    DataKeysErased,
    /// Nothing needs the data keys of a former generation, and of those before it, any more (spec X4).
    DataKeysExpired {
        /// Which.
        generation: u64,
        /// The job that left no record under them.
        by: ReencryptionId,
        /// Of the backups that were taken before its end, the one that lasted longest.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        last_backup: Option<LastBackup>,
    },
    /// They are removed.
    DataKeysRemoved {
        /// Which, with those before it.
        generation: u64,
    },
    /// A support agent says that the key suspension is a mistake: the first proposes, a second lifts it.
    MistakeDeclared {
        /// Why.
        reason: String,
        /// At least two rounds, oldest first.
        rounds: Vec<ProbeRound>,
    },
    /// An org admin asked for all data to move to new keys.
    ReencryptionRequested {
        /// One per region of the realm, made by the customer, which stood the checks of an enrolment. None: the service
        /// makes them through the organisation's role (BYOK).
        keys: BTreeMap<Region, KeyArn>,
        /// What is moved.
        depth: Depth,
    },
    /// BYOK: the new keys were made, or found again, through the organisation's role, and stood their checks.
    ReencryptionKeysCreated {
        /// For which job.
        job: ReencryptionId,
        /// One per region of the realm.
        keys: BTreeMap<Region, KeyArn>,
    },
    /// While a job prepared, a new key refused; or none does any more.
    ReencryptionHindered {
        /// Which job.
        job: ReencryptionId,
        /// What it met.
        fault: Option<KeyFault>,
    },
    /// Every data key is wrapped under the new keys, and they are proven: the policy gets them.
    ReencryptionSwitched {
        /// Which job.
        job: ReencryptionId,
        /// Ciphertext of the canary per region, base64.
        canaries: BTreeMap<Region, String>,
        /// How many data keys.
        data_keys: u64,
        /// The permissions that every new key was tried for and gives (spec K1).
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        proven: BTreeSet<KeyPermission>,
        /// The probe of those canaries.
        round: ProbeRound,
    },
    /// A pass over the data is through.
    ReencryptionPassed {
        /// Which job.
        job: ReencryptionId,
        /// Which pass.
        pass: u32,
        /// How many records it left under old data keys.
        old: u64,
    },
    /// The in-transit period after a clean scan is over.
    ReencryptionScanDue {
        /// Which job.
        job: ReencryptionId,
    },
    /// The wraps that a job leaves behind are taken away.
    ReencryptionEnded {
        /// Which job.
        job: ReencryptionId,
        /// How many data keys were gone through.
        data_keys: u64,
        /// Old versions of objects that its last scan left under old data keys; none without a scan.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        old_versions: Option<u64>,
        /// What still needs the old keys, in words.
        ledger: String,
    },
    /// The org admin had the job stand still.
    ReencryptionPaused {
        /// Which job.
        job: ReencryptionId,
    },
    /// The org admin let it go on.
    ReencryptionResumed {
        /// Which job.
        job: ReencryptionId,
    },
    /// The org admin cancelled it.
    ReencryptionCancelled {
        /// Which job.
        job: ReencryptionId,
    },
}

impl PolicyEvent {
    /// The one slug of the situation.
    pub const fn slug(&self) -> &'static str {
        match self {
            Self::EnrolmentApproved => "enrolment-approved",
            Self::EnrolmentRejected { .. } => "enrolment-rejected",
            Self::KeysCreated { .. } => "keys-created",
            Self::KeysVerified { .. } => "keys-verified",
            Self::VerificationFailed { .. } => "verification-failed",
            Self::ProbesReported { .. } => "probes-reported",
            Self::RestorationRequested { .. } => "restoration-requested",
            Self::RestorationProbed { .. } => "restoration-probed",
            Self::KeyReplacementAsked { .. } => "key-replacement-asked",
            Self::KeyReplaced { .. } => "key-replaced",
            Self::InstancesRestored { .. } => "instances-restored",
            Self::AccessRequested { .. } => "access-requested",
            Self::AccessGranted { .. } => "access-granted",
            Self::AccessDeclined { .. } => "access-declined",
            Self::InstancesSuspended { .. } => "instances-suspended",
            Self::KeysDescribed { .. } => "keys-described",
            Self::WindowMomentCame { moment } => match moment.kind {
                MomentKind::Reminder { .. } => "restoration-reminded",
                MomentKind::PhaseBegins => "restoration-phase-began",
            },
            Self::RestorationCarriedOut { .. } => "restoration-carried-out",
            Self::VendorSuspended { .. } => "vendor-suspended",
            Self::VendorSuspensionLifted => "vendor-suspension-lifted",
            Self::PermissionProven { .. } => "permission-proven",
            Self::ProposerLeft { .. } => "proposer-left",
            Self::RecordsFed { .. } => "records-fed",
            Self::ClosingAsked => "closing-asked",
            Self::ClosingApproved => "closing-approved",
            Self::ClosingRejected { .. } => "closing-rejected",
            Self::ClosingCancelled => "closing-cancelled",
            Self::ClosingMomentCame { moment: ClosingMoment::Reminder { .. } } => "closing-reminded",
            Self::ClosingMomentCame { moment: ClosingMoment::ExportEnds { .. } } => "export-ended",
            Self::DataKeysCounted { .. } => "data-keys-counted",
            Self::DataKeysErased => "data-keys-erased",
            Self::DataKeysExpired { .. } => "data-keys-expired",
            Self::DataKeysRemoved { .. } => "data-keys-removed",
            Self::MistakeDeclared { .. } => "mistake-declared",
            Self::ReencryptionRequested { .. } => "reencryption-requested",
            Self::ReencryptionKeysCreated { .. } => "reencryption-keys-created",
            Self::ReencryptionHindered { .. } => "reencryption-hindered",
            Self::ReencryptionSwitched { .. } => "reencryption-switched",
            Self::ReencryptionPassed { .. } => "reencryption-passed",
            Self::ReencryptionScanDue { .. } => "reencryption-scan-due",
            Self::ReencryptionEnded { .. } => "reencryption-ended",
            Self::ReencryptionPaused { .. } => "reencryption-paused",
            Self::ReencryptionResumed { .. } => "reencryption-resumed",
            Self::ReencryptionCancelled { .. } => "reencryption-cancelled",
        }
    }
}

/// The backup that lasted longest of those that needed something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastBackup {
    /// The vendor's name for it.
    pub id: String,
    /// When it was gone.
    pub expires_at: Timestamp,
}

/// What happened to an app instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "camelCase", tag = "event")]
pub enum InstanceEvent {
    /// Support approved the request.
    InstanceApproved,
    /// Support refused the request.
    InstanceRejected {
        /// Why.
        reason: String,
    },
    /// Its first data key is in the registry.
    InstanceProvisioned {
        /// The policy's epoch when the key was made.
        epoch: Epoch,
    },
    /// The organisation was cut off.
    SuspensionOrdered {
        /// The epoch of the cut-off.
        epoch: Epoch,
    },
    /// The organisation's access is back.
    RestorationOrdered {
        /// The epoch of the opening.
        epoch: Epoch,
    },
    /// The encrypted family on its site was cut off; it is not encrypted itself (spec A6).
    FamilySuspensionOrdered {
        /// The epoch of the cut-off.
        epoch: Epoch,
        /// The policy of the family.
        policy: PolicyId,
    },
    /// The access of the encrypted family on its site is back.
    FamilyRestorationOrdered {
        /// The epoch of the opening.
        epoch: Epoch,
        /// The policy of the family.
        policy: PolicyId,
    },
    /// The app answered an order.
    OrderAcknowledged {
        /// The epoch of the order it answers.
        epoch: Epoch,
        /// How many cached items it dropped.
        evicted: u64,
    },
    /// The vendor's records name its site otherwise.
    SiteRenamed {
        /// The name before.
        from: SiteName,
        /// The name from now on.
        to: SiteName,
    },
    /// The vendor's records say that its site was deleted.
    SiteDeleted {
        /// When its data keys go, unless that is taken back before.
        erase_at: Timestamp,
        /// What the ticket is called that tells of it.
        title: String,
    },
    /// The vendor's records took that back.
    SiteDeletionCancelled,
    /// The time after the deletion of its site is over.
    SiteDeletionDue,
    /// It was counted how many data keys there are to erase.
    DataKeysCounted {
        /// How many.
        data_keys: u64,
    },
    /// No wrapped data key is left.
    DataKeysErased,
}

impl InstanceEvent {
    /// The one slug of the situation.
    pub const fn slug(&self) -> &'static str {
        match self {
            Self::InstanceApproved => "instance-approved",
            Self::InstanceRejected { .. } => "instance-rejected",
            Self::InstanceProvisioned { .. } => "instance-provisioned",
            Self::SuspensionOrdered { .. } => "suspension-ordered",
            Self::RestorationOrdered { .. } => "restoration-ordered",
            Self::FamilySuspensionOrdered { .. } => "family-suspension-ordered",
            Self::FamilyRestorationOrdered { .. } => "family-restoration-ordered",
            Self::OrderAcknowledged { .. } => "order-acknowledged",
            Self::SiteRenamed { .. } => "site-renamed",
            Self::SiteDeleted { .. } => "site-deleted",
            Self::SiteDeletionCancelled => "site-deletion-cancelled",
            Self::SiteDeletionDue => "site-deletion-due",
            Self::DataKeysCounted { .. } => "data-keys-counted",
            Self::DataKeysErased => "data-keys-erased",
        }
    }
}
