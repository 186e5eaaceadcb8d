//! From an accepted enrolment to an active policy.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::calendar::business_days_after;
use crate::effect::Effect;
use crate::enrolment::{Enrolment, Holding};
use crate::event::{Actor, Origin};
use crate::fact::AuditHead;
use crate::fence::{Epoch, Fence};
use crate::ids::PolicyId;
use crate::key_access::{CustomerRole, KeyAccess};
use crate::observation::ProbeRound;
use crate::organisation::Organisation;
use crate::policy::{EncryptionPolicy, KeyHealth, Lifecycle, RegionalKey};
use crate::values::{KeyArn, Region, ShardId};

use super::health::{all_usable, believe, observed};
use super::{Change, Decision, Refusal, Rules, committed, illegal};

/// Creates a policy from an accepted enrolment (spec E4: the store makes sure that it is the only one).
pub fn enrol(
    rules: &Rules<'_>,
    organisation: &Organisation,
    enrolment: &Enrolment,
    id: PolicyId,
    shard: ShardId,
    origin: &Origin,
    now: Timestamp,
) -> Result<Decision, Refusal> {
    let Actor::OrgAdmin(by) = &origin.actor else {
        return Err(Refusal::Forbidden { who: "an org admin" });
    };
    let due_at = due(rules, now);
    let self_service = rules.catalogue.self_service_approval;
    let lifecycle = if self_service {
        Lifecycle::Verifying { since: now, due_at }
    } else {
        Lifecycle::Requested { at: now, by: by.clone(), due_at }
    };
    let access = match &enrolment.holding {
        Holding::Cmk { .. } => KeyAccess::KeyPolicy,
        Holding::Byok { role_arn } => KeyAccess::Role(CustomerRole {
            arn: role_arn.clone(),
            external_id: organisation.external_id.clone(),
        }),
    };
    let keys = enrolment.keys().map(|(region, arn)| (region.clone(), unproven(arn, now)));
    let next = EncryptionPolicy {
        id,
        organisation: organisation.id,
        organisation_name: organisation.name.clone(),
        access,
        realm: enrolment.realm.clone(),
        account: enrolment.account.clone(),
        context_tag: enrolment.context_tag.clone(),
        shard,
        keys: keys.collect(),
        lifecycle,
        fence: Fence::default(),
        generation: 1,
        reencryption: None,
        former_keys: Vec::new(),
        reencryptions: Vec::new(),
        ticket: None,
        told_heard: Vec::new(),
        told_until: None,
        warning: None,
        access_requests: Vec::new(),
        told: Epoch::default(),
        vendor: None,
        records: None,
        key_change: None,
        reencryption_proposal: None,
        closing: None,
        erasure: None,
        lift: None,
        refused_for_certain: false,
        restoration_stopped_at: None,
        window_told: None,
        probed_at: None,
        refused_unwrap: None,
        audit: AuditHead::default(),
        version: 0,
    };
    let effects = if self_service { vec![Effect::VerifyPolicy] } else { Vec::new() };
    let event = serde_json::json!({ "event": "enrolment-requested", "enrolment": enrolment });
    Ok(committed(Change { next, effects }, "enrolment-requested", event, origin, now))
}

fn unproven(arn: &KeyArn, now: Timestamp) -> RegionalKey {
    RegionalKey {
        arn: arn.clone(),
        canary: None,
        health: KeyHealth::Unknown,
        since: now,
        replacement: None,
        outlook: None,
        lost_before: 0,
        given_up: false,
    }
}

pub(super) fn due(rules: &Rules<'_>, now: Timestamp) -> Timestamp {
    let rules = &rules.catalogue.due;
    business_days_after(rules, now, rules.provisioning_business_days)
}

pub(super) fn enrolment_approved(
    policy: &EncryptionPolicy,
    origin: &Origin,
    now: Timestamp,
) -> Result<Change, Refusal> {
    let Actor::Support(_) = origin.actor else {
        return Err(Refusal::Forbidden { who: "a support agent" });
    };
    match policy.lifecycle {
        Lifecycle::Requested { due_at, .. } => {
            let mut next = policy.clone();
            next.lifecycle = Lifecycle::Verifying { since: now, due_at };
            Ok(Change { next, effects: vec![Effect::VerifyPolicy] })
        }
        Lifecycle::Verifying { .. } => Err(Refusal::Redundant),
        Lifecycle::Active { .. }
        | Lifecycle::Suspended { .. }
        | Lifecycle::Restoring { .. }
        | Lifecycle::Lapsed { .. }
        | Lifecycle::Closed { .. }
        | Lifecycle::Rejected { .. } => illegal(policy),
    }
}

pub(super) fn enrolment_rejected(
    policy: &EncryptionPolicy,
    reason: &str,
    origin: &Origin,
    now: Timestamp,
) -> Result<Change, Refusal> {
    let Actor::Support(_) = origin.actor else {
        return Err(Refusal::Forbidden { who: "a support agent" });
    };
    match policy.lifecycle {
        // Also one that was approved: its keys may never stand the verification, or its records never allow it again.
        Lifecycle::Requested { .. } | Lifecycle::Verifying { .. } => {
            Ok(rejected(policy, reason.to_owned(), now))
        }
        Lifecycle::Active { .. }
        | Lifecycle::Suspended { .. }
        | Lifecycle::Restoring { .. }
        | Lifecycle::Lapsed { .. }
        | Lifecycle::Closed { .. }
        | Lifecycle::Rejected { .. } => illegal(policy),
    }
}

pub(super) fn rejected(policy: &EncryptionPolicy, reason: String, now: Timestamp) -> Change {
    let mut next = policy.clone();
    next.lifecycle = Lifecycle::Rejected { at: now, reason };
    Change { next, effects: Vec::new() }
}

/// The keys are recorded before they are proven, so that a crash in between knows them again.
pub(super) fn keys_created(
    rules: &Rules<'_>,
    policy: &EncryptionPolicy,
    keys: &BTreeMap<Region, KeyArn>,
    now: Timestamp,
) -> Result<Change, Refusal> {
    match (&policy.lifecycle, &policy.access) {
        (Lifecycle::Verifying { .. }, KeyAccess::Role(_)) => {}
        (Lifecycle::Verifying { .. }, KeyAccess::KeyPolicy)
        | (
            Lifecycle::Requested { .. }
            | Lifecycle::Active { .. }
            | Lifecycle::Suspended { .. }
            | Lifecycle::Restoring { .. }
            | Lifecycle::Lapsed { .. }
            | Lifecycle::Closed { .. }
            | Lifecycle::Rejected { .. },
            KeyAccess::Role(_) | KeyAccess::KeyPolicy,
        ) => return illegal(policy),
    }
    if !policy.keys.is_empty() {
        return Err(Refusal::Redundant);
    }
    // INVARIANT (E7): a key in every region of the realm, in the organisation's own account.
    let wanted = rules.catalogue.regions(&policy.realm).unwrap_or_default();
    let whole = wanted.len() == keys.len() && wanted.iter().all(|region| keys.contains_key(region));
    let own = keys.iter().all(|(region, arn)| arn.region() == region && *arn.account() == policy.account);
    if !whole || !own {
        return Err(Refusal::KeysNotUsable { faults: BTreeMap::new() });
    }
    let mut next = policy.clone();
    next.keys = keys.iter().map(|(region, arn)| (region.clone(), unproven(arn, now))).collect();
    Ok(Change { next, effects: Vec::new() })
}

pub(super) fn keys_verified(
    rules: &Rules<'_>,
    policy: &EncryptionPolicy,
    canaries: &BTreeMap<Region, String>,
    round: &ProbeRound,
    now: Timestamp,
) -> Result<Change, Refusal> {
    match policy.lifecycle {
        Lifecycle::Verifying { .. } => {}
        Lifecycle::Active { .. } => return Err(Refusal::Redundant),
        Lifecycle::Requested { .. }
        | Lifecycle::Suspended { .. }
        | Lifecycle::Restoring { .. }
        | Lifecycle::Lapsed { .. }
        | Lifecycle::Closed { .. }
        | Lifecycle::Rejected { .. } => return illegal(policy),
    }
    all_usable(rules, policy, round, now)?;
    // Without keys every key is usable, and nothing is proven.
    if policy.keys.is_empty() || !policy.keys.keys().all(|region| canaries.contains_key(region)) {
        return Err(Refusal::KeysNotUsable { faults: BTreeMap::new() });
    }
    let mut next = policy.clone();
    for (region, key) in &mut next.keys {
        key.canary = canaries.get(region).cloned();
    }
    believe(&mut next, &observed(rules, policy, round), round);
    next.lifecycle = Lifecycle::Active { since: now };
    Ok(Change { next, effects: Vec::new() })
}

pub(super) fn verification_failed(
    policy: &EncryptionPolicy,
    faults: &BTreeMap<Region, String>,
    now: Timestamp,
) -> Result<Change, Refusal> {
    let Lifecycle::Verifying { .. } = policy.lifecycle else {
        return illegal(policy);
    };
    let list: Vec<String> = faults.iter().map(|(region, fault)| format!("{region}: {fault}")).collect();
    Ok(rejected(policy, format!("the keys did not stand the verification ({})", list.join("; ")), now))
}
