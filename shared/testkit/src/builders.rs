//! Aggregates as the domain makes them.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use claviger_app::ports::{Instances, Policies};
use claviger_app::settings::{MassFailure, Settings};
use claviger_app::usage::KmsPrice;
use claviger_domain::catalogue::Catalogue;
use claviger_domain::decide::{Decision, Rules, decide, enrol};
use claviger_domain::enrolment::{Enrolment, Holding};
use claviger_domain::event::{Actor, InstanceEvent, Origin, PolicyEvent};
use claviger_domain::fence::Epoch;
use claviger_domain::ids::{CorrelationId, InstanceId, OrganisationId, PolicyId};
use claviger_domain::instance::{AppInstance, InstanceDecision, InstanceStatus, create, decide_instance};
use claviger_domain::key_access::{ExternalId, RoleArn};
use claviger_domain::key_policy::VendorPrincipal;
use claviger_domain::observation::{Observation, ProbeRound};
use claviger_domain::organisation::Organisation;
use claviger_domain::policy::EncryptionPolicy;
use claviger_domain::values::{KeyArn, Realm, Region, ShardId};
use jiff::{SignedDuration, Timestamp};

use crate::SequentialIds;

static SETTINGS: LazyLock<Settings> = LazyLock::new(|| Settings {
    catalogue: Catalogue::shipped().expect("the shipped catalogue is valid"),
    vendor: VendorPrincipal {
        account: parsed("111111111111"),
        key_access_role: "arn:aws:iam::111111111111:role/claviger-key-access".to_owned(),
    },
    probe_phase: SignedDuration::from_secs(60),
    lease: SignedDuration::from_secs(30),
    ambiguity: SignedDuration::from_secs(60),
    watch_slack: SignedDuration::from_secs(10),
    proof_reuse: SignedDuration::from_secs(10),
    mass_failure: MassFailure::default(),
    in_transit: SignedDuration::from_hours(24 * 30),
    record_shards: 4,
    usage_flush: SignedDuration::from_mins(15),
    data_key_least_age: SignedDuration::from_hours(24),
    kms_price: KmsPrice::default(),
    shards: 8,
    app_roles: BTreeMap::from([(
        "arn:aws:iam::111111111111:role/notes-app".to_owned(),
        vec![parsed("jira")],
    )]),
});

/// Production's settings with the shipped catalogue.
pub fn settings() -> &'static Settings {
    &SETTINGS
}

/// The rules that follow from [`settings`].
pub fn rules() -> Rules<'static> {
    SETTINGS.rules()
}

/// Parses a value that the test knows to be right.
pub fn parsed<T>(text: &str) -> T
where
    T: std::str::FromStr,
    T::Err: std::fmt::Debug,
{
    text.parse().expect("a well-formed value")
}

/// An instant in RFC 3339.
pub fn instant(text: &str) -> Timestamp {
    parsed(text)
}

/// An org admin, called `admin`.
pub fn by_admin() -> Origin {
    Origin { actor: Actor::OrgAdmin(parsed("admin")), correlation: correlation() }
}

/// A support agent.
pub fn by_support() -> Origin {
    Origin { actor: Actor::Support(parsed("agent")), correlation: correlation() }
}

/// The vendor's records.
pub fn by_system() -> Origin {
    Origin { actor: Actor::System(parsed("records")), correlation: correlation() }
}

/// A function of ours.
pub fn by_claviger() -> Origin {
    Origin { actor: Actor::Claviger("key-prober".to_owned()), correlation: correlation() }
}

fn correlation() -> CorrelationId {
    CorrelationId::from_uuid(SequentialIds::uuid(0xc0))
}

fn number(name: &str) -> u64 {
    name.bytes().fold(17, |sum: u64, byte| sum.wrapping_mul(131).wrapping_add(u64::from(byte))) >> 8
}

/// An organisation on the Enterprise plan of every app, with the admin `admin` and the auditor `auditor`. Its opaque
/// id follows from its name.
pub fn an_organisation(name: &str) -> Organisation {
    let apps = ["jira", "jira-service-management", "confluence"];
    Organisation {
        id: OrganisationId::from_uuid(SequentialIds::uuid(number(name))),
        external_id: ExternalId::from_uuid(SequentialIds::uuid(number(name) ^ 0xe0_0000)),
        name: parsed(name),
        plans: apps.map(|app| (parsed(app), "enterprise".to_owned())).into(),
        government: false,
        admins: [parsed("admin")].into(),
        auditors: [parsed("auditor")].into(),
    }
}

/// A key of an account, told apart by a number.
pub fn a_key(account: &str, region: &str, number: u32) -> KeyArn {
    parsed(&format!("arn:aws:kms:{region}:{account}:key/0000000a-0000-4000-8000-{number:012x}"))
}

/// A CMK enrolment: a key in every region of the realm.
pub fn an_enrolment(account: &str, realm: &str) -> Enrolment {
    an_enrolment_with(account, realm, 1)
}

/// The same with keys of another number.
pub fn an_enrolment_with(account: &str, realm: &str, number: u32) -> Enrolment {
    let realm: Realm = parsed(realm);
    let regions = SETTINGS.catalogue.regions(&realm).expect("a realm of the catalogue");
    let key = |region: &Region| (region.clone(), a_key(account, region.as_str(), number));
    Enrolment {
        holding: Holding::Cmk { keys: regions.iter().map(key).collect() },
        account: parsed(account),
        realm,
        context_tag: parsed("tag"),
    }
}

/// The key-management role of an account.
pub fn a_role(account: &str) -> RoleArn {
    parsed(&format!("arn:aws:iam::{account}:role/key-management"))
}

/// A BYOK enrolment: a role in the account.
pub fn a_byok_enrolment(account: &str, realm: &str) -> Enrolment {
    Enrolment {
        holding: Holding::Byok { role_arn: a_role(account) },
        account: parsed(account),
        realm: parsed(realm),
        context_tag: parsed("tag"),
    }
}

/// The record of a BYOK organisation's keys, one in each region of its realm.
pub fn creation(policy: &EncryptionPolicy, now: Timestamp) -> Decision {
    let regions = SETTINGS.catalogue.regions(&policy.realm).expect("a realm of the catalogue");
    let key = |region: &Region| (region.clone(), a_key(policy.account.as_str(), region.as_str(), 1));
    let event = PolicyEvent::KeysCreated { keys: regions.iter().map(key).collect() };
    decided(policy, &event, &by_claviger(), now)
}

/// The decision that makes a policy, which waits for support then. Its id follows from the organisation's name.
pub fn an_enrolment_decision(organisation: &Organisation, enrolment: &Enrolment, now: Timestamp) -> Decision {
    let id = PolicyId::from_uuid(SequentialIds::uuid(number(organisation.name.as_str()) ^ 0x9000_0000));
    an_enrolment_decision_as(id, organisation, enrolment, now)
}

/// The same with an id of the test's.
pub fn an_enrolment_decision_as(
    id: PolicyId,
    organisation: &Organisation,
    enrolment: &Enrolment,
    now: Timestamp,
) -> Decision {
    let shard: ShardId = SETTINGS.shard_of(id);
    enrol(&rules(), organisation, enrolment, id, shard, &by_admin(), now).expect("a lawful enrolment")
}

/// A round of probes in which every key of the policy answers the same.
pub fn a_round(policy: &EncryptionPolicy, seen: Observation, at: Timestamp) -> ProbeRound {
    ProbeRound {
        started_at: at,
        observations: policy.keys.keys().map(|region| (region.clone(), seen)).collect(),
        controls_healthy: Some(true),
        refused_unwrap: None,
    }
}

/// What a lawful event does to a policy.
pub fn decided(policy: &EncryptionPolicy, event: &PolicyEvent, origin: &Origin, now: Timestamp) -> Decision {
    decide(&rules(), policy, event, origin, now).expect("a lawful event")
}

/// Support's approval.
pub fn approval(policy: &EncryptionPolicy, now: Timestamp) -> Decision {
    decided(policy, &PolicyEvent::EnrolmentApproved, &by_support(), now)
}

/// Support's refusal.
pub fn rejection(policy: &EncryptionPolicy, now: Timestamp) -> Decision {
    let event = PolicyEvent::EnrolmentRejected { reason: "not yet".to_owned() };
    decided(policy, &event, &by_support(), now)
}

/// The proof of every key: the canary is the text `canary`, which no key decrypts.
pub fn verification(policy: &EncryptionPolicy, now: Timestamp) -> Decision {
    let event = PolicyEvent::KeysVerified {
        canaries: policy.keys.keys().map(|region| (region.clone(), "Y2FuYXJ5".to_owned())).collect(),
        round: a_round(policy, Observation::Usable, now),
    };
    decided(policy, &event, &by_claviger(), now)
}

/// The two rounds of definite refusals, a second apart, that cut a policy off.
pub fn cut_off(policy: &EncryptionPolicy, now: Timestamp) -> Decision {
    use claviger_domain::observation::RefusalKind::KeyDisabled;
    let earlier = now.checked_sub(SignedDuration::from_secs(1)).expect("an instant");
    let rounds = [earlier, now].map(|at| a_round(policy, Observation::Refused(KeyDisabled), at)).into();
    decided(policy, &PolicyEvent::ProbesReported { rounds, heard: Vec::new() }, &by_claviger(), now)
}

/// The decisions by which every key denies access, for as long as it takes to count: a minute, which ends `now`.
/// KMS says of no key that its owner took it away.
pub fn shut_out(policy: &EncryptionPolicy, now: Timestamp) -> [Decision; 2] {
    use claviger_domain::observation::RefusalKind::AccessDenied;
    let denied = |known: &EncryptionPolicy, second: Timestamp| {
        let first = second.checked_sub(SignedDuration::from_secs(1)).expect("an instant");
        let rounds = [first, second].map(|at| a_round(known, Observation::Refused(AccessDenied), at)).into();
        decided(known, &PolicyEvent::ProbesReported { rounds, heard: Vec::new() }, &by_claviger(), second)
    };
    let began = now.checked_sub(SignedDuration::from_secs(61)).expect("an instant");
    let seen = denied(policy, began);
    let counts = denied(&seen.next, now);
    [seen, counts]
}

/// An active policy of an organisation, as three decisions make it.
pub fn an_active_policy(
    organisation: &Organisation,
    enrolment: &Enrolment,
    now: Timestamp,
) -> EncryptionPolicy {
    let requested = an_enrolment_decision(organisation, enrolment, now).next;
    let approved = approval(&requested, now).next;
    let approved = if approved.keys.is_empty() { creation(&approved, now).next } else { approved };
    verification(&approved, now).next
}

/// Stores an active policy by committing its decisions one after the other.
pub async fn commit_active_policy(
    policies: &dyn Policies,
    organisation: &Organisation,
    enrolment: &Enrolment,
    now: Timestamp,
) -> EncryptionPolicy {
    let asked = an_enrolment_decision(organisation, enrolment, now);
    policies.commit_policy(None, &asked).await.expect("the enrolment is stored");
    let approved = approval(&asked.next, now);
    policies.commit_policy(Some(&asked.next), &approved).await.expect("the approval is stored");
    let mut approved = approved.next;
    if approved.keys.is_empty() {
        let made = creation(&approved, now);
        policies.commit_policy(Some(&approved), &made).await.expect("the keys are stored");
        approved = made.next;
    }
    let active = verification(&approved, now);
    policies.commit_policy(Some(&approved), &active).await.expect("the proof is stored");
    active.next
}

/// The decision that makes an instance, which waits for support then. Its id follows from site and app.
pub fn an_instance_decision(
    policy: &EncryptionPolicy,
    site: &str,
    app: &str,
    now: Timestamp,
) -> InstanceDecision {
    let instance = AppInstance {
        id: InstanceId::from_uuid(SequentialIds::uuid(number(&format!("{site}/{app}")))),
        organisation: policy.organisation,
        organisation_name: policy.organisation_name.clone(),
        policy: Some(policy.id),
        site: parsed(site),
        app: parsed(app),
        realm: Some(policy.realm.clone()),
        status: InstanceStatus::Requested { at: now, by: parsed("admin"), due_at: now },
        epoch: Epoch::default(),
        acknowledged: None,
        deletion: None,
        former_site: None,
        audit: claviger_domain::fact::AuditHead::default(),
        version: 0,
    };
    create(instance, &by_admin(), now)
}

/// What a lawful event does to an instance.
pub fn instance_decided(
    instance: &AppInstance,
    event: &InstanceEvent,
    origin: &Origin,
    now: Timestamp,
) -> InstanceDecision {
    decide_instance(instance, event, origin, now).expect("a lawful event")
}

/// An active instance of a policy, as three decisions make it.
pub fn an_active_instance(policy: &EncryptionPolicy, site: &str, app: &str, now: Timestamp) -> AppInstance {
    let requested = an_instance_decision(policy, site, app, now).next;
    let approved = instance_decided(&requested, &InstanceEvent::InstanceApproved, &by_support(), now).next;
    let event = InstanceEvent::InstanceProvisioned { epoch: policy.fence.epoch };
    instance_decided(&approved, &event, &by_claviger(), now).next
}

/// Stores an active instance by committing its decisions one after the other.
pub async fn commit_active_instance(
    instances: &dyn Instances,
    policy: &EncryptionPolicy,
    site: &str,
    app: &str,
    now: Timestamp,
) -> AppInstance {
    let asked = an_instance_decision(policy, site, app, now);
    instances.commit_instance(None, &asked).await.expect("the request is stored");
    let approved = instance_decided(&asked.next, &InstanceEvent::InstanceApproved, &by_support(), now);
    instances.commit_instance(Some(&asked.next), &approved).await.expect("the approval is stored");
    let event = InstanceEvent::InstanceProvisioned { epoch: policy.fence.epoch };
    let active = instance_decided(&approved.next, &event, &by_claviger(), now);
    instances.commit_instance(Some(&approved.next), &active).await.expect("the instance is stored");
    active.next
}
