//! The vendor suspends, and lifts what it suspended (spec K1, S7). The cause stands beside the keys': each
//! comes and goes by its own rule, and the fence opens when none is left (I5).

use jiff::Timestamp;
use uuid::Uuid;

use crate::access::AccessStanding;
use crate::effect::Effect;
use crate::event::{Actor, Origin};
use crate::fact::derived_ticket_id;
use crate::fence::Cause;
use crate::observation::ProbeRound;
use crate::policy::EncryptionPolicy;
use crate::vendor::{Ground, VendorSuspension};

use super::health::all_usable;
use super::replacement::{needed, replacements_under_way};
use super::{Change, Refusal, Rules, illegal};

pub(super) fn vendor_suspended(
    rules: &Rules<'_>,
    policy: &EncryptionPolicy,
    ground: Ground,
    reason: &str,
    origin: &Origin,
    now: Timestamp,
) -> Result<Change, Refusal> {
    let Actor::Support(by) = &origin.actor else {
        return Err(Refusal::Forbidden { who: "a support agent" });
    };
    if !policy.lifecycle.is_watched() {
        return illegal(policy);
    }
    if policy.vendor.is_some() {
        return Err(Refusal::Redundant);
    }
    ground_stands(policy, ground, now)?;
    let mut next = policy.clone();
    next.fence = next.fence.closed_by(Cause::Vendor, now);
    let ticket = derived_ticket_id(next.id.as_uuid(), next.audit.seq.saturating_add(1), now);
    let title = rules.title(&next, |mode| &mode.suspension_title);
    let ends = match ground {
        Ground::Ordered => "support lifts it when its reason is gone; answer on this ticket",
        Ground::AccessRequest { .. } => {
            "accept the open access request (`GET .../access-requests`) and put its key policy on every key; \
             access returns when the permission is proven"
        }
    };
    let body = format!(
        "The vendor suspended access to the data of this organisation at {now:.0}: {reason}\nYour keys are \
         not the cause. There is no deadline, and nothing is deleted. How it ends: {ends}."
    );
    next.vendor =
        Some(VendorSuspension { since: now, ground, reason: reason.to_owned(), by: by.clone(), ticket });
    let mut effects = vec![Effect::OpenTicket { ticket, title, body }];
    // Behind a fence that is closed already everybody was told, or is being told, in the same epoch.
    if policy.fence.is_open() {
        effects.push(Effect::SuspendInstances { epoch: next.fence.epoch });
    }
    Ok(Change { next, effects })
}

/// INVARIANT (I5): a suspension over an access request is lifted by the proof of that very request, so the policy has to
/// have it. The vendor may suspend over one that was declined or ignored, over no other (spec K1).
fn ground_stands(policy: &EncryptionPolicy, ground: Ground, now: Timestamp) -> Result<(), Refusal> {
    let id = match ground {
        Ground::Ordered => return Ok(()),
        Ground::AccessRequest { request } => request,
    };
    let known = policy.access_requests.iter().find(|known| known.id == id);
    let reason = match known.map(|known| known.standing(now)) {
        Some(AccessStanding::Declined | AccessStanding::Ignored) => return Ok(()),
        Some(AccessStanding::Open) => "the organisation may still answer it",
        Some(AccessStanding::Accepted) => "it is accepted",
        None => "the organisation has none of this id",
    };
    Err(Refusal::NotAGround { reason })
}

pub(super) fn vendor_suspension_lifted(
    policy: &EncryptionPolicy,
    origin: &Origin,
    now: Timestamp,
) -> Result<Change, Refusal> {
    let Actor::Support(_) = origin.actor else {
        return Err(Refusal::Forbidden { who: "a support agent" });
    };
    // INVARIANT (I5): support lifts what support ordered, and nothing else.
    match policy.vendor.as_ref().map(|suspension| suspension.ground) {
        None => Err(Refusal::NotSuspendedBy { cause: Cause::Vendor }),
        Some(Ground::Ordered) => Ok(lifted(policy, "Support lifted the suspension.", now)),
        Some(Ground::AccessRequest { .. }) => {
            Err(Refusal::Forbidden { who: "the customer, by accepting the access request," })
        }
    }
}

pub(super) fn permission_proven(
    rules: &Rules<'_>,
    policy: &EncryptionPolicy,
    proven: Uuid,
    round: &ProbeRound,
    origin: &Origin,
    now: Timestamp,
) -> Result<Change, Refusal> {
    let Actor::Claviger(_) = origin.actor else {
        return Err(Refusal::Forbidden { who: "a probe" });
    };
    match policy.vendor.as_ref().map(|suspension| suspension.ground) {
        Some(Ground::AccessRequest { request }) if request == proven => {}
        Some(Ground::AccessRequest { .. } | Ground::Ordered) | None => return Err(Refusal::Redundant),
    }
    // It may have been opened again since: a key that was gone came back.
    if !policy.access_requests.iter().any(|known| known.id == proven && known.is_granted()) {
        return Err(Refusal::Stale);
    }
    // A key that is gone for good stands in nobody's way: it can be replaced only behind an open fence.
    let provable = policy.provable_regions();
    let gone = policy.keys.keys().filter(|region| !provable.contains(*region)).cloned().collect();
    all_usable(rules, &needed(policy, &gone), round, now)?;
    Ok(lifted(policy, "The permission that was asked for is proven.", now))
}

fn lifted(policy: &EncryptionPolicy, why: &str, now: Timestamp) -> Change {
    let mut next = policy.clone();
    next.fence = next.fence.lifted(Cause::Vendor, now);
    let ticket = next.vendor.take().map(|suspension| suspension.ticket);
    let (words, order) = if next.fence.is_open() {
        let order = Effect::RestoreInstances { epoch: next.fence.epoch };
        ("Access returns now; no acknowledged write was lost.", Some(order))
    } else {
        ("Access stays cut off for another cause, which has its own ticket.", None)
    };
    let body = format!("{why} {words}");
    let told = ticket.map(|ticket| Effect::ResolveTicket { ticket, body });
    let mut effects: Vec<Effect> = told.into_iter().chain(order).collect();
    if next.fence.is_open() {
        effects.extend(replacements_under_way(&next));
    }
    Change { next, effects }
}
