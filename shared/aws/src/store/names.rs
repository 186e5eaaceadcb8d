//! Keys and attributes of the tables: the only place where they are spelled.
//!
//! | table | pk | sk | what | attributes |
//! |---|---|---|---|---|
//! | control | `ORG#<name>` | `ORG` | organisation | `doc`, `id` |
//! | control | `ORG#<name>` | `POLICY` | encryption policy | `doc`, `version`, `policyId`, `state`, `epoch` |
//! | control | `POLICYID#<id>` | `POINTER` | whose policy | `organisation` |
//! | control | `ORG#<name>` | `INSTANCE#<id>` | app instance | `doc`, `version`; while its app owes an answer `dueShard` `ANSWER#<name>`, `dueAt` (index `due`) |
//! | control | `INSTANCE#<id>` | `POINTER` | whose instance | `organisation` |
//! | control | `SITE#<site>` | `SITE` | claim on a site | `organisation`, `apps` (how many hold it) |
//! | control | `SITE#<site>` | `APP#<app>` | claim on site and app | `organisation`, `instance` |
//! | control | `KEYARN#<arn>` | `KEYARN` | claim on a key | `organisation` |
//! | control | `ACCOUNT#<id>` | `ORG#<name>` | an organisation with keys there | `organisation` |
//! | control | `ACCOUNT#<id>` | `OWNER` | BYOK's claim on the account | `exclusive` (organisation) or `users` (how many) |
//! | control | `REQUEST` | `<uuid>` | waits for support | `doc` |
//! | control | `ERASURE` | `<instance id>` | instance of a deleted site whose data keys wait for their erasure | `doc` |
//! | control | `OVERDUE` | `<policy id>` | orders that apps have not answered | `doc` |
//! | control | `ORG#<name>` | `TICKET#<uuidv7>` | ticket | `doc`, `version` |
//! | control | `OUTBOX#<name>` | `OUTBOX#<effect id>` | effect that waits | `doc`, `dueShard`, `dueAt` (index `due`) |
//! | control | `SHARD#<nnn>` | `POLICY#<id>` | policy that is swept | `doc` |
//! | control | `PLAN` | `PLAN` | how far sweeps are planned | `plannedUntil` (ms) |
//! | control | `PROOF#<policy id>` | `PROOF` | last proof | `provenAt` (ms), `expiresAt` (s) |
//! | control | `PROOF#<policy id>` | `CLAIM` | a broker proves it | `claimedUntil` (ms), `expiresAt` (s) |
//! | control | `REENCRYPTION#<job>` | `JOB` | how far a re-encryption is | `doc`, `version` |
//! | control | `REENCRYPTION#<job>` | `SHARD#<instance>#<nnn>` | how far a shard of it is | `doc`, `version` |
//! | control | `ORG#<name>` | `BACKUP#<id>` | backup that the vendor registered | `doc` |
//! | control | `ORG#<name>` | `BACKUPS` | head of the backups: what a removal of data keys compares | `version`, `removedBelow`, `takenFrom` (ms) |
//! | control | `TEMPLATE` | `<version>` | key-policy template, and how far customers were asked | `doc` |
//! | control | `IDEMPOTENCY#<hash>` | `IDEMPOTENCY` | a request that bears a key | `request`, `holder`, `reservedUntil` (ms), `doc` (the answer), `expiresAt` (s) |
//! | control | `HINTS#<account>` | `HINTS` | budget of an account's hints | `doc`, `expiresAt` (s) |
//! | control | `USAGE#<organisation id>` | `DAY#<yyyy-mm-dd>` | KMS calls of a day | a number each, `expiresAt` (s) |
//! | facts | `ORG#<name>` | `FACT#<stream>#<seq, 12 digits>` | fact, put once | `doc` |
//! | registry | `INSTANCE#<id>` | `DK#<purpose>#<version, 10 digits>` | wrapped data key | `doc` |
//! | registry | `INSTANCE#<id>` | `DKID#<id>` | which version it is | `purpose`, `version` |
//! | fence | `<copy>` | `policy#<id>` | fence of a policy | see `fence` |
//! | fence | `<copy>` | `shard#<nnn>` | a shard's sign of life | `watchedUntil`, `sweptAt` (ms), `unproven`, `lastProven` (ms), `massFailure`, `refused`, `open` |

use claviger_app::reencryption::ShardPlace;
use claviger_domain::access::TemplateVersion;
use claviger_domain::ids::{
    DataKeyId, EffectId, InstanceId, OrganisationId, PolicyId, ReencryptionId, TicketId,
};
use claviger_domain::values::{AccountId, App, KeyArn, OrganisationName, ShardId, SiteName};
use jiff::civil::Date;
use uuid::Uuid;

/// Partition key of `control` and `registry`.
pub const PK: &str = "pk";
/// Sort key of `control` and `registry`.
pub const SK: &str = "sk";
/// Partition key of `fence`.
pub const COPY: &str = "copy";
/// Sort key of `fence`.
pub const ITEM: &str = "item";
/// The aggregate as JSON.
pub const DOC: &str = "doc";
/// Compared by every change of an aggregate.
pub const VERSION: &str = "version";
/// TTL attribute, epoch seconds.
pub const EXPIRES_AT: &str = "expiresAt";
/// The index of what waits.
pub const DUE_INDEX: &str = "due";
/// Its partition key.
pub const DUE_SHARD: &str = "dueShard";
/// Its sort key, RFC 3339 with exactly three decimals, so that text sorts as time.
pub const DUE_AT: &str = "dueAt";
/// Partitions of the index `due`.
pub const DUE_SHARDS: u8 = 4;
/// Prefix of the sort key of outbox rows: the stream's filter is on it.
pub const OUTBOX_PREFIX: &str = "OUTBOX#";
/// Prefix of the sort key of wrapped data keys.
pub const DATA_KEY_PREFIX: &str = "DK#";
/// Prefix of the sort key of facts.
pub const FACT_PREFIX: &str = "FACT#";
/// Prefix of the sort key of instances.
pub const INSTANCE_PREFIX: &str = "INSTANCE#";
/// Prefix of the sort key of tickets.
pub const TICKET_PREFIX: &str = "TICKET#";
/// Prefix of the sort key of a shard's policies.
pub const POLICY_PREFIX: &str = "POLICY#";
/// Prefix of the sort key of an account's organisations.
pub const ORGANISATION_PREFIX: &str = "ORG#";
/// Prefix of the sort key of a re-encryption's shards.
pub const SHARD_PREFIX: &str = "SHARD#";
/// Prefix of the sort key of backups.
pub const BACKUP_PREFIX: &str = "BACKUP#";
/// Prefix of the sort key of a day's KMS calls.
pub const USAGE_PREFIX: &str = "DAY#";
/// Partition of everything that waits for support.
pub const REQUESTS: &str = "REQUEST";
/// Partition of the orders that apps have not answered.
pub const OVERDUE: &str = "OVERDUE";

/// Partition of the instances whose data keys wait for their erasure.
pub const ERASURES: &str = "ERASURE";
/// Prefix of the sort key of the claims on a site's apps.
pub const APP_PREFIX: &str = "APP#";

/// Partition of key-policy templates.
pub const TEMPLATES: &str = "TEMPLATE";

/// A primary key of `control` or `registry`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Partition.
    pub pk: String,
    /// Sort.
    pub sk: String,
}

fn key(pk: impl Into<String>, sk: impl Into<String>) -> Key {
    Key { pk: pk.into(), sk: sk.into() }
}

pub(super) fn organisation_partition(name: &OrganisationName) -> String {
    format!("ORG#{name}")
}

pub(super) fn organisation(name: &OrganisationName) -> Key {
    key(organisation_partition(name), "ORG")
}

pub(super) fn policy(name: &OrganisationName) -> Key {
    key(organisation_partition(name), "POLICY")
}

pub(super) fn policy_pointer(id: PolicyId) -> Key {
    key(format!("POLICYID#{id}"), "POINTER")
}

pub(super) fn instance(name: &OrganisationName, id: InstanceId) -> Key {
    key(organisation_partition(name), format!("{INSTANCE_PREFIX}{id}"))
}

pub(super) fn instance_pointer(id: InstanceId) -> Key {
    key(format!("INSTANCE#{id}"), "POINTER")
}

pub(super) fn site(site: &SiteName) -> Key {
    key(format!("SITE#{site}"), "SITE")
}

pub(super) fn site_app(site: &SiteName, app: &App) -> Key {
    key(format!("SITE#{site}"), format!("{APP_PREFIX}{app}"))
}

pub(super) fn key_arn(arn: &KeyArn) -> Key {
    key(format!("KEYARN#{arn}"), "KEYARN")
}

pub(super) fn account_partition(account: &AccountId) -> String {
    format!("ACCOUNT#{account}")
}

pub(super) fn account_organisation(account: &AccountId, name: &OrganisationName) -> Key {
    key(account_partition(account), format!("{ORGANISATION_PREFIX}{name}"))
}

pub(super) fn account_owner(account: &AccountId) -> Key {
    key(account_partition(account), "OWNER")
}

pub(super) fn request(id: Uuid) -> Key {
    key(REQUESTS, id.hyphenated().to_string())
}

pub(super) fn overdue(id: PolicyId) -> Key {
    key(OVERDUE, id.to_string())
}

pub(super) fn erasure(id: InstanceId) -> Key {
    key(ERASURES, id.to_string())
}

pub(super) fn ticket(name: &OrganisationName, id: TicketId) -> Key {
    key(organisation_partition(name), format!("{TICKET_PREFIX}{id}"))
}

pub(super) fn fact(name: &OrganisationName, stream: Uuid, seq: u64) -> Key {
    key(organisation_partition(name), format!("{FACT_PREFIX}{stream}#{seq:012}"))
}

pub(super) fn outbox(name: &OrganisationName, id: EffectId) -> Key {
    key(format!("OUTBOX#{name}"), format!("{OUTBOX_PREFIX}{id}"))
}

/// The partition of the index `due` in which an organisation's instances wait for their apps' answers.
pub(super) fn answers(name: &OrganisationName) -> String {
    format!("ANSWER#{name}")
}

/// The partition of the index `due` in which an effect waits.
pub(super) fn due_shard(id: EffectId) -> String {
    let folded = id.as_uuid().as_bytes().iter().fold(0_u8, |sum, byte| sum ^ byte);
    (folded % DUE_SHARDS).to_string()
}

pub(super) fn reencryption_partition(job: ReencryptionId) -> String {
    format!("REENCRYPTION#{job}")
}

pub(super) fn reencryption(job: ReencryptionId) -> Key {
    key(reencryption_partition(job), "JOB")
}

pub(super) fn reencryption_shard(at: ShardPlace) -> Key {
    let sk = format!("{SHARD_PREFIX}{}#{:03}", at.instance, at.index);
    key(reencryption_partition(at.job), sk)
}

pub(super) fn backup(name: &OrganisationName, id: &str) -> Key {
    key(organisation_partition(name), format!("{BACKUP_PREFIX}{id}"))
}

pub(super) fn backups_head(name: &OrganisationName) -> Key {
    key(organisation_partition(name), "BACKUPS")
}

pub(super) fn shard_partition(shard: ShardId) -> String {
    format!("SHARD#{shard}")
}

pub(super) fn watch(shard: ShardId, id: PolicyId) -> Key {
    key(shard_partition(shard), format!("{POLICY_PREFIX}{id}"))
}

pub(super) fn proof(id: PolicyId) -> Key {
    key(format!("PROOF#{id}"), "PROOF")
}

pub(super) fn proof_claim(id: PolicyId) -> Key {
    key(format!("PROOF#{id}"), "CLAIM")
}

pub(super) fn plan() -> Key {
    key("PLAN", "PLAN")
}

pub(super) fn template(version: &TemplateVersion) -> Key {
    key(TEMPLATES, version.as_str())
}

pub(super) fn idempotency(place: &str) -> Key {
    key(format!("IDEMPOTENCY#{place}"), "IDEMPOTENCY")
}

pub(super) fn hints(account: &AccountId) -> Key {
    key(format!("HINTS#{account}"), "HINTS")
}

pub(super) fn usage(organisation: OrganisationId, day: Date) -> Key {
    key(format!("USAGE#{organisation}"), format!("{USAGE_PREFIX}{day}"))
}

pub(super) fn registry_partition(id: InstanceId) -> String {
    format!("INSTANCE#{id}")
}

pub(super) fn data_key_prefix(purpose: &str) -> String {
    format!("{DATA_KEY_PREFIX}{purpose}#")
}

pub(super) fn data_key(instance: InstanceId, purpose: &str, version: u32) -> Key {
    key(registry_partition(instance), format!("{}{version:010}", data_key_prefix(purpose)))
}

pub(super) fn data_key_pointer(instance: InstanceId, id: DataKeyId) -> Key {
    key(registry_partition(instance), format!("DKID#{id}"))
}

/// Sort key of a policy in `fence`.
pub fn fence_policy(id: PolicyId) -> String {
    format!("policy#{id}")
}

/// Sort key of a shard in `fence`.
pub fn fence_shard(shard: ShardId) -> String {
    format!("shard#{shard}")
}
