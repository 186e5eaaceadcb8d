//! Access requests: opened, accepted on proof, declined (spec K1).

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use uuid::Uuid;

use crate::access::{AccessAnswer, AccessRequest, KeyPermission, KeyPolicyTemplate};
use crate::effect::Effect;
use crate::event::{Actor, Origin};
use crate::fact::derived_ticket_id;
use crate::observation::{NoAnswerKind, Observation, RefusalKind};
use crate::policy::{EncryptionPolicy, KeyHealth};
use crate::values::Region;

use super::{Change, Refusal, illegal};

pub(super) fn access_requested(
    policy: &EncryptionPolicy,
    template: &KeyPolicyTemplate,
    now: Timestamp,
) -> Result<Change, Refusal> {
    if !policy.lifecycle.is_watched() {
        return illegal(policy);
    }
    if policy.access_requests.iter().any(|known| known.version == template.version) {
        return Err(Refusal::Redundant);
    }
    let mut next = policy.clone();
    let ticket = derived_ticket_id(next.id.as_uuid(), next.audit.seq.saturating_add(1), now);
    let request = AccessRequest::new(template, ticket, now);
    let actions: Vec<&str> = request.permissions.iter().map(|permission| permission.action()).collect();
    let body = format!(
        "The key policy of version {} asks for: {}.\nPut the policy that `GET .../key-policy` prints, with these \
         actions, on the key of every region, then accept access request {}. Decide by {:.0}. Declined or not \
         answered by then, there are no new apps, functions may fail, and the vendor may suspend access until the \
         permission is there. The policy that your keys have now goes on working.",
        request.version,
        actions.join(", "),
        request.id,
        request.decide_by
    );
    let title = format!("New permissions for the keys of AWS account {}", next.account);
    next.access_requests.push(request);
    Ok(Change { next, effects: vec![Effect::OpenTicket { ticket, title, body }] })
}

/// INVARIANT (K1): accepted is what probes proved in every region, whoever says what. A key that is gone for good proves
/// nothing; what takes its place does, before it counts.
pub(super) fn access_granted(
    policy: &EncryptionPolicy,
    id: Uuid,
    proven: &BTreeSet<Region>,
    origin: &Origin,
    now: Timestamp,
) -> Result<Change, Refusal> {
    let Actor::OrgAdmin(_) = origin.actor else {
        return Err(Refusal::Forbidden { who: "an org admin" });
    };
    let missing: BTreeMap<Region, Observation> = policy
        .provable_regions()
        .into_iter()
        .filter(|region| !proven.contains(region))
        .map(|region| (region, Observation::NoAnswer(NoAnswerKind::OurFault)))
        .collect();
    if !missing.is_empty() {
        return Err(Refusal::KeysNotUsable { faults: missing });
    }
    let unproven: BTreeSet<Region> = policy.keys.keys().filter(|of| !proven.contains(*of)).cloned().collect();
    let mut next = policy.clone();
    let request = asked(&mut next, id)?;
    if request.is_granted() {
        return Err(Refusal::Redundant);
    }
    request.answer = AccessAnswer::Granted { at: now };
    request.unproven = unproven;
    let ticket = request.ticket;
    let body = if request.unproven.is_empty() {
        "The access request is accepted: every region's key proved the permissions.".to_owned()
    } else {
        format!(
            "The access request is accepted: every key that is left proved the permissions. The key of {} is gone for \
             good; the one that takes its place has to prove them too.",
            named(&request.unproven)
        )
    };
    Ok(Change { next, effects: vec![Effect::ResolveTicket { ticket, body }] })
}

pub(super) fn access_declined(
    policy: &EncryptionPolicy,
    id: Uuid,
    origin: &Origin,
    now: Timestamp,
) -> Result<Change, Refusal> {
    let Actor::OrgAdmin(_) = origin.actor else {
        return Err(Refusal::Forbidden { who: "an org admin" });
    };
    let mut next = policy.clone();
    let request = asked(&mut next, id)?;
    match request.answer {
        AccessAnswer::Open => {}
        AccessAnswer::Declined { .. } => return Err(Refusal::Redundant),
        // What is proven is there; taking it back is done on the keys.
        AccessAnswer::Granted { .. } => return illegal(policy),
    }
    request.answer = AccessAnswer::Declined { at: now };
    let ticket = request.ticket;
    let body = "The access request is declined. There are no new apps while it is; it can still be accepted.";
    Ok(Change { next, effects: vec![Effect::CommentTicket { ticket, body: body.to_owned() }] })
}

/// INVARIANT (K1): what was accepted is proven on every key that takes another's place.
pub(super) fn give_what_was_accepted<'r>(
    policy: &EncryptionPolicy,
    regions: impl IntoIterator<Item = &'r Region>,
    proven: &BTreeSet<KeyPermission>,
) -> Result<(), Refusal> {
    if policy.granted_permissions().is_subset(proven) {
        return Ok(());
    }
    let denied = Observation::Refused(RefusalKind::AccessDenied);
    Err(Refusal::KeysNotUsable {
        faults: regions.into_iter().map(|region| (region.clone(), denied)).collect(),
    })
}

/// A key that was gone for good, and not asked, works after all: whether it gives the permission nobody knows.
///
/// INVARIANT (K1): what is shown as accepted is proven on every key that works.
pub(super) fn follow_up(change: &mut Change) {
    let next = &mut change.next;
    let works = |region: &Region| next.keys.get(region).is_some_and(|key| key.health == KeyHealth::Usable);
    for request in &mut next.access_requests {
        let back: BTreeSet<Region> =
            request.unproven.iter().filter(|region| works(region)).cloned().collect();
        if back.is_empty() || !request.is_granted() {
            continue;
        }
        request.answer = AccessAnswer::Open;
        request.unproven.clear();
        let body = format!(
            "The key of {} works again and has not proven the permissions: the access request is open. Put the key \
             policy that `GET .../key-policy` prints on it, then accept the request once more.",
            named(&back)
        );
        change.effects.push(Effect::CommentTicket { ticket: request.ticket, body });
    }
}

fn named(regions: &BTreeSet<Region>) -> String {
    let names: Vec<&str> = regions.iter().map(Region::as_str).collect();
    names.join(", ")
}

fn asked(policy: &mut EncryptionPolicy, id: Uuid) -> Result<&mut AccessRequest, Refusal> {
    policy.access_requests.iter_mut().find(|request| request.id == id).ok_or(Refusal::Stale)
}
