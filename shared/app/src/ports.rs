//! What use cases need from the outside, as narrow traits. `shared/aws` implements them on AWS,
//! `shared/testkit` in memory; both behave alike, and a differential test says so.

use std::collections::BTreeMap;

use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use claviger_domain::access::KeyPolicyTemplate;
use claviger_domain::catalogue::Mode;
use claviger_domain::closing::{Closing, ClosingStage};
use claviger_domain::decide::Decision;
use claviger_domain::effect::OutboxRow;
use claviger_domain::fact::Fact;
use claviger_domain::ids::{
    DataKeyId, EffectId, InstanceId, OrganisationId, PolicyId, ReencryptionId, TicketId,
};
use claviger_domain::instance::{AppInstance, InstanceDecision, InstanceStatus};
use claviger_domain::key_access::{CustomerRole, ExternalId, KeyAccess, RoleArn};
use claviger_domain::key_policy::KeyLabel;
use claviger_domain::observation::Observation;
use claviger_domain::organisation::Organisation;
use claviger_domain::policy::{EncryptionPolicy, Lifecycle};
use claviger_domain::ticket::Ticket;
use claviger_domain::values::{AccountId, App, KeyArn, OrganisationName, Region, ShardId, SiteName};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::hint_budget::HintRecord;
use crate::messages::{
    AppOrder, DataKeyPage, EncryptionContext, ErasurePage, FanOut, NewerDataKey, ProbeAnswer, ProbeMessage,
    ProbeRequest,
};
use crate::reencryption::{
    Backup, JobProgress, JobStep, RecordBatch, RecordsError, ShardCheckpoint, ShardPlace, ShardWork,
};
use crate::usage::{DayOfUse, UsageDelta};
use crate::webhooks::{SignedRequest, WebhookMessage};

/// What went wrong in a store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Somebody else changed the same thing first: load again and decide again.
    #[error("somebody else changed it first")]
    Conflict,
    /// It is not any more what the caller has seen of it (`If-Match`): the caller has to look again.
    #[error("it has changed since the caller saw it")]
    Changed,
    /// Something that must be unique is taken.
    #[error("{what} is taken")]
    Taken {
        /// What, as a field of the request: `site`, `keys`, `awsAccountId`, `encryption-policy`, `app`.
        what: &'static str,
    },
    /// Data keys that it needs are removed: it comes too late.
    #[error("the data keys that it needs are removed")]
    DataKeysGone,
    /// The store did not answer, or not in time.
    #[error("the store is not available: {reason}")]
    Unavailable {
        /// The service's error code.
        reason: String,
    },
    /// What is stored cannot be read: a fault of ours.
    #[error("a stored item cannot be read: {reason}")]
    Corrupt {
        /// Which, and why.
        reason: String,
    },
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The entries.
    pub items: Vec<T>,
    /// Where the next page starts; none at the end. Opaque to callers, never shown without a seal.
    pub next: Option<String>,
}

/// Organisations, as fed by the vendor's customer records.
#[async_trait]
pub trait Organisations: Send + Sync {
    /// The organisation of this name (consistent read).
    async fn organisation(&self, name: &OrganisationName) -> Result<Option<Organisation>, StoreError>;
    /// Stores it as a whole. The opaque id and the external id of a known organisation never change: `Conflict` if
    /// one would.
    async fn save_organisation(&self, organisation: &Organisation) -> Result<(), StoreError>;
}

/// Encryption policies: one per organisation.
#[async_trait]
pub trait Policies: Send + Sync {
    /// The policy of an organisation (consistent read).
    async fn policy(&self, organisation: &OrganisationName) -> Result<Option<EncryptionPolicy>, StoreError>;
    /// The policy with this id.
    async fn policy_by_id(&self, id: PolicyId) -> Result<Option<EncryptionPolicy>, StoreError>;
    /// Commits a decision in ONE conditional transaction: the policy (conditional on the version of
    /// `previous`, or on there being none, or a rejected one, when `previous` is `None`), the fact, the
    /// outbox rows, and, when the fence changed, every copy of the fence item; the shard's watch row
    /// when what a sweep needs changed; on creation the claims on the key ARNs, and for BYOK on the
    /// account, which a rejected or closed policy gives back; the support request until it is done.
    async fn commit_policy(
        &self,
        previous: Option<&EncryptionPolicy>,
        decision: &Decision,
    ) -> Result<(), StoreError>;
    /// The organisations whose policies have keys in this account.
    async fn organisations_of_account(
        &self,
        account: &AccountId,
    ) -> Result<Vec<OrganisationName>, StoreError>;
}

/// App instances.
#[async_trait]
pub trait Instances: Send + Sync {
    /// The instance with this id (consistent read).
    async fn instance(&self, id: InstanceId) -> Result<Option<AppInstance>, StoreError>;
    /// The instance of an app on a site, whosever it is (consistent read).
    async fn instance_at(&self, site: &SiteName, app: &App) -> Result<Option<AppInstance>, StoreError>;
    /// The organisation that has a site.
    async fn site_owner(&self, site: &SiteName) -> Result<Option<OrganisationName>, StoreError>;
    /// What holds a place on a site, whosever it is (consistent read).
    async fn instances_of_site(&self, site: &SiteName) -> Result<Vec<AppInstance>, StoreError>;
    /// An organisation's instances, `limit` at a time (1 to 200), in order of id.
    async fn instances(
        &self,
        organisation: &OrganisationName,
        cursor: Option<&str>,
        limit: u16,
    ) -> Result<Page<AppInstance>, StoreError>;
    /// Commits a decision in one conditional transaction: the instance, the fact, the outbox rows; on
    /// creation the claims on the site (its own organisation may have it already) and on site and app;
    /// the support request until it is done.
    async fn commit_instance(
        &self,
        previous: Option<&AppInstance>,
        decision: &InstanceDecision,
    ) -> Result<(), StoreError>;
    /// Commits the renaming of a site in ONE transaction: every instance that holds a place on it, each as it was and as
    /// it is decided, with fact and outbox rows, and the claims on both names. `Taken` if anything holds the new one.
    async fn commit_site(
        &self,
        from: &SiteName,
        to: &SiteName,
        renamed: &[(AppInstance, InstanceDecision)],
    ) -> Result<(), StoreError>;
}

/// An instance whose site was deleted, and whose time is not over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PendingErasure {
    /// Which.
    pub instance: InstanceId,
    /// Whose.
    pub organisation: OrganisationName,
    /// When its data keys go, or, of what has none, the instance itself.
    pub erase_at: Timestamp,
}

impl PendingErasure {
    /// What is to be listed of an instance.
    pub fn of(instance: &AppInstance) -> Option<Self> {
        let deletion = instance.deletion.as_ref()?;
        match instance.status {
            InstanceStatus::Requested { .. }
            | InstanceStatus::Provisioning { .. }
            | InstanceStatus::Active { .. }
            | InstanceStatus::Suspended { .. }
            | InstanceStatus::NotEncrypted { .. } => {}
            InstanceStatus::Rejected { .. }
            | InstanceStatus::Erasing { .. }
            | InstanceStatus::Deleted { .. } => return None,
        }
        let organisation = instance.organisation_name.clone();
        Some(Self { instance: instance.id, organisation, erase_at: deletion.erase_at })
    }
}

/// Instances whose sites were deleted: listed with the commits of their instances.
#[async_trait]
pub trait PendingErasures: Send + Sync {
    /// All of them, by id.
    async fn pending_erasures(
        &self,
        cursor: Option<&str>,
        limit: u16,
    ) -> Result<Page<PendingErasure>, StoreError>;
}

/// What a support agent has to decide on, or has approved and is not done yet: it is due as before (spec E10).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SupportRequest {
    /// The policy's or the instance's id.
    pub id: uuid::Uuid,
    /// What it is.
    pub kind: SupportRequestKind,
    /// Whose.
    pub organisation: OrganisationName,
    /// When it was asked for; once it is approved, when that was.
    pub requested_at: Timestamp,
    /// When it is due.
    pub due_at: Timestamp,
    /// Whether it was approved, and waits to be worked off.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub approved: bool,
}

/// What kind of request it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SupportRequestKind {
    /// An encryption policy.
    Enrolment,
    /// An app instance.
    AppInstance,
    /// The closing of an encryption policy.
    Closing,
}

impl SupportRequest {
    /// What a policy asks of support: the enrolment, or its closing.
    pub fn of_policy(policy: &EncryptionPolicy) -> Option<Self> {
        let approved = matches!(policy.lifecycle, Lifecycle::Verifying { .. });
        let (kind, requested_at, due_at) = match (&policy.lifecycle, &policy.closing) {
            (Lifecycle::Requested { at, due_at, .. } | Lifecycle::Verifying { since: at, due_at }, _) => {
                (SupportRequestKind::Enrolment, *at, *due_at)
            }
            (
                Lifecycle::Active { .. }
                | Lifecycle::Suspended { .. }
                | Lifecycle::Restoring { .. }
                | Lifecycle::Lapsed { .. },
                Some(Closing { asked_at, stage: ClosingStage::Asked { due_at }, .. }),
            ) => (SupportRequestKind::Closing, *asked_at, *due_at),
            (
                Lifecycle::Active { .. }
                | Lifecycle::Suspended { .. }
                | Lifecycle::Restoring { .. }
                | Lifecycle::Lapsed { .. }
                | Lifecycle::Closed { .. }
                | Lifecycle::Rejected { .. },
                _,
            ) => return None,
        };
        let (id, organisation) = (policy.id.as_uuid(), policy.organisation_name.clone());
        Some(Self { id, kind, organisation, requested_at, due_at, approved })
    }

    /// What an instance asks of support, or waits for.
    pub fn of_instance(instance: &AppInstance) -> Option<Self> {
        let (requested_at, due_at, approved) = match instance.status {
            InstanceStatus::Requested { at, due_at, .. } => (at, due_at, false),
            InstanceStatus::Provisioning { since, due_at } => (since, due_at, true),
            InstanceStatus::Active { .. }
            | InstanceStatus::Suspended { .. }
            | InstanceStatus::NotEncrypted { .. }
            | InstanceStatus::Rejected { .. }
            | InstanceStatus::Erasing { .. }
            | InstanceStatus::Deleted { .. } => return None,
        };
        let (id, organisation) = (instance.id.as_uuid(), instance.organisation_name.clone());
        Some(Self { id, kind: SupportRequestKind::AppInstance, organisation, requested_at, due_at, approved })
    }
}

/// Requests that wait for support, or to be worked off.
#[async_trait]
pub trait SupportRequests: Send + Sync {
    /// Those that are not done.
    async fn support_requests(
        &self,
        cursor: Option<&str>,
        limit: u16,
    ) -> Result<Page<SupportRequest>, StoreError>;
    /// One of them (consistent read).
    async fn support_request(&self, id: uuid::Uuid) -> Result<Option<SupportRequest>, StoreError>;
}

/// Instances of an organisation whose apps have not answered an order to suspend in time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OverdueOrder {
    /// Whose.
    pub organisation: OrganisationName,
    /// Of which policy.
    pub policy: PolicyId,
    /// When the first of them was told.
    pub ordered_at: Timestamp,
    /// How many.
    pub unanswered: u64,
    /// The first of them.
    pub first: Vec<InstanceId>,
    /// Whether every instance was told; else the order itself is stuck on its way, and nobody else says so.
    #[serde(default = "all_told")]
    pub all_told: bool,
}

/// Entries that were stored before it was noted.
const fn all_told() -> bool {
    true
}

/// Instances that were told to stop and whose apps have not answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unanswered {
    /// How many.
    pub count: u64,
    /// When the one that waits longest was told.
    pub oldest: Timestamp,
    /// Those that wait longest.
    pub first: Vec<InstanceId>,
}

/// Orders that apps have not answered: one entry a policy, kept by `deadlines`.
#[async_trait]
pub trait OverdueOrders: Send + Sync {
    /// An organisation's instances that were told to stop before this moment and whose apps have not answered, `named`
    /// of them by name; none if all have. No other instance is read for it, and one that was told or answered within
    /// the last seconds may be seen as it was before.
    async fn unanswered(
        &self,
        organisation: &OrganisationName,
        told_before: Timestamp,
        named: usize,
    ) -> Result<Option<Unanswered>, StoreError>;
    /// What is overdue.
    async fn overdue_orders(
        &self,
        cursor: Option<&str>,
        limit: u16,
    ) -> Result<Page<OverdueOrder>, StoreError>;
    /// Notes that a policy's order is overdue, or how it is now.
    async fn note_overdue(&self, order: &OverdueOrder) -> Result<(), StoreError>;
    /// Takes a policy's entry away. One that is gone is no error.
    async fn overdue_no_more(&self, policy: PolicyId) -> Result<(), StoreError>;
}

/// Tickets.
#[async_trait]
pub trait Tickets: Send + Sync {
    /// One ticket (consistent read).
    async fn ticket(
        &self,
        organisation: &OrganisationName,
        id: TicketId,
    ) -> Result<Option<Ticket>, StoreError>;
    /// An organisation's tickets, newest first.
    async fn tickets(
        &self,
        organisation: &OrganisationName,
        cursor: Option<&str>,
        limit: u16,
    ) -> Result<Page<Ticket>, StoreError>;
    /// Stores a ticket if the stored one has the version before (none for version 1): else `Conflict`.
    async fn save_ticket(&self, ticket: &Ticket) -> Result<(), StoreError>;
}

/// A published key-policy template, and how far its access requests have been opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PublishedTemplate {
    /// What it asks for.
    pub template: KeyPolicyTemplate,
    /// The shard at which the next policies are.
    pub shard: u16,
    /// The last policy of that shard that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<PolicyId>,
    /// How many were asked.
    pub opened: u64,
    /// Whether every policy was.
    pub done: bool,
}

/// Key-policy templates (spec K1).
#[async_trait]
pub trait Templates: Send + Sync {
    /// All of them, by version.
    async fn templates(&self) -> Result<Vec<PublishedTemplate>, StoreError>;
    /// Stores a new one; `Conflict` if its version is there.
    async fn add_template(&self, template: &PublishedTemplate) -> Result<(), StoreError>;
    /// Stores how far it got.
    async fn save_progress(&self, template: &PublishedTemplate) -> Result<(), StoreError>;
}

/// The audit log.
#[async_trait]
pub trait Audit: Send + Sync {
    /// An organisation's facts, chain by chain, oldest first within a chain.
    async fn facts(
        &self,
        organisation: &OrganisationName,
        cursor: Option<&str>,
        limit: u16,
    ) -> Result<Page<Fact>, StoreError>;
}

/// Effects that wait.
#[async_trait]
pub trait Outbox: Send + Sync {
    /// Rows that became due before `before` and are still there: what the stream missed. Due first, first; a row is due
    /// from when it was decided on, until [`effect_failed`](Self::effect_failed) says otherwise.
    async fn overdue_effects(&self, before: Timestamp, limit: u16) -> Result<Vec<OutboxRow>, StoreError>;
    /// Takes a row away, once its effect has been handed on. A row that is gone is no error.
    async fn effect_done(&self, organisation: &OrganisationName, id: EffectId) -> Result<(), StoreError>;
    /// Makes a row due at another moment. A row that is gone is no error, and stays gone.
    async fn effect_failed(
        &self,
        organisation: &OrganisationName,
        id: EffectId,
        due: Timestamp,
    ) -> Result<(), StoreError>;
}

/// What a sweep needs to know of one policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WatchRow {
    /// The policy as it was last committed. A sweep that sees something new loads it again.
    pub policy: EncryptionPolicy,
}

/// The keys that the prober sweeps, read from the base table.
#[async_trait]
pub trait WatchList: Send + Sync {
    /// Every watched policy of a shard.
    async fn watched(&self, shard: ShardId) -> Result<Vec<WatchRow>, StoreError>;
    /// Says in every copy of the fence until when the shard counts as watched, and which policies' keys
    /// gave no answer. A beat of an older sweep than the stored one changes nothing.
    async fn beat(&self, shard: ShardId, beat: &Beat) -> Result<(), StoreError>;
    /// The last beat of a shard.
    async fn last_beat(&self, shard: ShardId) -> Result<Option<Beat>, StoreError>;
    /// Until when sweeps are planned; none before the first plan.
    async fn planned_until(&self) -> Result<Option<Timestamp>, StoreError>;
    /// Sweeps are planned until then.
    async fn plan_until(&self, until: Timestamp) -> Result<(), StoreError>;
}

/// A shard's sign of life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Beat {
    /// Start of the last sweep.
    pub swept_at: Timestamp,
    /// Until when the shard counts as watched.
    pub watched_until: Timestamp,
    /// Policies whose keys gave no answer in that sweep, and when each was last proven.
    pub unproven: BTreeMap<PolicyId, Timestamp>,
    /// Whether so many customers were refused ambiguously at once that it is more likely our fault than the
    /// will of all of them: ambiguous refusals wait while it lasts (spec R4).
    pub mass_failure: bool,
    /// How many customers behind an open fence were refused ambiguously, without standing refused yet.
    #[serde(default)]
    pub refused: u32,
    /// How many customers behind an open fence were probed.
    #[serde(default)]
    pub open: u32,
}

impl Beat {
    /// When the policy of this shard that was not proven for the longest was proven.
    pub fn oldest_proof(&self) -> Timestamp {
        self.unproven.values().copied().min().unwrap_or(self.swept_at).min(self.swept_at)
    }
}

/// What is remembered of the hints that accounts' events gave.
#[async_trait]
pub trait HintRecords: Send + Sync {
    /// An account's record (consistent read).
    async fn hints_of(&self, account: &AccountId) -> Result<Option<HintRecord>, StoreError>;
    /// Stores it if the stored one is `previous`: else `Conflict`.
    async fn save_hints(
        &self,
        account: &AccountId,
        previous: Option<&HintRecord>,
        next: &HintRecord,
    ) -> Result<(), StoreError>;
}

/// Proofs that a policy's keys work, shared by all brokers.
#[async_trait]
pub trait Proofs: Send + Sync {
    /// When the policy was last proven by an unwrap.
    async fn proven_at(&self, policy: PolicyId) -> Result<Option<Timestamp>, StoreError>;
    /// Records a proof unless a newer one is there.
    async fn record_proof(&self, policy: PolicyId, at: Timestamp) -> Result<(), StoreError>;
    /// Takes it on to prove the policy until then; false if somebody else has, and that time is not over.
    async fn claim_proof(
        &self,
        policy: PolicyId,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, StoreError>;
}

/// A data key as the registry holds it: only wrapped, once under each regional key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WrappedDataKey {
    /// Its identifier, in every record's header.
    pub id: DataKeyId,
    /// Whose.
    pub instance: InstanceId,
    /// What for: `records`.
    pub purpose: String,
    /// From 1; the highest is current.
    pub version: u32,
    /// Generation of the regional keys that wrap it.
    pub generation: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// The wraps, by region.
    pub wraps: BTreeMap<Region, Wrap>,
    /// While the policy moves to new keys: the wraps under those, beside the others (spec X3).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub second: BTreeMap<Region, Wrap>,
}

impl WrappedDataKey {
    /// Every wrap, whichever keys made it.
    pub fn every_wrap(&self) -> impl Iterator<Item = &Wrap> {
        self.wraps.values().chain(self.second.values())
    }

    /// The wrap that this key made.
    pub fn wrap_under(&self, arn: &KeyArn) -> Option<&Wrap> {
        self.every_wrap().find(|wrap| wrap.key == *arn)
    }

    /// Whether each of these keys wraps it.
    pub fn is_under<'k>(&self, mut keys: impl Iterator<Item = &'k KeyArn>) -> bool {
        keys.all(|arn| self.wrap_under(arn).is_some())
    }
}

/// One wrap of a data key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Wrap {
    /// Under which key.
    pub key: KeyArn,
    /// The ciphertext, base64.
    pub ciphertext: String,
    /// When it was made; none of those that were made before this was kept, which are as old as their data key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_at: Option<Timestamp>,
}

impl Wrap {
    /// One that was made just now.
    pub fn new(key: &KeyArn, ciphertext: &[u8], now: Timestamp) -> Self {
        Self { key: key.clone(), ciphertext: BASE64_STANDARD.encode(ciphertext), made_at: Some(now) }
    }
}

/// Which data key is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataKeyChoice {
    /// The newest version.
    Current,
    /// The one in a record's header.
    Id(DataKeyId),
    /// A version.
    Version(u32),
}

/// The registry of wrapped data keys.
#[async_trait]
pub trait DataKeyRegistry: Send + Sync {
    /// A data key of an instance (consistent read).
    async fn data_key(
        &self,
        instance: InstanceId,
        purpose: &str,
        choice: DataKeyChoice,
    ) -> Result<Option<WrappedDataKey>, StoreError>;
    /// Every data key of an instance, of every purpose and version (consistent read).
    async fn data_keys(&self, instance: InstanceId) -> Result<Vec<WrappedDataKey>, StoreError>;
    /// Stores a data key with other wraps in place of `known`; `Conflict` if that is not what is there.
    async fn rewrap_data_key(&self, known: &WrappedDataKey, next: &WrappedDataKey) -> Result<(), StoreError>;
    /// As [`Self::rewrap_data_key`], in ONE transaction with a look at the policy: `Conflict` too if it is not what was
    /// read any more.
    ///
    /// INVARIANT (I6): so whoever works a former decision off wraps nothing under a key that the policy forgot since.
    async fn rewrap_data_key_of(
        &self,
        known: &WrappedDataKey,
        next: &WrappedDataKey,
        policy: &EncryptionPolicy,
    ) -> Result<(), StoreError>;
    /// Deletes a data key with all its wraps. One that is gone is no error.
    async fn erase_data_key(&self, key: &WrappedDataKey) -> Result<(), StoreError>;
    /// Stores a new data key; `Conflict` if that version is there.
    async fn add_data_key(&self, key: &WrappedDataKey) -> Result<(), StoreError>;
    /// Stores a new data key of an instance, in ONE transaction with a look at policy and instance: `Conflict` if that
    /// version is there, or if either is not what was read any more.
    ///
    /// INVARIANT (I6): so nothing that goes through the data keys after a decision of the policy's passes one over.
    async fn add_data_key_of(
        &self,
        key: &WrappedDataKey,
        policy: &EncryptionPolicy,
        instance: &AppInstance,
    ) -> Result<(), StoreError>;
    /// Takes a data key away that nobody was ever given; `Conflict` if it is not `known` that is there.
    async fn remove_data_key(&self, known: &WrappedDataKey) -> Result<(), StoreError>;
}

/// Checkpoints of re-encryptions: one of the job, one a shard. Each is stored if the stored one has the version before
/// (none for version 1), else `Conflict`: a message that comes twice does its work once.
#[async_trait]
pub trait Checkpoints: Send + Sync {
    /// How far a job is (consistent read).
    async fn progress(&self, job: ReencryptionId) -> Result<Option<JobProgress>, StoreError>;
    /// Stores how far it is.
    async fn save_progress(&self, progress: &JobProgress) -> Result<(), StoreError>;
    /// One shard (consistent read).
    async fn shard(&self, at: ShardPlace) -> Result<Option<ShardCheckpoint>, StoreError>;
    /// The shards of a job.
    async fn shards(
        &self,
        job: ReencryptionId,
        cursor: Option<&str>,
        limit: u16,
    ) -> Result<Page<ShardCheckpoint>, StoreError>;
    /// Stores how far a shard is.
    async fn save_shard(&self, shard: &ShardCheckpoint) -> Result<(), StoreError>;
}

/// The queues of a re-encryption.
#[async_trait]
pub trait ReencryptionQueues: Send + Sync {
    /// Queues the job's next step.
    async fn queue_step(&self, step: &JobStep, delay: SignedDuration) -> Result<(), CallError>;
    /// Queues work on shards.
    async fn queue_shards(&self, work: &[ShardWork], delay: SignedDuration) -> Result<(), CallError>;
}

/// What is compared when data keys of former generations go, beside an organisation's backups: one item of its own, so
/// that of a registration and a removal one comes first and the other knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BackupsHead {
    /// Raised by every registration and every removal; 0 before the first.
    pub version: u64,
    /// Data keys of generations below this one are gone, or going. Never lowered.
    pub removed_below: u64,
    /// Backups that were taken before hold records under them; none while nothing has gone. Never lowered.
    pub taken_from: Option<Timestamp>,
}

/// Backups that the vendor registered (spec X4).
#[async_trait]
pub trait Backups: Send + Sync {
    /// Registers one, or says anew how it is, and raises the version of the head, in one transaction. `DataKeysGone` if it
    /// was taken before [`BackupsHead::taken_from`].
    async fn save_backup(&self, organisation: &OrganisationName, backup: &Backup) -> Result<(), StoreError>;
    /// One of them (consistent read).
    async fn backup(&self, organisation: &OrganisationName, id: &str) -> Result<Option<Backup>, StoreError>;
    /// An organisation's backups, by id.
    async fn backups(
        &self,
        organisation: &OrganisationName,
        cursor: Option<&str>,
        limit: u16,
    ) -> Result<Page<Backup>, StoreError>;
}

/// Data keys of former generations, when no backup needs them any more (spec X4).
#[async_trait]
pub trait DataKeyRemoval: Send + Sync {
    /// What a removal compares (consistent read).
    async fn backups_head(&self, organisation: &OrganisationName) -> Result<BackupsHead, StoreError>;
    /// As [`Policies::commit_policy`], and in the same transaction the head as it is from now on; `Conflict` too if the
    /// stored one does not have the version before.
    async fn commit_removal(
        &self,
        previous: &EncryptionPolicy,
        decision: &Decision,
        head: &BackupsHead,
    ) -> Result<(), StoreError>;
    /// Removes a data key with all its wraps; `Conflict` if it is not what is there, or the head does not say that its
    /// generation goes.
    async fn remove_former(
        &self,
        organisation: &OrganisationName,
        known: &WrappedDataKey,
    ) -> Result<(), StoreError>;
}

/// What organisations' keys were used for, a sum a day (spec K3).
#[async_trait]
pub trait UsageRecords: Send + Sync {
    /// Adds to a day. The same delta again, within ten minutes, adds nothing. `Conflict` if it surely added nothing,
    /// `Corrupt` if it never will; `Unavailable` if nobody knows.
    async fn add_usage(&self, delta: &UsageDelta) -> Result<(), StoreError>;
    /// The days of an organisation from one to another, both included, oldest first (consistent read).
    async fn usage(
        &self,
        organisation: OrganisationId,
        from: jiff::civil::Date,
        to: jiff::civil::Date,
    ) -> Result<Vec<DayOfUse>, StoreError>;
}

/// Rewrites records: the data plane's library over the vendor's stores.
#[async_trait]
pub trait Records: Send + Sync {
    /// One batch of a shard from a cursor on: rewrites what is older than the generation, or only counts it.
    async fn batch(
        &self,
        of: &ShardCheckpoint,
        organisation: &OrganisationName,
        generation: u32,
        scan: bool,
    ) -> Result<RecordBatch, RecordsError>;
    /// About how many records an instance has; none if nobody knows.
    async fn estimate(
        &self,
        of: &ShardCheckpoint,
        organisation: &OrganisationName,
    ) -> Result<Option<u64>, RecordsError>;
}

/// A call of a customer's key that gave no success.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("KMS answered {code}")]
pub struct KeyError {
    /// What it says about the key; never `Usable`.
    pub observation: Observation,
    /// The service's error code, or our word for what happened on the way.
    pub code: String,
    /// KMS's request id, when it answered.
    pub request_id: Option<String>,
}

/// What DescribeKey says of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyDescription {
    /// `Enabled`, `Disabled`, `PendingDeletion`, ...
    pub state: String,
    /// `SYMMETRIC_DEFAULT`, ...
    pub spec: String,
    /// `ENCRYPT_DECRYPT`, ...
    pub usage: String,
    /// `AWS_KMS`, `EXTERNAL`, `AWS_CLOUDHSM`, `EXTERNAL_KEY_STORE`.
    pub origin: String,
    /// Whether it is in a custom key store.
    pub custom_key_store: bool,
    /// `CUSTOMER` or `AWS`.
    pub manager: String,
    /// Names the material under which new data is encrypted; another one after each rotation.
    pub material: Option<String>,
    /// When it will be deleted.
    pub deletion_date: Option<Timestamp>,
    /// When imported material expires, if it does.
    pub material_expires: Option<Timestamp>,
}

/// A use of a key that can be tried without being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trial<'a> {
    /// A few bytes encrypted.
    Encrypt,
    /// A data key, in the clear and wrapped.
    GenerateDataKey,
    /// A pair of data keys, the private one in the clear and wrapped.
    GenerateDataKeyPair,
    /// A pair of data keys, the private one wrapped only.
    GenerateDataKeyPairWithoutPlaintext,
    /// A data key, wrapped only.
    GenerateDataKeyWithoutPlaintext,
    /// This ciphertext moved from the key to itself: from and to.
    ReEncrypt(&'a [u8]),
    /// This ciphertext decrypted.
    Decrypt(&'a [u8]),
}

/// Which session of a customer's role a call may use (BYOK). Without a role it makes no difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoleSession {
    /// One that is there already: good for work. It outlives a change of the trust policy, so nothing that it does
    /// proves that the role still trusts us.
    Kept,
    /// One of its own, by an AssumeRole of this very moment: what every probe and every proof needs.
    Fresh,
}

/// A customer's key and the way to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyRef<'a> {
    /// Which key.
    pub arn: &'a KeyArn,
    /// How it is reached.
    pub access: &'a KeyAccess,
    /// For whom; in the name of the role's session, so that the customer's CloudTrail explains itself.
    pub organisation: OrganisationId,
    /// Through which session.
    pub session: RoleSession,
}

impl<'a> KeyRef<'a> {
    /// A key of a policy.
    pub const fn of(policy: &'a EncryptionPolicy, arn: &'a KeyArn) -> Self {
        Self { arn, access: &policy.access, organisation: policy.organisation, session: RoleSession::Kept }
    }

    /// The same, by an AssumeRole of this moment.
    #[must_use]
    pub const fn fresh(self) -> Self {
        Self { session: RoleSession::Fresh, ..self }
    }

    /// Where the key is.
    pub fn region(&self) -> &'a Region {
        self.arn.region()
    }
}

/// Customers' keys: by their key policies through the one key-access role, or through the customer's role.
#[async_trait]
pub trait CustomerKeys: Send + Sync {
    /// Decrypts under exactly this key and context.
    async fn decrypt(
        &self,
        key: KeyRef<'_>,
        ciphertext: &[u8],
        context: &EncryptionContext,
    ) -> Result<Zeroizing<Vec<u8>>, KeyError>;
    /// Encrypts at most 4,096 bytes.
    async fn encrypt(
        &self,
        key: KeyRef<'_>,
        plaintext: &[u8],
        context: &EncryptionContext,
    ) -> Result<Vec<u8>, KeyError>;
    /// Moves what is encrypted under one key to another of its region, under the same context; nothing comes into the
    /// clear. Both keys are reached the same way. A failure does not say which of them refused.
    async fn re_encrypt(
        &self,
        from: KeyRef<'_>,
        to: KeyRef<'_>,
        ciphertext: &[u8],
        context: &EncryptionContext,
    ) -> Result<Vec<u8>, KeyError>;
    /// Makes 32 random bytes: in the clear, and wrapped under the key.
    async fn generate_data_key(
        &self,
        key: KeyRef<'_>,
        context: &EncryptionContext,
    ) -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), KeyError>;
    /// Describes the key.
    async fn describe(&self, key: KeyRef<'_>) -> Result<KeyDescription, KeyError>;
    /// Whether we may use the key so, without doing it.
    async fn dry_run(
        &self,
        key: KeyRef<'_>,
        trial: Trial<'_>,
        context: &EncryptionContext,
    ) -> Result<(), KeyError>;
    /// Whether AWS renews the key's material by itself.
    async fn rotates(&self, key: KeyRef<'_>) -> Result<bool, KeyError>;
    /// The key policy. AWS gives it to callers of the key's own account only: through a role.
    async fn key_policy(&self, key: KeyRef<'_>) -> Result<serde_json::Value, KeyError>;
}

/// How a role is asked to let us in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asking<'a> {
    /// As we always do.
    With(&'a ExternalId),
    /// As nobody may: a role that lets this in would let any customer of ours name it.
    WithoutExternalId,
}

/// A key that is to be made in a BYOK customer's account.
#[derive(Debug, Clone, PartialEq)]
pub struct NewKey {
    /// For whom.
    pub organisation: OrganisationId,
    /// Which of its keys.
    pub label: KeyLabel,
    /// The key policy that it gets.
    pub policy: serde_json::Value,
}

/// Customers' key-management roles (BYOK).
#[async_trait]
pub trait CustomerRoles: Send + Sync {
    /// Assumes the role, and does nothing with the session.
    async fn assume(
        &self,
        role: &RoleArn,
        asking: Asking<'_>,
        organisation: OrganisationId,
        region: &Region,
    ) -> Result<(), KeyError>;
    /// The organisation's key of this label in a region, if it was made before: by its alias, else by its tags,
    /// so that a key which a crash left without an alias is found too.
    async fn find_key(
        &self,
        role: &CustomerRole,
        region: &Region,
        organisation: OrganisationId,
        label: KeyLabel,
    ) -> Result<Option<KeyArn>, KeyError>;
    /// The same key, made now if it is not there. Repeating it makes nothing twice.
    async fn make_key(
        &self,
        role: &CustomerRole,
        region: &Region,
        wanted: &NewKey,
    ) -> Result<KeyArn, KeyError>;
}

/// The vendor's own canary customers: keys in a separate account that nobody takes away.
#[async_trait]
pub trait ControlProbes: Send + Sync {
    /// Whether the canary customer of a region answers on the same way as customers' keys of this mode do: through
    /// the key-access role alone, or through a role of the canary customer's as well; and with the key policy of the
    /// same template version, as far as there is one.
    async fn control_is_healthy(&self, region: &Region, mode: Mode, template: &str) -> bool;
}

/// A call of another function, or of a queue or the bus, that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} is not available: {reason}")]
pub struct CallError {
    /// Whom we called.
    pub what: &'static str,
    /// Why it failed.
    pub reason: String,
}

/// The one place that makes probe results; `api` and `restorer` call it synchronously.
#[async_trait]
pub trait Prober: Send + Sync {
    /// Asks and waits.
    async fn probe(&self, request: &ProbeRequest) -> Result<ProbeAnswer, CallError>;
}

/// The prober's queue.
#[async_trait]
pub trait ProbeQueue: Send + Sync {
    /// Queues work, to be delivered after a delay (whole seconds, at most 15 minutes).
    async fn queue_probes(&self, messages: &[(ProbeMessage, SignedDuration)]) -> Result<(), CallError>;
}

/// The queues of the suspender and the restorer.
#[async_trait]
pub trait FanOutQueue: Send + Sync {
    /// Queues the next page, or the next pass, of a fan-out.
    async fn queue_fan_out(&self, page: &FanOut, delay: SignedDuration) -> Result<(), CallError>;
    /// Queues the next page of data keys, on the queue of the function that has the effect now.
    async fn queue_data_keys(&self, page: &DataKeyPage, delay: SignedDuration) -> Result<(), CallError>;
    /// Queues the next page of an erasure, on the queue of the function that has the effect now.
    async fn queue_erasure(&self, page: &ErasurePage, delay: SignedDuration) -> Result<(), CallError>;
    /// Queues an effect again, on the queue of the function that has it now.
    async fn queue_effect(&self, row: &OutboxRow, delay: SignedDuration) -> Result<(), CallError>;
}

/// Where newer versions of data keys are asked for.
pub trait NewerDataKeys: Send + Sync {
    /// Asks beside whatever the caller is at: it neither waits nor hears of a failure. What is lost costs nothing but
    /// time, because the library asks again.
    fn ask_for_newer(&self, wanted: NewerDataKey);
}

/// The event bus.
#[async_trait]
pub trait Bus: Send + Sync {
    /// Hands an effect on to the function whose concern it is.
    async fn publish_effect(&self, row: &OutboxRow) -> Result<(), CallError>;
    /// Tells the vendor's apps about an instance.
    async fn publish_order(&self, order: &AppOrder) -> Result<(), CallError>;
}

/// Where notices wait for their next try.
#[async_trait]
pub trait WebhookQueue: Send + Sync {
    /// Queues one.
    async fn queue_webhook(&self, message: &WebhookMessage, delay: SignedDuration) -> Result<(), CallError>;
}

/// Sends webhooks.
#[async_trait]
pub trait WebhookSender: Send + Sync {
    /// The status of the answer. Redirects are not followed.
    async fn send(&self, request: &SignedRequest) -> Result<u16, CallError>;
}

/// Queues of messages that were given up.
#[async_trait]
pub trait DeadLetters: Send + Sync {
    /// Has every message tried again from its own queue.
    async fn redrive(&self) -> Result<(), CallError>;
}

/// A message that was set aside and has no queue to go back to: an event that a rule could not deliver, or an
/// invocation that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// What it was.
    pub body: String,
    /// By which it is taken away.
    pub receipt: String,
}

/// The queue of what was not delivered.
#[async_trait]
pub trait Undelivered: Send + Sync {
    /// Some of it, out of sight of others for a while; nothing when it is empty.
    async fn set_aside(&self) -> Result<Vec<SetAside>, CallError>;
    /// Takes one away for good.
    async fn seen_to(&self, message: &SetAside) -> Result<(), CallError>;
}

/// The time of day.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// Waiting, where somebody else's slowness has to be noticed. Nothing is ever decided by it.
#[async_trait]
pub trait Timer: Send + Sync {
    /// Ends when so long has passed.
    async fn after(&self, wait: SignedDuration);
}

/// Randomness for identifiers.
pub trait Ids: Send + Sync {
    /// A random UUID (version 4).
    fn random(&self) -> uuid::Uuid;
}

/// An answer that is given again to the same request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeptAnswer {
    /// The HTTP status.
    pub status: u16,
    /// Where to look later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// What of it was shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// The document; empty for none.
    pub body: String,
}

/// Who may carry out a request that bears an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reservation {
    /// Who asked: nobody has carried it out.
    Granted,
    /// It was carried out.
    Answered(KeptAnswer),
    /// Somebody is at it.
    InProgress,
    /// The key stands for another request.
    OtherRequest,
}

/// What is kept of requests that bear an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reserve<'a> {
    /// Whose key for which call, as one text.
    pub place: &'a str,
    /// A hash of what is asked for.
    pub request: &'a str,
    /// Who asks: told apart from others that ask the same.
    pub holder: uuid::Uuid,
    /// Now.
    pub now: Timestamp,
    /// Until when the holder is waited for.
    pub until: Timestamp,
    /// When all of it is forgotten.
    pub forgotten_at: Timestamp,
}

/// Requests that bear an idempotency key.
#[async_trait]
pub trait Idempotency: Send + Sync {
    /// Reserves the key, if it is free, forgotten, or its holder was waited for in vain.
    async fn reserve(&self, reserve: &Reserve<'_>) -> Result<Reservation, StoreError>;
    /// Keeps the holder's answer; `Conflict` if somebody else holds the key by now.
    async fn keep_answer(
        &self,
        place: &str,
        holder: uuid::Uuid,
        answer: &KeptAnswer,
    ) -> Result<(), StoreError>;
    /// Gives the holder's reservation back: nothing came of the request. One that is gone is no error.
    async fn give_back(&self, place: &str, holder: uuid::Uuid) -> Result<(), StoreError>;
}
