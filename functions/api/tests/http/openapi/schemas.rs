//! What travels, as schemas. The types exist to be described; every answer of every test is held against
//! them, so they cannot say anything else than the handlers do.

#![expect(dead_code, reason = "the types are described, never made")]

use std::borrow::Cow;
use std::collections::BTreeMap;

use claviger_lambda::problem::PROBLEM_KINDS;
use utoipa::openapi::schema::{
    Components, ComponentsBuilder, KnownFormat, ObjectBuilder, SchemaFormat, Type,
};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// A text with a form of its own.
macro_rules! text {
    ($name:ident, $about:literal, $example:literal, $($set:tt)*) => {
        pub struct $name;
        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                let text = ObjectBuilder::new().schema_type(Type::String).description(Some($about));
                text.examples([serde_json::json!($example)])$($set)*.into()
            }
        }
        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                stringify!($name).into()
            }
        }
    };
}

fn slug() -> Option<&'static str> {
    Some("^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")
}

text!(OrganizationName, "The vendor's name for an organization.", "acme",
    .pattern(slug()).min_length(Some(1)).max_length(Some(63)));
text!(SiteName, "A site's name.", "acme-eng", .pattern(slug()).min_length(Some(1)).max_length(Some(63)));
text!(Realm, "A data-residency location; `GET /v1/catalogue` lists them.", "europe",
    .pattern(slug()).min_length(Some(1)).max_length(Some(40)));
text!(App, "An app; `GET /v1/catalogue` lists them.", "jira",
    .pattern(slug()).min_length(Some(1)).max_length(Some(40)));
text!(AwsAccountId, "An AWS account: exactly 12 ASCII digits.", "222222222222", .pattern(Some("^[0-9]{12}$")));
text!(AwsRegion, "An AWS region's code.", "eu-central-1",
    .pattern(Some("^[a-z]+(-[a-z]+)+-[0-9]$")).max_length(Some(24)));
text!(KeyArn, "A KMS key's own ARN, never an alias.",
    "arn:aws:kms:eu-central-1:222222222222:key/1234abcd-12ab-34cd-56ef-1234567890ab",
    .pattern(Some("^arn:aws:kms:[a-z]+(-[a-z]+)+-[0-9]:[0-9]{12}:key/[0-9A-Fa-fmrk-]+$")).max_length(Some(256)));
text!(RoleArn, "The ARN of an IAM role in the customer's account.",
    "arn:aws:iam::333333333333:role/key-management",
    .pattern(Some("^arn:aws:iam::[0-9]{12}:role/[A-Za-z0-9+=,.@_/-]+$")).max_length(Some(600)));
text!(ContextTag, "A label in every encryption context; it cannot be changed later.", "acme1",
    .pattern(Some("^[A-Za-z0-9]{1,12}$")));
text!(Subject, "A person or machine: `sub` of its token.", "ada",
    .pattern(Some("^[!-~]+$")).min_length(Some(1)).max_length(Some(128)));
text!(Moment, "A moment, RFC 3339, UTC.", "2026-11-22T12:00:00Z",
    .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime))));
text!(Day, "A day, UTC.", "2026-11-22", .pattern(Some("^[0-9]{4}-[0-9]{2}-[0-9]{2}$")));
text!(Id, "An identifier; opaque.", "00000000-0000-4000-8000-0000000000aa",
    .format(Some(SchemaFormat::Custom("uuid".to_owned()))));
text!(Hash, "A SHA-256, hex; empty where there is nothing before.", "", .pattern(Some("^([0-9a-f]{64})?$")));
text!(Cursor, "`nextCursor` of the page before; opaque, and bound to its list and organization.", "dGlja2V0cw",
    .max_length(Some(1024)));

text!(IdempotencyKey, "A key that the caller makes up for one request, a UUID say.", "a2b1f6f4-8c1e-4c53-a0f4-1f9f1c0f5a11",
    .pattern(Some("^[!-~]+$")).min_length(Some(1)).max_length(Some(128)));
text!(EntityTags, "`ETag` of an answer, or several separated by commas, or `*`.", "\"3-00000000000040008000000000000000\"",
    .pattern(Some(r#"^(\*|"[!#-~]*"(, *"[!#-~]*")*)$"#)).max_length(Some(512)));
text!(TemplateVersion, "The version of a key-policy template.", "2027-01-15",
    .pattern(Some("^[a-z0-9.-]{1,32}$")));
text!(EntityTag, "The version that is shown, as `If-Match` takes it in quotation marks.", "3-00000000000040008000000000000000",
    .pattern(Some("^[0-9]+-[0-9a-f]{32}$")));

/// How the keys are held.
#[derive(ToSchema)]
#[schema(rename_all = "kebab-case")]
pub enum Mode {
    /// The service makes the keys in the customer's account.
    Byok,
    /// The customer makes the keys and grants them.
    Cmk,
}

/// Where an encryption policy stands.
#[derive(ToSchema)]
#[schema(rename_all = "kebab-case")]
pub enum Lifecycle {
    Requested,
    Verifying,
    Active,
    Suspended,
    Restoring,
    Lapsed,
    Closed,
    Rejected,
}

/// What is believed about a key.
#[derive(ToSchema)]
#[schema(rename_all = "kebab-case")]
pub enum KeyHealth {
    Unknown,
    Usable,
    Disabled,
    PendingDeletion,
    PendingImport,
    Deleted,
    AccessDenied,
    KeyStoreDisconnected,
    InvalidState,
    Unreachable,
    Throttled,
}

/// Why a fence is closed.
#[derive(ToSchema)]
#[schema(rename_all = "kebab-case")]
pub enum Cause {
    /// The customer took its keys away.
    Key,
    /// The vendor suspended.
    Vendor,
    /// The organization is leaving.
    Closing,
}

/// What a restoration can promise now.
#[derive(ToSchema)]
#[schema(rename_all = "kebab-case")]
pub enum WindowPhase {
    Assured,
    BestEffort,
    NotAssured,
    Lapsed,
}

/// What the vendor's customer records say of an organization, whole.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct OrganizationFeed {
    /// The plan of each app that it has, by app.
    #[schema(example = json!({ "jira": "enterprise" }))]
    plans: BTreeMap<String, Plan>,
    /// Whether it is in the government cloud.
    government: bool,
    /// Its registered administrators.
    #[schema(max_items = 500)]
    admins: Vec<Subject>,
    /// Its read-only people.
    #[schema(max_items = 500)]
    auditors: Vec<Subject>,
}

text!(Plan, "A plan's name.", "enterprise", .min_length(Some(1)).max_length(Some(64)));

/// An organization.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct Organization {
    /// Stands in encryption contexts.
    id: Id,
    name: OrganizationName,
    plans: BTreeMap<String, Plan>,
    government: bool,
    admins: Vec<Subject>,
    auditors: Vec<Subject>,
}

/// A request to enrol: one mode with what it needs, one account, one realm.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct Enrolment {
    mode: Mode,
    aws_account_id: AwsAccountId,
    realm: Realm,
    /// One entry per region of the realm, none missing, none twice, none besides; needed for `cmk`, refused for `byok`.
    #[schema(max_items = 16)]
    keys: Option<Vec<RegionalKey>>,
    /// The key-management role, through which the keys are made; needed for `byok`, refused for `cmk`.
    role_arn: Option<RoleArn>,
    context_tag: ContextTag,
    /// The context tag again.
    context_tag_confirmation: ContextTag,
}

/// A key and the region that it is for.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct RegionalKey {
    region: AwsRegion,
    key_arn: KeyArn,
}

/// An organization's encryption policy.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct EncryptionPolicy {
    id: Id,
    lifecycle: Lifecycle,
    /// Why it was rejected.
    #[schema(required)]
    reason: Option<String>,
    /// Some regional keys refuse while others work.
    degraded: bool,
    /// Data is being moved to new keys.
    reencrypting: bool,
    mode: Mode,
    realm: Realm,
    aws_account_id: AwsAccountId,
    /// The key-management role (`byok`).
    #[schema(required)]
    role_arn: Option<RoleArn>,
    context_tag: ContextTag,
    keys: Vec<RegionalKeyHealth>,
    fence: Fence,
    /// The open ticket of a revocation; without one, that of a suspension by the vendor.
    #[schema(required)]
    ticket_id: Option<Id>,
    /// The vendor's own suspension, if there is one.
    #[schema(required)]
    vendor_suspension: Option<VendorSuspension>,
    /// A support agent says that the suspension is a mistake; a second one has not confirmed it yet.
    #[schema(required)]
    lift_proposal: Option<LiftProposal>,
    /// A new key that a second org admin has to confirm, where the catalogue asks for one.
    #[schema(required)]
    key_change_proposal: Option<KeyChangeProposal>,
    /// A re-encryption that a second org admin has to confirm, where the catalogue asks for one.
    #[schema(required)]
    reencryption_proposal: Option<ReencryptionProposal>,
    /// The organization is leaving.
    #[schema(required)]
    closing: Option<Closing>,
    /// The restoration window; none while nothing is cut off.
    #[schema(required)]
    window: Option<Window>,
    /// When a request, or a restoration that was asked for, is due.
    #[schema(required)]
    due_at: Option<Moment>,
    /// Within how many seconds a definite refusal in every region cuts access off, without any event.
    #[schema(minimum = 0)]
    cut_off_bound_seconds: i64,
    access_requests: Vec<AccessRequest>,
    etag: EntityTag,
}

/// A new key that waits for a second org admin.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct KeyChangeProposal {
    region: AwsRegion,
    key_arn: KeyArn,
    at: Moment,
    /// Until when a second admin may ask for the same.
    until: Moment,
}

/// A re-encryption that waits for a second org admin.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct ReencryptionProposal {
    /// The new keys; empty where the service makes them.
    keys: Vec<RegionalKey>,
    depth: Depth,
    at: Moment,
    /// Until when a second admin may ask for the same.
    until: Moment,
    ticket_id: Id,
}

/// The name of the organization that leaves.
#[derive(ToSchema)]
pub struct ClosingRequest {
    /// The organization's name, as in the path.
    confirmation: OrganizationName,
}

/// A closing that is under way.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct Closing {
    stage: ClosingStage,
    asked_at: Moment,
    /// When support's approval is due.
    #[schema(required)]
    due_at: Option<Moment>,
    /// Until when data can be exported, and the closing cancelled.
    #[schema(required)]
    export_until: Option<Moment>,
    /// How much of that time is left.
    #[schema(required, minimum = 0)]
    remaining_seconds: Option<i64>,
    ticket_id: Id,
    /// What can be done.
    help: String,
}

/// How far a closing has come.
#[derive(ToSchema)]
#[schema(rename_all = "kebab-case")]
pub enum ClosingStage {
    /// Support has to approve.
    Asked,
    /// The organization exports its data.
    Exporting,
    /// Access has ended; the data keys are being deleted.
    Erasing,
}

/// What an organization that left can show its own auditors.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct ErasureStatement {
    organisation: OrganizationName,
    policy_id: Id,
    mode: Mode,
    realm: Realm,
    aws_account_id: AwsAccountId,
    /// The keys under which the data keys were wrapped.
    keys: Vec<KeyArn>,
    asked_at: Moment,
    access_ended_at: Moment,
    /// When the last wrapped data key was gone.
    erased_at: Moment,
    data_keys: u64,
    /// How many app instances had some.
    instances: u64,
    ticket_id: Id,
    statement: String,
    /// What is left, and what it is.
    remains: Vec<String>,
    /// What to do with the keys.
    advice: Vec<String>,
    /// The end of the policy's chain of facts.
    audit: ChainEnd,
}

/// The end of a chain of facts.
#[derive(ToSchema)]
pub struct ChainEnd {
    seq: u64,
    hash: String,
}

/// What a new key policy of the vendor's asks for.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct AccessRequest {
    id: Id,
    version: TemplateVersion,
    permissions: Vec<KeyPermission>,
    status: AccessStatus,
    opened_at: Moment,
    /// By when to accept or decline.
    decide_by: Moment,
    /// The ticket that tells of it.
    ticket_id: Id,
}

/// Where an access request stands.
#[derive(ToSchema)]
#[schema(rename_all = "kebab-case")]
pub enum AccessStatus {
    Open,
    /// Probes proved every permission in every region.
    Accepted,
    /// There are no new apps.
    Declined,
    /// Its date has passed; there are no new apps.
    Ignored,
}

/// A page of access requests, newest first.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct AccessRequestPage {
    items: Vec<AccessRequest>,
    #[schema(required)]
    next_cursor: Option<Cursor>,
}

/// A permission on a key that a probe can prove.
pub struct KeyPermission;

impl PartialSchema for KeyPermission {
    fn schema() -> RefOr<Schema> {
        let actions = claviger_domain::access::KEY_PERMISSIONS.iter().map(|known| known.action());
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("A permission on a key that a probe can prove."))
            .enum_values(Some(actions))
            .into()
    }
}

impl ToSchema for KeyPermission {}

/// A key-policy template that asks for more than the one before.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct KeyPolicyTemplate {
    version: TemplateVersion,
    #[schema(min_items = 1, max_items = 20)]
    permissions: Vec<KeyPermission>,
    /// By when customers decide: within the next year.
    decide_by: Moment,
}

/// A template that is published.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct PublishedTemplate {
    version: TemplateVersion,
    permissions: Vec<KeyPermission>,
    decide_by: Moment,
    published_at: Moment,
    /// How many customers were asked so far.
    opened: u64,
    /// Every customer was asked.
    done: bool,
}

/// A regional key, and how it is.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct RegionalKeyHealth {
    region: AwsRegion,
    key_arn: KeyArn,
    health: KeyHealth,
    since: Moment,
    #[schema(required)]
    last_probe_at: Option<Moment>,
    /// What to do, if anything.
    #[schema(required)]
    help: Option<String>,
    /// How its material is renewed; null before it was described.
    #[schema(required)]
    rotation: Option<Rotation>,
    /// What will take effect, soonest first.
    countdowns: Vec<Countdown>,
    /// Ways in for others than the organisation that were found open. They are tried again once a day.
    loopholes: Vec<OpenLoophole>,
    /// Access was restored without it.
    given_up: bool,
    /// The key that is to take its place.
    #[schema(required)]
    replacement: Option<KeyArn>,
}

/// A way in for others than the organisation.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct OpenLoophole {
    what: Loophole,
    /// What was seen, and what closes it.
    help: String,
}

/// The check of an enrolment that a way in would fail.
#[derive(ToSchema)]
#[schema(rename_all = "kebab-case")]
pub enum Loophole {
    /// The key also works with another organisation's encryption context.
    ContextCondition,
    /// The key-management role also lets us in without its external id, or with a wrong one.
    ExternalIdEnforced,
}

/// How a key's material is renewed. Nobody has to tell us of it.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct Rotation {
    /// AWS renews it by itself; null where we may not ask.
    #[schema(required)]
    enabled: Option<bool>,
    /// When other material than before was first seen.
    #[schema(required)]
    last_seen_at: Option<Moment>,
    /// How much is still wrapped under older material; null before it was counted.
    #[schema(required)]
    old_material: Option<OldMaterial>,
}

/// Data keys that a key wraps under material of before its last rotation. They stay readable; a re-encryption brings
/// them under new material.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct OldMaterial {
    #[schema(minimum = 0)]
    data_keys: u64,
    /// All that it wraps.
    #[schema(minimum = 0)]
    of: u64,
    /// The first of the second.
    #[schema(minimum = 0, maximum = 1)]
    share: f64,
    counted_at: Moment,
}

/// Something that will take effect.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct Countdown {
    what: RunsOut,
    at: Moment,
    remaining_seconds: u64,
}

/// What takes effect when a countdown is over.
#[derive(ToSchema)]
#[schema(rename_all = "kebab-case")]
pub enum RunsOut {
    /// The key is deleted, and cannot be brought back.
    Deletion,
    /// The imported material is gone, and the key refuses until it is imported again.
    MaterialExpiry,
}

/// What every process reads before it uses a key.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct Fence {
    /// Keys may be used.
    open: bool,
    causes: Vec<Cause>,
    /// Raised by every close and every open.
    epoch: u64,
}

/// A restoration window.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct Window {
    phase: WindowPhase,
    /// None for the last phase.
    #[schema(required)]
    ends_at: Option<Moment>,
    /// How much of the phase is left; none for the last.
    #[schema(required, minimum = 0)]
    remaining_seconds: Option<i64>,
    /// Everything counts from here.
    cut_off_at: Moment,
    phases: Vec<DatedPhase>,
}

/// One phase of a restoration window.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct DatedPhase {
    phase: WindowPhase,
    begins_at: Moment,
    /// None for the last.
    #[schema(required)]
    ends_at: Option<Moment>,
}

/// A suspension by the vendor. It has no window.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct VendorSuspension {
    since: Moment,
    reason: String,
    ticket_id: Id,
    ground: VendorGround,
    /// How it ends.
    help: String,
}

/// Why the vendor suspends, and so how it ends.
#[derive(ToSchema)]
#[schema(rename_all = "kebab-case")]
pub enum VendorGround {
    /// Support ordered it, and lifts it.
    Ordered,
    /// It ends when the permission that was asked for is proven.
    AccessRequest,
}

/// A mistake that waits for a second support agent.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct LiftProposal {
    at: Moment,
    /// Until when a second agent may confirm it.
    until: Moment,
    reason: String,
}

/// An order of support's to suspend.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct VendorSuspensionOrder {
    /// The org admins read it.
    #[schema(min_length = 1, max_length = 1000)]
    reason: String,
    /// The access request that was declined or ignored. With it, the suspension ends when the permission is proven;
    /// without it, support lifts it.
    access_request_id: Option<Id>,
}

/// A lift of one cause.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct Lift {
    #[schema(min_length = 1, max_length = 1000)]
    reason: String,
    /// Needed where the organization is suspended for both.
    cause: Option<LiftableCause>,
}

/// A cause that support lifts.
#[derive(ToSchema)]
#[schema(rename_all = "kebab-case")]
pub enum LiftableCause {
    /// Support ordered the suspension.
    Vendor,
    /// The suspension by the keys is a mistake.
    Key,
}

/// Instances whose apps have not answered an order to suspend in time.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct OverdueOrder {
    organisation: OrganizationName,
    policy: Id,
    /// When the first of them was told.
    ordered_at: Moment,
    /// How many; 0 while the order itself is stuck.
    unanswered: u64,
    /// The first of them.
    first: Vec<Id>,
    /// Whether every instance was told. `false`: the order is stuck on its way; look at the dead-letter queues.
    all_told: bool,
}

/// What a dry run found.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct Validation {
    /// The worst of the checks.
    result: CheckResult,
    checks: Vec<Check>,
}

/// How a check ended.
#[derive(ToSchema)]
#[schema(rename_all = "kebab-case")]
pub enum CheckResult {
    Pass,
    /// It works, and should be looked at.
    Warn,
    /// Enrolment would be refused.
    Fail,
}

/// One check.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct Check {
    /// The check's slug.
    id: String,
    /// None for checks of the request itself.
    #[schema(required)]
    region: Option<AwsRegion>,
    result: CheckResult,
    /// What was seen.
    observed: String,
    /// What to do.
    help: String,
}

/// What a published key-policy template asks for.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct KeyPolicyAddition {
    version: TemplateVersion,
    permissions: Vec<KeyPermission>,
    decide_by: Moment,
}

/// What to paste: on each key, or, for `byok`, on the key-management role.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct KeyPolicy {
    /// Version of the template.
    version: String,
    /// What templates ask for that were published since; the documents grant it.
    additions: Vec<KeyPolicyAddition>,
    principal: Principal,
    /// What every call under the keys bears; the policy's condition is on it.
    encryption_context: BTreeMap<String, Id>,
    /// The document.
    #[schema(value_type = Object)]
    policy: serde_json::Value,
    /// The document for each region's key; empty while no realm is known.
    regions: Vec<RegionalKeyPolicy>,
    /// The key-management role of `byok`; none for an organization that is enrolled as `cmk`.
    #[schema(required)]
    role: Option<KeyManagementRole>,
    /// What taking it away does.
    warning: String,
}

/// The role that a `byok` organization makes in its account, with its two policies.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct KeyManagementRole {
    /// Known once the organization has enrolled.
    #[schema(required)]
    role_arn: Option<RoleArn>,
    /// The organization's own, the same for good: the role must not let us in without it.
    external_id: String,
    /// Who may assume the role.
    #[schema(value_type = Object)]
    trust_policy: serde_json::Value,
    /// What the role may do.
    #[schema(value_type = Object)]
    permission_policy: serde_json::Value,
}

/// Whom the key policy allows.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct Principal {
    account: AwsAccountId,
    role_arn: String,
}

/// The key policy of one region.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct RegionalKeyPolicy {
    region: AwsRegion,
    /// Known once the organization has enrolled.
    #[schema(required)]
    key_arn: Option<KeyArn>,
    #[schema(value_type = Object)]
    policy: serde_json::Value,
}

/// One app on one site.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct Place {
    site: SiteName,
    app: App,
}

/// An app instance.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct AppInstance {
    id: Id,
    site: SiteName,
    app: App,
    /// None for one that is not encrypted.
    #[schema(required)]
    realm: Option<Realm>,
    status: InstanceStatus,
    /// Since when it has this status.
    since: Moment,
    /// When a request is due.
    #[schema(required)]
    due_at: Option<Moment>,
    /// Why it was rejected.
    #[schema(required)]
    reason: Option<String>,
    coverage: Coverage,
    /// The same by type of data.
    data: Vec<InstanceData>,
    /// What to do for fuller coverage, where there is something.
    #[schema(required)]
    fuller_coverage: Option<String>,
    /// The unencrypted rest of its family on the site: partly covered, and suspended with it.
    family: Vec<App>,
    /// The app's last answer to an order.
    #[schema(required)]
    acknowledged: Option<Acknowledged>,
    /// Its site was deleted, and it is to go with its data keys.
    #[schema(required)]
    deletion: Option<SiteDeletion>,
    /// What its site was called before.
    #[schema(required)]
    former_site: Option<SiteName>,
    etag: EntityTag,
}

/// Where an app instance stands.
#[derive(ToSchema)]
#[schema(rename_all = "kebab-case")]
pub enum InstanceStatus {
    Requested,
    Provisioning,
    Active,
    Suspended,
    NotEncrypted,
    Rejected,
    /// Its site was deleted, and its data keys are being deleted.
    Erasing,
    /// Its site was deleted, and its data keys are gone.
    Deleted,
}

/// The deletion of an app's site.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct SiteDeletion {
    /// Since when it is known.
    at: Moment,
    /// When the data keys go, or, of what has none, the app itself; until then everything is as before.
    erase_at: Moment,
    /// The ticket that tells of it; none of an app that is not encrypted.
    #[schema(required)]
    ticket_id: Option<Id>,
}

/// Another name for a site.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct SiteRenaming {
    site: SiteName,
}

/// The apps on a site; all of them, on one page.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct SiteApps {
    items: Vec<AppInstance>,
    #[schema(required)]
    next_cursor: Option<Cursor>,
}

/// How much of an app's data on a site is encrypted.
#[derive(ToSchema)]
#[schema(rename_all = "kebab-case")]
pub enum Coverage {
    Covered,
    Partly,
    NotCovered,
}

/// What of one type of an app's data is covered.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct InstanceData {
    data: String,
    coverage: DataCoverage,
    /// For what is cached or in transit: for how many days at most it lies outside.
    #[schema(required)]
    up_to_days: Option<u16>,
}

/// How far a type of data is covered.
#[derive(ToSchema)]
#[schema(rename_all = "kebab-case")]
pub enum DataCoverage {
    Covered,
    NotCovered,
    CachedOrInTransit,
}

/// An app's answer to an order, as it was noted.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct Acknowledged {
    epoch: u64,
    at: Moment,
    evicted: u64,
}

/// An app's answer to an order to suspend or restore.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct Acknowledgement {
    /// The order's epoch.
    epoch: u64,
    /// How many cached items the app dropped.
    evicted: u64,
}

/// A page of app instances.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct AppInstancePage {
    items: Vec<AppInstance>,
    #[schema(required)]
    next_cursor: Option<Cursor>,
}

/// A ticket.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct Ticket {
    id: Id,
    title: String,
    status: TicketStatus,
    opened_at: Moment,
    #[schema(required)]
    resolved_at: Option<Moment>,
    /// Oldest first.
    comments: Vec<TicketComment>,
    etag: EntityTag,
}

/// Whether a ticket waits for somebody.
#[derive(ToSchema)]
#[schema(rename_all = "kebab-case")]
pub enum TicketStatus {
    Open,
    Resolved,
}

/// An entry of a ticket.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct TicketComment {
    at: Moment,
    /// `claviger`, or a role; never a name.
    author: String,
    body: String,
    /// What an org admin asks for with it.
    #[schema(required)]
    request: Option<TicketRequest>,
    /// Whether it is asked for without keys that are gone for good.
    into_degraded: bool,
}

/// What can be asked for on a ticket.
#[derive(ToSchema)]
#[schema(rename_all = "kebab-case")]
pub enum TicketRequest {
    /// That support restores access after the window.
    Restoration,
}

/// Words for a ticket.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct Comment {
    /// Not only white space.
    #[schema(min_length = 1, max_length = 4000, pattern = r"\S")]
    body: String,
    /// What is asked for with it; only an org admin asks.
    request: Option<TicketRequest>,
    /// With a request: whether to do without keys that are gone for good, if another region unwraps every data key.
    into_degraded: Option<bool>,
}

/// A page of orders that apps have not answered.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct OverdueOrderPage {
    items: Vec<OverdueOrder>,
    #[schema(required)]
    next_cursor: Option<Cursor>,
}

/// A page of tickets, newest first.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct TicketPage {
    items: Vec<Ticket>,
    #[schema(required)]
    next_cursor: Option<Cursor>,
}

/// A request for restoration.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct Restoration {
    /// The open ticket of the revocation.
    ticket_id: Id,
    /// Whether to do without keys that are gone for good, if another region unwraps every data key.
    into_degraded: Option<bool>,
}

/// A new key for a region.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct KeyReplacement {
    /// Needed for `cmk`, refused for `byok`: there the key is made through the key-management role.
    key_arn: Option<KeyArn>,
}

/// What would happen if a key were disabled now.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct Preview {
    region: AwsRegion,
    outcome: PreviewOutcome,
    still_usable: Vec<AwsRegion>,
    /// How many encrypted app instances would stop.
    #[schema(minimum = 0)]
    app_instances: u64,
    /// How many unencrypted members of their families would stop with them.
    #[schema(minimum = 0)]
    siblings: u64,
    /// The first of all of them.
    first: Vec<Place>,
    /// Within how many seconds of the refusal, without any event.
    #[schema(required, minimum = 0)]
    bound_seconds: Option<i64>,
    /// What the org admins would read on the ticket.
    told: Vec<String>,
    /// How to come back.
    help: String,
    /// What to weigh before: it is meant for emergencies, re-encryption renews keys.
    guidance: String,
    /// The restoration window that would begin.
    window: Vec<DatedPhase>,
}

/// What disabling a key would lead to.
#[derive(ToSchema)]
#[schema(rename_all = "kebab-case")]
pub enum PreviewOutcome {
    /// It is so already.
    Unchanged,
    /// Data stays readable through another region.
    Degraded,
    /// Access is cut off.
    Suspended,
}

/// A restoration that is under way.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct RestorationAccepted {
    ticket_id: Id,
    lifecycle: Lifecycle,
    due_at: Moment,
}

/// How much moves to the new keys.
#[derive(ToSchema)]
#[schema(rename_all = "kebab-case")]
pub enum Depth {
    /// Every record.
    Rekey,
    /// The data keys alone; the old keys do not become safe to delete by it.
    Rewrap,
}

/// New keys for everything.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct ReencryptionRequest {
    /// One per region of the realm: new keys, which were never the organization's before. A BYOK organization may
    /// leave them out: they are made through its role. With keys of its own making it becomes CMK.
    #[schema(min_items = 1, max_items = 16, nullable = false)]
    keys: Option<Vec<RegionalKey>>,
    /// `rekey` without it.
    #[schema(nullable = false)]
    depth: Option<Depth>,
}

/// How far a re-encryption is.
#[derive(ToSchema)]
#[schema(rename_all = "kebab-case")]
pub enum ReencryptionStatus {
    /// Every data key is wrapped under the new keys too.
    Preparing,
    /// The new wraps are taken away again.
    Cancelling,
    /// The policy has the new keys; records are written anew.
    Rewriting,
    /// Looking for what is still old.
    Scanning,
    /// For what may still be in transit.
    Waiting,
    /// The old wraps are taken away.
    Finishing,
    Completed,
    Cancelled,
}

/// A re-encryption.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct Reencryption {
    id: Id,
    status: ReencryptionStatus,
    depth: Depth,
    requested_at: Moment,
    #[schema(required)]
    ended_at: Option<Moment>,
    /// Since when an org admin has it stand still.
    #[schema(required)]
    paused_at: Option<Moment>,
    /// Why it stands still by itself, and where. It goes on by itself.
    #[schema(required)]
    stopped: Option<String>,
    /// The policy has its old keys still.
    cancellable: bool,
    /// When the policy got the new keys: the point of no return.
    #[schema(required)]
    switched_at: Option<Moment>,
    /// From when on the second of the two scans may begin.
    #[schema(required)]
    next_scan_at: Option<Moment>,
    keys: Vec<RegionalKey>,
    /// Of the new keys.
    #[schema(minimum = 1)]
    generation: u64,
    ticket_id: Id,
    progress: ReencryptionProgress,
    /// What still needs older keys, newest first; empty until the policy has the new ones.
    ledger: Vec<LedgerEntry>,
    /// What to weigh before and while it runs.
    advice: String,
    etag: EntityTag,
}

/// Records of the pass that is under way.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct ReencryptionProgress {
    /// None before and after the passes over the data.
    #[schema(required)]
    pass: Option<u32>,
    /// Records that were gone through.
    done: u64,
    /// Records in all; none while nobody knows.
    #[schema(required)]
    total: Option<u64>,
    /// The total is exact only when the pass is through.
    estimated: bool,
    #[schema(required)]
    rate_per_second: Option<f64>,
    #[schema(required)]
    seconds_left: Option<u64>,
    /// In all passes.
    rewritten: u64,
    /// Records that the app wrote in the same moment: its write stays.
    lost_races: u64,
    /// Data keys that were gone through.
    data_keys: u64,
    shards_done: u64,
    shards: u64,
    /// What stands in the way of some part.
    #[schema(required)]
    fault: Option<String>,
}

/// What still needs keys that the policy had before.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct LedgerEntry {
    #[schema(minimum = 1)]
    generation: u64,
    keys: Vec<RegionalKey>,
    replaced_at: Moment,
    /// Data-key versions that only they wrap; none before it is known.
    #[schema(required)]
    data_keys: Option<u64>,
    /// By the last scan; none before one.
    #[schema(required)]
    records: Option<u64>,
    /// Old versions of objects, by the last scan.
    #[schema(required)]
    object_versions: Option<u64>,
    /// Registered backups that need them.
    backups: Vec<String>,
    safe_to_delete: bool,
    /// Why not, or why.
    why: Vec<String>,
    /// What became of the data keys of this generation. They are kept, wrapped under the new keys, until the last backup that
    /// needs them has expired.
    former_data_keys: FormerDataKeys,
}

/// What became of data keys of a former generation.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct FormerDataKeys {
    state: FormerDataKeysState,
    /// Since when; none for those that are kept.
    #[schema(required)]
    since: Option<Moment>,
    /// What needs those that are kept.
    #[schema(required)]
    needed: Option<String>,
}

/// Whether they are there.
#[derive(ToSchema)]
#[schema(rename_all = "kebab-case")]
pub enum FormerDataKeysState {
    Kept,
    Removing,
    Removed,
}

/// How far a re-encryption is with an app.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct ReencryptedInstance {
    instance_id: Id,
    site: SiteName,
    app: App,
    /// Records that were gone through in this pass; after all passes, in the last.
    #[schema(minimum = 0)]
    done: u64,
    /// Records in all; none while nobody knows.
    #[schema(required, minimum = 0)]
    total: Option<u64>,
    /// The total is exact only when the pass is through.
    estimated: bool,
    #[schema(required)]
    rate_per_second: Option<f64>,
    #[schema(required)]
    seconds_left: Option<u64>,
    /// Parts of its records; empty before they are worked.
    shards: Vec<ReencryptedShard>,
}

/// How far a re-encryption is with a part of an app's records.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct ReencryptedShard {
    #[schema(minimum = 0)]
    index: u16,
    /// Through with this pass.
    through: bool,
    #[schema(minimum = 0)]
    done: u64,
    #[schema(required, minimum = 0)]
    total: Option<u64>,
    estimated: bool,
    #[schema(required)]
    rate_per_second: Option<f64>,
    #[schema(required)]
    seconds_left: Option<u64>,
    /// Written anew in this pass.
    rewritten: u64,
    /// Records that the app wrote in the same moment: its write stays.
    lost_races: u64,
    /// Found by a scan under old data keys.
    old: u64,
    /// Old versions of objects under old data keys.
    old_versions: u64,
    /// What stands in its way.
    #[schema(required)]
    fault: Option<String>,
}

/// A page of a re-encryption's apps.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct ReencryptedInstancePage {
    items: Vec<ReencryptedInstance>,
    #[schema(required)]
    next_cursor: Option<Cursor>,
}

/// A page of re-encryptions, newest first.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct ReencryptionPage {
    items: Vec<Reencryption>,
    #[schema(required)]
    next_cursor: Option<Cursor>,
    /// What to weigh before asking for one.
    advice: String,
}

/// A backup that holds data of the organization.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct Backup {
    /// The vendor's name for it.
    #[schema(min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9_.:/-]+$")]
    id: String,
    taken_at: Moment,
    /// After `takenAt`.
    expires_at: Moment,
    /// Of the keys, when it was taken.
    #[schema(minimum = 1)]
    generation: u64,
    /// It holds wrapped data keys of its own: then only the keys of its generation open it.
    holds_wrapped_keys: bool,
    /// When the stores were last brought back from it, if they were. Said once, it stays.
    #[schema(required = false, nullable = false)]
    brought_back_at: Option<Moment>,
}

/// A page of backups.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct BackupPage {
    items: Vec<Backup>,
    #[schema(required)]
    next_cursor: Option<Cursor>,
}

/// How a key was used on one day.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct KeyUse {
    day: Day,
    region: AwsRegion,
    /// None for calls about no single key (`ListKeys`), and on a day with very many keys for the rest of them.
    #[schema(required)]
    key_arn: Option<KeyArn>,
    /// As CloudTrail spells it in `eventName`.
    #[schema(example = "Decrypt")]
    operation: String,
    /// `claviger:purpose` in the encryption context; none for calls that have no context.
    #[schema(required, example = "canary")]
    purpose: Option<String>,
    /// Calls that KMS answered, whatever it said.
    calls: i64,
    /// Of those, refused with access denied.
    denied: i64,
    /// Of those, throttled.
    throttled: i64,
    /// Sent, and not answered: KMS may have seen them.
    unanswered: i64,
    /// Events to expect in the CloudTrail of the key's owner: a refusal across accounts is logged at its caller only.
    cloud_trail_events: i64,
    billed_to: Payer,
    /// What the requests cost.
    cost_usd: f64,
}

/// Whose AWS account made the call: KMS bills it and takes the call from its request quota.
#[derive(ToSchema)]
#[schema(rename_all = "kebab-case")]
pub enum Payer {
    /// The vendor's, by the key-access role (CMK).
    Vendor,
    /// The customer's own, by a session of its role (BYOK).
    Customer,
}

/// KMS calls on an organization's keys. Written some time after the calls, never twice: at most what CloudTrail shows,
/// which is the reference.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct Usage {
    from: Day,
    to: Day,
    items: Vec<KeyUse>,
    #[schema(required)]
    next_cursor: Option<Cursor>,
    /// Calls that KMS answered, in the whole period.
    total: i64,
    /// Of those, refused with access denied.
    denied: i64,
    /// Of those, throttled.
    throttled: i64,
    /// Sent, and not answered.
    unanswered: i64,
    /// Events to expect in the CloudTrail of the keys' owner.
    cloud_trail_events: i64,
    /// What the requests of the whole period cost.
    cost_usd: f64,
    /// Of that, billed to the vendor's account.
    billed_to_vendor_usd: f64,
    /// Of that, billed to the customer's own account.
    billed_to_customer_usd: f64,
    /// The price of 10,000 requests; a deploy parameter.
    #[schema(rename = "pricePer10000Usd")]
    price_per_10000_usd: f64,
    /// A process that is at work has written what it counted after so many seconds.
    written_every_seconds: i64,
    /// How to hold it against CloudTrail.
    help: String,
}

/// A committed decision: one line of the audit log, chained by hash with those of its stream.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct Fact {
    /// Position in its chain.
    #[schema(minimum = 1)]
    seq: u64,
    /// The policy or instance whose chain it is.
    stream: Id,
    organisation: OrganizationName,
    at: Moment,
    actor: Actor,
    correlation_id: Id,
    /// What happened.
    slug: String,
    /// The event, whole.
    #[schema(value_type = Object)]
    event: serde_json::Value,
    /// Where it led.
    state: String,
    /// The policy's fence afterwards; absent for instances.
    #[schema(nullable = false)]
    fence: Option<FactFence>,
    /// Hash of the fact before.
    previous: Hash,
    /// SHA-256 of the canonical JSON of the fact without it.
    hash: Hash,
}

/// A fence as a fact records it.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct FactFence {
    epoch: u64,
    causes: Vec<Cause>,
    min_write_generation: u64,
    #[schema(required)]
    changed_at: Option<Moment>,
}

/// Who caused a fact.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct Actor {
    role: ActorRole,
    subject: String,
}

/// As what somebody acted.
#[derive(ToSchema)]
#[schema(rename_all = "kebab-case")]
pub enum ActorRole {
    OrgAdmin,
    Support,
    System,
    Claviger,
}

/// What waits for support, or was approved and is not done yet.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct SupportRequest {
    id: Id,
    kind: SupportRequestKind,
    organisation: OrganizationName,
    status: WaitingStatus,
    /// When it was asked for; once it is approved, when that was.
    requested_at: Moment,
    due_at: Moment,
    overdue: bool,
}

/// Where a request stands that is not done.
#[derive(ToSchema)]
#[schema(rename_all = "kebab-case")]
pub enum WaitingStatus {
    /// Support has to decide.
    Requested,
    /// Support approved it; it is not worked off yet.
    Approved,
}

/// What is asked for.
#[derive(ToSchema)]
#[schema(rename_all = "kebab-case")]
pub enum SupportRequestKind {
    Enrolment,
    AppInstance,
    Closing,
}

/// A page of requests.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct SupportRequestPage {
    items: Vec<SupportRequest>,
    #[schema(required)]
    next_cursor: Option<Cursor>,
}

/// Why a request is rejected.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct Rejection {
    /// The org admin reads it. Not only white space.
    #[schema(min_length = 1, max_length = 1000, pattern = r"\S")]
    reason: String,
}

/// A request that was decided.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct Decided {
    id: Id,
    kind: SupportRequestKind,
    organisation: OrganizationName,
    /// Where the policy or the instance stands now.
    status: String,
}

/// What can be encrypted where, on which plans, and within which bounds.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct Catalogue {
    realms: Vec<CatalogueRealm>,
    apps: Vec<CatalogueApp>,
    modes: Vec<CatalogueMode>,
    due: CatalogueDue,
    /// For how many days at most what is cached or in transit lies outside the customer's keys.
    cached_or_in_transit_days: u16,
    /// An org admin's own request starts at once.
    self_service_approval: bool,
    bounds: CatalogueBounds,
}

/// A realm and its regions.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct CatalogueRealm {
    realm: Realm,
    name: String,
    regions: Vec<AwsRegion>,
}

/// An app and the plans that allow its encryption.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct CatalogueApp {
    app: App,
    name: String,
    #[schema(required)]
    family: Option<String>,
    plans: Vec<String>,
    can_be_encrypted: bool,
    data: Vec<CatalogueData>,
}

/// A type of an app's data.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct CatalogueData {
    data: String,
    coverage: DataCoverage,
    /// It is covered too when only another member of the app's family is encrypted.
    with_family: bool,
}

/// A mode, its label and its windows.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct CatalogueMode {
    mode: Mode,
    label: String,
    console: String,
    windows: Vec<CatalogueWindow>,
}

/// A phase and the day after the cut-off on which it ends.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct CatalogueWindow {
    phase: WindowPhase,
    /// None for the last phase.
    #[schema(required)]
    until_day: Option<u32>,
}

/// Within how many business days things are due.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct CatalogueDue {
    provisioning_business_days: u32,
    restoration_business_days: u32,
}

/// Within how many seconds access is cut off.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct CatalogueBounds {
    /// After a definite refusal in every region.
    #[schema(minimum = 0)]
    cut_off_seconds: i64,
    /// After a refusal that may mean something else.
    #[schema(minimum = 0)]
    ambiguous_cut_off_seconds: i64,
    /// After the last proof, while nobody watches.
    #[schema(minimum = 0)]
    unwatched_seconds: i64,
}

/// The function runs.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct Health {
    #[schema(example = "ok")]
    status: String,
    version: String,
}

/// An answer to trouble (RFC 9457).
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct Problem {
    /// `/problems/` and the slug.
    #[schema(pattern = "^/problems/[a-z-]+$")]
    r#type: String,
    title: String,
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What happened this time.
    detail: String,
    /// The request that it answers.
    #[schema(required)]
    instance: Option<String>,
    code: ProblemCode,
    /// What to do.
    help: String,
    /// The same request may succeed later without anybody doing anything.
    retryable: bool,
    /// What is wrong, by field.
    errors: Vec<FieldProblem>,
}

/// What is wrong with one field.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct FieldProblem {
    /// Its JSON path, or the name of a parameter.
    #[schema(example = "keys[1].keyArn")]
    field: String,
    reason: String,
    help: String,
}

/// The slugs of the closed list.
pub struct ProblemCode;

impl PartialSchema for ProblemCode {
    fn schema() -> RefOr<Schema> {
        let slugs = PROBLEM_KINDS.iter().map(|kind| kind.slug());
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("The slug of the problem's type: a closed list."))
            .enum_values(Some(slugs))
            .into()
    }
}

impl ToSchema for ProblemCode {}

/// Every schema that an operation names, and those that they name.
pub fn components() -> Components {
    macro_rules! all {
        ($($name:ident),+ $(,)?) => {{
            let mut found: Vec<(String, RefOr<Schema>)> = Vec::new();
            $(
                found.push(($name::name().into_owned(), $name::schema()));
                $name::schemas(&mut found);
            )+
            found
        }};
    }
    let found = all![
        OrganizationFeed,
        Organization,
        Enrolment,
        EncryptionPolicy,
        ClosingRequest,
        ErasureStatement,
        Validation,
        KeyManagementRole,
        KeyPolicy,
        Place,
        AppInstance,
        AppInstancePage,
        SiteRenaming,
        SiteApps,
        Acknowledgement,
        Ticket,
        TicketPage,
        Comment,
        Restoration,
        RestorationAccepted,
        ReencryptionRequest,
        Reencryption,
        ReencryptionPage,
        ReencryptedInstancePage,
        Backup,
        BackupPage,
        KeyUse,
        Payer,
        Usage,
        Day,
        Fact,
        SupportRequestPage,
        OverdueOrderPage,
        VendorSuspensionOrder,
        KeyReplacement,
        Preview,
        Lift,
        AccessRequest,
        AccessRequestPage,
        KeyPolicyTemplate,
        PublishedTemplate,
        Rejection,
        Decided,
        Catalogue,
        Health,
        Problem,
        Cursor,
        IdempotencyKey,
        EntityTags,
        Id,
        OrganizationName,
        AwsAccountId,
        Realm,
    ];
    // A name means one schema; a later one of the same name is the same.
    let found: BTreeMap<String, RefOr<Schema>> = found.into_iter().collect();
    ComponentsBuilder::new().schemas_from_iter(found).build()
}
