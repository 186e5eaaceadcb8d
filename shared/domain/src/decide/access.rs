//! Access requests: opened, accepted on proof, declined (spec K1).

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use uuid::Uuid;

use crate::access::{AccessAnswer, AccessRequest, KeyPolicyTemplate};
use crate::effect::Effect;
use crate::event::{Actor, Origin};
use crate::fact::derived_ticket_id;
use crate::observation::{NoAnswerKind, Observation};
use crate::policy::EncryptionPolicy;
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

/// INVARIANT (K1): accepted is what probes proved in every region, whoever says what.
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
        .keys
        .keys()
        .filter(|region| !proven.contains(*region))
        .map(|region| (region.clone(), Observation::NoAnswer(NoAnswerKind::OurFault)))
        .collect();
    if !missing.is_empty() {
        return Err(Refusal::KeysNotUsable { faults: missing });
    }
    let mut next = policy.clone();
    let request = asked(&mut next, id)?;
    if let AccessAnswer::Granted { .. } = request.answer {
        return Err(Refusal::Redundant);
    }
    request.answer = AccessAnswer::Granted { at: now };
    let ticket = request.ticket;
    let body = "The access request is accepted: every region's key proved the permissions.".to_owned();
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

fn asked(policy: &mut EncryptionPolicy, id: Uuid) -> Result<&mut AccessRequest, Refusal> {
    policy.access_requests.iter_mut().find(|request| request.id == id).ok_or(Refusal::Stale)
}
